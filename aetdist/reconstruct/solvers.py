"""Gradient descent and FISTA on the measured pixels, as one step that both share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import ParallelGeometry
from ..project import ParallelProjector, empty_volume
from . import _kernels as kernels

SOLVERS = ("fista", "gradient", "ordered_subsets")
_SUBSETS = 4  # stable with momentum on 41 to 55 tilts; eight diverged on some data
_TILTS_PER_SUBSET = 5  # fewer tilts do not stand for all


@dataclass
class Solution:
    """What a solver returns.

    ``volume`` (z, y, x) float32; ``r_factor`` (iteration, tilt) float64: eq. 4 of each tilt after
    each iteration.
    """

    volume: np.ndarray
    r_factor: np.ndarray


def solve(
    projector: ParallelProjector,
    images: np.ndarray,
    mask: np.ndarray,
    *,
    solver: str,
    iterations: int,
    step: float,
    positivity: bool = True,
    support: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tolerance: float = 0.0,
    on_iteration: Callable[[int, float], None] | None = None,
) -> Solution:
    """Minimise eq. 1 over the measured pixels.

    Parameters
    ----------
    projector : ParallelProjector
        A.
    images : ndarray, shape (tilt, y, x), float32
        b; what lies outside the mask is never read.
    mask : ndarray, shape (tilt, y, x), bool
        True where a pixel was measured.
    solver : {"fista", "gradient", "ordered_subsets"}
        Nesterov momentum with restart when the error rises [1]_; plain descent; or momentum with a step
        after each of four subsets of the tilts [2]_, with restart, and fewer subsets if that does not help.
    iterations : int
        At most so many.
    step : float
        Length of the gradient step; below 2 / L for "gradient", at most 1 / L for the others, with L
        the largest eigenvalue of A^T A.
    positivity : bool
        Keep the volume at or above 0.
    support : ndarray, shape (z, y, x), bool, optional
        The volume is 0 elsewhere.
    start : ndarray, shape (z, y, x), float32, optional
        Where to start; zeros by default. Not changed.
    tolerance : float
        Stop when the mean R-factor falls by less than this fraction of itself in one iteration.
    on_iteration : callable, optional
        Called with the number of the iteration and the mean R-factor.

    Notes
    -----
    min 1/2 sum_t ||M_t (A_t x - b_t)||^2 subject to x >= 0, x = 0 outside the support (eq. 1 of
    Yang2021 with a mask). One forward and one adjoint projection per iteration: the projections of
    the extrapolated volume follow from those of the last two iterates, because A is linear.

    References
    ----------
    .. [1] A. Beck and M. Teboulle, SIAM J. Imaging Sci. 2, 183 (2009); B. O'Donoghue and E. Candes,
       Found. Comput. Math. 15, 715 (2015).
    .. [2] D. Kim, S. Ramani and J. Fessler, IEEE Trans. Med. Imaging 34, 167 (2015).
    """
    if solver == "ordered_subsets":
        return _solve_subsets(
            projector, images, mask, iterations, step, positivity, support, start, tolerance, on_iteration
        )
    shape = projector.geometry.volume_shape
    x, ahead = empty_volume(shape), empty_volume(shape)
    bounds = _memory(support) if support is not None else np.empty(0, bool)
    projected = np.zeros(projector.image_shape, np.float32)
    if start is not None:
        x[...] = start
        ahead[...] = start
        projector.forward(x, out=projected)
    projected_ahead = projected.copy()
    previous, residual = np.empty_like(projected), np.empty_like(projected)
    momentum_time, last_error, last_r = 1.0, np.inf, np.inf
    history = []
    for iteration in range(iterations):
        _r_factors(projected_ahead, images, mask, residual)
        residual *= np.float32(step)
        projector.adjoint(residual, out=ahead)
        kernels.constrain(_memory(x), _memory(ahead), bounds, positivity)
        previous, projected = projected, previous
        projector.forward(x, out=projected)
        r, error = _r_factors(projected, images, mask, residual)
        history.append(r)
        momentum = 0.0
        if solver == "fista":
            if error > last_error:
                momentum_time = 1.0
            following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum_time**2))
            momentum, momentum_time = (momentum_time - 1.0) / following, following
        kernels.extrapolate(_memory(x), _memory(ahead), np.float32(momentum))
        np.subtract(projected, previous, out=projected_ahead)
        projected_ahead *= np.float32(momentum)
        projected_ahead += projected
        mean_r = float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")
        if on_iteration is not None:
            on_iteration(iteration + 1, mean_r)
        if 0 <= last_r - mean_r < tolerance * last_r:
            break
        last_error, last_r = error, mean_r
    return Solution(x, np.array(history).reshape(-1, projector.geometry.n_tilts))


def _solve_subsets(
    projector: ParallelProjector,
    images: np.ndarray,
    mask: np.ndarray,
    iterations: int,
    step: float,
    positivity: bool,
    support: np.ndarray | None,
    start: np.ndarray | None,
    tolerance: float,
    on_iteration: Callable[[int, float], None] | None,
) -> Solution:
    """One iteration passes over all tilts, a subset at a time; see `solve`.

    R-factors on the way are those that each subset met; the last ones are the result's.
    """
    geometry, n_tilts = projector.geometry, projector.geometry.n_tilts
    x, ahead = empty_volume(geometry.volume_shape), empty_volume(geometry.volume_shape)
    bounds = _memory(support) if support is not None else np.empty(0, bool)
    if start is not None:
        x[...] = start
        ahead[...] = start
    n_subsets = max(1, min(_SUBSETS, n_tilts // _TILTS_PER_SUBSET))
    parts = _subsets(projector, n_subsets)
    momentum_time, last_error, last_r, rises = 1.0, np.inf, np.inf, 0
    history = []
    for iteration in range(iterations):
        r, error = np.full(n_tilts, np.nan), 0.0
        for tilts, part in parts:
            calculated = part.forward(ahead)
            r[tilts], squares = _r_factors(calculated, images[tilts], mask[tilts], calculated)
            error += squares
            calculated *= np.float32(step * len(parts))
            part.adjoint(calculated, out=ahead)
            kernels.constrain(_memory(x), _memory(ahead), bounds, positivity)
            following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum_time**2))
            kernels.extrapolate(_memory(x), _memory(ahead), np.float32((momentum_time - 1.0) / following))
            momentum_time = following
        history.append(r)
        mean_r = float(np.nanmean(r)) if np.isfinite(r).any() else float("nan")
        if on_iteration is not None:
            on_iteration(iteration + 1, mean_r)
        rises = rises + 1 if error > last_error else 0
        if rises:
            momentum_time = 1.0
            ahead[...] = x
        if rises > 1 and len(parts) > 1:
            parts, rises = _subsets(projector, len(parts) // 2), 0
        if 0 <= last_r - mean_r < tolerance * last_r:
            break
        last_error, last_r = error, mean_r
    calculated = projector.forward(x)
    history[-1], _ = _r_factors(calculated, images, mask, calculated)
    return Solution(x, np.array(history))


def _subsets(projector: ParallelProjector, n: int) -> list[tuple[slice, ParallelProjector]]:
    """Every n-th tilt, in an order that turns far between one subset and the next."""
    order = sorted(range(n), key=lambda s: int(f"{s:08b}"[::-1], 2))
    return [
        (tilts, ParallelProjector(projector.geometry.select_tilts(tilts), projector.threads))
        for tilts in (slice(s, None, n) for s in order)
    ]


def largest_eigenvalue(geometry: ParallelGeometry, seed: int = 0) -> float:
    """L = ||A^T A||, by 12 power iterations on a coarser grid, plus 4 percent.

    The coarser grid (every length divided by s, L by s as well; 16 voxels or more along each axis
    that has them) makes the cost negligible; the 4 percent cover what the coarse grid and the
    unfinished iteration leave out: at most 3 percent over single-axis, Euler and film geometries of
    20 to 290 voxels along an axis.
    """
    s = max(1.0, min(max(geometry.volume_shape) / 64.0, min(geometry.volume_shape) / 16.0))
    coarse = ParallelGeometry(
        geometry.matrices,
        tuple(max(1, int(np.ceil(n / s))) for n in geometry.volume_shape),  # type: ignore[arg-type]
        tuple(v / s for v in geometry.volume_start),  # type: ignore[arg-type]
        tuple(max(1, int(np.ceil(n / s))) for n in geometry.detector_shape),  # type: ignore[arg-type]
        geometry.detector_start / s,
    )
    projector = ParallelProjector(coarse)
    volume = empty_volume(coarse.volume_shape, 1.0)
    volume += np.random.default_rng(seed).random(coarse.volume_shape, dtype=np.float32) * np.float32(0.01)
    value = 0.0
    for _ in range(12):
        norm = float(np.linalg.norm(volume.astype(np.float64)))
        if norm == 0:
            raise InputError(
                "No ray of the tilt series meets the volume; check the pixel coordinates, the angles and the shape."
            )
        volume = projector.adjoint(projector.forward(volume / np.float32(norm)))
        value = float(np.linalg.norm(volume.astype(np.float64)))
    return 1.04 * value * s


def _memory(volume: np.ndarray) -> np.ndarray:
    """The flat memory of a volume in the projector's order (y, z, x)."""
    return np.ascontiguousarray(volume.transpose(1, 0, 2)).reshape(-1)


def _r_factors(
    calculated: np.ndarray, images: np.ndarray, mask: np.ndarray, residual: np.ndarray
) -> tuple[np.ndarray, float]:
    """Eq. 4 of every tilt, and the sum of squares of the residual.

    Fills `residual` (which may be `calculated`) with measured - calculated on the mask, 0 elsewhere.
    """
    r, squares = np.full(len(images), np.nan), 0.0
    for t in range(len(images)):
        difference, total, square = kernels.masked_residual(
            calculated[t].reshape(-1), images[t].reshape(-1), mask[t].reshape(-1), residual[t].reshape(-1)
        )
        squares += square
        if total > 0:
            r[t] = difference / total
    return r, squares
