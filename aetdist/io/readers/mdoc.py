"""SerialEM's .mdoc files: tilt angle, file, pixel and dose of every image.

References
----------
D. N. Mastronarde, SerialEM Help, "The .mdoc metadata file".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ._stack import reading
from .files import last_part

_SECTION = re.compile(r"\[\s*(ZValue|FrameSet|Image)\s*=\s*(.*?)\s*\]")
_ENTRY = re.compile(r"(\w+)\s*=\s*(.*?)\s*")
_MAX_BYTES = 1 << 24


@dataclass(frozen=True)
class Mdoc:
    """What an .mdoc says of its images, in the order of their ZValue.

    Parameters
    ----------
    tilts : ndarray, shape (images,), float64
        Stage tilt in degrees.
    names : tuple of str, optional
        File of each image, without folders, where all are named.
    pixel_size : float, optional
        Angstrom.
    attributes : dict of str to float
        ``voltage_kV``, ``magnification``, and ``dose_e_per_A2`` of all images together.
    """

    tilts: np.ndarray
    names: tuple[str, ...] | None
    pixel_size: float | None
    attributes: dict[str, float]


def read_mdoc(path: Path) -> Mdoc:
    """Read an .mdoc file.

    Raises
    ------
    InputError
        If it has no sections, an image has no tilt angle, two have one ZValue, or their pixels differ.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, too many for an .mdoc; is it the right file?")
    with reading(path, "the text"):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    common: dict[str, str] = {}
    sections: list[dict[str, str]] = []
    for line in lines:
        section, entry = _SECTION.fullmatch(line.strip()), _ENTRY.fullmatch(line.strip())
        if section is not None:
            sections.append({section[1]: section[2]})
        elif entry is not None and not line.lstrip().startswith("["):
            (sections[-1] if sections else common)[entry[1]] = entry[2]
    if not sections:
        raise InputError(f"{path} has no section [ZValue = 0]; is it an .mdoc of SerialEM?")
    numbers = [section.get("ZValue", str(k)) for k, section in enumerate(sections)]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{path} has several sections of one ZValue; keep the one of each image that is in the stack.")
    order = sorted(range(len(sections)), key=lambda k: _number(path, "ZValue", numbers[k]))
    sections = [common | sections[k] for k in order]
    without = [str(k) for k, section in enumerate(sections) if "TiltAngle" not in section]
    if without:
        raise InputError(f"{path} gives no TiltAngle for image {', '.join(without[:5])}; needed is one for each.")
    paths = [section.get("SubFramePath") or section.get("Image") for section in sections]
    pixels = [_number(path, "PixelSpacing", s["PixelSpacing"]) for s in sections if "PixelSpacing" in s]
    if pixels and np.ptp(pixels) > 1e-3 * max(pixels):
        raise InputError(
            f"{path}: the PixelSpacing goes from {min(pixels)} to {max(pixels)}; needed is one pixel size."
        )
    attributes = {}
    for key, name in (("Voltage", "voltage_kV"), ("Magnification", "magnification")):
        values = {_number(path, key, section[key]) for section in sections if key in section}
        if len(values) == 1:
            attributes[name] = values.pop()
    doses = [
        _number(path, "ExposureDose", section["ExposureDose"]) for section in sections if "ExposureDose" in section
    ]
    if len(doses) == len(sections) and sum(doses) > 0:
        attributes["dose_e_per_A2"] = sum(doses)
    return Mdoc(
        np.array([_number(path, "TiltAngle", section["TiltAngle"]) for section in sections]),
        tuple(last_part(name) for name in paths if name) if all(paths) else None,
        pixels[0] if pixels else None,
        attributes,
    )


def _number(path: Path, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}: {key} = {text[:40]!r} came; needed is a number.")
    return value
