"""Projections of atoms and their derivatives against plain numpy, and what a series makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from aetdist.project.atoms import project_atoms
from aetdist.refine._kernels import CUTOFF, curvature, pull, push
from aetdist.refine.descent import judged
from aetdist.refine.series import Series
from aetdist.refine.tilts import Model, bend, itself, steepness
from aetdist.simulate import simulate_tilt_series

SHAPE = (30, 34)
PAIRS = [(p, q) for p in range(4) for q in range(p, 4)]  # xx, xy, xh, xs, yy, ...


def atoms_of(seed: int, n: int = 9, margin: float = 3.0) -> tuple[np.ndarray, ...]:
    """x, y, ln H, ln s of atoms on the image and beyond its edges."""
    random = np.random.default_rng(seed)
    x, y = (random.uniform(-margin, size + margin, n) for size in SHAPE[::-1])
    return x, y, random.normal(1.0, 0.3, n), np.log(random.uniform(0.8, 2.2, n))


def taken(x: np.ndarray, y: np.ndarray, h: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arguments of the kernels: positions, amplitude and width."""
    return x, y, np.sqrt(2 * np.pi) * np.exp(h + s), np.exp(s)


def plain(parameters: np.ndarray) -> np.ndarray:
    """Projection of one atom, all of it, (y, x) float64."""
    x, y, h, s = parameters
    j, i = np.indices(SHAPE)
    return np.sqrt(2 * np.pi) * np.exp(h + s) * np.exp(-0.5 * ((i - x) ** 2 + (j - y) ** 2) / np.exp(2 * s))


def within(parameters: np.ndarray) -> np.ndarray:
    """Pixels that the kernels reach."""
    x, y, _, s = parameters
    j, i = np.indices(SHAPE)
    return (np.abs(i - x) <= CUTOFF * np.exp(s)) & (np.abs(j - y) <= CUTOFF * np.exp(s))


def derivatives(parameters: np.ndarray) -> np.ndarray:
    """Central differences of one atom's projection by x, y, ln H, ln s, (4, y, x)."""
    step = 1e-5 * np.eye(4)
    return np.array([(plain(parameters + e) - plain(parameters - e)) / 2e-5 for e in step]) * within(parameters)


def test_push__the_projection_itself() -> None:
    atoms = atoms_of(0)
    image = np.zeros(SHAPE, np.float32)
    push(*taken(*atoms), itself(9), image)
    expected = sum(plain(p) * within(p) for p in np.transpose(atoms))
    np.testing.assert_allclose(image, expected, atol=2e-6 * expected.max())


def test_push__changes_are_derivatives() -> None:
    atoms, change = atoms_of(1), np.random.default_rng(1).normal(size=(9, 4))
    image = np.ones(SHAPE, np.float32)  # is added to
    push(*taken(*atoms), change, image)
    expected = sum(np.tensordot(c, derivatives(p), 1) for c, p in zip(change, np.transpose(atoms), strict=True))
    np.testing.assert_allclose(image - 1, expected, atol=3e-6 * np.abs(expected).max())


def test_pull__sums_of_an_image_times_derivatives() -> None:
    atoms, image = atoms_of(2), np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    out = np.full((9, 4), np.nan)
    pull(*taken(*atoms), image, out)
    expected = np.array([np.tensordot(derivatives(p), image, 2) for p in np.transpose(atoms)])
    np.testing.assert_allclose(out, expected, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(5))
def test_pull__is_the_adjoint_of_push(seed: int) -> None:
    random = np.random.default_rng(seed)
    atoms, change = taken(*atoms_of(seed, 40)), random.normal(size=(40, 4))
    image, pushed, pulled = random.normal(size=SHAPE).astype(np.float32), np.zeros(SHAPE, np.float32), np.zeros((40, 4))
    push(*atoms, change, pushed)
    pull(*atoms, image, pulled)
    size = np.linalg.norm(pushed.astype(np.float64)) * np.linalg.norm(image.astype(np.float64))
    assert abs(np.vdot(pushed.astype(np.float64), image) - np.vdot(change, pulled)) < 1e-6 * size  # of float32


def test_curvature__weighted_products_of_derivatives() -> None:
    atoms, weights = atoms_of(3), np.random.default_rng(3).uniform(0, 2, SHAPE).astype(np.float32)
    weights[4:9, 10:20] = 0.0
    out = np.full((9, 10), np.nan)
    curvature(*taken(*atoms), weights, out)
    for row, parameters in zip(out, np.transpose(atoms), strict=True):
        d = derivatives(parameters)
        expected = [np.sum(weights * d[p] * d[q]) for p, q in PAIRS]
        np.testing.assert_allclose(row, expected, atol=3e-6 * max(np.abs(expected).max(), 1e-3))


@pytest.mark.parametrize("place", [(-40.0, 10.0), (90.0, 10.0), (10.0, -1e4), (10.0, 60.0), (1e6, 1e6)])
def test_kernels__an_atom_off_the_image(place: tuple[float, float]) -> None:
    atom = taken(*(np.array([v]) for v in (*place, 0.0, 0.5)))
    image, out, products = np.full(SHAPE, 3.0, np.float32), np.full((1, 4), np.nan), np.full((1, 10), np.nan)
    push(*atom, np.ones((1, 4)), image)
    assert (image == 3.0).all()
    pull(*atom, image, out)
    curvature(*atom, image, products)
    assert (out == 0).all() and (products == 0).all()


def test_kernels__no_atoms() -> None:
    none, image = np.zeros(0), np.full(SHAPE, 3.0, np.float32)
    push(none, none, none, none, np.zeros((0, 4)), image)
    pull(none, none, none, none, image, np.zeros((0, 4)))
    curvature(none, none, none, none, image, np.zeros((0, 10)))
    assert (image == 3.0).all()


def test_kernels__a_narrow_and_a_wide_atom() -> None:
    """Samples are products of their neighbours: rounding must not pile up along a long row, nor overflow in a short."""
    for s in (0.05, 0.3, 30.0):
        parameters = np.array([15.2, 14.6, 0.3, np.log(s)])
        image = np.zeros(SHAPE, np.float32)
        push(*taken(*parameters[:, None]), itself(1), image)
        expected = plain(parameters) * within(parameters)
        np.testing.assert_allclose(image, expected, rtol=1e-6, atol=1e-6 * plain(parameters).max() + 1e-30)


# -- groups of tilts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case() -> tuple[Series, Model, xr.Dataset]:
    """A series whose tilts, shifts of the field, mask and weights are uneven, and a model that is off."""
    random = np.random.default_rng(7)
    positions = random.uniform(-5, 5, (12, 3))
    atoms = xr.Dataset({"position": (("atom", "axis"), positions)})
    angles = np.stack([random.normal(0, 4, 7), np.linspace(-70, 70, 7), random.normal(0, 4, 7)], axis=1)
    series = simulate_tilt_series(
        atoms, angles, pixel_size=0.4, sigma=0.6, field=(40, 36), field_center=(0.7, -0.3), dose=1e4, seed=1
    ).compute()
    series["mask"][2, :, :9] = False
    series["mask"][5] = False
    model = Model(positions + random.normal(0, 0.1, (12, 3)), random.uniform(0.7, 1.3, 12), np.full(12, 0.65))
    return Series.of(series), model, series


def changed(model: Model, atom: int, column: int, step: float) -> Model:
    change = np.zeros((len(model.heights), 5))
    change[atom, column] = step
    return model.changed(change)


def test_predicted__equals_project_atoms(case: tuple[Series, Model, xr.Dataset]) -> None:
    images, model, series = case
    predicted = np.array([group.predicted(t, model) for group in images.groups for t in range(len(group.numbers))])
    expected = project_atoms(
        model.positions, series["angles"].values, heights=model.heights, sigmas=model.sigmas, pixel_size=0.4,
        x=series["x"].values, y=series["y"].values,
    )  # fmt: skip
    np.testing.assert_allclose(predicted, expected, atol=3e-6 * expected.max())


def test_judged__misfit_and_r_over_measured_pixels(case: tuple[Series, Model, xr.Dataset]) -> None:
    images, model, series = case
    _, r_factor, misfit = judged(images, model)
    expected = project_atoms(
        model.positions, series["angles"].values, heights=model.heights, sigmas=model.sigmas, pixel_size=0.4,
        x=series["x"].values, y=series["y"].values,
    )  # fmt: skip
    known, measured = series["mask"].values, series["images"].values.astype(np.float64)
    left = np.where(known, expected - measured, 0.0)
    np.testing.assert_allclose(misfit, np.sum(left**2), rtol=1e-5)
    seen = [0, 1, 2, 3, 4, 6]
    r = np.abs(left).sum(axis=(1, 2))[seen] / np.where(known, np.abs(measured), 0).sum(axis=(1, 2))[seen]
    np.testing.assert_allclose(r_factor[seen], r, rtol=1e-5)
    assert np.isnan(r_factor[5])  # nothing was measured there


@pytest.mark.parametrize("column", range(5), ids=["x", "y", "z", "ln_H", "ln_sigma"])
def test_judged__gradient_equals_finite_differences(case: tuple[Series, Model, xr.Dataset], column: int) -> None:
    images, model, _ = case
    gradient = judged(images, model)[0]
    step = 4e-3  # large beside the rounding of float32; fourth order, so that it is small beside the atoms
    expected = []
    for atom in range(len(model.heights)):
        far, near = (
            judged(images, changed(model, atom, column, h))[2] - judged(images, changed(model, atom, column, -h))[2]
            for h in (2 * step, step)
        )
        expected.append(0.5 * (8 * near - far) / (12 * step))
    np.testing.assert_allclose(gradient[:, column], expected, atol=3e-4 * np.abs(gradient[:, column]).max())


def test_bend__equals_steepness_and_finite_differences_of_the_images(case: tuple[Series, Model, xr.Dataset]) -> None:
    images, model, _ = case
    blocks: Any = sum(images.map(bend, model))
    np.testing.assert_allclose(blocks, np.swapaxes(blocks, 1, 2), rtol=1e-12)
    random = np.random.default_rng(0)
    for atom in (0, 5):
        change = np.zeros((12, 5))
        change[atom] = random.normal(size=5)
        along = sum(images.map(steepness, model, change))
        np.testing.assert_allclose(change[atom] @ blocks[atom] @ change[atom], along, rtol=1e-5)
        square = 0.0
        for group in images.groups:
            for t, weights in enumerate(group.weights):
                ahead, behind = (
                    group.predicted(t, model.changed(h * change)).astype(np.float64) for h in (2e-3, -2e-3)
                )
                square += float(np.sum(weights * ((ahead - behind) / 4e-3) ** 2))
        np.testing.assert_allclose(along, square, rtol=2e-3)
