"""Shear-warp (Joseph) projection: the arithmetic.

A volume is a flat array with a plane stride (along the principal axis of a tilt), a row stride
and contiguous columns. Every plane is added to a sheared image with one sub-pixel shift, so that
the inner loops have four constant weights; a small affine warp then takes the sheared image to
the detector. Every forward kernel has its exact transpose beside it: forward and adjoint walk
over the same pairs (voxel, sheared pixel) with the same weights.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

_BLOCK = 8  # planes that share the first-level cache with the rows they are added to
_TILTS = 4  # tilts whose sheared rows do so in the adjoint


@njit(fastmath=True, inline="always")
def _add_part(out, o, flat, p, start, stop, left, right):
    """out[o + i] += left flat[p + i] + right flat[p + i + 1] for i = start..stop - 1."""
    if stop > start:
        first, source, one = np.uint64(o + start), np.uint64(p + start), np.uint64(1)
        for i in range(np.uint64(stop - start)):
            out[first + i] += left * flat[source + i] + right * flat[source + one + i]


@njit(fastmath=True)
def _add_rest(out, o, n_out, flat, p, shift, n_in, left, right, lo, hi):
    """What a row gets from one source outside of lo..hi - 1, the ends where it has only one neighbour included."""
    start, stop = max(0, -shift), min(n_out, n_in - 1 - shift)
    _add_part(out, o, flat, p, start, min(stop, lo), left, right)
    _add_part(out, o, flat, p, max(start, hi), stop, left, right)
    i = -1 - shift
    if 0 <= i < n_out:
        out[np.uint64(o + i)] += right * flat[np.uint64(p + i + 1)]
    i = n_in - 1 - shift
    if 0 <= i < n_out:
        out[np.uint64(o + i)] += left * flat[np.uint64(p + i)]


@njit(fastmath=True)
def _add_sources(out, o, n_out, flat, n, position, shift, length, left, right):
    """Add `n` interpolated rows to the row of `n_out` elements at out[o].

    Source s adds left[s] flat[p + i] + right[s] flat[p + i + 1], p = position[s], to element i, as far
    as i + shift[s] and i + shift[s] + 1 lie in 0..length[s] - 1. Four sources go in one pass over the
    range that they share. Positions are unsigned and views avoided: both cost more than a short row.
    """
    s = 0
    while s < n:
        if s + 4 > n:
            _add_rest(out, o, n_out, flat, position[s], shift[s], length[s], left[s], right[s], n_out, n_out)
            s += 1
            continue
        lo, hi = 0, n_out
        for q in range(s, s + 4):
            lo, hi = max(lo, -shift[q]), min(hi, length[q] - 1 - shift[q])
        if hi > lo:
            first, one = np.uint64(o + lo), np.uint64(1)
            a, b = np.uint64(position[s] + lo), np.uint64(position[s + 1] + lo)
            c, d = np.uint64(position[s + 2] + lo), np.uint64(position[s + 3] + lo)
            a0, a1, b0, b1 = left[s], right[s], left[s + 1], right[s + 1]
            c0, c1, d0, d1 = left[s + 2], right[s + 2], left[s + 3], right[s + 3]
            for i in range(np.uint64(hi - lo)):
                out[first + i] += (
                    a0 * flat[a + i] + a1 * flat[a + one + i] + b0 * flat[b + i] + b1 * flat[b + one + i]
                ) + (c0 * flat[c + i] + c1 * flat[c + one + i] + d0 * flat[d + i] + d1 * flat[d + one + i])
        else:
            lo, hi = n_out, n_out
        for q in range(s, s + 4):
            _add_rest(out, o, n_out, flat, position[q], shift[q], length[q], left[q], right[q], lo, hi)
        s += 4


@njit(fastmath=True)
def shear_forward(volume, layout, boxes, offsets, iy, fy, ix, fx, sheared, row_start, row_stop):
    """Add rows `row_start`..`row_stop` - 1 (along the volume's row axis) of every sheared image.

    Parameters
    ----------
    volume : float32 (voxels,)
    layout : (plane stride, row stride, planes, rows, columns)
    boxes : int64 (tilt, 4)
        First row, first column, rows and columns of every sheared image, in voxel indices.
    offsets : int64 (tilt,)
        Where each sheared image starts in `sheared`.
    iy, fy, ix, fx : (tilt, plane)
        Whole and fractional shift of every plane along rows and columns.
    sheared : float32 (pixels,)

    Notes
    -----
    Row r takes (1 - fy) of volume row r - iy and fy of row r - iy - 1; column c takes (1 - fx) of
    volume column c - ix and fx of column c - ix - 1. Blocks of planes stay in the first-level cache
    while all tilts pass over them.
    """
    plane_stride, row_stride, n_planes, n_rows, n_columns = layout
    position, shift = np.empty(2 * _BLOCK, np.int64), np.empty(2 * _BLOCK, np.int64)
    length = np.full(2 * _BLOCK, n_columns)
    left, right = np.empty(2 * _BLOCK, np.float32), np.empty(2 * _BLOCK, np.float32)
    one = np.float32(1)
    for r in range(row_start, row_stop):
        for k0 in range(0, n_planes, _BLOCK):
            for t in range(boxes.shape[0]):
                i = r - boxes[t, 0]
                if i < 0 or i >= boxes[t, 2]:
                    continue
                n = 0
                for k in range(k0, min(k0 + _BLOCK, n_planes)):
                    x = boxes[t, 1] - ix[t, k] - 1
                    if x >= n_columns or x + boxes[t, 3] < 0:
                        continue
                    for before in range(2):
                        y = r - iy[t, k] - before
                        weight = fy[t, k] if before else one - fy[t, k]
                        if weight != 0 and 0 <= y < n_rows:
                            position[n] = k * plane_stride + y * row_stride + x
                            shift[n] = x
                            left[n], right[n] = weight * fx[t, k], weight * (one - fx[t, k])
                            n += 1
                first = offsets[t] + i * boxes[t, 3]
                _add_sources(sheared, first, boxes[t, 3], volume, n, position, shift, length, left, right)


@njit(fastmath=True)
def shear_adjoint(sheared, layout, boxes, offsets, iy, fy, ix, fx, volume, row_start, row_stop):
    """Add the transpose of `shear_forward` to rows `row_start`..`row_stop` - 1 of a flat volume.

    A few sheared rows stay in the first-level cache while a block of planes passes over them.
    """
    plane_stride, row_stride, n_planes, _, n_columns = layout
    n_tilts = boxes.shape[0]
    position, shift, length = (
        np.empty(2 * _TILTS, np.int64),
        np.empty(2 * _TILTS, np.int64),
        np.empty(2 * _TILTS, np.int64),
    )
    left, right = np.empty(2 * _TILTS, np.float32), np.empty(2 * _TILTS, np.float32)
    one = np.float32(1)
    for y in range(row_start, row_stop):
        for k0 in range(0, n_planes, _BLOCK):
            for t0 in range(0, n_tilts, _TILTS):
                for k in range(k0, min(k0 + _BLOCK, n_planes)):
                    n = 0
                    for t in range(t0, min(t0 + _TILTS, n_tilts)):
                        x = ix[t, k] - boxes[t, 1]
                        if x >= boxes[t, 3] or x + n_columns < 0:
                            continue
                        for after in range(2):
                            j = y + iy[t, k] + after - boxes[t, 0]
                            weight = fy[t, k] if after else one - fy[t, k]
                            if weight != 0 and 0 <= j < boxes[t, 2]:
                                position[n] = offsets[t] + j * boxes[t, 3] + x
                                shift[n], length[n] = x, boxes[t, 3]
                                left[n], right[n] = weight * (one - fx[t, k]), weight * fx[t, k]
                                n += 1
                    first = k * plane_stride + y * row_stride
                    _add_sources(volume, first, n_columns, sheared, n, position, shift, length, left, right)


@njit(fastmath=True)
def filter_rows(image, taps, out):
    """Symmetric FIR along the columns of every row, zero outside; its own transpose. float32 (rows, columns)."""
    n = image.shape[1]
    for r in range(image.shape[0]):
        for c in range(n):
            out[r, c] = taps[0] * image[r, c]
        for h in range(1, taps.size):
            for c in range(n - h):
                out[r, c] += taps[h] * image[r, c + h]
            for c in range(h, n):
                out[r, c] += taps[h] * image[r, c - h]


@njit(fastmath=True)
def filter_columns(image, taps, out):
    """Symmetric FIR along the rows of every column, zero outside; its own transpose. float32 (rows, columns)."""
    n = image.shape[0]
    for r in range(n):
        for c in range(image.shape[1]):
            out[r, c] = taps[0] * image[r, c]
        for h in range(1, taps.size):
            if r + h < n:
                for c in range(image.shape[1]):
                    out[r, c] += taps[h] * image[r + h, c]
            if r - h >= 0:
                for c in range(image.shape[1]):
                    out[r, c] += taps[h] * image[r - h, c]


@njit(inline="always")
def _cubic_weights(f):
    """Cubic B-spline weights of the samples at -1, 0, 1, 2 for a point at fraction f."""
    g = 1.0 - f
    return g * g * g / 6, 2.0 / 3 - f * f * (2 - f) / 2, 2.0 / 3 - g * g * (2 - g) / 2, f * f * f / 6


@njit
def warp_forward(sheared, inverse, origin, scale, image):
    """Resample a sheared image onto the detector with cubic B-spline weights.

    Parameters
    ----------
    sheared : float32 (rows, columns)
    inverse : float64 (2, 2)
        Steps (row, column) in the sheared image for one pixel along detector y and x.
    origin : float64 (2,)
        Sheared (row, column) of detector pixel [0, 0].
    scale : float
        1 / |ray direction along the principal axis|: from a sum over planes to one along the ray.
    image : float32 (y, x)
        Overwritten.
    """
    n_rows, n_columns = sheared.shape
    for v in range(image.shape[0]):
        for u in range(image.shape[1]):
            row = origin[0] + v * inverse[0, 0] + u * inverse[0, 1]
            column = origin[1] + v * inverse[1, 0] + u * inverse[1, 1]
            r, c = math.floor(row), math.floor(column)
            if r < -2 or c < -2 or r > n_rows or c > n_columns:
                image[v, u] = 0
                continue
            wr = _cubic_weights(row - r)
            wc = _cubic_weights(column - c)
            total = 0.0
            for i in range(4):
                rr = r - 1 + i
                if 0 <= rr < n_rows:
                    line = 0.0
                    for j in range(4):
                        cc = c - 1 + j
                        if 0 <= cc < n_columns:
                            line += wc[j] * sheared[rr, cc]
                    total += wr[i] * line
            image[v, u] = scale * total


@njit
def warp_adjoint(image, inverse, origin, scale, sheared):
    """Add the transpose of `warp_forward` to a sheared image. float32 (rows, columns)."""
    n_rows, n_columns = sheared.shape
    for v in range(image.shape[0]):
        for u in range(image.shape[1]):
            value = scale * image[v, u]
            if value == 0:
                continue
            row = origin[0] + v * inverse[0, 0] + u * inverse[0, 1]
            column = origin[1] + v * inverse[1, 0] + u * inverse[1, 1]
            r, c = math.floor(row), math.floor(column)
            if r < -2 or c < -2 or r > n_rows or c > n_columns:
                continue
            wr = _cubic_weights(row - r)
            wc = _cubic_weights(column - c)
            for i in range(4):
                rr = r - 1 + i
                if 0 <= rr < n_rows:
                    for j in range(4):
                        cc = c - 1 + j
                        if 0 <= cc < n_columns:
                            sheared[rr, cc] += np.float32(wr[i] * wc[j] * value)


@njit
def transpose_last(source, out, add):
    """out[i, k, j] = source[i, j, k] (or += where `add`), in tiles that stay in cache."""
    tile = 32
    n_i, n_j, n_k = source.shape
    for i in range(n_i):
        for j0 in range(0, n_j, tile):
            for k0 in range(0, n_k, tile):
                for k in range(k0, min(k0 + tile, n_k)):
                    for j in range(j0, min(j0 + tile, n_j)):
                        if add:
                            out[i, k, j] += source[i, j, k]
                        else:
                            out[i, k, j] = source[i, j, k]
