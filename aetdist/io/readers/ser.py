"""SER series of TIA (FEI): the positions of the images from the header, each image by its place in the file.

Own, because a series has to be read image by image. What TIA keeps beside it, in the .emi file, says how
the images were taken.

References
----------
C. B. Boothroyd, "TIA series data file format" (the layout of headers and data elements).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ._stack import check_numbers, check_size, check_stack_shape, read_bytes, reading, stamp

_MAGIC = b"II\x97\x01"  # little endian, series
_IMAGES = 0x4122
_LONG = 0x220  # from this version on, positions have 8 bytes
_TYPES = ("", "u1", "<u2", "<u4", "i1", "<i2", "<i4", "<f4", "<f8", "<c8", "<c16")
_ELEMENT = struct.Struct("<ddiddiHII")  # calibration (offset, step, element) of x, of y, type, columns, rows


@dataclass(frozen=True)
class SerStack:
    """Images in a SER file, each from its own `starts` on; the file keeps the lowest row first.

    `pixel_size` is (y, x) in Angstrom.
    """

    path: str
    shape: tuple[int, int, int]
    dtype: str
    stamp: tuple[int, int]
    starts: tuple[int, ...]
    pixel_size: tuple[float, float]
    frames: int = 1

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        _, ny, nx = self.shape
        with reading(self.path, f"image {tilt}"):
            data = read_bytes(self.path, self.starts[tilt], ny * nx * np.dtype(self.dtype).itemsize)
        return np.frombuffer(data, self.dtype).reshape(ny, nx)[::-1]


def is_ser(path: Path) -> bool:
    """Whether a file begins like a SER series."""
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


def open_ser(path: Path) -> SerStack:
    """A series of images (tilt, y, x); reads the headers only.

    Raises
    ------
    InputError
        If the file is truncated, holds spectra, or images of several sizes.
    """
    with reading(path, "the SER header"):
        version, kind, _, _, n = struct.unpack("<HIIII", read_bytes(path, 4, 18))
        if kind != _IMAGES:
            raise InputError(f"{path} holds spectra; needed is a series of images.")
        if n == 0:
            raise InputError(f"{path} holds no finished image; copy it again, or leave it out.")
        number = "Q" if version >= _LONG else "I"
        table = struct.unpack(f"<{number}", read_bytes(path, 22, struct.calcsize(number)))[0]
        check_size(path, table + n * struct.calcsize(number), f"the table of {n} images")
        places = struct.unpack(f"<{n}{number}", read_bytes(path, table, n * struct.calcsize(f"<{number}")))
        elements = [_ELEMENT.unpack(read_bytes(path, place, _ELEMENT.size)) for place in places]
    sizes = {element[6:] for element in elements}
    if len(sizes) != 1:
        raise InputError(f"{path} holds images of several sizes or types: {sorted(sizes)}; save those of one size.")
    code, nx, ny = sizes.pop()
    if not 0 < code < len(_TYPES):
        raise InputError(f"{path}: images of type {code} are not known; is the file damaged?")
    dtype = np.dtype(_TYPES[code])
    check_numbers(dtype, str(path))
    shape, _ = check_stack_shape((n, ny, nx), str(path))
    starts = tuple(place + _ELEMENT.size for place in places)
    check_size(path, max(starts) + ny * nx * dtype.itemsize, f"a series of {shape} {dtype}")
    x_step, y_step = elements[0][1] * 1e10, elements[0][4] * 1e10  # m
    return SerStack(str(path), shape, dtype.str, stamp(path), starts, (y_step, x_step))


def read_emi(path: Path) -> dict[str, Any]:
    """How the images of a SER file were taken, where the .emi file of the same name lies beside it.

    Returns
    -------
    dict
        Attributes by name and unit, such as ``voltage_kV``; empty where there is no such file.
    """
    emi = next((path.with_name(name) for name in _companions(path) if path.with_name(name).is_file()), None)
    if emi is None:
        return {}
    with reading(emi, "the file"):
        text = emi.read_bytes().decode("latin-1")
    found: dict[str, Any] = {}
    for label, value in re.findall(r"<Data><Label>([^<]*)</Label><Value>([^<]*)</Value>", re.sub(r">\s+<", "><", text)):
        if label in _EMI and re.fullmatch(r"\s*[-+]?[\d.]+(?:[eE][-+]?\d+)?\s*", value):
            name, convert = _EMI[label]
            found[name] = convert(float(value))
    return found


_EMI: dict[str, tuple[str, Callable[[float], float]]] = {
    "High tension": ("voltage_kV", float),
    "Magnification": ("magnification", float),
    "Camera length": ("camera_length_mm", lambda metres: metres * 1e3),
    "Stage A": ("stage_tilt_deg", float),
}


def _companions(path: Path) -> tuple[str, str]:
    """Names of the .emi that TIA writes for name_1.ser."""
    return re.sub(r"_\d+$", "", path.stem) + ".emi", path.stem + ".emi"
