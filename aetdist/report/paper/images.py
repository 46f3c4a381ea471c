"""Panels of images and volumes: the tilt series, its power spectrum, thin slices, measured against simulated images."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import SubFigure

from ...errors import InputError
from ..atoms import slab_of
from ..pictures import middle_of
from ..style import COLOURS, VIEWS, add_scale_bar, extent
from ..validation import plot_deviations
from .catalogue import Material

SLICE = 2.4
"""Thickness of the paper's slices in Angstrom."""
_SHOWN = 4
_FINEST = 0.9  # 1/Angstrom; power spectra are shown up to here


def fill_images(panel: SubFigure, material: Material) -> None:
    """Images at tilts over the whole range."""
    series = _series(material)
    tilts = _used(series)
    chosen = tilts[np.unique(np.linspace(0, len(tilts) - 1, _SHOWN).round().astype(int))]
    _show_images(panel, series, chosen, (1.0, 1.0))


def fill_tilt_series(panel: SubFigure, material: Material) -> None:
    """All images, by rising tilt angle."""
    series = _series(material)
    _show_images(panel, series, _used(series), (183.0, 150.0))


def _show_images(panel: SubFigure, series: xr.Dataset, tilts: np.ndarray, space: tuple[float, float]) -> None:
    """Images with their angles, in as many columns as make them largest in a space of so much width and height."""
    wide = float(np.ptp(series["x"].values) / max(np.ptp(series["y"].values), 1e-9))
    n = len(tilts)
    rows_of = {columns: -(-n // columns) for columns in range(1, n + 1)}
    # A fifth of the height of a cell is its title.
    columns = max(rows_of, key=lambda c: min(space[0] / c, wide * 0.8 * space[1] / rows_of[c]))
    rows = rows_of[columns]
    cells = panel.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02}).ravel()
    edges = extent(series["x"].values, series["y"].values)
    top = max(float(np.quantile(_image(series, int(i)), 0.999)) for i in tilts[:: max(1, len(tilts) // 8)])
    for axes, i in zip(cells, tilts, strict=False):
        axes.imshow(_image(series, int(i)), extent=edges, cmap="gray", vmin=0.0, vmax=top or 1.0)
        axes.set_title(_angle(series, int(i)), fontsize="small", pad=1.5)
    for axes in cells:
        axes.axis("off")
    add_scale_bar(cells[0])


def fill_power_spectrum(panel: SubFigure, material: Material) -> None:
    """Mean power spectrum of the images, logarithmic; rings would be crystals, a halo is a glass."""
    series = _series(material)
    tilts = _used(series)
    pixel = float(series["pixel_size"])
    shape = series.sizes["y"], series.sizes["x"]
    window = np.outer(*(np.hanning(n) for n in shape))
    power = np.zeros(shape)
    for i in tilts:
        image = _image(series, int(i))
        power += np.abs(np.fft.fft2(window * (image - image.mean()))) ** 2 / len(tilts)
    qy, qx = (np.fft.fftshift(np.fft.fftfreq(n, pixel)) for n in shape)
    reach = min(_FINEST, -qx[0], -qy[0])
    inside_y, inside_x = (np.flatnonzero(np.abs(q) <= reach) for q in (qy, qx))
    shown = np.log10(np.fft.fftshift(power)[np.ix_(inside_y, inside_x)] + 1e-30)
    q = np.hypot(qx[inside_x], qy[inside_y][:, None])
    low, high = np.quantile(shown[q > 0.15 * reach], (0.02, 0.995))
    axes = panel.add_subplot()
    axes.imshow(shown, extent=extent(qx[inside_x], qy[inside_y]), cmap="gray", vmin=low, vmax=high)
    axes.set(xlabel="spatial frequency (1/Å)", ylabel="spatial frequency (1/Å)", title=f"mean of {len(tilts)} tilts")
    axes.set_aspect("equal")


def fill_slice(axis: str):  # type: ignore[no-untyped-def]
    """What fills a panel with a slice of 2.4 Angstrom across an axis, through the middle."""

    def fill(panel: SubFigure, material: Material) -> None:
        volume = _given(material.volume)
        point = dict(zip("xyz", middle_of(volume), strict=True))
        across, up = VIEWS[axis]
        if axis == "x":
            across, up = up, across  # y to the right, z upwards
        density = volume["density"]
        if material.series is not None:
            seen = {name: _inside(material.series, volume, name) for name in (across, up) if name != "z"}
            density = density.sel(seen)
        slab = slab_of(density, axis, point[axis], SLICE).transpose(up, across).load()
        axes = panel.add_subplot()
        box = extent(slab[across].values, slab[up].values)
        axes.imshow(slab, extent=box, cmap="gray", vmin=0.0, vmax=float(np.quantile(slab, 0.999)) or 1.0)
        axes.set_title(f"{across}–{up} plane, {axis} = {point[axis]:.1f} ± {SLICE / 2:.1f} Å".replace("-", "−"))
        axes.axis("off")
        add_scale_bar(axes)

    return fill


def fill_measured(panel: SubFigure, material: Material) -> None:
    """The image that is tilted least."""
    _show_one(panel, material, "measured")


def fill_simulated(panel: SubFigure, material: Material) -> None:
    """The same tilt of the simulated atoms."""
    _show_one(panel, material, "simulated")


def fill_difference(panel: SubFigure, material: Material) -> None:
    """The second without the first."""
    _show_one(panel, material, "simulated − measured")


def _show_one(panel: SubFigure, material: Material, what: str) -> None:
    series, simulated = _series(material), _given(material.simulated)
    tilt = int(np.argmin(np.abs(series["angles"].values[:, 1])))
    measured, calculated = _image(series, tilt), _image(simulated, tilt)
    if measured.shape != calculated.shape:
        raise InputError("The simulated images do not have the size of the measured ones.")
    top = float(np.quantile(measured, 0.999)) or 1.0
    image = {"measured": measured, "simulated": calculated}.get(what, calculated - measured)
    signed = what not in ("measured", "simulated")
    axes = panel.add_subplot()
    drawn = axes.imshow(
        image, extent=extent(series["x"].values, series["y"].values), cmap="RdBu_r" if signed else "gray",
        vmin=-0.3 * top if signed else 0.0, vmax=0.3 * top if signed else top,
    )  # fmt: skip
    axes.axis("off")
    axes.set_title(f"{what}, θ = {_angle(series, tilt)}")
    panel.colorbar(drawn, ax=axes, label="intensity (as measured)", shrink=0.7, aspect=18)
    add_scale_bar(axes, light=signed)


def fill_deviations(panel: SubFigure, material: Material) -> None:
    """How far the atoms that were found again are from those that were simulated."""
    plot_deviations(panel.add_subplot(), _given(material.validation))


def fill_r_factors(panel: SubFigure, material: Material) -> None:
    """R of the measured images against the simulated ones, by tilt."""
    validation, series = _given(material.validation), _series(material)
    if "r_factor" not in validation:
        raise InputError("The validation has no R-factor of the measured images.")
    values = 100.0 * validation["r_factor"].values
    tilts = series["angles"].values[validation["tilt"].values, 1]
    order = np.argsort(tilts)
    axes = panel.add_subplot()
    axes.plot(tilts[order], values[order], "o-", markersize=2, color=COLOURS[0])
    mean = float(np.nanmean(values))
    axes.axhline(mean, color=COLOURS[1], linestyle="--", label=f"mean {mean:.2f} %")
    axes.set(xlabel="tilt angle θ (°)", ylabel="R-factor (%)", ylim=(0, 1.25 * float(np.nanmax(values))))
    axes.legend(loc="lower right", fontsize="small")


def _series(material: Material) -> xr.Dataset:
    return _given(material.series)


def _given(dataset: xr.Dataset | None) -> xr.Dataset:
    if dataset is None:
        raise InputError("What this panel shows is not there.")
    return dataset


def _used(series: xr.Dataset) -> np.ndarray:
    """Numbers of the tilts that are used, by rising angle."""
    order = np.argsort(series["angles"].values[:, 1], kind="stable")
    return order[series["used"].values[order]] if "used" in series else order


def _angle(series: xr.Dataset, tilt: int) -> str:
    """Tilt angle as text."""
    return f"{round(float(series['angles'].values[tilt, 1]), 1) + 0.0:.1f}°".replace("-", "−")


def _image(series: xr.Dataset, tilt: int) -> np.ndarray:
    """One image; 0 where nothing was measured."""
    image = np.asarray(series["images"][tilt].values, dtype=np.float64)
    return np.where(series["mask"][tilt].values, image, 0.0) if "mask" in series else image


def _inside(series: xr.Dataset, volume: xr.Dataset, name: str) -> slice:
    """Where the volume is over the measured field, along x or y."""
    low, high = float(series[name].values[0]), float(series[name].values[-1])
    return slice(low, high) if volume[name].values[0] < high and volume[name].values[-1] > low else slice(None)
