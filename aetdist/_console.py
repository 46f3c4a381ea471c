"""What every command shares: summary or JSON, progress, log, one-line errors, signals.

Imports nothing scientific: ``aetdist --help`` has to answer at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ._labels import LABELS
from ._usage import accounted
from .errors import redacted

log = logging.getLogger("aetdist")


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM came; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Program(click.Group):
    """The command group; every way out ends in an exit code and at most one line on stderr."""

    def main(self, args: Any = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command named in `args` (default: the process's own) and exit."""
        argv = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in argv
        try:
            with _signals():
                code = super().main(argv, prog_name or "aetdist", standalone_mode=False, **extra)
            sys.exit(code if isinstance(code, int) else 0)
        except _Interrupted as stop:
            name = signal.Signals(stop.signum).name
            _say(f"stopped by {name}; what was finished is kept. Resume with: {resume_command(argv)}")
            sys.exit(128 + stop.signum)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "aetdist"
            _say(f"error: {_one_line(error.format_message())} (see '{command} --help')")
            sys.exit(2)
        except click.ClickException as error:
            _say(f"error: {_one_line(error.format_message())}")
            sys.exit(2)
        except BrokenPipeError:
            # The reader of stdout went away, as in `aetdist config | head`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if debug:
                print(redacted(traceback.format_exc()), file=sys.stderr, end="")
            message, code = describe(error)
            _say(f"error: {message}")
            sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a signal leaves as an exception that click does not handle itself."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _Interrupted(getattr(stop, "signum", int(signal.SIGINT))) from stop


class _Interrupted(Exception):
    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def describe(error: BaseException) -> tuple[str, int]:
    """One line for `error`, and the exit code: 2 for what the user can mend, else 1."""
    from .blocks.lost import cluster_errors
    from .errors import AetdistError

    try:
        with cluster_errors():
            raise error
    except BaseException as told:
        error = told
    text = _one_line(str(error))
    if isinstance(error, AetdistError):
        return text, 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror, 1
    if isinstance(error, MemoryError):
        return f"out of memory: {text or 'this process could get no more'}", 1
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)", 1


def resume_command(argv: list[str]) -> str:
    """The shell line that goes on with what `argv` began: the same, but nothing is thrown away."""
    program = sys.argv[0]
    if program.endswith("__main__.py"):
        start = [sys.executable, "-m", "aetdist"]
    else:
        start = ["aetdist" if program == shutil.which("aetdist") else program]
    return shlex.join([*start, *(word for word in argv if word != "--overwrite")])


@contextlib.contextmanager
def session(*, as_json: bool, log_file: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Around one command: its warnings, log, progress, and the function that shows its summary."""
    begin = time.monotonic()
    stdout = sys.stdout
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(_logging(log_file))
        stack.enter_context(_warnings())
        stack.enter_context(_progress())

        def show(summary: Mapping[str, Any]) -> None:
            text = summary.get("text")
            full = {**summary, "seconds": time.monotonic() - begin}
            if "peak_memory_bytes" not in full:
                with accounted() as usage:
                    pass
                full["peak_memory_bytes"] = usage["peak_memory_bytes"]
            log.debug("summary %s", json.dumps(jsonable(full), allow_nan=False))
            if as_json:
                print(json.dumps(jsonable(full), allow_nan=False), file=stdout, flush=True)
            elif text is not None:
                print(text, file=stdout, end="" if str(text).endswith("\n") else "\n", flush=True)
            else:
                print("\n".join(summary_lines(full)), file=stdout, flush=True)

        yield show


def jsonable(value: Any) -> Any:
    """`value` as what JSON knows: NaN and infinities become None, arrays lists, paths text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return jsonable(value.tolist())
    return str(value)


def summary_lines(summary: Mapping[str, Any], indent: str = "") -> list[str]:
    """A summary as aligned lines with units, tables inside it indented."""
    names = {key: _name(key) for key in summary}
    width = max((len(name) for name in names.values()), default=0)
    lines = []
    for key, value in summary.items():
        if isinstance(value, Mapping):
            lines.append(f"{indent}{names[key]}")
            lines += summary_lines(value, indent + "  ")
        else:
            lines.append(f"{indent}{names[key]:<{width}}  {_value(key, value)}".rstrip())
    return lines


def _name(key: str) -> str:
    if key in LABELS:
        return LABELS[key][0]
    return key if "/" in key else key.replace("_", " ")


def _value(key: str, value: Any) -> str:
    if value is None:
        return "none"
    value = jsonable(value)
    unit = LABELS.get(key, ("", ""))[1]
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"
    if value is None:
        return "not defined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        if len(value) > 8:
            return f"{len(value)} values"
        nested = any(isinstance(item, list) or (isinstance(item, str) and "," in item) for item in value)
        between = " to " if key.endswith("_range") else "; " if nested else ", "
        return f"{between.join(_value('', item) for item in value)} {unit}".rstrip()
    if isinstance(value, float):
        value = f"{value:.1f}" if key == "seconds" else f"{value:.4g}"
    return f"{value} {unit}".rstrip()


def _say(line: str) -> None:
    print(f"aetdist: {redacted(line)}", file=sys.stderr, flush=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Stopped`; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, _frame: Any) -> None:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        raise Stopped(signum)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Redacting(logging.Formatter):
    """Lines of a log, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


@contextlib.contextmanager
def _logging(log_file: Path | None) -> Iterator[None]:
    """Send the log of the package to stderr (only warnings on a terminal) and to `log_file`, with tracebacks."""
    before = log.level, log.propagate
    lines = logging.StreamHandler(sys.stderr)
    lines.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    lines.setFormatter(_Redacting("%(asctime)s %(message)s", "%H:%M:%S"))
    handlers: list[logging.Handler] = [lines]
    if log_file is not None:
        try:
            handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        except OSError as error:
            raise click.ClickException(f"The log cannot be written: {error.strerror}: {log_file}.") from error
        handlers[-1].setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.setLevel(logging.DEBUG)
    log.propagate = False
    nowhere = logging.NullHandler()  # else Python writes what other libraries log about a damaged file to stderr
    logging.getLogger().addHandler(nowhere)
    for handler in handlers:
        log.addHandler(handler)
    log.debug("%s", shlex.join(sys.argv))
    try:
        yield
    except BaseException as error:
        log.debug("ended by %s", type(error).__name__, exc_info=True)
        raise
    finally:
        log.level, log.propagate = before
        logging.getLogger().removeHandler(nowhere)
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Show every warning once, as one line on stderr and in the log."""
    from .errors import AetdistWarning

    shown = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if str(message) in shown:
            return
        shown.add(str(message))
        _say(f"warning: {_one_line(str(message))}")
        log.debug("warning: %s", _one_line(str(message)))

    with warnings.catch_warnings():
        warnings.simplefilter("always", AetdistWarning)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _progress() -> Iterator[None]:
    """Draw what drivers report: bars on a terminal, a line now and then elsewhere."""
    from . import progress

    if sys.stderr.isatty():
        with _Bars() as bars, progress.listen(bars):
            yield
    else:
        with progress.listen(_Lines()):
            yield


class _Lines:
    """A log line when a label begins, at most every ten seconds, and when it is done."""

    def __init__(self, every: float = 10.0) -> None:
        self.every = every
        self.last: dict[str, float] = {}

    def __call__(self, done: int, total: int | None, label: str) -> None:
        now = time.monotonic()
        finished = total is not None and done >= total
        if finished or now - self.last.get(label, -math.inf) >= self.every:
            self.last[label] = now
            print(
                f"{time.strftime('%H:%M:%S')} {label} {done}/{'?' if total is None else total}",
                file=sys.stderr,
                flush=True,
            )


class _Bars:
    """One rich bar for each label, drawn on stderr from the first report on."""

    def __init__(self) -> None:
        self.progress: Any = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()

    def __call__(self, done: int, total: int | None, label: str) -> None:
        if self.progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self.progress = Progress(
                *columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=True
            )
            self.progress.start()
        if label not in self.tasks:
            self.tasks[label] = self.progress.add_task(label, total=total)
        self.progress.update(self.tasks[label], completed=done, total=total)
