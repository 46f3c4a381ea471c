"""Pictures of bond order: every atom is in them, once."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgba

from aetdist.errors import InputError
from aetdist.report.bonds import draw_interface, draw_nuclei, draw_order_histogram, draw_order_map
from aetdist.report.style import COLOURS, png


@pytest.fixture(scope="module")
def bonds() -> xr.Dataset:
    q4, q6 = np.random.default_rng(0).normal([[0.09], [0.25]], [[0.03], [0.08]], (2, 500)).clip(0.01)
    q4[0] = q6[0] = np.nan
    order = np.hypot(q4, q6) / np.hypot(0.190941, 0.574524)
    return xr.Dataset({name: ("atom", values) for name, values in (("q4", q4), ("q6", q6), ("order", order))})


@pytest.mark.parametrize("threshold", [0.5, 0.437, 0.02])
def test_order_histogram__counts_every_atom(bonds: xr.Dataset, threshold: float) -> None:
    axes = draw_order_histogram(bonds, threshold=threshold).axes[0]
    below, above = (patch.get_data() for patch in axes.patches)
    order = bonds["order"].values
    assert below.values.sum() == (order < threshold).sum() and above.values.sum() == (order >= threshold).sum()
    assert below.edges[-1] == above.edges[0] == pytest.approx(threshold)


def test_order_map__counts_every_atom(bonds: xr.Dataset) -> None:
    figure = draw_order_map(bonds, theme="dark")
    assert figure.axes[0].collections[0].get_array().sum() == 499
    assert [text.get_text() for text in figure.axes[0].texts] == ["fcc", "hcp", "bcc"]
    assert png(figure)[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="no q6; it has q4"):
        draw_order_map(bonds[["q4"]])
    with pytest.raises(InputError, match="none has neighbours"):
        draw_order_map(bonds.isel(atom=[0]))


def test_nuclei__colours_say_which(bonds: xr.Dataset) -> None:
    position = np.random.default_rng(1).uniform(-20, 20, (60, 3))
    atoms = xr.Dataset({"position": (("atom", "axis"), position)})
    label = np.repeat([-1, 0, 1, 2, 3, 4, 5, 6, 7], [20, 9, 8, 6, 5, 4, 3, 3, 2])
    sizes = np.bincount(label[20:])
    nuclei = xr.Dataset({"label": ("atom", label), "n_atoms": ("nucleus", sizes)})
    figure = draw_nuclei(atoms, nuclei)
    glass, ordered = figure.axes[0].collections
    assert len(glass.get_offsets()) == 20 and len(ordered.get_offsets()) == 40
    colours = [tuple(colour) for colour in ordered.get_facecolors()]
    assert [colours.count(to_rgba(c)) for c in COLOURS[:6]] == sizes[:6].tolist()
    assert colours.count(to_rgba("#808080")) == sizes[6:].sum()
    assert "8 nuclei, 40 atoms" in figure.axes[0].get_title(loc="left")
    assert len(figure.legends[0].get_texts()) == 7
    middle = (position[:, 2].min() + position[:, 2].max()) / 2
    slab = draw_nuclei(atoms, nuclei, thickness=10.0).axes[0].collections
    assert sum(len(c.get_offsets()) for c in slab) == (np.abs(position[:, 2] - middle) <= 5).sum()
    none = xr.Dataset({"label": ("atom", np.full(60, -1)), "n_atoms": ("nucleus", sizes[:0])})
    assert not draw_nuclei(atoms, none).legends
    with pytest.raises(InputError, match="60 labels came for 10 atoms"):
        draw_nuclei(atoms.isel(atom=slice(10)), nuclei)


def test_interface__shows_the_fit() -> None:
    x = np.arange(-1.875, 12, 0.25)
    fit = 0.2 * np.exp(-x / 3.0) + 0.3
    names = {"order": fit + 0.01, "order_error": np.where(x > 0, 0.004, np.nan), "fit": fit}
    interface = xr.Dataset(
        {**{n: ("distance", v) for n, v in names.items()}, "width": ((), 3.0), "width_sigma": ((), 0.4)},
        {"distance": x},
    )
    axes = draw_interface(interface).axes[0]
    assert "d = 3.00 ± 0.40 Å" in axes.get_legend().get_texts()[0].get_text()
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), fit)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), fit + 0.01)
