"""Pictures of classified and refined atoms; every one a matplotlib Figure (see `pictures`)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from .pictures import middle_of
from .style import COLOURS, VIEWS, WIDTH, add_scale_bar, extent, picture, three_views


@picture
def draw_intensities(atoms: xr.Dataset) -> Figure:
    """Draw how many atoms of each type have which intensity.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS with box_intensity, or else intensity; all are one type where they have none.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the atoms have no intensity.
    """
    name = next((name for name in ("box_intensity", "intensity") if name in atoms), None)
    values = np.full(0, np.nan) if name is None else atoms[name].values
    finite = np.isfinite(values)
    if not finite.any():
        raise InputError("These atoms have no intensity; trace and classify record it.")
    low, high = np.quantile(values[finite], (0.001, 0.999))
    bins = np.linspace(low, high if high > low else low + 1.0, 81)
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for label, colour, which in kinds_of_atoms(atoms):
        counts, _ = np.histogram(np.clip(values[which & finite], bins[0], bins[-1]), bins)
        axes.stairs(counts, bins, color=colour, fill=True, alpha=0.35)
        axes.stairs(counts, bins, color=colour, label=f"{label}: {np.count_nonzero(which):,}")
    axes.set(xlabel=str(name).replace("_", " "), ylabel="atoms")
    axes.legend(fontsize="small")
    return figure


@picture
def draw_types_on_slices(
    volume: xr.Dataset, atoms: xr.Dataset, *, thickness: float = 2.0, reach: float = 20.0
) -> Figure:
    """Draw three thin slices through the middle of a volume and the atoms in them, coloured by type.

    Parameters
    ----------
    volume, atoms : xarray.Dataset
        VOLUME and ATOMS; only the slices are read.
    thickness : float
        Thickness of the slices in Angstrom.
    reach : float
        How far from the middle the picture goes, in Angstrom.

    Returns
    -------
    matplotlib.figure.Figure
    """
    middle = dict(zip("xyz", middle_of(volume), strict=True))
    near = volume["density"].sel({axis: slice(c - reach, c + reach) for axis, c in middle.items()})
    positions = dict(zip("xyz", atoms["position"].values.T, strict=True))
    kinds = list(kinds_of_atoms(atoms))
    figure, views, scale = three_views(*(max(float(np.ptp(near[axis].values)), 1e-9) for axis in "xyz"), room=1.3)
    dot = max(4.0, (1.6 * scale * 72) ** 2)  # marks about 1.6 Angstrom wide
    for gone, axes in views.items():
        across, up = VIEWS[gone]
        slab = slab_of(near, gone, middle[gone], thickness).transpose(up, across).load()
        top = float(np.quantile(slab, 0.999)) or 1.0
        box = extent(slab[across].values, slab[up].values)
        axes.imshow(slab, extent=box, cmap="gray", vmin=0, vmax=top)
        axes.set_autoscale_on(False)
        inside = np.abs(positions[gone] - middle[gone]) <= thickness / 2
        for _, colour, which in kinds:
            here = inside & which
            place = positions[across][here], positions[up][here]
            axes.scatter(*place, s=dot, facecolors="none", edgecolors=colour, linewidths=1.1)
        axes.set_title(f"{gone} = {round(middle[gone])} ± {thickness / 2:.0f} Å", fontsize="small")
    add_scale_bar(views["z"])
    marks = [
        Line2D([], [], marker="o", linestyle="", markerfacecolor="none", color=colour, label=label)
        for label, colour, _ in kinds
    ]
    figure.legend(handles=marks, loc="outside lower right", ncols=len(marks), fontsize="small")
    return figure


@picture
def draw_atom_refinement(atoms: xr.Dataset) -> Figure:
    """Draw the R-factor of the atoms' projections before their refinement and after every round of it.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS with round_r (iteration), or else r_factor (iteration, tilt).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the atoms were not refined.
    """
    if "round_r" in atoms:
        r_factor = atoms["round_r"].values
    elif "r_factor" in atoms:
        r_factor = atoms["r_factor"].mean("tilt").values  # leaves NaN out: tilts that are not used
    else:
        raise InputError("These atoms hold no R-factor; refine records it.")
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(r_factor, "o-", markersize=3.5)
    finite = r_factor[np.isfinite(r_factor)]
    if finite.size:
        axes.set_ylim(0, 1.1 * max(float(finite.max()), 1e-12))
        axes.annotate(
            f"{finite[-1]:.4f}", (np.flatnonzero(np.isfinite(r_factor))[-1], finite[-1]),
            xytext=(0, 6), textcoords="offset points", ha="right", fontsize="small",
        )  # fmt: skip
    axes.set(xlabel="round of refinement", ylabel="R, mean over tilts")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    return figure


@picture
def draw_differences(atoms: xr.Dataset) -> Figure:
    """Draw what the atoms leave unexplained of the images, before and after their refinement.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS with difference_before and difference_after (map_y, map_x): rms over the tilts of image - model.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the atoms were not refined.
    """
    shown = [(name, atoms[f"difference_{name}"]) for name in ("before", "after") if f"difference_{name}" in atoms]
    if not shown:
        raise InputError("These atoms hold no maps of the difference; refine makes them.")
    first = shown[0][1]
    x, y = (first[axis].values if axis in first.coords else np.arange(first.sizes[axis]) for axis in ("map_x", "map_y"))
    finite = np.concatenate([image.values[np.isfinite(image.values)] for _, image in shown])
    top = float(np.quantile(finite, 0.995)) if finite.size else 1.0
    wide = np.ptp(x) > 1.3 * np.ptp(y)
    figure = Figure(layout="compressed")
    cells = figure.subplots(*((len(shown), 1) if wide else (1, len(shown))), squeeze=False).ravel()
    for axes, (name, image) in zip(cells, shown, strict=True):
        drawn = axes.imshow(image, extent=extent(x, y), cmap="cividis", vmin=0.0, vmax=top or 1.0)
        square = np.square(image.values[np.isfinite(image.values)])
        axes.set(
            title=f"{name}, rms {np.sqrt(square.mean()):.3g}" if square.size else name, xlabel="x (Å)", ylabel="y (Å)"
        )
    for axes in cells[1:]:
        axes.label_outer()
    figure.colorbar(drawn, ax=list(cells), label="rms of image − model", shrink=0.8, aspect=15)
    add_scale_bar(cells[0])
    shape = (np.ptp(y) + 1e-9) / (np.ptp(x) + 1e-9)
    figure.set_size_inches(WIDTH, 0.8 * WIDTH * shape * len(shown) + 1.0 if wide else 0.45 * WIDTH * shape + 1.1)
    return figure


@picture
def draw_sigmas(atoms: xr.Dataset) -> Figure:
    """Draw how sure the positions of the atoms are along each axis.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS with position_sigma; the attribute ``cramer_rao`` (Angstrom, of x, y and z together) is drawn as a line
        where it is of one axis.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If nothing is known of it.
    """
    sigma = 100.0 * atoms["position_sigma"].values if "position_sigma" in atoms else np.empty((0, 3))
    if not np.isfinite(sigma).any():
        raise InputError("These atoms have no position_sigma; refine finds it.")
    reach = float(np.nanquantile(sigma, 0.99)) * 1.1
    bins = np.linspace(0.0, reach if reach > 0 else 1.0, 61)
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for i, style in enumerate(("-", "--", ":")):
        known = sigma[np.isfinite(sigma[:, i]), i]
        counts, _ = np.histogram(np.minimum(known, bins[-1]), bins)
        median = f"median {np.median(known):.1f} pm" if known.size else "not known"
        axes.stairs(counts, bins, label=f"{'xyz'[i]}, {median}", linestyle=style, linewidth=1.8, color=COLOURS[i])
    if "cramer_rao" in atoms.attrs:
        bound = 100.0 * float(atoms.attrs["cramer_rao"]) / np.sqrt(3.0)
        axes.axvline(bound, color="gray", linewidth=1.0, label=f"Cramér-Rao bound of an axis, rms {bound:.1f} pm")
    axes.set(xlabel="standard deviation of the position (pm)", ylabel="atoms", xlim=(0, bins[-1]))
    figure.legend(loc="outside upper left", ncols=2, fontsize="small")
    return figure


def kinds_of_atoms(atoms: xr.Dataset) -> list[tuple[str, str, np.ndarray]]:
    """Name, colour and atoms of each type; with its element where it has one."""
    if "type" not in atoms:
        return [("atoms", COLOURS[1], np.ones(atoms.sizes["atom"], dtype=bool))]
    types, kinds = atoms["type"].values, []
    for number in np.unique(types):
        which = types == number
        named = np.unique(atoms["species"].values[which].astype(str)) if "species" in atoms else np.empty(0, str)
        label = str(named[0]) if len(named) == 1 and named[0] != "X" else f"type {number}"
        kinds.append((label, COLOURS[(int(number) - 1) % len(COLOURS)], which))
    return kinds


def slab_of(density: xr.DataArray, axis: str, at: float, thickness: float) -> xr.DataArray:
    """Mean density of a thin slice across an axis; one plane at least."""
    slab = density.sel({axis: slice(at - thickness / 2, at + thickness / 2)})
    return slab.mean(axis) if slab.sizes[axis] else density.sel({axis: at}, method="nearest")
