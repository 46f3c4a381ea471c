"""What every file of a volume needs: where its voxels lie, and the voxels slab by slab."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import grid_step
from ..schema import VOLUME, check

#: Of voxels held at once.
_SLAB_BYTES = 64 * 2**20


def grid_of(volume: xr.Dataset, form: str) -> tuple[dict[str, float], dict[str, float]]:
    """Position of the first voxel and edge of a voxel, in Angstrom, by axis.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME.
    form : str
        What is to be written, for messages.

    Raises
    ------
    InputError
        If it has no voxels, or a coordinate is missing or not evenly spaced and rising.
    """
    check(volume, VOLUME)
    if 0 in volume["density"].shape:
        raise InputError(f"A volume of shape {volume['density'].shape} holds no voxel; no {form} can be made of it.")
    first, steps = {}, {}
    for axis in "zyx":
        if axis not in volume.coords:
            raise InputError(
                f"The volume has no coordinate {axis} (Angstrom): where its voxels lie is what {form} says."
            )
        values = volume[axis].values.astype(np.float64)
        first[axis] = float(values[0])
        steps[axis] = float(volume.get("pixel_size", 1.0)) if len(values) == 1 else grid_step(values)
        if not steps[axis] > 0 or not np.allclose(np.diff(values), steps[axis], rtol=1e-3):
            raise InputError(f"The coordinate {axis} of the volume is not evenly spaced and rising; {form} needs that.")
    return first, steps


def slabs(density: xr.DataArray) -> Iterator[np.ndarray]:
    """Computes: the density, one slab along z after the other, as little-endian float32."""
    nz, ny, nx = density.shape
    thickness = max(1, _SLAB_BYTES // (4 * ny * nx))
    for start in range(0, nz, thickness):
        yield np.ascontiguousarray(density[start : start + thickness].values, dtype="<f4")
