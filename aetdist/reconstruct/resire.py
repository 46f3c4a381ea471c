"""RESIRE: a tilt series to a volume in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from .._threads import kernel_threads
from ..errors import InputError
from ..project import ParallelProjector
from ..schema import VOLUME, with_units
from .grid import Field, require_finite, require_measured, require_memory, volume_grid
from .solvers import SOLVERS, Objective, Solution, largest_eigenvalue, solve


def reconstruct_resire(
    tilt_series: xr.Dataset,
    *,
    shape: tuple[int, int, int] | None = None,
    thickness: float | None = None,
    solver: str = "fista",
    iterations: int = 40,
    step: float | None = None,
    positivity: bool = True,
    support: xr.DataArray | np.ndarray | None = None,
    start: xr.DataArray | np.ndarray | None = None,
    tolerance: float = 0.0,
    on_iteration: Callable[[int, float], None] | None = None,
) -> xr.Dataset:
    """Computes: a volume whose projections match a tilt series (RESIRE [1]_).

    Parameters
    ----------
    tilt_series : xarray.Dataset
        ``images`` (tilt, y, x) float32, ``mask`` bool, ``angles`` (tilt, euler) in degrees,
        coordinates in Angstrom. Pixels whose mask is False weigh nothing.
    shape : tuple of int, optional
        Voxels (nx, ny, nz). It may be wider than the detector: matter that only some tilts see.
    thickness : float, optional
        Thickness of a film in Angstrom, instead of the shape: the volume then reaches as far as the
        rays that the detector sees. Without both: a cube as wide as the field (isolated objects).
    solver : {"fista", "published", "ordered_subsets"}
        Momentum with restart; the paper's descent; or momentum with a step after each quarter of the
        tilts, which needs about a third of the iterations.
    iterations : int
        Number of iterations. Noise is fitted after a few dozen accelerated ones.
    step : float, optional
        Delta of the paper's step Delta / (n N), n tilts and N voxels along z. By default the longest
        that is stable: 1.9 / L ("published") or 1 / L (the others), L the largest eigenvalue of A^T A.
    positivity : bool
        Keep the volume at or above 0.
    support : array, shape (z, y, x), bool, optional
        The volume is 0 where it is False.
    start : array, shape (z, y, x), float, optional
        Volume to start from; zeros by default.
    tolerance : float
        Stop when the mean R-factor falls by less than this fraction of itself in an iteration;
        0 runs all iterations.
    on_iteration : callable, optional
        Called with the iteration's number and the mean R-factor.

    Returns
    -------
    xarray.Dataset
        ``density`` (z, y, x) float32, intensity per voxel, with coordinates in Angstrom; ``r_factor``
        (iteration, tilt) float64, eq. 4 of every tilt after every iteration.

    Raises
    ------
    InputError
        If an option is unknown or out of range, the mask or the support is empty, or the step would
        diverge.
    CapacityError
        If the volume does not fit in memory.

    Notes
    -----
    Minimises eq. 1, 1/2 sum_t ||M_t (A_t x - b_t)||^2, by x <- x - Delta / (n N) A^T M (A x - b)
    (eq. 3) with x >= 0. R-factor, eq. 4: sum |A_t x - b_t| / sum |b_t| over measured pixels.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods; M. Pham et al., Sci. Rep. 13, 5624 (2023).
    """
    field = Field.of(tilt_series)
    check_solver(solver, iterations, tolerance)
    first, grid = volume_grid(field, shape, thickness)
    support_array = _on_grid(support, grid, "support", bool)
    if support_array is not None and not support_array.any():
        raise InputError("The support is empty: no voxel may differ from 0; give a support with at least one True.")
    n_pixels = int(np.prod(tilt_series["images"].shape))
    require_memory(grid, n_pixels, "use `aetdist scan` (windows), a smaller --shape, or bin the images.")
    images, mask = measured(tilt_series)
    geometry = field.geometry(first, grid)
    solution = solve(
        Objective(
            ParallelProjector(geometry, kernel_threads()), images, mask, positivity=positivity, support=support_array
        ),
        solver=solver,
        iterations=iterations,
        step=step_length(solver, step, field.matrices.shape[0] * grid[0], largest_eigenvalue(geometry)),
        start=_on_grid(start, grid, "start volume", np.float32),
        tolerance=tolerance,
        on_iteration=on_iteration,
    )
    return as_dataset(solution, first, field.pixel_size)


def check_solver(solver: str, iterations: int, tolerance: float = 0.0) -> None:
    """Refuse what no solver can do.

    Raises
    ------
    InputError
        If the solver is unknown, there is no iteration, or the tolerance is negative.
    """
    if solver not in SOLVERS:
        raise InputError(f"Solver {solver!r} is unknown; choose one of {', '.join(SOLVERS)}.")
    if int(iterations) != iterations or iterations < 1:
        raise InputError(f"iterations came as {iterations}; needed is a whole number, at least 1.")
    if not tolerance >= 0:
        raise InputError(f"tolerance came as {tolerance}; needed is 0 or more.")


def step_length(solver: str, step: float | None, n_tilts_times_depth: int, eigenvalue: float) -> float:
    """Length of the gradient step.

    Raises
    ------
    InputError
        If the step asked for would diverge (2 / L and beyond; 1 / L for the accelerated solver, with
        the 4 percent that L is known to).
    """
    limit = SOLVERS[solver].step_limit
    if solver == "sirt":  # its step is relative
        n_tilts_times_depth, eigenvalue = 1, 1.0
    if step is None:
        return limit / eigenvalue
    length = step / n_tilts_times_depth
    bound = 1.05 * limit
    if not 0 < length * eigenvalue < bound:
        largest = limit * n_tilts_times_depth / eigenvalue
        raise InputError(
            f"A step of Delta = {step:g} would diverge here ({solver}); needed is more than 0 and at most "
            f"{largest:.3g}, or leave it out."
        )
    return length


def measured(tilt_series: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Images (float32) and mask in memory, (tilt, y, x).

    Raises
    ------
    InputError
        If nothing was measured, or a measured pixel is not a finite number.
    """
    images = np.ascontiguousarray(tilt_series["images"].values, dtype=np.float32)
    mask = np.ascontiguousarray(tilt_series["mask"].values)
    require_measured(mask)
    require_finite(images, mask)
    return images, mask


def as_dataset(solution: Solution, first: tuple[int, int, int], size: float) -> xr.Dataset:
    """A solution with its coordinates and units."""
    coords: dict[str, Any] = {
        name: (np.arange(n) + f) * size for name, n, f in zip("zyx", solution.volume.shape, first, strict=True)
    }
    dataset = xr.Dataset(
        {"density": (("z", "y", "x"), solution.volume), "r_factor": (("iteration", "tilt"), solution.r_factor)},
        coords=coords,
    )
    return with_units(dataset, VOLUME)


def _on_grid(array: Any, grid: tuple[int, int, int], name: str, dtype: Any) -> np.ndarray | None:
    if array is None:
        return None
    array = np.asarray(array, dtype=dtype)
    if array.shape != grid:
        raise InputError(f"The {name} came with shape {array.shape}; the volume has {grid} (z, y, x).")
    return array
