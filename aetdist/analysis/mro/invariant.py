"""The search whose answer is a property of the sample: candidates, and which of them are kept."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np

from ._invariant_kernels import grow_block
from ._selection_kernels import trim
from .clusters import Cluster, Neighbours, blocks
from .lattices import make_lattice, seed_pairs

FEWEST = 5
"""Centres of a cluster, at least."""
_BLOCK = 1000  # centres of a task: a quarter of a second
_SAME = 6  # decimals: weights that differ by less are the same (hcp and fcc share two layers)

Candidate = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # lattice, members, sites, pose


def grow_candidates(
    points: np.ndarray,
    neighbours: Neighbours,
    lattices: Sequence[str],
    distance: tuple[float, float],
    tolerance: float,
    block: int = _BLOCK,
) -> list[Candidate]:
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
    list of tuple
        Lattice, members, sites (both (n,) int32) and pose ((14,) float64, see `fit`); no set of centres twice on one
        lattice.
    """
    shared = dask.delayed((points, neighbours.first, neighbours.near), pure=False)
    run = dask.delayed(_grow)
    parts = [run(o, shared, name, tolerance, *distance) for name in lattices for o in blocks(len(points), block)]
    best: dict[tuple[str, bytes], Candidate] = {}
    for name, sizes, *arrays in dask.compute(*parts):
        # What came from a worker may be for reading only; selection changes it.
        poses, members, sites = (np.require(array, requirements="W") for array in arrays)
        ends = np.cumsum(sizes)
        for start, end, pose in zip(ends - sizes, ends, poses, strict=True):
            candidate = name, members[start:end], sites[start:end], pose
            key = name, np.sort(candidate[1]).tobytes()
            if key not in best or pose[13] < best[key][3][13]:
                best[key] = candidate
    return list(best.values())


def _grow(
    origins: np.ndarray, shared: Any, name: str, tolerance: float, low: float, high: float
) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lattice; size and pose of every candidate; members and sites of all, one after the other."""
    lattice = make_lattice(name)
    sizes, poses, members, sites = grow_block(
        origins, *shared, lattice.sites, lattice.neighbours, seed_pairs(name), tolerance, low, high, FEWEST
    )
    filled, found = np.arange(members.shape[1]) < sizes[:, None], sizes > 0
    return name, sizes[found], poses[found], members[filled], sites[filled]


def select_clusters(
    points: np.ndarray, candidates: Sequence[Candidate], distance: tuple[float, float], tolerance: float
) -> list[Cluster]:
    """Take the cluster of most weight again and again; its centres leave all others.

    Parameters
    ----------
    points, distance, tolerance
        As in :func:`grow_candidates`.
    candidates : sequence of tuple
        What that function gives; their arrays are used up.

    Returns
    -------
    list of Cluster
        Of five centres or more, in the order in which they were taken: by weight, then by lattice (sc, bcc, fcc, hcp,
        icosahedron), then by the numbers of their centres.

    Notes
    -----
    The weight is the sum of 1 - d^2 / tolerance^2 over the deviations d. By size alone, a lattice that bends to three
    quarters of a cluster and takes in a few chance neighbours would go before the one the cluster has.

    A cluster that loses centres keeps its largest connected part and its lattice is fitted again; where a centre
    then lies further from its site than the tolerance, the worst one leaves too.
    """
    taken = np.zeros(len(points), dtype=bool)
    clusters = list(candidates)
    queue = [_entry(i, cluster, tolerance) for i, cluster in enumerate(clusters)]
    heapq.heapify(queue)
    first, holder = _holders(clusters, len(points))
    chosen = []
    while queue:
        *_, i, size = heapq.heappop(queue)
        name, members, sites, pose = clusters[i]
        if len(members) != size or taken[members].any():
            continue  # an older state of a cluster that has lost centres since
        taken[members] = True
        chosen.append(Cluster(name, members.astype(np.int64), sites.astype(np.int64), float(pose[0]),
                              pose[1:10].reshape(3, 3).copy(), pose[10:13].copy(), float(pose[13])))  # fmt: skip
        touched = np.unique(np.concatenate([holder[first[k] : first[k + 1]] for k in members]))
        for j in touched[touched != i].tolist():
            name, members, sites, pose = clusters[j]
            if not taken[members].any():
                continue
            lattice = make_lattice(name)
            n = trim(len(members), members, sites, taken, points, lattice.sites, lattice.neighbours,
                     tolerance, *distance, pose)  # fmt: skip
            n = n if n >= FEWEST else 0
            clusters[j] = name, members[:n], sites[:n], pose
            if n:
                heapq.heappush(queue, _entry(j, clusters[j], tolerance))
    return chosen


def _holders(clusters: Sequence[Candidate], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which clusters hold each of n centres: those of centre k are ``holder[first[k]:first[k + 1]]``."""
    sizes = [len(members) for _, members, *_ in clusters]
    centre = np.concatenate([np.empty(0, np.int32), *(members for _, members, *_ in clusters)])
    order = np.argsort(centre, kind="stable")
    return np.searchsorted(centre[order], np.arange(n + 1)), np.repeat(np.arange(len(clusters)), sizes)[order]


_RANK = {name: i for i, name in enumerate(("sc", "bcc", "fcc", "hcp", "icosahedron"))}


def _entry(i: int, cluster: Candidate, tolerance: float) -> tuple[Any, ...]:
    """What the queue compares, then the number of the cluster and its size."""
    name, members, _, pose = cluster
    weight = len(members) * (1.0 - (float(pose[13]) / tolerance) ** 2)
    return -round(weight, _SAME), _RANK[name], tuple(sorted(members.tolist())), i, len(members)
