"""Where the work runs: this machine, a scheduler that is up, or the batch system of a computing centre."""

from __future__ import annotations

import logging
import math
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes

from .errors import InputError

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

PROFILES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
}
"""Names of profiles and the class of dask-jobqueue behind each."""


def thread_environment(threads: int = 1) -> dict[str, str]:
    """Environment of a worker with `threads` threads: no library takes more than the worker has.

    ``OMP_WAIT_POLICY=passive`` because threads that spin while they wait make the others ten times
    slower on a busy machine.
    """
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(names, str(threads)), "OMP_WAIT_POLICY": "passive"}


@contextmanager
def connect(
    cluster: str | Path | None = None,
    *,
    workers: int | None = None,
    memory_limit: str | int | None = None,
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
        configuration says under ``jobqueue`` (see ``deploy/jobqueue``).
    workers : int, optional
        On this machine: how many worker processes. Of a scheduler: wait for that many. Of a batch
        system: how many to keep (needed).
    memory_limit : str or int, optional
        Memory of each worker on this machine, such as ``"4GB"``; the default shares all there is.
    timeout : float
        Seconds to wait for a scheduler and for its workers.

    Yields
    ------
    distributed.Client

    Raises
    ------
    InputError
        If nobody answers, a profile is unknown or not installed, or a number makes no sense.

    Notes
    -----
    Worker processes import the main module: a script that calls this needs a real file with
    ``if __name__ == "__main__":`` around its work.
    """
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers were asked for; needed is at least 1.")
    memory = _memory(memory_limit)
    if cluster is None:
        current = _current_client()
        if current is not None:
            yield current
            return
        with _local(workers, memory) as client:
            yield client
        return
    if memory is not None:
        raise InputError(
            f"A memory limit holds for workers on this machine, but the cluster is {str(cluster)!r}; "
            "say how much memory a worker has where the workers are started."
        )
    name = str(cluster)
    if name.lower() in PROFILES:
        with _batch(name.lower(), workers) as client:
            yield client
        return
    with _scheduler(name, workers, timeout) as client:
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


def _current_client() -> Client | None:
    from distributed import Client

    try:
        return Client.current()
    except ValueError:
        return None


@contextmanager
def _local(workers: int | None, memory: int | None) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        # Last to unwind: connections that break while everything closes are nothing to report.
        stack.callback(_set_level, logging.getLogger("distributed").level)
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=workers or CPU_COUNT,
                threads_per_worker=1,
                memory_limit=memory or _share(workers or CPU_COUNT),
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                env=thread_environment(1),
                preload=__name__,
                silence_logs=logging.WARNING,
            )
        )
        client = stack.enter_context(Client(cluster))
        stack.callback(_set_level, logging.CRITICAL)
        log.info("workers on this machine: %d, dashboard %s", workers or CPU_COUNT, client.dashboard_link or "off")
        yield client


def dask_setup(worker: Any) -> None:
    """Prepare a worker of this machine (called in the worker, by its preload).

    Ctrl-C reaches every process of the terminal: only the client answers it, and closes the
    workers, whose tasks are then dropped without a word.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
    # What a task raises reaches the client, which says it in one line; the worker need not as well.
    logging.getLogger("distributed.worker").addFilter(lambda record: not str(record.msg).startswith("Compute Failed"))


def _share(workers: int) -> int:
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT // workers)


def _set_level(level: int) -> None:
    logging.getLogger("distributed").setLevel(level)


@contextmanager
def _scheduler(name: str, workers: int | None, timeout: float) -> Iterator[Client]:
    from distributed import Client

    if "://" in name:
        # Looked at here: a Client that fails on the form of its address stays the current one.
        if not re.fullmatch(r"(tcp|tls|ws|wss)://[^\s/]+:\d{1,5}", name):
            raise InputError(f"The address {name!r} is not of the form tcp://host:port or tls://host:port.")
        arguments: dict[str, Any] = {"address": name}
    elif Path(name).is_file():
        arguments = {"scheduler_file": name}
    else:
        raise InputError(
            f"The cluster {name!r} is neither an address (tcp://host:port, tls://host:port), nor a scheduler file "
            f"that exists, nor a profile ({', '.join(PROFILES)})."
        )
    try:
        client = Client(**arguments, timeout=timeout)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"No Dask scheduler answers at {name!r} within {timeout:g} s ({_line(error)}); check that it runs and that "
            "this machine reaches it, or leave the cluster out to work on this machine."
        ) from error
    with client:
        try:
            client.wait_for_workers(workers or 1, timeout=timeout)
        except TimeoutError as error:
            raise InputError(
                f"The scheduler at {name!r} has {len(client.nthreads())} workers after {timeout:g} s; needed are "
                f"{workers or 1}; start workers with 'dask worker {name}'."
            ) from error
        yield client


@contextmanager
def _batch(name: str, workers: int | None) -> Iterator[Client]:
    from distributed import Client

    try:
        import dask_jobqueue
    except ImportError as error:
        raise InputError(
            f"The profile {name!r} needs dask-jobqueue, which is not installed; install the extra with "
            "pip install 'aetdist[hpc]'."
        ) from error
    if workers is None:
        raise InputError(f"The profile {name!r} needs the number of workers to keep; add --workers N.")
    settings = dask.config.get(f"jobqueue.{name}", {})
    missing = [key for key in ("cores", "processes", "memory") if not settings.get(key)]
    if missing:
        raise InputError(
            f"The Dask configuration jobqueue.{name} says nothing about {' and '.join(missing)} of a job; write a "
            f"profile such as deploy/jobqueue/slurm.yaml into ~/.config/dask/, for your queue."
        )
    processes = int(settings["processes"])
    threads = max(1, int(settings["cores"]) // processes)
    with (
        getattr(dask_jobqueue, PROFILES[name])(**batch_options(name, threads)) as cluster,
        Client(cluster) as client,
    ):
        # scale() never replaces a job that was lost; adapt() between equal bounds does.
        jobs = math.ceil(workers / processes)
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        log.info("asked %s for %d jobs; waiting for the first worker", name, jobs)
        client.wait_for_workers(1)
        yield client


def batch_options(name: str, threads: int) -> dict[str, Any]:
    """What is added to the configured profile: the thread policy, before the configured lines of the job script."""
    exports = [f"export {key}={value}" for key, value in thread_environment(threads).items()]
    configured = dask.config.get(f"jobqueue.{name}.job-script-prologue", None) or []
    return {"job_script_prologue": [*exports, *configured]}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
