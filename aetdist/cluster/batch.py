"""Workers as jobs of a batch system, through dask-jobqueue."""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask

from ..errors import InputError
from .environment import SCRATCH_LINES, allow_failures, settings_environment, thread_environment
from .security import DASHBOARD, certificates, dashboard_of

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
"""Names of batch systems and the class of dask-jobqueue behind each."""

PAUSES = (5.0, 15.0, 45.0)
"""Seconds before a job that was refused is handed in again."""


@contextmanager
def batch_workers(name: str, workers: int | None, insecure: bool) -> Iterator[Client]:
    """Keep so many workers in jobs of the batch system `name`: a job that is lost is replaced."""
    from distributed import Client

    jobqueue = import_jobqueue(name)
    if workers is None:
        raise InputError(f"The profile {name!r} needs the number of workers to keep; add --workers N.")
    missing = [key for key in ("cores", "processes", "memory") if not setting(name, key)]
    if missing:
        raise InputError(
            f"The Dask configuration jobqueue.{name} says nothing about {' and '.join(missing)} of a job; write a "
            f"profile such as deploy/jobqueue/{name}.yaml into ~/.config/dask/, for your queue."
        )
    processes = int(setting(name, "processes"))
    options = batch_options(name)
    with ExitStack() as stack:
        stack.enter_context(allow_failures())
        if not insecure:
            options["security"] = stack.enter_context(certificates(setting(name, "shared-temp-directory")))
        kind = getattr(jobqueue, CLASSES[name])
        submitted = Submitted()
        cluster = stack.enter_context(kind(job_cls=noted(kind.job_cls, submitted), **options))
        client = stack.enter_context(Client(cluster))
        # scale() never replaces a job that was lost; adapt() between equal bounds does.
        jobs = math.ceil(workers / processes)
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        log.info("asked %s for %d jobs, dashboard %s; waiting for the first worker", name, jobs, dashboard_of(client))
        _wait_for_first(client, name, submitted)
        yield client


@dataclass
class Submitted:
    """What became of the jobs that were handed to the batch system."""

    accepted: int = 0
    refusals: list[Exception] = field(default_factory=list)


def noted(job_class: Any, submitted: Submitted, pauses: tuple[float, ...] = PAUSES) -> Any:
    """A class of jobs that notes in `submitted` what the batch system says.

    Once it has taken a job, one it refuses is handed in again after each pause: its server may be
    restarting, and dask-jobqueue counts a refused job as there for good.
    """
    from distributed.core import Status

    class NotedJob(job_class):  # type: ignore[misc]
        async def start(self) -> None:
            for pause in (*pauses, None):
                try:
                    await super().start()
                    submitted.accepted += 1
                    return
                except (OSError, RuntimeError, ValueError) as error:
                    submitted.refusals.append(error)
                    if not submitted.accepted or pause is None:
                        self.status = Status.failed
                        raise
                    log.warning("a job was refused; it is handed in again in %g s: %s", pause, refusal(error))
                    await asyncio.sleep(pause)

    return NotedJob


def refusal(error: Exception) -> str:
    """What the command of the batch system said, in one line."""
    return " ".join(str(error).rpartition("stderr:")[2].split())


def _wait_for_first(client: Client, name: str, submitted: Submitted) -> None:
    """Wait in the queue for as long as it takes, but not for a job that is not in it."""
    shown = logging.getLogger("tornado.application")
    level = shown.level
    shown.setLevel(logging.CRITICAL)  # the refusal is raised below, in one line
    try:
        while not client.nthreads():
            if submitted.refusals and not submitted.accepted:
                error = submitted.refusals[0]
                raise InputError(
                    f"The batch system {name} takes no job ({refusal(error)}); mend jobqueue.{name} of the Dask "
                    "configuration (queue, account, memory, walltime), and start this where its commands are."
                ) from error
            with suppress(TimeoutError):
                client.wait_for_workers(1, timeout=2)
    finally:
        shown.setLevel(level)


def import_jobqueue(name: str) -> Any:
    """dask-jobqueue, or an error that says how to install it."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module("dask_jobqueue")
    except ImportError as error:
        raise InputError(
            f"The profile {name!r} needs dask-jobqueue, which is not installed; install the extra with "
            "pip install 'aetdist[hpc]'."
        ) from error
    finally:
        # Its import answers Ctrl-C by a silent exit of the process; the handler that was there says how to go on.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def setting(name: str, key: str) -> Any:
    """What the Dask configuration says of a batch system (of `key`, or of its spelling with underscores)."""
    return dask.config.get(f"jobqueue.{name}.{key}", None)


def batch_options(name: str) -> dict[str, Any]:
    """What is added to the configured profile `name`.

    Before the configured lines of the job script: scratch on the node, the thread policy, and what
    the client's Dask configuration says of memory. Pages of scheduler and workers stay on loopback.
    """
    threads = max(1, int(setting(name, "cores")) // int(setting(name, "processes")))
    environment = {**thread_environment(threads), **settings_environment()}
    exports = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
    options = {
        "job_script_prologue": [*SCRATCH_LINES, *exports, *(setting(name, "job-script-prologue") or [])],
        "worker_extra_args": [*(setting(name, "worker-extra-args") or []), "--dashboard-address", "127.0.0.1:0"],
        "scheduler_options": {"dashboard_address": DASHBOARD, **(setting(name, "scheduler-options") or {})},
    }
    if not setting(name, "local-directory"):
        options["local_directory"] = '"$scratch"'
    return options
