"""Foreign files, read lazily: stacks of images one at a time, small tables as a whole.

A stack is a small picklable value (path, dataset, shape); workers open the file inside the task.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from ...errors import InputError
from ._stack import Stack, TransposedStack, check_numbers, missing_dataset, reading
from .angles import TEXT_SUFFIXES, read_names, read_text_table
from .calibration import Calibration, calibration_of
from .files import in_natural_order, in_order_of, list_files, match_names
from .hdf5 import list_hdf5, open_hdf5, read_hdf5_table
from .mat import is_mat5, list_mat5, open_mat5, read_mat5_table
from .mdoc import read_mdoc
from .mrc import is_mrc, open_mrc
from .npy import is_npy, list_npz, open_npy, open_npz, read_numpy_table
from .rosetta import is_dm, is_emd, open_rosetta
from .ser import is_ser, open_ser
from .series import SeriesSource
from .tiff import is_tiff, open_tiff

__all__ = [
    "Calibration",
    "SeriesSource",
    "Stack",
    "TransposedStack",
    "digest_of_file",
    "has_frames",
    "in_natural_order",
    "in_order_of",
    "list_datasets",
    "list_files",
    "match_names",
    "open_frames",
    "open_stack",
    "read_calibration",
    "read_order",
    "read_table",
]

MAX_TABLE_BYTES = 1 << 24
_FORMATS = "HDF5, MAT, MRC, TIFF, NPY, NPZ, SER, DM3, DM4 and EMD"


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
        case "hdf5" | "emd":
            return list_hdf5(path)
        case "mat":
            return list_mat5(path)
        case "npz":
            return list_npz(path)
    return {}


def open_stack(path: str | Path, dataset: str | None = None) -> Stack:
    """Images in a file of any known format, one for each tilt; no pixel is read.

    Parameters
    ----------
    path : str or Path
        The file; ``"file::dataset"`` names a dataset, too.
    dataset : str, optional
        Which array, in HDF5, MAT and NPZ files; which title, in EMD and DM files. Without it, the only
        one of three dimensions.

    Returns
    -------
    Stack
        With shape (tilt, y, x), dtype, and ``read(tilt)`` for one image.

    Raises
    ------
    InputError
        If the file or the dataset is missing, truncated, of unknown format, or no stack of real numbers.
    """
    stack = open_frames(path, dataset)
    if stack.frames > 1:
        n, ny, nx = stack.shape
        raise InputError(
            f"{path} has shape {(n // stack.frames, stack.frames, ny, nx)}; needed is a stack of images (tilt, y, x). "
            f"Import {stack.frames} frames of each tilt as such (--raw, import_acquisition), or sum them first."
        )
    return stack


def open_frames(path: str | Path, dataset: str | None = None) -> Stack:
    """Images in a file of any known format, as :func:`open_stack`, also several frames of each tilt.

    Returns
    -------
    Stack
        With shape (tilt * frames, y, x), frames, dtype, and ``read(k)`` for one image.

    Raises
    ------
    InputError
        As :func:`open_stack`.
    """
    path, inner = _split(path)
    dataset = inner or dataset
    kind = _kind_of(path, dataset)
    if kind in ("hdf5", "mat", "npz"):
        if dataset is None:
            dataset = _only_stack(path)
        openers: dict[str, Callable[[Path, str], Stack]] = {"hdf5": open_hdf5, "mat": open_mat5, "npz": open_npz}
        return openers[kind](path, dataset)
    if kind in ("dm", "emd"):
        return open_rosetta(path, kind, dataset)
    if dataset is not None and kind not in ("text", "mdoc"):
        raise InputError(f"{path} holds one array and no dataset {dataset!r}; leave the name out.")
    single: dict[str, Callable[[Path], Stack]] = {"mrc": open_mrc, "tiff": open_tiff, "npy": open_npy, "ser": open_ser}
    if kind in single:
        return single[kind](path)
    raise InputError(f"{path} is in no format known for images; needed is one of {_FORMATS}.")


def has_frames(files: str | Path | Sequence[str | Path], dataset: str | None = None) -> bool:
    """Whether the first file holds several frames of each tilt: an array of four axes."""
    return open_frames(list_files(files)[0], dataset).frames > 1


def read_calibration(path: str | Path, dataset: str | None = None) -> Calibration:
    """What a file says of its pixel size, the stage's tilt and the microscope; reads headers only.

    Raises
    ------
    InputError
        If the file is missing or damaged, or its pixels are no lengths.
    """
    path, inner = _split(path)
    return calibration_of(path, _kind_of(path, inner or dataset), inner or dataset)


def read_order(path: str | Path) -> tuple[str, ...] | None:
    """Names of files, in the order of a table that has them: an .mdoc, or a column of a text file.

    Returns
    -------
    tuple of str or None
        Without folders; None if the table names no files.

    Raises
    ------
    InputError
        If the table is missing or damaged.
    """
    path, _ = _split(path)
    match _kind(path):
        case "mdoc":
            return read_mdoc(path).names
        case "text":
            return read_names(path, MAX_TABLE_BYTES)
    return None


def read_table(path: str | Path, dataset: str | None = None) -> np.ndarray:
    """A small array as a whole (angles, pixel coordinates), of real numbers.

    Parameters
    ----------
    path : str or Path
        An HDF5, MAT, NPY, NPZ or text file (CSV, TXT, .tlt, .rawtlt); ``"file::dataset"`` names a dataset, too.
    dataset : str, optional
        Which array, in HDF5, MAT and NPZ files; not needed in a MAT file of a single variable.

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
    if dataset is None and path.suffix.lower() == ".mat" and len(found := list_datasets(path)) == 1:
        dataset = next(iter(found))
    if kind in ("hdf5", "mat", "npz") and dataset is None:
        raise missing_dataset(path, None, list_datasets(path))
    if kind == "hdf5":
        table = read_hdf5_table(path, str(dataset), MAX_TABLE_BYTES)
    elif kind == "mat":
        table = read_mat5_table(path, str(dataset), MAX_TABLE_BYTES)
    elif kind in ("npz", "npy"):
        table = read_numpy_table(path, dataset if kind == "npz" else None, MAX_TABLE_BYTES)
    elif kind == "mdoc":
        table = read_mdoc(path).tilts
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
            return "emd" if path.suffix.lower() == ".emd" and is_emd(path) else "hdf5"
        if is_mat5(path):
            return "mat"
        if is_npy(path):
            return "npy"
        if zipfile.is_zipfile(path):
            return "npz"
        if is_tiff(path):
            return "tiff"
        if is_ser(path):
            return "ser"
        if is_dm(path):
            return "dm"
        if path.suffix.lower() == ".mdoc":
            return "mdoc"
        if path.suffix.lower() in TEXT_SUFFIXES:
            return "text"
        if is_mrc(path):
            return "mrc"
    expected = {".h5": "HDF5", ".hdf5": "HDF5", ".emd": "HDF5", ".mat": "MATLAB 5 to 7.3", ".npz": "NPZ", ".npy": "NPY"}
    expected |= {".dm3": "DM3", ".dm4": "DM4", ".ser": "SER"}
    suffix = path.suffix.lower()
    if suffix in expected:
        size = path.stat().st_size
        raise InputError(f"{path} is not a complete {expected[suffix]} file ({size} bytes); copy it again.")
    return "unknown"


def _kind_of(path: Path, dataset: str | None) -> str:
    """Format of a file; an EMD of which a dataset is named by its path is read as HDF5."""
    kind = _kind(path)
    return "hdf5" if kind == "emd" and dataset is not None and dataset.strip("/") in list_hdf5(path) else kind


def _only_stack(path: Path) -> str:
    """Name of the only three-dimensional (or else four-dimensional) array of numbers in a file."""
    found = list_datasets(path)
    axes = {name: what.split()[0].count("x") + 1 for name, what in found.items()}
    stacks = [name for name in found if axes[name] == 3] or [name for name in found if axes[name] == 4]
    if len(stacks) != 1:
        why = "no dataset was named" + (
            f" and {len(stacks)} have {'three' if axes[stacks[0]] == 3 else 'four'} dimensions" if stacks else ""
        )
        raise missing_dataset(path, None, found, why)
    return stacks[0]
