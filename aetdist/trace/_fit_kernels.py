"""A polynomial fitted around each maximum of the upsampled grid (numpy and Numba only)."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit
from ..voxels._spline_kernels import sample_box, sample_reach

SAMPLES = 7  # per axis of the fitted box


def fit_matrix(width: float) -> np.ndarray:
    """Columns that take samples of a box to the coefficients of the fitted polynomial up to second order.

    Parameters
    ----------
    width : float
        Standard deviation of the Gaussian weight, in half boxes.

    Returns
    -------
    ndarray, shape (343, 10), float64
        Of 1, z, y, x, zz, yy, xx, zy, zx, yx; the box reaches from -1 to 1; samples in C order (z, y, x).

    Notes
    -----
    All 35 terms up to fourth order are fitted by weighted least squares; only ten are used.
    """
    s = np.linspace(-1, 1, SAMPLES)
    z, y, x = (a.ravel() for a in np.meshgrid(s, s, s, indexing="ij"))
    first = [
        (0, 0, 0),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (2, 0, 0),
        (0, 2, 0),
        (0, 0, 2),
        (1, 1, 0),
        (1, 0, 1),
        (0, 1, 1),
    ]
    powers = [(a, b, c) for a in range(5) for b in range(5) for c in range(5) if a + b + c <= 4]
    powers = first + [p for p in powers if p not in first]
    terms = np.stack([z**a * y**b * x**c for a, b, c in powers], axis=1)
    weighted = terms * np.exp(-0.5 * (z**2 + y**2 + x**2) / width**2)[:, None]
    # Normal equations by plain sums and one small solve: fast, and the same bits however many threads BLAS takes.
    columns = np.linalg.solve(np.einsum("si,sj->ij", weighted, terms), weighted.T)[: len(first)]
    return np.ascontiguousarray(columns.T)


def fit_reach(step: float) -> int:
    """Coefficients that :func:`fit_peaks` reads on either side of a maximum's voxel; samples `step` voxels apart."""
    return sample_reach(2 * (SAMPLES // 2) * step + 1 / 3)


@njit
def fit_peaks(coefficients, margin, maxima, matrix, step, iterations):
    """Sub-voxel position and height of maxima by a polynomial fitted around each.

    Parameters
    ----------
    coefficients : ndarray, shape (z, y, x), float32
        Spline coefficients of a block.
    margin : int
        Voxels of `coefficients` before the block's core; see :func:`fit_reach`.
    maxima : ndarray, shape (n, 3), int32
        From :func:`find_maxima`.
    matrix : ndarray, shape (343, 10), float64
        From :func:`fit_matrix`.
    step : float
        Distance of the samples of the box in voxels.
    iterations : int
        At most so many times is the box centred on the maximum of its polynomial.

    Returns
    -------
    offset : ndarray, shape (n, 3), float64
        Position (z, y, x) from voxel ``(maxima + 1) // 3``, in voxels.
    height : ndarray, shape (n,), float64
        The polynomial at that position.
    mean : ndarray, shape (n,), float64
        Mean of the volume over the box around that position.
    fitted : ndarray, shape (n,), bool
        False where the polynomial has no maximum within half a box of the upsampled grid's: position and
        height are then those of the upsampled grid.
    """
    n = len(maxima)
    half = (SAMPLES // 2) * step
    reach = math.ceil(2 * half + 1 / 3) + 2  # as fit_reach
    m = 2 * reach + 1
    offset = np.empty((n, 3))
    height = np.empty(n)
    mean = np.empty(n)
    fitted = np.zeros(n, dtype=np.bool_)
    nodes = (np.arange(SAMPLES) - SAMPLES // 2) * step
    weights = np.empty((SAMPLES, 4))
    first = np.empty(SAMPLES, dtype=np.int64)
    patch = np.empty((m, m, m))
    along_x = np.empty((m, m, SAMPLES))
    along_y = np.empty((m, SAMPLES, SAMPLES))
    samples = np.empty(SAMPLES**3)
    c = np.empty(10)
    o = np.empty(3)
    start = np.empty(3)
    for i in range(n):
        z, y, x = (maxima[i, 0] + 1) // 3, (maxima[i, 1] + 1) // 3, (maxima[i, 2] + 1) // 3
        # The difference in whole numbers: maxima / 3 - z would round otherwise in another block.
        start[0], start[1], start[2] = (
            (maxima[i, 0] - 3 * z) / 3,
            (maxima[i, 1] - 3 * y) / 3,
            (maxima[i, 2] - 3 * x) / 3,
        )
        z, y, x = z + margin - reach, y + margin - reach, x + margin - reach
        patch[:] = coefficients[z : z + m, y : y + m, x : x + m]
        o[:] = start
        for _ in range(iterations):
            sample_box(patch, o, nodes, weights, first, along_x, along_y, samples)
            c[:] = 0.0
            for s in range(SAMPLES**3):
                value = samples[s]
                for k in range(10):
                    c[k] += matrix[s, k] * value
            # Newton step of the polynomial: A d = g with A = minus its second derivatives.
            a, b, e, f, g, h = -2 * c[4], -2 * c[5], -2 * c[6], -c[7], -c[8], -c[9]
            minor = a * b - f * f
            determinant = e * minor - a * h * h - b * g * g + 2 * f * g * h
            if not (a > 0 and minor > 0 and determinant > 0):
                break
            dz = ((b * e - h * h) * c[1] + (g * h - f * e) * c[2] + (f * h - b * g) * c[3]) / determinant
            dy = ((g * h - f * e) * c[1] + (a * e - g * g) * c[2] + (f * g - a * h) * c[3]) / determinant
            dx = ((f * h - b * g) * c[1] + (f * g - a * h) * c[2] + (a * b - f * f) * c[3]) / determinant
            length = math.sqrt(dz * dz + dy * dy + dx * dx)
            shrink = half * min(1.0, 0.5 / max(length, 1e-300))
            o[0] += shrink * dz
            o[1] += shrink * dy
            o[2] += shrink * dx
            if max(abs(o[0] - start[0]), abs(o[1] - start[1]), abs(o[2] - start[2])) > half:
                break
            if length < 1e-4:
                fitted[i] = True
                break
        if not fitted[i]:
            o[:] = start
            sample_box(patch, o, nodes, weights, first, along_x, along_y, samples)
            height[i] = samples[len(samples) // 2]
        else:
            height[i] = c[0]
        offset[i] = o
        total = 0.0
        for s in range(SAMPLES**3):
            total += samples[s]
        mean[i] = total / SAMPLES**3
    return offset, height, mean, fitted
