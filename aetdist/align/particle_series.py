"""A particle's series: the passes over its images, and whether it is aligned already."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .common_lines import profile_bins
from .frame import AXIS_FLOOR, PARTICLE_FLOOR, Frame, insignificant, neighbours
from .particle import AXIS_STEP, Alignment, align_particle
from .passes import over_pairs, profile_fan
from .quality import mean_over_neighbours, neighbour_correlation, quality_flags


def align_particle_series(
    frame: Frame, counted: np.ndarray, maximum_axis: float, find_axis: bool
) -> tuple[Alignment, bool]:
    """Shifts of a particle, and whether they are insignificant."""
    n = int(np.ceil(maximum_axis / AXIS_STEP)) if find_axis else 0
    axes = AXIS_STEP * np.arange(-n, n + 1)
    fan = np.asarray(profile_fan(frame.images, frame.where, frame.start, frame.axis + axes).compute())
    first = profile_bins(frame.images.shape[1:], frame.start, float(np.abs(frame.axis + axes).max()))[0]
    if (fan[counted, 0, n].sum(axis=1) <= 0).any():
        raise InputError("The mass of a particle is not positive in some tilts; subtract the background first.")
    for _ in range(2):  # once more without the tilts that stand out
        found = align_particle(fan[:, 0], fan[:, 1], axes, first, frame.theta, counted=counted, find_axis=find_axis)
        table = np.stack([found.correlation, found.common_line_residual, found.mass], axis=1)
        good = quality_flags(table, unmeasured=~counted, excluded=~counted)[0]
        if (good == counted).all() or good.sum() < 3:
            break
        counted = good
    turn = np.deg2rad(frame.theta)
    path = np.stack([np.cos(turn), -np.sin(turn)], axis=1)
    left_across = found.across - path @ np.linalg.lstsq(path[counted], found.across[counted], rcond=None)[0]
    left_along = found.along - found.along[counted].mean()
    floor = PARTICLE_FLOOR
    aligned = (
        insignificant(left_along[counted], found.along_uncertainty[counted], floor[0])
        and insignificant(left_across[counted], found.across_uncertainty[counted], floor[1])
        and abs(found.axis) <= max(AXIS_FLOOR, 3.0 * found.axis_uncertainty)
    )
    first_, second = neighbours(frame.theta, counted)
    both = np.stack([found.along, found.across], axis=1)
    axis = np.deg2rad(frame.axis + found.axis)
    rotate = np.array([[np.cos(axis), -np.sin(axis)], [np.sin(axis), np.cos(axis)]])
    steps = np.rint((both[second] - both[first_]) @ rotate)
    values = over_pairs(_correlation_row, frame.images, frame.mask, first_, second, steps, 1).compute()[:, 0]
    return found._replace(correlation=mean_over_neighbours(first_, second, values, len(counted))), aligned


def _correlation_row(first: np.ndarray, second: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.array([neighbour_correlation(first, second, step.astype(int))])
