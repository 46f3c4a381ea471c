"""Laws of rotations that hold for any angles."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aetdist.geometry import (
    astra_centre,
    astra_from_matrices,
    euler_from_convention,
    euler_from_matrices,
    imod_tilts_from_euler,
    matrices_from_astra,
    matrices_from_euler,
    rotate_tilt_axis,
    single_tilts_from_euler,
)

N = st.integers(1, 5)
TURN = st.floats(-180, 180, width=32)
TILT = st.floats(-89, 89, width=32)
EULER = N.flatmap(lambda n: arrays(np.float64, (n, 3), elements=TURN))
TILTS = N.flatmap(lambda n: arrays(np.float64, n, elements=st.floats(-179, 179, width=32)))
NEAR = {"atol": 1e-9, "rtol": 0}


@given(EULER)
def test_euler__matrices_are_rotations_and_come_back(angles):
    matrices = matrices_from_euler(angles)
    np.testing.assert_allclose(
        matrices @ np.swapaxes(matrices, 1, 2), np.broadcast_to(np.eye(3), matrices.shape), **NEAR
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0)
    np.testing.assert_allclose(matrices_from_euler(euler_from_matrices(matrices)), matrices, **NEAR)


@given(st.tuples(TURN, TILT, TURN))
def test_euler__angles_come_back_where_they_are_unique(angles):
    back = euler_from_matrices(matrices_from_euler([angles]))[0]
    difference = (back - np.array(angles) + 180) % 360 - 180
    assert np.abs(difference).max() < 1e-6


@given(TILTS, TURN)
def test_conventions__single_and_imod_tilts_come_back(tilts, axis):
    single = euler_from_convention(tilts, "single", tilt_axis=axis)
    imod = euler_from_convention(tilts, "imod", tilt_axis=axis)
    np.testing.assert_allclose(single_tilts_from_euler(single, tilt_axis=axis), tilts, atol=1e-6)
    np.testing.assert_allclose(imod_tilts_from_euler(imod, tilt_axis=axis), tilts, atol=1e-6)
    np.testing.assert_allclose(  # the other sign is the inverse rotation
        matrices_from_euler(imod), np.swapaxes(matrices_from_euler(single), 1, 2), **NEAR
    )


@given(EULER, st.floats(0.25, 4), st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
def test_conventions__astra_vectors_come_back(angles, pixel_size, centre):
    matrices = matrices_from_euler(angles)
    vectors = astra_from_matrices(matrices, pixel_size=pixel_size, centre=centre)
    back = matrices_from_astra(vectors)
    np.testing.assert_allclose(back.matrices, matrices, **NEAR)
    np.testing.assert_allclose(back.centre, np.broadcast_to(centre, back.centre.shape), **NEAR)
    np.testing.assert_allclose(back.pixel_size, pixel_size)
    np.testing.assert_allclose(
        astra_from_matrices(*back[:1], pixel_size=back.pixel_size, centre=back.centre), vectors, **NEAR
    )
    np.testing.assert_allclose(matrices_from_euler(euler_from_convention(vectors, "astra")), matrices, **NEAR)


@given(EULER, TURN, st.booleans())
def test_conventions__flip_twice_and_turn_back_change_nothing(angles, axis, flip):
    matrices = matrices_from_euler(angles)
    there = euler_from_convention(angles, tilt_axis=axis, flip_tilt=flip)
    back = euler_from_convention(there, tilt_axis=-axis, flip_tilt=flip)
    np.testing.assert_allclose(matrices_from_euler(back), matrices, **NEAR)


@given(EULER, TURN)
def test_conventions__tilt_axis_turns_sample_and_detector_alike(angles, axis):
    a = np.deg2rad(axis)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turned = matrices_from_euler(rotate_tilt_axis(angles, axis))
    np.testing.assert_allclose(turned @ turn, turn @ matrices_from_euler(angles), **NEAR)


@settings(max_examples=50)
@given(EULER, st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 2))
def test_conventions__astra_centre_is_at_most_half_a_pixel_diagonal_off(angles, volume_shape, detector_shape):
    centre = astra_centre(matrices_from_euler(angles), volume_shape, detector_shape)
    assert np.linalg.norm(centre, axis=1).max() <= (np.sqrt(3) + np.sqrt(2)) / 2 + 1e-12
    if all(n % 2 for n in (*volume_shape, *detector_shape)):
        np.testing.assert_array_equal(centre, 0.0)
