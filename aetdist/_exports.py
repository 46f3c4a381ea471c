"""Files for other programs, and whether they are as the store is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._usage import accounted
from .errors import InputError
from .io import Record, Store, newest, store_errors, write_mrc, write_xyz
from .io.groups import ATOMS, VOLUME
from .io.places import local_path

Summary = dict[str, Any]

log = logging.getLogger(__name__)


def export(path: str | Path, *, atoms: str | Path | None = None, volume: str | Path | None = None) -> Summary:
    """Computes: files for other programs; one that is there is replaced.

    Parameters
    ----------
    path : str or Path
        The store.
    atoms : str or Path, optional
        Extended XYZ file to write the atoms to, in Angstrom: the calibrated, else the refined, else the classified,
        else the traced ones, whichever are the last that were made from what the store holds now.
    volume : str or Path, optional
        MRC file to write the volume to; its origin is the position of the first voxel in Angstrom.

    Raises
    ------
    InputError
        If neither is asked for.
    StoreError
        If the store does not hold what is asked for.
    """
    if atoms is None and volume is None:
        raise InputError("Nothing to export came; name a file for atoms, for volume, or for both.")
    with accounted() as summary, Store.open(path) as store:
        if atoms is not None:
            group = newest(ATOMS, store)
            write_file(store, group, local_path(atoms))
            summary |= {"atoms": str(atoms), "atoms_from": group}
        if volume is not None:
            write_file(store, VOLUME, local_path(volume))
            summary["volume"] = str(volume)
    return summary


def write_file(store: Store, group: str, file: Path) -> None:
    """Computes: a group, and writes it to a file: atoms as extended XYZ, the volume as MRC."""
    write = write_mrc if group == VOLUME else write_xyz
    if not file.parent.is_dir():
        raise InputError(f"There is no folder {file.parent} to write {file.name} into; make it, or name another.")
    if file.is_dir():
        raise InputError(f"{file} is a folder; give the name of a file.")
    with store_errors(file):
        write(file, store.read(group))


def export_stale(store: Store, files: Mapping[str, Any], records: Mapping[str, Record]) -> str:
    """Computes: the files that are stale, and notes what they were written from; "computed" or "current"."""
    stale = stale_files(store, files, records)
    for group, file in stale.items():
        log.info("export: writing %s", file)
        write_file(store, group, file)
        kept = store.notes(group).get("exports", {})
        store.note(group, exports={**kept, str(file): _stamp(store.digest(group), file)})
    return "computed" if stale else "current"


def stale_files(store: Store, files: Mapping[str, Any], records: Mapping[str, Record]) -> dict[str, Path]:
    """Newest groups whose exported file is missing, was changed, or was written from something else; and their files.

    Parameters
    ----------
    store : Store
        Open in any mode.
    files : mapping of str to str or None
        Group and the file to export it to.
    records : mapping of str to Record
        What `expected_records` says.
    """
    stale = {}
    for name, file in files.items():
        if file is not None:
            group = newest(name, store, records)
            digest = records[group].digest if group in records else store.digest(group)
            written = store.notes(group).get("exports", {}).get(str(file))
            if written is None or written != _stamp(digest, Path(file)):
                stale[group] = Path(file)
    return stale


def _stamp(digest: str, file: Path) -> list[Any] | None:
    """What is noted of an exported file: digest of its group, size, time; None if it is missing."""
    if not file.is_file():
        return None
    return [digest, file.stat().st_size, file.stat().st_mtime_ns]
