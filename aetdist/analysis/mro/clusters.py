"""A cluster of centres on a lattice, the neighbours of centres, and blocks of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree


@dataclass(frozen=True, eq=False)
class Cluster:
    """Centres on the sites of one lattice.

    Parameters
    ----------
    lattice : str
        Name of the lattice.
    members : ndarray, shape (n,), int64
        Numbers of the centres.
    sites : ndarray, shape (n,), int64
        The site of each.
    scale : float
        Distance of nearest sites in Angstrom.
    rotation : ndarray, shape (3, 3), float64
        Centre = shift + scale rotation @ site.
    shift : ndarray, shape (3,), float64
        Where site 0 lies, in Angstrom.
    rms : float
        Root of the mean squared distance of centres from their sites, in Angstrom.
    """

    lattice: str
    members: np.ndarray
    sites: np.ndarray
    scale: float
    rotation: np.ndarray
    shift: np.ndarray
    rms: float

    def __len__(self) -> int:
        return len(self.members)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Who is a neighbour of whom: those of centre i are ``near[first[i]:first[i + 1]]``, by rising number."""

    first: np.ndarray
    near: np.ndarray

    @classmethod
    def within(cls, points: np.ndarray, distance: tuple[float, float]) -> Neighbours:
        """Neighbours of points (n, 3) no nearer and no further than a range in the same unit, ends included."""
        pairs = np.empty((0, 2), dtype=np.int64)
        if len(points) > 1:
            pairs = cKDTree(points).query_pairs(distance[1] * (1 + 1e-9), output_type="ndarray").astype(np.int64)
            length = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
            pairs = pairs[(length >= distance[0]) & (length <= distance[1])]
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        return cls(np.searchsorted(pairs[:, 0], np.arange(len(points) + 1)), pairs[:, 1].astype(np.int32))

    @property
    def counts(self) -> np.ndarray:
        """Neighbours of each centre, int64."""
        return np.diff(self.first)


def blocks(n: int, size: int) -> Iterator[np.ndarray]:
    """Numbers 0..n - 1, rising, in arrays of `size` and a shorter last one: the origins of one task each."""
    for start in range(0, n, size):
        yield np.arange(start, min(n, start + size))
