"""Reconstruct, refine angles and shifts against the reprojections, reconstruct again, until nothing improves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import xarray as xr

from ._round_tasks import less_smooth_residual
from ._rounds import NO_BETTER, STEPS, Problem, Refined
from .angles.model import kernel_memory
from .angles.tilt_series import check_refinement
from .errors import InputError
from .geometry import grid_step
from .progress import report
from .reconstruct.grid import Field

log = logging.getLogger(__name__)

_LEAST_LEFT = 0.5  # of the tilts: where more would move too far, the rounds end; the volume is to blame, not the tilts


def reconstruct_refined(
    tilt_series: xr.Dataset,
    *,
    shape: tuple[int, int, int] | None = None,
    thickness: float | None = None,
    model: Literal["atoms", "volume", "joint"] | None = None,
    rounds: int = 12,
    round_iterations: int = 12,
    folds: int = 1,
    tolerance: float = 0.001,
    search: float = 0.0,
    increment: float = 0.5,
    maximum_angle: float = 3.0,
    maximum_shift: float = 10.0,
    background: bool | None = None,
    exclude: Sequence[int] = (),
    on_round: Callable[[int, float], None] | None = None,
) -> Refined:
    """Computes: a volume together with the angles and shifts that go with it, round by round.

    Parameters
    ----------
    tilt_series : xarray.Dataset
        TILT_SERIES.
    shape : tuple of int, optional
        Voxels (nx, ny, nz).
    thickness : float, optional
        Of a film, in Angstrom, instead of the shape. Without both: an isolated object.
    model : {"atoms", "volume", "joint"}, optional
        What predicts the images: round atoms at the peaks of the volume ("atoms", the default for isolated objects), or
        the volume itself ("volume"); or volume, angles and shifts are changed together ("joint", the default where a
        thickness is given: of a film, margins and long waves are uncertain, and tilts know only their neighbours).
    rounds : int
        At most so many.
    round_iterations : int
        Iterations of the reconstruction (ordered subsets) in each round, always from the beginning, so that R of one
        round can be compared with that of another.
    folds : int
        With 2 or more, every tilt is judged against a volume made without it and its fold: tilt t belongs to
        fold t modulo `folds`. The rounds then follow R of tilts that were left out; so many times the cost.
    tolerance : float
        The rounds end when the mean R falls by less than this fraction of itself.
    search, increment : float
        Coarse scan in the first round, in degrees, as in :func:`~aetdist.angles.refine_angles`; 0 leaves it out.
    maximum_angle, maximum_shift : float
        Degrees and pixels; a tilt that would move further is left out of the round, with the values that it came with.
        The next round scans for it again (not with "joint").
    background : bool, optional
        Measure the background again in every round: the smooth part of image - reprojection. By default where
        preprocessing has subtracted one (``background`` in the series).
    exclude : sequence of int
        Tilts to leave out, by their numbers in the coordinate ``tilt``.
    on_round : callable, optional
        Called with the number of the round and the mean R.

    Returns
    -------
    Refined
        ``corrections`` has, beside what `refine_angles` gives: ``round_r_factor`` (round, tilt), R before the
        first and after every round; ``round_rotation`` (degrees) and ``round_shift`` (pixels), (round,), rms of the
        changes; attributes ``model``, ``background``, ``converged``, ``kept_start`` and ``stopped`` (why the rounds
        ended); ``converged`` only where R fell and then fell no more.

    Raises
    ------
    InputError
        If an option is off, a measured pixel is no finite number, or fewer than three tilts can be used.
    CapacityError
        If the volume does not fit in memory.

    Warns
    -----
    AetdistWarning
        Naming the tilts that are left out; if R did not fall, or fewer than half of the tilts would be left after the
        first round, in which case all angles and shifts are those of the start; if fewer than nine tilts are used, the
        images have a constant background (which the rounds leave out), or the volume cuts the object.

    Notes
    -----
    As in Yang et al. 2021, Methods: reconstruct, compare every image with reprojections in its neighbourhood,
    correct it, reconstruct again. A volume from misaligned images explains their misalignment in part, and
    neighbouring tilts support each other's errors, so that errors that vary smoothly along the series fall
    slowly. Round atoms in place of the volume (:func:`~aetdist.angles.atoms.atomic_model`) cannot do so: with them a
    few rounds do. Rotation and translation of the object as a whole stay where they were.

    Of a film, distant tilts share only long waves, which are the least consistent part of its images. There the step
    is a Gauss-Newton one of volume and parameters together, with long waves weakened, at coarse voxels first
    (:func:`~aetdist.angles.joint.joint_step`); a prior keeps corrections small (0.7 degree, 2.5 pixels) where the
    images say nothing.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods, RESIRE.
    """
    check_refinement(search, increment, rounds, maximum_angle, maximum_shift)
    kind = model or ("atoms" if thickness is None else "joint")
    if kind not in STEPS:
        raise InputError(f"model came as {model!r}; choose one of {', '.join(STEPS)}.")
    if not (
        int(round_iterations) == round_iterations
        and round_iterations >= 1
        and int(folds) == folds
        and folds >= 1
        and tolerance >= 0
    ):
        raise InputError(
            f"round_iterations came as {round_iterations}, folds as {folds} and tolerance as {tolerance}; needed are "
            "whole numbers of 1 or more, and a number of 0 or more."
        )
    again = "background" in tilt_series if background is None else background
    problem = Problem.of(tilt_series, shape, thickness, kind, int(round_iterations), int(folds), exclude, again)
    state = problem.start()
    if search > 0:
        state = problem.scanned(state, search, increment, maximum_shift)
    found = problem.evaluate(state)
    problem, found = problem.checked(state, found, isolated=thickness is None and kind != "joint")
    states, r_factors = [state], [found.r_factor]
    best, stopped = (0, found), f"after {rounds} rounds"
    for number in range(1, rounds + 1):
        report(number - 1, rounds, "rounds")
        state = problem.step(state, found, maximum_angle, maximum_shift, first=number == 1)
        if state.used.sum() < max(3, _LEAST_LEFT * states[0].used.sum()):
            stopped = f"Only {int(state.used.sum())} of {int(states[0].used.sum())} tilts would be left"
            break
        came_back = bool((state.used & ~states[-1].used).any())
        before, found = found, problem.evaluate(state)
        states.append(state)
        r_factors.append(found.r_factor)
        log.info("round %d: R %.4f", number, found.mean())
        if on_round is not None:
            on_round(number, found.mean())
        if found.better(best[1]):
            best = number, found
        if not (came_back or found.lower(before, tolerance)):
            stopped = NO_BETTER
            break
    report(rounds, rounds, "rounds")
    return problem.result(states, r_factors, *best, stopped)


def without_background(series: xr.Dataset, volume: xr.Dataset) -> xr.Dataset:
    """Computes: images less what is smooth in image - reprojection; ``background`` is all that was subtracted.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES, where the volume was made from; with ``object_mask``, pixels outside it stay as they are.
    volume : xarray.Dataset
        VOLUME.
    """
    size = float(series["pixel_size"]) if "pixel_size" in series else grid_step(series["x"].values)
    z, y, x = (round(float(volume[axis].values[0]) / size) for axis in "zyx")
    nz, ny, nx = volume["density"].shape
    geometry = Field.of(series).geometry((z, y, x), (nz, ny, nx))
    images, masks = series["images"].values, series["mask"].values.copy()
    if "object_mask" in series:
        masks &= series["object_mask"].values
    better, _ = less_smooth_residual((images, masks), kernel_memory(volume["density"].values), geometry)
    better = np.where(masks, better, images)
    before = series["background"].values if "background" in series else np.float32(0)
    return series.assign(
        images=(series["images"].dims, better, series["images"].attrs),
        background=(series["images"].dims, before + images - better, {"units": "1", "long_name": "subtracted"}),
    )
