"""Other conventions of angles: each is held against a point object turned by independent formulae."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.geometry import (
    astra_centre,
    astra_from_matrices,
    euler_from_convention,
    imod_tilts_from_euler,
    matrices_from_astra,
    matrices_from_euler,
    rotate_tilt_axis,
    single_tilts_from_euler,
    tilts_from_euler,
)

TILTS = np.array([-63.0, -10.5, 0.0, 33.3, 71.0])
POINT = np.array([3.0, -2.0, 5.0])


def turned(point, axis, degrees):
    """Rodrigues' formula: `point` turned right-handed about `axis`."""
    axis, angle = np.asarray(axis, float) / np.linalg.norm(axis), np.deg2rad(degrees)
    return (
        point * np.cos(angle) + np.cross(axis, point) * np.sin(angle) + axis * np.dot(axis, point) * (1 - np.cos(angle))
    )


def detector_pixel(vector, point, detector_shape):
    """(row, column) where ASTRA's definition of parallel3d_vec lets a ray through `point` (x, y, z) hit."""
    ray, d, u, v = np.reshape(vector, (4, 3))
    _, column, row = np.linalg.solve(np.stack([ray, u, v], axis=1), point - d)
    return row + (detector_shape[0] - 1) / 2, column + (detector_shape[1] - 1) / 2


def test_conventions__euler_triples_come_through_untouched():
    angles = np.array([[-0.2, -63.00047, 0.2], [1.5, 55.9, -0.7]])
    out = euler_from_convention(angles, "yang2021")
    np.testing.assert_array_equal(out, angles)
    assert out is not angles


@pytest.mark.parametrize("convention", ["yang2021", "single"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_conventions__one_column_is_the_tilt_about_y(convention, shape):
    angles = euler_from_convention(TILTS.reshape(shape), convention)
    np.testing.assert_array_equal(angles, np.stack([0 * TILTS, TILTS, 0 * TILTS], axis=1))
    for tilt, matrix in zip(TILTS, matrices_from_euler(angles), strict=True):
        c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
        np.testing.assert_allclose((matrix @ POINT)[:2], [POINT[0] * c - POINT[2] * s, POINT[1]], atol=1e-12)


def test_conventions__imod_turns_the_specimen_right_handed_about_y():
    for tilt, matrix in zip(TILTS, matrices_from_euler(euler_from_convention(TILTS, "imod")), strict=True):
        np.testing.assert_allclose(matrix @ POINT, turned(POINT, (0, 1, 0), tilt), atol=1e-12)


@pytest.mark.parametrize("alpha", [-170.0, -90.0, -12.5, 0.0, 4.0, 84.3, 90.0])
@pytest.mark.parametrize(("convention", "sign"), [("single", -1), ("imod", 1)])
def test_conventions__tilt_axis_lies_alpha_from_image_y(alpha, convention, sign):
    axis = np.array([-np.sin(np.deg2rad(alpha)), np.cos(np.deg2rad(alpha)), 0.0])
    matrices = matrices_from_euler(euler_from_convention(TILTS, convention, tilt_axis=alpha))
    for tilt, matrix in zip(TILTS, matrices, strict=True):
        np.testing.assert_allclose(matrix @ POINT, turned(POINT, axis, sign * tilt), atol=1e-12)
        np.testing.assert_allclose(matrix @ axis, axis, atol=1e-12)  # a point on the axis does not move


def test_conventions__tilt_axis_keeps_the_images_of_zero_tilt_as_the_samples_plane():
    angles = euler_from_convention([0.0, 30.0, 60.0], "single", tilt_axis=37.0)
    np.testing.assert_allclose(matrices_from_euler(angles)[0], np.eye(3), atol=1e-12)


def test_conventions__tilt_axis_90_is_an_axis_along_minus_x():
    (matrix,) = matrices_from_euler(euler_from_convention([30.0], "single", tilt_axis=90.0))
    x, y, _ = matrix @ POINT
    c, s = np.cos(np.deg2rad(30.0)), np.sin(np.deg2rad(30.0))
    np.testing.assert_allclose([x, y], [POINT[0], POINT[1] * c - POINT[2] * s], atol=1e-12)


def test_conventions__flip_tilt_projects_the_mirrored_sample_to_the_same_place():
    angles = np.array([[1.0, -63.0, 2.0], [-0.4, 20.0, 0.3]])
    plain = matrices_from_euler(angles) @ POINT
    flipped = matrices_from_euler(euler_from_convention(angles, flip_tilt=True)) @ (POINT * [1, 1, -1])
    np.testing.assert_allclose(flipped[:, :2], plain[:, :2], atol=1e-12)
    np.testing.assert_array_equal(tilts_from_euler(euler_from_convention(TILTS, "single", flip_tilt=True)), -TILTS)


def test_conventions__astra_standard_geometry():
    # ASTRA's own parallel3d at angle a: ray (sin a, -cos a, 0), u (cos a, sin a, 0), v (0, 0, 1).
    a = np.deg2rad([0.0, 30.0, -75.0])
    zero, one = np.zeros_like(a), np.ones_like(a)
    columns = [np.sin(a), -np.cos(a), zero, zero, zero, zero, np.cos(a), np.sin(a), zero, zero, zero, one]
    vectors = np.stack(columns, axis=1)
    matrices, pixel_size, centre = matrices_from_astra(vectors)
    assert pixel_size == 1.0
    np.testing.assert_array_equal(centre, 0.0)
    np.testing.assert_allclose(matrices[0] @ POINT, [POINT[0], POINT[2], -POINT[1]], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0)
    np.testing.assert_allclose(astra_from_matrices(matrices), vectors, atol=1e-12)
    np.testing.assert_allclose(matrices_from_euler(euler_from_convention(vectors, "astra")), matrices, atol=1e-12)


def test_conventions__astra_ray_may_run_either_way():
    vectors = astra_from_matrices(matrices_from_euler(euler_from_convention(TILTS)))
    backwards = vectors * np.repeat([-1.0, 1.0, 1.0, 1.0], 3)
    np.testing.assert_array_equal(matrices_from_astra(backwards).matrices, matrices_from_astra(vectors).matrices)


@pytest.mark.parametrize("volume_shape", [(8, 10, 12), (9, 11, 7), (8, 11, 12)])
@pytest.mark.parametrize("detector_shape", [(10, 16), (11, 15), (10, 15)])
def test_conventions__astra_sees_a_voxel_in_the_pixel_in_which_we_see_it(volume_shape, detector_shape):
    matrices = matrices_from_euler(np.array([[3.0, -50.0, 2.0], [0.0, 0.0, 0.0], [-5.0, 35.0, 90.0]]))
    vectors = astra_from_matrices(matrices, centre=astra_centre(matrices, volume_shape, detector_shape))
    voxel = np.array([5, 3, 6])  # z, y, x
    ours = matrices @ (voxel - np.array(volume_shape) // 2)[::-1]
    for vector, lab in zip(vectors, ours, strict=True):
        point = (voxel - (np.array(volume_shape) - 1) / 2)[::-1]  # ASTRA's volume is centred on its origin
        row, column = detector_pixel(vector, point, detector_shape)
        np.testing.assert_allclose(
            [column, row], [lab[0] + detector_shape[1] // 2, lab[1] + detector_shape[0] // 2], atol=1e-9
        )


def test_conventions__astra_pixels_of_another_size():
    matrices = matrices_from_euler(euler_from_convention(TILTS))
    shift = np.array([[1.0, -2.0]] * len(TILTS))
    back = matrices_from_astra(astra_from_matrices(matrices, pixel_size=0.5, centre=shift))
    assert back.pixel_size == pytest.approx(0.5)
    np.testing.assert_allclose(back.centre, shift, atol=1e-12)
    np.testing.assert_allclose(back.matrices, matrices, atol=1e-12)


def test_conventions__tilts_beyond_90_degrees_come_back():
    angles = euler_from_convention([-150.0, 100.0, 179.0], "single", tilt_axis=20.0)
    np.testing.assert_allclose(single_tilts_from_euler(angles, tilt_axis=20.0), [-150.0, 100.0, 179.0], atol=1e-9)
    np.testing.assert_allclose(imod_tilts_from_euler(angles, tilt_axis=20.0), [150.0, -100.0, -179.0], atol=1e-9)


def test_conventions__rotate_tilt_axis_back_and_forth():
    angles = np.array([[1.0, -63.0, 2.0], [-0.4, 20.0, 0.3]])
    np.testing.assert_allclose(rotate_tilt_axis(rotate_tilt_axis(angles, 30.0), -30.0), angles, atol=1e-9)
    assert np.abs(rotate_tilt_axis(angles, 30.0) - angles).max() > 1


@pytest.mark.parametrize(
    ("angles", "options", "message"),
    [
        (TILTS, {"convention": "relion"}, "relion.*yang2021, single, imod, astra"),
        (np.zeros((5, 3)), {"convention": "single"}, r"\(5, 3\).*1 column"),
        (np.zeros((5, 3)), {"convention": "imod"}, r"\(5, 3\)"),
        (np.zeros((3, 46)), {}, r"\(3, 46\).*1 or 3 columns.*transpose"),
        (np.zeros((5, 11)), {"convention": "astra"}, r"\(5, 11\).*12 columns"),
        ([1.0, np.nan], {}, "tilt 1"),
        (["a", "b"], {}, "real numbers"),
        ([1j], {}, "real numbers"),
        (TILTS, {"tilt_axis": np.inf}, "tilt axis"),
        (astra_from_matrices(np.eye(3)[None]), {"convention": "astra", "tilt_axis": 3.0}, "leave it out"),
    ],
)
def test_conventions__refuses(angles, options, message):
    with pytest.raises(InputError, match=message):
        euler_from_convention(angles, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: 1.0}, "right angles"),  # slanted ray
        ({7: 0.3}, "right angles"),  # u not at right angles with v
        ({6: 2.0}, "square pixels"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, "length 0"),
    ],
)
def test_conventions__refuses_astra_vectors(change, message):
    vectors = astra_from_matrices(np.stack([np.eye(3)] * 2))
    for column, value in change.items():
        vectors[1, column] = value
    with pytest.raises(InputError, match=message):
        matrices_from_astra(vectors)


def test_conventions__refuses_to_call_a_general_series_single_axis():
    with pytest.raises(InputError, match=r"tilt 1 is .* off"):
        single_tilts_from_euler(np.array([[0.0, 10.0, 0.0], [0.5, 20.0, 0.0]]))
    tilts = single_tilts_from_euler(np.array([[0.0, 10.0, 0.0], [0.5, 20.0, 0.0]]), tolerance=1.0)
    np.testing.assert_allclose(tilts, [10.0, 20.0], atol=0.1)
