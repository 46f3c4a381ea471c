"""What judges atoms is right itself, and a sphere of the particle as the default options find it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from aetdist.geometry import euler_from_tilts
from aetdist.metrics import r_factor
from aetdist.project.atoms import project_atoms
from aetdist.refine import refine_atoms

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def harness() -> Iterator[Any]:
    """The modules beside the command."""
    folders = [str(HERE), str(HERE.parent / "benchmarks")]
    sys.path[:0] = folders
    try:
        import atom_cases
        import atom_film
        import atom_scores
        import atoms

        yield SimpleNamespace(atoms=atoms, cases=atom_cases, scores=atom_scores, film=atom_film)
    finally:
        for folder in folders:
            sys.path.remove(folder)


@pytest.fixture(scope="module")
def glass(harness: Any) -> xr.Dataset:
    """Some sixty atoms on a distorted grid, 3 Angstrom apart, of three types."""
    random = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)
    positions = 3.0 * (grid - 1.5) + random.uniform(-0.3, 0.3, grid.shape)
    return harness.cases.as_atoms(positions, random.integers(1, 4, len(grid)))


ANGLES = euler_from_tilts(np.linspace(-66.0, 66.0, 7))


def test_score__counts_right_missed_wrong_and_invented_atoms(harness: Any, glass: xr.Dataset) -> None:
    """Two are missed, one has another type, one is where nothing is; the others are off by (3, 0, -4) pm."""
    found = glass.isel(atom=slice(2, None)).copy(deep=True)
    found["position"].values[:] += [0.03, 0.0, -0.04]
    found["type"].values[0] = found["type"].values[0] % 3 + 1
    alone = glass.isel(atom=[0]).assign(position=(("atom", "axis"), [[40.0, 0.0, 0.0]]))
    found = xr.concat([found, alone], dim="atom")
    figures = harness.scores.score(found, glass, variance=np.full((64, 3), 0.0025**2 / 3))
    assert figures["found"] == pytest.approx(100 * 61 / 64)
    assert figures["false"] == pytest.approx(100 * 2 / 63)
    assert figures["rms"] == pytest.approx(5.0) and figures["rms_over_bound"] == pytest.approx(20.0)
    assert figures["mean_xyz"] == pytest.approx([3.0, 0.0, -4.0])
    assert (figures["missed"], figures["invented"]) == (2, 1)
    assert np.trace(figures["confusion"]) == 61 and np.sum(figures["confusion"]) == 62


def test_score__a_turn_of_all_atoms_does_not_count_where_it_is_undone(harness: Any, glass: xr.Dataset) -> None:
    turn = np.deg2rad(0.5)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]])
    found = glass.assign(position=(("atom", "axis"), glass["position"].values @ matrix.T + 0.1))
    assert harness.scores.score(found, glass)["rms"] > 10.0
    figures = harness.scores.score(found, glass, align="rigid")
    assert figures["rms"] < 1e-6 and figures["turned_degrees"] == pytest.approx(0.5)


def test_cramer_rao__is_the_curvature_of_an_atoms_likelihood(harness: Any, glass: xr.Dataset) -> None:
    """Derivatives by finite differences, summed over pixels, with the variance of the mean image around the atom."""
    case = harness.cases.simulated(glass, ANGLES)
    found = harness.scores.cramer_rao(case)
    series, clean = case.series, harness.cases.clean_images(case)
    x, y = series["x"].values, series["y"].values
    for atom in (0, 21, 63):
        position = glass["position"].values[atom]
        height = harness.cases.heights(glass)[atom]

        def image(at: np.ndarray, height: float = height) -> np.ndarray:
            return project_atoms([at], ANGLES, heights=height, sigmas=0.5, x=x, y=y, pixel_size=0.347)

        gradient = [(image(position + step) - image(position - step)) / 2e-4 for step in 1e-4 * np.eye(3)]
        information = np.zeros((3, 3))
        for t, matrix in enumerate(series["matrices"].values):
            u, v = matrix[:2] @ position
            i, j = np.abs(y - v).argmin(), np.abs(x - u).argmin()
            variance = clean[t, i - 2 : i + 3, j - 2 : j + 3].mean() / case.counts
            information += np.einsum("ayx,byx->ab", *[[g[t] for g in gradient]] * 2) / variance
        np.testing.assert_allclose(found[atom], np.diag(np.linalg.inv(information)), rtol=0.02)


def test_honesty__of_gaussian_errors_and_of_sigmas_that_are_half_of_them(harness: Any) -> None:
    z = np.random.default_rng(0).normal(size=(20_000, 3))
    z[:7] = np.nan
    right, boastful = harness.scores.honesty(z), harness.scores.honesty(2.0 * z)
    np.testing.assert_allclose(right["within_1"], 68.3, atol=1.5)
    np.testing.assert_allclose(right["median_over_gaussian"], 1.0, atol=0.03)
    np.testing.assert_allclose(boastful["within_1"], 38.3, atol=1.5)
    assert right["without_sigma"] == 7


def test_cases__noise_is_that_of_the_counts(harness: Any, glass: xr.Dataset) -> None:
    """Of the middle of the sample: 102 of 2047 electrons per pixel; the variance over the mean is one count."""
    case = harness.cases.simulated(glass, ANGLES, seed=3)
    assert case.taken["counts_per_pixel_at_the_centre"] == pytest.approx(1.7e4 * 0.347**2 * 0.05)
    assert case.taken["counts_per_pixel_measured"] == pytest.approx(1.7e4 * 0.347**2 * 0.05, rel=0.03)
    clean = case.counts * harness.cases.clean_images(case)
    counts, bright = case.counts * case.series["images"].values, clean > 20
    assert ((counts - clean)[bright] ** 2 / clean[bright]).mean() == pytest.approx(1.0, abs=0.05)


def test_cases__a_sphere_has_as_many_counts_for_each_atom(harness: Any, glass: xr.Dataset) -> None:
    whole, part = (harness.cases.simulated(glass, ANGLES, radius=radius) for radius in (None, 4.0))
    assert part.truth.sizes["atom"] < whole.truth.sizes["atom"] and part.counts == whole.counts
    np.testing.assert_allclose(part.truth["position"].mean("atom"), 0.0, atol=1e-12)
    assert part.taken["counts_per_pixel_measured"] < whole.taken["counts_per_pixel_measured"]


def test_cases__every_imperfection_is_what_it_says(harness: Any, glass: xr.Dataset) -> None:
    cases = harness.cases
    none = dict.fromkeys(("shift", "angle", "gain", "tails", "saturation", "width"), 0.0)
    clean = cases.simulated(glass, ANGLES, efficiency=None).series["images"].values

    def spoilt(**only: float) -> Any:
        return cases.simulated(glass, ANGLES, efficiency=None, imperfect=cases.Imperfections(**none | only), seed=2)

    np.testing.assert_allclose(spoilt().series["images"], clean, rtol=1e-6)
    total = clean.sum(axis=(1, 2))
    tails = spoilt(tails=0.15).series["images"].values
    np.testing.assert_allclose(tails.sum(axis=(1, 2)), total, rtol=0.02)  # some of them leave the field
    assert tails.max() < 0.95 * clean.max()
    saturated = spoilt(saturation=0.05).series["images"].values
    np.testing.assert_allclose(saturated, clean - 0.05 * clean**2 / clean.max(), rtol=1e-5, atol=1e-3)
    gains = spoilt(gain=0.01).series["images"].values.sum(axis=(1, 2)) / total
    assert 0.002 < gains.std() < 0.02
    case = spoilt(shift=0.15)
    x = case.series["x"].values
    moved = ((case.series["images"].values.sum(axis=1) - clean.sum(axis=1)) @ x) / total / 0.347
    np.testing.assert_allclose(moved, case.geometry["shifts"][:, 1], atol=1e-3)
    case = spoilt(angle=0.2)
    assert 0.1 < (case.geometry["angles"] - case.series["angles"].values).std() < 0.3
    assert np.abs(case.series["images"].values - clean).max() > 1e-3 * clean.max()
    assert 0.02 < spoilt(width=0.05).truth["sigma"].values.std() < 0.03


def test_command__reads_cases_radii_seed_and_options(harness: Any) -> None:
    words = ["small", "imperfect@15", "seed=4", "trace.sigma=0.7", "refine.heights=atom"]
    cases, seed, options = harness.atoms.parsed(words)
    assert cases == [("five", 20.0), ("imperfect", 15.0)] and seed == 4
    assert options == {"trace": {"sigma": 0.7}, "refine": {"heights": "atom"}}
    with pytest.raises(SystemExit, match="no case 'fife'"):
        harness.atoms.parsed(["fife"])


def test_film__goes_on_beyond_the_field_without_atoms_too_near(harness: Any) -> None:
    random = np.random.default_rng(2)
    inside = random.uniform([-64.3, -56.2, -3.0], [64.3, -18.4, 3.0], (400, 3))
    whole = harness.film.continued(inside, reach=30.0)
    np.testing.assert_array_equal(whole[:400], inside)
    assert (whole[:, 0].min() < -85) and (whole[:, 0].max() > 85) and len(whole) > 1000
    added = whole[400:]
    distances = np.linalg.norm(added[:, None] - inside[None], axis=-1)
    assert distances.min() >= harness.film.NEAREST


def test_film__a_refined_model_is_seen_as_its_refinement_sees_it(harness: Any, glass: xr.Dataset) -> None:
    """With tails, and tilts that are refined too; those that came are not as good."""
    case = harness.cases.simulated(glass, ANGLES, imperfect=harness.cases.Imperfections(tails=0.3), seed=1)
    found = refine_atoms(case.series, glass[["position", "type"]], curate=False)
    assert sum(found.attrs["tails"]) > 0.1
    images, mask = case.series["images"].values, case.series["mask"].values
    came, refined = (
        float(r_factor(harness.film.of_model(found, case.series, own_tilts=own), images, mask).mean())
        for own in (False, True)
    )
    assert refined == pytest.approx(found.attrs["R"], abs=0.002)
    assert came > refined + 0.002


@pytest.mark.validation
def test_film__rays_inside_the_field_give_the_known_r_of_the_published_atoms(harness: Any, data_folder: Path) -> None:
    series = harness.film.measured_series()
    where = harness.film.inside_field(series)
    flat = int(np.abs(series["angles"].values[:, 1]).argmin())
    steep = int(np.abs(series["angles"].values[:, 1]).argmax())
    assert where[flat].any(axis=1).sum() == 102 and where[steep].any(axis=0).sum() < where[flat].any(axis=0).sum()
    known = harness.film.published_film.published(data_folder)["positions"]
    height, sigma = harness.film.best_gaussians(known, series)
    r = harness.film.r_inside(harness.film.images_of(known, series, height, sigma), series)
    assert r == pytest.approx(0.258, abs=0.002)


@pytest.mark.validation
def test_bound__is_that_of_the_whole_particle(harness: Any, data_folder: Path) -> None:
    """7.5 pm for 100 counts per pixel in the middle."""
    case = harness.atoms.particle("five")
    assert case.taken["counts_per_pixel_measured"] == pytest.approx(100.0, rel=0.03)
    assert harness.scores.rms_of(harness.scores.cramer_rao(case)) == pytest.approx(7.5, abs=0.1)


@pytest.mark.validation
@pytest.mark.slow
def test_small__is_what_is_asked_of_the_whole_particle(harness: Any, data_folder: Path) -> None:
    """A sphere of 1,654 atoms, 5 %: found, false and rms of both stages; near the bound; error bars are honest."""
    figures = harness.atoms.judge("five", radius=20.0)
    for stage, (found, false, rms) in harness.atoms.ASKED["five"].items():
        assert figures[stage]["found"] >= found and figures[stage]["false"] <= false, (stage, figures[stage])
        assert figures[stage]["rms"] <= rms, (stage, figures[stage])
    assert figures["refined"]["rms_over_bound"] <= 1.35
    assert all(63.0 <= part <= 73.0 for part in figures["honesty"]["within_1"]), figures["honesty"]
    surest = figures["reliability"]["type"][-1]
    assert surest["atoms"] > 1500 and surest["right"] >= 0.9
