"""Files for other programs, and whether they are as the store is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._usage import accounted
from .errors import InputError
from .io import Record, Store, check_export, newest, write_export
from .io.groups import ATOMS, VOLUME
from .io.places import local_path, place

Summary = dict[str, Any]

log = logging.getLogger(__name__)


def export(path: str | Path, *, atoms: str | Path | None = None, volume: str | Path | None = None) -> Summary:
    """Computes: files for other programs; one that is there is replaced.

    Parameters
    ----------
    path : str or Path
        The store.
    atoms : str or Path, optional
        File to write the atoms to, in Angstrom, ``.xyz`` (extended XYZ) or ``.csv``: the calibrated, else the refined,
        else the classified, else the traced ones, whichever are the last that were made from what the store holds now.
    volume : str or Path, optional
        File to write the volume to: ``.mrc``, ``.tif``, or the folder ``.ome.zarr`` (OME-Zarr 0.5); each says how large
        a voxel is and where the first one lies.

    Returns
    -------
    dict
        ``atoms`` and ``volume``, the files; ``atoms_from``, the group ...

    Raises
    ------
    InputError
        If neither is asked for, or a file cannot be written as its name says.
    StoreError
        If the store does not hold what is asked for.
    """
    if atoms is None and volume is None:
        raise InputError("Nothing to export came; name a file for atoms, for volume, or for both.")
    check_files({ATOMS: atoms, VOLUME: volume})
    with accounted() as summary, Store.open(path) as store:
        if atoms is not None:
            group = newest(ATOMS, store)
            write_export(group, local_path(atoms), store.read(group))
            summary |= {"atoms": str(atoms), "atoms_from": group}
        if volume is not None:
            write_export(VOLUME, local_path(volume), store.read(VOLUME))
            summary["volume"] = str(volume)
    return summary


def check_files(files: Mapping[str, Any]) -> None:
    """Refuse what cannot be exported, before anything is computed; `files` are by group, None is none."""
    for group, file in files.items():
        if file is not None:
            check_export(group, local_path(file))


def report(path: str | Path, output: str | Path | None = None, **options: Any) -> Summary:
    """Computes: the report of a store, one page that needs nothing else.

    Parameters
    ----------
    path : str or Path
        The store, in any state.
    output : str or Path, optional
        The file. Default: ``run.html`` for ``run.zarr``, beside it or, where that is in S3, here.
    **options
        Of `aetdist.write_report`.

    Returns
    -------
    dict
        ``report``: the file, ``report_bytes``.
    """
    from ._report import write_report

    with accounted() as summary:
        store = place(path)
        beside = store.with_suffix(".html") if isinstance(store, Path) else f"{store.stem}.html"
        page = write_report(path, output or beside, **options)
        summary |= {"report": str(page), "report_bytes": page.stat().st_size}
    return summary


def export_stale(store: Store, files: Mapping[str, Any], records: Mapping[str, Record]) -> str:
    """Computes: the files that are stale, and notes what they were written from; "computed" or "current"."""
    stale = stale_files(store, files, records)
    for group, file in stale.items():
        log.info("export: writing %s", file)
        write_export(group, file, store.read(group))
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
    written = file / "zarr.json" if file.is_dir() else file  # the metadata of a folder are written last
    if not written.is_file():
        return None
    return [digest, written.stat().st_size, written.stat().st_mtime_ns]
