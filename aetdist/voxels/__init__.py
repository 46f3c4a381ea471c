"""Volumes of voxels: their grid, their spline, and where their noise ends."""

from .grid import not_finite, voxel_size
from .threshold import noise_threshold, noise_valley

__all__ = ["noise_threshold", "noise_valley", "not_finite", "voxel_size"]
