"""Multislice of a tiny particle against the linear model, and against itself; needs the extra multislice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import least_squares

from aetdist import pipeline
from aetdist.io import Store, write_xyz
from aetdist.metrics import r_factor
from aetdist.project.atoms import project_atoms
from aetdist.simulate import Multislice, forecast_multislice, nanoparticle, simulate_tilt_series
from aetdist.simulate.multislice import multislice_image

pytest.importorskip("abtem", reason="abTEM is not installed: pip install 'aetdist[multislice]'")
pytestmark = pytest.mark.slow

ANGLES = np.array([[0.0, 0.0, 0.0], [3.0, 40.0, -2.0]])
COARSE = Multislice(detector=(30.0, 60.0))
"""A detector that coarse waves reach, so that a test takes seconds."""


@pytest.fixture(scope="module")
def particle():
    return nanoparticle(11.0, species=("Ni", "Pt"), seed=3)


@pytest.fixture(scope="module")
def series(particle):
    assert particle.sizes["atom"] <= 60
    return simulate_tilt_series(particle, ANGLES, pixel_size=0.5, multislice=COARSE, seed=1).load()


@pytest.fixture(scope="module")
def three():
    """Three atoms, as a table of position and atomic number: not their own mirror image along any axis."""
    return np.array([[-1.5, -1.0, 0.5, 28.0], [1.5, -1.0, -0.5, 78.0], [0.5, 1.5, 1.0, 46.0]])


def image_of(atoms, settings, x, y, **options):
    angles = np.array([2.0, 25.0, -3.0])
    return multislice_image(atoms, angles, x, y, options.pop("tilt", 0), settings=settings, entropy=7)


def test_multislice__the_linear_model_explains_it(particle, series, record_property):
    """Height and width per species are fitted; what is left is what no sum of Gaussians can be."""
    types, images = particle["type"].values - 1, series["images"].values.astype(np.float64)
    grid = {"x": series["x"].values, "y": series["y"].values, "pixel_size": 0.5}

    def model(logs):
        heights, sigmas = np.exp(logs[:2])[types], np.exp(logs[2:])[types]
        return project_atoms(particle["position"].values, ANGLES, heights=heights, sigmas=sigmas, **grid)

    start = np.log([0.002, 0.01, 0.5, 0.5])
    fit = least_squares(lambda logs: (model(logs) - images).ravel() / images.max(), start)
    nickel, platinum, *sigmas = np.exp(fit.x)
    r = r_factor(model(fit.x), images)
    record_property("r_of_the_linear_model", r.tolist())
    print(f"R of the linear model: {r}, heights {nickel:.3g} and {platinum:.3g}, sigma {sigmas} Angstrom")
    assert r.max() < 0.15
    assert 3.0 < platinum / nickel * (sigmas[1] / sigmas[0]) ** 3 < 8.0  # (78 / 28)^1.7 is 5.7
    assert all(0.35 < sigma < 0.7 for sigma in sigmas)


def test_multislice__is_a_series_in_parts_of_the_electrons(particle, series):
    assert series["images"].dtype == np.float32
    assert 0 < float(series["images"].max()) < 1
    assert (series.attrs["voltage_kV"], series.attrs["detector_mrad"]) == (200.0, [30.0, 60.0])
    field = (series.sizes["x"], series.sizes["y"])
    options = {"pixel_size": 0.5, "field": field, "multislice": COARSE}
    noisy = simulate_tilt_series(particle, ANGLES[:1], dose=1e6, seed=1, **options)
    clean, per_pixel = series["images"].values[0], 1e6 * 0.5**2
    counts = noisy["images"].values[0].astype(np.float64) * per_pixel
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-2)
    z = (counts - clean * per_pixel)[clean > 1e-3] / np.sqrt(clean * per_pixel)[clean > 1e-3]
    assert abs(z.mean()) < 4 / np.sqrt(z.size) and abs((z**2).mean() - 1) < 5 * np.sqrt(2 / z.size)


def test_multislice__prism_of_every_wave_is_multislice(three):
    x = (np.arange(26) - 13) * 0.5
    every, prism = (image_of(three, Multislice(detector=(30.0, 60.0), prism=p), x, x) for p in (0, 1))
    np.testing.assert_allclose(prism, every, atol=1e-4 * every.max())


def test_multislice__lab_axes_are_those_of_the_linear_model(three):
    """Columns are x and rows are y, and a smaller field is a part of the whole one."""
    x, y = (np.arange(16) - 8) * 0.8, (np.arange(14) - 7) * 0.8
    fine = Multislice(detector=(30.0, 60.0), sampling=0.07)
    image = image_of(three, fine, x, y)
    heights = three[:, 3] ** 1.7
    flat = project_atoms(three[:, :3], [[2.0, 25.0, -3.0]], heights=heights, sigmas=0.6, x=x, y=y, pixel_size=0.8)[0]
    assert image.shape == (14, 16)
    assert np.corrcoef(image.ravel(), flat.ravel())[0, 1] > 0.95
    for turned in (image[::-1], image[:, ::-1], image[::-1, ::-1]):
        assert np.corrcoef(turned.ravel(), flat.ravel())[0, 1] < 0.9
    part = image_of(three, fine, x[5:11], y[4:10])
    np.testing.assert_allclose(part, image[4:10, 5:11], atol=0.02 * image.max())
    assert not image_of(three, fine, x + 100.0, y).any()


def test_multislice__frozen_phonons_are_seeded_for_each_tilt(three):
    x = (np.arange(18) - 9) * 0.6
    settings = Multislice(detector=(30.0, 60.0), frozen_phonons=2, thermal=0.2)
    one, again, other = (image_of(three, settings, x, x, tilt=tilt) for tilt in (4, 4, 5))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01 * one.max()
    still = image_of(three, Multislice(detector=(30.0, 60.0)), x, x)
    assert np.abs(one - still).max() > 0.01 * one.max()


def test_simulate__multislice_says_before_what_it_takes(tmp_path: Path, three, caplog):
    atoms = xr.Dataset(
        {"position": (("atom", "axis"), three[:, :3]), "species": ("atom", ["Ni", "Pt", "Pd"])},
        {"atom": range(3), "axis": list("xyz")},
    )
    write_xyz(tmp_path / "atoms.xyz", atoms)
    options = {"angles": ANGLES, "pixel_size": 0.6, "multislice": True, "detector": (30.0, 60.0), "convergence": 20.0}
    summary = pipeline.simulate(tmp_path / "atoms.xyz", tmp_path / "run.zarr", **options, seed=1)
    forecast = summary["forecast"]
    assert forecast["cpu_seconds"] > 0 and forecast["memory_bytes"] > 1e6 and forecast["n_slices"] >= 2
    assert "multislice: about" in caplog.text
    with Store.open(tmp_path / "run.zarr") as store:
        found = store.read("tilt_series/aligned")
    settings = Multislice(detector=(30.0, 60.0), convergence=20.0)
    series = simulate_tilt_series(atoms, ANGLES, pixel_size=0.6, multislice=settings, seed=1)
    np.testing.assert_array_equal(found["images"], series["images"])
    assert found.attrs["convergence_mrad"] == 20.0
    assert set(forecast_multislice(series)) == set(forecast)
