"""What the rounds should not be given: shifts of many pixels, bright tilts, a background, few tilts, a cut volume."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr

from aetdist._rounds import Found
from aetdist.angles.tilt_series import rotation_between
from aetdist.errors import AetdistWarning
from aetdist.geometry import centred_coordinates, matrices_from_euler, remove_common_motion
from aetdist.project.atoms import project_atoms
from aetdist.refinement import reconstruct_refined
from aetdist.schema import EULER, TILT_SERIES, with_units
from aetdist.simulate import nanoparticle

pytestmark = pytest.mark.integration

T, N, SIZE = 17, 48, 0.4  # tilts; pixels; Angstrom
RANDOM = np.random.default_rng(5)
TRUE = np.stack([RANDOM.normal(0, 0.3, T), np.linspace(-70, 70, T), RANDOM.normal(0, 0.3, T)], axis=1)
START = TRUE + RANDOM.normal(0.0, 0.4, TRUE.shape)
SHIFTS = RANDOM.uniform(-1.0, 1.0, (T, 2))


def series_of(shifts: np.ndarray = SHIFTS, *, n: int = N, size: float = SIZE, diameter: float = 15.0) -> xr.Dataset:
    """A particle's images, with angles off by 0.4 degree and these shifts (tilt, [y, x]) in pixels."""
    atoms = nanoparticle(diameter, seed=1)["position"].values
    x = centred_coordinates(n, size)
    images = np.stack(
        [
            project_atoms(atoms, TRUE[[t]], sigmas=0.6, x=x - s[1] * size, y=x - s[0] * size, pixel_size=size)[0]
            for t, s in enumerate(shifts)
        ]
    )
    images += np.random.default_rng(0).normal(0.0, 0.02 * images.max(), images.shape)
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), START),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(START)),
            "pixel_size": ((), size),
        },
        {"tilt": np.arange(T), "y": x, "x": x, "euler": list(EULER)},
    )
    return with_units(series, TILT_SERIES)


def errors(found: xr.Dataset, shifts: np.ndarray = SHIFTS) -> tuple[float, float]:
    """Rms rotation in degrees and shift in pixels of the tilts that are used, beyond what they share."""
    true, used = matrices_from_euler(TRUE), found["used"].values
    turned, left = remove_common_motion(found["matrices"].values, found["shift"].values - shifts, true, used=used)
    rotation = rotation_between(true, turned)[used]
    return float(np.sqrt((rotation**2).mean())), float(np.sqrt((left[used] ** 2).mean()))


@pytest.fixture(scope="module")
def series() -> xr.Dataset:
    return series_of()


@pytest.fixture(scope="module")
def plain(series: xr.Dataset) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return reconstruct_refined(series).corrections


def spoilt(series: xr.Dataset, factors: dict[int, float], constant: float = 0.0) -> xr.Dataset:
    """Some tilts brighter, and a constant background, as a part of the maximum."""
    images = series["images"].values + np.float32(constant * series["images"].values.max())
    for t, factor in factors.items():
        images[t] *= np.float32(factor)
    return series.assign(images=(series["images"].dims, images))


def test_rounds__tilts_that_came_far_off_come_back() -> None:
    """By up to 4 pixels, two atoms: the first rounds cannot place all of them."""
    shifts = 4.0 * SHIFTS
    found = reconstruct_refined(series_of(shifts)).corrections
    assert found["used"].all() and found.attrs["converged"]
    rotation, shift = errors(found, shifts)
    assert rotation < 0.2 and shift < 0.05


def test_rounds__end_with_the_start_where_most_tilts_would_be_left_out(series: xr.Dataset) -> None:
    with pytest.warns(AetdistWarning, match=rf"Only \d+ of {T} tilts would be left: angles and shifts are left as"):
        found = reconstruct_refined(series, maximum_shift=0.3).corrections
    assert found.attrs["kept_start"] and not found.attrs["converged"] and found["used"].all()
    assert "tilts would be left" in found.attrs["stopped"]
    np.testing.assert_allclose(found["matrices"], series["matrices"], atol=1e-12)
    assert (found["shift"] == 0).all()


def test_found__is_judged_by_the_tilts_that_both_know() -> None:
    def of(*r_factor: float) -> Found:
        return Found([], [], None, np.array(r_factor))

    nan = np.nan
    assert of(0.1, 0.2, nan).lower(of(0.15, 0.2, 0.9)) and not of(0.2, 0.2, nan).lower(of(0.15, 0.2, 0.9))
    assert not of(0.19, 0.2, nan).lower(of(0.2, 0.2, 0.9), 0.1)
    assert of(0.2, 0.2, 0.3).better(of(0.199, 0.2, nan)) and not of(0.2, 0.2, 0.3).better(of(0.19, 0.19, nan))
    assert not of(0.2, 0.2, nan).better(of(0.2, 0.2, nan)) and not of(nan, nan, 0.1).lower(of(0.2, 0.2, nan))


@pytest.mark.parametrize("factors", [{7: 2.0}, {7: 1e6}, {3: 0.3, 9: 4.0}])
def test_rounds__tilts_of_another_brightness_are_left_out(
    series: xr.Dataset, plain: xr.Dataset, factors: dict[int, float]
) -> None:
    with pytest.warns(AetdistWarning, match="brightness unlike the others"):
        found = reconstruct_refined(spoilt(series, factors)).corrections
    assert np.flatnonzero(~found["used"].values).tolist() == list(factors)
    rotation, shift = errors(found)
    assert rotation < 1.5 * errors(plain)[0] and shift < 0.05


def test_rounds__a_constant_background_is_left_out_and_told(series: xr.Dataset, plain: xr.Dataset) -> None:
    with pytest.warns(AetdistWarning, match=r"constant background of 2\d% of their maximum.*; subtract it before"):
        found = reconstruct_refined(spoilt(series, {}, 0.3))
    rotation, shift = errors(found.corrections)
    assert rotation < 1.3 * errors(plain)[0] and shift < 0.05
    assert float(found.volume["density"].isel(y=slice(2)).mean()) < 0.2 * float(found.volume["density"].mean())


def test_rounds__small_pixels_find_what_large_ones_do() -> None:
    """Lengths that were chosen for pixels of 0.35 Angstrom do for 0.12 too: noise makes no atoms."""
    found = reconstruct_refined(series_of(n=88, size=0.12, diameter=8.0), rounds=3).corrections
    rotation, shift = errors(found)
    assert found["used"].all() and rotation < 0.2 and shift < 0.1


def test_rounds__few_tilts_are_told(series: xr.Dataset) -> None:
    with pytest.warns(AetdistWarning, match="8 tilts are used; needed are 9 or more, better 15"):
        reconstruct_refined(series.isel(tilt=slice(0, T, 2)), exclude=[0], rounds=1)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((28, 28, 48), r"% of the images' intensity are on rays that pass the volume by"),
        ((48, 48, 20), r"A face of the volume holds \d\.\d times as much as the volume on average"),
    ],
)
def test_rounds__a_volume_that_cuts_the_object_is_told(
    series: xr.Dataset, shape: tuple[int, int, int], match: str
) -> None:
    with pytest.warns(AetdistWarning, match=match), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tilt|Only|R did not")
        reconstruct_refined(series, shape=shape, rounds=1)


def test_rounds__a_volume_that_holds_the_object_is_not_told(series: xr.Dataset) -> None:
    for model in ("atoms", "volume"):
        assert reconstruct_refined(series, shape=(44, 44, 44), model=model, rounds=1).corrections["used"].all()
    with pytest.warns(AetdistWarning, match="constant background"):
        reconstruct_refined(spoilt(series, {}, 0.3), shape=(44, 44, 44), rounds=1)
