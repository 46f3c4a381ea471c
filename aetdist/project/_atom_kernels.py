"""Gaussian atoms on pixel and voxel grids: the arithmetic."""

from __future__ import annotations

import math

import numpy as np

from .._jit import njit

TWO_PI_ROOT = math.sqrt(2.0 * math.pi)


@njit
def gaussian_row(centre: float, sigma: float, reach: float, n: int, out: np.ndarray) -> tuple[int, int]:
    """Sample exp(-(i - centre)^2 / (2 sigma^2)) at the whole numbers i in [0, n) within `reach` of `centre`.

    Parameters
    ----------
    centre, sigma, reach : float
        In steps of the grid.
    n : int
        Length of the axis.
    out : ndarray, shape (>= 2 reach + 2,), float64
        Receives the samples.

    Returns
    -------
    start, stop : int
        The samples belong to ``i = start ... stop - 1``; empty where the Gaussian misses the axis.
    """
    start = max(math.ceil(centre - reach), 0)
    stop = min(math.floor(centre + reach) + 1, n)
    factor = -0.5 / (sigma * sigma)
    for i in range(start, stop):
        d = i - centre
        out[i - start] = math.exp(factor * d * d)
    return start, stop


@njit
def add_projected_atoms(
    x: np.ndarray, y: np.ndarray, heights: np.ndarray, sigmas: np.ndarray, cutoff: float, image: np.ndarray
) -> None:
    """Add the projections of Gaussian atoms to an image.

    Parameters
    ----------
    x, y : ndarray, shape (n,), float64
        Where the atoms fall on the detector, in pixels from pixel [0, 0]; may lie off it.
    heights : ndarray, shape (n,), float64
        Peak value H of an atom in the volume.
    sigmas : ndarray, shape (n,), float64
        Standard deviation in pixels.
    cutoff : float
        A Gaussian reaches this many of its standard deviations along each axis.
    image : ndarray, shape (ny, nx), float64
        Added to in place.

    Notes
    -----
    I(x, y) = H sqrt(2 pi) sigma exp(-(x^2 + y^2) / (2 sigma^2)), the Gaussian summed along the beam
    in steps of one voxel.
    """
    ny, nx = image.shape
    widest = 0.0
    for a in range(x.size):
        widest = max(widest, sigmas[a])
    row = np.empty(int(2.0 * cutoff * widest) + 3)
    column = np.empty(int(2.0 * cutoff * widest) + 3)
    for a in range(x.size):
        sigma = sigmas[a]
        reach = cutoff * sigma
        if x[a] < -reach or x[a] > nx - 1 + reach or y[a] < -reach or y[a] > ny - 1 + reach:
            continue
        x0, x1 = gaussian_row(x[a], sigma, reach, nx, row)
        y0, y1 = gaussian_row(y[a], sigma, reach, ny, column)
        scale = heights[a] * TWO_PI_ROOT * sigma
        for j in range(y0, y1):
            weight = scale * column[j - y0]
            for i in range(x0, x1):
                image[j, i] += weight * row[i - x0]


@njit
def add_rendered_atoms(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    heights: np.ndarray,
    sigmas: np.ndarray,
    cutoff: float,
    volume: np.ndarray,
) -> None:
    """Add Gaussian atoms to a volume.

    Parameters
    ----------
    x, y, z : ndarray, shape (n,), float64
        Positions in voxels from voxel [0, 0, 0]; may lie outside.
    heights, sigmas, cutoff
        As in :func:`add_projected_atoms`.
    volume : ndarray, shape (nz, ny, nx), floating
        Added to in place.

    Notes
    -----
    V(r) = H exp(-r^2 / (2 sigma^2)).
    """
    nz, ny, nx = volume.shape
    widest = 0.0
    for a in range(x.size):
        widest = max(widest, sigmas[a])
    length = int(2.0 * cutoff * widest) + 3
    row = np.empty(length)
    column = np.empty(length)
    depth = np.empty(length)
    for a in range(x.size):
        sigma = sigmas[a]
        reach = cutoff * sigma
        if x[a] < -reach or x[a] > nx - 1 + reach or y[a] < -reach or y[a] > ny - 1 + reach:
            continue
        if z[a] < -reach or z[a] > nz - 1 + reach:
            continue
        x0, x1 = gaussian_row(x[a], sigma, reach, nx, row)
        y0, y1 = gaussian_row(y[a], sigma, reach, ny, column)
        z0, z1 = gaussian_row(z[a], sigma, reach, nz, depth)
        for k in range(z0, z1):
            plane = heights[a] * depth[k - z0]
            for j in range(y0, y1):
                weight = plane * column[j - y0]
                for i in range(x0, x1):
                    volume[k, j, i] += weight * row[i - x0]
