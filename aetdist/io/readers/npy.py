"""NumPy files: .npy, and arrays in an .npz; pickles are refused."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from numpy.lib import format as npy_format

from ...errors import InputError
from ._stack import (
    _take,
    check_numbers,
    check_size,
    check_stack_shape,
    describe,
    missing_dataset,
    read_bytes,
    reading,
    stamp,
    streams,
)

_MAX_HEADER = 10_000  # bytes; NumPy's own limit


class _Header(NamedTuple):
    """What the header of an .npy says; `start` is where the numbers begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int

    @property
    def end(self) -> int:
        """Where the numbers end."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class NpyStack:
    """Images in an .npy file, or in the array `member` of an .npz."""

    path: str
    member: str | None
    shape: tuple[int, int, int]
    dtype: str
    stamp: tuple[int, int]
    start: int
    fortran: bool = False
    frames: int = 1

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        n, ny, nx = self.shape
        n_bytes = ny * nx * np.dtype(self.dtype).itemsize
        start = self.start + tilt * n_bytes
        with reading(self.path, f"image {tilt}"):
            if self.fortran:
                mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
                return np.array(
                    mapped[np.unravel_index(tilt, mapped.shape[:-2])] if mapped.ndim > 2 else mapped, order="C"
                )
            if self.member is None:
                data = read_bytes(self.path, start, n_bytes)
            else:
                data = streams.read(self, self._open, start, n_bytes, self.start + n * n_bytes)
            return np.frombuffer(data, self.dtype).reshape(ny, nx)

    def _open(self) -> BinaryIO:
        return _member(Path(self.path), cast(str, self.member))


def is_npy(path: Path) -> bool:
    """Whether a file begins with the magic bytes of an .npy, whatever it is called."""
    with path.open("rb") as file:
        return file.read(6) == npy_format.MAGIC_PREFIX


def list_npz(path: Path) -> dict[str, str]:
    """Names of the arrays in an .npz, and shape and type of each in words; only headers are read."""
    found = {}
    with reading(path, "the list of arrays"), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as stream:
                    header = _header(cast(BinaryIO, stream))
                found[name.removesuffix(".npy")] = describe(header.shape, header.dtype)
    return found


def open_npy(path: Path) -> NpyStack:
    """A stack of images (tilt, y, x) in an .npy; reads the header only.

    Raises
    ------
    InputError
        If the file is truncated, or holds pickled objects or other things than real numbers.
    """
    with reading(path, "the .npy header"), path.open("rb") as file:
        header = _header(file)
    check_numbers(header.dtype, str(path))
    shape, frames = check_stack_shape(header.shape, str(path))
    check_size(path, header.end, f"an array of {describe(header.shape, header.dtype)}")
    return NpyStack(str(path), None, shape, header.dtype.str, stamp(path), header.start, header.fortran, frames)


def open_npz(path: Path, dataset: str) -> NpyStack:
    """A stack of images (tilt, y, x) in an array of an .npz; reads headers only.

    Raises
    ------
    InputError
        As :func:`open_npy`; also for Fortran order, of which one image cannot be read alone.
    """
    header, size = _find(path, dataset)
    where = f"{path}::{dataset}"
    shape, frames = check_stack_shape(header.shape, where)
    if header.fortran:
        raise InputError(f"{where} is in Fortran order, of which images cannot be read alone; save it in C order.")
    if size < header.end:
        raise InputError(f"{where} is truncated: {header.end} bytes are needed, there are {size}; save it again.")
    return NpyStack(str(path), f"{dataset}.npy", shape, header.dtype.str, stamp(path), header.start, False, frames)


def read_numpy_table(path: Path, dataset: str | None, max_bytes: int) -> np.ndarray:
    """A small array as a whole, from an .npy (`dataset` None) or an .npz."""
    if dataset is not None:
        header, _ = _find(path, dataset)
    else:
        with reading(path, "the .npy header"), path.open("rb") as file:
            header = _header(file)
        check_numbers(header.dtype, str(path))
        check_size(path, header.end, f"an array of {describe(header.shape, header.dtype)}")
    if header.end > max_bytes:
        what = describe(header.shape, header.dtype)
        raise InputError(f"{path} holds {what}, too much for a table; name another array.")
    with reading(path, dataset or "the array"):
        if dataset is None:
            return np.load(path, allow_pickle=False)
        with np.load(path, allow_pickle=False) as archive:
            return archive[dataset]


def _find(path: Path, dataset: str) -> tuple[_Header, int]:
    """Header of an array in an .npz, and the unpacked size the archive states for it."""
    with reading(path, "the archive"), zipfile.ZipFile(path) as archive:
        if f"{dataset}.npy" not in archive.namelist():
            raise missing_dataset(path, dataset, list_npz(path))
        with archive.open(f"{dataset}.npy") as stream:
            header = _header(cast(BinaryIO, stream))
        size = archive.getinfo(f"{dataset}.npy").file_size
    check_numbers(header.dtype, f"{path}::{dataset}")
    return header, size


def _member(path: Path, member: str) -> BinaryIO:
    with zipfile.ZipFile(path) as archive:  # the member keeps the file open for itself
        return cast(BinaryIO, archive.open(member))


def _header(stream: BinaryIO) -> _Header:
    version = npy_format.read_magic(stream)
    read, width = {(1, 0): (npy_format.read_array_header_1_0, 2)}.get(version, (npy_format.read_array_header_2_0, 4))
    length = _take(stream, width)
    n_bytes = int.from_bytes(length, "little")
    if n_bytes > _MAX_HEADER:  # NumPy looks only when it has made room for it
        raise ValueError(f"a header of {n_bytes} bytes")
    shape, fortran, dtype = read(io.BytesIO(length + _take(stream, n_bytes)))
    return _Header(shape, fortran and len(shape) > 1, dtype, stream.tell())
