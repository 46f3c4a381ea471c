"""Gaussian atoms seen by a distorted scan: the arithmetic."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit


@njit
def add_sheared_atoms(
    seen: np.ndarray, heights: np.ndarray, sigmas: np.ndarray, inverse: np.ndarray, cutoff: float, image: np.ndarray
) -> None:
    """Add the projections of Gaussian atoms to an image whose pixels look along distorted axes.

    Parameters
    ----------
    seen : ndarray, shape (n, 2), float64
        Where the atoms appear, in pixels [y, x] from pixel [0, 0].
    heights : ndarray, shape (n,), float64
        Peak value H of an atom in the volume.
    sigmas : ndarray, shape (n,), float64
        Standard deviation in pixels, where nothing is distorted.
    inverse : ndarray, shape (2, 2), float64
        Inverse M of the distortion, for vectors (y, x), near 1.
    cutoff : float
        A Gaussian reaches this many of its standard deviations along each axis.
    image : ndarray, shape (ny, nx), float64
        Added to in place.

    Notes
    -----
    A pixel at u gets H sqrt(2 pi) sigma exp(-|M (u - c)|^2 / (2 sigma^2)) from an atom at c. The square is
    yy dy^2 + 2 yx dy dx + xx dx^2 with M^T M = [[yy, yx], [yx, xx]].
    """
    yy = inverse[0, 0] ** 2 + inverse[1, 0] ** 2
    yx = inverse[0, 0] * inverse[0, 1] + inverse[1, 0] * inverse[1, 1]
    xx = inverse[0, 1] ** 2 + inverse[1, 1] ** 2
    ny, nx = image.shape
    for i in range(len(heights)):
        sigma = sigmas[i]
        factor = 0.5 / (sigma * sigma)
        peak = heights[i] * math.sqrt(2.0 * math.pi) * sigma
        reach = 1.02 * cutoff * sigma
        first, last = max(0, math.ceil(seen[i, 1] - reach)), min(nx - 1, math.floor(seen[i, 1] + reach))
        for row in range(max(0, math.ceil(seen[i, 0] - reach)), min(ny - 1, math.floor(seen[i, 0] + reach)) + 1):
            dy = row - seen[i, 0]
            for column in range(first, last + 1):
                dx = column - seen[i, 1]
                image[row, column] += peak * math.exp(-factor * (yy * dy * dy + 2.0 * yx * dy * dx + xx * dx * dx))
