"""CPU seconds a tilt of the linear model, 20,000 atoms onto 320 x 320 pixels, and its error; prints JSON."""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import numpy as np
import xarray as xr

from aetdist.geometry import centred_coordinates, matrices_from_euler
from aetdist.project.atoms import project_atoms
from aetdist.simulate import simulate_tilt_series

PIXEL = 0.35  # Angstrom
SPACING = 2.7  # Angstrom, of the jittered lattice that the atoms sit on


def ball(n_atoms: int, seed: int) -> np.ndarray:
    """Positions (n, 3) in Angstrom of about so many atoms in a ball."""
    side = 2 * int(np.ceil((n_atoms * 6 / np.pi) ** (1 / 3) / 2)) + 2
    axis = (np.arange(side) - (side - 1) / 2) * SPACING
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest = np.argsort((points**2).sum(axis=1), kind="stable")[:n_atoms]
    return points[nearest] + np.random.default_rng(seed).uniform(-0.3, 0.3, (n_atoms, 3))


def measure(n_atoms: int, field: int, sigma: float, tilts: int) -> dict[str, Any]:
    """CPU seconds a tilt of the projection alone and of the whole simulation, and the largest error of the former."""
    positions = ball(n_atoms, 0)
    heights = np.random.default_rng(1).choice([1.0, 2.0, 3.0], n_atoms)
    x = centred_coordinates(field, PIXEL)
    angles = np.column_stack([np.zeros(tilts), np.linspace(-70, 70, tilts), np.zeros(tilts)])
    options = {"heights": heights, "sigmas": sigma, "x": x, "y": x, "pixel_size": PIXEL}
    project_atoms(positions[:2], angles[:1], **options | {"heights": 1.0})  # compiled
    times = []
    for angle in angles:
        start = time.process_time()
        image = project_atoms(positions, angle[None], **options)[0]
        times.append(time.process_time() - start)
    lab = positions @ matrices_from_euler(angles[-1:])[0, :2].T
    row, column = (np.exp(-((x[:, None] - c) ** 2) / (2 * sigma**2)) for c in (lab[:, 1], lab[:, 0]))
    exact = (row * (heights * np.sqrt(2 * np.pi) * sigma / PIXEL)) @ column.T
    atoms = xr.Dataset({"position": (("atom", "axis"), positions), "intensity": ("atom", heights)})
    whole = {}
    for name, errors in (
        ("clean", {}),
        ("corrupted", {"dose": 1e4, "angle_error": 0.3, "shift": 3.0, "brightness": 0.02, "background": 0.1}),
    ):
        series = simulate_tilt_series(
            atoms, angles, pixel_size=PIXEL, sigma=sigma, field=(field, field), seed=0, **errors
        )
        start = time.process_time()
        series["images"].compute(scheduler="synchronous")
        whole[name] = (time.process_time() - start) / tilts
    return {
        "atoms": n_atoms,
        "field": [field, field],
        "sigma_angstrom": sigma,
        "projection_cpu_s_per_tilt": float(np.median(times)),
        "simulation_cpu_s_per_tilt": whole,
        "largest_error_beside_brightest_pixel": float(np.abs(image - exact).max() / exact.max()),
        "error_l1": float(np.abs(image - exact).sum() / exact.sum()),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=20_000)
    parser.add_argument("--field", type=int, default=320, help="pixels along x and y")
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.5, 0.8], help="Angstrom")
    parser.add_argument("--tilts", type=int, default=15)
    arguments = parser.parse_args()
    cases = [measure(arguments.atoms, arguments.field, sigma, arguments.tilts) for sigma in arguments.sigma]
    print(json.dumps(cases, indent=1))
