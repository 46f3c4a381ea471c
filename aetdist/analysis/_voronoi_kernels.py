"""Voronoi cells by cutting half-spaces off a box, one atom at a time (numpy and Numba only).

A cell is a list of corners, each the meeting point of three planes. A plane lies half-way to a neighbour; it takes the
corners beyond it away, and every edge that led out of them ends in a new corner. Corners are solved from their three
planes, never interpolated, so that a cell does not depend on how far away the box is.

Planes 0 to 5 are the box. The corners' planes are in cyclic order, all seen from the same side: the next corner of
face p after (p, a, b) is (p, b, c).
"""

from __future__ import annotations

import numpy as np

from .._jit import njit
from ._tree_kernels import TOUCHING, nearest_to_corner

BOX = 1e7  # Angstrom; half the edge of the box that cells are cut from
FARTHEST = 1e6  # Angstrom; a cell that reaches beyond it is unbounded as far as coordinates can tell
_DEPENDENT = 1e-14  # unit normals with a smaller determinant have no meeting point
CLOSED, OPEN, UNBOUNDED, UNINDEXED = 0, 1, 2, 3


@njit
def _box(room):
    """Start with the box: six planes, eight corners."""
    of, normal, offset, corner, vertex, radius, checked = room[:7]
    of[:6] = -1
    for axis in range(3):
        for side in range(2):
            normal[2 * axis + side] = 0.0
            normal[2 * axis + side, axis] = 1.0 - 2.0 * side
            offset[2 * axis + side] = BOX
    for t in range(8):
        sides = (t & 1, (t >> 1) & 1, (t >> 2) & 1)
        odd = (sides[0] + sides[1] + sides[2]) % 2
        corner[t, 0] = sides[0]
        corner[t, 1 + odd] = 2 + sides[1]
        corner[t, 2 - odd] = 4 + sides[2]
        for axis in range(3):
            vertex[t, axis] = BOX * (1.0 - 2.0 * sides[axis])
        radius[t], checked[t] = BOX * np.sqrt(3.0), False
    return 8


@njit
def _meet(normal, offset, a, b, c, out):
    """Solve for the point where three planes meet (Cramer's rule); False where they have none."""
    ax, ay, az = normal[a]
    bx, by, bz = normal[b]
    cx, cy, cz = normal[c]
    ux, uy, uz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    vx, vy, vz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    wx, wy, wz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    determinant = ax * ux + ay * uy + az * uz
    if abs(determinant) <= _DEPENDENT:
        return False
    out[0] = (offset[a] * ux + offset[b] * vx + offset[c] * wx) / determinant
    out[1] = (offset[a] * uy + offset[b] * vy + offset[c] * wy) / determinant
    out[2] = (offset[a] * uz + offset[b] * vz + offset[c] * wz) / determinant
    return True


@njit
def _cut(room, n, p):
    """Cut the cell of n corners by plane p; gives the number of corners then, and whether anything was cut off."""
    _, normal, offset, corner, vertex, radius, checked, beyond, loop, placed = room
    nx, ny, nz, away = normal[p, 0], normal[p, 1], normal[p, 2], offset[p]
    gone = 0
    for t in range(n):
        if radius[t] > away:
            depth = nx * vertex[t, 0] + ny * vertex[t, 1] + nz * vertex[t, 2] - away
            if depth > TOUCHING * (radius[t] + away):
                beyond[gone] = t
                gone += 1
    if gone == 0:
        return n, False
    made = 0  # edges around the corners that go, each with the corner that it bounded
    for k in range(gone):
        for e in range(3):
            a, b = corner[beyond[k], e], corner[beyond[k], (e + 1) % 3]
            inner = False
            for other in range(gone):
                for f in range(3):
                    if corner[beyond[other], f] == b and corner[beyond[other], (f + 1) % 3] == a:
                        inner = True
            if not inner:
                loop[made, 0], loop[made, 1], loop[made, 2] = a, b, beyond[k]
                made += 1
    if n - gone + made > len(radius):
        raise RuntimeError("A Voronoi cell came apart by rounding: the edges around what was cut off are no loop.")
    for k in range(made):
        if not _meet(normal, offset, loop[k, 0], loop[k, 1], p, placed[k]):
            # The edge lies in the plane as far as can be told: any point of it will do.
            placed[k] = vertex[loop[k, 2]]
    for k in range(made):
        t = beyond[k] if k < gone else n
        n += k >= gone
        corner[t, 0], corner[t, 1], corner[t, 2] = loop[k, 0], loop[k, 1], p
        vertex[t] = placed[k]
        radius[t] = np.sqrt(placed[k, 0] ** 2 + placed[k, 1] ** 2 + placed[k, 2] ** 2)
        checked[t] = False
    for k in range(gone - 1, made - 1, -1):  # holes that are left take the last corner
        t, n = beyond[k], n - 1
        corner[t], vertex[t], radius[t], checked[t] = corner[n], vertex[n], radius[n], checked[n]
    return n, True


@njit
def _room(planes):
    """Arrays for a cell that so many planes cut: three of the planes, four of the corners, three to work in.

    of, normal, offset : neighbour that each plane stands for (-1: the box), outward normal, distance from the atom.
    corner, vertex, radius, checked : the three planes, place, distance from the atom, whether it is known to be final.
    """
    corners = 2 * planes
    return (
        np.empty(planes, np.int64),
        np.empty((planes, 3)),
        np.empty(planes),
        np.empty((corners, 3), np.int64),
        np.empty((corners, 3)),
        np.empty(corners),
        np.empty(corners, np.bool_),
        np.empty(corners, np.int64),
        np.empty((3 * corners, 3), np.int64),
        np.empty((corners, 3)),
    )


@njit
def _add(room, n, p, dx, dy, dz, number):
    """Cut by plane p, half-way to a neighbour at (dx, dy, dz)."""
    of, normal, offset = room[:3]
    distance = np.sqrt(dx * dx + dy * dy + dz * dz)
    of[p], offset[p] = number, 0.5 * distance
    normal[p, 0], normal[p, 1], normal[p, 2] = dx / distance, dy / distance, dz / distance
    return _cut(room, n, p)


@njit
def _cut_near(room, points, numbers, i, near):
    """Cut the cell of point i by the near points, nearest first, while they can reach it."""
    radius = room[5]
    x, y, z = points[i]
    square = np.empty(len(near))
    for k in range(len(near)):
        j = near[k]
        square[k] = (points[j, 0] - x) ** 2 + (points[j, 1] - y) ** 2 + (points[j, 2] - z) ** 2
    n, planes, farthest = _box(room), 6, BOX * np.sqrt(3.0)
    for k in np.argsort(square, kind="mergesort"):  # equal ones stay by index
        if square[k] > 4.0 * farthest * farthest:
            break
        j = near[k]
        n, changed = _add(room, n, planes, points[j, 0] - x, points[j, 1] - y, points[j, 2] - z, numbers[j])
        if changed:
            planes += 1
            farthest = radius[:n].max()
    return n, planes


@njit
def _cut_far(room, n, planes, x, y, z, inner, tree, points, numbers, stack):
    """Cut the cell of a point at (x, y, z) until no point of the tree is nearer than it to any far corner."""
    of, vertex, radius, checked = room[0], room[4], room[5], room[6]
    while True:
        t = -1
        for k in range(n):
            if not checked[k] and 2.0 * radius[k] >= inner and (t < 0 or radius[k] > radius[t]):
                t = k
        if t < 0:
            return n, planes
        vx, vy, vz = vertex[t]
        j = nearest_to_corner(tree, points, numbers, x, y, z, vx, vy, vz, of[:planes], stack)
        changed = False
        if j >= 0:
            n, changed = _add(room, n, planes, points[j, 0] - x, points[j, 1] - y, points[j, 2] - z, numbers[j])
            planes += changed
        if not changed:
            checked[t] = True
            if radius[t] >= FARTHEST:  # unbounded, whatever else
                return n, planes


@njit
def _cut_again(room, kept):
    """Cut the cell from some of its planes, given by rising number."""
    of, normal, offset = room[:3]
    n = _box(room)
    for k in range(len(kept)):
        p = kept[k]
        of[6 + k], normal[6 + k], offset[6 + k] = of[p], normal[p], offset[p]
        n, _ = _cut(room, n, 6 + k)
    return n, 6 + len(kept)


@njit
def _fan_down_columns(polygon):
    """Area of a pentagon as the published script has it: cross products along the wrong axis of a 3 x 3 array.

    It depends on the corner that the fan starts at, which is not known: this is the mean of all five.
    """
    area = 0.0
    a, b, product = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for first in range(5):
        for k in range(3):
            for axis in range(3):
                a[k, axis] = polygon[(first + k + 1) % 5, axis] - polygon[first, axis]
                b[k, axis] = polygon[(first + k + 2) % 5, axis] - polygon[first, axis]
        for column in range(3):
            for k in range(3):
                up, down = (k + 1) % 3, (k + 2) % 3
                product[k, column] = a[up, column] * b[down, column] - a[down, column] * b[up, column]
        for k in range(3):
            area += 0.1 * np.sqrt(product[k, 0] ** 2 + product[k, 1] ** 2 + product[k, 2] ** 2)
    return area


@njit
def _faces(room, n, planes, shortest_edge, published):
    """Plane, area and edges of the faces of a cell, and its volume."""
    offset, corner, vertex = room[2], room[3][:n], room[4]
    found = 0
    plane, area, edges = np.empty(planes, np.int64), np.empty(planes), np.empty(planes, np.int64)
    polygon, after, before = (
        np.empty((n, 3)),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
    )
    where = np.empty(n, np.int64)
    volume = 0.0
    for p in range(6, planes):
        sides = 0
        for t in range(n):
            for e in range(3):
                if corner[t, e] == p:
                    before[sides], after[sides] = corner[t, (e + 1) % 3], corner[t, (e + 2) % 3]
                    where[sides] = t
                    sides += 1
        if sides < 3:
            continue
        k = 0
        for side in range(sides):
            polygon[side] = vertex[where[k]]
            for other in range(sides):
                if before[other] == after[k]:
                    k = other
                    break
        long, ax, ay, az = 0, 0.0, 0.0, 0.0
        for side in range(sides):
            here, there = polygon[side], polygon[(side + 1) % sides]
            square = (there[0] - here[0]) ** 2 + (there[1] - here[1]) ** 2 + (there[2] - here[2]) ** 2
            long += square > shortest_edge * shortest_edge
            ux, uy, uz = here[0] - polygon[0, 0], here[1] - polygon[0, 1], here[2] - polygon[0, 2]
            vx, vy, vz = there[0] - polygon[0, 0], there[1] - polygon[0, 1], there[2] - polygon[0, 2]
            ax += uy * vz - uz * vy
            ay += uz * vx - ux * vz
            az += ux * vy - uy * vx
        plane[found], edges[found] = p, long
        area[found] = 0.5 * np.sqrt(ax * ax + ay * ay + az * az)
        volume += area[found] * offset[p] / 3.0
        if published and sides == 5:
            area[found] = _fan_down_columns(polygon[:5])
        found += long > 2
    return plane[:found], area[:found], edges[:found], volume


@njit
def voronoi_cells(
    points, numbers, rows, start, near, inner, tree, far, far_numbers, smallest_face, again, shortest_edge, published
):
    """Cells of some points.

    Parameters
    ----------
    points, numbers : ndarray, shape (n, 3), float64, and (n,), int64
        The points around, and what to call them in the answer.
    rows : ndarray, shape (m,), int64
        Points whose cells are asked for.
    start, near : ndarray, shape (m + 1,) and (pairs,), int64
        All neighbours within `inner` of each of them, by rising index.
    inner : float
        A cell whose corners all lie within half of it is closed.
    tree, far, far_numbers
        As :func:`grow_tree` gives it, its points, and what to call them: those that may be neighbours at a distance of
        `inner` or more. Without points, cells that are not closed stay open.
    smallest_face : float
        Faces with a smaller part of the cell's area are dropped.
    again : bool
        Whether the cell is cut again from the neighbours that are left.
    shortest_edge : float
        Shorter edges are not counted.
    published : bool
        Whether pentagons have the area that the published script gives them.

    Returns
    -------
    state : ndarray, shape (m,), int64
        CLOSED, OPEN (without far points), UNBOUNDED, or UNINDEXED (the neighbours that are left do not close it).
    volume : ndarray, shape (m,), float64
        Of the first cell.
    count : ndarray, shape (m,), int64
        Faces of each cell; none where it has no index.
    neighbour, area, edges : ndarray, shape (faces,), int32, float64, int16
        The faces, cell by cell, by rising neighbour.
    """
    state, volume, count = np.zeros(len(rows), np.int64), np.full(len(rows), np.nan), np.zeros(len(rows), np.int64)
    neighbour = np.empty(16 * len(rows) + 16, np.int32)  # what travels is small
    area, edges = np.empty(len(neighbour)), np.empty(len(neighbour), np.int16)
    room, stack = _room(6 + np.diff(start).max() + len(far)), np.empty(128, np.int64)
    of, radius = room[0], room[5]
    at = 0
    for row in range(len(rows)):
        i = rows[row]
        n, planes = _cut_near(room, points, numbers, i, near[start[row] : start[row + 1]])
        if 2.0 * radius[:n].max() >= inner:
            if len(far) == 0:
                state[row] = OPEN
                continue
            n, planes = _cut_far(
                room, n, planes, points[i, 0], points[i, 1], points[i, 2], inner, tree, far, far_numbers, stack
            )
            if radius[:n].max() >= FARTHEST:
                state[row] = UNBOUNDED
                continue
        plane, size, sides, volume[row] = _faces(room, n, planes, shortest_edge, published)
        left = size >= smallest_face * size.sum()
        plane, size, sides = plane[left], size[left], sides[left]
        if again:
            n, planes = _cut_again(room, plane)
            if radius[:n].max() >= FARTHEST:
                state[row] = UNINDEXED
                continue
            plane, size, sides, _ = _faces(room, n, planes, shortest_edge, False)
        if at + len(plane) > len(neighbour):
            neighbour, edges = np.concatenate((neighbour, neighbour)), np.concatenate((edges, edges))
            area = np.concatenate((area, area))
        order = np.argsort(of[plane])
        neighbour[at : at + len(plane)] = of[plane][order]
        area[at : at + len(plane)] = size[order]
        edges[at : at + len(plane)] = sides[order]
        count[row] = len(plane)
        at += len(plane)
    return state, volume, count, neighbour[:at], area[:at], edges[:at]
