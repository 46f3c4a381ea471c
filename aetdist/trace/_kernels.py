"""Spline upsampling and its local maxima (numpy and Numba only)."""

from __future__ import annotations

import numpy as np

from .._jit import njit

TILE = 32  # voxels; the planes that a tile keeps fit a core's cache


@njit
def density_moments(volume):
    """Sum and sum of squares of the positive values of a volume (z, y, x), its least and its largest value; float64."""
    total = square = 0.0
    least, largest = np.inf, -np.inf
    for z in range(volume.shape[0]):
        for y in range(volume.shape[1]):
            row = volume[z, y]
            for x in range(len(row)):
                value = np.float64(row[x])
                least, largest = min(least, value), max(largest, value)
                if value > 0:
                    total += value
                    square += value * value
    return total, square, least, largest


@njit
def cell_means(volume, factor):
    """Means over cells of factor^3 voxels of a volume (z, y, x), those at the far faces of what there is; float32."""
    nz, ny, nx = volume.shape
    out = np.empty((-(-nz // factor), -(-ny // factor), -(-nx // factor)), dtype=np.float32)
    row = np.empty(nx)
    for z in range(out.shape[0]):
        z0, z1 = z * factor, min((z + 1) * factor, nz)
        for y in range(out.shape[1]):
            y0, y1 = y * factor, min((y + 1) * factor, ny)
            row[:] = 0.0
            for k in range(z0, z1):
                for j in range(y0, y1):
                    line = volume[k, j]
                    for i in range(nx):
                        row[i] += line[i]
            for x in range(out.shape[2]):
                x0, x1 = x * factor, min((x + 1) * factor, nx)
                total = 0.0
                for i in range(x0, x1):
                    total += row[i]
                out[z, y, x] = total / ((z1 - z0) * (y1 - y0) * (x1 - x0))
    return out


@njit
def _is_maximum(below, here, above, y, x):
    """Larger than the neighbours before it in C order, not smaller than those after it."""
    v = here[y, x]
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            if v <= below[y + dy, x + dx] or v < above[y + dy, x + dx]:
                return False
    return not (v <= here[y - 1, x - 1] or v <= here[y - 1, x + 1] or v < here[y + 1, x - 1] or v < here[y + 1, x + 1])


@njit
def _combine(a, b, c, d, weights, out):
    """Four rows, weighted and summed."""
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for i in range(len(out)):
        out[i] = w0 * a[i] + w1 * b[i] + w2 * c[i] + w3 * d[i]


@njit
def _upsample_plane(plane, weights, floor, lines, out, live):
    """One plane of coefficients along x and y; `live` rows have a value above the floor."""
    ny, nx = plane.shape
    fy, fx = 3 * (ny - 4) + 2, 3 * (nx - 4) + 2
    for y in range(ny):
        row, line = plane[y], lines[y]
        # Point i is at phase (i + 1) % 3 after coefficient (i + 1) // 3 + 1.
        for phase in range(3):
            w0, w1, w2, w3 = weights[phase, 0], weights[phase, 1], weights[phase, 2], weights[phase, 3]
            start = 1 if phase == 0 else 0  # the point before the first is not needed
            for k in range(start, nx - 3):
                line[3 * k + phase - 1] = w0 * row[k] + w1 * row[k + 1] + w2 * row[k + 2] + w3 * row[k + 3]
    for y in range(fy):
        k = (y + 1) // 3
        row = out[y, :fx]
        _combine(lines[k, :fx], lines[k + 1, :fx], lines[k + 2, :fx], lines[k + 3, :fx], weights[(y + 1) % 3], row)
        count = 0
        for x in range(fx):
            count += row[x] > floor
        live[y] = count > 0


@njit
def _combine_planes(planes, live_rows, k, weights, fy, fx, out, live):
    """A plane of the upsampled grid; rows that cannot rise above the floor become -inf."""
    a, b, c, d = planes[k % 4], planes[(k + 1) % 4], planes[(k + 2) % 4], planes[(k + 3) % 4]
    for y in range(fy):
        live[y] = live_rows[0, y] or live_rows[1, y] or live_rows[2, y] or live_rows[3, y]
        if live[y]:
            _combine(a[y, :fx], b[y, :fx], c[y, :fx], d[y, :fx], weights, out[y, :fx])
        else:
            out[y, :fx] = -np.inf


@njit
def _scan_row(row, before, after, below, above, floor, hits):
    """Where a row is larger than its six nearest neighbours (as :func:`_is_maximum`); how many such points."""
    count = 0
    for x in range(1, len(row) - 1):
        v = row[x]
        hit = (
            (v > floor)
            & (v > row[x - 1])
            & (v >= row[x + 1])
            & (v > before[x])
            & (v >= after[x])
            & (v > below[x])
            & (v >= above[x])
        )
        hits[x] = hit
        count += hit
    return count


@njit
def _rises_above(tile, floor):
    """Whether any value of the tile is larger than the floor."""
    for z in range(tile.shape[0]):
        for y in range(tile.shape[1]):
            row = tile[z, y]
            count = 0
            for x in range(len(row)):
                count += row[x] > floor
            if count > 0:
                return True
    return False


@njit
def find_maxima(coefficients, margin, weights, floor):
    """All local maxima of the x3 upsampled grid (26 neighbours) that are larger than `floor`.

    Parameters
    ----------
    coefficients : ndarray, shape (z, y, x), float32
        Spline coefficients of a block, with `margin` (two or more) voxels around its core.
    margin : int
        How many voxels on every side are not the block's own.
    weights : ndarray, shape (3, 4), float32
        Spline weights at 0, 1/3 and 2/3 of a voxel.
    floor : float32
        Maxima must be larger than this.

    Returns
    -------
    ndarray, shape (n, 3), int32
        Index (z, y, x) on the upsampled grid whose point 0 is the core's first voxel: -1 .. 3 n - 2.

    Notes
    -----
    A spline never exceeds the largest of the coefficients that it is made of, so tiles, and rows within
    them, that cannot rise above the floor are left out exactly.
    """
    nz, ny, nx = coefficients.shape
    found = np.empty((1024, 3), dtype=np.int32)
    n = 0
    size = 3 * TILE + 2
    lines = np.empty((TILE + 4, size), dtype=np.float32)
    planes = np.empty((4, size, size), dtype=np.float32)
    live_rows = np.empty((4, size), dtype=np.bool_)
    fine = np.empty((3, size, size), dtype=np.float32)
    live = np.empty((3, size), dtype=np.bool_)
    hits = np.empty(size, dtype=np.bool_)
    for z0 in range(margin, nz - margin, TILE):
        for y0 in range(margin, ny - margin, TILE):
            for x0 in range(margin, nx - margin, TILE):
                tz, ty, tx = min(TILE, nz - margin - z0), min(TILE, ny - margin - y0), min(TILE, nx - margin - x0)
                tile = coefficients[z0 - 2 : z0 + tz + 2, y0 - 2 : y0 + ty + 2, x0 - 2 : x0 + tx + 2]
                if not _rises_above(tile, floor):
                    continue
                fy, fx = 3 * ty + 2, 3 * tx + 2
                ready = 0
                for iz in range(3 * tz + 2):
                    k = (iz + 1) // 3
                    while ready < k + 4:
                        _upsample_plane(tile[ready], weights, floor, lines, planes[ready % 4], live_rows[ready % 4])
                        ready += 1
                    _combine_planes(planes, live_rows, k, weights[(iz + 1) % 3], fy, fx, fine[iz % 3], live[iz % 3])
                    if iz < 2:
                        continue
                    below, here, above = fine[(iz - 2) % 3], fine[(iz - 1) % 3], fine[iz % 3]
                    for iy in range(1, fy - 1):
                        if not live[(iz - 1) % 3, iy]:
                            continue
                        if not _scan_row(
                            here[iy, :fx],
                            here[iy - 1, :fx],
                            here[iy + 1, :fx],
                            below[iy, :fx],
                            above[iy, :fx],
                            floor,
                            hits,
                        ):
                            continue
                        for ix in range(1, fx - 1):
                            if hits[ix] and _is_maximum(below, here, above, iy, ix):
                                if n == len(found):
                                    longer = np.empty((2 * n, 3), dtype=np.int32)
                                    longer[:n] = found
                                    found = longer
                                found[n, 0] = 3 * (z0 - margin) - 3 + iz
                                found[n, 1] = 3 * (y0 - margin) - 2 + iy
                                found[n, 2] = 3 * (x0 - margin) - 2 + ix
                                n += 1
    return found[:n].copy()


@njit
def suppress_near(first, second, n):
    """Which of `n` peaks stay when each removes all later ones that are near it.

    Parameters
    ----------
    first, second : ndarray, shape (m,), int64
        Near pairs, first < second by rank (0 = highest), sorted by `first`.
    n : int
        Number of peaks.

    Returns
    -------
    ndarray, shape (n,), bool
        True where a peak stays.
    """
    stays = np.ones(n, dtype=np.bool_)
    for i in range(len(first)):
        if stays[first[i]]:
            stays[second[i]] = False
    return stays
