"""The one thread policy: a kernel never takes more threads than its worker has."""

from __future__ import annotations

import os


def kernel_threads() -> int:
    """Threads that a kernel may take here.

    Returns
    -------
    int
        Inside a Dask task: the worker's threads divided among the tasks that run on it. Elsewhere:
        ``NUMBA_NUM_THREADS`` if set, else the processors this process may use.
    """
    try:
        from distributed import get_worker

        worker = get_worker()
    except (ImportError, ValueError):
        limit = os.environ.get("NUMBA_NUM_THREADS", "")
        if limit.isdecimal():
            return max(1, int(limit))
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, worker.state.nthreads // max(1, len(worker.state.executing)))
