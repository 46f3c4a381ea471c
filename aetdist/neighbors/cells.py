"""The neighbours of every point within a cut-off, found once and passed on (a cell list)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ._kernels import neighbours_of, sort_into_cells
from .pairs import as_points

_CELLS_PER_POINT = 4  # no more, so that a stray point far away does not cost memory


@dataclass(frozen=True)
class NeighbourList:
    """Neighbours of points, one behind the other.

    Attributes
    ----------
    start : ndarray, shape (n + 1,), int64
        The neighbours of point i are ``index[start[i] : start[i + 1]]``.
    index : ndarray, shape (pairs,), int64
        Neighbours by rising index; each pair stands there from both sides.
    """

    start: np.ndarray
    index: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """Number of neighbours of every point, shape (n,), int64."""
        return np.diff(self.start)

    @property
    def centre(self) -> np.ndarray:
        """Whose neighbour each entry of `index` is, shape (pairs,), int64: a row of the list."""
        return np.repeat(np.arange(len(self.start) - 1), self.count)


def neighbour_list(points: np.ndarray, cutoff: float, *, wanted: np.ndarray | None = None) -> NeighbourList:
    """Find the neighbours of points, open boundaries.

    Parameters
    ----------
    points : array_like, shape (n, 3), float
        Positions in the unit of `cutoff`.
    cutoff : float
        Neighbours are nearer than this.
    wanted : ndarray, shape (m,), int or bool (n,), optional
        Points whose neighbours are asked for, by index or as a mask; all by default.

    Returns
    -------
    NeighbourList
        One row for each wanted point.

    Raises
    ------
    InputError
        If `points` are not finite triples, or the cut-off is not positive and finite.
    """
    points = np.ascontiguousarray(as_points(points))
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"The cut-off is {cutoff}; needed is a positive length.")
    rows = np.arange(len(points)) if wanted is None else np.asarray(wanted)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    if len(points) == 0:
        return NeighbourList(np.zeros(len(rows) + 1, np.int64), np.empty(0, np.int64))
    # Axis by axis, which takes numpy a fifth of the time.
    lowest, highest = (np.array([end(column) for column in points.T]) for end in (np.min, np.max))
    extent = highest - lowest
    cell = float(cutoff)
    while np.prod(np.floor(extent / cell) + 1) > max(8, _CELLS_PER_POINT * len(points)):
        cell *= 1.5
    shape = tuple(int(n) for n in np.floor(extent / cell) + 1)
    order, start = sort_into_cells(points, lowest, cell, shape)
    first, index = neighbours_of(points, rows, lowest, cell, shape, order, start, float(cutoff))
    return NeighbourList(first, index)
