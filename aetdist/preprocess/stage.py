"""The stage `preprocess`: raw frames to denoised images without background, resampled once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import matrices_from_euler
from ..images import resample
from ..schema import FRAMES, TILT_SERIES, check, with_units
from .background import subtract_background, warn_of_lost_objects
from .denoise import denoise, warn_of_clamped
from .frames import register_frames, sum_frames, warn_of_dropped
from .noise import NoiseModel, estimate_noise_model

__all__ = ["correct_frames", "preprocess_acquisition", "warn_of_images"]

_FOUND = ("frame_shift", "frame_kept", "frame_correlation", "distortion")
_CLAMPED = 1e-3
"""Part of the pixels that may lie below the zero of the Anscombe transform before it is worth a warning."""
_NOISE_FRAMES = 16
"""Raw frames, spread over the series, from which the noise is estimated."""


def preprocess_acquisition(
    raw: xr.Dataset,
    *,
    kind: Literal["particle", "film"] = "particle",
    distortion: Sequence[Sequence[float]] | None = None,
    denoised: bool = True,
    background: bool = True,
    noise: tuple[float, float, float] | None = None,
) -> xr.Dataset:
    """Computes: drift of the frames and noise of the detector; returns the corrected images, lazily.

    Parameters
    ----------
    raw : xarray.Dataset
        FRAMES, lazy or in memory.
    kind : {"particle", "film"}
        An isolated object, or a film that goes on beyond the field.
    distortion : sequence of sequence of float, optional
        Matrix ((yy, yx), (xy, xx)) of the scan, for vectors (y, x) from the centre; the default is none.
    denoised : bool
        Denoise the images.
    background : bool
        Subtract the background.
    noise : tuple of float, optional
        Of the detector: counts for an electron, counts without any, and standard deviation in counts of its own
        noise. The default is found in the frames.

    Returns
    -------
    xarray.Dataset
        TILT_SERIES, images float32 in counts of one frame, lazy, chunks of one tilt; ``frame_shift`` (tilt, frame,
        axis) in pixels, ``frame_kept``, ``frame_correlation`` (tilt, frame), ``distortion`` (2, 2); the noise of a
        frame in the attributes; ``object_mask`` and ``background`` (tilt, y, x) where a background was subtracted.

    Raises
    ------
    InputError
        If the frames or an option cannot be used.
    """
    check(raw, FRAMES)
    matrix = np.eye(2) if distortion is None else _checked_distortion(distortion)
    drift = register_frames(raw).compute()
    warn_of_dropped(drift)
    model = _noise_of(raw) if noise is None else NoiseModel(*map(float, noise))
    corrections = drift.assign(distortion=(("axis", "scan_axis"), matrix, {"units": "1"})).assign_attrs(
        noise_gain=model.gain,
        noise_offset=model.offset,
        noise_read_noise=model.read_noise,
        kind=kind,
        denoised=denoised,
        background_subtracted=background,
    )
    return correct_frames(raw, corrections)


def correct_frames(
    raw: xr.Dataset,
    corrections: xr.Dataset,
    shift: np.ndarray | None = None,
    *,
    local: np.ndarray | None = None,
    denoised: bool | None = None,
    background: bool | None = None,
) -> xr.Dataset:
    """Images from raw frames with all corrections, each frame resampled once; lazy, one Dask task for each tilt.

    Parameters
    ----------
    raw : xarray.Dataset
        FRAMES.
    corrections : xarray.Dataset
        What :func:`preprocess_acquisition` found and was asked for: ``frame_shift``, ``frame_kept``,
        ``distortion``, and its attributes.
    shift : ndarray, shape (tilt, 2), optional
        Shift of every tilt in pixels [y, x].
    local : ndarray, shape (tilt, 2, term), optional
        What of it varies over the field, in pixels (:data:`~aetdist.images.displacement.TERMS`).
    denoised, background : bool, optional
        Whether to denoise, and to subtract the background; the default is what `corrections` says.

    Returns
    -------
    xarray.Dataset
        As :func:`preprocess_acquisition`.

    Notes
    -----
    image_t(r) = mean over kept frames f of frame_tf(D (r + a_t) + s_tf), denoised, less the counts without electrons,
    then without background. Noise is taken to be what the interpolation leaves of it.
    """
    said = corrections.attrs
    found = corrections[[name for name in _FOUND if name in corrections]].compute()
    moved = found if shift is None else found.assign(shift=(("tilt", "axis"), np.asarray(shift, dtype=np.float64)))
    if local is not None:
        moved = moved.assign(local_shift=(("tilt", "axis", "term"), np.asarray(local, dtype=np.float64)))
    images, mask = sum_frames(raw, moved)
    angles = raw["angles"].values
    series = found.assign(
        images=images,
        mask=mask,
        angles=(("tilt", "euler"), angles),
        matrices=(("tilt", "row", "column"), matrices_from_euler(angles)),
    ).assign_coords({name: raw[name] for name in ("tilt", "frame", "y", "x", "euler") if name in raw.coords})
    if "pixel_size" in raw:
        series["pixel_size"] = raw["pixel_size"]
    series.attrs = {**raw.attrs, **said}
    series = with_units(series, TILT_SERIES)
    model = NoiseModel(*(float(said[f"noise_{name}"]) for name in ("gain", "offset", "read_noise")))
    if said["denoised"] if denoised is None else denoised:
        series = _denoised(series, model, np.zeros((len(angles), 2)) if shift is None else np.asarray(shift))
    series["images"] = series["images"].where(series["mask"], model.offset) - np.float32(model.offset)
    series.attrs |= said
    if said["background_subtracted"] if background is None else background:
        series = subtract_background(series, kind=said["kind"])
    return series


def warn_of_images(series: xr.Dataset) -> None:
    """Warn of tilts whose object leaves the field, and of pixels that were too dark for the detector's noise.

    Parameters
    ----------
    series : xarray.Dataset
        What :func:`preprocess_acquisition` gives, computed.
    """
    if "object_leaves_field" in series:
        warn_of_lost_objects(series)
    if "clamped_pixels" in series:
        n_pixels = int(np.prod(series["images"].shape))
        if series["clamped_pixels"].sum() > _CLAMPED * n_pixels:
            warn_of_clamped(series["clamped_pixels"].values, n_pixels)


def _noise_of(raw: xr.Dataset) -> NoiseModel:
    """Noise of the detector, from raw frames spread over the series: resampling would have smoothed it."""
    numbers = np.unique(np.linspace(0, raw.sizes["tilt"] - 1, _NOISE_FRAMES).round().astype(int))
    return estimate_noise_model(raw["frames"].isel(tilt=numbers, frame=0).data)


def _denoised(series: xr.Dataset, model: NoiseModel, shift: np.ndarray) -> xr.Dataset:
    """Every tilt denoised with the noise that the mean of its kept frames has, after they were interpolated."""
    n_kept = series["frame_kept"].values.sum(axis=1)
    parts = []
    for n in np.unique(n_kept):
        tilts = np.flatnonzero(n_kept == n)
        part = series.isel(tilt=tilts)
        smoothed = np.sqrt(_kept_variance(part, shift[tilts])) if n else 1.0
        mean = model.of_mean(max(1, int(n)))
        noise = NoiseModel(mean.gain * smoothed**2, mean.offset, mean.read_noise * smoothed)
        parts.append(denoise(part, noise).assign_coords(place=("tilt", tilts)))
    joined = xr.concat(parts, "tilt", data_vars="minimal") if len(parts) > 1 else parts[0]
    return joined.isel(tilt=np.argsort(joined["place"].values)).drop_vars("place")


def _kept_variance(series: xr.Dataset, shift: np.ndarray) -> float:
    """Part of a pixel's variance that interpolation leaves, mean over frames and places in the image.

    Between pixels a spline is a weighted mean; how much noise it leaves depends on where between them it looks.
    """
    matrix, kept = series["distortion"].values, series["frame_kept"].values
    places = np.stack(np.meshgrid(*(np.linspace(-n / 2, n / 2, 13) for n in _image_shape(series))), -1).reshape(-1, 2)
    moved = (series["frame_shift"].values + (shift @ matrix.T)[:, None])[kept]
    phases = ((places @ matrix.T + moved[:, None]) % 1.0).reshape(-1, 2)
    return float(np.interp(phases, np.linspace(0, 1, len(_energies())), _energies()).prod(axis=1).mean())


def _image_shape(series: xr.Dataset) -> tuple[int, int]:
    return series.sizes["y"], series.sizes["x"]


@functools.cache
def _energies() -> np.ndarray:
    """Sum of the squared weights of the cubic spline at 0, 1/16 ... 1 of the way between two pixels."""
    impulse = np.zeros((65, 65))
    impulse[32, 32] = 1.0
    places = np.linspace(0.0, 1.0, 17)
    return np.array([(resample(impulse, np.eye(2), (t, 0.0))[0].astype(np.float64) ** 2).sum() for t in places])


def _checked_distortion(distortion: Sequence[Sequence[float]]) -> np.ndarray:
    matrix = np.asarray(distortion, dtype=np.float64)
    if matrix.shape != (2, 2) or not np.isfinite(matrix).all() or np.abs(matrix - np.eye(2)).max() > 0.2:
        raise InputError(
            f"The distortion came as {np.asarray(distortion).tolist()}; needed is a matrix ((yy, yx), (xy, xx)) within "
            "0.2 of ((1, 0), (0, 1))."
        )
    return matrix
