"""What refine_angles should not be given: tilts that went astray, pixels that are no numbers, noise, too few tilts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from aetdist.angles import refine_angles
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.geometry.gauge import pinned
from aetdist.project.atoms import project_atoms, render_atoms
from aetdist.schema import EULER, TILT_SERIES, with_units
from aetdist.simulate import nanoparticle

N, SIZE, SIGMA = 40, 0.4, 0.65  # voxels; Angstrom
ANGLES = euler_from_tilts(np.linspace(-60.0, 60.0, 11))


def series_of(images: np.ndarray) -> xr.Dataset:
    x = centred_coordinates(N, SIZE)
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), ANGLES.copy()),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(ANGLES)),
            "pixel_size": ((), SIZE),
        },
        {"tilt": np.arange(len(images)), "y": x, "x": x, "euler": list(EULER)},
    )
    return with_units(series, TILT_SERIES)


@pytest.fixture(scope="module")
def case() -> tuple[xr.Dataset, xr.DataArray]:
    """A particle's tilt series, without an error but noise, and its volume."""
    atoms = nanoparticle(11.0, seed=3)["position"].values
    x = centred_coordinates(N, SIZE)
    images = project_atoms(atoms, ANGLES, sigmas=SIGMA, x=x, y=x, pixel_size=SIZE)
    images += np.random.default_rng(0).normal(0.0, 0.02 * images.max(), images.shape)
    density = render_atoms(atoms, sigmas=SIGMA, x=x, y=x, z=x, pixel_size=SIZE)
    return series_of(images), xr.DataArray(density, dims=("z", "y", "x"), coords={"z": x, "y": x, "x": x})


def test_refine_angles__a_tilt_that_went_astray_does_not_turn_the_others(case: tuple[xr.Dataset, xr.DataArray]) -> None:
    """The sample stays where the good tilts have it, as if the bad one had been left out by hand."""
    series, volume = case
    wrong = series.copy(deep=True)
    wrong["angles"][6, 1] += 5.0
    with pytest.warns(AetdistWarning, match=r"6 \(moved too far\)"):
        found = refine_angles(wrong, volume)
    by_hand = refine_angles(series, volume, exclude=[6])
    good = np.arange(11) != 6
    np.testing.assert_array_equal(found["used"], good)
    np.testing.assert_allclose(found["angles"][good], by_hand["angles"][good], atol=1e-9)
    np.testing.assert_allclose(found["shift"][good], by_hand["shift"][good], atol=1e-9)


def test_pinned__one_astray_takes_no_others_with_it() -> None:
    """One of five is off by 12 degrees: by 2.4 in common, so that two more would seem further than the limit of 2."""
    references = matrices_from_euler(euler_from_tilts(np.linspace(-60.0, 60.0, 5)))
    off = np.array([[0.0, 0.0, 12.0], [0, 0, -1.5], [0, 0, 1.5], [0, 0, 0.5], [0, 0, -0.5]])
    sample = Rotation.from_rotvec(off, degrees=True).as_matrix()
    matrices = references @ sample
    every, nothing = np.ones(5, bool), np.zeros((5, 2))
    turned, shifts, astray = pinned(matrices, nothing, references, every, every, maximum_angle=2.0, maximum_shift=3.0)
    assert astray.tolist() == [True, False, False, False, False]
    np.testing.assert_allclose(turned[1:], matrices[1:], atol=1e-9)
    np.testing.assert_allclose(shifts, 0.0, atol=1e-12)
    # one that did not settle says nothing of what is common, but is judged; one that is not used is neither
    settled = np.array([False, True, True, True, True])
    _, _, same = pinned(matrices, nothing, references, every, settled, maximum_angle=2.0, maximum_shift=3.0)
    assert same.tolist() == astray.tolist()
    _, _, none = pinned(matrices, nothing, references, settled, every, maximum_angle=2.0, maximum_shift=3.0)
    assert not none.any()
    _, shifts, none = pinned(references, nothing + 1.0, references, every, ~every, maximum_angle=2.0, maximum_shift=3.0)
    assert not none.any() and (shifts == 1.0).all()  # nobody says what is common: nothing is
    moved = np.zeros((5, 2))
    moved[3, 0] = 9.0
    _, shifts, astray = pinned(references, moved, references, every, every, maximum_angle=2.0, maximum_shift=3.0)
    assert astray.tolist() == [False, False, False, True, False]
    np.testing.assert_allclose(shifts[[0, 1, 2, 4]], 0.0, atol=1e-9)


def test_refine_angles__noise_alone_is_refused_and_why(case: tuple[xr.Dataset, xr.DataArray]) -> None:
    series, volume = case
    noise = series_of(np.random.default_rng(1).normal(0.0, 1.0, series["images"].shape))
    with pytest.raises(
        InputError, match=r"\d of 11 tilts can be used \(.*\d moved too far.*\); needed are at least three"
    ):
        refine_angles(noise, volume, maximum_angle=0.3, maximum_shift=0.5)


def test_refine_angles__few_tilts_are_refused_and_why(case: tuple[xr.Dataset, xr.DataArray]) -> None:
    series, volume = case
    with pytest.raises(InputError, match=r"2 of 11 tilts can be used \(9 left out\)"):
        refine_angles(series, volume, exclude=range(9))
    with pytest.raises(InputError, match=r"2 of 2 tilts can be used \(there are no more\)"):
        refine_angles(series.isel(tilt=[3, 5]), volume)
    with pytest.warns(AetdistWarning, match="8 tilts are used; needed are 9 or more"):
        refine_angles(series, volume, search=0, exclude=range(3))


def test_refine_angles__a_constant_background_says_nothing(case: tuple[xr.Dataset, xr.DataArray]) -> None:
    series, volume = case
    constant = np.float32(0.3 * series["images"].max())
    plain = refine_angles(series, volume, search=0)
    bright = refine_angles(series.assign(images=series["images"] + constant), volume, search=0)
    np.testing.assert_allclose(bright["angles"], plain["angles"], atol=0.01)
    np.testing.assert_allclose(bright["shift"], plain["shift"], atol=1e-3)


@pytest.mark.parametrize("chunks", [None, {"tilt": 2}])
def test_refine_angles__refuses_pixels_that_are_no_numbers(
    case: tuple[xr.Dataset, xr.DataArray], chunks: dict[str, int] | None
) -> None:
    """Unless the mask is False there."""
    series, volume = case
    spoilt = series.copy(deep=True)
    spoilt["images"][4, 20, 20:22] = [np.nan, np.inf]
    if chunks:
        spoilt = spoilt.chunk(chunks)
    with pytest.raises(InputError, match="Tilt 4 holds NaN or infinite pixels inside its mask"):
        refine_angles(spoilt, volume, search=0)
    mask = np.isfinite(spoilt["images"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refine_angles(spoilt.assign(mask=mask), volume, search=0)["used"].all()
