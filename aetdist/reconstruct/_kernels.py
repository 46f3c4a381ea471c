"""Arithmetic of the solvers: fused updates over a volume, residuals over the images."""

from __future__ import annotations

import numpy as np

from .._jit import njit

_LOWEST = float(np.finfo(np.float32).min)  # fastmath knows no infinity


@njit(fastmath=True)
def constrain(iterate, ahead, support, positivity):
    """Finish a gradient step: project it onto the constraints and keep the move it makes.

    Parameters
    ----------
    iterate : float32 (voxels,)
        x_k; becomes x_{k+1}.
    ahead : float32 (voxels,)
        The gradient step from the extrapolated volume; becomes x_{k+1} - x_k.
    support : bool (voxels,) or empty
        Voxels that may differ from 0; all of them where empty.
    positivity : bool
        x >= 0 where True.
    """
    floor = np.float32(0.0) if positivity else np.float32(_LOWEST)
    if support.size > 0:
        for i in range(iterate.size):
            new = max(ahead[i], floor) if support[i] else np.float32(0.0)
            ahead[i] = new - iterate[i]
            iterate[i] = new
    else:
        for i in range(iterate.size):
            new = max(ahead[i], floor)
            ahead[i] = new - iterate[i]
            iterate[i] = new


@njit(fastmath=True)
def extrapolate(iterate, move, momentum):
    """Move <- iterate + momentum * move, in place. float32 (voxels,)."""
    for i in range(iterate.size):
        move[i] = iterate[i] + momentum * move[i]


@njit
def masked_residual(calculated, measured, mask, residual):
    """Residual = measured - calculated where mask, else 0; sums over the mask: |residual|, |measured|, residual^2."""
    difference, total, squares = 0.0, 0.0, 0.0
    for i in range(calculated.size):
        if mask[i]:
            residual[i] = measured[i] - calculated[i]
            difference += abs(residual[i])
            total += abs(measured[i])
            squares += np.float64(residual[i]) * residual[i]
        else:
            residual[i] = np.float32(0)
    return difference, total, squares
