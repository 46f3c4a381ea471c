"""RESIRE on small phantoms: it converges, masks weigh nothing, wrong input is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist.errors import CapacityError, InputError
from aetdist.geometry import ParallelGeometry, centred_coordinates, matrices_from_euler
from aetdist.metrics import normalised_rmse
from aetdist.project import ParallelProjector
from aetdist.reconstruct import memory, reconstruct_resire
from aetdist.reconstruct.solvers import SOLVERS, Objective, largest_eigenvalue, solve
from aetdist.schema import VOLUME, check

ANGLES = np.array([[0.3 * (-1) ** i, t, 0.2] for i, t in enumerate(np.linspace(-70, 70, 31))])


def phantom(n: int = 28) -> np.ndarray:
    """A few blobs inside a sphere, (z, y, x) float32."""
    rng = np.random.default_rng(5)
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij")
    volume = np.zeros((n, n, n))
    for centre in rng.uniform(-n / 4, n / 4, (12, 3)):
        volume += np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / (2 * 1.6**2))
    return volume.astype(np.float32)


def series(volume: np.ndarray, detector: tuple[int, int] | None = None, angles: np.ndarray = ANGLES) -> xr.Dataset:
    """Its tilt series at 0.4 Angstrom a pixel."""
    detector = detector or volume.shape[1:]
    geometry = ParallelGeometry.centred(matrices_from_euler(angles), volume.shape, detector)
    images = ParallelProjector(geometry).forward(volume)
    return xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), angles),
        },
        {
            "tilt": np.arange(len(angles)),
            "y": centred_coordinates(detector[0], 0.4),
            "x": centred_coordinates(detector[1], 0.4),
            "euler": ["phi", "theta", "psi"],
        },
    )


@pytest.mark.parametrize(("solver", "iterations"), [("fista", 40), ("published", 150), ("ordered_subsets", 14)])
def test_reconstruct_resire__finds_the_phantom(solver: str, iterations: int) -> None:
    """R falls below 1 % and the volume is the truth's."""
    truth = phantom()
    result = reconstruct_resire(series(truth), solver=solver, iterations=iterations)
    check(result, VOLUME)
    assert result["r_factor"].shape == (iterations, len(ANGLES))
    assert result["r_factor"][-1].mean() < 0.01
    assert normalised_rmse(result["density"].values, truth) < 0.2
    assert result["density"].min() >= 0
    np.testing.assert_allclose(result["z"], centred_coordinates(28, 0.4))


def test_reconstruct_resire__gradient_never_raises_the_error() -> None:
    """Descent with about 1 / L is monotone."""
    r = (
        reconstruct_resire(series(phantom()), solver="published", iterations=25, step=0.9)["r_factor"]
        .mean("tilt")
        .values
    )
    assert (np.diff(r) < 0).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_reconstruct_resire__r_factor_is_that_of_the_reprojection(solver: str) -> None:
    """The recorded R is eq. 4 of projecting the result."""
    data = series(phantom())
    result = reconstruct_resire(data, solver=solver, iterations=7)
    again = aet.project_volume(result["density"], data["angles"].values)
    expected = aet.r_factor(again.values, data["images"].values, data["mask"].values)
    np.testing.assert_allclose(result["r_factor"][-1], expected, rtol=1e-3)


def test_reconstruct_resire__subsets_need_a_third_of_the_passes() -> None:
    """Ordered subsets after 10 passes are nearer to the truth than FISTA after 25."""
    truth = phantom()
    few = reconstruct_resire(series(truth), solver="ordered_subsets", iterations=10)["density"].values
    many = reconstruct_resire(series(truth), solver="fista", iterations=25)["density"].values
    assert normalised_rmse(few, truth) < normalised_rmse(many, truth)


def test_reconstruct_resire__subsets_survive_a_step_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The safeguard restarts and takes fewer subsets: R ends below 10 % where plain subsets diverge."""
    data, truth = series(phantom(), angles=ANGLES * [0, 0.3, 0]), phantom()
    images, mask = data["images"].values, data["mask"].values
    geometry = ParallelGeometry.centred(matrices_from_euler(data["angles"].values), truth.shape, truth.shape[1:])
    solution = solve(
        Objective(ParallelProjector(geometry), images, mask),
        solver="ordered_subsets",
        iterations=40,
        step=1.3 / largest_eigenvalue(geometry),
    )
    assert np.isfinite(solution.volume).all()
    assert solution.r_factor[-1].mean() < 0.1


def test_reconstruct_resire__masked_pixels_weigh_nothing() -> None:
    """Whatever stands in them, NaN included."""
    data = series(phantom())
    data["mask"][3:6, :, 10:] = False
    spoilt = data.copy(deep=True)
    spoilt["images"] = spoilt["images"].where(spoilt["mask"], np.nan)
    clean, other = (reconstruct_resire(d, iterations=5) for d in (data, spoilt))
    np.testing.assert_array_equal(clean["density"], other["density"])
    np.testing.assert_array_equal(clean["r_factor"], other["r_factor"])


def test_reconstruct_resire__an_extended_object_explains_a_narrow_detector() -> None:
    """Matter beside the field is carried by a volume wider than the detector."""
    truth = phantom(32)
    data = series(truth, detector=(32, 14))
    narrow = reconstruct_resire(data, shape=(14, 32, 32), iterations=30)["r_factor"][-1].mean()
    wide = reconstruct_resire(data, shape=(48, 32, 32), iterations=30)["r_factor"][-1].mean()
    assert wide < 0.02 < 0.05 < narrow


def test_reconstruct_resire__keeps_to_support_and_start() -> None:
    """Zero outside the support; starting from the truth stays there."""
    truth = phantom()
    support = np.zeros(truth.shape, bool)
    support[6:22, 6:22, 6:22] = True
    result = reconstruct_resire(series(truth), iterations=5, support=support)["density"].values
    assert not result[~support].any() and result[support].any()
    started = reconstruct_resire(series(truth), iterations=1, start=truth)
    assert started["r_factor"].max() < 1e-4


def test_reconstruct_resire__stops_early_when_nothing_improves() -> None:
    """The record has as many rows as there were iterations."""
    result = reconstruct_resire(series(phantom()), iterations=400, tolerance=0.05)
    assert 3 < result.sizes["iteration"] < 400


def test_reconstruct_resire__film_volume_reaches_as_far_as_rays_do() -> None:
    """Half width (h_x + h_z sin(theta)) / cos(theta), h_z half the thickness."""
    data = series(phantom(), angles=ANGLES * [0, 1, 0])
    result = reconstruct_resire(data, thickness=4.0, iterations=1)
    expected = (14 + 5 * np.sin(np.deg2rad(70))) / np.cos(np.deg2rad(70)) * 0.4
    assert result.sizes["z"] == 10
    assert abs(float(result["x"].max()) - expected) <= 0.4
    assert 28 <= result.sizes["y"] <= 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "magic"}, "fista, published"),
        ({"iterations": 0}, "at least 1"),
        ({"shape": (4, 4)}, "NX NY NZ"),
        ({"shape": (4, 4, 0)}, "NX NY NZ"),
        ({"thickness": -1.0}, "positive"),
        ({"thickness": 5.0, "shape": (9, 9, 9)}, "one of the two"),
        ({"step": 50.0}, "diverge"),
        ({"step": 0.0}, "positive number"),
        ({"step": float("nan")}, "positive number"),
        ({"iterations": float("nan")}, "whole number"),
        ({"solver": ["fista"]}, "unknown"),
        ({"weights": ["a"] * 31}, "31 numbers"),
        ({"start": np.full((28, 28, 28), np.nan)}, "NaN or infinite"),
        ({"stop": "held_out_blocks", "seed": float("nan")}, "seed"),
        ({"stop": "held_out_blocks", "held_out": "a"}, "fraction"),
        ({"support": np.zeros((28, 28, 28), bool)}, "support is empty"),
        ({"support": np.ones((3, 3, 3), bool)}, r"\(3, 3, 3\)"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"step": 50.0, "solver": "sirt"}, "diverge"),
        ({"weights": [1.0, 2.0]}, r"shape \(2,\).*\(31,\)"),
        ({"weights": [-1.0] + [1.0] * 30}, "weight of tilt 0 came as -1"),
        ({"weights": [1.0] * 30 + [float("nan")]}, "weight of tilt 30 came as nan"),
        ({"weights": [0.0] * 31}, "All weights are 0"),
        ({"projector": "magic"}, "shear, fourier"),
    ],
)
def test_reconstruct_resire__refuses_bad_options(options: dict, message: str) -> None:
    """One line that says what came and what is needed."""
    with pytest.raises(InputError, match=message):
        reconstruct_resire(series(phantom()), **options)


def test_reconstruct_resire__refuses_data_that_say_nothing() -> None:
    """No measured pixel, NaN inside the mask, no tilt, a film seen edge-on."""
    data = series(phantom())
    with pytest.raises(InputError, match="False everywhere"):
        reconstruct_resire(data.assign(mask=data["mask"] & False))
    with pytest.raises(InputError, match="--mask nan"):
        reconstruct_resire(data.assign(images=data["images"] * np.float32(np.nan)))
    with pytest.raises(InputError, match="no tilts"):
        reconstruct_resire(data.isel(tilt=[]))
    undefined = data["angles"].copy()
    undefined[7, 1] = np.nan
    with pytest.raises(InputError, match="angles of tilt 7"):
        reconstruct_resire(data.assign(angles=undefined))
    with pytest.raises(InputError, match="along the film"):
        reconstruct_resire(data.assign(angles=data["angles"] * 0 + [0, 89, 0]), thickness=5.0)


def test_parallel_geometry__refuses_what_is_no_rotation() -> None:
    """Without a direction of the beam there is no principal axis; a tie between axes is fine."""
    for bad in (np.full((3, 3), np.nan), np.zeros((3, 3)), 2 * np.eye(3)):
        with pytest.raises(InputError, match="tilt 1 is no rotation"):
            ParallelGeometry.centred(np.stack([np.eye(3), bad]), (4, 4, 4), (4, 4))
    tie = ParallelGeometry.centred(matrices_from_euler(np.array([[0.0, 45.0, 0.0]])), (9, 9, 9), (9, 9))
    assert ParallelProjector(tie).forward(np.ones((9, 9, 9), np.float32)).max() > 9


def test_reconstruct_resire__weights_favour_a_tilt() -> None:
    """Tilts that contradict the others are explained worse the less they weigh; only ratios matter."""
    data = series(phantom())
    data["images"][:10] *= 1.3
    light = np.where(np.arange(31) < 10, 0.01, 1.0)
    results = [reconstruct_resire(data, iterations=15, weights=w) for w in (None, light, 7 * light)]
    r = [result["r_factor"][-1].values for result in results]
    assert r[1][10:].mean() < 0.5 * r[0][10:].mean()
    assert r[1][:10].mean() > r[0][:10].mean()
    np.testing.assert_allclose(results[1]["density"], results[2]["density"], atol=1e-4)


@pytest.mark.parametrize("solver", ["fista", "ordered_subsets"])
def test_reconstruct_resire__by_fourier_slices(solver: str) -> None:
    """The other projector explains its own projections of the phantom, and finds it."""
    result = reconstruct_resire(series(phantom()), solver=solver, iterations=20, projector="fourier")
    assert result["r_factor"][-1].mean() < 0.05
    assert normalised_rmse(result["density"].values, phantom()) < 0.25


def test_reconstruct_resire__says_what_a_large_volume_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is allocated, with the option that helps."""
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    with pytest.raises(CapacityError, match=r"GiB.*aetdist scan"):
        reconstruct_resire(series(phantom()), shape=(400, 28, 300))


@pytest.mark.parametrize("shape", [(24, 24, 24), (10, 30, 60), (40, 24, 30)])
def test_largest_eigenvalue__bounds_the_true_one_closely(shape: tuple[int, int, int]) -> None:
    """Not below it, at most 10 % above."""
    geometry = ParallelGeometry.centred(matrices_from_euler(ANGLES), shape, (24, 40))
    projector = ParallelProjector(geometry)
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    for _ in range(40):
        x = projector.adjoint(projector.forward(x / np.linalg.norm(x)))
    assert 1.0 <= largest_eigenvalue(geometry) / np.linalg.norm(x) < 1.1
