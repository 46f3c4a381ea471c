"""Which chunk of a store is damaged: its checksum notices, but does not say where it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import zarr

from .hierarchy import attributes_of
from .places import Place, place, zarr_store


def describe_damage(path: str | Place, error: BaseException) -> str:
    """One line for a chunk that could not be unpacked: which one, and what to do.

    Parameters
    ----------
    path : str, pathlib.Path or S3Place
        The store that was at work; its chunks are read until the damaged one is found.
    error : Exception
        What unpacking it raised.
    """
    found = next(_damaged(path), None)
    if found is None:
        return f"A chunk that was read for {path} is damaged ({error}); restore its file from a copy, and run again."
    group, file = found
    stage = attributes_of(place(path) / group).get("provenance", {}).get("stage", "that made it")
    return (
        f"{path}: the chunk {file} is damaged ({error}). Restore this file from a copy, or delete the folder {group} "
        f"and make it again (stage {stage!r}); then run the same again: what was finished is kept."
    )


def _damaged(path: str | Place) -> Iterator[tuple[str, str]]:
    """Group and file, both in the store, of every chunk that cannot be unpacked."""
    root = zarr.open_group(zarr_store(path), mode="r", use_consolidated=False)
    for name, array in sorted(root.members(max_depth=None), key=lambda member: member[0]):
        if not isinstance(array, zarr.Array):
            continue
        for index in np.ndindex(array.cdata_shape):
            try:
                array.get_block_selection(index)
            except (RuntimeError, ValueError):
                key = array.metadata.encode_chunk_key(index)
                yield name.rpartition("/")[0], f"{name}/{key}"
