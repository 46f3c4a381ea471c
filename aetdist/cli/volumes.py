"""Commands of the volume: reconstructed in one piece, scanned, projected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FOLDER, MORE, OVERWRITE, SOLVER, STOP, STORE, Summary, command, keywords_of, number_or_word


@command("reconstruct", cluster="asked")
@STORE
@click.option("--shape", type=int, nargs=3, metavar="NX NY NZ", help="Voxels of the volume.")
@click.option("--thickness", type=float, metavar="A", help="Thickness along z, instead of the shape.")
@SOLVER
@click.option("--iterations", type=int, metavar="N", help="Iterations; at most so many where --stop chooses.")
@STOP
@click.option("--projector", type=click.Choice(["shear", "fourier"]), help="In real space, or as Fourier slices.")
@click.option(
    "--slabs",
    metavar="N|auto",
    callback=number_or_word,
    help="Cut the volume along the tilt axis; every worker of the cluster keeps its slabs.",
)
@MORE
def reconstruct(store: Path, **options: Any) -> Summary:
    """Reconstruct the whole field in one piece (RESIRE), here on all cores unless a cluster is asked for."""
    from .. import pipeline

    return pipeline.reconstruct(store, **keywords_of(options))


@command("scan", cluster="always")
@STORE
@click.option("--window", type=int, nargs=2, required=True, metavar="NX NY", help="Pixels of a window.")
@click.option("--overlap", type=int, required=True, metavar="N", help="Pixels that neighbouring windows share.")
@click.option("--thickness", type=float, required=True, metavar="A", help="Thickness of the film.")
@SOLVER
@click.option("--iterations", type=int, metavar="N", help="Iterations of every window; at most so many with --stop.")
@STOP
@click.option("--final-iterations", type=int, metavar="N", help="Iterations over the whole field at the end.")
@MORE
def scan(store: Path, **options: Any) -> Summary:
    """Reconstruct a film from many local volumes, stitched (scanning AET)."""
    from .. import pipeline

    return pipeline.scan(store, **keywords_of(options))


@command("project", cluster="asked")
@click.argument("volume", type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The projections to write.")
@click.option("--angles", required=True, type=FOLDER, metavar="FILE", help="Angles in degrees (CSV, TXT, .tlt).")
@click.option("--pixel-size", type=float, metavar="A", help="Edge of a voxel, where the file does not say it (NPY).")
@OVERWRITE
def project(volume: Path, output: Path, **options: Any) -> Summary:
    """Project a volume (a store, MRC or NPY file) along each angle."""
    from .. import pipeline

    return pipeline.project(volume, output, **options)
