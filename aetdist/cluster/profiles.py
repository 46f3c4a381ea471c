"""The one way in: a client of the cluster that a word, an address or a file names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dask.utils import parse_bytes

from ..errors import InputError
from .allocation import mpi_allocation, slurm_allocation
from .batch import CLASSES, batch_workers
from .kubernetes import kubernetes_workers
from .local import current_client, local_workers
from .scheduler import scheduler_at
from .workers import check_workers

if TYPE_CHECKING:
    from distributed import Client

    from ..io.places import Place

PROFILES = (*CLASSES, "slurm-runner", "mpi", "kubernetes")
"""Names that `connect` knows; each opens a port for workers on other nodes."""


@contextmanager
def connect(
    cluster: str | Path | None = None,
    *,
    workers: int | None = None,
    memory_limit: str | int | None = None,
    insecure: bool = False,
    store: str | Place | None = None,
    timeout: float = 10.0,
) -> Iterator[Client]:
    """A client of the cluster that `cluster` names, closed (with what was started for it) at the end.

    Parameters
    ----------
    cluster : str or Path, optional
        Nothing: the client that is already current, used as it is, or else a new cluster on this
        machine, bound to 127.0.0.1, with one single-threaded worker per core and all the memory.
        ``tcp://host:port`` or ``tls://host:port``: a scheduler that is up. A path: its scheduler
        file. ``slurm``, ``pbs``, ``lsf`` or ``sge``: jobs of that batch system, as the Dask
        configuration says under ``jobqueue``. ``slurm-runner`` or ``mpi``: the processes of the
        allocation that all run this program; only the second of them returns from here.
        ``kubernetes``: pods, from the manifest that the Dask configuration names. All these start
        from a file of ``deploy/``.
    workers : int, optional
        On this machine: how many worker processes. Of a scheduler or an allocation: wait for that
        many. Of a batch system: how many to keep (needed).
    memory_limit : str or int, optional
        Memory of each worker on this machine or of one allocation, such as ``"4GB"``; the default
        shares all there is.
    insecure : bool, default False
        Of a profile: plain TCP, open to everyone who reaches the scheduler's port, instead of TLS
        with temporary certificates.
    store : str or Path, optional
        The store to work on: workers elsewhere are asked whether they see it.
    timeout : float
        Seconds to wait for a scheduler and for its workers.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        If nobody answers, a profile is unknown or not installed, a number makes no sense, or a
        worker is unfit (`check_workers`).

    Notes
    -----
    Worker processes import the main module: a script that calls this needs a real file with
    ``if __name__ == "__main__":`` around its work.
    """
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers were asked for; needed is at least 1.")
    memory = _memory(memory_limit)
    name = str(cluster)
    if insecure and name.lower() not in PROFILES:
        raise InputError(
            f"--insecure is for profiles ({', '.join(PROFILES)}); workers on this machine listen on 127.0.0.1 only, "
            "and an address says itself whether it is tcp:// or tls://."
        )
    if cluster is None:
        current = current_client()
        if current is not None:
            yield current
            return
        with local_workers(workers, memory) as client:
            yield client
        return
    allocations = {"slurm-runner": slurm_allocation, "mpi": mpi_allocation}
    if memory is not None and name.lower() not in allocations:
        raise InputError(
            f"A memory limit holds for workers on this machine or of one allocation, but the cluster is {name!r}; "
            "say how much memory a worker has where the workers are started."
        )
    if name.lower() in allocations:
        there = allocations[name.lower()](workers, memory, insecure, timeout)
    elif name.lower() in CLASSES:
        there = batch_workers(name.lower(), workers, insecure)
    elif name.lower() == "kubernetes":
        there = kubernetes_workers(workers, insecure, timeout)
    else:
        there = scheduler_at(name, workers, timeout, ", ".join(PROFILES))
    with there as client:
        check_workers(client, store)
        yield client


def _memory(limit: str | int | None) -> int | None:
    if limit is None:
        return None
    try:
        memory = int(parse_bytes(limit))
    except ValueError:
        memory = 0
    if memory < 100_000_000:
        raise InputError(
            f"A memory limit of {limit!r} came; needed is the memory of one worker such as '4GB' (at least 100 MB)."
        )
    return memory
