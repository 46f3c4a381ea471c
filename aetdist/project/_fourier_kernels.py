"""Interpolation between an oversampled 3D spectrum and its central slices: the arithmetic.

The spectrum of a real volume is kept for frequencies x >= 0 as float32 pairs (re, im), shape
(y, z, 2 columns); `EDGE` columns more on either side hold what the symmetry says is there, so that
the inner loop runs along contiguous memory. Its y and z axes are periodic.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

WIDTH = 6  # grid points that a sample takes from along every axis
EDGE = WIDTH // 2


@njit(fastmath=True)
def interpolation_weights(c: float, polynomials: np.ndarray, weights: np.ndarray) -> int:
    """Weights of the `WIDTH` grid points about `c`; gives the first of them.

    Parameters
    ----------
    c : float
        In steps of the grid.
    polynomials : ndarray, shape (degree + 1, WIDTH), float32
        Coefficients, lowest first, of every weight as a function of how far the first point lies
        above ``c - WIDTH / 2``, 0 to 1.
    weights : ndarray, shape (WIDTH,), float32
        Receives the weights.
    """
    first = math.ceil(c - 0.5 * WIDTH)
    fraction = np.float32(first - (c - 0.5 * WIDTH))
    weights[:] = polynomials[-1]
    for d in range(polynomials.shape[0] - 2, -1, -1):
        for i in range(WIDTH):
            weights[i] = weights[i] * fraction + polynomials[d, i]
    return first


@njit(inline="always")
def periodic(i: int, size: int) -> int:
    """Index -size <= i < size of a periodic axis, counted from its beginning: quicker than a remainder."""
    return i + size if i < 0 else i


@njit
def grid_point(rotation, v, u, period, sizes, centre):
    """Where frequency (v, u) of a projection lies in the spectrum; gives the sign that brings it to x >= 0.

    Parameters
    ----------
    rotation : ndarray, shape (3, 3), float64
        ``lab = R @ sample``.
    v, u : int
        Cycles in a period.
    period : ndarray, shape (2,), int64
        Pixels (y, x) in a period of the image.
    sizes : ndarray, shape (3,), int64
        Grid points (y, z, x) of the spectrum's periods.
    centre : ndarray, shape (3,), float64
        Receives the point (y, z, x).

    Returns
    -------
    int
        1, -1 where the conjugate is meant, 0 beyond the band of the voxels (half a cycle a voxel).
    """
    fy, fx = v / period[0], u / period[1]
    centre[0] = fx * rotation[0, 1] + fy * rotation[1, 1]
    centre[1] = fx * rotation[0, 2] + fy * rotation[1, 2]
    centre[2] = fx * rotation[0, 0] + fy * rotation[1, 0]
    if max(abs(centre[0]), abs(centre[1]), abs(centre[2])) > 0.5:
        return 0
    sign = 1 if centre[2] >= 0.0 else -1
    for a in range(3):
        centre[a] *= sign * sizes[a]
    return sign


@njit(fastmath=True)
def gather_slice(spectrum, sizes, polynomials, rotation, period, out):
    """Take a central slice, perpendicular to the beam, from the spectrum.

    Parameters
    ----------
    spectrum : ndarray, shape (y, z, 2 columns), float32
    sizes, rotation, period
        As in :func:`grid_point`.
    polynomials
        As in :func:`interpolation_weights`.
    out : ndarray, shape (period y, period x // 2 + 1), complex64
        Receives the half spectrum of the projection, frequencies in the order of an FFT.
    """
    flat, plane, line = spectrum.reshape(-1), spectrum.shape[1] * spectrum.shape[2], spectrum.shape[2]
    centre, lines = np.empty(3), np.empty(WIDTH, np.int64)
    wy, wz, wx = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    total = np.empty(2 * WIDTH, np.float32)
    for row in range(out.shape[0]):
        v = row if 2 * row < period[0] else row - period[0]
        for u in range(out.shape[1]):
            sign = grid_point(rotation, v, u, period, sizes, centre)
            if sign == 0:
                out[row, u] = 0
                continue
            y0 = interpolation_weights(centre[0], polynomials, wy)
            z0 = interpolation_weights(centre[1], polynomials, wz)
            x0 = 2 * (interpolation_weights(centre[2], polynomials, wx) + EDGE)
            for k in range(WIDTH):
                lines[k] = periodic(z0 + k, sizes[1]) * line + x0
            total[:] = 0
            for j in range(WIDTH):
                first = periodic(y0 + j, sizes[0]) * plane
                for k in range(WIDTH):
                    p, weight = np.uint64(first + lines[k]), wy[j] * wz[k]
                    for i in range(np.uint64(2 * WIDTH)):
                        total[i] += weight * flat[p + i]
            real = imaginary = np.float32(0)
            for i in range(WIDTH):
                real += wx[i] * total[2 * i]
                imaginary += wx[i] * total[2 * i + 1]
            out[row, u] = complex(real, sign * imaginary)


@njit(fastmath=True)
def scatter_slices(slices, sizes, polynomials, rotations, period, spectrum, start, stop):
    """Add the slices to rows `start`..`stop` - 1 (along y) of the spectrum: the transpose of :func:`gather_slice`.

    A slice stands for itself and its mirror image, which the caller folds in; its column of zero
    frequency holds both and counts half. Every grid point gets its sum in the order of the slices,
    however the rows are shared out among threads.
    """
    flat, plane, line = spectrum.reshape(-1), spectrum.shape[1] * spectrum.shape[2], spectrum.shape[2]
    centre, lines = np.empty(3), np.empty(WIDTH, np.int64)
    wy, wz, wx = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32)
    value = np.empty(2 * WIDTH, np.float32)
    for t in range(slices.shape[0]):
        for row in range(slices.shape[1]):
            v = row if 2 * row < period[0] else row - period[0]
            for u in range(slices.shape[2]):
                sign = grid_point(rotations[t], v, u, period, sizes, centre)
                if sign == 0:
                    continue
                y0 = math.ceil(centre[0] - 0.5 * WIDTH)
                if (start - y0) % sizes[0] >= WIDTH and (y0 - start) % sizes[0] >= stop - start:
                    continue
                interpolation_weights(centre[0], polynomials, wy)
                z0 = interpolation_weights(centre[1], polynomials, wz)
                x0 = 2 * (interpolation_weights(centre[2], polynomials, wx) + EDGE)
                share = np.float32(0.5 if u == 0 else 1.0)
                real, imaginary = share * slices[t, row, u].real, share * sign * slices[t, row, u].imag
                for i in range(WIDTH):
                    value[2 * i] = wx[i] * real
                    value[2 * i + 1] = wx[i] * imaginary
                for k in range(WIDTH):
                    lines[k] = periodic(z0 + k, sizes[1]) * line + x0
                for j in range(WIDTH):
                    y = periodic(y0 + j, sizes[0])
                    if y < start or y >= stop:
                        continue
                    for k in range(WIDTH):
                        p, weight = np.uint64(y * plane + lines[k]), wy[j] * wz[k]
                        for i in range(np.uint64(2 * WIDTH)):
                            flat[p + i] += weight * value[i]
