"""Pictures of Voronoi cells and chemical order; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLOURS, WIDTH, ink_on, picture


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
    figure = Figure(figsize=(WIDTH, 0.9 + 0.21 * max(n, 7)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
    plot_indices(left, cells, which, n)
    plot_faces(right, cells, which)
    return figure


def plot_indices(axes: Axes, cells: xr.Dataset, which: np.ndarray | None, n: int = 10) -> None:
    """The commonest Voronoi indices of some atoms, as bars."""
    index = _known(cells, which)
    kinds, count = np.unique(index, axis=0, return_counts=True)
    first = np.argsort(-count, kind="stable")[:n]
    bars = axes.barh(range(len(first)), 100.0 * count[first] / len(index), color=COLOURS[0], height=0.7)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize="small")
    axes.set_yticks(
        range(len(first)), ["⟨" + ",".join(map(str, kind)) + "⟩" for kind in kinds[first]], fontsize="small"
    )
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set(xlabel="% of the cells", ylabel="Voronoi index ⟨n₃,n₄,n₅,n₆⟩", title=f"{len(index):,} cells")


def plot_faces(axes: Axes, cells: xr.Dataset, which: np.ndarray | None) -> None:
    """How many of the faces of some atoms' cells have 3, 4, ... edges."""
    faces = _known(cells, which).sum(axis=0)
    bars = axes.bar([str(e) for e in cells["edges"].values], 100.0 * faces / faces.sum(), color=COLOURS[1], width=0.7)
    axes.bar_label(bars, fmt="%.1f", padding=2, fontsize="small")
    axes.margins(y=0.1)
    axes.set(xlabel="edges of a face", ylabel="% of the faces")


def _known(cells: xr.Dataset, which: np.ndarray | None) -> np.ndarray:
    """Indices of those atoms that have one."""
    index = cells["voronoi_index"].values
    known = index[:, 0] >= 0
    known = known if which is None else known & which
    if not known.any():
        raise InputError("None of these atoms has a Voronoi index.")
    return np.asarray(index[known])


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
        plot_warren_cowley(right, order["alpha"].values, labels)
    else:
        left = figure.add_subplot()
    plot_coordination(left, order, labels)
    return figure


def plot_coordination(axes: Axes, order: xr.Dataset, labels: list[str]) -> None:
    """Stack the mean partial coordination numbers of every type."""
    partial = order["mean_partial_coordination"].values
    bottom = np.zeros(len(labels))
    for j, label in enumerate(labels):
        bars = axes.bar(labels, partial[:, j], 0.7, bottom, color=COLOURS[j % len(COLOURS)], label=label)
        ink = ink_on(COLOURS[j % len(COLOURS)])
        axes.bar_label(bars, fmt="%.2f", label_type="center", fontsize="small", color=ink)
        bottom += partial[:, j]
    axes.bar_label(bars, [f"{total:.2f}" for total in bottom], padding=2, fontsize="small")
    axes.margins(y=0.08)
    axes.set(xlabel="atom", ylabel="neighbours, by type", title="Coordination")
    axes.tick_params(axis="x", length=0)
    axes.legend(fontsize="small", ncols=len(labels), loc="upper center", bbox_to_anchor=(0.45, -0.2), handlelength=0.8)


def plot_warren_cowley(axes: Axes, alpha: np.ndarray, labels: list[str]) -> None:
    """Warren-Cowley parameters as a matrix with its numbers."""
    finite = np.abs(alpha[np.isfinite(alpha)])
    top = max(float(finite.max()), 1e-3) if finite.size else 1.0
    axes.imshow(alpha, cmap="RdBu_r", vmin=-top, vmax=top, origin="upper")
    for (i, j), value in np.ndenumerate(alpha):
        if np.isfinite(value):
            colour = "black" if abs(value) < 0.6 * top else "white"
            axes.text(j, i, f"{value:+.3f}".replace("-", "−"), ha="center", va="center", fontsize="small", color=colour)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    axes.set(xlabel="neighbour", ylabel="atom", title="Warren–Cowley α")
    for spine in axes.spines.values():
        spine.set_visible(False)
