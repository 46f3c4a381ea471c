"""The cost model: a few small kernels timed where the work will run, in seconds, whenever a plan is made.

python -m aetdist.planning.probes < probes.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr
from dask.system import CPU_COUNT

from ..blocks.windows import current_client
from ..cluster import thread_environment
from ..geometry import ParallelGeometry
from .workers import Workers

_COMPILED = 15.0  # seconds; loading kernels takes one or two, compiling them tens
_ROWS, _TILTS = 24, 8  # of a problem that a solver is timed on; what a row and a tilt cost is the same for all
_PIXELS, _VOXELS = 512, 48  # along an edge


@dataclass(frozen=True, eq=False)
class Probe:
    """A problem that a solver is timed on: its own depth, widths, angles, but fewer rows and tilts.

    Parameters
    ----------
    name : str
    solver : str
    matrices : ndarray, shape (tilt, 3, 3)
    shape : tuple of int
        Voxels (z, y, x).
    detector : tuple of int
        Pixels (y, x).
    """

    name: str
    solver: str
    matrices: np.ndarray
    shape: tuple[int, int, int]
    detector: tuple[int, int]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "matrices": np.asarray(self.matrices).tolist()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Probe:
        """From JSON."""
        return cls(
            plain["name"],
            plain["solver"],
            np.array(plain["matrices"]),
            tuple(plain["shape"]),  # type: ignore[arg-type]
            tuple(plain["detector"]),  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Rates:
    """What was measured; CPU seconds of one thread.

    Parameters
    ----------
    own_bytes : int
        What a worker holds when all kernels are loaded, without arrays.
    loading : float
        Seconds by the clock until a new process has loaded all kernels.
    prepare : dict of str to float
        For each probe: the step's length and the projector's plan, once.
    iteration : dict of str to float
        For each probe: one iteration of the whole problem.
    forward : float
        A voxel in one tilt, projected.
    open : float
        Opening a group of the store.
    chunk_read, byte_read, chunk_written, byte_written : float
        A chunk, and each of its bytes.
    pixel_binned, voxel_started, voxel_textured, voxel_compared, voxel_traced : float
        Of the coarse film and its maps, the start of a window, the stitching, the tracing.
    """

    own_bytes: int
    loading: float
    prepare: dict[str, float]
    iteration: dict[str, float]
    forward: float
    open: float
    chunk_read: float
    byte_read: float
    chunk_written: float
    byte_written: float
    pixel_binned: float
    voxel_started: float
    voxel_textured: float
    voxel_compared: float
    voxel_traced: float


def measure_rates(probes: list[Probe], workers: Workers) -> Rates:
    """Computes: the rates (some seconds), in as many processes at a time as will work side by side on a machine.

    They are the workers of the current Dask client, those of one machine, or else processes of their own: where all
    cores are busy each is slower. Of what they tell it is the median.
    """
    client = current_client()
    plain = [p.plain() for p in probes]
    if client is not None:
        told = client.gather(
            [
                client.submit(time_kernels, plain, pure=False, workers=[address], allow_other_workers=False)
                for address in neighbours(client)
            ]
        )
    else:
        told = _in_processes(plain, min(workers.count, CPU_COUNT))
        if told[0]["loading"] > _COMPILED:  # the next process finds the kernels in the cache
            told = _in_processes(plain, min(workers.count, CPU_COUNT))
    return Rates(**{name: _median([rates[name] for rates in told]) for name in told[0]})


def neighbours(client: Any) -> list[str]:
    """Addresses of a client's workers on that machine which has most of them."""
    hosts: dict[str, list[str]] = {}
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        hosts.setdefault(worker["host"], []).append(address)
    return max(hosts.values(), key=len)


def _in_processes(plain: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """What new processes tell that work at the same time."""

    def run(_: int) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(plain),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **thread_environment(1)},
        )
        return json.loads(done.stdout)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def _median(values: list[Any]) -> Any:
    """Of numbers, or of each entry of dictionaries."""
    if isinstance(values[0], dict):
        return {key: _median([value[key] for value in values]) for key in values[0]}
    return type(values[0])(np.median(values))


def time_kernels(plain: list[dict[str, Any]], begun: float | None = None) -> dict[str, Any]:
    """Time everything once it is compiled and loaded; as plain values. A new process says when it was begun."""
    begun = time.time() if begun is None else begun
    probes = [Probe.of(values) for values in plain]
    tiny = Probe("tiny", "fista", np.eye(3)[None].repeat(2, axis=0), (8, 16, 16), (16, 16))
    _time_solver(tiny)
    for probe in probes:
        _time_solver(Probe(probe.name, probe.solver, tiny.matrices, tiny.shape, tiny.detector))
    _time_film(16, 12)
    time_trace(12)
    own, loading = _own_bytes(), time.time() - begun
    solved = {probe.name: _time_solver(probe) for probe in probes}
    forward = [probe.matrices.shape[0] * np.prod(probe.shape, dtype=float) for probe in probes]
    per_voxel = [solved[p.name][1] / (2.0 * n) for p, n in zip(probes, forward, strict=True)]
    return asdict(
        Rates(
            own_bytes=own,
            loading=loading,
            prepare={name: seconds[0] for name, seconds in solved.items()},
            iteration={name: seconds[1] for name, seconds in solved.items()},
            forward=float(np.median(per_voxel)) if per_voxel else 0.0,
            voxel_traced=time_trace(_VOXELS),
            **_time_film(_PIXELS, _VOXELS),
        )
    )


def _time_solver(probe: Probe) -> tuple[float, float]:
    """Seconds of the preparations, and of an iteration of the whole problem."""
    from ..project import ParallelProjector
    from ..reconstruct.resire import step_length
    from ..reconstruct.solvers import SOLVERS, Objective, eigenvalue_for

    whole = ParallelGeometry.centred(probe.matrices, probe.shape, probe.detector)
    begin = time.process_time()
    eigenvalue = eigenvalue_for(probe.solver, whole)
    ParallelProjector(whole)
    prepared = time.process_time() - begin
    nz, ny, nx = probe.shape
    tilts = np.unique(np.linspace(0, len(probe.matrices) - 1, _TILTS).astype(int))
    part = ParallelGeometry.centred(
        probe.matrices[tilts], (nz, min(ny, _ROWS), nx), (min(probe.detector[0], _ROWS), probe.detector[1])
    )
    images = np.ones((part.n_tilts, *part.detector_shape), np.float32)
    start = np.ones(part.volume_shape, np.float32)
    objective = Objective(ParallelProjector(part), images, images > 0)
    solver = SOLVERS[probe.solver](objective, step_length(probe.solver, None, 1, eigenvalue), start)
    share = whole.n_tilts * ny / (part.n_tilts * part.volume_shape[1])
    return prepared, share * _best(lambda: solver.step())


def _time_film(pixels: int, voxels: int) -> dict[str, float]:
    """Reading, writing, and what a scan does beside the solvers."""
    from ..io import Record, Store, open_dataset, write_region
    from ..reconstruct.film import CoarseFilm, binned_series, height_and_thickness, start_volume
    from ..reconstruct.stitch import compare_pairs

    rng = np.random.default_rng(0)
    images = rng.random((2, pixels, pixels), dtype=np.float32)
    series = xr.Dataset(
        {"images": (("tilt", "y", "x"), images), "mask": (("tilt", "y", "x"), images > 0)},
    )
    few = max(8, pixels // 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.zarr"
        with Store.create(path) as store:
            store.write("whole", series, record=Record("probe"), chunks={"tilt": 1})
            small = series.isel(y=slice(few), x=slice(few))
            store.write("small", small, record=Record("probe"), chunks={"tilt": 1})
        opened = _best(lambda: open_dataset(path, "whole"))
        large, little = (open_dataset(path, name)["images"] for name in ("whole", "small"))
        read, read_little = _best(lambda: large[0].values), _best(lambda: little[0].values)
        region = (slice(0, 1), slice(0, pixels), slice(0, pixels))
        written = _best(lambda: write_region(path, "whole", "images", region, images[:1]))
        corner = (slice(0, 1), slice(0, few), slice(0, few))
        written_little = _best(lambda: write_region(path, "small", "images", corner, images[:1, :few, :few]))
        binned = _best(lambda: binned_series(str(path), "whole", 2))
    byte_read, byte_written = (
        max(0.0, much - little) / (4 * (pixels**2 - few**2))
        for much, little in ((read, read_little), (written, written_little))
    )
    cube = rng.random((voxels,) * 3, dtype=np.float32)
    coarse = CoarseFilm.of((0, 0, 0), (2 * voxels,) * 3, 2)
    everywhere = np.ones((voxels, voxels), bool)
    overlapping: list[Any] = [((slice(0, voxels), slice(0, voxels)), cube, everywhere) for _ in range(2)]
    return {
        "open": opened,
        "chunk_read": max(0.0, read_little - byte_read * 4 * few**2),
        "byte_read": byte_read,
        "chunk_written": max(0.0, written_little - byte_written * 4 * few**2),
        "byte_written": byte_written,
        "pixel_binned": binned / images.size,
        "voxel_started": _best(lambda: start_volume(cube, coarse, (0, 0, 0), (voxels, 2 * voxels, 2 * voxels)))
        / (4 * voxels**3),
        "voxel_textured": _best(lambda: height_and_thickness(cube, np.arange(voxels) * 1.0, 1.0)) / voxels**3,
        "voxel_compared": _best(lambda: compare_pairs(overlapping, cube.shape)) / voxels**3,
    }


def time_trace(voxels: int) -> float:
    """Seconds for a voxel of a block of peaks, some 40 voxels each, as in a volume of atoms."""
    from scipy.ndimage import gaussian_filter

    from ..trace import find_peaks

    points = np.random.default_rng(1).random((voxels,) * 3) < 1.0 / 40
    density = gaussian_filter(points.astype(np.float32), 1.5)
    axis = np.arange(voxels) * 0.35
    coords = {name: (name, axis, {"units": "angstrom"}) for name in "zyx"}
    volume = xr.Dataset({"density": (("z", "y", "x"), density, {"units": "1"})}, coords)
    return _best(lambda: find_peaks(volume, floor=0.1 * float(density.max()))) / voxels**3


def _best(function: Callable[[], Any], repeats: int = 3) -> float:
    """Median CPU seconds of a few calls after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return float(np.median(times))


def _own_bytes() -> int:
    """What this process holds, with everything loaded that a worker loads."""
    import gc

    import distributed.nanny
    import distributed.worker

    from ..reconstruct import scan

    assert distributed.nanny and distributed.worker and scan
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    print(json.dumps(time_kernels(json.load(sys.stdin), psutil.Process().create_time())))
