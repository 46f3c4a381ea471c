"""One local volume of a scan: its own pixels in, all voxels that its rays cross out."""

from __future__ import annotations

import numpy as np

from ..io import open_dataset
from ..project import ParallelProjector
from .film import COARSE, start_volume
from .resire import step_length
from .solvers import Objective, Solution, eigenvalue_for, solve
from .stopping import FIXED, Stop
from .windows import ScanPlan, Window, window_geometry


def reconstruct_window(
    path: str, window: Window, plan: ScanPlan, start: str, iterations: int, solver: str
) -> np.ndarray:
    """The local volume of one window.

    Parameters
    ----------
    path : str
        The store, with the tilt series.
    window : Window
    plan : ScanPlan
    start : str
        Group to start from: the coarse film, or a stitched one.
    iterations : int
    solver : {"fista", "published", "ordered_subsets", "sart", "sirt"}

    Returns
    -------
    ndarray, shape ``window.shape`` (z, y, x), float32
    """
    solution = solve_window(path, window, plan, start, iterations, solver, FIXED)
    return _start(path, window, plan, start) if solution is None else solution.volume


def solve_window(
    path: str, window: Window, plan: ScanPlan, start: str, iterations: int, solver: str, stop: Stop
) -> Solution | None:
    """The same with a rule that chooses the number of iterations; None where nothing was measured."""
    geometry, corners = window_geometry(plan.field, window)
    images, mask = _read_crops(path, plan.series, corners, window.crop_shape)
    seen = np.flatnonzero(mask.any(axis=(1, 2)))
    if seen.size == 0:
        return None
    if seen.size < len(mask):
        geometry, images, mask = geometry.select_tilts(seen), images[seen], mask[seen]
    return solve(
        Objective(ParallelProjector(geometry), images, mask),
        solver=solver,
        iterations=iterations,
        step=step_length(solver, None, 1, eigenvalue_for(solver, geometry)),
        start=_start(path, window, plan, start),
        stop=stop,
    )


def _start(path: str, window: Window, plan: ScanPlan, group: str) -> np.ndarray:
    """What a window starts from, ``window.shape`` (z, y, x) float32."""
    density = open_dataset(path, group)["density"].variable
    if group == COARSE:
        return start_volume(density, plan.coarse, window.first, window.shape)
    box = tuple(slice(a - f, a - f + n) for a, f, n in zip(window.first, plan.first, window.shape, strict=True))
    return np.asarray(density[box].values)


def _read_crops(path: str, group: str, corners: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Crops of every tilt, 0 and not measured beyond the field; (tilt, y, x) float32 and bool."""
    series = open_dataset(path, group)
    images = np.zeros((len(corners), *shape), np.float32)
    mask = np.zeros(images.shape, bool)
    limits = series["images"].shape[1:]
    for t, corner in enumerate(corners):
        low = [max(0, int(c)) for c in corner]
        high = [min(n, int(c) + s) for n, c, s in zip(limits, corner, shape, strict=True)]
        if any(h <= a for h, a in zip(high, low, strict=True)):
            continue
        rows, columns = (slice(a, h) for a, h in zip(low, high, strict=True))
        y, x = (slice(a - int(c), h - int(c)) for a, h, c in zip(low, high, corner, strict=True))
        images[t, y, x] = series["images"][t, rows, columns].values
        mask[t, y, x] = series["mask"][t, rows, columns].values
    images[~mask] = 0
    return images, mask
