"""What every reader shares: a stack of images that is read one image at a time, and how it fails."""

from __future__ import annotations

import math
import struct
import threading
import tokenize
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from zipfile import BadZipFile

import numpy as np

from ...errors import InputError

_PIECE = 1 << 17
_MAX_LISTED = 20


class Stack(Protocol):
    """A stack of images in a file: a small picklable value that opens the file only to read.

    Attributes
    ----------
    path : str
        Where the file lies, absolute.
    shape : tuple of int
        (tilt, y, x); where there are several frames of a tilt, these come one after the other.
    frames : int
        Frames of a tilt, of which the file says so by an axis of its own.
    dtype : str
        Kind of number that :meth:`read` returns.
    """

    @property
    def path(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def frames(self) -> int: ...

    @property
    def dtype(self) -> str: ...

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        ...


@dataclass(frozen=True)
class TransposedStack:
    """A stack whose images are stored (x, y)."""

    stack: Stack

    @property
    def path(self) -> str:
        return self.stack.path

    @property
    def shape(self) -> tuple[int, int, int]:
        n, nx, ny = self.stack.shape
        return n, ny, nx

    @property
    def frames(self) -> int:
        return self.stack.frames

    @property
    def dtype(self) -> str:
        return self.stack.dtype

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        return self.stack.read(tilt).T


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file: part of a task's name, so that a changed file is read again."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def describe(shape: tuple[int, ...], dtype: object) -> str:
    """Shape and kind of number in a line of an error."""
    return f"{'x'.join(map(str, shape)) or 'scalar'} {dtype}"


def missing_dataset(path: str | Path, dataset: str | None, found: dict[str, str], why: str = "") -> InputError:
    """The error for a dataset that is not there (or not said): lists what there is, with shapes."""
    listed = [f"{name} ({what})" for name, what in list(found.items())[:_MAX_LISTED]]
    if len(found) > _MAX_LISTED:
        listed.append(f"and {len(found) - _MAX_LISTED} more")
    has = f"it has {', '.join(listed)}" if listed else "it has none"
    if dataset is None:
        return InputError(f"{path}: {why or 'no dataset was named'}; {has}; name one.")
    return InputError(f"{path} has no dataset {dataset!r}{why}; {has}.")


def check_numbers(dtype: np.dtype, where: str) -> None:
    """Refuse anything but real numbers (and booleans).

    Raises
    ------
    InputError
        For complex, structured, text or object data.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        raise InputError(
            f"{where} holds complex numbers ({dtype}); needed are real ones: save the modulus or real part."
        )
    if dtype.kind not in "fiub":
        raise InputError(f"{where} holds {dtype}, not numbers; needed is an array of integers or floats.")


def check_stack_shape(shape: tuple[int, ...], where: str) -> tuple[tuple[int, int, int], int]:
    """`shape` as (tilt, y, x), and the number of frames: (tilt, frame, y, x) becomes (tilt * frame, y, x).

    A single image becomes a stack of one.

    Raises
    ------
    InputError
        If there are not two to four axes, or one of them is empty.
    """
    shape = tuple(int(n) for n in shape)
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise InputError(
            f"{where} has shape {shape}; needed is a stack of images (tilt, y, x), or of frames (tilt, frame, y, x), "
            "none of them empty."
        )
    *stacked, ny, nx = shape
    return (math.prod(stacked), ny, nx), stacked[1] if len(stacked) == 2 else 1


def check_size(path: Path, needed: int, what: str) -> None:
    """Refuse a file that is shorter than its header says, before anything is allocated.

    Raises
    ------
    InputError
        With both sizes in bytes.
    """
    size = path.stat().st_size
    if size < needed:
        raise InputError(
            f"{path} is truncated: {what} needs {needed} bytes, the file has {size}; copy it again from its source."
        )


@contextmanager
def reading(path: str | Path, what: str) -> Iterator[None]:
    """Turn the many ways in which a damaged file fails into one error that names it."""
    try:
        yield
    except InputError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
        AssertionError,
        struct.error,
        tokenize.TokenError,
        zlib.error,
        BadZipFile,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: {what} cannot be read ({reason}); is the file damaged or incomplete?") from error


class ForwardStreams:
    """Streams that can only be read forwards (compressed data), kept open between reads.

    Reading images in rising order then costs one pass through the data, not one for each image.
    At most `limit` streams stay open in a process; one that has been read to its end is closed.
    """

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._streams: dict[object, tuple[BinaryIO, int]] = {}
        self._lock = threading.Lock()

    def read(self, key: object, opened: Callable[[], BinaryIO], start: int, n_bytes: int, end: int) -> bytes:
        """Bytes [start, start + n_bytes) of a stream of which bytes up to `end` are wanted.

        Raises
        ------
        EOFError
            If the stream ends before.
        """
        with self._lock:
            stream, position = self._streams.pop(key, (None, 0))
        if stream is not None and position > start:
            stream.close()
            stream = None
        if stream is None:
            stream, position = opened(), 0
        try:
            while position < start:
                position += len(_take(stream, min(_PIECE, start - position)))
            data = _take(stream, n_bytes)
        except BaseException:
            stream.close()
            raise
        if start + n_bytes >= end:
            stream.close()
        else:
            self._keep(key, stream, start + n_bytes)
        return data

    def _keep(self, key: object, stream: BinaryIO, position: int) -> None:
        with self._lock:
            displaced = [self._streams.pop(key, None)]
            self._streams[key] = (stream, position)
            while len(self._streams) > self._limit:
                displaced.append(self._streams.pop(next(iter(self._streams))))
        for entry in displaced:
            if entry is not None:
                entry[0].close()


def _take(stream: BinaryIO, n_bytes: int) -> bytes:
    """Exactly `n_bytes`, read in pieces so that a lying header cannot ask for more memory than there is data."""
    pieces = []
    while n_bytes > 0:
        piece = stream.read(min(_PIECE, n_bytes))
        if not piece:
            raise EOFError(f"the data end {n_bytes} bytes too early")
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def read_bytes(path: str | Path, offset: int, n_bytes: int) -> bytes:
    """`n_bytes` of a file from `offset` on; EOFError if it ends before."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        return _take(file, n_bytes)


streams = ForwardStreams()
