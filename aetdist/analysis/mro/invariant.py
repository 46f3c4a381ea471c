"""The search whose answer is a property of the sample: candidates, and which of them are kept."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np

from ._invariant_kernels import fit, grow_block
from ._selection_kernels import trim
from .clusters import Cluster, Neighbours, blocks
from .lattices import make_lattice, seed_pairs

FEWEST = 5
"""Centres of a cluster, at least."""
_BLOCK = 1000  # centres of a task: a quarter of a second
_SAME = 6  # decimals of an Angstrom: an rms that differs by less is the same (hcp and fcc share two layers)

Candidate = tuple[str, np.ndarray, np.ndarray, float]


def grow_candidates(
    points: np.ndarray,
    neighbours: Neighbours,
    lattices: Sequence[str],
    distance: tuple[float, float],
    tolerance: float,
    block: int = _BLOCK,
) -> list[Candidate]:
    """Computes: the largest cluster around every centre on every lattice; one Dask task for a block of centres.

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
    """Take the largest cluster again and again; its centres leave all others.

    Parameters
    ----------
    points, distance, tolerance
        As in :func:`grow_candidates`.
    candidates : sequence of tuple
        What that function gives.

    Returns
    -------
    list of Cluster
        Of five centres or more, in the order in which they were taken: by size, then by rms, then by lattice
        (sc, bcc, fcc, hcp, icosahedron), then by the numbers of their centres.

    Notes
    -----
    A cluster that loses centres keeps its largest connected part and its lattice is fitted again; where a centre
    then lies further from its site than the tolerance, the worst one leaves too. Clusters only shrink, so that one
    at the head of the queue which has lost nothing is the largest there is.
    """
    taken = np.zeros(len(points), dtype=bool)
    queue: list[tuple[Any, ...]] = []
    for name, members, sites, _ in candidates:
        members, sites, pose = members.copy(), sites.copy(), np.empty(14)
        fit(len(members), members, sites, points, make_lattice(name).sites, pose)
        queue.append(_entry(len(queue), name, members, sites, pose))
    heapq.heapify(queue)
    chosen = []
    while queue:
        *_, number, name, members, sites, pose = heapq.heappop(queue)
        if taken[members].any():
            lattice = make_lattice(name)
            n = trim(len(members), members, sites, taken, points, lattice.sites, lattice.neighbours,
                     tolerance, *distance, pose)  # fmt: skip
            if n >= FEWEST:
                heapq.heappush(queue, _entry(number, name, members[:n], sites[:n], pose))
            continue
        taken[members] = True
        chosen.append(Cluster(name, members.astype(np.int64), sites.astype(np.int64), float(pose[0]),
                              pose[1:10].reshape(3, 3).copy(), pose[10:13].copy(), float(pose[13])))  # fmt: skip
    return chosen


_RANK = {name: i for i, name in enumerate(("sc", "bcc", "fcc", "hcp", "icosahedron"))}


def _entry(number: int, name: str, members: np.ndarray, sites: np.ndarray, pose: np.ndarray) -> tuple[Any, ...]:
    """What the queue compares, and the cluster; the number parts candidates that have shrunk to the same one."""
    order = tuple(sorted(members.tolist()))
    return -len(members), round(float(pose[13]), _SAME), _RANK[name], order, number, name, members, sites, pose
