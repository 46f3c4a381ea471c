"""The figures of the paper, its movies, and its numbers beside ours: files made of a store, or of a model's file."""

from __future__ import annotations

import csv
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ._analyze import analyze_files
from ._usage import accounted
from .analysis.mro import find_mro, representative_pairs, tolerance_table
from .analysis.precision import precision_effect
from .analysis.yang2021 import CUTOFF, SOLUTE, Row, compare_published
from .errors import InputError
from .experiment import checked_keywords
from .io import Store, newest
from .io.groups import ATOMS
from .io.hierarchy import is_store
from .io.places import local_path
from .report.findings import find
from .report.order import names_of_types
from .report.paper import FIGURES, Material, PaperFigure, write_movies
from .report.paper.style import DPI
from .report.style import save_picture
from .validation import nested_path

Summary = dict[str, Any]
Found = Mapping[str, xr.Dataset]

log = logging.getLogger(__name__)

FORMS = ("png", "svg", "pdf")
_SIMULATED = ("tilt_series/noise_free", "tilt_series/aligned")
_LOOSE = 1.0  # Angstrom; icosahedra are rare at the usual tolerance


def draw_figures(
    model: str | Path,
    output: str | Path,
    *,
    form: str = "png",
    only: Sequence[str] | None = None,
    movie: bool = False,
    compare: str | None = None,
    types: str | None = None,
    **keywords: Any,
) -> Summary:
    """Computes: figures like those of Yang et al. 2021, of what is there, in the size and style of a journal.

    Parameters
    ----------
    model : str or Path
        A store; or a file with atoms (see `aetdist.io.read_atoms`), which is analysed first, into ``analysis.zarr`` in
        the folder.
    output : str or Path
        Folder for the files; made if it is not there, files of these names are replaced.
    form : {"png", "svg", "pdf"}
        Kind of file; text and lines are vectors in the latter two.
    only : sequence of str, optional
        Names of figures, or how they begin, such as ``figure_1``. Default: all.
    movie : bool, default False
        Turning movies of the atoms and of their medium-range order too: WebP, and MP4 where ffmpeg is installed.
    compare : {"yang2021"}, optional
        The atoms are those of that paper's particle 1: their numbers are written beside the published ones,
        ``numbers.csv``; a file is analysed with the paper's cut-off and solute unless others are given.
    types : str, optional
        ``file.h5::dataset`` with the types of the atoms in a file.
    **keywords
        Of `aetdist.analysis.catalogue.analyze_atoms`, for a file.

    Returns
    -------
    dict
        ``figures``: file of each by its name; ``not_drawn``: figures, and panels of them, and why they are not there;
        ``movies``; ``numbers``: the table's file; ``text``, the same as lines.

    Raises
    ------
    InputError
        If there is nothing of that name, or a store came with keywords of an analysis.
    """
    wanted = _wanted(only)
    if form not in FORMS:
        raise InputError(f"form = {form!r} came; needed is one of {', '.join(FORMS)}.")
    if compare not in (None, "yang2021"):
        raise InputError(f"compare = {compare!r} came; there are the numbers of yang2021 only.")
    folder = local_path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with accounted() as summary:
        if compare is not None and not is_store(model):
            keywords = {"cutoff": CUTOFF, "solute": SOLUTE, **keywords}
        material = gather(_analysed(model, folder, types, keywords))
        if material.atoms is None and compare is not None:
            raise InputError("There are no atoms to compare with the paper's.")
        material = _supplemented(material, wanted)
        files, missing = write_figures(material, wanted, folder, form)
        summary |= {"figures": files, "not_drawn": missing}
        if movie and material.atoms is None:
            missing["movies"] = material.lacks("atoms")
        elif movie:
            summary["movies"] = {name: str(path) for name, path in write_movies(material, folder).items()}
        table = ""
        if compare is not None and material.atoms is not None:
            rows = compare_published(material.atoms, material.found, material.validation)
            summary["numbers"] = str(write_numbers(rows, folder / "numbers.csv"))
            table = "\n\n" + numbers_text(rows)
    return {**summary, "text": _text(summary) + table}


def _wanted(only: Sequence[str] | None) -> list[PaperFigure]:
    """Figures whose name begins as one of the given ones."""
    if only is None:
        return list(FIGURES)
    for name in only:
        if not any(figure.name.startswith(name) for figure in FIGURES):
            raise InputError(f"No figure is called {name}; there are {', '.join(f.name for f in FIGURES)}.")
    return [figure for figure in FIGURES if figure.name.startswith(tuple(only))]


def _analysed(model: str | Path, folder: Path, types: str | None, keywords: Mapping[str, Any]) -> Path:
    """The store with the analyses of a model."""
    if is_store(model):
        if keywords or types is not None:
            given = ", ".join([*keywords, *(["types"] if types is not None else [])])
            raise InputError(f"{given} came for a store; its analyses are made by aetdist analyze, which takes it.")
        return Path(model)
    store = folder / "analysis.zarr"
    analyze_files([model], store, checked_keywords("analyze", keywords), types=types)
    return store


def gather(path: str | Path) -> Material:
    """Read what a store has for figures; of several models the first, and all for the comparison."""
    with Store.open(path) as store:
        findings = find(store)
        models = {name: found for name, found in findings.order.items() if name}
        first = next(iter(models), "")
        group = f"{first}/{ATOMS}" if first else newest(ATOMS, store)
        atoms = store.read(group).load() if group in store.groups() else None
        atoms = atoms if atoms is not None and atoms.sizes["atom"] else None
        simulated = None
        if findings.validation is not None and is_store(nested_path(path)):
            with Store.open(nested_path(path)) as nested:
                there = [name for name in _SIMULATED if name in nested.groups()]
                simulated = nested.read(there[0]).load() if there else None
        found = {
            name: dataset.load()
            for name, dataset in findings.order.get(first, {}).items()
            if _is_of(store, f"{first}/analysis/{name}".strip("/"), group)
        }
        return Material(
            findings.refined if findings.refined is not None else findings.series,
            findings.volume,
            atoms,
            found,
            findings.validation,
            simulated,
            models,
            names_of_types(atoms) if atoms is not None else {},
        )


def _is_of(store: Store, analysis: str, group: str) -> bool:
    """Whether an analysis was made of the atoms that a group holds now."""
    record = store.record(analysis)
    return record is None or record.inputs.get(group, "") == store.digest(group)


def write_figures(
    material: Material, wanted: Sequence[PaperFigure], folder: Path, form: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Draw and write figures; their files, and what could not be drawn and why."""
    files: dict[str, str] = {}
    missing: dict[str, str] = {}
    for figure in wanted:
        try:
            drawn, lacking = figure.draw(material)
        except InputError as error:
            missing[figure.name] = str(error)
            continue
        log.info("figures: writing %s", figure.name)
        files[figure.name] = str(save_picture(drawn, folder / f"{figure.name}.{form}", dpi=DPI, exact=True))
        missing |= {f"{figure.name} {letter}": reason for letter, reason in lacking.items()}
    captions = [f"{f.name}. After {f.like}. {f.caption}" for f in wanted if f.name in files]
    (folder / "captions.txt").write_text("\n\n".join(captions) + "\n", encoding="utf-8")
    return files, missing


# -- what only figures need --------------------------------------------------------------------------


def _supplemented(material: Material, wanted: Sequence[PaperFigure]) -> Material:
    """With what the wanted figures need and no analysis holds."""
    needs = {need for figure in wanted for panel in figure.panels for need in panel.needs}
    found = dict(material.found)
    for name, (base, compute) in SUPPLEMENTS.items():
        if name in needs and material.atoms is not None and all(b in found for b in base):
            log.info("figures: computing %s", name)
            found[name] = compute(material.atoms, found)
    return dataclasses.replace(material, found=found)


def _shared_pairs(atoms: xr.Dataset, found: Found) -> xr.Dataset:
    cells, centres = found["voronoi"], found["solute_clusters"]
    faces = np.stack([cells["face_atom"].values, cells["face_neighbour"].values], axis=1)
    distance = tuple(centres.attrs["distance"])
    return representative_pairs(centres["solute_center"].values, faces, atoms, distance=distance)


def _tolerances(atoms: xr.Dataset, found: Found) -> xr.Dataset:
    return tolerance_table(atoms, **_of_clusters(found))


def _icosahedra(tolerance: float) -> Callable[[xr.Dataset, Found], xr.Dataset]:
    def compute(atoms: xr.Dataset, found: Found) -> xr.Dataset:
        return find_mro(atoms, tolerance=tolerance, lattices=("icosahedron",), **_of_clusters(found))

    return compute


def _of_clusters(found: Found) -> dict[str, Any]:
    """How the clusters were looked for."""
    attrs = found["medium_range_order"].attrs
    order = found["bond_order"]["order"].values
    return {"solute": int(attrs["solute"]), "distance": tuple(attrs["distance"]), "order": order}


def _precision(atoms: xr.Dataset, found: Found) -> xr.Dataset:
    """By the precision that refinement tells, else by that of the paper."""
    keywords: dict[str, Any] = {"cutoff": float(found["bond_order"].attrs["cutoff"]), "n": 5}
    if "position_sigma" in atoms and np.isfinite(atoms["position_sigma"].values).any():
        keywords["precision"] = float(np.sqrt(np.nanmean(np.square(atoms["position_sigma"].values)) * 3))
    return precision_effect(atoms, **keywords)


#: What each is made of, and how.
SUPPLEMENTS: dict[str, tuple[tuple[str, ...], Callable[[xr.Dataset, Found], xr.Dataset]]] = {
    "shared_pairs": (("solute_clusters", "voronoi"), _shared_pairs),
    "tolerances": (("medium_range_order", "bond_order"), _tolerances),
    "icosahedra": (("medium_range_order", "bond_order"), _icosahedra(0.75)),
    "icosahedra_loose": (("medium_range_order", "bond_order"), _icosahedra(_LOOSE)),
    "precision_effect": (("bond_order", "voronoi"), _precision),
}


# -- what is said ------------------------------------------------------------------------------------


def write_numbers(rows: Sequence[Row], path: Path) -> Path:
    """Write the numbers of the paper and ours as CSV; what we do not have is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("quantity", "unit", "yang2021", "ours", "difference", "in the paper"))
        for row in rows:
            ours = ["" if np.isnan(value) else f"{value:.6g}" for value in (row.ours, row.difference)]
            writer.writerow((row.quantity, row.unit, f"{row.paper:g}", *ours, row.where))
    return path


def numbers_text(rows: Sequence[Row]) -> str:
    """The numbers of the paper and ours as a table of text; the last line doubts that the sample is the paper's."""
    lines = [f"{'Yang et al., Nature 592, 60 (2021)':<44} {'paper':>9} {'ours':>9} {'difference':>11}"]
    for row in rows:
        name = f"{row.quantity} ({row.unit})" if row.unit else row.quantity
        if np.isnan(row.ours):
            lines.append(f"{name:<44} {row.paper:>9g} {'–':>9}")
        else:
            ours = f"{row.ours:.0f}" if row.ours == round(row.ours) else f"{row.ours:.4g}"
            lines.append(f"{name:<44} {row.paper:>9g} {ours:>9} {row.difference:>+11.3g}")
    atoms = rows[0]
    if abs(atoms.difference) > 0.1 * atoms.paper:
        lines.append(f"\nIs this the paper's sample? It has {atoms.ours:,.0f} atoms, the paper's {atoms.paper:,.0f}.")
    return "\n".join(lines)


def _text(summary: Summary) -> str:
    """What was written, and what not and why."""
    lines = [f"{name}: {path}" for name, path in {**summary["figures"], **summary.get("movies", {})}.items()]
    if summary["not_drawn"]:
        lines += ["", "Not drawn:", *(f"  {name}: {reason}" for name, reason in summary["not_drawn"].items())]
    return "\n".join(lines)
