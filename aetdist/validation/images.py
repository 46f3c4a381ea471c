"""The tilt series that a model would give: as the run's detector saw it, first without noise, then with the run's."""

from __future__ import annotations

from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage

from ..schema import TILT_SERIES, with_units
from ..simulate import Multislice, simulate_tilt_series
from .model import Geometry
from .noise import Noise, noise_like

_REACH = 5.0  # standard deviations of a blur
MOSTLY_INSIDE = 0.1
"""Of the matter that a pixel sees, at most so much may be beside the model; else refinement leaves it out too."""


class Beside(NamedTuple):
    """Matter beside a model.

    Attributes
    ----------
    outside : dask array, shape (tilt, y, x), float, or None
        Its projections; None where there is none.
    counted : dask array, shape (tilt, y, x), bool, or None
        Pixels that see mostly the model; None: all of them.
    """

    outside: Any
    counted: Any


NOTHING = Beside(None, None)


def noise_free(
    model: xr.Dataset, geometry: Geometry, beside: Beside = NOTHING, *, multislice: Multislice | None = None
) -> xr.Dataset:
    """Images of a model as the tilts see it, without noise: tails of the probe, shift and brightness included.

    Parameters
    ----------
    model : xarray.Dataset
        What `model_of` gives.
    geometry : Geometry
    beside : Beside
        Matter beside the model.
    multislice : Multislice, optional
        Images by multislice, in parts of the electrons; linear projections without it.

    Returns
    -------
    xarray.Dataset
        ``images`` (tilt, y, x) float32, a Dask array of one chunk per tilt; ``counted`` (tilt, y, x) bool, pixels that
        were measured and see mostly the model; ``angles``, ``shift`` and ``gain`` that are true.
    """
    series = geometry.series
    ny, nx = series.sizes["y"], series.sizes["x"]
    n_atoms, n_tilts = model.sizes["atom"], len(geometry.angles)
    seen = simulate_tilt_series(
        model.assign(type=("atom", np.arange(1, n_atoms + 1))),  # so that each atom has a width of its own
        geometry.angles,
        pixel_size=float(series["pixel_size"]),
        sigma=widths_of(model).tolist(),
        field=(nx, ny),
        field_center=(float(series["x"][nx // 2]), float(series["y"][ny // 2])),
        multislice=multislice or False,
    )
    tails: tuple[tuple[float, float], ...] = ()
    if multislice is None:  # which has those that the probe has
        tails = tuple(zip(model.attrs["tails"], model.attrs["tail_blurs"], strict=True))
    images = da.map_blocks(
        _as_detected,
        seen["images"].data,
        da.from_array(geometry.shift[:, :, None], chunks=(1, 2, 1), name=False),
        da.from_array(geometry.gain[:, None, None], chunks=1, name=False),
        *([] if beside.outside is None else [_by_tilt(beside.outside)]),
        tails=tails,
        chunks=((1,) * n_tilts, (ny,), (nx,)),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )
    counted = _by_tilt(series["mask"].data)
    if beside.counted is not None:
        counted = counted & _by_tilt(beside.counted)
    return xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images, {"units": "1"}),
            "counted": (("tilt", "y", "x"), counted, {"units": "1"}),
            "angles": (("tilt", "euler"), geometry.angles, {"units": "degree"}),
            "shift": (("tilt", "shift_axis"), geometry.shift, {"units": "pixel"}),
            "gain": ("tilt", geometry.gain, {"units": "1"}),
        },
        series.drop_vars("images").coords,
        {name: value for name, value in seen.attrs.items() if name.startswith("simulation_multislice")},
    )


def widths_of(atoms: xr.Dataset) -> np.ndarray:
    """Standard deviation of every atom's Gaussian in Angstrom, (atom,), from its B factor."""
    return np.asarray(np.sqrt(atoms["b_factor"].values / 8.0) / np.pi)


def with_noise(clean: xr.Dataset, geometry: Geometry, noise: Noise, seed: int) -> xr.Dataset:
    """The series with noise, one task per tilt.

    Parameters
    ----------
    clean : xarray.Dataset
        What `noise_free` gives, lazy.
    geometry : Geometry
        Its series has the measured images, whose residual says what the noise looks like where it is not white.
    noise : Noise
    seed : int
        The same seed gives the same noise, however the work is cut up.

    Returns
    -------
    xarray.Dataset
        TILT_SERIES, pixels outside the mask 0.
    """
    series = geometry.series
    images = da.map_blocks(
        _noisy,
        _by_tilt(clean["images"].data),
        _by_tilt(series["images"].data),
        _by_tilt(series["mask"].data),
        _by_tilt(clean["counted"].data),
        da.arange(len(geometry.angles), chunks=1)[:, None, None],
        noise=noise,
        seed=seed,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )
    return with_units(series.assign(images=(("tilt", "y", "x"), images)), TILT_SERIES)


def _by_tilt(array: Any) -> Any:
    """A Dask array of one chunk per tilt."""
    return da.asarray(array).rechunk((1, -1, -1))


def _as_detected(
    image: np.ndarray, shift: np.ndarray, gain: np.ndarray, *outside: np.ndarray, tails: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """One image (1, y, x) blurred by the tails of the probe, moved, brightened, with what is beside the model."""
    sharp = np.asarray(image[0], dtype=np.float64)
    shown = (1.0 - sum(part for part, _ in tails)) * sharp
    for part, blur in tails:
        if part > 0:
            shown += part * ndimage.gaussian_filter(sharp, blur, mode="nearest", truncate=_REACH)
    moved = shift[0, :, 0]
    if moved.any():
        shown = ndimage.shift(shown, moved, order=5, mode="nearest")
    shown *= gain[0, 0, 0]
    for more in outside:
        shown += more[0]
    return shown[None].astype(np.float32)


def _noisy(
    clean: np.ndarray,
    measured: np.ndarray,
    mask: np.ndarray,
    counted: np.ndarray,
    number: np.ndarray,
    *,
    noise: Noise,
    seed: int,
) -> np.ndarray:
    """One image (1, y, x) with noise from the stream of its tilt."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, int(number[0, 0, 0]))))
    image = np.asarray(clean[0], dtype=np.float64)
    if noise.white:
        dark = np.minimum(image, 0.0)
        if noise.gain > 0:
            image = dark + noise.gain * random.poisson((image - dark) / noise.gain)
        image = image + np.sqrt(noise.floor) * random.standard_normal(image.shape)
    else:
        image = image + noise_like(np.asarray(measured[0]) - image, counted[0], random)
    return np.where(mask[0], image, 0.0)[None].astype(np.float32)
