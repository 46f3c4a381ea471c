"""Error bars against errors of many noises, and probabilities against counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from aetdist.refine.descent import Free, conjugate_gradients, judged
from aetdist.refine.series import Series
from aetdist.refine.tilts import Model, bend
from aetdist.refine.types import Mixture
from aetdist.refine.uncertainty import noise_gradient, position_error, probabilities, score_products
from aetdist.simulate import nanoparticle, simulate_tilt_series

NOISE = 0.3


@pytest.fixture(scope="module")
def case() -> tuple[xr.Dataset, Model]:
    """Images without noise, of which each lacks other pixels, and the atoms in them."""
    atoms = nanoparticle(13.0, species=("Ni",), seed=2)
    series = simulate_tilt_series(
        atoms, np.linspace(-70, 70, 21), pixel_size=0.4, sigma=0.6, heights=1.0, field=(44, 44)
    ).compute()
    for t in range(21):
        series["mask"][t, 2 * t : 2 * t + 5, 5:30] = False
    n = atoms.sizes["atom"]
    return series, Model(atoms["position"].values, np.ones(n), np.full(n, 0.6))


def with_noise(series: xr.Dataset, seed: int, sigma: float = NOISE) -> Series:
    """The series with white noise, weighted by it."""
    noise = np.random.default_rng(seed).normal(0, sigma, series["images"].shape)
    images = Series.of(series.assign(images=series["images"] + noise.astype(np.float32)))
    for group in images.groups:
        group.weights[:] /= sigma**2
    return images


def fitted(series: xr.Dataset, true: Model, free: Free, seed: int) -> tuple[Series, Model]:
    images = with_noise(series, seed)
    return images, conjugate_gradients(images, true, free, 60, tolerance=1e-9).model


@pytest.mark.parametrize("own", [False, True])
def test_position_error__is_that_of_many_noises(case: Any, own: bool) -> None:
    series, true = case
    n = len(true.heights)
    labels = np.arange(n) if own else np.zeros(n, dtype=int)
    free, errors, sigmas = Free(True, labels, labels if own else None), [], []
    for seed in range(6):
        images, model = fitted(series, true, free, seed)
        found = position_error(images, model, free, seed, np.zeros((n, 3)))
        errors.append(model.positions - true.positions)
        sigmas.append(found.sigma)
        assert (found.crowding > 0.95).all() and found.cramer_rao > 0
        np.testing.assert_allclose(found.tilts, 1.0, atol=0.2)  # noise is all that they disagree by
    rms, said = (np.sqrt(np.mean(np.square(v), axis=(0, 1))) for v in (errors, sigmas))
    np.testing.assert_allclose(said, rms, rtol=0.1)  # along x, y and z
    assert rms[2] > rms[1]  # no tilt looks along x
    assert np.abs(np.array(errors) / sigmas).max() < 8.0


def test_position_error__cramer_rao_of_one_atom_is_the_inverse_of_the_fisher_matrix() -> None:
    position = np.array([[0.3, -0.2, 0.4]])
    atoms = xr.Dataset({"position": (("atom", "axis"), position)})
    series = simulate_tilt_series(atoms, np.linspace(-60, 60, 9), pixel_size=0.4, sigma=0.6, field=(24, 24)).compute()
    model = Model(position, np.ones(1), np.full(1, 0.6))
    images = with_noise(series, 0)
    fisher, step = np.zeros((3, 3)), 1e-3
    for group in images.groups:
        for t in range(len(group.numbers)):
            d = [
                (group.predicted(t, model._replace(positions=position + e)).astype(np.float64)
                 - group.predicted(t, model._replace(positions=position - e))) / (2 * step)
                for e in step * np.eye(3)
            ]  # fmt: skip
            fisher += np.einsum("ayx,byx->ab", d, d) / NOISE**2
    found = position_error(images, model, Free(), 0, np.zeros((1, 3)))
    assert found.cramer_rao == pytest.approx(np.sqrt(np.trace(np.linalg.inv(fisher))), rel=5e-3)


def test_position_error__shrinks_with_the_noise_and_grows_with_the_frame(case: Any) -> None:
    series, true = case
    n = len(true.heights)
    loud, quiet = (
        position_error(with_noise(series, 0, sigma), true, Free(), 0, np.zeros((n, 3))) for sigma in (0.2, 0.05)
    )
    np.testing.assert_allclose(loud.sigma / quiet.sigma, 4.0, rtol=1e-2)
    assert loud.cramer_rao == pytest.approx(4 * quiet.cramer_rao, rel=1e-4)
    framed = position_error(with_noise(series, 0, 0.2), true, Free(), 0, np.full((n, 3), 0.03**2))
    np.testing.assert_allclose(framed.sigma, np.hypot(loud.sigma, 0.03))


def test_position_error__tilts_that_disagree_are_seen(case: Any) -> None:
    series, true = case
    off = series.copy(deep=True)
    for t in range(series.sizes["tilt"]):
        off["images"][t] = np.roll(series["images"].values[t], (-1) ** t, axis=1)
    n = len(true.heights)
    still, shaken = (position_error(with_noise(s, 0), true, Free(), 0, np.zeros((n, 3))) for s in (series, off))
    assert (still.tilts < 1.5).all()
    assert shaken.tilts[0] > max(2 * shaken.tilts[1], 5.0)  # along x they disagree more than along y
    assert (shaken.sigma[:, 0] > still.sigma[:, 0]).mean() > 0.9


def test_position_error__depends_on_the_seed_alone(case: Any) -> None:
    series, true = case
    zero = np.zeros((len(true.heights), 3))
    images = with_noise(series, 0)
    a, b, other = (position_error(images, true, Free(), seed, zero) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.sigma, b.sigma)
    assert not (a.sigma == other.sigma).all()
    np.testing.assert_allclose(a.sigma, other.sigma, rtol=0.15)


@pytest.mark.parametrize("workers", [1, 2])
def test_position_error__is_the_same_for_any_number_of_workers(case: Any, workers: int) -> None:
    series, true = case
    zero = np.zeros((len(true.heights), 3))
    here = position_error(Series.of(series), true, Free(), 3, zero)
    with Client(n_workers=workers, threads_per_worker=1, processes=False, dashboard_address=None):
        there = position_error(Series.of(series.chunk({"tilt": 1})), true, Free(), 3, zero)
    np.testing.assert_array_equal(there.sigma, here.sigma)
    np.testing.assert_array_equal(there.crowding, here.crowding)
    assert there.cramer_rao == here.cramer_rao


def test_noise_gradient__has_the_covariance_of_the_normal_matrix(case: Any) -> None:
    """J^T W e with e of the covariance W^-1: its own covariance is J^T W J; so is the mean of the scores' products."""
    series, true = case
    images = with_noise(series, 0)
    gradients = np.array([sum(images.map(noise_gradient, true, (7, i))) for i in range(40)])
    expected = np.einsum("nii->ni", np.asarray(sum(images.map(bend, true))))
    np.testing.assert_allclose(np.mean(gradients**2 / expected, axis=(0, 1)), 1.0, atol=0.12)
    assert abs(np.mean(gradients / np.sqrt(expected))) < 0.05
    products = np.asarray(sum(images.map(score_products, true)))
    np.testing.assert_allclose(products, np.swapaxes(products, 1, 2))
    np.testing.assert_allclose(np.mean(np.einsum("nii->ni", products) / expected[:, :3], axis=0), 1.0, atol=0.15)


def test_score_products__scores_add_up_to_the_gradient(case: Any) -> None:
    series, true = case
    images = with_noise(series, 0)
    for tilt in range(3):
        one = Series.of(series.isel(tilt=[tilt]))
        one.groups[0].images[:] = images.groups[0].images[tilt]
        one.groups[0].weights[:] = images.groups[0].weights[tilt]
        (product,) = one.map(score_products, true)
        score = judged(one, true)[0][:, :3]
        np.testing.assert_allclose(product, score[:, :, None] * score[:, None], atol=1e-4 * np.abs(product).max())


# -- probabilities -------------------------------------------------------------------------------------

MIXTURE = Mixture(np.array([0.6, 0.4]), np.array([1.0, 1.5]), np.array([0.12, 0.15]))


def test_probabilities__are_how_often_it_is_true() -> None:
    """Of heights drawn from the mixture and from what is no atom, as many are atoms as is said."""
    random = np.random.default_rng(0)
    n = 400_000
    types = random.choice(2, n, p=MIXTURE.parts)
    heights = random.normal(MIXTURE.means[types], MIXTURE.spreads[types])
    rejected = np.abs(random.normal(0, 0.4, n // 2))
    whole = np.concatenate([heights, rejected])
    atom, kinds = probabilities(whole, MIXTURE, rejected)
    # It takes the number of heights for that of the atoms.
    odds = atom / (1 - atom + 1e-300) * n / len(whole)
    atom = odds / (1 + odds)
    true = np.arange(len(whole)) < n
    for low in (0.05, 0.3, 0.5, 0.7, 0.9):
        some = (atom > low) & (atom < low + 0.1)
        assert some.sum() > 1000
        assert true[some].mean() == pytest.approx(atom[some].mean(), abs=0.03)
        some = (kinds[:n, 0] > low) & (kinds[:n, 0] < low + 0.1)
        assert (types[some] == 0).mean() == pytest.approx(kinds[:n, 0][some].mean(), abs=0.03)


def test_probabilities__far_from_every_type() -> None:
    heights = np.array([-3.0, 0.0, 0.2, 1.0, 1.5, 9.0, 1e6])
    atom, kinds = probabilities(heights, MIXTURE, np.array([0.1, 0.05, -0.1]))
    assert np.isfinite(atom).all() and ((atom >= 0) & (atom <= 1)).all()
    assert atom[1] < 0.01 and atom[2] < 0.5 and (atom[3:5] > 0.99).all()
    assert kinds.argmax(axis=1).tolist() == [0, 0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(kinds.argmax(axis=1), MIXTURE.types(heights))
    np.testing.assert_allclose(kinds.sum(axis=1), 1.0)
    atom, _ = probabilities(heights, MIXTURE, np.zeros(0))  # nothing was looked at and rejected
    np.testing.assert_array_equal(atom, 1.0)


def test_probabilities__between_narrow_types_and_a_wide_one() -> None:
    narrow = Mixture(np.array([0.5, 0.5]), np.array([1.0, 4.0]), np.array([0.01, 0.02]))
    atom, kinds = probabilities(np.array([1.9, 3.0]), narrow, np.zeros(0))
    assert np.isfinite(kinds).all() and np.isfinite(atom).all()
    wide = Mixture(np.array([0.5, 0.5]), np.array([1.0, 2.2]), np.array([0.05, 0.4]))
    atom, kinds = probabilities(np.array([0.5, 5.0]), wide, np.array([0.1]))
    assert kinds.argmax(axis=1).tolist() == wide.types(np.array([0.5, 5.0])).tolist() == [0, 1]
