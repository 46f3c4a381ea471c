"""Volumes of voxels: their grid, their spline, and where their noise ends."""

from .grid import not_finite, voxel_size
from .threshold import noise_threshold

__all__ = ["noise_threshold", "not_finite", "voxel_size"]
