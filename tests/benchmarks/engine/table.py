"""The figures as a table in Markdown, beside what they have to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FAST = ("fista", "ordered_subsets", "sart")


def markdown(figures: dict[str, Any]) -> str:
    """The table of the README; a figure that was not measured is left out."""
    lines = ["| | measured | at least | aim |", "|---|---|---|---|"]
    for what, least, aim, values in ROWS:
        try:
            measured = values(figures)
        except (KeyError, TypeError):  # a part that was not run, or a peer that is not installed
            continue
        lines.append(f"| {what} | {measured} | {least} | {aim} |")
    return "\n".join(lines)


def _times(value: float) -> str:
    return f"{value:.3g} x"


def _fastest(parts: dict[str, Any]) -> str:
    """Of our accelerated solvers, the one that was first."""
    return min(FAST, key=lambda name: parts[name].get("cpu_s", float("inf")))


def _race(case: str) -> Callable[[dict[str, Any]], str]:
    def row(figures: dict[str, Any]) -> str:
        race = figures["small"][case]
        default, best = (_times(race[f"time_ratio_astra_sart_relaxation_{r}"]) for r in ("1", "1.9"))
        where = "" if race["smallest_common_error"] <= 0.18 else f", at {race['smallest_common_error']:.3f}"
        return f"{default} (SART's default relaxation), {best} (its best, 1.9){where}; ours: {_fastest(race)}"

    return row


def _solve(values: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    def row(figures: dict[str, Any]) -> str:
        return "; ".join(f"{name} {values(figures['large'][f'{name}_solve'])}" for name in FAST)

    return row


def _parallel(gain: dict[str, float]) -> str:
    return f"{_times(gain['normalised'])} (as it is {gain['gain']:.2f}, two copies {gain['copies_gain']:.2f})"


def _film(film: dict[str, Any]) -> str:
    memory = f"{film['memory_gb']:.2f} GB ({film['process_gb']:.2f} GB the process)"
    return f"{film['cpu_s']:.3g} CPU-s, {memory}, correlation {film['correlation']:.3f}"


def _throughput(film: dict[str, Any]) -> str:
    return f"{film['ns_per_voxel_tilt_pass']:.3f} ns ({film['ns_per_voxel_tilt_iteration']:.3f} ns an iteration)"


def _needed(steps: dict[str, int | None]) -> str:
    return " / ".join(str(steps[error] or "not reached") for error in ("0.215", "0.18"))


ROWS: list[tuple[str, str, str, Callable[[dict[str, Any]], str]]] = [
    (
        "an iteration of FISTA against one of ASTRA's SIRT on the CPU (linear), 64^3 x 41",
        "12 x faster",
        "25 x",
        lambda f: _times(f["small"]["iteration_ratio_astra_sirt"]),
    ),
    (
        "time to a normalised RMSE of 0.18 against ASTRA's SART on the CPU, RESIRE's sample",
        "8 x",
        "20 x",
        _race("resire_sample"),
    ),
    ("the same, a simulated sphere of glass", "8 x", "20 x", _race("glass_sphere")),
    (
        "forward and adjoint projection against ducc0's NUFFT (epsilon 1e-2), 320^3 x 55",
        "3 x",
        "5 x",
        lambda f: _times(f["large"]["pair_ratio_ducc0"]),
    ),
    (
        "the same against a plain voxel-driven Numba pair",
        "",
        "",
        lambda f: _times(f["large"]["pair_ratio_voxel_driven"]),
    ),
    (
        "320^3 x 55, the nanoparticle's Euler angles: projections and update (FISTA)",
        "0.7 CPU-s",
        "0.4 CPU-s",
        lambda f: f"{f['large']['fista_iteration']['cpu_s']:.2f} CPU-s",
    ),
    (
        "the same to R <= 0.02, noise free",
        "20 CPU-s",
        "8 CPU-s",
        _solve(lambda s: f"{s['cpu_s']:.3g} CPU-s ({s['iterations']} iterations, R {s['r_factor']:.3f})"),
    ),
    (
        "memory of the solver there, beyond the images",
        "0.7 GB",
        "0.55 GB",
        _solve(lambda s: f"{s['memory_gb']:.2f} GB (process {s['process_gb']:.2f} GB)"),
    ),
    (
        "measured film in one piece (921 x 136 x 151 voxels), 40 iterations; correlation with the published volume",
        "20 CPU-s, 1.5 GB, 0.965",
        "10 CPU-s, 1 GB",
        lambda f: _film(f["film"]),
    ),
    (
        "its throughput per voxel, tilt and pass (forward or adjoint, half of the update), one core",
        "0.25 ns",
        "0.15 ns",
        lambda f: _throughput(f["film"]),
    ),
    ("2 threads over 1, projections at 320^3", "1.6 x", "1.9 x", lambda f: _parallel(f["threads"]["pair_2_threads"])),
    ("the same, a whole iteration of FISTA", "1.6 x", "1.9 x", lambda f: _parallel(f["threads"]["fista_2_threads"])),
    ("scan over 2 single-thread workers against 1", "1.8 x", "1.95 x", lambda f: _parallel(f["scan"]["2_workers"])),
    (
        "RESIRE's sample, FISTA: iterations to a normalised RMSE of 0.215 / 0.18",
        "35 / 70",
        "30 / 60",
        lambda f: _needed(f["sample"]["fista"]),
    ),
    (
        "the same, ordered subsets: passes",
        "12 / 22",
        "8 / 15",
        lambda f: _needed(f["sample"]["ordered_subsets"]),
    ),
]
