"""A film of 1.5 GB reconstructed, traced and analysed by two workers of 500 MB each; prints JSON.

    python tests/benchmarks/bench_memory.py FOLDER [--tiny]

The film (2,600 x 720 x 200 voxels, float32) is scanned in windows with a small overlap, 5 iterations, from 21 simulated
images, on workers that Dask ends when they hold more than 95 % of their limit. For each stage: seconds, CPU seconds of
the workers, the peak memory (RSS) of each worker so far, and that of the client; the images were simulated before, by
another process. `restarted` says how many workers were ended. FOLDER keeps the series and the store (3 GB).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from clusters.processes import processes, total_cpu
from engine.measure import in_child

LIMIT, WORKERS = 500_000_000, 2
#: Field (nx, ny) in pixels, pixel and thickness in Angstrom, window and overlap in pixels.
FULL = {"field": (1330, 720), "pixel": 0.32, "thickness": 64.0, "window": (96, 96), "overlap": 16}
TINY = {"field": (120, 96), "pixel": 0.4, "thickness": 24.0, "window": (64, 64), "overlap": 16}
TILTS = np.linspace(-55.0, 55.0, 21)
SPACING, MOVED = 2.9, 0.25  # Angstrom: of a lattice whose atoms are moved at random


def simulate(path: Path, field: tuple[int, int], pixel: float, thickness: float) -> int:
    """The tilt series of a film of atoms on a disturbed lattice, which goes on beyond the field; how many atoms."""
    import xarray as xr

    import aetdist as aet
    from aetdist.geometry import euler_from_tilts
    from aetdist.io import Record, Store
    from aetdist.schema import SERIES_CHUNKS

    steep = np.deg2rad(TILTS.max())
    width = (field[0] * pixel + thickness * np.sin(steep)) / np.cos(steep)
    extent = (width + 8.0, field[1] * pixel + 8.0, thickness - 6.0)
    axes = [np.arange(-n / 2, n / 2, SPACING) for n in extent]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    positions += np.random.default_rng(0).normal(0.0, MOVED, positions.shape)
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), positions, {"units": "angstrom"}),
            "type": ("atom", np.ones(len(positions), np.int64), {"units": "1"}),
        },
        {"atom": np.arange(len(positions)), "axis": ["x", "y", "z"]},
    )
    series = aet.simulate_tilt_series(
        atoms, euler_from_tilts(TILTS), pixel_size=pixel, field=field, heights=[1.0], dose=2e5, seed=1
    )
    with Store.create(path, overwrite=True) as store:
        store.write("tilt_series/aligned", series, record=Record("benchmark"), chunks=SERIES_CHUNKS)
    return len(positions)


def stages(path: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Every stage on the workers, in a process that did nothing before."""
    from aetdist import pipeline
    from aetdist._usage import peak_memory
    from aetdist.io import Store

    scan = {"window": case["window"], "overlap": case["overlap"], "thickness": case["thickness"]}
    scan |= {"iterations": 5, "passes": 1, "coarse_iterations": 10}
    result: dict[str, Any] = {"limit_bytes": LIMIT, "workers": WORKERS}
    with processes(WORKERS, LIMIT) as client, client.as_current():
        pids = sorted(client.run(os.getpid).values())
        for stage, keywords in (("scan", scan), ("trace", {}), ("analyze", {})):
            begin, cpu = time.perf_counter(), total_cpu(client)["workers"]
            summary = getattr(pipeline, stage)(path, **keywords)
            result[stage] = {
                "seconds": time.perf_counter() - begin,
                "workers_cpu_seconds": total_cpu(client)["workers"] - cpu,
                "worker_peak_bytes": sorted(client.run(peak_memory).values()),
                "client_peak_bytes": peak_memory(),
                **{key: summary[key] for key in ("n_windows", "r_factor_mean", "n_atoms") if key in summary},
            }
            print(stage, json.dumps(result[stage]), file=sys.stderr)
        result["restarted"] = len(set(client.run(os.getpid).values()) - set(pids))
    with Store.open(path) as store:
        result["volume_bytes"] = store.read("volume")["density"].nbytes
        result["volume_shape"] = list(store.read("volume")["density"].shape)
    return result


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a size without meaning, to see that everything runs")
    options = parser.parse_args()
    case = TINY if options.tiny else FULL
    options.folder.mkdir(parents=True, exist_ok=True)
    series, path = options.folder / "series.zarr", options.folder / "film.zarr"
    if not series.exists():
        n = in_child(simulate, series, case["field"], case["pixel"], case["thickness"])
        print(f"simulated a film of {n} atoms", file=sys.stderr)
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(series, path)
    print(json.dumps(in_child(stages, path, case), indent=1))


if __name__ == "__main__":
    main()
