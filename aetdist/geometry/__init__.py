"""Rotations, grids and conventions: the one place that converts."""

from .conventions import (
    CONVENTIONS,
    AstraGeometry,
    astra_centre,
    astra_from_matrices,
    euler_from_convention,
    imod_tilts_from_euler,
    matrices_from_astra,
    rotate_tilt_axis,
    single_tilts_from_euler,
)
from .euler import euler_from_matrices, euler_from_tilts, matrices_from_euler, tilts_from_euler
from .gauge import pinned, remove_common_motion
from .grid import centred_coordinates, grid_step
from .parallel import ParallelGeometry

__all__ = [
    "CONVENTIONS",
    "AstraGeometry",
    "ParallelGeometry",
    "astra_centre",
    "astra_from_matrices",
    "centred_coordinates",
    "euler_from_convention",
    "euler_from_matrices",
    "euler_from_tilts",
    "grid_step",
    "imod_tilts_from_euler",
    "matrices_from_astra",
    "matrices_from_euler",
    "pinned",
    "remove_common_motion",
    "rotate_tilt_axis",
    "single_tilts_from_euler",
    "tilts_from_euler",
]
