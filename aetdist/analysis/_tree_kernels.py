"""A tree of points, and the point of it that is nearest to the corner of a Voronoi cell (numpy and Numba only)."""

from __future__ import annotations

import numpy as np

from .._jit import njit

_LEAF = 8  # points in a leaf of the tree
TOUCHING = 1e-11  # of the lengths at hand: a plane that is no farther inside a corner only touches it


@njit
def grow_tree(points):
    """Sort points into a tree of boxes, halved again and again across their longest side.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.

    Returns
    -------
    order : ndarray, shape (n,), int64
        Points, leaf by leaf.
    low, high : ndarray, shape (nodes, 3), float64
        Box of each node.
    begin, end, right : ndarray, shape (nodes,), int64
        Where its points stand in `order`; its second half (the first is the next node), 0 for a leaf.
    """
    most = 4 * len(points) // _LEAF + 4
    order, low, high = np.arange(len(points)), np.empty((most, 3)), np.empty((most, 3))
    begin, end, right = np.zeros(most, np.int64), np.zeros(most, np.int64), np.zeros(most, np.int64)
    waiting, nodes = [(0, len(points), -1)], 0
    while len(waiting) and len(points):
        first, last, parent = waiting.pop()
        if parent >= 0:
            right[parent] = nodes
        begin[nodes], end[nodes] = first, last
        part = order[first:last].copy()
        longest, axis = -1.0, 0
        for k in range(3):
            low[nodes, k], high[nodes, k] = points[part, k].min(), points[part, k].max()
            if high[nodes, k] - low[nodes, k] > longest:
                longest, axis = high[nodes, k] - low[nodes, k], k
        if last - first > _LEAF:
            order[first:last] = part[np.argsort(points[part, axis], kind="mergesort")]
            middle = (first + last) // 2
            waiting.append((middle, last, nodes))
            waiting.append((first, middle, -1))
        nodes += 1
    return order, low[:nodes], high[:nodes], begin[:nodes], end[:nodes], right[:nodes]


@njit
def nearest_to_corner(tree, points, numbers, x, y, z, vx, vy, vz, used, stack):
    """Find the point nearest to a corner and nearer than the cell's own point; -1 where there is none.

    The corner is at v from the cell's point (x, y, z), another point at d. It is nearer to the corner where
    g = v d - d^2 / 2 > 0, which is largest for the nearest; in a box each axis has its own largest value.
    """
    order, low, high, begin, end, right = tree
    best, found = 0.0, -1
    reach = np.sqrt(vx * vx + vy * vy + vz * vz)
    stack[0], waiting = 0, 1
    while waiting:
        waiting -= 1
        node = stack[waiting]
        if _most(low, high, node, x, y, z, vx, vy, vz) <= best:
            continue
        if right[node]:
            a, b = node + 1, right[node]
            if _most(low, high, a, x, y, z, vx, vy, vz) > _most(low, high, b, x, y, z, vx, vy, vz):
                a, b = b, a
            stack[waiting], stack[waiting + 1] = a, b
            waiting += 2
            continue
        for k in range(begin[node], end[node]):
            j = order[k]
            dx, dy, dz = points[j, 0] - x, points[j, 1] - y, points[j, 2] - z
            square = dx * dx + dy * dy + dz * dz
            g = vx * dx + vy * dy + vz * dz - 0.5 * square
            away = np.sqrt(square)
            if g > best and g > TOUCHING * away * (reach + 0.5 * away) and not (used == numbers[j]).any():
                best, found = g, j
    return found


@njit
def _most(low, high, node, x, y, z, vx, vy, vz):
    """Largest g (see above) within a box."""
    dx = min(max(vx, low[node, 0] - x), high[node, 0] - x)
    dy = min(max(vy, low[node, 1] - y), high[node, 1] - y)
    dz = min(max(vz, low[node, 2] - z), high[node, 2] - z)
    return dx * (vx - 0.5 * dx) + dy * (vy - 0.5 * dy) + dz * (vz - 0.5 * dz)
