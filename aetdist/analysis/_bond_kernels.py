"""Spherical harmonics of bonds, their means and invariants (numpy and Numba only)."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

_ROUNDING = 1e-24  # of the squares of sums of numbers up to 1 that cancel


def legendre_tables(largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the recursion over l of normalised associated Legendre functions.

    Parameters
    ----------
    largest : int
        Largest l.

    Returns
    -------
    diagonal : ndarray, shape (largest + 1,), float64
        From (m - 1, m - 1) to (m, m); the first is Y_00.
    climb : ndarray, shape (largest + 1, largest + 1), float64
        A_lm = sqrt((4 l^2 - 1) / (l^2 - m^2)); P_lm = A_lm (z P_l-1,m - P_l-2,m / A_l-1,m).
    """
    m = np.arange(largest + 1)
    diagonal = np.sqrt((2 * m + 1) / np.maximum(2 * m, 1))
    diagonal[0] = math.sqrt(0.25 / math.pi)
    degree, m = np.tril_indices(largest + 1, -1)
    climb = np.zeros((largest + 1, largest + 1))
    climb[degree, m] = np.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
    return diagonal, climb


@njit
def bond_harmonics(points, start, index, diagonal, climb, column, width):
    """Mean over its neighbours of the spherical harmonics of every point's bonds.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    start, index : ndarray, shape (n + 1,) and (pairs,), int64
        Neighbours of all points, by rising index; each pair from both sides.
    diagonal, climb
        From :func:`legendre_tables`.
    column : ndarray, shape (largest + 1,), int64
        Where the 2 (l + 1) columns of each l begin; -1 where it is not wanted.
    width : int
        Number of columns.

    Returns
    -------
    ndarray, shape (n, width), float64
        Real and imaginary part of q_lm, m = 0..l, of each wanted l; the others are (-1)^m times the conjugates.
        Without the phase (-1)^m of Condon and Shortley, in which no invariant differs. NaN without neighbours.

    Notes
    -----
    Each pair is worked out once: Y_lm(-r) = (-1)^l Y_lm(r), to the last bit. A point's bonds are added by
    rising index of the neighbour.
    """
    n, largest = len(points), len(diagonal) - 1
    q = np.zeros((n, width))
    for i in range(n):
        for s in range(start[i], start[i + 1]):
            j = index[s]
            if j < i:
                continue
            x, y, z = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
            length = math.sqrt(x * x + y * y + z * z)
            x, y, z = x / length, y / length, z / length
            cosine, sine, top = 1.0, 0.0, 1.0  # sin(theta)^m times cos(m phi) and sin(m phi); P_mm / sin(theta)^m
            for m in range(largest + 1):
                if m > 0:
                    cosine, sine = x * cosine - y * sine, x * sine + y * cosine
                top *= diagonal[m]
                below, legendre = 0.0, top
                for degree in range(m, largest + 1):
                    if degree == m + 1:
                        below, legendre = legendre, climb[degree, m] * z * legendre
                    elif degree > m:
                        lower = below / climb[degree - 1, m]
                        below, legendre = legendre, climb[degree, m] * (z * legendre - lower)
                    if column[degree] >= 0:
                        k = column[degree] + 2 * m
                        real, imaginary = legendre * cosine, legendre * sine
                        q[i, k] += real
                        q[i, k + 1] += imaginary
                        if degree % 2:
                            real, imaginary = -real, -imaginary
                        q[j, k] += real
                        q[j, k + 1] += imaginary
        # What follows only adds to points that come later, so this one has all its bonds.
        count = start[i + 1] - start[i]
        for k in range(width):
            q[i, k] = q[i, k] / count if count else np.nan
    return q


@njit
def neighbour_means(q, start, index, wanted):
    """Mean of rows over the neighbours and the point itself.

    Parameters
    ----------
    q : ndarray, shape (n, width), float64
        A row of each point.
    start, index : ndarray, int64
        Neighbours of all points.
    wanted : ndarray, shape (m,), int64
        Points whose mean is asked for.

    Returns
    -------
    ndarray, shape (m, width), float64
    """
    means = np.empty((len(wanted), q.shape[1]))
    for row in range(len(wanted)):
        i = wanted[row]
        means[row] = q[i]
        for s in range(start[i], start[i + 1]):
            for k in range(q.shape[1]):
                means[row, k] += q[index[s], k]
        means[row] /= start[i + 1] - start[i] + 1
    return means


@njit
def norms(q, degree):
    """Q_l = sqrt(4 pi / (2 l + 1) sum_m |q_lm|^2), shape (n,), of q_lm, m = 0..l, shape (n, 2 (l + 1))."""
    out = np.empty(len(q))
    for i in range(len(q)):
        total = q[i, 0] ** 2
        for k in range(2, 2 * (degree + 1)):
            total += 2.0 * q[i, k] ** 2
        out[i] = math.sqrt(4.0 * math.pi / (2 * degree + 1) * total)
    return out


@njit
def third_order(q, degree, wigner):
    """Normalised third-order invariants w_l.

    Parameters
    ----------
    q : ndarray, shape (n, 2 (l + 1)), float64
        Real and imaginary part of q_lm, m = 0..l.
    degree : int
        l, even.
    wigner : ndarray, shape (2 l + 1, 2 l + 1), float64
        Wigner's 3j symbol (l l l; m1 m2 -m1-m2).

    Returns
    -------
    ndarray, shape (n,), float64
        sum (l l l; m1 m2 m3) q_lm1 q_lm2 q_lm3 / (sum |q_lm|^2)^(3/2); NaN where all q_lm are 0 but for rounding.
    """
    out = np.empty(len(q))
    whole = np.empty(2 * degree + 1, np.complex128)
    for i in range(len(q)):
        square = 0.0
        for m in range(degree + 1):
            value = complex(q[i, 2 * m], q[i, 2 * m + 1])
            whole[degree + m] = value
            whole[degree - m] = (-1.0) ** m * value.conjugate()
            square += (2.0 if m else 1.0) * abs(value) ** 2
        total = 0.0
        for m1 in range(-degree, degree + 1):
            for m2 in range(max(-degree, -degree - m1), min(degree, degree - m1) + 1):
                product = whole[degree + m1] * whole[degree + m2] * whole[degree - m1 - m2]
                total += wigner[degree + m1, degree + m2] * product.real
        out[i] = total / square**1.5 if square > _ROUNDING else np.nan
    return out
