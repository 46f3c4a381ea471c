"""Whether atoms of one type share height and width, or each has its own."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import numpy as np

from .descent import Bounds, Free, Spread, conjugate_gradients, inverse_bend
from .series import Series
from .tilts import Group, Model, misfit_of

log = logging.getLogger(__name__)

Choice = Literal["auto", "type", "atom"]
_ITERATIONS = 6  # that each freedom is given before it is judged
_LEAST_SPREAD = 0.01  # of heights and widths of atoms of one type, relative
_FOLDS = 4  # parts of the tilts that are left out in turn
_WHOSE = {False: "per type", True: "per atom"}


class Sharing(NamedTuple):
    """Which numbers every atom has for itself."""

    own_heights: bool
    own_widths: bool

    def free(self, n: int) -> Free:
        """What the descent of n atoms may change."""
        return Free(True, np.arange(n) if self.own_heights else None, np.arange(n) if self.own_widths else None)

    def judged(self, types: np.ndarray) -> Free:
        """What a descent may change that is held against others: what atoms of a type (n,) share is free as well."""
        every = np.arange(len(types))
        return Free(True, every if self.own_heights else types, every if self.own_widths else types)

    def applied(self, model: Model, typed: Model) -> Model:
        """The atoms with what they share from `typed`, and what each has for itself from `model`."""
        if self.own_heights and self.own_widths:
            return model
        if self.own_heights:
            return Model(model.positions, model.heights * (model.sigmas / typed.sigmas) ** 3, typed.sigmas)
        if self.own_widths:
            return Model(model.positions, typed.heights, model.sigmas)
        return typed


def choose_sharing(
    images: Series,
    typed: Model,
    types: np.ndarray,
    heights: Choice,
    widths: Choice,
    bounds: Bounds,
) -> tuple[Sharing, Model]:
    """Computes: which freedom predicts tilts best that it was not fitted to, and the atoms with it.

    Parameters
    ----------
    images : Series
        Of four tilts or more.
    typed : Model
        One height and one width for each type.
    types : ndarray, shape (n,), int
        1, 2, ...
    heights, widths : {"auto", "type", "atom"}
    bounds : Bounds

    Notes
    -----
    Every fourth tilt is left out in turn; more freedom is taken where it predicts them better by twice the standard
    error of the mean over the tilts. What the criteria of Akaike and Bayes ask of the noise, that it is known and
    that of every pixel apart, data that the model does not explain do not have.
    """
    n = len(typed.heights)
    allowed = [
        Sharing(own_heights, own_widths)
        for own_heights, own_widths in ((False, False), (True, False), (False, True), (True, True))
        if heights in ("auto", "atom" if own_heights else "type")
        and widths in ("auto", "atom" if own_widths else "type")
        and (own_heights or not own_widths or heights == "type")
    ]
    best = allowed[0]
    if len(allowed) > 1:
        folds = [(images.changed(without, fold), images.changed(only, fold)) for fold in range(_FOLDS)]
        fitted, least = [typed] * _FOLDS, None
        for sharing in allowed:
            fitted = [
                conjugate_gradients(kept, model, sharing.judged(types), _ITERATIONS, bounds).model
                for (kept, _), model in zip(folds, fitted, strict=True)
            ]
            told = [left_out.map(misfit_of, model) for (_, left_out), model in zip(folds, fitted, strict=True)]
            misfit = np.concatenate([part for parts in told for part in parts])
            log.info("one height %s, one width %s: tilts left out %.0f", *map(_WHOSE.get, sharing), misfit.sum())
            if least is not None and not _is_surely_positive(least - misfit):
                break  # more freedom would predict still worse
            best, least = sharing, misfit
    return best, conjugate_gradients(images, typed, best.free(n), _ITERATIONS, bounds).model


def spread_of(
    images: Series, model: Model, types: np.ndarray, sharing: Sharing, before: np.ndarray | None = None
) -> np.ndarray:
    """Computes: variance of ln H and ln sigma of atoms of one type beyond what noise makes of them, (2,).

    What each atom has for itself is then expected within it of the mean of its type: the less it varies in truth, the
    less noise it takes up.

    Parameters
    ----------
    images : Series
        Weighted by the noise.
    model : Model
        Each atom fitted for itself, or, with the variance `before`, as it was expected then.
    types : ndarray, shape (n,), int
        0, 1, ...
    sharing : Sharing
    """
    off = spread_about(model, types, np.ones(2)).off(model)
    inverse = inverse_bend(images, model, sharing.free(len(types)))
    noise = np.maximum(inverse[:, [3, 4], [3, 4]], 1e-12)  # of what is shared nothing is off
    if before is None:
        variance = np.sum((off**2 - noise) / noise, axis=0) / np.sum(1.0 / noise, axis=0)
    else:  # a step of expectation and maximisation: what is known of an atom now is noise and expectation together
        variance = np.mean(off**2 + noise * before / (noise + before), axis=0)
    return np.maximum(variance, _LEAST_SPREAD**2)


def spread_about(model: Model, types: np.ndarray, variance: np.ndarray) -> Spread:
    """What is expected of atoms: the mean of their type, now."""
    logarithms = np.log(np.stack([model.heights, model.sigmas], axis=1))
    count = np.maximum(np.bincount(types), 1)[:, None]
    mean = np.stack([np.bincount(types, column) for column in logarithms.T], axis=1) / count
    return Spread(mean[types], variance)


def _is_surely_positive(gains: np.ndarray) -> bool:
    """Whether the mean of some numbers is above 0 by twice its standard error."""
    return bool(gains.mean() > 2.0 * gains.std(ddof=1) / np.sqrt(len(gains)))


def without(group: Group, fold: int) -> Group:
    """The tilts of a group that a fold does not leave out."""
    return group.select(group.numbers % _FOLDS != fold)


def only(group: Group, fold: int) -> Group:
    """The tilts of a group that a fold leaves out."""
    return group.select(group.numbers % _FOLDS == fold)
