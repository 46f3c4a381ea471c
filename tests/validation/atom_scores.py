"""How good found atoms are: against the truth, against the Cramer-Rao bound, and against what they claim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from atom_cases import PIXEL, SIGMA, Case, clean_images, heights
from scipy.ndimage import uniform_filter

from aetdist.geometry import matrices_from_euler
from aetdist.metrics import Comparison, compare_atoms
from aetdist.validation.calibration import reliability

TOLERANCE = 1.5  # Angstrom
AROUND = 5  # pixels (1.7 Angstrom): the edge of the square whose mean says how noisy the image of an atom is


def score(
    found: xr.Dataset, truth: xr.Dataset, align: str | None = None, variance: np.ndarray | None = None
) -> dict[str, Any]:
    """Atoms found (right type, where types are known, within 1.5 Angstrom), false ones, and how far off they are.

    ``found`` is the part of the true atoms in %; ``false`` the part of the others among the atoms that were found,
    in %; ``rms`` the root mean square distance of the right ones in pm, over the three axes together, and
    ``rms_over_bound`` that over the least one that their `variance` (true atom, axis) allows. ``missed`` and
    ``invented`` count atoms without a counterpart of any type.
    """
    result = compare_atoms(found, truth, tolerance=TOLERANCE, by_type="type" in found, align=align)
    off, right = offsets(found, truth, result)
    off = off[right]
    figures = {
        "found": 100.0 * float(right.sum()) / result.n_truth,
        "false": 100.0 * (1.0 - float(right.sum()) / result.n_found),
        "rms": 100.0 * float(np.sqrt((off**2).sum(axis=1).mean())),
        "rms_xyz": (100.0 * np.sqrt((off**2).mean(axis=0))).round(2).tolist(),
        "mean_xyz": (100.0 * off.mean(axis=0)).round(2).tolist(),
        "median": 100.0 * float(np.median(np.linalg.norm(off, axis=1))),
        "rms_all_pairs": 100.0 * result.rms,
        "missed": result.n_truth - result.n_matched,
        "invented": result.n_found - result.n_matched,
    }
    if variance is not None:
        figures["rms_over_bound"] = figures["rms"] / rms_of(variance[result.pairs[right, 1]])
    if result.confusion is not None:
        figures["confusion"] = result.confusion.tolist()  # pairs by true type (row) and found type
    if result.motion is not None:
        figures["turned_degrees"] = result.motion.angle
        figures["shifted_pm"] = (100.0 * result.motion.shift).round(1).tolist()
    return figures


def offsets(found: xr.Dataset, truth: xr.Dataset, result: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Found less true position of every pair (pair, axis) in Angstrom, and which pairs are of one type."""
    here, there = result.pairs.T
    positions = found["position"].values
    if result.motion is not None:
        positions = result.motion.apply(positions)
    right = np.ones(len(here), bool)
    if result.confusion is not None:
        right = found["type"].values[here] == truth["type"].values[there]
    return positions[here] - truth["position"].values[there], right


def cramer_rao(case: Case) -> np.ndarray | None:
    """Least variance (atom, axis) in square Angstrom of the position of an atom that overlaps with no other.

    None without noise. Of one image I with variance I / k for k electrons per intensity, a Gaussian of amplitude A
    at (u, v) tells A^2 k pi / (2 I pixel^2) about each of u and v: the sum over pixels of (dI/du)^2 / variance,
    with the mean image around the atom for I. Tilts add up as R_t^T R_t of their first two rows.
    """
    if case.counts is None:
        return None
    amplitude = heights(case.truth) * np.sqrt(2.0 * np.pi) * SIGMA / PIXEL
    start = np.array([float(case.series[axis][0]) for axis in "xy"])
    information = np.zeros((len(amplitude), 3, 3))
    for matrix, image in zip(matrices_from_euler(case.series["angles"].values)[:, :2], clean_images(case), strict=True):
        pixels = np.round((case.truth["position"].values @ matrix.T - start) / PIXEL).astype(int)
        around = uniform_filter(image, AROUND)[pixels[:, 1], pixels[:, 0]]
        told = amplitude**2 * case.counts * np.pi / (2.0 * around * PIXEL**2)
        information += told[:, None, None] * (matrix.T @ matrix)
    return np.diagonal(np.linalg.inv(information), axis1=1, axis2=2)


def rms_of(variance: np.ndarray) -> float:
    """Root mean square distance in pm that goes with variances (atom, axis) in square Angstrom."""
    return 100.0 * float(np.sqrt(variance.sum(axis=1).mean()))


def deviations(found: xr.Dataset, truth: xr.Dataset, align: str | None = None) -> np.ndarray:
    """(found - true) / sigma of the atoms of the right type, (atom, axis); sigma is the claimed one."""
    result = compare_atoms(found, truth, tolerance=TOLERANCE, by_type="type" in found, align=align)
    off, right = offsets(found, truth, result)
    return (off / found["position_sigma"].values[result.pairs[:, 0]])[right]


def honesty(deviations: np.ndarray) -> dict[str, Any]:
    """Part in % of deviations (atom, axis) within 1 and 2 on each axis (68.3 and 95.4 if Gaussian), and their rms."""
    known = np.isfinite(deviations).all(axis=1)
    z = np.abs(deviations[known])
    return {
        "within_1": (100.0 * (z <= 1.0).mean(axis=0)).round(2).tolist(),
        "within_2": (100.0 * (z <= 2.0).mean(axis=0)).round(2).tolist(),
        "median_over_gaussian": (np.median(z, axis=0) / 0.67449).round(3).tolist(),
        "rms": np.sqrt((z**2).mean(axis=0)).round(3).tolist(),
        "atoms": int(known.sum()),
        "without_sigma": int((~known).sum()),
    }


def verdicts(
    found: xr.Dataset, truth: xr.Dataset, align: str | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What atoms claim and whether it is so: ``atom`` is one, ``type`` is one and of that type; each (atom,)."""
    result = compare_atoms(found, truth, tolerance=TOLERANCE, by_type="type" in found, align=align)
    _, right = offsets(found, truth, result)
    is_atom, is_type = np.zeros((2, result.n_found), bool)
    is_atom[result.pairs[:, 0]] = True
    is_type[result.pairs[right, 0]] = True
    claimed = found["probability"].values
    answers = {"atom": (claimed, is_atom)}
    if "type_probability" in found:
        answers["type"] = claimed * found["type_probability"].values.max(axis=1), is_type
    return answers


def tables(answers: Iterable[dict[str, tuple[np.ndarray, np.ndarray]]]) -> dict[str, Any]:
    """Reliability tables of the atoms of several runs together."""
    answers = list(answers)
    return {
        name: reliability(*(np.concatenate([each[name][i] for each in answers]) for i in (0, 1)))
        for name in answers[0]
        if all(name in each for each in answers)
    }
