"""The demo, from the simulated film to the report, on two workers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aetdist import pipeline
from aetdist.demo import FIELD, PIXEL_SIZE, TILTS, TOLERANCE, make_experiment, run_demo
from aetdist.errors import InputError
from aetdist.io import Store, read_atoms
from aetdist.metrics import compare_atoms
from aetdist.report.findings import in_field

pytestmark = pytest.mark.integration


def test_run_demo__recovers_the_atoms_of_its_film(demo):
    _, result, _ = demo
    assert result["recall"] > 0.98 and result["precision"] > 0.98 and result["f1"] > 0.98
    assert result["rms"] < 0.06
    assert 0.03 < result["r_factor_mean"] < 0.15  # the noise alone leaves about 0.09
    assert 700 < result["n_truth"] < 2000
    assert set(result["stages"].values()) == {"computed"}


def test_run_demo__tells_the_species_apart_and_refines_what_was_traced(demo):
    folder, _, _ = demo
    with Store.open(folder / "run.zarr") as store:
        series = store.read("tilt_series/aligned")
        traced, refined = (in_field(store.read(group), series) for group in ("atoms", "atoms_refined"))
    truth = in_field(read_atoms(folder / "truth.xyz"), series)
    before, after = (compare_atoms(atoms, truth, tolerance=TOLERANCE) for atoms in (traced, refined))
    assert after.rms < 0.6 * before.rms and after.f1 > before.f1
    found, true = after.pairs.T
    right = refined["species"].values[found].astype(str) == truth["species"].values[true].astype(str)
    assert right.mean() > 0.98
    assert 0.03 < refined.attrs["R"] < 0.08  # below that of the volume


def test_run_demo__analyses_the_glass_as_a_glass(demo):
    folder, _, _ = demo
    with Store.open(folder / "run.zarr") as store:
        table = store.read("analysis/summary")
    figures = dict(zip(table["figure"].values.tolist(), table["value"].values.tolist(), strict=True))
    assert 2.5 < figures["first peak of g(r) (Å)"] < 3.3
    assert figures["ordered atoms (%)"] < 15.0
    assert {"disordered: Warren-Cowley 1-2", "largest cluster (centres)"} <= figures.keys()


def test_run_demo__writes_everything_it_names(demo):
    folder, result, said = demo
    json.dumps(result, allow_nan=False)
    for name in ("store", "experiment", "atoms", "truth", "report", "pictures"):
        assert Path(result[name]).exists() and Path(result[name]).parent == folder
    assert len(list((folder / "pictures").glob("*.png"))) > 20
    assert "aetdist demo" in (folder / "report.html").read_text(encoding="utf-8")
    assert read_atoms(folder / "atoms.xyz").sizes["atom"] == result["n_atoms"]
    assert len(said) == 3


def test_run_demo__scans_in_two_by_two_windows(demo):
    folder, _, _ = demo
    with Store.open(folder / "run.zarr") as store:
        volume = store.read("volume")
    shared = (volume["disagreement"].values > 0)[volume.sizes["y"] // 2]
    assert shared.any() and not shared.all()
    assert volume.sizes["x"] > FIELD[0] and volume.sizes["y"] >= FIELD[1]


def test_run_demo__leaves_an_experiment_that_is_current(demo):
    folder, _, _ = demo
    again = pipeline.run(folder / "experiment.toml", dry_run=True)
    assert set(again["stages"].values()) == {"current"}


def test_run_demo__refuses_a_folder_with_something_else(demo, tmp_path):
    folder, _, _ = demo
    with pytest.raises(InputError, match="other than the demo of seed 5"):
        run_demo(folder, seed=5)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds something other"):
        run_demo(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        run_demo(tmp_path / "thesis.tex")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_make_experiment__same_seed_same_film_that_fills_the_field_at_every_tilt():
    truth, series = make_experiment(3)
    again = make_experiment(3)[0]
    np.testing.assert_array_equal(truth["position"], again["position"])
    assert series["images"].shape == (len(TILTS), *FIELD[::-1])
    steepest = series["images"][0].values
    edges = [steepest[:, :8].mean(), steepest[:, -8:].mean()]
    assert min(edges) > 0.5 * steepest.mean()  # matter at both ends: the film is larger than the field
    reach = np.abs(truth["position"].values).max(axis=0)
    assert reach[0] > FIELD[0] * PIXEL_SIZE and reach[1] > FIELD[1] * PIXEL_SIZE / 2
