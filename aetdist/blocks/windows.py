"""Windows of a film: cut a field into overlapping windows, run a task for each, blend them smoothly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import InputError
from ..progress import report
from .lost import cluster_errors

_BATCH = 500  # tasks that go to the scheduler in one message
_FETCH_SECONDS = 0.5  # at most so often are results fetched


@dataclass(frozen=True)
class Span:
    """One window along one axis of the field, in pixels from the field's first one.

    It covers start..stop - 1, weighs 1 between rise[1] and fall[0], 0 before rise[0] and from
    fall[1] on, with smooth ramps between.
    """

    start: int
    stop: int
    rise: tuple[int, int]
    fall: tuple[int, int]

    def weights(self, positions: np.ndarray) -> np.ndarray:
        """Weight at pixel positions; those of all spans of an axis add up to 1 within the field. float64."""
        up = _ramp(positions, *self.rise)
        down = 1.0 - _ramp(positions, *self.fall)
        return np.minimum(up, down)


def _ramp(positions: np.ndarray, low: int, high: int) -> np.ndarray:
    """0 below `low`, 1 from `high` on, half a period of a sine between; the middle of a pixel decides."""
    fraction = np.clip((np.asarray(positions, dtype=np.float64) + 0.5 - low) / max(high - low, 1e-9), 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * fraction)


def cut_axis(n: int, window: int, overlap: int, outside: int, fade: int = 1) -> list[Span]:
    """Overlapping windows along an axis of `n` pixels.

    Parameters
    ----------
    n : int
        Pixels of the field.
    window, overlap : int
        Pixels of a window, and at least so many shared by neighbours.
    outside, fade : int
        The first and the last window weigh 1 as far as `outside` pixels beyond the field, and fade
        over the next `fade` pixels.

    Returns
    -------
    list of Span
        Evenly spread. Neighbours are blended over the middle half of what they share: near its own
        border a window is least certain.

    Raises
    ------
    InputError
        If a window is not larger than its overlap, or either is not positive.
    """
    if window < 2 or not 0 < overlap < window:
        raise InputError(
            f"A window of {window} pixels with an overlap of {overlap}; needed is 0 < overlap < window, window >= 2."
        )
    window = min(window, n)
    overlap = min(overlap, window - 1)
    count = 1 + max(0, int(np.ceil((n - window) / (window - overlap))))
    starts = np.round(np.linspace(0, n - window, count)).astype(int)
    zones = []
    for left, right in pairwise(starts):
        middle = (int(left) + window + int(right)) / 2
        half = min(left + window - right, right - left) / 4
        zones.append((round(middle - half), round(middle + half)))
    zones = [(-outside - fade, -outside), *zones, (n + outside, n + outside + fade)]
    return [Span(int(s), int(s) + window, zones[i], zones[i + 1]) for i, s in enumerate(starts)]


def run_tasks(function: Callable[..., Any], items: Iterable[Any], *arguments: Any, label: str) -> list[Any]:
    """Computes: ``function(item, *arguments)`` for every item, on the current Dask client or else here.

    Parameters
    ----------
    function : callable
        Does a whole block's work and writes its own result; may be run again.
    items : iterable
        Plain values, one for each task.
    arguments
        The same for all tasks.
    label : str
        For the progress report.

    Returns
    -------
    list
        What the function returned, in the order of the items.

    Raises
    ------
    CapacityError, ClusterError
        If a task lost several workers, or the scheduler is gone.
    """
    items = list(items)
    report(0, len(items), label)
    client = current_client()
    results: list[Any] = [None] * len(items)
    if client is None:
        for i, item in enumerate(items):
            results[i] = function(item, *arguments)
            report(i + 1, len(items), label)
        return results
    from distributed import as_completed

    futures: dict[Any, int] = {}
    finished: list[Any] = []
    fetched = time.monotonic()
    # Many tasks go in one message, and many results come in one where they come fast: a message for each would be
    # most of what the scheduler has to do.
    try:
        with cluster_errors():
            for first in range(0, len(items), _BATCH):
                batch = items[first : first + _BATCH]
                sent = client.map(function, batch, *([a] * len(batch) for a in arguments), pure=False)
                futures |= {future: first + i for i, future in enumerate(sent)}
            for done, future in enumerate(as_completed(list(futures)), start=1):
                finished.append(future)
                if done == len(items) or time.monotonic() - fetched > _FETCH_SECONDS:
                    for one, result in zip(finished, client.gather(finished), strict=True):
                        results[futures.pop(one)] = result
                    finished.clear()
                    fetched = time.monotonic()
                report(done, len(items), label)
    except BaseException:
        client.cancel(list(futures))
        raise
    return results


def share(value: Any) -> Any:
    """A value that many tasks take: sent to every worker once, where there is a Dask client."""
    client = current_client()
    if client is None:
        return value
    # hash=False: equal data that an earlier call shared must not be released together with these.
    return client.scatter([value], broadcast=True, hash=False)[0]


def current_client() -> Any:
    """The Dask client that is current, or None."""
    try:
        from distributed import get_client

        return get_client()
    except (ImportError, ValueError):
        return None
