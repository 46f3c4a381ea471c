"""The command line: text to pipeline calls, nothing else.

Defaults are not repeated here: an option that is not given is not passed on, so that the default in
the stage's own signature holds. Scientific modules are imported inside the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._options import (
    FOLDER,
    MORE,
    OVERWRITE,
    SEED,
    SOLVER,
    STOP,
    STORE,
    Summary,
    command,
    keywords_of,
    number_or_word,
    numbers,
    program,
    whole_numbers,
    words,
)


def main() -> None:
    """Run the command line of this process."""
    program()


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
    callback=number_or_word,
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

    return pipeline.preprocess(store, **keywords_of(options))


@command("align", cluster="always")
@STORE
@KIND
@MORE
def align(store: Path, **options: Any) -> Summary:
    """Find shifts and the tilt axis; make the aligned series, in one resampling from the raw frames."""
    from . import pipeline

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
    from . import pipeline

    return pipeline.refine_angles(store, **keywords_of(options))


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
    from . import pipeline

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
    from . import pipeline

    return pipeline.scan(store, **keywords_of(options))


@command("trace", cluster="always")
@STORE
@click.option("--minimum-distance", type=float, metavar="A", help="No two atoms are closer than this.")
@click.option("--threshold", type=float, metavar="V", help="Least density of an atom. Default: found in the volume.")
@MORE
def trace(store: Path, **options: Any) -> Summary:
    """Find the atoms in the volume."""
    from . import pipeline

    return pipeline.trace(store, **keywords_of(options))


ELEMENTS = click.option(
    "--elements", metavar="A,B,...", callback=words, help="Chemical elements of type 1, 2, ..., such as Co,Pd,Pt."
)


@command("classify", cluster="always")
@STORE
@click.option("--species", type=int, metavar="N", help="Types to tell apart by brightness.")
@ELEMENTS
@MORE
def classify(store: Path, **options: Any) -> Summary:
    """Tell the types of the traced atoms apart; leave out what is no atom."""
    from . import pipeline

    return pipeline.classify(store, **keywords_of(options))


@command("refine", cluster="always")
@STORE
@click.option("--iterations", type=int, metavar="N", help="Steps of positions, brightness and width.")
@click.option("--heights", type=click.Choice(["auto", "type", "atom"]), help="One brightness per type, or per atom.")
@click.option("--edits", type=FOLDER, metavar="FILE.csv", help="Atoms to add, delete, move or retype by hand.")
@click.option("--no-curate", "curate", flag_value=False, default=None, help="Add, delete and merge no atoms.")
@ELEMENTS
@MORE
def refine(store: Path, **options: Any) -> Summary:
    """Refine the atoms against all images; add and delete where it pays; say how sure each of them is."""
    from . import pipeline

    return pipeline.refine(store, **keywords_of(options))


@command("validate", cluster="always")
@STORE
@click.option("--multislice", is_flag=True, default=None, help="Simulate by multislice; needs elements. Takes long.")
@click.option("--dose", type=float, metavar="D", help="Electrons per square Angstrom and tilt. Default: as measured.")
@click.option("--angle-error", type=float, metavar="DEG", help="Further errors of every angle, standard deviation.")
@click.option("--shift-error", type=float, metavar="PIX", help="Further errors of shifts, standard deviation.")
@click.option("--truth", type=FOLDER, metavar="FILE.xyz", help="Write the atoms that were simulated.")
@click.option("--found", type=FOLDER, metavar="FILE.xyz", help="Write the atoms that were found of them.")
@SEED
@MORE
def validate(store: Path, **options: Any) -> Summary:
    """Simulate the refined atoms, find them again by the same stages, compare; calibrate the error bars.

    The simulated experiment is kept beside STORE, as run.validation.zarr for run.zarr.
    """
    from . import pipeline

    return pipeline.validate(store, **keywords_of(options))


@command("analyze", cluster="asked")
@click.argument("models", nargs=-1, required=True, type=FOLDER)
@click.option("-o", "--output", type=FOLDER, help="The store to make of files, such as analysis.zarr.")
@click.option("--types", metavar="FILE.h5::DATASET", help="Types of the atoms, where the model has none.")
@click.option("--convention", type=click.Choice(["yang2021"]), help="Definitions of the published scripts.")
@click.option("--cutoff", type=float, metavar="A", help="Neighbours are nearer. Default: the first valley of g(r).")
@click.option("--field", type=float, nargs=4, metavar="X0 X1 Y0 Y1", help="A film goes on beyond this field.")
@click.option("--open", "periodic", flag_value=False, default=None, help="A finite sample, whatever the file says.")
@click.option("--solute", type=int, metavar="TYPE", help="Look for medium-range order of the atoms of this type.")
@click.option("--draws", type=int, metavar="N", help="Copies within the atoms' error bars for those of the figures.")
@click.option("--report", type=FOLDER, metavar="FILE.html", help="Write the figures of every analysis.")
@MORE
@OVERWRITE
def analyze(models: tuple[Path, ...], **options: Any) -> Summary:
    """Analyse the order of atoms: g(r), bond order, Voronoi cells, chemical and medium-range order.

    MODELS are a store, analysed in place; or XYZ, CSV, NPY, HDF5 (FILE.h5::DATASET) and, with the extra formats, CIF,
    PDB and LAMMPS files. Several give one table.
    """
    from . import pipeline

    return pipeline.analyze(list(models), **keywords_of(options))


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
    from . import pipeline

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
    from . import pipeline

    if options.pop("whole", False):
        options["radius"] = None
    return pipeline.design(atoms, output, **keywords_of(options))


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
