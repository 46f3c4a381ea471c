"""The slabs on the workers of a cluster, as futures of one iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..blocks.slabs import Slab, slab_geometry
from ..geometry import ParallelGeometry
from . import slab_tasks as tasks
from .grid import require_measured

if TYPE_CHECKING:
    from distributed import Client, Future

_POLL_SECONDS = 1.0


class WorkerLost(Exception):
    """A worker that keeps a slab is gone; the driver begins again at the last checkpoint."""


def worker_table(client: Client) -> dict[str, Any]:
    """What the scheduler says of every worker that is there (memory, threads ...), by address."""
    return dict(client.scheduler_info(n_workers=-1)["workers"])


class SlabWorkers:
    """Slabs and detector rows, each kept by one worker: the futures of one iteration, replaced by those of the next.

    Parameters
    ----------
    client : distributed.Client
    hosts : sequence of str
        Address of the worker that keeps each slab.
    slabs : sequence of Slab
    geometry : ParallelGeometry
        Of the whole volume.
    path, series : str
        The store and its group with the images.
    support : str, optional
        Group with the variable ``support``.
    positivity : bool
    factors : ndarray, shape (tilt,), float32
        Step length times weight of each tilt.

    Attributes
    ----------
    totals : ndarray, shape (tilt,), float64
        Sum of |b| over the measured pixels.

    Raises
    ------
    InputError
        If nothing was measured, or a measured pixel is not a finite number.
    WorkerLost
        If a worker went away meanwhile; from any method.

    Notes
    -----
    Dask remembers what a future was made from until it is let go of, so the chain of iterations grows until
    `load` begins a new one from the store.
    """

    def __init__(
        self,
        client: Client,
        hosts: Sequence[str],
        slabs: Sequence[Slab],
        geometry: ParallelGeometry,
        path: str,
        series: str,
        support: str | None,
        positivity: bool,
        factors: np.ndarray,
    ) -> None:
        self.client, self.hosts, self.slabs, self.path = client, hosts, slabs, path
        self.geometry, self.positivity, self.factors = geometry, positivity, factors
        self._numbers = range(len(slabs))
        self._shared = {
            (i, j): rows for i in self._numbers for j in self._numbers if (rows := slabs[j].shared(slabs[i]))
        }
        self._projectors = self._each(tasks.make_projector, [slab_geometry(geometry, slab) for slab in slabs])
        self._measured = self._each(tasks.read_measured, path, series, [slab.own for slab in slabs])
        self._support: list[Any] = [None] * len(slabs)
        if support is not None:
            self._support = self._each(tasks.read_support, path, support, [slab.rows for slab in slabs])
        self._states: list[Future] = []
        self._held: list[Future] = []
        self._at_iterate = False
        found = self._results(self._each(tasks.own_totals, self._measured))
        self.totals = np.sum([totals for totals, _ in found], axis=0)
        require_measured(np.array([n > 0 for _, n in found]))

    def close(self) -> None:
        """Let go of everything on the workers."""
        self._projectors, self._measured, self._support, self._states, self._held = [], [], [], [], []

    def load(self, group: str | None, names: tuple[str, str]) -> None:
        """Begin anew from a group of the store: its iterate and its extrapolated volume; from zeros without one."""
        nz, _, nx = self.geometry.volume_shape
        shapes = [(nz, slab.height, nx) for slab in self.slabs]
        self._states, self._held = [], []
        rows = [slab.rows for slab in self.slabs]
        self._states = self._each(tasks.read_state, self.path, (group, *names), rows, shapes)
        self._at_iterate = False
        ahead: list[Any] = [[] for _ in self._numbers] if group is None else self._projections(1)
        self._held = self._each(tasks.hold, self._measured, self.factors, ahead)
        if names[0] != names[1]:
            here = self._each(tasks.hold, self._measured, self.factors, self._projections(0))
            self._held = self._each(tasks.join, here, self._held)

    def step(self, momentum: float) -> np.ndarray:
        """One step of every slab down the gradient, extrapolated by `momentum`.

        Returns
        -------
        ndarray, shape (tilt, 4), float64
            Over the measured pixels of a tilt: sum of |residual|, of residual^2; nothing.
        """
        gradient = self._projectors, self._states, self._residuals(), self._support
        self._states = self._each(tasks.advance, *gradient, self.positivity, momentum, self._at_iterate)
        self._at_iterate = False
        del gradient  # the states before: each is dropped as soon as its slab has moved on
        self._held = self._each(tasks.hold, self._measured, self.factors, self._projections(0), self._held, momentum)
        return np.sum(self._results(self._each(tasks.own_sums, self._held)), axis=0)

    def restart(self) -> None:
        """Go on from the iterate, without momentum."""
        self._at_iterate = True
        self._held = self._each(tasks.hold_again, self._measured, self.factors, self._held)

    def write(self, group: str, digest: str, names: tuple[str, ...]) -> None:
        """Write the iterate, and with two names the extrapolated volume too, to a group made as `digest` says."""
        rows = [slab.rows for slab in self.slabs]
        self._results(
            self._each(tasks.write_state, self.path, (group, digest), rows, self._states, names, self._at_iterate)
        )

    # -- what travels ----------------------------------------------------------------------------------

    def _residuals(self) -> list[list[tuple[int, int, Future]]]:
        """For each slab the residuals on the rows that it reaches, cut by their owners."""
        pieces: list[list[tuple[int, int, Future]]] = [[] for _ in self._numbers]
        for (i, j), (low, high) in self._shared.items():
            own, seen = self.slabs[i].own[0], self.slabs[j].seen[0]
            cut = self._submit(i, tasks.cut_residual, self._held[i], low - own, high - own)
            pieces[j].append((low - seen, high - seen, cut))
        return pieces

    def _projections(self, which: int) -> list[list[tuple[int, int, Future]]]:
        """For each owner what the slabs' iterates (0) or extrapolated volumes (1) give to its rows."""
        pieces: list[list[tuple[int, int, Future]]] = [[] for _ in self._numbers]
        parts = self._each(tasks.project, self._projectors, self._states, which)
        for (i, j), (low, high) in self._shared.items():
            own, seen = self.slabs[i].own[0], self.slabs[j].seen[0]
            cut = self._submit(j, tasks.cut_rows, parts[j], low - seen, high - seen)
            pieces[i].append((low - own, high - own, cut))
        return pieces

    # -- the client ------------------------------------------------------------------------------------

    def _each(self, function: Callable[..., Any], *arguments: Any) -> list[Future]:
        """A task for every slab; lists hold an argument for each, the rest is the same for all."""
        return [
            self._submit(i, function, *(a[i] if isinstance(a, list) else a for a in arguments)) for i in self._numbers
        ]

    def _submit(self, i: int, function: Callable[..., Any], *arguments: Any) -> Future:
        """A task of the worker that keeps slab `i`: the memory of the others was not planned for it."""
        return self.client.submit(function, *arguments, workers=[self.hosts[i]], pure=False)

    def _results(self, futures: list[Future]) -> list[Any]:
        """Results of small tasks."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        results = []
        for future in futures:
            while True:
                try:
                    results.append(future.result(timeout=_POLL_SECONDS))
                    break
                except TimeoutError:
                    if not set(self.hosts) <= set(worker_table(self.client)):
                        raise WorkerLost from None
                except (CancelledError, KilledWorker) as error:
                    raise WorkerLost from error
        return results
