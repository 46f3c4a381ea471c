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

BOX = 1e7  # Angstrom; half the edge of the box that cells are cut from
FARTHEST = 1e6  # Angstrom; a cell that reaches beyond it is unbounded as far as coordinates can tell
_TOUCHING = 1e-11  # of the lengths at hand: a plane that is no farther inside a corner only touches it
_DEPENDENT = 1e-14  # three unit normals with a smaller determinant have no meeting point
CLOSED, OPEN, UNINDEXED = 0, 1, 2


@njit
def _box(normal, offset, corner, vertex, radius):
    """Start with the box: six planes, eight corners."""
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
        radius[t] = BOX * np.sqrt(3.0)
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
def _cut(normal, offset, corner, vertex, radius, n, p, beyond, loop):
    """Cut the cell of n corners by plane p; gives the new number of corners, n itself with nothing cut off or not.

    Parameters
    ----------
    normal, offset : ndarray, shape (planes, 3) and (planes,), float64
        Unit normals (outwards) and distances of the planes from the atom.
    corner, vertex, radius : ndarray, shape (corners, 3), (corners, 3) and (corners,)
        Planes of every corner, its place and distance from the atom; changed.
    n, p : int
        Corners there are; number of the plane.
    beyond, loop : ndarray, int64
        Room to work in.

    Returns
    -------
    n : int
        Corners there are now.
    changed : bool
        False where the plane touches the cell at most.
    """
    nx, ny, nz, away = normal[p, 0], normal[p, 1], normal[p, 2], offset[p]
    gone = 0
    for t in range(n):
        if radius[t] > away:
            depth = nx * vertex[t, 0] + ny * vertex[t, 1] + nz * vertex[t, 2] - away
            if depth > _TOUCHING * (radius[t] + away):
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
    placed = np.empty((made, 3))
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
    for k in range(gone - 1, made - 1, -1):  # holes that are left take the last corner
        t, n = beyond[k], n - 1
        corner[t], vertex[t], radius[t] = corner[n], vertex[n], radius[n]
    return n, True


@njit
def _nearest_first(points, i, some, nearer, farther, reach):
    """Sort the points at a distance of nearer <= d < farther, and in reach, from point i by distance, then by index."""
    index = np.empty(len(some), np.int64)
    square = np.empty(len(some))
    n = 0
    for j in some:
        d = (points[j, 0] - points[i, 0]) ** 2 + (points[j, 1] - points[i, 1]) ** 2 + (points[j, 2] - points[i, 2]) ** 2
        if j != i and nearer * nearer <= d < farther * farther and d <= reach[j] * reach[j]:
            index[n], square[n] = j, d
            n += 1
    order = np.argsort(square[:n], kind="mergesort")  # keeps equal ones by index
    return index[:n][order], np.sqrt(square[:n][order])


@njit
def _cell(points, reaches, i, near, others, inner, outer):
    """Cut the cell of point i: by the near points, then by others from `inner` to `outer` while they can reach it.

    Returns
    -------
    of : ndarray, shape (planes,), int64
        Neighbour that each plane stands for, -1 for the box.
    normal, offset, corner, vertex, radius
        As in :func:`_cut`.
    n : int
        Corners.
    """
    first, near_distance = _nearest_first(points, i, near, 0.0, np.inf, reaches)
    room = 6 + len(first) + len(others)
    of = np.full(room, -1, np.int64)
    normal, offset = np.empty((room, 3)), np.empty(room)
    corner, vertex, radius = np.empty((2 * room, 3), np.int64), np.empty((2 * room, 3)), np.empty(2 * room)
    beyond, loop = np.empty(2 * room, np.int64), np.empty((6 * room, 3), np.int64)
    n = _box(normal, offset, corner, vertex, radius)
    planes, reach = 6, 2.0 * BOX * np.sqrt(3.0)
    for stage in range(2):
        if stage == 0:
            index, distance = first, near_distance
        else:
            if len(others) == 0 or reach < inner:
                break
            index, distance = _nearest_first(points, i, others, inner, min(outer, reach), reaches)
        for k in range(len(index)):
            if distance[k] > reach:
                break
            for axis in range(3):
                normal[planes, axis] = (points[index[k], axis] - points[i, axis]) / distance[k]
            offset[planes] = 0.5 * distance[k]
            n, changed = _cut(normal, offset, corner, vertex, radius, n, planes, beyond, loop)
            if changed:
                of[planes] = index[k]
                planes += 1
                reach = 2.0 * radius[:n].max()
    return of[:planes], normal[:planes], offset[:planes], corner[:n], vertex[:n], radius[:n]


@njit
def _fan_down_columns(polygon):
    """Area of a pentagon as the published script has it: cross products along the wrong axis of a 3 x 3 array."""
    area = 0.0
    product = np.empty((3, 3))
    for column in range(3):
        a = polygon[1:4, column] - polygon[0, column]
        b = polygon[2:5, column] - polygon[0, column]
        product[0, column] = a[1] * b[2] - a[2] * b[1]
        product[1, column] = a[2] * b[0] - a[0] * b[2]
        product[2, column] = a[0] * b[1] - a[1] * b[0]
    for row in range(3):
        area += 0.5 * np.sqrt(product[row, 0] ** 2 + product[row, 1] ** 2 + product[row, 2] ** 2)
    return area


@njit
def _faces(of, offset, corner, vertex, shortest_edge, published):
    """Neighbour, area, edges and plane of the faces of a cell, and its volume."""
    found = 0
    plane, area, edges = np.empty(len(of), np.int64), np.empty(len(of)), np.empty(len(of), np.int64)
    polygon, after, before = (
        np.empty((len(corner), 3)),
        np.empty(len(corner), np.int64),
        np.empty(len(corner), np.int64),
    )
    where = np.empty(len(corner), np.int64)
    volume = 0.0
    for p in range(6, len(of)):
        sides = 0
        for t in range(len(corner)):
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
    points, reaches, rows, start, near, others, inner, outer, smallest_face, again, shortest_edge, published
):
    """Cells of some points.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        All points.
    reaches : ndarray, shape (n,), float64
        Twice the distance of the farthest corner of every point's cell, or more: it is a neighbour of no point that
        is farther away.
    rows : ndarray, shape (m,), int64
        Points whose cells are asked for.
    start, near : ndarray, shape (m + 1,) and (pairs,), int64
        All neighbours within `inner` of each of them, by rising index.
    others : ndarray, shape (k,), int64
        Points with a reach of `inner` or more, rising.
    inner, outer : float
        Radii; a cell whose corners lie within half of `outer` is closed.
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
        CLOSED, OPEN (points farther away, or none, may close it), or UNINDEXED (not closed by the neighbours left).
    reach : ndarray, shape (m,), float64
        Twice the distance of the farthest corner.
    volume : ndarray, shape (m,), float64
        Of the first cell.
    count : ndarray, shape (m,), int64
        Faces of each cell; none where it has no index.
    neighbour, area, edges : ndarray, shape (faces,)
        The faces, cell by cell, by rising neighbour.
    """
    state, reach = np.zeros(len(rows), np.int64), np.empty(len(rows))
    volume, count = np.full(len(rows), np.nan), np.zeros(len(rows), np.int64)
    neighbour = np.empty(16 * len(rows) + 16, np.int64)
    area, edges = np.empty(len(neighbour)), np.empty(len(neighbour), np.int64)
    nobody = np.empty(0, np.int64)
    at = 0
    for row in range(len(rows)):
        i = rows[row]
        of, _, offset, corner, vertex, radius = _cell(
            points, reaches, i, near[start[row] : start[row + 1]], others, inner, outer
        )
        reach[row] = 2.0 * radius.max()
        if not reach[row] < min(outer, 2.0 * FARTHEST):
            state[row] = OPEN
            continue
        plane, size, sides, volume[row] = _faces(of, offset, corner, vertex, shortest_edge, published)
        left = size >= smallest_face * size.sum()
        plane, size, sides = plane[left], size[left], sides[left]
        if again:
            of, _, offset, corner, vertex, radius = _cell(points, reaches, i, np.sort(of[plane]), nobody, inner, outer)
            if not radius.max() < FARTHEST:
                state[row] = UNINDEXED
                continue
            plane, size, sides, _ = _faces(of, offset, corner, vertex, shortest_edge, False)
        if at + len(plane) > len(neighbour):
            neighbour, edges = np.concatenate((neighbour, neighbour)), np.concatenate((edges, edges))
            area = np.concatenate((area, area))
        order = np.argsort(of[plane])
        neighbour[at : at + len(plane)] = of[plane][order]
        area[at : at + len(plane)] = size[order]
        edges[at : at + len(plane)] = sides[order]
        count[row] = len(plane)
        at += len(plane)
    return state, reach, volume, count, neighbour[:at], area[:at], edges[:at]
