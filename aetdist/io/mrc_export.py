"""A volume as MRC (MRC2014), written slab by slab."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xarray as xr

from .record import installed_version
from .regions import store_errors
from .voxel_export import grid_of, slabs
from .whole import whole


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

    first, sizes = grid_of(volume, "MRC")
    density = volume["density"]
    nz, ny, nx = density.shape
    header = np.zeros((), dtype=HEADER_DTYPE)
    header["nx"], header["ny"], header["nz"], header["mode"] = nx, ny, nz, 2
    header["mx"], header["my"], header["mz"] = nx, ny, nz
    header["cella"] = (nx * sizes["x"], ny * sizes["y"], nz * sizes["z"])
    header["cellb"] = (90, 90, 90)
    header["mapc"], header["mapr"], header["maps"], header["ispg"] = 1, 2, 3, 1
    header["origin"] = first["x"], first["y"], first["z"]
    header["map"], header["nversion"] = b"MAP ", 20141
    header["machst"][:] = (0x44, 0x44, 0, 0)  # little-endian, as HEADER_DTYPE is
    header["nlabl"], header["label"][0] = 1, f"aetdist {installed_version()}"
    with whole(Path(path)) as partial, store_errors(path), partial.open("wb") as file:
        file.write(bytes(HEADER_DTYPE.itemsize))
        header["dmin"], header["dmax"], header["dmean"], header["rms"] = _write_slabs(file, density)
        file.seek(0)
        file.write(header.tobytes())


def _write_slabs(file: BinaryIO, density: xr.DataArray) -> tuple[float, float, float, float]:
    """Write the voxels; minimum, maximum, mean and standard deviation of what was written."""
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    for slab in slabs(density):
        file.write(slab.data)
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        total += float(slab.sum(dtype=np.float64))
        squares += float(np.square(slab, dtype=np.float64).sum())
    mean = total / density.size
    return low, high, mean, math.sqrt(max(squares / density.size - mean**2, 0.0))
