"""From coarse to fine: volume and parameters of a film together, in a few stages; one task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ._threads import kernel_threads
from .angles.joint import Estimate, joint_step
from .angles.level import Level
from .geometry import ParallelGeometry
from .project import ParallelProjector
from .reconstruct.resire import step_length
from .reconstruct.solvers import Objective, eigenvalue_for, solve

SOLVER = "ordered_subsets"
_PASSES = 10  # of the reconstruction that a stage starts from
_ITERATIONS = 20  # of conjugate gradients in a step
_LEAST_PIXELS = 16  # of a coarse image along each axis


class Stage(NamedTuple):
    """Steps at one resolution: blocks of `factor` pixels, waves longer than `scale` pixels weakened."""

    factor: int
    scale: float
    steps: int
    shifts_only: bool = False


#: Chosen on simulated films (46 tilts, holes, matter beyond the field), checked on other seeds: shifts first, as the
#: long waves of a film are too inconsistent for angles.
SCHEDULE = (Stage(4, 20.0, 3, True), Stage(4, 8.0, 4), Stage(2, 5.0, 6))


def refine_jointly(
    shared: tuple[np.ndarray, np.ndarray],
    fine: ParallelGeometry,
    matrices: np.ndarray,
    shifts: np.ndarray,
    tilts: np.ndarray,
    stages: Sequence[Stage],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations, shifts and brightness of some tilts after the stages.

    Parameters
    ----------
    shared : tuple of ndarray
        Images and masks of all tilts, (tilt, y, x).
    fine : ParallelGeometry
        How they see the volume, unshifted.
    matrices : ndarray, shape (tilt, 3, 3)
    shifts : ndarray, shape (tilt, 2)
        Pixels [y, x].
    tilts : ndarray, int
        Which of them.
    stages : sequence of Stage

    Returns
    -------
    matrices, shifts, brightness : ndarray
        Of these tilts.
    """
    images, masks = (array[tilts] for array in shared)
    size = float(np.abs(images[masks]).mean())
    threads, n = kernel_threads(), len(tilts)
    estimate = Estimate(np.empty(0), matrices[tilts], shifts[tilts], np.ones(n), np.zeros((n, 6)))
    for stage in stages:
        if min(images.shape[1:]) // stage.factor < _LEAST_PIXELS:
            continue
        level = Level.of(images / np.float32(size), masks, fine.select_tilts(tilts), stage.factor)
        geometry = level.geometry(estimate.matrices, estimate.shifts)
        even = level.images / estimate.brightness[:, None, None].astype(np.float32)
        start = solve(
            Objective(ParallelProjector(geometry, threads), even, level.masks),
            solver=SOLVER,
            iterations=_PASSES,
            step=step_length(SOLVER, None, 1, eigenvalue_for(SOLVER, geometry)),
        )
        estimate = estimate._replace(volume=start.volume)
        largest = eigenvalue_for(SOLVER, geometry)
        for _ in range(stage.steps):
            estimate = joint_step(
                level, estimate, scale=stage.scale, eigenvalue=largest, iterations=_ITERATIONS,
                shifts_only=stage.shifts_only, threads=threads,
            )  # fmt: skip
    return estimate.matrices, estimate.shifts, estimate.brightness
