"""Plans: what they say follows from the windows; what cannot fit is refused before anything runs."""

from __future__ import annotations

import json
import math
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import aetdist as aet
from aetdist import pipeline
from aetdist.cli import program
from aetdist.errors import CapacityError, InputError
from aetdist.experiment import checked_keywords
from aetdist.geometry import euler_from_tilts
from aetdist.io import Record, Store
from aetdist.planning import Forecast, Step, Workers, forecast_stages, require_fit, stages, workers_of
from aetdist.planning.probes import Rates, measure_rates
from aetdist.reconstruct.memory import USABLE, WORKER_BYTES

SCAN = {"window": (40, 32), "overlap": 12, "thickness": 16.0}
GB = 10**9
TWO = Workers(2, 1, 4 * GB)


def rates(probes: list[Any], workers: Workers) -> Rates:
    """Rates that nobody measured: a second for an iteration of any probe."""
    names = [probe.name for probe in probes]
    return Rates(
        own_bytes=300_000_000,
        loading=0.0,
        prepare=dict.fromkeys(names, 0.5),
        iteration=dict.fromkeys(names, 1.0),
        **dict.fromkeys(
            ("forward", "open", "chunk_read", "byte_read", "chunk_written", "byte_written", "pixel_binned",
             "voxel_started", "voxel_textured", "voxel_compared", "voxel_traced"), 1e-9),
    )  # fmt: skip


@pytest.fixture(scope="module")
def series() -> xr.Dataset:
    """A small film that goes on beyond its field."""
    atoms = aet.amorphous_film((64.0, 44.0), 10.0, species=("Ta",), seed=7)
    angles = euler_from_tilts(np.linspace(-50, 50, 5))
    return aet.simulate_tilt_series(atoms, angles, pixel_size=0.5, field=(96, 56), dose=2e5, seed=8)


@pytest.fixture
def store(series: xr.Dataset, tmp_path: Path) -> Path:
    """A store with it."""
    path = tmp_path / "film.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", series, record=Record("film"), chunks={"tilt": 1})
    return path


def scanned(series: xr.Dataset, **changes: Any) -> Forecast:
    """The forecast of a scan."""
    asked = {"scan": checked_keywords("scan", {**SCAN, **changes})}
    return forecast_stages(asked, series, TWO)[0][0]


def test_step__takes_rounds_and_at_least_what_the_scheduler_takes() -> None:
    """Seven tasks on two slots are four rounds; a thousand workers wait for the scheduler."""
    step = Step("windows", 7, 10, 3.0)
    assert step.wall(Workers(2, 1, GB)) == step.wall(Workers(1, 2, GB)) == 12.0
    short = Step("windows", 100_000, 10, 0.1)
    assert short.wall(Workers(1000, 1, GB)) == pytest.approx(100.0)
    forecast = Forecast("scan", (step, Step("stitching", 2, 30, 1.0)))
    assert forecast.seconds(Workers(2, 1, GB)) == 13.0 and forecast.cpu_seconds(Workers(2, 1, GB)) == 23.0
    assert forecast.worker_bytes(Workers(2, 4, GB), 1000) == 1060 and forecast.n_tasks == 9
    loaded = replace(forecast, loading=2.0)
    assert loaded.seconds(Workers(3, 1, GB)) == 10.0 + 2.0 and loaded.cpu_seconds(Workers(3, 1, GB)) == 23.0 + 6.0


def test_forecast_stages__counts_what_the_scan_will_do(
    series: xr.Dataset, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows and tasks are those of the scan; the store grows by no more than is said."""
    monkeypatch.setattr(stages, "measure_rates", rates)
    forecast = scanned(series, iterations=2, coarse_iterations=2)
    reported: list[int] = []
    with aet.progress.listen(lambda done, total, label: reported.extend([total or 0] * (done == 0))):
        before = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
        summary = pipeline.scan(store, **SCAN, iterations=2, coarse_iterations=2)
    assert forecast.n_windows == summary["n_windows"]
    assert forecast.n_tasks == sum(reported)
    grown = sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) - before
    assert grown < forecast.stored_bytes + 500_000  # records and coordinates
    assert forecast.stored_bytes < 20 * grown


def test_forecast_stages__grows_with_what_is_asked(series: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger windows take more memory, iterations and passes more time, more workers less."""
    monkeypatch.setattr(stages, "measure_rates", rates)
    usual = scanned(series)
    assert scanned(series, window=(80, 50)).task_bytes > usual.task_bytes
    assert scanned(series, iterations=80).cpu_seconds(TWO) > 1.8 * usual.cpu_seconds(TWO)
    assert usual.seconds(Workers(1, 1, GB)) > usual.seconds(Workers(4, 1, GB)) >= usual.cpu_seconds(TWO) / 4
    windows = next(step for step in usual.steps if step.name.startswith("windows"))
    assert windows.read_bytes >= windows.n_tasks * 5 * 40 * 32 * 5
    assert "whole film" in scanned(series, final_iterations=3).note


def test_forecast_stages__of_one_piece_and_slabs(series: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs take the workers together; atoms are planned in the volume to come; what has no model says so."""
    monkeypatch.setattr(stages, "measure_rates", rates)
    workers = Workers(4, 1, 4 * GB)
    asked = {
        "reconstruct": checked_keywords("reconstruct", {"thickness": 16.0}),
        "trace": checked_keywords("trace", {}),
    }
    (whole, traced), _ = forecast_stages(asked, series, workers)
    cut = {"reconstruct": checked_keywords("reconstruct", {"thickness": 16.0, "slabs": 4}), "refine": {}}
    (slabs, refined), _ = forecast_stages(cut, series, workers)
    assert whole.n_tasks == 1 and slabs.n_tasks == 4 * 40
    assert slabs.seconds(workers) < 0.5 * whole.seconds(workers)
    assert traced.n_tasks >= 1 and traced.task_bytes > 4 * math.prod((32, 56, 96))
    assert refined.steps == () and refined.note == "not forecast"


def test_require_fit__names_a_window_that_fits(series: xr.Dataset) -> None:
    """What the message advises is accepted."""
    keywords = checked_keywords("scan", {**SCAN, "window": (96, 56)})
    tight = Workers(2, 1, int((67_000_000 + WORKER_BYTES) / USABLE))
    with pytest.raises(CapacityError, match=r"window of 96 x 56 pixels needs .* GiB.*--memory-limit") as error:
        require_fit("scan", keywords, series, tight)
    words = str(error.value).split("--window ")[1].replace(")", "").split()
    smaller = (int(words[0]), int(words[1].strip(",")))
    require_fit("scan", {**keywords, "window": smaller}, series, tight)
    with pytest.raises(CapacityError, match=r"slabs.*--memory-limit"):
        whole = checked_keywords("reconstruct", {"thickness": 16.0, "slabs": 2})
        require_fit("reconstruct", whole, series, Workers(2, 1, 1_000_000))


def test_run__refuses_before_anything_is_computed(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage before the scan, which would fit, is not begun."""
    toml = tmp_path / "experiment.toml"
    toml.write_text(
        'store = "film.zarr"\n[refine-angles]\nthickness = 16.0\n'
        "[scan]\nwindow = [40, 32]\noverlap = 12\nthickness = 16.0\n"
    )
    monkeypatch.setattr(sys.modules["aetdist.planning.plan"], "workers_of", lambda: Workers(2, 1, 300_000_000))
    with pytest.raises(CapacityError, match="coarse film"):
        pipeline.run(toml)
    with Store.open(store) as opened:
        assert opened.groups() == ["tilt_series/aligned"]


def test_plan__prints_a_table_and_json(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers both ways; what does not fit is said with what would."""
    monkeypatch.setattr(stages, "measure_rates", rates)
    words = ["plan", str(store), "--window", "40", "32", "--overlap", "12", "--thickness", "16", "--workers", "3"]
    plain = CliRunner().invoke(program, [*words, "--memory-limit", "2GB"], catch_exceptions=False)
    assert plain.exit_code == 0, plain.output
    assert "3 workers of 1 thread and 2.00 GB" in plain.output and "windows, pass 2" in plain.output
    told = CliRunner().invoke(program, [*words, "--memory-limit", "360MB", "--json"], catch_exceptions=False)
    figures = json.loads(told.stdout.splitlines()[-1])
    assert figures["workers"] == {"count": 3, "threads": 1, "memory": 360_000_000}
    assert not figures["fits"] and "--memory-limit" in figures["text"]
    assert figures["stages"]["scan"]["n_windows"] > 1 and figures["stages"]["trace"]["n_tasks"] >= 1
    toml = tmp_path / "experiment.toml"
    toml.write_text('store = "film.zarr"\n[reconstruct]\nthickness = 16.0\n[trace]\n[classify]\n')
    planned = pipeline.plan(toml, workers=2)
    assert list(planned["stages"]) == ["reconstruct", "trace", "classify"]
    with pytest.raises(InputError, match="its own keywords"):
        pipeline.plan(toml, window=(40, 32))


@pytest.mark.parametrize(("wrong", "message"), [((0, None), "0 workers"), ((1, "many"), "such as '4GB'")])
def test_workers_of__refuses_what_makes_no_sense(wrong: tuple[Any, Any], message: str) -> None:
    """Before anything is timed."""
    with pytest.raises(InputError, match=message):
        workers_of(*wrong)


@pytest.mark.integration
@pytest.mark.parametrize("there", ["processes", "workers"])
def test_measure_rates__times_kernels(there: str, request: pytest.FixtureRequest) -> None:
    """Seconds that are positive, and what a worker holds, in new processes or on the workers of the client."""
    from aetdist.geometry import matrices_from_euler
    from aetdist.planning.probes import Probe

    matrices = matrices_from_euler(euler_from_tilts(np.linspace(-50, 50, 5)))
    probe = Probe("window", "fista", matrices, (16, 32, 48), (32, 24))
    with request.getfixturevalue("client").as_current() if there == "workers" else nullcontext():
        found = measure_rates([probe], TWO)
    assert found.iteration["window"] > 0 and found.prepare["window"] > 0
    assert 100_000_000 < found.own_bytes < 1_000_000_000 and found.loading > 0.1
    assert min(found.open, found.byte_written, found.pixel_binned, found.voxel_traced) > 0
