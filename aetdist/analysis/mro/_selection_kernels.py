"""Which of many clusters are kept, and what is left of one when centres are taken from it (numpy and Numba only)."""

from __future__ import annotations

import heapq

import numpy as np

from ..._jit import njit
from ._invariant_kernels import fit, square_deviation, worst


@njit
def select(
    lattice, first, members, occupied, poses, held, holder, points, sites, neighbours, tolerance, low, high, fewest
):
    """Take the cluster of most weight again and again; its centres leave all others.

    Parameters
    ----------
    lattice : ndarray, shape (k,), int64
        Of each cluster: of equals that of the lowest number is taken first.
    first : ndarray, shape (k + 1,), int64
        Centres of cluster c are ``members[first[c]:first[c + 1]]``.
    members, occupied : ndarray, shape (all,), int32
        Centres and their sites, changed in place: those that are left of a cluster come first.
    poses : ndarray, shape (k, 14), float64
        Changed in place.
    held : ndarray, shape (centres + 1,), int64
    holder : ndarray, shape (all,), int64
        Clusters that hold centre i are ``holder[held[i]:held[i + 1]]``.
    points : ndarray, shape (centres, 3), float64
    sites : ndarray, shape (lattices, m, 3), float64
    neighbours : ndarray, shape (lattices, m, n), int32
        -1: none.
    tolerance, low, high : float
        See :func:`trim`.
    fewest : int
        Clusters of fewer centres are none.

    Returns
    -------
    chosen : ndarray, shape (m,), int64
        Clusters in the order in which they were taken.
    sizes : ndarray, shape (m,), int64
        Their centres.
    """
    taken = np.zeros(len(points), np.bool_)
    left = np.diff(first)
    queue = [_entry(c, left[c], lattice, first, members, poses, tolerance) for c in range(len(lattice))]
    heapq.heapify(queue)
    touched_by = np.full(len(lattice), -1)
    chosen, sizes = np.empty(len(lattice), np.int64), np.empty(len(lattice), np.int64)
    m = 0
    while len(queue) > 0:
        entry = heapq.heappop(queue)
        c, size = entry[5], entry[6]
        if left[c] != size:
            continue  # an older state of a cluster that has lost centres since
        chosen[m], sizes[m] = c, size
        for i in members[first[c] : first[c] + size]:
            taken[i] = True
        left[c], touched_by[c] = 0, c
        for i in members[first[c] : first[c] + size]:
            for d in holder[held[i] : held[i + 1]]:
                if touched_by[d] == c or left[d] == 0:
                    continue
                touched_by[d] = c
                own, k = members[first[d] : first[d] + left[d]], lattice[d]
                if not np.any(taken[own]):
                    continue  # it lost this centre before
                n = trim(
                    left[d], own, occupied[first[d] : first[d + 1]], taken, points, sites[k], neighbours[k],
                    tolerance, low, high, poses[d],
                )  # fmt: skip
                left[d] = n if n >= fewest else 0
                if left[d] > 0:
                    heapq.heappush(queue, _entry(d, left[d], lattice, first, members, poses, tolerance))
        m += 1
    return chosen[:m], sizes[:m]


@njit
def _entry(c, size, lattice, first, members, poses, tolerance):
    """What the queue compares: weight, lattice, the three lowest centres; then number and size of the cluster."""
    weight = size * (1.0 - (poses[c, 13] / tolerance) ** 2)
    lowest = np.sort(members[first[c] : first[c] + size])
    return (
        -np.int64(np.rint(weight * 1e6)),
        np.int64(lattice[c]),
        np.int64(lowest[0]),
        np.int64(lowest[1]),
        np.int64(lowest[2]),
        np.int64(c),
        np.int64(size),
    )


@njit
def trim(n, members, occupied, taken, points, sites, neighbours, tolerance, low, high, pose):
    """Leave out taken centres, keep the largest connected part, fit the lattice again; the worst goes until all suit.

    Parameters
    ----------
    n : int
        Centres of the cluster.
    members, occupied : ndarray, shape (at least n,), int32
        Centres and their sites, changed in place.
    taken : ndarray, shape (all centres,), bool
    points : ndarray, shape (all centres, 3), float64
    sites, neighbours : ndarray
        Of the lattice.
    tolerance, low, high : float
        Largest deviation, and range of the distance of connected centres and of nearest sites.
    pose : ndarray, shape (14,), float64
        Of the cluster; changed in place.

    Returns
    -------
    int
        How many are left; 0 where they are fewer than three.
    """
    left = 0
    for i in range(n):
        if not taken[members[i]]:
            members[left], occupied[left] = members[i], occupied[i]
            left += 1
    n = left
    while True:
        n = largest_part(n, members, occupied, points, sites, neighbours, low, high, pose)
        if n < 3:
            return 0
        fit(n, members, occupied, points, sites, pose)
        i, largest = worst(0, n, members, occupied, points, sites, pose)
        if largest <= tolerance * tolerance and low <= pose[0] <= high:
            return n
        n -= 1
        members[i], occupied[i] = members[n], occupied[n]


@njit
def largest_part(n, members, occupied, points, sites, neighbours, low, high, pose):
    """Keep the largest part that is connected over neighbouring centres on nearest sites; of equals the better one."""
    label = np.full(n, -1)
    stack = np.empty(n, np.int64)
    best, best_size, best_sum, parts = -1, 0, 0.0, 0
    for seed in range(n):
        if label[seed] >= 0:
            continue
        label[seed], stack[0], depth = parts, seed, 1
        size, total = 0, 0.0
        while depth > 0:
            depth -= 1
            i = stack[depth]
            size += 1
            total += square_deviation(points[members[i]], sites[occupied[i]], pose)
            for j in range(n):
                if label[j] < 0 and connected(i, j, members, occupied, points, neighbours, low, high):
                    label[j], stack[depth] = parts, j
                    depth += 1
        if size > best_size or (size == best_size and total < best_sum):
            best, best_size, best_sum = parts, size, total
        parts += 1
    left = 0
    for i in range(n):
        if label[i] == best:
            members[left], occupied[left] = members[i], occupied[i]
            left += 1
    return left


@njit
def connected(i, j, members, occupied, points, neighbours, low, high):
    """Whether two centres of a cluster are neighbours and sit on nearest sites."""
    adjacent = False
    for t in neighbours[occupied[i]]:
        if t == occupied[j]:
            adjacent = True
    if not adjacent:
        return False
    a, b = points[members[i]], points[members[j]]
    square = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2
    return low * low <= square <= high * high


@njit
def parts_of(adjacent, here, cut):
    """Connected parts of some members of a cluster, those that are cut each a part of its own.

    Parameters
    ----------
    adjacent : ndarray, shape (n, n), bool
        Which members of the whole cluster are connected.
    here : ndarray, shape (m,), int64
        Those that are left of it.
    cut : ndarray, shape (m,), bool
        Those of them whose connections count no more.

    Returns
    -------
    ndarray, shape (m,), int64
        Part of each, numbered from 0 in the order of their first members.
    """
    part, stack, parts = np.full(len(here), -1), np.empty(len(here), np.int64), 0
    for seed in range(len(here)):
        if part[seed] >= 0:
            continue
        part[seed], stack[0], depth = parts, seed, 1
        while depth > 0:
            depth -= 1
            i = stack[depth]
            for j in range(len(here)):
                if part[j] < 0 and not cut[i] and not cut[j] and adjacent[here[i], here[j]]:
                    part[j], stack[depth] = parts, j
                    depth += 1
        parts += 1
    return part
