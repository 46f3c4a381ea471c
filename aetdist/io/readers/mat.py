"""MATLAB files: version 5 to 7 (read here, image by image) and 7.3 (HDF5).

A version 5 file is a list of elements, each usually compressed as a whole, so that scipy can only
load a variable completely. Here its compressed stream is walked instead: one image is in memory.

References
----------
"MAT-File Format", The MathWorks, chapter "Level 5 MAT-File Format".
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ...errors import InputError
from ._stack import _take, check_size, check_stack_shape, describe, missing_dataset, read_bytes, reading, stamp, streams

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_NOT_NUMBERS = {1: "cell array", 2: "struct", 3: "object", 4: "text", 5: "sparse matrix", 16: "function", 17: "object"}
_MATRIX, _COMPRESSED = 14, 15
_HEADER = 128


@dataclass(frozen=True)
class _Variable:
    """One variable: where its element begins and what it holds; `stored` is the type of the bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    complex: bool
    logical: bool
    stored: str
    start: int
    body: int
    compressed: bool

    @property
    def described(self) -> str:
        what = "logical" if self.logical else _CLASSES.get(self.kind) or _NOT_NUMBERS.get(self.kind, "unknown")
        return describe(self.shape, what if not self.complex else f"complex {what}")


@dataclass(frozen=True)
class MatStack:
    """Images (y, x, tilt) of a MATLAB 5 to 7 variable: column-major, so that each image is in one piece."""

    path: str
    variable: _Variable
    shape: tuple[int, int, int]
    dtype: str
    stamp: tuple[int, int]
    frames: int = 1

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        variable, (n, ny, nx) = self.variable, self.shape
        n_bytes = ny * nx * np.dtype(variable.stored).itemsize
        start = variable.body + tilt * n_bytes
        with reading(self.path, f"image {tilt} of {variable.name}"):
            if variable.compressed:
                data = streams.read(self, self._open, start, n_bytes, variable.body + n * n_bytes)
            else:
                data = read_bytes(self.path, variable.start + start, n_bytes)
        image = np.frombuffer(data, variable.stored).reshape(nx, ny).T
        return image != 0 if variable.logical else image.astype(self.dtype)

    def _open(self) -> BinaryIO:
        return _element(Path(self.path), self.variable.start, True)


def is_mat5(path: Path) -> bool:
    """Whether a file begins like a MATLAB 5 to 7 file."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
    return len(head) == _HEADER and head.startswith(b"MATLAB 5.0") and head[126:] in (b"IM", b"MI")


def list_mat5(path: Path) -> dict[str, str]:
    """Variables of a file and what they hold, in MATLAB's order of axes."""
    return {variable.name: variable.described for variable in _variables(path)}


def open_mat5(path: Path, dataset: str) -> MatStack:
    """A stack of images; MATLAB's (y, x, tilt) and (y, x, frame, tilt) are turned round. Reads headers only.

    Raises
    ------
    InputError
        If the variable is missing or no stack of real numbers, or the file is truncated.
    """
    variable = _find(path, dataset)
    if len(variable.shape) not in (2, 3, 4):
        raise InputError(
            f"{path}::{dataset} has shape {variable.shape}; needed is a stack of images, in MATLAB (y, x, tilt)."
        )
    ny, nx, *stacked = variable.shape
    shape, frames = check_stack_shape((*stacked[::-1], ny, nx), f"{path}::{dataset}")
    dtype = "bool" if variable.logical else _CLASSES[variable.kind]
    return MatStack(str(path), variable, shape, dtype, stamp(path), frames)


def read_mat5_table(path: Path, dataset: str, max_bytes: int) -> np.ndarray:
    """A small variable as a whole, with MATLAB's axes."""
    variable = _find(path, dataset)
    n_bytes = math.prod(variable.shape) * np.dtype(variable.stored).itemsize
    if n_bytes > max_bytes:
        raise InputError(f"{path}::{dataset} holds {variable.described}, too much for a table; name another variable.")
    with reading(path, dataset), _element(path, variable.start, variable.compressed) as stream:
        _take(stream, variable.body)
        values = np.frombuffer(_take(stream, n_bytes), variable.stored).reshape(variable.shape, order="F")
    return values != 0 if variable.logical else values.astype(_CLASSES[variable.kind])


def _find(path: Path, dataset: str) -> _Variable:
    found = {variable.name: variable for variable in _variables(path)}
    if dataset not in found:
        raise missing_dataset(path, dataset, {name: variable.described for name, variable in found.items()})
    variable = found[dataset]
    if variable.kind not in _CLASSES:
        what = _NOT_NUMBERS.get(variable.kind, "thing of unknown kind")
        raise InputError(f"{path}::{dataset} is a MATLAB {what}; needed is a full array of numbers.")
    if variable.complex:
        raise InputError(
            f"{path}::{dataset} holds complex numbers; needed are real ones: save the modulus or real part."
        )
    return variable


def _variables(path: Path) -> Iterator[_Variable]:
    """Headers of all variables; checks that the file holds as many bytes as it says."""
    with reading(path, "the list of variables"), path.open("rb") as file:
        head = file.read(_HEADER)
        order = "<" if head[126:] == b"IM" else ">"
        size, start = path.stat().st_size, _HEADER
        while start < size:
            check_size(path, start + 8, "the next variable")
            file.seek(start)
            kind, n_bytes = struct.unpack(order + "II", file.read(8))
            check_size(path, start + 8 + n_bytes, "a variable")
            if kind in (_MATRIX, _COMPRESSED):
                with _element(path, start, kind == _COMPRESSED) as stream:
                    variable = _header(stream, order, start, kind == _COMPRESSED)
                if variable is not None:
                    yield variable
            start += 8 + n_bytes


def _header(stream: BinaryIO, order: str, start: int, compressed: bool) -> _Variable | None:
    """What an element says before its numbers come; None for MATLAB's own unnamed bookkeeping."""
    position = 0

    def tag() -> tuple[int, int, int]:
        """Type and bytes of the element that follows, and how many bytes its padded body takes."""
        nonlocal position
        first, n_bytes = struct.unpack(order + "II", _take(stream, 8))
        position += 8
        if first >> 16:  # a small element: its up to 4 bytes lie in the tag
            raise _Small(first & 0xFFFF, first >> 16, struct.pack(order + "I", n_bytes))
        return first, n_bytes, n_bytes + -n_bytes % 8

    def body(limit: int) -> bytes:
        nonlocal position
        try:
            _, n_bytes, padded = tag()
        except _Small as small:
            return small.data[: small.n_bytes]
        if n_bytes > limit:
            raise ValueError(f"a header of {n_bytes} bytes")
        position += padded
        return _take(stream, padded)[:n_bytes]

    outer, _, _ = tag()
    if outer != _MATRIX:
        return None
    flags = struct.unpack(order + "II", body(8))[0]
    kind = flags & 0xFF
    if kind == 17:
        return None
    raw = body(256)
    shape = struct.unpack(f"{order}{len(raw) // 4}i", raw)
    name = body(4096).decode(errors="replace")
    if not name or min(shape, default=0) < 0:
        return None
    stored = ""
    if kind in _CLASSES:
        try:
            code, n_bytes, _ = tag()
        except _Small as small:
            code, n_bytes = small.code, small.n_bytes
            position -= 4
        if code not in _STORED or n_bytes != math.prod(shape) * np.dtype(_STORED[code]).itemsize:
            raise ValueError(f"variable {name} of shape {shape} says it has {n_bytes} bytes of type {code}")
        stored = order + _STORED[code]
    return _Variable(name, shape, kind, bool(flags & 0x800), bool(flags & 0x200), stored, start, position, compressed)


class _Small(Exception):
    """A small data element: type, number of bytes and the bytes themselves."""

    def __init__(self, code: int, n_bytes: int, data: bytes) -> None:
        super().__init__(code, n_bytes, data)
        self.code, self.n_bytes, self.data = code, n_bytes, data


def _element(path: Path, start: int, compressed: bool) -> BinaryIO:
    """The bytes of the element at `start`, tag included, unpacked if need be."""
    file = path.open("rb")
    file.seek(start + 8 if compressed else start)
    return cast(BinaryIO, io.BufferedReader(_Inflated(file), 1 << 16)) if compressed else file


class _Inflated(io.RawIOBase):
    """A zlib stream in a file, as a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._unpacker = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        while not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._file.read(1 << 16)
            data = self._unpacker.decompress(packed, len(buffer))  # b"" too: output may be left inside
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed:
                break
        return 0

    def close(self) -> None:
        self._file.close()
        super().close()
