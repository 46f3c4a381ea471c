"""How sure an atom is: of its position, of being one, of its type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._kernels import pull, push
from .descent import Free, inverse_bend, regular_inverse
from .series import Series
from .tilts import Group, Model, bend
from .types import Mixture

_ENOUGH = 4000  # atoms whose samples of noise say what noise does on the average
_MOST_SAMPLES = 20
_ITERATIONS = 8  # of the linear solution of each sample


@dataclass(frozen=True, eq=False)
class PositionError:
    """Standard deviations of positions.

    Parameters
    ----------
    sigma : ndarray, shape (n, 3), float64
        Angstrom, along x, y, z.
    cramer_rao : float
        Angstrom: root of the mean over atoms of the squared deviation, all three axes together, that noise alone
        leaves an isolated atom at least. Atoms of more than ten times the median, which hardly any tilt sees, do not
        count.
    crowding : ndarray, shape (3,), float64
        How much less sure noise leaves an atom because the others are not known either.
    tilts : ndarray, shape (3,), float64
        How much more tilts disagree about an atom than noise makes them.
    """

    sigma: np.ndarray
    cramer_rao: float
    crowding: np.ndarray
    tilts: np.ndarray


def position_error(images: Series, model: Model, free: Free, seed: int, frame: np.ndarray) -> PositionError:
    """Computes: how far positions may be off, from the noise and from how much tilts disagree.

    Parameters
    ----------
    images : Series
        Weighted by the noise.
    model : Model
        At the minimum.
    free : Free
        What was fitted.
    seed : int
    frame : ndarray, shape (n, 3), float64
        Variance of the frame that positions are in, Angstrom^2.

    Notes
    -----
    Jack-knife over tilts, linearised: with the score g_t = J_t^T W r_t of a tilt and A = J^T W J, an atom's covariance
    is A^-1 (sum_t g_t g_t^T) A^-1. That has the noise in it and whatever else differs from tilt to tilt (angles,
    shifts, brightness). It lacks that residuals are smaller than what made them, since atoms follow it; and that the
    neighbours are not known either. Both are measured with white noise that is sent through the same equations, all
    atoms together, and taken out of, or multiplied to, the jack-knife's variance.
    """
    curvature = images.sum(bend, model)
    own = regular_inverse(curvature[:, :3, :3])
    bound = np.einsum("nii->ni", own)
    inverse = inverse_bend(images, model, free)
    left, spread = np.zeros(3), np.zeros(3)
    samples = min(-(-_ENOUGH // len(bound)), _MOST_SAMPLES)
    for sample in range(samples):
        noise = (seed, sample)
        right = free.shared(images.sum(noise_gradient, model, noise))
        change = solve_linear(images, model, free, inverse, right)
        scores = images.sum(score_products, model, noise, change)
        spread += np.mean(change[:, :3] ** 2 / np.maximum(bound, 1e-300), axis=0) / samples
        left += _mean_ratio(own @ scores @ own, bound) / samples
    scores = images.sum(score_products, model)
    variance = np.einsum("nii->ni", own @ scores @ own) / np.maximum(left, 1e-30)
    return PositionError(
        np.sqrt(np.maximum(variance, 0.0) * spread + frame),
        _typical(bound.sum(axis=1)),
        np.sqrt(spread),
        np.sqrt(np.mean(variance / np.maximum(bound, 1e-300), axis=0)),
    )


def _typical(variance: np.ndarray) -> float:
    seen = variance <= 100.0 * np.median(variance)
    return float(np.sqrt(variance[seen].mean()))


def _mean_ratio(covariance: np.ndarray, bound: np.ndarray) -> np.ndarray:
    return np.asarray(np.mean(np.einsum("nii->ni", covariance) / np.maximum(bound, 1e-300), axis=0))


def white_noise(group: Group, t: int, noise: tuple[int, int]) -> np.ndarray:
    """Noise of the variance 1 / weight at one tilt of a group, (y, x) float32; the same wherever it is drawn."""
    random = np.random.default_rng(np.random.SeedSequence(noise[0], spawn_key=(noise[1], int(group.numbers[t]))))
    weights = group.weights[t]
    drawn = random.standard_normal(weights.shape, dtype=np.float32)
    return np.divide(drawn, np.sqrt(weights), out=np.zeros_like(weights), where=weights > 0)


def noise_gradient(group: Group, model: Model, noise: tuple[int, int]) -> np.ndarray:
    """What white noise in the images adds to the gradient J^T W r of all atoms, (n, 5)."""
    total = np.zeros((len(model.heights), 5))
    for t in range(len(group.numbers)):
        total += _in_sample(group, t, _pulled(group, model, t, white_noise(group, t, noise)))
    return total


def score_products(
    group: Group, model: Model, noise: tuple[int, int] | None = None, change: np.ndarray | None = None
) -> np.ndarray:
    """Sum over tilts of g g^T, g the score of an atom's position, (n, 3, 3): of the residuals, or of white noise.

    `change` is what the atoms follow of that noise.
    """
    total = np.zeros((len(model.heights), 3, 3))
    for t, image in enumerate(group.images):
        if noise is None or change is None:
            residual = image - group.predicted(t, model)
        else:
            residual = np.zeros(image.shape, np.float32)
            push(*group.seen(t, model), group.projected(t, change), residual)
            residual = white_noise(group, t, noise) - residual
        score = _in_sample(group, t, _pulled(group, model, t, residual))[:, :3]
        total += score[:, :, None] * score[:, None, :]
    return total


def solve_linear(
    series: Series, model: Model, free: Free, inverse: np.ndarray, right: np.ndarray, iterations: int = _ITERATIONS
) -> np.ndarray:
    """The change (n, 5) that J^T W J takes to `right`, after some conjugate gradients."""
    solution, residual = np.zeros_like(right), right.copy()
    step = np.einsum("nij,nj->ni", inverse, residual)
    direction, slope = step, free.dot(residual, step)
    for _ in range(iterations):
        image = free.shared(series.sum(curved, model, direction))
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
    """The gradient J^T W J c that a change c of the atoms brings about, to first order, (n, 5)."""
    total = np.zeros((len(model.heights), 5))
    for t, weights in enumerate(group.weights):
        image = np.zeros(weights.shape, np.float32)
        push(*group.seen(t, model), group.projected(t, change), image)
        total += _in_sample(group, t, _pulled(group, model, t, image))
    return total


def _pulled(group: Group, model: Model, t: int, image: np.ndarray) -> np.ndarray:
    """J^T W of an image at one tilt, (n, 4) in the laboratory's frame."""
    out = np.empty((len(model.heights), 4))
    pull(*group.seen(t, model), group.weights[t] * image, out)
    return out


def _in_sample(group: Group, t: int, lab: np.ndarray) -> np.ndarray:
    """A gradient (n, 4) in the laboratory's frame as one (n, 5) in the sample's."""
    return np.concatenate([lab[:, :2] @ group.matrices[t, :2] / group.pixel_size, lab[:, 2:]], axis=1)


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
    whole = (density + nearest).sum(axis=1)
    types = n * mixture.densities(mixture.between(heights)) + nearest
    return whole / (whole + false), types / types.sum(axis=1, keepdims=True)
