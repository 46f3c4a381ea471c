"""The reconstruction engine against its peers, side by side in one run; prints JSON.

    python tests/benchmarks/bench_engine.py [--large] [--repeats 5]

One thread, CPU-seconds (user + sys) of the process, medians, compilation left out. The peers, astra-toolbox
and ducc0, come with the extra ``benchmark``; what is not installed is left out. --large adds 320^3 x 55 at
Euler angles near a single axis.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from aetdist.geometry import ParallelGeometry, euler_from_tilts, matrices_from_euler
from aetdist.metrics import normalised_rmse
from aetdist.project import ParallelProjector, empty_volume
from aetdist.reconstruct.solvers import largest_eigenvalue, solve

TILTS = np.linspace(-70, 70, 41)
ERROR = 0.18


def cpu_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median of the process's CPU time; one warm-up."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def phantom(n: int) -> np.ndarray:
    """Gaussian atoms (standard deviation 1.4 voxels) at random inside a sphere, (z, y, x) float32."""
    rng = np.random.default_rng(0)
    volume = np.zeros((n, n, n), np.float32)
    offsets = np.arange(-6, 7)
    count = int(0.0025 * n**3)
    for centre in rng.uniform(-0.42 * n, 0.42 * n, (count, 3)):
        if np.linalg.norm(centre) > 0.42 * n:
            continue
        middle = np.round(centre).astype(int)
        parts = [np.exp(-((offsets + m - c) ** 2) / (2 * 1.4**2)) for m, c in zip(middle, centre, strict=True)]
        region = tuple(slice(m - 6 + n // 2, m + 7 + n // 2) for m in middle)
        if all(s.start >= 0 and s.stop <= n for s in region):
            volume[region] += parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :]
    return volume


@numba.njit
def voxel_pair(volume: np.ndarray, matrices: np.ndarray, images: np.ndarray, back: np.ndarray) -> None:
    """Plain voxel-driven splat and gather with bilinear weights."""
    nz, ny, nx = volume.shape
    n_tilts, nv, nu = images.shape
    for t in range(n_tilts):
        for k in range(nz):
            for j in range(ny):
                for i in range(nx):
                    x, y, z = i - nx // 2, j - ny // 2, k - nz // 2
                    u = matrices[t, 0, 0] * x + matrices[t, 0, 1] * y + matrices[t, 0, 2] * z + nu // 2
                    v = matrices[t, 1, 0] * x + matrices[t, 1, 1] * y + matrices[t, 1, 2] * z + nv // 2
                    a, b = int(np.floor(u)), int(np.floor(v))
                    if 0 <= a < nu - 1 and 0 <= b < nv - 1:
                        f, g = u - a, v - b
                        value = volume[k, j, i]
                        images[t, b, a] += (1 - f) * (1 - g) * value
                        images[t, b, a + 1] += f * (1 - g) * value
                        images[t, b + 1, a] += (1 - f) * g * value
                        images[t, b + 1, a + 1] += f * g * value
                        back[k, j, i] += (
                            (1 - f) * (1 - g) * images[t, b, a]
                            + f * (1 - g) * images[t, b, a + 1]
                            + (1 - f) * g * images[t, b + 1, a]
                            + f * g * images[t, b + 1, a + 1]
                        )


class Astra:
    """SIRT and SART of ASTRA on the CPU, slice by slice, linear projector."""

    def __init__(self, images: np.ndarray, n: int) -> None:
        import astra

        self.astra = astra
        geometry = astra.create_vol_geom(n, n)
        # a projection sums along the beam: image x = x cos(theta) - z sin(theta)
        rays = astra.create_proj_geom("parallel", 1.0, n, np.deg2rad(-TILTS))
        projector = astra.create_projector("linear", rays, geometry)
        self.slices = []
        for y in range(images.shape[1]):
            sinogram = astra.data2d.create("-sino", rays, np.ascontiguousarray(images[:, y]))
            volume = astra.data2d.create("-vol", geometry, 0)
            config = {"ProjectorId": projector, "ProjectionDataId": sinogram, "ReconstructionDataId": volume}
            self.slices.append((volume, config))

    def start(self, algorithm: str) -> list[int]:
        """Fresh algorithms, one for each slice; volumes set to 0."""
        ids = []
        for volume, config in self.slices:
            self.astra.data2d.store(volume, 0)
            options = {**self.astra.astra_dict(algorithm), **config, "option": {"MinConstraint": 0.0}}
            ids.append(self.astra.algorithm.create(options))
        return ids

    def run(self, ids: list[int], iterations: int) -> None:
        """So many iterations (SART: updates, one projection each)."""
        for i in ids:
            self.astra.algorithm.run(i, iterations)

    def volume(self) -> np.ndarray:
        """(z, y, x)."""
        return np.stack([self.astra.data2d.get(v) for v, _ in self.slices], axis=1)


def best_orientation(volume: np.ndarray, truth: np.ndarray) -> float:
    """Normalised RMSE whichever way the peer's slice is flipped."""
    flips = (volume, volume[::-1], volume[:, :, ::-1], volume[::-1, :, ::-1])
    return min(normalised_rmse(f, truth) for f in flips)


def small(repeats: int) -> dict[str, Any]:
    """64^3 x 41, single axis."""
    n, truth = 64, phantom(64)
    geometry = ParallelGeometry.centred(matrices_from_euler(euler_from_tilts(TILTS)), (n, n, n), (n, n))
    projector = ParallelProjector(geometry)
    images = projector.forward(truth)
    mask = np.ones(images.shape, bool)
    step = 1.0 / largest_eigenvalue(geometry)

    def ours(solver: str, iterations: int) -> Any:
        return solve(projector, images, mask, solver=solver, iterations=iterations, step=step)

    result: dict[str, Any] = {
        "fista_iteration": cpu_seconds(lambda: ours("fista", 20), repeats) / 20,
        "ordered_subsets_pass": cpu_seconds(lambda: ours("ordered_subsets", 20), repeats) / 20,
    }
    for solver in ("fista", "ordered_subsets"):
        needed = next(i for i in range(1, 400) if normalised_rmse(ours(solver, i).volume, truth) <= ERROR)
        result[f"{solver}_iterations_to_{ERROR}"] = needed
        result[f"{solver}_seconds_to_{ERROR}"] = cpu_seconds(lambda s=solver, k=needed: ours(s, k), repeats)
    images_out, back = np.zeros_like(images), np.zeros_like(truth)
    result["voxel_driven_pair"] = cpu_seconds(lambda: voxel_pair(truth, geometry.matrices, images_out, back), 3)
    if importlib.util.find_spec("astra"):
        peer = Astra(images, n)
        ids = peer.start("SIRT")
        result["astra_sirt_iteration"] = cpu_seconds(lambda: peer.run(ids, 5), repeats) / 5
        for name, chunk in (("SIRT", 10), ("SART", len(TILTS))):
            ids, passes, begin, spent, error = peer.start(name), 0, 0.0, 0.0, 1.0
            while error > ERROR and passes < 60:
                begin = time.process_time()
                peer.run(ids, chunk)
                spent += time.process_time() - begin
                passes += 1
                error = best_orientation(peer.volume(), truth)
            result[f"astra_{name.lower()}_seconds_to_{ERROR}"] = spent if error <= ERROR else None
            result[f"astra_{name.lower()}_error_reached"] = error
        result["iteration_ratio_astra_sirt"] = result["astra_sirt_iteration"] / result["fista_iteration"]
        if result[f"astra_sart_seconds_to_{ERROR}"]:
            ours_best = min(result[f"{s}_seconds_to_{ERROR}"] for s in ("fista", "ordered_subsets"))
            result["time_ratio_astra_sart"] = result[f"astra_sart_seconds_to_{ERROR}"] / ours_best
    return result


def large(repeats: int) -> dict[str, Any]:
    """320^3 x 55, Euler angles a few degrees off one axis."""
    n = 320
    rng = np.random.default_rng(1)
    angles = np.stack([rng.normal(0, 1, 55), np.linspace(-69, 72, 55), rng.normal(0, 1, 55)], axis=1)
    geometry = ParallelGeometry.centred(matrices_from_euler(angles), (n, n, n), (n, n))
    volume = empty_volume((n, n, n))
    volume[...] = rng.random((n, n, n), dtype=np.float32)
    result = {}
    for threads in (1, 2):
        projector = ParallelProjector(geometry, threads)
        images = projector.forward(volume)
        wall = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            projector.adjoint(projector.forward(volume, out=images))
            wall.append(time.perf_counter() - begin)
        result[f"pair_wall_{threads}_threads"] = statistics.median(wall[1:])
    projector = ParallelProjector(geometry)
    result["pair"] = cpu_seconds(lambda: projector.adjoint(projector.forward(volume, out=images)), repeats)
    if importlib.util.find_spec("ducc0"):
        import ducc0

        k = 2 * np.pi * np.fft.fftfreq(n)
        ky, kx = np.meshgrid(k, k, indexing="ij")
        uv = np.stack([kx.ravel(), ky.ravel()], axis=1)
        coordinates = np.concatenate([uv @ m[:2] for m in geometry.matrices])[:, ::-1].copy()
        density = np.ascontiguousarray(volume).astype(np.complex64)

        def nufft() -> None:
            options = {"epsilon": 1e-4, "nthreads": 1, "coord": coordinates}
            spectrum = ducc0.nufft.u2nu(grid=density, forward=True, **options)
            ducc0.nufft.nu2u(points=spectrum, forward=False, out=np.empty_like(density), **options)

        result["ducc0_nufft_pair"] = cpu_seconds(nufft, 1)
        result["pair_ratio_ducc0"] = result["ducc0_nufft_pair"] / result["pair"]
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    figures: dict[str, Any] = {"64^3 x 41, single axis, CPU-s": small(options.repeats)}
    if options.large:
        figures["320^3 x 55, Euler angles, CPU-s"] = large(options.repeats)
    print(json.dumps(figures, indent=1))
