"""Scanning AET: a film from many local volumes, each reconstructed by a task of its own, stitched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from .._threads import kernel_threads
from ..blocks.windows import run_tasks
from ..errors import InputError
from ..io import BlockLedger, Record, Store, open_dataset, require_record, write_region
from ..project import ParallelProjector
from ..schema import VOLUME, with_units
from .film import COARSE, FILM, SERIES, CoarseFilm, coarse_dataset, coarse_film, reconstruct_coarse
from .grid import Field, volume_grid
from .local import reconstruct_window
from .memory import require_scan
from .reprojection import film_r_factor
from .resire import check_solver, measured
from .solvers import Objective, largest_eigenvalue, solve
from .stitch import agreement, stitch_chunk
from .stopping import Stop
from .trials import chosen_iterations
from .windows import ScanPlan, Window, check_windows, plan_windows


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
    stop: str = "fixed",
    held_out: float = 0.1,
    noise: float | None = None,
    seed: int = 0,
    series: str = SERIES,
) -> dict[str, Any]:
    """Computes: the volume of a film, window by window, on the current Dask client.

    Parameters
    ----------
    store : Store
        Open for writing, with the group `series`. The film is written as ``volume``.
    window : tuple of int
        Pixels (nx, ny) of the field that one local volume explains.
    overlap : int
        Pixels that neighbouring windows share, at most half of the window along each axis.
    thickness : float
        Range of heights in Angstrom that holds the film, centred on the origin of the rotation: its
        thickness plus its waviness.
    iterations : int
        Iterations of every local volume, over all passes; at most so many where `stop` chooses.
    passes : int
        How often the windows are reconstructed and stitched: from the second pass on they start from
        the stitched film, so that each knows the atoms that its neighbours found around it.
    coarse_iterations : int
        Iterations of the coarse film.
    final_iterations : int
        Iterations over the whole film at the end, in one task; 0 keeps the memory of a worker bounded
        by the window.
    solver : {"fista", "published", "ordered_subsets", "sart", "sirt"}
        Momentum with restart; the paper's descent; momentum with a step after each quarter of the tilts; a step
        after every tilt; or, for comparison, SIRT.
    stop : {"fixed", "held_out_blocks", "held_out_tilts", "discrepancy"}
        What chooses the number of iterations, as in `reconstruct_resire`: asked in three windows, the
        median of its answers goes for all.
    held_out : float
        Part of the measured pixels, or of the tilts, that the rule's trials do not see.
    noise : float, optional
        Standard deviation of the noise of a pixel, for "discrepancy"; estimated from the images by default.
    seed : int
        Of the choice of what is held out.
    series : str
        Group of the store that holds the tilt series.

    Returns
    -------
    dict
        ``r_factor_mean`` (eq. 4 of the film's reprojection over all measured pixels, mean over tilts),
        ``n_windows``, ``n_windows_computed`` (in all passes; the others were there from another run),
        ``stop`` and ``iterations`` (of every window, over all passes: a multiple of these), ``disagreement_l1`` and
        ``disagreement_correlation`` of overlapping windows where they are blended, ``height_range`` and
        ``thickness_range`` (Angstrom).

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
    rule = Stop(stop, held_out, seed, noise)
    tilts = store.read(series)
    field = Field.of(tilts)
    size, _ = check_windows(window, overlap, field)
    first, shape = volume_grid(field, None, thickness)
    path = str(store.path)
    inputs = {series: store.digest(series)}

    coarse = coarse_film(field, thickness, size)
    require_scan(field, shape, coarse, size, solver=solver, final_iterations=final_iterations)
    _make_coarse(store, series, field, coarse, coarse_iterations, inputs, {"thickness": thickness})
    maps = open_dataset(path, COARSE)[["height", "thickness"]].load()

    plan = plan_windows(field, first, shape, coarse, window, overlap, maps["height"].values, maps["thickness"].values)
    plan = replace(plan, series=series)
    chosen = chosen_iterations(store, plan, rule, iterations, solver)
    each = -(-chosen["iterations"] // passes)
    chosen["iterations"] = each * passes
    settings = {"window": window, "overlap": overlap, "iterations": each, "solver": solver}
    inputs |= {COARSE: store.digest(COARSE)}
    computed, start = 0, COARSE
    for number in range(1, passes + 1):
        windows = f"scan/windows_{number}"
        film = f"scan/film_{number}" if number < passes or final_iterations else FILM
        computed += _make_windows(store, plan, settings, {start: store.digest(start), **inputs}, windows, start)
        agreed = _stitch(store, plan, maps, windows, film)
        start = film
    if final_iterations:
        _iterate_whole(store, plan, maps, film, final_iterations)
    r_factor = _judge(store, plan)
    film_columns = maps["thickness"].values > 0
    ranges = {
        f"{name}_range": [float(values[film_columns].min()), float(values[film_columns].max())]
        for name, values in (("height", maps["height"].values), ("thickness", maps["thickness"].values))
        if film_columns.any()
    }
    return {
        "r_factor_mean": float(np.nanmean(r_factor)),
        **chosen,
        **agreed,
        **ranges,
        "n_windows": len(plan.windows),
        "n_windows_computed": computed,
    }


# -- coarse film ---------------------------------------------------------------------------------------


def _make_coarse(
    store: Store,
    series: str,
    field: Field,
    coarse: CoarseFilm,
    iterations: int,
    inputs: dict[str, str],
    settings: dict[str, Any],
) -> None:
    record = Record("scan coarse", {"factor": coarse.factor, "iterations": iterations, **settings}, inputs)
    if _holds(store, COARSE, record):
        return
    nz, ny, nx = coarse.shape
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
            name: (name, (s + coarse.factor * np.arange(n)) * field.pixel_size, {"units": "angstrom"})
            for name, s, n in zip("zyx", coarse.start, coarse.shape, strict=True)
        },
    )
    for name in ("height", "thickness"):
        template[name].attrs["units"] = "angstrom"
    store.begin(COARSE, template, record=record)
    run_tasks(_coarse_task, [field], str(store.path), record.digest, series, coarse, iterations, label="coarse film")
    store.finish(COARSE)


def _coarse_task(field: Field, path: str, digest: str, series: str, coarse: CoarseFilm, iterations: int) -> None:
    density = reconstruct_coarse(path, series, field, coarse, iterations)
    dataset = coarse_dataset(density, coarse, field.pixel_size)
    require_record(path, COARSE, digest)
    for name in ("density", "height", "thickness"):
        values = np.ascontiguousarray(dataset[name].values)
        write_region(path, COARSE, name, tuple(slice(0, n) for n in values.shape), values)


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
        record.digest,
        replace(plan, windows=()),
        plan.kept_shape,
        start,
        settings["iterations"],
        settings["solver"],
        label=group.rpartition("/")[2].replace("_", ", pass "),
    )
    store.finish(group)
    return len(missing)


def _window_task(
    window: Window,
    ledger: BlockLedger,
    digest: str,
    plan: ScanPlan,
    kept_shape: tuple[int, int],
    start: str,
    iterations: int,
    solver: str,
) -> None:
    """One local volume: its own pixels in, what it keeps out."""
    if ledger.is_done(window.index):  # computed by a worker that was lost before it could say so
        return
    kept = np.zeros((1, plan.shape[0], *kept_shape), np.float32)
    volume = reconstruct_window(ledger.path, window, plan, start, iterations, solver)
    z = window.first[0] - plan.first[0]
    y, x = (k - f for k, f in zip(window.kept_first, window.first[1:], strict=True))
    ny, nx = window.kept_shape
    kept[0, z : z + window.shape[0], :ny, :nx] = volume[:, y : y + ny, x : x + nx]
    region = (slice(window.index, window.index + 1), *(slice(0, n) for n in kept.shape[1:]))
    require_record(ledger.path, ledger.group, digest)
    write_region(ledger.path, ledger.group, "density", region, kept)
    ledger.mark(window.index)


# -- film ----------------------------------------------------------------------------------------------


def _stitch(store: Store, plan: ScanPlan, maps: xr.Dataset, windows: str, group: str) -> dict[str, Any]:
    """Blend windows into a film, unless it is there; how well they agree. The volume is begun, not finished."""
    record = Record("scan", {}, {windows: store.digest(windows)})
    if group != FILM and _holds(store, group, record):
        return dict(store.notes(group)["agreement"])
    store.begin(group, _film_template(plan, maps), record=record)
    items = [(columns, plan.touching(*columns)) for columns in plan.chunks()]
    groups = (COARSE, windows, group)
    sums = run_tasks(
        stitch_chunk, items, str(store.path), record.digest, replace(plan, windows=()), groups, label="stitching"
    )
    agreed = agreement(np.sum(sums, axis=0))
    if group != FILM:
        _write_r_factor(store, group, np.full(len(plan.field.matrices), np.nan))
        store.finish(group)
        store.note(group, agreement=agreed)
    return agreed


def _iterate_whole(store: Store, plan: ScanPlan, maps: xr.Dataset, film: str, iterations: int) -> None:
    """The volume from a stitched film by some iterations over all of it, in one task."""
    record = Record("scan", {"final_iterations": iterations}, {film: store.digest(film)})
    store.begin(FILM, _film_template(plan, maps), record=record)
    run_tasks(_whole_task, [iterations], str(store.path), record.digest, plan, film, label="whole film")


def _judge(store: Store, plan: ScanPlan) -> np.ndarray:
    """R-factor of every tilt for the volume's reprojection; finishes the volume."""
    r_factor = film_r_factor(str(store.path), FILM, plan)
    _write_r_factor(store, FILM, r_factor)
    store.finish(FILM)
    return r_factor


def _write_r_factor(store: Store, group: str, r_factor: np.ndarray) -> None:
    write_region(store.path, group, "r_factor", (slice(0, 1), slice(0, r_factor.size)), r_factor[None])


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


def _whole_task(iterations: int, path: str, digest: str, plan: ScanPlan, film: str) -> None:
    """Some iterations over the whole film, from one group into another; may be run again."""
    images, mask = measured(open_dataset(path, plan.series)[["images", "mask"]])
    geometry = plan.field.geometry(plan.first, plan.shape)
    stitched = open_dataset(path, film)
    solution = solve(
        Objective(ParallelProjector(geometry, kernel_threads()), images, mask),
        solver="fista",
        iterations=iterations,
        step=1.0 / largest_eigenvalue(geometry),
        start=stitched["density"].values,
    )
    require_record(path, FILM, digest)
    for rows, columns in plan.chunks():
        region = (slice(0, plan.shape[0]), rows, columns)
        write_region(path, FILM, "density", region, np.ascontiguousarray(solution.volume[region]))
        write_region(path, FILM, "support", region, stitched["support"][region].values)
        write_region(path, FILM, "disagreement", (rows, columns), stitched["disagreement"][rows, columns].values)


def _holds(store: Store, group: str, record: Record) -> bool:
    held = store.record(group)
    return held is not None and held.digest == record.digest
