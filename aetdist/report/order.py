"""Pictures of the order of atoms; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLOURS, WIDTH, picture


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
    axes = figure.add_subplot()
    curves = {"all atoms": distribution} | ({} if disordered is None else {"disordered atoms": disordered})
    for (label, curve), colour in zip(curves.items(), COLOURS, strict=False):
        _band(axes, curve["r"].values, curve["g"].values, curve["g_error"].values, colour, label)
    _finish_g(axes, distribution)
    axes.legend(fontsize=9)
    return figure


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
        axes.set_title(_pair_name(pair, names), fontsize=9)
        axes.set_xlim(1.5, min(12.0, float(distribution["r"][-1])))
        axes.set_ylim(0, None)
    for axes in cells[len(pairs) :]:
        axes.set_visible(False)
    figure.supxlabel("r (Å)", fontsize=10)
    figure.supylabel("g(r)", fontsize=10)
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
def draw_bond_order(order: xr.Dataset) -> Figure:
    """Draw how many atoms have which Q4 and Q6; the arc is an order of 0.5.

    Parameters
    ----------
    order : xarray.Dataset
        From `aetdist.analysis.bonds.bond_order`, with q4, q6 and order.

    Returns
    -------
    matplotlib.figure.Figure
    """
    q4, q6, s = (order[name].values for name in ("q4", "q6", "order"))
    known = np.isfinite(s)
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    high4, high6 = 1.1 * float(q4[known].max()), 1.1 * float(q6[known].max())
    _, _, _, image = axes.hist2d(
        q4[known], q6[known], bins=90, range=((0, high4), (0, high6)), cmap="cividis", cmin=1, norm="log"
    )
    around = np.linspace(0, np.pi / 2, 91)
    half = 0.5 * np.hypot(0.190941, 0.574524)
    axes.plot(half * np.cos(around), half * np.sin(around), color=COLOURS[5], label="order 0.5")
    crystals = {"fcc": (0.1909, 0.5745), "hcp": (0.0972, 0.4848), "bcc": (0.0364, 0.5107)}
    for name, place in crystals.items():
        axes.plot(*place, "+", color=COLOURS[5], markersize=8)
        axes.annotate(name, place, xytext=(4, 4), textcoords="offset points", fontsize=9)
    axes.set(xlabel="Q4", ylabel="Q6", xlim=(0, max(high4, 0.22)), ylim=(0, max(high6, 0.62)))
    figure.colorbar(image, ax=axes, label="atoms")
    share = 100.0 * float(np.mean(s[known] >= 0.5))
    axes.set_title(f"{share:.1f} % of the atoms have an order of 0.5 or more", fontsize=9)
    axes.legend(fontsize=9, loc="lower right")
    return figure


@picture
def draw_interface(interface: xr.Dataset) -> Figure:
    """Draw how the bond order decays across the surface of the nuclei.

    Parameters
    ----------
    interface : xarray.Dataset
        From `aetdist.analysis.interface.interface_width`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    x = interface["distance"].values
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(x, interface["order"], interface["order_error"], fmt="o", markersize=3.5, linewidth=1.0)
    width, sigma = float(interface["width"]), float(interface["width_sigma"])
    axes.plot(x, interface["fit"], label=f"decay length {width:.2f} ± {sigma:.2f} Å")
    axes.axvline(0.0, color="gray", linewidth=0.8, zorder=0)
    axes.set(xlabel="distance from the surface of the nuclei (Å)", ylabel="bond order")
    axes.legend(fontsize=9)
    return figure


@picture
def draw_chemical_order(order: xr.Dataset, names: Mapping[int, str] | None = None) -> Figure:
    """Draw the coordination numbers by type, and the Warren-Cowley parameters where there are several types.

    Parameters
    ----------
    order : xarray.Dataset
        From `aetdist.analysis.coordination.coordination`, with what `warren_cowley` gives.
    names : mapping of int to str, optional
        Element of each type.

    Returns
    -------
    matplotlib.figure.Figure
    """
    types = [int(number) for number in order["type"].values]
    labels = [(names or {}).get(number, str(number)) for number in types]
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.2))
    known = order["coordination"].values[order["central"].values]
    bins = np.arange(np.floor(known.min()), np.ceil(known.max()) + 2) - 0.5
    part = np.histogram(known, bins)[0]
    left.stairs(100.0 * part / part.sum(), bins, fill=True, color=COLOURS[0], alpha=0.5)
    left.set(xlabel="neighbours", ylabel="% of the atoms", title=f"mean {known.mean():.2f}")
    if "alpha" not in order:
        right.set_visible(False)
        return figure
    alpha = order["alpha"].values
    top = max(float(np.nanmax(np.abs(alpha))), 1e-3)
    image = right.imshow(alpha, cmap="RdBu_r", vmin=-top, vmax=top, origin="upper")
    for (i, j), value in np.ndenumerate(alpha):
        bright = abs(value) < 0.6 * top
        right.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color="black" if bright else "white")
    right.set_xticks(range(len(types)), labels)
    right.set_yticks(range(len(types)), labels)
    right.set(xlabel="neighbour", ylabel="atom", title="Warren–Cowley α")
    figure.colorbar(image, ax=right, shrink=0.8)
    return figure


@picture
def draw_voronoi_indices(cells: xr.Dataset, which: np.ndarray | None = None, *, n: int = 10) -> Figure:
    """Draw the most frequent Voronoi indices, and how many faces have how many edges.

    Parameters
    ----------
    cells : xarray.Dataset
        From `aetdist.analysis.voronoi.voronoi_indices`.
    which : ndarray, shape (atom,), bool, optional
        Atoms that count, such as the disordered ones.
    n : int
        Indices to show.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If none of them has an index.
    """
    index = cells["voronoi_index"].values
    known = cells["n_faces"].values >= 0
    known = known if which is None else known & which
    if not known.any():
        raise InputError("None of these atoms has a Voronoi index.")
    rows, count = np.unique(index[known], axis=0, return_counts=True)
    first = np.argsort(-count, kind="stable")[:n]
    names = ["⟨" + ",".join(map(str, row)) + "⟩" for row in rows[first]]
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1.0))
    place = np.arange(len(first))[::-1]
    left.barh(place, 100.0 * count[first] / known.sum(), color=COLOURS[0])
    left.set_yticks(place, names, fontsize=8)
    left.set(xlabel="% of the atoms")
    faces = index[known].sum(axis=0)
    right.bar([str(e) for e in cells["edges"].values], 100.0 * faces / faces.sum(), color=COLOURS[1])
    right.set(xlabel="edges", ylabel="% of the faces")
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
    top, middle, bottom = figure.subplots(3, 1)
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
    bottom.set(xlabel="bond order", ylabel="% of the atoms", xlim=(0, 1.5))
    top.legend(fontsize=9)
    return figure


def _band(axes: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, colour: str, label: str | None = None) -> None:
    """Draw a curve in a band of one standard deviation."""
    axes.fill_between(x, y - error, y + error, color=colour, alpha=0.25, linewidth=0)
    axes.plot(x, y, color=colour, label=label, linewidth=1.3)


def _finish_g(axes: Axes, distribution: xr.Dataset) -> None:
    axes.axhline(1.0, color="gray", linewidth=0.8, zorder=0)
    axes.set(xlabel="r (Å)", ylabel="g(r)", xlim=(1.5, float(distribution["r"][-1])))
    axes.set_ylim(0, None)


def _pair_name(pair: str, names: Mapping[int, str] | None) -> str:
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
        text = "Bond-orientational order of the atoms; crosses are perfect crystals."
        yield "bond_order", text, draw_bond_order, (order,)
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
