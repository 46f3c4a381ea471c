"""One Zarr hierarchy per experiment: its groups, what made them, and whether they are complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import dask
import dask.array as da
import xarray as xr
import zarr

from .._html import html_table
from ..errors import StoreError
from .folder import StoreFolder
from .hierarchy import attributes_of, check_root, digest_in, nodes, root_attributes
from .lock import StoreLock
from .places import Place, inside, move_tree, place, remove_tree, zarr_store
from .record import Record, plain, without_secrets
from .regions import encodings, open_dataset, store_errors, stored_chunks, write_lazily

#: Tables and maps up to this size are read at once instead of lazily.
_EAGER_BYTES = 16 * 2**20


class Store:
    """One experiment: a Zarr v3 hierarchy that ``xarray.open_datatree`` opens.

    Made by `Store.create` or `Store.open`; a context manager. While it is open for writing it holds
    the lock of the store. A group appears (to `read`, `record` and `groups`) once it is complete.

    Parameters
    ----------
    path : Path or S3Place
        Where the store is.
    lock : StoreLock or None
        Held while it is open for writing.
    """

    def __init__(self, path: Place, lock: StoreLock | None) -> None:
        self.path = path
        self._lock = lock
        self._folder = StoreFolder(path)
        self._is_new = False

    # -- opening ---------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: str | Place, *, overwrite: bool = False) -> Store:
        """Make a new, empty store, open for writing.

        When the ``with`` block raises before its first group is finished, the half-made store is
        removed, and a store it was to replace is put back.

        Parameters
        ----------
        path : str, pathlib.Path or S3Place
            Folder to make, or ``s3://bucket/name``.
        overwrite : bool, default False
            Replace a store that is there. Any other folder is never replaced.

        Raises
        ------
        StoreError
            If there is something already, or the place cannot be written to.
        StoreLockedError
            If another process is writing to it.
        """
        store = cls._locked(path)
        try:
            store._folder.make_room(overwrite)
            store._is_new = True
            with store_errors(store.path):
                zarr.open_group(zarr_store(store.path), mode="w-", zarr_format=3, attributes=root_attributes())
        except BaseException:
            store._drop_new()
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: str | Place, mode: Literal["r", "a"] = "r") -> Store:
        """Open a store that is there.

        Parameters
        ----------
        path : str, pathlib.Path or S3Place
            Its folder, or ``s3://bucket/name``.
        mode : {"r", "a"}
            For reading, or for writing too.

        Raises
        ------
        StoreError
            If it is no aetdist store, was written by a newer aetdist, or cannot be written to.
        StoreLockedError
            If another process is writing to it (``"a"`` only).
        """
        if mode not in ("r", "a"):
            raise StoreError(f"Mode {mode!r} of a store; needed is 'r' or 'a' (Store.create makes a new one).")
        folder = place(path).absolute()
        if mode == "r":
            check_root(folder)
            return cls(folder, None)
        if folder.exists() and not StoreFolder(folder).replaced.is_dir():  # which a killed run may have left
            check_root(folder)
            if isinstance(folder, Path) and not os.access(folder, os.W_OK):
                raise StoreError(f"{folder} is read-only; ask for the right to write, or work on a copy of it.")
        store = cls._locked(folder)
        try:
            check_root(folder)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _locked(cls, path: str | Place) -> Store:
        folder = place(path).absolute()
        store = cls(folder, StoreLock(folder).acquire())
        try:
            store._folder.recover()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Store:
        """Give the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an error, remove a store in which nothing was finished."""
        try:
            if kind is not None:
                self._drop_new()
        finally:
            self.close()

    def __repr__(self) -> str:
        """Call that opens it."""
        return f"Store.open({str(self.path)!r}, mode={'r' if self._lock is None else 'a'!r})"

    def _repr_html_(self) -> str:
        """Its groups as a table, for notebooks."""
        rows = [("group", "state", "made by", "when", "seed")]
        for name, attributes in nodes(self.path):
            record = Record.from_dict(attributes["provenance"])
            seed = "" if record.seed is None else str(record.seed)
            rows.append((name, str(attributes["status"]), record.stage, str(record.created or ""), seed))
        return html_table(rows, str(self.path))

    # -- reading ---------------------------------------------------------------------------------

    def groups(self) -> list[str]:
        """Names of the complete groups, in alphabetical order."""
        return [name for name, attributes in nodes(self.path) if attributes["status"] == "complete"]

    def record(self, group: str) -> Record | None:
        """How a group was made; None if it is absent or incomplete."""
        attributes = attributes_of(inside(self.path, group))
        return Record.from_dict(attributes.get("provenance")) if attributes.get("status") == "complete" else None

    def pending(self, group: str) -> Record | None:
        """How a group that is begun but not finished is being made; None if it is absent or complete."""
        attributes = attributes_of(inside(self.path, group))
        return Record.from_dict(attributes.get("provenance")) if attributes.get("status") == "incomplete" else None

    def digest(self, group: str) -> str:
        """Digest of how a complete group was made: as it was asked for (the note ``request``), or by its own record.

        Raises
        ------
        StoreError
            If there is no such group, or it is not complete.
        """
        self._complete(group)
        return digest_in(attributes_of(self.path / group))

    def holds(self, group: str, record: Record) -> bool:
        """Whether a group is complete and was made as `record` says."""
        return self.record(group) is not None and self.digest(group) == record.digest

    def notes(self, group: str) -> dict[str, Any]:
        """What `note` kept with a complete group; empty if it is absent or incomplete."""
        attributes = attributes_of(inside(self.path, group))
        return dict(attributes.get("notes", {})) if attributes.get("status") == "complete" else {}

    def read(self, group: str) -> xr.Dataset:
        """Read a complete group.

        Parameters
        ----------
        group : str
            Its name, for example ``"volume"``.

        Returns
        -------
        xarray.Dataset
            Variables of three and more dimensions as Dask arrays with the stored chunks; smaller ones in memory.

        Raises
        ------
        StoreError
            If there is no such group, or it is not complete.
        """
        self._complete(group)
        with store_errors(self.path):
            dataset = open_dataset(self.path, group, chunks={})
            small = [n for n, v in dataset.variables.items() if v.ndim < 3 and v.nbytes <= _EAGER_BYTES]
            # Here, whatever client is current: a cluster takes longer to begin than the values to read.
            loaded = dask.compute(*(dataset[name].variable.data for name in small), scheduler="synchronous")
            for name, values in zip(small, loaded, strict=True):
                dataset[name] = dataset[name].variable.copy(data=values)
        return dataset.drop_encoding()

    def tree(self) -> xr.DataTree:
        """Open the whole hierarchy, lazily, incomplete groups included."""
        return xr.open_datatree(zarr_store(self.path), engine="zarr", consolidated=False, chunks={})

    # -- writing ---------------------------------------------------------------------------------

    def write(
        self, group: str, dataset: xr.Dataset, *, record: Record, chunks: Mapping[str, int] | None = None
    ) -> None:
        """Computes: the Dask arrays of a group, one task per stored chunk, on the current client, and writes it.

        Parameters
        ----------
        group : str
            Name, for example ``"tilt_series/aligned"``; what was there is replaced, so `dataset` must not read from it.
        dataset : xarray.Dataset
            What to write; numbers, truth values and (in memory) text.
        record : Record
            How it was made.
        chunks : mapping of str to int, optional
            Stored chunk along each dimension, in elements; otherwise the Dask chunks are kept (where they are all
            alike), and arrays in memory are cut into pieces of about 16 MiB.

        Raises
        ------
        StoreError
            If the store is open for reading only or the disk is full; the group then stays incomplete.
        """
        lazy, stored = self._make(group, dataset, record, chunks)
        with store_errors(self.path):
            dask.compute(*(write_lazily(self.path, group, name, array, stored[name]) for name, array in lazy.items()))
        self.finish(group)

    def begin(
        self, group: str, template: xr.Dataset, *, record: Record, chunks: Mapping[str, int] | None = None
    ) -> None:
        """Make the arrays of a group; it stays incomplete until `finish`.

        Parameters
        ----------
        group : str
            Name; what was there is deleted.
        template : xarray.Dataset
            Its Dask arrays say only shape, type and chunks: they are never computed, `write_region` fills them.
            Its arrays in memory are written at once.
        record : Record
            How it is being made.
        chunks : mapping of str to int, optional
            As in `write`.

        Raises
        ------
        StoreError
            If the store is open for reading only or the disk is full.
        """
        self._make(group, template, record, chunks)

    def finish(self, group: str) -> None:
        """Declare a group complete.

        Raises
        ------
        StoreError
            If one of its chunks was never written (write regions of zeros too).
        """
        self._check_writable()
        with store_errors(self.path):
            opened = zarr.open_group(zarr_store(self.path), path=group, mode="r+", zarr_format=3)
            for name, array in opened.arrays():
                missing = array.nchunks - array.nchunks_initialized if array.size else 0
                if missing > 0:
                    raise StoreError(
                        f"{group}/{name} in {self.path}: {missing} of {array.nchunks} chunks were never written; "
                        "run the stage again."
                    )
            opened.attrs["status"] = "complete"
        self._is_new = False
        self._folder.settle()

    def note(self, group: str, **notes: Any) -> None:
        """Keep something small (as JSON does) with a complete group; it goes when the group is written anew."""
        self._check_writable()
        self._complete(group)
        with store_errors(self.path):
            attributes = zarr.open_group(zarr_store(self.path), path=group, mode="r+", zarr_format=3).attrs
            attributes["notes"] = {**self.notes(group), **without_secrets(plain(notes))}

    def delete(self, group: str) -> None:
        """Delete a group and all below it; nothing happens if it is absent."""
        self._check_writable()
        folder = inside(self.path, group)
        if not folder.exists():
            return
        with store_errors(self.path):
            for name, _ in nodes(self.path):
                if name == group or name.startswith(group + "/"):  # first: a killed deletion must not look complete
                    zarr.open_group(zarr_store(self.path), path=name, mode="r+", zarr_format=3).attrs["status"] = (
                        "incomplete"
                    )
            remove_tree(folder)

    def rename(self, group: str, name: str) -> None:
        """Give a complete group another name; one that has that name is replaced.

        Raises
        ------
        StoreError
            If there is no such group, it is not complete, or the store is open for reading only.
        """
        self._check_writable()
        self._complete(group)
        self.delete(name)
        with store_errors(self.path):
            move_tree(inside(self.path, group), inside(self.path, name))

    # -- inside ----------------------------------------------------------------------------------

    def _make(
        self, group: str, dataset: xr.Dataset, record: Record, chunks: Mapping[str, int] | None
    ) -> tuple[dict[str, da.Array], dict[str, tuple[int, ...]]]:
        """Arrays, coordinates and record of a group; returns its Dask arrays and the stored chunks of each variable."""
        self._check_writable()
        dataset = dataset.drop_encoding().assign_attrs(status="incomplete", provenance=record.to_dict())
        # Text of fixed length has no Zarr v3 specification yet; as objects it is stored as "string", which has one.
        text = {name: v.astype(object) for name, v in dataset.variables.items() if v.dtype.kind == "U"}
        dataset = dataset.assign_coords({name: text[name] for name in text if name in dataset.coords})
        dataset = dataset.assign({name: text[name] for name in text if name in dataset.data_vars})
        lazy = {str(name): v.data for name, v in dataset.variables.items() if isinstance(v.data, da.Array)}
        for name, array in lazy.items():
            if array.dtype.kind not in "biuf":
                raise StoreError(f"{group}/{name} is a lazy array of {array.dtype}; load it first ({name}.load()).")
        stored = {str(name): stored_chunks(v, chunks or {}) for name, v in dataset.variables.items()}
        with store_errors(self.path):
            self.delete(group)
            dataset.to_zarr(
                zarr_store(self.path),
                group=group,
                mode="w",
                encoding=encodings(dataset, stored),
                compute=False,
                consolidated=False,
                zarr_format=3,
                write_empty_chunks=True,
                safe_chunks=False,  # the Dask arrays are rechunked before they are written
            )
        return lazy, stored

    def _complete(self, group: str) -> Record:
        record = self.record(group)
        if record is not None:
            return record
        if self.pending(group) is not None:
            raise StoreError(f"{group!r} in {self.path} is not complete: run again the stage that makes it.")
        have = ", ".join(self.groups()) or "nothing"
        raise StoreError(f"{self.path} holds no {group!r} but {have}; run the stage that makes it first.")

    def _check_writable(self) -> None:
        if self._lock is None:
            raise StoreError(f"{self.path} is open for reading only; open it with Store.open(path, mode='a').")
        self._lock.check()

    def _drop_new(self) -> None:
        """Remove a new store in which nothing was finished and put back the one it was to replace."""
        if not self._is_new:
            return
        with contextlib.suppress(OSError, StoreError):
            self._check_writable()
            self._folder.remove()
            self._folder.recover()
