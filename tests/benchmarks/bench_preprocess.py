"""Preprocessing out of core: seconds, memory of workers and client, denoising over workers; prints JSON.

    python tests/benchmarks/bench_preprocess.py [--tilts 60 --frames 4 --size 512]

``series``: raw frames in a store, preprocessed and aligned on 2 single-thread workers, with half of the tilts and with
all of them: memory that is bounded by a tilt does not double. ``limited``: the same with as little memory for a worker
as ``--memory-limit`` says. ``denoising``: BM3D of 320 x 320 tilts on 2 single-thread workers over 1, beside two
independent copies (``normalised``, see engine/parallel.py). Nothing that starts or compiles is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from bench_engine import THREADS, machine
from engine.measure import Copies, in_child, memory
from engine.parallel import gains, local_client

from aetdist import pipeline
from aetdist.geometry import centred_coordinates, euler_from_tilts
from aetdist.io import Record, Store
from aetdist.preprocess import NoiseModel, denoise
from aetdist.simulate import nanoparticle, simulate_acquisition

PIXEL = 0.35  # Angstrom
NOISE = NoiseModel(4.0, 0.0, 1.0)


def write_series(path: Path, tilts: int, frames: int, size: int) -> None:
    """Raw frames of a particle that fills a third of the field."""
    atoms = nanoparticle(size * PIXEL / 3, seed=1)
    raw = simulate_acquisition(
        atoms, np.linspace(-66, 66, tilts), pixel_size=PIXEL, field=(size, size), frames=frames, seed=1
    )
    with Store.create(path) as store:
        store.write("tilt_series/raw", raw[["frames", "angles", "pixel_size"]], record=Record("benchmark"))


def preprocess(path: str, limit: str | None) -> dict[str, Any]:
    """Both stages on two workers, in a process of its own."""
    figures: dict[str, Any] = {}
    with local_client(2, limit) as client, client.as_current():
        client.run(_warm_up)
        for name, stage in (("preprocess", pipeline.preprocess), ("align", pipeline.align)):
            before, begin = sum(client.run(time.process_time).values()), time.perf_counter()
            own = time.process_time()
            stage(path)
            figures[name] = {
                "wall_s": time.perf_counter() - begin,
                "workers_cpu_s": sum(client.run(time.process_time).values()) - before,
                "client_cpu_s": time.process_time() - own,
                "largest_worker_gb": max(client.run(partial(memory, "VmHWM")).values()),
                "client_gb": memory("VmHWM"),
            }
    return figures


def series(tilts: int, frames: int, size: int, limit: str | None) -> dict[str, Any]:
    """Half of the tilts, all of them, and (with a limit) all with little memory."""
    figures: dict[str, Any] = {"tilts": tilts, "frames": frames, "size": size}
    with tempfile.TemporaryDirectory() as folder:
        cases = [("half", tilts // 2, None), ("all", tilts, None), *([("limited", tilts, limit)] if limit else [])]
        for name, n, most in cases:
            path = Path(folder) / f"{name}.zarr"
            in_child(write_series, path, n, frames, size)
            figures[name] = in_child(preprocess, str(path), most)
    if limit:
        figures["limited"]["memory_limit"] = limit
    figures["frames_gb"] = tilts * frames * size**2 * 4 / 1e9
    figures["tilts_per_second"] = tilts / figures["all"]["preprocess"]["wall_s"]
    return figures


def noisy_series(tilts: int, size: int) -> xr.Dataset:
    """Tilts of noisy blobs, lazy, one chunk each."""
    axis = centred_coordinates(size, PIXEL)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    clean = 60.0 * (1 + np.cos(2.1 * x) * np.cos(2.3 * y)) * (np.hypot(x, y) < size * PIXEL / 4)
    noisy = 4.0 * np.random.default_rng(0).poisson(np.broadcast_to(clean / 4 + 1, (tilts, size, size)))
    dims = ("tilt", "y", "x")
    return xr.Dataset(
        {
            "images": (dims, da.from_array(noisy.astype(np.float32), chunks=(1, -1, -1))),
            "mask": (dims, da.ones(noisy.shape, dtype=bool, chunks=(1, -1, -1))),
            "angles": (("tilt", "euler"), euler_from_tilts(np.linspace(-60, 60, tilts))),
        },
        {"y": axis, "x": axis},
    )


def make_denoising(tilts: int, size: int) -> Any:
    """Denoising of some tilts in memory, for an independent copy."""
    noisy = noisy_series(tilts, size).compute()
    return lambda: denoise(noisy, NOISE)


def denoising(tilts: int, size: int, rounds: int) -> dict[str, Any]:
    """BM3D over tilts: two workers over one, and what two copies of half of the work gain."""
    series = noisy_series(tilts, size)
    with ExitStack() as stack:
        # As in an experiment, every tilt is read on its own: an array in the graph would hold its tasks to one worker.
        path = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "images.zarr")
        da.to_zarr(series["images"].data, path)
        series["images"] = (series["images"].dims, da.from_zarr(path))
        lazy = denoise(series, NOISE)[["images"]]
        one, two = (stack.enter_context(local_client(n)) for n in (1, 2))
        copies = stack.enter_context(Copies([(make_denoising, (max(1, tilts // 2), size))] * 2))
        walls = []
        for client in (one, two):
            client.run(_warm_up)
        for _ in range(rounds):
            times = []
            for client in (one, two):
                with client.as_current():
                    begin = time.perf_counter()
                    lazy.compute()
                    times.append(time.perf_counter() - begin)
            walls.append((*times, copies.wall(0), copies.wall(0, 1)))
    return {"tilts": tilts, "size": size, **gains(walls, 2)}


def _warm_up() -> None:
    """Load or compile the kernels."""
    make_denoising(1, 32)()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tilts", type=int, default=60)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--size", type=int, default=512, help="pixels along every axis")
    parser.add_argument("--memory-limit", default="600MB", metavar="SIZE", help="of a worker, for the run with little")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison of workers")
    options = parser.parse_args()
    figures = {
        "machine": machine(),
        "series": series(options.tilts, options.frames, options.size, options.memory_limit),
        "denoising": denoising(min(16, options.tilts), min(320, options.size), options.rounds),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    os.environ |= {**dict.fromkeys(THREADS, "1"), "OMP_WAIT_POLICY": "passive"}
    main()
