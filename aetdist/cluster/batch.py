"""Workers as jobs of a batch system, through dask-jobqueue."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask

from ..errors import InputError
from .environment import thread_environment

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
"""Names of batch systems and the class of dask-jobqueue behind each."""


@contextmanager
def batch_workers(name: str, workers: int | None) -> Iterator[Client]:
    """Keep so many workers in jobs of the batch system `name`."""
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
        getattr(dask_jobqueue, CLASSES[name])(**batch_options(name, threads)) as cluster,
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
