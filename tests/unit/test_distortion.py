"""Scan distortion: particles at several stage angles, common lines of a tilt series, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import euler_from_tilts, rotate_tilt_axis
from aetdist.preprocess.distortion import calibrate_scan, residual_distortion, split_rotation
from aetdist.preprocess.particles import find_particles, match_particles
from aetdist.simulate import nanoparticle, simulate_acquisition

SKEWED = np.array([[1.02, 0.012], [-0.006, 0.985]])


def _turn(degrees):
    """Rotation from y towards -x, for vectors (y, x)."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def _particles(distortion, angles, *, n=256, number=24, counts=60.0, seed=0):
    """Images of Gaussian particles on a turning stage that also moves, by a distorted scan."""
    random = np.random.default_rng(seed)
    points: list[np.ndarray] = []
    while len(points) < number:
        point = random.uniform(-0.44, 0.44, 2) * n
        if all(np.hypot(*(point - other)) > 24 for other in points):
            points.append(point)
    size, height = random.uniform(2.2, 3.2, number), random.uniform(0.7, 1.3, number)
    undo = np.linalg.inv(distortion)
    grid = np.einsum("ab,bij->ija", undo, np.mgrid[:n, :n] - n // 2)
    images = []
    for angle in angles:
        centres = np.array(points) @ _turn(angle).T + random.uniform(-12, 12, 2)
        image = np.full((n, n), 0.05)
        for centre, s, h in zip(centres, size, height, strict=True):
            image += h * np.exp(-((grid - centre) ** 2).sum(-1) / (2 * s**2))
        images.append(random.poisson(counts * image) + random.normal(0, 1, image.shape))
    return images


def test_split_rotation__gives_back_its_parts():
    symmetric = np.array([[1.01, 0.004], [0.004, 0.0]])
    symmetric[1, 1] = (1 + 0.004**2) / 1.01
    found, rotation = split_rotation(1.7 * symmetric @ _turn(3.2))
    np.testing.assert_allclose(found, symmetric, atol=1e-12)
    assert rotation == pytest.approx(3.2)
    with pytest.raises(InputError, match="positive determinant"):
        split_rotation([[1, 0], [0, -1]])


@pytest.mark.parametrize("angles", [(0.0, 90.0), (10.0, -20.0, -50.0, -95.0)])
def test_calibrate_scan__finds_the_distortion_to_a_thousandth(angles):
    found = calibrate_scan(_particles(SKEWED, angles), np.array(angles) + 0.5, 2.0)
    truth, _ = split_rotation(SKEWED)
    assert np.abs(truth - np.eye(2)).max() > 0.01
    np.testing.assert_allclose(found.matrix, truth, atol=5e-4)
    assert found.uncertainty < 5e-4 and np.isnan(found.rotation)
    assert 0.02 * 2.0 < found.residual < 0.15 * 2.0  # parts of a pixel of 2 Angstrom: the noise of the counts
    np.testing.assert_allclose(found.matrix, found.matrix.T)


def test_calibrate_scan__knows_either_sense_of_the_stage():
    images = _particles(SKEWED, (0.0, 35.0, 80.0), seed=3)
    both = [calibrate_scan(images, sense * np.array([0.0, 35.0, 80.0]), 2.0).matrix for sense in (1, -1)]
    np.testing.assert_allclose(*both)


def test_find_particles__are_those_that_lie_wholly_in_the_image():
    y, x = np.mgrid[:80, :100]
    centres = np.array([[20.3, 30.8], [50.6, 70.2], [60.0, 25.5], [1.0, 60.0]])  # the last is cut off
    image = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * 2.5**2)) for a, b in centres)
    found = find_particles(100 + 50 * image)
    np.testing.assert_allclose(found[np.argsort(found[:, 0])] + [40, 50], centres[:3], atol=1e-3)


def test_match_particles__some_unseen_and_some_new():
    random = np.random.default_rng(4)
    points = random.uniform(-100, 100, (20, 2))
    other = (points @ _turn(40.0).T + [5.0, -9.0]) @ SKEWED.T
    shuffled = np.concatenate([other[random.permutation(20)][:15], random.uniform(-100, 100, (3, 2))])
    found = match_particles([points, shuffled], np.array([0.0, 40.0]))
    seen = np.isfinite(found[1, :, 0])
    assert seen.sum() >= 14
    np.testing.assert_allclose(found[1, seen], other[seen], atol=1e-9)


def test_calibrate_scan__refuses_what_it_cannot_use():
    images = _particles(np.eye(2), (0.0, 45.0), number=5)
    with pytest.raises(InputError, match="differ by less"):
        calibrate_scan(images, [30.0, 30.0], 2.0)
    with pytest.raises(InputError, match="differ by less"):
        calibrate_scan(images, [0.0, 180.0], 2.0)
    with pytest.raises(InputError, match="the angle of each"):
        calibrate_scan(images, [0.0], 2.0)
    with pytest.raises(InputError, match="pixel size"):
        calibrate_scan(images, [0.0, 45.0], 0.0)
    with pytest.raises(InputError, match="blank"):
        calibrate_scan([images[0], np.ones((256, 256))], [0.0, 45.0], 2.0)
    few = _particles(np.eye(2), (0.0, 45.0), number=2)
    with pytest.raises(InputError, match="three or more"):
        calibrate_scan(few, [0.0, 45.0], 2.0)


@pytest.fixture(scope="module")
def particle():
    return nanoparticle(24.0, seed=5)


TILTS = np.linspace(-64.0, 64.0, 23)


def _series(particle, distortion, *, axis=0.0, nominal=0.0, dose=None, seed=1):
    """Images of an isolated particle (not aligned), and their nominal angles."""
    raw = simulate_acquisition(
        particle,
        rotate_tilt_axis(euler_from_tilts(TILTS), nominal),
        field=(128, 124),
        frames=1,
        drift=0.0,
        background=0.0,
        shift=6.0,
        sigma=0.6,
        distortion=distortion,
        tilt_axis=axis,
        dose=dose or 1e9,
        seed=seed,
    )
    images = raw["frames"][:, 0].values - 100.0
    y, x = np.mgrid[:124, :128] - np.array([62, 64])[:, None, None]
    shift = raw["true_shift"].values[:, :, None, None]
    return np.where(np.hypot(y - shift[:, 0], x - shift[:, 1]) < 42, images, 0.0), raw["angles"].values


def test_residual_distortion__shear_and_axis_without_noise(particle):
    sheared = np.array([[1.0, 0.008], [0.003, 1.0]])
    found = residual_distortion(*_series(particle, sheared, axis=1.2), 0.35)
    truth, turned = split_rotation(sheared)
    assert found.matrix[0, 1] == pytest.approx(truth[0, 1], abs=5e-5)
    assert found.rotation == pytest.approx(1.2 + turned, abs=0.005)
    assert found.residual < 1e-3
    np.testing.assert_allclose(np.diag(found.matrix), 1.0, atol=5e-4)  # the gains: left as they are


def test_residual_distortion__an_axis_that_is_turned_is_no_shear(particle):
    found = residual_distortion(*_series(particle, ((1, 0), (0, 1)), axis=2.0), 0.35)
    np.testing.assert_allclose(found.matrix, np.eye(2), atol=5e-5)
    assert found.rotation == pytest.approx(2.0, abs=0.005)


def test_residual_distortion__to_a_thousandth_at_the_dose_of_a_series(particle):
    sheared = ((1.0, 0.005), (0.005, 1.0))
    errors, expected = [], []
    for seed in range(4):
        found = residual_distortion(*_series(particle, sheared, dose=1.7e4, seed=seed), 0.35)
        errors.append(found.matrix[0, 1] - 0.005)
        expected.append(found.uncertainty)
    assert np.sqrt(np.mean(np.square(errors))) < 1e-3
    assert 0.3 < np.sqrt(np.mean(np.square(errors))) / np.mean(expected) < 3.0


def test_residual_distortion__adds_to_a_calibration(particle):
    calibration = np.diag([1.01, 1 / 1.01])
    whole = calibration @ [[1.0, 0.004], [0.004, 1.0]]
    images, angles = _series(particle, whole, axis=0.0)
    found = residual_distortion(images, angles, 0.35, calibration=calibration)
    truth, turned = split_rotation(whole)
    np.testing.assert_allclose(found.matrix, truth, atol=1e-4)
    assert found.rotation == pytest.approx(turned, abs=0.005)


def test_residual_distortion__axis_of_the_nominal_angles_need_not_be_y(particle):
    sheared = np.array([[1.0, 0.006], [0.006, 1.0]])
    found = residual_distortion(*_series(particle, sheared, nominal=20.0), 0.35)
    # seen from an axis at 20 degrees, a part of the shear along y and x is a ratio of gains, which stays unknown
    across = _turn(20.0).T @ found.matrix @ _turn(20.0)
    assert across[0, 1] == pytest.approx((_turn(20.0).T @ sheared @ _turn(20.0))[0, 1], abs=1e-4)


def test_residual_distortion__refuses_what_it_cannot_use(particle):
    images, angles = _series(particle, ((1, 0), (0, 1)))
    with pytest.raises(InputError, match="tilts over"):
        residual_distortion(images[:4], angles[:4], 0.35)
    with pytest.raises(InputError, match="one axis"):
        residual_distortion(images, angles + np.array([[0, 0, 30.0]]) * (np.arange(23) % 3)[:, None], 0.35)
    with pytest.raises(InputError, match="needed are \\(tilt, y, x\\)"):
        residual_distortion(images[0], angles, 0.35)
    blank = images.copy()
    blank[3] = 0.0
    with pytest.raises(InputError, match="leave out blank tilts"):
        residual_distortion(blank, angles, 0.35)
    blank[3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        residual_distortion(blank, angles, 0.35)
    growing = images * np.linspace(0.6, 1.4, 23)[:, None, None]
    with pytest.warns(AetdistWarning, match="isolated"):
        residual_distortion(growing, angles, 0.35)
