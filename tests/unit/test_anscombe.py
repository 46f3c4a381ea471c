from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.preprocess.anscombe import anscombe, clamped, inverse_anscombe
from aetdist.preprocess.noise import NoiseModel

SAMPLES = 400_000


def counts_of(electrons, noise, seed=0):
    random = np.random.default_rng(seed)
    return noise.gain * random.poisson(electrons, SAMPLES) + noise.offset + random.normal(0, noise.read_noise, SAMPLES)


@pytest.mark.parametrize("read_noise", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("electrons", [0.5, 1.0, 3.0, 10.0, 150.0, 260.0])
def test_inverse_anscombe__is_unbiased(electrons, read_noise):
    """The inverse of the transform's mean is the mean, to 1 %, whatever gain and offset."""
    noise = NoiseModel(2.5, 40.0, 2.5 * read_noise)
    mean = anscombe(counts_of(electrons, noise), noise).mean()
    assert inverse_anscombe(mean, noise) - noise.offset == pytest.approx(2.5 * electrons, rel=0.01)


def test_inverse_anscombe__algebraic_inverse_is_biased():
    """What the exact inverse is for: (D / 2)^2 - 3 / 8 misses a mean of 1 by more than 15 %."""
    noise = NoiseModel(1.0)
    mean = anscombe(counts_of(1.0, noise), noise).mean()
    assert (mean / 2) ** 2 - 0.375 < 0.85


@pytest.mark.parametrize(("electrons", "read_noise"), [(4.0, 0.0), (20.0, 0.0), (100.0, 1.0), (1.0, 1.0), (0.0, 3.0)])
def test_anscombe__makes_the_variance_one(electrons, read_noise):
    noise = NoiseModel(3.0, -10.0, 3.0 * read_noise)
    assert anscombe(counts_of(electrons, noise), noise).std() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("read_noise", [0.0, 1.3])
def test_inverse_anscombe__rises_without_a_step(read_noise):
    """Through the ends of the table too."""
    values = np.linspace(-1, 40, 20001)
    steps = np.diff(inverse_anscombe(values, NoiseModel(1.0, 0.0, read_noise)))
    assert (steps > 0).all() and steps.max() < 0.05


def test_inverse_anscombe__of_many_electrons_is_the_expansion():
    values = 2 * np.sqrt(np.array([250.0, 1e4]) + 0.375)
    np.testing.assert_allclose(inverse_anscombe(values, NoiseModel(1.0)), [250.25, 10000.25], rtol=1e-5)


def test_anscombe__without_gain_is_a_scale():
    noise = NoiseModel(0.0, 5.0, 2.0)
    counts = np.array([[1.0, 5.0], [9.0, -3.0]])
    np.testing.assert_allclose(anscombe(counts, noise), (counts - 5) / 2)
    np.testing.assert_allclose(inverse_anscombe(anscombe(counts, noise), noise), counts)
    assert not clamped(counts, noise).any()


def test_anscombe__takes_counts_far_below_the_offset_for_zero():
    noise = NoiseModel(2.0, 10.0, 0.0)
    counts = np.array([-np.inf, 0.0, 9.0, 9.3, 10.0])
    assert clamped(counts, noise).tolist() == [True, True, True, False, False]
    assert anscombe(counts, noise)[:3].tolist() == [0, 0, 0]
    # What read noise explains is no reason to warn.
    assert clamped(np.array([-1.0, 3.0]), NoiseModel(2.0, 10.0, 2.0)).tolist() == [True, False]


def test_anscombe__refuses_a_model_without_noise():
    for function in (anscombe, inverse_anscombe):
        with pytest.raises(InputError, match="no noise"):
            function(np.zeros(3), NoiseModel(0.0))
