"""One allocation as a cluster: its first process is the scheduler, the second the client, the others workers.

Every process of the allocation runs the same command, as by ``srun aetdist ...`` or ``mpirun aetdist ...``;
only the client returns from here, the others end with it.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask

from ..errors import InputError
from .batch import import_jobqueue, setting
from .environment import allow_failures, node_scratch, thread_environment
from .security import DASHBOARD, dashboard_of, security_of, shared_folder, temporary_certificates

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

CLIENT = 1
"""Rank of the client."""


@contextmanager
def slurm_allocation(workers: int | None, memory: int | None, insecure: bool, timeout: float) -> Iterator[Client]:
    """The tasks of ``srun`` as a cluster (dask_jobqueue.slurm.SLURMRunner)."""
    import_jobqueue("slurm-runner")
    missing = [name for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS") if name not in os.environ]
    if missing:
        raise InputError(
            f"The profile 'slurm-runner' is for the tasks of srun, and {', '.join(missing)} is not set here; submit "
            "a script such as deploy/slurm-runner.sbatch, or use the profile 'slurm'."
        )
    rank, size = int(os.environ["SLURM_PROCID"]), _world(int(os.environ["SLURM_NTASKS"]))
    folder = shared_folder(setting("slurm", "shared-temp-directory"))
    # One job may hold several steps, and may be begun again.
    step = "-".join(os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
    with ExitStack() as stack:
        stack.enter_context(allow_failures())
        security = None
        if not insecure:
            security = security_of(str(_common_certificates(folder / f"tls-{step}.pem", rank, timeout, stack)))
        options = {"security": security, "protocol": "tcp://" if insecure else "tls://"}
        options["interface"] = setting("slurm", "interface")
        threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 1))
        share = memory or memory_of_task(os.environ, threads)
        _hush(logging.WARNING)
        if rank != CLIENT:
            # The runner ends these processes by a SIGINT of its own; the SIGTERM of Slurm is for the client.
            signal.signal(signal.SIGINT, lambda *_: sys.exit())
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        runner = importlib.import_module("dask_jobqueue.slurm").SLURMRunner(
            scheduler_file=str(folder / f"scheduler-{step}.json"),
            scheduler_options={**options, "dashboard_address": DASHBOARD},
            worker_class="distributed.Nanny",
            worker_options={**options, **_worker_options(threads, share)},
        )
        if rank != CLIENT:
            sys.exit()
        runner.scheduler_comm = None  # its connection knows no certificates; the client ends the cluster
        yield stack.enter_context(_client(runner.scheduler_address, security, workers or size - 2, timeout))


@contextmanager
def mpi_allocation(workers: int | None, memory: int | None, insecure: bool, timeout: float) -> Iterator[Client]:
    """The ranks of ``mpirun`` as a cluster (dask_mpi.initialize)."""
    try:
        mpi = importlib.import_module("mpi4py.MPI")
        dask_mpi = importlib.import_module("dask_mpi")
    except ImportError as error:
        raise InputError(
            f"The profile 'mpi' needs dask-mpi and mpi4py ({error.name} is not installed); install them with "
            "pip install dask-mpi mpi4py, against the MPI that starts the processes."
        ) from error
    world = mpi.COMM_WORLD
    size = _world(world.Get_size())
    neighbours = world.Split_type(mpi.COMM_TYPE_SHARED).Get_size()
    tls: dict[str, Any] = {}
    if not insecure:
        pem = world.bcast(temporary_certificates() if world.Get_rank() == 0 else None, root=0)
        parts = [f"{role}.{part}" for role in ("scheduler", "worker", "client") for part in ("cert", "key")]
        tls = {f"distributed.comm.tls.{part}": pem for part in ("ca-file", *parts)}
        tls["distributed.comm.require-encryption"] = True
    with allow_failures(), dask.config.set(tls):
        _hush(logging.WARNING)
        from distributed.system import MEMORY_LIMIT

        is_client = dask_mpi.initialize(
            interface=dask.config.get("mpi.interface", None),
            nthreads=1,
            dashboard_address=DASHBOARD,
            protocol="tcp://" if insecure else "tls://",
            worker_class="distributed.Nanny",
            worker_options=_worker_options(1, memory or MEMORY_LIMIT // neighbours),
            exit=False,
        )
        if not is_client:
            sys.exit()
        with _client(dask.config.get("scheduler-address"), None, workers or size - 2, timeout) as client:
            yield client


def _world(size: int) -> int:
    if size < 3:
        raise InputError(
            f"The allocation has {size} processes; needed are 3 or more: a scheduler, this program, and workers."
        )
    return size


def _worker_options(threads: int, memory: int) -> dict[str, Any]:
    """What every worker of an allocation is given; its nanny replaces it when it is lost."""
    scratch = node_scratch()
    cache = os.environ.get("NUMBA_CACHE_DIR", str(scratch / "numba"))
    return {
        "nthreads": threads,
        "memory_limit": memory,
        "local_directory": str(scratch),
        "env": {**thread_environment(threads), "NUMBA_CACHE_DIR": cache},
        "dashboard_address": "127.0.0.1:0",
        "death_timeout": 120,
        "preload": "aetdist.cluster",
        "silence_logs": logging.WARNING,
    }


def memory_of_task(environment: Mapping[str, str], threads: int) -> int:
    """Bytes that one task of a Slurm step may use: what the job asked for, else its share of the node."""
    if "SLURM_MEM_PER_CPU" in environment:
        return int(environment["SLURM_MEM_PER_CPU"]) * 2**20 * threads
    from distributed.system import MEMORY_LIMIT

    # Such as "4(x2),3": the node with the most tasks decides.
    words = environment.get("SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", "1"))
    tasks = max(int(count) for count in re.findall(r"(\d+)(?:\(x\d+\))?(?:,|$)", words))
    asked = int(environment.get("SLURM_MEM_PER_NODE", 0)) * 2**20
    return int((asked or MEMORY_LIMIT) // tasks)


def _common_certificates(file: Path, rank: int, timeout: float, stack: ExitStack) -> Path:
    """The first process writes them (mode 0600) and removes them at the end; the others wait for the file."""
    if rank == 0:
        part = file.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as new:
            new.write(temporary_certificates())
        part.rename(file)
        stack.callback(file.unlink, missing_ok=True)
    end = time.monotonic() + max(timeout, 120)
    while not file.exists():
        if time.monotonic() > end:
            raise InputError(
                f"The first process of the allocation did not write {file}; set jobqueue.slurm.shared-temp-directory "
                "to a folder that every node sees."
            )
        time.sleep(0.2)
    return file


@contextmanager
def _client(address: str, security: Any, workers: int, timeout: float) -> Iterator[Client]:
    """A client that waits for the workers of the allocation, and ends all of it when it is done."""
    from distributed import Client

    with Client(address, security=security, timeout=max(timeout, 60)) as client:
        try:
            _wait(client, workers, max(timeout, 120))
            log.info("workers in this allocation: %d, dashboard %s", workers, dashboard_of(client))
            yield client
        finally:
            with suppress(OSError):  # the scheduler is gone
                client.run(_hush)
                client.run(_hush, nanny=True)
                client.run_on_scheduler(_hush)
                client.shutdown()


def _hush(level: int = logging.CRITICAL) -> None:
    """Connections that break while everything closes are nothing to report (runs in every process of the cluster)."""
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(level)


def _wait(client: Client, workers: int, timeout: float) -> None:
    try:
        client.wait_for_workers(workers, timeout=timeout)
    except TimeoutError as error:
        raise InputError(
            f"{len(client.nthreads())} of {workers} workers of the allocation came within {timeout:g} s; look into the "
            "log of the job, or ask for fewer with --workers."
        ) from error
