"""Pictures of the order of atoms; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .bonds import draw_interface, draw_nuclei, draw_order_histogram, draw_order_map
from .mro import draw_largest_mros, draw_mro_map, draw_mro_measures, draw_mro_sizes
from .style import COLOURS, WIDTH, picture, points
from .voronoi import draw_chemical_order, draw_voronoi_indices


@picture
def draw_pair_distribution(distribution: xr.Dataset, disordered: xr.Dataset | None = None) -> Figure:
    """Draw the pair distribution function, of all atoms and of the disordered ones, with its Poisson error.

    Parameters
    ----------
    distribution, disordered : xarray.Dataset
        From `aetdist.analysis.pair_distribution.pair_distribution`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    plot_pair_distribution(figure.add_subplot(), distribution, disordered)
    return figure


def plot_pair_distribution(axes: Axes, distribution: xr.Dataset, disordered: xr.Dataset | None = None) -> None:
    """What `draw_pair_distribution` draws, on axes."""
    curves = {"all atoms": distribution} | ({} if disordered is None else {"disordered atoms": disordered})
    for (label, curve), colour in zip(curves.items(), COLOURS, strict=False):
        _band(axes, curve["r"].values, curve["g"].values, curve["g_error"].values, colour, label)
    axes.axhline(1.0, color="gray", linewidth=0.8, zorder=0)
    axes.set(xlabel="r (Å)", ylabel="g(r)", xlim=(1.5, float(distribution["r"][-1])))
    axes.set_ylim(0, None)
    axes.legend(fontsize="small")


@picture
def draw_partial_distributions(distribution: xr.Dataset, names: Mapping[int, str] | None = None) -> Figure:
    """Draw the partial pair distribution functions, one panel for each pair of types.

    Parameters
    ----------
    distribution : xarray.Dataset
        From `aetdist.analysis.pair_distribution.pair_distribution`, with types.
    names : mapping of int to str, optional
        Element of each type.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there are no partial ones.
    """
    if "partial_g" not in distribution:
        raise InputError("This pair distribution has no partial ones; its atoms need types.")
    pairs = distribution["pair"].values.tolist()
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.35 * rows), layout="constrained")
    cells = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for k, (axes, pair) in enumerate(zip(cells, pairs, strict=False)):
        part = distribution.sel(pair=pair)
        values, error = part["partial_g"].values, part["partial_g_error"].values
        _band(axes, distribution["r"].values, values, error, COLOURS[k % len(COLOURS)])
        axes.axhline(1.0, color="gray", linewidth=0.8, zorder=0)
        axes.set_title(pair_name(pair, names), fontsize="small")
        axes.set_xlim(1.5, min(12.0, float(distribution["r"][-1])))
        axes.set_ylim(0, None)
    for axes in cells[len(pairs) :]:
        axes.set_visible(False)
    figure.supxlabel("r (Å)")
    figure.supylabel("g(r)")
    return figure


@picture
def draw_structure_factor(factor: xr.Dataset) -> Figure:
    """Draw the structure factor.

    Parameters
    ----------
    factor : xarray.Dataset
        From `aetdist.analysis.pair_distribution.structure_factor`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.add_subplot()
    q, values = factor["q"].values, factor["structure_factor"].values
    known = q >= 2 * np.pi / float(factor["r"][-1]) if "r" in factor.coords else q > 0  # below, r_max cuts it off
    axes.plot(q[known], values[known])
    axes.axhline(1.0, color="gray", linewidth=0.8, zorder=0)
    axes.set(xlabel="q (1/Å)", ylabel="S(q)", xlim=(0, float(q[-1])))
    return figure


@picture
def draw_comparison(models: Mapping[str, Mapping[str, xr.Dataset]]) -> Figure:
    """Draw several models side by side: g(r), S(q), and how many atoms have which bond order.

    Parameters
    ----------
    models : mapping of str to mapping
        Results of `aetdist.analysis.catalogue.analyze_atoms` of each model, by its name.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(WIDTH, 7.0), layout="constrained")
    plot_comparison(figure.subplots(3, 1), models)
    return figure


def plot_comparison(rows: Sequence[Axes], models: Mapping[str, Mapping[str, xr.Dataset]]) -> None:
    """What `draw_comparison` draws, on three axes."""
    top, middle, bottom = rows
    bins = np.linspace(0.0, 1.5, 76)
    for k, (name, found) in enumerate(models.items()):
        colour = COLOURS[k % len(COLOURS)]
        distribution = found["pair_distribution"]
        top.plot(distribution["r"], distribution["g"] + k, color=colour, label=name)
        middle.plot(distribution["q"], distribution["structure_factor"] + k, color=colour)
        if "bond_order" in found:
            order = found["bond_order"]["order"].values
            part = np.histogram(order[np.isfinite(order)], bins)[0]
            bottom.stairs(100.0 * part / max(part.sum(), 1), bins, color=colour)
    top.set(xlabel="r (Å)", ylabel="g(r), shifted by 1", xlim=(1.5, float(distribution["r"][-1])))
    middle.set(xlabel="q (1/Å)", ylabel="S(q), shifted by 1", xlim=(0.5, float(distribution["q"][-1])))
    bottom.axvline(0.5, color="gray", linewidth=0.8)
    bottom.set(xlabel="normalised bond order", ylabel="% of the atoms", xlim=(0, 1.5))
    top.legend(fontsize="small")


def _band(axes: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, colour: str, label: str | None = None) -> None:
    """Draw a curve in a band of one standard deviation."""
    axes.fill_between(x, y - error, y + error, color=colour, alpha=0.25, linewidth=0)
    axes.plot(x, y, color=colour, label=label, linewidth=points(0.13))


def pair_name(pair: str, names: Mapping[int, str] | None) -> str:
    """Pair of types, by their elements where these are known."""
    return "–".join((names or {}).get(int(number), number) for number in pair.split("-"))


def order_pictures(
    found: Mapping[str, xr.Dataset], atoms: xr.Dataset | None = None
) -> Iterator[tuple[str, str, Callable[..., Figure], tuple[Any, ...]]]:
    """Pictures of what the analyses of a model found: name, caption, and what draws it of which arguments."""
    names = names_of_types(atoms) if atoms is not None else {}
    distribution, order = found.get("pair_distribution"), found.get("bond_order")
    disordered = found.get("disordered_pair_distribution")
    if distribution is not None:
        text = "Pair distribution function; the band is its Poisson error."
        yield "pair_distribution", text, draw_pair_distribution, (distribution, disordered)
        shown = distribution if disordered is None else disordered
        if "partial_g" in shown:
            text = "Partial pair distribution functions" + ("." if disordered is None else " of the disordered atoms.")
            yield "partial_distributions", text, draw_partial_distributions, (shown, names)
        yield "structure_factor", "Structure factor of all atoms.", draw_structure_factor, (distribution,)
    if order is not None:
        yield "order_map", "Bond-orientational order of the atoms.", draw_order_map, (order,)
        yield "order_histogram", "Normalised bond order of the atoms.", draw_order_histogram, (order,)
    if "nuclei" in found and atoms is not None and found["nuclei"].sizes["nucleus"]:
        yield "nuclei", "The crystal nuclei.", draw_nuclei, (atoms, found["nuclei"])
    if "interface" in found:
        text = "Bond order against the distance from the crystal nuclei."
        yield "interface", text, draw_interface, (found["interface"],)
    if "voronoi" in found and order is not None:
        which = ~(order["order"].values >= 0.5)
        known = which & (found["voronoi"]["n_faces"].values >= 0)
        of = "disordered atoms" if known.any() else "atoms"
        arguments = (found["voronoi"], which if known.any() else None)
        yield "voronoi_indices", f"The commonest Voronoi indices of the {of}.", draw_voronoi_indices, arguments
    if "coordination" in found:
        text = "Coordination and chemical order of the disordered atoms that are not at the surface."
        yield "chemical_order", text, draw_chemical_order, (found["coordination"], names)
    if "medium_range_order" in found and found["medium_range_order"].sizes["mro"]:
        clusters, chance = found["medium_range_order"], found.get("mro_significance")
        yield "mro_sizes", "Clusters of solute centres by lattice and size.", draw_mro_sizes, (clusters, chance)
        if "mro_measures" in found:
            text, measures = "Lengths and volumes of the clusters, distances of their centres.", found["mro_measures"]
            yield "mro_measures", text, draw_mro_measures, (clusters, measures, measures)
        if atoms is not None:
            yield "mro_map", "The clusters in the sample.", draw_mro_map, (atoms, clusters)
            yield "largest_mros", "The largest cluster on each lattice.", draw_largest_mros, (atoms, clusters)


def names_of_types(atoms: xr.Dataset) -> dict[int, str]:
    """Element of each type, where every atom of it has the same."""
    if "species" not in atoms:
        return {}
    species = atoms["species"].values.astype(str)
    if "type" not in atoms:
        return dict(enumerate(np.unique(species).tolist(), 1))
    types = atoms["type"].values
    named = {int(t): np.unique(species[types == t]) for t in np.unique(types)}
    return {t: str(names[0]) for t, names in named.items() if len(names) == 1 and names[0] != "X"}
