"""Arithmetic of the solvers: one pass over the volume and one over the images for every update.

Without fastmath where values are stored: what a voxel or pixel becomes must not depend on how the work was cut.
"""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def constrain(volume, support, positivity, first, last):
    """Project a volume onto the constraints, in place.

    Parameters
    ----------
    volume : float32 (voxels,)
    support : bool (voxels,) or empty
        Voxels that may differ from 0; all of them where empty.
    positivity : bool
        x >= 0 where True.
    first, last : int
        Voxels to do.
    """
    zero = np.float32(0.0)
    if positivity:
        for i in range(first, last):
            volume[i] = volume[i] if volume[i] > zero else zero
    if support.size > 0:
        for i in range(first, last):
            volume[i] = volume[i] if support[i] else zero


@njit
def advance(iterate, ahead, support, positivity, momentum, first, last):
    """Finish an accelerated step: project it onto the constraints and extrapolate, in one pass.

    Parameters
    ----------
    iterate : float32 (voxels,)
        x_k; becomes x_{k+1}.
    ahead : float32 (voxels,)
        The gradient step from the extrapolated volume; becomes x_{k+1} + momentum (x_{k+1} - x_k).
    support, positivity, first, last
        See `constrain`.
    momentum : float32
    """
    zero = np.float32(0.0)
    if support.size > 0:
        for i in range(first, last):
            new = ahead[i] if (ahead[i] > zero or not positivity) and support[i] else zero
            ahead[i] = new + momentum * (new - iterate[i])
            iterate[i] = new
    elif positivity:
        for i in range(first, last):
            new = ahead[i] if ahead[i] > zero else zero
            ahead[i] = new + momentum * (new - iterate[i])
            iterate[i] = new
    else:
        for i in range(first, last):
            new = ahead[i]
            ahead[i] = new + momentum * (new - iterate[i])
            iterate[i] = new


@njit
def add_scaled(iterate, change, scale, first, last):
    """Iterate <- iterate + scale * change, change <- 0. float32 (voxels,)."""
    for i in range(first, last):
        iterate[i] += scale[i] * change[i]
        change[i] = np.float32(0.0)


@njit(fastmath={"reassoc"})
def compare(calculated, previous, measured, roles, tilts, factors, momentum, sums, first, last):
    """Hold projections against the images; the scaled residual of the extrapolated ones takes the place of `previous`.

    Parameters
    ----------
    calculated : float32 (n, pixels)
        Projections of the iterate.
    previous : float32 (n, pixels)
        Those of the iterate before (the same array as `calculated` where there is no momentum); becomes
        factor * (measured - calculated - momentum * (calculated - previous)) on fitted pixels, else 0.
    measured : float32 (tilt, pixels)
    roles : uint8 (tilt, pixels)
        0: not measured, 1: fitted, 2: held out.
    tilts : int64 (n,)
        The tilts that `calculated` holds.
    factors : float32 (tilt,)
    momentum : float32
    sums : float64 (tilt, 3)
        Of a tilt: |residual| and residual^2 over the fitted pixels, residual^2 over those held out.
    first, last : int
        Which of the n to do.
    """
    zero = np.float32(0.0)
    for k in range(first, last):
        t = tilts[k]
        image, seen, c, p, factor = measured[t], roles[t], calculated[k], previous[k], factors[t]
        absolute, squares, held_squares = 0.0, 0.0, 0.0
        for i in range(c.size):
            fitted = seen[i] == 1
            held = seen[i] == 2
            residual = image[i] - c[i]
            ahead = factor * (residual - momentum * (c[i] - p[i]))
            p[i] = ahead if fitted else zero
            here = np.float64(residual if fitted else zero)
            there = np.float64(residual if held else zero)
            absolute += abs(here)
            squares += here * here
            held_squares += there * there
        sums[t, 0], sums[t, 1], sums[t, 2] = absolute, squares, held_squares
