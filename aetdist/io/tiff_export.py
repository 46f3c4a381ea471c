"""A volume as TIFF, one page a slice, written slab by slab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile
import xarray as xr

from .record import installed_version
from .regions import store_errors
from .voxel_export import grid_of, slabs
from .whole import whole

#: What a TIFF of 32-bit offsets can hold, less room for its directories.
_CLASSIC_BYTES = 2**32 - 2**25


def write_tiff(path: str | Path, volume: xr.Dataset) -> None:
    """Computes: the density, one slab along z after the other, and writes it as TIFF.

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
    float32, z the slowest. Up to 4 GiB a stack as ImageJ writes it: voxel size and unit in its description, and where
    the point (0, 0, 0) lies in voxels from the middle of the first one (``xorigin`` ...). What is larger is a BigTIFF
    with the voxel size as OME-XML.
    """
    first, steps = grid_of(volume, "TIFF")
    density = volume["density"]
    small = 4 * density.size <= _CLASSIC_BYTES
    form: dict[str, Any] = {"imagej": True} if small else {"bigtiff": True, "ome": True}
    metadata: dict[str, Any] = {"axes": "ZYX"}
    if small:
        metadata |= {"spacing": steps["z"], "unit": "angstrom"}
        metadata |= {f"{axis}origin": -first[axis] / steps[axis] for axis in "xyz"}
    else:
        for axis in "XYZ":
            metadata |= {f"PhysicalSize{axis}": steps[axis.lower()], f"PhysicalSize{axis}Unit": "Å"}
    pages = (page for slab in slabs(density) for page in slab)
    with whole(Path(path)) as partial, store_errors(path), tifffile.TiffWriter(partial, byteorder="<", **form) as file:
        file.write(
            pages,
            shape=density.shape,
            dtype="<f4",
            photometric="minisblack",
            resolution=(1 / steps["x"], 1 / steps["y"]),
            resolutionunit="NONE",
            metadata=metadata,
            software=f"aetdist {installed_version()}",
        )
