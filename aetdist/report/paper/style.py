"""How figures for a journal look: sizes in mm, small vector text, panels with letters, views of atoms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from ..scene import Balls, frame_of, paint
from ..style import add_scale_bar, drawn_with, settings_of

COLUMN, PAGE = 89.0, 183.0
"""Widths of one column and of a page, in mm."""
DPI = 600
"""Dots per inch of images; text and lines are vectors in SVG and PDF."""
_SETTINGS = settings_of("light") | {
    "font.size": 6.5,
    "axes.titlelocation": "center",
    "axes.linewidth": 0.5,
    "axes.titlepad": 3.0,
    "axes.labelpad": 2.0,
    "lines.linewidth": 0.9,
    "grid.linewidth": 0.4,
    "patch.linewidth": 0.5,
    "legend.handlelength": 1.4,
    "legend.borderaxespad": 0.2,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
}


def journal_figure(draw: Callable[[Figure], None], width: float, height: float) -> Figure:
    """A figure of so many mm that `draw` fills, under the settings of a journal."""

    def drawn() -> Figure:
        figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=150, layout="constrained")
        draw(figure)
        return figure

    return drawn_with(_SETTINGS, drawn, labelsize=6.0, width=0.5, length=2.0, pad=1.5)


def add_letter(panel: SubFigure, letter: str) -> None:
    """Name a panel, bold, in its upper left corner."""
    panel.suptitle(letter, x=0.01, ha="left", fontsize=7.0, fontweight="bold")


def show_scene(
    axes: Axes,
    balls: Balls,
    view: np.ndarray,
    *,
    width: float,
    bar: float | None = None,
    cross: bool = True,
    frame: tuple[float, float, float, float] | None = None,
) -> None:
    """Paint balls on axes that are `width` mm wide, with a scale bar (Angstrom) and the sample's axes below.

    `frame` (left, right, bottom, top in Angstrom) is widened where something lies outside of it.
    """
    seen = frame_of(balls, view)
    pad = 0.03 * max(seen[1] - seen[0], seen[3] - seen[2])
    seen = seen[0] - pad, seen[1] + pad, seen[2] - pad, seen[3] + pad
    given = seen if frame is None else frame
    frame = min(seen[0], given[0]), max(seen[1], given[1]), min(seen[2], given[2]), max(seen[3], given[3])
    image = paint(balls, view, frame, width / 25.4 * DPI / (frame[1] - frame[0]))
    axes.imshow(image, extent=frame, interpolation="antialiased")
    axes.set_aspect("equal")
    axes.axis("off")
    add_scale_bar(axes, below=0.14, length=bar)
    if cross:
        _add_cross(axes, view)


def _add_cross(axes: Axes, view: np.ndarray) -> None:
    """Directions of x, y and z of the sample, in the lower right corner."""
    begin, length = np.array([0.88, 0.06]), 0.075
    for name, towards in zip("xyz", view.T, strict=True):
        along = length * towards[:2]
        if np.hypot(*towards[:2]) < 0.2:
            continue  # it points at the eye
        axes.annotate(
            "", tuple(begin + along), tuple(begin), xycoords="axes fraction",
            arrowprops={"arrowstyle": "-|>,head_length=0.15,head_width=0.08", "linewidth": 0.5, "shrinkA": 0,
                        "shrinkB": 0, "color": "black"},
        )  # fmt: skip
        axes.annotate(
            name, tuple(begin + 1.45 * along), xycoords="axes fraction", ha="center", va="center", fontsize="small"
        )


def add_key(axes: Axes | SubFigure, names: dict[str, str], **options: Any) -> None:
    """Legend of coloured balls: name and colour."""
    look: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 3}
    marks = [Line2D([], [], color=colour, label=name, **look) for name, colour in names.items()]
    keywords: dict[str, Any] = {"handletextpad": 0.1, "columnspacing": 0.8, "ncols": len(marks)}
    axes.legend(handles=marks, **(keywords | options))
