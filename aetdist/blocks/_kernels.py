"""What atoms lie in a box (numpy and Numba only)."""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def extent_of(positions, some):
    """Lowest and highest coordinates of some of the points.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), float64
        Points.
    some : ndarray, shape (m,), int64
        Numbers of one point or more.

    Returns
    -------
    low, high : ndarray, shape (3,), float64
    """
    low, high = positions[some[0]].copy(), positions[some[0]].copy()
    for i in some:
        for axis in range(3):
            low[axis] = min(low[axis], positions[i, axis])
            high[axis] = max(high[axis], positions[i, axis])
    return low, high


@njit
def within_box(positions, some, low, high):
    """Those of some points that lie in a box, its faces included; in their order.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), float64
        Points.
    some : ndarray, shape (m,), int64
        Numbers of points.
    low, high : ndarray, shape (3,), float64
        Corners of the box.

    Returns
    -------
    ndarray, shape (k,), int64
    """
    found = np.empty(len(some), np.int64)
    k = 0
    for i in some:
        inside = True
        for axis in range(3):
            inside &= low[axis] <= positions[i, axis] <= high[axis]
        found[k] = i
        k += inside
    return found[:k].copy()
