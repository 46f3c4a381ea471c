"""Where voxels and pixels are: centre voxel n // 2, Angstrom = (index - n // 2) * size."""

from __future__ import annotations

import numpy as np


def centred_coordinates(n: int, size: float = 1.0) -> np.ndarray:
    """Coordinates of `n` voxels of edge `size` with voxel ``n // 2`` at 0; float64, the unit of `size`."""
    return (np.arange(n) - n // 2) * size


def grid_step(coordinates: np.ndarray) -> float:
    """The step of an evenly spaced coordinate, in its own unit (needs two points or more)."""
    return float((coordinates[-1] - coordinates[0]) / (len(coordinates) - 1))
