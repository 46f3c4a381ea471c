"""Films that fill the field: neighbouring tilts on one another, and the axis from how their features move."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..images import register, resample

TILES = 12
"""Most tiles of the field that are registered on their own: they tell the uncertainty, the axis and the slope."""
_TILE = 48  # smallest edge in pixels: some twenty atoms across
_TILE_REACH = 6.0  # pixels that a tile may lie off its pair of images
_LEAST = 0.2  # correlation below which a tile says nothing
COLUMNS = 3 + 5 * TILES


class Pairs(NamedTuple):
    """Pairs of tilts and how the second lies on the first, stretched.

    Attributes
    ----------
    first, second : ndarray, shape (pair,), int
        Tilts.
    ratio : ndarray, shape (pair,), float64
        Stretch across the axis that takes the first onto the second.
    shift : ndarray, shape (pair, 2), float64
        Pixels along and across the axis.
    correlation : ndarray, shape (pair,), float64
    tiles : ndarray, shape (pair, TILES, 5), float64
        Of every tile: coordinate along and across in the second tilt, shift along and across, correlation; NaN where
        there is none.
    """

    first: np.ndarray
    second: np.ndarray
    ratio: np.ndarray
    shift: np.ndarray
    correlation: np.ndarray
    tiles: np.ndarray

    def uncertainty(self) -> np.ndarray:
        """Standard deviation of the shifts along and across, shape (pair, 2), from how the tiles agree."""
        good = np.isfinite(self.tiles[..., 4])
        n = good.sum(axis=1)
        apart = np.where(good[..., None], self.tiles[..., 2:4] - self.shift[:, None], 0.0)
        spread = np.sqrt((np.minimum(apart**2, _TILE_REACH**2)).sum(axis=1) / np.maximum(n - 1, 1)[:, None])
        found = np.where((n > 2)[:, None], spread / np.sqrt(np.maximum(n, 1))[:, None], np.nan)
        typical = np.nanmedian(found, axis=0) if np.isfinite(found).any() else np.full(2, 1.0)
        return np.where(np.isfinite(found), np.maximum(found, 0.3 * typical), 3.0 * typical) + 1e-3


def shortening(theta: np.ndarray, slope: float) -> np.ndarray:
    """Length across the axis of a film, seen at a tilt: cos(theta) - slope sin(theta), z = slope x being its plane."""
    turn = np.deg2rad(theta)
    return np.cos(turn) - slope * np.sin(turn)


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
        Shift along and across and its correlation, then the tiles, see :class:`Pairs`; NaN where nothing was found.

    Notes
    -----
    What is seen at v in the first tilt is at v ratio in the second (:func:`shortening`), measured from the
    rotation's origin; so the first image is resampled at v / ratio, and the second registered on it.
    """
    turn = np.deg2rad(axis)
    across, along = np.array([np.sin(turn), np.cos(turn)]), np.array([np.cos(turn), -np.sin(turn)])  # (y, x)
    stretch = np.eye(2) + (1.0 / ratio - 1.0) * np.outer(across, across)
    origin = np.array(centre)
    moved, inside = resample(first, stretch, (stretch - np.eye(2)) @ origin)
    reference = np.where(inside, moved, np.nan)
    out = np.full(COLUMNS, np.nan)
    try:
        whole = register(second, reference, maximum_shift=maximum_shift)
    except InputError:  # nothing measured in common, or blank: the pair says nothing
        return out
    out[:3] = whole.shift @ along, whole.shift @ across, whole.correlation
    step = np.rint(whole.shift).astype(int)
    tiles = out[3:].reshape(TILES, 5)
    for tile, (rows, columns) in zip(tiles, _tile_slices(first.shape), strict=False):
        part = _window(second, rows, columns, step)
        if min(np.isfinite(part).mean(), np.isfinite(reference[rows, columns]).mean()) < 0.6:
            continue
        try:
            found = register(part, reference[rows, columns], maximum_shift=_TILE_REACH)
        except InputError:
            continue
        if found.correlation < _LEAST or np.abs(found.shift).max() >= _TILE_REACH - 0.5:
            continue
        middle = [(s.start + s.stop - 1) / 2 - n // 2 for s, n in zip((rows, columns), first.shape, strict=True)]
        place = origin + middle
        shift = found.shift + step
        tile[:] = place @ along, place @ across, shift @ along, shift @ across, found.correlation
    return out


def turned_axis(pairs: Pairs) -> tuple[float, float]:
    """By how much the axis is turned, from the direction in which features move between tilts.

    Returns
    -------
    angle, uncertainty : float
        Degrees, positive from image y towards -x.

    Notes
    -----
    Whatever its height, a feature moves at right angles to the axis: turned by d, a displacement D across
    has the part d D along. Both are taken from the mean of their pair, as the shifts are free.
    """
    _, across, along_shift, across_shift, weight = np.moveaxis(pairs.tiles, 2, 0)
    total = across_shift + across * (1.0 - 1.0 / pairs.ratio[:, None])
    return _pooled_slope(total, along_shift, weight, degrees=True)


def film_slope(pairs: Pairs, theta: np.ndarray, slope: float) -> tuple[float, float]:
    """By how much the slope of the film's plane across the axis is off, and the uncertainty.

    Parameters
    ----------
    pairs : Pairs
    theta : ndarray, shape (tilt,), float
        Degrees.
    slope : float
        The slope with which the pairs were stretched.
    """
    _, across, _, across_shift, weight = np.moveaxis(pairs.tiles, 2, 0)
    length, sine = shortening(theta, slope), np.sin(np.deg2rad(theta))
    rate = sine[pairs.first] / length[pairs.first] - sine[pairs.second] / length[pairs.second]
    return _pooled_slope(across * rate[:, None], across_shift, weight)


def solve_shifts(
    pairs: Pairs, n_tilts: int, reference: int, *, marker: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts of the tilts from those of pairs of them, by weighted least squares.

    Parameters
    ----------
    pairs : Pairs
    n_tilts : int
    reference : int
        Tilt whose shift is 0: the lowest.
    marker : tuple of ndarray, optional
        Centres along and across of a marker (tilt, 2) with NaN where it was not found, their standard deviations
        (tilt, 2), and the directions (cos, -sin) of its path across the axis (tilt, 2).

    Returns
    -------
    shift, uncertainty : ndarray, shape (tilt, 2), float64
        Pixels along and across; NaN where a tilt hangs on nothing.

    Notes
    -----
    Minimises sum (s_j - s_i - m_ij)^2 / sigma_ij^2 along and sum (s_j - q_ij s_i - m_ij)^2 / sigma_ij^2 across, q
    being the stretch, plus, for a marker at (x0, z0), (s_t + x0 cos - z0 sin - c_t)^2 / sigma_t^2.
    Pairs that lie more than four standard deviations off lose weight (Huber).
    """
    ok = np.isfinite(pairs.shift).all(axis=1)
    sigma = pairs.uncertainty()
    shift, uncertainty = np.full((n_tilts, 2), np.nan), np.full((n_tilts, 2), np.nan)
    hung = _hung(pairs.first[ok], pairs.second[ok], n_tilts, reference)
    for k in range(2):
        extra = 0 if marker is None else (2 if k else 1)
        rows, values, sigmas = [], [], []
        for p in np.flatnonzero(ok):
            row = np.zeros(n_tilts + extra)
            row[pairs.second[p]] = 1.0
            row[pairs.first[p]] = -pairs.ratio[p] if k else -1.0
            rows.append(row)
            values.append(pairs.shift[p, k])
            sigmas.append(sigma[p, k])
        if marker is not None:
            centre, spread, path = marker
            for t in np.flatnonzero(np.isfinite(centre).all(axis=1)):
                row = np.zeros(n_tilts + extra)
                row[t] = 1.0
                row[n_tilts:] = path[t] if k else 1.0
                rows.append(row)
                values.append(centre[t, k])
                sigmas.append(spread[t, k])
        free = np.append(hung, np.ones(extra, dtype=bool))
        free[reference] = False
        solution, deviation = _robust(np.array(rows)[:, free], np.array(values), np.array(sigmas))
        full, errors = np.full(n_tilts + extra, np.nan), np.full(n_tilts + extra, np.nan)
        full[free], errors[free] = solution, deviation
        full[reference] = errors[reference] = 0.0
        shift[:, k], uncertainty[:, k] = full[:n_tilts], errors[:n_tilts]
    return shift, uncertainty


def _robust(matrix: np.ndarray, values: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares with Huber weights; solution and standard deviations."""
    weight: np.ndarray = np.asarray(1.0 / sigma)
    solution: np.ndarray = np.zeros(matrix.shape[1])
    for _ in range(6):
        solution = np.linalg.lstsq(matrix * weight[:, None], values * weight, rcond=None)[0]
        off = np.abs(values - matrix @ solution) / sigma
        weight = np.sqrt(np.where(off > 4.0, 4.0 / np.maximum(off, 4.0), 1.0)) / sigma
    left = (values - matrix @ solution) * weight
    freedom = len(values) - matrix.shape[1]
    scale = max(1.0, float((left**2).sum() / freedom)) if freedom > 0 else 1.0
    covariance = np.linalg.pinv((matrix * weight[:, None]).T @ (matrix * weight[:, None]))
    return solution, np.sqrt(scale * np.diag(covariance))


def _hung(first: np.ndarray, second: np.ndarray, n: int, reference: int) -> np.ndarray:
    """Tilts that pairs connect with the reference."""
    hung = np.zeros(n, dtype=bool)
    hung[reference] = True
    for _ in range(n):
        joined = hung[first] | hung[second]
        before = hung.sum()
        hung[first[joined]] = hung[second[joined]] = True
        if hung.sum() == before:
            break
    return hung


def _pooled_slope(x: np.ndarray, y: np.ndarray, weight: np.ndarray, *, degrees: bool = False) -> tuple[float, float]:
    """Slope of y against x within the pairs, shape (pair, tile), and its standard deviation; outliers clipped."""
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(weight)
    slope, error = 0.0, np.inf
    for _ in range(5):
        n = good.sum(axis=1)
        use = good & (n > 2)[:, None]
        if use.sum() < 4:
            return 0.0, np.inf
        dx, dy = (np.where(use, a - (np.where(use, a, 0).sum(axis=1) / np.maximum(n, 1))[:, None], 0.0) for a in (x, y))
        square = float((dx**2).sum())
        if square <= 0:
            return 0.0, np.inf
        slope = float((dx * dy).sum()) / square
        left = np.where(use, dy - slope * dx, 0.0)
        spread = 1.4826 * float(np.median(np.abs(left[use]))) + 1e-12
        # What a tile gets wrong it gets wrong in many pairs: tiles, not pairs, are independent.
        error = float(np.sqrt(((left * dx).sum(axis=0) ** 2).sum())) / square
        good = use & (np.abs(left) <= 4.0 * spread)
    return (float(np.rad2deg(np.arctan(slope))), float(np.rad2deg(error))) if degrees else (slope, error)


def _tile_slices(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """At most TILES tiles of nearly equal edges that fill the field."""
    best, edge = (1, 1), 0.0
    for rows in range(1, TILES + 1):
        for columns in range(1, TILES // rows + 1):
            small = min(shape[0] / rows, shape[1] / columns)
            if small >= _TILE and (rows * columns, small) > (best[0] * best[1], edge):
                best, edge = (rows, columns), small
    cuts = [np.linspace(0, n, k + 1).astype(int) for n, k in zip(shape, best, strict=True)]
    rows_, columns_ = ([slice(int(a), int(b)) for a, b in pairwise(c)] for c in cuts)
    return [(r, c) for r in rows_ for c in columns_]


def _window(image: np.ndarray, rows: slice, columns: slice, step: np.ndarray) -> np.ndarray:
    """Part of an image, moved by whole pixels; NaN beyond the field."""
    out = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan)
    top, left = rows.start + int(step[0]), columns.start + int(step[1])
    r0, r1 = max(top, 0), min(top + out.shape[0], image.shape[0])
    c0, c1 = max(left, 0), min(left + out.shape[1], image.shape[1])
    if r0 < r1 and c0 < c1:
        out[r0 - top : r1 - top, c0 - left : c1 - left] = image[r0:r1, c0:c1]
    return out
