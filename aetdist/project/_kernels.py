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


@njit(fastmath=True, inline="always")
def _interior(shift, n_out, n_in):
    """The range of i with 0 <= i < n_out for which i + shift and i + shift + 1 both lie in 0..n_in-1."""
    return max(0, -shift), min(n_out, n_in - 1 - shift)


@njit(fastmath=True, inline="always")
def _add(out, o, flat, a, b, start, stop, w):
    """out[o + i] += w[0] flat[a + i] + w[1] flat[a + i + 1] + w[2] flat[b + i] + w[3] flat[b + i + 1].

    Positions are unsigned and views are avoided: both cost more than the arithmetic of a short row.
    """
    if stop > start:
        o, a, b, one = np.uint64(o + start), np.uint64(a + start), np.uint64(b + start), np.uint64(1)
        w0, w1, w2, w3 = w
        for i in range(np.uint64(stop - start)):
            out[o + i] += (
                w0 * flat[a + i] + w1 * flat[a + one + i] + w2 * flat[b + i] + w3 * flat[b + one + i]
            )


@njit(fastmath=True, inline="always")
def _add_edges(out, o, n_out, flat, a, b, shift, n_in, w):
    """The two elements of `out` that have only one of their two neighbours along the row."""
    i = -1 - shift
    if 0 <= i < n_out:
        out[np.uint64(o + i)] += w[1] * flat[np.uint64(a + i + 1)] + w[3] * flat[np.uint64(b + i + 1)]
    i = n_in - 1 - shift
    if 0 <= i < n_out:
        out[np.uint64(o + i)] += w[0] * flat[np.uint64(a + i)] + w[2] * flat[np.uint64(b + i)]


@njit(fastmath=True)
def _add_one(out, o, n_out, flat, a, b, shift, n_in, w):
    """Add one interpolated pair of rows; `a`, `b` are the flat positions that element 0 of the row at `o` reads."""
    start, stop = _interior(shift, n_out, n_in)
    _add(out, o, flat, a, b, start, stop, w)
    _add_edges(out, o, n_out, flat, a, b, shift, n_in, w)


@njit(fastmath=True)
def _add_two(out, o, n_out, flat, a, b, shift_a, n_a, w, c, d, shift_c, n_c, v):
    """Add two interpolated pairs of rows, in one pass over the row at `o` where both are present."""
    lo_a, hi_a = _interior(shift_a, n_out, n_a)
    lo_c, hi_c = _interior(shift_c, n_out, n_c)
    lo, hi = max(lo_a, lo_c), min(hi_a, hi_c)
    if hi <= lo:
        _add(out, o, flat, a, b, lo_a, hi_a, w)
        _add(out, o, flat, c, d, lo_c, hi_c, v)
    else:
        w0, w1, w2, w3 = w
        v0, v1, v2, v3 = v
        one, p = np.uint64(1), np.uint64(o + lo)
        a0, b0, c0, d0 = np.uint64(a + lo), np.uint64(b + lo), np.uint64(c + lo), np.uint64(d + lo)
        for i in range(np.uint64(hi - lo)):
            out[p + i] += (
                w0 * flat[a0 + i] + w1 * flat[a0 + one + i] + w2 * flat[b0 + i] + w3 * flat[b0 + one + i]
            ) + (v0 * flat[c0 + i] + v1 * flat[c0 + one + i] + v2 * flat[d0 + i] + v3 * flat[d0 + one + i])
        _add(out, o, flat, a, b, lo_a, lo, w)
        _add(out, o, flat, a, b, hi, hi_a, w)
        _add(out, o, flat, c, d, lo_c, lo, v)
        _add(out, o, flat, c, d, hi, hi_c, v)
    _add_edges(out, o, n_out, flat, a, b, shift_a, n_a, w)
    _add_edges(out, o, n_out, flat, c, d, shift_c, n_c, v)


@njit(fastmath=True, inline="always")
def _weights(first, second, fraction):
    """Weights of (first row: left, right; second row: left, right) for a fraction along the row."""
    return first * (np.float32(1) - fraction), first * fraction, second * (np.float32(1) - fraction), second * fraction


@njit(fastmath=True, inline="always")
def _plane_source(k, r, iy, fy, ix, fx, plane_stride, row_stride, n_rows, column0):
    """Where row `r` of a sheared image reads plane k: flat positions of two rows, shift, weights.

    Row r takes (1 - fy) of volume row r - iy and fy of row r - iy - 1; column c takes (1 - fx) of
    volume column c - ix and fx of column c - ix - 1. A row outside of the volume weighs nothing.
    """
    y = r - iy[k]
    shift = column0 - ix[k] - 1
    one = np.float32(1)
    w_here = one - fy[k] if 0 <= y < n_rows else np.float32(0)
    w_before = fy[k] if 0 <= y - 1 < n_rows else np.float32(0)
    here = k * plane_stride + min(max(y, 0), n_rows - 1) * row_stride + shift
    before = k * plane_stride + min(max(y - 1, 0), n_rows - 1) * row_stride + shift
    return here, before, shift, _weights(w_here, w_before, one - fx[k]), (w_here != 0) or (w_before != 0)


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
    Blocks of planes stay in the first-level cache while all tilts pass over them.
    """
    plane_stride, row_stride, n_planes, n_rows, n_columns = layout
    for r in range(row_start, row_stop):
        for k0 in range(0, n_planes, _BLOCK):
            for t in range(boxes.shape[0]):
                i = r - boxes[t, 0]
                if i < 0 or i >= boxes[t, 2]:
                    continue
                first = offsets[t] + i * boxes[t, 3]
                n_out = boxes[t, 3]
                k = k0
                stop = min(k0 + _BLOCK, n_planes)
                while k < stop:
                    a, b, shift_a, w, used_a = _plane_source(
                        k, r, iy[t], fy[t], ix[t], fx[t], plane_stride, row_stride, n_rows, boxes[t, 1]
                    )
                    if k + 1 < stop:
                        c, d, shift_c, v, used_c = _plane_source(
                            k + 1, r, iy[t], fy[t], ix[t], fx[t], plane_stride, row_stride, n_rows, boxes[t, 1]
                        )
                        if used_a or used_c:
                            _add_two(sheared, first, n_out, volume, a, b, shift_a, n_columns, w, c, d, shift_c, n_columns, v)
                    elif used_a:
                        _add_one(sheared, first, n_out, volume, a, b, shift_a, n_columns, w)
                    k += 2


@njit(fastmath=True, inline="always")
def _tilt_source(t, k, y, boxes, offsets, iy, fy, ix, fx):
    """Where volume row (k, y) reads sheared image t: the transpose of `_plane_source`."""
    j = y + iy[t, k] - boxes[t, 0]
    shift = ix[t, k] - boxes[t, 1]
    one = np.float32(1)
    n_rows, n_columns = boxes[t, 2], boxes[t, 3]
    w_here = one - fy[t, k] if 0 <= j < n_rows else np.float32(0)
    w_after = fy[t, k] if 0 <= j + 1 < n_rows else np.float32(0)
    here = offsets[t] + min(max(j, 0), n_rows - 1) * n_columns + shift
    after = offsets[t] + min(max(j + 1, 0), n_rows - 1) * n_columns + shift
    return here, after, shift, n_columns, _weights(w_here, w_after, fx[t, k]), (w_here != 0) or (w_after != 0)


@njit(fastmath=True)
def shear_adjoint(sheared, layout, boxes, offsets, iy, fy, ix, fx, volume, row_start, row_stop):
    """Add the transpose of `shear_forward` to rows `row_start`..`row_stop` - 1 of a flat volume.

    A few sheared rows stay in the first-level cache while a block of planes passes over them.
    """
    plane_stride, row_stride, n_planes, n_rows, n_columns = layout
    n_tilts = boxes.shape[0]
    for y in range(row_start, row_stop):
        for k0 in range(0, n_planes, _BLOCK):
            for t in range(0, n_tilts, 2):
                for k in range(k0, min(k0 + _BLOCK, n_planes)):
                    first = k * plane_stride + y * row_stride
                    a, b, shift_a, n_a, w, used_a = _tilt_source(t, k, y, boxes, offsets, iy, fy, ix, fx)
                    if t + 1 < n_tilts:
                        c, d, shift_c, n_c, v, used_c = _tilt_source(t + 1, k, y, boxes, offsets, iy, fy, ix, fx)
                        if used_a and used_c:
                            _add_two(volume, first, n_columns, sheared, a, b, shift_a, n_a, w, c, d, shift_c, n_c, v)
                        elif used_a:
                            _add_one(volume, first, n_columns, sheared, a, b, shift_a, n_a, w)
                        elif used_c:
                            _add_one(volume, first, n_columns, sheared, c, d, shift_c, n_c, v)
                    elif used_a:
                        _add_one(volume, first, n_columns, sheared, a, b, shift_a, n_a, w)


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
