"""Painting of balls in depth, compiled."""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def paint_balls(centres, radii, colours, light, fog, image, depth):
    """Paint shaded balls; the nearest to the eye, at large z, covers what is behind it.

    Parameters
    ----------
    centres : ndarray, shape (n, 3), float64
        Column, row and depth in pixels.
    radii : ndarray, shape (n,), float64
        In pixels.
    colours : ndarray, shape (n, 3), float64
        0 to 1.
    light : ndarray, shape (3,), float64
        Unit vector towards the light.
    fog : ndarray, shape (n,), float64
        Part of each colour that is lost to white, by depth.
    image : ndarray, shape (rows, columns, 4), float32
        Red, green, blue and 1 where there is a ball; changed.
    depth : ndarray, shape (rows, columns), float64
        What lies nearest so far; -inf in the beginning; changed.
    """
    rows, columns = depth.shape
    for i in range(len(radii)):
        x, y, z, r = centres[i, 0], centres[i, 1], centres[i, 2], radii[i]
        for row in range(max(0, int(np.ceil(y - r))), min(rows, int(np.floor(y + r)) + 1)):
            for column in range(max(0, int(np.ceil(x - r))), min(columns, int(np.floor(x + r)) + 1)):
                dx, dy = column - x, row - y
                rest = r * r - dx * dx - dy * dy
                if rest < 0.0 or z + r <= depth[row, column]:
                    continue
                height = np.sqrt(rest)
                if z + height <= depth[row, column]:
                    continue
                depth[row, column] = z + height
                towards = max(0.0, (dx * light[0] + dy * light[1] + height * light[2]) / r)
                # The rim is dark, so that balls of one colour are told apart.
                bright = (0.45 + 0.6 * towards) * (0.55 + 0.45 * min(1.0, 2.5 * height / r))
                shine = 0.35 * towards**24
                for k in range(3):
                    value = min(1.0, colours[i, k] * bright + shine)
                    image[row, column, k] = value + (1.0 - value) * fog[i]
                image[row, column, 3] = 1.0
