"""What refining angles costs, beside a reconstruction of the same series; prints JSON.

    python tests/benchmarks/bench_angles.py [--size 320 --tilts 55 --rounds 3]

``reconstruction``: 40 iterations of FISTA. ``round_...``: what a round of `reconstruct_refined` does: reconstruction
and round atoms in its place, then least squares of all tilts. ``scan_and_fit``: `refine_angles` with its coarse scan.
``per_tilt_cpu_s``: the least squares of a quarter, half and all of the tilts. ``workers``: `refine_angles` on 2
single-thread workers over 1, beside two independent copies (``normalised``, see engine/parallel.py). CPU-s of one
thread; nothing that starts or compiles is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from bench_engine import THREADS, machine
from engine.measure import Copies, Stopwatch
from engine.parallel import gains, local_client

from aetdist._rounds import Problem
from aetdist.angles import refine_angles
from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.project.atoms import project_atoms, render_atoms
from aetdist.reconstruct import reconstruct_resire
from aetdist.schema import EULER, TILT_SERIES, with_units
from aetdist.simulate import nanoparticle

PIXEL, SIGMA = 0.35, 0.6  # Angstrom


def particle(size: int, tilts: int) -> tuple[xr.Dataset, xr.DataArray]:
    """A particle that fills four fifths of the field, its tilt series off by half a degree, and its volume."""
    random = np.random.default_rng(1)
    atoms = nanoparticle(0.8 * size * PIXEL, seed=1)["position"].values
    angles = euler_from_tilts(np.linspace(-70.0, 70.0, tilts)) + random.normal(0.0, 0.3, (tilts, 3))
    x = centred_coordinates(size, PIXEL)
    images = project_atoms(atoms, angles, sigmas=SIGMA, x=x, y=x, pixel_size=PIXEL)
    images += random.normal(0.0, 0.05 * images.mean(), images.shape)
    wrong = angles + random.normal(0.0, 0.5, angles.shape)
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), wrong),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(wrong)),
            "pixel_size": ((), PIXEL),
        },
        {"tilt": np.arange(tilts), "y": x, "x": x, "euler": list(EULER)},
    )
    density = render_atoms(atoms, sigmas=SIGMA, x=x, y=x, z=x, pixel_size=PIXEL)
    volume = xr.DataArray(density, dims=("z", "y", "x"), coords={"z": x, "y": x, "x": x})
    return with_units(series, TILT_SERIES), volume


def costs(size: int, tilts: int) -> dict[str, Any]:
    """CPU seconds of a round and of a reconstruction."""
    series, volume = particle(size, tilts)
    figures: dict[str, Any] = {"voxels": [size] * 3, "tilts": tilts}

    def spent(name: str, work: Any) -> Any:
        watch = Stopwatch()
        result = work()
        figures[name] = watch.read()
        return result

    spent("reconstruction", lambda: reconstruct_resire(series, iterations=40))
    problem = Problem.of(series, None, None, "atoms", 12, 1, (), False)
    state = problem.start()
    found = spent("round_reconstruction_and_atoms", lambda: problem.evaluate(state))
    spent("round_least_squares", lambda: problem.step(state, found, 3.0, 10.0))
    spent("scan_and_fit", lambda: refine_angles(series, volume))
    per_tilt = {}
    for part in (4, 2, 1):
        some = np.arange(0, tilts, part)
        watch = Stopwatch()
        problem._fits(state, found, some, 4)
        per_tilt[len(some)] = watch.read()["cpu_s"] / len(some)
    figures["per_tilt_cpu_s"] = per_tilt
    one_round = figures["round_reconstruction_and_atoms"]["cpu_s"] + figures["round_least_squares"]["cpu_s"]
    figures["round_over_reconstruction"] = one_round / figures["reconstruction"]["cpu_s"]
    figures["scan_and_fit_over_reconstruction"] = figures["scan_and_fit"]["cpu_s"] / figures["reconstruction"]["cpu_s"]
    return figures


def make_fit(size: int, tilts: int) -> Any:
    """What a copy does: the same refinement in a process without a client."""
    return partial(refine_angles, *particle(size, tilts), search=0)


def workers(size: int, tilts: int, rounds: int) -> dict[str, float]:
    """`refine_angles` on two workers over one."""
    series, volume = particle(size, tilts)
    with ExitStack() as stack:
        clients = [stack.enter_context(local_client(n)) for n in (1, 2)]
        copies = stack.enter_context(Copies([(make_fit, (size, tilts))] * 2))
        copies.wall(0, 1)

        def wall(client: Any) -> float:
            with client.as_current():
                begin = time.perf_counter()
                refine_angles(series, volume, search=0)
                return time.perf_counter() - begin

        for client in clients:
            wall(client)
        walls = [(wall(clients[0]), wall(clients[1]), copies.wall(0), copies.wall(0, 1)) for _ in range(rounds)]
    return gains(walls, 2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--tilts", type=int, default=55)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    costs(32, 5)  # compiles
    figures = {
        "machine": machine(),
        **costs(options.size, options.tilts),
        "workers": workers(options.size, options.tilts, options.rounds),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    os.environ.update(dict.fromkeys(THREADS, "1"))
    main()
