"""Least squares of the places of an image's pixels against its prediction: sums over a tile."""

from __future__ import annotations

import numpy as np

from .._jit import njit
from ._kernels import MARGIN, _slope

FIELD = 6  # numbers of a displacement along one axis: a constant and five terms
COLUMNS = 2 * FIELD + 1  # displacement along y, along x, brightness
BLOCK = 8  # edge in pixels of the blocks within which residuals may go together: an atom and what is around it


@njit
def tile_sums(image, mask, model, rows, columns):
    """Sums that make a Gauss-Newton step of a displacement a(r) and the brightness s of a tile.

    Parameters
    ----------
    image : float32 (y, x)
    mask : bool (y, x)
        Pixels that count; those within ``MARGIN`` of the border do not.
    model : float32 (y, x)
        Prediction of the image.
    rows, columns : tuple of int
        First and last + 1 pixel of the tile.

    Returns
    -------
    matrix : float64 (12, 12)
        Sum of J^T J without what the brightness explains.
    vector : float64 (12,)
        Sum of J^T r.
    square : float
        Sum of r^2.
    count : int
        Pixels.
    noise : float
        Variance of a pixel as it counts for a shift: sum_b |g_b|^2 / sum |s dp/dr|^2, g_b the sum of J^T r in blocks of
        8 x 8 pixels. That of the residuals where these are white.

    Notes
    -----
    r = I(r + a(r)) - s p with s = sum I p / sum p p; moving a moves the image, which is near s p: J = -s dp/dr times
    1, v, u, v v, v u, u u (:data:`~aetdist.images.displacement.TERMS`). The brightness is eliminated (Schur).
    """
    ny, nx = image.shape
    matrix, vector = np.zeros((COLUMNS, COLUMNS)), np.zeros(COLUMNS)
    j, q = np.empty(COLUMNS), np.empty(FIELD)
    first_y, end_y = max(rows[0], MARGIN), min(rows[1], ny - MARGIN)
    first_x, end_x = max(columns[0], MARGIN), min(columns[1], nx - MARGIN)
    both, alone = 0.0, 0.0
    for y in range(first_y, end_y):
        for x in range(first_x, end_x):
            if mask[y, x]:
                both += image[y, x] * model[y, x]
                alone += model[y, x] * model[y, x]
    scale = both / alone if alone > 0.0 else 0.0
    square, count, steep = 0.0, 0, 0.0
    across = (end_x - first_x + BLOCK - 1) // BLOCK
    blocks = np.zeros((max(0, (end_y - first_y + BLOCK - 1) // BLOCK * across), 2))
    for y in range(first_y, end_y):
        for x in range(first_x, end_x):
            if not mask[y, x]:
                continue
            v, u = (y - ny // 2) / (0.5 * ny), (x - nx // 2) / (0.5 * nx)
            q[0], q[1], q[2], q[3], q[4], q[5] = 1.0, v, u, v * v, v * u, u * u
            along_y, along_x = -scale * _slope(model, y, x, 1, 0), -scale * _slope(model, y, x, 0, 1)
            for k in range(FIELD):
                j[k], j[FIELD + k] = along_y * q[k], along_x * q[k]
            j[2 * FIELD] = model[y, x]
            r = image[y, x] - scale * model[y, x]
            square += r * r
            count += 1
            block = blocks[(y - first_y) // BLOCK * across + (x - first_x) // BLOCK]
            block[0] += along_y * r
            block[1] += along_x * r
            steep += along_y * along_y + along_x * along_x
            for a in range(COLUMNS):
                vector[a] += j[a] * r
                for b in range(a + 1):
                    matrix[a, b] += j[a] * j[b]
    for a in range(COLUMNS):
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    n = 2 * FIELD
    bright = matrix[n, n]
    if bright > 0.0:
        for a in range(n):
            vector[a] -= matrix[a, n] * vector[n] / bright
        for a in range(n):
            for b in range(n):
                matrix[a, b] -= matrix[a, n] * matrix[n, b] / bright
    noise = (blocks**2).sum() / steep if steep > 0.0 else 0.0
    return matrix[:n, :n].copy(), vector[:n].copy(), square, count, noise
