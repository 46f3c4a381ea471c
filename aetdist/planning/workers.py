"""The workers that a plan is for: those that are there, or those that are asked about."""

from __future__ import annotations

from dataclasses import dataclass

from dask.system import CPU_COUNT
from dask.utils import parse_bytes

from ..blocks.windows import current_client
from ..errors import InputError
from ..reconstruct.memory import USABLE, WORKER_BYTES


@dataclass(frozen=True)
class Workers:
    """Worker processes, alike.

    Parameters
    ----------
    count : int
    threads : int
        Of each.
    memory : int
        Bytes of each.
    """

    count: int
    threads: int
    memory: int

    @property
    def slots(self) -> int:
        """Tasks that run at a time."""
        return self.count * self.threads

    @property
    def task_bytes(self) -> int:
        """What one task may hold."""
        return max(0, int(USABLE * self.memory) - WORKER_BYTES) // self.threads


def workers_of(count: int | None = None, memory_limit: str | int | None = None) -> Workers:
    """The workers of the current Dask client; without one, or where they are described, single-threaded ones.

    Parameters
    ----------
    count : int, optional
        As many as this machine has cores by default.
    memory_limit : str or int, optional
        Memory of each, such as "4GB"; by default they share what this machine has.

    Raises
    ------
    InputError
        If a number makes no sense.
    """
    from distributed.system import MEMORY_LIMIT

    client = current_client()
    if client is not None and count is None and memory_limit is None:
        table = client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [worker["memory_limit"] or MEMORY_LIMIT for worker in table]
        threads = [worker["nthreads"] for worker in table]
        return Workers(max(1, len(limits)), max(threads, default=1), min(limits, default=MEMORY_LIMIT))
    count = CPU_COUNT if count is None else count
    if count < 1:
        raise InputError(f"{count} workers were asked for; needed is at least 1.")
    try:
        memory = int(MEMORY_LIMIT // count if memory_limit is None else parse_bytes(memory_limit))
    except ValueError:
        raise InputError(f"A memory limit of {memory_limit!r} came; needed is a size such as '4GB'.") from None
    return Workers(count, 1, memory)
