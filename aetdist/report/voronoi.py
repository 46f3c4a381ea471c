"""Pictures of Voronoi cells and chemical order; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLOURS, WIDTH, picture


@picture
def draw_voronoi_indices(cells: xr.Dataset, which: np.ndarray | None = None, *, n: int = 10) -> Figure:
    """Draw the commonest Voronoi indices, and how many faces have how many edges.

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
    known = index[:, 0] >= 0
    known = known if which is None else known & which
    if not known.any():
        raise InputError("None of these atoms has a Voronoi index.")
    kinds, count = np.unique(index[known], axis=0, return_counts=True)
    first = np.argsort(-count, kind="stable")[:n]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.21 * max(len(first), 7)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
    bars = left.barh(range(len(first)), 100.0 * count[first] / known.sum(), color=COLOURS[0], height=0.7)
    left.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    left.set_yticks(range(len(first)), ["⟨" + ",".join(map(str, kind)) + "⟩" for kind in kinds[first]], fontsize=9)
    left.invert_yaxis()
    left.margins(x=0.18)
    left.set(xlabel="% of the cells", title=f"{known.sum():,} cells")
    faces = index[known].sum(axis=0)
    bars = right.bar([str(e) for e in cells["edges"].values], 100.0 * faces / faces.sum(), color=COLOURS[1], width=0.7)
    right.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    right.margins(y=0.1)
    right.set(xlabel="edges of a face", ylabel="% of the faces")
    return figure


@picture
def draw_chemical_order(order: xr.Dataset, names: Mapping[int, str] | None = None) -> Figure:
    """Draw the mean coordination numbers by type, and the Warren-Cowley parameters where they are known.

    Parameters
    ----------
    order : xarray.Dataset
        From `aetdist.analysis.coordination.coordination`, with what `warren_cowley` gives where there are types.
    names : mapping of int to str, optional
        Element of each type.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there are no central atoms.
    """
    if not order["central"].values.any():
        raise InputError("No atom is disordered, away from the surface, and has a Voronoi index.")
    types = [int(number) for number in order["type"].values]
    labels = [(names or {}).get(number, f"type {number}") for number in types]
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    if "alpha" in order:
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
        _draw_matrix(right, order["alpha"].values, labels)
    else:
        left = figure.add_subplot()
    _draw_neighbours(left, order, labels)
    return figure


def _draw_neighbours(axes: Axes, order: xr.Dataset, labels: list[str]) -> None:
    """Stack the mean partial coordination numbers of every type."""
    partial = order["mean_partial_coordination"].values
    bottom = np.zeros(len(labels))
    for j, label in enumerate(labels):
        bars = axes.bar(labels, partial[:, j], 0.7, bottom, color=COLOURS[j % len(COLOURS)], label=label)
        axes.bar_label(bars, fmt="%.2f", label_type="center", fontsize=8, color="white")
        bottom += partial[:, j]
    axes.bar_label(bars, [f"{total:.2f}" for total in bottom], padding=2, fontsize=9)
    axes.margins(y=0.08)
    axes.set(ylabel="neighbours, by type", title="Coordination")
    axes.tick_params(axis="x", length=0)
    axes.legend(fontsize=8, ncols=len(labels), loc="upper center", bbox_to_anchor=(0.45, -0.12), handlelength=0.8)


def _draw_matrix(axes: Axes, alpha: np.ndarray, labels: list[str]) -> None:
    """Warren-Cowley parameters as a matrix with its numbers."""
    finite = np.abs(alpha[np.isfinite(alpha)])
    top = max(float(finite.max()), 1e-3) if finite.size else 1.0
    axes.imshow(alpha, cmap="RdBu_r", vmin=-top, vmax=top, origin="upper")
    for (i, j), value in np.ndenumerate(alpha):
        if np.isfinite(value):
            colour = "black" if abs(value) < 0.6 * top else "white"
            axes.text(j, i, f"{value:+.3f}".replace("-", "−"), ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    axes.set(xlabel="neighbour", ylabel="atom", title="Warren–Cowley α")
    for spine in axes.spines.values():
        spine.set_visible(False)
