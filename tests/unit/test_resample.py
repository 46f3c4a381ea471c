"""Resampling by cubic splines: against SciPy, against images that are known exactly, borders, gaps, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from aetdist.errors import InputError
from aetdist.images import resample
from aetdist.project.atoms import project_atoms

MATRIX = np.array([[1.01, 0.02], [-0.03, 0.98]])


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).random((41, 58)).astype(np.float32)


def _atoms(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gaussian atoms of sigma 1.4 pixels at arbitrary points (y, x) in pixels."""
    centres = np.random.default_rng(2).uniform(-14, 14, (60, 2))
    return np.exp(-((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2) / (2 * 1.4**2)).sum(-1)


def test_resample__identity_returns_the_image(image):
    out, inside = resample(image, np.eye(2), (0, 0))
    assert out.dtype == np.float32 and inside.all()
    np.testing.assert_allclose(out, image, atol=1e-5)


def test_resample__whole_shift_moves_pixels(image):
    out, inside = resample(image, np.eye(2), (3, -5))  # out(r) = image(r + s)
    np.testing.assert_allclose(out[:-3, 5:], image[3:, :-5], atol=1e-5)
    assert inside[:-3, 5:].all() and not inside[-3:].any() and not inside[:, :5].any()
    assert (out[~inside] == 0).all()


@pytest.mark.parametrize("shape", [(41, 58), (3, 2), (2, 7)])
def test_resample__equals_a_spline_with_mirrored_border(shape):
    image = np.random.default_rng(3).random(shape)
    shift = np.array([0.3, -0.4])
    y, x = (np.arange(n) - n // 2 for n in shape)
    grid = np.einsum("ab,bij->aij", MATRIX, np.stack(np.meshgrid(y, x, indexing="ij")))
    there = grid + (shift + np.array(shape) // 2)[:, None, None]
    expected = ndimage.map_coordinates(image, there, order=3, mode="mirror")
    out, inside = resample(image, MATRIX, shift)
    limits = np.array(shape)[:, None, None] - 1
    np.testing.assert_array_equal(inside, ((there >= 0) & (there <= limits)).all(axis=0))
    np.testing.assert_allclose(out[inside], expected[inside], atol=1e-6)


def test_resample__undoes_a_distortion_of_atoms():
    y, x = np.mgrid[:64, :70] - np.array([32, 35])[:, None, None]
    inverse = np.linalg.inv(MATRIX)
    v, u = y - 1.3, x + 0.4  # a frame that shows at M r + s what belongs at r
    frame = _atoms(inverse[0, 0] * v + inverse[0, 1] * u, inverse[1, 0] * v + inverse[1, 1] * u)
    out, inside = resample(frame, MATRIX, (1.3, -0.4))
    assert inside[4:-4, 4:-4].all()
    np.testing.assert_allclose(out[inside], _atoms(y, x)[inside], atol=0.004 * frame.max())


def test_resample__twice_by_opposite_shifts_comes_back():
    c = (np.arange(80) - 40) * 0.35
    atoms = np.column_stack([np.random.default_rng(5).uniform(-8, 8, (100, 2)), np.zeros(100)])
    image = project_atoms(atoms, np.zeros((1, 3)), sigmas=0.6, x=c, y=c, pixel_size=0.35)[0]
    there, _ = resample(image, np.eye(2), (0.4, 0.7))
    back, inside = resample(there, np.eye(2), (-0.4, -0.7))
    np.testing.assert_allclose(back[inside], image[inside], atol=0.005 * image.max())


def test_resample__other_shape_keeps_the_centre_pixel(image):
    out, inside = resample(image, np.eye(2), (0, 0), out_shape=(20, 31))
    np.testing.assert_allclose(out, image[10:30, 14:45], atol=1e-5)
    out, inside = resample(image, np.eye(2), (0, 0), out_shape=(45, 60))
    assert inside.sum() == image.size and out.sum() == pytest.approx(image.sum(), rel=1e-5)


def test_resample__gaps_are_not_inside_and_spoil_nothing_far_off(image):
    gaps = image.copy()
    gaps[10:13, 20:25] = np.nan
    out, inside = resample(gaps, np.eye(2), (0, 0))
    np.testing.assert_array_equal(inside, np.isfinite(gaps))
    np.testing.assert_allclose(out[inside], image[inside], atol=1e-5)
    out, inside = resample(gaps, np.eye(2), (0.5, 0))
    assert not inside[9:13, 20:25].any() and inside[8, 20:25].all() and inside[13, 20:25].all()
    assert np.isfinite(out).all()
    whole, _ = resample(image, np.eye(2), (0.5, 0))
    np.testing.assert_allclose(out[25:-1], whole[25:-1], atol=1e-4)
    out, inside = resample(np.full((5, 6), np.nan), np.eye(2), (0, 0))
    assert not inside.any() and (out == 0).all()


def test_resample__leaves_its_input_alone(image):
    before = image.copy()
    resample(image, MATRIX, (0.2, 0.1))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3, 4)), np.eye(2), (0, 0)), "one image"),
        ((np.zeros((3, 4)), np.eye(3), (0, 0)), "needed are finite numbers"),
        ((np.zeros((3, 4)), np.eye(2), (np.nan, 0)), "needed are finite numbers"),
    ],
)
def test_resample__refuses_what_it_cannot_use(arguments, message):
    with pytest.raises(InputError, match=message):
        resample(*arguments)


@pytest.mark.parametrize("out_shape", [None, (45, 62)])
def test_resample__curved_map_equals_a_spline(image, out_shape):
    bend = np.array([[2e-3, -1e-3, 5e-4], [-8e-4, 1.5e-3, 1e-3]])
    shift, shape = np.array([0.3, -0.4]), out_shape or image.shape
    y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    grid = np.einsum("ab,bij->aij", MATRIX, np.stack([y, x])) + np.einsum("ab,bij->aij", bend, [y * y, y * x, x * x])
    there = grid + (shift + np.array(image.shape) // 2)[:, None, None]
    expected = ndimage.map_coordinates(image.astype(np.float64), there, order=3, mode="mirror")
    out, inside = resample(image, MATRIX, shift, bend=bend, out_shape=out_shape)
    limits = np.array(image.shape)[:, None, None] - 1
    np.testing.assert_array_equal(inside, ((there >= 0) & (there <= limits)).all(axis=0))
    assert not inside.all() and inside.mean() > 0.7
    np.testing.assert_allclose(out[inside], expected[inside], atol=1e-6)


def test_resample__a_map_that_is_not_curved_is_the_affine_one(image):
    flat, inside = resample(image, MATRIX, (0.3, -0.4))
    out, same = resample(image, MATRIX, (0.3, -0.4), bend=np.zeros((2, 3)))
    np.testing.assert_array_equal(same, inside)
    np.testing.assert_array_equal(out, flat)


@pytest.mark.parametrize("bend", [np.zeros((3, 2)), np.full((2, 3), np.nan)])
def test_resample__refuses_a_bend_it_cannot_use(image, bend):
    with pytest.raises(InputError, match="bend has shape"):
        resample(image, np.eye(2), (0, 0), bend=bend)
