"""Workers as jobs of a batch system, through dask-jobqueue."""

from __future__ import annotations

import importlib
import logging
import math
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
        cluster = stack.enter_context(getattr(jobqueue, CLASSES[name])(**options))
        client = stack.enter_context(Client(cluster))
        # scale() never replaces a job that was lost; adapt() between equal bounds does.
        jobs = math.ceil(workers / processes)
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        log.info("asked %s for %d jobs, dashboard %s; waiting for the first worker", name, jobs, dashboard_of(client))
        client.wait_for_workers(1)
        yield client


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
