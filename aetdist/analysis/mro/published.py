"""The search and the selection of Yang et al. as they ran them, errors included, to compare with their results.

All 427 networks of the published particle come out as they are and in their order, the 204 of five centres or more
among them. Ties count as ties to 1e-6 Angstrom: which of two equal fits comes first would else hang on rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import dask
import numpy as np

from ...errors import InputError
from ._published_kernels import search_block
from ._selection_kernels import parts_of
from ._steps import make_steps
from .clusters import Cluster, Neighbours, blocks
from .lattices import make_lattice

_BLOCK = 64  # centres of a task: half a second
_MOST = 4_000_000  # sets of one size, 2 GB
_DIGITS = 6  # of an rms in Angstrom, where two are compared
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
    arrays = lattice.sites, lattice.neighbours, *make_steps(name)
    return name, origins, search_block(origins, *shared, *arrays, tolerance, _MOST)


def select_published(points: np.ndarray, found: Sequence[Cluster], removal: Removal) -> list[Cluster]:
    """Take the largest cluster again and again; its centres leave all others, which are not fitted again.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Centres, in Angstrom.
    found : sequence of Cluster
        In the order of :func:`search_published`, which decides between equals.
    removal : {"yang2021", "yang2021-corrected"}
        With the errors of the published removal, or without.

    Returns
    -------
    list of Cluster
        Of two centres or more, by size, then by rms; members by rising number.

    Notes
    -----
    Of what is left of a cluster the largest connected part stays. The published removal of k centres cuts the
    connections of the first k of the list instead of those of the removed ones, and keeps the part that holds
    centre number m of the list, m being the number of the largest part. What only removed ones hold together
    falls apart when the next cluster is taken. The lists are in order of adding for the first removal, by rising
    number later.
    """
    adjacent = [_adjacency(cluster) for cluster in found]
    square = [_square_deviations(cluster, points) for cluster in found]
    kept = [np.arange(len(cluster)) for cluster in found]
    sizes = np.array([len(cluster) for cluster in found])
    rms = np.array([round(float(np.sqrt(d.mean())), _DIGITS) for d in square])
    holders: list[list[int]] = [[] for _ in points]
    for i, cluster in enumerate(found):
        for k in cluster.members:
            holders[k].append(i)
    chosen: list[Cluster] = []
    taken = np.zeros(len(points), dtype=bool)
    loose: set[int] = set()
    while sizes.size and sizes.max() >= 2:
        best = int(_first_of_largest(sizes, rms))
        chosen.append(_part(found[best], kept[best], square[best]))
        taken[chosen[-1].members] = True
        touched = {i for k in chosen[-1].members for i in holders[k] if taken[found[i].members[kept[i]]].any()}
        for i in touched | loose:
            if sizes[i]:
                here = kept[i]
                gone = taken[found[i].members[here]]
                kept[i] = here[_kept(gone, adjacent[i], here, removal)]
                sizes[i] = len(kept[i])
                rms[i] = round(float(np.sqrt(square[i][kept[i]].sum() / max(sizes[i], 1))), _DIGITS)
        loose = touched
        if len(chosen) == 1:
            kept = [here[np.argsort(cluster.members[here])] for cluster, here in zip(found, kept, strict=True)]
    return chosen


def _first_of_largest(sizes: np.ndarray, rms: np.ndarray) -> np.intp:
    largest = np.flatnonzero(sizes == sizes.max())
    return largest[np.argmin(rms[largest])]


def _adjacency(cluster: Cluster) -> np.ndarray:
    """Which members sit on nearest sites; bool, shape (n, n)."""
    sites = cluster.sites
    return (make_lattice(cluster.lattice).neighbours[sites][:, :, None] == sites).any(axis=1)


def _square_deviations(cluster: Cluster, points: np.ndarray) -> np.ndarray:
    sites = make_lattice(cluster.lattice).sites[cluster.sites] @ cluster.rotation.T
    return ((points[cluster.members] - cluster.shift - cluster.scale * sites) ** 2).sum(axis=1)


def _part(cluster: Cluster, kept: np.ndarray, square: np.ndarray) -> Cluster:
    """Some members of a cluster on the lattice of all of them."""
    kept = kept[np.argsort(cluster.members[kept])]
    rms = float(np.sqrt(square[kept].mean()))
    return replace(cluster, members=cluster.members[kept], sites=cluster.sites[kept], rms=rms)


def _kept(gone: np.ndarray, adjacent: np.ndarray, here: np.ndarray, removal: Removal) -> np.ndarray:
    """Which of a cluster's centres `here` stay when some are gone."""
    cut = np.arange(len(gone)) < np.count_nonzero(gone) if removal == "yang2021" else gone
    part = parts_of(adjacent, here, cut)
    largest = int(np.argmax(np.bincount(part[~gone], minlength=len(gone))))
    return np.flatnonzero(~gone & (part == (part[largest] if removal == "yang2021" else largest)))
