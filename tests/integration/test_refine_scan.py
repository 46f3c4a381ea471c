"""A film whose shifts vary over the field, with angles that are off: found again, window by window."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist import film_refinement, pipeline
from aetdist.align import shift_images
from aetdist.angles.local import rotation_columns, without_common_deformation
from aetdist.angles.tilt_series import rotation_between
from aetdist.errors import InputError
from aetdist.film_refinement import refine_scan
from aetdist.geometry import matrices_from_euler
from aetdist.images.displacement import inverted, powers
from aetdist.io import Record, Store, open_dataset
from aetdist.reconstruct import reconstruct_scan

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PIXEL, SHAPE = 0.5, (80, 120)
CORNER = tuple(-(n // 2) for n in SHAPE)
ANGLES = np.array([[0.2, t, -0.1] for t in np.linspace(-60, 60, 17)])
SCAN = {
    "window": (64, 48), "overlap": 24, "thickness": 24.0, "iterations": 6, "passes": 1,
    "coarse_iterations": 12, "solver": "ordered_subsets",
}  # fmt: skip
OPTIONS = {**SCAN, "rounds": 6, "tile": 48, "local": True, "tolerance": 0.005}


def true_field(size: float) -> np.ndarray:
    """Displacements (tilt, axis, a constant and the terms) that no rotation and no bending of the film explains."""
    matrices = matrices_from_euler(ANGLES)
    field = np.random.default_rng(1).uniform(-size, size, (len(ANGLES), 2, 6))
    for _ in range(50):  # projections that follow each other
        for t, matrix in enumerate(matrices):
            turns = rotation_columns(matrix, SHAPE)
            field[t] -= (turns @ np.linalg.lstsq(turns, field[t].ravel(), rcond=1e-6)[0]).reshape(2, 6)
        field = without_common_deformation(field, matrices, SHAPE, CORNER, np.ones(len(field), bool))
    return field


FIELD = true_field(0.8)


def at_pixels(field: np.ndarray) -> np.ndarray:
    """The displacement on a grid over the field, (tilt, axis, place)."""
    y, x = (g.ravel() for g in np.meshgrid(*(np.linspace(0, n - 1, 12) for n in SHAPE), indexing="ij"))
    return field @ np.column_stack([np.ones(y.size), powers(y, x, SHAPE)]).T


def off(angles: np.ndarray, shift: np.ndarray, local: np.ndarray) -> float:
    """By how much points of the film's middle plane are not where the images have them, rms in pixels.

    Bending and stretching of the film as a whole does not count: no series knows it.
    """
    true = matrices_from_euler(ANGLES)
    turned = np.deg2rad(rotation_between(true, matrices_from_euler(angles)))
    moved = np.array([rotation_columns(m, SHAPE) @ w for m, w in zip(true, turned, strict=True)]).reshape(-1, 2, 6)
    error = moved + np.concatenate([shift[:, :, None], local], axis=2) - FIELD
    error = without_common_deformation(error, true, SHAPE, CORNER, np.ones(len(error), bool))
    return float(np.sqrt((at_pixels(error) ** 2).mean()))


def off_in(store: Store, group: str) -> float:
    """The same for a series in a store."""
    series = store.read(group)
    nothing = np.zeros((len(ANGLES), 2)), np.zeros((len(ANGLES), 2, 5))
    found = (series["refined_shift"].values, series["local_shift"].values) if "local_shift" in series else nothing
    return off(series["angles"].values, *found)


@pytest.fixture(scope="module")
def film() -> xr.Dataset:
    """Atoms of a wavy film that is larger than the field."""
    return aet.amorphous_film((170.0, 60.0), 14.0, species=("Ta",), waviness=2.0, wavelength=60.0, seed=7)


@pytest.fixture(scope="module")
def measured(film: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tilt series, displaced, with angles that are off by 0.3 degree."""
    tilts = aet.simulate_tilt_series(film, ANGLES, pixel_size=PIXEL, sigma=0.6, field=SHAPE[::-1], dose=1e5, seed=8)
    back, back_local = inverted(FIELD[:, :, 0], FIELD[:, :, 1:], SHAPE)
    tilts = shift_images(tilts, back, local=back_local)
    wrong = ANGLES + np.random.default_rng(2).normal(0.0, 0.3, ANGLES.shape)
    tilts = tilts.assign(angles=(("tilt", "euler"), wrong)).drop_vars("matrices")
    path = tmp_path_factory.mktemp("measured") / "film.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", tilts, record=Record("simulate", {"seed": 8}), chunks={"tilt": 1})
    return path


def refined(measured: Path, folder: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    """A copy of the store, refined."""
    path = Path(shutil.copytree(measured, folder / "film.zarr"))
    with Store.open(path, "a") as store:
        return path, refine_scan(store, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def done(measured: Path, tmp_path_factory: pytest.TempPathFactory, client: Any) -> tuple[Path, dict[str, Any]]:
    """With local shifts."""
    return refined(measured, tmp_path_factory.mktemp("done"))


def atoms_of(path: Path, film: xr.Dataset) -> dict[str, Any]:
    """Traced atoms with |x| <= 24, |y| <= 14 Angstrom against the true ones."""
    pipeline.trace(path)
    with Store.open(path) as store:
        found = store.read("atoms")
    parts = [a.isel(atom=(np.abs(a["position"].values[:, :2]) <= [24.0, 14.0]).all(axis=1)) for a in (found, film)]
    return aet.compare_atoms(*parts, tolerance=1.0, align="rigid").to_dict()


def test_refine_scan__displacements_are_found_and_r_falls(done: tuple[Path, dict[str, Any]]) -> None:
    path, said = done
    with Store.open(path) as store:
        series, volume = store.read("tilt_series/refined"), store.read("volume")
        before, after = off_in(store, "tilt_series/aligned"), off_in(store, "tilt_series/refined")
        assert store.record("scan/coarse").inputs == {"tilt_series/refined": store.digest("tilt_series/refined")}
        images = shift_images(
            store.read("tilt_series/aligned"), series["refined_shift"].values, local=series["local_shift"].values
        )
        np.testing.assert_array_equal(series["images"].values, images["images"].values)
    assert np.abs(at_pixels(FIELD)).max() > 1.5 and before > 0.6
    assert after < 0.4 * before
    assert said["r_factor_after"] < 0.6 * said["r_factor_before"] and not said["kept_start"]
    rounds = np.nanmean(series["round_r_factor"].values, axis=1)
    np.testing.assert_allclose(
        [rounds[0], rounds[said["best_round"]]], [said["r_factor_before"], said["r_factor_after"]]
    )
    assert series["used"].all() and np.isfinite(series["local_shift_uncertainty"].values).all()
    assert series["shift"].attrs["units"] == "pixel" and series["local_shift"].dims == ("tilt", "axis", "term")
    assert volume["density"].shape[0] == 48


def test_refine_scan__every_window_has_its_own(
    measured: Path, done: tuple[Path, dict[str, Any]], film: xr.Dataset, tmp_path: Path, client: Any
) -> None:
    """One shift for the whole field leaves more unexplained and atoms further off."""
    path, said = refined(measured, tmp_path, local=False)
    with Store.open(path) as store, Store.open(done[0]) as own:
        assert np.abs(store.read("tilt_series/refined")["local_shift"].values).max() < 1e-9
        assert off_in(own, "tilt_series/refined") < 0.7 * off_in(store, "tilt_series/refined")
    assert done[1]["r_factor_after"] < 0.85 * said["r_factor_after"]
    with_own, without = atoms_of(done[0], film), atoms_of(path, film)
    assert with_own["f1"] > 0.97 and with_own["rms"] < without["rms"]


def test_refine_scan__goes_on_where_it_was_stopped(
    measured: Path, done: tuple[Path, dict[str, Any]], tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds, then the rest: the first rounds are not computed again, and the result is the same."""
    path, _ = refined(measured, tmp_path, rounds=2)
    calls, original = [], film_refinement.local_shifts

    def counted(*arguments: Any, **options: Any) -> xr.Dataset:
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(film_refinement, "local_shifts", counted)
    with Store.open(path, "a") as store:
        refine_scan(store, **OPTIONS)
        again = store.read("tilt_series/refined")["local_shift"].values
    assert len(calls) == done[1]["rounds"] - 2
    with Store.open(done[0]) as store:
        np.testing.assert_array_equal(again, store.read("tilt_series/refined")["local_shift"].values)


def test_reconstruct_scan__reads_the_series_it_is_told(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Its record names the group; the other group gives another film."""
    path = Path(shutil.copytree(done[0], tmp_path / "film.zarr"))
    before = open_dataset(path, "volume")["density"].values
    with Store.open(path, "a") as store:
        again = reconstruct_scan(store, **SCAN, series="tilt_series/refined")
        assert again["n_windows_computed"] == 0
        np.testing.assert_array_equal(open_dataset(path, "volume")["density"].values, before)
        reconstruct_scan(store, **SCAN)
        assert store.record("scan/coarse").inputs == {"tilt_series/aligned": store.digest("tilt_series/aligned")}
    assert not np.array_equal(open_dataset(path, "volume")["density"].values, before)


def test_refine_scan__refuses_bad_options(measured: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(measured, tmp_path / "film.zarr"))
    with Store.open(path, "a") as store:
        groups = store.groups()
        for wrong, message in (
            ({"rounds": 0}, "rounds came as 0"),
            ({"tolerance": -1.0}, "tolerance as -1"),
            ({"exclude": (99,)}, "Tilt 99"),
            ({"window": (4, 4)}, "8 or more"),
            ({"tile": 3}, "tile came as 3"),
            ({"maximum_angle": 0.0}, "maximum_angle"),
            ({"maximum_local_shift": 0.0}, "maximum_local_shift"),
        ):
            with pytest.raises(InputError, match=message):
                refine_scan(store, **{**OPTIONS, **wrong})
        assert [g for g in store.groups() if not g.startswith("refinement")] == groups
