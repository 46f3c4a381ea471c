"""Commands that take out what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FOLDER, STORE, Summary, command


@command("export")
@STORE
@click.option("--atoms", type=FOLDER, metavar="FILE", help="Write the atoms: .xyz (extended XYZ) or .csv.")
@click.option("--volume", type=FOLDER, metavar="FILE", help="Write the volume: .mrc, .tif, .ome.zarr (OME-Zarr 0.5).")
def export(store: Path, **options: Any) -> Summary:
    """Write atoms and volume for other programs."""
    from .. import pipeline

    if not options:
        raise click.UsageError("Nothing to export; add --atoms FILE.xyz or --volume FILE.mrc.")
    return pipeline.export(store, **options)


@command("curate")
@STORE
@click.option("--edits", type=FOLDER, metavar="FILE.csv", help="Table to write or go on with. Default: beside STORE.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port on 127.0.0.1. Default: one that is free.")
def curate(store: Path, **options: Any) -> Summary:
    """Look at the least certain atoms in a browser; accept, delete, retype or add them.

    Decisions are a table of edits, for aetdist refine --edits; the store is only read. Ctrl-C ends it.
    """
    from ..curate import curate

    return curate(store, on_ready=lambda url: click.echo(f"{url}  (Ctrl-C ends it)"), **options)
