"""What a file says of its pixels and of how they were taken, in Angstrom, degrees and named units."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from ._stack import reading
from .mdoc import read_mdoc
from .mrc import mrc_header
from .rosetta import read_rosetta_calibration
from .ser import open_ser, read_emi

_LARGEST = 1e4  # Angstrom: a pixel beyond is a resolution for printers, not of a microscope
_INCH, _CENTIMETRE = 2.54e8, 1e8
_UNITS = {"pm": 1e-2, "å": 1.0, "angstrom": 1.0, "nm": 10.0, "micron": 1e4, "um": 1e4, "µm": 1e4, "mm": 1e7, "cm": 1e8}


@dataclass(frozen=True)
class Calibration:
    """What a file says, as far as it does.

    Parameters
    ----------
    pixel_size : tuple of float, optional
        (y, x) in Angstrom.
    stage_tilts : tuple of float, optional
        Tilt of the stage in degrees, one for each image, or one for all.
    attributes : dict of str to float
        How the images were taken, by name and unit: ``voltage_kV``, ``camera_length_mm``, ``dwell_time_us`` ...
    """

    pixel_size: tuple[float, float] | None = None
    stage_tilts: tuple[float, ...] | None = None
    attributes: dict[str, float] = field(default_factory=dict)


def calibration_of(path: Path, kind: str, dataset: str | None) -> Calibration:
    """What a file of a known kind says of its images; reads headers only.

    Raises
    ------
    InputError
        If the file is damaged, or its pixels are no lengths.
    """
    if kind == "mdoc":
        said = read_mdoc(path)
        pixel = None if said.pixel_size is None else (said.pixel_size, said.pixel_size)
        return Calibration(pixel, tuple(map(float, said.tilts)), said.attributes)
    if kind == "mrc":
        return _mrc(path)
    if kind == "tiff":
        return Calibration(_tiff_pixel(path))
    if kind == "ser":
        pixel, attributes = open_ser(path).pixel_size, read_emi(path)
        return _with_stage(_lengths(*pixel), attributes)
    if kind in ("dm", "emd"):
        return _with_stage(*read_rosetta_calibration(path, kind, dataset))
    return Calibration()


def _with_stage(pixel: tuple[float, float] | None, attributes: dict[str, float]) -> Calibration:
    tilt = attributes.pop("stage_tilt_deg", None)
    return Calibration(pixel, None if tilt is None else (tilt,), attributes)


def _lengths(y: float, x: float) -> tuple[float, float] | None:
    """(y, x) if both are lengths that a microscope's pixel can have."""
    return (y, x) if all(np.isfinite(v) and 0 < v < _LARGEST for v in (y, x)) else None


def _mrc(path: Path) -> Calibration:
    """Cell and extended header of an MRC file; FEI's has angles (degree), pixels (m) and the optics."""
    with mrc_header(path) as file:
        cell, header = file.voxel_size, file.header
        y, x = float(cell.y), float(cell.x)
        if header.exttyp.item() not in (b"FEI1", b"FEI2"):
            # Programs that know no pixel size write 1 Angstrom, or a cell of as many Angstrom as pixels.
            return Calibration(None if x == y == 1.0 else _lengths(y, x))
        table = file.indexed_extended_header
    row = table[0]
    attributes = {
        name: float(row[key]) * factor
        for name, key, factor in (
            ("voltage_kV", "HT", 1e-3),
            ("camera_length_mm", "Camera length", 1e3),
            ("magnification", "Magnification", 1.0),
            ("dwell_time_us", "Dwell time", 1e6),
        )
        if row[key] > 0
    }
    pixel = _lengths(float(row["Pixel size Y"]) * 1e10, float(row["Pixel size X"]) * 1e10)
    return Calibration(pixel or _lengths(y, x), tuple(float(tilt) for tilt in table["Alpha tilt"]), attributes)


def _tiff_pixel(path: Path) -> tuple[float, float] | None:
    """Pixel size of a TIFF: of OME-XML, of ImageJ, or of the resolution in pixels per centimetre or inch."""
    with reading(path, "the TIFF tags"), tifffile.TiffFile(path, _multifile=False) as file:
        if file.ome_metadata:
            said = dict(re.findall(r'(PhysicalSize[XY](?:Unit)?)="([^"]*)"', file.ome_metadata))
            pixel = [float(said.get(f"PhysicalSize{axis}", 0)) for axis in "YX"]
            units = [_UNITS.get(said.get(f"PhysicalSize{axis}Unit", "µm").lower(), 0.0) for axis in "YX"]
            return _lengths(pixel[0] * units[0], pixel[1] * units[1])
        tags = file.pages.first.tags
        if "XResolution" not in tags or "YResolution" not in tags:
            return None
        unit = _UNITS.get(str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ").lower())
        if unit is None and "ResolutionUnit" in tags:
            unit = {2: _INCH, 3: _CENTIMETRE}.get(int(tags["ResolutionUnit"].value))
        ratios = [tags[name].value for name in ("YResolution", "XResolution")]
        if unit is None or any(0 in ratio for ratio in ratios):
            return None
        y, x = (unit * denominator / numerator for numerator, denominator in ratios)
        return _lengths(y, x)
