"""Plans of windows as plain values, and their weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aetdist.blocks.windows import cut_axis, run_tasks
from aetdist.errors import InputError
from aetdist.geometry import euler_from_tilts, matrices_from_euler
from aetdist.reconstruct.film import CoarseFilm, height_and_thickness, start_volume
from aetdist.reconstruct.grid import Field, covering_box, volume_grid
from aetdist.reconstruct.stitch import agreement
from aetdist.reconstruct.windows import check_windows, plan_windows, window_geometry


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 500), st.integers(8, 200), st.integers(2, 100))
def test_cut_axis__weights_add_up_to_one(n: int, window: int, overlap: int) -> None:
    """Everywhere in the field, and no window weighs anything outside of itself but beyond the field."""
    overlap = min(overlap, window // 2)
    spans = cut_axis(n, window, overlap, 0)
    positions = np.arange(n)
    weights = np.array([s.weights(positions) for s in spans])
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, atol=1e-12)
    for span, weight in zip(spans, weights, strict=True):
        inside = (positions >= span.start) & (positions < span.stop)
        assert not weight[~inside].any()
    assert spans[0].start == 0 and spans[-1].stop == n
    for left, right in pairwise(spans):
        assert left.stop - right.start >= min(overlap, window - 1)


def test_cut_axis__refuses_windows_that_cannot_overlap() -> None:
    """Both numbers are named."""
    with pytest.raises(InputError, match="window of 10 pixels with an overlap of 10"):
        cut_axis(100, 10, 10, 0)


def test_run_tasks__keeps_the_order_and_needs_no_client() -> None:
    """Results come in the order of the items."""
    assert run_tasks(lambda item, extra: item + extra, [3, 1, 2], 10, label="test") == [13, 11, 12]


def film_field(tilts: np.ndarray, detector: tuple[int, int] = (60, 200)) -> Field:
    """Field of a film, 0.5 Angstrom a pixel."""
    matrices = matrices_from_euler(euler_from_tilts(tilts))
    return Field(matrices, detector, tuple(-(n // 2) for n in detector), 0.5)


def test_covering_box__is_that_of_the_formula() -> None:
    """|x| <= (h_x + h_z sin(theta)) / cos(theta)."""
    matrices = matrices_from_euler(euler_from_tilts(np.array([-60.0, 0.0, 30.0])))
    y_low, y_high, x_low, x_high = covering_box(matrices, 10.0, 40.0, -15.0, 15.0)
    assert (y_low, y_high) == (-10.0, 10.0)
    expected = (40 + 15 * np.sin(np.pi / 3)) / np.cos(np.pi / 3)
    np.testing.assert_allclose((-x_low, x_high), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 90), st.integers(4, 40), st.integers(0, 1000))
def test_plan_windows__every_ray_of_a_window_stays_in_its_volume(width: int, overlap: int, seed: int) -> None:
    """Points of the film that a crop sees lie inside the local volume (or outside the film volume)."""
    rng = np.random.default_rng(seed)
    field = film_field(np.array([-65.0, -20.0, 0.0, 40.0, 62.0]))
    first, shape = volume_grid(field, None, 20.0)
    coarse = CoarseFilm.of(first, shape, 4)
    height = rng.uniform(-2, 2, coarse.shape[1:])
    plan = plan_windows(field, first, shape, coarse, (width, 30), overlap, height, np.full_like(height, 4.0))
    for window in plan.windows:
        geometry, _ = window_geometry(field, window)
        z = rng.integers(window.first[0], window.first[0] + window.shape[0], 200)
        t = rng.integers(0, geometry.n_tilts, 200)
        v, u = (rng.uniform(0, n - 1, 200) for n in window.crop_shape)
        rotation = geometry.matrices[t]
        target = np.stack([u + geometry.detector_start[t, 1], v + geometry.detector_start[t, 0]], axis=1)
        xy = np.linalg.solve(rotation[:, :2, :2], (target - rotation[:, :2, 2] * z[:, None])[..., None])[..., 0]
        for axis, value in ((1, xy[:, 1]), (2, xy[:, 0])):
            low, high = window.first[axis], window.first[axis] + window.shape[axis] - 1
            at_edge_low, at_edge_high = low == first[axis], high == first[axis] + shape[axis] - 1
            assert at_edge_low or (value >= low - 1).all()
            assert at_edge_high or (value <= high + 1).all()


def test_plan_windows__graph_values_are_small() -> None:
    """A plan of many windows is plain numbers: well under 2 kB a window."""
    import pickle

    field = film_field(np.linspace(-60, 60, 41), (600, 2000))
    first, shape = volume_grid(field, None, 40.0)
    coarse = CoarseFilm.of(first, shape, 8)
    maps = np.zeros(coarse.shape[1:]), np.full(coarse.shape[1:], 20.0)
    plan = plan_windows(field, first, shape, coarse, (100, 60), 30, *maps)
    assert len(plan.windows) > 500
    assert len(pickle.dumps(plan)) / len(plan.windows) < 2000


def test_check_windows__overlap_is_at_most_half() -> None:
    """A window larger than the field becomes the field."""
    field = film_field(np.array([0.0]))
    assert check_windows((131, 73), 65, field) == ((60, 131), (30, 65))
    with pytest.raises(InputError, match="8 or more"):
        check_windows((4, 40), 2, field)
    with pytest.raises(InputError, match="overlap came as 0"):
        check_windows((40, 40), 0, field)


def test_start_volume__interpolates_a_linear_function_exactly() -> None:
    """Whatever part is asked for."""
    coarse = CoarseFilm.of((-8, -20, -30), (16, 40, 60), 4)
    grids = np.meshgrid(
        *[s + coarse.factor * np.arange(n) for s, n in zip(coarse.start, coarse.shape, strict=True)], indexing="ij"
    )
    density = (2.0 * grids[0] - 0.5 * grids[1] + grids[2]).astype(np.float32)
    first, shape = (-5, -11, -17), (9, 20, 31)
    z, y, x = np.meshgrid(*[np.arange(f, f + n) for f, n in zip(first, shape, strict=True)], indexing="ij")
    np.testing.assert_allclose(start_volume(density, coarse, first, shape), 2.0 * z - 0.5 * y + x, atol=1e-3)


def test_height_and_thickness__of_a_smooth_slab() -> None:
    """A tilted slab with the texture of atoms, and vacuum beside it: NaN and 0."""
    z = (np.arange(60) - 30) * 0.8
    _, x = np.meshgrid(np.arange(30) * 0.8, np.arange(80) * 0.8, indexing="ij")
    middle = 0.1 * (x - 32)
    inside = np.abs(z[:, None, None] - middle) < 9.0
    inside &= x < 40
    texture = np.random.default_rng(0).random(inside.shape)
    height, thickness = height_and_thickness((inside * texture).astype(np.float32), z, 0.8)
    core = (x > 10) & (x < 30)
    assert np.abs(height - middle)[core].max() < 1.0
    assert np.abs(thickness - 18.0)[core].max() < 2.0
    assert np.isnan(height[:, -10:]).all() and not thickness[:, -10:].any()


def test_agreement__of_equal_and_of_unrelated_windows() -> None:
    """L1 0 and correlation 1; NaN where nothing overlaps."""
    assert np.isnan(agreement(np.zeros(8))["disagreement_l1"])
    a = np.arange(5.0)
    sums = np.array([5, 0, a.sum(), a.sum(), a.sum(), (a * a).sum(), (a * a).sum(), (a * a).sum()])
    same = agreement(sums)
    assert same["disagreement_l1"] == 0 and abs(same["disagreement_correlation"] - 1) < 1e-12
