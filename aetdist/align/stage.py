"""The stage `align`: what was found is applied, to the raw frames where there are any, in one resampling."""

from __future__ import annotations

from collections.abc import Callable

import dask.array as da
import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import matrices_from_euler, rotate_tilt_axis
from ..images import resample
from ..images.displacement import as_map, checked_local
from ..schema import TILT_SERIES, check, with_units

__all__ = ["apply_alignment", "shift_images"]


def apply_alignment(
    series: xr.Dataset, found: xr.Dataset, *, remake: Callable[[np.ndarray], xr.Dataset] | None = None
) -> xr.Dataset:
    """Images where they belong, lazily, with everything that was found.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES, preprocessed.
    found : xarray.Dataset
        What :func:`~aetdist.align.align_tilt_series` found in it: ``shift`` (tilt, [y, x]) in pixels, ``tilt_axis``
        in degrees, ``used`` (tilt,) and the table of qualities.
    remake : callable, optional
        Makes the images again from the raw frames, with the shifts among all other corrections
        (:func:`~aetdist.preprocess.correct_frames`), so that they are resampled once only. The default
        resamples `series`.

    Returns
    -------
    xarray.Dataset
        TILT_SERIES with what was found. The mask of a tilt that is not used is False. Where
        ``found.attrs["already_aligned"]``, images and angles are those of `series`.

    Notes
    -----
    The axis goes into the Euler angles: R becomes Rz(a) R Rz(-a); images are not turned.
    """
    check(series, TILT_SERIES)
    aligned = bool(found.attrs.get("already_aligned", False))
    shift, axis = found["shift"].values, float(found["tilt_axis"])
    images = series
    if not aligned:
        images = shift_images(series, shift) if remake is None else remake(shift)
    angles = series["angles"].values if aligned else rotate_tilt_axis(series["angles"].values, axis)
    others = {str(name): v for name, v in found.data_vars.items() if name not in TILT_SERIES.variables}
    result = images.assign(
        others
        | {
            "mask": images["mask"] & found["used"],
            "angles": (("tilt", "euler"), angles),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(angles)),
        }
    )
    result.attrs = {**images.attrs, **found.attrs}
    return with_units(result, TILT_SERIES)


def shift_images(series: xr.Dataset, shift: np.ndarray, *, local: np.ndarray | None = None) -> xr.Dataset:
    """Images at r + a_t(r) for a shift a_t of every tilt, which may vary over the field, one Dask task each.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES.
    shift : ndarray, shape (tilt, 2)
        Pixels [y, x].
    local : ndarray, shape (tilt, 2, term), optional
        What of the shift varies over the field, in pixels (:data:`~aetdist.images.displacement.TERMS`).

    Returns
    -------
    xarray.Dataset
        `series` with its images and its mask resampled by cubic splines.
    """
    shift = np.asarray(shift, dtype=np.float64)
    if shift.shape != (series.sizes["tilt"], 2) or not np.isfinite(shift).all():
        raise InputError(
            f"Shifts of shape {shift.shape} came; needed is [y, x] for each of {series.sizes['tilt']} tilts."
        )
    local = checked_local(local, len(shift))
    data = [series[name].data for name in ("images", "mask")]
    data = [array if isinstance(array, da.Array) else da.from_array(array) for array in data]
    whole = {axis: -1 for axis in (1, 2)}
    images, mask = (array.rechunk({0: 1, **whole}) for array in data)
    moved = [da.from_array(shift, chunks=(1, 2), name=False), "ta"]
    if local is not None:
        moved += [da.from_array(local, chunks=(1, 2, -1), name=False), "tab"]
    both = da.blockwise(
        _shifted, "tkyx", images, "tyx", mask, "tyx", *moved,
        new_axes={"k": 2}, concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32),
    )  # fmt: skip
    dims = series["images"].dims
    return series.assign(
        images=(dims, both[:, 0], series["images"].attrs), mask=(dims, both[:, 1] > 0, series["mask"].attrs)
    )


def _shifted(images: np.ndarray, mask: np.ndarray, shift: np.ndarray, local: np.ndarray | None = None) -> np.ndarray:
    """Image and mask of each tilt of a block, stacked."""
    result = np.empty((len(images), 2, *images.shape[1:]), np.float32)
    for t, out in enumerate(result):
        matrix, place, bend = np.eye(2), shift[t], None
        if local is not None:
            matrix, place, bend = as_map(shift[t], local[t], images.shape[1:])
        out[0], out[1] = resample(np.where(mask[t], images[t], np.nan), matrix, place, bend=bend)
    return result
