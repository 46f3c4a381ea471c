"""Time and memory of what a command does."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def accounted() -> Iterator[dict[str, Any]]:
    """Give a summary that gets the time and the memory of what is done in the block."""
    summary: dict[str, Any] = {}
    begin = time.monotonic()
    yield summary
    own = peak_memory()
    client = current_client()
    workers = client.run(peak_memory).values() if client is not None else ()
    summary |= {"seconds": time.monotonic() - begin, "peak_memory_client_bytes": own}
    summary["peak_memory_bytes"] = max([own, *workers])


def current_client() -> Any:
    """Find the Dask client that is current, if there is one."""
    if "distributed" not in sys.modules:
        return None
    import distributed

    try:
        return distributed.get_client()
    except ValueError:
        return None


def peak_memory() -> int:
    """Read the most bytes that this process has held (not its parent, whose peak ru_maxrss begins with on Linux)."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
