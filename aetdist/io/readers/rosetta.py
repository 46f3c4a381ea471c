"""DM3, DM4 and EMD (Velox and NCEM) through RosettaSciIO, which the extra ``em`` installs."""

from __future__ import annotations

import importlib
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np

from ...errors import InputError
from ._stack import check_numbers, check_stack_shape, describe, missing_dataset, reading, stamp

_MODULES = {"dm": "rsciio.digitalmicrograph", "emd": "rsciio.emd"}
_LENGTHS = {"pm": 1e-2, "å": 1.0, "a": 1.0, "angstrom": 1.0, "nm": 10.0, "um": 1e4, "mm": 1e7, "cm": 1e8, "m": 1e10}


@dataclass(frozen=True)
class RosettaStack:
    """Images of entry `index` in a file that RosettaSciIO reads; `order` puts (y, x) last."""

    path: str
    kind: str
    index: int
    shape: tuple[int, int, int]
    dtype: str
    stamp: tuple[int, int]
    order: tuple[int, ...]
    frames: int = 1

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        chunks = dict.fromkeys(self.order[:-2], 1)  # else RosettaSciIO reads many images to give one
        with reading(self.path, f"image {tilt}"), _failing(self.path):
            data = da.transpose(_entries(Path(self.path), self.kind, chunks)[self.index]["data"], self.order)
            image = data[np.unravel_index(tilt, data.shape[:-2])] if data.ndim > 2 else data
            return np.asarray(image.compute(scheduler="synchronous"))  # this is a task of its own already


def is_dm(path: Path) -> bool:
    """Whether a file is a DM3 or DM4 by its name and its version."""
    with path.open("rb") as file:
        return path.suffix.lower() in (".dm3", ".dm4") and file.read(4) == bytes((0, 0, 0, int(path.suffix[-1])))


def is_emd(path: Path) -> bool:
    """Whether an HDF5 file has the marks of Velox or of the NCEM's format."""
    with h5py.File(path, "r") as file:
        if "Data/Image" in file and "Version" in file:
            return True
        marked: list[bool] = []
        file.visititems(lambda _, item: marked.append("emd_group_type" in item.attrs))
        return any(marked)


def open_rosetta(path: Path, kind: str, title: str | None = None) -> RosettaStack:
    """A stack of images of a DM or EMD file; reads the headers only.

    Parameters
    ----------
    path : Path
        The file.
    kind : {"dm", "emd"}
        Its format.
    title : str, optional
        Which images, where there are several: their title (in Velox, the detector).

    Raises
    ------
    InputError
        If RosettaSciIO is not installed, the file is damaged, or holds no images, or several and none is named.
    """
    index, entry = _chosen(path, kind, title)
    data, order = entry["data"], _order(entry["axes"])
    check_numbers(data.dtype, str(path))
    shape, frames = check_stack_shape(tuple(data.shape[axis] for axis in order), str(path))
    if any(axis.get("name") == "Time" for axis in entry["axes"]) and len(order) == 3:
        frames = shape[0]  # Velox: frames of one scan after the other
    return RosettaStack(str(path), kind, index, shape, np.dtype(data.dtype).str, stamp(path), order, frames)


def read_rosetta_calibration(
    path: Path, kind: str, title: str | None = None
) -> tuple[tuple[float, float] | None, dict[str, float]]:
    """Pixel size (y, x) in Angstrom, where there is one, and how the images were taken.

    Raises
    ------
    InputError
        As :func:`open_rosetta`; also for images that are diffraction patterns.
    """
    _, entry = _chosen(path, kind, title)
    axes = {axis.get("index_in_array", k): axis for k, axis in enumerate(entry["axes"])}
    last = [axes[k] for k in _order(entry["axes"])[-2:]]
    units = [str(axis.get("units") or "").strip() for axis in last]
    if any(unit.replace(" ", "").startswith("1/") or unit in ("mrad", "rad") for unit in units):
        raise InputError(f"{path} has pixels in {units[0]}: diffraction patterns; needed are images.")
    units = [unicodedata.normalize("NFKC", unit).lower().replace("μ", "u") for unit in units]
    factors = [_LENGTHS.get(unit) for unit in units]
    y, x = (abs(float(axis["scale"])) * (factor or 0.0) for axis, factor in zip(last, factors, strict=True))
    attributes = {}
    for name, where, factor in _METADATA[kind]:
        value = _find(entry["original_metadata"], where)
        try:
            attributes[name] = float(value) * factor
        except (TypeError, ValueError):
            continue
    return ((y, x) if y > 0 and x > 0 else None), attributes


#: Name and unit of an attribute, the tags it stands under, and what its number is multiplied by.
_METADATA: dict[str, tuple[tuple[str, tuple[str, ...], float], ...]] = {
    "dm": (
        ("voltage_kV", ("Microscope Info", "Voltage"), 1e-3),
        ("camera_length_mm", ("Microscope Info", "STEM Camera Length"), 1.0),
        ("magnification", ("Microscope Info", "Indicated Magnification"), 1.0),
        ("stage_tilt_deg", ("Microscope Info", "Stage Position", "Stage Alpha"), 1.0),
        ("dwell_time_us", ("DigiScan", "Sample Time"), 1.0),
    ),
    "emd": (
        ("voltage_kV", ("Optics", "AccelerationVoltage"), 1e-3),
        ("camera_length_mm", ("Optics", "CameraLength"), 1e3),
        ("convergence_mrad", ("Optics", "BeamConvergence"), 1e3),
        ("magnification", ("CustomProperties", "StemMagnification", "value"), 1.0),
        ("stage_tilt_deg", ("Stage", "AlphaTilt"), 180.0 / np.pi),
        ("dwell_time_us", ("Scan", "DwellTime"), 1e6),
    ),
}


def _find(tree: Any, where: tuple[str, ...]) -> Any:
    """Value under the tags `where`, at whatever depth they begin; None if there is none."""
    if not isinstance(tree, Mapping):
        return None
    value: Any = tree
    for tag in where:
        value = value.get(tag) if isinstance(value, Mapping) else None
    if value is not None:
        return value
    return next((found for child in tree.values() if (found := _find(child, where)) is not None), None)


def _chosen(path: Path, kind: str, title: str | None) -> tuple[int, dict[str, Any]]:
    """Number and contents of the entry that holds the images."""
    with reading(path, "the file"), _failing(path):
        entries = _entries(path, kind)
    images = {
        k: e for k, e in enumerate(entries) if getattr(e["data"], "ndim", 0) >= 2 and e["data"].dtype.kind in "fiub"
    }
    titles = {k: str(entry["metadata"].get("General", {}).get("title", "")) for k, entry in images.items()}
    wanted = {k: entry for k, entry in images.items() if title is None or titles[k] == title}
    if len(wanted) != 1:
        found = {titles[k]: describe(entry["data"].shape, entry["data"].dtype) for k, entry in images.items()}
        why = f"{len(wanted)} images have no name" if len(found) < 2 else f"it holds {len(found)} images"
        raise missing_dataset(path, title, found, why if title is None else "")
    return next(iter(wanted.items()))


def _order(axes: list[dict[str, Any]]) -> tuple[int, ...]:
    """Axes of the array such that (y, x) come last: those of these names, or those that are no navigation."""
    index = [int(axis.get("index_in_array", k)) for k, axis in enumerate(axes)]
    names = {str(axis.get("name")).lower(): k for k, axis in zip(index, axes, strict=True)}
    signal = [k for k, axis in zip(index, axes, strict=True) if not axis.get("navigate")]
    if {"x", "y"} <= names.keys():
        last = [names["y"], names["x"]]
    else:
        last = sorted(signal if len(signal) == 2 else index)[-2:]
    return (*(k for k in sorted(index) if k not in last), *last)


def _entries(path: Path, kind: str, chunks: dict[int, int] | None = None) -> list[dict[str, Any]]:
    try:
        reader = importlib.import_module(_MODULES[kind]).file_reader
    except ModuleNotFoundError:
        raise InputError(
            f"{path} is read by RosettaSciIO, which is not installed: pip install 'aetdist[em]', or save the images "
            "as MRC, TIFF or HDF5."
        ) from None
    if kind == "emd":
        _refuse_links(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that it does not know
        return list(reader(str(path), lazy=True, **({"chunks": chunks} if chunks and kind == "dm" else {})))


def _refuse_links(path: Path) -> None:
    """Refuse an EMD whose contents are elsewhere: RosettaSciIO would read whatever file it names."""
    elsewhere: dict[str, str] = {}  # to raise inside of h5py's visits would be lost

    def look(name: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            elsewhere[name] = f"links to {link.filename}"

    def look_into(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            elsewhere[name] = "keeps its numbers in other files"

    with h5py.File(path, "r") as file:
        file.visititems_links(look)
        file.visititems(look_into)
    for name, where in elsewhere.items():
        raise InputError(f"{path}::{name} {where}; copy the data into this one.")


@contextmanager
def _failing(path: str | Path) -> Iterator[None]:
    """Turn whatever RosettaSciIO raises for a damaged file, which has no common class, into one error."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}); is the file damaged or incomplete?") from error
