"""How deep below the surface of a sample points lie."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt
from scipy.spatial import cKDTree

PROBE = 4.0
"""Angstrom: the radius of a ball that finds no room inside a dense solid, as of the paper's alpha shape."""
_GRID = 1.0  # Angstrom between the places that are tried


def depth_below_surface(points: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Distance of points from where a ball of a radius of 4 Angstrom, that touches no atom's centre, can go.

    Parameters
    ----------
    points : ndarray, shape (m, 3), float64
        Angstrom.
    atoms : ndarray, shape (n, 3), float64
        Angstrom: the sample.

    Returns
    -------
    ndarray, shape (m,), float64
        Angstrom; about 0 (the ball's places are 1 Angstrom apart) for atoms of the surface, of a hole that the ball
        fits in too; negative outside: down to -4, and less the distance from the nearest atom beyond.
    """
    low = atoms.min(axis=0) - 2 * PROBE
    shape = np.ceil((atoms.max(axis=0) + 2 * PROBE - low) / _GRID).astype(int) + 1
    taken = np.ones(shape, bool)
    taken[tuple(np.round((atoms - low) / _GRID).astype(int).T)] = False
    near = distance_transform_edt(taken, sampling=_GRID) < PROBE + _GRID  # whatever may be within reach of an atom
    edge = binary_dilation(near, iterations=2) & ~binary_erosion(near, iterations=3)
    places = low + _GRID * np.argwhere(edge)
    free = places[cKDTree(atoms).query(places)[0] >= PROBE]
    away = cKDTree(atoms).query(points)[0]
    return np.asarray(np.where(away >= PROBE, -away, cKDTree(free).query(points)[0] - PROBE))
