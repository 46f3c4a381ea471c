"""Pictures of a scan and of its iterations; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..geometry import grid_step
from .pictures import Field
from .style import COLOURS, WIDTH, extent, picture


@picture
def draw_windows(volume: xr.Dataset, windows: xr.Dataset, *, field: Field | None = None) -> Figure:
    """Draw which columns of the film each window keeps, and the seams where two or more are blended.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME with disagreement, which is above 0 where windows are blended.
    windows : xarray.Dataset
        As scan writes them: density (window, z, row, column), and first_voxel_yx of each in the attributes.
    field : tuple of float, optional
        Left, right, bottom and top of the measured field in Angstrom; drawn as a dashed frame.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the volume was not scanned.
    """
    if "disagreement" not in volume or "first_voxel_yx" not in windows.attrs:
        raise InputError("This volume holds no map of seams or no windows; scan makes both.")
    x, y = volume["x"].values, volume["y"].values
    left, right, bottom, top = extent(x, y)
    seams = np.where(volume["disagreement"].values > 0, 1.0, np.nan)
    size = grid_step(x)
    first = size * (np.array(windows.attrs["first_voxel_yx"], dtype=np.float64) - 0.5)
    ends = first + size * np.array([windows.sizes["row"], windows.sizes["column"]])
    low, high = first.min(axis=0), ends.max(axis=0)
    figure = Figure(figsize=(WIDTH, float(np.clip((WIDTH - 0.8) * np.divide(*(high - low)) + 1.1, 2.0, 8.0))),
                    layout="compressed")  # fmt: skip
    axes = figure.add_subplot()
    axes.imshow(seams, extent=(left, right, bottom, top), cmap="Greys", vmin=0.0, vmax=3.0)
    for k, (corner, end) in enumerate(zip(first, ends, strict=True)):
        colour = COLOURS[k % len(COLOURS)]
        shape = (end[1] - corner[1], end[0] - corner[0])
        axes.add_patch(Rectangle(corner[::-1], *shape, facecolor=colour, alpha=0.12, linewidth=0))
        axes.add_patch(Rectangle(corner[::-1], *shape, fill=False, edgecolor=colour, linewidth=1.4))
        if len(first) <= 60:
            axes.annotate(
                f"{k + 1}", (corner[::-1] + end[::-1]) / 2, ha="center", va="center", fontsize="small", color=colour
            )
    if field is not None:
        axes.add_patch(Rectangle((field[0], field[2]), field[1] - field[0], field[3] - field[2], fill=False,
                                 linestyle="--", edgecolor="gray", linewidth=1.2))  # fmt: skip
    axes.set(xlabel="x (Å)", ylabel="y (Å)", title=f"{len(first)} windows, and their seams")
    axes.set(xlim=(low[1] - 2, high[1] + 2), ylim=(low[0] - 2, high[0] + 2))
    return figure


@picture
def draw_r_map(volume: xr.Dataset, series: xr.Dataset) -> Figure:
    """Draw the R-factor of every tilt at every iteration.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME with r_factor (iteration, tilt) of two iterations or more.
    series : xarray.Dataset
        TILT_SERIES; gives the tilt angles.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If it holds no such R-factors.
    """
    if "r_factor" not in volume or volume.sizes["iteration"] < 2:
        raise InputError("This volume holds no r_factor of several iterations; reconstruct records it.")
    tilts = series["angles"].values[:, 1]
    values = volume["r_factor"].values[:, np.argsort(tilts)]
    finite = values[np.isfinite(values)]
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.pcolormesh(np.arange(len(tilts)), np.arange(1, len(values) + 1), values, cmap="viridis",
                            vmin=finite.min(initial=1.0), vmax=np.quantile(finite, 0.98) if finite.size else 1.0,
                            rasterized=True)  # fmt: skip
    places = np.linspace(0, len(tilts) - 1, min(len(tilts), 7)).round().astype(int)
    axes.set_xticks(places, [f"{np.sort(tilts)[place]:.0f}" for place in places])
    axes.set(xlabel="tilt angle θ (°), by rank", ylabel="iteration")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.colorbar(drawn, ax=axes, label="R-factor", extend="max")
    return figure
