"""A volume as OME-Zarr 0.5: a pyramid of ever coarser volumes, written chunk by chunk."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from ..errors import InputError
from .hierarchy import attributes_of
from .record import installed_version
from .regions import store_errors, write_lazily
from .voxel_export import grid_of
from .whole import whole

_CHUNK = 128  # voxels along an edge; even, so that no pair of voxels lies in two chunks
_COARSEST = 64  # voxels along the longest edge of the last level


def write_ome_zarr(path: str | Path, volume: xr.Dataset) -> None:
    """Computes: the density, on the current client, and writes it as OME-Zarr 0.5 (Zarr v3), one task a chunk.

    Parameters
    ----------
    path : str or pathlib.Path
        Folder to write; it appears once it is complete and replaces an OME-Zarr that was there.
    volume : xarray.Dataset
        VOLUME: ``density`` (z, y, x) and its coordinates in Angstrom.

    Raises
    ------
    InputError
        If a coordinate is missing or not evenly spaced, or something else is there.
    StoreError
        If the disk is full or the place cannot be written to.

    Notes
    -----
    float32. A voxel of a level is the mean of the 2 x 2 x 2 voxels of the one before that are there; its place is
    their middle, which the level's translation says. Each level is read back from the one written before it.

    References
    ----------
    J. Moore et al., "OME-Zarr: a cloud-optimized bioimaging file format", Histochem. Cell Biol. 160, 223 (2023);
    specification 0.5 at https://ngff.openmicroscopy.org/0.5
    """
    path = Path(path)
    first, steps = grid_of(volume, "OME-Zarr")
    check_replaceable(path)
    level = da.asarray(volume["density"].data).astype("<f4")
    place, size = ([values[axis] for axis in "zyx"] for values in (first, steps))
    levels = []
    with whole(path) as partial, store_errors(path):
        group = zarr.open_group(str(partial), mode="w", zarr_format=3)
        for number in itertools.count():
            level = _write_level(partial, group, str(number), level)
            levels.append(_level(number, size, place))
            if max(level.shape) <= _COARSEST:
                break
            factors = [2 if n > 1 else 1 for n in level.shape]
            place = [at + (factor - 1) * step / 2 for at, factor, step in zip(place, factors, size, strict=True)]
            size = [factor * step for factor, step in zip(factors, size, strict=True)]
            level = _halved(level)
        group.attrs["ome"] = {"version": "0.5", "multiscales": [_multiscale(path, levels)]}


def check_replaceable(path: Path) -> None:
    """Refuse to write where there is anything but an OME-Zarr.

    Raises
    ------
    InputError
        If a file or another folder is there.
    """
    if path.exists() and "ome" not in attributes_of(path):
        raise InputError(f"{path} is there and is no OME-Zarr, and is never replaced; name another folder.")


def _write_level(folder: Path, group: zarr.Group, name: str, level: da.Array) -> da.Array:
    """Write a level and give it back as it lies on the disk."""
    chunks = tuple(min(_CHUNK, n) for n in level.shape)
    group.create_array(
        name,
        shape=level.shape,
        chunks=chunks,
        dtype="float32",
        compressors=[ZstdCodec(checksum=True)],
        dimension_names=["z", "y", "x"],
        fill_value=0.0,
    )
    write_lazily(folder, "", name, level, chunks).compute()
    return da.from_zarr(str(folder), component=name)


def _halved(level: da.Array) -> da.Array:
    """Means of 2 x 2 x 2 voxels; chunks begin at even voxels."""
    return da.map_blocks(
        _mean_of_pairs,
        level,
        chunks=tuple(tuple(-(-n // 2) for n in sizes) for sizes in level.chunks),
        dtype=level.dtype,
        meta=np.empty((0, 0, 0), level.dtype),
    )


def _mean_of_pairs(block: np.ndarray) -> np.ndarray:
    """Means over pairs along every axis; a last voxel without a partner stays as it is."""
    padded = np.pad(block, [(0, n % 2) for n in block.shape], mode="edge")
    nz, ny, nx = (n // 2 for n in padded.shape)
    return padded.reshape(nz, 2, ny, 2, nx, 2).mean(axis=(1, 3, 5), dtype=np.float64).astype(block.dtype)


def _level(number: int, size: list[float], place: list[float]) -> dict[str, Any]:
    transformations = [{"type": "scale", "scale": size}, {"type": "translation", "translation": place}]
    return {"path": str(number), "coordinateTransformations": transformations}


def _multiscale(path: Path, levels: list[dict[str, Any]]) -> dict[str, Any]:
    """Metadata of the pyramid, as the specification names them."""
    return {
        "name": path.name.removesuffix(".ome.zarr"),
        "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
        "datasets": levels,
        "type": "mean",
        "metadata": {"method": "mean over 2 x 2 x 2 voxels", "version": f"aetdist {installed_version()}"},
    }
