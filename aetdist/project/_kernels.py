"""Shear-warp projection, first half: the planes of a volume are summed into sheared images, and back.

The planes along the principal axis of a tilt are shifted and summed. `shear.Shears` lets planes share
their shifts, so that rows are first summed as they are and only sums are interpolated (quadratic
B-splines: three weights along each axis). Either kernel is the exact transpose of the other.
"""

from __future__ import annotations

import numpy as np

from .._jit import njit
from ._warp_kernels import HALF_WIDTH

PAD = 16  # zeros on either side of a row: rows shifted by up to so much are summed in one pass
_COLUMNS = 32  # that a transposing copy takes at a time: streams that are read or written together
TOGETHER = 4  # rows that are summed in one pass
_EDGE = 3  # columns kept on either side of a sheared row: the reach of a spline, and one to spare


@njit(fastmath=True, inline="always")
def _add_four(out, o, source, p0, p1, p2, p3, n):
    """out[o + i] += source[p0 + i] + source[p1 + i] + source[p2 + i] + source[p3 + i] for i = 0..n - 1."""
    # positions are unsigned, and views avoided: both cost more than a short row
    first, a, b, c, d = np.uint64(o), np.uint64(p0), np.uint64(p1), np.uint64(p2), np.uint64(p3)
    for i in range(np.uint64(n)):
        out[first + i] += (source[a + i] + source[b + i]) + (source[c + i] + source[d + i])


@njit(fastmath=True, inline="always")
def _set_four(out, o, source, p0, p1, p2, p3, n):
    """The same with = in place of +=."""
    first, a, b, c, d = np.uint64(o), np.uint64(p0), np.uint64(p1), np.uint64(p2), np.uint64(p3)
    for i in range(np.uint64(n)):
        out[first + i] = (source[a + i] + source[b + i]) + (source[c + i] + source[d + i])


@njit(fastmath=True, inline="always")
def _set_two(out, o, source, p0, p1, n):
    """out[o + i] = source[p0 + i] + source[p1 + i] for i = 0..n - 1."""
    first, a, b = np.uint64(o), np.uint64(p0), np.uint64(p1)
    for i in range(np.uint64(n)):
        out[first + i] = source[a + i] + source[b + i]


@njit(fastmath=True, inline="always")
def _clear(row, start, stop):
    """row[start:stop] = 0."""
    for i in range(np.uint64(start), np.uint64(stop)):
        row[i] = 0


@njit(fastmath=True, inline="always")
def _add_scaled(out, o, source, p, weight, n):
    """out[o + i] += weight * source[p + i] for i = 0..n - 1."""
    first, a = np.uint64(o), np.uint64(p)
    for i in range(np.uint64(n)):
        out[first + i] += weight * source[a + i]


@njit(fastmath=True, inline="always")
def _add_spline(out, o, source, p, before, middle, after, n):
    """out[o + i] += before * source[p + i - 1] + middle * source[p + i] + after * source[p + i + 1]."""
    first, a, b, c = np.uint64(o), np.uint64(p - 1), np.uint64(p), np.uint64(p + 1)
    for i in range(np.uint64(n)):
        out[first + i] += before * source[a + i] + middle * source[b + i] + after * source[c + i]


@njit(fastmath=True, inline="always")
def _set_spline(out, o, source, p, before, middle, after, n):
    """The same with = in place of +=."""
    first, a, b, c = np.uint64(o), np.uint64(p - 1), np.uint64(p), np.uint64(p + 1)
    for i in range(np.uint64(n)):
        out[first + i] = before * source[a + i] + middle * source[b + i] + after * source[c + i]


@njit(fastmath=True)
def _copy(out, o, source, p, n):
    """out[o + i] = source[p + i] for i = 0..n - 1."""
    first, a = np.uint64(o), np.uint64(p)
    for i in range(np.uint64(n)):
        out[first + i] = source[a + i]


@njit(fastmath=True)
def _load_row(volume, layout, row, planes):
    """Copy one row of every plane into flat `planes` (planes + 1, columns + 2 PAD), whose margins stay 0."""
    plane_stride, row_stride, column_stride, n_planes, _, n_columns = layout
    start, width = row * row_stride, n_columns + 2 * PAD
    if column_stride == 1:
        for k in range(n_planes):
            _copy(planes, k * width + PAD, volume, start + k * plane_stride, n_columns)
        return
    for c0 in range(0, n_columns, _COLUMNS):
        n = np.uint64(min(_COLUMNS, n_columns - c0))
        for k in range(n_planes):
            o, p = np.uint64(k * width + PAD + c0), np.uint64(start + k + c0 * column_stride)
            for i in range(n):
                planes[o + i] = volume[p + i * np.uint64(column_stride)]


@njit(fastmath=True)
def _weigh_planes(planes, n_columns, weights):
    """planes[k] *= weights[k] for the rows that `_load_row` has loaded."""
    width = n_columns + 2 * PAD
    for k in range(weights.size):
        for i in range(np.uint64(k * width), np.uint64((k + 1) * width)):
            planes[i] *= weights[k]


@njit(fastmath=True)
def _store_row(planes, layout, row, volume):
    """Add one row of every plane, flat (planes, columns), to the volume."""
    plane_stride, row_stride, column_stride, n_planes, _, n_columns = layout
    start = row * row_stride
    if column_stride == 1:
        for k in range(n_planes):
            _add_scaled(volume, start + k * plane_stride, planes, k * n_columns, np.float32(1), n_columns)
        return
    for c0 in range(0, n_columns, _COLUMNS):
        n = np.uint64(min(_COLUMNS, n_columns - c0))
        for k in range(n_planes):
            o, p = np.uint64(start + k + c0 * column_stride), np.uint64(k * n_columns + c0)
            for i in range(n):
                volume[o + i * np.uint64(column_stride)] += planes[p + i]


@njit
def group_planes(plane, ix, slot_start, columns, n_columns):
    """Planes that are summed in one pass: as many of a slot as go together, not shifted apart by more than PAD.

    Parameters
    ----------
    plane, ix : int64 (tilt * planes,)
        Planes slot by slot, and their whole shifts along columns.
    slot_start : int64 (slot + 1,)
    columns : int64 (slot,)
        Columns of the sheared image of the slot's tilt.
    n_columns : int
        Columns of the volume.

    Returns
    -------
    group_start : int64 (slot + 1,)
    first, last : int64 (group,)
        Sheared columns, -1 to columns + 1, that a group reaches.
    position : int64 (group, 4)
        Where the row of each plane has column `first`, among rows of n_columns + 2 PAD; a plane of
        zeros, the one after the last, where there are fewer than four.
    """
    n_slots, width = len(slot_start) - 1, n_columns + 2 * PAD
    zeros = (plane.max() + 1) * width
    group_start = np.zeros(n_slots + 1, np.int64)
    first, last = np.empty(plane.size, np.int64), np.empty(plane.size, np.int64)
    position = np.full((plane.size, TOGETHER), zeros)
    n_groups = 0
    for slot in range(n_slots):
        i, stop = slot_start[slot], slot_start[slot + 1]
        while i < stop:
            least, most, n = ix[i], ix[i], 1
            while n < TOGETHER and i + n < stop:
                a, b = min(least, ix[i + n]), max(most, ix[i + n])
                if b - a > PAD:
                    break
                least, most, n = a, b, n + 1
            lo, hi = max(-1, least), min(columns[slot] + 1, most + n_columns)
            if hi > lo:
                first[n_groups], last[n_groups] = lo, hi
                for q in range(n):
                    position[n_groups, q] = plane[i + q] * width + PAD + lo - ix[i + q]
                n_groups += 1
            i += n
        group_start[slot + 1] = n_groups
    return group_start, first[:n_groups], last[:n_groups], position[:n_groups]


@njit(fastmath=True)
def shear_forward(volume, layout, shears, tilts, weights, sheared):
    """Sum the sheared images of some tilts.

    Parameters
    ----------
    volume : float32 (voxels,)
    layout : (plane stride, row stride, column stride, planes, rows, columns)
    shears : shear.Shears
    tilts : (first, end)
    weights : float32 (planes,) or (0,)
        Factor of every plane; none where there are none.
    sheared : float32 (pixels,)
        All sheared images, one after another; overwritten for these tilts.
    """
    boxes, offsets = shears.boxes, shears.offsets
    run_start, slot_start, group_start = shears.run_start, shears.slot_start, shears.group_start
    iy, wy, wx, first, last = shears.iy, shears.wy, shears.wx, shears.first, shears.last
    group_first, group_last, position = shears.group_first, shears.group_last, shears.group_position
    n_rows, n_columns = layout[4], layout[5]
    widest = 0
    for t in range(tilts[0], tilts[1]):
        widest = max(widest, boxes[t, 3])
        _clear(sheared, offsets[t] - HALF_WIDTH * boxes[t, 3], offsets[t] + (boxes[t, 2] + HALF_WIDTH) * boxes[t, 3])
    planes = np.zeros((layout[3] + 1) * (n_columns + 2 * PAD), np.float32)  # the last one stays 0
    zeros = layout[3] * (n_columns + 2 * PAD)
    total, part = np.zeros(widest + 2 * _EDGE, np.float32), np.zeros(widest + 2 * _EDGE, np.float32)
    for y in range(n_rows):
        loaded = False
        for t in range(tilts[0], tilts[1]):
            n = boxes[t, 3]
            for run in range(run_start[t], run_start[t + 1]):
                row = y + iy[run]
                if row + 1 < 0 or row - 1 >= boxes[t, 2]:
                    continue
                if not loaded:
                    _load_row(volume, layout, y, planes)
                    _weigh_planes(planes, n_columns, weights)
                    loaded = True
                _clear(total, 0, n + 2 * _EDGE)
                for slot in range(slot_start[run], slot_start[run + 1]):
                    lo, hi = first[slot], last[slot]
                    g = group_start[slot]
                    if g == group_start[slot + 1]:
                        continue
                    start, end = group_first[g], group_last[g]
                    _clear(part, _EDGE + lo - 2, _EDGE + start)
                    if position[g, 2] == zeros:
                        _set_two(part, _EDGE + start, planes, position[g, 0], position[g, 1], end - start)
                    else:
                        a, b, c, d = position[g, 0], position[g, 1], position[g, 2], position[g, 3]
                        _set_four(part, _EDGE + start, planes, a, b, c, d, end - start)
                    _clear(part, _EDGE + end, _EDGE + hi + 2)
                    for g in range(group_start[slot] + 1, group_start[slot + 1]):
                        start = group_first[g]
                        a, b, c, d = position[g, 0], position[g, 1], position[g, 2], position[g, 3]
                        _add_four(part, _EDGE + start, planes, a, b, c, d, group_last[g] - start)
                    start, end = max(0, lo - 1), min(n, hi + 1)
                    _add_spline(
                        total, _EDGE + start, part, _EDGE + start, wx[slot, 2], wx[slot, 1], wx[slot, 0], end - start
                    )
                for j in range(3):
                    r = row + j - 1
                    if wy[run, j] != 0 and 0 <= r < boxes[t, 2]:
                        _add_scaled(sheared, offsets[t] + r * n, total, _EDGE, wy[run, j], n)


@njit(fastmath=True)
def _spread_tilt(sheared, shears, t, y, n_columns, total, spread):
    """What row y takes from a sheared image, slot by slot; False where the image does not have those rows."""
    slot_start, offset, first, last = shears.slot_start, shears.offsets[t], shears.first, shears.last
    start, least, most, wx, wy = shears.spread_start, shears.least, shears.most, shears.wx, shears.wy
    n_rows, n, seen = shears.boxes[t, 2], shears.boxes[t, 3], False
    for run in range(shears.run_start[t], shears.run_start[t + 1]):
        row = y + shears.iy[run]
        _clear(total, 0, n + 2 * _EDGE)
        for j in range(3):
            r = row + j - 1
            if wy[run, j] != 0 and 0 <= r < n_rows:
                _add_scaled(total, _EDGE, sheared, offset + r * n, wy[run, j], n)
                seen = True
        for slot in range(slot_start[run], slot_start[run + 1]):
            lo, hi, o = first[slot], last[slot], start[slot] - least[slot]
            _clear(spread, start[slot], o + lo)
            _set_spline(spread, o + lo, total, _EDGE + lo, wx[slot, 0], wx[slot, 1], wx[slot, 2], hi - lo)
            _clear(spread, o + hi, o + most[slot] + n_columns)
    return seen


@njit(fastmath=True)
def shear_adjoint(sheared, layout, shears, rows, volume):
    """Add the transpose of `shear_forward` to some rows of a volume.

    Parameters
    ----------
    sheared : float32 (pixels,)
        All sheared images, one after another.
    layout, shears
        As in `shear_forward`.
    rows : (first, end)
        Rows of the volume.
    volume : float32 (voxels,)
    """
    n_planes, n_columns, n_tilts = layout[3], layout[5], shears.boxes.shape[0]
    first, last, position = shears.spread_first, shears.spread_last, shears.spread_position
    spread = np.zeros(shears.spread_size + n_columns, np.float32)  # zeros at its end, for want of a fourth tilt
    total = np.zeros(shears.boxes[:, 3].max() + 2 * _EDGE, np.float32)
    planes = np.empty(n_planes * n_columns, np.float32)
    for y in range(rows[0], rows[1]):
        _clear(planes, 0, planes.size)
        touched = False
        for quartet in range(position.shape[0]):
            seen, together = False, min(TOGETHER, n_tilts - quartet * TOGETHER)
            for t in range(quartet * TOGETHER, quartet * TOGETHER + together):
                seen |= _spread_tilt(sheared, shears, t, y, n_columns, total, spread)
            if not seen:
                continue
            touched = True
            for k in range(n_planes):
                lo, length = first[quartet, k], last[quartet, k] - first[quartet, k]
                if together == 1:
                    _add_scaled(
                        planes, k * n_columns + lo, spread, position[quartet, k, 0], np.float32(1), max(0, length)
                    )
                elif length > 0:
                    a, b = position[quartet, k, 0], position[quartet, k, 1]
                    c, d = position[quartet, k, 2], position[quartet, k, 3]
                    _add_four(planes, k * n_columns + lo, spread, a, b, c, d, length)
        if touched:
            _store_row(planes, layout, y, volume)
