"""A cluster on this machine whose scheduler is a process of its own, and what each process has used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client
from distributed.deploy.subprocess import SubprocessCluster

from aetdist.cluster import thread_environment


@contextmanager
def processes(workers: int, memory_limit: str | int = "auto") -> Iterator[Client]:
    """A client of single-thread workers and of a scheduler that shares its process with nobody."""
    folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **thread_environment(1),
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",  # else the CPU time of a task grows with its wall time
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ |= environment
    worker = {"memory_limit": memory_limit, "dashboard": False, "preload": ["aetdist.cluster"]}
    try:
        with (
            dask.config.set({"distributed.scheduler.active-memory-manager.start": False}),
            SubprocessCluster(
                host="127.0.0.1",
                n_workers=workers,
                threads_per_worker=1,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                worker_kwargs=worker,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            client.wait_for_workers(workers)
            yield client
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def total_cpu(client: Client) -> dict[str, float]:
    """CPU seconds so far: of the scheduler's process, and of all workers' together."""
    return {
        "scheduler": client.run_on_scheduler(time.process_time),
        "workers": sum(client.run(time.process_time).values()),
    }


def counted(client: Client) -> dict[str, int]:
    """Bytes of the graphs that the client sends, counted from now on."""
    sent = {"bytes": 0}
    send = client._send_to_scheduler

    def count(message: dict[str, Any]) -> None:
        graph = message.get("expr_ser")
        if graph is not None:
            sent["bytes"] += sum(memoryview(frame).nbytes for frame in graph.frames)
        send(message)

    client._send_to_scheduler = count  # type: ignore[method-assign]
    return sent
