"""The engine's benchmark: its command runs and prints what it says, and its peers do what ours do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import aetdist as aet

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
COMMAND = [sys.executable, str(BENCHMARKS / "bench_engine.py")]


@pytest.fixture(scope="module")
def engine() -> Any:
    """The modules beside the command."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from engine import cases, measure, parallel, peers, sizes, table

        yield SimpleNamespace(cases=cases, measure=measure, parallel=parallel, peers=peers, sizes=sizes, table=table)
    finally:
        sys.path.remove(str(BENCHMARKS))


def measured(*parts: str) -> dict[str, Any]:
    """What the command prints for some parts at sizes without meaning."""
    run = subprocess.run([*COMMAND, *parts, "--tiny"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [*figures] == ["machine", *parts]
    return figures


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """The parts on one thread but for the film."""
    return measured("small", "large", "sample", "scaling")


def test_benchmark__measures_on_one_thread(figures: dict[str, Any], engine: Any) -> None:
    """Seconds that are positive, iterations; peers where they are installed."""
    small, large = figures["small"], figures["large"]
    for time in (small["fista_iteration"], small["ordered_subsets_iteration"], large["pair"], large["fista_iteration"]):
        assert time["cpu_s"] > 0 and time["wall_s"] > 0
    assert ("astra_sirt_iteration" in small) == engine.peers.installed("astra")
    assert ("pair_ratio_ducc0" in large) == engine.peers.installed("ducc0")
    for name in ("fista", "ordered_subsets"):
        solved = large[f"{name}_solve"]
        assert solved["r_factor"] <= large["target_r_factor"] and solved["iterations"] > 1
        assert small["glass_sphere"][name]["passes"] >= 1
    assert len(figures["scaling"]) == 3


@pytest.mark.slow
def test_benchmark__measures_the_film_and_threads() -> None:
    """Seconds that are positive, and gains; nothing of them is held against a limit."""
    figures = measured("film", "threads")
    assert figures["film"]["cpu_s"] > 0 and figures["film"]["iterations"] == 2
    gains = figures["threads"]["fista_2_threads"]
    assert gains["normalised"] > 0 and gains["copies_gain"] > 0


@pytest.mark.slow
def test_benchmark__measures_the_scan(engine: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round scans again, on the workers; the same client stands for one worker and for two."""
    asked = []

    @contextmanager
    def stand_in(n: int) -> Iterator[Any]:
        asked.append(n)
        yield client

    monkeypatch.setattr(engine.parallel, "local_client", stand_in)
    figures = engine.parallel.scan(engine.sizes.TINY)
    assert asked == [1, 2] and figures["n_windows"] > 2
    gains = figures["2_workers"]
    assert gains["normalised"] > 0 and gains["workers_cpu_s"] > 0
    assert gains["weak"]["normalised"] > 0


def test_gains__are_normalised_by_what_copies_gain(engine: Any) -> None:
    """One takes 4 s, two 2.5 s: 1.6; a copy alone 4 s, two at once 5 s: also 1.6, so nothing is lost."""
    gains = engine.parallel.gains([(4.0, 2.5, 4.0, 5.0)] * 3, 2)
    assert gains["gain"] == pytest.approx(1.6) and gains["copies_gain"] == pytest.approx(1.6)
    assert gains["normalised"] == pytest.approx(2.0) and gains["efficiency"] == pytest.approx(1.0)


def test_weak_scaling__compares_windows(engine: Any) -> None:
    """Half of the windows on one worker in 5 s, all on two in 5.5 s; two copies at once are a tenth slower than one."""
    whole, part = {"wall_s": 5.5, "n_windows": 8}, {"wall_s": 5.0, "n_windows": 4}
    weak = engine.parallel.weak_scaling([(whole, whole, 4.0, 4.4, part)] * 3, 2)
    assert weak["efficiency"] == pytest.approx(10 / 11) and weak["normalised"] == pytest.approx(1.0)


def test_benchmark__prints_the_table(figures: dict[str, Any], engine: Any, tmp_path: Path) -> None:
    """A row for what was measured; none for what was not."""
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(figures))
    run = subprocess.run([*COMMAND, "--markdown", str(path)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    rows = run.stdout.splitlines()
    assert rows[1] == "|---|---|---|---|" and all(row.count("|") == 5 for row in rows)
    assert any("to R <= 0.02" in row for row in rows)
    assert not any("2 threads over 1" in row for row in rows)
    assert engine.table.markdown({}).count("\n") == 1


def test_table__says_gain_and_what_the_machine_allows(engine: Any) -> None:
    """The normalised gain first."""
    gains = {"gain": 1.5, "copies_gain": 1.8, "normalised": 1.667}
    table = engine.table.markdown({"scan": {"2_workers": gains}})
    assert "| 1.67 x (as it is 1.50, two copies 1.80) | 1.8 x | 1.95 x |" in table


def test_benchmark__refuses_an_unknown_part() -> None:
    run = subprocess.run([*COMMAND, "smal"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "smal" in run.stderr


def test_problem__is_what_the_projector_sees(engine: Any) -> None:
    """Images by the atoms' formula and the projected truth agree: no projector made the data."""
    problem = engine.cases.sphere(32, 9)
    assert problem.truth.max() > 0
    projected = aet.project_volume(problem.truth, problem.angles)
    assert aet.r_factor(projected, problem.images).mean() < 0.02


def test_astra__projects_the_truth_to_the_images(engine: Any) -> None:
    """Centre, sign and order of the axes are ours; it converges to the truth."""
    pytest.importorskip("astra")
    problem = engine.cases.sphere(24, 21)
    peer = engine.peers.AstraSlices(problem, "SART")
    assert aet.r_factor(peer.project(problem.truth), problem.images).mean() < 0.025
    for _ in range(10):
        peer.step()
    assert aet.normalised_rmse(peer.volume, problem.truth) < 0.2
    peer.close()


def test_astra__refuses_more_than_one_axis(engine: Any) -> None:
    pytest.importorskip("astra")
    with pytest.raises(ValueError, match="single axis"):
        engine.peers.AstraSlices(engine.cases.noise_volume(8, 3), "SIRT")


def test_nufft__has_the_spectra_of_the_images(engine: Any) -> None:
    """Slices through the volume's spectrum, half of kx, and a transposed way back."""
    pytest.importorskip("ducc0")
    problem = engine.cases.particle(24)
    peer = engine.peers.Nufft(problem.geometry, 1e-4)
    density = problem.truth.astype(np.complex64)
    spectra = peer.forward(density).copy()
    expected = np.fft.rfft2(np.fft.ifftshift(problem.images, axes=(1, 2)))
    assert np.linalg.norm(spectra - expected) < 0.01 * np.linalg.norm(expected)
    back = peer.pair(density)
    assert np.vdot(spectra, spectra).real == pytest.approx(np.vdot(density, back).real, rel=1e-2)


def test_voxel_pair__is_a_transposed_pair(engine: Any) -> None:
    """And near the exact images."""
    problem = engine.cases.sphere(16, 5)
    images, back = engine.peers.voxel_pair(problem.truth, problem.geometry)
    assert np.vdot(images, images) == pytest.approx(np.vdot(problem.truth, back), rel=1e-4)
    assert aet.r_factor(images, problem.images).mean() < 0.1


def test_copies__work_at_once_and_stop(engine: Any) -> None:
    """Two naps together take less than two naps; the processes end with the block."""
    with engine.measure.Copies([(_nap, (0.2,)), (_nap, (0.2,))]) as copies:
        assert 0.2 <= copies.wall(0) and copies.wall(0, 1) >= 0.2
        processes = copies._processes
        assert all(p.is_alive() for p in processes)
    assert not any(p.is_alive() for p in processes)


def _nap(seconds: float) -> Any:
    import functools
    import time

    return functools.partial(time.sleep, seconds)


def test_in_child__returns_what_the_child_returns(engine: Any) -> None:
    """Its error too."""
    assert engine.measure.in_child(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        engine.measure.in_child(divmod, 7, 0)


def test_memory__is_the_peak_over_the_start(engine: Any) -> None:
    """200 MB that were touched and given back."""
    memory = engine.measure.in_child(_memory_of_200_mb, str(BENCHMARKS))
    assert memory["memory_gb"] is None or 0.19 < memory["memory_gb"] < min(0.3, memory["process_gb"])


def _memory_of_200_mb(path: str) -> dict[str, float | None]:
    sys.path.insert(0, path)
    from engine.measure import Memory

    memory = Memory()
    np.ones(25_000_000).sum()
    return memory.read()


@pytest.mark.slow
def test_bench_preprocess__prints_seconds_memory_and_gains() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_preprocess.py")]
    options = ["--tilts", "6", "--frames", "2", "--size", "64", "--rounds", "1", "--memory-limit", ""]
    run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    for name in ("half", "all"):
        for stage in ("preprocess", "align"):
            assert figures["series"][name][stage]["workers_cpu_s"] > 0
    assert figures["denoising"]["gain"] > 0 and figures["denoising"]["normalised"] > 0


@pytest.mark.slow
def test_bench_angles__prints_what_a_round_costs_beside_a_reconstruction() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_angles.py"), "--size", "48", "--tilts", "7", "--rounds", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert figures["round_over_reconstruction"] > 0 and figures["scan_and_fit"]["cpu_s"] > 0
    assert [*figures["per_tilt_cpu_s"]] == ["2", "4", "7"]
    assert figures["workers"]["normalised"] > 0


def test_bench_simulate__prints_seconds_and_the_error_of_the_linear_model() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_simulate.py"), "--atoms", "300", "--field", "60", "--tilts", "2"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    assert [case["sigma_angstrom"] for case in figures] == [0.5, 0.8]
    assert all(case["projection_cpu_s_per_tilt"] > 0 for case in figures)
    assert all(case["largest_error_beside_brightest_pixel"] < 1e-5 for case in figures)
