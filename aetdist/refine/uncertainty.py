"""How sure an atom is: of its position, of being one, of its type."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .descent import Free, inverse_bend, regular_inverse
from .tilts import Group, Model, Series, bend, pull, push
from .types import Mixture

_SAMPLES = 3
_ITERATIONS = 10  # of the linear solution of each sample


@dataclass(frozen=True, eq=False)
class PositionError:
    """Standard deviations of positions.

    Parameters
    ----------
    sigma : ndarray, shape (n, 3), float64
        Angstrom, along x, y, z.
    cramer_rao : float
        Angstrom: root of the mean squared deviation that noise alone leaves an isolated atom, at least, over all
        three axes and all atoms.
    crowding : ndarray, shape (3,), float64
        How much less sure an atom is for the others, whose positions are not known either.
    """

    sigma: np.ndarray
    cramer_rao: float
    crowding: np.ndarray


def position_error(
    series: Series, model: Model, free: Free, n_tilts: int, seed: int, frame: np.ndarray
) -> PositionError:
    """Computes: how far positions may be off, from how much tilts disagree about them.

    Parameters
    ----------
    series : Series
        Weighted by the noise.
    model : Model
        At the minimum.
    free : Free
        What was fitted.
    n_tilts : int
    seed : int
    frame : ndarray, shape (n, 3), float64
        Variance of the frame that positions are in, Angstrom^2.

    Notes
    -----
    Jack-knife over tilts, linearised: with the score g_t = J_t^T W r_t of a tilt, which sum to 0, and A = J^T W J, an
    atom's covariance is A^-1 (sum_t g_t g_t^T) A^-1. That has the noise in it and whatever else differs from tilt to
    tilt (angles, shifts, brightness), but takes the other atoms as known. How much is lost by that, `crowding`, comes
    from a bootstrap: scores of whole tilts with random signs are propagated through A of all atoms together.
    """
    curvature = np.asarray(sum(series.map(bend, model)))
    own = regular_inverse(curvature[:, :3, :3])
    scores = np.asarray(sum(series.map(score_products, model)))
    correction = n_tilts / max(n_tilts - 1.5, 0.5)  # three parameters of an atom from two coordinates in every tilt
    covariance = correction * own @ scores @ own
    variance = np.einsum("nii->ni", covariance)
    random = np.random.default_rng(seed)
    inverse = inverse_bend(series, model, free)
    ratio = np.zeros(3)
    for _ in range(_SAMPLES):
        signs = random.choice([-1.0, 1.0], n_tilts)
        right = free.shared(np.asarray(sum(series.map(signed_scores, model, signs))))
        together = solve_linear(series, model, free, inverse, right)
        alone = np.einsum("nij,nj->ni", own, right[:, :3])
        # Relative to each atom's own, so that all count alike.
        deviation = np.sqrt(np.maximum(variance, 1e-300))
        ratio += np.mean(np.abs(together[:, :3]) / deviation, axis=0) / np.mean(np.abs(alone) / deviation, axis=0)
    crowding = np.maximum(ratio / _SAMPLES, 1.0)
    bound = float(np.sqrt(np.einsum("nii->n", own).mean()))
    return PositionError(np.sqrt(np.maximum(variance, 0.0) * crowding**2 + frame), bound, crowding)


def score_products(group: Group, model: Model) -> np.ndarray:
    """Sum over tilts of g g^T, g the gradient by an atom's position from one tilt, (n, 3, 3)."""
    total = np.zeros((len(model.heights), 3, 3))
    for t in range(len(group.numbers)):
        lab = _score(group, model, t)
        gradient = lab[:, :2] @ group.matrices[t, :2] / group.pixel_size
        total += gradient[:, :, None] * gradient[:, None, :]
    return total


def signed_scores(group: Group, model: Model, signs: np.ndarray) -> np.ndarray:
    """Sum over tilts of sign times gradient, (n, 5)."""
    total = np.zeros((len(model.heights), 5))
    for t, number in enumerate(group.numbers):
        lab = signs[number] * _score(group, model, t)
        total[:, :3] += lab[:, :2] @ group.matrices[t, :2] / group.pixel_size
        total[:, 3:] += lab[:, 2:]
    return total


def solve_linear(series: Series, model: Model, free: Free, inverse: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The change (n, 5) that J^T W J takes to `right`, after some conjugate gradients."""
    solution, residual = np.zeros_like(right), right.copy()
    step = np.einsum("nij,nj->ni", inverse, residual)
    direction, slope = step, free.dot(residual, step)
    for _ in range(_ITERATIONS):
        image = free.shared(np.asarray(sum(series.map(curved, model, direction))))
        bent = free.dot(direction, image)
        if not (slope > 0 and bent > 0):
            break
        solution = solution + slope / bent * direction
        residual = residual - slope / bent * image
        step = np.einsum("nij,nj->ni", inverse, residual)
        before, slope = slope, free.dot(residual, step)
        direction = step + slope / before * direction
    return solution


def curved(group: Group, model: Model, change: np.ndarray) -> np.ndarray:
    """J^T W J of a change, (n, 5)."""
    total, out = np.zeros((len(model.heights), 5)), np.empty((len(model.heights), 4))
    for t, weights in enumerate(group.weights):
        image = np.zeros(weights.shape, np.float32)
        seen = group.seen(t, model)
        push(*seen, group.projected(t, change), image)
        pull(*seen, weights * image, out)
        total[:, :3] += out[:, :2] @ group.matrices[t, :2] / group.pixel_size
        total[:, 3:] += out[:, 2:]
    return total


def _score(group: Group, model: Model, t: int) -> np.ndarray:
    out = np.empty((len(model.heights), 4))
    residual = group.predicted(t, model) - group.images[t]
    pull(*group.seen(t, model), group.weights[t] * residual, out)
    return out


def probabilities(heights: np.ndarray, mixture: Mixture, rejected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of being an atom (n,), and of being one of each type (n, k), from the heights.

    Parameters
    ----------
    heights : ndarray, shape (n,), float64
        Fitted height of every atom on its own.
    mixture : Mixture
        Heights of the types.
    rejected : ndarray, float64
        Heights of places where nothing is: maxima of the difference map.

    Notes
    -----
    Bayes: atoms of type k have heights of the mixture's normal distribution, what is no atom has heights
    of a half-normal distribution with the second moment of the rejected ones, each as often as there are of them.
    """
    n = len(heights)
    density = n * mixture.densities(heights)
    tail = n * 1e-12 / max(float(np.ptp(mixture.means)), float(mixture.means[-1]), 1e-300)
    false = np.zeros(n)
    if len(rejected):
        scale = max(float(np.sqrt(np.mean(rejected**2))), 1e-6 * float(mixture.means[0]))
        false = len(rejected) * np.sqrt(2.0 / np.pi) / scale * np.exp(-0.5 * (heights / scale) ** 2)
    nearest = np.eye(len(mixture.means))[mixture.types(heights)] * tail  # far from everything: what is nearest
    density = density + nearest
    whole = density.sum(axis=1) + false
    types = density / density.sum(axis=1, keepdims=True)
    return density.sum(axis=1) / whole, types


def without_weights(group: Group) -> Group:
    """The group whose measured pixels weigh 1."""
    return replace(group, weights=(group.weights > 0).astype(np.float32))
