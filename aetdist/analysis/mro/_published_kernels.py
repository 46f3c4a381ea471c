"""The published search: breadth first over sets of centres, one start on one lattice (numpy and Numba only).

Lengths are in units of the shortest distance of neighbouring centres. A lattice is a scale a and a rotation R
about the origin; the site of number s lies at a R sites[s].
"""

from __future__ import annotations

import math

import numpy as np

from ..._jit import njit

LARGEST = 64
"""Centres of a cluster, at most."""
FITTED = 7
"""The lattice of a set of more centres than these is that of the set it came from."""
_STEP = 0.01  # of the descent, and of its numerical derivatives
_ITERATIONS = 1000
_FLAT = 0.01  # norm of the gradient at which the descent ends
_SINE = math.sin(_STEP) / _STEP
_NONE = -1  # no site is near
_UNKNOWN = -2


@njit
def hash_of(i):
    """64 random bits for each integer (the finaliser of splitmix64)."""
    z = (np.uint64(i) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit
def descend(n, x, s, a, rotation):
    """Fit a lattice to `n` centres by steps of fixed length down the gradient of the sum of squared deviations.

    Parameters
    ----------
    n : int
    x, s : ndarray, shape (at least n, 3), float64
        Centres and their sites, from the origin.
    a : float
        Scale to start from.
    rotation : ndarray, shape (3, 3), float64
        Rotation to start from; changed in place.

    Returns
    -------
    float
        The fitted scale.

    Notes
    -----
    E(a, R) = sum x^2 + a^2 sum s^2 - 2 a trace P with P = sum x (R s)^T, and the central difference for a small
    rotation about an axis is a difference of two entries of P: the steps cost the same for any number of centres.
    """
    p = np.zeros((3, 3))
    square = 0.0
    for i in range(n):
        for k in range(3):
            square += s[i, k] * s[i, k]
            turned = rotation[k, 0] * s[i, 0] + rotation[k, 1] * s[i, 1] + rotation[k, 2] * s[i, 2]
            for j in range(3):
                p[j, k] += x[i, j] * turned
    p00, p01, p02 = p[0, 0], p[0, 1], p[0, 2]
    p10, p11, p12 = p[1, 0], p[1, 1], p[1, 2]
    p20, p21, p22 = p[2, 0], p[2, 1], p[2, 2]
    t00, t01, t02, t10, t11, t12, t20, t21, t22 = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0
    for _ in range(_ITERATIONS):
        ga = 2.0 * (a * square - p00 - p11 - p22)
        turn = -2.0 * a * _SINE
        gx, gy, gz = turn * (p21 - p12), turn * (p02 - p20), turn * (p10 - p01)
        a -= _STEP * ga
        cx, sx = math.cos(_STEP * gx), -math.sin(_STEP * gx)
        cy, sy = math.cos(_STEP * gy), -math.sin(_STEP * gy)
        cz, sz = math.cos(_STEP * gz), -math.sin(_STEP * gz)
        # Rz Ry Rx
        d00, d01, d02 = cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx
        d10, d11, d12 = sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx
        d20, d21, d22 = -sy, cy * sx, cy * cx
        p00, p01, p02 = (p00 * d00 + p01 * d01 + p02 * d02, p00 * d10 + p01 * d11 + p02 * d12,
                         p00 * d20 + p01 * d21 + p02 * d22)  # fmt: skip
        p10, p11, p12 = (p10 * d00 + p11 * d01 + p12 * d02, p10 * d10 + p11 * d11 + p12 * d12,
                         p10 * d20 + p11 * d21 + p12 * d22)  # fmt: skip
        p20, p21, p22 = (p20 * d00 + p21 * d01 + p22 * d02, p20 * d10 + p21 * d11 + p22 * d12,
                         p20 * d20 + p21 * d21 + p22 * d22)  # fmt: skip
        t00, t10, t20 = (d00 * t00 + d01 * t10 + d02 * t20, d10 * t00 + d11 * t10 + d12 * t20,
                         d20 * t00 + d21 * t10 + d22 * t20)  # fmt: skip
        t01, t11, t21 = (d00 * t01 + d01 * t11 + d02 * t21, d10 * t01 + d11 * t11 + d12 * t21,
                         d20 * t01 + d21 * t11 + d22 * t21)  # fmt: skip
        t02, t12, t22 = (d00 * t02 + d01 * t12 + d02 * t22, d10 * t02 + d11 * t12 + d12 * t22,
                         d20 * t02 + d21 * t12 + d22 * t22)  # fmt: skip
        if ga * ga + gx * gx + gy * gy + gz * gz < _FLAT * _FLAT:
            break
    for k in range(3):
        r0, r1, r2 = rotation[0, k], rotation[1, k], rotation[2, k]
        rotation[0, k] = t00 * r0 + t01 * r1 + t02 * r2
        rotation[1, k] = t10 * r0 + t11 * r1 + t12 * r2
        rotation[2, k] = t20 * r0 + t21 * r1 + t22 * r2
    return a


@njit
def walk(x, y, z, a, rotation, sites, steps, stands):
    """Number of the site that steps to ever nearer ones lead to, from the origin; see `_steps.make_steps`."""
    u = (rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0] * z) / a
    v = (rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1] * z) / a
    w = (rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2] * z) / a
    here = 0
    nearest = u * u + v * v + w * w
    while True:
        best = here
        for t in steps[here]:
            if t < 0:
                continue
            site = sites[stands[t]]
            d = (u - site[0]) ** 2 + (v - site[1]) ** 2 + (w - site[2]) ** 2
            if d < nearest - 1e-12:
                nearest, best = d, t
        if best == here:
            return stands[here]
        here = best


@njit
def deviation(x, y, z, a, rotation, site):
    """Squared distance of a centre from its site."""
    d0 = x - a * (rotation[0, 0] * site[0] + rotation[0, 1] * site[1] + rotation[0, 2] * site[2])
    d1 = y - a * (rotation[1, 0] * site[0] + rotation[1, 1] * site[1] + rotation[1, 2] * site[2])
    d2 = z - a * (rotation[2, 0] * site[0] + rotation[2, 1] * site[1] + rotation[2, 2] * site[2])
    return d0 * d0 + d1 * d1 + d2 * d2


@njit
def _add(table, used, key):
    """Add a key to an open hash table, which may grow; whether it is new."""
    mask = np.uint64(table.size - 1)
    i = key & mask
    while table[i] != 0:
        if table[i] == key:
            return table, used, False
        i = (i + np.uint64(1)) & mask
    table[i] = key
    used += 1
    if 2 * used > table.size:
        old = table
        table = np.zeros(4 * old.size, np.uint64)
        mask = np.uint64(table.size - 1)
        for k in old:
            if k != 0:
                i = k & mask
                while table[i] != 0:
                    i = (i + np.uint64(1)) & mask
                table[i] = k
    return table, used, True


@njit
def _longer(array, n):
    """A copy of an array with room for at least `n` rows."""
    grown = np.empty((max(n, 2 * array.shape[0]), *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return grown


@njit
def _merge(old, new, skip, out):
    """Union of two rising rows without one element; how many there are."""
    i = j = n = 0
    while i < old.size or j < new.size:
        if j == new.size or (i < old.size and old[i] <= new[j]):
            value = old[i]
            if j < new.size and new[j] == value:
                j += 1
            i += 1
        else:
            value = new[j]
            j += 1
        if value != skip:
            out[n] = value
            n += 1
    return n


@njit
def _without(row, n, members):
    """Take members out of the first `n` elements of a row; how many stay."""
    kept = 0
    for i in range(n):
        inside = False
        for m in members:
            if row[i] == m:
                inside = True
                break
        if not inside:
            row[kept] = row[i]
            kept += 1
    return kept


@njit
def search(origin, points, first, near, sites, neighbours, steps, stands, tolerance, most, members, occupied, rotation):
    """The largest cluster that grows from one centre on one lattice.

    Parameters
    ----------
    origin : int
        Number of the centre that stays on the origin of the lattice.
    points : ndarray, shape (n, 3), float64
        Centres.
    first : ndarray, shape (n + 1,), int64
    near : ndarray, shape (m,), int32
        Neighbours of centre i are near[first[i]:first[i + 1]], rising.
    sites, neighbours : ndarray
        Of the lattice, see `lattices.Lattice`.
    steps, stands : ndarray
        Of the lattice, see `_steps.make_steps`.
    tolerance : float
        Largest distance of a centre from its site.
    most : int
        Sets of one size, at most.
    members, occupied : ndarray, shape (LARGEST,), int64
        Centres of the cluster in the order in which they were added, and their sites; written in place.
    rotation : ndarray, shape (3, 3), float64
        Of the cluster's lattice; written in place.

    Returns
    -------
    size : int
        Centres of the cluster; 0: there were too many sets.
    scale, rms : float
        Of the cluster's lattice, and root of the mean squared distance from the sites.
    """
    x0, y0, z0 = points[origin]
    limit = tolerance * tolerance
    # Sets of one size: members, sites, candidates (a piece of `around`), hash, sum of squares, number of the lattice.
    count, size = 1, 1
    member = np.full((1, LARGEST), origin, np.int32)
    site = np.zeros((1, LARGEST), np.int32)
    key, total, of_lattice = np.array([hash_of(origin)]), np.zeros(1), np.zeros(1, np.int32)
    around = near[first[origin] : first[origin + 1]].copy()
    begin = np.array([0, around.size])
    scales, turns = np.ones(1), np.empty((1, 3, 3))
    turns[0] = np.eye(3)
    x, s, turned = np.empty((FITTED, 3)), np.empty((FITTED, 3)), np.empty((3, 3))
    # What the frozen lattices say of a centre, once it has been asked.
    local = np.full(points.shape[0], -1, np.int32)
    n_local = 0
    seen_site, seen_square = np.empty((0, 0), np.int32), np.empty((0, 0))
    taken, beside = np.full(sites.shape[0], -1, np.int64), np.full(sites.shape[0], -1, np.int64)
    stamp = 0
    merged = np.empty(near.size + 1, np.int32)
    while True:
        fits = size < FITTED
        room = max(64, count)
        new_member, new_site = np.empty((room, LARGEST), np.int32), np.empty((room, LARGEST), np.int32)
        new_key, new_total = np.empty(room, np.uint64), np.empty(room)
        new_lattice, new_begin = np.empty(room, np.int32), np.zeros(room + 1, np.int64)
        new_scales, new_turns = np.empty(room if fits else 0), np.empty((room if fits else 0, 3, 3))
        new_around = np.empty(64 * room, np.int32)
        table, used, made = np.zeros(1024, np.uint64), 0, 0
        for k in range(count):
            stamp += 1
            for i in range(size):
                taken[site[k, i]] = stamp
                for t in neighbours[site[k, i]]:
                    if t >= 0:
                        beside[t] = stamp
            lattice = of_lattice[k]
            a = scales[lattice]
            for c in range(begin[k], begin[k + 1]):
                atom = around[c]
                child = key[k] ^ hash_of(atom)
                table, used, new = _add(table, used, child)
                if not new or a <= 0.0:
                    continue
                u, v, w = points[atom, 0] - x0, points[atom, 1] - y0, points[atom, 2] - z0
                if fits:
                    if size == 1:
                        where = neighbours[0, 0]
                    else:
                        where = walk(u, v, w, a, turns[lattice], sites, steps, stands)
                        if taken[where] == stamp or beside[where] != stamp:
                            continue
                    for i in range(size):
                        j = member[k, i]
                        x[i, 0], x[i, 1], x[i, 2] = points[j, 0] - x0, points[j, 1] - y0, points[j, 2] - z0
                        s[i] = sites[site[k, i]]
                    x[size, 0], x[size, 1], x[size, 2] = u, v, w
                    s[size] = sites[where]
                    turned[:] = turns[lattice]
                    scale = descend(size + 1, x, s, a, turned)
                    sum_square, largest = 0.0, 0.0
                    for i in range(size + 1):
                        square = deviation(x[i, 0], x[i, 1], x[i, 2], scale, turned, s[i])
                        sum_square += square
                        largest = max(largest, square)
                    if largest > limit and size > 1:
                        continue
                else:
                    if local[atom] < 0:
                        local[atom] = n_local
                        n_local += 1
                        if n_local > seen_site.shape[1]:
                            wide = 2 * n_local + 62
                            more_site = np.full((scales.size, wide), _UNKNOWN, np.int32)
                            more_square = np.empty((scales.size, wide))
                            more_site[:, : seen_site.shape[1]] = seen_site
                            more_square[:, : seen_site.shape[1]] = seen_square
                            seen_site, seen_square = more_site, more_square
                    where = seen_site[lattice, local[atom]]
                    if where == _UNKNOWN:
                        where = walk(u, v, w, a, turns[lattice], sites, steps, stands)
                        square = deviation(u, v, w, a, turns[lattice], sites[where])
                        if square > limit:
                            where = _NONE
                        seen_site[lattice, local[atom]], seen_square[lattice, local[atom]] = where, square
                    if where == _NONE or taken[where] == stamp or beside[where] != stamp:
                        continue
                    sum_square = total[k] + seen_square[lattice, local[atom]]
                if made == most or size == LARGEST:
                    return 0, 0.0, 0.0
                if made == new_key.size:
                    n = 2 * made
                    new_member, new_site = _longer(new_member, n), _longer(new_site, n)
                    new_key, new_total = _longer(new_key, n), _longer(new_total, n)
                    new_lattice, new_begin = _longer(new_lattice, n), _longer(new_begin, n + 1)
                    if fits:
                        new_scales, new_turns = _longer(new_scales, n), _longer(new_turns, n)
                new_member[made, :size], new_site[made, :size] = member[k, :size], site[k, :size]
                new_member[made, size], new_site[made, size] = atom, where
                new_key[made], new_total[made] = child, sum_square
                if fits:
                    new_lattice[made], new_scales[made] = made, scale
                    new_turns[made] = turned
                else:
                    new_lattice[made] = lattice
                n = _merge(around[begin[k] : begin[k + 1]], near[first[atom] : first[atom + 1]], atom, merged)
                n = _without(merged, n, new_member[made, :size])
                end = new_begin[made] + n
                if end > new_around.size:
                    new_around = _longer(new_around, end)
                new_around[new_begin[made] : end] = merged[:n]
                made += 1
                new_begin[made] = end
        if made == 0:
            break
        size, count = size + 1, made
        member, site, key, total = new_member, new_site, new_key, new_total
        of_lattice, around, begin = new_lattice, new_around, new_begin
        if fits:
            scales, turns = new_scales[:made], new_turns[:made]
            if size == FITTED:
                seen_site, seen_square = np.empty((made, 0), np.int32), np.empty((made, 0))
    best = np.argmin(total[:count])
    members[:size], occupied[:size] = member[best, :size], site[best, :size]
    rotation[:] = turns[of_lattice[best]]
    return size, scales[of_lattice[best]], math.sqrt(total[best] / size)


@njit
def search_block(origins, points, first, near, sites, neighbours, steps, stands, tolerance, most):
    """:func:`search` for several origins on one lattice.

    Returns
    -------
    sizes : ndarray, shape (k,), int64
    scales, rms : ndarray, shape (k,), float64
    members, occupied : ndarray, shape (k, LARGEST), int64
    rotations : ndarray, shape (k, 3, 3), float64
    """
    n = origins.size
    sizes, scales, rms = np.zeros(n, np.int64), np.empty(n), np.empty(n)
    members, occupied = np.full((n, LARGEST), -1, np.int64), np.full((n, LARGEST), -1, np.int64)
    rotations = np.empty((n, 3, 3))
    for i in range(n):
        sizes[i], scales[i], rms[i] = search(
            origins[i], points, first, near, sites, neighbours, steps, stands, tolerance, most,
            members[i], occupied[i], rotations[i],
        )  # fmt: skip
        if sizes[i] == 0:
            break
    return sizes, scales, rms, members, occupied, rotations
