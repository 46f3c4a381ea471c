"""Commands of the atoms: traced, classified, refined, validated, analysed, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import ELEMENTS, FOLDER, MORE, OVERWRITE, SEED, STORE, Summary, command, keywords_of


@command("trace", cluster="always")
@STORE
@click.option("--minimum-distance", type=float, metavar="A", help="No two atoms are closer than this.")
@click.option("--threshold", type=float, metavar="V", help="Least density of an atom. Default: found in the volume.")
@MORE
def trace(store: Path, **options: Any) -> Summary:
    """Find the atoms in the volume."""
    from .. import pipeline

    return pipeline.trace(store, **keywords_of(options))


@command("classify", cluster="always")
@STORE
@click.option("--species", type=int, metavar="N", help="Types to tell apart by brightness.")
@ELEMENTS
@MORE
def classify(store: Path, **options: Any) -> Summary:
    """Tell the types of the traced atoms apart; leave out what is no atom."""
    from .. import pipeline

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
    from .. import pipeline

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
    from .. import pipeline

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
    from .. import pipeline

    return pipeline.analyze(list(models), **keywords_of(options))


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
    from ..io import read_atoms
    from ..metrics import compare_atoms

    return compare_atoms(read_atoms(found), read_atoms(truth), **options).to_dict()
