"""One round of refinement: reconstruct, predict every image, least squares of every tilt; Dask graphs per round."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import dask
import numpy as np
import xarray as xr

from ._schedule import SCHEDULE, SOLVER, refine_jointly
from ._threads import kernel_threads
from .angles.atoms import atomic_model
from .angles.flags import NOT_MEASURED, unlike_the_others
from .geometry.gauge import remove_common_motion
from .angles.least_squares import Fit, fit_tilts
from .angles.model import Model, as_volume, kernel_memory, model_in_memory
from .angles.search import scan_rotations
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
from .geometry import ParallelGeometry
from .preprocess.object_mask import blurred
from .project import ParallelProjector
from .reconstruct.grid import Field, require_finite, require_memory, volume_grid
from .reconstruct.resire import step_length
from .reconstruct.solvers import Objective, eigenvalue_for, solve
from .schema import VOLUME, with_units

_FIT_ITERATIONS = 4  # of least squares in a round: the next one goes on
STEPS = {"atoms": 1.0, "volume": 1.5, "joint": 1.0}
"""How a round finds its step, and how much of it is taken: a volume explains part of the misalignment, which makes
steps against it too short. Weighed on a simulated particle: above 1.7 rounds begin to swing."""
_BACKGROUND_SCALE = 12.0  # pixels: what is smoother is background


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
        require_memory(grid, int(np.prod(series["images"].shape)), "use windows (`--window`), or bin the images.")
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
        state = State(self.field.matrices.copy(), np.zeros((len(flags), 2)), flags)
        if state.used.sum() < 3:
            raise InputError(
                f"{int(state.used.sum())} of {len(flags)} tilts can be used; needed are at least three: check images "
                "and mask, or leave fewer tilts out."
            )
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
            whole = self._persist(_reconstruct, shared, geometry, np.flatnonzero(used), self.iterations)
            shared = self._persist(less_smooth_residual, shared, whole, geometry)
        numbers = np.arange(len(used))
        folds = [used & (numbers % self.folds != k) if self.folds > 1 else used for k in range(self.folds)]
        volumes = [self._persist(_reconstruct, shared, geometry, np.flatnonzero(f), self.iterations) for f in folds]
        models = volumes
        if self.kind == "atoms":
            models = [
                self._persist(_atomic, volume, shared, geometry, np.flatnonzero(f))
                for volume, f in zip(volumes, folds, strict=True)
            ]
        judged = dask.compute(
            *[dask.delayed(_r_factor)(volumes[t % self.folds], shared, geometry, t) for t in np.flatnonzero(used)]
        )
        r_factor = np.full(len(used), np.nan)
        r_factor[used] = judged
        return Found(volumes, models, shared, r_factor)

    def step(
        self, state: State, found: Found, maximum_angle: float, maximum_shift: float, *, first: bool = False
    ) -> State:
        """The next state: flags from how the images agree with their predictions, then what a round changes."""
        tilts = np.flatnonzero(state.used)
        joint = self.kind == "joint"
        fit = self._fits(state, found, tilts, 0 if joint else _FIT_ITERATIONS)
        flags = state.flags.copy()
        if not (joint and first):  # of a film that is not aligned yet, no image agrees
            flags[unlike_the_others(fit.correlation[:, 1], state.used)] = "unlike the reprojection"
        used = flags == ""
        if joint:
            matrices, shifts = self._together(state, found, np.flatnonzero(used), first)
        else:
            over = STEPS[self.kind] if self.folds == 1 else 1.0
            matrices = turned_by(over * rotation_between(state.matrices, fit.matrices)) @ state.matrices
            shifts = state.shifts + over * (fit.shifts - state.shifts)
        start = self.field.matrices
        matrices, shifts = remove_common_motion(matrices, shifts, start, used=used)
        turned = np.linalg.norm(rotation_between(start, matrices), axis=1)
        far = used & ((turned > maximum_angle) | (np.abs(shifts).max(axis=1) > maximum_shift))
        flags[used] = np.where(far[used], "moved too far", "")
        still = ~used | far
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
                dask.delayed(_scan)(
                    found.models[t % self.folds], found.shared, self.geometry(state), t,
                    search=search, increment=increment, maximum_shift=maximum_shift,
                )
                for t in tilts
            ]
        )  # fmt: skip
        matrices, shifts = state.matrices.copy(), state.shifts.copy()
        matrices[tilts], shifts[tilts] = (np.stack(values) for values in zip(*best, strict=True))
        return State(*remove_common_motion(matrices, shifts, self.field.matrices, used=state.used), state.flags)

    def _fits(self, state: State, found: Found, tilts: np.ndarray, iterations: int) -> Fit:
        """Least squares of every tilt against its prediction, one task each."""
        geometry = self.geometry(state)
        fits = dask.compute(
            *[
                dask.delayed(_fit)(
                    found.models[t % self.folds], found.shared, geometry, t, state.shifts[t], iterations=iterations
                )
                for t in tilts
            ]
        )
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
            warnings.warn(
                f"R did not fall ({np.nanmean(r_factors[0]):.4f} before, {np.nanmean(r_factors[-1]):.4f} after the "
                "last round): angles and shifts are left as they were.",
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
            converged=bool(stopped == "R falls no more" and best > 0),
            kept_start=bool(best == 0),
            best_round=best,
        )
        volume = found.volumes[0]
        if self.folds > 1:
            volume = self._persist(_reconstruct, found.shared, self.geometry(state), tilts, self.iterations)
        (memory,) = dask.compute(volume)
        size = self.field.pixel_size
        coords = {a: (np.arange(n) + f) * size for a, n, f in zip("zyx", self.grid, self.first, strict=True)}
        density = xr.Dataset({"density": (("z", "y", "x"), as_volume(memory))}, coords)
        return Refined(with_units(density, VOLUME), corrections)

    def _persist(self, function: Callable[..., Any], *arguments: Any) -> Any:
        (kept,) = dask.persist(dask.delayed(function)(*arguments))
        return kept


# -- tasks -------------------------------------------------------------------------------------------


def _reconstruct(
    shared: tuple[np.ndarray, np.ndarray], geometry: ParallelGeometry, tilts: np.ndarray, iterations: int
) -> np.ndarray:
    """Volume from some tilts, as memory (y, z, x)."""
    images, masks = shared
    seen = geometry.select_tilts(tilts)
    solution = solve(
        Objective(ParallelProjector(seen, kernel_threads()), images[tilts], masks[tilts]),
        solver=SOLVER,
        iterations=iterations,
        step=step_length(SOLVER, None, 1, eigenvalue_for(SOLVER, seen)),
    )
    return kernel_memory(solution.volume)


def _atomic(
    memory: np.ndarray, shared: tuple[np.ndarray, np.ndarray], geometry: ParallelGeometry, tilts: np.ndarray
) -> np.ndarray:
    images, masks = shared
    return atomic_model(memory, geometry.select_tilts(tilts), images[tilts], masks[tilts], kernel_threads())


def less_smooth_residual(
    shared: tuple[np.ndarray, np.ndarray], memory: np.ndarray, geometry: ParallelGeometry
) -> tuple[np.ndarray, np.ndarray]:
    """Images less the smooth part of what their reprojections do not explain."""
    images, masks = shared
    seen = ParallelProjector(geometry, kernel_threads()).forward(as_volume(memory))
    better = images.copy()
    for t in np.flatnonzero(masks.any(axis=(1, 2))):
        smooth = blurred((images[t] - seen[t]).astype(np.float64), masks[t], _BACKGROUND_SCALE)
        better[t] = np.where(masks[t], images[t] - smooth, 0.0)
    return better, masks


def _r_factor(memory: np.ndarray, shared: tuple[np.ndarray, np.ndarray], geometry: ParallelGeometry, t: int) -> float:
    """R (eq. 4) of one tilt."""
    image, mask = shared[0][t], shared[1][t]
    seen = ParallelProjector(geometry.select_tilts(np.array([t]))).forward(as_volume(memory))[0]
    total = float(np.abs(image[mask], dtype=np.float64).sum())
    return float(np.abs(seen - image)[mask].sum(dtype=np.float64) / total) if total > 0 else float("nan")


def _fit(
    memory: np.ndarray,
    shared: tuple[np.ndarray, np.ndarray],
    geometry: ParallelGeometry,
    t: int,
    shift: np.ndarray,
    iterations: int,
) -> Fit:
    """Least squares of one tilt, starting where the geometry has it."""
    model = _one_piece(memory, geometry, t, shift)
    one = slice(t, t + 1)
    return fit_tilts(model, shared[0][one], shared[1][one], geometry.matrices[one], shift[None], iterations=iterations)


def _scan(
    memory: np.ndarray, shared: tuple[np.ndarray, np.ndarray], geometry: ParallelGeometry, t: int, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    model = _one_piece(memory, geometry, t, np.zeros(2))
    return scan_rotations(model, shared[0][t], shared[1][t], geometry.matrices[t], np.zeros(2), **options)


def _one_piece(memory: np.ndarray, geometry: ParallelGeometry, t: int, shift: np.ndarray) -> Model:
    """The volume as a model whose detector is that of an image without its shift."""
    corner = geometry.detector_start[t] + shift
    return model_in_memory(memory, geometry.volume_start, geometry.detector_shape, (float(corner[0]), float(corner[1])))


def _rms(vectors: np.ndarray) -> float:
    return float(np.sqrt(np.square(vectors).sum(axis=-1).mean())) if vectors.size else 0.0
