"""How deep below the surface of a sample points lie."""

from __future__ import annotations

import numpy as np

from ..analysis.surface import alpha_shape

RADIUS = 4.0
"""Angstrom: the radius of a ball that finds no room inside a dense solid, as of the paper's alpha shape."""
_FEWEST = 5  # atoms that may have an inside


def depth_below_surface(points: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Distance of points from the boundary of the atoms' alpha shape.

    Parameters
    ----------
    points : ndarray, shape (m, 3), float64
        Angstrom.
    atoms : ndarray, shape (n, 3), float64
        Angstrom: the sample.

    Returns
    -------
    ndarray, shape (m,), float64
        Angstrom; 0 for atoms of the surface, of a hole that the ball fits in too; negative outside. 0 for all where
        atoms are too few, or too far apart, to have an inside.
    """
    if len(atoms) < _FEWEST:
        return np.zeros(len(points))
    return np.asarray(np.nan_to_num(alpha_shape(atoms, RADIUS).depth(points)))
