"""What a report is made of: the groups of a store, the numbers that it begins with, and its pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..io import Store, newest, read_atoms
from ..io.groups import ATOMS, CALIBRATED, VALIDATION
from ..metrics import Comparison, compare_atoms
from .atoms import (
    draw_atom_refinement,
    draw_differences,
    draw_intensities,
    draw_sigmas,
    draw_types_on_slices,
)
from .charts import draw_deviations, draw_r_factors
from .order import draw_comparison, order_pictures
from .pictures import (
    draw_atoms,
    draw_atoms_on_slice,
    draw_disagreement,
    draw_film_maps,
    draw_reprojection,
    draw_slices,
    field_of,
)
from .tilts import (
    draw_common_lines,
    draw_denoising,
    draw_drift,
    draw_preprocessing,
    draw_refinement,
    draw_repeats,
    draw_shifts,
)
from .validation import draw_validation
from .windows import draw_r_map, draw_windows


@dataclass(frozen=True)
class Picture:
    """A picture of the report: file name, caption, and what draws it in a theme."""

    name: str
    caption: str
    draw: Callable[..., Figure]


@dataclass(frozen=True)
class Findings:
    """What a report is made of: the groups of a store, and its comparison with the truth.

    `atoms` and `truth` are those inside the field where they are compared; `models` are all atoms by the name of the
    model, the store's own "", and `order` what their analyses found. `asked` are keywords of stages by their group.
    """

    title: str
    series: xr.Dataset | None
    volume: xr.Dataset | None
    atoms: xr.Dataset | None
    truth: xr.Dataset | None
    comparison: Comparison | None
    raw: xr.Dataset | None = None
    preprocessed: xr.Dataset | None = None
    refined: xr.Dataset | None = None
    validation: xr.Dataset | None = None
    order: Mapping[str, Mapping[str, xr.Dataset]] = dataclasses.field(default_factory=dict)
    models: Mapping[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    windows: xr.Dataset | None = None
    asked: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def find(
    store: Store, *, truth: xr.Dataset | str | Path | None = None, tolerance: float = 0.75, title: str | None = None
) -> Findings:
    """Read what a store holds and compare its atoms with the truth, where there is one."""
    groups = store.groups()
    raw, preprocessed, series, refined, volume, atoms, stored_truth = (
        store.read(group) if group in groups else None
        for group in (
            *(f"tilt_series/{step}" for step in ("raw", "preprocessed", "aligned", "refined")),
            "volume",
            newest(ATOMS, store),
            "truth",
        )
    )
    models = {"": atoms} if atoms is not None else _models_of(store)
    if truth is None:
        truth = stored_truth
    elif not isinstance(truth, xr.Dataset):
        truth = read_atoms(truth)
    comparison = None
    if truth is not None and series is not None and atoms is not None:
        truth, atoms = in_field(truth, series), in_field(atoms, series)
        comparison = compare_atoms(atoms, truth, tolerance=tolerance)
    validation = store.read(VALIDATION) if newest(ATOMS, store) == CALIBRATED and VALIDATION in groups else None
    return Findings(
        title or store.path.stem,
        series,
        volume,
        atoms,
        truth,
        comparison,
        raw,
        preprocessed,
        refined,
        validation,
        _order_of(store),
        models,
        _windows_of(store),
        {group: store.notes(group).get("asked", {}).get("keywords", {}) for group in groups},
    )


def _models_of(store: Store) -> dict[str, xr.Dataset]:
    """Atoms of each of several models."""
    names = [group.rpartition("/")[0] for group in store.groups() if group.endswith(f"/{ATOMS}")]
    return {name: store.read(f"{name}/{ATOMS}") for name in names}


def _windows_of(store: Store) -> xr.Dataset | None:
    """The windows of the last pass of a scan."""
    passes = [group for group in store.groups() if group.startswith("scan/windows_")]
    return store.read(max(passes, key=lambda group: int(group.rpartition("_")[2]))) if passes else None


def _order_of(store: Store) -> dict[str, dict[str, xr.Dataset]]:
    """Results of the analyses of each model; the store's own is called ""."""
    found: dict[str, dict[str, xr.Dataset]] = {}
    for group in store.groups():
        model, inner, name = f"/{group}".rpartition("/analysis/")
        if inner:
            found.setdefault(model.strip("/"), {})[name] = store.read(group)
    return found


def in_field(atoms: xr.Dataset, series: xr.Dataset, margin: float = 0.0) -> xr.Dataset:
    """Atoms whose x and y lie inside the field of the untilted detector, `margin` Angstrom off its edge."""
    left, right, bottom, top = field_of(series)
    x, y = atoms["position"].values[:, 0], atoms["position"].values[:, 1]
    inside = (x >= left + margin) & (x <= right - margin) & (y >= bottom + margin) & (y <= top - margin)
    return atoms.isel(atom=np.flatnonzero(inside))


def summary(findings: Findings) -> dict[str, str]:
    """Give the numbers that the report begins with: label and value with unit."""
    numbers: dict[str, str] = {}
    if findings.atoms is not None:
        where = "atoms" if findings.comparison is None else "atoms found in the field"
        numbers[where] = f"{findings.atoms.sizes['atom']:,}"
        numbers |= _atom_numbers(findings.atoms)
    else:
        numbers |= {f"atoms of {name}": f"{atoms.sizes['atom']:,}" for name, atoms in findings.models.items()}
    if findings.comparison is not None:
        c = findings.comparison
        numbers |= {
            "of the true atoms found": _percent(c.recall),
            "of the found atoms true": _percent(c.precision),
            "F1": f"{c.f1:.3f}",
            "rms deviation": f"{c.rms:.2f} Å",
        }
    volume, series = findings.volume, findings.refined or findings.series
    if volume is not None and "r_factor" in volume:
        numbers["R-factor, mean over tilts"] = f"{float(np.nanmean(volume['r_factor'].values[-1])):.3f}"
    if volume is not None:
        numbers["volume"] = " × ".join(str(volume.sizes[axis]) for axis in "xyz") + " voxels"
        if "thickness" in volume:
            thickness = volume["thickness"]
            if series is not None:
                left, right, bottom, top = field_of(series)
                inside = thickness.sel(map_x=slice(left, right), map_y=slice(bottom, top))
                thickness = inside if inside.size else thickness
            film = thickness.values[thickness.values > 0]
            if film.size:
                numbers["film thickness, median"] = f"{float(np.median(film)):.0f} Å"
    if series is not None:
        if "used" in series and not series["used"].all():
            numbers["tilts not used"] = f"{int((~series['used'].values).sum())}"
        if "repeat_flagged" in series:
            flagged = series["repeat_flagged"].values
            numbers["repeated tilts that differ"] = f"{int(flagged.sum())} of {flagged.size} pairs"
        tilts = series["angles"].values[:, 1]
        numbers["tilts"] = f"{len(tilts)}, {tilts.min():.0f}° to {tilts.max():.0f}°"
    if findings.validation is not None:
        numbers |= _validation_numbers(findings.validation)
    return numbers


def _validation_numbers(result: xr.Dataset) -> dict[str, str]:
    """What the simulated experiment gave."""
    rms = ", ".join(f"{value:.1f}" for value in 100.0 * result["deviation_rms"].sel(component=["x", "y", "z"]).values)
    return {
        "of the atoms identified in a simulation": _percent(result.attrs["identified"]),
        "of those found there false": _percent(result.attrs["false"]),
        "rms deviation there along x, y, z": f"{rms} pm",
        "R-factor, measured against simulated": f"{float(result['r_factor'].mean()):.3f}",
    }


def _atom_numbers(atoms: xr.Dataset) -> dict[str, str]:
    """What classification and refinement found."""
    numbers: dict[str, str] = {}
    if "type" in atoms:
        _, counts = np.unique(atoms["type"].values, return_counts=True)
        numbers["of each type"] = ", ".join(f"{count:,}" for count in counts)
    if "R" in atoms.attrs:
        numbers["R-factor of the atoms"] = f"{float(atoms.attrs['R']):.3f}"
    if "R1" in atoms.attrs:
        numbers["R1-factor of the atoms"] = f"{float(atoms.attrs['R1']):.3f}"
    if "position_sigma" in atoms and np.isfinite(atoms["position_sigma"].values).any():
        medians = 100.0 * np.nanmedian(atoms["position_sigma"].values, axis=0)
        numbers["standard deviation of x, y, z, median"] = ", ".join(f"{value:.1f}" for value in medians) + " pm"
    if "unresolved" in atoms:
        numbers["unresolved"] = f"{int(atoms['unresolved'].values.sum()):,}"
    if atoms.attrs.get("edits"):
        numbers["edits by hand"] = f"{len(atoms.attrs['edits'])}"
    return numbers


def pictures(findings: Findings) -> list[Picture]:
    """List the pictures that can be drawn of what is there."""
    series, volume, atoms, truth = findings.series, findings.volume, findings.atoms, findings.truth
    field = None if series is None else field_of(series)
    drawn: list[Picture] = []

    def add(name: str, caption: str, draw: Callable[..., Figure], *arguments: Any, **options: Any) -> None:
        drawn.append(Picture(name, caption, lambda **theme: draw(*arguments, **options, **theme)))

    raw, preprocessed = findings.raw, findings.preprocessed
    if preprocessed is not None:
        text = "A tilt before and after preprocessing; the line is the mask inside which the object lies."
        add("preprocessing", text, draw_preprocessing, preprocessed, raw)
        if "frame_shift" in preprocessed and preprocessed.sizes["frame"] > 1:
            add("drift", "Drift of the frames since the first of their tilt.", draw_drift, preprocessed)
        if "sweep_correlation" in preprocessed:
            text = "Denoised images of a model particle against the clean ones; star: chosen, gray line: not denoised."
            add("denoising", text, draw_denoising, preprocessed)
    if series is not None and "shift" in series:
        add("shifts", "Shifts that alignment undid.", draw_shifts, series)
        text = "Images summed across the tilt axis, one row for each tilt: aligned, all show the same line."
        add("common_lines", text, draw_common_lines, series, preprocessed)
    if series is not None and "repeat_tilts" in series:
        flagged = int(series["repeat_flagged"].values.sum())
        text = f"The two images of one tilt that differ most; {flagged} of {series.sizes['repeat']} such pairs differ."
        add("repeats", text, draw_repeats, series)
    if findings.refined is not None:
        text = "What refinement against the reprojections has changed, and R of every tilt before and after."
        add("refinement", text, draw_refinement, findings.refined)
        series = findings.refined
    if volume is not None:
        add("slices", "Three slices through the volume.", draw_slices, volume, field=field)
    if volume is not None and atoms is not None and atoms.sizes["atom"]:
        caption = "A thin slice of the volume: rings are found atoms" + (
            ", crosses true ones." if truth is not None else "."
        )
        add("atoms_on_slice", caption, draw_atoms_on_slice, volume, atoms, truth=truth)
    if volume is not None and atoms is not None and atoms.sizes["atom"] and "type" in atoms:
        text = "Thin slices through the middle, and the atoms in them by type."
        add("types_on_slices", text, draw_types_on_slices, volume, atoms)
    if atoms is not None and "type" in atoms and ("box_intensity" in atoms or "intensity" in atoms):
        add("intensities", "Intensity of the atoms of each type.", draw_intensities, atoms)
    if atoms is not None and ("round_r" in atoms or "r_factor" in atoms):
        add(
            "atom_refinement",
            "R-factor of the atoms' projections: before refinement, after curation, after every quarter, at the end.",
            draw_atom_refinement,
            atoms,
        )
    if atoms is not None and "difference_after" in atoms:
        text = "What the atoms leave unexplained of the images, rms over the tilts."
        add("differences", text, draw_differences, atoms)
    if atoms is not None and "position_sigma" in atoms:
        told = "as refinement tells it" if findings.validation is None else "calibrated with the simulated experiment"
        add("sigmas", f"Standard deviation of the positions along each axis, {told}.", draw_sigmas, atoms)
    if findings.validation is not None:
        text = "What the same stages find of the atoms when these are simulated, with the noise of the measured images."
        add("validation", text, draw_validation, findings.validation)
    if atoms is not None and atoms.sizes["atom"]:
        add("atoms", "The atoms inside the field.", draw_atoms, atoms)
    if findings.comparison is not None and len(findings.comparison.pairs):
        text = "Distance of found from true atoms along each axis; the beam is along z where nothing is tilted."
        add("deviations", text, draw_deviations, atoms, truth, findings.comparison.pairs)
    for model, order in findings.order.items():
        for name, caption, draw, arguments in order_pictures(order, findings.models.get(model)):
            prefix = f"{model}_" if model else ""
            add(f"{prefix}{name}", f"{model}: {caption}" if model else caption, draw, *arguments)
    if len(findings.order) > 1:
        text = "Pair distributions, structure factors and bond orders of all models."
        add("comparison", text, draw_comparison, findings.order)
    if volume is not None and series is not None and "r_factor" in volume:
        text = "R-factor: sum of |calculated − measured| over sum of |measured|, over measured pixels."
        add("r_factors", text, draw_r_factors, volume, series)
        if volume.sizes["iteration"] > 1:
            add("r_map", "R-factor of every tilt at every iteration.", draw_r_map, volume, series)
    if volume is not None and series is not None:
        text = "A measured projection, that of the volume, and the difference."
        add("reprojection", text, draw_reprojection, series, volume)
    if volume is not None and "height" in volume and "thickness" in volume:
        text = "Height of the film's middle and local thickness; the dashed frame is the measured field."
        add("film_maps", text, draw_film_maps, volume, field=field)
    if volume is not None and "disagreement" in volume and findings.windows is not None:
        text = "Columns that each window keeps; gray: seams, where windows are blended; dashed: the measured field."
        add("windows", text, draw_windows, volume, findings.windows, field=field)
    if volume is not None and "disagreement" in volume:
        text = "Relative difference of overlapping windows where they are blended; blank where there is one window."
        add("disagreement", text, draw_disagreement, volume, field=field)
    return drawn


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if np.isfinite(value) else "–"
