"""Least squares of all atoms: the exact solution, parameters that atoms share, bounds, and linear equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import least_squares

from aetdist.project.atoms import project_atoms
from aetdist.refine.descent import Bounds, Free, conjugate_gradients, inverse_bend, judged, steepest_descent
from aetdist.refine.imaging import fit_types
from aetdist.refine.series import Series
from aetdist.refine.sharing import Sharing, choose_sharing, spread_about, spread_of
from aetdist.refine.tilts import Model
from aetdist.refine.uncertainty import curved, solve_linear
from aetdist.simulate import nanoparticle, simulate_tilt_series

HEIGHTS, SIGMAS = np.array([1.0, 2.0]), np.array([0.55, 0.65])


@pytest.fixture(scope="module")
def case() -> tuple[xr.Dataset, Model, np.ndarray]:
    """Images without noise, the atoms in them, and their types."""
    atoms = nanoparticle(12.0, species=("Ni", "Pt"), seed=1)
    types = atoms["type"].values - 1
    series = simulate_tilt_series(
        atoms, np.linspace(-70, 70, 15), pixel_size=0.4, sigma=SIGMAS, heights=HEIGHTS, field=(44, 44)
    )
    return series.compute(), Model(atoms["position"].values, HEIGHTS[types], SIGMAS[types]), types


@pytest.fixture(scope="module")
def noisy(case: tuple[xr.Dataset, Model, np.ndarray]) -> Series:
    series = case[0].copy(deep=True)
    series["images"] += np.random.default_rng(3).normal(0, 0.3, series["images"].shape).astype(np.float32)
    series["mask"][4, :12] = False
    return Series.of(series)


def off(model: Model, distance: float, seed: int = 0) -> Model:
    """The atoms moved by so much in random directions."""
    away = np.random.default_rng(seed).normal(size=model.positions.shape)
    return model._replace(positions=model.positions + distance * away / np.linalg.norm(away, axis=1, keepdims=True))


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum((a - b) ** 2, axis=1))))


@pytest.mark.parametrize("own", [False, True])
def test_conjugate_gradients__reach_the_exact_solution(case: Any, own: bool) -> None:
    series, true, types = case
    n = len(types)
    images, start = Series.of(series), off(true, 0.1)._replace(heights=np.full(n, 1.4), sigmas=np.full(n, 0.6))
    free = Free(True, np.arange(n), np.arange(n)) if own else Free(True, types, types)
    found = conjugate_gradients(images, start, free, 200, tolerance=0.0)
    assert rms(start.positions, true.positions) == pytest.approx(0.1)
    assert rms(found.model.positions, true.positions) < 1e-4
    np.testing.assert_allclose(found.model.heights, true.heights, rtol=2e-3)
    np.testing.assert_allclose(found.model.sigmas, true.sigmas, rtol=1e-3)
    assert (np.diff(found.misfit) <= 0).all() and found.misfit[-1] < 1e-6 * found.misfit[0]
    assert found.r_factor.shape == (len(found.misfit), 15) and found.r_factor[-1].max() < 1e-3


def test_conjugate_gradients__only_what_is_free_changes(case: Any, noisy: Series) -> None:
    _, true, types = case
    for free in (Free(), Free(False, types), Free(False, None, types)):
        found = conjugate_gradients(noisy, off(true, 0.05), free, 3).model
        start = off(true, 0.05)
        assert (found.positions == start.positions).all() != free.positions
        assert (found.heights == start.heights).all() == (free.heights is None)
        assert (found.sigmas == start.sigmas).all() == (free.sigmas is None)
        for values in (found.heights, found.sigmas):
            assert all(np.ptp(values[types == kind]) < 1e-12 for kind in (0, 1))


def test_conjugate_gradients__shared_heights_equal_dense_least_squares(case: Any, noisy: Series) -> None:
    """Images are linear in the heights: one column for each type."""
    series, true, types = case
    model = off(true, 0.05)._replace(heights=np.ones(len(types)))
    images = np.concatenate([group.images for group in noisy.groups])
    known = np.concatenate([group.weights for group in noisy.groups]) > 0
    columns = [projected(series, model.select(types == kind))[known] for kind in (0, 1)]
    expected = np.linalg.lstsq(np.transpose(columns), images[known], rcond=None)[0]
    found = conjugate_gradients(noisy, model, Free(False, types), 60, tolerance=0.0).model
    np.testing.assert_allclose(found.heights, expected[types], rtol=1e-4)
    np.testing.assert_allclose(fit_types(noisy, model, types, widths=False, rounds=4)[0].heights, found.heights, 1e-4)


def test_conjugate_gradients__shared_heights_and_widths_equal_dense_least_squares(case: Any, noisy: Series) -> None:
    series, true, types = case
    model = off(true, 0.05)
    images = np.concatenate([group.images for group in noisy.groups])
    known = np.concatenate([group.weights for group in noisy.groups]) > 0

    def residual(p: np.ndarray) -> np.ndarray:
        return (projected(series, Model(model.positions, p[:2][types], p[2:][types])) - images)[known]

    expected = least_squares(residual, [1.5, 1.5, 0.6, 0.6], xtol=1e-10, ftol=1e-10).x
    start = Model(model.positions, np.full(len(types), 1.5), np.full(len(types), 0.6))
    found = conjugate_gradients(noisy, start, Free(False, types, types), 200, tolerance=0.0)
    np.testing.assert_allclose(found.model.heights, expected[:2][types], rtol=1e-3)
    np.testing.assert_allclose(found.model.sigmas, expected[2:][types], rtol=1e-3)
    typed, _ = fit_types(noisy, start, types, rounds=8)
    np.testing.assert_allclose(typed.heights, expected[:2][types], rtol=1e-3)
    np.testing.assert_allclose(typed.sigmas, expected[2:][types], rtol=1e-3)


def projected(series: xr.Dataset, model: Model) -> np.ndarray:
    return project_atoms(
        model.positions, series["angles"].values, heights=model.heights, sigmas=model.sigmas, pixel_size=0.4,
        x=series["x"].values, y=series["y"].values,
    )  # fmt: skip


@pytest.mark.parametrize("solver", [conjugate_gradients, steepest_descent])
def test_descent__no_atom_leaves_its_reach(case: Any, solver: Any) -> None:
    series, true, _ = case
    start = off(true, 0.3)
    found = solver(Series.of(series), start, Free(), 12, Bounds(start.positions, 0.06, np.inf)).model
    away = np.linalg.norm(found.positions - start.positions, axis=1)
    assert away.max() < 0.06 + 1e-12
    assert (away > 0.05).mean() > 0.5  # it would go further


def test_conjugate_gradients__the_prior_is_part_of_what_is_minimised(case: Any, noisy: Series) -> None:
    """At the minimum the gradient of the misfit is the pull back to the anchors."""
    _, true, _ = case
    anchor, prior = off(true, 0.1).positions, 0.03
    found = conjugate_gradients(noisy, off(true, 0.1), Free(), 200, Bounds(anchor, 1.0, prior), tolerance=0.0).model
    gradient = judged(noisy, found)[0][:, :3]
    back = -(found.positions - anchor) / prior**2
    np.testing.assert_allclose(gradient, back, atol=5e-3 * np.abs(back).max())
    far = conjugate_gradients(noisy, off(true, 0.1), Free(), 20, Bounds(anchor, 1.0, 10.0)).model
    assert rms(found.positions, anchor) < 0.8 * rms(far.positions, anchor)
    still = conjugate_gradients(noisy, off(true, 0.1), Free(), 20, Bounds(anchor, 1.0, 1e-4)).model
    assert rms(still.positions, anchor) < 1e-4


def test_conjugate_gradients__so_is_the_spread_of_heights_and_widths(case: Any, noisy: Series) -> None:
    """Each is drawn to the mean of its type, as the gradient says; what is shared is not."""
    _, true, types = case
    every, variance = np.arange(len(types)), np.array([0.02, 0.03]) ** 2
    bounds = Bounds(true.positions, 1.0, np.inf, spread_about(true, types, variance))
    found = conjugate_gradients(noisy, true, Free(True, every, every), 200, bounds, tolerance=0.0).model
    off_mean = np.log(np.stack([found.heights / true.heights, found.sigmas / true.sigmas], axis=1))
    back = -off_mean / variance
    np.testing.assert_allclose(judged(noisy, found)[0][:, 3:], back, atol=1e-2 * np.abs(back).max())
    loose = conjugate_gradients(noisy, true, Free(True, every, every), 60, bounds._replace(spread=None)).model
    assert np.log(found.heights / true.heights).std() < 0.7 * np.log(loose.heights / true.heights).std()
    assert (bounds.stiffness(Free(True, None, every))[3:] > 0).tolist() == [False, True]


def test_steepest_descent__lowers_the_misfit_more_slowly(case: Any) -> None:
    series, true, _ = case
    images, start = Series.of(series), off(true, 0.1)
    slow = steepest_descent(images, start, Free(), 15)
    fast = conjugate_gradients(images, start, Free(), 15)
    assert slow.misfit.shape == (16,) and slow.r_factor.shape == (16, 15)
    assert (np.diff(slow.misfit) <= 0).all()  # heavy atoms overlap here: the first step would go too far
    assert fast.misfit[-1] < slow.misfit[-1] < 0.05 * slow.misfit[0]
    assert rms(slow.model.positions, true.positions) < 0.04


def test_descent__no_iterations_and_a_start_far_off(case: Any) -> None:
    series, true, _ = case
    images = Series.of(series)
    for solver in (conjugate_gradients, steepest_descent):
        none = solver(images, true, Free(), 0)
        assert none.model is true and none.misfit.shape == (1,)
    far = conjugate_gradients(images, off(true, 0.8), Free(), 12)
    assert (np.diff(far.misfit) <= 0).all()  # what rose was taken back


def test_free__shares_gradients_and_counts_a_parameter_once() -> None:
    random = np.random.default_rng(0)
    gradient, labels = random.normal(size=(6, 5)), np.array([0, 1, 1, 0, 2, 1])
    free = Free(True, labels, None)
    shared = free.shared(gradient)
    for kind in range(3):
        np.testing.assert_allclose(shared[labels == kind, 3], gradient[labels == kind, 3].sum())
    assert (shared[:, 4] == 0).all() and (shared[:, :3] == gradient[:, :3]).all()
    per_type = np.array([gradient[labels == kind, 3].sum() for kind in range(3)])
    np.testing.assert_allclose(free.dot(shared, shared), np.sum(gradient[:, :3] ** 2) + per_type @ per_type)


@pytest.mark.parametrize("sharing", ["none", "types", "atoms"])
def test_solve_linear__equals_a_dense_solve(case: Any, noisy: Series, sharing: str) -> None:
    _, true, types = case
    few = np.arange(0, len(types), 4)  # apart, so that a few iterations are enough
    model, labels = true.select(few), np.unique(types[few], return_inverse=True)[1]
    n = len(few)
    free = {"none": Free(), "types": Free(True, labels, labels), "atoms": Free(True, np.arange(n), np.arange(n))}[
        sharing
    ]
    right = free.shared(np.random.default_rng(5).normal(size=(n, 5)))
    found = solve_linear(noisy, model, free, inverse_bend(noisy, model, free), right, iterations=12)
    spread = free_matrix(free, n)
    dense = np.array([
        np.asarray(sum(noisy.map(curved, model, column.reshape(n, 5)))).ravel() for column in np.eye(5 * n)
    ])  # fmt: skip
    np.testing.assert_allclose(dense, dense.T, atol=1e-5 * np.abs(dense).max())
    # Of all parameters: the normal matrix, its right side and the solution.
    counts = spread.sum(axis=0)
    reduced = np.linalg.solve(spread.T @ dense @ spread, spread.T @ right.ravel() / counts)
    np.testing.assert_allclose(found.ravel(), spread @ reduced, atol=2e-3 * np.abs(reduced).max())


def free_matrix(free: Free, n: int) -> np.ndarray:
    """Matrix (5 n, parameters) from the free parameters to those of every atom."""
    columns = [np.eye(5 * n)[5 * atom + axis] for atom in range(n) for axis in range(3)]
    for column, labels in ((3, free.heights), (4, free.sigmas)):
        for kind in range(0 if labels is None else labels.max() + 1):
            change = np.zeros((n, 5))
            change[labels == kind, column] = 1.0
            columns.append(change.ravel())
    return np.transpose(columns)


@pytest.mark.parametrize("truth", [0.0, 0.06])
def test_spread_of__is_that_of_the_atoms_beyond_the_noise(case: Any, truth: float) -> None:
    series, true, types = case
    random, every = np.random.default_rng(5), np.arange(len(types))
    model = true.changed(np.outer(random.normal(0, truth, len(types)), [0, 0, 0, 0, 1.0]))
    images = series.assign(images=series["images"].copy(data=projected(series, model)))
    images["images"] = (images["images"] + random.normal(0, 0.2, images["images"].shape)).astype(np.float32)
    weighted, own = Series.of(images), Sharing(True, True)
    for group in weighted.groups:
        group.weights[:] = 1 / 0.2**2
    free = conjugate_gradients(weighted, true, Free(True, every, every), 60).model
    first = spread_of(weighted, free, types, own)
    bounds = Bounds(true.positions, 1.0, np.inf, spread_about(free, types, first))
    expected = conjugate_gradients(weighted, free, Free(True, every, every), 60, bounds).model
    for variance in (first, spread_of(weighted, expected, types, own, first)):
        height, width = np.sqrt(variance)
        assert height < 0.05 and abs(width - truth) < 0.02
    assert np.abs(expected.sigmas / model.sigmas - 1).mean() < np.abs(free.sigmas / model.sigmas - 1).mean()


def test_choose_sharing__as_much_freedom_as_there_is(case: Any) -> None:
    series, true, types = case
    random = np.random.default_rng(4)
    chosen = {}
    for spread in (0.0, 0.1):
        model = true.changed(np.outer(random.normal(0, spread, len(types)), [0, 0, 0, 0, 1.0]))
        images = series.assign(images=series["images"].copy(data=projected(series, model)))
        images["images"] = (images["images"] + random.normal(0, 0.2, images["images"].shape)).astype(np.float32)
        weighted = Series.of(images)
        for group in weighted.groups:
            group.weights[:] = 1 / 0.2**2
        start = true._replace(positions=off(true, 0.02).positions)
        bounds = Bounds(true.positions, 1.0, np.inf)
        typed, _ = fit_types(weighted, start, types)
        chosen[spread], _ = choose_sharing(weighted, typed, types, "auto", "auto", bounds)
    assert not chosen[0.0].own_widths and not chosen[0.0].own_heights
    assert chosen[0.1].own_widths
