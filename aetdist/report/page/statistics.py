"""The table of an experiment's numbers, in the order of Extended Data Table 1 of Yang et al. 2021."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import xarray as xr

from ..findings import Findings
from ..order import names_of_types

Rows = dict[str, str]
PM = 100.0  # of an Angstrom


def statistics(findings: Findings) -> dict[str, dict[str, Rows]]:
    """Numbers of an experiment, what is not known left out.

    Returns
    -------
    dict
        By part of the table, then by model ("" where there is one), then by row.
    """
    series = findings.refined or findings.series or findings.preprocessed or findings.raw
    parts = {
        "Data collection": {"": _collection(series)},
        "Reconstruction": {"": _reconstruction(findings)},
        "Atoms": {name: _atoms(atoms) for name, atoms in findings.models.items()},
        "Precision": {"": _precision(findings)},
    }
    return {part: columns for part, columns in parts.items() if any(columns.values())}


def statistics_table(parts: Mapping[str, Mapping[str, Rows]]) -> str:
    """The table as elements of a page; one column for each model."""
    if not parts:
        return '<p class="soft">The store says nothing of it.</p>'
    wide = max(len(columns) for columns in parts.values())
    lines = []
    for part, columns in parts.items():
        lines.append(f'<tr><th scope="rowgroup" colspan="{wide + 1}">{escape(part)}</th></tr>')
        if len(columns) > 1:
            names = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
            lines.append(f"<tr><td></td>{names}</tr>")
        for label in dict.fromkeys(label for rows in columns.values() for label in rows):
            span = f' colspan="{wide}"' if len(columns) == 1 < wide else ""
            cells = "".join(f"<td{span}>{escape(rows.get(label, '–'))}</td>" for rows in columns.values())
            lines.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return f'<table class="statistics"><tbody>{"".join(lines)}</tbody></table>'


def figures_table(order: Mapping[str, Mapping[str, xr.Dataset]]) -> str:
    """The figures that analyses are summed up by, a column for each model; "" where there are none."""
    tables = {name: found["summary"] for name, found in order.items() if "summary" in found}
    if not tables:
        return ""
    rows = dict.fromkeys(figure for table in tables.values() for figure in table["figure"].values.tolist())
    heads = "".join(f'<th scope="col">{escape(name or "value")}</th>' for name in tables)
    lines = []
    for row in rows:
        cells = "".join(f"<td>{_value(table, row)}</td>" for table in tables.values())
        lines.append(f'<tr><th scope="row">{escape(row)}</th>{cells}</tr>')
    head = f'<thead><tr><th scope="col">figure</th>{heads}</tr></thead>'
    form = "wide single" if len(tables) == 1 else "wide"
    return f'<div class="{form}"><table class="statistics">{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _collection(series: xr.Dataset | None) -> Rows:
    """How the tilts were taken."""
    if series is None:
        return {}
    attrs, tilts = series.attrs, series["angles"].values[:, 1]
    used = series["used"].values if "used" in series else np.ones(len(tilts), bool)
    rows: Rows = {}
    for key, label in (
        ("microscope", "microscope"),
        ("voltage_kV", "voltage (kV)"),
        ("convergence_mrad", "convergence semi-angle (mrad)"),
        ("detector_mrad", "detector, inner and outer angle (mrad)"),
    ):
        if key in attrs:
            value = attrs[key]
            rows[label] = ", ".join(f"{v:g}" for v in value) if isinstance(value, (list, tuple)) else _text(value)
    if "pixel_size" in series:
        rows["pixel (Å)"] = f"{float(series['pixel_size']):.4g}"
    rows["image (pixels)"] = f"{series.sizes['x']} × {series.sizes['y']}"
    rows["tilts"] = f"{len(tilts)}" + ("" if used.all() else f", of which {int(used.sum())} are used")
    rows["range of tilts (°)"] = f"{tilts.min():.1f} to {tilts.max():.1f}".replace("-", "−")
    if "frame" in series.sizes:
        rows["frames of a tilt, at most"] = f"{series.sizes['frame']}"
    if "dose_e_per_A2" in attrs:
        rows["electron dose of the series (e/Å²)"] = _power(float(attrs["dose_e_per_A2"]))
    return rows


def _reconstruction(findings: Findings) -> Rows:
    """What the volume is like and how well it explains the images."""
    volume, rows = findings.volume, Rows()
    if volume is None:
        return rows
    rows["volume (voxels)"] = " × ".join(str(volume.sizes[axis]) for axis in "xyz")
    iterations = volume.attrs.get("iterations", findings.asked.get("volume", {}).get("iterations"))
    if iterations is not None:
        rows["iterations"] = str(iterations)
    if findings.windows is not None:
        rows["windows"] = str(findings.windows.sizes["window"])
    if "r_factor" in volume:
        rows["R, volume against images (%)"] = f"{100 * float(np.nanmean(volume['r_factor'].values[-1])):.1f}"
    return rows


def _atoms(atoms: xr.Dataset) -> Rows:
    """How many atoms there are of each type, with which Gaussian, and how well they explain the images."""
    rows: Rows = {"atoms": f"{atoms.sizes['atom']:,}"}
    types = atoms["type"].values if "type" in atoms else None
    names = names_of_types(atoms)
    for number in [] if types is None else np.unique(types).tolist():
        which = types == number
        label = f"type {number}" + (f" ({names[number]})" if number in names else "")
        rows[f"{label}: atoms"] = f"{int(which.sum()):,}"
        if "b_factor" in atoms and np.isfinite(atoms["b_factor"].values[which]).any():
            rows[f"{label}: height H of the Gaussian"] = f"{np.nanmedian(atoms['intensity'].values[which]):.4g}"
            rows[f"{label}: B (Å²)"] = f"{np.nanmedian(atoms['b_factor'].values[which]):.2f}"
    for key, label in (("R", "R, atoms against images (%)"), ("R1", "R1, Fourier amplitudes (%)")):
        if key in atoms.attrs:
            rows[label] = f"{100 * float(atoms.attrs[key]):.1f}"
    return rows


def _precision(findings: Findings) -> Rows:
    """How sure the positions are along x, y, z, by whatever tells it."""
    rows: Rows = {}
    atoms, comparison = findings.atoms, findings.comparison
    if atoms is not None and "position_sigma" in atoms and np.isfinite(atoms["position_sigma"].values).any():
        told = "as refinement tells it" if findings.validation is None else "calibrated"
        rows[f"standard deviation of x, y, z, {told}, median (pm)"] = _three(
            np.nanmedian(atoms["position_sigma"].values, axis=0)
        )
    if findings.validation is not None:
        simulated = findings.validation["deviation_rms"].sel(component=["x", "y", "z"]).values
        rows["rms deviation of x, y, z in a simulation of the experiment (pm)"] = _three(simulated)
        rows["atoms identified there (%)"] = f"{100 * findings.validation.attrs['identified']:.1f}"
    if comparison is not None and len(comparison.pairs) and atoms is not None and findings.truth is not None:
        found, true = comparison.pairs.T
        off = atoms["position"].values[found] - findings.truth["position"].values[true]
        rows["rms deviation of x, y, z from the truth (pm)"] = _three(np.sqrt(np.mean(np.square(off), axis=0)))
    return rows


def _three(values: np.ndarray) -> str:
    return ", ".join(f"{PM * value:.1f}" for value in values)


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    superscript = str(int(exponent)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
    return f"{mantissa} × 10{superscript}"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(table: xr.Dataset, row: str) -> str:
    """A figure, and how sure it is."""
    if row not in table["figure"].values:
        return "–"
    one = table.sel(figure=row)
    value, sigma = float(one["value"]), float(one["sigma"]) if "sigma" in one else np.nan
    if not np.isfinite(value):
        return "–"
    number = f"{value:,.0f}" if value == round(value) or abs(value) >= 1e4 else f"{value:.4g}"
    return number + (f" ± {sigma:.2g}" if np.isfinite(sigma) else "")
