"""What `aetdist plan` forecasts against what is then measured, for films of three sizes; prints JSON.

    python tests/benchmarks/bench_plan.py [--tiny]

Every film is scanned and traced on two single-thread workers that begin anew, the kernels compiled before. Of both
stages: `worker_bytes` (the peak of the larger worker), `cpu_seconds` (both workers together) and `seconds`, forecast,
measured, and the ratio. CPU seconds are what a busy machine disturbs least; `forecast_afterwards` is what the same plan
says of them at the end over what it said at the beginning: 1 on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clusters.processes import processes, total_cpu
from engine import cases

WORKERS = 2
#: Field (nx, ny), window (nx, ny), thickness of the film in Angstrom.
SIZES = {
    "small": ((160, 128), (72, 72), 20.0),
    "medium": ((256, 192), (112, 112), 32.0),
    "large": ((320, 256), (160, 160), 44.0),
}
TINY = {"tiny": ((64, 48), (40, 40), 12.0)}
OVERLAP, N_TILTS = 32, 21
KEYS = ("worker_bytes", "cpu_seconds", "seconds")


def measure(sizes: dict[str, Any]) -> dict[str, Any]:
    """Forecasts and figures of all sizes."""
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    for name, (field, window, thickness) in sizes.items():
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = compare(Path(folder) / "film.zarr", field, window, thickness)
        print(name, json.dumps(figures[name]), file=sys.stderr)
    return figures


def compare(path: Path, field: tuple[int, int], window: tuple[int, int], thickness: float) -> dict[str, Any]:
    """A film, forecast and done."""
    from aetdist import pipeline
    from aetdist._usage import peak_memory
    from aetdist.io import Record, Store

    series = cases.simulated_film(field, N_TILTS, thickness)
    with Store.create(path) as store:
        store.write("tilt_series/aligned", series, record=Record("benchmark"), chunks={"tilt": 1})
    options = {"window": window, "overlap": OVERLAP, "thickness": thickness + 4.0}
    planned = pipeline.plan(path, workers=WORKERS, **options)
    result: dict[str, Any] = {"field": field, "window": window, "plan_seconds": planned["seconds"]}
    for stage, keywords in (("scan", options), ("trace", {})):
        with processes(WORKERS) as client:
            with client.as_current():
                begin, before = time.perf_counter(), total_cpu(client)["workers"]
                getattr(pipeline, stage)(path, **keywords)
                seconds, cpu = time.perf_counter() - begin, total_cpu(client)["workers"] - before
                peak = max(client.run(peak_memory).values())
        measured = {"worker_bytes": peak, "cpu_seconds": cpu, "seconds": seconds}
        forecast = {key: planned["stages"][stage][key] for key in KEYS}
        result[stage] = {
            "forecast": forecast,
            "measured": measured,
            "ratio": {key: forecast[key] / measured[key] for key in KEYS},
        }
    again = pipeline.plan(path, workers=WORKERS, **options)["stages"]["scan"]["cpu_seconds"]
    result["forecast_afterwards"] = again / planned["stages"]["scan"]["cpu_seconds"]
    return result


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a size without meaning, to see that everything runs")
    options = parser.parse_args()
    print(json.dumps(measure(TINY if options.tiny else SIZES), indent=1))


if __name__ == "__main__":
    main()
