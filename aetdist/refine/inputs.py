"""What refinement takes, checked at the door; matter beside the atoms."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..blocks.angles import project_blocks
from ..errors import InputError
from ..geometry import ParallelGeometry, grid_step, matrices_from_euler
from ..neighbors import as_points
from ..schema import ATOMS, TILT_SERIES, VOLUME, check
from .series import Series
from .tilts import Group

_MARGIN = 2.0  # Angstrom beyond the volume at which an atom may lie
_SAME_SIZE = 1e-3  # relative
_TILTS = 3  # at least


def checked_series(tilt_series: xr.Dataset) -> xr.Dataset:
    """The series with ``matrices`` and ``pixel_size``, without tilts that are not used.

    Raises
    ------
    InputError
        If it is no tilt series, its pixels are not square, or fewer than three tilts can be used.
    """
    check(tilt_series, TILT_SERIES)
    series = tilt_series.assign(
        matrices=(("tilt", "row", "column"), matrices_from_euler(tilt_series["angles"].values)),
        pixel_size=((), grid_step(tilt_series["x"].values)),
    )
    if "used" in series:
        series = series.isel(tilt=np.flatnonzero(series["used"].values))
    sizes = [grid_step(series[axis].values) for axis in "yx"]
    if abs(sizes[0] - sizes[1]) > _SAME_SIZE * sizes[1]:
        raise InputError(f"Pixels of {sizes[0]:.4g} x {sizes[1]:.4g} Angstrom (y, x) came; needed are square ones.")
    if series.sizes["tilt"] < _TILTS:
        raise InputError(f"{series.sizes['tilt']} tilts can be used; needed are at least three to find atoms.")
    return series


def require_measured(images: Series) -> None:
    """Refuse a series of which fewer than three tilts show anything.

    Raises
    ------
    InputError
        Likewise if pixels that were measured are no finite numbers.
    """
    there = int(images.sum(tilts_that_show))
    if there < _TILTS:
        raise InputError(
            f"{there} tilts show anything but 0 where their mask is True and the volume's support is seen; needed are "
            "at least three to find atoms. Check the mask's meaning, and that the volume is of this series."
        )


def tilts_that_show(group: Group) -> int:
    """How many tilts have pixels that count and are not 0."""
    return int(((group.weights > 0) & (group.measured != 0)).any(axis=(1, 2)).sum())


def checked_atoms(atoms: xr.Dataset, volume: xr.Dataset | None, series: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) in Angstrom and types (n,) 0 ... k - 1 of the atoms to refine.

    Raises
    ------
    InputError
        If there are none, positions are not finite, types do not begin at 1, or atoms lie outside the volume (or,
        without one, outside the field at every tilt).
    """
    check(atoms, ATOMS)
    if atoms.sizes["atom"] == 0:
        raise InputError("There are no atoms to refine; trace them first.")
    positions = as_points(atoms["position"].values, "Atom positions")
    types = atoms["type"].values.astype(np.int64) - 1 if "type" in atoms else np.zeros(len(positions), np.int64)
    if types.min() < 0:
        raise InputError(f"Atom types start at 1, but {int(types.min()) + 1} came; number them 1, 2, ...")
    if volume is not None:
        low = np.array([float(volume[axis].values[0]) for axis in "xyz"]) - _MARGIN
        high = np.array([float(volume[axis].values[-1]) for axis in "xyz"]) + _MARGIN
        outside = ((positions < low) | (positions > high)).any(axis=1)
        where = "the volume"
    else:
        x, y = series["x"].values, series["y"].values
        lab = np.einsum("tij,nj->nti", series["matrices"].values[:, :2], positions)
        seen = (lab[..., 0] > x[0]) & (lab[..., 0] < x[-1]) & (lab[..., 1] > y[0]) & (lab[..., 1] < y[-1])
        outside = ~seen.any(axis=1)
        where = "the field of every tilt"
    if outside.any():
        raise InputError(
            f"{int(outside.sum())} of {len(positions)} atoms lie outside {where}, the first at "
            f"{positions[outside.argmax()].round(2).tolist()} Angstrom; are they of this sample, in Angstrom from "
            "its centre?"
        )
    return positions, types


def beside_the_atoms(volume: xr.Dataset | None, series: xr.Dataset) -> tuple[Any, Any]:
    """Projections (lazy, (tilt, y, x)) of the matter outside the volume's support and inside it; None without one.

    Raises
    ------
    InputError
        If voxels are not as large as pixels.
    """
    if volume is None:
        return None, None
    check(volume, VOLUME)
    size = float(series["pixel_size"])
    steps = [grid_step(volume[axis].values) for axis in "zyx"]
    if any(abs(step - size) > _SAME_SIZE * size for step in steps):
        raise InputError(
            f"Voxels of {' x '.join(f'{s:.4g}' for s in steps)} Angstrom came for pixels of {size:.4g}; needed are "
            "the tilt series and the volume that was reconstructed from it."
        )
    if "support" not in volume:
        return None, None
    support = volume["support"].chunk({"z": -1, "y": 64, "x": -1}).data
    density = volume["density"].chunk({"z": -1, "y": 64, "x": -1}).data.clip(0)
    first = tuple(float(volume[axis].values[0]) / size for axis in "zyx")
    corner = [float(series[axis].values[0]) / size for axis in "yx"]
    matrices = series["matrices"].values
    geometry = ParallelGeometry(
        matrices,
        density.shape,
        first,  # type: ignore[arg-type]
        (series.sizes["y"], series.sizes["x"]),
        np.tile(corner, (len(matrices), 1)),
    )
    return project_blocks(density * ~support, geometry), project_blocks(density * support, geometry)
