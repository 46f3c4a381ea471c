"""What atoms share, brightness, noise, tails, background and motion of the tilts: each as it was simulated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage
from scipy.spatial.transform import Rotation

from aetdist.geometry import centred_coordinates, euler_from_matrices, matrices_from_euler, remove_common_motion
from aetdist.project.atoms import project_atoms
from aetdist.refine.imaging import fit_gains, fit_noise, fit_types, with_gains
from aetdist.refine.motion import Motion, Tilts, fit_motion, moved
from aetdist.refine.results import difference_map, r_factor
from aetdist.refine.series import Series
from aetdist.refine.tails import Tails, less_background, shown, without_tails
from aetdist.refine.tilts import Model
from aetdist.schema import EULER
from aetdist.simulate import nanoparticle

PIXEL, N = 0.4, 48
HEIGHTS, SIGMAS = np.array([1.0, 2.2]), np.array([0.55, 0.62])
ANGLES = np.outer(np.linspace(-72, 72, 15), [0.0, 1.0, 0.0])


@pytest.fixture(scope="module")
def true() -> tuple[Model, np.ndarray]:
    """Atoms and their types."""
    atoms = nanoparticle(14.0, species=("Ni", "Pt"), seed=1)
    types = atoms["type"].values - 1
    return Model(atoms["position"].values, HEIGHTS[types], SIGMAS[types]), types


def images_of(model: Model, angles: np.ndarray = ANGLES, shifts: np.ndarray | None = None) -> np.ndarray:
    """Images without noise, each moved by `shifts` (tilt, [y, x]) pixels, float64."""
    shifts = np.zeros((len(angles), 2)) if shifts is None else shifts
    x = centred_coordinates(N, PIXEL)
    return np.concatenate([
        project_atoms(
            model.positions, angles[[t]], heights=model.heights, sigmas=model.sigmas, pixel_size=PIXEL,
            x=x - dx * PIXEL, y=x - dy * PIXEL,
        ) for t, (dy, dx) in enumerate(shifts)
    ])  # fmt: skip


def as_series(images: np.ndarray, mask: np.ndarray | None = None) -> xr.Dataset:
    """TILT_SERIES of images at the angles that are believed."""
    x = centred_coordinates(N, PIXEL)
    return xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool) if mask is None else mask),
            "angles": (("tilt", "euler"), ANGLES),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(ANGLES)),
            "pixel_size": ((), PIXEL),
        },
        {"tilt": np.arange(len(ANGLES)), "y": x, "x": x, "euler": list(EULER)},
    )


def noisy(images: np.ndarray, gain: float, floor: float, seed: int = 0) -> np.ndarray:
    """With normal noise of the variance gain * intensity + floor."""
    return images + np.random.default_rng(seed).normal(size=images.shape) * np.sqrt(gain * images + floor)


def joined(series: Series, name: str) -> np.ndarray:
    return np.concatenate([getattr(group, name) for group in series.groups])


# -- types and brightness ------------------------------------------------------------------------------


def test_fit_types__heights_and_widths_of_each_type(true: Any) -> None:
    model, types = true
    images = images_of(model)
    n = len(types)
    start = Model(model.positions, np.ones(n), np.full(n, 0.5))
    found, none = fit_types(Series.of(as_series(images)), start, types, rounds=12)
    assert none is None
    np.testing.assert_allclose(found.heights, model.heights, rtol=1e-4)
    np.testing.assert_allclose(found.sigmas, model.sigmas, rtol=1e-4)
    found, _ = fit_types(Series.of(as_series(noisy(images, 0.02, 0.01))), start, types, rounds=12)
    np.testing.assert_allclose(found.heights, model.heights, rtol=0.01)
    np.testing.assert_allclose(found.sigmas, model.sigmas, rtol=0.01)
    kept, _ = fit_types(Series.of(as_series(images)), start, types, widths=False, rounds=4)
    np.testing.assert_allclose(kept.sigmas, 0.5, rtol=1e-12)


def test_fit_types__from_far_off_and_a_type_without_atoms(true: Any) -> None:
    model, types = true
    n, images = len(types), Series.of(as_series(images_of(model)))
    for height, sigma in ((100.0, 0.55), (1e-3, 0.4), (1.0, 1.0)):
        found, _ = fit_types(images, Model(model.positions, np.full(n, height), np.full(n, sigma)), types, rounds=25)
        np.testing.assert_allclose(found.heights, model.heights, rtol=1e-3)
    found, _ = fit_types(images, model, 2 * types, rounds=3)  # types 0 and 2
    np.testing.assert_allclose(found.heights, model.heights, rtol=1e-4)


def test_fit_gains__brightness_of_tilts(true: Any) -> None:
    model, _ = true
    gains = np.random.default_rng(0).uniform(0.9, 1.1, len(ANGLES))
    series, found = fit_gains(Series.of(as_series(gains[:, None, None] * images_of(model))), model, len(ANGLES))
    np.testing.assert_allclose(found, gains / gains.mean(), rtol=1e-5)
    np.testing.assert_allclose(joined(series, "gains"), found)
    again, same = fit_gains(series.changed(with_gains, np.full(len(ANGLES), 1.3)), model, len(ANGLES))
    np.testing.assert_allclose(same, found, rtol=1e-5)  # wherever it begins
    assert again.groups[0].gains[0] == same[0]


ONE_SUM = """\
import numpy as np, xarray as xr
from aetdist.refine.imaging import fit_gains, fit_types
from aetdist.refine.series import Series
from aetdist.refine.tilts import Model
from aetdist.simulate import simulate_tilt_series
position = np.random.default_rng(0).uniform(-25, 25, (40, 3))
atoms = xr.Dataset({"position": (("atom", "axis"), position)})
series = simulate_tilt_series(atoms, [-50.0, 0.0, 50.0], pixel_size=0.4, sigma=0.6, field=(150, 150), dose=1e4, seed=1)
images, model = Series.of(series), Model(position + 0.03, np.ones(40), np.full(40, 0.5))
typed, _ = fit_types(images, model, np.arange(40) % 2)
print(*(v.hex() for v in (*typed.heights[:2], *typed.sigmas[:2], *fit_gains(images, typed, 3)[1])))
"""


def test_fits__do_not_depend_on_the_threads_of_blas() -> None:
    """An inner product of more than 10 000 pixels is summed by BLAS in as many parts as it has threads."""
    said = {
        subprocess.run(
            [sys.executable, "-c", ONE_SUM],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1 and len(said.pop().split()) == 7


# -- noise ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "floor"), [(0.05, 0.02), (0.0, 0.1), (0.1, 0.0)])
def test_fit_noise__gain_and_floor(true: Any, gain: float, floor: float) -> None:
    model, _ = true
    images = images_of(model)
    mask = np.random.default_rng(1).random(images.shape) < 0.8
    series, noise, area = fit_noise(Series.of(as_series(noisy(images, gain, floor), mask)), model)
    least = 0.01 * images.max() * gain
    assert noise.gain == pytest.approx(gain, rel=0.1, abs=0.003)
    assert noise.floor == pytest.approx(max(floor, least), rel=0.1, abs=0.003)
    weights = joined(series, "weights")
    np.testing.assert_allclose(weights[mask], 1 / (area * (noise.gain * images + noise.floor))[mask], rtol=2e-3)
    assert (weights[~mask] == 0).all()
    if floor:
        left = joined(series, "images") - images
        assert np.mean(weights[mask] * left[mask] ** 2) == pytest.approx(1.0, abs=0.05)


def test_fit_noise__without_noise_weighs_evenly(true: Any) -> None:
    model, _ = true
    for images in (images_of(model), np.zeros((len(ANGLES), N, N))):
        series, noise, _ = fit_noise(Series.of(as_series(images)), model)
        assert noise.gain >= 0 and noise.floor > 0
        assert np.isfinite(joined(series, "weights")).all()


@pytest.mark.parametrize("blur", [0.0, 0.6, 1.0])
def test_correlation_area__of_white_and_of_blurred_noise(true: Any, blur: float) -> None:
    """Noise that a Gaussian of s pixels has blurred is shared by 4 pi s^2 pixels."""
    model, _ = true
    noise = np.random.default_rng(2).normal(0, 0.3, (len(ANGLES), N, N))
    noise = np.array([ndimage.gaussian_filter(n, blur, mode="wrap") for n in noise]) if blur else noise
    kernel = ndimage.gaussian_filter(np.pad([[1.0]], 15), blur) if blur else np.ones((1, 1))
    area = fit_noise(Series.of(as_series(images_of(model) + noise)), model)[2]
    assert area == pytest.approx(1.0 / np.sum(kernel**2), rel=0.12)


def test_correlation_area__of_pixels_that_were_measured(true: Any) -> None:
    model, _ = true
    images = images_of(model) + np.random.default_rng(2).normal(0, 0.3, (len(ANGLES), N, N))
    mask = np.ones(images.shape, bool)
    mask[:, 10:20, 5:30] = False
    mask[4] = False
    images[~mask] = 100.0
    assert fit_noise(Series.of(as_series(images, mask)), model)[2] == pytest.approx(1.0, abs=0.12)
    assert fit_noise(Series.of(as_series(images_of(model) * 0, np.zeros_like(mask))), model)[2] == 1.0


# -- tails and background ------------------------------------------------------------------------------


def with_tails(model: Model, parts: tuple[float, float]) -> np.ndarray:
    """Images of atoms of which a part of the intensity is twice, another four times as wide."""
    images = (1 - sum(parts)) * images_of(model)
    for part, wider in zip(parts, (2.0, 4.0), strict=True):
        images += part * images_of(model._replace(heights=model.heights / wider**3, sigmas=model.sigmas * wider))
    return images


def test_fit_types__tails_are_found(true: Any) -> None:
    model, types = true
    n = len(types)
    model = model._replace(sigmas=np.full(n, 0.6))  # of one width, so that the tails' are known
    images = with_tails(model, (0.12, 0.06))
    start = Tails.none(0.6 / PIXEL)
    np.testing.assert_allclose(np.hypot(start.blurs, 0.6 / PIXEL), np.array([2, 4]) * 0.6 / PIXEL)
    found, tails = fit_types(
        Series.of(as_series(images)), Model(model.positions, np.ones(n), np.full(n, 0.6)), types, rounds=15, tails=start
    )
    assert tails is not None
    np.testing.assert_allclose(tails.parts, [0.12, 0.06], atol=0.004)
    np.testing.assert_allclose(found.heights, model.heights, rtol=0.01)
    np.testing.assert_allclose(found.sigmas, 0.6, rtol=0.01)
    none, tails = fit_types(Series.of(as_series(images_of(model))), found, types, rounds=10, tails=start)
    assert tails is not None
    np.testing.assert_allclose(tails.parts, 0.0, atol=0.002)
    np.testing.assert_allclose(none.heights, model.heights, rtol=5e-3)


def test_without_tails__gives_the_atoms_own_images(true: Any) -> None:
    model = true[0]._replace(sigmas=np.full(len(true[1]), 0.6))
    tails = Tails.none(0.6 / PIXEL)._replace(parts=np.array([0.12, 0.06]))
    expected, measured = images_of(model), with_tails(model, (0.12, 0.06))
    mask = np.ones(measured.shape, bool)
    mask[3, 20:30, 20:30] = False
    series = Series.of(as_series(measured, mask)).changed(without_tails, model, tails)
    np.testing.assert_allclose(joined(series, "images")[mask], expected[mask], atol=2e-3 * expected.max())
    assert (joined(series, "images")[~mask] == 0).all()
    np.testing.assert_allclose(joined(series, "measured")[mask], measured[mask], rtol=1e-6)  # is kept
    seen = np.concatenate(series.map(shown, model, tails))
    np.testing.assert_allclose(seen, measured, atol=2e-3 * measured.max())
    assert np.nanmax(r_factor(series, model, tails)) < 2e-3
    assert np.nanmax(difference_map(series, model, tails)) < 2e-3 * measured.max()


def test_less_background__takes_off_what_is_smooth(true: Any) -> None:
    model, _ = true
    images = images_of(model)
    y, x = np.indices((N, N)) / N
    smooth = 3.0 + 2.0 * x - y
    mask = np.ones(images.shape, bool)
    mask[:, :6] = False
    series = Series.of(as_series(images + smooth, mask)).changed(less_background, model, None, 6.0)
    left = joined(series, "images") - images
    assert np.abs(left[mask]).max() < 0.25 * np.ptp(smooth)
    assert np.abs(left[:, 20:-14, 14:-14]).max() < 0.02 * smooth.mean()  # away from the edges all of it
    clean = Series.of(as_series(images)).changed(less_background, model, None, 6.0)
    np.testing.assert_allclose(joined(clean, "images"), images, atol=1e-5 * images.max())


# -- motion --------------------------------------------------------------------------------------------


def test_fit_motion__recovers_rotations_and_shifts_but_what_all_share(true: Any) -> None:
    model, _ = true
    random = np.random.default_rng(5)
    start, corner = matrices_from_euler(ANGLES), np.full(2, -(N // 2.0))
    raw = ANGLES + random.normal(0, 0.5, ANGLES.shape), random.normal([0.3, -0.2], 0.2, (len(ANGLES), 2))
    matrices, shifts = remove_common_motion(matrices_from_euler(raw[0]), raw[1], start)
    # Of the object as a whole the images tell nothing; the model is where it is without the common motion.
    for images, degrees, pixels in (
        (images_of(model, euler_from_matrices(matrices), shifts), 1e-5, 1e-6),
        (images_of(model, *raw), 0.15, 5e-3),
    ):
        motion, series = Motion(start, np.zeros_like(shifts)), Series.of(as_series(images))
        for _ in range(4):
            motion = fit_motion(series, model, motion, start)
            series = series.changed(moved, corner, motion)
        off = Rotation.from_matrix(motion.matrices @ np.swapaxes(matrices, 1, 2)).magnitude()
        assert np.degrees(off).max() < degrees
        np.testing.assert_allclose(motion.shifts, shifts, atol=pixels)


def test_tilts__settle_and_the_object_stays(true: Any) -> None:
    """All tilts shifted and turned alike are an object elsewhere, not tilts that were off."""
    model, _ = true
    turned = Rotation.from_euler("xyz", [0.4, -0.3, 0.5], degrees=True).apply(model.positions) + np.array(
        [0.05, -0.04, 0.06]
    )
    series = as_series(noisy(images_of(model._replace(positions=turned)), 0.01, 0.01))
    tilts = Tilts(series, move=True, background=0.0, noise=True)
    images = Series.of(series)
    for _ in range(3):
        images = tilts.settled(images, model)
    left, shifts = remove_common_motion(tilts.motion.matrices, tilts.motion.shifts, tilts.start)
    np.testing.assert_allclose(left, tilts.motion.matrices, atol=1e-6)
    np.testing.assert_allclose(shifts, tilts.motion.shifts, atol=1e-4)
    off = Rotation.from_matrix(tilts.motion.matrices @ np.swapaxes(tilts.start, 1, 2)).magnitude()
    assert np.degrees(off).max() < 0.25 and np.abs(tilts.motion.shifts).max() < 0.06
    assert set(tilts.found()) == {"angles", "shift", "gain"}


def test_tilts__stay_where_residuals_are_no_noise(true: Any) -> None:
    """What the model lacks must not turn the tilts."""
    model, _ = true
    shifts = np.random.default_rng(0).normal(0, 0.3, (len(ANGLES), 2))
    series = as_series(noisy(images_of(model, shifts=shifts), 0.001, 0.001))
    lacking = model.select(np.arange(10, len(model.heights)))
    for move, noise in ((True, True), (False, True)):
        tilts = Tilts(series, move=move, background=0.0, noise=noise)
        tilts.settled(Series.of(series), lacking)
        assert (tilts.motion.shifts == 0).all() and (tilts.gains == 1).all()
        np.testing.assert_array_equal(tilts.motion.matrices, matrices_from_euler(ANGLES))
        assert tilts.frame_variance(model.positions, PIXEL) == pytest.approx(0, abs=1e-12)
        assert tilts.area > 3.0
        assert tilts.bounds(model.positions, 1.0, 0.15).prior == pytest.approx(0.15, rel=0.25)
