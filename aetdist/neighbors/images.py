"""Atoms of a periodic cell, and their images around it."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .pairs import as_points


def periodic_images(positions: np.ndarray, cell: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put atoms into their periodic cell and repeat them around it.

    Parameters
    ----------
    positions : array_like, shape (n, 3), float
        Positions in the unit of `cell`.
    cell : array_like, shape (3, 3), float
        Vectors of the cell, one a row.
    reach : float
        How far around the cell its images go.

    Returns
    -------
    inside : ndarray, shape (n, 3), float64
        The atoms in the cell from the origin on.
    images : ndarray, shape (m, 3), float64
        Images within `reach` of the faces of the cell.
    atom : ndarray, shape (m,), int64
        Which atom each is an image of.

    Raises
    ------
    InputError
        If the vectors span no volume.
    """
    positions, cell = as_points(positions), np.asarray(cell, dtype=np.float64)
    volume = abs(np.linalg.det(cell)) if cell.shape == (3, 3) and np.isfinite(cell).all() else 0.0
    if not volume > 1e-9 * max(float(np.abs(cell).max(initial=0.0)) ** 3, 1e-300):
        raise InputError(f"The periodic cell is {cell.tolist()}; needed are three vectors that span a volume.")
    areas = np.linalg.norm(np.cross(np.roll(cell, -1, axis=0), np.roll(cell, -2, axis=0)), axis=1)
    fraction = np.linalg.solve(cell.T, positions.T).T % 1.0
    fraction[fraction >= 1.0] = 0.0  # what rounding left of -1e-17
    beyond = reach * areas / volume  # the reach in heights of the cell
    images, atoms = [], []
    numbers = [range(-int(np.ceil(b)), int(np.ceil(b)) + 1) for b in beyond]
    for shift in np.stack(np.meshgrid(*numbers, indexing="ij"), axis=-1).reshape(-1, 3):
        if shift.any():
            there = fraction + shift
            near = np.flatnonzero(((there >= -beyond) & (there <= 1.0 + beyond)).all(axis=1))
            images.append(there[near] @ cell)
            atoms.append(near)
    return fraction @ cell, np.concatenate(images), np.concatenate(atoms)
