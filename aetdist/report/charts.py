"""Charts of numbers: R-factors, deviations from the truth; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from .style import COLOURS, WIDTH, picture


@picture
def draw_r_factors(volume: xr.Dataset, series: xr.Dataset) -> Figure:
    """Draw the R-factor of every tilt, and its mean over the iterations where there are several.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME with r_factor.
    series : xarray.Dataset
        TILT_SERIES; gives the tilt angles.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if "r_factor" not in volume:
        raise InputError("This volume holds no r_factor; reconstruct or scan records it.")
    r_factor, tilts = volume["r_factor"].values, series["angles"].values[:, 1]
    several = len(r_factor) > 1
    figure = Figure(figsize=(WIDTH, 4.6 if several else 2.6), layout="constrained")
    rows = figure.subplots(2 if several else 1, 1, squeeze=False)[:, 0]
    last, order = r_factor[-1], np.argsort(tilts)
    rows[0].plot(tilts[order], last[order], "o-", markersize=4)
    mean = float(np.nanmean(last)) if np.isfinite(last).any() else np.nan
    rows[0].axhline(mean, color=COLOURS[1], linestyle="--", label=f"mean {mean:.3f}")
    rows[0].set(xlabel="tilt angle θ (°)", ylabel="R-factor", ylim=(0, _headroom(last)))
    rows[0].legend(loc="lower right", fontsize="small")
    rows[0].grid(axis="y")
    if several:
        rows[1].plot(np.arange(1, len(r_factor) + 1), np.nanmean(r_factor, axis=1))
        rows[1].set(xlabel="iteration", ylabel="R, mean over tilts", ylim=(0, _headroom(r_factor)))
        rows[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        rows[1].grid(axis="y")
    return figure


@picture
def draw_deviations(found: xr.Dataset, truth: xr.Dataset, pairs: np.ndarray) -> Figure:
    """Draw how far found atoms are from the true ones, along each axis.

    Parameters
    ----------
    found, truth : xarray.Dataset
        ATOMS.
    pairs : ndarray, shape (n, 2), int
        Index of the found atom, index of the true atom.

    Returns
    -------
    matplotlib.figure.Figure
    """
    deviation = found["position"].values[pairs[:, 0]] - truth["position"].values[pairs[:, 1]]
    reach = max(0.1, float(np.abs(deviation).max(initial=0.0)))
    bins = np.linspace(-reach, reach, 41)
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for i, style in enumerate(("-", "--", ":")):
        rms = float(np.sqrt(np.mean(deviation[:, i] ** 2))) if len(deviation) else np.nan
        counts, _ = np.histogram(deviation[:, i], bins)
        axes.stairs(
            counts, bins, label=f"{'xyz'[i]}, rms {rms:.2f} Å", linestyle=style, linewidth=1.8, color=COLOURS[i]
        )
    axes.set(xlabel="found − true position (Å)", ylabel="atoms")
    axes.legend(fontsize="small")
    return figure


def _headroom(values: np.ndarray) -> float:
    """Top of an axis that begins at 0 and holds all values."""
    finite = values[np.isfinite(values)]
    return 1.1 * float(finite.max()) if finite.size and finite.max() > 0 else 1.0
