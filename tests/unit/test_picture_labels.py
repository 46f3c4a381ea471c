"""Every axis of every picture says what it shows and in which unit; images without axes have a scale bar."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aetdist import report
from aetdist.report import draw_design, draw_deviations
from aetdist.report.findings import Findings, pictures

#: What has no unit: numbers, parts of 1, names.
NUMBERS = {
    "atoms", "clusters", "cells", "edges of a face", "centres of a cluster; grey: chance", "neighbours, by type",
    "g(r)", "g(r), shifted by 1", "g(r) of centres (shifted)", "S(q)", "S(q), shifted by 1", "Q4", "Q6",
    "normalised bond order", "R-factor", "R, mean over tilts", "iteration", "round of refinement", "1 − correlation",
    "strength", "box intensity", "intensity", "rms of image − model", "relative L1", "tilt, by its angle",
    "lattice", "atom", "neighbour", "type", "true", "found", "Voronoi index ⟨n₃,n₄,n₅,n₆⟩",
}  # fmt: skip
UNIT = re.compile(r"\((Å|°|nm|nm³|pm|%|1/Å|pixels|electrons / Å²)[);]|^% of |^Å(?: |$)")
BAR = re.compile(r"^[\d.]+ (nm|Å)$")


def unlabelled(figure: Figure) -> Iterator[str]:
    """What lacks a label, a unit or a scale bar."""
    figure.draw_without_rendering()  # ticks get their text now
    bars = any(BAR.match(text.get_text()) for axes in figure.axes for text in axes.texts)
    shared = {"x": figure.get_supxlabel(), "y": figure.get_supylabel()}
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        if not axes.axison:
            if (axes.images or axes.collections) and not bars:
                yield f"{name_of(axes)}: no scale bar"
            continue
        for which in "xy":
            label = label_of(axes, which) or shared[which]
            if not label:
                if has_ticks(axes, which):
                    yield f"{name_of(axes)}: no label of {which}"
            elif label not in NUMBERS and not UNIT.search(label):
                yield f"{name_of(axes)}: {label!r} has no unit"


def label_of(axes: Axes, which: str) -> str:
    """The label of an axis, its own or that of one it is shared with."""
    siblings = getattr(axes, f"get_shared_{which}_axes")().get_siblings(axes)
    labels = [getattr(other, f"get_{which}label")() for other in (axes, *siblings)]
    return next(filter(None, labels), "")


def has_ticks(axes: Axes, which: str) -> bool:
    """Whether numbers stand at an axis; a colour bar has them on one only."""
    return any(label.get_text() and label.get_visible() for label in getattr(axes, f"get_{which}ticklabels")())


def name_of(axes: Axes) -> str:
    """Title, or what else tells axes apart."""
    return axes.get_title("left") or axes.get_title() or axes.get_label() or "axes"


def design() -> xr.Dataset:
    coordinates = {"dose": [1e4, 1e5], "n_tilts": [40], "tilt_range": [60.0, 70.0], "axis": ["x", "y", "z"]}
    parts = {name: (("dose", "n_tilts", "tilt_range"), np.full((2, 1, 2), 0.9)) for name in ("identified", "false")}
    rms = (("dose", "n_tilts", "tilt_range", "axis"), np.full((2, 1, 2, 3), 0.1))
    return xr.Dataset({**parts, "rms": rms}, coordinates)


def test_pictures__label_every_axis(complete: Findings) -> None:
    drawn = {picture.name: picture.draw() for picture in pictures(complete)}
    found = complete.atoms
    assert found is not None
    drawn["deviations"] = draw_deviations(found, found, np.zeros((2, 2), int))
    drawn["design"] = draw_design(design())
    missing = {name: wrong for name, figure in drawn.items() if (wrong := list(unlabelled(figure)))}
    assert not missing


def test_pictures__are_all_looked_at(complete: Findings) -> None:
    """Each function that draws is behind one of the pictures above."""
    names = {picture.name for picture in pictures(complete)} | {"deviations", "design"}
    functions = {name.removeprefix("draw_") for name in report.__all__ if name.startswith("draw_")}
    assert functions <= names


def test_unlabelled__finds_what_is_wrong() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.set(xlabel="length", ylabel="atoms")
    right.imshow(np.eye(3))
    right.axis("off")
    assert list(unlabelled(figure)) == ["axes: 'length' has no unit", "axes: no scale bar"]
