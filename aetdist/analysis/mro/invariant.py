"""The search whose answer is a property of the sample: candidates, and which of them are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import dask
import numpy as np

from ._invariant_kernels import grow_block
from ._selection_kernels import select
from .clusters import Cluster, Neighbours, blocks
from .lattices import RANKED, make_lattice, seed_pairs

FEWEST = 5
"""Centres of a cluster, at least."""
_BLOCK = 1000  # centres of a task: a quarter of a second


class Candidates(NamedTuple):
    """Clusters that share centres.

    Attributes
    ----------
    lattice : ndarray, shape (k,), int64
        Number in `RANKED`.
    first : ndarray, shape (k + 1,), int64
        Centres of candidate c are ``members[first[c]:first[c + 1]]``.
    members, sites : ndarray, shape (all,), int32
        Centres and their sites.
    poses : ndarray, shape (k, 14), float64
        See `fit`.
    """

    lattice: np.ndarray
    first: np.ndarray
    members: np.ndarray
    sites: np.ndarray
    poses: np.ndarray


def grow_candidates(
    points: np.ndarray,
    neighbours: Neighbours,
    lattices: Sequence[str],
    distance: tuple[float, float],
    tolerance: float,
    block: int = _BLOCK,
) -> Candidates:
    """Computes: the cluster of most weight around every centre on every lattice; one Dask task for a block of centres.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Centres, in Angstrom.
    neighbours : Neighbours
    lattices : sequence of str
    distance : tuple of float
        Range of the distance of neighbours, and of nearest sites, in Angstrom.
    tolerance : float
        Largest distance of a centre from its site, in Angstrom.
    block : int
        Centres of a task; the result does not depend on it.

    Returns
    -------
    Candidates
        No set of centres twice on one lattice.
    """
    shared = dask.delayed((points, neighbours.first, neighbours.near), pure=False)
    run = dask.delayed(_grow)
    parts = dask.compute(
        *[run(o, shared, name, tolerance, *distance) for name in lattices for o in blocks(len(points), block)]
    )
    lattice, sizes, poses, members, sites = (np.concatenate([part[k] for part in parts]) for k in range(5))
    first = np.concatenate([[0], np.cumsum(sizes)])
    kept = _distinct(lattice, first, members, poses[:, 13])
    filled = np.repeat(kept, sizes)
    return Candidates(
        lattice[kept], np.concatenate([[0], np.cumsum(sizes[kept])]), members[filled], sites[filled], poses[kept]
    )


def _distinct(lattice: np.ndarray, first: np.ndarray, members: np.ndarray, rms: np.ndarray) -> np.ndarray:
    """Of candidates on one lattice with the same centres that which fits best, (k,) bool.

    Sets of centres are told apart by the sum of a random number of 64 bits for each.
    """
    kept = np.zeros(len(lattice), bool)
    if len(members):
        numbers = np.random.default_rng(0).integers(0, 2**64, members.max() + 1, np.uint64)
        key = np.add.reduceat(numbers[members], first[:-1])
        order = np.lexsort((rms, key, lattice))
        new = np.diff(key[order], prepend=key[order[0]]) != 0
        new |= np.diff(lattice[order], prepend=-1) != 0
        kept[order[new]] = True
    return kept


def _grow(
    origins: np.ndarray, shared: Any, name: str, tolerance: float, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lattice, size and pose of every candidate; members and sites of all, one after the other."""
    lattice = make_lattice(name)
    sizes, poses, members, sites = grow_block(
        origins, *shared, lattice.sites, lattice.neighbours, seed_pairs(name), tolerance, low, high, FEWEST
    )
    filled, found = np.arange(members.shape[1]) < sizes[:, None], sizes > 0
    numbers = np.full(np.count_nonzero(found), RANKED.index(name))
    return numbers, sizes[found], poses[found], members[filled], sites[filled]


def select_clusters(
    points: np.ndarray, candidates: Candidates, distance: tuple[float, float], tolerance: float
) -> list[Cluster]:
    """Take the cluster of most weight again and again; its centres leave all others.

    Parameters
    ----------
    points, distance, tolerance
        As in :func:`grow_candidates`.
    candidates : Candidates
        What that function gives; their arrays are used up.

    Returns
    -------
    list of Cluster
        Of five centres or more, in the order in which they were taken: by weight (six decimals: hcp and fcc share two
        layers), then by lattice (sc, bcc, fcc, hcp, icosahedron), then by the lowest numbers of their centres.

    Notes
    -----
    The weight is the sum of 1 - d^2 / tolerance^2 over the deviations d. By size alone, a lattice that bends to three
    quarters of a cluster and takes in a few chance neighbours would go before the one the cluster has.

    A cluster that loses centres keeps its largest connected part and its lattice is fitted again; where a centre
    then lies further from its site than the tolerance, the worst one leaves too.
    """
    lattice, first, members, sites, poses = candidates
    centre_order = np.argsort(members, kind="stable")
    holder = np.repeat(np.arange(len(lattice)), np.diff(first))[centre_order]
    held = np.searchsorted(members[centre_order], np.arange(len(points) + 1))
    chosen, sizes = select(
        lattice, first, members, sites, poses, held, holder, points, *_all_sites(), tolerance, *distance, FEWEST
    )
    clusters = []
    for c, n in zip(chosen.tolist(), sizes.tolist(), strict=True):
        some, pose = slice(first[c], first[c] + n), poses[c]
        clusters.append(
            Cluster(
                RANKED[lattice[c]],
                members[some].astype(np.int64),
                sites[some].astype(np.int64),
                float(pose[0]),
                pose[1:10].reshape(3, 3).copy(),
                pose[10:13].copy(),
                float(pose[13]),
            )
        )
    return clusters


@cache
def _all_sites() -> tuple[np.ndarray, np.ndarray]:
    """Sites and their neighbours of all lattices, filled up with zeros and -1."""
    lattices = [make_lattice(name) for name in RANKED]
    n = max(len(lattice.sites) for lattice in lattices)
    most = max(lattice.coordination for lattice in lattices)
    sites, neighbours = np.zeros((len(lattices), n, 3)), np.full((len(lattices), n, most), -1, np.int32)
    for k, lattice in enumerate(lattices):
        sites[k, : len(lattice.sites)] = lattice.sites
        neighbours[k, : len(lattice.sites), : lattice.coordination] = lattice.neighbours
    return sites, neighbours
