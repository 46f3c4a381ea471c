"""What became of a model's atoms: identified, missed, false, and how far off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from ..errors import InputError
from ..metrics import compare_atoms
from ..neighbors import register_rigid
from ..schema import AXES, VALIDATION, with_units
from .depth import depth_below_surface

TOLERANCE = 1.5
"""Angstrom: how far a found atom may be from the true one."""
COMPONENTS = (*AXES, "distance")
_DEPTHS = np.array([-np.inf, 1.5, 4.0, 7.0, 10.0, 15.0, 20.0, 30.0, np.inf])  # Angstrom
_HISTOGRAM_BINS = 61
_PLACES = 401  # where the most frequent deviation is looked for


@dataclass(frozen=True, eq=False)
class Matched:
    """Found atoms laid over the true ones.

    Parameters
    ----------
    found, truth : xarray.Dataset
        ATOMS; the found ones turned and moved as a whole onto the true ones.
    pairs : ndarray, shape (n, 2), int
        Index of the found atom, index of the true atom: each other's nearest within the tolerance.
    right : ndarray, shape (n,), bool
        Pairs of one type.
    found_depth, true_depth : ndarray, float64
        Angstrom below the surface of the true atoms.
    turned, shifted : float
        Degrees and Angstrom, by which the found ones were moved as a whole.
    """

    found: xr.Dataset
    truth: xr.Dataset
    pairs: np.ndarray
    right: np.ndarray
    found_depth: np.ndarray
    true_depth: np.ndarray
    turned: float
    shifted: float

    @property
    def deviation(self) -> np.ndarray:
        """Found less true position of the pairs of one type, (pair, axis), Angstrom."""
        here, there = self.pairs[self.right].T
        return np.asarray(self.found["position"].values[here] - self.truth["position"].values[there])

    @property
    def is_atom(self) -> np.ndarray:
        """Found atoms that have a counterpart, (found,) bool."""
        true = np.zeros(self.found.sizes["atom"], bool)
        true[self.pairs[:, 0]] = True
        return true


def match_atoms(found: xr.Dataset, truth: xr.Dataset, *, tolerance: float = TOLERANCE) -> Matched:
    """Pair found atoms with true ones; how the sample lies as a whole, which no tilt series tells, does not count.

    Parameters
    ----------
    found, truth : xarray.Dataset
        ATOMS; of one type where one of them has no types.
    tolerance : float
        Angstrom.

    Raises
    ------
    InputError
        If either has no atoms.
    """
    for name, atoms in (("found", found), ("true", truth)):
        if atoms.sizes["atom"] == 0:
            raise InputError(f"There are no {name} atoms to compare.")
    motion = register_rigid(found["position"].values, truth["position"].values, tolerance=tolerance)
    found = found.assign(position=(("atom", "axis"), motion.apply(found["position"].values), found["position"].attrs))
    pairs = compare_atoms(found, truth, tolerance=tolerance).pairs
    right = np.ones(len(pairs), bool)
    if "type" in found and "type" in truth:
        right = found["type"].values[pairs[:, 0]] == truth["type"].values[pairs[:, 1]]
    sample = truth["position"].values
    return Matched(
        found,
        truth,
        pairs,
        right,
        depth_below_surface(found["position"].values, sample),
        depth_below_surface(sample, sample),
        motion.angle,
        float(np.linalg.norm(motion.shift)),
    )


def compared(matched: Matched) -> xr.Dataset:
    """VALIDATION: counts by type and by depth, and deviations, of which the summary is made."""
    truth, found, pairs = matched.truth, matched.found, matched.pairs
    true_types, found_types = (_types(atoms) for atoms in (truth, found))
    k = int(max(true_types.max(), found_types.max()))
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (true_types[pairs[:, 1]] - 1, found_types[pairs[:, 0]] - 1), 1)
    missed = np.ones(len(true_types), bool)
    missed[pairs[:, 1]] = False
    numbers = np.arange(1, k + 1)
    of_type = np.bincount(true_types, minlength=k + 1)[1:]
    result = xr.Dataset(
        {
            "confusion": (("true_type", "found_type"), confusion),
            "true_atoms": ("true_type", of_type),
            "missed_atoms": ("true_type", np.bincount(true_types[missed], minlength=k + 1)[1:]),
            "false_atoms": ("found_type", np.bincount(found_types[~matched.is_atom], minlength=k + 1)[1:]),
            "identified": ("true_type", _part(np.diag(confusion), of_type)),
        },
        {"true_type": numbers, "found_type": numbers},
    )
    result = result.assign(_by_depth(matched, missed)).assign(_deviations(matched.deviation))
    result = result.assign_coords(component=list(COMPONENTS), axis=list(AXES))
    result = result.set_coords(["depth_from", "depth_to", "deviation_at"])
    n_true, n_found, n_right = truth.sizes["atom"], found.sizes["atom"], int(matched.right.sum())
    result.attrs = {
        "n_true": n_true,
        "n_found": n_found,
        "identified": n_right / n_true,
        "missed": 1.0 - len(pairs) / n_true,
        "false": 1.0 - len(pairs) / n_found,
        "mistyped": (len(pairs) - n_right) / n_true,
        "turned_degree": matched.turned,
        "shifted_angstrom": matched.shifted,
    }
    return with_units(result, VALIDATION)


def _types(atoms: xr.Dataset) -> np.ndarray:
    return atoms["type"].values if "type" in atoms else np.ones(atoms.sizes["atom"], np.int64)


def _part(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(len(b), np.nan), where=b > 0)


def _by_depth(matched: Matched, missed: np.ndarray) -> dict[str, Any]:
    """Atoms by their distance from the surface: true, missed, of another type; found, false; and their rms."""
    pairs, right = matched.pairs, matched.right
    mistyped = np.zeros(len(missed), bool)
    mistyped[pairs[~right, 1]] = True
    top = max(matched.true_depth.max(), matched.found_depth.max())
    edges = np.append(_DEPTHS[:-1][_DEPTHS[:-1] < top], np.inf)

    def counted(depth: np.ndarray) -> np.ndarray:
        return np.histogram(depth, edges)[0]

    n = counted(matched.true_depth[pairs[right, 1]])
    square, depth = matched.deviation**2, matched.true_depth[pairs[right, 1]]
    rms = [np.sqrt(_part(np.histogram(depth, edges, weights=square[:, i])[0], n)) for i in range(3)]
    return {
        "depth_from": ("depth_bin", np.append(0.0, edges[1:-1])),
        "depth_to": ("depth_bin", np.append(edges[1:-1], max(top, edges[-2]))),
        "depth_true": ("depth_bin", counted(matched.true_depth)),
        "depth_missed": ("depth_bin", counted(matched.true_depth[missed])),
        "depth_mistyped": ("depth_bin", counted(matched.true_depth[mistyped])),
        "depth_found": ("depth_bin", counted(matched.found_depth)),
        "depth_false": ("depth_bin", counted(matched.found_depth[~matched.is_atom])),
        "depth_rms": (("depth_bin", "axis"), np.stack(rms, axis=1)),
    }


def _deviations(deviation: np.ndarray) -> dict[str, Any]:
    """Of x, y, z and of the distance: mean, rms, the histogram and where it peaks; Angstrom."""
    if not len(deviation):
        deviation = np.full((1, 3), np.nan)
    values = np.column_stack([deviation, np.linalg.norm(deviation, axis=1)])
    known = values[np.isfinite(values).all(axis=1)]
    reach = max(float(np.quantile(np.abs(known), 0.995)), 1e-6) if len(known) else 1.0
    edges = np.linspace(-reach, reach, _HISTOGRAM_BINS + 1)
    counts = np.stack([np.histogram(np.clip(column, -reach, reach), edges)[0] for column in known.T])
    return {
        "deviation": (("component", "deviation_bin"), counts),
        "deviation_at": ("deviation_bin", 0.5 * (edges[1:] + edges[:-1])),
        "deviation_mean": ("component", values.mean(axis=0)),
        "deviation_rms": ("component", np.sqrt((values**2).mean(axis=0))),
        "deviation_peak": ("component", np.array([most_frequent(column) for column in known.T])),
    }


def most_frequent(values: np.ndarray) -> float:
    """Where values lie most densely: the maximum of a Gaussian kernel density (Silverman's width); NaN for too few."""
    if len(values) < 3 or not np.ptp(values) > 0:
        return float(np.mean(values)) if len(values) else float("nan")
    low, high = (float(np.quantile(values, part)) for part in (0.001, 0.999))
    places = np.linspace(low, high, _PLACES)
    return float(places[np.argmax(stats.gaussian_kde(values, "silverman")(places))])
