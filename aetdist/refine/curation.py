"""Atoms added, deleted, merged and retyped where the images ask for it: instead of work by hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .descent import Descent, Free, conjugate_gradients
from .difference import Candidates, find_candidates
from .imaging import fit_noise, fit_types
from .tilts import Model, Series
from .types import Mixture, fit_mixture, mixture_of_types

log = logging.getLogger(__name__)

_ITERATIONS = 6  # of the descent between two changes
_LOWEST = 0.5  # of the lowest type's height: what is lower is no atom
_TRY = 0.35  # of the lowest type's height: what looks higher is tried
_AT_ONCE = 0.03  # of the atoms are added in a round, at most
_ONE_PLACE = 0.65  # of the minimum distance: two maxima as near are one
_SAME_PLACE = 0.6  # Angstrom from an atom that was deleted: not tried again
_SIGNIFICANT = 3.5  # standard deviations of a candidate's height


@dataclass(frozen=True, eq=False)
class Curated:
    """Atoms after curation.

    Parameters
    ----------
    model : Model
    types : ndarray, shape (n,), int64
        0 ... k - 1.
    origin : ndarray, shape (n,), str
        "traced", "added" or "merged".
    mixture : Mixture
        Of the heights.
    rejected : ndarray, float64
        Heights of the candidates that were tried last and are no atoms.
    counts : dict
        Added, deleted and merged atoms in all rounds.
    """

    model: Model
    types: np.ndarray
    origin: np.ndarray
    mixture: Mixture
    rejected: np.ndarray
    counts: dict[str, int]


def curate(
    series: Series, model: Model, types: np.ndarray, k: int, *, rounds: int, minimum_distance: float, reach: float
) -> tuple[Series, Curated]:
    """Computes: atoms of which none can be added or deleted to explain more than it costs.

    Parameters
    ----------
    series : Series
    model : Model
        Where to start.
    types : ndarray, shape (n,), int64
        0 ... k - 1.
    k : int
        Number of types.
    rounds : int
        At most so many rounds of changes.
    minimum_distance : float
        Angstrom; of two atoms nearer than this one goes.
    reach : float
        Angstrom that an atom moves in a round, at most.
    """
    origin = np.full(len(types), "traced", dtype=object)
    counts = {"added": 0, "deleted": 0, "merged": 0}
    rejected, mixture, given_up = np.zeros(0), None, np.zeros((0, 3))
    for number in range(rounds + 1):
        series, _ = fit_noise(series, model)
        descent = _settled(series, model, reach)
        kept, merged, model = _without_doubles(descent.model, _ONE_PLACE * minimum_distance)
        origin[merged] = "merged"
        if mixture is None:
            mixture = mixture_of_types(model.heights[kept], types[kept], k)
        high = model.heights >= _LOWEST * mixture.means[0]
        given_up = np.concatenate([given_up, model.positions[kept & ~high]])
        kept &= high
        counts["deleted"] += int((~kept).sum())
        counts["merged"] += len(merged)
        model, types, origin = model.select(kept), types[kept], origin[kept]
        mixture = fit_mixture(model.heights, mixture)
        types = mixture.types(model.heights)
        if number == rounds:
            break
        model = _with_widths(series, model, types)
        if not kept.all():  # what went leaves a hole that the others may fill
            model = _settled(series, model, reach).model
        found = find_candidates(series, model, float(np.median(model.sigmas)), minimum_distance)
        tried = _worth_trying(found, model, mixture, minimum_distance, given_up)
        log.info(
            "curation %d: R %.5f, %d deleted, %d tried",
            number, np.nanmean(descent.r_factor[-1]), (~kept).sum(), tried.sum(),
        )  # fmt: skip
        rejected = found.heights[~tried]
        if not tried.any() and kept.all():
            break
        new = found.select(tried)
        counts["added"] += len(new.heights)
        model = Model(
            np.concatenate([model.positions, new.positions]),
            np.concatenate([model.heights, new.heights]),
            np.concatenate([model.sigmas, np.full(len(new.heights), np.median(model.sigmas))]),
        )
        types = np.concatenate([types, mixture.types(new.heights)])
        origin = np.concatenate([origin, np.full(len(new.heights), "added", dtype=object)])
    assert mixture is not None
    return series, Curated(model, types, origin, mixture, rejected, counts)


def _worth_trying(found: Candidates, model: Model, mixture: Mixture, minimum_distance: float, given_up: np.ndarray) -> np.ndarray:
    """Candidates that are high and certain enough, and not too near an atom there is."""
    if not len(found.heights):
        return np.zeros(0, bool)
    away = cKDTree(model.positions).query(found.positions)[0]
    again = np.zeros(len(away), bool)
    if len(given_up):
        again = cKDTree(given_up).query(found.positions)[0] < _SAME_PLACE
    worth = ~again & (
        (found.heights > _TRY * mixture.means[0])
        & (found.significance > _SIGNIFICANT)
        & (away > _ONE_PLACE * minimum_distance)
    )
    worth[np.flatnonzero(worth)[max(10, int(_AT_ONCE * len(model.heights))) :]] = False  # the highest come first
    return worth


def _with_widths(series: Series, model: Model, types: np.ndarray) -> Model:
    """The same atoms, as bright as before, with the width that suits each type best."""
    sigmas = fit_types(series, model, types, rounds=2).sigmas
    return Model(model.positions, model.heights * (model.sigmas / sigmas) ** 3, sigmas)


def _settled(series: Series, model: Model, reach: float) -> Descent:
    """Positions and heights of all atoms after some iterations."""
    free = Free(True, np.arange(len(model.heights)), None)
    return conjugate_gradients(series, model, free, _ITERATIONS, anchor=model.positions, reach=reach)


def _without_doubles(model: Model, distance: float) -> tuple[np.ndarray, np.ndarray, Model]:
    """Which atoms stay where two are nearer than `distance`; the other takes its height where both are one atom."""
    kept = np.ones(len(model.heights), bool)
    positions, heights = model.positions.copy(), model.heights.copy()
    pairs = np.array(sorted(cKDTree(positions).query_pairs(distance)), dtype=int).reshape(-1, 2)
    apart = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    merged = []
    for i, j in pairs[np.argsort(apart, kind="stable")]:
        if not (kept[i] and kept[j]):
            continue
        high, low = (i, j) if heights[i] >= heights[j] else (j, i)
        total = heights[i] + heights[j]
        positions[high] = (heights[i] * positions[i] + heights[j] * positions[j]) / total
        heights[high] = total
        kept[low] = False
        merged.append(high)
    return kept, np.array(merged, dtype=int), model._replace(positions=positions, heights=heights)
