"""From raw frames to an aligned series: the stages, their records, what they leave in the store."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

from aetdist import pipeline, write_report
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import rotate_tilt_axis
from aetdist.images import resample
from aetdist.io import Record, Store
from aetdist.preprocess import correct_frames, preprocess_acquisition
from aetdist.report import write_pictures
from aetdist.schema import TILT_SERIES, check
from aetdist.simulate import nanoparticle, simulate_acquisition

pytestmark = pytest.mark.integration

RAW, PREPROCESSED, ALIGNED = (f"tilt_series/{step}" for step in ("raw", "preprocessed", "aligned"))
TILTS = np.linspace(-60.0, 60.0, 13)
DISTORTION = [[1.004, 0.003], [0.003, 0.996]]


@pytest.fixture(scope="module")
def raw() -> xr.Dataset:
    """Frames of a small particle."""
    atoms = nanoparticle(20.0, seed=2)
    options = {"field": (112, 112), "shift": 8.0, "sigma": 0.6, "frames": 3, "seed": 2}
    return simulate_acquisition(atoms, TILTS, tilt_axis=1.0, **options).load()  # type: ignore[arg-type]


def write_raw(path: Path, raw: xr.Dataset) -> Path:
    with Store.create(path) as store:
        store.write(RAW, raw, record=Record("import", {"file": "frames"}), chunks={"tilt": 1})
    return path


@pytest.fixture(scope="module")
def made(raw: xr.Dataset, client: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store taken through both stages on two workers, and their summaries."""
    path = write_raw(tmp_path_factory.mktemp("series") / "run.zarr", raw)
    first = pipeline.preprocess(path, distortion=DISTORTION)
    return path, {"preprocess": first, "align": pipeline.align(path)}


@pytest.fixture
def copy(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of that store, to spoil."""
    return Path(shutil.copytree(made[0], tmp_path / "run.zarr"))


def test_preprocess__groups_are_valid_and_say_what_was_found(made, raw):
    path, said = made
    store = Store.open(path)
    preprocessed, aligned = store.read(PREPROCESSED), store.read(ALIGNED)
    for series in (preprocessed, aligned):
        check(series, TILT_SERIES)
        assert series["images"].chunks[0] == (1,) * len(TILTS)
    error = (preprocessed["frame_shift"] - raw["true_frame_shift"]).values[:, 1:]
    assert np.sqrt((error**2).mean()) < 0.08
    np.testing.assert_array_equal(preprocessed["distortion"], DISTORTION)
    assert preprocessed["object_mask"].any() and not preprocessed["object_mask"].all()
    assert said["preprocess"]["n_frames_dropped"] == 0 and 0.3 < said["preprocess"]["drift_rms"] < 3
    assert {"noise_gain", "noise_offset", "noise_read_noise"} <= said["preprocess"].keys()
    assert said["align"]["tilt_axis"] == float(aligned["tilt_axis"])
    assert said["align"]["state"] == said["preprocess"]["state"] == "computed"
    assert not said["align"]["already_aligned"] and said["align"]["shift_rms"] > 2


def test_preprocess__aligned_images_are_made_from_the_frames_at_once(made, raw):
    """Corrections composed: one resampling of every frame, at D (r + a) + s."""
    path, _ = made
    aligned = Store.open(path).read(ALIGNED)
    corrections = Store.open(path).read(PREPROCESSED)
    plain = correct_frames(raw, corrections, aligned["shift"].values, denoised=False, background=False)
    tilt, d = 3, np.array(DISTORTION)
    frames = [
        resample(raw["frames"].values[tilt, f], d, d @ aligned["shift"].values[tilt] + s)[0]
        for f, s in enumerate(aligned["frame_shift"].values[tilt])
    ]
    inside = plain["mask"].values[tilt]
    expected = np.mean(frames, axis=0) - corrections.attrs["noise_offset"]
    np.testing.assert_allclose(plain["images"].values[tilt][inside], expected[inside], rtol=1e-4, atol=1e-3)


def test_preprocess__the_axis_goes_into_the_angles(made, raw):
    aligned = Store.open(made[0]).read(ALIGNED)
    axis = float(aligned["tilt_axis"])
    assert abs(axis - 1.0) < 0.4
    np.testing.assert_allclose(aligned["angles"], rotate_tilt_axis(raw["angles"].values, axis), atol=1e-9)


def test_preprocess__a_second_run_computes_nothing(copy):
    assert pipeline.preprocess(copy, distortion=DISTORTION)["state"] == "current"
    assert pipeline.align(copy)["state"] == "current"


def test_preprocess__another_keyword_makes_what_follows_stale(copy, client):
    assert pipeline.preprocess(copy, distortion=DISTORTION, denoised=False)["state"] == "computed"
    groups = pipeline.info(copy)["groups"]
    assert groups[ALIGNED]["status"] == "stale"
    assert pipeline.align(copy)["state"] == "computed"


def test_preprocess__runs_from_an_experiment_file(raw, client, tmp_path):
    write_raw(tmp_path / "run.zarr", raw)
    toml = tmp_path / "experiment.toml"
    toml.write_text(f'store = "run.zarr"\n[preprocess]\ndistortion = {DISTORTION}\n[align]\nkind = "particle"\n')
    assert pipeline.run(toml, dry_run=True)["stages"] == {"preprocess": "to compute", "align": "to compute"}
    assert pipeline.run(toml)["stages"] == {"preprocess": "computed", "align": "computed"}
    assert pipeline.run(toml)["stages"] == {"preprocess": "current", "align": "current"}


def test_preprocess__images_without_frames_are_aligned_by_resampling_them(made, client, tmp_path):
    series = Store.open(made[0]).read(PREPROCESSED)[["images", "mask", "angles", "pixel_size"]].load()
    with Store.create(tmp_path / "run.zarr") as store:
        store.write(ALIGNED, series, record=Record("import", {"file": "images"}), chunks={"tilt": 1})
    said = pipeline.align(tmp_path / "run.zarr")
    assert said["state"] == "computed"
    store = Store.open(tmp_path / "run.zarr")
    assert store.groups() == [ALIGNED, PREPROCESSED]  # what was imported is kept
    aligned = store.read(ALIGNED)
    np.testing.assert_array_equal(store.read(PREPROCESSED)["images"], series["images"])
    expected = resample(series["images"].values[4], np.eye(2), aligned["shift"].values[4])[0]
    inside = aligned["mask"].values[4]
    np.testing.assert_allclose(aligned["images"].values[4][inside], expected[inside], rtol=1e-3, atol=0.5)
    assert pipeline.align(tmp_path / "run.zarr")["state"] == "current"


def test_preprocess__a_series_that_is_aligned_stays_as_it_is(made, client, tmp_path):
    series = Store.open(made[0]).read(ALIGNED)[["images", "mask", "angles", "pixel_size"]].load()
    with Store.create(tmp_path / "run.zarr") as store:
        store.write(ALIGNED, series, record=Record("import", {"file": "images"}), chunks={"tilt": 1})
        before = store.digest(ALIGNED)
    said = pipeline.align(tmp_path / "run.zarr")
    assert said["already_aligned"] and said["state"] == "left as it is"
    store = Store.open(tmp_path / "run.zarr")
    assert store.groups() == [ALIGNED] and store.digest(ALIGNED) == before
    np.testing.assert_array_equal(store.read(ALIGNED)["images"], series["images"])


def test_preprocess__blank_and_saturated_frames_are_left_out_and_spoil_nothing(raw, made, tmp_path, client):
    """The first frame of the first tilt is saturated in part, another blank, all of a tilt's blank."""
    frames = raw["frames"].values.copy()
    frames[0, 0, 20:70] = 65535.0
    frames[3, 1] = 0.0
    frames[6] = 0.0
    path = write_raw(tmp_path / "run.zarr", raw.assign(frames=(raw["frames"].dims, frames, raw["frames"].attrs)))
    with pytest.warns(AetdistWarning) as said:
        summary = pipeline.preprocess(path, distortion=DISTORTION)
    texts = " ".join(str(warning.message) for warning in said)
    assert "frame 0 of tilt 0" in texts and "frame 1 of tilt 3 (blank)" in texts
    assert "Tilts without a usable frame: 6" in texts
    assert summary["n_frames_dropped"] == 5
    assert summary["noise_gain"] == pytest.approx(raw.attrs["true_gain"], rel=0.05)
    assert summary["noise_offset"] == pytest.approx(raw.attrs["true_offset"], abs=1.0)
    series, whole = Store.open(path).read(PREPROCESSED), Store.open(made[0]).read(PREPROCESSED)
    assert not series["mask"][6].any() and not series["images"][6].any()
    both = (series["mask"][3] & whole["mask"][3]).values
    assert np.corrcoef(series["images"][3].values[both], whole["images"][3].values[both])[0, 1] > 0.99
    with pytest.warns(AetdistWarning, match="Tilt 6 is blank or was not measured"):
        assert 6 in pipeline.align(path)["tilts_not_used"]


def test_preprocess__refuses_frames_that_are_all_blank(raw):
    with pytest.warns(AetdistWarning), pytest.raises(InputError, match="No frame of any tilt"):
        preprocess_acquisition(raw.assign(frames=raw["frames"] * 0))


@pytest.mark.slow
def test_preprocess__what_is_left_of_the_distortion_is_found_and_composed(raw, tmp_path, client):
    """A calibration without the shear: common lines find it, and every frame is still resampled once."""
    path = write_raw(tmp_path / "run.zarr", raw)
    given = [[1.004, 0.0], [0.0, 0.996]]
    said = pipeline.preprocess(path, distortion=given, residual_distortion=True)
    made_ = Store.open(path).read(PREPROCESSED)
    np.testing.assert_array_equal(made_["given_distortion"], given)
    np.testing.assert_allclose(made_["distortion"], np.array(given) @ said["residual_distortion"])
    assert said["residual_applied"] and said["distortion"] == made_["distortion"].values.tolist()
    shear = made_["distortion"].values[[0, 1], [1, 0]]
    np.testing.assert_allclose(shear, 0.003, atol=0.0015)  # it is 0.0005 to 0.001 uncertain on so small a particle
    expected = correct_frames(raw, made_)  # from the frames, at once
    np.testing.assert_array_equal(made_["images"], expected["images"])


@pytest.mark.slow
def test_preprocess__parameters_of_the_denoising_are_chosen_on_a_model(raw, tmp_path, client):
    path = write_raw(tmp_path / "run.zarr", raw)
    said = pipeline.preprocess(path, distortion=DISTORTION, denoising="chosen")
    series = Store.open(path).read(PREPROCESSED)
    table = series["sweep_correlation"].mean("model_tilt")
    best = np.unravel_index(int(table.values.argmax()), table.shape)
    assert said["denoising_chosen"] == {d: table[d].values[i] for d, i in zip(table.dims, best, strict=True)}
    assert table.max() > series["sweep_noisy_correlation"].mean()
    assert abs(series.attrs["model_diameter_A"] - 20.0) < 2.0
    assert pipeline.align(path)["state"] == "computed"
    aligned = Store.open(path).read(ALIGNED)
    for name in table.dims:  # made again with what was chosen
        assert aligned.attrs[f"denoise_{name}"] == series.attrs[f"denoise_{name}"]
    assert "denoising" in {file.stem for file in write_pictures(path, tmp_path / "pictures")}


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_align__tilts_taken_again_are_compared_and_told_of(tmp_path, client, damaged):
    """The lowest tilt before, amid and after the series; the beam moves the atoms by 0.8 Angstrom before the last."""
    atoms = nanoparticle(20.0, seed=2)
    angles = np.array([0.0, -50.0, -25.0, 0.0, 25.0, 50.0, 0.0])
    options = {"field": (112, 112), "shift": 8.0, "sigma": 0.6, "frames": 2}
    raw = simulate_acquisition(atoms, angles, seed=2, **options).load()  # type: ignore[arg-type]
    if damaged:
        moved = atoms["position"] + 0.8 * np.random.default_rng(1).normal(size=atoms["position"].shape)
        apart = np.ones(len(moved), bool)
        apart[cKDTree(moved).query_pairs(1.0, output_type="ndarray")[:, 1]] = False
        left = atoms.assign(position=moved).isel(atom=apart)
        after = simulate_acquisition(left, angles, seed=2, **options)  # type: ignore[arg-type]
        raw["frames"][6] = after["frames"][6]
    path = write_raw(tmp_path / "run.zarr", raw)
    pipeline.preprocess(path, distortion=DISTORTION)
    with pytest.warns(AetdistWarning, match="0-6 .*, 3-6 .*beam") if damaged else contextlib.nullcontext():
        said = pipeline.align(path)
    assert said["repeated_tilts"] == [[0, 3], [0, 6], [3, 6]]
    assert said["repeated_tilts_that_differ"] == ([[0, 6], [3, 6]] if damaged else [])
    aligned = Store.open(path).read(ALIGNED)
    between = raw["true_shift"].values[[3, 6, 6]] - raw["true_shift"].values[[0, 0, 3]]
    np.testing.assert_allclose(aligned["repeat_shift"], between, atol=0.6 if damaged else 0.1)
    assert "repeats" in {file.stem for file in write_pictures(path, tmp_path / "pictures")}
    write_report(path, tmp_path / "report.html")
    assert f"{2 * damaged} of 3 pairs" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "repeated_tilts" not in pipeline.align(path, repeated=[])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["preprocess", "align"])
def test_preprocess__a_killed_stage_goes_on_where_it_stopped(raw, made, tmp_path, stage):
    """kill -9 of the process: the tilts that are recorded are not computed again; the same series to the bit."""
    path = write_raw(tmp_path / "run.zarr", raw)
    keywords = {"preprocess": {"distortion": DISTORTION}, "align": {}}
    if stage == "align":
        pipeline.preprocess(path, **keywords["preprocess"])
    group = {"preprocess": PREPROCESSED, "align": ALIGNED}[stage]
    code = f"from aetdist import pipeline; pipeline.{stage}({str(path)!r}, **{keywords[stage]!r})"
    process = subprocess.Popen([sys.executable, "-c", f"import dask; dask.config.set(scheduler='sync'); {code}"])
    written = path / group / "blocks" / "done" / "c"
    for _ in range(2400):
        if len(done := [file for file in written.glob("*") if file.name.isdecimal()]) >= 2:
            break
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = [file for file in written.glob("*") if file.name.isdecimal()]
    assert 2 <= len(done) < len(TILTS)
    before = {file: file.stat().st_mtime_ns for file in done}
    said = getattr(pipeline, stage)(path, **keywords[stage])
    assert said["n_tilts_computed"] == len(TILTS) - len(done)
    assert all(file.stat().st_mtime_ns == time_ for file, time_ in before.items())
    xr.testing.assert_identical(Store.open(path).read(group).load(), Store.open(made[0]).read(group).load())


def test_preprocess__pictures_of_every_step(made, tmp_path):
    names = {file.stem for file in write_pictures(made[0], tmp_path)}
    assert {"preprocessing", "drift", "shifts", "common_lines"} <= names


def test_preprocess__summary_is_plain_json(made):
    from aetdist._console import jsonable

    for said in made[1].values():
        json.dumps(jsonable(said), allow_nan=False)


@pytest.fixture(scope="module")
def corrections(made: tuple[Path, dict[str, Any]]) -> xr.Dataset:
    """What was found, in memory."""
    names = ["frame_shift", "frame_kept", "frame_correlation", "distortion"]
    return Store.open(made[0]).read(PREPROCESSED)[names].load()


def test_preprocess__building_the_images_computes_nothing(corrections, raw, no_compute):
    lazy = raw.assign(frames=raw["frames"].chunk(tilt=1))
    series = correct_frames(lazy, corrections, np.zeros((len(TILTS), 2)))
    assert series["images"].chunks[0] == (1,) * len(TILTS)


def test_preprocess__one_tilt_needs_only_its_own_frames(corrections, raw):
    lazy = raw.assign(frames=raw["frames"].chunk(tilt=1))
    image = correct_frames(lazy, corrections)["images"]
    (one,) = dask.optimize(image.data[3])
    (whole,) = dask.optimize(image.data)
    assert len(dict(one.__dask_graph__())) < len(dict(whole.__dask_graph__())) / 4


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"distortion": [[2.0, 0.0], [0.0, 1.0]]}, "distortion"),
        ({"kind": "cube"}, "kind"),
        ({"noise": (-1.0, 1.0, 1.0)}, "gain"),
        ({"denoising": "best"}, "denoising"),
        ({"denoising": "chosen"}, "make_atoms"),
        ({"denoising": "chosen", "kind": "film"}, "particle"),
        ({"residual_distortion": True, "kind": "film"}, "isolated"),
    ],
)
def test_preprocess__refuses_options_that_cannot_be(raw, keywords, match, no_compute):
    lazy = raw.assign(frames=raw["frames"].chunk(tilt=1))
    with pytest.raises(InputError, match=match):  # before anything is computed
        preprocess_acquisition(lazy, **keywords)


@pytest.mark.parametrize(
    "keywords",
    [{"residual_distortion": True}, {"denoising": "chosen", "make_atoms": nanoparticle}],
    ids=["residual", "chosen"],
)
def test_preprocess__some_options_need_a_pixel_size(raw, keywords, no_compute):
    with pytest.raises(InputError, match="pixel_size"):
        preprocess_acquisition(raw.drop_vars("pixel_size").chunk(tilt=1), **keywords)


def test_align__refuses_a_single_tilt(made, client, tmp_path):
    series = Store.open(made[0]).read(PREPROCESSED).isel(tilt=[0])[["images", "mask", "angles"]]
    with Store.create(tmp_path / "run.zarr") as store:
        store.write(ALIGNED, series, record=Record("import"), chunks={"tilt": 1})
    with pytest.raises(InputError, match="tilt"):
        pipeline.align(tmp_path / "run.zarr")
    assert Store.open(tmp_path / "run.zarr").groups() == [ALIGNED]  # nothing was moved
