from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist.align.common_lines import align_profiles, line_profiles, profile_bins
from aetdist.align.tilt_series import align_tilt_series
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.geometry.conventions import rotate_tilt_axis
from aetdist.project.atoms import project_atoms
from aetdist.simulate import nanoparticle

PIXEL, N = 0.35, 112
TILTS = np.linspace(-66.0, 66.0, 23)


@pytest.fixture(scope="module")
def atoms() -> xr.Dataset:
    return nanoparticle(20.0, seed=2)


def images_of(
    atoms: xr.Dataset, euler: np.ndarray, shift: np.ndarray, *, dose: float | None = 1.7e4, seed: int = 0
) -> np.ndarray:
    """Exact projections, moved by `shift` (tilt, [y, x]) pixels, with the noise of counted electrons."""
    heights = np.where(atoms["type"].values == 1, 28.0, 78.0) ** 1.7
    axis = centred_coordinates(N, PIXEL)
    images = np.concatenate(
        [
            project_atoms(
                atoms["position"].values,
                euler[t : t + 1],
                heights=heights,
                x=axis - shift[t, 1] * PIXEL,
                y=axis - shift[t, 0] * PIXEL,
                pixel_size=PIXEL,
            )
            for t in range(len(euler))
        ]
    )
    if dose is None:
        return images
    counts = 0.05 * dose * PIXEL**2 / images[images > 0.02 * images.max()].mean()
    return np.random.default_rng(seed).poisson(images * counts) / counts


def as_series(images: np.ndarray, euler: np.ndarray, mask: np.ndarray | None = None) -> xr.Dataset:
    n, ny, nx = images.shape
    return xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool) if mask is None else mask),
            "angles": (("tilt", "euler"), euler),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(euler)),
            "pixel_size": ((), PIXEL),
        },
        coords={
            "tilt": np.arange(n),
            "y": centred_coordinates(ny, PIXEL),
            "x": centred_coordinates(nx, PIXEL),
            "euler": ["phi", "theta", "psi"],
        },
    )


def errors(found: xr.Dataset, shift: np.ndarray, axis: float, tilts: np.ndarray = TILTS) -> tuple[float, float]:
    """Rms errors along and across the axis, the object's overall translation taken away."""
    turn, angle = np.deg2rad(axis), np.deg2rad(tilts)
    off = found["shift"].values - shift
    along = off @ [np.cos(turn), -np.sin(turn)]
    across = off @ [np.sin(turn), np.cos(turn)]
    path = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    across = across - path @ np.linalg.lstsq(path, across, rcond=None)[0]
    return float(along.std()), float(np.sqrt((across**2).mean()))


@pytest.fixture(scope="module")
def shift() -> np.ndarray:
    return np.random.default_rng(3).uniform(-15, 15, (len(TILTS), 2))


@pytest.fixture(scope="module")
def moved(atoms: xr.Dataset, shift: np.ndarray) -> xr.Dataset:
    """A series with shifts and an axis 1.7 degrees off."""
    euler = rotate_tilt_axis(euler_from_tilts(TILTS), 1.7)
    return as_series(images_of(atoms, euler, shift), euler_from_tilts(TILTS))


@pytest.fixture(scope="module")
def still(atoms: xr.Dataset) -> xr.Dataset:
    euler = euler_from_tilts(TILTS)
    return as_series(images_of(atoms, euler, np.zeros((len(TILTS), 2))), euler)


def test_particle__shifts_and_axis(moved: xr.Dataset, shift: np.ndarray) -> None:
    found = align_tilt_series(moved)
    along, across = errors(found, shift, 1.7)
    assert along < 0.1 and across < 0.1
    assert float(found["tilt_axis"]) == pytest.approx(1.7, abs=0.1)
    assert abs(float(found["tilt_axis"]) - 1.7) < 5 * float(found["tilt_axis_uncertainty"])
    assert not found.attrs["already_aligned"]
    assert found["used"].all()


def test_particle__uncertainty_is_that_of_the_errors(moved: xr.Dataset, shift: np.ndarray) -> None:
    found = align_tilt_series(moved)
    said = np.sqrt((found["shift_uncertainty"].values ** 2).mean(axis=0))
    for error, deviation in zip(errors(found, shift, 1.7), said, strict=True):
        assert 0.3 < error / deviation < 3.0


def test_particle__origin_is_the_centre_of_mass(atoms: xr.Dataset, moved: xr.Dataset) -> None:
    found = align_tilt_series(moved)
    images = moved["images"].values
    at_zero = int(np.argmin(np.abs(TILTS)))
    y, x = (centred_coordinates(N, 1.0) @ images[at_zero].sum(axis=k) / images[at_zero].sum() for k in (1, 0))
    np.testing.assert_allclose(found["shift"].values[at_zero], [y, x], atol=0.1)


def test_particle__chunks_do_not_matter(moved: xr.Dataset) -> None:
    whole, cut = align_tilt_series(moved), align_tilt_series(moved.chunk({"tilt": 1, "y": 50}))
    assert np.array_equal(whole["shift"].values, cut["shift"].values)
    assert float(whole["tilt_axis"]) == float(cut["tilt_axis"])


def test_particle__aligned_already(still: xr.Dataset) -> None:
    found = align_tilt_series(still)
    assert found.attrs["already_aligned"]
    assert not found["shift"].values.any() and float(found["tilt_axis"]) == 0.0
    assert np.abs(found["found_shift"].values).max() > 0
    insisted = align_tilt_series(still, keep_aligned=False)
    assert not insisted.attrs["already_aligned"]
    assert np.array_equal(insisted["shift"].values, found["found_shift"].values)


def test_particle__off_the_origin_is_aligned_too(atoms: xr.Dataset) -> None:
    euler = euler_from_tilts(TILTS)
    turned = atoms.assign(position=atoms["position"] + np.array([3.0, 2.0, -2.0]))
    series = as_series(images_of(turned, euler, np.zeros((len(TILTS), 2))), euler)
    assert align_tilt_series(series).attrs["already_aligned"]


@pytest.mark.parametrize("what", ["shift", "axis"])
def test_particle__not_aligned(atoms: xr.Dataset, what: str) -> None:
    shift = np.random.default_rng(1).normal(0, 0.8 if what == "shift" else 0.0, (len(TILTS), 2))
    euler = rotate_tilt_axis(euler_from_tilts(TILTS), 0.5 if what == "axis" else 0.0)
    series = as_series(images_of(atoms, euler, shift), euler_from_tilts(TILTS))
    assert not align_tilt_series(series).attrs["already_aligned"]


def test_particle__axis_that_the_angles_know(atoms: xr.Dataset, shift: np.ndarray) -> None:
    euler = rotate_tilt_axis(euler_from_tilts(TILTS), -30.0)
    found = align_tilt_series(as_series(images_of(atoms, euler, shift), euler))
    along, across = errors(found, shift, -30.0)
    assert along < 0.1 and across < 0.1
    assert abs(float(found["tilt_axis"])) < 0.1


def test_particle__unmeasured_margin(moved: xr.Dataset, shift: np.ndarray) -> None:
    mask = np.ones(moved["images"].shape, bool)
    mask[:, :5] = mask[:, :, -4:] = False
    spoilt = moved.assign(images=moved["images"].where(mask, np.float32(1e6)), mask=(("tilt", "y", "x"), mask))
    along, across = errors(align_tilt_series(spoilt), shift, 1.7)
    assert along < 0.1 and across < 0.1


def test_particle__a_bad_tilt_is_flagged(moved: xr.Dataset, shift: np.ndarray) -> None:
    images = moved["images"].values.copy()
    images[4] = np.roll(images[4][::-1], 3, axis=1) * 1.4
    with pytest.warns(AetdistWarning, match="Tilt 4 .*stands out"):
        found = align_tilt_series(moved.assign(images=moved["images"].copy(data=images)))
    assert np.flatnonzero(~found["used"].values).tolist() == [4]
    assert "mass" in str(found["flags"].values[4])
    good = found["used"].values
    along, across = errors(found.isel(tilt=good), shift[good], 1.7, TILTS[good])
    assert along < 0.15 and across < 0.15


def test_particle__excluded(moved: xr.Dataset) -> None:
    found = align_tilt_series(moved, exclude=[0, 7])
    assert np.flatnonzero(~found["used"].values).tolist() == [0, 7]
    assert found["flags"].values[7] == "switched off"


def test_particle__blank_and_unmeasured_tilts(moved: xr.Dataset) -> None:
    images, mask = moved["images"].values.copy(), moved["mask"].values.copy()
    images[2] = 0.0
    mask[5] = False
    series = moved.assign(images=moved["images"].copy(data=images), mask=moved["mask"].copy(data=mask))
    with pytest.warns(AetdistWarning, match="Tilt 2, 5 is blank or was not measured"):
        found = align_tilt_series(series)
    assert np.flatnonzero(~found["used"].values).tolist() == [2, 5]
    assert np.isfinite(found["shift"].values).all()


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"kind": "foil"}, "kind came as 'foil'"),
        ({"marker": (1, 2, 3, 4)}, "its own marker"),
        ({"maximum_shift": 0.0}, "maximum_shift"),
        ({"maximum_axis": np.nan}, "maximum_axis"),
        ({"exclude": [99]}, "Tilt 99"),
        ({"exclude": list(range(21))}, "2 of 23 tilts can be used"),
    ],
)
def test_particle__bad_option(moved: xr.Dataset, keywords: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        align_tilt_series(moved, **keywords)


def test_particle__single_tilt(moved: xr.Dataset) -> None:
    with pytest.raises(InputError, match="at least three"):
        align_tilt_series(moved.isel(tilt=[0]))


def test_particle__all_blank(moved: xr.Dataset) -> None:
    with (
        pytest.warns(AetdistWarning, match="blank"),
        pytest.raises(InputError, match="0 of 23 tilts"),
    ):
        align_tilt_series(moved.assign(images=moved["images"] * 0))


def test_line_profiles__mass_and_centre() -> None:
    image = np.zeros((20, 30))
    image[4, 21], image[11, 9] = 2.0, 3.0
    angles = np.array([0.0, 10.0])
    profiles, moments = line_profiles(image, np.ones(image.shape, bool), (-10.0, -15.0), angles)
    first, n = profile_bins((20, 30), (-10.0, -15.0), 10.0)
    assert profiles.shape == (2, n)
    np.testing.assert_allclose(profiles.sum(axis=1), 5.0)
    turn = np.deg2rad(angles)
    y, x = (2 * -6 + 3 * 1) / 5, (2 * 6 + 3 * -6) / 5
    bins = first + np.arange(n)
    np.testing.assert_allclose(profiles @ bins / 5, y * np.cos(turn) - x * np.sin(turn))
    np.testing.assert_allclose(moments.sum(axis=1) / 5, y * np.sin(turn) + x * np.cos(turn))


def test_align_profiles__known_shifts() -> None:
    u = np.arange(120.0)
    truth = np.array([0.0, 3.3, -5.7, 8.05])
    lines = np.stack([np.exp(-((u - 60 - d) ** 2) / 50) + 0.5 * np.exp(-((u - 70 - d) ** 2) / 8) for d in truth])
    found = align_profiles(lines, np.zeros(4))
    np.testing.assert_allclose(found.shift - found.shift[0], truth, atol=0.01)
    assert (found.residual < 1e-2).all()
