"""A planned experiment: what cases give, one task each; a sweep that is killed; what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from aetdist import pipeline
from aetdist.cli import program
from aetdist.errors import InputError
from aetdist.io import BlockLedger, Store, write_xyz
from aetdist.simulate import nanoparticle, simulate_tilt_series
from aetdist.simulate.inputs import average_intensity
from aetdist.validation import cases, design_experiment
from aetdist.validation.cases import Imaging, as_table, case_series, cropped

pytestmark = pytest.mark.integration

SWEEP: dict[str, Any] = {
    "doses": [3e4, 1e6],
    "n_tilts": [15],
    "tilt_ranges": [60.0, 72.0],
    "radius": 9.0,
    "iterations": 30,
}


@pytest.fixture(scope="module")
def glass() -> xr.Dataset:
    return nanoparticle(30.0, species=("Ni", "Pt"), seed=5)


def test_design__more_electrons_find_more_atoms(glass: xr.Dataset, tmp_path: Path) -> None:
    """From the file to table, CSV and picture; a second time nothing is computed."""
    write_xyz(tmp_path / "glass.xyz", glass)
    said = pipeline.design(tmp_path / "glass.xyz", tmp_path / "plan.zarr", **SWEEP)
    assert said["n_cases_computed"] == 4 and [row["dose"] for row in said["cases"]] == [3e4, 3e4, 1e6, 1e6]
    few, many = said["cases"][1], said["cases"][3]
    assert many["identified"] > 0.97 > few["identified"] + few["mistyped"] and many["false"] < 0.02
    assert many["rms_z"] < 0.1 and all(many[f"rms_{axis}"] < few[f"rms_{axis}"] for axis in "xyz")
    with (tmp_path / "plan.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == [{name: float(value) for name, value in row.items()} for row in said["cases"]]
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert f"{100 * many['identified']:.1f} %" in said["text"] and "±72°" in said["text"]
    files = [str(tmp_path / "glass.xyz"), "-o", str(tmp_path / "plan.zarr")]
    sweep = "--dose 3e4,1e6 --tilts 15 --range 60,72 --radius 9 --set iterations=30 --workers 1 --json".split()
    again = CliRunner().invoke(program, ["design", *files, *sweep])
    assert again.exit_code == 0, again.output
    told = json.loads(again.stdout.strip().splitlines()[-1])
    assert told["n_cases_computed"] == 0 and told["cases"] == said["cases"]


def test_design__is_the_same_on_workers_and_goes_on_after_a_kill(
    glass: xr.Dataset, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two cases dies; the first is kept. No task waits for others, so that none hangs."""
    sweep = SWEEP | {"tilt_ranges": [60.0], "radius": 7.0}
    with Store.create(tmp_path / "workers.zarr") as store:
        table = design_experiment(glass, store, **sweep)
    solved, calls = cases.solved_case, []

    def dies(case: np.ndarray, *arguments: Any) -> np.ndarray:
        calls.append(float(case[0]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solved(case, *arguments)

    monkeypatch.setattr(cases, "solved_case", dies)
    with Store.create(tmp_path / "here.zarr") as store, dask.config.set(scheduler="synchronous"):
        with pytest.raises(KeyboardInterrupt):
            design_experiment(glass, store, **sweep)
        assert BlockLedger(str(store.path), "cases").done().sum() == 1
        here = design_experiment(glass, store, **sweep)
    assert here.attrs["n_cases_computed"] == 1 and len(calls) == 3 and calls[1] == calls[2]
    xr.testing.assert_allclose(here, table, rtol=1e-6)


def test_design__nothing_to_see_is_no_error(glass: xr.Dataset, tmp_path: Path) -> None:
    with Store.create(tmp_path / "dark.zarr") as store:
        table = design_experiment(glass, store, **(SWEEP | {"doses": [1e-3], "tilt_ranges": [60.0], "radius": 5.0}))
    assert float(table["identified"].max()) < 0.2


def test_case__a_crop_has_as_many_counts_for_each_atom(glass: xr.Dataset) -> None:
    """The variance of an image over its mean is the intensity of a count: that of the whole structure."""
    heights = np.array([28.0, 78.0])[glass["type"].values - 1] ** 1.7
    average = average_intensity(glass["position"].values, heights, np.full(len(heights), 0.5), 0.35)
    imaging = Imaging(0.35, (0.5, 0.5), None, 0.35**2 * 0.05 / average, 0.0, 10, 1.5, seed=2)
    sample = cropped(glass, 8.0)
    assert 50 < sample.sizes["atom"] < glass.sizes["atom"] / 3
    np.testing.assert_allclose(sample["position"].mean("atom"), 0.0, atol=1e-9)
    series = case_series(np.array([9e4, 9, 60.0]), sample, imaging)
    assert series["angles"].values[:, 1].tolist() == np.linspace(-60, 60, 9).tolist()
    clean = simulate_tilt_series(sample, series["angles"].values, pixel_size=0.35, sigma=0.5)["images"].values
    counts = 1e4 * 0.35**2 * 0.05 / average
    bright = clean * counts > 5
    square = (series["images"].values - clean) ** 2 * counts / np.maximum(clean, 1e-9)
    assert square[bright].mean() == pytest.approx(1, abs=0.08)
    off = case_series(np.array([9e4, 9, 60.0]), sample, Imaging(0.35, (0.5, 0.5), None, 1e-5, 0.5, 10, 1.5, seed=2))
    assert np.abs(off["images"].values - series["images"].values).max() > 0.05 * clean.max()
    np.testing.assert_array_equal(off["angles"], series["angles"])  # as they are believed


def test_table__puts_every_case_in_its_place() -> None:
    given = np.array([[1e5, 41, 60.0], [2e5, 41, 60.0], [1e5, 55, 60.0], [2e5, 55, 60.0]])
    figures = np.arange(36.0).reshape(4, 9)
    table = as_table(given[::-1], figures[::-1])
    assert float(table["identified"].sel(dose=2e5, n_tilts=41, tilt_range=60.0)) == figures[1, 2]
    assert table["rms"].sel(dose=1e5, n_tilts=55, tilt_range=60.0).values.tolist() == figures[2, -3:].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"doses": [0.0]}, "dose came as"),
        ({"doses": []}, "dose came as"),
        ({"n_tilts": [2]}, "n_tilts came as"),
        ({"n_tilts": [20.5]}, "n_tilts came as"),
        ({"tilt_ranges": [95.0]}, "tilt_range came as"),
        ({"pixel_size": -0.3}, "pixel_size came as"),
        ({"efficiency": 1.5}, "efficiency came as"),
        ({"angle_error": -1.0}, "angle_error came as"),
        ({"radius": 0.001}, "No atom is within radius"),
    ],
)
def test_design__says_which_option_is_wrong(glass: xr.Dataset, tmp_path: Path, options: dict, message: str) -> None:
    with Store.create(tmp_path / "plan.zarr") as store, pytest.raises(InputError, match=message):
        design_experiment(glass, store, **(SWEEP | options))


def test_design__refuses_structures_that_cannot_be(glass: xr.Dataset, tmp_path: Path) -> None:
    near = glass.copy(deep=True)
    near["position"].values[1] = near["position"].values[0] + 0.3
    unknown = glass.assign(species=("atom", np.where(glass["species"] == "Ni", "Nj", "Pt")))
    with Store.create(tmp_path / "plan.zarr") as store:
        with pytest.raises(InputError, match=r"1 of .* atoms are nearer than 1 Angstrom"):
            design_experiment(near, store, **SWEEP)
        with pytest.raises(InputError, match="Nj"):
            design_experiment(unknown, store, **SWEEP)
        with pytest.raises(InputError, match="no atoms"):
            design_experiment(glass.isel(atom=slice(0)), store, **SWEEP)
