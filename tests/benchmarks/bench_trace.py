"""CPU seconds of tracing a particle of some 18,000 atoms in 320^3 voxels; prints JSON."""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import xarray as xr

from aetdist.trace import trace_atoms

VOXEL = 0.35  # Angstrom
SIGMA = 0.5  # Angstrom


def particle(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of jittered lattice points as Gaussians, with noise: density (n, n, n) and positions in Angstrom."""
    rng = np.random.default_rng(seed)
    radius = 0.35 * n * VOXEL
    steps = np.arange(-radius, radius, 2.7)
    points = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    points = points[np.linalg.norm(points, axis=1) < radius] + rng.uniform(-0.2, 0.2, 3)
    points = points + rng.normal(0, 0.1, points.shape)
    density = rng.normal(0, 0.02, (n, n, n)).astype(np.float32)
    for point in points / VOXEL + n // 2:
        corner = np.round(point).astype(int) - 6
        x, y, z = (
            np.exp(-0.5 * ((np.arange(13) + c - p) * VOXEL / SIGMA) ** 2) for c, p in zip(corner, point, strict=True)
        )
        i, j, k = corner
        density[k : k + 13, j : j + 13, i : i + 13] += (z[:, None, None] * y[:, None] * x).astype(np.float32)
    return np.maximum(density, 0), points


def main() -> None:
    """Trace one volume twice (the first time compiles) and print the second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=320, help="voxels along every axis")
    size = parser.parse_args().size
    density, points = particle(size, seed=0)
    coordinate = (np.arange(size) - size // 2) * VOXEL
    volume = xr.Dataset({"density": (("z", "y", "x"), density)})
    volume = volume.assign_coords({axis: (axis, coordinate) for axis in "zyx"})
    first = time.process_time()
    trace_atoms(volume)
    second = time.process_time()
    atoms = trace_atoms(volume)
    end = time.process_time()
    print(
        json.dumps(
            {
                "voxels": size**3,
                "true_atoms": len(points),
                "n_atoms": atoms.sizes["atom"],
                "n_peaks": atoms.attrs["n_peaks"],
                "cpu_seconds": round(end - second, 3),
                "cpu_seconds_first": round(second - first, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
