"""Pictures of Voronoi cells and chemical order show the numbers that were found."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import aetdist as aet
from aetdist.errors import InputError
from aetdist.report.voronoi import draw_chemical_order, draw_voronoi_indices


@pytest.fixture(scope="module")
def glass() -> tuple[np.ndarray, np.ndarray, xr.Dataset]:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 2.7
    points = grid + rng.normal(0, 0.4, grid.shape)
    return points, rng.integers(1, 4, len(points)), aet.voronoi_indices(points)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_draw_voronoi_indices__shows_the_commonest(glass: tuple[np.ndarray, np.ndarray, xr.Dataset]) -> None:
    _, types, cells = glass
    found = aet.voronoi_statistics(cells, types < 3, top=4)
    figure = draw_voronoi_indices(cells, types < 3, n=4, theme="dark")
    names = ["⟨" + ",".join(map(str, kind)) + "⟩" for kind in found.top_index.values]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    assert texts(figure)[:4] == [f"{100 * part:.2f}" for part in found.top_fraction.values]
    assert texts(figure)[4:] == [f"{100 * part:.1f}" for part in found.face_fraction.values]
    with pytest.raises(InputError, match="Voronoi index"):
        draw_voronoi_indices(cells, np.zeros(len(types), bool))


def test_draw_chemical_order__shows_numbers_and_matrix(glass: tuple[np.ndarray, np.ndarray, xr.Dataset]) -> None:
    points, types, cells = glass
    counted = aet.coordination(points, types, cells=cells)
    alpha = aet.warren_cowley(points, types, cells=cells)
    figure = draw_chemical_order(counted.assign(alpha=alpha.alpha), {1: "Co", 2: "Pd"})
    shown = texts(figure)
    assert {f"{value:.2f}" for value in counted.mean_partial_coordination.values.ravel()} <= set(shown)
    assert {f"{value:.2f}" for value in counted.mean_coordination.values} <= set(shown)
    assert shown[-9:] == [f"{value:+.3f}".replace("-", "−") for value in alpha.alpha.values.ravel()]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["Co", "Pd", "type 3"]
    assert len(draw_chemical_order(counted).axes) == 1
    with pytest.raises(InputError, match="No atom"):
        draw_chemical_order(aet.coordination(points, types, cells=cells, order=np.ones(len(points), bool)))
