"""Shifts that vary over the field: known ones are found again, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist.align import shift_images
from aetdist.angles import local
from aetdist.angles.local import local_shifts, rotation_columns, without_common_deformation
from aetdist.angles.tilt_series import rotation_between
from aetdist.errors import InputError
from aetdist.geometry import centred_coordinates, matrices_from_euler
from aetdist.images.displacement import TERMS, powers
from aetdist.project.atoms import project_atoms, render_atoms
from aetdist.schema import EULER, TILT_SERIES, VOLUME, with_units

PIXEL, SIGMA, SHAPE = 0.5, 0.6, (96, 144)
CORNER = tuple(-(n // 2) for n in SHAPE)
ANGLES = np.array([[0.2, t, -0.1] for t in np.linspace(-60, 60, 13)])


def film() -> np.ndarray:
    """Atoms of a film that is wider than the field."""
    return aet.amorphous_film((170.0, 60.0), 14.0, species=("Ta",), seed=3)["position"].values


def moved_series(atoms: np.ndarray, field: np.ndarray, noise: float = 0.0) -> xr.Dataset:
    """What is at r is seen at r + a(r), atom by atom; `field` (tilt, axis, a constant and the terms) in pixels."""
    x, y = (centred_coordinates(n, PIXEL) for n in SHAPE[::-1])
    images = []
    for matrix, a in zip(matrices_from_euler(ANGLES), field, strict=True):
        lab = atoms @ matrix.T
        pixels = lab[:, 1] / PIXEL - CORNER[0], lab[:, 0] / PIXEL - CORNER[1]
        inside = [np.clip(p, -20, n + 20) for p, n in zip(pixels, SHAPE, strict=True)]
        by = np.column_stack([np.ones(len(atoms)), powers(*inside, SHAPE)]) @ a.T
        lab[:, 0], lab[:, 1], lab[:, 2] = lab[:, 0] + by[:, 1] * PIXEL, lab[:, 1] + by[:, 0] * PIXEL, 0.0
        images.append(project_atoms(lab, np.zeros((1, 3)), sigmas=SIGMA, x=x, y=y, pixel_size=PIXEL)[0])
    images = np.array(images)
    images += noise * images.mean() * np.random.default_rng(0).normal(size=images.shape)
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), ANGLES),
            "pixel_size": ((), PIXEL),
        },
        {"tilt": np.arange(len(images)), "y": y, "x": x, "euler": list(EULER)},
    )
    return with_units(series, TILT_SERIES)


def density(atoms: np.ndarray) -> xr.Dataset:
    """The film on voxels."""
    x, y, z = (centred_coordinates(n, PIXEL) for n in (340, 128, 40))
    volume = render_atoms(atoms, sigmas=SIGMA, x=x, y=y, z=z, pixel_size=PIXEL)
    return with_units(xr.Dataset({"density": (("z", "y", "x"), volume)}, {"z": z, "y": y, "x": x}), VOLUME)


def random_field(size: float, seed: int) -> np.ndarray:
    """Displacements that neither rotations of the film nor its deformation as a whole explain."""
    matrices = matrices_from_euler(ANGLES)
    field = np.random.default_rng(seed).uniform(-size, size, (len(ANGLES), 2, 6))
    for _ in range(50):  # onto what is neither: projections that follow each other
        for t, matrix in enumerate(matrices):
            turns = rotation_columns(matrix, SHAPE)
            part = np.linalg.lstsq(turns, field[t].ravel(), rcond=1e-6)[0]
            field[t] -= (turns @ part).reshape(2, 6)
        field = without_common_deformation(field, matrices, SHAPE, CORNER, np.ones(len(field), bool))
    return field


def at_pixels(field: np.ndarray) -> np.ndarray:
    """The displacement on a grid over the field, (tilt, axis, place)."""
    y, x = (g.ravel() for g in np.meshgrid(*(np.linspace(0, n - 1, 12) for n in SHAPE), indexing="ij"))
    return field @ np.column_stack([np.ones(y.size), powers(y, x, SHAPE)]).T


@pytest.fixture(scope="module")
def case() -> tuple[xr.Dataset, xr.Dataset, np.ndarray]:
    """Images with displacements of up to 2 pixels and noise, the true film, and the displacements."""
    atoms, field = film(), random_field(1.5, 1)
    return moved_series(atoms, field, noise=0.1), density(atoms), field


def joined(found: xr.Dataset) -> np.ndarray:
    """The constant and the terms, (tilt, axis, 6)."""
    return np.concatenate([found["shift"].values[:, :, None], found["local_shift"].values], axis=2)


def rms(field: np.ndarray) -> float:
    """Of the displacement over the field, in pixels."""
    return float(np.sqrt((at_pixels(field) ** 2).mean()))


@pytest.fixture(scope="module")
def found(case) -> xr.Dataset:
    """What is found in memory."""
    return local_shifts(case[0], case[1], tile=48)


def test_local_shifts__known_displacements_are_found(case, found):
    field = case[2]
    assert np.abs(at_pixels(field)).max() > 1.5
    assert rms(joined(found) - field) < 0.1
    assert max(rms(f[None]) for f in joined(found) - field) < 0.1
    assert (found["r_factor"][:, 1] < 0.5 * found["r_factor"][:, 0]).all()
    assert found["local_shift"].attrs["units"] == "pixel" and tuple(found["term"].values) == TERMS


def test_local_shifts__images_moved_by_them_agree_with_the_reprojections(case, found):
    series, volume, _ = case
    again = local_shifts(shift_images(series, found["shift"].values, local=found["local_shift"].values), volume)
    assert rms(joined(again)) < 0.05


def test_local_shifts__lazy_or_in_memory(case, found):
    series, volume, _ = case
    lazy = local_shifts(series.chunk({"tilt": 1}), volume.chunk({"y": 50}), tile=48)
    np.testing.assert_allclose(lazy["local_shift"], found["local_shift"], atol=1e-3)
    np.testing.assert_allclose(lazy["local_shift_uncertainty"], found["local_shift_uncertainty"], rtol=1e-2)


def test_local_shifts__do_not_depend_on_which_tilts_share_a_task(case, found, monkeypatch):
    series, volume, _ = case
    monkeypatch.setattr(local, "tilt_groups", lambda tilts, lazy: np.array_split(tilts, 4))
    again = local_shifts(series, volume, tile=48)
    np.testing.assert_allclose(again["local_shift"], found["local_shift"], atol=1e-5)


def test_local_shifts__what_does_not_belong_does_not_count(case, found):
    series, volume, field = case
    spoilt = series.copy(deep=True)
    spoilt["images"][3, :48, :48] = series["images"][3, :48, 48:96].values  # of another place
    spoilt["mask"][4, :, :60] = False
    spoilt["mask"][5] = False
    again = local_shifts(spoilt, volume, tile=48)
    assert (again["tiles"][3].values == [6, 5]).all() and (again["tiles"][4].values == [6, 4]).all()
    left = joined(again) - field
    assert rms(left[[3]]) < 0.15 and rms(left[[4]] * [1, 1, 0, 1, 0, 0]) < 0.5
    assert (again["local_shift"][5] == 0).all() and np.isnan(again["r_factor"][5]).all()


def test_local_shifts__what_a_rotation_explains_is_left_to_the_angles(case):
    _, volume, field = case
    series = moved_series(film(), 0 * field)
    wrong = ANGLES + [0.3, 0.4, -0.3] * (-1.0) ** np.arange(len(ANGLES))[:, None]
    found = local_shifts(series.assign(angles=(("tilt", "euler"), wrong)), volume, tile=48)
    right, turned = matrices_from_euler(ANGLES), matrices_from_euler(wrong)
    w = rotation_between(turned, right)
    seen = [np.deg2rad(v) @ rotation_columns(m, SHAPE).T for v, m in zip(w, turned, strict=True)]
    assert rms(joined(found)) < 0.2 * rms(np.reshape(seen, (-1, 2, 6)))


def test_local_shifts__nothing_to_find(case):
    _, volume, field = case
    found = local_shifts(moved_series(film(), 0 * field, noise=0.1), volume)
    assert rms(joined(found)) < 0.02


def test_without_common_deformation__takes_out_a_film_that_is_bent():
    matrices = matrices_from_euler(ANGLES)
    bend = np.zeros((len(ANGLES), 2, 6))
    for t, matrix in enumerate(matrices):  # u_z = x x: seen along lab x by R_xz, at x = X / cos(theta)
        bend[t, 1, 5] = matrix[0, 2] / matrix[0, 0] ** 2
    left = without_common_deformation(bend, matrices, SHAPE, CORNER, np.ones(len(ANGLES), bool))
    assert rms(left) < 0.02 * rms(bend)
    other = np.random.default_rng(1).normal(size=bend.shape)
    once = without_common_deformation(other, matrices, SHAPE, CORNER, np.ones(len(ANGLES), bool))
    twice = without_common_deformation(once, matrices, SHAPE, CORNER, np.ones(len(ANGLES), bool))
    np.testing.assert_allclose(twice, once, atol=1e-9)
    assert rms(once) > 0.7 * rms(other)


@pytest.mark.parametrize(("option", "message"), [({"tile": 5}, "16 pixels"), ({"degree": 3}, "degree as 3")])
def test_local_shifts__refuses_options(case, option, message):
    with pytest.raises(InputError, match=message):
        local_shifts(case[0], case[1], **option)


def test_local_shifts__refuses_voxels_of_another_size(case):
    series, volume, _ = case
    larger = volume.assign_coords({axis: 1.5 * volume[axis] for axis in "zyx"})
    with pytest.raises(InputError, match="voxels as large"):
        local_shifts(series, larger)
