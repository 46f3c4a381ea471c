"""Panels of short-range order: pair distributions, Voronoi cells, chemistry, bond order, and what errors change."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import SubFigure

from ...errors import InputError
from ..bonds import plot_interface, plot_order_histogram, plot_order_map
from ..order import pair_name, plot_comparison, plot_pair_distribution
from ..scene import Balls, view_of
from ..style import COLOURS
from ..voronoi import plot_coordination, plot_faces, plot_indices, plot_warren_cowley
from .catalogue import Material
from .style import add_key, show_scene

TILTED = view_of(25.0, -65.0)
"""How samples are seen: z upwards, a little from above."""
_ATOM = 1.35  # Angstrom; radius of an atom that is drawn to fill space
_NUCLEUS = 13  # atoms: one with twelve neighbours
_PAIRS = (*COLOURS[:6], "#000000")


def fill_model(panel: SubFigure, material: Material) -> None:
    """All atoms, by type."""
    axes = panel.add_subplot()
    kind = types_of(material)
    names = {material.type_name(t): COLOURS[(t - 1) % len(COLOURS)] for t in np.unique(kind).tolist()}
    show_scene(axes, Balls.of(positions_of(material), _ATOM, colours_of(kind)), TILTED, width=44.0)
    add_key(axes, names, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def fill_nuclei(panel: SubFigure, material: Material) -> None:
    """The largest crystal nuclei, each in a colour, smaller ones dark grey, in the glass, which is small and light."""
    nuclei, order = material.found["nuclei"], material.found["bond_order"]["order"].values
    axes = panel.add_subplot()
    show_scene(axes, balls_of_nuclei(positions_of(material), nuclei), TILTED, width=44.0)
    large, part = np.count_nonzero(nuclei["n_atoms"].values >= _NUCLEUS), 100.0 * float(np.mean(order >= 0.5))
    axes.set_title(f"{large} nuclei of ≥ {_NUCLEUS} atoms\n{part:.1f} % of all atoms ordered", fontsize="small")


def balls_of_nuclei(position: np.ndarray, nuclei: xr.Dataset) -> Balls:
    """Atoms of the nuclei of 13 atoms or more, in a cloud of the others."""
    label, large = nuclei["label"].values, np.count_nonzero(nuclei["n_atoms"].values >= _NUCLEUS)
    inside = (label >= 0) & (label < large)  # the largest come first
    if not inside.any():
        raise InputError(f"There are no crystal nuclei of {_NUCLEUS} atoms or more.")
    colours = np.array([*COLOURS[:-1], "#808080"])[np.minimum(label[inside], len(COLOURS) - 1)]
    return Balls.of(position[inside], _ATOM, colours.tolist()) + Balls.of(position[~inside], 0.35, "#c8c8c8")


def fill_pair_distribution(panel: SubFigure, material: Material) -> None:
    """g(r), of the disordered atoms too where there are enough."""
    found = material.found
    plot_pair_distribution(panel.add_subplot(), found["pair_distribution"], found.get("disordered_pair_distribution"))


def fill_comparison(panel: SubFigure, material: Material) -> None:
    """g(r), S(q) and bond order of several models."""
    plot_comparison(panel.subplots(1, 3), material.models)


def fill_partial_distributions(panel: SubFigure, material: Material) -> None:
    """Partial g(r), each shifted upwards."""
    found = material.found
    distribution = found.get("disordered_pair_distribution", found["pair_distribution"])
    if "partial_g" not in distribution:
        raise InputError("There are no partial pair distributions; the atoms have one type.")
    axes = panel.add_subplot()
    r = distribution["r"].values
    reach = min(12.0, float(r[-1]))
    step = 1.1 * float(np.nanquantile(distribution["partial_g"].values[:, r > 2.0], 0.98))
    pairs = distribution["pair"].values.tolist()
    for k, (pair, colour) in enumerate(zip(pairs, cycle(_PAIRS), strict=False)):
        axes.plot(r, distribution["partial_g"].sel(pair=pair).values + step * k, color=colour, linewidth=0.7)
        axes.axhline(1.0 + step * k, color="gray", linewidth=0.3, zorder=0)
        name = pair_name(pair, material.names)
        axes.annotate(name, (reach, 1.0 + step * k + 0.25 * step), ha="right", color=colour, fontsize="small")
    axes.set(xlabel="r (Å)", ylabel="partial g(r), shifted", xlim=(1.5, reach), ylim=(0, None), yticks=[])


def fill_indices(panel: SubFigure, material: Material) -> None:
    """The ten commonest Voronoi indices of the disordered atoms."""
    plot_indices(panel.add_subplot(), material.found["voronoi"], material.disordered())


def fill_faces(panel: SubFigure, material: Material) -> None:
    """Faces of 3, 4, 5 and 6 edges of the same cells."""
    plot_faces(panel.add_subplot(), material.found["voronoi"], material.disordered())


def fill_coordination(panel: SubFigure, material: Material) -> None:
    """Mean coordination numbers, by the type of the neighbour."""
    order = material.found["coordination"]
    plot_coordination(panel.add_subplot(), order, _labels(material))


def fill_warren_cowley(panel: SubFigure, material: Material) -> None:
    """Chemical order: Warren-Cowley parameters of every two types, with their standard errors."""
    order = material.found["coordination"]
    if "alpha" not in order:
        raise InputError("There is no chemical order; the atoms have one type.")
    plot_warren_cowley(panel.add_subplot(), order["alpha"].values, _labels(material))


def fill_order_map(panel: SubFigure, material: Material) -> None:
    """How many atoms have which Q4 and Q6, beside the perfect crystals."""
    plot_order_map(panel.add_subplot(), material.found["bond_order"])


def fill_order_histogram(panel: SubFigure, material: Material) -> None:
    """How many atoms have which normalised bond order, and the threshold of a crystal."""
    plot_order_histogram(panel.add_subplot(), material.found["bond_order"])


def fill_interface(panel: SubFigure, material: Material) -> None:
    """Bond order across the surface of the nuclei."""
    plot_interface(panel.add_subplot(), material.found["interface"])


def fill_solute_indices(panel: SubFigure, material: Material) -> None:
    """The commonest Voronoi indices of the solute centres."""
    centres = material.found["solute_clusters"]["solute_center"].values
    plot_indices(panel.add_subplot(), material.found["voronoi"], centres)


def fill_index_errors(panel: SubFigure, material: Material) -> None:
    """The commonest indices of the atoms as they are, and of copies whose positions have errors."""
    effect = material.found["precision_effect"]
    names = ["⟨" + ",".join(map(str, kind)) + "⟩" for kind in effect["index"].values]
    places = np.arange(len(names))
    axes = panel.add_subplot()
    axes.barh(places - 0.2, 100.0 * effect["fraction"].values, 0.38, color=COLOURS[0], label="as they are")
    error: dict[str, Any] = {"xerr": 100.0 * effect["fraction_sigma"].values, "error_kw": {"linewidth": 0.6}}
    label = f"with errors of {100.0 * effect.attrs['precision']:.0f} pm"
    axes.barh(places + 0.2, 100.0 * effect["fraction_mean"].values, 0.38, color=COLOURS[1], label=label, **error)
    axes.set_yticks(places, names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="% of the disordered atoms", ylabel="Voronoi index ⟨n₃,n₄,n₅,n₆⟩")
    axes.legend(fontsize="small", loc="lower right")


def fill_order_errors(panel: SubFigure, material: Material) -> None:
    """What part of the atoms is ordered, and changes sides, when positions have errors."""
    effect = material.found["precision_effect"]
    values = {
        "ordered": (float(effect["ordered_fraction"]), 0.0),
        "ordered,\nwith errors": tuple(float(effect[f"ordered_fraction_{what}"]) for what in ("mean", "sigma")),
        "lost": tuple(float(effect[f"lost_{what}"]) for what in ("mean", "sigma")),
        "gained": tuple(float(effect[f"gained_{what}"]) for what in ("mean", "sigma")),
    }
    axes = panel.add_subplot()
    heights, errors = (100.0 * np.array(part) for part in zip(*values.values(), strict=True))
    bars = axes.bar(list(values), heights, 0.65, yerr=errors, color=(COLOURS[0], COLOURS[1], COLOURS[5], COLOURS[2]),
                    error_kw={"linewidth": 0.6})  # fmt: skip
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize="small")
    axes.margins(y=0.12)
    axes.set(xlabel=f"order of {effect.attrs['threshold']:g} or more", ylabel="% of the atoms")


def positions_of(material: Material) -> np.ndarray:
    """Positions (n, 3) in Angstrom."""
    if material.atoms is None:
        raise InputError("There are no atoms.")
    return np.asarray(material.atoms["position"].values, dtype=np.float64)


def types_of(material: Material) -> np.ndarray:
    """Type of each atom; 1 where they have none."""
    atoms = material.atoms
    if atoms is None or "type" not in atoms:
        return np.ones(len(positions_of(material)), dtype=np.int64)
    return np.asarray(atoms["type"].values, dtype=np.int64)


def colours_of(types: np.ndarray) -> list[str]:
    """Colour of each atom, the same for a type in every figure."""
    return [COLOURS[(int(t) - 1) % len(COLOURS)] for t in types]


def _labels(material: Material) -> list[str]:
    return [material.type_name(int(t)) for t in material.found["coordination"]["type"].values]
