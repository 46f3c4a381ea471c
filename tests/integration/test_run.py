"""An experiment file through its real stages: a small film from images in HDF5 to exported atoms."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from aetdist import pipeline
from aetdist.cli import program
from aetdist.io import Store, read_xyz
from aetdist.metrics import compare_atoms
from aetdist.simulate import amorphous_film, simulate_tilt_series

pytestmark = pytest.mark.integration

STAGES = ("import", "scan", "trace", "export")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment file beside the images of a film of one species, in a folder that is no plain ASCII."""
    folder = tmp_path / "Messung ä"
    folder.mkdir()
    atoms = amorphous_film((36.0, 24.0), 9.0, species=("Pt",), seed=3)
    np.save(folder / "truth.npy", atoms["position"].values)
    series = simulate_tilt_series(atoms, np.linspace(-68.0, 68.0, 25), pixel_size=0.5, field=(72, 48))
    with h5py.File(folder / "series.h5", "w") as file:
        file["images"] = series["images"].values
        file["angles"] = series["angles"].values
    path = folder / "experiment.toml"
    path.write_text(
        textwrap.dedent("""\
        [import]
        files = ["series.h5"]
        output = "run.zarr"
        images = "images"
        angles = "angles"
        pixel_size = 0.5
        [scan]
        window = [40, 28]
        overlap = 14
        thickness = 12
        iterations = 20
        [trace]
        minimum_distance = 2.0
        [export]
        atoms = "atoms.xyz"
        volume = "volume.mrc"
        """),
        encoding="utf-8",
    )
    return path


def states(summary: dict) -> list[str]:
    return [summary["stages"][name] for name in STAGES]


def test_run__from_images_to_atoms_and_only_what_changed(experiment: Path, client) -> None:
    first = pipeline.run(experiment)
    assert states(first) == ["computed"] * 4
    assert first["n_windows"] >= 4
    assert first["r_factor_mean"] < 0.1

    found = read_xyz(experiment.with_name("atoms.xyz"))
    assert found.sizes["atom"] == first["n_atoms"]
    truth = np.load(experiment.with_name("truth.npy"))
    compared = compare_atoms(found, _as_atoms(truth), tolerance=0.75).to_dict()
    assert compared["recall"] > 0.8
    assert compared["precision"] > 0.9
    assert compared["rms"] < 0.3

    made = {group: record.created for group, record in _records(experiment).items()}
    second = CliRunner().invoke(program, ["run", str(experiment), "--json"])
    assert second.exit_code == 0, second.stderr
    summary = json.loads(second.stdout)
    assert states(summary) == ["current"] * 4
    assert summary["n_windows_computed"] == 0
    assert (summary["n_atoms"], summary["r_factor_mean"]) == (first["n_atoms"], first["r_factor_mean"])
    assert summary["seconds"] > 0 and summary["peak_memory_bytes"] > 0
    assert {group: record.created for group, record in _records(experiment).items()} == made

    text = experiment.read_text(encoding="utf-8")
    experiment.write_text(text.replace("minimum_distance = 2.0", "minimum_distance = 3.2"), encoding="utf-8")
    changed = pipeline.run(experiment)
    assert states(changed) == ["current", "current", "computed", "computed"]
    assert 0 < changed["n_atoms"] < first["n_atoms"]
    assert read_xyz(experiment.with_name("atoms.xyz")).sizes["atom"] == changed["n_atoms"]
    assert _records(experiment)["volume"].created == made["volume"]


def _as_atoms(position: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"position": (("atom", "axis"), position)}, {"atom": np.arange(len(position)), "axis": list("xyz")}
    )


def _records(experiment: Path) -> dict:
    with Store.open(experiment.with_name("run.zarr")) as store:
        return {group: store.record(group) for group in store.groups()}
