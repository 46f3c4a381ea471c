"""How the pictures look: light and dark, colours that colour-blind readers can tell apart, scale bars."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..errors import InputError

Theme = Literal["light", "dark"]
WIDTH = 4.8
"""Inches: 480 pixels of a page, and still readable on a telephone 390 wide."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""The palette of Okabe and Ito; one per type of atom, in order."""
_INK = {"light": ("#ffffff", "#1a1a1a", "#d0d0d0"), "dark": ("#16181c", "#e8e8e8", "#44474d")}
_lock = threading.RLock()  # matplotlib's settings belong to the whole process


def picture(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Give a drawing function the keyword ``theme`` ("light" or "dark")."""

    @wraps(draw)
    def themed(*arguments: Any, theme: Theme = "light", **options: Any) -> Figure:
        if theme not in _INK:
            raise InputError(f"theme came as {theme!r}; needed is 'light' or 'dark'.")
        return drawn_with(settings_of(theme), lambda: draw(*arguments, **options), colors=_INK[theme][1])

    return themed


def settings_of(theme: Theme) -> dict[str, Any]:
    """Sizes and colours of matplotlib for pictures on the paper of a theme (its rcParams)."""
    paper, ink, grid = _INK[theme]
    return {
        "font.size": 10.0,
        "font.family": "DejaVu Sans",
        "axes.titlesize": "medium",
        "axes.titlelocation": "left",
        "axes.labelsize": "medium",
        "figure.labelsize": "medium",
        "axes.facecolor": paper,
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.grid": False,
        "figure.facecolor": paper,
        "savefig.facecolor": paper,
        "figure.dpi": 100.0,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": grid,
        "legend.frameon": False,
        "legend.fontsize": "small",
        "lines.linewidth": 1.6,
        "image.origin": "lower",
        "image.interpolation": "nearest",
    }


def drawn_with(settings: Any, draw: Callable[[], Figure], **ticks: Any) -> Figure:
    """Draw under settings of matplotlib; `ticks` are said again, as ticks are made when the settings are gone."""
    with _lock, mpl.rc_context(settings):
        figure = draw()
        FigureCanvasAgg(figure)
        for axes in figure.axes:
            axes.tick_params(**ticks)
        return figure


def png(figure: Figure, *, dpi: int = 140) -> bytes:
    """Draw a figure as the bytes of a PNG, to be kept inside a page."""
    return _drawn(figure, "png", dpi)


def data_uri(image: bytes, kind: str = "png") -> str:
    """Write an address that holds a whole image."""
    return f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii")


def save_picture(figure: Figure, path: str | Path, *, dpi: int = 200, exact: bool = False) -> Path:
    """Write a figure as PNG, SVG or PDF, by the end of its name; text stays text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : str or Path
    dpi : int
        Dots per inch of images.
    exact : bool
        Keep the size of the figure; otherwise it is cut to what is drawn.

    Raises
    ------
    InputError
        If the name ends otherwise.
    """
    path = Path(path)
    form = path.suffix.lower().lstrip(".")
    if form not in ("png", "svg", "pdf"):
        raise InputError(f"{path.name} ends in {path.suffix!r}; a picture is written as .png, .svg or .pdf.")
    path.write_bytes(_drawn(figure, form, dpi, exact))
    return path


def _drawn(figure: Figure, form: str, dpi: int, exact: bool = False) -> bytes:
    buffer = io.BytesIO()
    # No date in the file: the same numbers give the same picture.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with _lock, mpl.rc_context({"svg.hashsalt": "aetdist", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(
            buffer,
            format=form,
            dpi=dpi,
            facecolor=figure.get_facecolor(),
            metadata=undated,
            bbox_inches=None if exact else "tight",
            pad_inches=0.05,
        )
    return buffer.getvalue()


def three_views(
    width: float, depth: float, height: float, *, room: float = 1.1
) -> tuple[Figure, dict[str, Axes], float]:
    """Axes for the slices of a box, side by side as in a technical drawing.

    Parameters
    ----------
    width, depth, height : float
        Of the box along x, y, z, in Angstrom.
    room : float
        Inches for labels above and below.

    Returns
    -------
    figure : matplotlib.figure.Figure
    views : dict of str to Axes
        By the axis that each looks along: "z" shows x across and y up, "y" x and z, "x" z and y.
    scale : float
        Inches for one Angstrom.
    """
    scale = (WIDTH - 0.75) / (width + height)
    figure = Figure(figsize=(WIDTH, max(2.4, scale * (depth + height) + room)), layout="compressed")
    grid = figure.add_gridspec(2, 2, width_ratios=(width, height), height_ratios=(depth, height))
    from_above = figure.add_subplot(grid[0, 0])
    from_front = figure.add_subplot(grid[1, 0], sharex=from_above)
    from_side = figure.add_subplot(grid[0, 1], sharey=from_above)
    from_above.set_ylabel("y (Å)")
    from_above.tick_params(labelbottom=False)
    from_front.set(xlabel="x (Å)", ylabel="z (Å)")
    from_side.set_xlabel("z (Å)")
    from_side.tick_params(labelleft=False)
    from_side.xaxis.set_major_locator(MaxNLocator(3 if height > 0.3 * width else 1))
    return figure, {"z": from_above, "y": from_front, "x": from_side}, scale


VIEWS = {"z": ("x", "y"), "y": ("x", "z"), "x": ("z", "y")}
"""Axes across and up of the view along each axis."""


def points(of_text: float) -> float:
    """Size in points, as a part of that of the text; inside a drawing function."""
    return of_text * float(mpl.rcParams["font.size"])


def axes_colour() -> str:
    """Colour of the paper, to part what lies on top of each other; inside a drawing function."""
    return str(mpl.rcParams["axes.facecolor"])


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on a colour."""
    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def extent(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Edges of an image whose pixel centres are at `x` and `y`, as matplotlib wants them."""
    half_x, half_y = (0.5 * (c[-1] - c[0]) / max(1, len(c) - 1) if len(c) > 1 else 0.5 for c in (x, y))
    return float(x[0] - half_x), float(x[-1] + half_x), float(y[0] - half_y), float(y[-1] + half_y)


def bar_length(width: float) -> float:
    """Round length (1, 2 or 5 times a power of ten) near a quarter of `width`."""
    if not width > 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(width / 4.0))
    return float(max(f * power for f in (1.0, 2.0, 5.0) if f * power <= width / 4.0))


def add_scale_bar(axes: Axes, *, below: float = 0.0, length: float | None = None, light: bool = False) -> None:
    """Draw a bar of round length in the lower left corner.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        In Angstrom.
    below : float
        Part of the height that is added below for the bar, in the colour of text; 0: it lies on the image, white with
        a dark edge.
    length : float, optional
        In Angstrom; default: about a quarter of the width.
    light : bool
        The image is light: the bar has the colour of text.
    """
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    bottom -= below * (top - bottom)
    length = bar_length(abs(right - left)) if length is None else length
    x, y = left + 0.05 * (right - left), bottom + (0.03 if below else 0.07) * (top - bottom)
    size = float(mpl.rcParams["font.size"])
    plain = bool(below) or light
    ink = str(mpl.rcParams["text.color"]) if plain else "white"
    edges = [] if plain else [withStroke(linewidth=0.5 * size, foreground="black")]
    rim = [] if plain else [withStroke(linewidth=0.2 * size, foreground="black")]
    axes.plot(
        [x, x + np.sign(right - left) * length], [y, y], color=ink, linewidth=0.3 * size, solid_capstyle="butt",
        path_effects=edges,
    )  # fmt: skip
    axes.annotate(
        f"{length / 10:g} nm" if length >= 10 else f"{length:g} Å", (x, y), xytext=(0, 0.4 * size),
        textcoords="offset points", color=ink, fontsize="small", path_effects=rim,
    )  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
