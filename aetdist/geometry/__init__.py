"""Rotations, grids and conventions: the one place that converts."""

from .euler import euler_from_matrices, euler_from_tilts, matrices_from_euler, tilts_from_euler
from .grid import centred_coordinates, grid_step
from .parallel import ParallelGeometry

__all__ = [
    "ParallelGeometry",
    "centred_coordinates",
    "euler_from_matrices",
    "euler_from_tilts",
    "grid_step",
    "matrices_from_euler",
    "tilts_from_euler",
]
