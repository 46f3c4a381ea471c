"""RESIRE: a tilt series to a volume in one piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._threads import kernel_threads
from ..errors import InputError
from ..project import make_projector
from ..schema import VOLUME, with_units
from .grid import Field, require_finite, require_measured, volume_grid
from .memory import available_memory, require_one_piece
from .solvers import SOLVERS, Objective, Solution, eigenvalue_for, solve
from .stopping import Stop

ONE_PIECE_ADVICE = (
    "use windows (`aetdist scan`), slabs over the workers of a cluster (--slabs auto --workers N), a smaller --shape, "
    "more memory (--memory-limit), or bin the images."
)


def reconstruct_resire(
    tilt_series: xr.Dataset,
    *,
    shape: tuple[int, int, int] | None = None,
    thickness: float | None = None,
    solver: str = "fista",
    iterations: int = 40,
    stop: str = "fixed",
    held_out: float = 0.1,
    noise: float | None = None,
    seed: int = 0,
    step: float | None = None,
    positivity: bool = True,
    support: xr.DataArray | np.ndarray | None = None,
    start: xr.DataArray | np.ndarray | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
    projector: str = "shear",
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
    solver : {"fista", "published", "ordered_subsets", "sart", "sirt"}
        Momentum with restart ("fista"); the paper's descent ("published"); momentum with a step after
        each quarter of the tilts, which needs about a third of the iterations ("ordered_subsets"); a
        step after every tilt, for small volumes: a few passes, less noise ("sart"); "sirt", for comparison.
    iterations : int
        Number of iterations; at most so many where `stop` chooses. Noise is fitted after a few dozen
        accelerated ones.
    stop : {"fixed", "held_out_blocks", "held_out_tilts", "discrepancy"}
        What chooses the number of iterations: `iterations` itself ("fixed"); how well blocks of 16 x 16
        pixels, or whole tilts, are predicted by a trial that does not see them ("held_out_blocks",
        "held_out_tilts"); or that the residual is as small as the noise ("discrepancy").
    held_out : float
        Part of the measured pixels, or of the tilts, that the trial does not see.
    noise : float, optional
        Standard deviation of the noise of a pixel, for "discrepancy". By default it is estimated from
        the finest detail of each image.
    seed : int
        Of the choice of what is held out.
    step : float, optional
        Delta of the paper's step Delta / (n N), n tilts and N voxels along z. By default the longest
        that is stable: 1.9 / L ("published") or 1 / L, L the largest eigenvalue of A^T A. For "sirt"
        and "sart" it is relative, 1 and 1.9 by default.
    positivity : bool
        Keep the volume at or above 0.
    support : array, shape (z, y, x), bool, optional
        The volume is 0 where it is False.
    start : array, shape (z, y, x), float, optional
        Volume to start from; zeros by default.
    weights : sequence of float, shape (tilt,), optional
        How much the squared residuals of each tilt count, such as its dose; only their ratios matter.
    projector : {"shear", "fourier"}
        How projections are computed: in real space, or as slices of the Fourier transform as in the paper.
    tolerance : float
        Stop when the mean R-factor falls by less than this fraction of itself in an iteration;
        0 runs all iterations.
    on_iteration : callable, optional
        Called with the iteration's number and the mean R-factor.

    Returns
    -------
    xarray.Dataset
        ``density`` (z, y, x) float32, intensity per voxel, with coordinates in Angstrom; ``r_factor``
        (iteration, tilt) float64, eq. 4 of every tilt after every iteration; ``held_out_error``
        (trial_iteration,) float64, relative error of predicting what was held out, if anything was.
        Attributes: ``stop``, ``iterations`` (the number chosen), ``stop_reached`` (False where `iterations`
        ended it first), and ``held_out`` and ``seed``, or ``noise``.

    Raises
    ------
    InputError
        If an option is unknown or out of range, angles are not numbers, the mask or the support is empty,
        too much would be held out, or the step would diverge.
    CapacityError
        If the volume does not fit in memory.

    Notes
    -----
    Minimises eq. 1, 1/2 sum_t w_t ||M_t (A_t x - b_t)||^2, by x <- x - Delta / (n N) A^T W M (A x - b)
    (eq. 3) with x >= 0. R-factor, eq. 4: sum |A_t x - b_t| / sum |b_t| over measured pixels.

    Iterations first find the object and then fit the noise. Where pixels are held out, a trial is run
    without them until its error on them has risen for a while; the volume is then reconstructed from all
    pixels, nothing being lost, with the number of iterations that predicted best. That costs somewhat more
    than twice the time and no memory. Blocks of pixels are held out rather than single ones, because
    neighbours tell each other's noise; tilts left out are harder to predict than what they tell, and stop
    earlier where there is little noise. "discrepancy" (Morozov) costs nothing, but trusts the noise that it
    is given or estimates [2]_ (images that were smoothed before show less than they have), and stops early:
    the best volume explains some of the noise, too.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods; M. Pham et al., Sci. Rep. 13, 5624 (2023).
    .. [2] J. Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996).
    """
    field = Field.of(tilt_series)
    check_solver(solver, iterations, tolerance)
    rule = Stop(stop, held_out, seed, noise)
    relative = tilt_weights(weights, len(field.matrices))
    first, grid = volume_grid(field, shape, thickness)
    support_array = _on_grid(support, grid, "support", bool)
    if support_array is not None and not support_array.any():
        raise InputError("The support is empty: no voxel may differ from 0; give a support with at least one True.")
    n_pixels = int(np.prod(tilt_series["images"].shape))
    require_one_piece(grid, n_pixels, ONE_PIECE_ADVICE, solver)
    geometry = field.geometry(first, grid)
    pair = make_projector(projector, geometry, kernel_threads(), available_memory())
    length = step_length(solver, step, len(field.matrices) * grid[0], eigenvalue_for(solver, geometry, relative))
    images, mask = measured(tilt_series)
    solution = solve(
        Objective(pair, images, mask, relative, positivity, support_array),
        solver=solver,
        iterations=iterations,
        step=length,
        start=_on_grid(start, grid, "start volume", np.float32),
        tolerance=tolerance,
        stop=rule,
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
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise InputError(f"Solver {solver!r} is unknown; choose one of {', '.join(SOLVERS)}.")
    if not (isinstance(iterations, int | np.integer | float) and iterations >= 1 and iterations % 1 == 0):
        raise InputError(f"iterations came as {iterations}; needed is a whole number, at least 1.")
    if not tolerance >= 0:
        raise InputError(f"tolerance came as {tolerance}; needed is 0 or more.")


def tilt_weights(weights: Sequence[float] | np.ndarray | None, n_tilts: int) -> np.ndarray | None:
    """Weights of the tilts divided by their mean, (tilt,) float64; None where none came.

    Raises
    ------
    InputError
        If their number is not that of the tilts, one is negative or not a number, or all are 0.
    """
    if weights is None:
        return None
    try:
        values = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"weights came as {weights!r}; needed are {n_tilts} numbers.") from None
    if values.shape != (n_tilts,):
        raise InputError(
            f"weights came with shape {values.shape}; the tilt series needs ({n_tilts},), one for each tilt."
        )
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        raise InputError(f"The weight of tilt {bad[0]} came as {values[bad[0]]}; needed is a number of 0 or more.")
    if not values.any():
        raise InputError("All weights are 0: no tilt would count; give at least one that is more than 0.")
    return values / values.mean()


def step_length(solver: str, step: float | None, n_tilts_times_depth: int, eigenvalue: float) -> float:
    """Length of the gradient step.

    Raises
    ------
    InputError
        If the step asked for would diverge (2 / L and beyond; 1 / L for the accelerated solver, with
        the few percent that L is known to).
    """
    limit = SOLVERS[solver].step_limit
    if SOLVERS[solver].relative_step:
        n_tilts_times_depth, eigenvalue = 1, 1.0
    if step is None:
        return limit / eigenvalue
    length = step / n_tilts_times_depth
    bound = 1.05 * limit
    if not 0 < step < np.inf:
        raise InputError(f"The step came as {step}; needed is a positive number, or leave it out.")
    if not length * eigenvalue < bound:
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
    """A solution with its coordinates, units and what stopped it."""
    coords: dict[str, Any] = {
        name: (np.arange(n) + f) * size for name, n, f in zip("zyx", solution.volume.shape, first, strict=True)
    }
    dataset = xr.Dataset(
        {"density": (("z", "y", "x"), solution.volume), "r_factor": (("iteration", "tilt"), solution.r_factor)},
        coords=coords,
        attrs=solution.stopped,
    )
    if solution.held_out_error.size:
        dataset["held_out_error"] = ("trial_iteration", solution.held_out_error)
    return with_units(dataset, VOLUME)


def _on_grid(array: Any, grid: tuple[int, int, int], name: str, dtype: Any) -> np.ndarray | None:
    if array is None:
        return None
    array = np.asarray(array, dtype=dtype)
    if array.shape != grid:
        raise InputError(f"The {name} came with shape {array.shape}; the volume has {grid} (z, y, x).")
    if not np.isfinite(array).all():
        raise InputError(f"The {name} holds NaN or infinite voxels; give finite numbers.")
    return array
