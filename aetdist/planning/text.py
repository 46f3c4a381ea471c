"""A plan as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from .forecast import Forecast
from .workers import Workers


def table_of(forecasts: Sequence[Forecast], workers: Workers, own: int) -> str:
    """Lines with tasks, memory and time of every stage, and of its kinds of tasks."""
    rows = [("", "tasks", "a task", "a worker", "CPU time", "time")]
    for forecast in forecasts:
        if not forecast.steps:
            continue
        rows.append(
            (
                forecast.stage,
                f"{forecast.n_tasks:,}",
                _size(forecast.task_bytes),
                _size(forecast.worker_bytes(workers, own)),
                _time(forecast.cpu_seconds(workers)),
                _time(forecast.seconds(workers)),
            )
        )
        rows += [
            (f"  {s.name}", f"{s.n_tasks:,}", _size(s.bytes), "", _time(s.n_tasks * s.seconds), _time(s.wall(workers)))
            for s in forecast.steps
        ]
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        words = [f"{first:<{wide[0]}}", *(f"{word:>{w}}" for word, w in zip(others, wide[1:], strict=True))]
        lines.append("  ".join(words).rstrip())
    threads = f"{workers.threads} threads" if workers.threads > 1 else "1 thread"
    header = f"{workers.count} workers of {threads} and {_size(workers.memory)}"
    stored = sum(forecast.stored_bytes for forecast in forecasts)
    read = sum(step.read_bytes for forecast in forecasts for step in forecast.steps)
    notes = [f"{f.stage}: {f.note}" for f in forecasts if f.note]
    return "\n".join([header, *lines, f"store at most {_size(stored)} larger, {_size(read)} read", *notes])


def _size(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
