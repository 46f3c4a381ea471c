"""Least squares of an image against its prediction: sums over pixels."""

from __future__ import annotations

import numpy as np

from .._jit import njit

PARAMETERS = 6
"""Rotations of the sample about lab x, y, z in radians; shift of the image along y, x in pixels; brightness."""
BLOCK = 8
"""Edge in pixels of the blocks within which residuals may go together: an atom and what is around it."""
MARGIN = 2  # pixels at the border of the field whose derivatives are not known


@njit
def _slope(image, y, x, dy, dx):
    """Central difference of the fourth order along (dy, dx), per pixel."""
    near = image[y + dy, x + dx] - image[y - dy, x - dx]
    far = image[y + 2 * dy, x + 2 * dx] - image[y - 2 * dy, x - 2 * dx]
    return (8.0 * near - far) / 12.0


@njit
def derivatives(model, moment, start):
    """How a predicted image changes with the rotation of the sample and the shift of the image.

    Parameters
    ----------
    model, moment : float32 (y, x)
        Sum of V and of z V along the beam, z in pixels.
    start : float64 (2,)
        Lab coordinates (y, x) of pixel [0, 0] in pixels.

    Returns
    -------
    float32 (5, y, x)
        With respect to rotations about lab x, y, z in radians, and shifts along y, x in pixels; 0 at the border.

    Notes
    -----
    Rotated by w, V(x) becomes V(x - w x x); integrated along z, with M the sum of z V, dp/dw_x = d_y M,
    dp/dw_y = -d_x M, dp/dw_z = y d_x p - x d_y p; shifted by d, p becomes p(x - d).
    """
    ny, nx = model.shape
    j = np.zeros((PARAMETERS - 1, ny, nx), np.float32)
    for y in range(MARGIN, ny - MARGIN):
        for x in range(MARGIN, nx - MARGIN):
            along_x, along_y = _slope(model, y, x, 0, 1), _slope(model, y, x, 1, 0)
            j[0, y, x] = _slope(moment, y, x, 1, 0)
            j[1, y, x] = -_slope(moment, y, x, 0, 1)
            j[2, y, x] = (start[0] + y) * along_x - (start[1] + x) * along_y
            j[3, y, x] = -along_y
            j[4, y, x] = -along_x
    return j


@njit
def normal_equations(image, mask, model, moment, start, scale):
    """Sums that make a Gauss-Newton step.

    Parameters
    ----------
    image : float32 (y, x)
    mask : bool (y, x)
        Pixels that count; those of the border do not.
    model, moment, start
        As in `derivatives`.
    scale : float
        Brightness of the image over that of the model.

    Returns
    -------
    matrix : float64 (6, 6)
        Sum of J^T J.
    vector : float64 (6,)
        Sum of J^T r.
    square : float
        Sum of r^2.
    scatter : float64 (6, 6)
        Sum over blocks of pixels of g g^T, with g the sum of J^T r in a block.

    Notes
    -----
    r = I - s p; J has the derivatives of s p, the last that by s.
    """
    matrix, vector, square = np.zeros((PARAMETERS, PARAMETERS)), np.zeros(PARAMETERS), 0.0
    slopes = derivatives(model, moment, start)
    j = np.empty(PARAMETERS)
    ny, nx = image.shape
    across = (nx + BLOCK - 1) // BLOCK
    parts = np.zeros(((ny + BLOCK - 1) // BLOCK * across, PARAMETERS))
    for y in range(MARGIN, ny - MARGIN):
        for x in range(MARGIN, nx - MARGIN):
            if not mask[y, x]:
                continue
            for a in range(PARAMETERS - 1):
                j[a] = scale * slopes[a, y, x]
            j[PARAMETERS - 1] = model[y, x]
            r = image[y, x] - scale * model[y, x]
            square += r * r
            part = parts[y // BLOCK * across + x // BLOCK]
            for a in range(PARAMETERS):
                part[a] += j[a] * r
                for b in range(a + 1):
                    matrix[a, b] += j[a] * j[b]
    for a in range(PARAMETERS):
        vector[a] = parts[:, a].sum()
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    return matrix, vector, square, parts.T @ parts


@njit
def fit_peaks(difference, positions, heights, width, reach, largest_step):
    """Move every Gaussian to where it explains more of what a volume holds beyond all of them.

    Parameters
    ----------
    difference : float32 (n0, n1, n2)
        Volume less the sum of all Gaussians.
    positions : float64 (peak, 3)
        In voxels along axes 0, 1, 2; changed in place.
    heights : float64 (peak,)
        Changed in place; never below 0.
    width : float
        Standard deviation in voxels.
    reach : int
        Voxels along each axis that count.
    largest_step : float
        Voxels, along each axis.

    Notes
    -----
    A Gauss-Newton step for each peak on its own: with g the Gaussian, dh = sum D g / sum g^2 and
    dx = sum D dg/dx / (h sum (dg/dx)^2). Overlapping neighbours are met by repeating it, by 0.7 of a step.
    """
    for a in range(len(heights)):
        c0, c1, c2 = round(positions[a, 0]), round(positions[a, 1]), round(positions[a, 2])
        height, square, bend = 0.0, 0.0, 0.0
        along = np.zeros(3)
        for i in range(max(0, c0 - reach), min(difference.shape[0], c0 + reach + 1)):
            for j in range(max(0, c1 - reach), min(difference.shape[1], c1 + reach + 1)):
                for k in range(max(0, c2 - reach), min(difference.shape[2], c2 + reach + 1)):
                    d0, d1, d2 = i - positions[a, 0], j - positions[a, 1], k - positions[a, 2]
                    r2 = d0 * d0 + d1 * d1 + d2 * d2
                    g = np.exp(-r2 / (2.0 * width * width))
                    weighed = difference[i, j, k] * g
                    height += weighed
                    square += g * g
                    bend += g * g * r2
                    along[0] += weighed * d0
                    along[1] += weighed * d1
                    along[2] += weighed * d2
        if square == 0.0:
            continue
        slope = max(heights[a], 1e-12) * bend / (3.0 * width * width)  # h sum (dg/dx)^2 width^2
        for axis in range(3):
            step = 0.7 * along[axis] / slope if slope > 0.0 else 0.0
            positions[a, axis] += min(largest_step, max(-largest_step, step))
        heights[a] = max(0.0, heights[a] + 0.7 * height / square)
