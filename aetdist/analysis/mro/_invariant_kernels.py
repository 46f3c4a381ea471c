"""Growing clusters on lattices by closed-form fits: the same for a turned, mirrored or renumbered sample (Numba only).

A pose is a row of fourteen numbers that lays a lattice over centres: scale a, rotation R (9), shift t (3), rms
deviation; the site of number s lies at t + a R sites[s].
"""

from __future__ import annotations

import math

import numpy as np

from ..._jit import njit

LARGEST = 200
"""Centres of a cluster, at most."""
_CERTAIN = 7
"""From so many centres on, all that suit the lattice are added at once: before, the next one is still uncertain."""


@njit
def _largest_root(c0, c1, c2, start):
    """Largest root of x^4 + c2 x^2 + c1 x + c0, by Newton's steps down from an upper bound."""
    x = start
    for _ in range(60):
        slope = (4.0 * x * x + 2.0 * c2) * x + c1
        if slope <= 0.0:
            break
        step = (((x * x + c2) * x + c1) * x + c0) / slope
        x -= step
        if abs(step) <= 1e-13 * abs(x):
            break
    return x


@njit
def fit(n, members, occupied, points, sites, pose):
    """Lay a lattice over centres with the least sum of squared deviations.

    Parameters
    ----------
    n : int
        Three or more, not all on one line.
    members, occupied : ndarray, shape (at least n,), int32
        Centres and their sites.
    points, sites : ndarray, shape (..., 3), float64
    pose : ndarray, shape (14,), float64
        Written in place.

    Notes
    -----
    Minimises sum |x - t - a R s|^2: R from the eigenvector of the largest eigenvalue L of Horn's 4 x 4 matrix
    (B. K. P. Horn, J. Opt. Soc. Am. A 4, 629 (1987)), found as a root of its characteristic polynomial
    (D. L. Theobald, Acta Cryst. A 61, 478 (2005)); a = L / sum |s - mean s|^2.
    """
    k = members[0]
    ox, oy, oz = points[k, 0], points[k, 1], points[k, 2]
    mx = my = mz = px = py = pz = gx = gs = 0.0
    sxx = sxy = sxz = syx = syy = syz = szx = szy = szz = 0.0
    for i in range(n):
        k, m = members[i], occupied[i]
        x, y, z = points[k, 0] - ox, points[k, 1] - oy, points[k, 2] - oz
        u, v, w = sites[m, 0], sites[m, 1], sites[m, 2]
        mx, my, mz = mx + x, my + y, mz + z
        px, py, pz = px + u, py + v, pz + w
        gx += x * x + y * y + z * z
        gs += u * u + v * v + w * w
        sxx, sxy, sxz = sxx + u * x, sxy + u * y, sxz + u * z
        syx, syy, syz = syx + v * x, syy + v * y, syz + v * z
        szx, szy, szz = szx + w * x, szy + w * y, szz + w * z
    mx, my, mz, px, py, pz = mx / n, my / n, mz / n, px / n, py / n, pz / n
    gx -= n * (mx * mx + my * my + mz * mz)
    gs -= n * (px * px + py * py + pz * pz)
    sxx, sxy, sxz = sxx - n * px * mx, sxy - n * px * my, sxz - n * px * mz
    syx, syy, syz = syx - n * py * mx, syy - n * py * my, syz - n * py * mz
    szx, szy, szz = szx - n * pz * mx, szy - n * pz * my, szz - n * pz * mz
    # Horn's matrix K, symmetric, of trace 0.
    k00, k11, k22, k33 = sxx + syy + szz, sxx - syy - szz, syy - sxx - szz, szz - sxx - syy
    k01, k02, k03 = syz - szy, szx - sxz, sxy - syx
    k12, k13, k23 = sxy + syx, szx + sxz, syz + szy
    c2 = -2.0 * (
        sxx * sxx + sxy * sxy + sxz * sxz + syx * syx + syy * syy + syz * syz + szx * szx + szy * szy + szz * szz
    )
    c1 = -8.0 * (sxx * (syy * szz - syz * szy) - sxy * (syx * szz - syz * szx) + sxz * (syx * szy - syy * szx))
    m01 = k22 * k33 - k23 * k23
    m02 = k12 * k33 - k13 * k23
    m03 = k12 * k23 - k13 * k22
    m12 = k02 * k33 - k03 * k23
    m13 = k02 * k23 - k03 * k22
    m23 = k02 * k13 - k03 * k12
    c0 = (k00 * (k11 * m01 - k12 * m02 + k13 * m03) - k01 * (k01 * m01 - k12 * m12 + k13 * m13)
          + k02 * (k01 * m02 - k11 * m12 + k13 * m23) - k03 * (k01 * m03 - k11 * m13 + k12 * m23))  # fmt: skip
    top = _largest_root(c0, c1, c2, math.sqrt(max(gx * gs, 0.0)))
    k00, k11, k22, k33 = k00 - top, k11 - top, k22 - top, k33 - top
    q0, q1, q2, q3 = _null_vector(k00, k01, k02, k03, k11, k12, k13, k22, k23, k33)
    a = top / gs
    pose[0] = a
    pose[1], pose[2], pose[3] = q0 * q0 + q1 * q1 - q2 * q2 - q3 * q3, 2 * (q1 * q2 - q0 * q3), 2 * (q1 * q3 + q0 * q2)
    pose[4], pose[5], pose[6] = 2 * (q1 * q2 + q0 * q3), q0 * q0 - q1 * q1 + q2 * q2 - q3 * q3, 2 * (q2 * q3 - q0 * q1)
    pose[7], pose[8], pose[9] = 2 * (q1 * q3 - q0 * q2), 2 * (q2 * q3 + q0 * q1), q0 * q0 - q1 * q1 - q2 * q2 + q3 * q3
    pose[10] = ox + mx - a * (pose[1] * px + pose[2] * py + pose[3] * pz)
    pose[11] = oy + my - a * (pose[4] * px + pose[5] * py + pose[6] * pz)
    pose[12] = oz + mz - a * (pose[7] * px + pose[8] * py + pose[9] * pz)
    pose[13] = math.sqrt(max(gx - top * a, 0.0) / n)


@njit
def _null_vector(a, b, c, d, e, f, g, h, i, j):
    """Unit vector that a symmetric singular matrix [[a b c d] [. e f g] [. . h i] [. . . j]] takes to zero."""
    # Every column of the adjugate is one; the longest is the most accurate.
    hj, fj, fi, cj, ci, cf = h * j - i * i, f * j - g * i, f * i - g * h, c * j - d * i, c * i - d * h, c * g - d * f
    bj, bi, bg = b * j - d * g, b * i - c * g, b * g - d * e
    ej = e * j - g * g
    ei, eh, bf = e * i - f * g, e * h - f * f, b * f - c * e
    bh = b * h - c * f
    r00 = e * hj - f * fj + g * fi
    r01 = -(b * hj - f * cj + g * ci)
    r02 = b * fj - e * cj + g * cf
    r03 = -(b * fi - e * ci + f * cf)
    r11 = a * hj - c * cj + d * ci
    r12 = -(a * fj - b * cj + d * cf)
    r13 = a * fi - b * ci + c * cf
    r22 = a * ej - b * bj + d * bg
    r23 = -(a * ei - b * bi + d * bf)
    r33 = a * eh - b * bh + c * bf
    best, q0, q1, q2, q3 = r00 * r00, r00, r01, r02, r03
    best = r00 * r00 + r01 * r01 + r02 * r02 + r03 * r03
    other = r01 * r01 + r11 * r11 + r12 * r12 + r13 * r13
    if other > best:
        best, q0, q1, q2, q3 = other, r01, r11, r12, r13
    other = r02 * r02 + r12 * r12 + r22 * r22 + r23 * r23
    if other > best:
        best, q0, q1, q2, q3 = other, r02, r12, r22, r23
    other = r03 * r03 + r13 * r13 + r23 * r23 + r33 * r33
    if other > best:
        best, q0, q1, q2, q3 = other, r03, r13, r23, r33
    if best <= 0.0:
        return 1.0, 0.0, 0.0, 0.0
    length = math.sqrt(best)
    return q0 / length, q1 / length, q2 / length, q3 / length


@njit
def square_deviation(point, site, pose):
    """Squared distance of a centre from its site."""
    a = pose[0]
    x = point[0] - pose[10] - a * (pose[1] * site[0] + pose[2] * site[1] + pose[3] * site[2])
    y = point[1] - pose[11] - a * (pose[4] * site[0] + pose[5] * site[1] + pose[6] * site[2])
    z = point[2] - pose[12] - a * (pose[7] * site[0] + pose[8] * site[1] + pose[9] * site[2])
    return x * x + y * y + z * z


@njit
def worst(begin, n, members, occupied, points, sites, pose):
    """Which of the centres from number `begin` to `n` is furthest from its site, and the square of how far."""
    where, largest = -1, -1.0
    for i in range(begin, n):
        square = square_deviation(points[members[i]], sites[occupied[i]], pose)
        if square > largest:
            where, largest = i, square
    return where, largest


@njit
def suits(n, members, occupied, points, sites, pose, tolerance, low, high):
    """Whether every centre is near its site, and nearest sites are as far apart as neighbouring centres may be."""
    if not low <= pose[0] <= high:
        return False
    return worst(0, n, members, occupied, points, sites, pose)[1] <= tolerance * tolerance


@njit
def grow(n, members, occupied, points, first, near, sites, neighbours, tolerance, low, high, marks, pose, room):
    """Add the neighbours of members that suit the lattice, fit it again, and so on until none is left.

    Parameters
    ----------
    n : int
        Centres to start from, which suit the lattice of `pose`.
    members, occupied : ndarray, shape (LARGEST,), int32
        Changed in place.
    marks : tuple of ndarray, int64
        Where members, centres that were tried in vain and occupied sites are marked with the number in the last one.
    room : tuple of ndarray
        Deviation, centre and site of those that may be added.

    Returns
    -------
    int
        How many they have become.
    """
    inside, barred, full, counter = marks
    deviations, atoms, places = room
    counter[0] += 1
    counter[1] += 1
    token = counter[0]
    for i in range(n):
        inside[members[i]], full[occupied[i]] = token, token
    limit = tolerance * tolerance
    grown_since_barred = any_barred = False
    while n < LARGEST:
        count = 0
        a = pose[0]
        reach = limit / (a * a)
        for i in range(n):
            here = occupied[i]
            for c in range(first[members[i]], first[members[i] + 1]):
                k = near[c]
                if inside[k] == token or barred[k] == counter[1]:
                    continue
                x, y, z = points[k, 0] - pose[10], points[k, 1] - pose[11], points[k, 2] - pose[12]
                u = (pose[1] * x + pose[4] * y + pose[7] * z) / a
                v = (pose[2] * x + pose[5] * y + pose[8] * z) / a
                w = (pose[3] * x + pose[6] * y + pose[9] * z) / a
                for d in range(neighbours.shape[1]):
                    t = neighbours[here, d]
                    if t < 0:
                        break
                    if full[t] == token:
                        continue
                    square = (u - sites[t, 0]) ** 2 + (v - sites[t, 1]) ** 2 + (w - sites[t, 2]) ** 2
                    if square <= reach and count < deviations.size:
                        deviations[count], atoms[count], places[count] = square, k, t
                        count += 1
        if count == 0:
            if any_barred and grown_since_barred:
                counter[1] += 1
                grown_since_barred = any_barred = False
                continue
            break
        old = n
        if n < _CERTAIN:
            best = np.argmin(deviations[:count])
            members[n], occupied[n] = atoms[best], places[best]
            n += 1
        else:
            order = np.argsort(deviations[:count])
            for c in order:
                k, t = atoms[c], places[c]
                if inside[k] != token and full[t] != token and n < LARGEST:
                    members[n], occupied[n] = k, t
                    inside[k], full[t] = token, token
                    n += 1
        for i in range(old, n):
            inside[members[i]], full[occupied[i]] = token, token
        fit(n, members, occupied, points, sites, pose)
        while n > old and not suits(n, members, occupied, points, sites, pose, tolerance, low, high):
            i = worst(old, n, members, occupied, points, sites, pose)[0]
            k, t = members[i], occupied[i]
            inside[k], full[t], barred[k] = 0, 0, counter[1]
            any_barred = True
            n -= 1
            members[i], occupied[i] = members[n], occupied[n]
            fit(n, members, occupied, points, sites, pose)
        if n > old:
            grown_since_barred = True
    return n


@njit
def grow_block(origins, points, first, near, sites, neighbours, pairs, tolerance, low, high, fewest):
    """The cluster of most weight, size (1 - (rms / tolerance)^2), around each of several centres on one lattice.

    Parameters
    ----------
    origins : ndarray, shape (k,), int64
    points : ndarray, shape (n, 3), float64
        All centres.
    first : ndarray, shape (n + 1,), int64
    near : ndarray, shape (m,), int32
        Neighbours of centre i are near[first[i]:first[i + 1]].
    sites, neighbours : ndarray
        Of the lattice, see `lattices.Lattice`.
    pairs : ndarray, shape (p, 2), int32
        Sites of two neighbours of the origin, one pair of each kind, see `lattices.seed_pairs`.
    tolerance, low, high : float
        Largest deviation, and range of the distance of nearest sites, in the unit of `points`.
    fewest : int
        Smaller clusters are left out.

    Returns
    -------
    sizes : ndarray, shape (k,), int64
        0: there is none.
    poses : ndarray, shape (k, 14), float64
        As :func:`fit` gives them.
    members, occupied : ndarray, shape (k, LARGEST), int32
        Centres and their sites.
    """
    sizes, poses, weights = np.zeros(origins.size, np.int64), np.zeros((origins.size, 14)), np.full(origins.size, -1.0)
    kept, kept_sites = np.full((origins.size, LARGEST), -1, np.int32), np.full((origins.size, LARGEST), -1, np.int32)
    marks = (np.zeros(points.shape[0], np.int64), np.zeros(points.shape[0], np.int64),
             np.zeros(sites.shape[0], np.int64), np.zeros(2, np.int64))  # fmt: skip
    room = np.empty(64 * LARGEST), np.empty(64 * LARGEST, np.int32), np.empty(64 * LARGEST, np.int32)
    members, occupied, pose = np.empty(LARGEST, np.int32), np.empty(LARGEST, np.int32), np.empty(14)
    for o in range(origins.size):
        origin = origins[o]
        for c in range(first[origin], first[origin + 1]):
            for d in range(c + 1, first[origin + 1]):
                for p in range(pairs.shape[0]):
                    members[0], members[1], members[2] = origin, near[c], near[d]
                    occupied[0], occupied[1], occupied[2] = 0, pairs[p, 0], pairs[p, 1]
                    fit(3, members, occupied, points, sites, pose)
                    if not suits(3, members, occupied, points, sites, pose, tolerance, low, high):
                        continue
                    n = grow(3, members, occupied, points, first, near, sites, neighbours,
                             tolerance, low, high, marks, pose, room)  # fmt: skip
                    weight = n * (1.0 - (pose[13] / tolerance) ** 2)
                    if n < fewest or weight <= weights[o]:
                        continue
                    sizes[o], weights[o] = n, weight
                    poses[o] = pose
                    kept[o, :n], kept_sites[o, :n] = members[:n], occupied[:n]
    return sizes, poses, kept, kept_sites
