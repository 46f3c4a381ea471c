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
