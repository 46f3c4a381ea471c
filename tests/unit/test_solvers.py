"""The solvers: each does what its equation says, in little memory, the same on any number of threads."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.geometry import ParallelGeometry, matrices_from_euler
from aetdist.project import ParallelProjector, empty_volume, make_projector
from aetdist.reconstruct import _kernels as kernels
from aetdist.reconstruct import descent
from aetdist.reconstruct.resire import step_length
from aetdist.reconstruct.solvers import SOLVERS, Objective, largest_eigenvalue, solve
from aetdist.reconstruct.stopping import Stop

N = 16
ANGLES = np.array([[0.3 * (-1) ** i, t, 0.2] for i, t in enumerate(np.linspace(-65, 65, 12))])
GEOMETRY = ParallelGeometry.centred(matrices_from_euler(ANGLES), (N, N, N), (N, N + 4))


def phantom() -> np.ndarray:
    """Three blobs, (z, y, x) float32."""
    z, y, x = np.meshgrid(*[np.arange(N) - N // 2] * 3, indexing="ij")
    centres = [(2, -3, 1), (-3, 2, 4), (0, 3, -4)]
    volume = sum(np.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * 1.6**2)) for c in centres)
    return np.asarray(volume, dtype=np.float32)


def objective(noise: float = 0.3, threads: int = 1, **options: object) -> Objective:
    """Noisy projections of the phantom, a part of them not measured."""
    projector = ParallelProjector(GEOMETRY, threads)
    images = projector.forward(phantom())
    images += noise * np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)
    mask = np.ones(images.shape, bool)
    mask[3:5, :, 12:] = False
    images[~mask] = np.nan
    return Objective(projector, images, mask, **options)  # type: ignore[arg-type]


def default_step(name: str, weights: np.ndarray | None = None) -> float:
    """The longest stable step."""
    return step_length(name, None, 1, largest_eigenvalue(GEOMETRY, weights))


def constrained(volume: np.ndarray, goal: Objective) -> np.ndarray:
    """Onto positivity and support."""
    volume = np.maximum(volume, 0) if goal.positivity else volume
    return volume if goal.support is None else np.where(goal.support, volume, 0)


class Plain:
    """The equations as they stand in the docstrings, in NumPy, with a projection of whatever is needed."""

    def __init__(self, goal: Objective, step: float) -> None:
        self.goal, self.step_length = goal, step
        self.x = np.zeros(GEOMETRY.volume_shape, np.float32)
        self.y, self.t, self.last = self.x, 1.0, np.inf
        self.weights = np.ones(len(goal.images)) if goal.weights is None else goal.weights

    def residual(self, volume: np.ndarray) -> np.ndarray:
        """b - A x on the mask."""
        return np.where(self.goal.mask, self.goal.images - self.goal.projector.forward(volume), 0)

    def descended(self, volume: np.ndarray) -> np.ndarray:
        """A gradient step, constrained."""
        weighted = (self.weights[:, None, None] * self.residual(volume)).astype(np.float32)
        return constrained(volume + self.step_length * self.goal.projector.adjoint(weighted), self.goal)

    def published(self) -> None:
        """Eq. 3."""
        self.x = self.descended(self.x)

    def fista(self) -> None:
        """Momentum, dropped where the error rose."""
        new = self.descended(self.y)
        error = self.weights @ (self.residual(new) ** 2).sum(axis=(1, 2))
        if error > self.last:
            self.t = 1.0
        following = (1 + np.sqrt(1 + 4 * self.t**2)) / 2
        self.y = (new + (self.t - 1) / following * (new - self.x)).astype(np.float32)
        self.x, self.t, self.last = new.astype(np.float32), following, error


@pytest.mark.parametrize("name", ["published", "fista"])
@pytest.mark.parametrize("weighted", [False, True])
def test_step__is_its_equation(name: str, weighted: bool) -> None:
    """Iterates equal those of plain NumPy, through a restart of the momentum."""
    weights = np.linspace(0.2, 1.8, len(ANGLES)) if weighted else None
    goal = objective(weights=weights)
    step = default_step(name, weights) * (1.8 if name == "fista" else 1.0)  # too long: the error rises
    solver, plain = SOLVERS[name](goal, step), Plain(goal, step)
    errors = []
    for _ in range(14):
        errors.append(solver.step()[1])
        getattr(plain, name)()
        np.testing.assert_allclose(solver.volume, plain.x, atol=2e-4 * plain.x.max())
    assert (np.diff(errors) > 0).any() == (name == "fista")


def test_sirt__is_its_equation() -> None:
    """x + C A^T M R (b - A x) with the inverse sums of rows and columns."""
    goal = objective()
    solver, x = SOLVERS["sirt"](goal, 1.0), np.zeros(GEOMETRY.volume_shape, np.float32)
    rows = np.maximum(goal.projector.forward(np.ones_like(x)), 1)
    columns = np.maximum(goal.projector.adjoint(goal.mask.astype(np.float32)), 0.5)
    for _ in range(5):
        residual = np.where(goal.mask, (goal.images - goal.projector.forward(x)) / rows, 0)
        x = np.maximum(x + goal.projector.adjoint(residual.astype(np.float32)) / columns, 0)
        solver.step()
        np.testing.assert_allclose(solver.volume, x, atol=1e-5)


def test_sart__is_its_equation() -> None:
    """x + R (b_t - A_t x) spread along the rays of one tilt after another, 1.9 over the root of the pass as step."""
    goal = objective()
    solver, x = SOLVERS["sart"](goal, 1.9), np.zeros(GEOMETRY.volume_shape, np.float32)
    rows = np.maximum(goal.projector.forward(np.ones_like(x)), 1)
    inverse = np.minimum(1 / rows, 20 / rows.max())
    order = [t for t, _ in solver._parts]
    assert sorted(int(t[0]) for t in order) == list(range(len(ANGLES)))
    for k in range(1, 4):
        for (t,) in order:
            residual = np.zeros_like(goal.images)
            residual[t] = np.where(goal.mask[t], goal.images[t] - goal.projector.forward(x)[t], 0) * inverse[t]
            x = np.maximum(x + np.float32(1.9 / np.sqrt(k)) * goal.projector.adjoint(residual), 0)
        solver.step()
        np.testing.assert_allclose(solver.volume, x, atol=2e-5 * x.max())


@pytest.mark.parametrize("name", SOLVERS)
def test_step__reports_r_factor_and_error_of_the_iterate(name: str) -> None:
    """Eq. 4 and the weighted squares; those met within a pass are made exact by `r_factor`."""
    weights = np.linspace(0.2, 1.8, len(ANGLES))
    goal = objective(weights=weights)
    solver = SOLVERS[name](goal, default_step(name, weights))
    for _ in range(3):
        r, error = solver.step()
    residual = np.where(goal.mask, goal.images - goal.projector.forward(solver.volume), 0).astype(np.float64)
    total = np.where(goal.mask, np.abs(goal.images), 0).sum(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(solver.r_factor(), np.abs(residual).sum(axis=(1, 2)) / total, rtol=1e-4)
    if name not in ("ordered_subsets", "sart"):
        np.testing.assert_array_equal(solver.r_factor(), r)
        np.testing.assert_allclose(error, weights @ (residual**2).sum(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("name", SOLVERS)
def test_step__does_not_depend_on_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a bit: volume, R-factors, error."""
    monkeypatch.setattr(descent, "_WORTH_A_THREAD", 100)
    results = []
    for threads in (1, 2, 3):
        solver = SOLVERS[name](objective(threads=threads), default_step(name))
        results.append([(*solver.step(), solver.volume.copy()) for _ in range(4)])
    for other in results[1:]:
        for (r, error, volume), (r_1, error_1, volume_1) in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(volume, volume_1)
            np.testing.assert_array_equal(r, r_1)
            assert error == error_1


@pytest.mark.parametrize("name", SOLVERS)
def test_step__keeps_to_the_constraints(name: str) -> None:
    """Positivity and support hold; without positivity the noise makes some voxels negative."""
    support = np.zeros(GEOMETRY.volume_shape, bool)
    support[3:-3, 3:-3, 3:-3] = True
    kept = solve(objective(support=support), solver=name, iterations=5, step=default_step(name)).volume
    assert kept.min() == 0 and not kept[~support].any() and kept[support].any()
    free = solve(objective(support=support, positivity=False), solver=name, iterations=5, step=default_step(name))
    assert free.volume.min() < 0 and not free.volume[~support].any()
    both = solve(objective(positivity=False), solver=name, iterations=5, step=default_step(name)).volume
    assert both[~support].any()


@pytest.mark.parametrize("name", SOLVERS)
def test_weights__a_tilt_of_weight_zero_counts_for_nothing(name: str) -> None:
    """Whatever it shows; equal weights are no weights."""
    weights = np.ones(len(ANGLES))
    step = default_step(name)
    same = [solve(objective(weights=w), solver=name, iterations=4, step=step).volume for w in (None, weights)]
    np.testing.assert_array_equal(*same)
    weights[5] = 0
    goal = objective(weights=weights / weights.mean())
    expected = solve(goal, solver=name, iterations=4, step=step).volume
    goal.images[5] = 1e3
    np.testing.assert_array_equal(solve(goal, solver=name, iterations=4, step=step).volume, expected)


@pytest.mark.parametrize("name", SOLVERS)
def test_weights__uneven_ones_do_not_diverge(name: str) -> None:
    """One tilt weighs as much as all others together; the step follows from the weighted operator."""
    weights = np.ones(len(ANGLES))
    weights[4] = len(ANGLES)
    weights /= weights.mean()
    solution = solve(objective(0.0, weights=weights), solver=name, iterations=40, step=default_step(name, weights))
    assert solution.r_factor[-1].mean() < 0.1


def test_largest_eigenvalue__of_the_weighted_operator() -> None:
    """Not below the true one, at most 10 % above; far below that of the largest weight."""
    weights = np.ones(len(ANGLES))
    weights[[2, 7]] = 4
    projector, x = ParallelProjector(GEOMETRY), np.ones(GEOMETRY.volume_shape, np.float32)
    for _ in range(40):
        images = projector.forward(x / np.linalg.norm(x))
        x = projector.adjoint((weights[:, None, None] * images).astype(np.float32))
    assert 1.0 <= largest_eigenvalue(GEOMETRY, weights) / np.linalg.norm(x) < 1.1
    assert largest_eigenvalue(GEOMETRY, weights) < 0.6 * 4 * largest_eigenvalue(GEOMETRY)


def test_fista__restarts_only_slow_it_where_the_error_rises() -> None:
    """A step that is a little too long still converges, as the momentum starts again."""
    solution = solve(objective(0.0), solver="fista", iterations=60, step=1.7 / largest_eigenvalue(GEOMETRY))
    assert solution.r_factor[-1].mean() < 0.05


class Still:
    """A projector that allocates nothing: every projection is half of the images it is given."""

    def __init__(self, shape: tuple[int, int, int], n_tilts: int) -> None:
        self.geometry = ParallelGeometry.centred(np.tile(np.eye(3), (n_tilts, 1, 1)), shape, shape[1:])
        self.threads = 1
        self.image_shape = (n_tilts, *shape[1:])

    def forward(self, volume: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty(self.image_shape, np.float32) if out is None else out
        out[...] = 0.5
        return out

    def adjoint(self, images: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        assert out is not None
        out += np.float32(0.1)
        return out


@pytest.mark.parametrize(("name", "volumes", "stacks"), [("published", 1, 1), ("fista", 2, 2)])
def test_solver__holds_few_volumes(name: str, volumes: int, stacks: int) -> None:
    """Published: one volume and one stack of images; FISTA: two of each, also at the peak of a step."""
    projector = Still((40, 64, 64), 10)
    images = np.ones(projector.image_shape, np.float32)
    goal = Objective(projector, images, np.ones(images.shape, bool))
    SOLVERS[name](goal, 1.0).step()  # compiles
    tracemalloc.start()
    solver = SOLVERS[name](goal, 1.0)
    for _ in range(3):
        solver.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    need = volumes * solver.volume.nbytes + stacks * images.nbytes
    assert need <= peak < need + 0.3 * images.nbytes


def test_compare__sums_over_fitted_and_held_out_pixels_apart() -> None:
    """Against NumPy, NaN where nothing was measured."""
    rng = np.random.default_rng(0)
    measured, calculated, previous = rng.normal(size=(3, 4, 50)).astype(np.float32)
    roles = rng.integers(0, 3, (4, 50)).astype(np.uint8)
    measured[roles == 0] = np.nan
    tilts, factors, sums = np.array([1, 3]), np.arange(1, 5, dtype=np.float32), np.zeros((4, 3))
    out = previous[:2].copy()
    kernels.compare(calculated[:2], out, measured, roles, tilts, factors, np.float32(0.5), sums, 0, 2)
    assert not sums[[0, 2]].any()
    for k, t in enumerate(tilts):
        residual = measured[t] - calculated[k]
        fitted, held = residual[roles[t] == 1].astype(float), residual[roles[t] == 2].astype(float)
        np.testing.assert_allclose(sums[t], [np.abs(fitted).sum(), (fitted**2).sum(), (held**2).sum()], rtol=1e-6)
        ahead = measured[t] - 1.5 * calculated[k] + 0.5 * previous[k]
        np.testing.assert_allclose(out[k], np.where(roles[t] == 1, factors[t] * ahead, 0), rtol=1e-4, atol=1e-5)


def test_held_out__pixels_are_predicted_not_fitted() -> None:
    """Their values do not reach the volume; the error over them is that of the reprojection."""
    goal = objective()
    held = np.zeros(goal.mask.shape, bool)
    held[:, 2:9, 4:11] = True
    options = {"projector": goal.projector, "mask": goal.mask, "held_out": held}
    volumes, errors = [], []
    for images in (goal.images, np.where(held, goal.images + 3, goal.images)):
        solver = SOLVERS["fista"](Objective(images=images, **options), default_step("fista"))  # type: ignore[arg-type]
        for _ in range(6):
            solver.step()
        volumes.append(solver.volume)
        errors.append(solver.held_out_error)
        residual = np.where(held & goal.mask, images - goal.projector.forward(solver.volume), 0)
        expected = np.linalg.norm(residual) / np.linalg.norm(np.where(held & goal.mask, images, 0))
        assert abs(solver.held_out_error - expected) < 1e-5
    np.testing.assert_array_equal(*volumes)
    assert errors[1] > errors[0]


def test_make_projector__by_name() -> None:
    """Both have one interface; another name is refused."""
    volume = empty_volume(GEOMETRY.volume_shape)
    volume[...] = phantom()
    images = [make_projector(name, GEOMETRY).forward(volume) for name in ("shear", "fourier")]
    assert np.abs(images[0] - images[1]).max() < 0.05 * images[0].max()
    with pytest.raises(InputError, match="shear, fourier"):
        make_projector("magic", GEOMETRY)


@pytest.mark.parametrize("name", ["ordered_subsets", "sart"])
def test_held_out_error__is_that_of_the_iterate(name: str) -> None:
    """Once `r_factor` has compared it: not that of the volumes on the way."""
    held = np.zeros_like(objective().mask)
    held[3] = objective().mask[3]
    goal = replace(objective(), held_out=held)
    solver = SOLVERS[name](goal, default_step(name, None))
    solver.step()
    solver.r_factor()
    residual = (goal.images - goal.projector.forward(solver.volume))[held].astype(np.float64)
    expected = np.linalg.norm(residual) / np.linalg.norm(goal.images[held].astype(np.float64))
    assert solver.held_out_error == pytest.approx(expected, rel=1e-4)


def test_solve__holds_out_only_tilts_that_count() -> None:
    """A tilt of weight 0 says nothing; images that are 0 everywhere are refused."""
    weights = np.where(np.arange(len(ANGLES)) % 2 == 0, 2.0, 0.0)
    goal = objective(weights=weights)
    for seed in range(4):
        options = {"solver": "fista", "iterations": 8, "step": default_step("fista", weights)}
        solution = solve(goal, stop=Stop("held_out_tilts", seed=seed), **options)
        assert np.isfinite(solution.held_out_error).all()
    with pytest.raises(InputError, match="tells nothing"):
        solve(replace(goal, images=np.zeros_like(goal.images)), stop=Stop("held_out_tilts"), **options)
