"""Commands that take out what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FOLDER, STORE, Summary, command


@command("export")
@STORE
@click.option("--atoms", type=FOLDER, metavar="FILE.xyz", help="Write the atoms as extended XYZ.")
@click.option("--volume", type=FOLDER, metavar="FILE.mrc", help="Write the volume as MRC.")
def export(store: Path, **options: Any) -> Summary:
    """Write atoms and volume for other programs."""
    from .. import pipeline

    if not options:
        raise click.UsageError("Nothing to export; add --atoms FILE.xyz or --volume FILE.mrc.")
    return pipeline.export(store, **options)


@command("report")
@STORE
@click.option("-o", "--output", type=FOLDER, metavar="FILE.html", help="Default: run.html beside run.zarr.")
@click.option("--truth", type=FOLDER, metavar="FILE.xyz", help="True atoms, to hold the found ones against.")
@click.option("--tolerance", type=float, metavar="A", help="How far a found atom may be from a true one.")
@click.option("--title", metavar="TEXT", help="Heading. Default: the name of the store.")
@click.option("--pictures", "pictures_to", type=FOLDER, metavar="FOLDER", help="Write the pictures as PNG files too.")
def report(store: Path, **options: Any) -> Summary:
    """Write one page on all that STORE holds, to open in any browser: no network is needed."""
    from .. import pipeline

    return pipeline.report(store, **options)
