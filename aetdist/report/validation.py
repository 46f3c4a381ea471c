"""Pictures of a validation, and of an experiment that is planned; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..errors import InputError
from ..schema import VALIDATION, check
from .style import COLOURS, WIDTH, axes_colour, picture, points

_STYLES = ("-", "--", ":")


@picture
def draw_validation(result: xr.Dataset) -> Figure:
    """Draw what became of the atoms of a model: types, deviations along each axis, missed and false ones by depth.

    Parameters
    ----------
    result : xarray.Dataset
        VALIDATION.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If it is no validation.
    """
    check(result, VALIDATION)
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    grid = figure.add_gridspec(3, 1, height_ratios=(1.1, 1.0, 1.0))
    plot_confusion(figure.add_subplot(grid[0]), result)
    plot_deviations(figure.add_subplot(grid[1]), result)
    _draw_depths(figure.add_subplot(grid[2]), result)
    return figure


@picture
def draw_design(table: xr.Dataset) -> Figure:
    """Draw what planned experiments would give against the dose, a line for each number and range of tilts.

    Parameters
    ----------
    table : xarray.Dataset
        ``identified``, ``false`` (dose, n_tilts, tilt_range), parts of 1, and ``rms`` (dose, n_tilts, tilt_range, axis)
        in Angstrom; coordinates ``dose`` (electrons per square Angstrom, whole series), ``n_tilts`` and
        ``tilt_range`` (degrees on either side).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If one of them is missing.
    """
    missing = [name for name in ("identified", "false", "rms", "dose", "n_tilts", "tilt_range") if name not in table]
    if missing:
        raise InputError(f"A planned experiment lacks {', '.join(missing)}; aetdist design makes all of them.")
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    rows = figure.subplots(3, 1, sharex=True)
    dose = table["dose"].values
    lines = [(n, reach) for n in table["n_tilts"].values for reach in table["tilt_range"].values]
    for number, (n, reach) in enumerate(lines):
        case = table.sel(n_tilts=n, tilt_range=reach)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": "o", "markersize": 3.5}
        rows[0].plot(dose, 100.0 * case["identified"], label=f"{n} tilts to ±{reach:g}°", **style)
        rows[1].plot(dose, 100.0 * case["false"], **style)
        across = 100.0 * np.sqrt((case["rms"].sel(axis=["x", "y"]) ** 2).mean("axis"))
        rows[2].plot(dose, across, **style)
        rows[2].plot(dose, 100.0 * case["rms"].sel(axis="z"), **{**style, "linestyle": ":"})
    rows[0].set_ylabel("identified (%)")
    rows[1].set_ylabel("false (%)")
    rows[2].set_ylabel("rms deviation (pm)")
    rows[2].set_title("of identified atoms; line: x and y, dotted: z", fontsize="small")
    rows[1].set_ylim(0, max(1.0, 110.0 * float(table["false"].max())))
    rows[2].set_ylim(bottom=0)
    if len(dose) > 1 and dose.max() > 5 * dose.min():
        rows[2].set_xscale("log")
        rows[2].xaxis.set_minor_locator(NullLocator())
    rows[2].set_xticks(dose, [f"{value:g}" for value in dose])
    rows[2].set_xlabel("dose of the whole series (electrons / Å²)")
    for axes in rows:
        axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2, fontsize="small")
    return figure


def plot_confusion(axes: Axes, result: xr.Dataset) -> None:
    """True types down, found types across; the last column: missed, the last row: false."""
    k = result.sizes["true_type"]
    counts = np.zeros((k + 1, k + 1))
    counts[:k, :k] = result["confusion"].values
    counts[:k, k], counts[k, :k] = result["missed_atoms"].values, result["false_atoms"].values
    whole = np.append(result["true_atoms"].values, max(1.0, counts[k].sum() + counts[:k, :k].sum()))
    parts = counts / np.maximum(whole, 1.0)[:, None]
    axes.imshow(parts, cmap="cividis", vmin=0.0, vmax=1.0, aspect="auto", origin="upper")
    for i, j in np.ndindex(counts.shape):
        if (i, j) != (k, k):
            ink = "white" if parts[i, j] < 0.5 else "black"
            text = f"{int(counts[i, j]):,}"
            if i < k:
                text += f"\n{100 * parts[i, j]:.2f} %"
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize="small")
    axes.add_patch(_blank(k))
    names = [f"type {n}" for n in result["true_type"].values]
    axes.set_xticks(range(k + 1), [*names, "missed"])
    axes.set_yticks(range(k + 1), [*names, "false"])
    axes.set(xlabel="found", ylabel="true", title=f"{100 * result.attrs['identified']:.2f} % identified")


def _blank(k: int):  # type: ignore[no-untyped-def]
    """What has no meaning: missed and false at once."""
    from matplotlib.patches import Rectangle

    return Rectangle((k - 0.5, k - 0.5), 1, 1, facecolor=axes_colour())


def plot_deviations(axes: Axes, result: xr.Dataset) -> None:
    """How many atoms are how far off along each axis."""
    at = 100.0 * result["deviation_at"].values
    half = 0.5 * (at[1] - at[0])
    edges = np.append(at - half, at[-1] + half)
    for i, (axis, style) in enumerate(zip("xyz", _STYLES, strict=True)):
        rms = 100.0 * float(result["deviation_rms"].sel(component=axis))
        counts = result["deviation"].sel(component=axis).values
        axes.stairs(
            counts, edges, label=f"{axis}, rms {rms:.1f} pm", linestyle=style, linewidth=points(0.18), color=COLOURS[i]
        )
    axes.set(xlabel="found − true (pm; the rest at the ends)", ylabel="atoms", xlim=edges[[0, -1]])
    axes.legend(fontsize="small")


def _draw_depths(axes: Axes, result: xr.Dataset) -> None:
    shown = (("missed", "true"), ("mistyped", "true"), ("false", "found"))
    label = {"missed": "missed", "mistyped": "another type", "false": "false"}
    places = np.arange(result.sizes["depth_bin"])
    for i, (name, whole) in enumerate(shown):
        counts, n = result[f"depth_{name}"].values, np.maximum(result[f"depth_{whole}"].values, 1)
        bars = axes.bar(places + 0.28 * (i - 1), 100.0 * counts / n, width=0.26, color=COLOURS[i], label=label[name])
        axes.bar_label(bars, [str(count) if count else "" for count in counts], fontsize="small")
    ranges = zip(result["depth_from"].values, result["depth_to"].values, result["depth_true"].values, strict=True)
    axes.set_xticks(places, [f"{low:g}–{high:.3g}\n{n:,}" for low, high, n in ranges], fontsize="small")
    axes.set(xlabel="Å below the surface, and true atoms there", ylabel="% of the atoms there")
    axes.margins(y=0.15)
    axes.legend(fontsize="small")
