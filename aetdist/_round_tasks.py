"""What the rounds of a refinement send to the workers: one function for each task."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._schedule import SOLVER
from ._threads import kernel_threads
from .angles.atoms import atomic_model
from .angles.least_squares import Fit, fit_tilts
from .angles.model import Model, as_volume, kernel_memory, model_in_memory
from .angles.search import scan_rotations
from .geometry import ParallelGeometry
from .preprocess.object_mask import blurred
from .project import ParallelProjector
from .reconstruct.resire import step_length
from .reconstruct.solvers import Objective, eigenvalue_for, solve

_BACKGROUND_SCALE = 12.0  # pixels: what is smoother is background
_LOST = {"search": 1.0, "increment": 0.5}  # degrees: scan of a tilt that was left out, before it is fitted again
_FACE = 2  # voxels


def reconstructed(
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


def atoms_of(
    memory: np.ndarray,
    shared: tuple[np.ndarray, np.ndarray],
    geometry: ParallelGeometry,
    tilts: np.ndarray,
    size: float,
) -> np.ndarray:
    """The atoms of a volume made from some tilts; `size` of a voxel in Angstrom."""
    images, masks = shared
    return atomic_model(
        memory, geometry.select_tilts(tilts), images[tilts], masks[tilts], voxel_size=size, threads=kernel_threads()
    )


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


def r_factor_of(memory: np.ndarray, shared: tuple[np.ndarray, np.ndarray], geometry: ParallelGeometry, t: int) -> float:
    """R (eq. 4) of one tilt."""
    image, mask = shared[0][t], shared[1][t]
    seen = ParallelProjector(geometry.select_tilts(np.array([t]))).forward(as_volume(memory))[0]
    total = float(np.abs(image[mask], dtype=np.float64).sum())
    return float(np.abs(seen - image)[mask].sum(dtype=np.float64) / total) if total > 0 else float("nan")


def fitted(
    memory: np.ndarray,
    shared: tuple[np.ndarray, np.ndarray],
    geometry: ParallelGeometry,
    t: int,
    shift: np.ndarray,
    iterations: int,
    within: float | None = None,
) -> Fit:
    """Least squares of one tilt, starting where the geometry has it, or where a coarse scan finds it within pixels."""
    model, matrix = _one_piece(memory, geometry, t, shift), geometry.matrices[t]
    image, mask = shared[0][t], shared[1][t]
    if within is not None:
        matrix, shift = scan_rotations(model, image, mask, matrix, shift, maximum_shift=within, **_LOST)
    return fit_tilts(model, image[None], mask[None], matrix[None], shift[None], iterations=iterations)


def scanned(
    memory: np.ndarray, shared: tuple[np.ndarray, np.ndarray], geometry: ParallelGeometry, t: int, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    model = _one_piece(memory, geometry, t, np.zeros(2))
    return scan_rotations(model, shared[0][t], shared[1][t], geometry.matrices[t], np.zeros(2), **options)


def _one_piece(memory: np.ndarray, geometry: ParallelGeometry, t: int, shift: np.ndarray) -> Model:
    """The volume as a model whose detector is that of an image without its shift."""
    corner = geometry.detector_start[t] + shift
    return model_in_memory(memory, geometry.volume_start, geometry.detector_shape, (float(corner[0]), float(corner[1])))


def missed_intensity(shared: tuple[np.ndarray, np.ndarray], geometry: ParallelGeometry, tilts: np.ndarray) -> float:
    """Part of the images' intensity that is on rays which pass the volume by."""
    images, masks = shared[0][tilts], shared[1][tilts]
    nz, ny, nx = geometry.volume_shape
    full = as_volume(np.ones((ny, nz, nx), np.float32))
    by = ParallelProjector(geometry.select_tilts(tilts), kernel_threads()).forward(full) < 0.5
    total = float(images[masks].sum(dtype=np.float64))
    return float(images[masks & by].sum(dtype=np.float64)) / total if total > 0 else 0.0


def density_at_faces(memory: np.ndarray) -> float:
    """Mean of the volume along that of its six faces which holds most, over the mean of the whole."""
    if min(memory.shape) < 4 * _FACE:
        return 0.0
    faces = [face.mean() for axis in range(3) for face in np.split(memory, [_FACE, -_FACE], axis)[::2]]
    whole = float(memory.mean())
    return float(max(faces)) / whole if whole > 0 else 0.0
