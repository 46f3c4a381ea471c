"""Shears: how planes share their shifts, and the kernels against a plain sum."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.geometry import ParallelGeometry, matrices_from_euler
from aetdist.project._kernels import shear_forward
from aetdist.project._warp_kernels import HALF_WIDTH
from aetdist.project.shear import ShearPlan, plan_shears, round_shifts, share_shifts, shear_tilts


def plans(geometry: ParallelGeometry) -> list[ShearPlan]:
    """The plans of a geometry."""
    return plan_shears(shear_tilts(geometry), geometry.volume_shape)


@pytest.mark.parametrize("slope", [0.0, 0.02, 0.25, 0.577, -0.9, 1.0])
def test_round_shifts__errors_do_not_add_up(slope: float) -> None:
    """The sum of the shifts of neighbouring planes is right to half a step of 1/6 voxel."""
    shift = slope * np.arange(-40, 61)
    whole, weights = round_shifts(shift)
    placed = whole + weights @ [-1, 0, 1]
    assert np.abs(np.cumsum(placed - shift)).max() <= 1 / 12 + 1e-5
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert len(np.unique(np.round(weights, 5), axis=0)) <= 6


@pytest.mark.parametrize("slope", [0.0, 0.003, -0.03, 0.8])
def test_share_shifts__stays_within_an_eighth_and_right_on_average(slope: float) -> None:
    """Planes share the mean of those that round to the same eighth."""
    shift = slope * np.arange(-160, 160)
    whole, weights = share_shifts(shift)
    placed = whole + weights @ [-1, 0, 1]
    assert np.abs(placed - shift).max() <= 1 / 8
    assert abs(np.mean(placed - shift)) < 1e-6
    if slope == 0:
        np.testing.assert_array_equal(weights, np.tile([0, 1, 0], (320, 1)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("detector", [(30, 34), (7, 9)])
def test_shear_forward__is_the_plain_sum_over_planes(axis: int, detector: tuple[int, int]) -> None:
    """Nine weights for every voxel, one voxel after another."""
    angles = {0: [[2, 20, -3], [-4, -40, 5]], 1: [[3, 8, 85], [1, -20, 100]], 2: [[4, 66, 7], [0, -80, 3]]}[axis]
    shape = (11, 13, 17)
    volume = np.random.default_rng(axis).random(shape, dtype=np.float32)
    geometry = ParallelGeometry.centred(matrices_from_euler(angles), shape, detector)
    (plan,) = plans(geometry)
    sheared = np.empty(plan.n_sheared, np.float32)
    memory = np.ascontiguousarray(volume.transpose(1, 0, 2)).reshape(-1)
    shear_forward(memory, plan.layout, plan.shears, (0, 2), np.empty(0, np.float32), sheared)
    planes = volume.transpose({0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 1, 0)}[axis])  # plane, row, column
    across = {0: (2, 1, 0), 1: (1, 2, 0), 2: (0, 1, 2)}[axis]  # sample components of plane, row and column
    for t, beam in enumerate(geometry.matrices[:, 2]):
        plane, row, column = beam[list(across)]
        position = np.arange(planes.shape[0]) - planes.shape[0] // 2
        iy, wy = share_shifts(-row / plane * position)
        ix, wx = round_shifts(-column / plane * position)
        first_row, first_column, n_rows, n_columns = plan.shears.boxes[t]
        expected = np.zeros((60, 90))  # from row and column -20 on
        for k, y, x in np.ndindex(planes.shape):
            r, c = 20 + y + iy[k], 20 + x + ix[k]
            expected[r - 1 : r + 2, c - 1 : c + 2] += planes[k, y, x] * np.outer(wy[k], wx[k])
        start = plan.shears.offsets[t]
        found = sheared[start : start + n_rows * n_columns].reshape(n_rows, n_columns)
        part = expected[20 + first_row :, 20 + first_column :][:n_rows, :n_columns]
        np.testing.assert_allclose(found, part, atol=1e-4)
        assert not sheared[start - HALF_WIDTH * n_columns : start].any()


def test_plan_shears__rays_that_miss_the_detector_cost_nothing() -> None:
    """A narrow detector over a wide volume: the rows and columns summed are those that it sees."""
    shape = (16, 64, 400)
    wide = plans(ParallelGeometry.centred(matrices_from_euler([[0, 30, 0]]), shape, (64, 400)))[0].shears
    narrow = plans(ParallelGeometry.centred(matrices_from_euler([[0, 30, 0]]), shape, (8, 40)))[0].shears
    assert narrow.boxes[0, 2] < 0.5 * wide.boxes[0, 2]
    summed = [int((s.group_last - s.group_first).sum()) for s in (wide, narrow)]
    assert summed[1] < 0.25 * summed[0]
    spread = [int((s.spread_last - s.spread_first).sum()) for s in (wide, narrow)]
    assert spread[1] < 0.25 * spread[0]
