"""Commands of the tilt series: imported, preprocessed, aligned, refined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FOLDER, KIND, MORE, OVERWRITE, STORE, Summary, command, keywords_of, number_or_word


@command("import", cluster="asked")
@click.argument("files", nargs=-1, required=True, type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The store to make: run.zarr, s3://bucket/run.zarr.")
@click.option("--images", metavar="DATASET", help="Dataset of the images inside the file.")
@click.option(
    "--angles", metavar="DATASET|FILE", help="Dataset, or CSV/TXT/.tlt/.rawtlt/.mdoc file, of the angles in degrees."
)
@click.option("--mask", metavar="DATASET|nan", help="Dataset of measured pixels; nan: NaN pixels are not measured.")
@click.option("--x-pixels", metavar="DATASET", help="Pixel coordinates along x from the rotation's origin.")
@click.option("--y-pixels", metavar="DATASET", help="Pixel coordinates along y from the rotation's origin.")
@click.option("--pixel-size", type=float, metavar="A", help="Edge of a pixel in Angstrom, if no file says it.")
@click.option("--raw", is_flag=True, default=None, help="The images are raw frames, to be preprocessed.")
@click.option(
    "--frames",
    metavar="N|files|PATTERN",
    callback=number_or_word,
    help="Frames of a tilt: N images in a row, those of a file, or of names like tilt_{tilt}_frame_{frame}.tif.",
)
@click.option(
    "--order", metavar="given|FILE", help="Order of the files: as given, or of an .mdoc or CSV with their names."
)
@click.option("--tilt-axis", type=float, metavar="DEG", help="Angle of the tilt axis from the image's y.")
@click.option("--angle-convention", metavar="NAME", help="What the angles mean; see docs/importing.md.")
@click.option("--flip-tilt", is_flag=True, default=None, help="Reverse the sign of the tilts.")
@click.option("--transpose", is_flag=True, default=None, help="x and y of the images are stored the other way round.")
@click.option("--voltage", type=float, metavar="KV", help="Acceleration voltage in kV.")
@click.option("--dose", type=float, metavar="D", help="Dose of the whole series in electrons per square Angstrom.")
@click.option("--convergence", type=float, metavar="MRAD", help="Convergence semi-angle in mrad.")
@click.option("--detector", type=float, nargs=2, metavar="IN OUT", help="Detector's inner and outer angle in mrad.")
@OVERWRITE
def import_(files: tuple[Path, ...], output: Path, **options: Any) -> Summary:
    """Read a tilt series into a store: aligned images, or raw frames.

    FILES are HDF5, MAT, MRC, TIFF, NPY or SER, with the extra em also DM3, DM4 and EMD; or a folder of them.
    """
    from .. import pipeline

    if options.pop("raw", False):
        options.setdefault("frames", "axis")
    return pipeline.import_series(list(files), output, **options)


@command("preprocess", cluster="always")
@STORE
@KIND
@click.option("--no-denoise", "denoised", flag_value=False, default=None, help="Leave the noise in.")
@click.option("--no-background", "background", flag_value=False, default=None, help="Leave the background in.")
@MORE
def preprocess(store: Path, **options: Any) -> Summary:
    """Register and sum the raw frames, undo scan distortion, denoise, subtract the background."""
    from .. import pipeline

    return pipeline.preprocess(store, **keywords_of(options))


@command("align", cluster="always")
@STORE
@KIND
@MORE
def align(store: Path, **options: Any) -> Summary:
    """Find shifts and the tilt axis; make the aligned series, in one resampling from the raw frames."""
    from .. import pipeline

    return pipeline.align(store, **keywords_of(options))


@command("refine-angles", cluster="always")
@STORE
@click.option("--shape", type=int, nargs=3, metavar="NX NY NZ", help="Voxels of the volume.")
@click.option("--thickness", type=float, metavar="A", help="Thickness of a film along z, instead of the shape.")
@click.option("--model", type=click.Choice(["atoms", "volume", "joint"]), help="What predicts the images.")
@click.option("--window", type=int, nargs=2, metavar="NX NY", help="Film: scan it in windows of so many pixels.")
@click.option("--overlap", type=int, metavar="N", help="Pixels that neighbouring windows share.")
@click.option("--rounds", type=int, metavar="N", help="Reconstruct and refine at most so often.")
@click.option("--folds", type=int, metavar="N", help="Judge every tilt against a volume made without it: N volumes.")
@MORE
def refine_angles(store: Path, **options: Any) -> Summary:
    """Refine angles and shifts against the reprojections; make the refined series, in one resampling."""
    from .. import pipeline

    return pipeline.refine_angles(store, **keywords_of(options))
