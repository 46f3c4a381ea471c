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

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Any, Protocol, TypeVar

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


@contextmanager
def show_progress(every: float = 0.2) -> Iterator[None]:
    """Show how far drivers are while the block runs: bars below the cell of a notebook, elsewhere a line on stderr.

    Parameters
    ----------
    every : float
        Seconds between two drawings, at least.
    """
    bars = _Bars(every)
    with listen(bars):
        try:
            yield
        finally:
            bars.draw(last=True)


class _Bars:
    """The newest report of each label, drawn where somebody looks."""

    def __init__(self, every: float) -> None:
        self._every, self._drawn = every, -every
        self._seen: dict[str, tuple[int, int | None]] = {}
        self._below_cell: Any = None

    def __call__(self, done: int, total: int | None, label: str) -> None:
        """Take a report."""
        self._seen[label] = (done, total)
        if time.monotonic() - self._drawn >= self._every:
            self.draw()

    def draw(self, last: bool = False) -> None:
        """Draw all bars anew."""
        if not self._seen:
            return
        self._drawn = time.monotonic()
        if not _in_notebook():
            label, (done, total) = next(reversed(self._seen.items()))
            sys.stderr.write(f"\r{label} {_parts(done, total)}" + ("\n" if last else ""))
            sys.stderr.flush()
            return
        from IPython.display import HTML, display

        page = HTML("".join(_bar(label, *seen) for label, seen in self._seen.items()))
        if self._below_cell is None:
            self._below_cell = display(page, display_id=True)
        else:
            self._below_cell.update(page)


def _bar(label: str, done: int, total: int | None) -> str:
    """A bar of one label as HTML; one without an end where the total is not known."""
    value = f' value="{done}" max="{max(total, 1)}"' if total is not None else ""
    text = f"{escape(label)} {_parts(done, total)}"
    return f'<div><progress{value} aria-label="{escape(label)}"></progress> {text}</div>'


def _parts(done: int, total: int | None) -> str:
    return f"{done} of {total}" if total is not None else str(done)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; IPython is asked only if it is there already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
