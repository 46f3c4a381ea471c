"""Scanning AET end to end on a small film: right, restartable, the same to the bit however it was run.

What is killed, full or damaged meanwhile is in test_faults.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aetdist as aet
from aetdist import pipeline
from aetdist.errors import CapacityError, InputError, StoreError
from aetdist.io import Record, Store, require_record
from aetdist.reconstruct import grid, memory, reconstruct_scan, reprojection, trials
from aetdist.reconstruct.film import coarse_film
from aetdist.reconstruct.windows import ScanPlan

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_film import N_WINDOWS, PASSES, SCAN, copy, density, film_series

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One series for all tests."""
    return film_series(tmp_path_factory.mktemp("scan") / "series.zarr", dose=2e5)


@pytest.fixture(scope="module")
def scanned(series: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Scanned without a cluster, undisturbed."""
    path = copy(series, tmp_path_factory.mktemp("scanned"))
    return path, pipeline.scan(path, **SCAN)


def test_reconstruct_scan__film_matches_its_projections(scanned: tuple[Path, dict[str, Any]]) -> None:
    """R is that of the reprojection; windows agree; maps and volume carry coordinates and units."""
    path, summary = scanned
    assert summary["n_windows"] == N_WINDOWS and summary["n_windows_computed"] == PASSES * N_WINDOWS
    assert summary["r_factor_mean"] < 0.15
    assert summary["disagreement_l1"] < 0.1 and summary["disagreement_correlation"] > 0.99
    with Store.open(path) as store:
        volume, tilts = store.read("volume"), store.read("tilt_series/aligned")
    again = aet.project_volume(
        volume["density"].compute(), tilts["angles"].values, detector_shape=tilts["images"].shape[1:]
    )
    r = aet.r_factor(again.values, tilts["images"].values, tilts["mask"].values)
    np.testing.assert_allclose(r, volume["r_factor"][0], rtol=1e-3)
    assert volume["height"].attrs["units"] == "angstrom"
    assert np.isfinite(volume["disagreement"]).any() and np.isnan(volume["disagreement"]).any()


def test_reconstruct_scan__is_like_the_film_in_one_piece(scanned: tuple[Path, dict[str, Any]]) -> None:
    """Inside the field the windows give what a reconstruction of everything gives."""
    path, _ = scanned
    with Store.open(path) as store:
        tilts, volume = store.read("tilt_series/aligned").load(), store.read("volume").load()
    whole = aet.reconstruct_resire(tilts, thickness=SCAN["thickness"], iterations=24)
    inside = {"x": slice(-20, 20), "y": slice(-10, 10)}
    a, b = (v["density"].sel(inside).values.ravel() for v in (volume, whole))
    assert np.corrcoef(a, b)[0, 1] > 0.94  # 12 iterations of noisy images


def test_reconstruct_scan__on_a_cluster_is_the_same_to_the_bit(
    series: Path, scanned: tuple[Path, dict[str, Any]], tmp_path: Path, client: Any
) -> None:
    """Two workers, both of which get tasks."""
    path = copy(series, tmp_path)
    pipeline.scan(path, **SCAN)
    np.testing.assert_array_equal(density(path), density(scanned[0]))
    tasks = client.run(lambda dask_worker: sum(1 for line in dask_worker.state.log if "executing" in str(line)))
    assert len(tasks) == 2 and all(tasks.values())


def test_reconstruct_scan__again_computes_nothing(scanned: tuple[Path, dict[str, Any]]) -> None:
    """The second call finds everything current."""
    path, _ = scanned
    before = {p: p.stat().st_mtime_ns for p in (path / "volume" / "density").rglob("*") if p.is_file()}
    assert pipeline.scan(path, **SCAN)["state"] == "current"
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_reconstruct_scan__a_late_task_of_another_run_writes_nothing(
    scanned: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """What was begun with other parameters meanwhile is not touched."""
    path = copy(scanned[0], tmp_path)
    with pytest.raises(StoreError, match="begun anew by another run"):
        require_record(path, "scan/windows_1", "0" * 64)
    with pytest.raises(StoreError, match="begun anew by another run"):
        require_record(path, "scan/windows_9", "0" * 64)
    with Store.open(path) as store:
        require_record(path, "scan/windows_1", store.record("scan/windows_1").digest)


def test_reconstruct_scan__refuses_a_series_that_says_nothing(series: Path, tmp_path: Path) -> None:
    """A mask that is False everywhere, a NaN inside the mask: no film is written."""
    for name, spoil in (
        ("mask", lambda tilts: tilts.assign(mask=tilts["mask"] & False)),
        ("nan", lambda tilts: tilts.assign(images=tilts["images"].where(tilts["tilt"] != 3))),
    ):
        with Store.open(series) as store:
            spoilt = spoil(store.read("tilt_series/aligned"))
        with Store.create(tmp_path / f"{name}.zarr") as store:
            store.write("tilt_series/aligned", spoilt, record=Record(name), chunks={"tilt": 1})
            with pytest.raises(InputError, match="mask"):
                reconstruct_scan(store, **SCAN)
            assert "volume" not in store.groups()


def test_reconstruct_scan__a_field_far_from_the_tilt_axis(tmp_path: Path) -> None:
    """A point at x is seen at x cos(theta), so the volume reaches from there: R is that of a centred field."""
    atoms = aet.amorphous_film((260.0, 44.0), 12.0, species=("Ta",), seed=3)
    angles = np.array([[0.0, t, 0.0] for t in np.linspace(-50, 50, 15)])
    r_factors = []
    for name, centre in (("centred", 0.0), ("beside", 60.0)):
        tilts = aet.simulate_tilt_series(atoms, angles, pixel_size=0.6, field=(80, 40), field_center=(centre, 0.0))
        with Store.create(tmp_path / f"{name}.zarr") as store:
            store.write("tilt_series/aligned", tilts, record=Record(name), chunks={"tilt": 1})
            r_factors.append(reconstruct_scan(store, **SCAN | {"thickness": 18.0})["r_factor_mean"])
    assert r_factors[1] < r_factors[0] + 0.05


def test_reconstruct_scan__final_iterations_lower_r_and_keep_the_windows(
    scanned: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The windows are those of the first scan."""
    path = copy(scanned[0], tmp_path)
    summary = pipeline.scan(path, **SCAN, final_iterations=4)
    assert summary["n_windows_computed"] == 0
    assert summary["r_factor_mean"] < scanned[1]["r_factor_mean"]
    with Store.open(path) as store, Store.open(scanned[0]) as before:
        for name in ("support", "disagreement"):
            np.testing.assert_array_equal(store.read("volume")[name], before.read("volume")[name])


def test_reconstruct_scan__a_rule_chooses_the_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noisy images: asked in three windows, once; the film is that of so many iterations, to the bit."""
    path = film_series(tmp_path / "series.zarr", dose=2e3)
    fixed = copy(path, tmp_path)
    options = {**SCAN, "solver": "ordered_subsets", "passes": 1}
    asked = {**options, "iterations": 30, "stop": "held_out_blocks"}
    with Store.open(path, "a") as store:
        summary = reconstruct_scan(store, **asked)
    counts = summary["trial_iterations"]
    assert len(counts) == 3 and sorted(counts)[1] == summary["iterations"] < 20
    monkeypatch.setattr(trials, "run_tasks", None)  # kept: not asked again
    with Store.open(path, "a") as store:
        again = reconstruct_scan(store, **asked)
    assert again["iterations"] == summary["iterations"] and again["n_windows_computed"] == 0
    with Store.open(fixed, "a") as store:
        reconstruct_scan(store, **{**options, "iterations": summary["iterations"]})
    np.testing.assert_array_equal(density(path), density(fixed))


def test_reconstruct_scan__refuses_bad_options(series: Path, tmp_path: Path) -> None:
    """Before anything is written."""
    with Store.open(copy(series, tmp_path), "a") as store:
        groups = store.groups()
        for wrong, message in (
            ({"window": (4, 4)}, "8 or more"),
            ({"overlap": 0}, "overlap"),
            ({"thickness": 0.0}, "positive"),
            ({"iterations": 0}, "at least 1"),
            ({"solver": "magic"}, "fista"),
            ({"final_iterations": -1}, "0 or more"),
            ({"stop": "soon"}, "held_out_blocks"),
            ({"noise": 1.0}, "discrepancy"),
        ):
            with pytest.raises(InputError, match=message):
                reconstruct_scan(store, **{**SCAN, **wrong})
        assert store.groups() == groups and store.pending("scan/coarse") is None


def test_film_r_factor__does_not_depend_on_the_strips(
    scanned: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One strip, as the scan took here, or dozens of few rows and tilts in small pieces of the film."""
    path, _ = scanned
    with Store.open(path) as store:
        volume, field = store.read("volume"), grid.Field.of(store.read("tilt_series/aligned"))
    first, shape = grid.volume_grid(field, None, SCAN["thickness"])
    plan = ScanPlan(field, first, shape, coarse_film(field, SCAN["thickness"], (40, 48)), ())
    whole = reprojection.film_r_factor(str(path), "volume", plan)
    np.testing.assert_array_equal(whole, volume["r_factor"][0])
    for name, value in (("STRIP_ROWS", 16), ("PIECE_VOXELS", 2**14), ("_STRIP_PIXELS", 2**13)):
        monkeypatch.setattr(reprojection, name, value)
    assert len(reprojection.cut_strips(field, shape)) > 10
    np.testing.assert_allclose(reprojection.film_r_factor(str(path), "volume", plan), whole, rtol=1e-5)


def test_reconstruct_scan__refuses_windows_that_do_not_fit(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says how much it needs and which option helps: the coarse film first, then the windows."""
    with Store.open(copy(series, tmp_path), "a") as store:
        groups = store.groups()
        for available, option in ((2**20, "smaller field"), (66 * 10**6, r"--window \d+ \d+")):
            monkeypatch.setattr(memory, "available_memory", lambda available=available: available)
            with pytest.raises(CapacityError, match=rf"GiB.*{option}"):
                reconstruct_scan(store, **SCAN)
            assert store.groups() == groups and store.pending("scan/coarse") is None
