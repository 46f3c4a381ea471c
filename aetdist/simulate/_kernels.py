"""Random packing of soft spheres: the arithmetic."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit


@njit
def push_apart(
    positions: np.ndarray,
    types: np.ndarray,
    swelling: np.ndarray,
    smallest: np.ndarray,
    pairs: np.ndarray,
    strength: float,
    shift: np.ndarray,
) -> tuple[int, float]:
    """How far overlapping spheres push each other, summed over the pairs of every sphere.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), float64
        Angstrom.
    types : ndarray, shape (n,), int64
        Index into `smallest`.
    swelling : ndarray, shape (n,), float64
        Spheres i and j touch at d_ij = smallest[type_i, type_j] (1 + swelling_i + swelling_j).
    smallest : ndarray, shape (k, k), float64
        Smallest distance allowed between two types, in Angstrom.
    pairs : ndarray, shape (m, 2), int64
        Pairs near enough to touch.
    strength : float
        Each sphere of a pair moves by strength (d_ij - r_ij) / 2 along the line that joins them.
    shift : ndarray, shape (n, 3), float64
        Set to the sum of the moves.

    Returns
    -------
    forbidden : int
        Pairs nearer than the smallest distance allowed.
    overlap : float
        Largest 1 - r_ij / d_ij.
    """
    shift[:] = 0.0
    forbidden = 0
    overlap = 0.0
    for p in range(pairs.shape[0]):
        i, j = pairs[p, 0], pairs[p, 1]
        dx = positions[j, 0] - positions[i, 0]
        dy = positions[j, 1] - positions[i, 1]
        dz = positions[j, 2] - positions[i, 2]
        r = math.sqrt(dx * dx + dy * dy + dz * dz)
        limit = smallest[types[i], types[j]]
        d = limit * (1.0 + swelling[i] + swelling[j])
        if r >= d:
            continue
        if r < limit:
            forbidden += 1
        overlap = max(overlap, 1.0 - r / d)
        if r < 1e-9:  # one on top of the other: any direction parts them
            dx, dy, dz, r = 1e-9, 0.0, 0.0, 1e-9
        move = 0.5 * strength * (d - r) / r
        shift[i, 0] -= move * dx
        shift[i, 1] -= move * dy
        shift[i, 2] -= move * dz
        shift[j, 0] += move * dx
        shift[j, 1] += move * dy
        shift[j, 2] += move * dz
    return forbidden, overlap
