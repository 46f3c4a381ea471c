"""Volumes from files of other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import centred_coordinates
from ..schema import VOLUME, with_units


def read_volume(path: str | Path, *, pixel_size: float | None = None) -> xr.Dataset:
    """Computes: the voxels of an MRC, NPY, HDF5, MAT or TIFF file, read as a whole.

    Parameters
    ----------
    path : str or Path
        The file, or ``file::dataset``, of shape (z, y, x).
    pixel_size : float, optional
        Edge of a voxel in Angstrom. MRC says it itself, and where its first voxel lies; voxel n // 2 of
        the others is at 0.

    Returns
    -------
    xarray.Dataset
        VOLUME.

    Raises
    ------
    InputError
        If the file cannot be read, or nobody says how large a voxel is, or voxels are no cubes.
    """
    from .readers import open_stack  # here, as it brings every foreign format with it

    stack = open_stack(path)
    density = np.stack([stack.read(i) for i in range(stack.shape[0])]).astype(np.float32)
    origin = None
    if Path(path).suffix.lower() in (".mrc", ".map", ".rec", ".mrcs"):
        size, origin = _mrc_grid(Path(path))
        pixel_size = pixel_size or size
    if pixel_size is None or not pixel_size > 0:
        raise InputError(f"The size of a voxel of {path} is {pixel_size}; give it in Angstrom as pixel_size.")
    coordinates = {
        axis: centred_coordinates(n, pixel_size) if origin is None else origin[axis] + pixel_size * np.arange(n)
        for axis, n in zip("zyx", density.shape, strict=True)
    }
    dataset = xr.Dataset({"density": (("z", "y", "x"), density), "pixel_size": ((), float(pixel_size))}, coordinates)
    return with_units(dataset, VOLUME)


def _mrc_grid(path: Path) -> tuple[float | None, dict[str, float] | None]:
    """Edge of a voxel and position of the first one, in Angstrom, where the header says them."""
    from .readers.mrc import mrc_header

    with mrc_header(path) as file:
        sizes = [float(file.voxel_size[axis]) for axis in "xyz"]
        origin = {axis: float(file.header.origin[axis]) for axis in "xyz"}
    if not all(sizes):
        return None, None
    if not np.allclose(sizes, sizes[0], rtol=1e-3):
        raise InputError(f"The voxels of {path} are {sizes} Angstrom; cubes are needed: resample it first.")
    return sizes[0], origin if any(origin.values()) else None
