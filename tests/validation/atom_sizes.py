"""Seconds and memory of tracing, classification and refinement against the number of atoms."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from atom_cases import HEIGHTS, PIXEL, SIGMA
from engine.measure import Memory, Stopwatch, in_child

import aetdist as aet
from aetdist.geometry import centred_coordinates
from aetdist.io import Record, Store
from aetdist.project.atoms import render_atoms
from aetdist.schema import VOLUME, with_units

ATOMS = (25_000, 50_000, 100_000)
DENSITY = 0.060  # atoms per cubic Angstrom, as `nanoparticle` packs these elements
TILTS = np.linspace(-70.0, 70.0, 55)
NOISE = 0.03  # of a voxel, of the lowest atoms' height
CHUNK = 128  # voxels
ITERATIONS = 4  # of refinement, without curation: beside what it does once
DOSE = 1.7e4  # electrons per square Angstrom and tilt


def made(folder: str, n_atoms: int, seed: int) -> int:
    """Write a particle's volume, noisy round atoms, slab by slab, and its noisy tilt series; gives its atoms."""
    atoms = aet.nanoparticle((6.0 * n_atoms / (np.pi * DENSITY)) ** (1 / 3), species=("Ni", "Rh", "Pt"), seed=seed)
    heights = HEIGHTS[atoms["type"].values - 1]
    n = 2 * int(np.ceil((np.abs(atoms["position"].values).max() + 4.0) / PIXEL)) + 1
    c = centred_coordinates(n, PIXEL)
    density = zarr.open(f"{folder}/density.zarr", mode="w", shape=(n, n, n), chunks=(CHUNK,) * 3, dtype="f4")
    for slab, z in enumerate(range(0, n, CHUNK)):
        part = render_atoms(
            atoms["position"].values, heights=heights, sigmas=SIGMA, x=c, y=c, z=c[z : z + CHUNK], pixel_size=PIXEL
        )
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(slab,)))
        part += NOISE * HEIGHTS[0] * random.standard_normal(part.shape, dtype=np.float32)
        density[z : z + CHUNK] = np.maximum(part, 0.0)
    series = aet.simulate_tilt_series(
        atoms, TILTS, pixel_size=PIXEL, sigma=SIGMA, heights=HEIGHTS.tolist(), field=(n, n), dose=DOSE, seed=seed
    )
    with Store.create(Path(folder) / "series.zarr") as store:
        store.write("tilt_series/aligned", series, record=Record("simulated"), chunks={"tilt": 1})
    return atoms.sizes["atom"]


def forget_peak() -> None:
    """Let this process's peak of memory be what it holds now (Linux)."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def measured(folder: str) -> dict[str, Any]:
    """CPU seconds of the stages and the peak of their memory beyond what the process held before, in GB."""
    stored = da.from_zarr(f"{folder}/density.zarr")
    c = centred_coordinates(len(stored), PIXEL)
    volume = with_units(xr.Dataset({"density": (("z", "y", "x"), stored)}, {"z": c, "y": c, "x": c}), VOLUME)
    with Store.open(Path(folder) / "series.zarr") as store:
        series = store.read("tilt_series/aligned")
    figures: dict[str, Any] = {"voxels": int(stored.size), "volume_gb": stored.nbytes / 1e9}

    def timed(name: str, function: Any, *inputs: Any, **keywords: Any) -> Any:
        forget_peak()
        used, watch = Memory(), Stopwatch()
        result = function(*inputs, **keywords)
        figures[name] = {"cpu_s": watch.read()["cpu_s"], "memory_gb": used.read()["memory_gb"]}
        return result

    atoms = timed("trace", aet.trace_atoms, volume)
    figures["traced"] = atoms.sizes["atom"]
    atoms = timed("classify", aet.classify_atoms, volume, atoms, species=3)
    figures["classified"] = atoms.sizes["atom"]
    refined = timed("refine", aet.refine_atoms, series, atoms, volume=volume, iterations=ITERATIONS, curate=False)
    figures["refined"] = refined.sizes["atom"]
    return figures


def linear(seed: int = 0, sizes: tuple[int, ...] = ATOMS) -> dict[str, Any]:
    """Figures of each size, each made and measured in processes of their own; and seconds per thousand atoms."""
    figures = {}
    for n in (min(sizes) // 10, *sizes):  # the first compiles
        with tempfile.TemporaryDirectory() as folder:
            n_atoms = in_child(made, folder, n, seed)
            found = in_child(measured, folder)
            found["cpu_s_per_1000_atoms"] = {
                name: 1000.0 * found[name]["cpu_s"] / n_atoms for name in ("trace", "classify", "refine")
            }
        figures[str(n_atoms)] = found
    figures.pop(next(iter(figures)))
    return figures
