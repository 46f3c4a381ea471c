"""Profiles of images along a tilt axis; numpy and numba only."""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def add_profiles(image, where, y0, x0, cosines, sines, first, profiles, moments):
    """Add every pixel to the profiles along axes turned by small angles.

    image : (ny, nx) float; where : (ny, nx) bool, pixels that count
    y0, x0 : float, pixel coordinates of pixel (0, 0) from the origin of the rotation
    cosines, sines : (angles,) of the angle from image y to the axis, positive towards -x
    first : float, coordinate along the axis of the first bin; bins are one pixel wide
    profiles : (angles, bins) float64, gains the sum of the pixels
    moments : (angles, bins) float64, gains the sum of the pixels times their coordinate across
    A pixel is spread over four bins by the cubic B-spline, which keeps sums and centres of mass.
    """
    ny, nx = image.shape
    for a in range(cosines.size):
        c, s = cosines[a], sines[a]
        for i in range(ny):
            y = y0 + i
            for j in range(nx):
                if not where[i, j]:
                    continue
                value = np.float64(image[i, j])
                if value == 0.0:
                    continue
                x = x0 + j
                u = y * c - x * s - first
                k = np.int64(np.floor(u))
                if k < 1 or k + 2 >= profiles.shape[1]:
                    continue
                v = value * (y * s + x * c)
                t = u - k
                w0 = (1.0 - t) ** 3 / 6.0
                w3 = t**3 / 6.0
                w1 = 2.0 / 3.0 - t * t * (1.0 - 0.5 * t)
                w2 = 1.0 - w0 - w1 - w3
                profiles[a, k - 1] += w0 * value
                profiles[a, k] += w1 * value
                profiles[a, k + 1] += w2 * value
                profiles[a, k + 2] += w3 * value
                moments[a, k - 1] += w0 * v
                moments[a, k] += w1 * v
                moments[a, k + 1] += w2 * v
                moments[a, k + 2] += w3 * v
