"""Seconds of the searches for medium-range order, 2,500 to 100,000 centres, and what two workers gain; prints JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np

from aetdist.analysis.mro import find_mro
from aetdist.analysis.mro.lattices import make_lattice

sys.path.insert(0, str(Path(__file__).parent))
from engine.parallel import workers_gain

DENSITY = 0.0085  # centres per cubic Angstrom, as in the published particle


def glass(n: int, seed: int) -> np.ndarray:
    """`n` centres on a close-packed lattice, shaken until little order is left; (n, 3) in Angstrom."""
    random = np.random.default_rng(seed)
    step = (1 / (2 * DENSITY)) ** (1 / 3)
    side = 2 * int(np.ceil((n / 4) ** (1 / 3)))
    grid = np.stack(np.meshgrid(*(np.arange(side),) * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = step * grid[grid.sum(axis=1) % 2 == 0][:n]
    return sites + random.normal(0, 0.3 * step, sites.shape)


def measure(n: int, convention: str | None, tolerance: float) -> dict[str, object]:
    """Wall and CPU seconds of one search on one thread."""
    points = glass(n, 0)
    with dask.config.set(scheduler="threads", num_workers=1):
        start, cpu = time.perf_counter(), time.process_time()
        found = find_mro(points, np.full(len(points), 3), convention=convention, tolerance=tolerance)
        wall, spent = time.perf_counter() - start, time.process_time() - cpu
    return {
        "centres": len(points), "convention": convention or "aetdist", "tolerance": tolerance,
        "seconds": round(wall, 2), "cpu_seconds": round(spent, 2),
        "cpu_seconds_per_1000": round(1000 * spent / len(points), 3), "clusters": found.sizes["mro"],
    }  # fmt: skip


def make_search(n: int, convention: str | None) -> Callable[[], object]:
    """A search among n centres."""
    points = glass(n, 0)
    return lambda: find_mro(points, np.full(len(points), 3), convention=convention)


def main() -> None:
    """Measure each size once, after a small one that compiles the kernels; then what two worker processes gain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--centres", type=int, nargs="*", default=[2_700, 10_000, 30_000, 100_000])
    parser.add_argument("--published", type=int, nargs="*", default=[2_700], help="sizes for the published search")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="sizes for one and two worker processes")
    given = parser.parse_args()
    for name in ("sc", "bcc", "fcc", "hcp"):
        make_lattice(name)
    for convention in (None, "yang2021"):
        measure(200, convention, 0.75)
        for n in given.published if convention else given.centres:
            print(json.dumps(measure(n, convention, 0.75)), flush=True)
        for n in given.workers:
            n = min(n, 2_700) if convention else n
            gained = {
                "centres": n,
                "convention": convention or "aetdist",
                **workers_gain(make_search, (n, convention), 5),
            }
            print(json.dumps(gained), flush=True)


if __name__ == "__main__":
    main()
