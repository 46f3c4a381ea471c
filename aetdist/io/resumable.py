"""Groups that are written block by block, and gone on with after a killed run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from ..errors import StoreError
from .ledger import BlockLedger
from .record import Record
from .regions import open_dataset, require_record, store_errors, write_region
from .store import Store

__all__ = ["begun", "write_blocks"]


def begun(store: Store, group: str, record: Record) -> xr.Dataset | None:
    """What is there of a group that a killed run began with `write_blocks`.

    Parameters
    ----------
    store : Store
        Open for writing.
    group : str
        Name of the group.
    record : Record
        How it would be made now.

    Returns
    -------
    xarray.Dataset or None
        Lazy; what was in memory when the group was begun is complete, other variables only where blocks are
        done. None if the group is not begun, is complete, or was begun in another way or by another version.
    """
    pending = store.pending(group)
    if pending is None or (pending.digest, pending.version) != (record.digest, record.version):
        return None
    if not BlockLedger(str(store.path), group).exists():  # killed before it was made
        return None
    return open_dataset(store.path, group)


def write_blocks(
    store: Store,
    group: str,
    dataset: xr.Dataset,
    *,
    record: Record,
    dim: str,
    chunks: Mapping[str, int] | None = None,
) -> int:
    """Computes: the Dask arrays of a group, one task for each index along `dim`; none that is done already.

    Parameters
    ----------
    store : Store
        Open for writing.
    group : str
        Name of the group.
    dataset : xarray.Dataset
        Its Dask arrays have `dim` as their first dimension; one index of all of them is a block, which one task
        computes and writes. Where a killed run began the group (`begun`), what is in memory stays as it was written
        then.
    record : Record
        How it is made.
    dim : str
        Dimension that counts the blocks.
    chunks : mapping of str to int, optional
        Stored chunks along other dimensions, as in `Store.write`.

    Returns
    -------
    int
        Blocks that were computed.

    Raises
    ------
    StoreError
        If a Dask array has another first dimension, the store is open for reading only, or the disk is full; what
        is written by then is kept.

    Notes
    -----
    A block counts as done when its record is written, after all its data. It never depends on other blocks being
    done, so the result is that of a run at one go.
    """
    lazy = {str(name): v for name, v in dataset.variables.items() if isinstance(v.data, da.Array)}
    wrong = [name for name, variable in lazy.items() if variable.dims[0] != dim]
    if wrong:
        raise StoreError(f"{group}: {', '.join(wrong)} does not have {dim} as its first dimension; transpose it.")
    ledger = BlockLedger(str(store.path), group)
    if begun(store, group, record) is None:
        store.begin(group, dataset, record=record, chunks={**(chunks or {}), dim: 1})
        ledger.create(dataset.sizes[dim])
    missing = np.flatnonzero(~ledger.done())
    if missing.size and lazy:
        written = da.blockwise(
            _write_block, "i",
            da.arange(dataset.sizes[dim], chunks=1), "i",
            *(part for v in lazy.values() for part in (_one_by_one(v.data), ("i", *v.dims[1:]))),
            names=tuple(lazy), ledger=ledger, digest=record.digest,
            concatenate=True, dtype=bool, meta=np.empty(0, bool),
        )  # fmt: skip
        with store_errors(store.path):
            dask.compute(written.blocks[missing.tolist()])
    store.finish(group)
    return int(missing.size)


def _one_by_one(array: da.Array) -> da.Array:
    """Chunks of one index along the first dimension, whole along the others."""
    return array.rechunk((1, *((-1,) * (array.ndim - 1))))


def _write_block(
    number: np.ndarray, *blocks: Any, names: tuple[str, ...], ledger: BlockLedger, digest: str
) -> np.ndarray:
    i = int(number[0])
    require_record(ledger.path, ledger.group, digest)
    for name, block in zip(names, blocks, strict=True):
        region = (slice(i, i + 1), *(slice(0, n) for n in block.shape[1:]))
        write_region(ledger.path, ledger.group, name, region, block)
    ledger.mark(i)
    return np.ones(1, bool)
