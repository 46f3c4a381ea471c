"""Spheres around tetrahedra, and how far points are from triangles (numpy and Numba only)."""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def measure_tetrahedra(points, corners):
    """Radius of the sphere through the corners of each tetrahedron, and its volume.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    corners : ndarray, shape (m, 4), int
        Corners of each tetrahedron.

    Returns
    -------
    radius, volume : ndarray, shape (m,), float64
        In the unit of the points and its cube; a flat tetrahedron has the radius inf.
    """
    m = len(corners)
    radius, volume = np.empty(m), np.empty(m)
    e = np.empty((3, 3))
    square = np.empty(3)
    for t in range(m):
        for i in range(3):
            square[i] = 0.0
            for k in range(3):
                e[i, k] = points[corners[t, i + 1], k] - points[corners[t, 0], k]
                square[i] += e[i, k] ** 2
        six, length = 0.0, 0.0
        for k in range(3):
            p, q = (k + 1) % 3, (k + 2) % 3
            component = 0.0
            for i in range(3):  # sum of |a|^2 (b x c), cyclic
                j, h = (i + 1) % 3, (i + 2) % 3
                component += square[i] * (e[j, p] * e[h, q] - e[j, q] * e[h, p])
            length += component**2
            six += e[0, k] * (e[1, p] * e[2, q] - e[1, q] * e[2, p])
        volume[t] = abs(six) / 6.0
        radius[t] = np.sqrt(length) / (2.0 * abs(six)) if six != 0.0 else np.inf
    return radius, volume


@njit
def solid_angles(points, corners):
    """Solid angle that tetrahedra fill around each point (Van Oosterom & Strackee 1983).

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    corners : ndarray, shape (m, 4), int
        Corners of each tetrahedron.

    Returns
    -------
    ndarray, shape (n,), float64
        In steradian: 4 pi where the tetrahedra close around a point.
    """
    angle = np.zeros(len(points))
    e, length = np.empty((3, 3)), np.empty(3)
    for t in range(len(corners)):
        for v in range(4):
            for i in range(3):
                length[i] = 0.0
                for k in range(3):
                    e[i, k] = points[corners[t, (v + 1 + i) % 4], k] - points[corners[t, v], k]
                    length[i] += e[i, k] ** 2
                length[i] = np.sqrt(length[i])
            triple, ab, bc, ca = 0.0, 0.0, 0.0, 0.0
            for k in range(3):
                p, q = (k + 1) % 3, (k + 2) % 3
                triple += e[0, k] * (e[1, p] * e[2, q] - e[1, q] * e[2, p])
                ab += e[0, k] * e[1, k]
                bc += e[1, k] * e[2, k]
                ca += e[2, k] * e[0, k]
            below = length[0] * length[1] * length[2] + ab * length[2] + bc * length[0] + ca * length[1]
            angle[corners[t, v]] += 2.0 * np.arctan2(abs(triple), below)
    return angle


@njit
def square_to_triangle(point, triangle):
    """Square of the distance of a point from a triangle (Ericson 2005, Real-Time Collision Detection, 5.1.5).

    Parameters
    ----------
    point : ndarray, shape (3,), float64
        Position.
    triangle : ndarray, shape (3, 3), float64
        Its corners.

    Returns
    -------
    float
        In the square of the unit of the point.
    """
    d1 = d2 = d3 = d4 = d5 = d6 = 0.0
    for k in range(3):
        u, v = triangle[1, k] - triangle[0, k], triangle[2, k] - triangle[0, k]
        d1 += u * (point[k] - triangle[0, k])
        d2 += v * (point[k] - triangle[0, k])
        d3 += u * (point[k] - triangle[1, k])
        d4 += v * (point[k] - triangle[1, k])
        d5 += u * (point[k] - triangle[2, k])
        d6 += v * (point[k] - triangle[2, k])
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0.0 and d2 <= 0.0:
        s, t = 0.0, 0.0
    elif d3 >= 0.0 and d4 <= d3:
        s, t = 1.0, 0.0
    elif vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
        s, t = d1 / (d1 - d3), 0.0
    elif d6 >= 0.0 and d5 <= d6:
        s, t = 0.0, 1.0
    elif vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
        s, t = 0.0, d2 / (d2 - d6)
    elif va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
        t = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        s = 1.0 - t
    else:
        s, t = vb / (va + vb + vc), vc / (va + vb + vc)
    square = 0.0
    for k in range(3):
        foot = triangle[0, k] + s * (triangle[1, k] - triangle[0, k]) + t * (triangle[2, k] - triangle[0, k])
        square += (point[k] - foot) ** 2
    return square


@njit
def boxes_of(triangles, begin, end, right):
    """Boxes of the nodes of a tree of triangles, and where to go on where a box is left out.

    Parameters
    ----------
    triangles : ndarray, shape (m, 3, 3), float64
        Corners of the triangles, in the order of the tree's leaves.
    begin, end, right : ndarray, shape (nodes,), int64
        As `grow_tree` gives them for the middles of the triangles.

    Returns
    -------
    low, high : ndarray, shape (nodes, 3), float64
    after : ndarray, shape (nodes,), int64
        Node that follows all that is below a node.
    """
    nodes = len(begin)
    low, high, after = np.empty((nodes, 3)), np.empty((nodes, 3)), np.full(nodes, nodes)
    for node in range(nodes - 1, -1, -1):
        for k in range(3):
            if right[node]:
                low[node, k] = min(low[node + 1, k], low[right[node], k])
                high[node, k] = max(high[node + 1, k], high[right[node], k])
            else:
                low[node, k] = triangles[begin[node] : end[node], :, k].min()
                high[node, k] = triangles[begin[node] : end[node], :, k].max()
    for node in range(nodes):
        if right[node]:
            after[node + 1], after[right[node]] = right[node], after[node]
    return low, high, after


@njit
def nearest_squares(points, first, triangles, low, high, begin, end, after):
    """Square of the distance of each point from the nearest of many triangles, by a tree of boxes.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    first : ndarray, shape (n,), int64
        A triangle near each point, to begin with.
    triangles : ndarray, shape (m, 3, 3), float64
        Corners of the triangles, in the order of the tree's leaves.
    low, high : ndarray, shape (nodes, 3), float64
        Box of each node; nodes in preorder.
    begin, end : ndarray, shape (nodes,), int64
        Triangles of a leaf; an inner node has none (end <= begin).
    after : ndarray, shape (nodes,), int64
        Node that follows all that is below a node.

    Returns
    -------
    ndarray, shape (n,), float64
        In the square of the unit of the points.
    """
    found = np.empty(len(points))
    for i in range(len(points)):
        best = square_to_triangle(points[i], triangles[first[i]])
        node = 0
        while node < len(low):
            gap = 0.0
            for k in range(3):
                gap += max(low[node, k] - points[i, k], 0.0, points[i, k] - high[node, k]) ** 2
            if gap >= best:
                node = after[node]
                continue
            for t in range(begin[node], end[node]):
                best = min(best, square_to_triangle(points[i], triangles[t]))
            node = after[node] if end[node] > begin[node] else node + 1
        found[i] = best
    return found


@njit
def count_crossings(points, triangles, low, high, begin, end, after):
    """How many of the triangles a ray along z from each point meets.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Where the rays begin.
    triangles, low, high, begin, end, after
        As for :func:`nearest_squares`.

    Returns
    -------
    ndarray, shape (n,), int64
        Odd for a point that the triangles enclose.
    """
    count = np.zeros(len(points), np.int64)
    for i in range(len(points)):
        x, y, z = points[i]
        node = 0
        while node < len(low):
            if x < low[node, 0] or x > high[node, 0] or y < low[node, 1] or y > high[node, 1] or z > high[node, 2]:
                node = after[node]
                continue
            for t in range(begin[node], end[node]):
                a, b, c = triangles[t]
                wa = (b[0] - x) * (c[1] - y) - (b[1] - y) * (c[0] - x)
                wb = (c[0] - x) * (a[1] - y) - (c[1] - y) * (a[0] - x)
                wc = (a[0] - x) * (b[1] - y) - (a[1] - y) * (b[0] - x)
                within = (wa > 0.0 and wb > 0.0 and wc > 0.0) or (wa < 0.0 and wb < 0.0 and wc < 0.0)
                if within and (wa * a[2] + wb * b[2] + wc * c[2]) / (wa + wb + wc) > z:
                    count[i] += 1
            node = after[node] if end[node] > begin[node] else node + 1
    return count
