"""What a file for other programs is written as: its name says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import xarray as xr

from ..errors import InputError
from .csv_atoms import write_csv
from .groups import VOLUME
from .mrc_export import write_mrc
from .ome_zarr import check_replaceable, write_ome_zarr
from .regions import store_errors
from .tiff_export import write_tiff
from .xyz import write_xyz

Writer = Callable[[str | Path, xr.Dataset], None]
ATOM_FILES: dict[str, Writer] = {".xyz": write_xyz, ".extxyz": write_xyz, ".csv": write_csv}
VOLUME_FILES: dict[str, Writer] = {
    ".mrc": write_mrc, ".map": write_mrc, ".rec": write_mrc,
    ".tif": write_tiff, ".tiff": write_tiff, ".ome.zarr": write_ome_zarr,
}  # fmt: skip


def check_export(group: str, file: Path) -> Writer:
    """What writes a group to a file.

    Parameters
    ----------
    group : str
        Name of a group of a store: the volume, or else one of atoms.
    file : Path
        Where to.

    Returns
    -------
    callable
        Writes a Dataset to a path.

    Raises
    ------
    InputError
        If the name does not end as one of the formats does, there is no folder to write it into, or something that is
        never replaced is there.
    """
    what, files = ("volume", VOLUME_FILES) if group == VOLUME else ("atoms", ATOM_FILES)
    ending = next((ending for ending in files if file.name.lower().endswith(ending)), None)
    if ending is None:
        raise InputError(f"{file.name} came for the {what}; needed is a name that ends in {', '.join(files)}.")
    if not file.parent.is_dir():
        raise InputError(f"There is no folder {file.parent} to write {file.name} into; make it, or name another.")
    if files[ending] is write_ome_zarr:
        check_replaceable(file)
    elif file.is_dir():
        raise InputError(f"{file} is a folder; give the name of a file.")
    return files[ending]


def write_export(group: str, file: Path, dataset: xr.Dataset) -> None:
    """Computes: a group, and writes it to a file of the format that the file's name says.

    Raises
    ------
    InputError
        If `check_export` refuses it, or the format cannot hold what the group holds.
    StoreError
        If the disk is full or the place cannot be written to.
    """
    write = check_export(group, file)
    with store_errors(file):
        write(file, dataset)
