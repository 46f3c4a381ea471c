"""k-means of numbers, solved exactly: there is no start that could be a bad one."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

GROUPS = 1024  # more numbers are taken in so many groups of neighbours


def kmeans_1d(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Split numbers into `k` classes with the least variance within them.

    Parameters
    ----------
    values : array_like, shape (n,), float
        Any unit.
    k : int
        Number of classes, 1 or more.

    Returns
    -------
    labels : ndarray, shape (n,), int64
        Class 0..k-1 of every number, by rising mean.
    means : ndarray, shape (k,), float64
        Mean of every class, rising.

    Raises
    ------
    InputError
        If there are fewer than `k` different numbers.

    Notes
    -----
    Minimises sum over classes c and members i of (x_i - mean_c)^2. In one dimension the best classes are
    intervals of the sorted numbers, found by dynamic programming [1]_: D_k(j) = min over i < j of
    D_{k-1}(i) + S(i, j), with S the squared deviation of the numbers i..j-1 from their mean. More than
    ``GROUPS`` numbers are cut at group borders first, and the borders then moved to where they belong
    (the number nearer to the mean of a class joins it) until they stay.

    References
    ----------
    .. [1] H. Wang and M. Song, R Journal 3 (2), 29 (2011).
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    different = 1 + np.count_nonzero(np.diff(ordered)) if x.size else 0
    if different < k:
        raise InputError(
            f"{k} classes of {different} different intensities cannot be told apart; ask for {different} or fewer."
        )
    # From the mean, so that the sums of squares lose no digits.
    middle = float(ordered.mean())
    total = np.concatenate([[0.0], np.cumsum(ordered - middle)])
    cuts = _polish(ordered, _best_cuts(ordered - middle, total, k))
    labels = np.empty(x.size, dtype=np.int64)
    labels[order] = np.repeat(np.arange(k), np.diff(cuts))
    return labels, middle + np.diff(total[cuts]) / np.diff(cuts)


def _best_cuts(x: np.ndarray, total: np.ndarray, k: int) -> np.ndarray:
    """Where the classes of sorted numbers begin and end: 0, ..., n; of groups if there are many."""
    edges = np.unique(np.linspace(0, x.size, min(x.size, GROUPS) + 1).astype(np.int64))
    # Equal numbers are never parted, and every class keeps one or more of them.
    edges = np.unique(np.concatenate([[0], np.searchsorted(x, x[edges[1:-1]], side="left"), [x.size]]))
    if len(edges) <= k:  # a few numbers that occur very often
        edges = np.unique(np.concatenate([np.searchsorted(x, np.unique(x), side="left"), [x.size]]))
    square = np.concatenate([[0.0], np.cumsum(x**2)])
    count = edges[None, :] - edges[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        within = (square[edges][None, :] - square[edges][:, None]) - (
            (total[edges][None, :] - total[edges][:, None]) ** 2 / count
        )
    within[count <= 0] = np.inf
    cost = within[0].copy()
    came_from = []
    for _ in range(k - 1):
        best = cost[:, None] + within
        came_from.append(np.argmin(best, axis=0))
        cost = np.min(best, axis=0)
    cuts = [len(edges) - 1]
    for before in reversed(came_from):
        cuts.append(int(before[cuts[-1]]))
    return edges[np.array([0, *cuts[:0:-1], len(edges) - 1] if k > 1 else [0, len(edges) - 1])]


def _polish(x: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Borders of classes of sorted numbers moved to half way between the means, until they stay."""
    total = np.concatenate([[0.0], np.cumsum(x)])
    for _ in range(100):
        means = np.diff(total[cuts]) / np.diff(cuts)
        moved = cuts.copy()
        moved[1:-1] = np.searchsorted(x, (means[:-1] + means[1:]) / 2, side="left")
        if np.array_equal(moved, cuts) or (np.diff(moved) == 0).any():
            break
        cuts = moved
    return cuts
