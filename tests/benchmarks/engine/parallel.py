"""What two threads and two workers gain, beside what the machine lets two independent copies gain.

Every round runs, one after the other, the work on one, the work on k, one copy alone and k copies at
once. ``gain`` is the time on one over the time on k; ``copies_gain`` is k times the time of a copy alone
over that of k at once: k on a machine whose cores do not disturb each other. ``normalised`` is
k gain / copies_gain, ``efficiency`` a k-th of it. ``weak`` holds k workers on the whole field against one
on a k-th of it, by windows: 1 is perfect; ``normalised`` again by what the copies lose. All are medians over
the rounds; nothing that starts is timed.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client, LocalCluster

from aetdist import pipeline
from aetdist.cluster import thread_environment
from aetdist.geometry import ParallelGeometry, euler_from_tilts, matrices_from_euler
from aetdist.io import Record, Store

from . import cases
from .measure import Copies
from .parts import make_step, warm_up
from .sizes import Sizes


def threads(sizes: Sizes) -> dict[str, Any]:
    """k kernel threads over one, for the projector pair and for an iteration of FISTA."""
    problem = cases.noise_volume(sizes.large, 55 if sizes.large > 64 else 7)
    result: dict[str, Any] = {"shape": [*problem.truth.shape], "tilts": len(problem.images)}
    for name in sizes.threaded:
        for k in sizes.parallel:
            work = (problem.geometry, problem.images, name)
            makers = [*((make_step, (*work, 1)) for _ in range(k)), (make_step, (*work, k))]
            with Copies(makers) as copies:
                walls = [
                    (copies.wall(0), copies.wall(k), copies.wall(0), copies.wall(*range(k)))
                    for _ in range(sizes.rounds)
                ]
            result[f"{name}_{k}_threads"] = gains(walls, k)
    return result


def scan(sizes: Sizes) -> dict[str, Any]:
    """k single-thread workers over one, for the scan of a film from its store to its stitched volume."""
    simulated = sizes.simulated or cases.data_folder() is None
    series = cases.simulated_film((64, 32), 9) if simulated else cases.measured_film()
    assert series is not None
    volume_shape, detector_shape = sizes.scan_copy
    matrices = matrices_from_euler(euler_from_tilts(np.linspace(-60, 55, 46)))
    geometry = ParallelGeometry.centred(matrices, volume_shape, detector_shape)
    images = np.ones((geometry.n_tilts, *detector_shape), np.float32)
    result: dict[str, Any] = {"film": "simulated" if simulated else "measured field A", **sizes.scan}
    with tempfile.TemporaryDirectory() as folder:
        path = _stored(Path(folder) / "whole" / "series.zarr", series)
        for k in sizes.parallel:
            part = _stored(Path(folder) / f"{k}" / "series.zarr", series.isel(x=slice(series.sizes["x"] // k)))
            with ExitStack() as stack:
                one, many = (stack.enter_context(local_client(n)) for n in (1, k))
                copies = stack.enter_context(Copies([(make_step, (geometry, images, "fista", 1, 10))] * k))
                for client in (one, many):
                    client.run(warm_up)
                rounds = [
                    (
                        _scan(path, one, sizes),
                        _scan(path, many, sizes),
                        copies.wall(0),
                        copies.wall(*range(k)),
                        _scan(part, one, sizes),
                    )
                    for _ in range(sizes.scan_rounds)
                ]
                result["n_windows"] = rounds[0][0]["n_windows"]
            walls = [(a["wall_s"], b["wall_s"], c, d) for a, b, c, d, _ in rounds]
            result[f"{k}_workers"] = {
                **gains(walls, k),
                "workers_cpu_s": statistics.median(b["cpu_s"] for _, b, _, _, _ in rounds),
                "one_worker_cpu_s": statistics.median(a["cpu_s"] for a, _, _, _, _ in rounds),
                "weak": weak_scaling(rounds, k),
            }
    return result


def weak_scaling(rounds: list[Any], k: int) -> dict[str, float]:
    """Of the rounds' scans and copies: a window's time on one worker over k times that on k workers."""
    windows = rounds[0][1]["n_windows"] / (k * rounds[0][4]["n_windows"])
    walls = [(part["wall_s"] * windows / b["wall_s"], c / d) for _, b, c, d, part in rounds]
    return {
        "part_wall_s": statistics.median(part["wall_s"] for _, _, _, _, part in rounds),
        "part_windows": rounds[0][4]["n_windows"],
        "efficiency": statistics.median(e for e, _ in walls),
        "normalised": statistics.median(e / copies for e, copies in walls),
    }


def _stored(path: Path, series: Any) -> Path:
    """A store with a series."""
    path.parent.mkdir()
    with Store.create(path) as store:
        store.write("tilt_series/aligned", series, record=Record("benchmark"), chunks={"tilt": 1})
    return path


def gains(walls: list[tuple[float, float, float, float]], k: int) -> dict[str, float]:
    """Of the rounds' walls: on one, on k, a copy alone, k copies at once."""
    gain = statistics.median(a / b for a, b, _, _ in walls)
    copies = statistics.median(k * c / d for _, _, c, d in walls)
    return {
        "one_wall_s": statistics.median(w[0] for w in walls),
        "wall_s": statistics.median(w[1] for w in walls),
        "gain": gain,
        "copies_gain": copies,
        "normalised": statistics.median(k * (a / b) / (k * c / d) for a, b, c, d in walls),
        "efficiency": statistics.median((a / b) / (k * c / d) for a, b, c, d in walls),
        "rounds": len(walls),
    }


def workers_gain(make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], rounds: int) -> dict[str, float]:
    """Two single-thread workers over one, for work that runs on the current client, else on threads.

    Parameters
    ----------
    make : callable
        Makes the work of the arguments; importable, as it is called in other processes too.
    arguments : tuple
        Of `make`.
    rounds : int
        How often each is timed.
    """
    work = make(*arguments)
    with local_client(1) as one, local_client(2) as two, Copies([(_on_one_thread, (make, arguments))] * 2) as copies:
        for client in (one, two):
            _wall_on(client, work)
        walls = [(_wall_on(one, work), _wall_on(two, work), copies.wall(0), copies.wall(0, 1)) for _ in range(rounds)]
    return gains(walls, 2)


def _on_one_thread(make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    dask.config.set(num_workers=1)
    return make(*arguments)


def _wall_on(client: Client, work: Callable[[], Any]) -> float:
    with client.as_current():
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin


@contextmanager
def local_client(n: int, memory_limit: str | None = None) -> Iterator[Client]:
    """A client of n single-thread workers on this machine, which is not the current one."""
    options: dict[str, Any] = {} if memory_limit is None else {"memory_limit": memory_limit}
    options |= {
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "preload": "aetdist.cluster",
    }
    with (
        LocalCluster(n_workers=n, env=thread_environment(1), **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(n)
        yield client


def _scan(series: Path, client: Client, sizes: Sizes) -> dict[str, float]:
    """Wall seconds of a scan into a fresh store, and the workers' CPU seconds."""
    path = series.with_name("scan.zarr")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(series, path)
    with client.as_current():
        before = sum(client.run(time.process_time).values())
        begin = time.perf_counter()
        summary = pipeline.scan(path, **sizes.scan)
        wall = time.perf_counter() - begin
        cpu = sum(client.run(time.process_time).values()) - before
    return {"wall_s": wall, "cpu_s": cpu, "n_windows": summary["n_windows"]}
