from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

import aetdist as aet
from aetdist.errors import InputError
from aetdist.preprocess.noise import NoiseModel, add_noise, estimate_noise_model, fit_line

ELECTRONS = 1.7e4 * 0.35**2 * 0.05  # of an average pixel at 1.7e4 e/A^2


@pytest.fixture(scope="module")
def particle():
    """Images of a particle that fills half the field, in those of an average pixel; (4, 176, 176)."""
    atoms = aet.nanoparticle(24.0, seed=5)
    series = aet.simulate_tilt_series(atoms, [-50.0, -15.0, 10.0, 40.0], pixel_size=0.35, field=(176, 176))
    return series["images"].values / series.attrs["simulation_average_intensity"]


@pytest.mark.parametrize(
    ("noise", "background", "frames"),
    [
        (NoiseModel(4.0, 100.0, 1.0), 0.05, 4),  # steps of single electrons are seen in the dark
        (NoiseModel(1.0, 0.0, 1.0), 0.02, 4),
        (NoiseModel(2.5, 30.0, 6.0), 0.0, 4),  # a dark without electrons
    ],
)
def test_estimate_noise_model__within_5_percent(particle, noise, background, frames):
    clean = noise.gain * ELECTRONS / frames * (np.repeat(particle, frames, axis=0) + background) + noise.offset
    found = estimate_noise_model(add_noise(clean, noise, seed=11))
    assert found.gain == pytest.approx(noise.gain, rel=0.05)
    assert found.read_noise == pytest.approx(noise.read_noise, rel=0.05)
    assert found.offset == pytest.approx(noise.offset, abs=0.25 * noise.gain)


@pytest.mark.parametrize("read_noise", [1.0, 4.0])
def test_estimate_noise_model__holes_of_a_film_smaller_than_its_darkest_fifth(read_noise):
    """Levels beside the holes reach into the film; only those that are flat count."""
    noise, random = NoiseModel(4.0, 100.0, read_noise), np.random.default_rng(8)
    y, x = np.mgrid[-100:100, -100:100]
    film = 30.0 + 10.0 * ndimage.gaussian_filter(random.normal(size=(8, 200, 200)), (0, 2, 2)) * 7.0
    clean = noise.gain * np.where(np.hypot(y - 20, x + 30) < 36, 2.5, np.maximum(film, 5.0)) + noise.offset
    found = estimate_noise_model(add_noise(clean, noise, seed=4))
    assert found.gain == pytest.approx(noise.gain, rel=0.05)
    assert found.read_noise == pytest.approx(noise.read_noise, rel=0.05)
    assert found.offset == pytest.approx(noise.offset, abs=0.25 * noise.gain)


def test_estimate_noise_model__is_not_an_electron_off():
    """Few images: the line's gain is 6 % off, and single electrons make a comb of equally spaced valleys."""
    noise = NoiseModel(4.0, 100.0, 1.0)
    y, x = np.mgrid[-56:56, -56:56]
    particle = np.where(np.hypot(y, x) < 28, 40.0 + 10.0 * np.sin(y) * np.cos(x), 0.0)
    for seed in range(4):
        clean = noise.gain * np.repeat((particle + 6.0)[None], 5, axis=0) + noise.offset
        found = estimate_noise_model(add_noise(clean, noise, seed=seed))
        assert found.offset == pytest.approx(noise.offset, abs=0.25 * noise.gain)
        assert found.gain == pytest.approx(noise.gain, rel=0.05)
        assert found.read_noise == pytest.approx(noise.read_noise, rel=0.05)


def test_estimate_noise_model__without_a_dark_still_knows_the_variance(particle):
    """Bright everywhere: offset and read noise cannot be told apart, the variance can."""
    noise = NoiseModel(2.0, 50.0, 4.0)
    clean = noise.gain * ELECTRONS * (np.repeat(particle, 3, axis=0) + 2.0) + noise.offset
    found = estimate_noise_model(add_noise(clean, noise, seed=3))
    levels = np.quantile(clean, [0.1, 0.5, 0.95])
    np.testing.assert_allclose(found.variance(levels), noise.variance(levels), rtol=0.05)


def test_estimate_noise_model__white_noise_has_no_gain():
    images = np.random.default_rng(0).normal(20.0, 3.0, (2, 96, 96))
    found = estimate_noise_model(images)
    assert np.sqrt(found.variance(np.array(20.0))) == pytest.approx(3.0, rel=0.02)


def test_estimate_noise_model__outliers_and_unmeasured_pixels_do_not_count(particle):
    noise = NoiseModel(4.0, 100.0, 1.0)
    counts = add_noise(noise.gain * ELECTRONS * (particle + 0.05) + 100.0, noise, seed=2)
    mask = np.ones(counts.shape, dtype=bool)
    mask[:, :, :30] = False
    expected = estimate_noise_model(counts, mask)
    counts[:, :, :30] = 1e6
    counts[0, 0, :40] = np.nan
    random = np.random.default_rng(0)
    hot = random.integers(40, 176, (2, 60))
    counts[1, hot[0], hot[1]] += 5000
    found = estimate_noise_model(counts, mask)
    assert found.gain == pytest.approx(expected.gain, rel=0.03)
    assert found.gain == pytest.approx(4.0, rel=0.05)


def test_estimate_noise_model__is_the_same_however_it_is_cut_up(particle):
    noise = NoiseModel(4.0, 100.0, 1.0)
    counts = add_noise(noise.gain * ELECTRONS * (particle[:3, :80] + 0.05) + 100.0, noise, seed=2)
    mask = np.ones(counts.shape, dtype=bool)
    mask[:, :4] = False
    expected = estimate_noise_model(counts, mask)
    lazy = xr.DataArray(da.from_array(counts, chunks=(2, 50, 176)), dims=("tilt", "y", "x"))
    assert estimate_noise_model(lazy, xr.DataArray(mask, dims=("tilt", "y", "x"))) == expected
    assert estimate_noise_model(counts[:, None], mask[:, None]) == expected


@pytest.mark.parametrize(
    ("images", "mask", "message"),
    [
        (np.ones((2, 40, 40)), None, "no noise|any noise"),
        (np.ones((2, 40, 40)), np.zeros((2, 40, 40), bool), "No image has"),
        (np.ones((2, 6, 6)), None, "No image has"),
        (np.ones((2, 40, 40)), np.ones((40, 40), bool), "mask of shape"),
        (np.ones(40), None, "needed is"),
    ],
)
def test_estimate_noise_model__refuses(images, mask, message):
    with pytest.raises(InputError, match=message):
        estimate_noise_model(images, mask)


def test_fit_line__is_not_led_astray_by_outliers():
    x = np.linspace(0, 100, 60)
    variance = 3 * x + 10
    variance[::10] *= 4
    slope, intercept = fit_line(x, variance, np.full(60, 1000.0))
    assert slope == pytest.approx(3, rel=0.02) and intercept == pytest.approx(10, rel=0.05)


def test_add_noise__has_the_mean_and_variance_of_the_model():
    noise = NoiseModel(4.0, 100.0, 3.0)
    counts = add_noise(np.full((2, 300, 300), 180.0), noise, seed=1)
    assert counts.mean() == pytest.approx(180, abs=0.3)
    assert counts.var() == pytest.approx(4 * 80 + 9, rel=0.02)
    assert counts.var() == pytest.approx(float(noise.variance(np.array(180.0))), rel=0.02)
    np.testing.assert_array_equal(add_noise(np.full((1, 300, 300), 180.0), noise, seed=1), counts[:1])
    assert (counts[0] != counts[1]).any()


def test_noise_model__of_a_mean_of_frames():
    noise = NoiseModel(4.0, 100.0, 3.0)
    frames = add_noise(np.full((8, 200, 200), 180.0), noise, seed=1)
    assert frames.mean(axis=0).var() == pytest.approx(float(noise.of_mean(8).variance(np.array(180.0))), rel=0.03)


def test_noise_model__refuses():
    for bad in ({"gain": -1.0}, {"gain": 1.0, "read_noise": -1.0}, {"gain": 1.0, "offset": np.nan}):
        with pytest.raises(InputError, match="needed is a finite number"):
            NoiseModel(**bad)
    with pytest.raises(InputError, match="tilt, y, x"):
        add_noise(np.ones((5, 5)), NoiseModel(1.0), seed=0)
