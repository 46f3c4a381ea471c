"""MRC stacks (.mrc, .st, .ali, .preali, .rec, .map): the header by mrcfile, images by their place in the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
from mrcfile.mrcfile import MrcFile

from ...errors import InputError
from ._stack import check_numbers, check_size, check_stack_shape, read_bytes, reading, stamp

SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".preali", ".rec", ".map", ".ccp4")
_HEADER = 1024
_IMOD_STAMP = 1146047817
_IMOD_SIGNED = 1


@dataclass(frozen=True)
class MrcStack:
    """Images in an MRC file, one after the other from `start` on."""

    path: str
    shape: tuple[int, int, int]
    dtype: str
    stamp: tuple[int, int]
    start: int
    frames: int = 1

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        _, ny, nx = self.shape
        n_bytes = ny * nx * np.dtype(self.dtype).itemsize
        with reading(self.path, f"image {tilt}"):
            data = read_bytes(self.path, self.start + tilt * n_bytes, n_bytes)
        return np.frombuffer(data, self.dtype).reshape(ny, nx)


def is_mrc(path: Path) -> bool:
    """Whether a file says that it is MRC, or is called so (old files carry no stamp)."""
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(_HEADER)[208:212] == b"MAP "


def open_mrc(path: Path) -> MrcStack:
    """A stack of images (tilt, y, x); reads the header only.

    Raises
    ------
    InputError
        If the file is shorter than its header says, or holds complex numbers.
    """
    if path.suffix.lower() in (".gz", ".bz2"):
        raise InputError(f"{path} is compressed; unpack it first, so that single images can be read.")
    check_size(path, _HEADER, "the MRC header")
    with mrc_header(path) as file:
        header = file.header.copy()
        dtype = mrcfile.utils.data_dtype_from_header(header)
        shape = mrcfile.utils.data_shape_from_header(header)
    check_numbers(dtype, str(path))
    if header.mode == 0 and _imod_unsigned(path, header):
        dtype = np.dtype(np.uint8)
    shape, frames = check_stack_shape(shape, str(path))
    start = _HEADER + int(header.nsymbt)
    check_size(path, start + int(np.prod(shape, dtype=object)) * dtype.itemsize, f"a stack of {shape} {dtype}")
    return MrcStack(str(path), shape, dtype.str, stamp(path), start, frames)


@contextmanager
def mrc_header(path: Path) -> Iterator[MrcFile]:
    """Header and extended header of an MRC file, by mrcfile.

    Raises
    ------
    InputError
        If the file is shorter than these.
    """
    with reading(path, "the MRC header"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old headers lack stamps that mrcfile warns about; we check sizes ourselves
        with _HeaderOnly(path, permissive=True, header_only=True) as file:
            yield file


class _HeaderOnly(MrcFile):
    """mrcfile makes room for the extended header before it looks how long the file is."""

    def _read_extended_header(self) -> None:
        check_size(Path(self._iostream.name), _HEADER + int(self.header.nsymbt), "the extended header")
        super()._read_extended_header()


def _imod_unsigned(path: Path, header: np.void) -> bool:
    """Whether IMOD wrote the bytes of mode 0 as unsigned: its stamp is there and its flag for signed is not."""
    words = np.frombuffer(read_bytes(path, 152, 8), header.dtype["mode"].str)
    return int(words[0]) == _IMOD_STAMP and not int(words[1]) & _IMOD_SIGNED
