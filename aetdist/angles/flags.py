"""Tilts that do not belong to the object."""

from __future__ import annotations

import numpy as np

NOT_MEASURED = "nothing measured"
_OUTLIER, _LEAST_SPREAD = 6.0, 0.02


def unlike_the_others(correlation: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Tilts whose image agrees with its reprojection much less than the others do.

    Parameters
    ----------
    correlation : ndarray, shape (tilt,), float64
        NaN where it is not known.
    counted : ndarray, shape (tilt,), bool
        Tilts that are judged.

    Returns
    -------
    ndarray, shape (tilt,), bool

    Notes
    -----
    More than six robust standard deviations (1.4826 times the median absolute deviation, at least 0.02) below
    the median.
    """
    known = counted & np.isfinite(correlation)
    if known.sum() < 3:
        return np.zeros(len(correlation), bool)
    middle = np.median(correlation[known])
    spread = max(1.4826 * float(np.median(np.abs(correlation[known] - middle))), _LEAST_SPREAD)
    below = np.zeros(len(correlation), bool)
    below[known] = correlation[known] < middle - _OUTLIER * spread
    return below
