"""Series of frames behind a slider: the tilts of a series, the slices of a volume."""

from __future__ import annotations

import io
from dataclasses import dataclass
from html import escape

import dask
import numpy as np
import xarray as xr
from matplotlib.image import imsave

from ..pictures import Field, view_of
from ..style import VIEWS, bar_length, data_uri

LARGEST = 320
"""Pixels of a frame along either axis; larger ones are averaged over blocks."""
MOST_TILTS, MOST_SLICES = 90, 48
"""Frames of a strip; of more, evenly spaced ones are shown."""
QUALITY = 60
"""Of WebP, 0 to 100: noise is what costs most, and needs no exact keeping."""


@dataclass(frozen=True)
class Strip:
    """Frames of one size in the order of the slider, each with a line of text, and what the axes are."""

    name: str
    title: str
    caption: str
    frames: list[str]
    labels: list[str]
    shape: tuple[int, int]
    bar: tuple[float, float]  # part of the width, Angstrom

    def html(self) -> str:
        """Elements of the page; the frame in the middle is there without a script too."""
        middle, (ny, nx) = len(self.frames) // 2, self.shape
        title, label, caption = escape(self.title), escape(self.labels[middle]), escape(self.caption)
        return (
            f'<figure class="strip" data-frames="{self.name}-frames" style="--aspect:{nx / ny:.3f}">'
            f'<div class="frame"><img src="{self.frames[middle]}" width="{nx}" height="{ny}" alt="{title}">'
            f'<span class="bar" style="width:{100 * self.bar[0]:.1f}%">{self.bar[1]:g} Å</span></div>'
            f'<input type="range" min="0" max="{len(self.frames) - 1}" value="{middle}" aria-label="{title}">'
            f'<div class="caption"><span>{title}</span><output>{label}</output></div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )

    def data(self) -> tuple[str, dict[str, list[str]]]:
        """Name and contents of what the slider shows."""
        return f"{self.name}-frames", {"frames": self.frames, "labels": self.labels}


def tilt_strip(series: xr.Dataset, state: str) -> Strip:
    """Computes: the images of a tilt series, by rising angle.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES, or FRAMES: then the first frame of every tilt.
    state : str
        What was done with it, such as "aligned"; names the strip.
    """
    raw = "frames" in series
    images = series["frames"].isel(frame=0) if raw else series["images"].where(series["mask"])
    tilts = series["angles"].values[:, 1]
    shown = np.argsort(tilts, kind="stable")[_spread(len(tilts), MOST_TILTS)]
    small = _small(images.isel(tilt=shown), ("y", "x")).transpose("tilt", "y", "x").values
    labels = [f"θ = {tilts[t]:.1f}°, tilt {int(series['tilt'].values[t])}".replace("-", "−") for t in shown]
    text = _thinned(len(shown), len(tilts), "tilts") + _axes(images, "x", "y")
    title = f"{state}, first frame of each tilt" if raw else state
    return _strip(f"tilts-{state}", title, text, small, labels, images["x"].values)


def slice_strips(volume: xr.Dataset, field: Field | None = None) -> list[Strip]:
    """Computes: slices of a volume across z, y and x; of a film those near the measured field.

    Parameters
    ----------
    volume : xarray.Dataset
        VOLUME; one pass over its chunks.
    field : tuple of float, optional
        Left, right, bottom and top of the measured field in Angstrom.
    """
    density = view_of(volume["density"], field)
    cuts = {}
    for gone, (across, up) in VIEWS.items():
        part = density.isel({gone: _spread(density.sizes[gone], MOST_SLICES)})
        cuts[gone] = _small(part, (across, up)).transpose(gone, up, across)
    read = dict(zip(cuts, dask.compute(*cuts.values()), strict=True))
    top = max(_quantiles(cut.values, 0.999)[0] for cut in read.values())
    strips = []
    for gone, (across, up) in VIEWS.items():
        cut = read[gone]
        labels = [f"{gone} = {value:.1f} Å".replace("-", "−") for value in cut[gone].values]
        text = _thinned(cut.sizes[gone], density.sizes[gone], "slices") + _axes(density, across, up)
        title = f"slices across {gone}"
        strips.append(_strip(f"slices-{gone}", title, text, cut.values, labels, density[across].values, (0.0, top)))
    return strips


def _strip(
    name: str,
    title: str,
    caption: str,
    images: np.ndarray,
    labels: list[str],
    across: np.ndarray,
    levels: tuple[float, float] | None = None,
) -> Strip:
    """Frames of images (n, up, across), in gray between two levels."""
    low, high = levels or _quantiles(images, 0.002, 0.999)
    high = high if high > low else low + 1.0
    width = float(np.ptp(across)) * len(across) / max(1, len(across) - 1) or 1.0
    length = bar_length(width)
    frames = [_webp(image, low, high) for image in images]
    return Strip(name, title, caption, frames, labels, images.shape[1:], (length / width, length))


def _quantiles(images: np.ndarray, *parts: float) -> list[float]:
    """Quantiles of about a million of the values that are there; 0 where none is."""
    finite = images[np.isfinite(images)]
    some = finite[:: max(1, finite.size // 1_000_000)]
    return np.quantile(some, parts).tolist() if some.size else [0.0] * len(parts)


def _webp(image: np.ndarray, low: float, high: float) -> str:
    """A frame as an address that holds it; the first row below, what was not measured black."""
    buffer = io.BytesIO()
    shown = np.nan_to_num(image[::-1], nan=low)
    imsave(buffer, shown, vmin=low, vmax=high, cmap="gray", format="webp", pil_kwargs={"quality": QUALITY})
    return data_uri(buffer.getvalue(), "webp")


def _small(images: xr.DataArray, axes: tuple[str, str]) -> xr.DataArray:
    """Images averaged over blocks, so that no axis is longer than `LARGEST`."""
    factor = -(-max(images.sizes[axis] for axis in axes) // LARGEST)
    if factor == 1:
        return images
    blocks = {axis: min(factor, images.sizes[axis]) for axis in axes}
    return images.coarsen(blocks, boundary="trim").mean()


def _spread(n: int, most: int) -> np.ndarray:
    """Indices of at most `most` of n things, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _thinned(shown: int, there: int, things: str) -> str:
    return f"{shown} {things}" if shown == there else f"{shown} of {there:,} {things}"


def _axes(array: xr.DataArray, across: str, up: str) -> str:
    """Say what the axes of a frame are and how long."""
    across_text, up_text = (f"{axis} {float(np.ptp(array[axis].values)):.0f} Å" for axis in (across, up))
    return f"; {across_text} to the right, {up_text} upwards."
