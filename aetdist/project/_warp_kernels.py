"""Shear-warp projection, second half: sheared images are filtered and resampled onto the detector, and back."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

HALF_WIDTH = 4  # of the filter, in sheared pixels: it has the taps g_0..g_4 on either side


@njit(fastmath=True)
def _combine(out, o, source, p, g, n):
    """out[o + i] = g0 s[p0 + i] + g1 (s[p1 + i] + s[p2 + i]) + ... + g4 (s[p7 + i] + s[p8 + i]), i = 0..n - 1."""
    first = np.uint64(o)
    a, b, c, d, e = np.uint64(p[0]), np.uint64(p[1]), np.uint64(p[2]), np.uint64(p[3]), np.uint64(p[4])
    f, h, j, k = np.uint64(p[5]), np.uint64(p[6]), np.uint64(p[7]), np.uint64(p[8])
    g0, g1, g2, g3, g4 = g[0], g[1], g[2], g[3], g[4]
    for i in range(np.uint64(n)):
        out[first + i] = (
            g0 * source[a + i]
            + (g1 * (source[b + i] + source[c + i]) + g2 * (source[d + i] + source[e + i]))
            + (g3 * (source[f + i] + source[h + i]) + g4 * (source[j + i] + source[k + i]))
        )


@njit
def _filter(image, n_rows, n, row_taps, column_taps, out, o):
    """Symmetric FIR along rows and columns of an image with HALF_WIDTH empty rows around it; its own transpose.

    Parameters
    ----------
    image : float32 (rows + 2 HALF_WIDTH) * columns, flat
    row_taps, column_taps : float32 (HALF_WIDTH + 1,)
    out : float32, flat
        The result, (rows, columns), from out[o] on.
    """
    line = np.zeros(n + 2 * HALF_WIDTH, np.float32)
    position, around = np.empty(2 * HALF_WIDTH + 1, np.int64), np.empty(2 * HALF_WIDTH + 1, np.int64)
    position[0] = HALF_WIDTH
    for h in range(1, HALF_WIDTH + 1):
        position[2 * h - 1], position[2 * h] = HALF_WIDTH - h, HALF_WIDTH + h
    for r in range(n_rows):
        for h in range(2 * HALF_WIDTH + 1):
            around[h] = (r + position[h]) * n
        _combine(line, HALF_WIDTH, image, around, row_taps, n)
        _combine(out, o + r * n, line, position, column_taps, n)


@njit(inline="always", fastmath=True)
def _cubic_weights(f):
    """Cubic B-spline weights of the samples at -1, 0, 1, 2 for a point at fraction f."""
    sixth, g = np.float32(1 / 6), np.float32(1) - f
    a, d = sixth * g * g * g, sixth * f * f * f
    b = np.float32(2 / 3) - np.float32(0.5) * f * f * (np.float32(2) - f)
    return a, b, np.float32(1) - a - b - d, d


@njit(inline="always")
def _inside(start, step, limit, first, last):
    """Shrink first..last - 1 to the i for which 1 < start + i step < limit, rounding included."""
    low, high = 1 + 1e-6, limit - 1e-6
    if step == 0:
        return (first, last) if low <= start < high else (0, 0)
    a, b = (low - start) / step, (high - start) / step  # of any size where the step is no more than rounding
    a, b = min(max(a, first - 1.0), last + 1.0), min(max(b, first - 1.0), last + 1.0)
    if step > 0:
        return max(first, math.ceil(a)), min(last, math.ceil(b))
    return max(first, math.floor(b) + 1), min(last, math.floor(a) + 1)


@njit(inline="always", fastmath=True)
def _take(flat, p, w0, w1, w2, w3):
    """Weighted sum of four neighbours in a row."""
    return (w0 * flat[p] + w1 * flat[p + np.uint64(1)]) + (w2 * flat[p + np.uint64(2)] + w3 * flat[p + np.uint64(3)])


@njit(inline="always", fastmath=True)
def _give(flat, p, w0, w1, w2, w3):
    """The transpose: add to four neighbours in a row."""
    a, b, c, d = flat[p], flat[p + np.uint64(1)], flat[p + np.uint64(2)], flat[p + np.uint64(3)]
    flat[p] = a + w0
    flat[p + np.uint64(1)] = b + w1
    flat[p + np.uint64(2)] = c + w2
    flat[p + np.uint64(3)] = d + w3


@njit(fastmath=True)
def _warp(flat, n_rows, n_columns, inverse, origin, scale, image):
    """Resample a sheared image onto the detector; 0 where it does not reach around a pixel."""
    width, weight = np.uint64(n_columns), np.float32(scale)
    row_step, column_step = inverse[0, 1], inverse[1, 1]
    for v in range(image.shape[0]):
        row0, column0 = origin[0] + v * inverse[0, 0], origin[1] + v * inverse[1, 0]
        first, last = _inside(row0, row_step, n_rows - 2, 0, image.shape[1])
        first, last = _inside(column0, column_step, n_columns - 2, first, last)
        image[v] = 0
        for u in range(first, last):
            row, column = row0 + u * row_step, column0 + u * column_step
            r, c = np.int32(row), np.int32(column)
            y0, y1, y2, y3 = _cubic_weights(np.float32(row - r))
            x0, x1, x2, x3 = _cubic_weights(np.float32(column - c))
            p = np.uint64(r - 1) * width + np.uint64(c - 1)
            total = y0 * _take(flat, p, x0, x1, x2, x3) + y1 * _take(flat, p + width, x0, x1, x2, x3)
            p += width + width
            total += y2 * _take(flat, p, x0, x1, x2, x3) + y3 * _take(flat, p + width, x0, x1, x2, x3)
            image[v, u] = weight * total


@njit(fastmath=True)
def _unwarp(image, inverse, origin, scale, flat, n_rows, n_columns):
    """Add the transpose of `_warp` to a sheared image."""
    width, weight = np.uint64(n_columns), np.float32(scale)
    row_step, column_step = inverse[0, 1], inverse[1, 1]
    for v in range(image.shape[0]):
        row0, column0 = origin[0] + v * inverse[0, 0], origin[1] + v * inverse[1, 0]
        first, last = _inside(row0, row_step, n_rows - 2, 0, image.shape[1])
        first, last = _inside(column0, column_step, n_columns - 2, first, last)
        for u in range(first, last):
            value = weight * image[v, u]
            row, column = row0 + u * row_step, column0 + u * column_step
            r, c = np.int32(row), np.int32(column)
            y0, y1, y2, y3 = _cubic_weights(np.float32(row - r))
            x0, x1, x2, x3 = _cubic_weights(np.float32(column - c))
            x0, x1, x2, x3 = x0 * value, x1 * value, x2 * value, x3 * value
            p = np.uint64(r - 1) * width + np.uint64(c - 1)
            _give(flat, p, y0 * x0, y0 * x1, y0 * x2, y0 * x3)
            p += width
            _give(flat, p, y1 * x0, y1 * x1, y1 * x2, y1 * x3)
            p += width
            _give(flat, p, y2 * x0, y2 * x1, y2 * x2, y2 * x3)
            p += width
            _give(flat, p, y3 * x0, y3 * x1, y3 * x2, y3 * x3)


@njit
def _room(warps, tilts):
    """Room for the largest sheared image of some tilts, with empty rows around it."""
    pixels = 0
    for t in range(tilts[0], tilts[1]):
        pixels = max(pixels, (warps.boxes[t, 2] + 2 * HALF_WIDTH) * warps.boxes[t, 3])
    return np.zeros(pixels, np.float32)


@njit
def warp_forward(sheared, warps, tilts, images):
    """Filter the sheared images of some tilts and resample them onto the detector with cubic B-splines.

    Parameters
    ----------
    sheared : float32 (pixels,)
        All sheared images, one after another, with HALF_WIDTH empty rows before and after each.
    warps : shear.Warps
    tilts : (first, end)
    images : float32 (tilt, y, x)
        Those of the tilts are overwritten.
    """
    filtered = _room(warps, tilts)
    for t in range(tilts[0], tilts[1]):
        n_rows, n = warps.boxes[t, 2], warps.boxes[t, 3]
        image = images[warps.tilt[t]]
        if n == 0:
            image[:] = 0
            continue
        source = sheared[warps.offsets[t] - HALF_WIDTH * n : warps.offsets[t] + (n_rows + HALF_WIDTH) * n]
        _filter(source, n_rows, n, warps.row_taps[t], warps.column_taps[t], filtered, 0)
        _warp(filtered, n_rows, n, warps.inverse[t], warps.origin[t], warps.scale[t], image)


@njit
def warp_adjoint(images, warps, tilts, sheared):
    """The transpose of `warp_forward`; overwrites the sheared images of some tilts."""
    warped = _room(warps, tilts)
    for t in range(tilts[0], tilts[1]):
        n_rows, n = warps.boxes[t, 2], warps.boxes[t, 3]
        if n == 0:
            continue
        warped[: (n_rows + 2 * HALF_WIDTH) * n] = 0
        inner = warped[HALF_WIDTH * n : (HALF_WIDTH + n_rows) * n]
        _unwarp(images[warps.tilt[t]], warps.inverse[t], warps.origin[t], warps.scale[t], inner, n_rows, n)
        _filter(warped, n_rows, n, warps.row_taps[t], warps.column_taps[t], sheared, warps.offsets[t])
