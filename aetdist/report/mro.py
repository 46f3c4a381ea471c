"""Pictures of medium-range order; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from .style import COLOURS, WIDTH, add_scale_bar, axes_colour, picture, points

KINDS = ("fcc", "hcp", "bcc", "sc", "icosahedron")
"""Lattices in the order of the paper; each keeps its colour in every picture."""
LATTICE_COLOURS = dict(zip(KINDS, COLOURS, strict=False))


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
    n = len(kinds_of(mro))
    figure = Figure(figsize=(WIDTH, 1.15 * n + 0.8), layout="constrained")
    plot_sizes(list(figure.subplots(n, 1, sharex=True, squeeze=False).ravel()), mro, significance)
    return figure


def plot_sizes(rows: list[Axes], mro: xr.Dataset, significance: xr.Dataset | None = None) -> None:
    """What `draw_mro_sizes` draws, on axes: one for each lattice."""
    sizes = np.arange(int(mro["size"].min()), int(mro["size"].max()) + 1)
    smallest = sizes[0]
    for axes, kind in zip(rows, kinds_of(mro), strict=True):
        of_kind = mro["size"].values[mro["mro_type"].values == kind]
        counts = np.bincount(of_kind - smallest, minlength=len(sizes))
        axes.bar(sizes, counts, 0.8, color=LATTICE_COLOURS[kind])
        if significance is not None and kind in significance["mro_type"]:
            chance = significance.sel(mro_type=kind)
            chance = chance.isel(size=np.flatnonzero(chance["expected"].values > 0))
            axes.errorbar(
                chance["size"], chance["expected"], yerr=chance["spread"], fmt="_", color="grey", capsize=points(0.3),
                markersize=points(1.2), linewidth=points(0.16),
            )  # fmt: skip
        axes.set_title(f"{kind}: {len(of_kind)} clusters, {of_kind.sum()} centres", fontsize="small")
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.set_ylabel("clusters")
    axes.set_xlabel("centres of a cluster" + ("; grey: chance" if significance is not None else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


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
    kinds = kinds_of(mro)
    position = np.asarray(atoms["position"].values, dtype=np.float64)
    spans = np.maximum(np.ptp(position, axis=0), 1.0)
    scale = (WIDTH - 0.7) / spans[0]
    figure = Figure(figsize=(WIDTH, min(9.5, scale * (spans[1] + spans[2]) + 1.3)), layout="compressed")
    top, front = figure.subplots(2, 1, sharex=True, height_ratios=(spans[1], spans[2]))
    for axes, up in ((top, 1), (front, 2)):
        axes.scatter(position[:, 0], position[:, up], s=0.3, color="grey", alpha=0.25, linewidths=0, rasterized=True)
        for i, kind in enumerate(mro["mro_type"].values.tolist()):
            members = np.flatnonzero(mro["mro_label"].values == i)
            for a, b in lattice_bonds(mro, members):
                axes.plot(position[[a, b], 0], position[[a, b], up], color=LATTICE_COLOURS[kind], linewidth=0.9)
            axes.scatter(
                position[members, 0], position[members, up], s=9, color=LATTICE_COLOURS[kind], edgecolors=axes_colour(),
                linewidths=0.3, zorder=3,
            )  # fmt: skip
        axes.set_aspect("equal")
        axes.set_ylabel(f"{'xyz'[up]} (Å)")
    front.set_xlabel("x (Å)")
    top.set_title(f"{mro.sizes['mro']} clusters, from above")
    front.set_title("from the front")
    figure.legend(handles=_marks(kinds), loc="outside lower right", ncols=len(kinds), fontsize="small")
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
    kinds = kinds_of(mro)
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
        view = turned(13.0, 8.0)
        local, site = (local - site.mean(axis=0)) @ view.T, (site - site.mean(axis=0)) @ view.T
        where = {int(m): n for n, m in enumerate(members)}
        for a, b in lattice_bonds(mro, members):
            ends = [where[a], where[b]]
            axes.plot(site[ends, 0], site[ends, 1], color="grey", linewidth=0.8, zorder=1)
        axes.scatter(site[:, 0], site[:, 1], s=60, facecolors="none", edgecolors="grey", linewidths=0.9, zorder=2)
        axes.scatter(
            local[:, 0],
            local[:, 1],
            s=28,
            color=LATTICE_COLOURS[kind],
            edgecolors=axes_colour(),
            linewidths=0.4,
            zorder=3,
        )
        axes.set_aspect("equal")
        middle = 0.5 * (local.min(axis=0) + local.max(axis=0))
        half = 0.5 * float(np.ptp(local[:, :2], axis=0).max()) + 2.0
        axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
        axes.axis("off")
        axes.set_title(f"{kind}, {len(members)} centres\nrms {float(mro['rms'][i]):.2f} Å", fontsize="small")
        add_scale_bar(axes, below=0.12)
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
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 2)
    for column, name in enumerate(("length", "volume")):
        plot_measure(figure.add_subplot(grid[0, column]), mro, sizes[name].values, name)
    plot_centre_distances(figure.add_subplot(grid[1, :]), distances)
    return figure


def plot_measure(axes: Axes, mro: xr.Dataset, values: np.ndarray, name: str) -> None:
    """Every cluster's "length" (values in Angstrom) or "volume" (Angstrom^3) by lattice; mean and deviation in grey."""
    kinds = kinds_of(mro)
    factor, unit = {"length": (0.1, "nm"), "volume": (1e-3, "nm³")}[name]
    for place, kind in enumerate(kinds):
        of_kind = factor * values[mro["mro_type"].values == kind]
        spread = np.linspace(-0.25, 0.25, len(of_kind)) if len(of_kind) > 1 else np.zeros(len(of_kind))
        axes.scatter(
            place + spread, np.sort(of_kind), s=points(0.05) * points(1.0), color=LATTICE_COLOURS[kind], linewidths=0
        )
        axes.errorbar(
            place,
            of_kind.mean(),
            yerr=of_kind.std(),
            fmt="_",
            color="grey",
            capsize=points(0.3),
            markersize=points(1.4),
        )
        axes.annotate(
            f"{of_kind.mean():.2f}", (place, of_kind.max()), xytext=(0, points(0.4)), textcoords="offset points",
            ha="center", fontsize="small",
        )  # fmt: skip
    axes.set_xticks(range(len(kinds)), kinds)
    axes.margins(y=0.15)
    axes.set(xlabel="lattice", ylabel=f"{name} ({unit})")


def plot_centre_distances(axes: Axes, distances: xr.Dataset) -> None:
    """Partial g(r) of the centres in clusters of each lattice, one above the other, with their first peaks."""
    for place, kind in enumerate(kind for kind in KINDS if kind in distances["mro_type"]):
        curve, colour = distances.sel(mro_type=kind), LATTICE_COLOURS[kind]
        axes.plot(curve["r"], curve["g"] + 1.1 * place, color=colour)
        axes.annotate(
            f"{kind}  {float(curve['first_peak']):.2f} Å", (float(curve["r"][-1]), 1.1 * place + 0.45), ha="right",
            fontsize="small", color=colour,
        )  # fmt: skip
    axes.set(xlabel="r (Å)", ylabel="g(r) of centres (shifted)", yticks=[], xlim=(2.5, float(distances["r"][-1])))


def kinds_of(mro: xr.Dataset) -> list[str]:
    """The lattices that there are, in the order of the paper."""
    kinds = [kind for kind in KINDS if kind in mro["mro_type"].values]
    if not kinds:
        raise InputError("There are no clusters to draw: none of five centres or more was found.")
    return kinds


def lattice_bonds(mro: xr.Dataset, members: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of a cluster's centres on nearest sites."""
    site = mro["site"].values[members]
    apart = np.linalg.norm(site[:, None] - site, axis=2)
    near = 1.06 if str(mro["mro_type"].values[int(mro["mro_label"].values[members[0]])]) == "icosahedron" else 1.001
    return [(int(members[i]), int(members[j])) for i, j in np.argwhere(np.triu(apart < near, 1))]


def turned(about_y: float, about_x: float) -> np.ndarray:
    """Rotation matrix (3, 3): first about the vertical y axis, then about the horizontal x axis, in degrees."""
    (cy, cx), (sy, sx) = np.cos(np.deg2rad([about_y, about_x])), np.sin(np.deg2rad([about_y, about_x]))
    return np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])


def _marks(kinds: list[str]) -> list[Line2D]:
    return [Line2D([], [], marker="o", color=LATTICE_COLOURS[k], markersize=4, label=k) for k in kinds]
