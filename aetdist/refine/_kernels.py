"""Projections of Gaussian atoms, their derivatives, and the adjoint of these (numpy and Numba only).

An atom is seen as amplitude * exp(-rho^2 / 2) with rho^2 = (dx^2 + dy^2) / s^2, everything in pixels; amplitude =
sqrt(2 pi) H s. Its parameters are x, y, ln H and ln s. Images are float32, sums over an atom's pixels float64.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

CUTOFF = 5.0
"""A Gaussian reaches this many standard deviations along each axis."""
_SUMS = {"reassoc", "contract"}  # sums along a row in several lanes; the order is the same wherever it is computed


@njit
def _row(centre, s, n, out):
    """Samples of exp(-(i - centre)^2 / (2 s^2)) in reach; where they begin and end."""
    start = max(math.ceil(centre - CUTOFF * s), 0)
    stop = min(math.floor(centre + CUTOFF * s) + 1, n)
    factor = -0.5 / (s * s)
    d = start - centre
    # Neighbouring samples differ by a factor that itself grows by a constant factor.
    value, ratio, change = math.exp(factor * d * d), math.exp(factor * (2.0 * d + 1.0)), math.exp(2.0 * factor)
    for k in range(stop - start):
        out[k] = value
        value *= ratio
        ratio *= change
    return start, stop


@njit
def _width(s):
    """Samples that a row of the widest atom takes, at most."""
    return int(2.0 * CUTOFF * s.max()) + 3 if s.size else 0


@njit(fastmath=_SUMS)
def push(x, y, amplitude, s, change, image):
    """Add to an image what changes of the atoms' parameters change in it, to first order.

    Parameters
    ----------
    x, y : ndarray, shape (n,), float64
        Where atoms fall, in pixels from pixel [0, 0]; may lie off the image.
    amplitude, s : ndarray, shape (n,), float64
        Peak of the projection, and standard deviation in pixels.
    change : ndarray, shape (n, 4), float64
        Of x, y (pixels), ln H and ln s. (0, 0, 1, 0) gives the projection itself.
    image : ndarray, shape (ny, nx), float32
        Added to in place.
    """
    ny, nx = image.shape
    width = _width(s)
    ex, ey = np.empty(width), np.empty(width)
    even, odd = np.empty(width, np.float32), np.empty(width, np.float32)
    for a in range(x.size):
        x0, x1 = _row(x[a], s[a], nx, ex)
        y0, y1 = _row(y[a], s[a], ny, ey)
        inverse = 1.0 / (s[a] * s[a])
        vx, vy, vh, vs = change[a, 0] * inverse, change[a, 1] * inverse, change[a, 2], change[a, 3]
        for k in range(x1 - x0):
            d = x0 + k - x[a]
            even[k] = ex[k]
            odd[k] = ex[k] * (vh + vx * d + vs * (1.0 + d * d * inverse))
        for j in range(y0, y1):
            d = j - y[a]
            first = np.float32(amplitude[a] * ey[j - y0])
            second = np.float32(amplitude[a] * ey[j - y0] * (vy * d + vs * d * d * inverse))
            row = image[j, x0:x1]
            for k in range(x1 - x0):
                row[k] += first * odd[k] + second * even[k]


@njit(fastmath=_SUMS)
def pull(x, y, amplitude, s, image, out):
    """Adjoint of :func:`push`: the sum of an image times the derivative by each parameter; out (n, 4) float64."""
    ny, nx = image.shape
    width = _width(s)
    ex, ey = np.empty(width), np.empty(width)
    zero, one, two = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for a in range(x.size):
        x0, x1 = _row(x[a], s[a], nx, ex)
        y0, y1 = _row(y[a], s[a], ny, ey)
        inverse = 1.0 / (s[a] * s[a])
        for k in range(x1 - x0):
            d = x0 + k - x[a]
            zero[k] = ex[k]
            one[k] = ex[k] * d
            two[k] = ex[k] * d * d
        gx = gy = gh = gs = 0.0
        for j in range(y0, y1):
            row = image[j, x0:x1]
            t0 = t1 = t2 = np.float32(0.0)
            for k in range(x1 - x0):
                t0 += row[k] * zero[k]
                t1 += row[k] * one[k]
                t2 += row[k] * two[k]
            d, e = j - y[a], ey[j - y0]
            gh += e * t0
            gx += e * t1
            gy += e * d * t0
            gs += e * (t2 + d * d * t0)
        out[a, 0] = amplitude[a] * inverse * gx
        out[a, 1] = amplitude[a] * inverse * gy
        out[a, 2] = amplitude[a] * gh
        out[a, 3] = amplitude[a] * (gh + inverse * gs)


@njit(fastmath=_SUMS)
def curvature(x, y, amplitude, s, weights, out):
    """Weighted products of an atom's derivatives, summed over its pixels.

    Parameters
    ----------
    weights : ndarray, shape (ny, nx), float32
    out : ndarray, shape (n, 10), float64
        xx, xy, xh, xs, yy, yh, ys, hh, hs, ss.
    """
    ny, nx = weights.shape
    width = _width(s)
    ex, ey = np.empty(width), np.empty(width)
    samples = np.empty((5, width), np.float32)
    t = np.empty(5)
    for a in range(x.size):
        x0, x1 = _row(x[a], s[a], nx, ex)
        y0, y1 = _row(y[a], s[a], ny, ey)
        for k in range(x1 - x0):
            u = (x0 + k - x[a]) / s[a]
            value = ex[k] * ex[k]
            for p in range(5):
                samples[p, k] = value
                value *= u
        out[a, :] = 0.0
        for j in range(y0, y1):
            row = weights[j, x0:x1]
            t0 = t1 = t2 = t3 = t4 = np.float32(0.0)
            for k in range(x1 - x0):
                t0 += row[k] * samples[0, k]
                t1 += row[k] * samples[1, k]
                t2 += row[k] * samples[2, k]
                t3 += row[k] * samples[3, k]
                t4 += row[k] * samples[4, k]
            t[0], t[1], t[2], t[3], t[4] = t0, t1, t2, t3, t4
            v = (j - y[a]) / s[a]
            e = ey[j - y0] ** 2
            q0, q1, q2 = 1.0 + v * v, v * (1.0 + v * v), (1.0 + v * v) ** 2
            out[a, 0] += e * t[2]
            out[a, 1] += e * v * t[1]
            out[a, 2] += e * t[1]
            out[a, 3] += e * (q0 * t[1] + t[3])
            out[a, 4] += e * v * v * t[0]
            out[a, 5] += e * v * t[0]
            out[a, 6] += e * (q1 * t[0] + v * t[2])
            out[a, 7] += e * t[0]
            out[a, 8] += e * (q0 * t[0] + t[2])
            out[a, 9] += e * (q2 * t[0] + 2.0 * q0 * t[2] + t[4])
        square, per = amplitude[a] ** 2, 1.0 / s[a]
        for p in range(10):
            # A derivative by x or y has a factor u / s or v / s.
            power = 2 if p in (0, 1, 4) else 1 if p in (2, 3, 5, 6) else 0
            out[a, p] *= square * per**power


@njit
def add_products(columns, residual, weights, normal, vector):
    """Add weighted products of images to normal equations; returns the sum of w r^2.

    Parameters
    ----------
    columns : ndarray, shape (m, ny, nx), float32
        Derivatives of an image by m parameters.
    residual, weights : ndarray, shape (ny, nx), float32
    normal, vector : ndarray, shape (m, m) and (m,), float64
        Added to in place: sum w c_i c_j and sum w c_i r.
    """
    m, ny, nx = columns.shape
    values = np.empty(m)
    misfit = 0.0
    for y in range(ny):
        for x in range(nx):
            w = np.float64(weights[y, x])
            if w == 0.0:
                continue
            r = np.float64(residual[y, x])
            misfit += w * r * r
            for i in range(m):
                values[i] = columns[i, y, x]
            for i in range(m):
                c = w * values[i]
                vector[i] += c * r
                for j in range(i + 1):
                    normal[i, j] += c * values[j]
    for i in range(m):
        for j in range(i):
            normal[j, i] = normal[i, j]
    return misfit
