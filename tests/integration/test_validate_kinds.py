"""Validation of runs of other kinds: a film that goes on beyond its field, and one whose angles were refined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import aetdist as aet
from aetdist import pipeline
from aetdist.io import Record, Store
from aetdist.simulate import nanoparticle
from aetdist.validation import nested_path
from aetdist.validation.comparison import compared, match_atoms

pytestmark = pytest.mark.integration


def test_film__goes_on_beside_its_atoms(tmp_path: Path) -> None:
    """What the volume has beside the support is in the simulated images, so that these are like the measured ones."""
    truth = aet.amorphous_film((64.0, 44.0), 14.0, species=("Ta",), waviness=2.0, wavelength=60.0, seed=7)
    angles = np.array([[0.2, t, -0.1] for t in np.linspace(-60, 60, 21)])
    series = aet.simulate_tilt_series(truth, angles, pixel_size=0.5, field=(96, 56), dose=2e4, sigma=0.6, seed=8)
    run = tmp_path / "film.zarr"
    with Store.create(run) as store:
        store.write("tilt_series/aligned", series, record=Record("simulate"), chunks={"tilt": 1})
    scan = {
        "window": (48, 40),
        "overlap": 22,
        "thickness": 22.0,
        "iterations": 20,
        "coarse_iterations": 12,
        "passes": 1,
    }
    pipeline.scan(run, **scan)
    pipeline.trace(run)
    pipeline.refine(run)
    figures = pipeline.validate(run)["validation"]
    assert figures["stages"] == ["scan", "trace", "refine"] and figures["r_factor"] < 0.15
    with Store.open(run) as store, Store.open(nested_path(run)) as nested:
        refined, clean = store.read("atoms_refined"), nested.read("tilt_series/noise_free")
        assert nested.notes("volume")["asked"] == store.notes("volume")["asked"]
        measured = store.read("tilt_series/aligned")["images"]
    counted = clean["counted"].values
    assert 0.1 < counted.mean() < 0.95
    inside, everywhere = (
        float(np.abs(measured - clean["images"]).where(where).sum() / np.abs(measured).where(where).sum())
        for where in (counted, np.ones_like(counted))
    )
    assert figures["r_factor"] == pytest.approx(inside, rel=0.1) and everywhere < 0.25
    matched = match_atoms(refined, truth)
    actual = float(compared(matched)["deviation_rms"][3])
    assert 0.6 * actual < figures["deviation_rms_pm"][3] / 100 < 1.5 * actual
    assert figures["false"] == pytest.approx(1 - matched.is_atom.mean(), abs=0.03)


def test_angles__that_were_refined_are_wrong_again_and_refined_again(tmp_path: Path) -> None:
    """The simulated experiment begins with the errors that the run began with, and loses them in the same way."""
    truth = nanoparticle(20.0, species=("Ni", "Pt"), seed=4)
    true = aet.geometry.euler_from_tilts(np.linspace(-70, 70, 17))
    random = np.random.default_rng(0)
    wrong = true + random.normal(0.0, 0.8, true.shape)
    series = aet.simulate_tilt_series(truth, true, pixel_size=0.4, dose=1e5, seed=1).compute()
    series = series.assign(
        angles=(("tilt", "euler"), wrong), matrices=(series["matrices"].dims, aet.geometry.matrices_from_euler(wrong))
    )
    run = tmp_path / "run.zarr"
    with Store.create(run) as store:
        store.write("tilt_series/aligned", series, record=Record("simulate"), chunks={"tilt": 1})
    pipeline.refine_angles(run, rounds=4)
    pipeline.reconstruct(run, iterations=40)
    pipeline.trace(run)
    pipeline.classify(run, species=2)
    pipeline.refine(run)
    figures = pipeline.validate(run)["validation"]
    assert figures["stages"][0] == "refine-angles" and figures["identified"] > 0.97
    with Store.open(nested_path(run)) as nested:
        began, refined = (nested.read(f"tilt_series/{name}")["angles"].values for name in ("aligned", "refined"))
        known = nested.read("tilt_series/noise_free")["angles"].values
    np.testing.assert_allclose(began, wrong)
    before, after = ((angles - known)[:, 1] for angles in (began, refined))
    assert np.std(after) < 0.4 * np.std(before) and np.std(before) > 0.5


@pytest.mark.slow
def test_multislice__takes_the_place_of_linear_projections(tmp_path: Path) -> None:
    """A tiny particle: voltage and detector are those of the series, images in its unit; platinum is found."""
    pytest.importorskip("abtem", reason="abTEM is not installed: pip install 'aetdist[multislice]'")
    truth = nanoparticle(11.0, species=("Ni", "Pt"), seed=3)
    series = aet.simulate_tilt_series(truth, np.linspace(-65, 65, 9), pixel_size=0.5, sigma=0.55, dose=1e6, seed=1)
    series.attrs |= {"voltage_kV": 100.0, "convergence_mrad": 24.0, "detector_mrad": [30.0, 60.0]}
    run = tmp_path / "run.zarr"
    with Store.create(run) as store:
        store.write("tilt_series/aligned", series, record=Record("simulate"), chunks={"tilt": 1})
    pipeline.reconstruct(run, iterations=60)
    pipeline.trace(run)
    pipeline.classify(run, species=2, elements=["Ni", "Pt"])
    pipeline.refine(run)
    said = pipeline.validate(run, multislice=True, dose=1e6)
    with Store.open(nested_path(run)) as nested, Store.open(run) as store:
        clean, measured = nested.read("tilt_series/noise_free"), store.read("tilt_series/aligned")["images"].values
        parameters = nested.record("tilt_series/noise_free").parameters["multislice"]
        noisy = nested.read("tilt_series/aligned")["images"].values
    assert (parameters["voltage"], parameters["detector"]) == (100.0, [30.0, 60.0])
    parts = clean["images"].values
    assert 0 < parts.max() < 1  # of the electrons
    scale = np.vdot(parts, measured) / np.vdot(parts, parts)
    square = ((noisy - scale * parts) ** 2)[parts > 0.5 * parts.max()].mean()
    assert square == pytest.approx((scale * parts)[parts > 0.5 * parts.max()].mean() * scale / (1e6 * 0.25), rel=0.15)
    figures = said["validation"]  # nickel is fainter beside platinum than Z^1.7 says, and some of it is lost
    assert figures["r_factor"] < 0.5 and figures["identified_of_type"][1] > 0.9 and figures["false"] < 0.1
    assert pipeline.validate(run, multislice=True, dose=1e6)["n_tilts_computed"] == 0
