"""Films that fill the field: neighbouring tilts on one another, to begin with; and a marker's word at the end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..images import register, resample

COLUMNS = 3


class Pairs(NamedTuple):
    """Pairs of tilts and how the second lies on the first, stretched.

    Attributes
    ----------
    first, second : ndarray, shape (pair,), int
        Tilts.
    ratio : ndarray, shape (pair,), float64
        Stretch across the axis that takes the first onto the second.
    shift : ndarray, shape (pair, 2), float64
        Pixels along and across the axis; NaN where a pair says nothing.
    correlation : ndarray, shape (pair,), float64
    """

    first: np.ndarray
    second: np.ndarray
    ratio: np.ndarray
    shift: np.ndarray
    correlation: np.ndarray


def pair_shift(
    first: np.ndarray,
    second: np.ndarray,
    *,
    ratio: float,
    axis: float,
    centre: tuple[float, float],
    maximum_shift: float,
) -> np.ndarray:
    """How a tilt lies on its neighbour, stretched across the axis.

    Parameters
    ----------
    first, second : ndarray, shape (y, x)
        Images, NaN where unmeasured.
    ratio : float
        Length across the axis in the second tilt over that in the first.
    axis : float
        Degrees from image y to the tilt axis, positive towards -x.
    centre : tuple of float
        Coordinates (y, x) of pixel n // 2 in pixels from the projection of the rotation's origin.
    maximum_shift : float
        Pixels.

    Returns
    -------
    ndarray, shape (COLUMNS,), float64
        Shift along and across, and its correlation; NaN where nothing was found.

    Notes
    -----
    What is seen at v in the first tilt is at v ratio in the second, measured from the rotation's origin; so the first
    image is resampled at v / ratio, and the second registered on it.
    """
    turn = np.deg2rad(axis)
    across, along = np.array([np.sin(turn), np.cos(turn)]), np.array([np.cos(turn), -np.sin(turn)])  # (y, x)
    stretch = np.eye(2) + (1.0 / ratio - 1.0) * np.outer(across, across)
    moved, inside = resample(first, stretch, (stretch - np.eye(2)) @ np.array(centre))
    try:
        found = register(second, np.where(inside, moved, np.nan), maximum_shift=maximum_shift)
    except InputError:  # nothing measured in common, or blank: the pair says nothing
        return np.full(COLUMNS, np.nan)
    return np.array([found.shift @ along, found.shift @ across, found.correlation])


def chained_shifts(pairs: Pairs, n_tilts: int, reference: int) -> np.ndarray:
    """Shifts of the tilts from those of neighbours, shape (tilt, 2) along and across.

    Parameters
    ----------
    pairs : Pairs
    n_tilts : int
    reference : int
        Tilt whose shift is 0.

    Returns
    -------
    ndarray, shape (tilt, 2), float64
        s_j = s_i + m_ij along and s_j = q_ij s_i + m_ij across, q being the stretch; NaN where a tilt hangs on nothing.
    """
    shift = np.full((n_tilts, 2), np.nan)
    shift[reference] = 0.0
    scale = np.column_stack([np.ones(len(pairs.ratio)), pairs.ratio])
    for _ in range(n_tilts):
        for i, j, q, m in zip(pairs.first, pairs.second, scale, pairs.shift, strict=True):
            if np.isnan(shift[j]).any():
                shift[j] = q * shift[i] + m
            elif np.isnan(shift[i]).any():
                shift[i] = (shift[j] - m) / q
    return shift


def with_marker(
    shift: np.ndarray, information: np.ndarray, marker: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts that suit the film and a marker, by weighted least squares.

    Parameters
    ----------
    shift : ndarray, shape (tilt, 2), float
        Shifts along and across in pixels, as the film has them.
    information : ndarray, shape (2 tilt, 2 tilt), float
        Their inverse covariance F, along, then across.
    marker : tuple of ndarray
        Centres c along and across of a marker (tilt, 2) with NaN where it was not found, their standard deviations
        (tilt, 2), and the directions (cos, -sin) of its path across the axis (tilt, 2).

    Returns
    -------
    shift, uncertainty : ndarray, shape (tilt, 2), float64

    Notes
    -----
    Minimises (s - s0)^T F (s - s0) plus, for a marker at (x0, y0, z0), the sums over the tilts of
    (s_t + y0 - c_t)^2 / sigma_t^2 along and (s_t + x0 cos - z0 sin - c_t)^2 / sigma_t^2 across.
    """
    n = len(shift)
    centre, spread, path = marker
    rows, values = [], []
    for t in np.flatnonzero(np.isfinite(centre).all(axis=1)):
        for k, place in enumerate((np.array([1.0, 0.0, 0.0]), np.append(0.0, path[t]))):
            row = np.append(np.zeros(2 * n), place)
            row[k * n + t] = 1.0
            rows.append(row / spread[t, k])
            values.append((centre[t, k] - shift[t, k]) / spread[t, k])
    matrix = np.array(rows)
    normal = matrix.T @ matrix
    normal[: 2 * n, : 2 * n] += information
    # Moving the film and the marker together changes nothing: the shortest change.
    covariance = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    change = covariance @ matrix.T @ np.array(values)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return shift + change[: 2 * n].reshape(2, n).T, deviation[: 2 * n].reshape(2, n).T
