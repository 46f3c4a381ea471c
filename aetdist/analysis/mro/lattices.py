"""The lattices that clusters are held against, in units of their nearest-neighbour distance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.spatial import cKDTree

REACH = 10.0
"""Sites this far from the origin are listed: no cluster has sites further away from its first centre."""
LATTICES = ("sc", "bcc", "fcc", "hcp")
"""The periodic ones, in the order in which equals are taken."""
RANKED = (*LATTICES, "icosahedron")
"""All of them, in that order."""
_LAYER = np.sqrt(2.0 / 3.0)  # height of a close-packed layer


@dataclass(frozen=True, eq=False)
class Lattice:
    """Sites around an origin and which of them are nearest neighbours.

    Parameters
    ----------
    name : str
        "sc", "bcc", "fcc", "hcp" or "icosahedron".
    sites : ndarray, shape (m, 3), float64
        Positions (x, y, z); the first is the origin; nearest neighbours are 1 apart.
    neighbours : ndarray, shape (m, n), int32
        Numbers of the nearest neighbours of each site; -1: not listed.
    """

    name: str
    sites: np.ndarray
    neighbours: np.ndarray

    @property
    def coordination(self) -> int:
        """Nearest neighbours of the origin."""
        return self.neighbours.shape[1]


@cache
def make_lattice(name: str, reach: float = REACH) -> Lattice:
    """The sites of a lattice, shell by shell from the origin.

    Parameters
    ----------
    name : {"sc", "bcc", "fcc", "hcp", "icosahedron"}
        An icosahedron is a centre and twelve vertices; its vertices are 1.0515 apart and no neighbours
        of each other here.
    reach : float
        Largest distance from the origin, in nearest-neighbour distances.

    Returns
    -------
    Lattice
        The first neighbour of the origin is (1, 0, 0), (1, 1, 1) or (1, 1, 0), scaled to length 1.
    """
    if name == "icosahedron":
        return _icosahedron()
    sites = _points(name, int(2 * reach) + 2)
    radius = np.linalg.norm(sites, axis=1)
    # The origin's first neighbour lies along x + y + z as far as any does: the published search starts from it.
    order = np.lexsort((*-sites.T[::-1], -sites.sum(axis=1).round(6), radius.round(6)))
    sites = sites[order[: np.count_nonzero(radius <= reach)]]
    pairs = cKDTree(sites).query_pairs(1.001, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    first = np.searchsorted(pairs[:, 0], np.arange(len(sites)))
    neighbours = np.full((len(sites), np.count_nonzero(pairs[:, 0] == 0)), -1, dtype=np.int32)
    neighbours[pairs[:, 0], np.arange(len(pairs)) - first[pairs[:, 0]]] = pairs[:, 1]
    return Lattice(name, sites, neighbours)


def _points(name: str, n: int) -> np.ndarray:
    """Sites in a box of some n steps each way, the origin among them, (m, 3)."""
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1),) * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    i, j, k = grid.T
    if name == "hcp":
        odd = k % 2
        return np.stack([i + (j + odd) / 2, np.sqrt(0.75) * j + odd / np.sqrt(12), k * _LAYER], axis=1)
    if name == "fcc":
        return grid[(i + j + k) % 2 == 0] / np.sqrt(2)
    if name == "bcc":
        return grid[((i - j) % 2 == 0) & ((j - k) % 2 == 0)] / np.sqrt(3)
    return grid.astype(np.float64)


def _icosahedron() -> Lattice:
    golden = (1 + np.sqrt(5)) / 2
    vertices = [np.roll((0.0, x, y * golden), k) for k in range(3) for x in (1, -1) for y in (1, -1)]
    sites = np.concatenate([np.zeros((1, 3)), np.array(vertices) / np.sqrt(1 + golden**2)])
    neighbours = np.full((13, 12), -1, dtype=np.int32)
    neighbours[0], neighbours[1:, 0] = np.arange(1, 13), 0
    return Lattice("icosahedron", sites, neighbours)


@cache
def seed_pairs(name: str) -> np.ndarray:
    """Two neighbours of the origin, not on one line with it: one ordered pair for all that a turn takes to each other.

    Parameters
    ----------
    name : str
        Of a lattice.

    Returns
    -------
    ndarray, shape (p, 2), int32
        Numbers of sites. Two pairs are of one kind if a rotation that takes the neighbours of the origin to
        themselves takes one to the other.
    """
    lattice = make_lattice(name)
    numbers = lattice.neighbours[0]
    vectors = lattice.sites[numbers]
    turns = _turns(vectors)
    pairs = [(i, j) for i in range(len(vectors)) for j in range(len(vectors)) if abs(vectors[i] @ vectors[j]) < 0.999]
    images = {(i, j): min((int(t[i]), int(t[j])) for t in turns) for i, j in pairs}
    kinds = sorted(pair for pair, image in images.items() if pair == image)
    return np.array([(numbers[i], numbers[j]) for i, j in kinds], dtype=np.int32)


def _turns(vectors: np.ndarray) -> list[np.ndarray]:
    """Which vector each one goes to, for every rotation that takes the set to itself."""
    i, j = 0, int(np.argmin(np.abs(vectors @ vectors[0])))
    frame = np.stack([vectors[i], vectors[j], np.cross(vectors[i], vectors[j])])
    found = []
    for k in range(len(vectors)):
        for m in range(len(vectors)):
            if k == m or not np.isclose(vectors[k] @ vectors[m], vectors[i] @ vectors[j]):
                continue
            image = np.stack([vectors[k], vectors[m], np.cross(vectors[k], vectors[m])])
            turned = vectors @ np.linalg.solve(frame, image)
            distance = np.linalg.norm(turned[:, None] - vectors, axis=2)
            if distance.min(axis=1).max() < 1e-6:
                found.append(np.argmin(distance, axis=1))
    return found
