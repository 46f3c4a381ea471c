"""Solve for the volume: iterate, follow the R-factors, stop by a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import ParallelGeometry
from ..progress import report
from ..project import ParallelProjector, empty_volume
from .descent import NO_RAY, Fista, Objective, OrderedSubsets, Projector, Published, Sirt, Solver
from .sart import Sart
from .stopping import FIXED, Stop, is_past_minimum

__all__ = ["SOLVERS", "Objective", "Projector", "Solution", "Solver", "eigenvalue_for", "largest_eigenvalue", "solve"]

_LEAST_POWERS, _MOST_POWERS, _SETTLED = 6, 100, 2e-4  # power iterations, and the relative rise of one that ends them

SOLVERS: dict[str, type[Solver]] = {
    "fista": Fista,
    "published": Published,
    "ordered_subsets": OrderedSubsets,
    "sirt": Sirt,
    "sart": Sart,
}


@dataclass
class Solution:
    """What a solver returns.

    ``volume`` (z, y, x) float32; ``r_factor`` (iteration, tilt) float64: eq. 4 of each tilt after
    each iteration; ``held_out_error`` (iteration,) float64: the error over the pixels held out, relative to
    them, after each iteration of the trial that chose how many there are; ``stopped``: the rule, its numbers, and the
    number of iterations that it chose.
    """

    volume: np.ndarray
    r_factor: np.ndarray
    held_out_error: np.ndarray
    stopped: dict[str, Any]


def solve(
    objective: Objective,
    *,
    solver: str = "fista",
    iterations: int,
    step: float,
    start: np.ndarray | None = None,
    tolerance: float = 0.0,
    stop: Stop = FIXED,
    on_iteration: Callable[[int, float], None] | None = None,
) -> Solution:
    """Minimise eq. 1 over the measured pixels.

    Parameters
    ----------
    objective : Objective
        What is minimised: projector, images, mask, weights and constraints.
    solver : {"fista", "published", "ordered_subsets", "sart", "sirt"}
    iterations : int
        At most so many.
    step : float
        Length of the gradient step: below 2 / L for "published", at most 1 / L for "fista" and
        "ordered_subsets", with L the largest eigenvalue of A^T W A; relative for "sirt" (1) and "sart" (1.9).
    start : ndarray, shape (z, y, x), float32, optional
        Where to start; zeros by default. Not changed.
    tolerance : float
        Stop when the mean R-factor falls by less than this fraction of itself in one iteration.
    stop : Stop
        The rule that chooses the number of iterations; all of them by default.
    on_iteration : callable, optional
        Called with the number of the iteration and the mean R-factor.

    Notes
    -----
    min 1/2 sum_t w_t ||M_t (A_t x - b_t)||^2 subject to x >= 0, x = 0 outside the support (eq. 1 of
    Yang2021 with a mask). Held-out pixels choose the number of iterations in a trial of its own; the
    volume returned is then made from all pixels.
    """
    curve, target, chosen = np.empty(0), 0.0, iterations
    noise = stop.noise_of(objective.images, objective.mask)
    if stop.holds_out:
        counts = True if objective.weights is None else (objective.weights > 0)[:, None, None]
        trial = SOLVERS[solver](replace(objective, held_out=stop.held_out(objective.mask & counts)), step, start)
        curve = _follow_held_out(trial, iterations)
        if not np.isfinite(curve).all():
            raise InputError(f'What was held out is 0 everywhere and tells nothing; use stop = "fixed" ({stop.rule}).')
        chosen = int(curve.argmin()) + 1
        del trial
    elif noise is not None:
        weights = np.ones(len(noise)) if objective.weights is None else objective.weights
        target = float(np.nansum(weights * noise**2 * objective.mask.sum(axis=(1, 2))))
    iterate = SOLVERS[solver](objective, step, start)
    history, last_r, error = [], np.inf, np.inf
    for iteration in range(chosen):
        r, error = iterate.step()
        history.append(r)
        mean_r = float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")
        if on_iteration is not None:
            on_iteration(iteration + 1, mean_r)
        if target > 0:
            iterate.r_factor()
            error = iterate.error
        if error < target or 0 <= last_r - mean_r < tolerance * last_r:
            break
        last_r = mean_r
    history[-1] = iterate.r_factor()
    stopped: dict[str, Any] = {"stop": stop.rule, "iterations": len(history)}
    if stop.holds_out:
        stopped |= {"stop_reached": chosen < iterations, "held_out": stop.fraction, "seed": stop.seed}
    elif noise is not None:
        stopped |= {"stop_reached": error < target, "noise": float(np.sqrt(np.nanmean(noise**2)))}
    return Solution(iterate.volume, np.array(history), curve, stopped)


def _follow_held_out(trial: Solver, iterations: int) -> np.ndarray:
    """Relative error over the pixels held out after every iteration, until it has risen for long."""
    curve: list[float] = []
    while len(curve) < iterations and not is_past_minimum(curve):
        trial.step()
        trial.r_factor()  # of the iterate, where a step compares on the way
        curve.append(trial.held_out_error)
        report(len(curve), iterations, "trial iterations")
    return np.array(curve)


def eigenvalue_for(solver: str, geometry: ParallelGeometry, weights: np.ndarray | None = None) -> float:
    """What the longest step of a solver is divided by: `largest_eigenvalue`, or 1 where its step is relative."""
    return 1.0 if SOLVERS[solver].relative_step else largest_eigenvalue(geometry, weights)


def largest_eigenvalue(geometry: ParallelGeometry, weights: np.ndarray | None = None, seed: int = 0) -> float:
    """L = ||A^T W A||, by power iteration on a coarser grid until it settles, plus 3 percent.

    The coarser grid (every length divided by s, L by s as well; 8 voxels or more along each axis, 12 pixels or
    more along the detector, where there are so many) makes the cost small. W: weights of the tilts, (tilt,)
    float64, all 1 by default.

    Raises
    ------
    InputError
        If no ray meets the volume.
    """
    s = max(
        1.0,
        min(max(geometry.volume_shape) / 32.0, min(geometry.volume_shape) / 8.0, min(geometry.detector_shape) / 12.0),
    )
    coarse = ParallelGeometry(
        geometry.matrices,
        tuple(max(1, int(np.ceil(n / s))) for n in geometry.volume_shape),  # type: ignore[arg-type]
        tuple(v / s for v in geometry.volume_start),  # type: ignore[arg-type]
        tuple(max(1, int(np.ceil(n / s))) for n in geometry.detector_shape),  # type: ignore[arg-type]
        geometry.detector_start / s,
    )
    projector = ParallelProjector(coarse)
    volume = empty_volume(coarse.volume_shape)
    volume += np.random.default_rng(seed).random(coarse.volume_shape, dtype=np.float32)
    scale = (np.ones(geometry.n_tilts) if weights is None else weights).astype(np.float32)[:, None, None]
    value, last, iteration = 0.0, np.inf, 0
    while iteration < _LEAST_POWERS or (iteration < _MOST_POWERS and value - last > _SETTLED * value):
        norm = float(np.linalg.norm(volume.astype(np.float64)))
        if norm == 0:
            raise InputError(NO_RAY)
        volume *= np.float32(1.0 / norm)
        volume = projector.adjoint(projector.forward(volume) * scale)
        value, last, iteration = float(np.linalg.norm(volume.astype(np.float64))), value, iteration + 1
    return 1.03 * value * s
