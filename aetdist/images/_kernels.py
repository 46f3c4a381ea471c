"""Cubic B-splines: the exact prefilter, and the affine resampling."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

PAD = 2  # mirrored coefficients on either side: the reach of a spline beyond the first and the last pixel
_POLE = math.sqrt(3.0) - 2.0
_ROUNDING = 1e-6  # pixels that a coordinate may lie outside before it does


@njit
def filter_columns(c):
    """Turn samples into B-spline coefficients along axis 0, in place; mirrored about the first and the last sample.

    The filter is 6 / (z + 4 + 1/z) as a causal and an anticausal recursion (Unser, Aldroubi & Eden 1993).

    Parameters
    ----------
    c : ndarray, shape (ny, nx), float64
        Samples, then coefficients.
    """
    ny, nx = c.shape
    if ny == 1:
        return
    period = 2 * ny - 2
    first = np.zeros(nx)
    for k in range(period):  # the mirrored samples that the causal recursion has already seen
        weight = _POLE**k
        if k > 40:  # below 1e-22
            break
        row = k if k < ny else period - k
        for j in range(nx):
            first[j] += weight * c[row, j]
    scale = 1.0 / (1.0 - _POLE**period)
    for j in range(nx):
        c[0, j] = first[j] * scale
    for i in range(1, ny):
        for j in range(nx):
            c[i, j] += _POLE * c[i - 1, j]
    for j in range(nx):
        c[ny - 1, j] = _POLE / (_POLE * _POLE - 1.0) * (c[ny - 1, j] + _POLE * c[ny - 2, j])
    for i in range(ny - 2, -1, -1):
        for j in range(nx):
            c[i, j] = _POLE * (c[i + 1, j] - c[i, j])
    for i in range(ny):
        for j in range(nx):
            c[i, j] *= 6.0


@njit(inline="always")
def _weights(t):
    """Cubic B-spline at 1 + t, t, 1 - t and 2 - t pixels, 0 <= t < 1."""
    s = 1.0 - t
    return s * s * s / 6.0, 2.0 / 3.0 - 0.5 * t * t * (1.0 + s), 2.0 / 3.0 - 0.5 * s * s * (1.0 + t), t * t * t / 6.0


@njit
def interpolate(c, valid, shape, matrix, origin, bend, out, inside):
    """out[i, j] = spline at origin + matrix @ (i, j) (+ bend @ (i i, i j, j j)) where the pixels around it are valid.

    Parameters
    ----------
    c : ndarray, flat, float64
        Coefficients of an image of `shape`, with ``PAD`` mirrored ones on every side.
    valid : ndarray, flat, bool
        Of the pixels of the image.
    shape : tuple of int
        Pixels (ny, nx) of the image.
    matrix : ndarray, shape (2, 2), float64
        Step in pixels [y, x] of the image for one pixel along y (first column) and x of the output.
    origin : tuple of float
        Where pixel (0, 0) of the output lies, in pixels (y, x) of the image.
    bend : ndarray, shape (2, 3), float64, or None
        None is compiled apart: an affine map costs nothing more.
    out, inside : ndarray, shape (out_y, out_x), float32 and bool
        Written here; 0 and False where they are not.
    """
    ny, nx = shape
    width = nx + 2 * PAD
    myy, myx, mxy, mxx = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            y = origin[0] + myy * i + myx * j
            x = origin[1] + mxy * i + mxx * j
            if bend is not None:
                y += bend[0, 0] * i * i + bend[0, 1] * i * j + bend[0, 2] * j * j
                x += bend[1, 0] * i * i + bend[1, 1] * i * j + bend[1, 2] * j * j
            if not (-_ROUNDING <= y <= ny - 1 + _ROUNDING and -_ROUNDING <= x <= nx - 1 + _ROUNDING):
                out[i, j] = 0.0
                inside[i, j] = False
                continue
            y = min(max(y, 0.0), ny - 1.0)
            x = min(max(x, 0.0), nx - 1.0)
            iy, ix = int(y), int(x)
            ty, tx = y - iy, x - ix
            p = np.uint64(iy * nx + ix)
            right, below = tx > _ROUNDING, ty > _ROUNDING
            good = valid[p] and (not right or valid[p + np.uint64(1)])
            if below:
                q = p + np.uint64(nx)
                good = good and valid[q] and (not right or valid[q + np.uint64(1)])
            inside[i, j] = good
            if not good:
                out[i, j] = 0.0
                continue
            a0, a1, a2, a3 = _weights(tx)
            b0, b1, b2, b3 = _weights(ty)
            w = np.uint64(width)
            r = np.uint64((iy + PAD - 1) * width + ix + PAD - 1)
            one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
            total = b0 * (a0 * c[r] + a1 * c[r + one] + a2 * c[r + two] + a3 * c[r + three])
            r += w
            total += b1 * (a0 * c[r] + a1 * c[r + one] + a2 * c[r + two] + a3 * c[r + three])
            r += w
            total += b2 * (a0 * c[r] + a1 * c[r + one] + a2 * c[r + two] + a3 * c[r + three])
            r += w
            total += b3 * (a0 * c[r] + a1 * c[r + one] + a2 * c[r + two] + a3 * c[r + three])
            out[i, j] = total
