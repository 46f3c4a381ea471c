"""How large everything is: as the table wants it, or so small that a test can run it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any


def _powers_of_two() -> tuple[int, ...]:
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tuple(k for k in (2, 4, 8, 16) if k <= n) or (2,)


@dataclass(frozen=True)
class Sizes:
    """Voxels along an axis, tilts, iterations and repeats of every part."""

    repeats: int = 5
    small: int = 64
    small_tilts: int = 41
    error: float = 0.18  # normalised RMSE to the truth
    race_repeats: int = 3
    passes: tuple[int, int] = (300, 40)  # at most: ours, a peer's
    large: int = 320
    large_r_factor: float = 0.02
    large_iterations: int = 200  # at most
    large_repeats: int = 3
    film_iterations: int = 40
    film_shape: tuple[int, int, int] | None = None  # (nx, ny, nz); None: as published
    voxels: tuple[int, ...] = (64, 96, 128, 192, 256, 320)
    voxels_tilts: int = 55
    tilts: tuple[int, ...] = (14, 28, 55, 110)
    tilts_voxels: int = 128
    parallel: tuple[int, ...] = field(default_factory=_powers_of_two)
    threaded: tuple[str, ...] = ("pair", "fista")
    rounds: int = 7  # interleaved
    scan_rounds: int = 5
    scan: dict[str, Any] = field(
        default_factory=lambda: {
            "window": (131, 73),
            "overlap": 65,
            "thickness": 48.6,
            "iterations": 12,
            "coarse_iterations": 9,
            "passes": 1,
        }
    )
    scan_copy: tuple[tuple[int, int, int], tuple[int, int]] = ((151, 110, 583), (73, 131))  # volume, detector
    simulated: bool = False  # no published data even where there are


TINY = Sizes(
    repeats=1,
    small=16,
    small_tilts=9,
    error=0.6,
    race_repeats=1,
    passes=(30, 5),
    large=24,
    large_r_factor=0.2,
    large_iterations=20,
    large_repeats=1,
    film_iterations=2,
    film_shape=(64, 16, 16),
    voxels=(16, 24),
    voxels_tilts=7,
    tilts=(5, 7),
    tilts_voxels=16,
    parallel=(2,),
    threaded=("fista",),
    rounds=1,
    scan_rounds=1,
    scan={
        "window": (28, 20),
        "overlap": 10,
        "thickness": 10.0,
        "iterations": 2,
        "coarse_iterations": 2,
        "passes": 1,
    },
    scan_copy=((8, 12, 20), (12, 16)),
    simulated=True,
)
