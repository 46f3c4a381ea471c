"""Isolated particles: common lines along the tilt axis, centre of mass across it, and the axis itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from .common_lines import LineAlignment, align_profiles, profile_bins

AXIS_STEP = 0.25
"""Degrees between the axes at which profiles are taken; between them they are interpolated by cubic splines."""
_BANDS = 8


class Alignment(NamedTuple):
    """What an alignment found; see :func:`~aetdist.align.tilt_series.align_tilt_series`.

    Attributes
    ----------
    along, across : ndarray, shape (tilt,), float64
        Shifts in pixels along and across the tilt axis.
    along_uncertainty, across_uncertainty : ndarray, shape (tilt,), float64
        Their standard deviations in pixels.
    axis, axis_uncertainty : float
        By how many degrees the axis is turned from where the angles have it, positive towards -x.
    correlation, common_line_residual, mass : ndarray, shape (tilt,), float64
        Quality; mass over its median.
    """

    along: np.ndarray
    across: np.ndarray
    along_uncertainty: np.ndarray
    across_uncertainty: np.ndarray
    axis: float
    axis_uncertainty: float
    correlation: np.ndarray
    common_line_residual: np.ndarray
    mass: np.ndarray


def align_particle(
    profiles: np.ndarray,
    moments: np.ndarray,
    axes: np.ndarray,
    first: float,
    theta: np.ndarray,
    *,
    counted: np.ndarray,
    find_axis: bool = True,
) -> Alignment:
    """Shifts and tilt axis of a particle from its profiles.

    Parameters
    ----------
    profiles, moments : ndarray, shape (tilt, axis, bins), float64
        As :func:`~aetdist.align.common_lines.line_profiles` returns them for every tilt.
    axes : ndarray, shape (axis,), float
        Angles of the axes from where the Euler angles have the tilt axis, in degrees; rising.
    first : float
        Coordinate of the first bin in pixels.
    theta : ndarray, shape (tilt,), float
        Tilts in degrees.
    counted : ndarray, shape (tilt,), bool
        Tilts that make the mean profile.
    find_axis : bool
        Search the axis; otherwise it is at 0.

    Returns
    -------
    Alignment

    Notes
    -----
    At the true axis all profiles agree. Turned by d, a profile changes by -d dX_t(u)/du, with X_t the
    first moment across, which depends on the tilt: what the shifted profiles leave grows as d^2. Its
    minimum over the axes, by a parabola, is the axis.
    """
    axis, spread = (0.0, 0.0) if not find_axis else _best_axis(profiles, moments, axes, first, counted)
    lines = _at_axis(profiles, axes, axis)
    across_moments = _at_axis(moments, axes, axis)
    mass, along, across = _centres(lines, across_moments, first)
    found = align_profiles(lines, along, counted=counted)
    # The origin along the axis: the centre of mass of the mean profile.
    bins = first + np.arange(len(found.mean))
    offset = float((found.mean * bins).sum() / found.mean.sum())
    middle = np.median(mass[counted])
    return Alignment(
        found.shift + offset,
        across,
        found.uncertainty,
        _across_uncertainty(lines, across_moments, found, theta, counted),
        axis,
        spread,
        np.full(len(mass), np.nan),
        found.residual,
        mass / middle,
    )


def _centres(lines: np.ndarray, moments: np.ndarray, first: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mass of every tilt and its centre along and across the axis."""
    mass = lines.sum(axis=1)
    safe = np.where(mass == 0, 1.0, mass)
    return mass, (lines @ (first + np.arange(lines.shape[1]))) / safe, moments.sum(axis=1) / safe


def _at_axis(fan: np.ndarray, axes: np.ndarray, axis: float) -> np.ndarray:
    """Profiles at an angle between those they were taken at."""
    if len(axes) < 2:
        return fan[:, 0]
    nearest = int(np.clip(np.searchsorted(axes, axis) - 4, 0, max(len(axes) - 8, 0)))
    part = slice(nearest, nearest + 8)
    return np.asarray(CubicSpline(axes[part], fan[:, part], axis=1)(axis))


def _best_axis(
    profiles: np.ndarray, moments: np.ndarray, axes: np.ndarray, first: float, counted: np.ndarray
) -> tuple[float, float]:
    """Axis at which the profiles agree best, and its standard deviation, in degrees."""

    def left_over(axis: float) -> float:
        lines = _at_axis(profiles, axes, axis)
        along = _centres(lines, _at_axis(moments, axes, axis), first)[1]
        return float((align_profiles(lines, along, counted=counted, iterations=2).residual[counted] ** 2).sum())

    coarse = axes[:: max(1, round(0.5 / AXIS_STEP))]
    costs = np.array([left_over(a) for a in coarse])
    axis = float(coarse[np.argmin(costs)])
    bend = 0.0
    lowest = float(costs.min())
    for step in (0.5, 0.2):
        near = np.clip(axis + step * np.array([-1.0, -0.5, 0.0, 0.5, 1.0]), axes[0], axes[-1])
        values = np.array([left_over(a) for a in near])
        bend, slope, level = np.polyfit(near - axis, values, 2)
        if bend > 0:
            axis = float(np.clip(axis - 0.5 * slope / bend, near.min(), near.max()))
            lowest = float(max(level - 0.25 * slope**2 / bend, 0.0))
    if bend <= 0:
        return axis, float(np.ptp(axes))
    # residual^2 is a sum over tilts, each over some `bins / shared` independent numbers.
    independent = counted.sum() * max((profiles[counted][0, 0] > 0).sum() / 4.0, 1.0)
    return axis, float(np.sqrt(lowest / independent / bend))


def _across_uncertainty(
    lines: np.ndarray, moments: np.ndarray, found: LineAlignment, theta: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """Standard deviation of the centre of mass across, from how slices of the object agree.

    A slice k of the object, between two heights along the axis, has its own centre of mass at
    X_k cos(theta) - Z_k sin(theta) + shift_t: what this leaves is the error of a slice.
    """
    bins = np.arange(lines.shape[1])
    cumulated = np.cumsum(np.maximum(found.mean, 0.0))
    edges = np.interp(np.linspace(0, 1, _BANDS + 1), cumulated / cumulated[-1], bins)
    edges[0], edges[-1] = bins[0], bins[-1]
    centres = np.empty((len(lines), _BANDS))
    for t, (line, moment, shift) in enumerate(zip(lines, moments, found.shift, strict=True)):
        sums = np.array([np.interp(edges + shift, bins, np.cumsum(a)) for a in (line, moment)])
        mass, first = np.diff(sums, axis=1)
        centres[t] = first / np.where(np.abs(mass) > 1e-12 * abs(line.sum()), mass, np.inf)
    apart = centres - centres.mean(axis=1, keepdims=True)
    turn = np.deg2rad(theta)
    basis = np.stack([np.cos(turn), -np.sin(turn)], axis=1)
    weights = np.linalg.lstsq(basis[counted], apart[counted], rcond=None)[0]
    left = apart - basis @ weights
    return np.asarray(np.sqrt((left**2).mean(axis=1) / (_BANDS - 1)))


__all__ = ["AXIS_STEP", "Alignment", "align_particle", "profile_bins"]
