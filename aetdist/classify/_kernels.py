"""Patterns of atoms, and the types that neighbours agree on (numpy and Numba only)."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit
from ..voxels._spline_kernels import sample_box, sample_reach

NODES = 3  # per axis: Gauss' rule, exact for polynomials up to fifth order along each axis


def pattern_rule(box: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the pattern of an atom is sampled, and what the samples weigh.

    Parameters
    ----------
    box : float
        Edge of the box around the atom, in voxels.

    Returns
    -------
    nodes : ndarray, shape (3,), float64
        Along each axis, in voxels from the atom.
    weights : ndarray, shape (27,), float64
        Of the samples in C order (z, y, x); they sum to 1: the weighted sum is the mean over the box.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    cube = weights[:, None, None] * weights[:, None] * weights
    return nodes * box / 2, cube.ravel() / cube.sum()


def pattern_reach(box: float) -> int:
    """Coefficients that :func:`sample_patterns` reads on either side of an atom's voxel."""
    return sample_reach(box / 2 + 1)


@njit
def sample_patterns(coefficients, margin, voxel, offset, nodes, reach):
    """The spline at the nodes around every atom.

    Parameters
    ----------
    coefficients : ndarray, shape (z, y, x), float32
        Spline coefficients of a block with `margin` (`reach` or more) voxels around its core.
    margin : int
        Voxels of `coefficients` before the core.
    voxel : ndarray, shape (n, 3), int64
        Voxel (z, y, x) of every atom from the core's first.
    offset : ndarray, shape (n, 3), float64
        Atom from its voxel (z, y, x), in voxels, 0 to 1.
    nodes : ndarray, shape (3,), float64
        From :func:`pattern_rule`.
    reach : int
        From :func:`pattern_reach`.

    Returns
    -------
    ndarray, shape (n, 27), float32
        Samples in C order (z, y, x).
    """
    n, m, k = len(voxel), 2 * reach + 1, len(nodes)
    out = np.empty((n, k**3), dtype=np.float32)
    patch = np.empty((m, m, m))
    weights = np.empty((k, 4))
    first = np.empty(k, dtype=np.int64)
    along_x = np.empty((m, m, k))
    along_y = np.empty((m, k, k))
    samples = np.empty(k**3)
    for i in range(n):
        z, y, x = voxel[i, 0] + margin - reach, voxel[i, 1] + margin - reach, voxel[i, 2] + margin - reach
        patch[:] = coefficients[z : z + m, y : y + m, x : x + m]
        sample_box(patch, offset[i], nodes, weights, first, along_x, along_y, samples)
        for s in range(k**3):
            out[i, s] = samples[s]
    return out


def sort_into_cells(position: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms in cubic cells, C order.

    Parameters
    ----------
    position : ndarray, shape (n, 3), float64
        In the unit of `size`.
    size : float
        Edge of a cell; made longer where there would be many more cells than atoms.

    Returns
    -------
    order : ndarray, shape (n,), int64
        Atoms by cell.
    start : ndarray, shape (cells + 1,), int64
        Where each cell's atoms begin in `order`.
    grid : ndarray, shape (3,), int64
        Cells along each axis.
    """
    lowest = position.min(axis=0)
    extent = position.max(axis=0) - lowest
    while np.prod(np.floor(extent / size) + 1) > 64 + 8 * len(position):
        size *= 2
    grid = np.floor(extent / size).astype(np.int64) + 1
    index = np.minimum(np.floor((position - lowest) / size).astype(np.int64), grid - 1)
    cell = (index[:, 0] * grid[1] + index[:, 1]) * grid[2] + index[:, 2]
    start = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=int(grid.prod())))])
    return np.argsort(cell, kind="stable"), start, grid


@njit
def _move_atom(a, before, after, position, pattern, start, grid, cell_of, radius, sums, counts):
    """Atom `a` counts among those of type `after` around its neighbours and no more of `before` (-1: of none)."""
    limit = radius * radius
    c = cell_of[a]
    cz, cy, cx = c // (grid[1] * grid[2]), (c // grid[2]) % grid[1], c % grid[2]
    for z in range(max(cz - 1, 0), min(cz + 2, grid[0])):
        for y in range(max(cy - 1, 0), min(cy + 2, grid[1])):
            row = (z * grid[1] + y) * grid[2]
            for i in range(start[row + max(cx - 1, 0)], start[row + min(cx + 1, grid[2] - 1) + 1]):
                d0, d1, d2 = (
                    position[i, 0] - position[a, 0],
                    position[i, 1] - position[a, 1],
                    position[i, 2] - position[a, 2],
                )
                if i == a or d0 * d0 + d1 * d1 + d2 * d2 > limit:
                    continue
                if before >= 0:
                    counts[i, before] -= 1
                    for s in range(pattern.shape[1]):
                        sums[i, before, s] -= pattern[a, s]
                if after >= 0:
                    counts[i, after] += 1
                    for s in range(pattern.shape[1]):
                        sums[i, after, s] += pattern[a, s]


@njit
def count_neighbours(position, pattern, before, after, start, grid, cell_of, radius, sums, counts):
    """Bring the sums of patterns around every atom up to date after some atoms changed their type.

    Parameters
    ----------
    position : ndarray, shape (n, 3), float64
        Atoms in the order of :func:`sort_into_cells`.
    pattern : ndarray, shape (n, s), float64
        Of every atom.
    before, after : ndarray, shape (n,), int64
        Type 0..k-1 of every atom then and now; -1 for none.
    start, grid : ndarray
        From :func:`sort_into_cells` with cells no shorter than the radius.
    cell_of : ndarray, shape (n,), int64
        Cell of every atom.
    radius : float
        In the unit of `position`.
    sums : ndarray, shape (n, k, s), float64
        For every atom, sum of the patterns of the atoms of each type within the radius, itself not
        among them. Updated in place.
    counts : ndarray, shape (n, k), int64
        How many those are. Updated in place.
    """
    for a in range(len(position)):
        if before[a] != after[a]:
            _move_atom(a, before[a], after[a], position, pattern, start, grid, cell_of, radius, sums, counts)


@njit
def nearest_patterns(pattern, sums, counts, overall, prior, types, distance):
    """Type whose mean pattern around an atom is the nearest to the atom's own.

    Parameters
    ----------
    pattern, sums, counts
        As in :func:`count_neighbours`.
    overall : ndarray, shape (k, s), float64
        Mean pattern of each type everywhere.
    prior : float
        Atoms that `overall` counts for in the local mean.
    types : ndarray, shape (n,), int64
        Receives the nearest type 0..k-1; the lowest of equal ones.
    distance : ndarray, shape (n,), float64
        Receives the L2 norm to it.
    """
    for i in range(len(pattern)):
        least = math.inf
        for k in range(len(overall)):
            total = 0.0
            divisor = counts[i, k] + prior
            for s in range(pattern.shape[1]):
                d = pattern[i, s] - (sums[i, k, s] + prior * overall[k, s]) / divisor
                total += d * d
            if total < least:
                least = total
                types[i] = k
        distance[i] = math.sqrt(least)
