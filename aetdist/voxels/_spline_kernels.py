"""The cubic B-spline through the voxels of a volume (numpy and Numba only).

Everything is a sum of fixed length over neighbouring voxels, in one order, so that a voxel's numbers do not
depend on the block it is computed in.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

SPLINE_POLE = math.sqrt(3.0) - 2.0


def filter_taps(sigma: float, tolerance: float = 1e-7) -> np.ndarray:
    """One-dimensional filter from voxels to spline coefficients, smoothed by a Gaussian.

    Parameters
    ----------
    sigma : float
        Standard deviation of the Gaussian in voxels; 0 does not smooth.
    tolerance : float
        What the cut-off taps sum to, relative to the sum of all, at most.

    Returns
    -------
    ndarray, shape (r + 1,), float32
        Tap of the voxel itself and of the voxels 1..r away, either side.

    Notes
    -----
    Interpolation c -> (c[i-1] + 4 c[i] + c[i+1]) / 6 is undone by the taps sqrt(3) z^|j| with
    z = sqrt(3) - 2 (M. Unser, IEEE Signal Process. Mag. 16 (6), 22 (1999)), which fall by 3.7 per voxel.
    """
    reach = 40 + math.ceil(6 * sigma)
    j = np.arange(-reach, reach + 1)
    taps = math.sqrt(3.0) * SPLINE_POLE ** np.abs(j)
    if sigma > 0:
        gaussian = np.exp(-0.5 * (j / sigma) ** 2)
        taps = np.convolve(taps, gaussian / gaussian.sum(), mode="same")
    half = taps[reach:]
    tail = 2 * np.cumsum(np.abs(half[::-1]))[::-1]
    r = int(np.argmax(tail[1:] < tolerance))
    half = half[: r + 1]
    return (half / (half[0] + 2 * half[1:].sum())).astype(np.float32)


def spline_weights(t: np.ndarray) -> np.ndarray:
    """Weights of the coefficients k-1..k+2 at k + t, for t in [0, 1); shape (len(t), 4)."""
    t = np.asarray(t, dtype=np.float64)
    return np.stack([(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], axis=-1) / 6


@njit
def _filter_row(rows, taps, first, out):
    """Weighted sum of the rows around row ``first + len(taps) - 1``; two rows either side at a time."""
    r = len(taps) - 1
    centre, t = rows[first + r], taps[0]
    for x in range(len(out)):
        out[x] = t * centre[x]
    j = 1
    while j < r:
        t, a, b = taps[j], rows[first + r - j], rows[first + r + j]
        u, c, d = taps[j + 1], rows[first + r - j - 1], rows[first + r + j + 1]
        for x in range(len(out)):
            out[x] = out[x] + t * (a[x] + b[x]) + u * (c[x] + d[x])
        j += 2
    if j == r:
        t, a, b = taps[j], rows[first + r - j], rows[first + r + j]
        for x in range(len(out)):
            out[x] = out[x] + t * (a[x] + b[x])


@njit
def _filter_line(line, taps, out):
    """As :func:`_filter_row`, along one row."""
    r, n = len(taps) - 1, len(out)
    centre, t = line[r : r + n], taps[0]
    for x in range(n):
        out[x] = t * centre[x]
    j = 1
    while j < r:
        t, a, b = taps[j], line[r - j : r - j + n], line[r + j : r + j + n]
        u, c, d = taps[j + 1], line[r - j - 1 : r - j - 1 + n], line[r + j + 1 : r + j + 1 + n]
        for x in range(n):
            out[x] = out[x] + t * (a[x] + b[x]) + u * (c[x] + d[x])
        j += 2
    if j == r:
        t, a, b = taps[j], line[r - j : r - j + n], line[r + j : r + j + n]
        for x in range(n):
            out[x] = out[x] + t * (a[x] + b[x])


@njit
def filter_axes(volume, taps):
    """Filter along z, y and x; the result lacks ``len(taps) - 1`` voxels on every side; float32."""
    r = len(taps) - 1
    nz, ny, nx = volume.shape[0] - 2 * r, volume.shape[1] - 2 * r, volume.shape[2] - 2 * r
    plane = np.empty((volume.shape[1], volume.shape[2]), dtype=np.float32)
    row = np.empty(volume.shape[2], dtype=np.float32)
    out = np.empty((nz, ny, nx), dtype=np.float32)
    for z in range(nz):
        for y in range(len(plane)):
            _filter_row(volume[:, y], taps, z, plane[y])
        for y in range(ny):
            _filter_row(plane, taps, y, row)
            _filter_line(row, taps, out[z, y])
    return out


def sample_reach(farthest: float) -> int:
    """Coefficients that :func:`sample_box` reads on either side of a voxel for samples up to `farthest` voxels off."""
    return math.ceil(farthest) + 2


@njit
def _axis_weights(offset, nodes, weights, first):
    """Spline weights of the samples of one axis; `first` gets their first coefficient, relative to the voxel."""
    for s in range(len(nodes)):
        u = offset + nodes[s]
        k = math.floor(u)
        t = u - k
        first[s] = k - 1
        weights[s, 0] = (1 - t) ** 3 / 6
        weights[s, 1] = (4 - 6 * t * t + 3 * t * t * t) / 6
        weights[s, 2] = (1 + 3 * t + 3 * t * t - 3 * t * t * t) / 6
        weights[s, 3] = t * t * t / 6


@njit
def sample_box(patch, offset, nodes, weights, first, along_x, along_y, samples):
    """The spline on n^3 points of a box, the same n along every axis.

    Parameters
    ----------
    patch : ndarray, shape (m, m, m), float64
        Coefficients around a voxel, m odd, :func:`sample_reach` of them on either side.
    offset : ndarray, shape (3,), float64
        Middle of the box (z, y, x) from the patch's middle voxel, in voxels.
    nodes : ndarray, shape (n,), float64
        Where along an axis the samples are, in voxels from the middle of the box.
    weights, first, along_x, along_y : ndarray
        Work space: (n, 4) and (m, m, n), (m, n, n) float64, (n,) int64.
    samples : ndarray, shape (n^3,), float64
        Receives the samples in C order (z, y, x).
    """
    m, n = patch.shape[0], len(nodes)
    half = m // 2
    _axis_weights(offset[2], nodes, weights, first)
    for s in range(n):
        k, w0, w1, w2, w3 = half + first[s], weights[s, 0], weights[s, 1], weights[s, 2], weights[s, 3]
        for z in range(m):
            for y in range(m):
                p = patch[z, y]
                along_x[z, y, s] = w0 * p[k] + w1 * p[k + 1] + w2 * p[k + 2] + w3 * p[k + 3]
    _axis_weights(offset[1], nodes, weights, first)
    for z in range(m):
        for s in range(n):
            k, w0, w1, w2, w3 = half + first[s], weights[s, 0], weights[s, 1], weights[s, 2], weights[s, 3]
            p = along_x[z]
            for x in range(n):
                along_y[z, s, x] = w0 * p[k, x] + w1 * p[k + 1, x] + w2 * p[k + 2, x] + w3 * p[k + 3, x]
    _axis_weights(offset[0], nodes, weights, first)
    i = 0
    for s in range(n):
        k, w0, w1, w2, w3 = half + first[s], weights[s, 0], weights[s, 1], weights[s, 2], weights[s, 3]
        p = along_y
        for y in range(n):
            for x in range(n):
                samples[i] = w0 * p[k, y, x] + w1 * p[k + 1, y, x] + w2 * p[k + 2, y, x] + w3 * p[k + 3, y, x]
                i += 1
