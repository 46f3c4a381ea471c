"""From a file with a candidate structure to the table and the picture of planned experiments."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .._usage import accounted
from ..experiment import checked_keywords
from ..io import Store, read_atoms, store_errors
from ..io.hierarchy import is_store
from ..io.places import local_path
from ..report import draw_design, save_picture
from .cases import design_experiment
from .tables import aligned

_COLUMNS = ("dose", "n_tilts", "tilt_range", "identified", "mistyped", "missed", "false", "rms_x", "rms_y", "rms_z")


def design(atoms_file: str | Path, output: str | Path, **keywords: Any) -> dict[str, Any]:
    """Computes: what experiments would give of a candidate structure; a store, a table and a picture.

    Parameters
    ----------
    atoms_file : str or Path
        Whatever `aetdist.io.read_atoms` reads, in Angstrom; with species, or types.
    output : str or Path
        The store to make, or to go on with. Beside it a table (.csv) and a picture (.png) are written.
    **keywords
        Of `aetdist.validation.design_experiment`.

    Returns
    -------
    dict
        ``cases``: a list of the cases, each with ``dose``, ``n_tilts``, ``tilt_range``, the parts of 1 ``identified``,
        ``mistyped``, ``missed``, ``false``, and ``rms_x``, ``rms_y``, ``rms_z`` in Angstrom; ``n_cases_computed``;
        ``csv`` and ``picture``, the files; ``text``, a table.
    """
    keywords = checked_keywords("design", keywords)
    output = local_path(output)  # with its table and its picture beside it
    files = {"csv": output.with_suffix(".csv"), "picture": output.with_suffix(".png")}
    with accounted() as summary:
        atoms = read_atoms(atoms_file)
        with Store.open(output, "a") if is_store(output) else Store.create(output) as store:
            table = design_experiment(atoms, store, **keywords)
        rows = rows_of(table)
        with store_errors(files["csv"]):
            _write_csv(files["csv"], rows)
            save_picture(draw_design(table), files["picture"])
        summary |= {
            "store": str(output),
            "n_atoms": int(table["n_true"].max()),
            "n_cases_computed": table.attrs["n_cases_computed"],
            "cases": rows,
        }
    return {**summary, **{name: str(file) for name, file in files.items()}, "text": _text(summary, files)}


def rows_of(table: xr.Dataset) -> list[dict[str, float]]:
    """Every case of `design_experiment` as a row of plain numbers, by dose, number and range of tilts."""
    rows = []
    for dose, n, reach in product(*(table[name].values for name in _COLUMNS[:3])):
        case = table.sel(dose=dose, n_tilts=n, tilt_range=reach)
        row = {"dose": float(dose), "n_tilts": int(n), "tilt_range": float(reach)}
        row |= {name: float(case[name]) for name in _COLUMNS[3:7]}
        rows.append(row | {f"rms_{axis}": float(case["rms"].sel(axis=axis)) for axis in "xyz"})
    return rows


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _text(summary: dict[str, Any], files: dict[str, Path]) -> str:
    head = ["e/Å² in all", "tilts", "range", "identified", "another type", "missed", "false", "rms x, y, z (pm)"]
    lines = []
    for row in summary["cases"]:
        parts = [f"{100 * row[name]:.1f} %" for name in _COLUMNS[3:7]]
        rms = " ".join(f"{100 * row[f'rms_{axis}']:.1f}" for axis in "xyz")
        lines.append([f"{row['dose']:.3g}", f"{row['n_tilts']}", f"±{row['tilt_range']:g}°", *parts, rms])
    text = [f"{summary['n_atoms']:,} atoms simulated", "", *aligned(head, lines), ""]
    text.append(f"{summary['n_cases_computed']} cases computed now; table {files['csv']}, picture {files['picture']}")
    memory = np.nan if "peak_memory_bytes" not in summary else summary["peak_memory_bytes"] / 1e9
    text.append(f"{summary['seconds']:.1f} s, {memory:.2f} GB in the largest process")
    return "\n".join(text) + "\n"
