"""What the pictures of the order show."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from aetdist.errors import InputError
from aetdist.report import (
    draw_comparison,
    draw_pair_distribution,
    draw_partial_distributions,
    draw_structure_factor,
)
from aetdist.report.order import names_of_types, order_pictures


@pytest.fixture
def distribution() -> xr.Dataset:
    r = 0.1 * (np.arange(200) + 0.5)
    g = 1.0 + np.exp(-((r - 2.8) ** 2) * 4)
    part = np.stack([g, g + 0.1, g - 0.1])
    q = 0.05 * np.arange(1, 401)
    return xr.Dataset(
        {
            "g": ("r", g), "g_error": ("r", 0.01 * g), "partial_g": (("pair", "r"), part),
            "partial_g_error": (("pair", "r"), 0.02 * part), "structure_factor": ("q", 1 + np.sin(q) / q),
        },
        {"r": r, "q": q, "pair": ["1-1", "1-2", "2-2"]},
    )  # fmt: skip


def _curve(figure: Figure, axes: int = 0, line: int = 0) -> np.ndarray:
    return figure.axes[axes].lines[line].get_ydata()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_draw_pair_distribution__draws_both(distribution: xr.Dataset, theme: str) -> None:
    other = distribution.assign(g=distribution["g"] + 0.5)
    figure = draw_pair_distribution(distribution, other, theme=theme)
    np.testing.assert_array_equal(_curve(figure), distribution["g"])
    np.testing.assert_array_equal(_curve(figure, line=1), other["g"])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["all atoms", "disordered atoms"]


def test_draw_partial_distributions__one_panel_each_by_element(distribution: xr.Dataset) -> None:
    figure = draw_partial_distributions(distribution, {1: "Co", 2: "Pt"})
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == ["Co–Co", "Co–Pt", "Pt–Pt"]
    np.testing.assert_array_equal(_curve(figure, axes=1), distribution["partial_g"][1])
    with pytest.raises(InputError, match="need types"):
        draw_partial_distributions(distribution.drop_vars("partial_g"))


def test_draw_structure_factor__leaves_out_what_r_max_cuts_off(distribution: xr.Dataset) -> None:
    figure = draw_structure_factor(distribution)
    assert figure.axes[0].lines[0].get_xdata()[0] >= 2 * np.pi / 20


def test_draw_comparison__shifts_each_model(distribution: xr.Dataset) -> None:
    order = xr.Dataset({"order": ("atom", np.array([0.2, 0.6, np.nan]))})
    found = {"pair_distribution": distribution, "bond_order": order}
    figure = draw_comparison({"one": found, "two": {"pair_distribution": distribution}})
    np.testing.assert_allclose(_curve(figure, line=1) - _curve(figure), 1.0)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["one", "two"]


def test_order_pictures__only_what_was_found(distribution: xr.Dataset) -> None:
    names = [name for name, *_ in order_pictures({"pair_distribution": distribution})]
    assert names == ["pair_distribution", "partial_distributions", "structure_factor"]
    assert [*order_pictures({})] == []


def test_names_of_types__only_where_a_type_is_one_element() -> None:
    atoms = xr.Dataset({"species": ("atom", np.array(["Co", "Co", "Pd", "Ag"])), "type": ("atom", [1, 1, 2, 2])})
    assert names_of_types(atoms) == {1: "Co"}
    assert names_of_types(atoms.drop_vars("type")) == {1: "Ag", 2: "Co", 3: "Pd"}
    assert names_of_types(atoms.drop_vars("species")) == {}
