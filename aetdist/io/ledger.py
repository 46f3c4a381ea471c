"""Which blocks of a group are done: survives a killed run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zarr

from ..errors import StoreError
from .places import inside, place, zarr_store
from .regions import store_errors


@dataclass(frozen=True)
class BlockLedger:
    """One byte per block, each in a chunk (a file) of its own, written after the block's data.

    It is the array ``<group>/blocks/done`` of the store, so that it opens with the rest of the tree
    and goes when the group goes. The value can be sent to workers and used there without the lock.

    Parameters
    ----------
    path : str
        The store.
    group : str
        Group whose blocks are counted, for example ``"volume"``.
    """

    path: str
    group: str

    def create(self, n: int) -> None:
        """Start anew with `n` blocks, none of them done."""
        inside(place(self.path), self.group)
        with store_errors(self.path):
            blocks = zarr.open_group(zarr_store(self.path), path=f"{self.group}/blocks", mode="a", zarr_format=3)
            blocks.create_array(
                "done",
                shape=(n,),
                chunks=(1,),
                dtype="bool",
                fill_value=False,
                dimension_names=("block",),
                overwrite=True,
            )

    def exists(self) -> bool:
        """Whether there is a ledger."""
        try:
            self._array()
        except StoreError:
            return False
        return True

    def is_done(self, i: int) -> bool:
        """Whether block `i` is done."""
        return bool(self._array()[i])

    def mark(self, i: int) -> None:
        """Block `i` is done: its data are written."""
        with store_errors(self.path):
            self._array()[i] = True

    def done(self) -> np.ndarray:
        """Which blocks are done.

        Returns
        -------
        numpy.ndarray of bool, shape (n,)
        """
        return np.asarray(self._array()[:], dtype=bool)

    def _array(self) -> zarr.Array:
        try:
            return zarr.open_array(
                store=zarr_store(self.path), path=f"{self.group}/blocks/done", mode="r+", zarr_format=3
            )
        except FileNotFoundError:
            raise StoreError(
                f"{self.path} keeps no record of blocks for {self.group!r}; make it with create."
            ) from None
