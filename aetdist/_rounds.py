"""One round of refinement: reconstruct, predict every image, least squares of every tilt; Dask graphs per round."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr

from ._round_tasks import (
    atoms_of,
    density_at_faces,
    fitted,
    less_smooth_residual,
    missed_intensity,
    r_factor_of,
    reconstructed,
    scanned,
)
from ._schedule import SCHEDULE, refine_jointly
from .angles.flags import BRIGHTNESS, NOT_MEASURED, unlike_the_others, warn_of_few
from .angles.least_squares import Fit
from .angles.model import as_volume
from .angles.tilt_series import (
    corrections_dataset,
    joined_fits,
    known_tilts,
    measured_tilts,
    rotation_between,
    turned_by,
)
from .blocks.windows import share
from .errors import AetdistWarning, InputError
from .geometry import ParallelGeometry, pinned, remove_common_motion
from .reconstruct.grid import Field, require_finite, volume_grid
from .reconstruct.memory import require_one_piece
from .schema import VOLUME, with_units

NO_BETTER = "R falls no more"  # why rounds end that have found what they can
_FIT_ITERATIONS = 4  # of least squares in a round: the next one goes on
STEPS = {"atoms": 1.0, "volume": 1.5, "joint": 1.0}
"""How a round finds its step, and how much of it is taken: a volume explains part of the misalignment, which makes
steps against it too short. Weighed on a simulated particle: above 1.7 rounds begin to swing."""
_BRIGHTER = 1.5  # than its reprojection, beside what all tilts are: it would be in the volume with a weight of its own
_MUCH_BRIGHTER = 5.0  # contrast before anything is known: that of a film varies twofold along its tilts
_FOR_MORE_TILTS = 0.01  # of R: by so much it may rise when tilts come back, which the volume has to explain as well
_MISSED = 0.02  # of the images' intensity, on rays that pass the volume by
_AT_FACES = 1.5  # of the volume's mean, at one of its faces: matter that has no place gathers there
_BACKGROUND_SEEN = 0.02  # of the images' maximum; simulated particles without one seem to have up to 0.01
_BACKGROUND_PASSES = 8  # at most: of one as bright as the object, each leaves a fifth to a half


class Refined(NamedTuple):
    """What the loop gives.

    Attributes
    ----------
    volume : xarray.Dataset
        VOLUME: ``density`` from the refined angles and shifts.
    corrections : xarray.Dataset
        As :func:`~aetdist.angles.refine_angles` gives them, and the record of the rounds.
    """

    volume: xr.Dataset
    corrections: xr.Dataset


class State(NamedTuple):
    """Where all tilts are: rotations, shifts in pixels [y, x], and what is wrong with some."""

    matrices: np.ndarray
    shifts: np.ndarray
    flags: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """Tilts of which the volume is made."""
        return self.flags == ""


class Found(NamedTuple):
    """What a round's reconstruction says of a state: volumes and models stay with the workers."""

    volumes: list[Any]
    models: list[Any]
    shared: Any
    r_factor: np.ndarray

    def mean(self) -> float:
        """R, mean over the tilts that are used."""
        return float(np.nanmean(self.r_factor))

    def lower(self, other: Found, fraction: float = 0.0) -> bool:
        """Whether R is lower than another one by more than a fraction of it, over the tilts that both know."""
        both = np.isfinite(self.r_factor) & np.isfinite(other.r_factor)
        return bool(self.r_factor[both].sum() < (1.0 - fraction) * other.r_factor[both].sum())

    def better(self, other: Found) -> bool:
        """Whether R is lower, or little higher with more tilts."""
        more = np.isfinite(self.r_factor).sum() > np.isfinite(other.r_factor).sum()
        return self.lower(other, -_FOR_MORE_TILTS if more else 0.0)


@dataclass(frozen=True, eq=False)
class Problem:
    """The series, its grid, and how rounds are made of them."""

    series: xr.Dataset
    field: Field
    first: tuple[int, int, int]
    grid: tuple[int, int, int]
    images: np.ndarray
    masks: np.ndarray
    shared: Any
    kind: str
    iterations: int
    folds: int
    background: bool
    left_out: np.ndarray

    @classmethod
    def of(
        cls,
        series: xr.Dataset,
        shape: tuple[int, int, int] | None,
        thickness: float | None,
        kind: str,
        iterations: int,
        folds: int,
        exclude: Sequence[int],
        background: bool,
    ) -> Problem:
        """Read the series and send it to the workers."""
        field = Field.of(series)
        first, grid = volume_grid(field, shape, thickness)
        require_one_piece(grid, int(np.prod(series["images"].shape)), "use windows (`--window`), or bin the images.")
        left_out = np.isin(series["tilt"].values, known_tilts(series, exclude))
        masks = np.ascontiguousarray(series["mask"].values)
        images = series["images"].values.astype(np.float32)
        require_finite(images, masks)
        images[~masks] = 0.0
        shared = share((images, masks))
        return cls(series, field, first, grid, images, masks, shared, kind, iterations, folds, background, left_out)

    def start(self) -> State:
        """The state that the series comes with."""
        flags = np.full(len(self.images), "", dtype=object)
        flags[self.left_out] = "left out"
        flags[~self.left_out & ~measured_tilts(self.images, self.masks)] = NOT_MEASURED
        measured = flags == ""
        if measured.any():
            contrast = np.array([i[m].std() if m.any() else 0.0 for i, m in zip(self.images, self.masks, strict=True)])
            flags[measured & _beyond(contrast / np.median(contrast[measured]), _MUCH_BRIGHTER)] = BRIGHTNESS
        state = State(self.field.matrices.copy(), np.zeros((len(flags), 2)), flags)
        if state.used.sum() < 3:
            raise InputError(
                f"{int(state.used.sum())} of {len(flags)} tilts can be used; needed are at least three: check images "
                "and mask, or leave fewer tilts out."
            )
        warn_of_few(int(state.used.sum()))
        return state

    def geometry(self, state: State) -> ParallelGeometry:
        """How the images see the volume."""
        geometry = self.field.geometry(self.first, self.grid)
        return ParallelGeometry(
            state.matrices,
            geometry.volume_shape,
            geometry.volume_start,
            geometry.detector_shape,
            geometry.detector_start - state.shifts,
        )

    def evaluate(self, state: State) -> Found:
        """Reconstruct from a state, once for every fold; R of all tilts, or of those that a fold leaves out."""
        geometry, used = self.geometry(state), state.used
        shared = self.shared
        if self.background:
            whole = self._persist(reconstructed, shared, geometry, np.flatnonzero(used), self.iterations)
            shared = self._persist(less_smooth_residual, shared, whole, geometry)
        numbers = np.arange(len(used))
        folds = [used & (numbers % self.folds != k) if self.folds > 1 else used for k in range(self.folds)]
        volumes = [self._persist(reconstructed, shared, geometry, np.flatnonzero(f), self.iterations) for f in folds]
        models = volumes
        if self.kind == "atoms":
            models = [
                self._persist(atoms_of, volume, shared, geometry, np.flatnonzero(f), self.field.pixel_size)
                for volume, f in zip(volumes, folds, strict=True)
            ]
        judged = dask.compute(
            *[dask.delayed(r_factor_of)(volumes[t % self.folds], shared, geometry, t) for t in np.flatnonzero(used)]
        )
        r_factor = np.full(len(used), np.nan)
        r_factor[used] = judged
        return Found(volumes, models, shared, r_factor)

    def checked(self, state: State, found: Found, *, isolated: bool) -> tuple[Problem, Found]:
        """The series without a constant background, which the volume would hold as matter; a cut volume is told."""
        problem, better, level = self, found, 0.0
        if self.kind == "atoms":
            problem, better, level = self._without_constant(state, found)
        cut = problem._cut(state, better, isolated)
        if cut:  # what it does not hold looks like a background
            nz, ny, nx = self.grid
            why = (
                f"{cut}: the shape of {nx} x {ny} x {nz} voxels (x, y, z) seems to cut the object. Give a larger one, "
                "or none; or, if the object does lie within it, subtract the background of the images first."
            )
            problem, better = self, found
        elif level:
            why = (
                f"The images have a constant background of {level:.0%} of their maximum, which is left out here; "
                "subtract it before you reconstruct (`aetdist preprocess`)."
            )
        else:
            return self, found
        warnings.warn(why, AetdistWarning, stacklevel=3)
        return problem, better

    def _without_constant(self, state: State, found: Found) -> tuple[Problem, Found, float]:
        """The series less the constants that its atoms leave, what it says then, and their median over the maximum."""
        problem, levels, tilts = self, np.zeros(len(self.images)), np.flatnonzero(state.used)
        brightest = float(np.median(self.images[tilts].max(axis=(1, 2))))
        for _ in range(_BACKGROUND_PASSES):
            more = problem._fits(state, found, tilts, 0).background
            if not abs(np.median(more[tilts])) > _BACKGROUND_SEEN * brightest:
                break
            levels += more
            images = np.where(self.masks, self.images - levels[:, None, None], 0).astype(np.float32)
            problem = replace(problem, images=images, shared=share((images, self.masks)))
            found = problem.evaluate(state)
        return problem, found, float(np.median(levels[tilts])) / brightest if levels.any() else 0.0

    def _cut(self, state: State, found: Found, isolated: bool) -> str:
        """Where the images show matter that the volume has no place for; nothing if it has."""
        missed, faces = dask.compute(
            dask.delayed(missed_intensity)(found.shared, self.geometry(state), np.flatnonzero(state.used)),
            dask.delayed(density_at_faces)(found.volumes[0]),
        )
        if abs(missed) > _MISSED:
            return f"{abs(missed):.0%} of the images' intensity are on rays that pass the volume by"
        if isolated and faces > _AT_FACES:
            return f"A face of the volume holds {faces:.1f} times as much as the volume on average"
        return ""

    def step(
        self, state: State, found: Found, maximum_angle: float, maximum_shift: float, *, first: bool = False
    ) -> State:
        """The next state: flags from how the images agree with their predictions, then what a round changes."""
        joint = self.kind == "joint"
        tried = state.used if joint else ~np.isin(state.flags, ("left out", NOT_MEASURED))  # others may come back
        tilts = np.flatnonzero(tried)
        lost = dict.fromkeys(np.flatnonzero(tried & ~state.used).tolist(), maximum_shift)
        fit = self._fits(state, found, tilts, 0 if joint else _FIT_ITERATIONS, lost)
        flags = np.where(tried, "", state.flags)
        if not joint:
            relative = fit.brightness / np.median(fit.brightness[state.used])
            flags[tried & _beyond(relative, _BRIGHTER)] = BRIGHTNESS
        if not (joint and first):  # of a film that is not aligned yet, no image agrees
            flags[unlike_the_others(fit.correlation[:, 1], tried)] = "unlike the reprojection"
        tried = flags == ""
        if joint:
            matrices, shifts = self._together(state, found, np.flatnonzero(tried), first)
        else:
            over = STEPS[self.kind] if self.folds == 1 else 1.0
            matrices = turned_by(over * rotation_between(state.matrices, fit.matrices)) @ state.matrices
            shifts = state.shifts + over * (fit.shifts - state.shifts)
        start = self.field.matrices
        matrices, shifts, far = pinned(
            matrices, shifts, start, tried, state.used, maximum_angle=maximum_angle, maximum_shift=maximum_shift
        )
        flags[far] = "moved too far"
        still = ~tried | far
        matrices[still], shifts[still] = start[still], 0.0
        return State(matrices, shifts, flags)

    def _together(self, state: State, found: Found, tilts: np.ndarray, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rotations and shifts after steps of all tilts and the volume together, in one task."""
        stages = SCHEDULE if first else SCHEDULE[-1:]
        task = dask.delayed(refine_jointly)(
            found.shared, self.geometry(self.start()), state.matrices, state.shifts, tilts, stages
        )
        matrices, shifts = state.matrices.copy(), state.shifts.copy()
        matrices[tilts], shifts[tilts], _ = dask.compute(task)[0]
        return matrices, shifts

    def scanned(self, state: State, search: float, increment: float, maximum_shift: float) -> State:
        """The state after a coarse scan of the rotations of every tilt."""
        found, tilts = self.evaluate(state), np.flatnonzero(state.used)
        best = dask.compute(
            *[
                dask.delayed(scanned)(
                    found.models[t % self.folds], found.shared, self.geometry(state), t,
                    search=search, increment=increment, maximum_shift=maximum_shift,
                )
                for t in tilts
            ]
        )  # fmt: skip
        matrices, shifts = state.matrices.copy(), state.shifts.copy()
        matrices[tilts], shifts[tilts] = (np.stack(values) for values in zip(*best, strict=True))
        matrices, shifts = remove_common_motion(matrices, shifts, self.field.matrices, used=state.used)
        return state._replace(matrices=matrices, shifts=shifts)

    def _fits(
        self, state: State, found: Found, tilts: np.ndarray, iterations: int, within: dict[int, float] | None = None
    ) -> Fit:
        """Least squares of every tilt against its prediction, one task each; of some after a scan within pixels."""
        geometry = self.geometry(state)
        fits = dask.compute(
            *[
                dask.delayed(fitted)(
                    found.models[t % self.folds], found.shared, geometry, t, state.shifts[t], iterations=iterations,
                    within=(within or {}).get(int(t)),
                )
                for t in tilts
            ]
        )  # fmt: skip
        return joined_fits(fits, tilts, state.matrices, state.shifts)

    def result(
        self, states: list[State], r_factors: list[np.ndarray], best: int, found: Found, stopped: str
    ) -> Refined:
        """The best round's state, its volume, and the record of all rounds."""
        state = states[best]
        tilts = np.flatnonzero(state.used)
        fit = self._fits(state, found, tilts, 0)
        start = self.field.matrices
        if best == 0:
            why = (
                f"R did not fall ({np.nanmean(r_factors[0]):.4f} before, {np.nanmean(r_factors[-1]):.4f} after the "
                "last round)"
            )
            warnings.warn(
                f"{why if stopped == NO_BETTER else stopped}: angles and shifts are left as they were. Angles that are "
                "far off, or shifts of several pixels, take a coarse scan: give a search of 1 degree or more.",
                AetdistWarning,
                stacklevel=4,
            )
        bad = np.flatnonzero((state.flags != "") & (state.flags != "left out"))
        if bad.size:
            named = ", ".join(f"{int(self.series['tilt'].values[t])} ({state.flags[t]})" for t in bad)
            warnings.warn(f"Tilt {named}: left out, at the angles that it came with.", AetdistWarning, stacklevel=4)
        turned = rotation_between(start, state.matrices)
        corrections = corrections_dataset(
            self.series, state.matrices, state.shifts, turned, fit.covariance, state.used, state.flags
        )
        changes = [rotation_between(a.matrices, b.matrices)[state.used] for a, b in pairwise(states)]
        moves = [(b.shifts - a.shifts)[state.used] for a, b in pairwise(states)]
        corrections = corrections.assign(
            correlation=("tilt", fit.correlation[:, 1], {"units": "1"}),
            round_r_factor=(("round", "tilt"), np.stack(r_factors), {"units": "1"}),
            round_rotation=("round", [0.0, *map(_rms, changes)], {"units": "degree"}),
            round_shift=("round", [0.0, *map(_rms, moves)], {"units": "pixel"}),
        ).assign_attrs(
            model=self.kind,
            background=self.background,
            folds=self.folds,
            round_iterations=self.iterations,
            stopped=stopped,
            converged=bool(stopped == NO_BETTER and best > 0),
            kept_start=bool(best == 0),
            best_round=best,
        )
        volume = found.volumes[0]
        if self.folds > 1:
            volume = self._persist(reconstructed, found.shared, self.geometry(state), tilts, self.iterations)
        (memory,) = dask.compute(volume)
        size = self.field.pixel_size
        coords = {a: (np.arange(n) + f) * size for a, n, f in zip("zyx", self.grid, self.first, strict=True)}
        density = xr.Dataset({"density": (("z", "y", "x"), as_volume(memory))}, coords)
        return Refined(with_units(density, VOLUME), corrections)

    def _persist(self, function: Callable[..., Any], *arguments: Any) -> Any:
        (kept,) = dask.persist(dask.delayed(function)(*arguments))
        return kept


def _beyond(ratio: np.ndarray, factor: float) -> np.ndarray:
    """Whether ratios are further from 1 than a factor, either way."""
    return (ratio > factor) | (ratio < 1.0 / factor)


def _rms(vectors: np.ndarray) -> float:
    return float(np.sqrt(np.square(vectors).sum(axis=-1).mean())) if vectors.size else 0.0
