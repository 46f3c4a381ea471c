"""How good is it: R-factor, errors and correlations of volumes, agreement of two sets of atoms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ._html import html_table
from .errors import InputError
from .neighbors import RigidMotion, mutual_nearest, register_rigid
from .schema import ATOMS, check

ALIGNMENTS = (None, "rigid")


def r_factor(calculated: Any, measured: Any, mask: Any = None) -> np.ndarray:
    """R-factor of every tilt: how far projections are from the measured ones.

    Parameters
    ----------
    calculated, measured : array_like, shape (tilt, y, x), float
        Projections in one unit of intensity. Lazy arrays are computed one tilt at a time.
    mask : array_like, shape (tilt, y, x), bool, optional
        True where a pixel was measured; the others count for nothing. All pixels if left out.

    Returns
    -------
    ndarray, shape (tilt,), float64
        NaN for a tilt without measured signal.

    Raises
    ------
    InputError
        If the shapes differ.

    Notes
    -----
    Eq. 4 of [1]_ for one tilt: sum |calculated - measured| / sum |measured| over measured pixels. Their
    mean over tilts is the R-factor of the reconstruction.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021).
    """
    _same_shape(calculated=calculated, measured=measured, mask=mask)
    result = np.full(len(measured), np.nan)
    for i, (c, m, where) in enumerate(_slabs(calculated, measured, mask)):
        signal = np.sum(np.abs(m), where=where)
        if signal > 0:
            result[i] = np.sum(np.abs(c - m), where=where) / signal
    return result


def r1_factor(calculated: Any, measured: Any, mask: Any = None) -> float:
    """Crystallographic R-factor of projections: how far their Fourier amplitudes are from the measured ones.

    Parameters
    ----------
    calculated, measured : array_like, shape (tilt, y, x), float
        Projections in one unit of intensity. Lazy arrays are computed one tilt at a time.
    mask : array_like, shape (tilt, y, x), bool, optional
        True where a pixel was measured; the others are zero in both. All pixels if left out.

    Returns
    -------
    float
        NaN without measured signal.

    Raises
    ------
    InputError
        If the shapes differ.

    Notes
    -----
    Eq. 5 of [1]_: sum ||F_obs| - |F_calc|| / sum |F_obs|, F being the two-dimensional Fourier transforms of the
    projections, both sums over all pixels of all tilts, the origin among them. Phases do not count: a shift of a
    whole image (around its edges) changes nothing.

    References
    ----------
    .. [1] Y. Yang et al., Nature 542, 75-79 (2017).
    """
    _same_shape(calculated=calculated, measured=measured, mask=mask)
    difference, signal = amplitude_sums(calculated, measured, mask)
    return difference / signal if signal > 0 else math.nan


def amplitude_sums(calculated: Any, measured: Any, mask: Any = None) -> tuple[float, float]:
    """The two sums of `r1_factor`, whose arguments these are: of the differences of amplitudes, and of these."""
    difference = signal = 0.0
    for c, m, where in _slabs(calculated, measured, mask):
        amplitudes = np.abs(np.fft.fft2(np.where(where, m, 0.0)))
        difference += float(np.abs(amplitudes - np.abs(np.fft.fft2(np.where(where, c, 0.0)))).sum())
        signal += float(amplitudes.sum())
    return difference, signal


def normalised_rmse(volume: Any, truth: Any) -> float:
    """Root mean square error over the whole grid after the best scalar, relative to the truth.

    Parameters
    ----------
    volume, truth : array_like of one shape, float
        What was reconstructed and what is true.

    Returns
    -------
    float
        min over a of ||a volume - truth|| / ||truth||: 0 to 1. NaN if the truth is zero everywhere.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    _same_shape(volume=volume, truth=truth)
    vv = vt = tt = 0.0
    for v, t, _ in _slabs(volume, truth, None):
        vv, vt, tt = vv + np.vdot(v, v), vt + np.vdot(v, t), tt + np.vdot(t, t)
    if tt == 0:
        return math.nan
    scale = vt / vv if vv > 0 else 0.0
    # Summed again rather than tt - vt^2/vv, which loses all digits where the two agree.
    error = sum(float(np.sum((scale * v - t) ** 2)) for v, t, _ in _slabs(volume, truth, None))
    return math.sqrt(error / tt)


def correlation(a: Any, b: Any, where: Any = None) -> float:
    """Pearson correlation of two arrays.

    Parameters
    ----------
    a, b : array_like of one shape, float
        What is compared.
    where : array_like of the same shape, bool, optional
        True where the arrays are compared. Everywhere if left out.

    Returns
    -------
    float
        -1 to 1; NaN where nothing is compared or one array is constant.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    _same_shape(a=a, b=b, where=where)
    n, mean_a, mean_b = 0, 0.0, 0.0
    for x, y, w in _slabs(a, b, where):
        n += int(np.sum(np.broadcast_to(w, x.shape)))
        mean_a, mean_b = mean_a + float(np.sum(x, where=w)), mean_b + float(np.sum(y, where=w))
    if n == 0:
        return math.nan
    mean_a, mean_b = mean_a / n, mean_b / n
    aa = ab = bb = 0.0
    for x, y, w in _slabs(a, b, where):
        x, y = x - mean_a, y - mean_b
        aa, ab, bb = aa + np.sum(x * x, where=w), ab + np.sum(x * y, where=w), bb + np.sum(y * y, where=w)
    return float(ab / math.sqrt(aa * bb)) if aa > 0 and bb > 0 else math.nan


def relative_l1(a: Any, b: Any, where: Any = None) -> float:
    """Relative difference of two arrays, the same whichever comes first.

    Parameters
    ----------
    a, b : array_like of one shape, float
        What is compared.
    where : array_like of the same shape, bool, optional
        True where the arrays are compared. Everywhere if left out.

    Returns
    -------
    float
        sum |a - b| / (sum |a| / 2 + sum |b| / 2), 0 to 2; NaN where both are zero.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    _same_shape(a=a, b=b, where=where)
    difference = size = 0.0
    for x, y, w in _slabs(a, b, where):
        difference += float(np.sum(np.abs(x - y), where=w))
        size += float(np.sum(np.abs(x), where=w) + np.sum(np.abs(y), where=w)) / 2
    return difference / size if size > 0 else math.nan


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well found atoms agree with true ones; lengths in Angstrom.

    Parameters
    ----------
    n_found, n_truth, n_matched : int
        Atoms of each set, and pairs that are each other's nearest within the tolerance.
    recall, precision, f1 : float
        n_matched / n_truth, n_matched / n_found and 2 n_matched / (n_truth + n_found). NaN (None in
        :meth:`to_dict`) where the divisor is zero: with no atom found, recall is 0 and precision NaN.
    rms, rms_x, rms_y, rms_z : float
        Root mean square distance of the pairs, and along each axis; NaN without pairs.
    recall_typed, precision_typed : float or None
        Counting only pairs of the same type; None where types were not compared.
    types : tuple or None
        Types or species that occur, sorted.
    confusion : ndarray, shape (types, types), int, or None
        Pairs by true type (row) and found type (column), in the order of `types`.
    motion : RigidMotion or None
        What was done to the found atoms before they were compared (``align="rigid"``).
    pairs : ndarray, shape (n_matched, 2), int
        Index of the found atom, index of the true atom.
    """

    n_found: int
    n_truth: int
    n_matched: int
    recall: float
    precision: float
    f1: float
    rms: float
    rms_x: float
    rms_y: float
    rms_z: float
    recall_typed: float | None
    precision_typed: float | None
    types: tuple[Any, ...] | None
    confusion: np.ndarray | None
    motion: RigidMotion | None
    pairs: np.ndarray

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = [
            ("", "value"),
            ("found", str(self.n_found)),
            ("true", str(self.n_truth)),
            ("pairs", str(self.n_matched)),
            ("recall", f"{self.recall:.2%}"),
            ("precision", f"{self.precision:.2%}"),
        ]
        if self.recall_typed is not None and self.precision_typed is not None:
            rows += [("recall, of the right type", f"{self.recall_typed:.2%}")]
            rows += [("precision, of the right type", f"{self.precision_typed:.2%}")]
        rms = (self.rms, self.rms_x, self.rms_y, self.rms_z)
        names = ("rms distance (Å)", "along x", "along y", "along z")
        rows += [(name, f"{value:.3f}") for name, value in zip(names, rms, strict=True)]
        return html_table(rows, "Found atoms against true ones")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pairs as plain numbers, lists and None (for NaN), fit for JSON."""
        names = ("n_found", "n_truth", "n_matched", "recall", "precision", "f1", "rms", "rms_x", "rms_y", "rms_z")
        values: dict[str, Any] = {name: getattr(self, name) for name in (*names, "recall_typed", "precision_typed")}
        values = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
        values["types"] = None if self.types is None else list(self.types)
        values["confusion"] = None if self.confusion is None else self.confusion.tolist()
        if self.motion is not None:
            values["rotation"] = self.motion.rotation.tolist()
            values["rotation_degrees"] = self.motion.angle
            values["shift"] = self.motion.shift.tolist()
        return values


def compare_atoms(
    found: xr.Dataset,
    truth: xr.Dataset,
    *,
    tolerance: float = 0.75,
    by_type: bool = False,
    align: str | None = None,
) -> Comparison:
    """Hold found atoms against true ones (or two tracings of one sample against each other).

    Parameters
    ----------
    found, truth : xarray.Dataset
        Atoms (``schema.ATOMS``): `position` (atom, axis) in Angstrom; with `by_type` also `type` or `species`.
    tolerance : float
        Largest distance of a pair in Angstrom.
    by_type : bool
        Compare types too: `type` where both have it, else `species`.
    align : {None, "rigid"}
        "rigid": first turn and shift the found atoms onto the true ones, see
        :func:`aetdist.neighbors.register_rigid` (a few degrees, a few Angstrom).

    Returns
    -------
    Comparison
        Recall, precision, F1, rms distances, confusion of types.

    Raises
    ------
    InputError
        If a Dataset is not one of atoms, a position is not finite, types are asked for and missing, the
        tolerance is not positive, or `align` is unknown.

    Notes
    -----
    An atom is found when it and a true atom are each other's nearest within the tolerance. Swapping the
    two sets swaps recall and precision.
    """
    check(found, ATOMS)
    check(truth, ATOMS)
    if align not in ALIGNMENTS:
        raise InputError(f"align is {align!r}; needed is one of {', '.join(map(repr, ALIGNMENTS))}.")
    labels = _labels(found, truth) if by_type else None
    x = np.asarray(found["position"].values, dtype=np.float64)
    t = np.asarray(truth["position"].values, dtype=np.float64)
    motion = register_rigid(x, t, tolerance=tolerance) if align == "rigid" else None
    if motion is not None:
        x = motion.apply(x)
    pairs, _ = mutual_nearest(x, t, tolerance)
    n_found, n_truth, n = len(x), len(t), len(pairs)
    square = np.mean((x[pairs[:, 0]] - t[pairs[:, 1]]) ** 2, axis=0) if n else np.full(3, math.nan)
    types = confusion = recall_typed = precision_typed = None
    if labels is not None:
        types = tuple(np.unique(np.concatenate(labels)).tolist())
        confusion = np.zeros((len(types), len(types)), dtype=np.int64)
        index = [np.searchsorted(types, label) for label in labels]
        np.add.at(confusion, (index[1][pairs[:, 1]], index[0][pairs[:, 0]]), 1)
        right = int(np.trace(confusion))
        recall_typed, precision_typed = _ratio(right, n_truth), _ratio(right, n_found)
    return Comparison(
        n_found=n_found,
        n_truth=n_truth,
        n_matched=n,
        recall=_ratio(n, n_truth),
        precision=_ratio(n, n_found),
        f1=_ratio(2 * n, n_found + n_truth),
        rms=float(math.sqrt(square.sum())),
        rms_x=float(math.sqrt(square[0])),
        rms_y=float(math.sqrt(square[1])),
        rms_z=float(math.sqrt(square[2])),
        recall_typed=recall_typed,
        precision_typed=precision_typed,
        types=types,
        confusion=confusion,
        motion=motion,
        pairs=pairs,
    )


def _labels(found: xr.Dataset, truth: xr.Dataset) -> list[np.ndarray]:
    """The types of both sets, as numbers or as chemical symbols."""
    for name in ("type", "species"):
        if name in found and name in truth:
            return [found[name].values, truth[name].values]
    raise InputError(
        "by_type needs `type` or `species` in both sets of atoms; the found ones have "
        f"{', '.join(map(str, found.data_vars))}, the true ones {', '.join(map(str, truth.data_vars))}; "
        "classify the atoms first, or leave by_type out."
    )


def _ratio(a: int, b: int) -> float:
    """Divide; NaN for b = 0."""
    return a / b if b else math.nan


def _same_shape(**arrays: Any) -> None:
    """Refuse arrays of different shapes (None is left out)."""
    shapes = {name: np.shape(array) for name, array in arrays.items() if array is not None}
    if len(set(shapes.values())) > 1:
        raise InputError(
            f"Arrays of one shape are needed; {', '.join(f'{name} has {shape}' for name, shape in shapes.items())}."
        )


def _slabs(a: Any, b: Any, where: Any) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """Slices along the first axis as float64, so that no copy of a whole volume is made."""
    for i in range(len(a)):
        w = True if where is None else np.asarray(where[i], dtype=bool)
        yield np.asarray(a[i], dtype=np.float64), np.asarray(b[i], dtype=np.float64), w
