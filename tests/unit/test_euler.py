"""Euler angles, matrices and single tilts: the published convention, spelt out."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.geometry import (
    centred_coordinates,
    euler_from_matrices,
    euler_from_tilts,
    grid_step,
    matrices_from_euler,
    tilts_from_euler,
)


def test_euler__matrix_is_the_published_product():
    from scipy.spatial.transform import Rotation

    angles = np.array([[12.0, -63.0, 4.0], [-170.0, 80.0, 100.0]])
    oracle = Rotation.from_euler("ZYX", angles, degrees=True).as_matrix()  # intrinsic: Rz Ry Rx
    np.testing.assert_allclose(matrices_from_euler(angles), np.swapaxes(oracle, 1, 2), atol=1e-12)


def test_euler__pure_tilt_moves_a_point_as_the_design_says():
    (matrix,) = matrices_from_euler([[0.0, 25.0, 0.0]])
    c, s = np.cos(np.deg2rad(25.0)), np.sin(np.deg2rad(25.0))
    np.testing.assert_allclose(matrix @ [2.0, 3.0, 5.0], [2 * c - 5 * s, 3.0, 2 * s + 5 * c], atol=1e-12)


@pytest.mark.parametrize("theta", [90.0, -90.0])
def test_euler__gimbal_lock_keeps_the_rotation(theta):
    matrices = matrices_from_euler([[20.0, theta, 50.0], [0.0, theta, 0.0]])
    angles = euler_from_matrices(matrices)
    np.testing.assert_allclose(matrices_from_euler(angles), matrices, atol=1e-9)
    np.testing.assert_array_equal(angles[:, 2], 0.0)


def test_euler__single_tilts_and_back():
    tilts = np.array([-70.0, 0.0, 55.9])
    np.testing.assert_array_equal(tilts_from_euler(euler_from_tilts(tilts)), tilts)
    with pytest.raises(InputError, match=r"phi or psi reach 0\.2 degrees"):
        tilts_from_euler([[-0.2, -63.0, 0.1]])


@pytest.mark.parametrize("angles", [np.zeros(3), np.zeros((2, 2)), [[0.0, np.inf, 0.0]]])
def test_euler__refuses_what_is_no_triple(angles):
    with pytest.raises(InputError, match="angles"):
        matrices_from_euler(angles)


@pytest.mark.parametrize("matrix", [np.diag([1.0, 1.0, -1.0]), 1.001 * np.eye(3), np.zeros((3, 3))])
def test_euler__refuses_what_is_no_rotation(matrix):
    with pytest.raises(InputError, match="Matrix 1 is not a rotation"):
        euler_from_matrices(np.stack([np.eye(3), matrix]))


@pytest.mark.parametrize(("n", "first", "last"), [(4, -2.0, 1.0), (5, -2.0, 2.0), (1, 0.0, 0.0)])
def test_grid__centre_voxel_is_n_half(n, first, last):
    coordinates = centred_coordinates(n, 0.5)
    assert coordinates[n // 2] == 0
    assert (coordinates[0], coordinates[-1]) == (first * 0.5, last * 0.5)
    if n > 1:
        assert grid_step(coordinates) == 0.5
