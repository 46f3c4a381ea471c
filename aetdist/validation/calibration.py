"""Whether atoms are as sure as they say, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from scipy import optimize, special, stats

from ..refine.results import RESOLVED
from ..schema import ATOMS, with_units
from .comparison import Matched
from .depth import depth_below_surface

GAUSSIAN = float(special.erf(np.sqrt(0.5)))
"""Part of Gaussian deviations within one standard deviation."""
PROBABILITIES = (0.0, 0.5, 0.7, 0.9, 1.0)
_LEAST_ATOMS = 300  # of a depth that has a factor of its own
_MOST_DEPTHS = 5
_LEAST_PAIRS = 30  # to calibrate anything
_DIFFER = 0.01  # probability of depths differing as much by chance, at most
_SURE = 1e-6  # probabilities are no nearer to 0 and 1
_PRIOR = (1.0, 0.25)  # standard deviations of what is expected of the intercept and the slope of the log odds


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the standard deviations and the probabilities of refined atoms are to be changed by.

    Parameters
    ----------
    depth : ndarray, shape (node,), float64
        Angstrom below the surface.
    factor : ndarray, shape (node, axis), float64
        Of the standard deviations there; linear in between, constant beyond.
    odds : tuple of float
        Intercept and slope that the log odds of being an atom get.
    """

    depth: np.ndarray
    factor: np.ndarray
    odds: tuple[float, float]

    def factors(self, depth: np.ndarray) -> np.ndarray:
        """Factor of atoms at depths (n,), (n, axis)."""
        return np.stack([np.interp(depth, self.depth, column) for column in self.factor.T], axis=1)

    def probability(self, claimed: np.ndarray) -> np.ndarray:
        """Probability of being an atom from the claimed one."""
        intercept, slope = self.odds
        return np.asarray(special.expit(intercept + slope * log_odds(claimed)))


def calibrate(matched: Matched) -> Calibration:
    """Factors with which as many deviations are within one standard deviation as of a Gaussian, axis by axis.

    Parameters
    ----------
    matched : Matched
        Found atoms with ``position_sigma`` and ``probability``.

    Notes
    -----
    A factor is the 68.3 % quantile of the deviation over sigma. Atoms are parted by depth into groups of at least 300,
    and where the factors of the groups differ by more than chance (chi-squared test, 1 %), the factor follows the
    depth. The log odds of being an atom become a + b log odds, by maximum likelihood with a expected at 0 +- 1, b at
    1 +- 0.25 (Platt scaling).
    """
    here = matched.pairs[matched.right, 0]
    sigma = matched.found["position_sigma"].values[here]
    known = (np.isfinite(sigma) & (sigma > 0)).all(axis=1)
    z, depth = np.abs(matched.deviation[known] / sigma[known]), matched.found_depth[here][known]
    odds = _fit_odds(matched.found["probability"].values, matched.is_atom)
    if len(z) < _LEAST_PAIRS:
        return Calibration(np.zeros(1), np.ones((1, 3)), odds)
    whole = np.quantile(z, GAUSSIAN, axis=0)
    groups = np.array_split(np.argsort(depth, kind="stable"), max(1, min(_MOST_DEPTHS, len(z) // _LEAST_ATOMS)))
    parts = np.array([np.quantile(z[group], GAUSSIAN, axis=0) for group in groups])
    middles = np.array([float(np.median(depth[group])) for group in groups])
    if len(groups) == 1 or not _differ(parts, np.array([len(group) for group in groups])):
        return Calibration(middles.mean(keepdims=True), whole[None], odds)
    return Calibration(middles, parts, odds)


def calibrated(atoms: xr.Dataset, calibration: Calibration) -> xr.Dataset:
    """ATOMS with calibrated ``position_sigma`` and ``probability``; what they were is kept beside them."""
    positions = atoms["position"].values
    probability = calibration.probability(atoms["probability"].values)
    changed = atoms.assign(
        position_sigma_uncalibrated=atoms["position_sigma"],
        probability_uncalibrated=atoms["probability"],
        position_sigma=atoms["position_sigma"] * calibration.factors(depth_below_surface(positions, positions)),
        probability=("atom", probability),
    )
    if "type_probability" in atoms:
        sure = probability * atoms["type_probability"].values.max(axis=1)
        changed["unresolved"] = ("atom", sure < RESOLVED)
    return with_units(changed.assign_attrs(atoms.attrs), ATOMS)


def honesty(matched: Matched, calibration: Calibration | None = None) -> np.ndarray:
    """Part of the deviations within one standard deviation, (axis,); 0.683 of Gaussian ones that are as large."""
    here = matched.pairs[matched.right, 0]
    sigma = matched.found["position_sigma"].values[here]
    if calibration is not None:
        sigma = sigma * calibration.factors(matched.found_depth[here])
    known = np.isfinite(sigma).all(axis=1)
    if not known.any():
        return np.full(3, np.nan)
    return np.asarray((np.abs(matched.deviation[known]) <= sigma[known]).mean(axis=0))


def reliability(claimed: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """In each bin of claimed probability: how many atoms, what they claim on average, what part is right.

    Parameters
    ----------
    claimed : ndarray, shape (atom,), float64
    right : ndarray, shape (atom,), bool
    """
    table = []
    for low, high in pairwise(PROBABILITIES):
        there = (claimed >= low) & ((claimed < high) | (high == PROBABILITIES[-1]))
        row: dict[str, Any] = {"from": low, "to": high, "atoms": int(there.sum()), "claimed": None, "right": None}
        if there.any():
            row |= {"claimed": float(claimed[there].mean()), "right": float(right[there].mean())}
        table.append(row)
    return table


def calibration_variables(matched: Matched, calibration: Calibration) -> dict[str, Any]:
    """Variables of VALIDATION: factors, the parts within one standard deviation, and the table of probabilities."""
    rows = reliability(matched.found["probability"].values, matched.is_atom)
    column = {name: np.array([np.nan if row[name] is None else row[name] for row in rows]) for name in rows[0]}
    return {
        "sigma_factor": (("sigma_depth", "axis"), calibration.factor),
        "sigma_depth": ("sigma_depth", calibration.depth),
        "within_sigma": ("axis", honesty(matched)),
        "within_calibrated_sigma": ("axis", honesty(matched, calibration)),
        "probability_from": ("probability_bin", column["from"]),
        "probability_atoms": ("probability_bin", column["atoms"].astype(np.int64)),
        "probability_claimed": ("probability_bin", column["claimed"]),
        "probability_right": ("probability_bin", column["right"]),
        "probability_odds": ("odds", np.array(calibration.odds)),
    }


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Logarithm of p / (1 - p), of probabilities kept off 0 and 1."""
    return np.asarray(special.logit(np.clip(probability, _SURE, 1.0 - _SURE)))


def _differ(parts: np.ndarray, counts: np.ndarray) -> bool:
    """Whether factors (group, axis) differ by more than chance.

    The quantile q of n half-normal numbers has a relative standard deviation of sqrt(q (1 - q) / n) / f, with the
    density f = 0.484 at 1.
    """
    spread = np.sqrt(GAUSSIAN * (1.0 - GAUSSIAN) / counts)[:, None] / (2.0 * stats.norm.pdf(1.0))
    logs = np.log(parts)
    middle = np.sum(logs / spread**2, axis=0) / np.sum(spread**-2.0)
    square = float((((logs - middle) / spread) ** 2).sum())
    return bool(square > stats.chi2.ppf(1.0 - _DIFFER, parts.size - parts.shape[1]))


def _fit_odds(claimed: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of the log odds that make what is claimed likeliest."""
    x, sign = log_odds(claimed), np.where(right, 1.0, -1.0)

    def unlikeliness(odds: np.ndarray) -> float:
        prior = (odds[0] / _PRIOR[0]) ** 2 + ((odds[1] - 1.0) / _PRIOR[1]) ** 2
        return float(np.logaddexp(0.0, -sign * (odds[0] + odds[1] * x)).sum() + 0.5 * prior)

    found = optimize.minimize(unlikeliness, np.array([0.0, 1.0]), method="Nelder-Mead", options={"xatol": 1e-6})
    return float(found.x[0]), float(max(found.x[1], 0.0))
