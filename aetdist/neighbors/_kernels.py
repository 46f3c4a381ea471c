"""Cells of points, and the neighbours in them (numpy and Numba only)."""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def sort_into_cells(points, lowest, cell, shape):
    """Points in the order of their cells (a counting sort, which keeps the order within a cell).

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    lowest : ndarray, shape (3,), float64
        Lower corner of the first cell.
    cell : float
        Edge of a cell.
    shape : tuple of int
        Cells along each axis; no point lies beyond them.

    Returns
    -------
    order : ndarray, shape (n,), int64
        Points, cell by cell.
    start : ndarray, shape (cells + 1,), int64
        Where in `order` each cell begins.
    """
    n = len(points)
    of = np.empty(n, np.int64)
    start = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    for i in range(n):
        index = 0
        for axis in range(3):
            c = min(max(int((points[i, axis] - lowest[axis]) / cell), 0), shape[axis] - 1)
            index = index * shape[axis] + c
        of[i] = index
        start[index + 1] += 1
    for c in range(len(start) - 1):
        start[c + 1] += start[c]
    order = np.empty(n, np.int64)
    fill = start[:-1].copy()
    for i in range(n):
        order[fill[of[i]]] = i
        fill[of[i]] += 1
    return order, start


@njit
def neighbours_of(points, wanted, lowest, cell, shape, order, start, cutoff):
    """Neighbours of the wanted points, each by rising index.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    wanted : ndarray, shape (m,), int64
        Points whose neighbours are asked for.
    lowest, cell, shape, order, start
        As :func:`sort_into_cells` has and gives them.
    cutoff : float
        Neighbours are nearer.

    Returns
    -------
    first : ndarray, shape (m + 1,), int64
        Where the neighbours of each wanted point begin.
    index : ndarray, shape (pairs,), int64
        The neighbours.
    """
    first = np.zeros(len(wanted) + 1, np.int64)
    index = np.empty(0, np.int64)
    reach = cutoff * (1.0 + 1e-9)  # cells are found by division, which rounds
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for fill in range(2):  # counted first, then written
        for k in range(len(wanted)):
            i = wanted[k]
            for axis in range(3):
                at = points[i, axis] - lowest[axis]
                low[axis] = min(max(int((at - reach) / cell), 0), shape[axis] - 1)
                high[axis] = min(int((at + reach) / cell), shape[axis] - 1) + 1
            n = first[k]
            for a in range(low[0], high[0]):
                for b in range(low[1], high[1]):
                    row = (a * shape[1] + b) * shape[2]
                    for s in range(start[row + low[2]], start[row + high[2]]):
                        j = order[s]
                        dx = points[i, 0] - points[j, 0]
                        dy = points[i, 1] - points[j, 1]
                        dz = points[i, 2] - points[j, 2]
                        if j != i and dx * dx + dy * dy + dz * dz < cutoff * cutoff:
                            if fill:
                                index[n] = j
                            n += 1
            if fill:
                index[first[k] : n].sort()
            else:
                first[k + 1] = n
        if first[-1] == 0:
            break
        if not fill:
            index = np.empty(first[-1], np.int64)
    return first, index
