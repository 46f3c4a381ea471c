"""HDF5: any dataset, packed numbers unpacked, links kept inside the file's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import InputError
from ._stack import check_numbers, check_stack_shape, describe, missing_dataset, reading, stamp

_MAX_LINKS = 16


@dataclass(frozen=True)
class Hdf5Stack:
    """Images in an HDF5 dataset; value = stored * scale + offset, NaN where stored equals `fill`.

    `transposed` is set for MATLAB 7.3 files, which hold MATLAB's (y, x, tilt) as (tilt, x, y).
    """

    path: str
    dataset: str
    shape: tuple[int, int, int]
    dtype: str
    stamp: tuple[int, int]
    scale: float | None = None
    offset: float | None = None
    fill: float | None = None
    transposed: bool = False
    logical: bool = False
    frames: int = 1

    def read(self, tilt: int) -> np.ndarray:
        """Image number `tilt`, shape (y, x)."""
        with reading(self.path, f"image {tilt} of {self.dataset}"), h5py.File(self.path, "r") as file:
            data = file[self.dataset]
            stored = data[np.unravel_index(tilt, data.shape[:-2])] if data.ndim > 2 else data[...]
        return self._unpack(stored.T if self.transposed else stored)

    def _unpack(self, stored: np.ndarray) -> np.ndarray:
        if self.logical:
            return stored.astype(bool)
        if self.scale is None and self.offset is None and self.fill is None:
            return stored
        values = stored.astype(np.float64)
        if self.fill is not None:
            values[stored == self.fill] = np.nan
        return values * (1.0 if self.scale is None else self.scale) + (0.0 if self.offset is None else self.offset)


def list_hdf5(path: Path) -> dict[str, str]:
    """Datasets of a file and what they hold; links to other files are not followed."""
    found: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):  # "#...": MATLAB's own bookkeeping
            shape = item.shape or ()
            found[name] = describe(shape[::-1] if "MATLAB_class" in item.attrs else shape, item.dtype)

    with _opened(path) as file:
        file.visititems(visit)
    return found


def open_hdf5(path: Path, dataset: str) -> Hdf5Stack:
    """A stack of images (tilt, y, x); reads the header only.

    Raises
    ------
    InputError
        If the dataset is missing, is no stack of numbers, or lies outside the file's folder.
    """
    path, dataset = _locate(path, dataset, path.parent)
    where = f"{path}::{dataset}"
    with _opened(path) as file:
        data = _checked(file[dataset], where, path.parent)
        matlab = "MATLAB_class" in data.attrs
        if data.ndim < 2:
            raise InputError(f"{where} has shape {data.shape}; needed is a stack of images (tilt, y, x).")
        shape = (*data.shape[:-2], data.shape[-1], data.shape[-2]) if matlab else data.shape
        scale, offset, fill = (_attribute(data, names, where) for names in _PACKING)
        logical = _is_logical(data)
        packed = not logical and (scale, offset, fill) != (None, None, None)
        stack_shape, frames = check_stack_shape(shape, where)
        return Hdf5Stack(
            str(path),
            dataset,
            stack_shape,
            "bool" if logical else "float64" if packed else str(data.dtype),
            stamp(path),
            scale,
            offset,
            fill,
            transposed=matlab,
            logical=logical,
            frames=frames,
        )


def read_hdf5_table(path: Path, dataset: str, max_bytes: int) -> np.ndarray:
    """A small dataset as a whole (angles, pixel coordinates), unpacked like images.

    Raises
    ------
    InputError
        As :func:`open_hdf5`, and if the dataset is larger than `max_bytes`.
    """
    path, dataset = _locate(path, dataset, path.parent)
    where = f"{path}::{dataset}"
    with _opened(path) as file:
        data = _checked(file[dataset], where, path.parent)
        if data.size * data.dtype.itemsize > max_bytes:
            what = describe(data.shape, data.dtype)
            raise InputError(f"{where} holds {what}, too much for a table; name another dataset.")
        scale, offset, fill = (_attribute(data, names, where) for names in _PACKING)
        table = Hdf5Stack("", "", (0, 0, 0), "", (0, 0), scale, offset, fill)
        with reading(path, dataset):
            values = table._unpack(np.asarray(data[...]))
        return values.T if "MATLAB_class" in data.attrs else values


_PACKING = (("scale_factor",), ("add_offset",), ("_FillValue", "missing_value"))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    with reading(path, "the HDF5 file"), h5py.File(path, "r") as file:
        yield file


def _locate(path: Path, dataset: str, folder: Path, hops: int = 0) -> tuple[Path, str]:
    """File and path of a dataset after following its links, none of which may leave `folder`."""
    if hops > _MAX_LINKS:
        raise InputError(f"{path}::{dataset} is a chain of more than {_MAX_LINKS} links; name the dataset itself.")
    parts = [part for part in dataset.split("/") if part not in ("", ".")]
    target: tuple[Path, str] | None = None
    with _opened(path) as file:
        group = file
        for k, name in enumerate(parts):
            links = group.id.links if isinstance(group, h5py.Group) else None
            key = name.encode()
            if links is None or not links.exists(key):
                raise missing_dataset(path, dataset, list_hdf5(path))
            kind, rest = links.get_info(key).type, parts[k + 1 :]
            if kind == h5py.h5l.TYPE_SOFT:
                soft = links.get_val(key).decode()
                base = [] if soft.startswith("/") else parts[:k]
                target = path, "/".join([*base, soft, *rest])
                break
            if kind == h5py.h5l.TYPE_EXTERNAL:
                other, inner = (os_name.decode() for os_name in links.get_val(key))
                target = _inside(path, other, folder, dataset), "/".join([inner, *rest])
                break
            group = group[name]
        if target is None:
            if not isinstance(group, h5py.Dataset):
                raise missing_dataset(path, dataset, list_hdf5(path), " (it is a group)")
            return path, "/".join(parts)
    return _locate(*target, folder, hops + 1)


def _inside(path: Path, other: str, folder: Path, dataset: str) -> Path:
    """The file a link points to, if it lies in `folder`."""
    target = (path.parent / other).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise InputError(
            f"{path}::{dataset} links to {target}, outside the file's folder; copy the data into the file, "
            "or import the other file itself."
        )
    if not target.is_file():
        raise InputError(f"{path}::{dataset} links to {target}, which does not exist; copy that file beside this one.")
    return target


def _checked(data: h5py.Dataset, where: str, folder: Path) -> h5py.Dataset:
    """`data`, if it holds numbers that lie in the file or beside it."""
    matlab_class = data.attrs.get("MATLAB_class", b"")
    matlab_class = matlab_class.decode() if isinstance(matlab_class, bytes) else str(matlab_class)
    if matlab_class in ("cell", "struct", "char", "function_handle") or "MATLAB_sparse" in data.attrs:
        raise InputError(f"{where} is a MATLAB {matlab_class or 'sparse'} array; needed is a full array of numbers.")
    if data.shape is None or "MATLAB_empty" in data.attrs:
        raise InputError(f"{where} is empty; needed is an array of numbers.")
    check_numbers(data.dtype, where)
    if data.external:
        other = data.external[0][0]
        raise InputError(f"{where} keeps its numbers in another file ({other}); repack it into one HDF5 file.")
    if data.is_virtual:
        path = Path(data.file.filename)
        for source in data.virtual_sources():
            if source.file_name != ".":
                other = _inside(path, source.file_name, folder, data.name)
                with _opened(other) as file:
                    _checked(file[_locate(other, source.dset_name, folder)[1]], f"{other}::{source.dset_name}", folder)
    return data


def _attribute(data: h5py.Dataset, names: tuple[str, ...], where: str) -> float | None:
    """A number kept as an attribute of the dataset, or None."""
    for name in names:
        if name not in data.attrs:
            continue
        try:
            value = float(np.ravel(data.attrs[name])[0])
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"{where}: the attribute {name} is {data.attrs[name]!r}; needed is a number.") from error
        packing = name in ("scale_factor", "add_offset")
        if (packing and not np.isfinite(value)) or (name, value) == ("scale_factor", 0.0):
            raise InputError(f"{where}: the attribute {name} is {value}; needed is a finite number, for a scale not 0.")
        return value
    return None


def _is_logical(data: h5py.Dataset) -> bool:
    return data.attrs.get("MATLAB_class") in (b"logical", "logical")
