"""Least squares of all atoms together: conjugate gradients, preconditioned by every atom's own second derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .series import Series
from .tilts import Model, bend, judge, steepness

_FURTHEST = 0.15  # Angstrom that an atom moves in an iteration
_MOST = 0.2  # change of ln H and ln sigma in an iteration
_RIDGE = 1e-3  # of an atom's own second derivatives: what no tilt tells stays where it is


@dataclass(frozen=True)
class Free:
    """Which parameters are free, and which atoms share one.

    Parameters
    ----------
    positions : bool
    heights, sigmas : ndarray of int, shape (n,), or None
        Number of the parameter that an atom takes; None keeps them.
    """

    positions: bool = True
    heights: np.ndarray | None = None
    sigmas: np.ndarray | None = None

    def shared(self, gradient: np.ndarray) -> np.ndarray:
        """A gradient (n, 5) whose columns are summed over the atoms that share a parameter, at all of these."""
        shared = np.zeros_like(gradient)
        if self.positions:
            shared[:, :3] = gradient[:, :3]
        for column, labels in ((3, self.heights), (4, self.sigmas)):
            if labels is not None:
                shared[:, column] = np.bincount(labels, gradient[:, column])[labels]
        return shared

    def dot(self, a: np.ndarray, b: np.ndarray) -> float:
        """Inner product over the free parameters: one that several atoms share counts once."""
        total = float(np.sum(a[:, :3] * b[:, :3]))
        for column, labels in ((3, self.heights), (4, self.sigmas)):
            if labels is not None:
                total += float(np.sum(a[:, column] * b[:, column] / np.bincount(labels)[labels]))
        return total


class Spread(NamedTuple):
    """What is expected of the own heights and widths of atoms: a normal distribution for each type.

    Attributes
    ----------
    mean : ndarray, shape (n, 2), float64
        Of ln H and ln sigma.
    variance : ndarray, shape (2,), float64
    """

    mean: np.ndarray
    variance: np.ndarray

    def off(self, model: Model) -> np.ndarray:
        """How far ln H and ln sigma of every atom are from what is expected, (n, 2)."""
        return np.log(np.stack([model.heights, model.sigmas], axis=1)) - self.mean


class Bounds(NamedTuple):
    """Where positions may be, and what is expected of atoms.

    Attributes
    ----------
    anchor : ndarray, shape (n, 3), float64
        Angstrom: where atoms were traced or added.
    reach : float
        Angstrom; no atom goes further from its anchor.
    prior : float
        Angstrom, standard deviation along each axis: how far it is expected from there.
    spread : Spread, optional
        Of heights and widths.
    """

    anchor: np.ndarray
    reach: float
    prior: float
    spread: Spread | None = None

    def stiffness(self, free: Free) -> np.ndarray:
        """Second derivatives (5,) of half the sum of squares that what is expected adds to the misfit."""
        stiff = np.zeros(5)
        stiff[:3] = self.prior**-2 if free.positions else 0.0
        if self.spread is not None:
            stiff[3:] = np.where([free.heights is not None, free.sigmas is not None], 1.0 / self.spread.variance, 0.0)
        return stiff

    def off(self, model: Model) -> np.ndarray:
        """How far atoms are from what is expected, (n, 5)."""
        own = np.zeros((len(model.heights), 2)) if self.spread is None else self.spread.off(model)
        return np.concatenate([model.positions - self.anchor, own], axis=1)


class Descent(NamedTuple):
    """Where it ended.

    Attributes
    ----------
    model : Model
    r_factor : ndarray, shape (iteration + 1, tilt), float64
        Eq. 4 before the first and after every iteration.
    misfit : ndarray, shape (iteration + 1,), float64
        Sum of w r^2.
    """

    model: Model
    r_factor: np.ndarray
    misfit: np.ndarray


def conjugate_gradients(
    series: Series,
    model: Model,
    free: Free,
    iterations: int,
    bounds: Bounds | None = None,
    *,
    tolerance: float = 1e-4,
) -> Descent:
    """Computes: the model after some iterations.

    Parameters
    ----------
    series : Series
    model : Model
        Where to start.
    free : Free
    iterations : int
        At most so many.
    bounds : Bounds, optional
        Anywhere by default.
    tolerance : float
        Ends when the misfit falls by less than this fraction of itself.

    Notes
    -----
    Polak-Ribiere with restarts. The step length is that of the Gauss-Newton model along the direction,
    -g.d / |J d|^2; no atom moves further than .15 Angstrom at once. Where the misfit rose all the same, the iteration
    is taken back and the descent begins again, half as far.
    """
    scale, stiff = 1.0, np.zeros(5) if bounds is None else bounds.stiffness(free)
    inverse = inverse_bend(series, model, free, stiff)
    direction, old, slope_before = None, None, 0.0
    models = [model]
    r_factors: list[np.ndarray] = []
    misfits: list[float] = []
    for iteration in range(iterations + 1):
        gradient, r_factor, misfit = _with_prior(judged(series, models[-1]), models[-1], bounds, stiff)
        if misfits and misfit > misfits[-1]:
            models.pop()
            scale *= 0.5
            direction = None
            gradient, r_factor, misfit = _with_prior(judged(series, models[-1]), models[-1], bounds, stiff)
        r_factors.append(r_factor)
        misfits.append(misfit)
        if iteration == iterations or (iteration and not misfits[-1] < (1.0 - tolerance) * misfits[-2] and scale > 0.2):
            break
        gradient = free.shared(gradient)
        step = -np.einsum("nij,nj->ni", inverse, gradient)
        slope = free.dot(gradient, step)
        if direction is None or old is None:
            direction = step
        else:
            beta = max(0.0, (slope - free.dot(old, step)) / slope_before)
            direction = step + beta * direction
            if free.dot(gradient, direction) >= 0:
                direction = step
        old, slope_before = gradient, slope
        curved = float(series.sum(steepness, models[-1], direction))
        curved += float(np.square(direction).sum(axis=0) @ stiff)
        if not curved > 0:
            break
        change = scale * -free.dot(gradient, direction) / curved * direction
        models.append(_bounded(models[-1], change, bounds))
    return Descent(models[-1], np.array(r_factors), np.array(misfits))


def steepest_descent(
    series: Series,
    model: Model,
    free: Free,
    iterations: int,
    bounds: Bounds | None = None,
) -> Descent:
    """Computes: the model after some iterations of the paper's plain gradient descent with a fixed step.

    Notes
    -----
    r <- r - g / c with c the mean of the largest second derivatives by atoms' positions (ln H, ln sigma likewise),
    for all atoms the same; see `conjugate_gradients` for the arguments. Where the misfit rose, the step is taken back
    and halved from there on: of heavier atoms, and of those that overlap, the second derivatives are larger.
    """
    blocks = series.sum(bend, model)
    diagonal = np.einsum("nii->ni", blocks)
    curvature = np.array([diagonal[:, :3].max(axis=1).mean()] * 3 + [diagonal[:, 3].mean(), diagonal[:, 4].mean()])
    gradient, r_factor, misfit = judged(series, model)
    r_factors, misfits, scale = [r_factor], [misfit], 1.0
    for _ in range(iterations):
        tried = _bounded(model, -scale * free.shared(gradient) / curvature, bounds)
        judgement = judged(series, tried)
        if judgement[2] <= misfit:
            model, (gradient, r_factor, misfit) = tried, judgement
        else:
            scale *= 0.5
        r_factors.append(r_factor)
        misfits.append(misfit)
    return Descent(model, np.array(r_factors), np.array(misfits))


def judged(series: Series, model: Model) -> tuple[np.ndarray, np.ndarray, float]:
    """Gradient (n, 5), R of every tilt, and sum w r^2."""
    gradient, misfits = np.zeros((len(model.heights), 5)), []
    for part in series.each(judge, model):
        gradient += part.gradient
        misfits.append(part.misfit)
    misfit = np.concatenate(misfits)
    total = misfit[:, 1]
    r_factor = np.divide(misfit[:, 0], total, out=np.full(len(total), np.nan), where=total > 0)
    return gradient, r_factor, float(misfit[:, 2].sum())


def _with_prior(
    found: tuple[np.ndarray, np.ndarray, float], model: Model, bounds: Bounds | None, stiff: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gradient and misfit with what is expected of the atoms."""
    gradient, r_factor, misfit = found
    if bounds is None:
        return found
    off = bounds.off(model)
    return gradient + stiff * off, r_factor, misfit + float(np.square(off).sum(axis=0) @ stiff)


def inverse_bend(series: Series, model: Model, free: Free, stiff: np.ndarray | None = None) -> np.ndarray:
    """Inverse of every atom's own second derivatives by its free parameters, (n, 5, 5); 0 by the others.

    `stiff` (5,) is what its being expected somewhere adds.
    """
    blocks = series.sum(bend, model)
    if stiff is not None:
        blocks[:, range(5), range(5)] += stiff
    for column, labels in ((3, free.heights), (4, free.sigmas)):
        if labels is None:
            blocks[:, column, :] = blocks[:, :, column] = 0.0
        elif labels.max(initial=0) + 1 < len(labels):  # of a parameter of several atoms
            own = blocks[:, column, column].copy()
            blocks[:, column, :] = blocks[:, :, column] = 0.0
            blocks[:, column, column] = np.bincount(labels, own)[labels]
    if not free.positions:
        blocks[:, :3, :] = blocks[:, :, :3] = 0.0
    return regular_inverse(blocks)


def regular_inverse(blocks: np.ndarray) -> np.ndarray:
    """Inverse of symmetric matrices (n, k, k) with a small ridge; rows that are 0 stay 0."""
    diagonal = np.einsum("nii->ni", blocks)
    there = diagonal > 0
    root = np.sqrt(np.where(there, diagonal, 1.0))
    scaled = blocks / root[:, :, None] / root[:, None, :]
    k = blocks.shape[1]
    scaled[:, np.arange(k), np.arange(k)] = 1.0 + _RIDGE
    inverse = np.linalg.inv(scaled) / root[:, :, None] / root[:, None, :]
    return np.where(there[:, :, None] & there[:, None, :], inverse, 0.0)


def _bounded(model: Model, change: np.ndarray, bounds: Bounds | None) -> Model:
    """The model after a change in which no atom goes too far."""
    length = np.linalg.norm(change[:, :3], axis=1, keepdims=True)
    moved = change[:, :3] * np.minimum(1.0, _FURTHEST / np.maximum(length, 1e-30))
    new = model.changed(np.concatenate([moved, np.clip(change[:, 3:], -_MOST, _MOST)], axis=1))
    if bounds is None:
        return new
    away = new.positions - bounds.anchor
    length = np.linalg.norm(away, axis=1, keepdims=True)
    return new._replace(positions=bounds.anchor + away * np.minimum(1.0, bounds.reach / np.maximum(length, 1e-30)))
