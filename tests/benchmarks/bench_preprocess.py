"""Throughput and memory of preprocessing a raw series out of core, on one and on two workers.

    python tests/benchmarks/bench_preprocess.py [tilts] [pixels]

The default is 60 tilts of 4 frames of 512 x 512 pixels (252 MB): simulated into a store, preprocessed and aligned from
there into the store, on workers of 2 GB.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from aetdist import pipeline
from aetdist.cluster import connect
from aetdist.io import Record, Store
from aetdist.simulate import nanoparticle, simulate_acquisition

FRAMES = 4
SEED = 3


def write_series(path: Path, tilts: int, pixels: int) -> None:
    """Raw frames of a particle that fills some 60 % of the field."""
    pixel_size = 0.35
    atoms = nanoparticle(min(0.55 * pixels * pixel_size, 60.0), seed=SEED)
    angles = np.linspace(-70.0, 70.0, tilts)
    raw = simulate_acquisition(
        atoms, angles, pixel_size=pixel_size, field=(pixels, pixels), frames=FRAMES, sigma=0.6, seed=SEED
    )
    with Store.create(path) as store:
        raw = raw.drop_vars(["true_images", "true_background"])
        store.write("tilt_series/raw", raw, record=Record("simulate", {"seed": SEED}), chunks={"tilt": 1})


def peak_memory(client: Any) -> float:
    """Largest resident set of a worker so far, GB."""
    from aetdist._usage import peak_memory as peak

    return max(client.run(peak).values()) / 1e9


def measure(path: Path, workers: int) -> dict[str, float]:
    """Seconds of both stages on so many workers, and the largest worker."""
    with connect(workers=workers, memory_limit="2GB") as client:
        client.run(_warm)
        times = {}
        for stage in ("preprocess", "align"):
            begin = time.perf_counter()
            getattr(pipeline, stage)(path)
            times[stage] = time.perf_counter() - begin
        return {**times, "memory": peak_memory(client)}


def _warm() -> None:
    """Load and compile what the tasks need."""
    raw = simulate_acquisition(nanoparticle(16.0, seed=1), [0.0], field=(96, 96), seed=1).load()
    from aetdist.preprocess import preprocess_acquisition

    preprocess_acquisition(raw)["images"].load()


def main() -> None:
    """Print the table."""
    tilts, pixels = (int(word) for word in [*sys.argv[1:], *("60", "512")[len(sys.argv) - 1 :]])
    print(f"{tilts} tilts x {FRAMES} frames x {pixels}^2: {tilts * FRAMES * pixels**2 * 4 / 1e6:.0f} MB")
    print(f"{'workers':>8}{'preprocess':>14}{'align':>12}{'tilts/s':>10}{'largest worker':>17}")
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            path = Path(folder) / f"{workers}.zarr"
            write_series(path, tilts, pixels)
            said = measure(path, workers)
            rate = tilts / said["preprocess"]
            seconds = f"{said['preprocess']:>12.1f} s{said['align']:>10.1f} s"
            print(f"{workers:>8}{seconds}{rate:>10.2f}{said['memory']:>14.2f} GB", flush=True)


if __name__ == "__main__":
    main()
