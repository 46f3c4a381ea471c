"""What every worker starts with: one thread policy, scratch on its own node, the memory policy of the client."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask

_LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def thread_environment(threads: int = 1) -> dict[str, str]:
    """Environment of a worker with `threads` threads: no library takes more than the worker has.

    ``OMP_WAIT_POLICY=passive`` because threads that spin while they wait make the others ten times
    slower on a busy machine.
    """
    names = ("NUMBA_NUM_THREADS", *_LIBRARIES)
    return {**dict.fromkeys(names, str(threads)), "OMP_WAIT_POLICY": "passive"}


def too_many_threads(threads: int) -> str | None:
    """What would take more threads here than a worker of `threads` has: the first such variable, or None."""
    for name in _LIBRARIES:
        limit = os.environ.get(name, "")
        if not limit.isdecimal() or int(limit) > threads:
            return f"{name}={limit}" if limit else f"no {name}"
    return None


def settings_environment() -> dict[str, str]:
    """What the client's configuration says of workers' memory and of time limits, as variables that Dask reads."""
    usual = dask.config.merge(*dask.config.defaults)
    return {
        "DASK_" + key.upper().replace(".", "__").replace("-", "_"): str(value)
        for name in ("distributed.worker.memory", "distributed.comm.timeouts")
        for key, value in _leaves(name, dask.config.get(name, {}))
        if value != dask.config.get(key, None, config=usual)
    }


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{name}.{key}", inner)]
    return [(name, value)]


@contextmanager
def allow_failures(least: int = 10) -> Iterator[None]:
    """A scheduler made meanwhile lets a task lose `least` workers before it is given up.

    A pre-empted or cancelled job takes its workers with it; that is no fault of the tasks they were at.
    """
    name = "distributed.scheduler.allowed-failures"
    with dask.config.set({name: max(least, dask.config.get(name, 0))}):
        yield


SCRATCH_LINES = (
    'scratch="${TMPDIR:-/tmp}/aetdist-$(id -u)"',
    'mkdir -p -m 700 "$scratch" && [ -O "$scratch" ] || scratch="$(mktemp -d)"',
    'export NUMBA_CACHE_DIR="$scratch/numba"',
)
"""Of a job script: a folder on the node, the user's own (compiled code that others wrote must not run)."""


def node_scratch() -> Path:
    """The same folder for processes that no job script starts; made if it is missing."""
    folder = Path(tempfile.gettempdir()) / f"aetdist-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="aetdist-"))


def dask_setup(worker: Any) -> None:
    """Prepare a worker of this machine (called in the worker, by its preload).

    Ctrl-C reaches every process of the terminal: only the client answers it, and closes the
    workers, whose tasks are then dropped without a word.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
    # What a task raises reaches the client, which says it in one line; the worker need not as well.
    logging.getLogger("distributed.worker").addFilter(lambda record: not str(record.msg).startswith("Compute Failed"))
