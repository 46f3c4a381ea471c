"""A volume as MRC (MRC2014), written slab by slab."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import grid_step
from ..schema import VOLUME, check
from .record import installed_version
from .regions import store_errors

_SLAB_BYTES = 64 * 2**20


def write_mrc(path: str | Path, volume: xr.Dataset) -> None:
    """Computes: the density, one slab along z after the other, and writes it as MRC.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write; it appears once it is complete and replaces what was there.
    volume : xarray.Dataset
        VOLUME: ``density`` (z, y, x) and its coordinates in Angstrom.

    Raises
    ------
    InputError
        If a coordinate is missing or not evenly spaced.
    StoreError
        If the disk is full or the place cannot be written to.

    Notes
    -----
    Mode 2 (float32), x fastest. The header's cell is (number of voxels) * (voxel size) and its
    ``origin`` the position of the first voxel, both in Angstrom (Cheng et al., J. Struct. Biol. 192,
    146 (2015)).
    """
    from mrcfile.dtypes import HEADER_DTYPE

    check(volume, VOLUME)
    density = volume["density"]
    if 0 in density.shape:
        raise InputError(f"A volume of shape {density.shape} holds no voxel; nothing can be written to {path}.")
    first, sizes = zip(*(_axis(volume, axis) for axis in "xyz"), strict=True)
    nz, ny, nx = density.shape
    header = np.zeros((), dtype=HEADER_DTYPE)
    header["nx"], header["ny"], header["nz"], header["mode"] = nx, ny, nz, 2
    header["mx"], header["my"], header["mz"] = nx, ny, nz
    header["cella"] = (nx * sizes[0], ny * sizes[1], nz * sizes[2])
    header["cellb"] = (90, 90, 90)
    header["mapc"], header["mapr"], header["maps"], header["ispg"] = 1, 2, 3, 1
    header["origin"] = first
    header["map"], header["nversion"] = b"MAP ", 20141
    header["machst"][:] = (0x44, 0x44, 0, 0)  # little-endian, as HEADER_DTYPE is
    header["nlabl"], header["label"][0] = 1, f"aetdist {installed_version()}"
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with store_errors(path), partial.open("wb") as file:
            file.write(bytes(HEADER_DTYPE.itemsize))
            header["dmin"], header["dmax"], header["dmean"], header["rms"] = _write_slabs(file, density)
            file.seek(0)
            file.write(header.tobytes())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _axis(volume: xr.Dataset, axis: str) -> tuple[float, float]:
    """First coordinate and step along an axis, in Angstrom."""
    if axis not in volume.coords:
        raise InputError(f"The volume has no coordinate {axis} (Angstrom): where its voxels lie is needed for MRC.")
    values = volume[axis].values.astype(np.float64)
    if len(values) == 1:
        return float(values[0]), float(volume.get("pixel_size", 1.0))
    step = grid_step(values)
    if not step > 0 or not np.allclose(np.diff(values), step, rtol=1e-3):
        raise InputError(f"The coordinate {axis} of the volume is not evenly spaced and rising; MRC cannot hold that.")
    return float(values[0]), step


def _write_slabs(file: BinaryIO, density: xr.DataArray) -> tuple[float, float, float, float]:
    """Write the voxels; minimum, maximum, mean and standard deviation of what was written."""
    nz, ny, nx = density.shape
    thickness = max(1, _SLAB_BYTES // (4 * ny * nx))
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    for start in range(0, nz, thickness):
        slab = np.ascontiguousarray(density[start : start + thickness].values, dtype="<f4")
        file.write(slab.data)
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        total += float(slab.sum(dtype=np.float64))
        squares += float(np.square(slab, dtype=np.float64).sum())
    mean = total / density.size
    return low, high, mean, math.sqrt(max(squares / density.size - mean**2, 0.0))
