"""Reading and writing whole chunks, on workers too: none of these takes the lock."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.array.core import normalize_chunks
from zarr.codecs import ZstdCodec

from ..errors import AetdistError, StoreError
from .damage import describe_damage
from .hierarchy import attributes_of
from .places import Place, inside, place, zarr_store

#: Chunks of an array that comes without any, in bytes.
_CHUNK_BYTES = 16 * 2**20
#: Attributes of a group that belong to the store, not to the Dataset in it.
OWN_ATTRIBUTES = ("status", "provenance", "notes")
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EROFS, errno.EPERM}


@contextlib.contextmanager
def store_errors(path: str | Place) -> Iterator[None]:
    """Turn a full disk, a forbidden write and a damaged chunk into a one-line `StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"No room left to write {path} ({error.strerror}); free some space and run again: what is finished "
                "is kept."
            ) from error
        if error.errno in _FORBIDDEN:
            raise StoreError(f"{path} cannot be written to ({error.strerror}); ask for the right to write.") from error
        raise
    except RuntimeError as error:
        if "decompression error" not in str(error):
            raise
        raise StoreError(describe_damage(path, error)) from error


def open_dataset(path: str | Place, group: str, *, chunks: dict[str, int] | None = None) -> xr.Dataset:
    """A group for reading, complete or not.

    Parameters
    ----------
    path : str, pathlib.Path or S3Place
        The store.
    group : str
        Name of the group, for example ``"tilt_series/aligned"``.
    chunks : dict, optional
        None (the default, meant for the inside of tasks): nothing is read until it is indexed, and
        no Dask is involved. ``{}``: Dask arrays, one chunk per stored chunk.

    Returns
    -------
    xarray.Dataset
        Lazy.

    Raises
    ------
    StoreError
        If there is no such group, or what it says of itself is damaged.
    """
    if not (inside(place(path), group) / "zarr.json").is_file():
        raise StoreError(f"{path} holds no group {group!r}.")
    try:
        dataset = xr.open_dataset(
            zarr_store(path), engine="zarr", group=group, consolidated=False, zarr_format=3, chunks=chunks
        )
    except AetdistError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(
            f"{path}: the group {group!r} cannot be opened ({reason}): a zarr.json in it is damaged; restore it from a "
            "copy, or delete the group and make it again."
        ) from error
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "T":
            text = np.array(np.asarray(variable).tolist(), dtype=str).reshape(variable.shape)
            dataset[name] = variable.dims, text, variable.attrs
    dataset.attrs = {name: value for name, value in dataset.attrs.items() if name not in OWN_ATTRIBUTES}
    return dataset


def require_record(path: str | Place, group: str, digest: str) -> None:
    """Refuse to go on when a group is no longer being made as a task was told.

    Parameters
    ----------
    path : str, pathlib.Path or S3Place
        The store.
    group : str
        Group that the task is about to write to.
    digest : str
        Digest of the record that it was begun with.

    Raises
    ------
    StoreError
        If the group is gone or was begun anew: a task of an interrupted run must not write into it.
    """
    stored = attributes_of(inside(place(path), group)).get("provenance") or {}
    if stored.get("digest") != digest:
        raise StoreError(f"{group!r} in {path} was begun anew by another run; what this task made is dropped.")


def write_region(path: str | Place, group: str, variable: str, region: tuple[slice, ...], array: np.ndarray) -> None:
    """Write whole chunks of one variable; repeatable.

    Parameters
    ----------
    path : str, pathlib.Path or S3Place
        The store.
    group, variable : str
        Where to; made before by ``Store.begin``.
    region : tuple of slice
        One slice with step 1 per dimension, on the borders of chunks (of shards, where there are any).
    array : numpy.ndarray
        Values, of the region's shape.

    Raises
    ------
    StoreError
        If the region cuts a chunk (two tasks writing to one chunk lose data), the shape differs, or
        the disk is full.
    """
    with store_errors(path):
        # A chunk of zeros is written too, so that a chunk that is not there was never written.
        target = zarr.open_array(store=zarr_store(path), path=f"{group}/{variable}", mode="r+", zarr_format=3)
        target = target.with_config({"write_empty_chunks": True})  # open_array leaves its config argument out
        unit = target.shards or target.chunks
        if len(region) != target.ndim:
            raise StoreError(f"{group}/{variable} has {target.ndim} dimensions; the region has {len(region)}.")
        bounds = [part.indices(size) for part, size in zip(region, target.shape, strict=True)]
        for axis, ((start, stop, step), chunk, size) in enumerate(zip(bounds, unit, target.shape, strict=True)):
            if step != 1 or start % chunk or (stop % chunk and stop != size):
                raise StoreError(
                    f"{group}/{variable}: {start}:{stop} along dimension {axis} cuts chunks of {chunk}; "
                    f"write whole chunks (multiples of {chunk}, or up to the end at {size})."
                )
        shape = tuple(stop - start for start, stop, _ in bounds)
        if np.shape(array) != shape:
            raise StoreError(f"{group}/{variable}: an array of shape {np.shape(array)} for a region of shape {shape}.")
        target[tuple(slice(start, stop) for start, stop, _ in bounds)] = array


def encodings(dataset: xr.Dataset, chunks: Mapping[str, tuple[int, ...]]) -> dict[Any, dict[str, Any]]:
    """How each variable is stored: in these chunks, compressed, each with a checksum; what is not written is NaN."""
    encoding: dict[Any, dict[str, Any]] = {}
    for key, variable in dataset.variables.items():
        encoding[key] = {"compressors": [ZstdCodec(checksum=True)], "_FillValue": None}
        if variable.ndim:
            encoding[key]["chunks"] = chunks[str(key)]
        if variable.dtype.kind == "f":
            encoding[key]["fill_value"] = float("nan")
    return encoding


def stored_chunks(variable: xr.Variable, chunks: Mapping[str, int]) -> tuple[int, ...]:
    """Stored chunk of a variable along each of its dimensions."""
    shape = variable.shape
    if isinstance(variable.data, da.Array):
        natural = tuple(max(sizes) for sizes in variable.data.chunks)
    elif variable.dtype.kind in "biuf" and variable.nbytes > _CHUNK_BYTES:
        natural = tuple(sizes[0] for sizes in normalize_chunks("auto", shape, _CHUNK_BYTES, dtype=variable.dtype))
    else:
        natural = shape
    return tuple(
        max(1, min(chunks.get(str(dim), step), size))
        for dim, step, size in zip(variable.dims, natural, shape, strict=True)
    )


def write_lazily(path: str | Place, group: str, variable: str, array: da.Array, chunks: tuple[int, ...]) -> da.Array:
    """Write a Dask array when the result is computed, one task per stored chunk.

    Parameters
    ----------
    path, group, variable
        Where to, as in `write_region`.
    array : dask.array.Array
        Values; rechunked where its chunks are not the stored ones.
    chunks : tuple of int
        Stored chunk along each dimension.

    Returns
    -------
    dask.array.Array of bool
        One True per stored chunk.
    """
    return array.rechunk(chunks).map_blocks(
        _write_block,
        path=str(path),
        group=group,
        variable=variable,
        chunks=tuple((1,) * -(-size // step) for size, step in zip(array.shape, chunks, strict=True)),
        dtype=bool,
        meta=np.empty((0,) * array.ndim, dtype=bool),
    )


def _write_block(
    block: np.ndarray, *, path: str, group: str, variable: str, block_info: Mapping[int, Any]
) -> np.ndarray:
    region = tuple(slice(start, stop) for start, stop in block_info[0]["array-location"])
    write_region(path, group, variable, region, block)
    return np.ones((1,) * block.ndim, dtype=bool)
