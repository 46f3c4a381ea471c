"""A volume that one worker cannot hold: every worker keeps a slab, only detector rows travel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from ..blocks.slabs import Slab, keeper, plan_slabs, slab_chunks
from ..blocks.windows import current_client
from ..errors import CapacityError, InputError
from ..geometry import ParallelGeometry
from ..io import Record, Store
from ..progress import report
from ..schema import VOLUME, with_units
from .descent import next_momentum
from .film import SERIES
from .grid import Field, volume_grid
from .resire import check_solver, step_length, tilt_weights
from .slab_workers import SlabWorkers, WorkerLost, worker_table
from .solvers import eigenvalue_for

if TYPE_CHECKING:
    from distributed import Client

VOLUME_GROUP = "volume"
CHECKPOINTS = "checkpoint"
#: Written in turns: the one before is complete while the next is made.
_TURNS = (f"{CHECKPOINTS}/even", f"{CHECKPOINTS}/odd")
SLAB_SOLVERS = ("fista", "published")
SHARE = 0.6  # of a worker's memory: from there on Dask moves what it keeps to the disk
_ATTEMPTS = 3  # at the same iterations; a worker that is lost every time is lost for a reason
_REPLACEMENT_SECONDS = 60.0  # for a lost worker to come back


def reconstruct_slabs(
    store: Store,
    *,
    shape: tuple[int, int, int] | None = None,
    thickness: float | None = None,
    solver: str = "fista",
    iterations: int = 40,
    step: float | None = None,
    positivity: bool = True,
    support: str | None = None,
    start: str | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
    tolerance: float = 0.0,
    slabs: int | str = "auto",
    checkpoint_every: int = 10,
    on_iteration: Callable[[int, float], None] | None = None,
    series: str = SERIES,
    client: Any = None,
) -> dict[str, Any]:
    """Computes: a volume by RESIRE over the workers of a cluster, each of which keeps a slab of it.

    Parameters
    ----------
    store : Store
        Open for writing, with the tilt series. The result is written as ``volume``, by the workers.
    shape, thickness, iterations, step, positivity, weights, tolerance, on_iteration : optional
        See `reconstruct_resire`.
    solver : {"fista", "published"}
        Momentum with restart, or the paper's descent.
    support : str, optional
        Group of the store with a variable ``support`` (z, y, x) bool: the volume is 0 where it is False.
    start : str, optional
        Group of the store with a variable ``density`` (z, y, x) to start from; zeros by default.
    slabs : int or "auto"
        Cut the volume along y, the tilt axis, into so many slabs, which the workers keep. "auto": one for
        each worker, or more where that saves enough scratch memory to fit.
    checkpoint_every : int
        Iterations in slabs from one checkpoint in the store to the next (10 if nothing is said): the most that a
        kill can lose.
    series : str
        Group of the tilt series.
    client : distributed.Client, optional
        The current one by default.

    Returns
    -------
    dict
        ``r_factor_mean`` (eq. 4 over measured pixels, mean over tilts), ``n_slabs``, ``n_workers``,
        ``iterations`` that made the volume, ``n_iterations_computed`` by this call, those repeated after
        the loss of a worker included.

    Raises
    ------
    InputError
        If an option is unknown or out of range, there is no cluster, or nothing was measured.
    CapacityError
        If the slabs do not fit into the workers, or workers are lost again and again.

    Notes
    -----
    The same iterations as in one piece, to rounding. A slab's projections reach its own detector rows and,
    by off-axis angles, a few of its neighbours'. In every iteration each slab steps down the gradient from the
    residuals of the rows that it reaches, and projects; the owner of a row adds up what the slabs give to it
    and holds that against the images. Volumes stay where they are; the driver sees only sums over pixels.
    A checkpoint is what the next iterations start from, so the graph never spans more than `checkpoint_every`
    of them. When a worker is lost, the others' slabs are dropped and all go on from the checkpoint.
    """
    client = client or current_client()
    if client is None:
        raise InputError("Slabs need the workers of a cluster and there is none; add --workers N, or leave slabs out.")
    check_solver(solver, iterations, tolerance)
    if solver not in SLAB_SOLVERS:
        raise InputError(f"Solver {solver!r} does not work in slabs; choose one of {', '.join(SLAB_SOLVERS)}.")
    if int(checkpoint_every) != checkpoint_every or checkpoint_every < 1:
        raise InputError(f"checkpoint_every came as {checkpoint_every}; needed is a whole number, at least 1.")
    measured = Field.of(store.read(series))
    first, grid = volume_grid(measured, shape, thickness)
    geometry = measured.geometry(first, grid)
    relative = tilt_weights(weights, geometry.n_tilts)
    _plan(client, geometry, slabs)  # refuses before anything is computed
    _check_on_grid(store, support, "support", grid)
    if support is not None and not bool(store.read(support)["support"].any()):
        raise InputError("The support is empty: no voxel may differ from 0; give a support with at least one True.")
    _check_on_grid(store, start, "density", grid)
    settings = {
        "first": first, "shape": grid, "solver": solver, "step": step, "positivity": positivity,
        "series": series, "support": support, "start": start, "weights": relative, "tolerance": tolerance,
    }  # fmt: skip
    inputs = {name: store.digest(name) for name in (series, support, start) if name is not None}
    problem = _Problem(store, geometry, measured.pixel_size, settings, inputs)
    begin = problem.latest(iterations)
    if begin is None:
        eigenvalue = eigenvalue_for(solver, geometry, relative)
        begin = _Progress(step_length(solver, step, geometry.n_tilts * grid[0], eigenvalue))
    computed, attempts, reached = 0, 0, -1
    while True:
        known = problem.latest(iterations) or begin
        attempts = 1 if known.iteration > reached else attempts + 1
        progress, reached = known, known.iteration
        if attempts > _ATTEMPTS:
            raise CapacityError(
                f"Workers were lost {_ATTEMPTS} times after iteration {reached} of {iterations}; look into their logs, "
                "give each more memory (--memory-limit), and run again: it goes on from there."
            )
        plan = _plan(client, geometry, slabs)
        try:
            with contextlib.closing(problem.on_workers(client, plan, known)) as workers:
                for progress in _iterate(workers, problem, known, iterations, tolerance, checkpoint_every):
                    computed += 1
                    if on_iteration is not None:
                        on_iteration(progress.iteration, progress.mean_r)
                    report(progress.iteration, iterations, "iterations")
                problem.write_volume(workers, progress)
            break
        except WorkerLost:
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(plan.n_workers, timeout=_REPLACEMENT_SECONDS)
    store.delete(CHECKPOINTS)
    return {
        "r_factor_mean": progress.mean_r,
        "n_slabs": len(plan.slabs),
        "n_workers": plan.n_workers,
        "iterations": progress.iteration,
        "n_iterations_computed": computed,
    }


# -- who keeps what --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """The slabs, and the address of the worker that keeps each."""

    slabs: tuple[Slab, ...]
    hosts: tuple[str, ...]

    @property
    def n_workers(self) -> int:
        """Workers that keep a slab."""
        return len(set(self.hosts))


def _plan(client: Client, geometry: ParallelGeometry, slabs: int | str) -> _Plan:
    """Slabs for the workers that are there.

    Raises
    ------
    CapacityError
        If they do not fit, or there are no workers.
    """
    table = worker_table(client)
    if not table:
        raise CapacityError("The cluster has no workers; start some and run again.")
    addresses = sorted(table)
    threads = max(worker["nthreads"] for worker in table.values())
    cut = plan_slabs(geometry, len(addresses), worker_memory(table), slabs=slabs, threads=threads)
    return _Plan(cut, tuple(addresses[keeper(i, len(cut), len(addresses))] for i in range(len(cut))))


def worker_memory(table: dict[str, Any]) -> int:
    """Bytes that slabs may take in the smallest worker: what Dask keeps in memory before it moves data to the disk."""
    import psutil

    free = int(psutil.virtual_memory().available) // len(table)
    return int(SHARE * min((worker["memory_limit"] or free) for worker in table.values()))


def _check_on_grid(store: Store, group: str | None, variable: str, grid: tuple[int, int, int]) -> None:
    if group is None:
        return
    if not isinstance(group, str):
        raise InputError(f"{variable} came as a {type(group).__name__}; in slabs needed is the name of its group.")
    dataset = store.read(group)
    if variable not in dataset:
        raise InputError(f"{group!r} has no variable {variable!r}; name a group that has one.")
    if dataset[variable].shape != grid:
        raise InputError(
            f"{group}/{variable} has the shape {dataset[variable].shape}; the volume has {grid} (z, y, x)."
        )


# -- how far it is ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Progress:
    """What the driver knows after so many iterations; the group of the store that began them."""

    step_length: float
    iteration: int = 0
    time: float = 1.0
    error: float = float("inf")
    r_factor: list[np.ndarray] = field(default_factory=list)
    group: str | None = None

    @property
    def mean_r(self) -> float:
        """R-factor, eq. 4, mean over the tilts."""
        r = self.r_factor[-1] if self.r_factor else np.array([])
        return float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")


def _iterate(
    workers: SlabWorkers, problem: _Problem, progress: _Progress, iterations: int, tolerance: float, every: int
) -> Iterator[_Progress]:
    """The progress after each iteration; keeps checkpoints, and goes on from them."""
    while progress.iteration < iterations:
        last_r = progress.mean_r
        progress = _step(workers, problem, progress)
        yield progress
        if 0 <= last_r - progress.mean_r < tolerance * last_r:
            return
        if progress.iteration % every == 0 and progress.iteration < iterations:
            progress = problem.save(workers, progress)
            problem.load(workers, progress)


def _step(workers: SlabWorkers, problem: _Problem, progress: _Progress) -> _Progress:
    """One iteration: what `Fista.step` and `Published.step` do, over the workers."""
    accelerated = problem.settings["solver"] == "fista"
    time, momentum = next_momentum(progress.time) if accelerated else (1.0, 0.0)
    sums = workers.step(momentum)
    error = float(problem.weights @ sums[:, 1])
    if accelerated and error > progress.error:
        time, _ = next_momentum(1.0)
        workers.restart()
    r = np.divide(sums[:, 0], workers.totals, out=np.full(len(sums), np.nan), where=workers.totals > 0)
    return replace(progress, iteration=progress.iteration + 1, time=time, error=error, r_factor=[*progress.r_factor, r])


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is solved, whatever the number of slabs or iterations, and the store that keeps it."""

    store: Store
    geometry: ParallelGeometry
    pixel_size: float
    settings: dict[str, Any]
    inputs: dict[str, str]

    @property
    def weights(self) -> np.ndarray:
        """Weights of the tilts, (tilt,) float64, of mean 1."""
        weights = self.settings["weights"]
        return np.ones(self.geometry.n_tilts) if weights is None else weights

    def record(self, iteration: int) -> Record:
        """Record of the volumes after an iteration."""
        return Record("reconstruct", {**self.settings, "iteration": iteration}, self.inputs)

    def on_workers(self, client: Client, plan: _Plan, progress: _Progress) -> SlabWorkers:
        """Slabs as far as the progress says."""
        settings, factors = self.settings, (progress.step_length * self.weights).astype(np.float32)
        workers = SlabWorkers(
            client, plan.hosts, plan.slabs, self.geometry, str(self.store.path), settings["series"],
            settings["support"], settings["positivity"], factors,
        )  # fmt: skip
        self.load(workers, progress)
        return workers

    def load(self, workers: SlabWorkers, progress: _Progress) -> None:
        """Volumes from the last checkpoint, or from the start."""
        if progress.group is None:
            workers.load(self.settings["start"], ("density", "density"))
        else:
            workers.load(progress.group, ("iterate", "ahead"))

    def latest(self, iterations: int) -> _Progress | None:
        """The last complete checkpoint of this very problem, at most `iterations` along."""
        best = None
        for group in _TURNS:
            held = self.store.record(group)
            iteration = -1 if held is None else held.parameters.get("iteration", -1)
            if not (best.iteration if best else 0) < iteration <= iterations:
                continue
            if held is not None and held.digest == self.record(iteration).digest:
                stored = self.store.read(group)
                length, time, error = (stored.attrs[name] for name in ("step_length", "time", "error"))
                best = _Progress(length, iteration, time, error, list(stored["r_factor"].values), group)
        return best

    def save(self, workers: SlabWorkers, progress: _Progress) -> _Progress:
        """Make a checkpoint; the one before stays until the next."""
        group = next(turn for turn in _TURNS if turn != progress.group)
        knows = {"step_length": progress.step_length, "time": progress.time, "error": progress.error}
        self._write(workers, progress, group, ("iterate", "ahead"), knows)
        return replace(progress, group=group)

    def write_volume(self, workers: SlabWorkers, progress: _Progress) -> None:
        """Write the iterate as the result."""
        self._write(workers, progress, VOLUME_GROUP, ("density",), {"stop": "fixed", "iterations": progress.iteration})

    def _write(
        self, workers: SlabWorkers, progress: _Progress, group: str, names: tuple[str, ...], attrs: dict[str, Any]
    ) -> None:
        shape = self.geometry.volume_shape
        empty = da.zeros(shape, dtype=np.float32, chunks=slab_chunks(shape, workers.slabs[0].height))
        template = xr.Dataset(
            {name: (("z", "y", "x"), empty) for name in names},
            {
                axis: (np.arange(n) + start) * self.pixel_size
                for axis, n, start in zip("zyx", shape, self.geometry.volume_start, strict=True)
            },
            attrs,
        )
        r_factor = np.array(progress.r_factor).reshape(progress.iteration, -1)
        template["r_factor"] = ("iteration", "tilt"), r_factor
        record = self.record(progress.iteration)
        self.store.begin(group, with_units(template, VOLUME), record=record)
        workers.write(group, record.digest, names)
        self.store.finish(group)
