"""Widths of synthetic interfaces; what the interface is made of; bad input."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist.analysis.interface import interface_width
from aetdist.errors import InputError


def sample(kind: str, width: float, noise: float, edge: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """A disordered cube with an ordered slab or sphere in it, and an order that decays from 0.5 on its surface."""
    rng = np.random.default_rng(0)
    cells = np.stack(np.meshgrid(*[np.arange(int(edge / 3.1))] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    points = 3.1 * (cells + np.array([[0, 0, 0], [0.5, 0.5, 0.5]])).reshape(-1, 3)
    points += rng.normal(0, 0.35, points.shape) - points.mean(axis=0)
    x = np.abs(points[:, 2]) - 10 if kind == "slab" else np.linalg.norm(points, axis=1) - 15
    return points, np.minimum(0.2 * np.exp(-x / width) + 0.3, 1.2) + rng.normal(0, noise, len(points))


@pytest.mark.parametrize(("kind", "width", "noise"), [("slab", 2.5, 0.0), ("slab", 4.0, 0.02), ("slab", 5.5, 0.0),
                                                      ("sphere", 2.5, 0.02), ("sphere", 4.0, 0.0)])  # fmt: skip
def test_interface_width__synthetic(kind: str, width: float, noise: float) -> None:
    points, order = sample(kind, width, noise)
    found = interface_width(points, order, radius=3.688)
    assert float(found["width"]) == pytest.approx(width, rel=0.05)
    assert abs(float(found["background"]) - 0.3) < 0.01
    assert 0 < float(found["width_sigma"]) < 0.2 * width
    assert found.sizes["variant"] == 27 and np.isfinite(found["variant_width"]).all()


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, np.ndarray]:
    return sample("slab", 3.0, 0.01, 38.0)


def test_interface_width__profile_is_the_mean_of_the_atoms(small) -> None:
    points, order = small
    found = interface_width(points, order, radius=3.688, step=0.5)
    assert found["distance"].values[[0, -1]].tolist() == [-1.75, 11.75] and found.sizes["distance"] == 28
    count = found["n_atoms"].values
    assert 0 < count.sum() < len(points)
    np.testing.assert_allclose(
        found["fit"], found["amplitude"] * np.exp(-found["distance"] / found["width"]) + found["background"]
    )
    deviation = count * (found["order"] - found["fit"]).values
    # Least squares: the weighted deviations have no mean and are at right angles to the decay.
    assert abs(np.nansum(deviation)) < 1e-6 * count.sum()
    assert abs(np.nansum(deviation * np.exp(-found["distance"] / found["width"]).values)) < 1e-6 * count.sum()
    same = (found["variant_radius"] == 3.688) & (found["variant_step"] == 0.5)
    assert float(found["variant_width"][same][0]) == float(found["width"])


def test_interface_width__takes_the_cutoff_of_the_order(small) -> None:
    points, order = small
    bonds = xr.Dataset({"order": ("atom", order)}, attrs={"cutoff": 3.688})
    found, moved = interface_width(points, bonds), interface_width(points[::-1] + 50.0, order[::-1], radius=3.688)
    np.testing.assert_allclose(moved["width"], found["width"], rtol=1e-3)


def test_interface_width__bad_input(small) -> None:
    points, order = small
    with pytest.raises(InputError, match="give cutoff="):
        interface_width(points, order)
    with pytest.raises(InputError, match="0 atoms are ordered"):
        interface_width(points, 0.1 * order, radius=3.688)
    with pytest.raises(InputError, match="no surface within the sample"):
        interface_width(points, np.ones(len(points)), radius=3.688)
    with pytest.raises(InputError, match="8 bins or more"):
        interface_width(points, order, radius=3.688, fit_range=(2.0, 12.0))
    with pytest.raises(InputError, match="smoothing = -1"):
        interface_width(points, order, radius=3.688, smoothing=-1)
    x = np.abs(points[:, 2]) - 10
    with pytest.raises(InputError, match="does not decay"):
        interface_width(points, 0.5 - 0.01 * x, radius=3.688)  # a straight line
