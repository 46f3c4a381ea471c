"""The stage `preprocess`: raw frames to denoised images without background, resampled once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import matrices_from_euler
from ..images import resample
from ..schema import FRAMES, TILT_SERIES, check, with_units
from .background import KINDS, subtract_background, warn_of_lost_objects
from .bm3d import BM3DParameters
from .denoise import ADF_PARAMETERS, denoise, warn_of_clamped
from .distortion import residual_distortion as find_residual
from .frames import register_frames, sum_frames, warn_of_dropped
from .model import MakeAtoms, model_particle
from .noise import NoiseModel, add_noise, estimate_noise_model
from .sweep import choose_parameters

__all__ = ["correct_frames", "preprocess_acquisition", "warn_of_images"]

_FOUND = ("frame_shift", "frame_kept", "frame_correlation", "distortion", "given_distortion")
_CLAMPED = 1e-3
"""Part of the pixels that may lie below the zero of the Anscombe transform before it is worth a warning."""
_SIGNIFICANT = 3.0
"""Standard deviations from nothing at which a residual distortion is applied."""
_PREVIEWS = 2
"""Tilts, spread over the series, that the model particle is made like."""
_NOISE_FRAMES = 16
"""Raw frames, spread over the series, from which the noise is estimated."""


def preprocess_acquisition(
    raw: xr.Dataset,
    *,
    kind: Literal["particle", "film"] = "particle",
    distortion: Sequence[Sequence[float]] | None = None,
    residual_distortion: bool = False,
    denoised: bool = True,
    denoising: Literal["default", "chosen"] = "default",
    background: bool = True,
    noise: tuple[float, float, float] | None = None,
    seed: int = 0,
    make_atoms: MakeAtoms | None = None,
) -> xr.Dataset:
    """Computes: drift, noise, and what else has to be found in the frames; returns the corrected images, lazily.

    Parameters
    ----------
    raw : xarray.Dataset
        FRAMES, lazy or in memory.
    kind : {"particle", "film"}
        An isolated object, or a film that goes on beyond the field.
    distortion : sequence of sequence of float, optional
        Matrix ((yy, yx), (xy, xx)) of the scan, for vectors (y, x) from the centre; the default is none.
    residual_distortion : bool
        Look for the shear that this leaves, by the common lines of the series; it is applied if it is more than three
        of its standard deviations. Needs an isolated object and tilts about a single axis; all images are
        held in memory for it.
    denoised : bool
        Denoise the images.
    denoising : {"default", "chosen"}
        Parameters of the denoising: the default ones, or those that serve best on noisy images of a model
        particle like the measured one, which takes a minute or two.
    background : bool
        Subtract the background.
    noise : tuple of float, optional
        Of the detector: counts for an electron, counts without any, and standard deviation in counts of its own
        noise. The default is found in the frames.
    seed : int
        Of the noise of the model particle's images.
    make_atoms : callable, optional
        For "chosen": gives ATOMS of a particle of a diameter in Angstrom, such as
        :func:`~aetdist.simulate.nanoparticle`.

    Returns
    -------
    xarray.Dataset
        TILT_SERIES, images float32 in counts of one frame, lazy, chunks of one tilt; ``frame_shift`` (tilt, frame,
        axis) in pixels, ``frame_kept``, ``frame_correlation`` (tilt, frame), ``distortion`` (2, 2); the noise of a
        frame in the attributes; ``object_mask`` and ``background`` (tilt, y, x) where a background was subtracted.
        With `residual_distortion`, ``given_distortion`` (2, 2), and what was found in the attributes
        ``residual_...``; with "chosen", ``sweep_correlation`` and ``sweep_rms_error`` (strength, hard_threshold,
        transform, model_tilt), the parameters in the attributes ``denoise_...``.

    Raises
    ------
    InputError
        If the frames or an option cannot be used.
    """
    check(raw, FRAMES)
    _check_options(raw, kind, residual_distortion, denoising, make_atoms)
    matrix = np.eye(2) if distortion is None else _checked_distortion(distortion)
    given = None if noise is None else NoiseModel(*map(float, noise))
    drift = register_frames(raw).compute()
    warn_of_dropped(drift)
    if not drift["frame_kept"].values.any():
        raise InputError("No frame of any tilt can be used: all are blank; check the files that were imported.")
    model = given or _noise_of(raw, drift["frame_kept"].values)
    corrections = drift.assign(distortion=(("axis", "scan_axis"), matrix, {"units": "1"})).assign_attrs(
        noise_gain=model.gain,
        noise_offset=model.offset,
        noise_read_noise=model.read_noise,
        kind=kind,
        denoised=denoised,
        background_subtracted=background,
    )
    if residual_distortion:
        corrections = _with_residual(raw, corrections)
    if denoised and denoising == "chosen" and make_atoms is not None:
        corrections, table = _with_chosen_parameters(raw, corrections, make_atoms, seed)
        return correct_frames(raw, corrections).assign(table.variables)
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
    model = _recorded_noise(said)
    if said["denoised"] if denoised is None else denoised:
        moved_by = np.zeros((len(angles), 2)) if shift is None else np.asarray(shift)
        series = _denoised(series, model, moved_by, _recorded_parameters(said))
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


def _noise_of(raw: xr.Dataset, kept: np.ndarray) -> NoiseModel:
    """Noise of the detector, from raw frames spread over the series: resampling would have smoothed it."""
    usable = np.flatnonzero(kept.any(axis=1))
    tilts = usable[np.unique(np.linspace(0, len(usable) - 1, _NOISE_FRAMES).round().astype(int))]
    first = xr.DataArray(kept[tilts].argmax(axis=1), dims="tilt")
    return estimate_noise_model(raw["frames"].isel(tilt=xr.DataArray(tilts, dims="tilt"), frame=first).data)


def _with_residual(raw: xr.Dataset, corrections: xr.Dataset) -> xr.Dataset:
    """Corrections with the whole distortion: the given one and, where it shows, what common lines find beside it."""
    given = corrections["distortion"]
    series = correct_frames(raw, corrections, denoised=False, background=True)
    usable = corrections["frame_kept"].any("frame").values
    images = series["images"].where(series["mask"], 0.0)[usable].values
    found = find_residual(images, raw["angles"].values[usable], float(raw["pixel_size"]))
    size = float(np.abs(found.matrix - np.eye(2)).max())
    applied = bool(size > _SIGNIFICANT * found.uncertainty)
    return corrections.assign(
        given_distortion=given,
        distortion=(given.dims, given.values @ found.matrix if applied else given.values, given.attrs),
    ).assign_attrs(
        residual_distortion=found.matrix.tolist(),
        residual_uncertainty=found.uncertainty,
        residual_rotation=found.rotation,
        residual_misfit=found.residual,
        residual_applied=applied,
    )


def _with_chosen_parameters(
    raw: xr.Dataset, corrections: xr.Dataset, make_atoms: MakeAtoms, seed: int
) -> tuple[xr.Dataset, xr.Dataset]:
    """Corrections with the parameters that serve best on a model particle, and the table of all that were tried."""
    n_kept = corrections["frame_kept"].values.sum(axis=1)
    usable = np.flatnonzero(n_kept)
    tilts = usable[np.linspace(0, len(usable) - 1, 2 * _PREVIEWS + 1).round().astype(int)[1::2]]
    part = corrections.isel(tilt=tilts)
    seen = correct_frames(raw.isel(tilt=tilts), part, denoised=True, background=True).compute()
    model = model_particle(seen, make_atoms)
    of_frame = _recorded_noise(corrections.attrs)
    clean = model["images"].values + of_frame.offset
    noise = _noise_left(of_frame, part, np.zeros((len(tilts), 2)), (raw.sizes["y"], raw.sizes["x"]))
    noisy = np.stack([_seen_in_frames(image, of_frame, part, i, seed) for i, image in enumerate(clean)])
    best, table = choose_parameters(clean, noise, noisy_images=noisy, seed=seed)
    table = table.rename({name: f"sweep_{name}" for name in table.data_vars} | {"tilt": "model_tilt"})
    chosen = {f"denoise_{name}": value for name, value in asdict(best).items()}
    return corrections.assign_attrs(chosen | model.attrs | {"denoise_seed": int(seed)}), table


def _seen_in_frames(clean: np.ndarray, noise: NoiseModel, found: xr.Dataset, tilt: int, seed: int) -> np.ndarray:
    """A clean image as the mean of a tilt's frames shows it: the noise of each, interpolated as that frame is."""
    shifts = found["frame_shift"].values[tilt][found["frame_kept"].values[tilt]]
    frames = np.repeat(clean[None], len(shifts), axis=0)
    errors = add_noise(frames, noise, seed + tilt) - frames
    matrix = found["distortion"].values
    moved = [resample(error, matrix, shift - np.round(shift)) for error, shift in zip(errors, shifts, strict=True)]
    return np.asarray(clean + np.mean([np.where(inside, image, 0.0) for image, inside in moved], axis=0))


def _recorded_noise(said: dict[str, Any]) -> NoiseModel:
    """Noise of a frame, as the attributes of a series say it."""
    return NoiseModel(*(float(said[f"noise_{name}"]) for name in ("gain", "offset", "read_noise")))


def _recorded_parameters(said: dict[str, Any]) -> BM3DParameters:
    """Parameters of the denoising, as the attributes of a series say them; otherwise the default ones."""
    names = [field.name for field in fields(BM3DParameters)]
    return BM3DParameters(**{name: said.get(f"denoise_{name}", getattr(ADF_PARAMETERS, name)) for name in names})


def _denoised(series: xr.Dataset, model: NoiseModel, shift: np.ndarray, parameters: BM3DParameters) -> xr.Dataset:
    """Every tilt denoised with the noise that the mean of its kept frames has, after they were interpolated."""
    n_kept = series["frame_kept"].values.sum(axis=1)
    parts = []
    for n in np.unique(n_kept):
        tilts = np.flatnonzero(n_kept == n)
        part = series.isel(tilt=tilts)
        noise = _noise_left(model, part, shift[tilts], _image_shape(series))
        parts.append(denoise(part, noise, parameters=parameters).assign_coords(place=("tilt", tilts)))
    joined = xr.concat(parts, "tilt", data_vars="minimal") if len(parts) > 1 else parts[0]
    return joined.isel(tilt=np.argsort(joined["place"].values)).drop_vars("place")


def _noise_left(model: NoiseModel, found: xr.Dataset, shift: np.ndarray, shape: tuple[int, int]) -> NoiseModel:
    """Noise of the mean of the kept frames of some tilts, after they were interpolated; of a frame if none is kept."""
    n_kept = found["frame_kept"].values.sum(axis=1)
    if not n_kept.any():
        return model
    mean, smoothed = model.of_mean(round(n_kept[n_kept > 0].mean())), _kept_variance(found, shift, shape)
    return NoiseModel(mean.gain * smoothed, mean.offset, mean.read_noise * np.sqrt(smoothed))


def _kept_variance(found: xr.Dataset, shift: np.ndarray, shape: tuple[int, int]) -> float:
    """Part of a pixel's variance that interpolation leaves, mean over frames and places in the image.

    Between pixels a spline is a weighted mean; how much noise it leaves depends on where between them it looks. It
    also leaves it correlated. To give the filter the variance of every coefficient of a block instead changed the PSNR
    of a simulated particle (4 frames a tilt, 1.7e4 e/A^2) by -0.07 to 0.08 dB: not worth it.
    """
    matrix, kept = found["distortion"].values, found["frame_kept"].values
    places = np.stack(np.meshgrid(*(np.linspace(-n / 2, n / 2, 13) for n in shape)), -1).reshape(-1, 2)
    moved = (found["frame_shift"].values + (shift @ matrix.T)[:, None])[kept]
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


def _check_options(raw: xr.Dataset, kind: str, residual: bool, denoising: str, make_atoms: MakeAtoms | None) -> None:
    if kind not in KINDS:
        raise InputError(f"kind came as {kind!r}; choose one of {', '.join(KINDS)}.")
    if denoising not in ("default", "chosen"):
        raise InputError(f"denoising came as {denoising!r}; choose 'default' or 'chosen'.")
    if kind == "film" and residual:
        raise InputError("Common lines of whole images need an isolated object; leave out residual_distortion.")
    if kind == "film" and denoising == "chosen":
        raise InputError("The model is a particle; for a film leave denoising at 'default'.")
    if (residual or denoising == "chosen") and "pixel_size" not in raw:
        raise InputError(
            "The frames have no pixel_size, which a residual distortion and a model need: import them with one."
        )
    if denoising == "chosen" and make_atoms is None:
        raise InputError(
            "denoising='chosen' came without make_atoms; give what makes a model, such as aetdist.nanoparticle."
        )


def _checked_distortion(distortion: Sequence[Sequence[float]]) -> np.ndarray:
    matrix = np.asarray(distortion, dtype=np.float64)
    if matrix.shape != (2, 2) or not np.isfinite(matrix).all() or np.abs(matrix - np.eye(2)).max() > 0.2:
        raise InputError(
            f"The distortion came as {np.asarray(distortion).tolist()}; needed is a matrix ((yy, yx), (xy, xx)) within "
            "0.2 of ((1, 0), (0, 1))."
        )
    return matrix
