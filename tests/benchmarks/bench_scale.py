"""The scan of a very large film with stand-ins for its kernels: what planning and scheduling it cost; prints JSON.

    python tests/benchmarks/bench_scale.py            # films of some 1,000 and 10,000 windows, a few minutes
    python tests/benchmarks/bench_scale.py 32 100     # so many windows along each side
    python tests/benchmarks/bench_scale.py --empty    # tasks write nothing: a minute

Every film goes through the driver of the scan as it is (plan, store, ledger, tasks, stitching, R-factor), on two
workers beside a scheduler in a process of its own. Only what a task computes is replaced: windows, chunks of the film
and strips of the R-factor are zeros. For each kind of task:

    n_tasks, wall_s          how many there are, and the time until the last one is done
    first_result_s           until the first one is
    sent_bytes_per_task      what the client sends to the scheduler: the graph
    scheduler_ms_per_task    CPU time of the scheduler's process
    worker_ms_per_task       CPU time of the workers: what a task costs beside its arithmetic (files, records)

and for the film: seconds and bytes of the plan, peak memory of scheduler and client, seconds of CPU of the client.
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

from clusters.load import Stages, film_plan, series_of, stand_in, unchecked
from clusters.processes import processes, total_cpu

WINDOW, OVERLAP, THICKNESS = 64, 32, 20.0  # pixels, pixels, Angstrom


def measure(sides: list[int], workers: int, empty: bool) -> dict[str, Any]:
    """The figures of films with so many windows along each side."""
    figures: dict[str, Any] = {"workers": workers, "tasks_write": not empty, "load_before": os.getloadavg()[0]}
    for side in sides:
        with tempfile.TemporaryDirectory() as folder, processes(workers) as client:
            figures[f"{side} x {side} windows"] = scan(Path(folder) / "film.zarr", client, side, empty)
        print(f"{side} x {side} windows", json.dumps(figures[f"{side} x {side} windows"]), file=sys.stderr)
    return figures


def scan(path: Path, client: Any, side: int, empty: bool) -> dict[str, Any]:
    """A film of side x side windows, planned and scanned with stand-ins."""
    from aetdist import pipeline
    from aetdist._usage import peak_memory

    field = WINDOW + OVERLAP * (side - 1)
    figures: dict[str, Any] = {"field_pixels": [field, field], "plan": film_plan(field, WINDOW, OVERLAP, THICKNESS)}
    series_of(path, field)
    client.run(stand_in, empty)
    stages = Stages(client)
    with stages.listening(), client.as_current(), unchecked(empty):
        begin, cpu, before = time.perf_counter(), time.process_time(), total_cpu(client)
        summary = pipeline.scan(path, window=(WINDOW, WINDOW), overlap=OVERLAP, thickness=THICKNESS, passes=1)
        after = total_cpu(client)
    n_tasks = sum(stage["n_tasks"] for stage in stages.figures.values())
    return {
        **figures,
        "n_windows": summary["n_windows"],
        "n_tasks": n_tasks,
        "wall_s": time.perf_counter() - begin,
        "client_cpu_s": time.process_time() - cpu,
        "scheduler_ms_per_task": 1e3 * (after["scheduler"] - before["scheduler"]) / n_tasks,
        "scheduler_peak_bytes": client.run_on_scheduler(peak_memory),
        "client_peak_bytes": peak_memory(),
        "stages": stages.figures,
    }


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", type=int, default=[32, 100], metavar="SIDE")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--empty", action="store_true", help="tasks write nothing")
    options = parser.parse_args()
    print(json.dumps(measure(options.sides, options.workers, options.empty), indent=1))


if __name__ == "__main__":
    main()
