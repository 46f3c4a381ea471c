"""A volume that one worker cannot hold: every worker keeps a slab, only detector rows travel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from ..blocks.slabs import Slab, keeper, plan_slabs, slab_chunks, slab_geometry
from ..blocks.windows import current_client
from ..errors import CapacityError, InputError
from ..geometry import ParallelGeometry
from ..io import Record, Store
from ..progress import report
from ..schema import VOLUME, with_units
from . import slab_tasks as tasks
from .descent import _next_momentum as next_momentum
from .grid import Field, volume_grid
from .resire import check_solver, step_length
from .solvers import largest_eigenvalue

if TYPE_CHECKING:
    from distributed import Client, Future

SERIES, FILM, CHECKPOINTS = "tilt_series/aligned", "volume", "checkpoint"
SLAB_SOLVERS = ("fista", "published")
_SHARE = 0.6  # of a worker's memory: from there on Dask moves what it keeps to the disk
_ATTEMPTS = 3  # at the same iterations; a worker that is lost every time is lost for a reason
_REPLACEMENT_SECONDS = 60.0  # for a lost worker to come back
_POLL_SECONDS = 1.0


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
    tolerance: float = 0.0,
    slabs: int | str = "auto",
    checkpoint_every: int = 10,
    on_iteration: Callable[[int, float], None] | None = None,
    client: Client | None = None,
) -> dict[str, Any]:
    """Computes: a volume by RESIRE over the workers of a cluster, each of which keeps a slab of it.

    Parameters
    ----------
    store : Store
        Open for writing, with the group ``tilt_series/aligned``. The result is written as ``volume``, by the
        workers.
    shape, thickness, solver, iterations, step, positivity, tolerance, on_iteration
        See `reconstruct_resire`; the solver is "fista" or "published".
    support : str, optional
        Group of the store with a variable ``support`` (z, y, x) bool: the volume is 0 where it is False.
    start : str, optional
        Group of the store with a variable ``density`` (z, y, x) to start from; zeros by default.
    slabs : int or "auto"
        Into how many slabs the volume is cut along y, the tilt axis. "auto": one per worker, or more where
        that saves enough scratch memory to fit.
    checkpoint_every : int
        Iterations between two checkpoints in the store, which are the most that a kill can lose.
    client : distributed.Client, optional
        The current one by default.

    Returns
    -------
    dict
        ``r_factor_mean`` (eq. 4 over measured pixels, mean over tilts), ``n_slabs``, ``n_workers``,
        ``n_iterations`` that made the volume, ``n_iterations_computed`` by this call, those repeated after
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
    residuals of the rows that it reaches and projects; the owner of a row adds up what the slabs give to it and
    holds that against the images. Volumes stay where they are; the driver sees only sums over pixels.
    A checkpoint is what the next iterations start from, so the graph never spans more than `checkpoint_every`
    of them. When a worker is lost the others' slabs are dropped and all go on from the checkpoint.
    """
    client = client or current_client()
    if client is None:
        raise InputError("Slabs need the workers of a cluster and there is none; add --workers N, or leave slabs out.")
    check_solver(solver, iterations, tolerance)
    if solver not in SLAB_SOLVERS:
        raise InputError(f"Solver {solver!r} does not work in slabs; choose one of {', '.join(SLAB_SOLVERS)}.")
    if int(checkpoint_every) != checkpoint_every or checkpoint_every < 1:
        raise InputError(f"checkpoint_every came as {checkpoint_every}; needed is a whole number, at least 1.")
    tilt_series = Field.of(store.read(SERIES))
    first, grid = volume_grid(tilt_series, shape, thickness)
    geometry = tilt_series.geometry(first, grid)
    _plan(client, geometry, slabs)  # refuses before anything is computed
    _check_on_grid(store, support, "support", grid)
    _check_on_grid(store, start, "density", grid)
    inputs = {name: store.digest(name) for name in (SERIES, support, start) if name is not None}
    settings = {"first": first, "shape": grid, "solver": solver, "step": step, "positivity": positivity}
    record = Record("reconstruct", settings, inputs)
    problem = _Problem(store, geometry, tilt_series.pixel_size, record, solver, positivity, support, start)
    begin = problem.latest(iterations)
    if begin.group is None:
        length = step_length(solver, step, geometry.n_tilts * grid[0], largest_eigenvalue(geometry))
        begin = _Progress(step_length=length)
    computed, attempts, reached = 0, 0, -1
    while True:
        latest = problem.latest(iterations)
        progress = latest if latest.group else begin
        attempts = 1 if progress.iteration > reached else attempts + 1
        reached = progress.iteration
        if attempts > _ATTEMPTS:
            raise CapacityError(
                f"Workers were lost {_ATTEMPTS} times after iteration {reached} of {iterations}; look into their logs, "
                "give each more memory (--memory-limit), and run again: it goes on from there."
            )
        plan = _plan(client, geometry, slabs)
        try:
            with contextlib.closing(_Workers(client, problem, plan, progress)) as workers:
                for _ in _iterate(workers, iterations, tolerance, checkpoint_every):
                    computed += 1
                    if on_iteration is not None:
                        on_iteration(workers.progress.iteration, workers.progress.mean_r)
                    report(workers.progress.iteration, iterations, "iterations")
                workers.write_volume()
                progress = workers.progress
            break
        except _WorkerLost:
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(len(set(plan.hosts)), timeout=_REPLACEMENT_SECONDS)
    store.delete(CHECKPOINTS)
    return {
        "r_factor_mean": progress.mean_r,
        "n_slabs": len(plan.slabs),
        "n_workers": len(set(plan.hosts)),
        "n_iterations": progress.iteration,
        "n_iterations_computed": computed,
    }


# -- what is solved, and how far it is -----------------------------------------------------------------


@dataclass(frozen=True)
class _Progress:
    """What the solver knows beside the volumes, after so many iterations; the group that holds these."""

    step_length: float = float("nan")
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


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is solved and where it is kept; ``record`` is of the problem, whatever the number of slabs or iterations."""

    store: Store
    geometry: ParallelGeometry
    pixel_size: float
    record: Record
    solver: str
    positivity: bool
    support: str | None
    start: str | None

    @property
    def path(self) -> str:
        """The store's folder."""
        return str(self.store.path)

    def checkpoint_record(self, iteration: int) -> Record:
        """Record of the volumes after an iteration."""
        return replace(self.record, parameters={**self.record.parameters, "iteration": iteration})

    def latest(self, iterations: int) -> _Progress:
        """The last complete checkpoint of this very problem, at most `iterations` along."""
        best = _Progress()
        for group in self.checkpoint_groups():
            held = self.store.record(group)
            if held is None:
                continue
            iteration = held.parameters.get("iteration", -1)
            if best.iteration < iteration <= iterations and held.digest == self.checkpoint_record(iteration).digest:
                stored = self.store.read(group)
                r_factor = list(stored["r_factor"].values)
                length, time, error = (stored.attrs[name] for name in ("step_length", "time", "error"))
                best = _Progress(length, iteration, time, error, r_factor, group)
        return best

    @staticmethod
    def checkpoint_groups() -> tuple[str, str]:
        """Two, in turns: the one before is complete while the next is written."""
        return f"{CHECKPOINTS}/even", f"{CHECKPOINTS}/odd"


def _check_on_grid(store: Store, group: str | None, variable: str, grid: tuple[int, int, int]) -> None:
    if group is None:
        return
    dataset = store.read(group)
    found = dataset[variable].shape if variable in dataset else None
    if found != grid:
        raise InputError(
            f"{group}/{variable} has the shape {found}; the volume has {grid} (z, y, x)."
            if found
            else f"{group!r} has no variable {variable!r}; name a group that has one."
        )


# -- the workers ---------------------------------------------------------------------------------------


class _WorkerLost(Exception):
    """A worker that keeps a slab is gone."""


@dataclass(frozen=True)
class _Plan:
    """The slabs, and the address of the worker that keeps each."""

    slabs: tuple[Slab, ...]
    hosts: tuple[str, ...]


def _plan(client: Client, geometry: ParallelGeometry, slabs: int | str) -> _Plan:
    """Slabs for the workers that are there.

    Raises
    ------
    CapacityError
        If they do not fit, or there are no workers.
    """
    addresses = sorted(worker_table(client))
    if not addresses:
        raise CapacityError("The cluster has no workers; start some and run again.")
    threads = max(w["nthreads"] for w in worker_table(client).values())
    cut = plan_slabs(geometry, len(addresses), worker_memory(client), slabs=slabs, threads=threads)
    return _Plan(cut, tuple(addresses[keeper(i, len(cut), len(addresses))] for i in range(len(cut))))


def worker_table(client: Client) -> dict[str, Any]:
    """The workers that are there, by address."""
    return dict(client.scheduler_info(n_workers=-1)["workers"])


def worker_memory(client: Client) -> int:
    """Bytes that slabs may take in the smallest worker: what Dask keeps in memory before it moves data to the disk."""
    import psutil

    workers = worker_table(client).values()
    free = int(psutil.virtual_memory().available) // max(1, len(workers))
    return int(_SHARE * min((w["memory_limit"] or free) for w in workers))


def _iterate(workers: _Workers, iterations: int, tolerance: float, every: int) -> Iterator[None]:
    """Iterate and keep checkpoints; yields after each iteration."""
    while workers.progress.iteration < iterations:
        last_r = workers.progress.mean_r
        workers.step()
        yield
        progress = workers.progress
        if 0 <= last_r - progress.mean_r < tolerance * last_r:
            return
        if progress.iteration % every == 0 and progress.iteration < iterations:
            workers.save()
            workers.load()


class _Workers:
    """The slabs on the workers: futures of one iteration, replaced by those of the next."""

    def __init__(self, client: Client, problem: _Problem, plan: _Plan, progress: _Progress) -> None:
        self.client, self.problem, self.plan, self.progress = client, problem, plan, progress
        slabs = plan.slabs
        self.numbers = range(len(slabs))
        self.shared = {(i, j): s for i in self.numbers for j in self.numbers if (s := slabs[j].shared(slabs[i]))}
        self.factors = np.full(problem.geometry.n_tilts, progress.step_length, np.float32)
        self.projectors = [
            self._submit(i, tasks.make_projector, slab_geometry(problem.geometry, slabs[i])) for i in self.numbers
        ]
        self.measured = [self._submit(i, tasks.read_measured, problem.path, SERIES, slabs[i].own) for i in self.numbers]
        self.support: Sequence[Future | None] = [None] * len(slabs)
        if problem.support is not None:
            self.support = [
                self._submit(i, tasks.read_support, problem.path, problem.support, slabs[i].rows) for i in self.numbers
            ]
        self.states: list[Future] = []
        self.held: list[Future] = []
        self.at_iterate = False
        found = self._results([self._submit(i, tasks.own_totals, self.measured[i]) for i in self.numbers])
        self.totals = np.sum([totals for totals, _ in found], axis=0)
        if not any(n for _, n in found):
            raise InputError("The mask is False everywhere: no pixel counts as measured; check the mask's meaning.")
        self.load()

    def close(self) -> None:
        """Let go of everything on the workers."""
        self.projectors, self.measured, self.support, self.states, self.held = [], [], [], [], []

    # -- one iteration -------------------------------------------------------------------------------

    def step(self) -> None:
        """One iteration of every slab (`Fista.step` and `Published.step` over the workers)."""
        time, momentum = next_momentum(self.progress.time) if self.problem.solver == "fista" else (1.0, 0.0)
        moved = [
            self._submit(
                j, tasks.advance, self.projectors[j], self.states[j], self._residuals(j), self.support[j],
                self.problem.positivity, momentum, self.at_iterate,
            )
            for j in self.numbers
        ]  # fmt: skip
        self.states, self.at_iterate = moved, False
        pieces = self._projections(0)
        self.held = [
            self._submit(i, tasks.hold, self.measured[i], self.factors, pieces[i], self.held[i], momentum)
            for i in self.numbers
        ]
        sums = np.sum(self._results([self._submit(i, tasks.own_sums, self.held[i]) for i in self.numbers]), axis=0)
        error = float(sums[:, 1].sum())
        if self.problem.solver == "fista" and error > self.progress.error:
            time, _ = next_momentum(1.0)
            self.at_iterate = True
            self.held = [
                self._submit(i, tasks.hold_again, self.measured[i], self.factors, self.held[i]) for i in self.numbers
            ]
        r = np.divide(sums[:, 0], self.totals, out=np.full(len(sums), np.nan), where=self.totals > 0)
        done = self.progress.iteration + 1
        self.progress = replace(
            self.progress, iteration=done, time=time, error=error, r_factor=[*self.progress.r_factor, r]
        )

    def _residuals(self, j: int) -> list[tuple[int, int, Future]]:
        """The residuals on the rows that slab `j` reaches, cut by their owners."""
        pieces = []
        for (i, k), (low, high) in self.shared.items():
            if k == j:
                own, seen = self.plan.slabs[i].own[0], self.plan.slabs[j].seen[0]
                cut = self._submit(i, tasks.cut_residual, self.held[i], low - own, high - own)
                pieces.append((low - seen, high - seen, cut))
        return pieces

    def _projections(self, which: int) -> list[list[tuple[int, int, Future]]]:
        """What the slabs' iterates (0) or extrapolated volumes (1) give to the rows of every owner."""
        pieces: list[list[tuple[int, int, Future]]] = [[] for _ in self.numbers]
        parts = [self._submit(j, tasks.project, self.projectors[j], self.states[j], which) for j in self.numbers]
        for (i, j), (low, high) in self.shared.items():
            own, seen = self.plan.slabs[i].own[0], self.plan.slabs[j].seen[0]
            cut = self._submit(j, tasks.cut_rows, parts[j], low - seen, high - seen)
            pieces[i].append((low - own, high - own, cut))
        return pieces

    # -- the store -----------------------------------------------------------------------------------

    def load(self) -> None:
        """Volumes from the last checkpoint or the start, and how they compare with the images."""
        problem, group = self.problem, self.progress.group
        source, names = (group, ("iterate", "ahead")) if group else (problem.start, ("density", "density"))
        nz, _, nx = problem.geometry.volume_shape
        self.states, self.held = [], []
        self.states = [
            self._submit(i, tasks.read_state, problem.path, source, names, slab.rows, (nz, slab.height, nx))
            for i, slab in enumerate(self.plan.slabs)
        ]
        self.at_iterate = False
        self.held = self._hold(1)
        if group:
            here = self._hold(0)
            self.held = [self._submit(i, tasks.join, here[i], self.held[i]) for i in self.numbers]

    def _hold(self, which: int) -> list[Future]:
        pieces = self._projections(which)
        return [self._submit(i, tasks.hold, self.measured[i], self.factors, pieces[i]) for i in self.numbers]

    def save(self) -> None:
        """A checkpoint, which the next iterations start from; the one before stays until the next."""
        progress, store = self.progress, self.problem.store
        group = next(name for name in self.problem.checkpoint_groups() if name != progress.group)
        knows = {"step_length": progress.step_length, "time": progress.time, "error": progress.error}
        template = self._template(("iterate", "ahead")).assign_attrs(knows)
        record = self.problem.checkpoint_record(progress.iteration)
        store.begin(group, template, record=record)
        self._write(group, record, ("iterate", "ahead"))
        store.finish(group)
        self.progress = replace(progress, group=group)

    def write_volume(self) -> None:
        """The iterates of all slabs, as the group ``volume``."""
        store, record = self.problem.store, self.problem.checkpoint_record(self.progress.iteration)
        store.begin(FILM, with_units(self._template(("density",)), VOLUME), record=record)
        self._write(FILM, record, ("density",))
        store.finish(FILM)

    def _write(self, group: str, record: Record, names: tuple[str, ...]) -> None:
        written = [
            self._submit(
                i, tasks.write_state, self.problem.path, group, record.digest, slab.rows, self.states[i], names,
                self.at_iterate,
            )
            for i, slab in enumerate(self.plan.slabs)
        ]  # fmt: skip
        self._results(written)

    def _template(self, names: tuple[str, ...]) -> xr.Dataset:
        geometry, n = self.problem.geometry, self.progress.iteration
        chunks = slab_chunks(geometry.volume_shape, self.plan.slabs[0].height)
        volumes = {
            name: (("z", "y", "x"), da.zeros(geometry.volume_shape, np.float32, chunks=chunks)) for name in names
        }
        coords = {
            axis: (np.arange(size) + start) * self.problem.pixel_size
            for axis, size, start in zip("zyx", geometry.volume_shape, geometry.volume_start, strict=True)
        }
        r_factor = np.array(self.progress.r_factor).reshape(n, geometry.n_tilts)
        return xr.Dataset({**volumes, "r_factor": (("iteration", "tilt"), r_factor)}, coords)

    # -- the client ----------------------------------------------------------------------------------

    def _submit(self, i: int, function: Callable[..., Any], *arguments: Any) -> Future:
        """A task of the worker that keeps slab `i`: the memory of the others was not planned for it."""
        return self.client.submit(function, *arguments, workers=[self.plan.hosts[i]], pure=False)

    def _results(self, futures: list[Future]) -> list[Any]:
        """Results of small tasks.

        Raises
        ------
        _WorkerLost
            If a worker that keeps a slab is gone.
        """
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        results = []
        for future in futures:
            while True:
                try:
                    results.append(future.result(timeout=_POLL_SECONDS))
                    break
                except TimeoutError:
                    if not set(self.plan.hosts) <= set(worker_table(self.client)):
                        raise _WorkerLost from None
                except (CancelledError, KilledWorker) as error:
                    raise _WorkerLost from error
        return results
