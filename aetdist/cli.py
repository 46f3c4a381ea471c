"""The command line: text to pipeline calls, nothing else.

Defaults are not repeated here: an option that is not given is not passed on, so that the default in
the stage's own signature holds. Scientific modules are imported inside the commands.
"""

from __future__ import annotations

import contextlib
import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ._console import Program, session

Summary = dict[str, Any]
FOLDER = click.Path(path_type=Path)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=Program, context_settings=CONTEXT)
@click.version_option(package_name="aetdist", prog_name="aetdist")
def program() -> None:
    """Atomic electron tomography: from a tilt series to the 3D position of every atom.

    Lengths are in Angstrom unless said. Defaults of every stage: aetdist config.
    """


def main() -> None:
    """Run the command line of this process."""
    program()


def _options(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


COMMON = _options(
    click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object."),
    click.option("--log", "log_file", type=FOLDER, metavar="FILE", help="Write a log with times and tracebacks."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)
CLUSTER = _options(
    click.option(
        "--cluster",
        metavar="WHERE",
        help="Scheduler (tcp://..., tls://... or its file) or profile (slurm, pbs, lsf, sge). Default: this machine.",
    ),
    click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Worker processes. Default: one per core."),
    click.option("--memory-limit", metavar="SIZE", help="Memory of each worker, such as 4GB. Default: all, shared."),
)


def command(name: str, *, cluster: str | None = None) -> Callable[..., click.Command]:
    """Make a command of a function that returns its summary.

    `cluster` says when a Dask client is there while it runs: "always", "asked" (only when one of
    the cluster options is given) or never.
    """

    def decorate(function: Callable[..., Summary]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, log_file: Path | None, debug: bool, **options: Any) -> None:
            where = {key: options.pop(key, None) for key in ("cluster", "workers", "memory_limit")}
            wanted = cluster == "always" or any(value is not None for value in where.values())
            with session(as_json=as_json, log_file=log_file) as show, contextlib.ExitStack() as stack:
                if cluster and wanted and not options.get("dry_run"):
                    from .cluster import connect

                    stack.enter_context(connect(where.pop("cluster"), **where))
                show(function(**{key: value for key, value in options.items() if value is not None}))

        # click lists the last decorator's option first: the command's own, the cluster's, the common ones.
        own = run.__dict__.pop("__click_params__", [])
        COMMON(run)
        if cluster:
            CLUSTER(run)
        run.__dict__["__click_params__"].extend(own)
        return program.command(name)(run)

    return decorate


def _assignments(_ctx: click.Context, _option: click.Parameter, words: tuple[str, ...]) -> dict[str, Any] | None:
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


def _numbers(_ctx: click.Context, _option: click.Parameter, text: str | None) -> list[float] | None:
    """Read numbers with commas between them."""
    try:
        return [float(word) for word in text.split(",")] if text is not None else None
    except ValueError:
        raise click.BadParameter(f"{text!r} came; needed are numbers with commas between them.") from None


def _number_or_word(_ctx: click.Context, _option: click.Parameter, text: str | None) -> int | str | None:
    """Read a whole number, or leave a word as it is."""
    return int(text) if text is not None and text.isdecimal() else text


def _keywords(options: dict[str, Any]) -> dict[str, Any]:
    """`options` with what --set gave beside them."""
    more = options.pop("more", {})
    return {**options, **more}


MORE = click.option(
    "--set",
    "more",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_assignments,
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


@command("import", cluster="asked")
@click.argument("files", nargs=-1, required=True, type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The store to make, such as run.zarr.")
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
    callback=_number_or_word,
    help="Frames of a tilt: N images in a row, those of a file, or of names like tilt_{tilt}_frame_{frame}.tif.",
)
@click.option(
    "--order", metavar="given|FILE", help="Order of the files: as given, or of an .mdoc or CSV with their names."
)
@click.option("--tilt-axis", type=float, metavar="DEG", help="Angle of the tilt axis from the image's y.")
@click.option("--angle-convention", metavar="NAME", help="What the angles mean; see the README.")
@click.option("--flip-tilt", is_flag=True, default=None, help="Reverse the sign of the tilts.")
@click.option("--voltage", type=float, metavar="KV", help="Acceleration voltage in kV.")
@click.option("--dose", type=float, metavar="D", help="Dose of the whole series in electrons per square Angstrom.")
@click.option("--convergence", type=float, metavar="MRAD", help="Convergence semi-angle in mrad.")
@click.option("--detector", type=float, nargs=2, metavar="IN OUT", help="Detector's inner and outer angle in mrad.")
@OVERWRITE
def import_(files: tuple[Path, ...], output: Path, **options: Any) -> Summary:
    """Read a tilt series into a store: aligned images, or raw frames.

    FILES are HDF5, MAT, MRC, TIFF, NPY or SER, with the extra em also DM3, DM4 and EMD; or a folder of them.
    """
    from . import pipeline

    if options.pop("raw", False):
        options.setdefault("frames", "axis")
    return pipeline.import_series(list(files), output, **options)


@command("run", cluster="always")
@click.argument("experiment", type=FOLDER)
@click.option("--dry-run", is_flag=True, default=None, help="Say what would be computed, compute nothing.")
def run(experiment: Path, **options: Any) -> Summary:
    """Do every stage of EXPERIMENT.toml that is not current; go on where a killed run stopped."""
    from . import pipeline

    return pipeline.run(experiment, **options)


@command("config")
def config() -> Summary:
    """Print a complete experiment.toml with defaults and units."""
    from . import pipeline

    return {"text": pipeline.default_config()}


KIND = click.option(
    "--kind", type=click.Choice(["particle", "film"]), help="An isolated object, or a film beyond the field."
)


@command("preprocess", cluster="always")
@STORE
@KIND
@click.option("--no-denoise", "denoised", flag_value=False, default=None, help="Leave the noise in.")
@click.option("--no-background", "background", flag_value=False, default=None, help="Leave the background in.")
@MORE
def preprocess(store: Path, **options: Any) -> Summary:
    """Register and sum the raw frames, undo scan distortion, denoise, subtract the background."""
    from . import pipeline

    return pipeline.preprocess(store, **_keywords(options))


@command("align", cluster="always")
@STORE
@KIND
@MORE
def align(store: Path, **options: Any) -> Summary:
    """Find shifts and the tilt axis; make the aligned series, in one resampling from the raw frames."""
    from . import pipeline

    return pipeline.align(store, **_keywords(options))


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
    from . import pipeline

    return pipeline.refine_angles(store, **_keywords(options))


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
    callback=_number_or_word,
    help="Cut the volume along the tilt axis; every worker of the cluster keeps its slabs.",
)
@MORE
def reconstruct(store: Path, **options: Any) -> Summary:
    """Reconstruct the whole field in one piece (RESIRE), here on all cores unless a cluster is asked for."""
    from . import pipeline

    return pipeline.reconstruct(store, **_keywords(options))


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
    from . import pipeline

    return pipeline.scan(store, **_keywords(options))


@command("trace", cluster="always")
@STORE
@click.option("--minimum-distance", type=float, metavar="A", help="No two atoms are closer than this.")
@click.option("--threshold", type=float, metavar="V", help="Least density of an atom. Default: found in the volume.")
@MORE
def trace(store: Path, **options: Any) -> Summary:
    """Find the atoms in the volume."""
    from . import pipeline

    return pipeline.trace(store, **_keywords(options))


@command("export")
@STORE
@click.option("--atoms", type=FOLDER, metavar="FILE.xyz", help="Write the atoms as extended XYZ.")
@click.option("--volume", type=FOLDER, metavar="FILE.mrc", help="Write the volume as MRC.")
def export(store: Path, **options: Any) -> Summary:
    """Write atoms and volume for other programs."""
    from . import pipeline

    if not options:
        raise click.UsageError("Nothing to export; add --atoms FILE.xyz or --volume FILE.mrc.")
    return pipeline.export(store, **options)


@command("compare")
@click.argument("found")
@click.argument("truth")
@click.option("--tolerance", type=float, metavar="A", help="How far apart a pair may be.")
@click.option("--by-type", is_flag=True, default=None, help="Count pairs of the same type too.")
@click.option("--align", type=click.Choice(["rigid"]), help="Turn and shift FOUND onto TRUTH first.")
def compare(found: str, truth: str, **options: Any) -> Summary:
    """Compare two sets of atoms by mutual nearest pairs.

    FOUND and TRUTH are XYZ, CSV or NPY files, or FILE.h5::DATASET with positions in Angstrom.
    """
    from .io import read_atoms
    from .metrics import compare_atoms

    return compare_atoms(read_atoms(found), read_atoms(truth), **options).to_dict()


@command("info")
@STORE
def info(store: Path) -> Summary:
    """Say what a store holds, who made it, and what is complete."""
    from . import pipeline

    return pipeline.info(store)


@command("demo", cluster="always")
@click.argument("folder", type=FOLDER, default="demo")
@SEED
@OVERWRITE
def demo(folder: Path, **options: Any) -> Summary:
    """Make a small film with a known truth and take it through every stage (two minutes)."""
    from .demo import run_demo

    return run_demo(folder, **options)


@command("simulate", cluster="asked")
@click.argument("atoms", type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The store to make.")
@click.option("--angles", required=True, type=FOLDER, metavar="FILE", help="Angles in degrees (CSV, TXT, .tlt).")
@click.option("--pixel-size", type=float, metavar="A", help="Edge of a pixel.")
@click.option("--field", type=int, nargs=2, metavar="NX NY", help="Pixels of an image. Default: all atoms, always.")
@click.option("--sigma", type=float, metavar="A", help="Standard deviation of an atom.")
@click.option("--heights", callback=_numbers, metavar="H,H,...", help="Peak value of an atom of type 1, 2, ...")
@click.option("--dose", type=float, metavar="D", help="Electrons per square Angstrom and tilt; none: no noise.")
@click.option(
    "--frames", type=int, metavar="N", help="Raw frames of every tilt, with drift, distortion, background ..."
)
@SEED
@MORE
@OVERWRITE
def simulate(atoms: Path, output: Path, **options: Any) -> Summary:
    """Simulate the tilt series of ATOMS (extended XYZ)."""
    from . import pipeline

    return pipeline.simulate(atoms, output, **_keywords(options))


@command("project", cluster="asked")
@click.argument("volume", type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The projections to write.")
@click.option("--angles", required=True, type=FOLDER, metavar="FILE", help="Angles in degrees (CSV, TXT, .tlt).")
@click.option("--pixel-size", type=float, metavar="A", help="Edge of a voxel, where the file does not say it (NPY).")
@OVERWRITE
def project(volume: Path, output: Path, **options: Any) -> Summary:
    """Project a volume (a store, MRC or NPY file) along each angle."""
    from . import pipeline

    return pipeline.project(volume, output, **options)
