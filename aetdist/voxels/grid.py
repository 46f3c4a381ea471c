"""The grid of a volume: the edge of its voxels."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import grid_step
from ..schema import AXES

FEWEST_VOXELS = 4


def voxel_size(volume: xr.Dataset) -> float:
    """Edge of a voxel in Angstrom.

    Parameters
    ----------
    volume : xarray.Dataset
        ``schema.VOLUME``.

    Returns
    -------
    float
        Angstrom.

    Raises
    ------
    InputError
        If it has no coordinates, fewer than ``FEWEST_VOXELS`` voxels along an axis, or voxels that are not equal cubes.
    """
    steps = {}
    for axis in AXES:
        if axis not in volume.coords:
            raise InputError(
                f"The volume has no coordinate {axis}; assign the voxel positions along {axis} in Angstrom."
            )
        coordinate = np.asarray(volume[axis].values, dtype=np.float64)
        if len(coordinate) < FEWEST_VOXELS:
            raise InputError(
                f"The volume has {len(coordinate)} voxels along {axis}; needed are {FEWEST_VOXELS} or more."
            )
        steps[axis] = grid_step(coordinate)
        if not (steps[axis] > 0 and np.allclose(np.diff(coordinate), steps[axis], rtol=1e-3, atol=0)):
            raise InputError(f"The volume's coordinate {axis} does not rise in equal steps; resample it first.")
    if max(steps.values()) > 1.001 * min(steps.values()):
        raise InputError(
            f"Voxels are {' x '.join(f'{s:.4g}' for s in steps.values())} Angstrom (x, y, z); needed are cubes."
        )
    return math.fsum(steps.values()) / 3


def not_finite(count: int, where: str) -> str:
    """Say that `count` voxels of `where` are not finite, and what to do."""
    return (
        f"{count} voxels of {where} are not finite numbers; reconstruct again, "
        "or fill them (volume.fillna(0)) before tracing."
    )
