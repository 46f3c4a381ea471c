"""Histograms of distances, block by block: between atoms, and between atoms and the points of a shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..blocks.atoms import ATOMS_PER_BLOCK, atom_blocks, map_blocks
from ..errors import InputError
from ._pair_kernels import cells_of, pair_histogram, point_histogram

UNIT = 2**20
"""A weight of one: weights are whole numbers, so that their sums do not depend on blocks."""

_CELLS_IN_REACH = 3  # cells along the reach; 2 to 5 are as fast
_ATOMS = 4 * ATOMS_PER_BLOCK  # of a block, whose halo is wide
_LARGEST = 10 * ATOMS_PER_BLOCK  # atoms and points of a block; a point costs less than an atom


@dataclass(frozen=True)
class Bins:
    """Bins of distance.

    Attributes
    ----------
    reach : float
        Distances below this count, in Angstrom.
    step : float
        Width of a bin in Angstrom.
    published : bool
        Bins of the scripts of Yang et al. 2021, ceil(d / step + 0.01) - 1, instead of floor(d / step).
    """

    reach: float
    step: float
    published: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no histogram."""
        if not (np.isfinite(self.reach) and 0 < self.step < self.reach):
            raise InputError(f"r_max = {self.reach} and step = {self.step} came; needed is 0 < step < r_max.")

    @property
    def n(self) -> int:
        """Number of bins."""
        if self.published:
            return int(np.ceil(self.reach / self.step + 0.01))
        return int(np.ceil(self.reach / self.step - 1e-9))

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, shape (n + 1,), float64."""
        edges = (np.arange(self.n + 1) - (0.01 if self.published else 0.0)) * self.step
        edges[0], edges[-1] = 0.0, self.reach
        return edges


def count_pairs(
    positions: np.ndarray,
    kinds: np.ndarray,
    bins: Bins,
    *,
    weights: np.ndarray | None = None,
    images: tuple[np.ndarray, np.ndarray] | None = None,
    largest: int = _ATOMS,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes: ordered pairs of atoms by distance and by their kinds.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), float64
        Angstrom.
    kinds : ndarray, shape (n,), int64
        0, 1, ...
    bins : Bins
        Of the distances.
    weights : ndarray, shape (n,), int64, optional
        Share of each atom that lies in the shape, in `UNIT`; all of it by default.
    images : tuple of ndarray, optional
        Positions of periodic images and the atom of each, shapes (m, 3) and (m,).
    largest : int
        Atoms of a block; the answer does not depend on it.

    Returns
    -------
    counts : ndarray, shape (kinds, kinds, bins), int64
        Pairs (i, j), i != j, by kind of i, kind of j, and distance.
    shares : ndarray, shape (kinds, kinds, bins), float64
        The same, each pair with the share of j.
    """
    n_kinds = int(kinds.max()) + 1
    weights = np.full(len(positions), UNIT) if weights is None else weights
    n = len(positions)
    if images is not None:
        where, atom = images
        positions, kinds = np.concatenate([positions, where]), np.concatenate([kinds, kinds[atom]])
        weights = np.concatenate([weights, weights[atom]])
    is_image = np.arange(len(positions)) >= n
    blocks, grid = atom_blocks(positions, bins.reach, largest=largest), _grid(positions, bins.reach)
    settings = {"grid": grid, "n_kinds": n_kinds, "bins": bins, "later": images is None}
    parts = map_blocks(_block_of_pairs, blocks, positions, kinds, weights, is_image, **settings)
    counts, sums = (np.sum([part[k] for part in parts], axis=0) for k in range(2))
    if images is None:
        return counts + counts.transpose(1, 0, 2), (sums + sums.transpose(1, 0, 2)) / (2.0 * UNIT)
    diagonal = np.arange(n_kinds)
    counts[diagonal, diagonal, 0] -= np.bincount(kinds[:n], minlength=n_kinds)  # each atom with itself
    return counts, counts.astype(np.float64)


def count_points(
    positions: np.ndarray, points: np.ndarray, reach: float, step: float, *, largest: int = _LARGEST
) -> np.ndarray:
    """Computes: how many points are at which distance from the atoms, summed over the atoms.

    Parameters
    ----------
    positions, points : ndarray, shape (n, 3) and (m, 3), float64
        Atoms and points, in Angstrom.
    reach, step : float
        Largest distance and width of a bin, in Angstrom; the reach is a whole number of steps.
    largest : int
        Atoms and points of a block; the answer does not depend on it.

    Returns
    -------
    ndarray, shape (bins,), int64
    """
    both = np.concatenate([positions, points])
    is_atom = np.arange(len(both)) < len(positions)
    blocks, grid = atom_blocks(both, reach, largest=largest), _grid(both, reach)
    return np.sum(map_blocks(_block_of_points, blocks, both, is_atom, grid=grid, reach=reach, step=step), axis=0)


def _grid(positions: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
    """Corner and cell of the grid that all blocks share."""
    lowest, extent = positions.min(axis=0), np.ptp(positions, axis=0)
    cell = reach / _CELLS_IN_REACH
    while np.prod(np.floor(extent / cell) + 1) > max(1000, 4 * len(positions)):
        cell *= 1.5  # stray atoms far away shall not cost memory
    return lowest, cell


def _sorted_by_cell(positions: np.ndarray, grid: tuple[np.ndarray, float]) -> tuple[np.ndarray, np.ndarray, tuple]:
    """Order of the positions by cell, their cells, and what the kernels know of the block's part of the grid."""
    lowest, cell = grid
    first = np.floor((positions.min(axis=0) - lowest) / cell).astype(np.int64)
    last = np.floor((positions.max(axis=0) - lowest) / cell).astype(np.int64)
    here = (lowest, cell, first, last - first + 1)
    cells = cells_of(positions, *here)
    return np.argsort(cells, kind="stable"), cells, here


def _block_of_pairs(
    core: np.ndarray,
    positions: np.ndarray,
    kinds: np.ndarray,
    weights: np.ndarray,
    is_image: np.ndarray,
    *,
    grid: tuple[np.ndarray, float],
    n_kinds: int,
    bins: Bins,
    later: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and summed weights of the pairs whose centre the block owns.

    Without images a pair belongs to the atom that comes first by cell, then by number (`later`): all blocks agree on
    that, as they share the grid.
    """
    order, cells, here = _sorted_by_cell(positions, grid)
    start = np.searchsorted(cells[order], np.arange(here[3].prod() + 1))
    rows = np.flatnonzero((core & ~is_image)[order])
    centres = order[rows]
    return pair_histogram(
        positions[centres], rows + 1, np.ascontiguousarray(positions[order].T), start, later,
        weights[centres], weights[order], kinds[centres], kinds[order], n_kinds,
        *here, bins.reach, bins.step, bins.n, bins.published,
    )  # fmt: skip


def _block_of_points(
    core: np.ndarray,
    positions: np.ndarray,
    is_atom: np.ndarray,
    *,
    grid: tuple[np.ndarray, float],
    reach: float,
    step: float,
) -> np.ndarray:
    """How many points are at which distance from the atoms that the block owns."""
    order, cells, here = _sorted_by_cell(positions, grid)
    centres, targets = order[(core & is_atom)[order]], order[~is_atom[order]]
    start = np.searchsorted(cells[targets], np.arange(here[3].prod() + 1))
    around = np.ascontiguousarray(positions[targets].T)
    return point_histogram(positions[centres], around, start, *here, reach, step, round(reach / step))
