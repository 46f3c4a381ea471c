"""Pictures of medium-range order; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from .style import COLOURS, WIDTH, add_scale_bar, axes_colour, picture

KINDS = ("fcc", "hcp", "bcc", "sc", "icosahedron")
"""Lattices in the order of the paper; each keeps its colour in every picture."""
_COLOUR = dict(zip(KINDS, COLOURS, strict=False))


@picture
def draw_mro_sizes(mro: xr.Dataset, significance: xr.Dataset | None = None) -> Figure:
    """Draw how many clusters of each lattice have which size, and what chance would give.

    Parameters
    ----------
    mro : xarray.Dataset
        What ``find_mro`` gives: mro_type and size.
    significance : xarray.Dataset, optional
        What ``mro_significance`` gives: expected and spread (mro_type, size) are drawn as grey bars.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there are no clusters.
    """
    kinds = _kinds(mro)
    largest = int(mro["size"].max())
    smallest = int(mro["size"].min())
    sizes = np.arange(smallest, largest + 1)
    figure = Figure(figsize=(WIDTH, 1.15 * len(kinds) + 0.8), layout="constrained")
    for axes, kind in zip(figure.subplots(len(kinds), 1, sharex=True, squeeze=False).ravel(), kinds, strict=True):
        of_kind = mro["size"].values[mro["mro_type"].values == kind]
        counts = np.bincount(of_kind - smallest, minlength=len(sizes))
        axes.bar(sizes, counts, 0.8, color=_COLOUR[kind])
        if significance is not None and kind in significance["mro_type"]:
            chance = significance.sel(mro_type=kind).reindex(size=sizes, fill_value=0.0)
            axes.errorbar(
                sizes, chance["expected"], yerr=chance["spread"], fmt="_", color="grey", capsize=3, markersize=12,
                linewidth=1.6,
            )  # fmt: skip
        axes.set_title(f"{kind}: {len(of_kind)} clusters, {of_kind.sum()} centres", fontsize=9)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.set_ylabel("clusters")
    axes.set_xlabel("centres of a cluster" + (" (grey: by chance)" if significance is not None else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@picture
def draw_mro_map(atoms: xr.Dataset, mro: xr.Dataset) -> Figure:
    """Draw the clusters in the sample from above and from the front: lines join neighbouring centres.

    Parameters
    ----------
    atoms, mro : xarray.Dataset
        ATOMS, and what ``find_mro`` gives for them.

    Returns
    -------
    matplotlib.figure.Figure
    """
    kinds = _kinds(mro)
    position = np.asarray(atoms["position"].values, dtype=np.float64)
    spans = np.maximum(np.ptp(position, axis=0), 1.0)
    scale = (WIDTH - 0.7) / spans[0]
    figure = Figure(figsize=(WIDTH, min(9.5, scale * (spans[1] + spans[2]) + 1.3)), layout="compressed")
    top, front = figure.subplots(2, 1, sharex=True, height_ratios=(spans[1], spans[2]))
    for axes, up in ((top, 1), (front, 2)):
        axes.scatter(position[:, 0], position[:, up], s=0.3, color="grey", alpha=0.25, linewidths=0, rasterized=True)
        for i, kind in enumerate(mro["mro_type"].values.tolist()):
            members = np.flatnonzero(mro["mro_label"].values == i)
            for a, b in _bonds(mro, members):
                axes.plot(position[[a, b], 0], position[[a, b], up], color=_COLOUR[kind], linewidth=0.9)
            axes.scatter(
                position[members, 0], position[members, up], s=9, color=_COLOUR[kind], edgecolors=axes_colour(),
                linewidths=0.3, zorder=3,
            )  # fmt: skip
        axes.set_aspect("equal")
        axes.set_ylabel(f"{'xyz'[up]} (Å)")
    front.set_xlabel("x (Å)")
    top.set_title(f"{mro.sizes['mro']} clusters, from above")
    front.set_title("from the front")
    figure.legend(handles=_marks(kinds), loc="outside lower right", ncols=len(kinds), fontsize=9)
    return figure


@picture
def draw_largest_mros(atoms: xr.Dataset, mro: xr.Dataset) -> Figure:
    """Draw the largest cluster of each lattice, near a low-index axis, on the sites it was fitted to.

    Parameters
    ----------
    atoms, mro : xarray.Dataset
        ATOMS, and what ``find_mro`` gives for them.

    Returns
    -------
    matplotlib.figure.Figure
        Full marks: centres; rings: their sites.
    """
    kinds = _kinds(mro)
    position = np.asarray(atoms["position"].values, dtype=np.float64)
    rows = -(-len(kinds) // 2)
    figure = Figure(figsize=(WIDTH, 2.5 * rows + 0.2), layout="compressed")
    cells = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, kind in zip(cells, kinds, strict=False):
        of_kind = np.flatnonzero(mro["mro_type"].values == kind)
        i = int(of_kind[np.argmax(mro["size"].values[of_kind])])
        members = np.flatnonzero(mro["mro_label"].values == i)
        rotation, scale = mro["rotation"].values[i], float(mro["scale"][i])
        local = (position[members] - mro["shift"].values[i]) @ rotation  # the lattice's own axes
        site = scale * mro["site"].values[members]
        # A little off the axis, so that no row of sites hides behind another.
        view = _turned(13.0, 8.0)
        local, site = (local - site.mean(axis=0)) @ view.T, (site - site.mean(axis=0)) @ view.T
        where = {int(m): n for n, m in enumerate(members)}
        for a, b in _bonds(mro, members):
            ends = [where[a], where[b]]
            axes.plot(site[ends, 0], site[ends, 1], color="grey", linewidth=0.8, zorder=1)
        axes.scatter(site[:, 0], site[:, 1], s=60, facecolors="none", edgecolors="grey", linewidths=0.9, zorder=2)
        axes.scatter(
            local[:, 0], local[:, 1], s=28, color=_COLOUR[kind], edgecolors=axes_colour(), linewidths=0.4, zorder=3
        )
        axes.set_aspect("equal")
        axes.margins(0.12)
        axes.axis("off")
        axes.set_title(f"{kind}, {len(members)} centres\nrms {float(mro['rms'][i]):.2f} Å", fontsize=9)
        add_scale_bar(axes)
    for axes in cells[len(kinds) :]:
        axes.axis("off")
    return figure


@picture
def draw_mro_measures(mro: xr.Dataset, sizes: xr.Dataset, distances: xr.Dataset) -> Figure:
    """Draw lengths and volumes of the clusters by lattice, and the partial g(r) of their centres.

    Parameters
    ----------
    mro, sizes, distances : xarray.Dataset
        What ``find_mro``, ``mro_sizes`` and ``centre_distances`` give.

    Returns
    -------
    matplotlib.figure.Figure
    """
    kinds = _kinds(mro)
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 2)
    for column, (name, factor, unit) in enumerate((("length", 0.1, "nm"), ("volume", 1e-3, "nm³"))):
        axes = figure.add_subplot(grid[0, column])
        for place, kind in enumerate(kinds):
            values = factor * sizes[name].values[mro["mro_type"].values == kind]
            spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(len(values))
            axes.scatter(place + spread, np.sort(values), s=5, color=_COLOUR[kind], linewidths=0)
            axes.errorbar(place, values.mean(), yerr=values.std(), fmt="_", color="grey", capsize=3, markersize=14)
            axes.annotate(f"{values.mean():.2f}", (place, values.max()), xytext=(0, 4), textcoords="offset points",
                          ha="center", fontsize=8)  # fmt: skip
        axes.set_xticks(range(len(kinds)), kinds)
        axes.margins(y=0.15)
        axes.set(ylabel=f"{name} ({unit})")
    axes = figure.add_subplot(grid[1, :])
    for place, kind in enumerate(k for k in kinds if k in distances["mro_type"]):
        curve = distances.sel(mro_type=kind)
        axes.plot(curve["r"], curve["g"] + 1.1 * place, color=_COLOUR[kind])
        axes.annotate(
            f"{kind}  {float(curve['first_peak']):.2f} Å", (float(curve["r"][-1]), 1.1 * place), ha="right", fontsize=9,
            xytext=(0, 22), textcoords="offset points", color=_COLOUR[kind],
        )  # fmt: skip
    axes.set(xlabel="r (Å)", ylabel="g(r) of centres (shifted)", yticks=[], xlim=(2.5, None))
    return figure


def _kinds(mro: xr.Dataset) -> list[str]:
    """The lattices that there are, in the order of the paper."""
    kinds = [kind for kind in KINDS if kind in mro["mro_type"].values]
    if not kinds:
        raise InputError("There are no clusters to draw: none of five centres or more was found.")
    return kinds


def _bonds(mro: xr.Dataset, members: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of a cluster's centres on nearest sites."""
    site = mro["site"].values[members]
    apart = np.linalg.norm(site[:, None] - site, axis=2)
    near = 1.06 if str(mro["mro_type"].values[int(mro["mro_label"].values[members[0]])]) == "icosahedron" else 1.001
    return [(int(members[i]), int(members[j])) for i, j in np.argwhere(np.triu(apart < near, 1))]


def _turned(about_y: float, about_x: float) -> np.ndarray:
    """Rotation by angles in degrees."""
    (cy, cx), (sy, sx) = np.cos(np.deg2rad([about_y, about_x])), np.sin(np.deg2rad([about_y, about_x]))
    return np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])


def _marks(kinds: list[str]) -> list[Line2D]:
    return [Line2D([], [], marker="o", color=_COLOUR[k], markersize=4, label=k) for k in kinds]
