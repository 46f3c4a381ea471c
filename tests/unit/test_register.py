"""Registration of two images: truth of simulated atoms with and without noise, masks, lattices, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.images import register
from aetdist.project.atoms import project_atoms
from aetdist.simulate import amorphous_film, nanoparticle

PIXEL = 0.35


def _view(atoms, shift, n=128):
    """An image that shows at r + shift what the image of shift (0, 0) shows at r."""
    c = (np.arange(n) - n // 2) * PIXEL
    position = atoms["position"].values
    return project_atoms(
        position,
        np.array([[0.0, 20.0, 0.0]]),
        sigmas=0.55,
        x=c - shift[1] * PIXEL,
        y=c - shift[0] * PIXEL,
        pixel_size=PIXEL,
    )[0]


@pytest.fixture(scope="module")
def particle():
    return nanoparticle(26.0, seed=1)


@pytest.fixture(scope="module")
def film():
    return amorphous_film((70.0, 60.0), 15.0, seed=1)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.37, -4.81), (-7.5, 0.49)])
def test_register__finds_a_shift_without_noise(particle, film, shift):
    for atoms in (particle, film):
        found = register(_view(atoms, shift), _view(atoms, (0, 0)))
        np.testing.assert_allclose(found.shift, shift, atol=0.01)
        assert found.correlation > 0.99


def test_register__is_as_good_as_counted_electrons_allow(particle, film):
    random = np.random.default_rng(5)
    for atoms in (particle, film):
        clean = _view(atoms, (0, 0))
        scale = 25.0 / clean[clean > 0.1 * clean.max()].mean()  # counts
        slope = np.gradient(clean * scale)
        bound = [np.sqrt(2 / (g**2 / (clean * scale + 1)).sum()) for g in slope]  # Cramer-Rao, two noisy images
        errors = []
        for _ in range(12):
            shift = random.uniform(-6, 6, 2)
            pair = [random.poisson(_view(atoms, s) * scale) + random.normal(0, 1, clean.shape) for s in (shift, (0, 0))]
            errors.append(register(*pair, maximum_shift=16).shift - shift)
        rms = np.sqrt(np.mean(np.square(errors)))
        assert rms < 1.6 * np.mean(bound) and rms < 0.05


def test_register__correlation_is_that_of_the_images_without_noise(film):
    random = np.random.default_rng(6)
    clean = [_view(film, s) for s in ((1.3, 0.4), (0, 0))]
    noisy = [random.poisson(image * 20 / image.mean()) for image in clean]
    there = register(*noisy).correlation
    assert there > 0.9 > np.corrcoef(noisy[1].ravel(), random.poisson(clean[1] * 20 / clean[1].mean()).ravel())[0, 1]
    assert register(noisy[0][::-1], noisy[1]).correlation < 0.5


def test_register__light_and_contrast_do_not_matter(particle):
    image, reference = _view(particle, (1.4, -2.2)), _view(particle, (0, 0))
    found = register(300.0 + 7.0 * image, reference)
    np.testing.assert_allclose(found.shift, (1.4, -2.2), atol=0.01)


def test_register__looks_no_farther_than_told():
    y, x = np.mgrid[:96, :96]
    lattice = np.cos(2 * np.pi * y / 12) + np.cos(2 * np.pi * x / 12)  # repeats every 12 pixels
    moved = np.cos(2 * np.pi * (y - 3.3) / 12) + np.cos(2 * np.pi * (x + 2.6) / 12)
    np.testing.assert_allclose(register(moved, lattice, maximum_shift=6).shift, (3.3, -2.6), atol=0.02)
    far = register(_far(40), _far(0), maximum_shift=5).shift
    assert np.abs(far).max() <= 6


def _far(shift):
    y, x = np.mgrid[:96, :96]
    return np.exp(-((y - 40) ** 2 + (x - 30 - shift) ** 2) / 18.0)


def test_register__pixels_that_do_not_count_do_not(film):
    image, reference = _view(film, (2.3, -1.7)), _view(film, (0, 0))
    mask = np.zeros(image.shape, bool)
    mask[10:-10, 8:-20] = True
    image[~mask], reference[~mask] = 0.0, 50.0 * np.random.default_rng(0).random((~mask).sum())
    np.testing.assert_allclose(register(image, reference, mask=mask, maximum_shift=10).shift, (2.3, -1.7), atol=0.02)
    image[~mask] = np.nan
    reference[~mask] = np.nan
    np.testing.assert_allclose(register(image, reference, maximum_shift=10).shift, (2.3, -1.7), atol=0.02)


def test_register__images_of_noise_alone_and_of_odd_size():
    image = np.random.default_rng(3).random((61, 45))
    moved = np.roll(image, (4, -7), (0, 1))
    np.testing.assert_allclose(register(moved, image).shift, (4, -7), atol=0.05)


def test_register__leaves_its_input_alone(particle):
    pair = [_view(particle, s) for s in ((1.0, 2.0), (0, 0))]
    before = [image.copy() for image in pair]
    register(*pair, mask=np.ones(pair[0].shape, bool))
    np.testing.assert_array_equal(pair, before)


def test_register__refuses_what_it_cannot_use():
    image = np.random.default_rng(0).random((20, 20))
    with pytest.raises(InputError, match="same size"):
        register(image, image[:-1])
    with pytest.raises(InputError, match="value 3 everywhere"):
        register(image, np.full((20, 20), 3.0))
    with pytest.raises(InputError, match="image has no measured pixel"):
        register(np.full((20, 20), np.nan), image)
    with pytest.raises(InputError, match="mask has shape"):
        register(image, image, mask=np.ones((3, 3), bool))
    with pytest.raises(InputError, match="maximum_shift"):
        register(image, image, maximum_shift=-1)
    left, right = image.copy(), image.copy()
    left[:, 5:], right[:, :15] = np.nan, np.nan
    with pytest.raises(InputError, match="hardly overlap"):
        register(left, right, maximum_shift=3)
