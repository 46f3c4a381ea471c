"""Random dense packings of atoms inside a region: soft spheres pushed apart until none is too near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ._kernels import push_apart

PACKING_FRACTION = 0.60
"""Volume fraction of the touching spheres; random close packing is 0.64."""
SWELLING = (0.02, 0.065)
"""Range of the part by which a sphere keeps others further off than the smallest distance."""
ROUNDS = 600


def relax_packing(
    positions: np.ndarray,
    types: np.ndarray,
    smallest: np.ndarray,
    confine: Callable[[np.ndarray], np.ndarray],
    random: np.random.Generator,
) -> np.ndarray:
    """Push positions apart until no pair is nearer than allowed.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), float64
        Where the atoms start, in Angstrom.
    types : ndarray, shape (n,), int
        Row of `smallest` of every atom.
    smallest : ndarray, shape (k, k), float64
        Smallest distance allowed between two types, in Angstrom.
    confine : callable
        Takes positions to the nearest ones inside the region.
    random : numpy.random.Generator
        Draws by how much each sphere is larger than it must be.

    Returns
    -------
    ndarray, shape (n, 3), float64
        Relaxed positions. Pairs that are still too near are left to the caller
        (:func:`drop_near_pairs`).

    Notes
    -----
    Minimises sum over pairs of max(0, d_ij - r_ij)^2 by damped simultaneous moves,
    d_ij = smallest_ij (1 + s_i + s_j) with s drawn evenly from ``SWELLING``: the spread of sizes
    broadens the first peak of g(r) and keeps the packing from crystallising.
    """
    swelling = random.uniform(*SWELLING, len(positions))
    types = np.ascontiguousarray(types, dtype=np.int64)
    widest = smallest.max() * (1.0 + 2.0 * SWELLING[1])
    skin = 0.3 * widest
    shift = np.empty_like(positions)
    velocity = np.zeros_like(positions)
    listed_at, pairs = positions, None
    for _ in range(ROUNDS):
        if pairs is None or 4.0 * ((positions - listed_at) ** 2).sum(axis=1).max() > skin**2:
            pairs = cKDTree(positions).query_pairs(widest + skin, output_type="ndarray")
            listed_at = positions
        forbidden, overlap = push_apart(positions, types, swelling, smallest, pairs, 0.6, shift)
        if forbidden == 0 and overlap < 0.025:
            break
        velocity = 0.7 * velocity + shift
        length = np.sqrt((velocity**2).sum(axis=1, keepdims=True))
        velocity *= np.minimum(1.0, 0.25 * widest / np.maximum(length, 1e-12))
        positions = confine(positions + velocity)
    return positions


def drop_near_pairs(positions: np.ndarray, types: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    """Which atoms to keep so that no pair is nearer than allowed; bool, shape (n,)."""
    keep = np.ones(len(positions), dtype=bool)
    pairs = cKDTree(positions).query_pairs(smallest.max(), output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    distance = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    for i, j in pairs[distance < smallest[types[pairs[:, 0]], types[pairs[:, 1]]]]:
        if keep[i] and keep[j]:
            keep[j] = False
    return keep


def packed_density(smallest: np.ndarray, fractions: np.ndarray, packing_fraction: float = PACKING_FRACTION) -> float:
    """Atoms per cubic Angstrom whose touching spheres fill `packing_fraction` of space."""
    touching = smallest * (1.0 + sum(SWELLING))
    mean_cube = fractions @ touching**3 @ fractions
    return packing_fraction * 6.0 / (np.pi * mean_cube)


def check_density(density: float, smallest: np.ndarray, fractions: np.ndarray) -> None:
    """Refuse a density that leaves no room for the smallest distances.

    Raises
    ------
    InputError
        If the spheres would fill more than random close packing.
    """
    highest = packed_density(smallest, fractions, 0.64)
    if not (np.isfinite(density) and 0 < density <= highest):
        raise InputError(
            f"A density of {density:g} atoms per cubic Angstrom cannot be packed at random with these distances; "
            f"needed is a density above 0 and at most {highest:.4f}: lower density or minimum_distance."
        )
