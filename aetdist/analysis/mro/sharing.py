"""Solute-centred clusters that share atoms: the connections that medium-range order is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import sparse

from ...errors import InputError
from .clusters import Neighbours
from .search import SOLUTE_DISTANCE


def shared_atoms(
    centers: np.ndarray,
    neighbours: np.ndarray,
    positions: np.ndarray | xr.Dataset,
    *,
    distance: tuple[float, float] = SOLUTE_DISTANCE,
    most: int = 5,
) -> np.ndarray:
    """How many pairs of neighbouring solute-centred clusters share 1, 2, ... atoms.

    Parameters
    ----------
    centers : ndarray, shape (n,), bool
        Which atoms are centres; a cluster is one with the atoms around it.
    neighbours : ndarray, shape (m, 2), int
        Pairs of atoms whose recomputed Voronoi cells share a face; in one order or both.
    positions : array_like, shape (n, 3), or xarray.Dataset
        Of all atoms, in Angstrom.
    distance : tuple of float
        Range of the distance of the two centres in Angstrom.
    most : int
        Pairs that share more are not counted.

    Returns
    -------
    ndarray, shape (most,), int64
        Pairs that share 1, 2, ... `most` atoms (vertex, edge, face, ... sharing of [1]_, Fig. 3).

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021).
    """
    _, shared = cluster_pairs(centers, neighbours, positions, distance=distance)
    return np.bincount(shared, minlength=most + 1)[1 : most + 1]


def cluster_pairs(
    centers: np.ndarray,
    neighbours: np.ndarray,
    positions: np.ndarray | xr.Dataset,
    *,
    distance: tuple[float, float] = SOLUTE_DISTANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbouring solute-centred clusters, and how many atoms each shares.

    Parameters
    ----------
    centers, neighbours, positions, distance
        As in :func:`shared_atoms`.

    Returns
    -------
    pairs : ndarray, shape (p, 2), int64
        The two centres, numbers of atoms.
    shared : ndarray, shape (p,), int64
        Atoms that are in both clusters, the centres among them where one is in the other's cluster.
    """
    position = np.asarray(positions["position"] if isinstance(positions, xr.Dataset) else positions, dtype=np.float64)
    inside = np.asarray(centers, dtype=bool)
    near = Neighbours.within(position[inside], distance)
    cluster = (atoms_around(neighbours, len(inside)) + sparse.identity(len(inside), dtype=np.int32, format="csr"))[
        inside
    ]
    first = np.repeat(np.arange(len(near.counts)), near.counts)
    once = first < near.near
    pairs = np.stack([first[once], near.near[once].astype(np.int64)], axis=1)
    shared = np.asarray(cluster[pairs[:, 0]].multiply(cluster[pairs[:, 1]]).sum(axis=1)).ravel()
    return np.flatnonzero(inside)[pairs], shared.astype(np.int64)


def representative_pairs(
    centers: np.ndarray,
    neighbours: np.ndarray,
    positions: np.ndarray | xr.Dataset,
    *,
    distance: tuple[float, float] = SOLUTE_DISTANCE,
    most: int = 5,
) -> xr.Dataset:
    """One pair of solute-centred clusters that share 1, 2, ... atoms each: that whose distance is the median.

    Parameters
    ----------
    centers, neighbours, positions, distance, most
        As in :func:`shared_atoms`.

    Returns
    -------
    xarray.Dataset
        Over `shared` (1, 2, ...): `n_pairs` int64; `first` and `second` int64, the atoms in the centres, -1 where no
        pair shares so many; `distance` float64, of the two in Angstrom.
    """
    position = np.asarray(positions["position"] if isinstance(positions, xr.Dataset) else positions, dtype=np.float64)
    pairs, shared = cluster_pairs(centers, neighbours, position, distance=distance)
    length = np.linalg.norm(position[pairs[:, 0]] - position[pairs[:, 1]], axis=1)
    chosen, apart = np.full((most, 2), -1, dtype=np.int64), np.full(most, np.nan)
    for n in range(1, most + 1):
        of_n = np.flatnonzero(shared == n)
        if of_n.size:
            middle = of_n[np.argsort(length[of_n], kind="stable")[(of_n.size - 1) // 2]]
            chosen[n - 1], apart[n - 1] = pairs[middle], length[middle]
    counts = np.bincount(shared, minlength=most + 1)[1 : most + 1]
    return xr.Dataset(
        {
            "n_pairs": ("shared", counts, {"units": "1", "long_name": "pairs of clusters that share so many atoms"}),
            "first": ("shared", chosen[:, 0], {"units": "1", "long_name": "centre of a representative pair"}),
            "second": ("shared", chosen[:, 1], {"units": "1", "long_name": "the other centre"}),
            "distance": ("shared", apart, {"units": "angstrom", "long_name": "distance of the two centres"}),
        },
        {"shared": np.arange(1, most + 1)},
    )


def atoms_around(neighbours: np.ndarray, n: int) -> Any:
    """Which atom has which neighbour, 1 or nothing; sparse (n, n)."""
    pairs = np.asarray(neighbours, dtype=np.int64).reshape(-1, 2)
    if pairs.size and not (0 <= pairs.min() and pairs.max() < n):
        raise InputError(f"Neighbours name atoms {pairs.min()} to {pairs.max()}; there are {n}.")
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    return sparse.csr_matrix((np.ones(len(pairs), dtype=np.int32), pairs.T), shape=(n, n))
