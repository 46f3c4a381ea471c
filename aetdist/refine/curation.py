"""Atoms added, deleted, merged and retyped where the images ask for it: instead of work by hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from .descent import Bounds, Descent, Free, conjugate_gradients
from .difference import Candidates, find_candidates
from .imaging import fit_types
from .motion import Tilts
from .series import Series
from .tilts import Model
from .types import Mixture, fit_mixture, mixture_of_types

log = logging.getLogger(__name__)

_ITERATIONS = 6  # of the descent between two changes
_LOWEST, _LEAST = 0.5, 0.25  # of the lowest type's height: what is lower is no atom
_SPREADS = 3.0  # of the lowest type's heights below their mean that are atoms still
_TRY = 0.35  # of the lowest type's height: what looks higher is tried
_AT_ONCE = 0.03  # of the atoms are added in a round, at most
_ONE_PLACE = 0.65  # of the minimum distance: two maxima as near are one
_SAME_PLACE = 0.6  # Angstrom from an atom that was deleted: not tried again
_SIGNIFICANT = 3.5  # standard deviations of a candidate's height


@dataclass(frozen=True, eq=False)
class Curated:
    """Atoms and what became of them.

    Parameters
    ----------
    model : Model
    types : ndarray, shape (n,), int64
        0 ... k - 1.
    origin : ndarray, shape (n,), object
        "traced", "added", "merged" or "edited".
    anchor : ndarray, shape (n, 3), float64
        Angstrom: where atoms were traced or added.
    mixture : Mixture
        Of the heights of all types.
    rejected : ndarray, float64
        Heights of places that were looked at and are no atoms.
    counts : dict
        ``n_added``, ``n_deleted``, ``n_merged``, ``n_retyped``.
    edits : dict
        Attributes that record changes by hand.
    """

    model: Model
    types: np.ndarray
    origin: np.ndarray
    anchor: np.ndarray
    mixture: Mixture
    rejected: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    edits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, model: Model, types: np.ndarray, origin: np.ndarray) -> Curated:
        """Atoms as they came."""
        return cls(model, types, origin, model.positions, mixture_of_types(model.heights, types), np.zeros(0))

    def select(self, which: np.ndarray) -> Curated:
        """Some of the atoms."""
        return replace(
            self,
            model=self.model.select(which),
            types=self.types[which],
            origin=self.origin[which],
            anchor=self.anchor[which],
        )

    def moved(self, model: Model) -> Curated:
        """The same atoms where a descent ended."""
        return replace(self, model=model)

    def with_more(self, new: Candidates) -> Curated:
        """The atoms, and those that candidates stand for."""
        n = len(new.heights)
        sigma = np.full(n, np.median(self.model.sigmas))
        return replace(
            self,
            model=Model(
                *(np.concatenate(p) for p in zip(self.model, (new.positions, new.heights, sigma), strict=True))
            ),
            types=np.concatenate([self.types, self.mixture.types(new.heights)]),
            origin=np.concatenate([self.origin, np.full(n, "added", dtype=object)]),
            anchor=np.concatenate([self.anchor, new.positions]),
        )

    def retyped(self, heights: np.ndarray) -> Curated:
        """The atoms with the types that their heights tell; what was edited stays as it is."""
        mixture = fit_mixture(heights, mixture_of_types(heights, self.types, len(self.mixture.means)))
        types = np.where(self.origin == "edited", self.types, mixture.types(heights))
        changed = int((types != self.types)[self.origin != "added"].sum())
        return replace(
            self,
            types=types,
            mixture=mixture,
            counts=self.counts | {"n_retyped": self.counts.get("n_retyped", 0) + changed},
        )


def curate_atoms(
    images: Series, atoms: Curated, tilts: Tilts, *, rounds: int, minimum_distance: float, reach: float, prior: float
) -> tuple[Series, Curated]:
    """Computes: atoms of which none can be added or deleted to explain more.

    Parameters
    ----------
    images : Series
    atoms : Curated
        Where to start.
    tilts : Tilts
    rounds : int
        At most so many rounds of changes.
    minimum_distance : float
        Angstrom. Of two atoms nearer than two thirds of this one goes, and none is added there.
    reach, prior : float
        Angstrom; see `conjugate_gradients`.

    Returns
    -------
    images : Series
        Weighted by the noise that the last atoms leave.
    atoms : Curated

    Notes
    -----
    A round: positions and heights of all atoms, each with its own height; atoms lower than half the lowest type go,
    which of two near ones is lower goes to the higher; types by the mixture of the heights; maxima of the
    difference map that would be a third as high as the lowest type, and are certain, are tried. The next round judges
    them as all others. A place where an atom was deleted is not tried again.
    """
    added = deleted = merged = 0
    given_up = np.zeros((0, 3))
    for number in range(rounds + 1):
        images = tilts.weighted(images, atoms.model)
        descent = _settled(images, atoms, tilts.bounds(atoms.anchor, reach, prior))
        kept, higher, model = without_doubles(descent.model, _ONE_PLACE * minimum_distance)
        origin = atoms.origin.copy()
        origin[higher] = "merged"
        atoms = replace(atoms, model=model, origin=origin)
        high = model.heights >= lowest_height(mixture_of_types(model.heights[kept], atoms.types[kept]))
        given_up = np.concatenate([given_up, model.positions[kept & ~high]])
        new = atoms.origin == "added"
        merged, deleted = merged + len(higher), deleted + int((kept & ~high & ~new).sum())
        added -= int((kept & ~high & new).sum())  # tried in vain
        gone = not (kept & high).all()
        atoms = atoms.select(kept & high)
        atoms = atoms.retyped(atoms.model.heights)
        if number == rounds:
            break
        atoms = atoms.moved(_with_widths(images, atoms.model, atoms.types))
        if gone:  # the others fill the hole first
            atoms = atoms.moved(_settled(images, atoms, tilts.bounds(atoms.anchor, reach, prior)).model)
        found = find_candidates(images, atoms.model, float(np.median(atoms.model.sigmas)), minimum_distance)
        tried = _worth_trying(found, atoms, minimum_distance, given_up)
        log.info(
            "curation, round %d: R %.4f; so far %d added, %d deleted, %d merged; %d more are tried",
            number + 1,
            np.nanmean(descent.r_factor[-1]),
            added,
            deleted,
            merged,
            tried.sum(),
        )
        atoms = replace(atoms, rejected=found.heights[~tried])
        if not tried.any() and not gone:
            break
        added += int(tried.sum())
        atoms = atoms.with_more(found.select(tried))
    counts = {"n_added": added, "n_deleted": deleted, "n_merged": merged}
    return images, replace(atoms, counts=atoms.counts | counts)


def _worth_trying(found: Candidates, atoms: Curated, minimum_distance: float, given_up: np.ndarray) -> np.ndarray:
    """Candidates that are high and certain enough, and not too near an atom there is."""
    if not len(found.heights):
        return np.zeros(0, bool)
    away = cKDTree(atoms.model.positions).query(found.positions)[0]
    again = np.zeros(len(away), bool)
    if len(given_up):
        again = cKDTree(given_up).query(found.positions)[0] < _SAME_PLACE
    worth = ~again & (
        (found.heights > _TRY * atoms.mixture.means[0])
        & (found.significance > _SIGNIFICANT)
        & (away > _ONE_PLACE * minimum_distance)
    )
    worth[np.flatnonzero(worth)[max(10, int(_AT_ONCE * len(atoms.types))) :]] = False  # the highest come first
    return worth


def lowest_height(mixture: Mixture) -> float:
    """What is lower is no atom: half the lowest type's height, or less where its heights are spread widely."""
    part = np.clip(1.0 - _SPREADS * mixture.spreads[0] / mixture.means[0], _LEAST, _LOWEST)
    return float(part * mixture.means[0])


def _with_widths(series: Series, model: Model, types: np.ndarray) -> Model:
    """The same atoms, as bright as before, with the width that suits each type best."""
    sigmas = fit_types(series, model, types)[0].sigmas
    return Model(model.positions, model.heights * (model.sigmas / sigmas) ** 3, sigmas)


def _settled(images: Series, atoms: Curated, bounds: Bounds) -> Descent:
    """Positions and heights of all atoms after some iterations."""
    return conjugate_gradients(images, atoms.model, Free(True, np.arange(len(atoms.types)), None), _ITERATIONS, bounds)


def without_doubles(model: Model, distance: float) -> tuple[np.ndarray, np.ndarray, Model]:
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
