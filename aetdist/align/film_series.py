"""A film's series: the passes over its images, its marker, and whether it is aligned already."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np

from .common_lines import align_profiles, profile_bins
from .film import COLUMNS, Pairs, chained_shifts, pair_shift, with_marker
from .film_fit import fit_film, shortening
from .frame import AXIS_FLOOR, PARTICLE_FLOOR, Frame, neighbours
from .marker import Marker, choose_marker, marker_profile
from .particle import Alignment
from .passes import over_pairs, over_tilts
from .quality import mean_over_neighbours, quality_flags

_STEP, _LEFT = 0.4, 1.0
"""Pixels rms: what tilts of an aligned film may lie off their neighbours, and off where they belong, beside what is not
known. Simulated films that are aligned, 12 to 40 Angstrom thick, show steps of up to 0.13, such with shifts of 0.5
pixels rms from 0.64 on; and 1 pixel is what an alignment of films is good for."""
_AXIS_DEVIATIONS = 3.0


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
    n = len(counted)
    correlation = np.full(n, np.nan)
    for _ in range(2):  # once more without the tilts that nothing is like
        pairs = _pairs(frame, counted, maximum_shift)
        seen = mean_over_neighbours(pairs.first, pairs.second, pairs.correlation, n)
        correlation = np.where(np.isfinite(seen), seen, correlation)
        nothing = np.full(n, np.nan)
        table = np.stack([correlation, nothing, nothing], axis=1)
        good = quality_flags(table, unmeasured=~counted, excluded=~counted)[0]
        if (good == counted).all() or good.sum() < 3:
            break
        counted = good
    reference = int(np.flatnonzero(counted)[np.argmin(np.abs(frame.theta[counted]))])
    start = chained_shifts(pairs, n, reference)
    counted = counted & np.isfinite(start).all(axis=1)
    at = np.flatnonzero(counted)
    part = frame._replace(
        images=frame.images[at], mask=frame.mask[at], where=frame.where[at], theta=frame.theta[at],
        turns=frame.turns[at],
    )  # fmt: skip
    turn = np.deg2rad(frame.axis)
    to_image = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    fit = fit_film(part, start[at] @ to_image, maximum_axis=maximum_axis, find_axis=find_axis)
    shift, deviation = np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    shift[at], deviation[at] = fit.shift, fit.uncertainty
    residual = np.full(n, np.nan)
    if wanted:
        image = np.asarray(da.where(frame.mask[reference], frame.images[reference], np.nan).compute())
        window = window or choose_marker(image, 0.0)
    if window is not None:
        moved = shift - shift[reference]
        found_marker = _marker(frame, counted, window, moved, fit.axis, fit.slope)
        if found_marker is not None:
            path = np.stack([np.cos(np.deg2rad(frame.theta)), -np.sin(np.deg2rad(frame.theta))], axis=1)
            marker = (found_marker[0][at], found_marker[1][at], path[at])
            shift[at], deviation[at] = with_marker(shift[at], fit.information, marker)
            residual = found_marker[2]
    # The lowest tilt stays: the film is moved along and across.
    length = shortening(frame.theta, fit.slope)
    shift = shift - shift[reference] * np.column_stack([np.ones(n), length / length[reference]])
    mass = _brightness(frame) * length
    found = Alignment(
        shift[:, 0], shift[:, 1], deviation[:, 0], deviation[:, 1], fit.axis, fit.axis_uncertainty,
        correlation, residual, mass / np.median(mass[counted]),
    )  # fmt: skip
    return found, _film_is_aligned(shift[at], deviation[at], part.theta, fit.axis, fit.axis_uncertainty)


def _film_is_aligned(shift: np.ndarray, deviation: np.ndarray, theta: np.ndarray, axis: float, error: float) -> bool:
    """Whether all tilts lay, as far as is known, where those of a film lie that is moved as a whole."""
    turn, order = np.deg2rad(theta), np.argsort(theta, kind="stable")
    path = np.stack([np.cos(turn), -np.sin(turn)], axis=1)
    along = shift[:, 0] - shift[:, 0].mean()
    across = shift[:, 1] - path @ np.linalg.lstsq(path, shift[:, 1], rcond=None)[0]
    return abs(axis) <= max(AXIS_FLOOR, _AXIS_DEVIATIONS * error) and all(
        np.mean(np.diff(left[order]) ** 2) < _STEP**2 + 2.0 * np.mean(sigma**2)
        and np.mean(left**2) < _LEFT**2 + np.mean(sigma**2)
        for left, sigma in zip((along, across), deviation.T, strict=True)
    )


def _pairs(frame: Frame, counted: np.ndarray, maximum_shift: float) -> Pairs:
    """Neighbouring tilts registered, the lower of each pair stretched onto the higher."""
    a, b = neighbours(frame.theta, counted)
    length = shortening(frame.theta, 0.0)
    lower = length[a] >= length[b]
    first, second = np.where(lower, a, b), np.where(lower, b, a)
    ratio = length[second] / length[first]
    rows = np.asarray(
        over_pairs(
            _pair_row, frame.images, frame.mask, first, second, ratio, COLUMNS,
            axis=frame.axis, centre=frame.centre, maximum_shift=2.0 * maximum_shift,
        ).compute()
    )  # fmt: skip
    return Pairs(first, second, ratio, rows[:, :2], rows[:, 2])


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
