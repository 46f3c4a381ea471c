"""The folder of a new store: what is in its way, and what is put back if nothing becomes of it."""

from __future__ import annotations

import contextlib
import time

from ..errors import StoreError
from .hierarchy import is_store, nodes
from .places import Place, move_tree, remove_tree
from .regions import store_errors


class StoreFolder:
    """Folder of a store, and the older store beside it that it is to replace.

    The older one is kept as ``<name>.replaced`` until a group of the new one is complete.

    Parameters
    ----------
    path : Path or S3Place
        The folder; in S3, which cannot rename, an older store is copied to where it is kept.
    """

    def __init__(self, path: Place) -> None:
        self.path = path
        self.replaced = path.with_name(path.name + ".replaced")

    def make_room(self, overwrite: bool) -> None:
        """Move what is in the way of a new store aside, if it may be replaced.

        Raises
        ------
        StoreError
            If it is no store, or one that is not to be replaced.
        """
        if not (self.path.exists() or self.path.is_symlink()):
            return
        if not is_store(self.path):
            raise StoreError(f"{self.path} is not an aetdist store and is never overwritten; choose another name.")
        if not self._has_complete():
            remove_tree(self.path, name_last=True)  # left by a killed run: nothing in it was finished
            return
        if not overwrite:
            raise StoreError(f"{self.path} exists; choose another name, or replace it: overwrite=True (--overwrite).")
        with store_errors(self.path):
            move_tree(self.path, self.replaced)

    def recover(self) -> None:
        """Mend what a run that was killed while it replaced a store left behind."""
        if not self.replaced.is_dir():
            return
        if self.path.exists() and self._has_complete():
            remove_tree(self.replaced, name_last=True)
            return
        if self.path.exists():
            remove_tree(self.path, name_last=True)
        move_tree(self.replaced, self.path)

    def settle(self) -> None:
        """Something in the new store is complete: the older one goes."""
        if self.replaced.is_dir():
            remove_tree(self.replaced, name_last=True)

    def remove(self) -> None:
        """Delete the folder, into which tasks of a computation that failed may still write, until it stays away."""
        end, quiet = time.monotonic() + 5.0, 0
        while quiet < 8 and time.monotonic() < end:
            quiet = 0 if self.path.exists() else quiet + 1
            with contextlib.suppress(OSError, StoreError):
                remove_tree(self.path, name_last=True)
            time.sleep(0.05)

    def _has_complete(self) -> bool:
        # In S3 a folder that is being moved away or back is no store while it is only part of one.
        return is_store(self.path) and any(attributes["status"] == "complete" for _, attributes in nodes(self.path))
