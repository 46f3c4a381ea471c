"""When to stop: near the iteration that is nearest to the truth, the same every time, said in the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from aetdist import pipeline
from aetdist._console import summary_lines
from aetdist.errors import InputError
from aetdist.geometry import ParallelGeometry, centred_coordinates, matrices_from_euler
from aetdist.io import Record, Store
from aetdist.metrics import normalised_rmse
from aetdist.project import ParallelProjector
from aetdist.reconstruct import reconstruct_resire
from aetdist.reconstruct.solvers import SOLVERS, Objective, largest_eigenvalue, solve
from aetdist.reconstruct.stopping import (
    BLOCK,
    Stop,
    estimate_noise,
    held_out_blocks,
    held_out_tilts,
    is_past_minimum,
)
from aetdist.schema import TILT_SERIES, VOLUME, check, with_units

N = 36
ANGLES = np.array([[0.4 * (-1) ** i, t, 0.2] for i, t in enumerate(np.linspace(-70, 70, 31))])
GEOMETRY = ParallelGeometry.centred(matrices_from_euler(ANGLES), (N, N, N), (N, N))


@pytest.fixture(scope="module")
def particle() -> np.ndarray:
    """A nanoparticle: atoms of standard deviation 1.3 voxels, 4.5 voxels or more apart, (z, y, x) float32."""
    rng, offsets, atoms = np.random.default_rng(1), np.arange(-5, 6), []
    for centre in rng.uniform(-0.36 * N, 0.36 * N, (2000, 3)):
        near = [np.linalg.norm(centre - other) for other in atoms]
        if np.linalg.norm(centre) < 0.36 * N and min(near, default=9.0) > 4.5:
            atoms.append(centre)
    volume = np.zeros((N + 10, N + 10, N + 10), np.float32)
    for centre in atoms:
        first = np.round(centre).astype(int) + N // 2
        parts = [np.exp(-((offsets + f - N // 2 - c) ** 2) / (2 * 1.3**2)) for f, c in zip(first, centre, strict=True)]
        volume[tuple(slice(f, f + 11) for f in first)] += (
            parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :]
        )
    return volume[5:-5, 5:-5, 5:-5].copy()


def noisy(truth: np.ndarray, level: float) -> tuple[np.ndarray, float]:
    """Projections with white noise of a part of the signal's rms, and its standard deviation."""
    images = ParallelProjector(GEOMETRY).forward(truth)
    sigma = level * float(np.sqrt(np.mean(images.astype(np.float64) ** 2)))
    return images + np.float32(sigma) * np.random.default_rng(3).standard_normal(images.shape, np.float32), sigma


def series(images: np.ndarray) -> xr.Dataset:
    """Images as a tilt series at 0.4 Angstrom a pixel."""
    centred = centred_coordinates(N, 0.4)
    dataset = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), ANGLES[: len(images)]),
            "pixel_size": ((), 0.4),
        },
        {"tilt": np.arange(len(images)), "y": centred, "x": centred, "euler": ["phi", "theta", "psi"]},
    )
    return with_units(dataset, TILT_SERIES)


@pytest.mark.parametrize(
    ("solver", "level", "most"), [("fista", 0.05, 70), ("fista", 0.15, 40), ("ordered_subsets", 0.15, 20)]
)
def test_held_out_blocks__choose_nearly_the_best_iteration(
    particle: np.ndarray, solver: str, level: float, most: int
) -> None:
    """The error to the truth there is within 5 % of the smallest of all iterations."""
    images, _ = noisy(particle, level)
    goal = Objective(ParallelProjector(GEOMETRY), images, np.ones(images.shape, bool))
    step = 1 / largest_eigenvalue(GEOMETRY)
    iterate = SOLVERS[solver](goal, step)
    errors = []
    for _ in range(most):
        iterate.step()
        errors.append(normalised_rmse(iterate.volume, particle))
    solution = solve(goal, solver=solver, iterations=most, step=step, stop=Stop("held_out_blocks"))
    chosen = solution.stopped["iterations"]
    assert len(solution.r_factor) == chosen == solution.held_out_error.argmin() + 1
    assert errors[chosen - 1] <= 1.05 * min(errors)
    if level == 0.15:
        assert min(errors) < 0.95 * errors[-1]  # there was something to choose


def test_held_out_tilts__stop_before_noise_is_fitted(particle: np.ndarray) -> None:
    """Within 5 % of the best at 15 % noise."""
    images, _ = noisy(particle, 0.15)
    data = series(images)
    errors = [
        normalised_rmse(reconstruct_resire(data, **options)["density"].values, particle)
        for options in ({"iterations": 20}, {"iterations": 60}, {"iterations": 60, "stop": "held_out_tilts"})
    ]
    assert errors[2] < 1.05 * errors[0] < errors[1]


def test_reconstruct_resire__uses_all_pixels_after_the_trial(
    particle: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume is that of a fixed run with the number chosen; same seed, same result, on 1 and 2 threads."""
    data = series(noisy(particle, 0.15)[0])
    results = []
    for threads in (1, 2):
        monkeypatch.setattr("aetdist.reconstruct.resire.kernel_threads", lambda threads=threads: threads)
        results.append(reconstruct_resire(data, iterations=40, stop="held_out_blocks", seed=4))
    check(results[0], VOLUME)
    xr.testing.assert_identical(*results)
    chosen = results[0].attrs["iterations"]
    assert results[0].attrs == {
        "stop": "held_out_blocks",
        "iterations": chosen,
        "stop_reached": True,
        "held_out": 0.1,
        "seed": 4,
    }
    assert results[0]["held_out_error"].values.argmin() == chosen - 1 < 39
    fixed = reconstruct_resire(data, iterations=chosen)
    np.testing.assert_array_equal(fixed["density"], results[0]["density"])
    assert fixed.attrs == {"stop": "fixed", "iterations": chosen}
    other = reconstruct_resire(data, iterations=40, stop="held_out_blocks", seed=5)
    assert not np.array_equal(other["held_out_error"][:5], results[0]["held_out_error"][:5])


def test_discrepancy__stops_where_the_residual_is_the_noise(particle: np.ndarray) -> None:
    """Above it one iteration before, below it then."""
    images, sigma = noisy(particle, 0.15)
    result = reconstruct_resire(series(images), iterations=60, stop="discrepancy", noise=sigma)
    projector, rms = ParallelProjector(GEOMETRY), []
    chosen = result.attrs["iterations"]
    for n in (chosen - 1, chosen):
        volume = reconstruct_resire(series(images), iterations=n)["density"].values
        rms.append(np.sqrt(np.mean((projector.forward(volume) - images) ** 2, dtype=np.float64)))
    assert rms[1] < sigma < rms[0]
    assert result.attrs["stop_reached"]
    assert abs(result.attrs["noise"] - sigma) < 1e-6 * sigma
    assert "held_out_error" not in result


def test_discrepancy__says_when_the_noise_is_never_reached(particle: np.ndarray) -> None:
    """And estimates the noise by itself."""
    images, sigma = noisy(particle, 0.15)
    result = reconstruct_resire(series(images), iterations=3, stop="discrepancy")
    assert result.attrs["stop_reached"] is False and result.attrs["iterations"] == 3
    assert abs(result.attrs["noise"] / sigma - 1) < 0.1
    late = reconstruct_resire(series(images), iterations=3, stop="held_out_blocks")
    assert late.attrs["stop_reached"] is False


def test_estimate_noise__white_noise_on_a_smooth_image() -> None:
    """Within 3 %, tilt by tilt; only measured pixels count; NaN where there are none."""
    y, x = np.meshgrid(np.linspace(0, 3, 120), np.linspace(0, 2, 100), indexing="ij")
    sigmas = np.array([0.1, 0.5, 2.0])
    images = np.stack([5 * np.sin(y) * np.cos(x)] * 4)
    images[:3] += sigmas[:, None, None] * np.random.default_rng(0).normal(size=(3, 120, 100))
    mask = np.ones(images.shape, bool)
    mask[:, 40:60, 30:50] = mask[3] = False
    images[~mask] = np.nan
    found = estimate_noise(images.astype(np.float32), mask)
    np.testing.assert_allclose(found[:3], sigmas, rtol=0.03)
    assert np.isnan(found[3])


def test_estimate_noise__that_follows_the_signal() -> None:
    """Poisson noise in one half, none in the other: the rms over both, within 5 %."""
    signal = np.zeros((1, 128, 128))
    signal[:, :, 64:] = 40
    images = np.random.default_rng(0).poisson(signal)
    found = estimate_noise(images.astype(np.float32), np.ones(images.shape, bool))
    np.testing.assert_allclose(found, np.sqrt(20), rtol=0.05)


def test_held_out_blocks__are_blocks_of_measured_pixels() -> None:
    """About the fraction asked for, over most tilts, whole where the mask is; the seed decides."""
    mask = np.ones((30, 80, 90), bool)
    mask[:, :, :20] = False
    held = held_out_blocks(mask, 0.1, 0)
    assert not (held & ~mask).any()
    assert 0.09 < held.sum() / mask.sum() < 0.12
    assert held.any(axis=(1, 2)).sum() > 20
    np.testing.assert_array_equal(held, held_out_blocks(mask, 0.1, 0))
    assert (held != held_out_blocks(mask, 0.1, 1)).any()
    runs = np.diff(np.pad(held[:, :, 20:].astype(int), ((0, 0), (1, 1), (0, 0))), axis=1)
    starts, ends = np.argwhere(runs.transpose(0, 2, 1) == 1), np.argwhere(runs.transpose(0, 2, 1) == -1)
    lengths = (ends - starts)[:, 2]
    inner = (starts[:, 2] > 0) & (ends[:, 2] < 80)
    assert (lengths[inner] % BLOCK == 0).all() and inner.any()


def test_held_out_tilts__are_whole_and_never_at_the_ends() -> None:
    """As many as asked for, spread over the series."""
    mask = np.ones((41, 20, 20), bool)
    mask[0] = False
    for seed in range(5):
        held = held_out_tilts(mask, 0.1, seed)
        tilts = np.flatnonzero(held.any(axis=(1, 2)))
        assert len(tilts) == 4 and held[tilts].all()
        assert tilts.min() > 1 and tilts.max() < 40
        assert all(t in run for t, run in zip(tilts, np.array_split(np.arange(2, 40), 4), strict=True))


@pytest.mark.parametrize(
    ("curve", "past"),
    [([], False), ([3, 2, 1], False), ([1, *[2] * 7], False), ([1, *[2] * 8], True), ([5, 1, 2, 0.9, *[2] * 7], False)],
)
def test_is_past_minimum__waits_for_ripples(curve: list[float], past: bool) -> None:
    """Eight iterations without a new minimum."""
    assert is_past_minimum(curve) == past


def test_is_past_minimum__waits_longer_for_slow_solvers() -> None:
    """A quarter of what came before."""
    curve = [1 / n for n in range(1, 101)]
    assert not is_past_minimum([*curve, *[1.0] * 23])
    assert is_past_minimum([*curve, *[1.0] * 24])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "magic"}, "fixed, held_out_blocks, held_out_tilts, discrepancy"),
        ({"stop": "held_out_blocks", "held_out": 0.0}, "fraction held out came as 0"),
        ({"stop": "held_out_tilts", "held_out": 1.0}, "at most 0.5"),
        ({"stop": "discrepancy", "noise": -1.0}, "positive"),
        ({"stop": "discrepancy", "noise": float("nan")}, "positive"),
        ({"noise": 1.0}, 'noise came with stop = "fixed"'),
        ({"seed": -1}, "whole number of 0 or more"),
    ],
)
def test_reconstruct_resire__refuses_bad_stop_options(options: dict, message: str) -> None:
    """One line that says what came and what is needed."""
    with pytest.raises(InputError, match=message):
        reconstruct_resire(series(np.ones((5, N, N), np.float32)), **options)


def test_reconstruct_resire__refuses_to_hold_out_what_leaves_nothing() -> None:
    """The only block that was measured; a tilt of two; a noise that no block can tell."""
    data = series(np.ones((3, N, N), np.float32))
    pixel = data.assign(mask=data["mask"] & False)
    pixel["mask"][1, 5, 5] = True
    with pytest.raises(InputError, match="leaves nothing to fit"):
        reconstruct_resire(pixel, stop="held_out_blocks", iterations=2)
    with pytest.raises(InputError, match="needed are 3 or more"):
        reconstruct_resire(data.isel(tilt=[0, 1]), stop="held_out_tilts", iterations=2)
    with pytest.raises(InputError, match="give it as noise"):
        reconstruct_resire(pixel, stop="discrepancy", iterations=2)


def test_pipeline__shows_what_stopped_it(particle: np.ndarray, tmp_path: Path) -> None:
    """In the summary of the command, in `info`, and in the store with the curve."""
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", series(noisy(particle, 0.15)[0]), record=Record("test", {}, {}))
    computed = pipeline.reconstruct(path, stop="held_out_blocks", iterations=12, seed=2)
    assert computed["stop"] == "held_out_blocks" and computed["stop_reached"] is False
    assert 0 < computed["held_out_error"] < 1
    known = {key: computed[key] for key in ("stop", "iterations", "stop_reached", "held_out_error")}
    for said in (pipeline.info(path), pipeline.reconstruct(path, stop="held_out_blocks", iterations=12, seed=2)):
        assert {key: said[key] for key in known} == known
    assert any(line.split() == ["stopped", "by", "held_out_blocks"] for line in summary_lines(computed))
    with Store.open(path) as store:
        assert store.read("volume")["held_out_error"].shape == (12,)
        assert store.record("volume").parameters["stop"] == "held_out_blocks"
