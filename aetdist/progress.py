"""How far a driver is: drivers report numbers, whoever listens draws the bar.

The library never prints. A driver calls :func:`report`; the command line (or a notebook) listens
for as long as the driver runs:

>>> seen = []
>>> with listen(lambda done, total, label: seen.append((done, total, label))):
...     report(1, 4, "windows")
>>> seen
[(1, 4, 'windows')]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class OnProgress(Protocol):
    """Called with how many of how many steps are done; `total` is None where it is not known."""

    def __call__(self, done: int, total: int | None, label: str) -> None:
        """Take note; must return soon and raise nothing."""


_listener: ContextVar[OnProgress | None] = ContextVar("aetdist_progress", default=None)


@contextmanager
def listen(on_progress: OnProgress) -> Iterator[None]:
    """Send every :func:`report` made inside the block, in this thread, to `on_progress`.

    Blocks may be nested; the innermost one hears.
    """
    token = _listener.set(on_progress)
    try:
        yield
    finally:
        _listener.reset(token)


def report(done: int, total: int | None, label: str) -> None:
    """Tell the listener, if there is one, that `done` of `total` steps of `label` are done."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total, label)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, reporting each one when the next is asked for.

    `total` is taken from the length of `items` where they have one.
    """
    if total is None:
        try:
            total = len(items)  # type: ignore[arg-type]
        except TypeError:
            total = None
    report(0, total, label)
    for done, item in enumerate(items, start=1):
        yield item
        report(done, total, label)
