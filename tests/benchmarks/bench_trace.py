"""CPU seconds and memory of tracing and classifying films of 25,000 to 100,000 atoms of three species; prints JSON."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from aetdist.classify import classify_atoms
from aetdist.metrics import compare_atoms
from aetdist.project.atoms import render_atoms
from aetdist.trace import trace_atoms

VOXEL = 0.347  # Angstrom
SIGMA = 0.55  # Angstrom
HEIGHTS = (28.0, 45.0, 78.0)
NOISE = 2.0
SPACING = 2.7  # Angstrom, of the jittered lattice that the atoms sit on
THICKNESS = 60.0  # Angstrom
BLOCK = 160  # voxels


def film(n_atoms: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) in Angstrom and types 1..3 of a square film: quick to make at any size."""
    rng = np.random.default_rng(seed)
    layers = round(THICKNESS / SPACING)
    side = round((n_atoms / layers) ** 0.5)
    axes = [(np.arange(n) - (n - 1) / 2) * SPACING for n in (side, side, layers)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return points + rng.normal(0, 0.12, points.shape), rng.integers(1, 4, len(points))


def store_volume(path: Path, position: np.ndarray, types: np.ndarray, seed: int) -> xr.Dataset:
    """The film's density, rendered and written block by block; lazy."""
    half = np.abs(position).max(axis=0) + 5.0
    shape = [2 * int(np.ceil(h / VOXEL)) + 1 for h in half[::-1]]
    axes = [(np.arange(n) - n // 2) * VOXEL for n in shape]

    def block(block_info: Any = None) -> np.ndarray:
        (info,) = block_info.values()
        z, y, x = (a[slice(*span)] for a, span in zip(axes, info["array-location"], strict=True))
        near = np.ones(len(position), dtype=bool)
        for i, a in enumerate((x, y, z)):
            near &= (position[:, i] > a[0] - 4) & (position[:, i] < a[-1] + 4)
        noise = np.random.default_rng([seed, *info["chunk-location"]]).normal(0, NOISE, (len(z), len(y), len(x)))
        density = np.zeros_like(noise)
        if near.any():
            heights = np.array(HEIGHTS)[types[near] - 1]
            density = render_atoms(position[near], heights=heights, sigmas=SIGMA, x=x, y=y, z=z, pixel_size=VOXEL)
        return np.maximum(density + noise, 0).astype(np.float32)

    chunks = tuple(tuple(min(BLOCK, n - i) for i in range(0, n, BLOCK)) for n in shape)
    density = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    volume = xr.Dataset({"density": (("z", "y", "x"), density)}, coords=dict(zip("zyx", axes, strict=True)))
    volume.to_zarr(path, zarr_format=3, consolidated=False)
    return xr.open_zarr(path, consolidated=False)


def measure(n_atoms: int) -> dict[str, Any]:
    """Figures of one film: CPU seconds, most memory so far, and how many atoms were found with the right type."""
    position, types = film(n_atoms, seed=0)
    truth = xr.Dataset({"position": (("atom", "axis"), position), "type": ("atom", types)})
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="synchronous"):
        volume = store_volume(Path(folder) / "volume.zarr", position, types, seed=0)
        start = time.process_time()
        traced = trace_atoms(volume)
        middle = time.process_time()
        found = classify_atoms(volume, traced, species=3)
        end = time.process_time()
    result = compare_atoms(found, truth, tolerance=1.0, by_type=True)
    return {
        "atoms": len(position),
        "voxels": int(np.prod(volume["density"].shape)),
        "n_peaks": traced.attrs["n_peaks"],
        "trace_cpu_seconds": round(middle - start, 2),
        "classify_cpu_seconds": round(end - middle, 2),
        "cpu_seconds_per_1000_atoms": round((end - start) / len(position) * 1000, 4),
        "peak_memory_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "found_typed": round(result.recall_typed or 0.0, 5),
        "false_typed": round(1 - (result.precision_typed or 0.0), 5),
    }


def main() -> None:
    """Measure each size once, after a small film that compiles the kernels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    sizes = parser.parse_args().atoms
    measure(1000)
    for n in sizes:
        print(json.dumps(measure(n)), flush=True)


if __name__ == "__main__":
    main()
