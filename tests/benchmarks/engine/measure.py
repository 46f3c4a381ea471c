"""Clocks: CPU and wall seconds, medians, child processes, copies that run at the same time."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any


def cpu_seconds() -> float:
    """CPU seconds (user + sys) of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)


class Stopwatch:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        self._begin = (cpu_seconds(), time.perf_counter())

    def read(self) -> dict[str, float]:
        """The seconds so far, as ``cpu_s`` and ``wall_s``."""
        return {"cpu_s": cpu_seconds() - self._begin[0], "wall_s": time.perf_counter() - self._begin[1]}


def timed(function: Callable[[], Any], repeats: int, per: int = 1, warm: bool = True) -> dict[str, float]:
    """Medians over `repeats` calls after one that is not counted, divided by `per`."""
    if warm:
        function()
    times = []
    for _ in range(repeats):
        watch = Stopwatch()
        function()
        times.append(watch.read())
    return {key: value / per for key, value in medians(times).items()}


def medians(times: Iterable[dict[str, float]]) -> dict[str, float]:
    """Key by key."""
    times = list(times)
    return {key: statistics.median(t[key] for t in times) for key in times[0]}


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh process: its memory and its clocks are its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory(which: str) -> float | None:
    """Resident memory of this process in GB: "VmRSS" now, "VmHWM" its peak; None where it is not known (no /proc)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024 / 1e9


class Memory:
    """The peak of this process, and how far that is over what it held when this was made."""

    def __init__(self) -> None:
        self._begin = memory("VmRSS")

    def read(self) -> dict[str, float | None]:
        """``memory_gb`` beyond the beginning and ``process_gb`` of all; None where they are not known."""
        peak = memory("VmHWM")
        beyond = None if peak is None or self._begin is None else peak - self._begin
        return {"memory_gb": beyond, "process_gb": peak}


class Copies:
    """Processes that each hold a piece of work and do it when told: nothing that starts is timed.

    Parameters
    ----------
    makers : list of (function, arguments)
        Each makes, in its own process, the function that does the work once.
    """

    def __init__(self, makers: list[tuple[Callable[..., Callable[[], Any]], tuple[Any, ...]]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes, self._processes = [], []
        for make, arguments in makers:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def wall(self, *which: int) -> float:
        """Seconds until all of these, started together, have done their work."""
        begin = time.perf_counter()
        for i in which:
            self._pipes[i].send(True)
        for i in which:
            self._pipes[i].recv()
        return time.perf_counter() - begin

    def __enter__(self) -> Copies:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            process.join()


def _serve(pipe: Any, make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    work = make(*arguments)
    work()
    pipe.send(True)
    try:
        while pipe.recv():
            work()
            pipe.send(True)
    except EOFError:
        return
