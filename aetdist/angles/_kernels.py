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
    r = I - s p; J has the derivatives of s p, the last that by s. The mean over the pixels that count is taken out of r
    and of every column of J: a constant background of the image, whatever it is, then says nothing.
    """
    matrix, vector, square = np.zeros((PARAMETERS, PARAMETERS)), np.zeros(PARAMETERS), 0.0
    slopes = derivatives(model, moment, start)
    j, mean, background, count = np.empty(PARAMETERS), np.zeros(PARAMETERS), 0.0, 0
    ny, nx = image.shape
    for y in range(MARGIN, ny - MARGIN):
        for x in range(MARGIN, nx - MARGIN):
            if mask[y, x]:
                for a in range(PARAMETERS - 1):
                    mean[a] += scale * slopes[a, y, x]
                mean[PARAMETERS - 1] += model[y, x]
                background += image[y, x]
                count += 1
    mean /= max(1, count)
    background = background / max(1, count) - scale * mean[PARAMETERS - 1]
    across = (nx + BLOCK - 1) // BLOCK
    parts = np.zeros(((ny + BLOCK - 1) // BLOCK * across, PARAMETERS))
    for y in range(MARGIN, ny - MARGIN):
        for x in range(MARGIN, nx - MARGIN):
            if not mask[y, x]:
                continue
            for a in range(PARAMETERS - 1):
                j[a] = scale * slopes[a, y, x] - mean[a]
            j[PARAMETERS - 1] = model[y, x] - mean[PARAMETERS - 1]
            r = image[y, x] - scale * model[y, x] - background
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
def local_maxima(volume, reach, least):
    """Voxels that no other one within a cube around them exceeds.

    Parameters
    ----------
    volume : float32 (n0, n1, n2)
    reach : int
        Voxels of the cube on either side. Those of the volume's own faces are no maxima.
    least : float
        What they have to exceed.

    Returns
    -------
    list of (int, int, int)
    """
    n0, n1, n2 = volume.shape
    found = []
    for i in range(1, n0 - 1):
        for j in range(1, n1 - 1):
            for k in range(1, n2 - 1):
                value = volume[i, j, k]
                if value > least and value >= volume[i, j, k - 1] and value >= volume[i, j, k + 1]:
                    if _highest(volume, i, j, k, reach):
                        found.append((i, j, k))
    return found


@njit
def _highest(volume, i, j, k, reach):
    value = volume[i, j, k]
    for a in range(max(0, i - reach), min(volume.shape[0], i + reach + 1)):
        for b in range(max(0, j - reach), min(volume.shape[1], j + reach + 1)):
            for c in range(max(0, k - reach), min(volume.shape[2], k + reach + 1)):
                if volume[a, b, c] > value:
                    return False
    return True


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
    dx = sum D dg/dx / (h sum (dg/dx)^2). Overlapping neighbours are met by repeating it, by 0.7 of a step. g is a
    product of three rows, so that the sums over a cube are made row by row.
    """
    start, end = np.empty(3, np.int64), np.empty(3, np.int64)
    apart, row = np.empty((3, 2 * reach + 1)), np.empty((3, 2 * reach + 1))  # distance from the peak; Gaussian
    for a in range(len(heights)):
        square, bend = 1.0, 0.0  # sums of g^2 and of g^2 r^2
        for axis in range(3):
            centre = round(positions[a, axis])
            start[axis] = max(0, centre - reach)
            end[axis] = min(difference.shape[axis], centre + reach + 1)
            squares, bends = 0.0, 0.0
            for i in range(end[axis] - start[axis]):
                d = start[axis] + i - positions[a, axis]
                g = np.exp(-d * d / (2.0 * width * width))
                apart[axis, i], row[axis, i] = d, g
                squares += g * g
                bends += g * g * d * d
            bend = bend * squares + square * bends
            square *= squares
        if square == 0.0:
            continue
        height, along = 0.0, np.zeros(3)  # sums of D g and of D g (x - position)
        for i in range(end[0] - start[0]):
            for j in range(end[1] - start[1]):
                line, slope = 0.0, 0.0
                for k in range(end[2] - start[2]):
                    weighed = difference[start[0] + i, start[1] + j, start[2] + k] * row[2, k]
                    line += weighed
                    slope += weighed * apart[2, k]
                both = row[0, i] * row[1, j]
                height += both * line
                along[0] += both * line * apart[0, i]
                along[1] += both * line * apart[1, j]
                along[2] += both * slope
        slope = max(heights[a], 1e-12) * bend / (3.0 * width * width)  # h sum (dg/dx)^2 width^2
        for axis in range(3):
            step = 0.7 * along[axis] / slope if slope > 0.0 else 0.0
            positions[a, axis] += min(largest_step, max(-largest_step, step))
        heights[a] = max(0.0, heights[a] + 0.7 * height / square)
