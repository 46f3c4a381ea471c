"""Commands of whole experiments: run, shown, simulated, planned."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from .options import (
    FOLDER,
    KIND,
    MORE,
    OVERWRITE,
    SEED,
    STORE,
    Summary,
    command,
    keywords_of,
    number_or_word,
    numbers,
    whole_numbers,
)


@command("run", cluster="always")
@click.argument("experiment", type=FOLDER)
@click.option("--dry-run", is_flag=True, default=None, help="Say what would be computed, compute nothing.")
def run(experiment: Path, **options: Any) -> Summary:
    """Do every stage of EXPERIMENT.toml that is not current; go on where a killed run stopped."""
    from .. import pipeline

    return pipeline.run(experiment, **options)


@command("plan")
@click.argument("target", type=FOLDER)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Worker processes. Default: one per core.")
@click.option("--memory-limit", metavar="SIZE", help="Memory of each worker, such as 4GB. Default: all, shared.")
@click.option("--window", type=int, nargs=2, metavar="NX NY", help="Of a store: scan it in windows of so many pixels.")
@click.option("--overlap", type=int, metavar="N", help="Pixels that neighbouring windows share.")
@click.option("--thickness", type=float, metavar="A", help="Thickness of the film.")
@click.option("--shape", type=int, nargs=3, metavar="NX NY NZ", help="Of a store: reconstruct so many voxels at once.")
@click.option("--slabs", metavar="N|auto", callback=number_or_word, help="The same in slabs.")
@MORE
def plan(target: Path, **options: Any) -> Summary:
    """Say what TARGET (experiment.toml, or a store) will take: tasks, memory, time, disk. Nothing is computed.

    Some kernels are timed for it, in seconds.
    """
    from .. import pipeline

    return pipeline.plan(target, **keywords_of(options))


@command("config")
def config() -> Summary:
    """Print a complete experiment.toml with defaults and units."""
    from .. import pipeline

    return {"text": pipeline.default_config()}


@command("info")
@STORE
def info(store: Path) -> Summary:
    """Say what a store holds, who made it, and what is complete."""
    from .. import pipeline

    return pipeline.info(store)


@command("data")
@click.argument("name", required=False)
@click.argument("files", nargs=-1)
@click.option("--folder", type=FOLDER, help="Where to keep the files. Default: the user's cache.")
def data(name: str | None = None, files: tuple[str, ...] = (), **options: Any) -> Summary:
    """Fetch the FILES of the published data set NAME; without a name, list what there is."""
    from ..data import PUBLISHED, fetch

    if name is None:
        return {
            "text": "\n\n".join(
                f"{key}: {published.title}\n  files: {', '.join(published.files)}\n  cite: {published.citation}"
                for key, published in PUBLISHED.items()
            )
        }
    found = fetch(name, *files, **options)
    published = PUBLISHED[name]
    summary = {"files": found, "cite": published.citation}
    with contextlib.suppress(KeyError):  # it needs a file that was not asked for
        summary["next"] = published.command.format(**found)
    return summary


@command("demo", cluster="always")
@click.argument("folder", type=FOLDER, default="demo")
@SEED
@OVERWRITE
def demo(folder: Path, **options: Any) -> Summary:
    """Make a small film with a known truth and take it through every stage (two minutes)."""
    from ..demo import run_demo

    return run_demo(folder, **options)


@command("simulate", cluster="asked")
@click.argument("atoms", type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The store to make.")
@click.option("--angles", required=True, type=FOLDER, metavar="FILE", help="Angles in degrees (CSV, TXT, .tlt).")
@click.option("--pixel-size", type=float, metavar="A", help="Edge of a pixel.")
@click.option("--field", type=int, nargs=2, metavar="NX NY", help="Pixels of an image. Default: all atoms, always.")
@click.option("--sigma", type=float, metavar="A", help="Standard deviation of an atom.")
@click.option("--heights", callback=numbers, metavar="H,H,...", help="Peak value of an atom of type 1, 2, ...")
@KIND
@click.option("--dose", type=float, metavar="D", help="Electrons per square Angstrom and tilt; none: no noise.")
@click.option("--angle-error", type=float, metavar="DEG", help="Random errors of the angles, standard deviation.")
@click.option("--angle-drift", type=float, metavar="DEG", help="Errors that vary smoothly along the series, rms.")
@click.option("--shift", type=float, metavar="N", help="Largest shift of a tilt in pixels.")
@click.option("--brightness", type=float, metavar="PART", help="Variation of the tilts' brightness.")
@click.option("--background", type=float, metavar="PART", help="Smooth background, as a part of the signal.")
@click.option("--carbon", type=float, metavar="A", help="Thickness of a carbon film below the sample.")
@click.option(
    "--frames", type=int, metavar="N", help="Raw frames of every tilt, with drift, distortion, background ..."
)
@click.option("--multislice", is_flag=True, default=None, help="Multislice by abTEM; --set voltage, detector ...")
@SEED
@MORE
@OVERWRITE
def simulate(atoms: Path, output: Path, **options: Any) -> Summary:
    """Simulate the tilt series of ATOMS (extended XYZ); the same command goes on where it was killed."""
    from .. import pipeline

    return pipeline.simulate(atoms, output, **keywords_of(options))


@command("design", cluster="always")
@click.argument("atoms", type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The store to make; a .csv and a .png lie beside it.")
@click.option("--dose", "doses", required=True, callback=numbers, metavar="D,D,...", help="e/Å² of the whole series.")
@click.option("--tilts", "n_tilts", callback=whole_numbers, metavar="N,N,...", help="Numbers of tilts.")
@click.option("--range", "tilt_ranges", callback=numbers, metavar="DEG,...", help="Largest tilts to either side.")
@click.option("--radius", type=float, metavar="A", help="Simulate a sphere of that radius out of the middle.")
@click.option("--whole", is_flag=True, default=None, help="Simulate all atoms; takes long.")
@click.option("--pixel-size", type=float, metavar="A", help="Edge of a pixel.")
@click.option("--angle-error", type=float, metavar="DEG", help="What the angles are off, standard deviation.")
@SEED
@MORE
def design(atoms: Path, output: Path, **options: Any) -> Summary:
    """Say what experiments with several doses, numbers and ranges of tilts would find of ATOMS."""
    from .. import pipeline

    if options.pop("whole", False):
        options["radius"] = None
    return pipeline.design(atoms, output, **keywords_of(options))
