"""Scanning AET: a film from many local volumes, each reconstructed by a task of its own, stitched."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from ..blocks.windows import run_tasks
from ..errors import InputError
from ..io import BlockLedger, Record, Store, open_dataset, write_region
from ..progress import report
from ..project import ParallelProjector
from ..schema import VOLUME, with_units
from .film import COARSEST_VOXEL, CoarseFilm, coarse_dataset, reconstruct_coarse, start_volume
from .grid import Field, require_memory, volume_grid
from .resire import STEP_LIMITS, check_solver, measured
from .solvers import largest_eigenvalue, solve
from .stitch import agreement, film_r_factor, stitch_chunk
from .windows import ScanPlan, Window, check_windows, plan_windows, window_geometry

_SERIES, _COARSE, _FILM = "tilt_series/aligned", "scan/coarse", "volume"


def reconstruct_scan(
    store: Store,
    *,
    window: tuple[int, int],
    overlap: int,
    thickness: float,
    iterations: int = 40,
    passes: int = 2,
    coarse_iterations: int = 30,
    final_iterations: int = 0,
    solver: str = "fista",
) -> dict[str, Any]:
    """Computes: the volume of a film, window by window, on the current Dask client.

    Parameters
    ----------
    store : Store
        Open for writing, with the group ``tilt_series/aligned``. The film is written as ``volume``.
    window : tuple of int
        Pixels (nx, ny) of the field that one local volume explains.
    overlap : int
        Pixels that neighbouring windows share, at most half of the window along each axis.
    thickness : float
        Range of heights in Angstrom that holds the film, centred on the origin of the rotation: its
        thickness plus its waviness.
    iterations : int
        Iterations of every local volume, over all passes.
    passes : int
        How often the windows are reconstructed and stitched: from the second pass on they start from
        the stitched film, so that each knows the atoms that its neighbours found around it.
    coarse_iterations : int
        Iterations of the coarse film.
    final_iterations : int
        Iterations over the whole film at the end, in one task; 0 keeps the memory of a worker bounded
        by the window.
    solver : {"fista", "gradient", "ordered_subsets"}
        See `reconstruct_resire`.

    Returns
    -------
    dict
        ``r_factor_mean`` (eq. 4 of the film's reprojection over all measured pixels, mean over tilts),
        ``n_windows``, ``n_windows_computed`` (the others were there from an interrupted run),
        ``disagreement_l1`` and ``disagreement_correlation`` of overlapping windows where they are
        blended, ``height_range`` and ``thickness_range`` (Angstrom).

    Raises
    ------
    InputError
        If an option is out of range or a tilt looks along the film.
    CapacityError
        If a local volume, or with `final_iterations` the film, does not fit in memory.

    Notes
    -----
    1. A coarse reconstruction of the whole field gives height, thickness and what lies around each
    window. 2. A task per window reads its own crop of every tilt, centred on the projection of the
    window's centre, and reconstructs an extended object: all voxels that its rays cross, started
    from the coarse film. 3. Every chunk of the film gathers the windows that touch it and blends
    them with smooth weights; the margin outside the field comes from the coarse film. 2 and 3 are
    repeated from the stitched film. A window whose record is written is never computed again; the
    result does not depend on the workers.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods "CuTa thin film"; Y. Yuan et al., Nat. Mater. 21, 95 (2022).
    """
    check_solver(solver, iterations)
    check_solver(solver, coarse_iterations)
    if final_iterations < 0:
        raise InputError(f"final_iterations came as {final_iterations}; needed is 0 or more.")
    if not 1 <= passes <= iterations:
        raise InputError(
            f"{passes} passes came for {iterations} iterations; needed is 1 pass or more, each of an iteration."
        )
    series = store.read(_SERIES)
    field = Field.of(series)
    size, _ = check_windows(window, overlap, field)
    first, shape = volume_grid(field, None, thickness)
    path = str(store.path)
    inputs = {_SERIES: store.digest(_SERIES)}

    coarse = CoarseFilm.of(first, shape, _coarse_factor(shape, field, size))
    n_pixels = int(np.prod(series["images"].shape))
    require_memory(coarse.shape, n_pixels // coarse.factor**2, "scan a smaller field (crop the images at import).")
    _make_coarse(store, field, coarse, coarse_iterations, inputs, {"thickness": thickness})
    maps = open_dataset(path, _COARSE)[["height", "thickness"]].load()

    plan = plan_windows(field, first, shape, coarse, window, overlap, maps["height"].values, maps["thickness"].values)
    for w in plan.windows:
        advice = f"use windows smaller than {size[1]} x {size[0]} pixels (--window)."
        require_memory(w.shape, len(field.matrices) * size[0] * size[1], advice)
    if final_iterations:
        require_memory(shape, n_pixels, "leave out the iterations over the whole film (final_iterations = 0).")
    settings = {"window": window, "overlap": overlap, "iterations": -(-iterations // passes), "solver": solver}
    inputs |= {_COARSE: store.digest(_COARSE)}
    computed, start = 0, _COARSE
    for number in range(1, passes + 1):
        last = number == passes
        windows, film = f"scan/windows_{number}", _FILM if last else f"scan/film_{number}"
        computed += _make_windows(store, plan, settings, {start: store.digest(start), **inputs}, windows, start)
        summary = _make_film(store, plan, maps, windows, film, final_iterations if last else 0)
        start = film
    return summary | {"n_windows": len(plan.windows), "n_windows_computed": computed}


def _coarse_factor(shape: tuple[int, int, int], field: Field, size: tuple[int, int]) -> int:
    """Smallest binning, 2 or more, that leaves no more voxels than one local volume has, as long as atoms show."""
    depth = shape[0]
    widest = 1.0 / np.abs(np.linalg.det(field.matrices[:, :2, :2])).min()
    local = depth * size[0] * (size[1] + depth) * widest
    wanted = int(np.ceil((np.prod(shape, dtype=np.float64) / local) ** (1 / 3)))
    return max(2, min(wanted, int(COARSEST_VOXEL / field.pixel_size)))


# -- coarse film ---------------------------------------------------------------------------------------


def _make_coarse(
    store: Store, field: Field, coarse: CoarseFilm, iterations: int, inputs: dict[str, str], settings: dict[str, Any]
) -> None:
    record = Record("scan coarse", {"factor": coarse.factor, "iterations": iterations, **settings}, inputs)
    if _holds(store, _COARSE, record):
        return
    nz, ny, nx = coarse.shape
    empty = coarse_dataset(np.zeros((2, 1, 1), np.float32), CoarseFilm(1, (0.0, 0.0, 0.0), (2, 1, 1)), 1.0)
    template = xr.Dataset(
        {
            "density": (
                ("z", "y", "x"),
                da.zeros((nz, ny, nx), chunks=(nz, min(64, ny), min(64, nx)), dtype=np.float32),
            ),
            "height": (("y", "x"), da.zeros((ny, nx), chunks=-1)),
            "thickness": (("y", "x"), da.zeros((ny, nx), chunks=-1)),
        },
        {
            name: (name, (s + coarse.factor * np.arange(n)) * field.pixel_size, empty[name].attrs)
            for name, s, n in zip("zyx", coarse.start, coarse.shape, strict=True)
        },
    )
    for name in ("height", "thickness"):
        template[name].attrs["units"] = "angstrom"
    store.begin(_COARSE, template, record=record)
    run_tasks(_coarse_task, [field], str(store.path), coarse, iterations, label="coarse film")
    store.finish(_COARSE)


def _coarse_task(field: Field, path: str, coarse: CoarseFilm, iterations: int) -> None:
    density = reconstruct_coarse(path, _SERIES, field, coarse, iterations)
    dataset = coarse_dataset(density, coarse, field.pixel_size)
    for name in ("density", "height", "thickness"):
        values = np.ascontiguousarray(dataset[name].values)
        write_region(path, _COARSE, name, tuple(slice(0, n) for n in values.shape), values)


# -- windows -------------------------------------------------------------------------------------------


def _make_windows(
    store: Store, plan: ScanPlan, settings: dict[str, Any], inputs: dict[str, str], group: str, start: str
) -> int:
    """Compute the windows that are not there; how many these were."""
    record = Record("scan windows", settings, inputs)
    ledger = BlockLedger(str(store.path), group)
    if _holds(store, group, record):
        return 0
    pending = store.pending(group)
    if pending is None or pending.digest != record.digest or not ledger.exists():
        n, (ny, nx) = len(plan.windows), plan.kept_shape
        block = (1, plan.shape[0], ny, nx)
        density = da.zeros((n, *block[1:]), chunks=block, dtype=np.float32)
        template = xr.Dataset(
            {"density": (("window", "z", "row", "column"), density, {"units": "1"})},
            attrs={"first_voxel_yx": [list(w.kept_first) for w in plan.windows]},
        )
        store.begin(group, template, record=record)
        ledger.create(n)
    missing = [plan.windows[i] for i in np.flatnonzero(~ledger.done())]
    run_tasks(
        _window_task,
        missing,
        ledger,
        plan,
        start,
        settings["iterations"],
        settings["solver"],
        label=group.rpartition("/")[2].replace("_", ", pass "),
    )
    store.finish(group)
    return len(missing)


def _window_task(window: Window, ledger: BlockLedger, plan: ScanPlan, start: str, iterations: int, solver: str) -> None:
    """One local volume: its own pixels in, what it keeps out."""
    if ledger.is_done(window.index):  # computed by a worker that was lost before it could say so
        return
    kept = np.zeros((1, plan.shape[0], *plan.kept_shape), np.float32)
    volume = reconstruct_window(ledger.path, window, plan, start, iterations, solver)
    z = window.first[0] - plan.first[0]
    y, x = (k - f for k, f in zip(window.kept_first, window.first[1:], strict=True))
    ny, nx = window.kept_shape
    kept[0, z : z + window.shape[0], :ny, :nx] = volume[:, y : y + ny, x : x + nx]
    region = (slice(window.index, window.index + 1), *(slice(0, n) for n in kept.shape[1:]))
    write_region(ledger.path, ledger.group, "density", region, kept)
    ledger.mark(window.index)


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
    solver : {"fista", "gradient", "ordered_subsets"}

    Returns
    -------
    ndarray, shape ``window.shape`` (z, y, x), float32
    """
    geometry, corners = window_geometry(plan.field, window)
    images, mask = _read_crops(path, corners, window.crop_shape)
    seen = np.flatnonzero(mask.any(axis=(1, 2)))
    density = open_dataset(path, start)["density"].variable
    if start == _COARSE:
        volume = start_volume(density, plan.coarse, window.first, window.shape)
    else:
        box = tuple(slice(a - f, a - f + n) for a, f, n in zip(window.first, plan.first, window.shape, strict=True))
        volume = density[box].values
    if seen.size == 0:
        return volume
    geometry = geometry.select_tilts(seen)
    solution = solve(
        ParallelProjector(geometry),
        images[seen],
        mask[seen],
        solver=solver,
        iterations=iterations,
        step=STEP_LIMITS[solver] / largest_eigenvalue(geometry),
        start=volume,
    )
    return solution.volume


def _read_crops(path: str, corners: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Crops of every tilt, 0 and not measured beyond the field; (tilt, y, x) float32 and bool."""
    series = open_dataset(path, _SERIES)
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


# -- film ----------------------------------------------------------------------------------------------


def _make_film(
    store: Store, plan: ScanPlan, maps: xr.Dataset, windows: str, group: str, final_iterations: int
) -> dict[str, Any]:
    """Stitch windows into a film; how well it matches the measured pixels, and the windows each other."""
    path = str(store.path)
    record = Record("scan", {"final_iterations": final_iterations}, {windows: store.digest(windows)})
    if group != _FILM and _holds(store, group, record):
        return {}
    n_tilts = len(plan.field.matrices)
    store.begin(group, _film_template(plan, maps), record=record)
    sums = run_tasks(stitch_chunk, plan.chunks(), path, plan, (_COARSE, windows, group), label="stitching")
    if final_iterations:
        run_tasks(_final_task, [final_iterations], path, plan, label="whole film")
    report(0, 1, "R-factor")
    r_factor = film_r_factor(path, group, _SERIES, plan.field, plan.first)
    report(1, 1, "R-factor")
    write_region(path, group, "r_factor", (slice(0, 1), slice(0, n_tilts)), r_factor[None])
    store.finish(group)
    thickness = maps["thickness"].values
    film = thickness > 0
    ranges = {
        name: [float(values[film].min()), float(values[film].max())] if film.any() else None
        for name, values in (("height_range", maps["height"].values), ("thickness_range", thickness))
    }
    return {"r_factor_mean": float(np.nanmean(r_factor)), **agreement(np.sum(sums, axis=0)), **ranges}


def _film_template(plan: ScanPlan, maps: xr.Dataset) -> xr.Dataset:
    """The film's group before anything is computed: maps, coordinates and empty arrays."""
    size, chunks = plan.field.pixel_size, plan.chunk_shape
    template = xr.Dataset(
        {
            "density": (("z", "y", "x"), da.zeros(plan.shape, chunks=chunks, dtype=np.float32)),
            "support": (("z", "y", "x"), da.zeros(plan.shape, chunks=chunks, dtype=bool)),
            "disagreement": (("y", "x"), da.zeros(plan.shape[1:], chunks=chunks[1:], dtype=np.float32)),
            "r_factor": (("iteration", "tilt"), da.zeros((1, len(plan.field.matrices)), chunks=-1)),
            "height": (("map_y", "map_x"), maps["height"].values),
            "thickness": (("map_y", "map_x"), maps["thickness"].values),
        },
        {
            **{name: (np.arange(n) + f) * size for name, n, f in zip("zyx", plan.shape, plan.first, strict=True)},
            "map_y": maps["y"].values,
            "map_x": maps["x"].values,
        },
    )
    return with_units(template, VOLUME)


def _final_task(iterations: int, path: str, plan: ScanPlan) -> None:
    """Some iterations over the whole film, in place."""
    images, mask = measured(open_dataset(path, _SERIES)[["images", "mask"]])
    geometry = plan.field.geometry(plan.first, plan.shape)
    solution = solve(
        ParallelProjector(geometry),
        images,
        mask,
        solver="fista",
        iterations=iterations,
        step=1.0 / largest_eigenvalue(geometry),
        start=open_dataset(path, _FILM)["density"].values,
    )
    for rows, columns in plan.chunks():
        region = (slice(0, plan.shape[0]), rows, columns)
        write_region(path, _FILM, "density", region, np.ascontiguousarray(solution.volume[region]))


def _holds(store: Store, group: str, record: Record) -> bool:
    held = store.record(group)
    return held is not None and held.digest == record.digest
