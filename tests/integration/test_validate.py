"""A seeded glassy particle through its own validation; a validation that is killed; what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

import aetdist
from aetdist import pipeline, schema
from aetdist._stages import STAGES
from aetdist.errors import InputError, StoreError
from aetdist.io import BlockLedger, Store, newest, read_xyz, write_xyz
from aetdist.report import write_pictures
from aetdist.simulate import nanoparticle
from aetdist.validation import nested_path
from aetdist.validation.calibration import honesty
from aetdist.validation.comparison import compared, match_atoms

pytestmark = pytest.mark.integration

ELEMENTS = ("Co", "Pd", "Pt")
EXPERIMENT = """\
store = "run.zarr"
[reconstruct]
iterations = 40
[trace]
[classify]
species = 3
elements = ["Co", "Pd", "Pt"]
[refine]
"""


def solved(folder: Path, diameter: float, n_tilts: int, dose: float) -> xr.Dataset:
    """A run of a glassy particle, as far as its refined atoms; the true ones."""
    truth = nanoparticle(diameter, species=ELEMENTS, seed=3)
    write_xyz(folder / "glass.xyz", truth)
    angles = np.linspace(-70, 70, n_tilts)
    pipeline.simulate(folder / "glass.xyz", folder / "run.zarr", angles=angles, pixel_size=0.4, dose=dose, seed=1)
    (folder / "experiment.toml").write_text(EXPERIMENT)
    pipeline.run(folder / "experiment.toml")
    return truth


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, xr.Dataset]:
    """Folder, summary of the validation and true atoms of 2,199 atoms at a dose at which some are missed."""
    folder = tmp_path_factory.mktemp("glass")
    truth = solved(folder, 42.0, 31, 2500.0)
    said = pipeline.validate(folder / "run.zarr", truth=folder / "truth.xyz", found=folder / "found.xyz", seed=7)
    return folder, said, truth


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few hundred atoms, as far as the refined ones."""
    folder = tmp_path_factory.mktemp("small")
    solved(folder, 18.0, 13, 2e4)
    return folder / "run.zarr"


def read(path: Path, group: str) -> xr.Dataset:
    with Store.open(path) as store:
        return store.read(group)


def test_validate__deviations_are_those_of_the_written_files(done: tuple[Path, dict, xr.Dataset]) -> None:
    """Read, paired and counted here without anything of the package."""

    def columns(path: Path) -> tuple[np.ndarray, np.ndarray]:
        lines = path.read_text().splitlines()
        assert lines[1].startswith("Properties=species:S:1:pos:R:3:type:I:1:")
        rows = [line.split() for line in lines[2:]]
        assert len(rows) == int(lines[0])
        return np.array([row[1:4] for row in rows], float), np.array([row[4] for row in rows], int)

    folder, said, _ = done
    (truth, true_types), (found, found_types) = columns(folder / "truth.xyz"), columns(folder / "found.xyz")
    distance, there = cKDTree(truth).query(found)
    back = cKDTree(found).query(truth)[1]
    paired = (back[there] == np.arange(len(found))) & (distance <= 1.5)
    right = paired & (true_types[there] == found_types)
    off = 100.0 * (found - truth[there])[right]
    figures = said["validation"]
    assert (figures["n_true"], figures["n_found"]) == (len(truth), len(found))
    assert figures["identified"] == pytest.approx(right.sum() / len(truth))
    assert figures["missed"] == pytest.approx(1 - paired.sum() / len(truth))
    assert figures["false"] == pytest.approx(1 - paired.sum() / len(found))
    length = np.linalg.norm(off, axis=1)
    assert figures["deviation_rms_pm"] == pytest.approx([*np.sqrt((off**2).mean(axis=0)), np.sqrt((length**2).mean())])
    assert figures["deviation_mean_pm"] == pytest.approx([*off.mean(axis=0), length.mean()], abs=1e-9)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (true_types[there][paired] - 1, found_types[paired] - 1), 1)
    assert figures["confusion"] == confusion.tolist()


def test_validate__predicts_what_became_of_the_measured_atoms(done: tuple[Path, dict, xr.Dataset]) -> None:
    """The run's own atoms against the glass, which no validation knows."""
    folder, said, truth = done
    figures = said["validation"]
    actual = compared(match_atoms(read(folder / "run.zarr", "atoms_refined"), truth))
    assert figures["identified"] == pytest.approx(actual.attrs["identified"], abs=0.01)
    assert figures["false"] == pytest.approx(actual.attrs["false"], abs=0.01)
    assert 0 < figures["missed"] < 0.02 and figures["stages"] == ["reconstruct", "trace", "classify", "refine"]
    np.testing.assert_allclose(figures["deviation_rms_pm"], 100 * actual["deviation_rms"], rtol=0.2)
    across, along = np.mean(figures["deviation_rms_pm"][:2]), figures["deviation_rms_pm"][2]
    assert along > 1.2 * across  # the missing wedge
    series, clean = (read(path, group) for path, group in (
        (folder / "run.zarr", "tilt_series/aligned"), (nested_path(folder / "run.zarr"), "tilt_series/noise_free")
    ))  # fmt: skip
    ratio = np.abs(series["images"] - clean["images"]).sum(("y", "x")) / np.abs(series["images"]).sum(("y", "x"))
    assert figures["r_factor"] == pytest.approx(float(ratio.mean()), rel=1e-5)
    attrs = series.attrs
    counts = attrs["simulation_dose_per_tilt_e_per_A2"] * 0.16 * 0.05 / attrs["simulation_average_intensity"]
    assert figures["noise_gain"] == pytest.approx(1 / counts, rel=0.03) and figures["noise_white"]


def test_validate__calibrates_with_one_seed_what_holds_for_another(done: tuple[Path, dict, xr.Dataset]) -> None:
    """Factors from the simulated experiment; deviations of the run, whose noise is another."""
    folder, said, truth = done
    atoms, refined = (read(folder / "run.zarr", group) for group in ("atoms_calibrated", "atoms_refined"))
    schema.check(atoms, schema.ATOMS)
    np.testing.assert_allclose(honesty(match_atoms(atoms, truth)), 0.67, atol=0.05)
    np.testing.assert_array_equal(atoms["position_sigma_uncalibrated"], refined["position_sigma"])
    np.testing.assert_array_equal(atoms["probability_uncalibrated"], refined["probability"])
    np.testing.assert_array_equal(atoms["position"], refined["position"])
    claimed, right = atoms["probability"].values.mean(), match_atoms(atoms, truth).is_atom.mean()
    assert abs(claimed - right) < abs(refined["probability"].values.mean() - right)
    assert claimed == pytest.approx(right, abs=0.003)
    assert said["position_sigma_pm"] == pytest.approx((100 * np.nanmedian(atoms["position_sigma"], axis=0)).tolist())


def test_validate__is_kept_shown_and_known_when_it_is_old(done: tuple[Path, dict, xr.Dataset], tmp_path: Path) -> None:
    folder, said, _ = done
    run = folder / "run.zarr"
    again = pipeline.validate(run, seed=7)
    assert again["state"] == "current" and again["n_tilts_computed"] == 0 and said["n_tilts_computed"] == 31
    assert again["validation"] == said["validation"]
    assert pipeline.export(run, atoms=tmp_path / "a.xyz")["atoms_from"] == "atoms_calibrated"
    assert "position_sigma_uncalibrated" in read_xyz(tmp_path / "a.xyz")
    schema.check(read(run, "validation"), schema.VALIDATION)
    assert {"sigmas", "validation"} <= {file.stem for file in write_pictures(run, tmp_path)}
    experiment = folder / "again.toml"
    experiment.write_text(EXPERIMENT + "[validate]\nseed = 7\n")
    assert set(pipeline.run(experiment)["stages"].values()) == {"current"}
    assert pipeline.info(run)["groups"]["validation"]["status"] == "complete"
    figures = {f"{100 * said['validation'][name]:.2f} %" for name in ("identified", "missed", "false")}
    assert all(figure in said["text"] for figure in figures)


KILLED = """\
import os, signal, sys
import dask
from aetdist import pipeline
from aetdist.validation import images

calls, seen = 0, images._as_detected
def dies(*arguments, **keywords):
    global calls
    calls += 1
    if calls == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return seen(*arguments, **keywords)
images._as_detected = dies
with dask.config.set(scheduler="synchronous"):
    pipeline.validate(sys.argv[1])
"""


def test_validate__killed_half_way_goes_on(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the sixth of thirteen tilts: five are not computed again; nor are finished stages, then."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(small)], capture_output=True, timeout=300)
    assert killed.returncode == -9, killed.stderr.decode()
    assert BlockLedger(str(nested_path(small)), "tilt_series/noise_free").done().sum() == 5
    with Store.open(small) as store:
        assert newest("atoms", store) == "atoms_refined"

    def stops(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(STAGES, "refine", stops)
    with pytest.raises(KeyboardInterrupt):
        pipeline.validate(small)
    monkeypatch.undo()
    with Store.open(nested_path(small)) as nested:
        before = {group: nested.record(group).created for group in nested.groups()}
    assert {"tilt_series/noise_free", "tilt_series/aligned", "volume", "atoms", "atoms_classified"} <= before.keys()
    said = pipeline.validate(small)
    assert said["state"] == "computed"
    with Store.open(nested_path(small)) as nested:
        assert {group: nested.record(group).created for group in before} == before
    with Store.open(small) as store:
        assert newest("atoms", store) == "atoms_calibrated"
    last = aetdist.validate_model(small)  # the same again, from what is there
    assert last.n_tilts_computed == 0 and set(last.states.values()) == {"current"}
    pipeline.refine(small, iterations=2)
    with Store.open(small) as store:
        assert newest("atoms", store) == "atoms_refined"  # what was calibrated was not these
    assert pipeline.info(small)["groups"]["validation"]["status"] == "stale"


def test_validate__with_errors_of_angles_that_are_refined_again(small: Path, tmp_path: Path) -> None:
    """A dose, and errors beside those that were found: they are in the simulated series, and known there."""
    said = pipeline.validate(small, dose=1e5, angle_error=0.3, shift_error=0.2, heights="type")
    figures = said["validation"]
    assert figures["identified"] > 0.9 and figures["noise_white"]
    series, clean = (read(nested_path(small), f"tilt_series/{name}") for name in ("aligned", "noise_free"))
    assert 0.15 < np.std(series["angles"].values - clean["angles"].values) < 0.5
    assert 0.1 < clean["shift"].values.std() < 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dose": 0.0}, "dose came as 0"),
        ({"dose": 1e4, "efficiency": 2.0}, "efficiency came as"),
        ({"angle_error": -1.0}, "angle_error came as"),
        ({"tolerance": 0.0}, "tolerance came as"),
        ({"heights": "mean"}, "heights = 'mean' came"),
        ({"doze": 1e4}, "did you mean dose"),
    ],
)
def test_validate__says_which_option_is_wrong(small: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipeline.validate(small, **options)


def test_validate__says_what_is_missing(small: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        pipeline.validate(tmp_path / "nothing.zarr")
    with Store.open(small) as run, Store.create(tmp_path / "run.zarr") as store:
        for group in ("tilt_series/aligned", "volume", "atoms", "atoms_classified"):
            with pytest.raises(InputError, match=f"holds no '{group}'|needs refined ones"):
                aetdist.validate_model(store)
            store.write(group, run.read(group), record=run.record(group))
        with pytest.raises(InputError, match="'atoms_classified'; validation needs refined ones: run aetdist refine"):
            aetdist.validate_model(store)


def test_validate__refuses_a_particle_larger_than_the_field(small: Path, tmp_path: Path) -> None:
    with Store.open(small) as run, Store.create(tmp_path / "run.zarr") as store:
        for group in ("tilt_series/aligned", "volume", "atoms", "atoms_classified", "atoms_refined"):
            dataset = run.read(group)
            store.write(group, dataset.isel(x=slice(12, -12)) if group[0] == "t" else dataset, record=run.record(group))
        with pytest.raises(InputError, match=r"leave the field of .* the object is larger than it"):
            aetdist.validate_model(store)
    assert not nested_path(tmp_path / "run.zarr").exists()


def test_validate__multislice_needs_elements(small: Path, tmp_path: Path) -> None:
    with Store.open(small) as run, Store.create(tmp_path / "run.zarr") as store:
        for group in ("tilt_series/aligned", "volume", "atoms", "atoms_classified", "atoms_refined"):
            dataset = run.read(group)
            store.write(group, dataset.drop_vars("species", errors="ignore"), record=run.record(group))
        with pytest.raises(InputError, match="Multislice needs elements"):
            aetdist.validate_model(store, multislice=True)
