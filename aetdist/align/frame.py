"""A tilt series as the passes of an alignment need it, checked; and when shifts say nothing."""

from __future__ import annotations

from typing import NamedTuple

import dask.array as da
import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import grid_step, matrices_from_euler
from ..schema import TILT_SERIES, check
from .passes import per_tilt

KINDS = ("particle", "film")
PARTICLE_FLOOR = (0.1, 0.1)
"""Pixels along and across that an alignment does not know better, whatever its statistics say: about the errors on
simulated series with a residual background."""
AXIS_FLOOR = 0.1
"""Degrees that the axis is not known better."""
_SIGNIFICANT = 4.0  # mean squared shift over its variance at which a series is not aligned


class Frame(NamedTuple):
    """The series as the passes need it.

    Attributes
    ----------
    images, mask, where : dask.array.Array, shape (tilt, y, x)
        One chunk for each tilt; `where` are the pixels of the object.
    start, centre : tuple of float
        Coordinates (y, x) of pixel [0, 0] and of pixel n // 2, in pixels from the origin of the rotation.
    theta : ndarray, shape (tilt,), float64
        Tilts in degrees.
    axis : float
        Degrees from image y to the axis, positive towards -x.
    turns : ndarray, shape (tilt, 3, 3), float64
        What takes (along, across, beam) of a sample that lies flat to those of the tilt: a rotation by theta about
        the first, but for what else the angles say.
    """

    images: da.Array
    mask: da.Array
    where: da.Array
    start: tuple[float, float]
    centre: tuple[float, float]
    theta: np.ndarray
    axis: float
    turns: np.ndarray


def checked_frame(series: xr.Dataset, kind: str, maximum_shift: float, maximum_axis: float) -> Frame:
    """The series in the shape of the passes, refused where it cannot be aligned."""
    if kind not in KINDS:
        raise InputError(f"kind came as {kind!r}; choose one of {', '.join(KINDS)}.")
    check(series, TILT_SERIES)
    for name, value, unit in (("maximum_shift", maximum_shift, "pixels"), ("maximum_axis", maximum_axis, "degrees")):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} came as {value!r}; needed is a number of {unit} above 0.")
    if series.sizes["tilt"] < 3:
        raise InputError(f"A series of {series.sizes['tilt']} tilt(s) came; needed are at least three to align.")
    images, mask = (per_tilt(series[name].data) for name in ("images", "mask"))
    where = mask if kind == "film" or "object_mask" not in series else mask & per_tilt(series["object_mask"].data)
    y, x = series["y"].values, series["x"].values
    step = grid_step(x)
    start = (float(y[0]) / step, float(x[0]) / step)
    centre = (float(y[len(y) // 2]) / step, float(x[len(x) // 2]) / step)
    matrices = matrices_from_euler(series["angles"].values)
    theta, axis = _tilts(matrices)
    return Frame(images, mask, where, start, centre, theta, axis, _turns(matrices, theta, axis))


def _tilts(matrices: np.ndarray) -> tuple[np.ndarray, float]:
    """Tilts and the angle from image y to the axis they are about, in degrees.

    The axis of the rotation that takes one tilt to another is the antisymmetric part of its matrix; of all of
    them against the lowest tilt, the main direction is taken. The tilt is that of the sample's z.
    """
    lowest = matrices[np.argmax(matrices[:, 2, 2])]
    between = matrices @ lowest.T
    turns = np.stack([between[:, 0, 2] - between[:, 2, 0], between[:, 1, 2] - between[:, 2, 1]], axis=1)
    # about the axis (-sin a, cos a): x z part cos(a), y z part sin(a), times the sine of the tilt
    _, _, main = np.linalg.svd(turns, full_matrices=False)
    cosine, sine = main[0] * (1.0 if main[0, 0] >= 0 else -1.0)
    z = matrices[:, :, 2]
    tilt = np.arctan2(-(z[:, 0] * cosine + z[:, 1] * sine), z[:, 2])
    return np.rad2deg(tilt), float(np.rad2deg(np.arctan2(sine, cosine)))


def _turns(matrices: np.ndarray, theta: np.ndarray, axis: float) -> np.ndarray:
    """Rotations from a sample that lies flat, in the directions along, across and beam; shape (tilt, 3, 3)."""
    cosine, sine = np.cos(np.deg2rad(axis)), np.sin(np.deg2rad(axis))
    frame = np.array([[-sine, cosine, 0.0], [cosine, sine, 0.0], [0.0, 0.0, 1.0]])
    lowest = int(np.argmax(matrices[:, 2, 2]))
    c, s = np.cos(np.deg2rad(theta[lowest])), np.sin(np.deg2rad(theta[lowest]))
    tilted = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    return np.asarray(frame @ matrices @ matrices[lowest].T @ frame.T @ tilted)


def usable_tilts(frame: Frame) -> np.ndarray:
    """Tilts with measured pixels that are not all the same."""
    values = da.where(frame.where & da.isfinite(frame.images), frame.images, np.nan)
    spread = da.map_blocks(
        _spread_block, values, drop_axis=(1, 2), chunks=((1,) * len(values),), dtype=np.float64, meta=np.empty(0)
    )
    return np.asarray(spread.compute() > 0)


def _spread_block(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    return np.array([np.ptp(finite) if finite.size else 0.0])


def neighbours(theta: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of tilts that are neighbours in angle, left-out tilts being skipped."""
    order = np.argsort(theta, kind="stable")
    order = order[counted[order]]
    return order[:-1], order[1:]


def insignificant(shift: np.ndarray, sigma: np.ndarray, floor: float) -> bool:
    """Whether shifts are what errors of that size would give."""
    return bool((shift**2 / (sigma**2 + floor**2)).mean() < _SIGNIFICANT)
