"""Workers on this machine, reachable from this machine only; or the client that is there already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from dask.system import CPU_COUNT

from .environment import thread_environment

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


def current_client() -> Client | None:
    """The client that is current here, if there is one."""
    from distributed import Client

    try:
        return Client.current()
    except ValueError:
        return None


@contextmanager
def local_workers(workers: int | None, memory: int | None) -> Iterator[Client]:
    """A new cluster on 127.0.0.1: one single-threaded worker per core, unless told how many."""
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
                preload="aetdist.cluster",
                silence_logs=logging.WARNING,
            )
        )
        client = stack.enter_context(Client(cluster))
        stack.callback(_set_level, logging.CRITICAL)
        log.info("workers on this machine: %d, dashboard %s", workers or CPU_COUNT, client.dashboard_link or "off")
        yield client


def _share(workers: int) -> int:
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT // workers)


def _set_level(level: int) -> None:
    logging.getLogger("distributed").setLevel(level)
