"""CPU seconds of Voronoi indices with recomputed cells, beside other software where it is installed; prints JSON.

    python tests/benchmarks/bench_voronoi.py                      # a glass of 18,356 and 76,000 atoms
    python tests/benchmarks/bench_voronoi.py 100000 300000 1000000
    python tests/benchmarks/bench_voronoi.py --workers 200000     # seconds by one and by two worker processes

With AETDIST_DATA the glass is the middle of the published nanoparticle, repeated; else a random one. Ours and the loop
over Qhull build each cell twice, freud, OVITO and scipy once. Everything runs on one thread, with OMP_NUM_THREADS=1,
after a first small run; the others stop above 100,000 atoms.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np

import aetdist as aet

sys.path.insert(0, str(Path(__file__).parents[1]))
from qhull_cells import qhull_faces, qhull_indices

SPACING = 2.77  # Angstrom, of the jittered lattice; as dense as the nanoparticle
EDGE = 52.0  # Angstrom, of the cube from the middle of the nanoparticle
LARGEST_PEER = 100_000
LOOP = 1000  # atoms of the loop over Qhull, whose seconds are those of all atoms by proportion


def glass(n_atoms: int) -> np.ndarray:
    """A cube of a glass of about so many atoms."""
    folder = os.environ.get("AETDIST_DATA")
    if not folder:
        side = round(n_atoms ** (1 / 3))
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        return SPACING * grid + np.random.default_rng(0).normal(0, 0.4, grid.shape)
    import h5py

    with h5py.File(Path(folder) / "metallic_glass_nanoparticle.h5") as file:
        positions = file["positions_angstrom"][:].astype(np.float64)
    if n_atoms == len(positions):
        return positions
    centred = positions - positions.mean(axis=0)
    cube = centred[(np.abs(centred) < EDGE / 2).all(axis=1)]
    repeats = int(np.ceil((n_atoms / len(cube)) ** (1 / 3)))
    shifts = EDGE * np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    whole = (cube + shifts).reshape(-1, 3)
    part = (n_atoms / len(whole)) ** (1 / 3)
    return whole[(whole < whole.min(axis=0) + part * np.ptp(whole, axis=0)).all(axis=1)]


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    run()
    return round(time.process_time() - start, 3)


def loop_seconds(positions: np.ndarray) -> float:
    """CPU seconds of the loop over Qhull, in proportion from some atoms; the first run is for all."""
    wanted = np.arange(0, len(positions), max(1, len(positions) // LOOP))
    once = cpu_seconds(lambda: qhull_faces(positions))
    some = cpu_seconds(lambda: qhull_indices(positions, wanted=wanted))
    return round(once + (some - once) * len(positions) / len(wanted), 2)


def freud_cells(positions: np.ndarray) -> None:
    """Cells by freud, in a periodic box that is far larger than the sample."""
    import freud

    freud.parallel.set_num_threads(1)
    edge = 2.0 * float(np.ptp(positions, axis=0).max())
    middle = positions - positions.mean(axis=0)
    freud.locality.Voronoi().compute((freud.box.Box.cube(edge), middle.astype(np.float32)))


def ovito_cells(positions: np.ndarray) -> None:
    """Cells by OVITO, with indices, in an open box."""
    from ovito.data import DataCollection, Particles, SimulationCell
    from ovito.modifiers import VoronoiAnalysisModifier

    data = DataCollection()
    cell = SimulationCell(pbc=(False, False, False))
    low, size = positions.min(axis=0) - 1.0, np.ptp(positions, axis=0) + 2.0
    cell[...] = np.column_stack([np.diag(size), low])
    data.objects.append(cell)
    particles = Particles()
    particles.create_property("Position", data=positions)
    data.objects.append(particles)
    data.apply(VoronoiAnalysisModifier(compute_indices=True, relative_face_threshold=0.01))


def scipy_cells(positions: np.ndarray) -> None:
    """Cells by Qhull, once."""
    from scipy.spatial import Voronoi

    Voronoi(positions)


PEERS = {"scipy": scipy_cells, "freud": freud_cells, "ovito": ovito_cells}


def measure(n_atoms: int) -> dict[str, Any]:
    """Figures of one glass."""
    positions = glass(n_atoms)
    found = cpu_seconds(lambda: aet.voronoi_indices(positions))
    figures: dict[str, Any] = {
        "atoms": len(positions),
        "seconds": found,
        "microseconds_per_atom": round(1e6 * found / len(positions), 1),
        "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if len(positions) <= LARGEST_PEER:
        figures["loop_over_qhull"] = loop_seconds(positions)
        for name, run in PEERS.items():
            if importlib.util.find_spec(name):
                figures[name] = cpu_seconds(lambda run=run: run(positions))
    return figures


def by_workers(n_atoms: int) -> dict[str, Any]:
    """Seconds by the clock with one worker process and with two: the median of three."""
    from aetdist.cluster import connect

    positions, seconds = glass(n_atoms), {}
    for workers in (1, 2):
        with connect(workers=workers, memory_limit="4GiB"):
            aet.voronoi_indices(glass(40_000))
            runs = []
            for _ in range(3):
                start = time.perf_counter()
                aet.voronoi_indices(positions)
                runs.append(time.perf_counter() - start)
            seconds[workers] = round(float(np.median(runs)), 2)
    return {"atoms": len(positions), "one": seconds[1], "two": seconds[2], "times": round(seconds[1] / seconds[2], 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atoms", type=int, nargs="*", default=[18_356, 76_000])
    parser.add_argument("--workers", action="store_true")
    options = parser.parse_args()
    if options.workers:
        print(json.dumps([by_workers(n) for n in options.atoms], indent=1))
        return
    with dask.config.set(num_workers=1):
        aet.voronoi_indices(glass(2_000))
        print(json.dumps([measure(n) for n in options.atoms], indent=1))


if __name__ == "__main__":
    main()
