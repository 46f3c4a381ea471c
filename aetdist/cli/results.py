"""Commands that take out what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FOLDER, MORE, STORE, Summary, command, keywords_of, words


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


@command("figures")
@click.argument("model", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, required=True, metavar="FOLDER", help="Where the files go.")
@click.option("--form", type=click.Choice(["png", "svg", "pdf"]), help="Kind of file. Default: png.")
@click.option("--only", callback=words, metavar="NAME,...", help="Figures whose names begin so, such as figure_1.")
@click.option("--movie", is_flag=True, default=None, help="Turning movies too: WebP, and MP4 if ffmpeg is installed.")
@click.option("--compare", type=click.Choice(["yang2021"]), help="The paper's particle 1: its numbers beside ours.")
@click.option("--types", metavar="FILE.h5::DATASET", help="Types of the atoms, where the model has none.")
@click.option("--cutoff", type=float, metavar="A", help="Neighbours are nearer. Default: the first valley of g(r).")
@click.option("--solute", type=int, metavar="TYPE", help="Look for medium-range order of the atoms of this type.")
@MORE
def figures(model: Path, output: Path, **options: Any) -> Summary:
    """Draw figures like those of Yang et al. (2021), in the size and the style of a journal.

    MODEL is a store, of which is drawn what it holds; or a file with atoms, which is analysed first, into
    FOLDER/analysis.zarr, with --cutoff, --solute and --set as aetdist analyze takes them. What cannot be drawn is
    listed with the reason.
    """
    from .._figures import draw_figures

    return draw_figures(model, output, **keywords_of(options))


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
