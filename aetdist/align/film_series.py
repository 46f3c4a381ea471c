"""A film's series: the passes over its images, its marker, and whether it is aligned already."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np

from .common_lines import align_profiles, profile_bins
from .film import COLUMNS, TILES, Pairs, film_slope, pair_shift, shortening, solve_shifts, turned_axis
from .frame import AXIS_FLOOR, FILM_FLOOR, PARTICLE_FLOOR, Frame, insignificant, neighbours
from .marker import Marker, choose_marker, marker_profile
from .particle import Alignment
from .passes import over_pairs, over_tilts
from .quality import mean_over_neighbours

_SMALL_TURN = 0.3
"""Degrees of the axis that do not change how pairs lie on one another."""
_AXIS_DEVIATIONS = 5.0
"""Standard deviations from which a film's axis is turned: they come from a dozen tiles, which long features share."""


def align_film_series(
    frame: Frame,
    counted: np.ndarray,
    window: Marker | None,
    wanted: bool,
    maximum_shift: float,
    maximum_axis: float,
    find_axis: bool,
) -> tuple[Alignment, bool]:
    """Shifts of a film, and whether they are insignificant."""
    axis, slope, error = 0.0, 0.0, 0.0
    raw = pairs = _pairs(frame, counted, axis, slope, maximum_shift)
    for last in (False, False, True):
        turn, change = 0.0, 0.0
        if find_axis:
            turn, error = turned_axis(pairs)
            axis = float(np.clip(axis + turn, -maximum_axis, maximum_axis))
        if last:
            break
        found_change, deviation = film_slope(pairs, frame.theta, slope)
        if abs(found_change) > 3.0 * deviation:
            change = found_change
            slope += change
        if abs(turn) < _SMALL_TURN and change == 0.0:  # the pairs would be the same again
            break
        pairs = _pairs(frame, counted, axis, slope, maximum_shift)
    reference = int(np.flatnonzero(counted)[np.argmin(np.abs(frame.theta[counted]))])
    shift, deviation_ = solve_shifts(pairs, len(counted), reference)
    residual = np.full(len(counted), np.nan)
    if wanted:
        image = np.asarray(da.where(frame.mask[reference], frame.images[reference], np.nan).compute())
        window = window or choose_marker(image, 0.0)
    if window is not None:
        seen = _marker(frame, counted, window, shift, axis, slope)
        if seen is not None:
            turn_ = np.deg2rad(frame.theta)
            path = np.stack([np.cos(turn_), -np.sin(turn_)], axis=1)
            shift, deviation_ = solve_shifts(pairs, len(counted), reference, marker=(seen[0], seen[1], path))
            residual = seen[2]
    correlation = mean_over_neighbours(pairs.first, pairs.second, pairs.correlation, len(counted))
    brightness = _brightness(frame) * shortening(frame.theta, slope)
    found = Alignment(
        shift[:, 0], shift[:, 1], deviation_[:, 0], deviation_[:, 1], axis, error, correlation, residual,
        brightness / np.median(brightness[counted]),
    )  # fmt: skip
    return found, _film_is_aligned(raw, frame.theta, axis, error)


def _film_is_aligned(pairs: Pairs, theta: np.ndarray, axis: float, error: float) -> bool:
    """Whether neighbours lie on one another as they came, but for the film's height."""
    sigma = pairs.uncertainty()
    sine = np.sin(np.deg2rad(theta))
    path = -(sine[pairs.second] - pairs.ratio * sine[pairs.first])
    ok = np.isfinite(pairs.shift).all(axis=1)
    along, across = pairs.shift[ok].T
    across = across - path[ok] * (path[ok] @ across) / (path[ok] @ path[ok])
    return (
        insignificant(along, sigma[ok, 0], FILM_FLOOR[0])
        and insignificant(across, sigma[ok, 1], FILM_FLOOR[1])
        and abs(axis) <= max(AXIS_FLOOR, _AXIS_DEVIATIONS * error)
    )


def _pairs(frame: Frame, counted: np.ndarray, axis: float, slope: float, maximum_shift: float) -> Pairs:
    """Neighbouring tilts registered, the lower of each pair stretched onto the higher."""
    a, b = neighbours(frame.theta, counted)
    length = shortening(frame.theta, slope)
    lower = length[a] >= length[b]
    first, second = np.where(lower, a, b), np.where(lower, b, a)
    ratio = length[second] / length[first]
    rows = np.asarray(
        over_pairs(
            _pair_row, frame.images, frame.mask, first, second, ratio, COLUMNS,
            axis=frame.axis + axis, centre=frame.centre, maximum_shift=2.0 * maximum_shift,
        ).compute()
    )  # fmt: skip
    return Pairs(first, second, ratio, rows[:, :2], rows[:, 2], rows[:, 3:].reshape(-1, TILES, 5))


def _pair_row(
    first: np.ndarray,
    second: np.ndarray,
    ratio: np.ndarray,
    *,
    axis: float,
    centre: tuple[float, float],
    maximum_shift: float,
) -> np.ndarray:
    return pair_shift(first, second, ratio=float(ratio[0]), axis=axis, centre=centre, maximum_shift=maximum_shift)


def _marker(
    frame: Frame, counted: np.ndarray, window: Marker, shift: np.ndarray, axis: float, slope: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Centres of a marker, their standard deviations and what its common line leaves; None if it is lost."""
    n = len(counted)
    angle = frame.axis + axis
    turn = np.deg2rad(angle)
    along = (window.y + frame.start[0]) * np.cos(turn) - (window.x + frame.start[1]) * np.sin(turn)
    across = (window.y + frame.start[0]) * np.sin(turn) + (window.x + frame.start[1]) * np.cos(turn)
    length = shortening(frame.theta, slope)
    here = np.nan_to_num(np.stack([along + shift[:, 0], across * length / length[counted].max() + shift[:, 1]]))
    y = here[0] * np.cos(turn) + here[1] * np.sin(turn) - frame.start[0]
    x = -here[0] * np.sin(turn) + here[1] * np.cos(turn) - frame.start[1]
    bins = profile_bins(frame.images.shape[1:], frame.start, abs(angle))[1]
    numbers = np.stack([y, x, np.full(n, window.half_y), window.half_x * length / length[counted].max()], axis=1)
    lazy = over_tilts(_marker_row, frame.images, frame.mask, numbers, bins + 2, start=frame.start, axis=angle)
    rows = np.asarray(lazy.compute())
    mass = rows[:, 1]
    seen = counted & np.isfinite(mass)
    if seen.sum() < 3:
        return None
    mass = mass / np.median(mass[seen])
    seen &= np.abs(mass - 1.0) < 0.25
    if seen.sum() < max(3, 0.5 * counted.sum()):
        return None
    profiles = np.nan_to_num(rows[:, 2:])
    guess = profiles @ (profile_bins(frame.images.shape[1:], frame.start, abs(angle))[0] + np.arange(bins))
    guess /= np.maximum(profiles.sum(axis=1), 1e-300)
    lines = align_profiles(profiles, guess, counted=seen)
    centre = np.where(seen[:, None], np.stack([lines.shift, rows[:, 0]], axis=1), np.nan)
    spread = np.stack([lines.uncertainty, window.half_x * length * np.abs(mass - 1.0)], axis=1)
    return centre, np.hypot(spread, np.array(PARTICLE_FLOOR)), np.where(seen, lines.residual, np.nan)


def _marker_row(image: np.ndarray, window: np.ndarray, *, start: tuple[float, float], axis: float) -> np.ndarray:
    found = marker_profile(image, Marker(*window), start, axis)
    bins = profile_bins((image.shape[0], image.shape[1]), start, abs(axis))[1]
    return np.full(bins + 2, np.nan) if found is None else found


def _brightness(frame: Frame) -> np.ndarray:
    """Mean measured pixel of every tilt; NaN where there is none."""
    total = da.where(frame.mask, frame.images, 0.0).sum(axis=(1, 2), dtype=np.float64)
    total, count = dask.compute(total, frame.mask.sum(axis=(1, 2)))
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
