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
