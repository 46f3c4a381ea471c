"""A forecast as plain values: kinds of tasks, what each takes, and what that adds up to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .workers import Workers

SCHEDULER_SECONDS = 1e-3
"""What the scheduler takes for a task, at most: see tests/benchmarks/bench_scale.py."""


@dataclass(frozen=True)
class Step:
    """Tasks of one kind that run side by side.

    Parameters
    ----------
    name : str
    n_tasks : int
    bytes : int
        Most that one of them holds beside what its worker holds anyway.
    seconds : float
        CPU time of one of them, in the mean.
    read_bytes : int
        What all of them read, uncompressed.
    """

    name: str
    n_tasks: int
    bytes: int
    seconds: float
    read_bytes: int = 0

    def wall(self, workers: Workers) -> float:
        """Seconds until all are done: rounds of tasks, or the scheduler where tasks are short and workers many."""
        return max(math.ceil(self.n_tasks / workers.slots) * self.seconds, self.n_tasks * SCHEDULER_SECONDS)


@dataclass(frozen=True)
class Forecast:
    """What a stage will take.

    Parameters
    ----------
    stage : str
    steps : tuple of Step
        One after the other; none where nothing is forecast.
    stored_bytes : int
        What it writes, uncompressed: the store gets at most so much larger.
    note : str
        What the numbers do not say.
    n_windows : int
        Local volumes, where it is a scan.
    loading : float
        Seconds until a new worker is ready for it.
    """

    stage: str
    steps: tuple[Step, ...] = ()
    stored_bytes: int = 0
    note: str = ""
    n_windows: int = 0
    loading: float = 0.0

    @property
    def n_tasks(self) -> int:
        """Of all kinds."""
        return sum(step.n_tasks for step in self.steps)

    @property
    def task_bytes(self) -> int:
        """Of the largest task."""
        return max((step.bytes for step in self.steps), default=0)

    def cpu_seconds(self, workers: Workers) -> float:
        """Of all tasks together, done by new workers."""
        return workers.count * self.loading + sum(step.n_tasks * step.seconds for step in self.steps)

    def seconds(self, workers: Workers) -> float:
        """Until new workers have done the stage."""
        return self.loading + sum(step.wall(workers) for step in self.steps)

    def worker_bytes(self, workers: Workers, own: int) -> int:
        """Peak memory of a worker that holds `own` bytes without any array."""
        largest = max((min(workers.threads, step.n_tasks) * step.bytes for step in self.steps), default=0)
        return own + largest

    def summary(self, workers: Workers, own: int) -> dict[str, Any]:
        """As plain values for a machine to read."""
        told: dict[str, Any] = {"n_windows": self.n_windows} if self.n_windows else {}
        if self.steps:
            told |= {
                "n_tasks": self.n_tasks,
                "task_bytes": self.task_bytes,
                "worker_bytes": self.worker_bytes(workers, own),
                "stored_bytes": self.stored_bytes,
                "read_bytes": sum(step.read_bytes for step in self.steps),
                "cpu_seconds": self.cpu_seconds(workers),
                "seconds": self.seconds(workers),
                "loading_seconds": self.loading,
                "steps": {
                    step.name: {
                        "n_tasks": step.n_tasks,
                        "task_bytes": step.bytes,
                        "task_seconds": step.seconds,
                        "seconds": step.wall(workers),
                    }
                    for step in self.steps
                },
            }
        return {**told, "note": self.note} if self.note else told
