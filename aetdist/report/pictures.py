"""Pictures of a volume, its atoms and its projections; every one a matplotlib Figure.

Every function takes ``theme="light"`` or ``"dark"``; axes are in Angstrom or degrees.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..errors import CapacityError, InputError
from ..geometry import ParallelGeometry, grid_step, matrices_from_euler
from ..project import ParallelProjector
from .style import COLOURS, VIEWS, WIDTH, add_scale_bar, axes_colour, extent, picture, three_views

Field = tuple[float, float, float, float]
"""Left, right, bottom and top of a detector in Angstrom."""
LARGEST_REPROJECTED = 2 * 2**30
"""Bytes of a volume that is still loaded to reproject one tilt."""


@picture
def draw_slices(
    volume: xr.Dataset, *, at: tuple[float, float, float] | None = None, field: Field | None = None
) -> Figure:
    """Draw the three slices of a volume through one point.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME; only the slices are read.
    at : tuple of float, optional
        x, y, z of the point in Angstrom; the default is the middle of the volume, at the height of
        the film there if it is known.
    field : tuple of float, optional
        Left, right, bottom and top of the measured field in Angstrom; little beyond it is shown.

    Returns
    -------
    matplotlib.figure.Figure
    """
    density = view_of(volume["density"], field)
    point = dict(zip("xyz", middle_of(volume) if at is None else at, strict=True))
    cuts = {axis: density.sel({axis: point[axis]}, method="nearest").load() for axis in "zyx"}
    top = max(float(np.quantile(cut, 0.999)) for cut in cuts.values())
    figure, views, _ = three_views(*(float(np.ptp(density[axis].values)) for axis in "xyz"))
    for gone, axes in views.items():
        across, up = VIEWS[gone]
        cut = cuts[gone]
        box = extent(cut[across].values, cut[up].values)
        axes.imshow(cut.transpose(up, across), extent=box, cmap="gray", vmin=0, vmax=top or 1)
        axes.set_title(f"{gone} = {round(float(cut[gone]))} Å", fontsize="small")
    add_scale_bar(views["z"])
    return figure


@picture
def draw_atoms_on_slice(
    volume: xr.Dataset,
    atoms: xr.Dataset,
    *,
    truth: xr.Dataset | None = None,
    thickness: float = 2.0,
    reach: float = 30.0,
) -> Figure:
    """Draw the middle of a thin horizontal slice of a volume and the atoms in it.

    Parameters
    ----------
    volume, atoms : xarray.Dataset
        VOLUME and ATOMS.
    truth : xarray.Dataset, optional
        True atoms; marked by crosses.
    thickness : float
        Thickness of the slice in Angstrom, around the middle of the film.
    reach : float
        How far from the middle along x and y the picture goes, in Angstrom.

    Returns
    -------
    matplotlib.figure.Figure
    """
    *point, middle = middle_of(volume)
    density = volume["density"]
    density = density.sel({axis: slice(c - reach, c + reach) for axis, c in zip("xy", point, strict=True)})
    near = np.flatnonzero(np.abs(density["z"].values - middle) <= thickness / 2)
    near = near if near.size else np.array([np.argmin(np.abs(density["z"].values - middle))])
    slab = density.isel(z=slice(int(near[0]), int(near[-1]) + 1)).mean("z").load()
    x, y = slab["x"].values, slab["y"].values
    figure = Figure(figsize=_fitted(x, y), layout="compressed")
    axes = figure.add_subplot()
    axes.imshow(slab, extent=extent(x, y), cmap="gray", vmin=0, vmax=float(np.quantile(slab, 0.999)) or 1)
    axes.set_autoscale_on(False)
    # Marks about 2 Angstrom wide, however many of them there are.
    size = max(6.0, (2.0 / np.ptp(x) * (WIDTH - 0.8) * 72) ** 2) if len(x) > 1 else 20.0
    found = _within(atoms, middle, thickness)
    axes.scatter(*found, s=size, facecolors="none", edgecolors=COLOURS[1], linewidths=1.0, label="found")
    if truth is not None:
        true = _within(truth, middle, thickness)
        axes.scatter(*true, s=0.4 * size, marker="+", color=COLOURS[4], linewidths=1.0, label="true")
    axes.set(xlabel="x (Å)", ylabel="y (Å)", title=f"z = {middle:.1f} ± {thickness / 2:.1f} Å")
    add_scale_bar(axes)
    figure.legend(loc="outside lower right", ncols=2, fontsize="small")
    return figure


@picture
def draw_reprojection(series: xr.Dataset, volume: xr.Dataset, *, tilt: int | None = None) -> Figure:
    """Draw a measured projection, that of the volume, and their difference.

    Parameters
    ----------
    series, volume : xarray.Dataset
        TILT_SERIES and VOLUME. The volume is loaded whole.
    tilt : int, optional
        Index of the tilt; the default is the one least tilted.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    CapacityError
        If the volume is larger than ``LARGEST_REPROJECTED``.
    """
    if volume["density"].nbytes > LARGEST_REPROJECTED:
        raise CapacityError(
            f"Reprojecting needs the whole volume, {volume['density'].nbytes / 2**30:.1f} GiB; "
            f"cut out a part of at most {LARGEST_REPROJECTED / 2**30:.0f} GiB first (volume.isel)."
        )
    angles = series["angles"].values
    tilt = int(np.argmin(np.abs(angles[:, 1]))) if tilt is None else tilt
    measured = series["images"][tilt].values.astype(np.float64)
    mask = series["mask"][tilt].values
    calculated = reproject(series, volume, tilt)
    top = float(np.quantile(measured[mask], 0.999)) if mask.any() else 1.0
    x, y = series["x"].values, series["y"].values
    wide = np.ptp(x) > 1.8 * np.ptp(y)
    one = _fitted(x, y, WIDTH if wide else WIDTH / 1.8)
    figure = Figure(figsize=(WIDTH, one[1] * (3 if wide else 2) + 0.2), layout="compressed")
    cells = figure.subplots(*((3, 1) if wide else (2, 2)), squeeze=False).ravel()
    shown = ((measured, "measured"), (calculated, "calculated"), (calculated - measured, "difference"))
    for axes, (image, title) in zip(cells, shown, strict=False):
        signed = title == "difference"
        drawn = axes.imshow(
            np.where(mask, image, np.nan),
            extent=extent(x, y),
            cmap="RdBu_r" if signed else "gray",
            vmin=-0.5 * top if signed else 0.0,
            vmax=0.5 * top if signed else top,
        )
        axes.set(title=title, xlabel="x (Å)", ylabel="y (Å)")
        figure.colorbar(drawn, ax=axes, label="intensity", shrink=0.8, aspect=15)
    for axes in cells[3:]:
        signal = np.abs(measured[mask]).sum()
        share = np.abs(calculated - measured)[mask].sum() / signal if signal > 0 else np.nan
        axes.axis("off")
        axes.text(0, 0.6, f"tilt {tilt}\nθ = {angles[tilt, 1]:.1f}°\nR = {share:.3f}", transform=axes.transAxes)
    if wide:
        cells[0].set_title(f"measured, tilt {tilt} at θ = {angles[tilt, 1]:.1f}°")
    add_scale_bar(cells[0])
    return figure


def reproject(series: xr.Dataset, volume: xr.Dataset, tilt: int) -> np.ndarray:
    """Projection of a volume onto the detector of one tilt, shape (y, x), float64."""
    size = grid_step(volume["x"].values)
    start = [series[axis].values[0] / size for axis in "yx"]
    geometry = ParallelGeometry(
        matrices_from_euler(series["angles"].values[tilt : tilt + 1]),
        volume["density"].shape,  # type: ignore[arg-type]
        tuple(float(volume[axis].values[0] / size) for axis in "zyx"),  # type: ignore[arg-type]
        (series.sizes["y"], series.sizes["x"]),
        np.array([start], dtype=np.float64),
    )
    density = np.ascontiguousarray(volume["density"].values, dtype=np.float32)
    return ParallelProjector(geometry).forward(density)[0].astype(np.float64)


@picture
def draw_film_maps(volume: xr.Dataset, *, field: Field | None = None) -> Figure:
    """Draw the maps of the film's height and local thickness.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME with height and thickness.
    field : tuple of float, optional
        Left, right, bottom and top of the measured field in Angstrom; drawn as a dashed frame. Little
        beyond it is shown, and the colours span what is inside.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if "height" not in volume or "thickness" not in volume:
        raise InputError("This volume holds no maps of height and thickness; scan makes them.")
    maps = {name: view_of(volume[name], field, "map_") for name in ("height", "thickness")}
    x, y = maps["height"]["map_x"].values, maps["height"]["map_y"].values
    size = _fitted(x, y)
    figure = Figure(figsize=(WIDTH, 2 * size[1]), layout="compressed")
    for axes, name, title, colours in zip(
        figure.subplots(2, 1), ("height", "thickness"), ("height of the film's middle", "thickness"),
        ("cividis", "viridis"), strict=True,
    ):  # fmt: skip
        values = maps[name].where(maps["thickness"] > 0)
        norm = _robust(view_of(values, field, "map_", 0.0).values)
        drawn = axes.imshow(values, extent=extent(x, y), cmap=colours, norm=norm)
        axes.set(xlabel="x (Å)", ylabel="y (Å)", title=title)
        _frame(axes, field)
        figure.colorbar(drawn, ax=axes, label="Å", shrink=0.8)
    return figure


@picture
def draw_disagreement(volume: xr.Dataset, *, field: Field | None = None) -> Figure:
    """Draw how much overlapping windows disagree, column by column.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME with disagreement: relative L1 difference, 0 where there is a single window.
    field : tuple of float, optional
        As in :func:`draw_film_maps`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if "disagreement" not in volume:
        raise InputError("This volume holds no map of disagreement; scan makes it.")
    disagreement = view_of(volume["disagreement"], field)
    values = disagreement.values.astype(np.float64)
    x, y = disagreement["x"].values, disagreement["y"].values
    figure = Figure(figsize=_fitted(x, y), layout="compressed")
    axes = figure.add_subplot()
    shown = np.where(values > 0, values, np.nan)
    drawn = axes.imshow(shown, extent=extent(x, y), cmap="cividis", norm=_robust(shown, low=0.0))
    axes.set(xlabel="x (Å)", ylabel="y (Å)", title="disagreement of overlapping windows")
    _frame(axes, field)
    figure.colorbar(drawn, ax=axes, label="relative L1", shrink=0.8)
    return figure


@picture
def draw_atoms(atoms: xr.Dataset, *, by: str | None = None) -> Figure:
    """Draw the atoms from above and from the front.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS.
    by : {"type", "species", "intensity", "z"}, optional
        What the colour says; the default is the species or type where there are several, else the
        intensity, else z.

    Returns
    -------
    matplotlib.figure.Figure
    """
    positions = np.asarray(atoms["position"].values, dtype=np.float64)
    if len(positions) == 0:
        raise InputError("There are no atoms to draw.")
    if by is None:
        several = [name for name in ("species", "type") if name in atoms and np.unique(atoms[name]).size > 1]
        by = several[0] if several else "intensity" if "intensity" in atoms else "z"
    if by != "z" and by not in atoms:
        raise InputError(f"The atoms have no {by}; they have {', '.join(map(str, atoms.data_vars))}.")
    width, depth, height = np.maximum(np.ptp(positions, axis=0), 1.0)
    scale = (WIDTH - 0.9) / width
    figure = Figure(figsize=(WIDTH, min(9.0, max(2.6, scale * (depth + height) + 1.5))), layout="compressed")
    top, front = figure.subplots(2, 1, sharex=True, height_ratios=(depth, height))
    dot = float(np.clip((1.5 * scale * 72) ** 2, 0.3, 60.0))
    edge = {"edgecolors": axes_colour(), "linewidths": min(0.6, 0.08 * np.sqrt(dot))}
    drawn = None
    for axes, up, behind in ((top, 1, 2), (front, 2, 1)):
        order = np.argsort(positions[:, behind] * (1 if behind == 2 else -1))  # nearest to the eye last
        x, u = positions[order, 0], positions[order, up]
        if by in ("type", "species"):
            names = atoms[by].values[order]
            kinds = np.unique(names)
            colours = np.array(COLOURS)[np.searchsorted(kinds, names) % len(COLOURS)]
            axes.scatter(x, u, s=dot, c=colours, **edge)
        else:
            values = positions[order, 2] if by == "z" else atoms[by].values[order]
            drawn = axes.scatter(x, u, s=dot, c=values, cmap="viridis", norm=_robust(values), **edge)
        axes.set_aspect("equal")
        axes.set_ylabel(f"{'xyz'[up]} (Å)")
    front.set_xlabel("x (Å)")
    top.set_title(f"{len(positions):,} atoms, from above")
    front.set_title("from the front")
    if drawn is not None:
        figure.colorbar(drawn, ax=(top, front), label="z (Å)" if by == "z" else by, shrink=0.8)
    else:
        handles = [
            Line2D([], [], marker="o", linestyle="", color=COLOURS[i % len(COLOURS)], label=str(kind))
            for i, kind in enumerate(np.unique(atoms[by].values))
        ]
        figure.legend(handles=handles, title=by, loc="outside lower right", ncols=len(handles), fontsize="small")
    return figure


def field_of(series: xr.Dataset) -> Field:
    """Left, right, bottom and top of a detector in Angstrom."""
    return extent(series["x"].values, series["y"].values)


def middle_of(volume: xr.Dataset) -> tuple[float, float, float]:
    """Middle of a volume in Angstrom; of the film, where its height is known."""
    x, y, z = (float(volume[axis].values[volume.sizes[axis] // 2]) for axis in "xyz")
    if "height" in volume:
        column = volume["height"].sel(map_x=x, map_y=y, method="nearest")
        if np.isfinite(column):
            z = float(column)
    return x, y, z


def view_of(array: xr.DataArray, field: Field | None, prefix: str = "", share: float = 0.15) -> xr.DataArray:
    """The part of an image or a volume over the field, and `share` of its size beyond it."""
    if field is None:
        return array
    left, right, bottom, top = field
    margin = share * max(right - left, top - bottom)
    cut = {
        f"{prefix}x": slice(left - margin, right + margin),
        f"{prefix}y": slice(bottom - margin, top + margin),
    }
    part = array.sel(cut)
    return part if part.size else array


def _within(atoms: xr.Dataset, z: float, thickness: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions x and y of the atoms in a horizontal slice."""
    positions = atoms["position"].values
    near = np.abs(positions[:, 2] - z) <= thickness / 2
    return positions[near, 0], positions[near, 1]


def _fitted(x: np.ndarray, y: np.ndarray, width: float = WIDTH) -> tuple[float, float]:
    """Size in inches of a figure for an image, with room for labels; not higher than twice its width."""
    ratio = max(np.ptp(y), 1e-9) / max(np.ptp(x), 1e-9)
    return width, float(np.clip((width - 0.8) * ratio + 0.9, 1.6, 2 * width))


def _robust(values: np.ndarray, low: float | None = None) -> Normalize:
    """Colours between the first and the last hundredth of the values."""
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size == 0:
        return Normalize(0.0, 1.0)
    bottom, top = np.quantile(finite, (0.01, 0.99))
    bottom = bottom if low is None else low
    return Normalize(float(bottom), float(top if top > bottom else bottom + 1e-6))


def _frame(axes: Axes, field: Field | None) -> None:
    """Outline of the measured field."""
    if field is not None:
        left, right, bottom, top = field
        frame = Rectangle((left, bottom), right - left, top - bottom, fill=False, linestyle="--", edgecolor="white")
        frame.set_path_effects([withStroke(linewidth=3, foreground="#404040")])
        axes.add_patch(frame)
        axes.annotate(
            "measured field", (left, top), xytext=(4, -4), textcoords="offset points", fontsize="small", color="white",
            ha="left", va="top", bbox={"facecolor": "#404040", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
