"""TIFF: a stack in one file, or one image a file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from ...errors import InputError
from ._stack import check_numbers, check_size, check_stack_shape, read_bytes, reading, stamp

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class TiffStack:
    """Images in a TIFF file: in one piece from `start` on, or (None) each on its own page."""

    path: str
    shape: tuple[int, int, int]
    dtype: str
    stamp: tuple[int, int]
    start: int | None = None
    frames: int = 1

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        _, ny, nx = self.shape
        with reading(self.path, f"image {tilt}"):
            if self.start is not None:
                n_bytes = ny * nx * np.dtype(self.dtype).itemsize
                data = read_bytes(self.path, self.start + tilt * n_bytes, n_bytes)
                return np.frombuffer(data, self.dtype).reshape(ny, nx)
            with tifffile.TiffFile(self.path, _multifile=False) as file:
                image = np.asarray(file.pages[tilt].asarray(maxworkers=1))
        kinds = {np.dtype(kind).newbyteorder("=") for kind in (image.dtype, self.dtype)}
        if image.shape != (ny, nx) or len(kinds) > 1:
            raise InputError(
                f"{self.path}: page {tilt} holds {image.shape} {image.dtype}, the first one {(ny, nx)} {self.dtype}; "
                "save images of one kind."
            )
        return image


def is_tiff(path: Path) -> bool:
    """Whether a file begins like a TIFF or BigTIFF."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def open_tiff(path: Path) -> TiffStack:
    """A stack of images (tilt, y, x); reads the directories only.

    Raises
    ------
    InputError
        If the file is truncated, holds colours or more than one series of images.
    """
    _check_directories(path)
    # OME-XML may name other files, wherever they are: these are not read.
    with reading(path, "the TIFF directory"), tifffile.TiffFile(path, _multifile=False) as file:
        if len(file.series) != 1:
            shapes = ", ".join(str(series.shape) for series in file.series)
            raise InputError(f"{path} holds {len(file.series)} series of images ({shapes}); save one series alone.")
        series = file.series[0]
        if "S" in series.axes:
            raise InputError(f"{path} holds colours (axes {series.axes}); needed are grey images: save it as such.")
        if series.is_multifile:
            raise InputError(f"{path} is one of several files of a series; name all the files instead.")
        dtype, start, n_pages = np.dtype(series.dtype), series.dataoffset, len(series.pages)
        check_numbers(dtype, str(path))
        shape, frames = check_stack_shape(series.shape, str(path))
        if start is not None:
            dtype = dtype.newbyteorder(file.byteorder)
            needed = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
        else:
            if n_pages != shape[0]:
                raise InputError(f"{path} has {n_pages} pages for images of shape {shape}; save one image a page.")
            needed = max(
                offset + count
                for page in file.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            )
    check_size(path, needed, f"a stack of {shape} {dtype}")
    return TiffStack(str(path), shape, dtype.str, stamp(path), start, frames)


def _check_directories(path: Path) -> None:
    """Follow the chain of directories, which tifffile silently cuts short in a truncated file."""
    size = path.stat().st_size
    with reading(path, "the TIFF directory"), path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        number, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
        width = struct.calcsize(order + number), struct.calcsize(order + link)
        offset = struct.unpack_from(order + link, head, 8 if big else 4)[0]
        seen: set[int] = set()
        while offset:
            check_size(path, offset + width[0], "the next TIFF directory")
            if offset in seen or offset > size:
                raise InputError(f"{path}: the TIFF directories run in a circle; the file is damaged.")
            seen.add(offset)
            file.seek(offset)
            n_entries = struct.unpack(order + number, file.read(width[0]))[0]
            after = offset + width[0] + n_entries * entry
            check_size(path, after + width[1], "a TIFF directory")
            file.seek(after)
            offset = struct.unpack(order + link, file.read(width[1]))[0]
