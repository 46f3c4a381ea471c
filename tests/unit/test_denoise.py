from __future__ import annotations

import dask
import numpy as np
import pytest

import aetdist as aet
from aetdist.errors import AetdistWarning, InputError
from aetdist.preprocess.bm3d import BM3DParameters
from aetdist.preprocess.denoise import denoise, denoise_image, warn_of_clamped
from aetdist.preprocess.noise import NoiseModel, add_noise
from aetdist.preprocess.sweep import choose_parameters

NOISE = NoiseModel(4.0, 100.0, 4.0)
SMALL = BM3DParameters(search=15, hard_matches=8, wiener_matches=16)


@pytest.fixture(scope="module")
def clean():
    """A series of mean counts, 100 electrons in an average pixel, 1 in the vacuum."""
    atoms = aet.nanoparticle(8.0, seed=2)
    series = aet.simulate_tilt_series(atoms, [-40.0, 0.0, 30.0], pixel_size=0.35, field=(72, 64)).compute()
    electrons = 100 * series["images"] / series.attrs["simulation_average_intensity"] + 1
    return series.assign(images=(NOISE.gain * electrons + NOISE.offset).astype(np.float32))


@pytest.fixture(scope="module")
def noisy(clean):
    return clean.assign(images=(clean["images"].dims, add_noise(clean["images"], NOISE, seed=1)))


def rms(a, b):
    return float(np.sqrt(np.mean((np.asarray(a, dtype=float) - np.asarray(b)) ** 2)))


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def test_denoise__is_nearer_to_the_clean_images(clean, noisy):
    found = denoise(noisy, NOISE)
    assert found["images"].dtype == np.float32 and found["images"].dims == ("tilt", "y", "x")
    for tilt in range(3):
        truth, before, after = (s["images"].values[tilt] for s in (clean, noisy, found))
        assert rms(after, truth) < 0.7 * rms(before, truth)
        assert correlation(after, truth) > correlation(before, truth)
        assert after.mean() == pytest.approx(before.mean(), rel=2e-3)  # no bias
    assert found.attrs["noise_gain"] == 4.0 and found.attrs["denoise_search"] == 39


def test_denoise__vacuum_of_few_electrons_has_no_bias():
    noise = NoiseModel(1.0, 10.0, 0.5)
    counts = add_noise(np.full((1, 96, 96), 10.7), noise, seed=0)[0]
    assert denoise_image(counts, noise, parameters=SMALL).mean() - 10 == pytest.approx(0.7, abs=0.03)


def test_denoise__takes_the_noise_from_the_attributes(noisy):
    recorded = noisy.assign_attrs(noise_gain=4.0, noise_offset=100.0, noise_read_noise=4.0)
    one, other = (s.isel(tilt=[0]) for s in (recorded, noisy))
    np.testing.assert_array_equal(
        denoise(one, parameters=SMALL)["images"], denoise(other, NOISE, parameters=SMALL)["images"]
    )
    with pytest.raises(InputError, match="noise_gain"):
        denoise(noisy)


@pytest.mark.parametrize("chunks", [{"tilt": 1}, {"tilt": 3, "y": 20, "x": 50}])
@pytest.mark.parametrize("workers", [1, 2])
def test_denoise__is_the_same_however_it_is_cut_up(noisy, chunks, workers):
    expected = denoise(noisy, NOISE, parameters=SMALL)
    lazy = denoise(noisy.chunk(chunks), NOISE, parameters=SMALL)
    with dask.config.set(scheduler="threads", num_workers=workers):
        found = lazy.compute()
    np.testing.assert_array_equal(found["images"], expected["images"])
    np.testing.assert_array_equal(found["clamped_pixels"], expected["clamped_pixels"])


def test_denoise__unmeasured_pixels_change_nothing_and_stay(noisy):
    mask = noisy["mask"].values.copy()
    mask[:, :, :9] = False
    mask[1, 20:30, 40:] = False
    mask[2] = False
    results = []
    for junk in (0.0, -1e6, np.nan):
        images = np.where(mask, noisy["images"].values, np.float32(junk))
        series = noisy.assign(images=(noisy["images"].dims, images), mask=(noisy["mask"].dims, mask))
        results.append(denoise(series, NOISE, parameters=SMALL)["images"].values)
        np.testing.assert_array_equal(results[-1][~mask], images[~mask])
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][mask], other[mask])


def test_denoise__without_noise_is_the_identity(clean):
    images = clean["images"].values[0]
    np.testing.assert_array_equal(denoise_image(images, NoiseModel(0.0)), images)
    assert rms(denoise_image(images, NoiseModel(0.0, 0.0, 1e-3), parameters=SMALL), images) < 1e-3


def test_denoise__counts_what_the_transform_clamps(noisy):
    images = noisy["images"].values.copy()
    images[1, :2, :5] = -50.0
    series = noisy.assign(images=(noisy["images"].dims, images)).isel(tilt=[0, 1])
    with pytest.warns(AetdistWarning, match="10 of 9216 pixels .most in tilt 1: 10"):
        found = denoise(series, NOISE, parameters=SMALL)
    assert found["clamped_pixels"].values.tolist() == [0, 10]
    assert np.isfinite(found["images"].values).all()
    lazy = denoise(series.chunk(tilt=1), NOISE, parameters=SMALL)
    with pytest.warns(AetdistWarning, match="took them for its zero"):
        warn_of_clamped(lazy["clamped_pixels"], 9216)


def test_denoise__refuses(noisy):
    with pytest.raises(InputError, match="7 x 72"):
        denoise(noisy.isel(y=slice(7)), NOISE)
    with pytest.raises(InputError, match="mask"):
        denoise(noisy.drop_vars("mask"), NOISE)
    bad = noisy["images"].copy(deep=True)
    bad[0, 3, 3] = np.nan
    with pytest.raises(InputError, match="1 of"):
        denoise(noisy.assign(images=bad), NOISE)


def test_choose_parameters__takes_the_largest_correlation_and_keeps_the_table(clean):
    candidates = {"strength": (0.3, 1.0, 6.0), "transform": ("bior1.5", "dct")}
    best, table = choose_parameters(clean["images"][:2], NOISE, candidates=candidates, parameters=SMALL, seed=4)
    assert table["correlation"].dims == ("strength", "transform", "tilt") and table["correlation"].shape == (3, 2, 2)
    mean = table["correlation"].mean("tilt")
    assert float(mean.sel(strength=best.strength, transform=best.transform)) == float(mean.max())
    assert best.strength == 1.0 and best.search == SMALL.search
    assert (mean.max() > table["noisy_correlation"].mean()).item()
    assert (table["rms_error"].min() < table["noisy_rms_error"].min()).item()
    assert table.attrs["chosen_strength"] == 1.0 and table.attrs["noise_gain"] == 4.0 and table.attrs["seed"] == 4
    # A candidate's row is what that candidate alone gives.
    noisy = add_noise(clean["images"][:2], NOISE, seed=4)
    alone = denoise_image(noisy[1], NOISE, parameters=best)
    row = table["correlation"].sel(strength=best.strength, transform=best.transform)
    assert float(row[1]) == pytest.approx(correlation(alone, clean["images"][1]), abs=1e-6)


@pytest.mark.parametrize(
    ("images", "candidates", "message"),
    [
        (np.ones((8, 8)), {"strength": [1.0]}, "tilt, y, x"),
        (np.ones((1, 16, 16)), {"strength": [1.0]}, "constant"),
        (np.eye(16)[None], {"strengths": [1.0]}, "strengths"),
        (np.eye(16)[None], {"strength": []}, "at least one"),
        (np.eye(16)[None], {"search": [4]}, "odd"),
    ],
)
def test_choose_parameters__refuses(images, candidates, message):
    with pytest.raises(InputError, match=message):
        choose_parameters(images, NOISE, candidates=candidates)
