"""Foreign files, read lazily: stacks of images one at a time, small tables as a whole.

A stack is a small picklable value (path, dataset, shape); workers open the file inside the task.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from ...errors import InputError
from ._stack import Stack, check_numbers, missing_dataset, reading
from .angles import TEXT_SUFFIXES, read_text_table
from .hdf5 import list_hdf5, open_hdf5, read_hdf5_table
from .mat import is_mat5, list_mat5, open_mat5, read_mat5_table
from .mrc import is_mrc, open_mrc
from .npy import is_npy, list_npz, open_npy, open_npz, read_numpy_table
from .series import SeriesSource
from .tiff import is_tiff, open_tiff

__all__ = ["SeriesSource", "Stack", "digest_of_file", "list_datasets", "open_stack", "read_table"]

MAX_TABLE_BYTES = 1 << 24
_FORMATS = "HDF5, MAT, MRC, TIFF, NPY and NPZ"


def digest_of_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits, read in pieces.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    with reading(path, "the file"), _existing(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_datasets(path: str | Path) -> dict[str, str]:
    """Datasets of an HDF5, MAT or NPZ file and what they hold, e.g. ``{"images": "46x126x401 uint16"}``.

    Other formats hold one array and have no names: the result is empty.
    """
    path = _existing(path)
    match _kind(path):
        case "hdf5":
            return list_hdf5(path)
        case "mat":
            return list_mat5(path)
        case "npz":
            return list_npz(path)
    return {}


def open_stack(path: str | Path, dataset: str | None = None) -> Stack:
    """Images in a file of any known format; no pixel is read.

    Parameters
    ----------
    path : str or Path
        The file; ``"file::dataset"`` names a dataset, too.
    dataset : str, optional
        Which array, in HDF5, MAT and NPZ files. Without it, the only one of three dimensions.

    Returns
    -------
    Stack
        With shape (tilt, y, x), dtype, and ``read(tilt)`` for one image.

    Raises
    ------
    InputError
        If the file or the dataset is missing, truncated, of unknown format, or no stack of real numbers.
    """
    path, inner = _split(path)
    dataset = inner or dataset
    kind = _kind(path)
    if kind in ("hdf5", "mat", "npz"):
        if dataset is None:
            dataset = _only_stack(path)
        openers: dict[str, Callable[[Path, str], Stack]] = {"hdf5": open_hdf5, "mat": open_mat5, "npz": open_npz}
        return openers[kind](path, dataset)
    if dataset is not None and kind != "text":
        raise InputError(f"{path} holds one array and no dataset {dataset!r}; leave the name out.")
    if kind == "mrc":
        return open_mrc(path)
    if kind == "tiff":
        return open_tiff(path)
    if kind == "npy":
        return open_npy(path)
    raise InputError(f"{path} is in no format known for images; needed is one of {_FORMATS}.")


def read_table(path: str | Path, dataset: str | None = None) -> np.ndarray:
    """A small array as a whole (angles, pixel coordinates), of real numbers.

    Parameters
    ----------
    path : str or Path
        An HDF5, MAT, NPY, NPZ or text file (CSV, TXT, .tlt, .rawtlt); ``"file::dataset"`` names a dataset, too.
    dataset : str, optional
        Which array, in HDF5, MAT and NPZ files.

    Returns
    -------
    ndarray
        As stored; one row or one column comes out one-dimensional, except for a row of 3 or 12.

    Raises
    ------
    InputError
        If the file or the dataset is missing, damaged, or holds something else than real numbers.
    """
    path, inner = _split(path)
    dataset = inner or dataset
    kind = _kind(path)
    if kind in ("hdf5", "mat", "npz") and dataset is None:
        raise missing_dataset(path, None, list_datasets(path))
    if kind == "hdf5":
        table = read_hdf5_table(path, str(dataset), MAX_TABLE_BYTES)
    elif kind == "mat":
        table = read_mat5_table(path, str(dataset), MAX_TABLE_BYTES)
    elif kind in ("npz", "npy"):
        table = read_numpy_table(path, dataset if kind == "npz" else None, MAX_TABLE_BYTES)
    elif kind == "text":
        table = read_text_table(path, MAX_TABLE_BYTES)
    else:
        raise InputError(
            f"{path} is in no format known for tables; needed is CSV, TXT, .tlt, .rawtlt, NPY, NPZ, MAT or HDF5."
        )
    check_numbers(table.dtype, str(path))
    row_of_angles = table.shape in ((1, 3), (1, 12))  # all there is to say about a single tilt
    return table.reshape(-1) if table.ndim == 2 and 1 in table.shape and not row_of_angles else table


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"The file {path} does not exist; check its name.")
    if not path.is_file():
        raise InputError(f"{path} is a folder, not a file; name the files in it.")
    return path.resolve()


def _split(path: str | Path) -> tuple[Path, str | None]:
    """A file and the dataset named behind ``::``, if any."""
    if not Path(path).exists() and "::" in str(path):
        file, _, dataset = str(path).rpartition("::")
        return _existing(file), dataset
    return _existing(path), None


def _kind(path: Path) -> str:
    """Format of a file, by its content first and its name only where the content does not say."""
    with reading(path, "the file"):
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); copy it again from its source.")
        if h5py.is_hdf5(path):
            return "hdf5"
        if is_mat5(path):
            return "mat"
        if is_npy(path):
            return "npy"
        if zipfile.is_zipfile(path):
            return "npz"
        if is_tiff(path):
            return "tiff"
        if path.suffix.lower() in TEXT_SUFFIXES:
            return "text"
        if is_mrc(path):
            return "mrc"
    expected = {".h5": "HDF5", ".hdf5": "HDF5", ".emd": "HDF5", ".mat": "MATLAB 5 to 7.3", ".npz": "NPZ", ".npy": "NPY"}
    suffix = path.suffix.lower()
    if suffix in expected:
        size = path.stat().st_size
        raise InputError(f"{path} is not a complete {expected[suffix]} file ({size} bytes); copy it again.")
    return "unknown"


def _only_stack(path: Path) -> str:
    """Name of the only three-dimensional array of numbers in a file."""
    found = list_datasets(path)
    stacks = [name for name, what in found.items() if what.split()[0].count("x") == 2]
    if len(stacks) != 1:
        why = "no dataset was named" + (f" and {len(stacks)} have three dimensions" if stacks else "")
        raise missing_dataset(path, None, found, why)
    return stacks[0]
