"""What every import of images checks at the door: angles, pixel size, and how the images were taken."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import AetdistWarning, InputError
from .geometry import matrices_from_euler
from .io.readers import (
    Calibration,
    Stack,
    in_natural_order,
    in_order_of,
    list_datasets,
    list_files,
    read_order,
    read_table,
)

Files = str | Path | Sequence[str | Path]
Table = str | Path | np.ndarray | Sequence[float] | Sequence[Sequence[float]]

_PIXEL_SIZES = (0.1, 5.0)  # Angstrom; atoms are not seen beyond
_SQUARE = 1e-3  # part by which pixel sizes may differ, along x and y or between files
_CALIBRATED = 0.05  # part by which the microscope's own calibration may be off
_DUPLICATE = 1e-5  # difference of two rotation matrices; 0.0006 degrees


def resolve_table(table: Table, first: Path, what: str) -> np.ndarray:
    """A table given as an array, as the name of a dataset in the first file, or as a file."""
    if not isinstance(table, str | Path):
        return np.asarray(table)
    datasets = list_datasets(first)
    if str(table) not in datasets and is_file(table):
        return read_table(table)
    if not datasets:
        raise InputError(
            f"The {what} file {table} does not exist, and {first.name} holds no named datasets; name an existing file "
            "(CSV, TXT, .tlt, .rawtlt, NPY)."
        )
    return read_table(first, str(table))


def angle_table(angles: Table | None, first: Path) -> np.ndarray:
    if angles is None:
        datasets = list_datasets(first)
        has = f" ({first.name} has {', '.join(datasets)})" if datasets else ""
        raise InputError(f"No tilt angles came; name a dataset{has} or a file (CSV, TXT, .tlt, .rawtlt) with --angles.")
    table = resolve_table(angles, first, "angles")
    if table.ndim not in (1, 2) or table.dtype.kind not in "fiu":
        raise InputError(
            f"The angles are {table.dtype} of shape {table.shape}; needed is one row of numbers for each tilt, "
            "in degrees."
        )
    return table


def warn_of_angles(table: np.ndarray, euler: np.ndarray, convention: str) -> None:
    """Warn of angles that look like radians and of tilts that come twice."""
    largest = np.abs(table).max(initial=0.0)
    if convention != "astra" and len(table) > 2 and 0 < largest <= 1.75:
        warn(
            f"No angle exceeds {largest:.4g} degrees: they look like radians; if so, convert them to degrees "
            f"(the largest would be {np.rad2deg(largest):.1f})."
        )
    matrices = matrices_from_euler(euler).reshape(len(euler), 9)
    same = np.abs(matrices[:, None] - matrices).max(axis=2) < _DUPLICATE
    pairs = np.argwhere(np.triu(same, 1))
    if len(pairs):
        more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
        listed = ", ".join(f"{a} and {b} ({euler[a].round(3).tolist()})" for a, b in pairs[:3])
        warn(f"Tilts have the same angles: {listed}{more}; does an image come twice?")


def checked_pixel_size(pixel_size: float) -> float:
    value = float(pixel_size)
    if not np.isfinite(value) or value <= 0:
        raise InputError(f"The pixel size came as {value:g} Angstrom; needed is a positive number, such as 0.35.")
    low, high = _PIXEL_SIZES
    if not low <= value <= high:
        unit = f"nm (then {value * 10:g} Angstrom)" if value < low else f"pm (then {value / 100:g} Angstrom)"
        unit = f"m (then {value * 1e10:g} Angstrom)" if value < 1e-6 else unit
        warn(f"A pixel of {value:g} Angstrom is unusual for atomic resolution; was it meant in {unit}?")
    return value


def checked_acquisition(
    voltage: float | None = None,
    dose: float | None = None,
    convergence: float | None = None,
    detector: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Attributes that say how the series was taken; what is not known is left out."""
    attributes: dict[str, Any] = {}
    known = (("voltage_kV", voltage, "kV"), ("dose_e_per_A2", dose, "e/A^2"), ("convergence_mrad", convergence, "mrad"))
    for name, value, unit in known:
        if value is None:
            continue
        if not np.isfinite(value) or value <= 0:
            raise InputError(
                f"The {name.split('_')[0]} came as {value:g} {unit}; needed is a positive number, or leave it out."
            )
        attributes[name] = float(value)
    if attributes.get("voltage_kV", 0.0) >= 1e4:
        warn(f"A voltage of {voltage:g} kV is unusual; was it meant in V?")
    if detector is not None:
        inner, outer = (float(angle) for angle in detector)
        if not 0 <= inner < outer < np.inf:
            raise InputError(f"The detector came as {inner:g} to {outer:g} mrad; needed is 0 <= inner < outer.")
        attributes["detector_mrad"] = [inner, outer]
    return attributes


def as_list(files: Files) -> list[str | Path]:
    return [files] if isinstance(files, str | Path) else list(files)


def is_file(name: str | Path) -> bool:
    """Whether there is a file of this name, perhaps with a dataset behind ``::``."""
    with contextlib.suppress(OSError):  # a name that is too long
        return Path(name).is_file() or ("::" in str(name) and Path(str(name).rpartition("::")[0]).is_file())
    return False


def listed(flags: np.ndarray) -> str:
    numbers = np.flatnonzero(flags)
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def warn(message: str) -> None:
    warnings.warn(message, AetdistWarning, stacklevel=3)


def order_files(files: Files, order: str | Path | None, angles: Table | None = None) -> list[str | Path]:
    """Files, and those of folders, in natural order, in the order given, or in that of a table that names them.

    Raises
    ------
    InputError
        If there are none, one comes twice, or the table names others.
    """
    found = list_files(files)
    if order == "given":
        return found
    table = order
    if order is None and len(found) > 1 and isinstance(angles, str | Path) and is_file(angles):
        table = angles
    names = None
    if table not in (None, "natural"):
        if not is_file(str(table)):
            raise InputError(f"The order came as {table}; needed is natural, given, or a file that names the images.")
        names = read_order(str(table))
        if names is None and order is not None:
            raise InputError(f"{table} names no files; needed is an .mdoc, or a text file with a column named file.")
    if names is None:
        return in_natural_order(found)
    ordered = in_order_of(found, names, str(table))
    if len(ordered) < len(found):
        left_out = next(file for file in found if file not in ordered)
        warn(
            f"{len(found) - len(ordered)} of {len(found)} files are not named in {table} ({left_out}); "
            "they are left out."
        )
    return ordered


def pixel_size_of(given: float | None, calibrations: Sequence[Calibration], names: Sequence[object]) -> float:
    """Pixel size in Angstrom: the one given, or that of the files, which must agree and be square.

    Raises
    ------
    InputError
        If there is none, it differs along x and y or between the files, or is no positive number.
    """
    sizes = [(c.pixel_size, name) for c, name in zip(calibrations, names, strict=True) if c.pixel_size is not None]
    if given is not None:
        value = checked_pixel_size(given)
        for (y, x), name in sizes[:1]:
            if max(abs(y - value), abs(x - value)) > _CALIBRATED * value:
                warn(
                    f"A pixel of {value:g} Angstrom came, {name} says {y:.6g} x {x:.6g} (y, x); the one that came is "
                    "used."
                )
        return value
    if not sizes:
        raise InputError("No pixel size came, and the files say none; give it in Angstrom with --pixel-size.")
    for (y, x), name in sizes:
        if abs(y - x) > _SQUARE * max(y, x):
            raise InputError(
                f"The pixels of {name} are {y:.6g} x {x:.6g} Angstrom (y, x); needed are square ones: resample the "
                "images, or, if that calibration is wrong, give --pixel-size."
            )
    (first, _), name = sizes[0]
    for (other, _), other_name in sizes:
        if abs(other - first) > _SQUARE * first:
            raise InputError(
                f"The pixels of {name} are {first:.6g} Angstrom, those of {other_name} {other:.6g}; needed is one "
                "size: leave files out, or, if a calibration is wrong, give --pixel-size."
            )
    return checked_pixel_size(first)


def wrong_number(n_angles: int, n: int, of_what: str, stacks: Sequence[Stack]) -> InputError:
    """The error for angles that are not as many as the images; says where the axes look swapped."""
    swapped = next((stack for stack in stacks if stack.shape[2] == n_angles), None)
    hint = "check the images and the angles you named."
    if swapped is not None:
        hint = (
            f"{swapped.path} has shape {swapped.shape}, of which the last axis is as long as there are angles: are its "
            "axes (y, x, tilt)? Then save it as (tilt, y, x)."
        )
    return InputError(f"{n_angles} angles came for {n} {of_what}; needed is one row of angles for each tilt: {hint}")
