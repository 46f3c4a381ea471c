"""The search and the selection of Yang et al. after their words, to compare with their results.

Of their 204 clusters of the published particle 170 come out as they are. Followed along their own list, every cluster
of sc, bcc and fcc follows from what is found here, and all but five of hcp: some steps on hcp differ from theirs, and
what such a cluster takes changes what is left for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dask
import numpy as np
from scipy.sparse.csgraph import connected_components

from ...errors import InputError
from ._published_kernels import search_block
from .clusters import Cluster, Neighbours, blocks
from .lattices import make_lattice

_BLOCK = 64  # centres of a task: half a second
_MOST = 4_000_000  # sets of one size, 2 GB
Removal = Literal["yang2021", "yang2021-corrected"]


def search_published(
    points: np.ndarray,
    neighbours: Neighbours,
    lattices: Sequence[str],
    distance: tuple[float, float],
    tolerance: float,
    block: int = _BLOCK,
) -> list[Cluster]:
    """Computes: the largest set of centres found from every centre on every lattice; one Dask task for a block of them.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Centres, in Angstrom.
    neighbours : Neighbours
    lattices : sequence of str
    distance : tuple of float
        Range of the distance of neighbours in Angstrom; the first one is the unit of length of the descent.
    tolerance : float
        Largest distance of a centre from its site, in Angstrom.
    block : int
        Centres of a task; the result does not depend on it.

    Returns
    -------
    list of Cluster
        By lattice, then by the centre that they were found from, which is their first.

    Raises
    ------
    InputError
        If the sets are too many to try them all.

    Notes
    -----
    Breadth first over sets of centres, each of which is tried once. Up to seven centres the lattice is fitted by
    steps of fixed length down a numerical gradient, with the first centre on the origin; later it stays as it is.
    A turned sample gives other clusters.
    """
    unit = distance[0]
    shared = dask.delayed((points / unit, neighbours.first, neighbours.near), pure=False)
    run = dask.delayed(_search)
    parts = [run(o, shared, name, tolerance / unit) for name in lattices for o in blocks(len(points), block)]
    found: list[Cluster] = []
    for name, origins, (sizes, scales, rms, members, sites, rotations) in dask.compute(*parts):
        if not sizes.all():
            raise InputError(
                f"Around centre {origins[np.argmin(sizes)]} more than {_MOST:,} sets of neighbours suit one {name} "
                "lattice: the published search tries them all. Leave crystalline atoms out (order), lower the "
                "tolerance, or leave convention away."
            )
        for i, n in enumerate(sizes):
            chosen = members[i, :n]
            found.append(Cluster(name, chosen, sites[i, :n], unit * float(scales[i]), rotations[i],
                                 points[chosen[0]], unit * float(rms[i])))  # fmt: skip
    return found


def _search(origins: np.ndarray, shared: Any, name: str, tolerance: float) -> tuple[str, np.ndarray, Any]:
    lattice = make_lattice(name)
    return name, origins, search_block(origins, *shared, lattice.sites, lattice.neighbours, tolerance, _MOST)


def select_published(n_points: int, found: Sequence[Cluster], removal: Removal) -> list[Cluster]:
    """Take the largest cluster again and again; its centres leave all others, which are not fitted again.

    Parameters
    ----------
    n_points : int
        Number of centres.
    found : sequence of Cluster
        In the order of :func:`search_published`, which decides between equals.
    removal : {"yang2021", "yang2021-corrected"}
        With the two errors of the published removal, or without.

    Returns
    -------
    list of Cluster
        Of two centres or more, by size, then by rms.

    Notes
    -----
    Of what is left of a cluster the largest connected part stays. The published removal of k centres cuts the
    connections of the first k of the cluster instead of those of the removed ones, and keeps the part that holds
    centre number m, m being the number of the largest part.
    """
    members = [np.sort(cluster.members) for cluster in found]
    adjacent = [_adjacency(cluster) for cluster in found]
    sizes = np.array([len(m) for m in members])
    rms = np.array([round(cluster.rms, 6) for cluster in found])
    holders: list[list[int]] = [[] for _ in range(n_points)]
    for i, m in enumerate(members):
        for k in m:
            holders[k].append(i)
    chosen = []
    taken = np.zeros(n_points, dtype=bool)
    while sizes.size and sizes.max() >= 2:
        best = int(_first_of_largest(sizes, rms))
        cluster, centres = found[best], members[best]
        at = np.searchsorted(np.sort(cluster.members), centres)
        sites = cluster.sites[np.argsort(cluster.members)][at]
        chosen.append(Cluster(cluster.lattice, centres, sites, cluster.scale, cluster.rotation, cluster.shift,
                              cluster.rms))  # fmt: skip
        taken[centres] = True
        for i in {i for k in centres for i in holders[k]}:
            gone = taken[members[i]]
            if gone.any():
                kept = _kept(gone, adjacent[i], removal)
                members[i], adjacent[i], sizes[i] = members[i][kept], adjacent[i][np.ix_(kept, kept)], len(kept)
    return chosen


def _first_of_largest(sizes: np.ndarray, rms: np.ndarray) -> np.intp:
    largest = np.flatnonzero(sizes == sizes.max())
    return largest[np.argmin(rms[largest])]


def _adjacency(cluster: Cluster) -> np.ndarray:
    """Which members, by rising number, sit on nearest sites; bool, shape (n, n)."""
    sites = cluster.sites[np.argsort(cluster.members)]
    return (make_lattice(cluster.lattice).neighbours[sites][:, :, None] == sites).any(axis=1)


def _kept(gone: np.ndarray, adjacent: np.ndarray, removal: Removal) -> np.ndarray:
    """Which of a cluster's centres stay when some are gone."""
    left = np.flatnonzero(~gone)
    if len(left) == 0:
        return left
    if removal == "yang2021":
        adjacent = adjacent.copy()
        first = np.count_nonzero(gone)
        adjacent[:first] = adjacent[:, :first] = False
    _, part = connected_components(adjacent[np.ix_(left, left)], directed=False)
    largest = int(np.argmax(np.bincount(part)))
    return left[part == (part[largest] if removal == "yang2021" else largest)]
