"""Pictures of bond order, crystal nuclei and their interface; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import InputError
from .style import COLOURS, WIDTH, axes_colour, picture, points

# Q4 and Q6 of perfect crystals with the nearest 12, 12 and 14 neighbours.
_CRYSTALS = {"fcc": (0.190941, 0.574524), "hcp": (0.097222, 0.484762), "bcc": (0.036370, 0.510688)}
_FCC = float(np.hypot(*_CRYSTALS["fcc"]))
_THRESHOLD = 0.5
_SHOWN = len(COLOURS) - 1  # nuclei with a colour of their own; the rest share grey


@picture
def draw_order_map(bonds: xr.Dataset, *, threshold: float = _THRESHOLD) -> Figure:
    """Draw how many atoms have which Q4 and Q6, beside perfect crystals.

    Parameters
    ----------
    bonds : xarray.Dataset
        With q4 and q6 (atom).
    threshold : float, default 0.5
        Normalised order beyond which atoms are ordered; drawn as an arc.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If no atom has both.
    """
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    plot_order_map(figure.add_subplot(), bonds, threshold)
    return figure


def plot_order_map(axes: Axes, bonds: xr.Dataset, threshold: float = _THRESHOLD) -> None:
    """What `draw_order_map` draws, on axes."""
    q4, q6 = (_finite(bonds, name) for name in ("q4", "q6"))
    reach = [1.05 * max(q.max(), *(c[i] for c in _CRYSTALS.values())) for i, q in enumerate((q4, q6))]
    counts, x, y = np.histogram2d(q4, q6, bins=120, range=[(0, reach[0]), (0, reach[1])])
    shown = np.ma.masked_equal(counts.T, 0)
    drawn = axes.pcolormesh(x, y, shown, cmap="viridis", norm=LogNorm(1, max(counts.max(), 2)), rasterized=True)
    axes.figure.colorbar(drawn, ax=axes, label="atoms")
    angle = np.linspace(0, np.pi / 2, 100)
    radius = threshold * _FCC
    axes.plot(radius * np.cos(angle), radius * np.sin(angle), "--", color=COLOURS[5], label=f"order {threshold:g}")
    for (name, place), marker in zip(_CRYSTALS.items(), "s^D", strict=True):
        axes.plot(*place, marker, color=COLOURS[5], markeredgecolor=axes_colour(), markersize=points(0.7), linestyle="")
        right = place[0] < 0.9 * reach[0]
        axes.annotate(
            name, place, xytext=(7 if right else -7, 3), textcoords="offset points", ha="left" if right else "right",
            fontsize="small",
        )  # fmt: skip
    axes.set(xlabel="Q4", ylabel="Q6", xlim=(0, reach[0]), ylim=(0, reach[1]))
    axes.legend(loc="lower right", fontsize="small")


@picture
def draw_order_histogram(bonds: xr.Dataset, *, threshold: float = _THRESHOLD) -> Figure:
    """Draw how many atoms have which normalised order.

    Parameters
    ----------
    bonds : xarray.Dataset
        With order (atom).
    threshold : float, default 0.5
        Order from which on atoms are ordered.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If no atom has an order.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    plot_order_histogram(figure.add_subplot(), bonds, threshold)
    return figure


def plot_order_histogram(axes: Axes, bonds: xr.Dataset, threshold: float = _THRESHOLD) -> None:
    """What `draw_order_histogram` draws, on axes."""
    order = _finite(bonds, "order")
    step = 0.02
    cut, above = int(np.ceil(threshold / step)), int(max(0.0, order.max() - threshold) / step) + 1
    bins = np.maximum(threshold + step * np.arange(-cut, above + 1), 0.0)  # the threshold is an edge
    counts, _ = np.histogram(order, bins)
    for label, colour, part in (
        (f"disordered: {np.count_nonzero(order < threshold):,}", COLOURS[0], slice(0, cut)),
        (f"ordered: {np.count_nonzero(order >= threshold):,}", COLOURS[1], slice(cut, len(counts))),
    ):
        edges = bins[part.start : part.stop + 1]
        axes.stairs(counts[part], edges, color=colour, fill=True, alpha=0.6, label=label)
    axes.axvline(threshold, linestyle="--", color=COLOURS[5], linewidth=1.2)
    axes.set(xlabel="normalised bond order", ylabel="atoms", xlim=(0, bins[-1]))
    axes.legend(fontsize="small")


@picture
def draw_nuclei(atoms: xr.Dataset, nuclei: xr.Dataset, *, thickness: float | None = None) -> Figure:
    """Draw the nuclei from above, the largest in colours of their own.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS.
    nuclei : xarray.Dataset
        With label (atom) and n_atoms (nucleus).
    thickness : float, optional
        Of a slice around the middle of the atoms, in Angstrom; default: all atoms.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the labels are not those of the atoms.
    """
    position, label = atoms["position"].values, nuclei["label"].values
    if len(label) != len(position) or not len(label):
        raise InputError(f"{len(label)} labels came for {len(position)} atoms; needed is one for each, one or more.")
    low, high = position.min(axis=0), position.max(axis=0)
    seen = np.ones(len(label), bool)
    if thickness is not None:
        seen = np.abs(position[:, 2] - (low[2] + high[2]) / 2) <= thickness / 2
    width, depth = np.maximum(high - low, 1.0)[:2]
    scale = (WIDTH - 0.8) / width
    figure = Figure(figsize=(WIDTH, min(7.5, max(2.6, scale * depth + 1.3))), layout="compressed")
    axes = figure.add_subplot()
    dot = float(np.clip((1.8 * scale * 72) ** 2, 0.3, 60.0))
    x, y = position[:, 0], position[:, 1]
    glass = seen & (label < 0)
    axes.scatter(x[glass], y[glass], s=0.15 * dot, color="gray", alpha=0.35, linewidths=0)
    sizes = nuclei["n_atoms"].values
    colours = np.array([*COLOURS[:_SHOWN], "#808080"])
    ordered = np.flatnonzero(seen & (label >= 0))
    ordered = ordered[np.argsort(position[ordered, 2])]  # nearest to the eye last
    axes.scatter(
        x[ordered], y[ordered], s=dot, c=colours[np.minimum(label[ordered], _SHOWN)], edgecolors=axes_colour(),
        linewidths=0.3,
    )  # fmt: skip
    axes.set_aspect("equal")
    where = "" if thickness is None else f", z = {(low[2] + high[2]) / 2:.0f} ± {thickness / 2:.0f} Å"
    axes.set(xlabel="x (Å)", ylabel="y (Å)", title=f"{len(sizes):,} nuclei, {sizes.sum():,} atoms{where}")
    shown = [f"{n:,} atoms" for n in sizes[:_SHOWN]] + (["all others"] if len(sizes) > _SHOWN else [])
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=text)
        for text, colour in zip(shown, colours, strict=False)
    ]
    if marks:
        figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize="small", handletextpad=0.1)
    return figure


@picture
def draw_interface(interface: xr.Dataset) -> Figure:
    """Draw the mean order across the interface of the nuclei, and the exponential that fits it.

    Parameters
    ----------
    interface : xarray.Dataset
        With order, order_error and fit by distance, width and width_sigma.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    plot_interface(figure.add_subplot(), interface)
    return figure


def plot_interface(axes: Axes, interface: xr.Dataset) -> None:
    """What `draw_interface` draws, on axes."""
    x = interface["distance"].values
    error = np.nan_to_num(interface["order_error"].values)
    axes.errorbar(
        x,
        interface["order"].values,
        error,
        fmt="o",
        markersize=points(0.35),
        color=COLOURS[0],
        elinewidth=points(0.1),
        label="atoms, mean",
    )
    width, sigma = (float(interface[name]) for name in ("width", "width_sigma"))
    label = f"a exp(−x / d) + b, d = {width:.2f} ± {sigma:.2f} Å"
    axes.plot(x, interface["fit"].values, color=COLOURS[5], label=label)
    axes.axvline(0.0, color="gray", linestyle=":", linewidth=1.0)
    axes.set(xlabel="distance from the nuclei (Å)", ylabel="normalised bond order")
    axes.legend(fontsize="small")
    axes.grid(axis="y")


def _finite(bonds: xr.Dataset, name: str) -> np.ndarray:
    """The values of atoms that have every order, or an error."""
    if name not in bonds:
        raise InputError(f"This bond order has no {name}; it has {', '.join(map(str, bonds.data_vars)) or 'nothing'}.")
    known = np.isfinite(np.stack([bonds[q].values for q in ("q4", "q6", "order") if q in bonds])).all(axis=0)
    if not known.any():
        raise InputError("No atom has a bond order; none has neighbours within the cut-off.")
    return np.asarray(bonds[name].values[known])
