"""What the commands of the command line share: the program, how a command is made, and common options."""

from __future__ import annotations

import contextlib
import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .._console import Program, session

Summary = dict[str, Any]


class _Folder(click.Path):
    """A path; a URL such as s3://bucket/run.zarr stays text, as `pathlib` would take it for a path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in str(value) else super().convert(value, param, ctx)


FOLDER = _Folder(path_type=Path)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=Program, context_settings=CONTEXT)
@click.version_option(package_name="aetdist", prog_name="aetdist")
def program() -> None:
    """Atomic electron tomography: from a tilt series to the 3D position of every atom.

    Lengths are in Angstrom unless said. Defaults of every stage: aetdist config.
    """


def together(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Several decorators as one, the first outermost."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


COMMON = together(
    click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object."),
    click.option("--log", "log_file", type=FOLDER, metavar="FILE", help="Write a log with times and tracebacks."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)
CLUSTER = together(
    click.option(
        "--cluster",
        metavar="WHERE",
        help="Scheduler (tcp://..., tls://... or its file) or profile (slurm, pbs, lsf, sge, slurm-runner, mpi, "
        "kubernetes). Default: this machine.",
    ),
    click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Worker processes. Default: one per core."),
    click.option("--memory-limit", metavar="SIZE", help="Memory of each worker, such as 4GB. Default: all, shared."),
    click.option("--insecure", is_flag=True, default=None, help="Of a profile: plain TCP instead of TLS."),
)


def command(name: str, *, cluster: str | None = None) -> Callable[..., click.Command]:
    """Make a command of a function that returns its summary.

    `cluster` says when a Dask client is there while it runs: "always", "asked" (only when one of
    the cluster options is given) or never.
    """

    def decorate(function: Callable[..., Summary]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, log_file: Path | None, debug: bool, **options: Any) -> None:
            names = ("cluster", "workers", "memory_limit", "insecure") if cluster else ()
            given = {key: options.pop(key, None) for key in names}
            where = {key: value for key, value in given.items() if value is not None}
            wanted = cluster == "always" or where
            with session(as_json=as_json, log_file=log_file) as show, contextlib.ExitStack() as stack:
                if cluster and wanted and not options.get("dry_run"):
                    from ..cluster import connect

                    if "cluster" in where:
                        where["store"] = _place(options)
                    stack.enter_context(connect(where.pop("cluster", None), **where))
                show(function(**{key: value for key, value in options.items() if value is not None}))

        # click lists the last decorator's option first: the command's own, the cluster's, the common ones.
        own = run.__dict__.pop("__click_params__", [])
        COMMON(run)
        if cluster:
            CLUSTER(run)
        run.__dict__["__click_params__"].extend(own)
        return program.command(name)(run)

    return decorate


def _place(options: dict[str, Any]) -> Any:
    """The store that a command works on or makes, which the workers have to see."""
    if "experiment" in options:
        from ..experiment import read_experiment

        return read_experiment(options["experiment"]).store
    return options.get("store") or options.get("output") or options.get("folder")


def assignments(_ctx: click.Context, _option: click.Parameter, words: tuple[str, ...]) -> dict[str, Any] | None:
    """Read KEY=VALUE words; a value is TOML, or else text."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise click.BadParameter(f"{word!r} came; needed is KEY=VALUE, such as iterations=20.")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value
    return found or None


def words(_ctx: click.Context, _option: click.Parameter, text: str | None) -> list[str] | None:
    """Read words with commas between them."""
    return [word.strip() for word in text.split(",")] if text is not None else None


def numbers(_ctx: click.Context, _option: click.Parameter, text: str | None) -> list[float] | None:
    """Read numbers with commas between them."""
    try:
        return [float(word) for word in text.split(",")] if text is not None else None
    except ValueError:
        raise click.BadParameter(f"{text!r} came; needed are numbers with commas between them.") from None


def whole_numbers(_ctx: click.Context, _option: click.Parameter, text: str | None) -> list[int] | None:
    """Read whole numbers with commas between them."""
    try:
        return [int(word) for word in text.split(",")] if text is not None else None
    except ValueError:
        raise click.BadParameter(f"{text!r} came; needed are whole numbers with commas between them.") from None


def number_or_word(_ctx: click.Context, _option: click.Parameter, text: str | None) -> int | str | None:
    """Read a whole number, or leave a word as it is."""
    return int(text) if text is not None and text.isdecimal() else text


def keywords_of(options: dict[str, Any]) -> dict[str, Any]:
    """`options` with what --set gave beside them."""
    more = options.pop("more", {})
    return {**options, **more}


MORE = click.option(
    "--set",
    "more",
    multiple=True,
    metavar="KEY=VALUE",
    callback=assignments,
    help="Any other keyword of the stage; aetdist config lists them.",
)
OVERWRITE = click.option("--overwrite", is_flag=True, default=None, help="Replace what is there.")
SEED = click.option("--seed", type=int, metavar="N", help="Seed of the random numbers.")
STOP = click.option(
    "--stop",
    type=click.Choice(["fixed", "held_out_blocks", "held_out_tilts", "discrepancy"]),
    help="What chooses the number of iterations: itself, pixels or tilts held out of a trial, or the noise.",
)
SOLVER = click.option(
    "--solver",
    type=click.Choice(["fista", "published", "ordered_subsets", "sirt", "sart"]),
    help="Momentum; the published descent; momentum with a step after each quarter of the tilts; or SIRT.",
)
STORE = click.argument("store", type=FOLDER)
KIND = click.option(
    "--kind", type=click.Choice(["particle", "film"]), help="An isolated object, or a film beyond the field."
)
ELEMENTS = click.option(
    "--elements", metavar="A,B,...", callback=words, help="Chemical elements of type 1, 2, ..., such as Co,Pd,Pt."
)
