"""The parts on one thread: against the peers, at 320^3, on the measured film, on the RESIRE sample, scaling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import aetdist as aet
from aetdist.geometry import ParallelGeometry
from aetdist.metrics import normalised_rmse
from aetdist.project import ParallelProjector, empty_volume
from aetdist.reconstruct.solvers import SOLVERS, Objective, Solver, eigenvalue_for

from . import cases
from .cases import Problem
from .measure import Memory, Stopwatch, in_child, medians, timed
from .peers import AstraSlices, Nufft, installed, voxel_pair
from .sizes import Sizes

OURS = ("fista", "ordered_subsets", "sart", "published")
FAST = OURS[:3]
RELAXATIONS = (1.0, 1.9)  # ASTRA's default, and the best of 0.5 to 1.9 on both objects (they are free of noise)
EPSILONS = (1e-2, 1e-4)
NO_DATA = {"skipped": "AETDIST_DATA does not name the published data sets"}


def make_solver(objective: Objective, name: str) -> Solver:
    """A solver with its longest stable step, as `reconstruct_resire` chooses it."""
    step = SOLVERS[name].step_limit / eigenvalue_for(name, objective.projector.geometry)
    return SOLVERS[name](objective, step)


def make_step(
    geometry: ParallelGeometry, images: np.ndarray, name: str, threads: int = 1, times: int = 1
) -> Callable[[], Any]:
    """Some iterations of a solver; `name` "pair" is a forward and an adjoint projection alone."""
    projector = ParallelProjector(geometry, threads)
    if name == "pair":
        volume, back = empty_volume(geometry.volume_shape, 1.0), empty_volume(geometry.volume_shape)
        out = np.empty(projector.image_shape, np.float32)

        def step() -> Any:
            return projector.adjoint(projector.forward(volume, out=out), out=back)
    else:
        step = make_solver(Objective(projector, images, np.ones(images.shape, bool)), name).step
    return lambda: [step() for _ in range(times)]


# -- 64^3 x 41, single axis ----------------------------------------------------------------------------


def small(sizes: Sizes) -> dict[str, Any]:
    """Per iteration and to equal error against SIRT and SART of ASTRA."""
    problem = cases.sphere(sizes.small, sizes.small_tilts)
    geometry = problem.geometry
    result: dict[str, Any] = {"shape": [*problem.truth.shape], "tilts": sizes.small_tilts}
    for name in OURS:
        steps = make_step(geometry, problem.images, name, times=10)
        result[f"{name}_iteration"] = timed(steps, sizes.repeats, per=10)
    result["voxel_driven_pair"] = timed(lambda: voxel_pair(problem.truth, geometry), sizes.repeats)
    if installed("astra"):
        peer = AstraSlices(problem, "SIRT")
        result["astra_sirt_iteration"] = timed(lambda: [peer.step() for _ in range(5)], sizes.repeats, per=5)
        peer.close()
        fista, sirt = (result[f"{name}_iteration"]["cpu_s"] for name in ("fista", "astra_sirt"))
        result["iteration_ratio_astra_sirt"] = sirt / fista
    result["glass_sphere"] = race(problem, sizes)
    if not sizes.simulated:
        published = cases.resire_sample()
        result["resire_sample"] = race(published, sizes) if published else NO_DATA
    return result


def race(problem: Problem, sizes: Sizes) -> dict[str, Any]:
    """CPU seconds from images in memory to equal error, all preparations included (power iteration, ray weights)."""
    most, most_of_peer = sizes.passes
    starters: dict[str, tuple[Callable[[], Any], int]] = {
        name: (lambda n=name: make_solver(problem.objective(), n), most) for name in FAST
    }
    result: dict[str, Any] = {"target": sizes.error}
    if installed("astra"):
        peer = AstraSlices(problem, "SIRT")
        result["astra_r_factor_of_truth"] = float(aet.r_factor(peer.project(problem.truth), problem.images).mean())
        peer.close()
        for relaxation in RELAXATIONS:
            name = f"astra_sart_relaxation_{relaxation:g}"
            starters[name] = (lambda r=relaxation: AstraSlices(problem, "SART", r), most_of_peer)
    curves = {name: _curve(start, problem.truth, n, sizes) for name, (start, n) in starters.items()}
    reached = {name: min(curve["error"]) for name, curve in curves.items()}
    ours = {name: value for name, value in reached.items() if name in SOLVERS}
    peers = {name: value for name, value in reached.items() if name not in SOLVERS}
    for name, curve in curves.items():
        result[name] = {
            "smallest_error": reached[name],
            "preparation_cpu_s": curve["preparation_cpu_s"],
            **(_when(curve, sizes.error) or {"not_reached": True}),
        }
    if peers:
        result["smallest_common_error"] = max(sizes.error, min(ours.values()), max(peers.values()))
        for name in peers:
            result[f"time_ratio_{name}"] = _ratio(curves, name, result["smallest_common_error"])
    return result


def _curve(start: Callable[[], Any], truth: np.ndarray, most: int, sizes: Sizes) -> dict[str, Any]:
    """Error after every pass, and the CPU seconds until then, median over the repeats; until the target or `most`."""
    errors: list[float] = []
    seconds, preparations = [], []
    for _ in range(1 + sizes.race_repeats):  # the first warms up and finds how many passes there are
        watch = Stopwatch()
        contestant = start()
        preparations.append(watch.read()["cpu_s"])
        spent, times = preparations[-1], []
        while len(times) < (len(errors) if seconds else most):
            watch = Stopwatch()
            contestant.step()
            spent += watch.read()["cpu_s"]
            times.append(spent)
            if not seconds:
                errors.append(normalised_rmse(contestant.volume, truth))
                if errors[-1] <= sizes.error:
                    break
        if hasattr(contestant, "close"):
            contestant.close()
        seconds.append(times)
    preparation = float(np.median(preparations[1:]))
    return {"error": errors, "cpu_s": np.median(seconds[1:], axis=0).tolist(), "preparation_cpu_s": preparation}


def _when(curve: dict[str, Any], error: float) -> dict[str, float] | None:
    """The first pass with at most this error."""
    for i, (e, seconds) in enumerate(zip(curve["error"], curve["cpu_s"], strict=True)):
        if e <= error:
            return {"passes": i + 1, "cpu_s": seconds}
    return None


def _ratio(curves: dict[str, Any], peer: str, error: float) -> float | None:
    """A peer's time to an error that all reach, over that of the fastest of our solvers."""
    ours = [when["cpu_s"] for name in curves if name in SOLVERS and (when := _when(curves[name], error))]
    theirs = _when(curves[peer], error)
    return theirs["cpu_s"] / min(ours) if theirs and ours else None


# -- 320^3 x 55, Euler angles --------------------------------------------------------------------------


def large(sizes: Sizes) -> dict[str, Any]:
    """Pair, iteration, peers, memory, and time to a small R-factor."""
    problem = cases.particle(sizes.large)
    geometry, images = problem.geometry, problem.images
    result: dict[str, Any] = {"shape": [*problem.truth.shape], "tilts": len(images)}
    projected = ParallelProjector(geometry).forward(problem.truth)
    result["r_factor_of_truth"] = float(aet.r_factor(projected, images).mean())
    for name in ("pair", *OURS):
        key = "pair" if name == "pair" else f"{name}_iteration"
        result[key] = timed(make_step(geometry, images, name), sizes.repeats)
    if installed("ducc0"):
        density = problem.truth.astype(np.complex64)
        for epsilon in EPSILONS:
            peer = Nufft(geometry, epsilon)
            result[f"ducc0_nufft_pair_{epsilon:g}"] = timed(lambda p=peer: p.pair(density), sizes.large_repeats)
            del peer
        loosest = result[f"ducc0_nufft_pair_{EPSILONS[0]:g}"]["cpu_s"]
        result["pair_ratio_ducc0"] = loosest / result["pair"]["cpu_s"]
        result["iteration_ratio_ducc0"] = loosest / result["fista_iteration"]["cpu_s"]
        del density
    voxel_pair(np.ones((8, 8, 8), np.float32), cases.noise_volume(8, 2).geometry)  # compiles
    result["voxel_driven_pair"] = timed(lambda: voxel_pair(problem.truth, geometry), 1, warm=False)
    result["pair_ratio_voxel_driven"] = result["voxel_driven_pair"]["cpu_s"] / result["pair"]["cpu_s"]
    limits = (sizes.large_r_factor, sizes.large_iterations)
    result["target_r_factor"] = sizes.large_r_factor
    for name in FAST:
        runs = [in_child(_solve_large, geometry, images, name, *limits) for _ in range(sizes.large_repeats)]
        result[f"{name}_solve"] = {**runs[0], **medians([{k: r[k] for k in ("cpu_s", "wall_s")} for r in runs])}
    return result


def warm_up() -> None:
    """Load or compile every kernel on a tiny problem."""
    problem = cases.noise_volume(16, 20)
    for name in OURS:
        make_solver(problem.objective(), name).step()


def _solve_large(geometry: ParallelGeometry, images: np.ndarray, name: str, target: float, most: int) -> dict[str, Any]:
    """From images in memory to R <= target: iterations, seconds, and the peak of the memory beyond the images'."""
    warm_up()
    mask = np.ones(images.shape, bool)
    memory, watch = Memory(), Stopwatch()
    solver = make_solver(Objective(ParallelProjector(geometry), images, mask), name)
    r, iterations = 1.0, 0
    while r > target and iterations < most:
        r, iterations = float(np.nanmean(solver.step()[0])), iterations + 1
        if r <= target:
            r = float(np.nanmean(solver.r_factor()))  # ordered subsets: until here of what each subset met
    return {"iterations": iterations, "r_factor": r, **memory.read(), **watch.read()}


# -- the measured film in one piece --------------------------------------------------------------------


def film(sizes: Sizes) -> dict[str, Any]:
    """Field A in one piece: seconds, memory, correlation with the published volume, throughput."""
    if not sizes.simulated and cases.data_folder() is None:
        return NO_DATA
    runs = [in_child(_solve_film, sizes) for _ in range(sizes.large_repeats)]
    keys = ("cpu_s", "wall_s", "iteration_cpu_s", "ns_per_voxel_tilt_iteration", "ns_per_voxel_tilt_pass")
    return {**runs[0], **medians([{k: r[k] for k in keys} for r in runs])}


def _solve_film(sizes: Sizes) -> dict[str, Any]:
    """FISTA; an iteration is a forward pass, an adjoint pass and the update."""
    series = cases.simulated_film((40, 16), 9) if sizes.simulated else cases.measured_film()
    assert series is not None
    shape = sizes.film_shape or (921, 136, 151)
    warm_up()
    series["images"].load(), series["mask"].load()
    memory, watch = Memory(), Stopwatch()
    times: list[float] = []
    volume = aet.reconstruct_resire(
        series,
        shape=shape,
        iterations=sizes.film_iterations,
        on_iteration=lambda *_: times.append(watch.read()["cpu_s"]),
    )
    result = {"iterations": sizes.film_iterations, **watch.read(), **memory.read()}
    iteration = float(np.median(np.diff(times)))
    per_voxel = 1e9 * iteration / (np.prod(shape) * series.sizes["tilt"])
    result |= {
        "shape_xyz": [*shape],
        "tilts": series.sizes["tilt"],
        "r_factor": float(volume["r_factor"][-1].mean()),
        "iteration_cpu_s": iteration,
        "ns_per_voxel_tilt_iteration": per_voxel,
        "ns_per_voxel_tilt_pass": per_voxel / 2,
    }
    if not sizes.simulated:
        validation = cases.film_validation()
        columns = np.ones([volume.sizes[axis] for axis in "yx"], bool)
        truth = validation.published(cases.data_folder())
        result["correlation"] = validation.correlation(volume["density"], columns, truth)
    return result


# -- the RESIRE sample ---------------------------------------------------------------------------------


def sample(sizes: Sizes) -> dict[str, Any]:
    """Iterations of every solver to a normalised RMSE of 0.215 and of 0.18."""
    problem = cases.sphere(16, 9) if sizes.simulated else cases.resire_sample()
    if problem is None:
        return NO_DATA
    most = sizes.passes[0]
    return {name: _iterations_to(problem, name, (0.215, sizes.error), most) for name in OURS}


def _iterations_to(problem: Problem, name: str, errors: tuple[float, ...], most: int) -> dict[str, int | None]:
    solver = make_solver(problem.objective(), name)
    needed: dict[str, int | None] = {f"{error:g}": None for error in errors}
    for iteration in range(1, most + 1):
        solver.step()
        value = normalised_rmse(solver.volume, problem.truth)
        for error in errors:
            if value <= error and needed[f"{error:g}"] is None:
                needed[f"{error:g}"] = iteration
        if None not in needed.values():
            break
    return needed


# -- scaling -------------------------------------------------------------------------------------------


def scaling(sizes: Sizes) -> dict[str, Any]:
    """One iteration of FISTA over voxels and tilts."""
    grid: list[tuple[int, int]] = [(n, sizes.voxels_tilts) for n in sizes.voxels]
    grid += [(sizes.tilts_voxels, t) for t in sizes.tilts]
    return {f"{n}^3 x {t}": row for (n, t), row in zip(grid, _rows(grid, sizes), strict=True)}


def _rows(grid: list[tuple[int, int]], sizes: Sizes) -> Iterator[dict[str, float]]:
    for n, tilts in grid:
        problem = cases.noise_volume(n, tilts)
        row: dict[str, float] = {}
        for name in ("pair", "fista"):
            row[f"{name}_cpu_s"] = timed(make_step(problem.geometry, problem.images, name), sizes.repeats)["cpu_s"]
        yield {**row, "fista_ns_per_voxel_tilt": 1e9 * row["fista_cpu_s"] / (n**3 * tilts)}
