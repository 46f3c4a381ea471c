"""The search whose answer is a property of the sample: candidates, and which of them are kept."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np

from ._invariant_kernels import fit, grow_block, weigh
from ._selection_kernels import trim
from .clusters import Cluster, Neighbours, blocks
from .lattices import make_lattice, seed_pairs

FEWEST = 5
"""Centres of a cluster, at least."""
_BLOCK = 1000  # centres of a task: a quarter of a second
_SAME = 6  # decimals: weights that differ by less are the same (hcp and fcc share two layers)

Candidate = tuple[str, np.ndarray, np.ndarray, float]
_State = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # lattice, members, sites, pose


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
        Lattice, members, sites (both (n,) int32) and rms in Angstrom; no set of centres twice on one lattice.
    """
    shared = dask.delayed((points, neighbours.first, neighbours.near), pure=False)
    run = dask.delayed(_grow)
    parts = [run(o, shared, name, tolerance, *distance) for name in lattices for o in blocks(len(points), block)]
    best: dict[tuple[str, bytes], Candidate] = {}
    for candidate in (c for part in dask.compute(*parts) for c in part):
        key = candidate[0], np.sort(candidate[1]).tobytes()
        if key not in best or candidate[3] < best[key][3]:
            best[key] = candidate
    return list(best.values())


def _grow(origins: np.ndarray, shared: Any, name: str, tolerance: float, low: float, high: float) -> list[Candidate]:
    lattice = make_lattice(name)
    sizes, rms, members, sites = grow_block(
        origins, *shared, lattice.sites, lattice.neighbours, seed_pairs(name), tolerance, low, high, FEWEST
    )
    return [(name, members[i, : sizes[i]], sites[i, : sizes[i]], float(rms[i])) for i in np.flatnonzero(sizes)]


def select_clusters(
    points: np.ndarray, candidates: Sequence[Candidate], distance: tuple[float, float], tolerance: float
) -> list[Cluster]:
    """Take the cluster of most weight again and again; its centres leave all others.

    Parameters
    ----------
    points, distance, tolerance
        As in :func:`grow_candidates`.
    candidates : sequence of tuple
        What that function gives.

    Returns
    -------
    list of Cluster
        Of five centres or more; by weight, then by lattice (sc, bcc, fcc, hcp, icosahedron), then by the numbers of
        their centres.

    Notes
    -----
    The weight is the sum of (1 - d^2 / tolerance^2)^2 over the deviations d. By size alone, a lattice that bends to
    three quarters of a cluster and takes in a few chance neighbours would go before the one the cluster has.
    A cluster of eight or nine centres may still lose some, or the one that holds it together, to a chance one that
    weighs more: of 14 planted ones that were not found, 13 were candidates.

    A cluster that loses centres keeps its largest connected part and its lattice is fitted again; where a centre
    then lies further from its site than the tolerance, the worst one leaves too.
    """
    taken = np.zeros(len(points), dtype=bool)
    clusters: list[_State] = []
    holders: dict[int, list[int]] = {}
    queue: list[tuple[Any, ...]] = []
    for i, (name, members, sites, _) in enumerate(candidates):
        members, sites, pose = members.copy(), sites.copy(), np.empty(14)
        fit(len(members), members, sites, points, make_lattice(name).sites, pose)
        clusters.append((name, members, sites, pose))
        queue.append(_entry(i, clusters[i], points, tolerance))
        for k in members.tolist():
            holders.setdefault(k, []).append(i)
    heapq.heapify(queue)
    chosen = []
    while queue:
        *rank, i, size = heapq.heappop(queue)
        name, members, sites, pose = clusters[i]
        if len(members) != size or taken[members].any():
            continue  # an older state of a cluster that has lost centres since
        taken[members] = True
        cluster = Cluster(name, members.astype(np.int64), sites.astype(np.int64), float(pose[0]),
                          pose[1:10].reshape(3, 3).copy(), pose[10:13].copy(), float(pose[13]))  # fmt: skip
        chosen.append((rank, cluster))
        for j in sorted({j for k in members.tolist() for j in holders[k]} - {i}):
            name, members, sites, pose = clusters[j]
            if not taken[members].any():
                continue
            lattice = make_lattice(name)
            n = trim(len(members), members, sites, taken, points, lattice.sites, lattice.neighbours,
                     tolerance, *distance, pose)  # fmt: skip
            n = n if n >= FEWEST else 0
            clusters[j] = name, members[:n], sites[:n], pose
            if n:
                heapq.heappush(queue, _entry(j, clusters[j], points, tolerance))
    # A cluster may weigh more once the lattice is free of centres that it has lost: in that order they would not fall.
    return [cluster for _, cluster in sorted(chosen, key=lambda taken: taken[0])]


_RANK = {name: i for i, name in enumerate(("sc", "bcc", "fcc", "hcp", "icosahedron"))}


def _entry(i: int, cluster: _State, points: np.ndarray, tolerance: float) -> tuple[Any, ...]:
    """What the queue compares, then the number of the cluster and its size."""
    name, members, sites, pose = cluster
    weight = weigh(len(members), members, sites, points, make_lattice(name).sites, pose, tolerance)
    return -round(weight, _SAME), _RANK[name], tuple(sorted(members.tolist())), i, len(members)
