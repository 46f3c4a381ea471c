"""Pairs of points that are near each other (scipy's k-d tree)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError


def as_points(points: np.ndarray, name: str = "positions") -> np.ndarray:
    """`points` as a float64 array of shape (n, 3).

    Parameters
    ----------
    points : array_like, shape (n, 3)
        Positions (x, y, z) in any unit of length; n may be 0.
    name : str
        What an error calls them.

    Returns
    -------
    ndarray, shape (n, 3), float64
        The same positions.

    Raises
    ------
    InputError
        If they are not n triples of finite numbers.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, 3)
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"{name} came with shape {array.shape}; needed is (n, 3) for x, y, z.")
    if not np.isfinite(array).all():
        finite = np.isfinite(array).all(axis=1)
        raise InputError(
            f"{name}: {int((~finite).sum())} of {len(array)} are not finite numbers, the first at index "
            f"{int(np.argmin(finite))}; leave those points out."
        )
    return array


def neighbour_pairs(points: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of points nearer than a cut-off, each pair once.

    Parameters
    ----------
    points : array_like, shape (n, 3), float
        Positions in the unit of `cutoff`.
    cutoff : float
        Pairs at this distance or more are left out.

    Returns
    -------
    pairs : ndarray, shape (m, 2), intp
        Indices i < j, sorted by i, then j.
    distances : ndarray, shape (m,), float64
        Their distances, in the unit of `points`.

    Raises
    ------
    InputError
        If `points` are not finite triples, or the cut-off is not positive and finite.
    """
    points = as_points(points)
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"The cut-off is {cutoff}; needed is a positive length.")
    if len(points) < 2:
        return np.empty((0, 2), dtype=np.intp), np.empty(0)
    pairs = cKDTree(points).query_pairs(cutoff, output_type="ndarray").astype(np.intp)
    distances = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs, distances = pairs[distances < cutoff], distances[distances < cutoff]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], distances[order]


def mutual_nearest(a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one point of `a` and one of `b` that are each other's nearest.

    Parameters
    ----------
    a, b : array_like, shape (n, 3) and (m, 3), float
        Two sets of positions in one unit and frame.
    tolerance : float
        Pairs farther apart than this are left out.

    Returns
    -------
    pairs : ndarray, shape (k, 2), intp
        Index into `a`, index into `b`; rising in `a`; no index occurs twice.
    distances : ndarray, shape (k,), float64
        Distance of each pair.

    Raises
    ------
    InputError
        If positions are not finite triples, or the tolerance is not positive.
    """
    a, b = as_points(a), as_points(b)
    if not tolerance > 0:
        raise InputError(f"The tolerance is {tolerance}; needed is a positive length.")
    if len(a) == 0 or len(b) == 0:
        return np.empty((0, 2), dtype=np.intp), np.empty(0)
    distance, to_b = cKDTree(b).query(a)
    to_a = cKDTree(a).query(b)[1]
    i = np.flatnonzero((to_a[to_b] == np.arange(len(a))) & (distance <= tolerance))
    return np.stack([i, to_b[i]], axis=1).astype(np.intp), distance[i]
