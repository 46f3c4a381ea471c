"""How far each tilt can be trusted: a table, and flags on the tilts that stand out."""

from __future__ import annotations

import numpy as np
import xarray as xr

MEASURES = ("correlation", "common_line_residual", "mass")
"""Columns of the table: correlation with the neighbouring tilts; rms difference of the common line from the mean one,
as part of it; mass over its median."""

_OUTLIER = 6.0
"""Robust standard deviations at which a tilt stands out."""
_LEAST_SPREAD = {"correlation": 0.03, "common_line_residual": 0.01, "mass": 0.02}
"""Spreads below these are taken to be these, so that a nearly perfect series has no outliers."""


def quality_flags(table: np.ndarray, *, unmeasured: np.ndarray, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which tilts are used, and what is wrong with the others.

    Parameters
    ----------
    table : ndarray, shape (tilt, measure), float
        Columns as in ``MEASURES``; NaN where a measure is not known.
    unmeasured, excluded : ndarray, shape (tilt,), bool
        Tilts without a usable pixel, and tilts that the user switched off.

    Returns
    -------
    used : ndarray, shape (tilt,), bool
    flags : ndarray, shape (tilt,), str
        Empty where nothing is wrong.

    Notes
    -----
    A tilt stands out when its correlation is lower, its residual higher, or its mass further from
    the median of the series than six robust standard deviations (1.4826 times the median absolute deviation).
    """
    reasons: list[list[str]] = [[] for _ in table]
    counted = ~(unmeasured | excluded)
    for column, (name, sign) in enumerate(zip(MEASURES, (-1, 1, 0), strict=True)):
        values = table[:, column]
        known = counted & np.isfinite(values)
        if known.sum() < 3:
            continue
        middle = np.median(values[known])
        spread = max(1.4826 * float(np.median(np.abs(values[known] - middle))), _LEAST_SPREAD[name])
        off = (values - middle) / spread
        off = np.abs(off) if sign == 0 else sign * off
        for t in np.flatnonzero(known & (off > _OUTLIER)):
            reasons[t].append(name.replace("_", " "))
    for t in np.flatnonzero(unmeasured):
        reasons[t] = ["nothing measured"]
    for t in np.flatnonzero(excluded):
        reasons[t] = ["switched off"]
    flags = np.array([", ".join(r) for r in reasons], dtype=str)
    return flags == "", flags


def neighbour_correlation(first: np.ndarray, second: np.ndarray, step: np.ndarray) -> float:
    """Pearson's coefficient of two images over the pixels that both show.

    Parameters
    ----------
    first, second : ndarray, shape (y, x)
        NaN where unmeasured.
    step : ndarray, shape (2,), int
        Whole pixels [y, x]: second(r + step) lies on first(r).

    Returns
    -------
    float
        NaN where less than two pixels or a blank region is common.
    """
    to = tuple(slice(max(0, -s), max(0, min(n, n - s))) for n, s in zip(first.shape, step, strict=True))
    source = tuple(slice(max(0, s), max(0, min(n, n + s))) for n, s in zip(first.shape, step, strict=True))
    a, b = first[to].astype(np.float64), second[source].astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 2:
        return float("nan")
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    spread = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / spread) if spread > 0 else float("nan")


def mean_over_neighbours(first: np.ndarray, second: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Mean over the pairs in which a tilt occurs, shape (n,); NaN where there is none."""
    total, count = np.zeros(n), np.zeros(n)
    for index in (first, second):
        known = np.isfinite(values)
        np.add.at(total, index[known], values[known])
        np.add.at(count, index[known], 1.0)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def quality_table(columns: dict[str, np.ndarray]) -> xr.DataArray:
    """The measures as a table (tilt, measure)."""
    return xr.DataArray(
        np.stack([columns[name] for name in MEASURES], axis=1),
        dims=("tilt", "measure"),
        coords={"measure": list(MEASURES)},
        attrs={"units": "1", "long_name": "quality of every tilt"},
    )
