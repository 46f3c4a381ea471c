"""Histograms of the distances between points in cells (numpy and Numba only)."""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def cells_of(points, lowest, cell, first, shape):
    """Number of the cell of each point, of a grid that all blocks share.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    lowest : ndarray, shape (3,), float64
        Corner of the grid.
    cell : float
        Edge of a cell.
    first, shape : ndarray, shape (3,), int64
        First cell of the block along each axis, and how many there are; no point lies beyond them.

    Returns
    -------
    ndarray, shape (n,), int64
        Running along z fastest.
    """
    number = np.empty(len(points), np.int64)
    for i in range(len(points)):
        at = 0
        for k in range(3):
            at = at * shape[k] + int(np.floor((points[i, k] - lowest[k]) / cell)) - first[k]
        number[i] = at
    return number


@njit
def _around(point, lowest, cell, first, shape, reach):
    """First and last + 1 row of cells along x and y that come within reach of a point."""
    low, high = np.empty(2, np.int64), np.empty(2, np.int64)
    for k in range(2):
        low[k] = max(int(np.floor((point[k] - reach - lowest[k]) / cell)) - first[k], 0)
        high[k] = min(int(np.floor((point[k] + reach - lowest[k]) / cell)) - first[k] + 1, shape[k])
    return low[0], high[0], low[1], high[1]


@njit
def _run(point, a, b, start, lowest, cell, first, shape, reach):
    """Targets, from where to where, in those cells of a row along z that come within reach of a point."""
    edge_x, edge_y = lowest[0] + (first[0] + a) * cell, lowest[1] + (first[1] + b) * cell
    gap_x = max(edge_x - point[0], 0.0, point[0] - edge_x - cell)
    gap_y = max(edge_y - point[1], 0.0, point[1] - edge_y - cell)
    left = reach * reach - gap_x * gap_x - gap_y * gap_y
    half = np.sqrt(max(left, 0.0)) + 1e-9 * reach  # a little more, so that rounding leaves nothing out
    low = max(int(np.floor((point[2] - half - lowest[2]) / cell)) - first[2], 0)
    high = min(int(np.floor((point[2] + half - lowest[2]) / cell)) - first[2] + 1, shape[2])
    row = (a * shape[1] + b) * shape[2]
    if high <= low or left < -1e-9 * reach * reach:
        return 0, 0
    return start[row + low], start[row + high]


@njit(error_model="numpy")
def pair_histogram(
    centres, rows, targets, start, later, weight, weights, kind, kinds, n_kinds, lowest, cell, first, shape, reach,
    step, n_bins, published,
):  # fmt: skip
    """How many targets are at which distance from the centres, by the kinds of both.

    Parameters
    ----------
    centres : ndarray, shape (m, 3), float64
        Positions.
    rows : ndarray, shape (m,), int64
        First target that counts for each centre, where pairs are counted from one side (`later`).
    targets : ndarray, shape (3, n), float64
        Positions, sorted by cell.
    start : ndarray, shape (cells + 1,), int64
        Where each cell begins in `targets`.
    later : bool
        Whether only targets from `rows` on count.
    weight, weights : ndarray, shape (m,) and (n,), int64
        Weight of each centre and target; a pair counts the sum of both. Whole numbers, so that the order of the sum
        does not matter.
    kind, kinds : ndarray, shape (m,) and (n,), int64
        Kind of each centre and target, from 0.
    n_kinds : int
        Number of kinds.
    lowest, cell, first, shape
        The grid, see :func:`cells_of`.
    reach : float
        Distances below this count.
    step : float
        Width of a bin.
    n_bins : int
        Bins.
    published : bool
        Bin ceil(d / step + 0.01) - 1 instead of floor(d / step).

    Returns
    -------
    counts, weighted : ndarray, shape (n_kinds, n_kinds, n_bins), int64
        Pairs, and their weights, by kind of the centre, kind of the target, and distance.
    """
    width = n_bins + 1  # the last takes what is too far
    counts = np.zeros(n_kinds * n_kinds * width, np.int64)
    weighted = np.zeros(n_kinds * n_kinds * width, np.int64)
    bins = np.empty(targets.shape[1], np.int64)
    x, y, z = targets[0], targets[1], targets[2]
    for i in range(len(centres)):
        px, py, pz = centres[i]
        base = kind[i] * n_kinds
        a0, a1, b0, b1 = _around(centres[i], lowest, cell, first, shape, reach)
        for a in range(a0, a1):
            for b in range(b0, b1):
                begin, end = _run(centres[i], a, b, start, lowest, cell, first, shape, reach)
                if later:
                    begin = max(begin, rows[i])
                for s in range(begin, end):
                    d = np.sqrt((x[s] - px) ** 2 + (y[s] - py) ** 2 + (z[s] - pz) ** 2)
                    k = int(np.ceil(d / step + 0.01)) - 1 if published else int(d / step)
                    bins[s] = min(k, n_bins) if d < reach else n_bins
                for s in range(begin, end):
                    at = (base + kinds[s]) * width + bins[s]
                    counts[at] += 1
                    weighted[at] += weight[i] + weights[s]
    full = (n_kinds, n_kinds, width)
    return counts.reshape(full)[:, :, :n_bins].copy(), weighted.reshape(full)[:, :, :n_bins].copy()


@njit
def point_histogram(centres, targets, start, lowest, cell, first, shape, reach, step, n_bins):
    """How many targets are at which distance from the centres: bin floor(d / step).

    Parameters
    ----------
    centres, targets, start, lowest, cell, first, shape, reach, step, n_bins
        As for :func:`pair_histogram`.

    Returns
    -------
    ndarray, shape (n_bins,), int64
    """
    counts = np.zeros(n_bins + 1, np.int64)
    bins = np.empty(targets.shape[1], np.int32)
    x, y, z = targets[0], targets[1], targets[2]
    scale, top = 1.0 / step, float(n_bins)
    for i in range(len(centres)):
        px, py, pz = centres[i]
        a0, a1, b0, b1 = _around(centres[i], lowest, cell, first, shape, reach)
        for a in range(a0, a1):
            for b in range(b0, b1):
                begin, end = _run(centres[i], a, b, start, lowest, cell, first, shape, reach)
                for s in range(begin, end):  # this loop becomes vector instructions
                    dx, dy, dz = x[s] - px, y[s] - py, z[s] - pz
                    bins[s] = np.int32(min(np.sqrt(dx * dx + dy * dy + dz * dz) * scale, top))
                for s in range(begin, end):
                    counts[bins[s]] += 1
    return counts[:n_bins]
