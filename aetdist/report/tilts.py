"""Pictures of preprocessing and alignment; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .style import COLOURS, WIDTH, add_scale_bar, extent, picture


@picture
def draw_preprocessing(series: xr.Dataset, raw: xr.Dataset | None = None, *, tilt: int | None = None) -> Figure:
    """Draw the first frame of a tilt, and what preprocessing made of it, with the outline of the object.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES, preprocessed; with ``object_mask`` where an object was found.
    raw : xarray.Dataset, optional
        FRAMES of the same series.
    tilt : int, optional
        Index of the tilt; the default is the one least tilted.

    Returns
    -------
    matplotlib.figure.Figure
    """
    tilt = int(np.argmin(np.abs(series["angles"].values[:, 1]))) if tilt is None else tilt
    x, y = series["x"].values, series["y"].values
    shown = [(series["images"][tilt].values, "preprocessed", series)]
    if raw is not None:
        shown.insert(0, (raw["frames"][tilt, 0].values, "first frame", raw))
    wide = np.ptp(x) > 1.3 * np.ptp(y)
    figure = Figure(layout="compressed")
    cells = figure.subplots(*((len(shown), 1) if wide else (1, len(shown))), squeeze=False).ravel()
    for axes, (image, title, source) in zip(cells, shown, strict=True):
        left, right, bottom, top = extent(source["x"].values, source["y"].values)
        finite = image[np.isfinite(image)]
        low, high = np.quantile(finite, (0.001, 0.999)) if finite.size else (0.0, 1.0)
        axes.imshow(image, extent=(left, right, bottom, top), cmap="gray", vmin=low, vmax=max(high, low + 1e-12))
        axes.set(title=title, xlabel="x (Å)", ylabel="y (Å)")
    if "object_mask" in series:
        outline = series["object_mask"][tilt].values
        if outline.any() and not outline.all():
            cells[-1].contour(x, y, outline, levels=[0.5], colors=COLOURS[1], linewidths=1.2)
            cells[-1].set_title("preprocessed, and its mask")
    for axes in cells[1:]:
        axes.label_outer()
    add_scale_bar(cells[0])
    shape = (np.ptp(y) + 1e-9) / (np.ptp(x) + 1e-9)
    figure.set_size_inches(WIDTH, WIDTH * shape * len(shown) + 0.9 if wide else WIDTH * shape / len(shown) + 1.0)
    return figure


@picture
def draw_drift(series: xr.Dataset) -> Figure:
    """Draw how far the frames of every tilt moved since its first one; crosses are frames that were left out.

    Parameters
    ----------
    series : xarray.Dataset
        With ``frame_shift`` (tilt, frame, [y, x]) in pixels, ``frame_kept`` (tilt, frame), and angles.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the series holds no shifts of frames.
    """
    if "frame_shift" not in series:
        raise InputError("This series holds no frame_shift; preprocess records it where there are raw frames.")
    tilts, shift = series["angles"].values[:, 1], series["frame_shift"].values
    kept = series["frame_kept"].values if "frame_kept" in series else np.isfinite(shift[..., 0])
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    rows = figure.subplots(2, 1, sharex=True)
    for axes, name, values in zip(rows, "yx", np.moveaxis(shift, -1, 0), strict=True):
        for frame in range(1, values.shape[1]):
            colour, good = COLOURS[(frame - 1) % len(COLOURS)], kept[:, frame]
            axes.plot(tilts[good], values[good, frame], "o", markersize=3, color=colour, label=f"frame {frame}")
            axes.plot(tilts[~good], values[~good, frame], "x", markersize=5, color=colour)
        axes.set_ylabel(f"{name} (pixels)")
        axes.axhline(0, linewidth=0.8, color="gray")
    rows[1].set_xlabel("tilt angle θ (°)")
    if 1 < shift.shape[1] <= 8:
        figure.legend(*rows[0].get_legend_handles_labels(), loc="outside upper right", ncols=4, fontsize="small")
    return figure


@picture
def draw_denoising(series: xr.Dataset) -> Figure:
    """Draw how like the clean images of the model particle its denoised ones are, for all parameters that were tried.

    Parameters
    ----------
    series : xarray.Dataset
        With ``sweep_correlation`` (strength, ..., model_tilt), ``sweep_noisy_correlation``, and what was chosen in
        the attributes ``denoise_...``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the parameters were not chosen on a model.
    """
    if "sweep_correlation" not in series:
        raise InputError("This series holds no sweep_correlation; preprocess makes it where denoising = 'chosen'.")
    table = series["sweep_correlation"].mean("model_tilt")
    first, *others = map(str, table.dims)
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    tried = itertools.product(*(table[name].values.tolist() for name in others))
    for i, (values, line) in enumerate(zip(tried, table.values.reshape(table.sizes[first], -1).T, strict=True)):
        label, colour = ", ".join(map(str, values)), COLOURS[i % len(COLOURS)]
        axes.plot(table[first].values, 1.0 - line, "o-", markersize=3.5, label=label, color=colour)
    axes.plot(series.attrs[f"denoise_{first}"], 1.0 - float(table.max()), "*", markersize=14, color="gray", zorder=0)
    axes.axhline(1.0 - float(series["sweep_noisy_correlation"].mean()), color="gray", linewidth=0.8)
    axes.set(xlabel=first.replace("_", " "), ylabel="1 − correlation", yscale="log")
    axes.legend(fontsize="small", title=", ".join(others).replace("_", " "), title_fontsize="small")
    return figure


@picture
def draw_shifts(series: xr.Dataset) -> Figure:
    """Draw the shift of every tilt that alignment found; crosses are tilts that are not used.

    Parameters
    ----------
    series : xarray.Dataset
        With ``shift`` (tilt, [y, x]) in pixels, ``used`` (tilt), and angles.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the series holds no shifts.
    """
    if "shift" not in series:
        raise InputError("This series holds no shift; align records it.")
    tilts, shift = series["angles"].values[:, 1], series["shift"].values
    used = series["used"].values if "used" in series else np.ones(len(tilts), bool)
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.add_subplot()
    order = np.argsort(tilts)
    for i, (name, mark) in enumerate((("along y", "o-"), ("along x", "s-"))):
        axes.plot(tilts[order], shift[order, i], mark, markersize=3.5, linewidth=1, label=name, color=COLOURS[i])
    if not used.all():
        off = np.flatnonzero(~used)
        axes.plot(np.repeat(tilts[off], 2), shift[off].ravel(), "x", color=COLOURS[5], markersize=8, label="not used")
    axes.set(xlabel="tilt angle θ (°)", ylabel="shift (pixels)")
    axes.grid(axis="y")
    axes.legend(fontsize="small")
    return figure


@picture
def draw_repeats(series: xr.Dataset) -> Figure:
    """Draw the two images of one tilt that differ most, and their difference: what the beam has changed.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES, aligned, with ``repeat_tilts``, ``repeat_correlation``, ``repeat_r_factor``, ``repeat_scale``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If no tilt was taken more than once.
    """
    if "repeat_tilts" not in series:
        raise InputError("This series holds no repeat_tilts: no tilt was taken more than once.")
    worst = series.isel(repeat=int(series["repeat_r_factor"].values.argmax()))
    numbers = worst["repeat_tilts"].values
    places = [int(np.flatnonzero(series["tilt"].values == number)[0]) for number in numbers]
    first, again = (series["images"][i].where(series["mask"][i]).values for i in places)
    again = float(worst["repeat_scale"]) * again
    x, y = series["x"].values, series["y"].values
    wide = np.ptp(x) > 1.8 * np.ptp(y)
    figure = Figure(layout="compressed")
    cells = figure.subplots(*((3, 1) if wide else (1, 3)), squeeze=False).ravel()
    top = float(np.nanquantile(first, 0.999)) if np.isfinite(first).any() else 1.0
    shown = ((first, f"tilt {numbers[0]}"), (again, f"again: tilt {numbers[1]}"), (again - first, "difference"))
    for axes, (image, title) in zip(cells, shown, strict=True):
        signed = title == "difference"
        low, high, colours = (-0.5 * top, 0.5 * top, "RdBu_r") if signed else (0.0, top, "gray")
        axes.imshow(image, extent=extent(x, y), cmap=colours, vmin=low, vmax=high)
        axes.set(title=title, xlabel="x (Å)", ylabel="y (Å)")
    for axes in cells[1:]:
        axes.label_outer()
    said = f"correlation {float(worst['repeat_correlation']):.3f}, R {float(worst['repeat_r_factor']):.3f}"
    cells[-1].set_title(f"difference\n{said}", fontsize="small")
    add_scale_bar(cells[0])
    shape = (np.ptp(y) + 1e-9) / (np.ptp(x) + 1e-9)
    figure.set_size_inches(WIDTH, 3 * WIDTH * shape + 1.2 if wide else WIDTH * shape / 3 + 1.0)
    return figure


@picture
def draw_refinement(series: xr.Dataset) -> Figure:
    """Draw what refinement changed: rotations and shifts of every tilt with their uncertainties, R before and after.

    Parameters
    ----------
    series : xarray.Dataset
        With ``rotation`` (tilt, lab_axis) in degrees, ``refined_shift`` (tilt, [y, x]) in pixels,
        ``shift_uncertainty``, ``used`` and ``round_r_factor`` (round, tilt).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the series was not refined.
    """
    if "refined_shift" not in series:
        raise InputError("This series was not refined; refine-angles does it.")
    tilts, used = series["angles"].values[:, 1], series["used"].values
    order = np.argsort(tilts)
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    rows = figure.subplots(3, 1, sharex=True)
    turned, shift = series["rotation"].values, series["refined_shift"].values
    for axis, name in enumerate(("x", "y (the tilt)", "z (in the image)")):
        rows[0].plot(tilts[order], turned[order, axis], "o-", ms=3.5, lw=1, label=f"about {name}", color=COLOURS[axis])
    for axis, name in enumerate(("along y", "along x")):
        deviation = series["shift_uncertainty"].values[order, axis]
        rows[1].errorbar(
            tilts[order], shift[order, axis], np.nan_to_num(deviation),
            fmt="o-", ms=3.5, lw=1, label=name, color=COLOURS[axis],
        )  # fmt: skip
    r_factor = series["round_r_factor"].values
    for values, name, mark in ((r_factor[0], "before", "s--"), (r_factor[series.attrs["best_round"]], "after", "o-")):
        rows[2].plot(tilts[order], values[order], mark, ms=3.5, lw=1, label=f"{name}, mean {np.nanmean(values):.4f}")
    for axes in rows[:2]:
        axes.plot(
            tilts[~used], np.zeros((~used).sum()), "x", ms=8, color=COLOURS[5], label=None if used.all() else "not used"
        )
    for axes, label in zip(rows, ("rotation (°)", "shift (pixels)", "R-factor"), strict=True):
        axes.set_ylabel(label)
        axes.grid(axis="y")
        axes.legend(fontsize="small")
    rows[2].set(xlabel="tilt angle θ (°)")
    rows[2].set_ylim(bottom=0)
    return figure


@picture
def draw_common_lines(series: xr.Dataset, before: xr.Dataset | None = None) -> Figure:
    """Draw the common line of every tilt, its image summed perpendicular to the tilt axis; aligned, they are one.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES, aligned.
    before : xarray.Dataset, optional
        The same before alignment.

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown = [("aligned", series)] if before is None else [("before", before), ("aligned", series)]
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    cells = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (title, dataset) in zip(cells, shown, strict=True):
        _draw_lines(axes, dataset)
        axes.set(title=title, xlabel="y (Å)")
    cells[0].set_ylabel("tilt, by its angle")
    return figure


def _draw_lines(axes: Axes, series: xr.Dataset) -> None:
    """One row for each tilt, in the order of the angles, each divided by its mean."""
    images = series["images"].where(series["mask"], 0.0)
    lines = images.sum("x").values[np.argsort(series["angles"].values[:, 1])].astype(np.float64)
    means = np.abs(lines).mean(axis=1, keepdims=True)
    lines /= np.where(means > 0, means, 1.0)
    y = series["y"].values
    left, right, _, _ = extent(y, y)
    low, high = np.quantile(lines, (0.01, 0.995))
    axes.imshow(lines, extent=(left, right, -0.5, len(lines) - 0.5), cmap="gray", aspect="auto", vmin=low, vmax=high)
