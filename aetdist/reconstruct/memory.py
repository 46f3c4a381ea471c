"""What a reconstruction holds in memory, and what there is for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import CapacityError
from .grid import Field, covering_box

if TYPE_CHECKING:
    from .film import CoarseFilm

#: What a worker holds when it has loaded the kernels of a scan: measured on Linux with Python 3.11, without arrays.
WORKER_BYTES = 270_000_000
USABLE = 0.95
"""Part of its memory that a worker may take; beyond it Dask ends the worker."""
#: Volumes and stacks of images (float32; the mask, and images sheared by the projector, count) that a solver holds.
#: Measured on films of 8 to 32 MB of images and 8 to 46 MB of voxels; rounded up.
_HELD = {
    "fista": (2.0, 4.8),
    "published": (1.0, 3.8),
    "ordered_subsets": (2.0, 2.5),
    "sart": (2.0, 3.6),
    "sirt": (4.0, 4.8),
}
_SMALLEST = 16  # pixels of a window that is advised
_READING = 64_000_000  # chunks that are decoded at a time, and what the allocator keeps


def solver_bytes(solver: str, shape: tuple[int, int, int], pixels: int, *, starts: bool = False) -> int:
    """Bytes that a solver holds at most, its images included.

    Parameters
    ----------
    solver : str
    shape : tuple of int
        Of the volume (z, y, x).
    pixels : int
        Of all images.
    starts : bool
        Whether it starts from a volume, which is held too.
    """
    volumes, stacks = _HELD[solver]
    return int(4 * ((volumes + starts) * math.prod(shape) + stacks * pixels))


def window_shape(field: Field, film: tuple[int, int, int], size: tuple[int, int]) -> tuple[int, int, int]:
    """Voxels (z, y, x) of the local volume of a window of `size` (y, x) pixels, as deep as the whole film."""
    depth = film[0] - 1
    box = covering_box(field.matrices, size[0] / 2 + 1, size[1] / 2 + 1, -depth / 2, depth / 2)
    height, width = (math.ceil(high - low) + 1 for low, high in (box[:2], box[2:]))
    return film[0], min(height, film[1]), min(width, film[2])


def window_bytes(shape: tuple[int, int, int], size: tuple[int, int], n_tilts: int, solver: str) -> int:
    """Bytes that a local volume of this shape takes while it is reconstructed, with windows of `size` (y, x) pixels."""
    return solver_bytes(solver, shape, n_tilts * math.prod(size), starts=True) + _READING


def coarse_bytes(coarse: CoarseFilm, field: Field) -> int:
    """Bytes that the coarse film of a scan takes."""
    pixels = len(field.matrices) * math.prod(-(-n // coarse.factor) for n in field.detector_shape)
    return solver_bytes("fista", coarse.shape, pixels) + _READING


def require_memory(need: int, what: str, advice: str, available: int | None = None) -> None:
    """Refuse what does not fit into the memory of this task, of a worker, or of the machine.

    Raises
    ------
    CapacityError
        Naming what is needed, what there is, and `advice`.
    """
    available = available_memory() if available is None else available
    if need > available:
        raise CapacityError(
            f"{what} needs {need / 2**30:.2f} GiB to reconstruct, {available / 2**30:.2f} GiB are available; {advice}"
        )


def require_one_piece(
    shape: tuple[int, int, int], pixels: int, advice: str, solver: str = "fista", *, available: int | None = None
) -> None:
    """Refuse a volume (z, y, x) that does not fit in one piece, with so many pixels of images.

    Raises
    ------
    CapacityError
    """
    named = " x ".join(str(n) for n in reversed(shape))
    require_memory(solver_bytes(solver, shape, pixels), f"A volume of {named} voxels in one piece", advice, available)


def task_memory(limit: int | None, threads: int) -> int:
    """Bytes that a task may take in a worker with this memory limit and so many threads.

    Without a limit: all that the machine has free.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    if not limit:
        return free // max(1, threads)
    return min(free, max(0, int(USABLE * limit) - WORKER_BYTES) // max(1, threads))


def available_memory() -> int:
    """Bytes that a task may take: on this worker, else on the smallest of the current client, else on the machine."""
    from distributed import get_client, get_worker

    try:
        worker = get_worker()
    except ValueError:
        pass
    else:
        return task_memory(worker.memory_manager.memory_limit, worker.state.nthreads)
    try:
        workers = get_client().scheduler_info(n_workers=-1)["workers"].values()
    except ValueError:
        return task_memory(None, 1)
    shares = [task_memory(w["memory_limit"], w["nthreads"]) for w in workers]
    return min(shares, default=task_memory(None, 1))


def require_scan(
    field: Field,
    film: tuple[int, int, int],
    coarse: CoarseFilm,
    size: tuple[int, int],
    *,
    solver: str,
    final_iterations: int,
    available: int | None = None,
) -> None:
    """Refuse a scan that does not fit, before anything of it is computed.

    Parameters
    ----------
    field : Field
    film : tuple of int
        Voxels of the film (z, y, x).
    coarse : CoarseFilm
    size : tuple of int
        Pixels of a window (y, x).
    solver : str
    final_iterations : int
    available : int, optional
        Bytes that a task may take; by default what there is now.

    Raises
    ------
    CapacityError
    """
    available = available_memory() if available is None else available
    n_tilts, whole = len(field.matrices), math.prod(field.detector_shape)
    more = "or give each worker more memory (--memory-limit)"
    advice = f"scan a smaller field (crop the images at import), {more}."
    require_memory(coarse_bytes(coarse, field), "The coarse film", advice, available)

    def needed(size: tuple[int, int]) -> int:
        return window_bytes(window_shape(field, film, size), size, n_tilts, solver)

    fits = next((s for s in _smaller(size) if needed(s) <= available), None)
    smaller = f"use smaller windows (--window {fits[1]} {fits[0]}), " if fits else "use smaller windows (--window), "
    what = f"A window of {size[1]} x {size[0]} pixels"
    require_memory(needed(size), what, f"{smaller}a smaller thickness, {more}.", available)
    if final_iterations:
        advice = f"leave out the iterations over the whole film (final_iterations = 0), {more}."
        require_one_piece(film, n_tilts * whole, advice, available=available)


def _smaller(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Windows to advise, each a tenth smaller than the one before."""
    shares = [0.9**k for k in range(1, 25)]
    return [(y, x) for y, x in ((int(size[0] * s), int(size[1] * s)) for s in shares) if min(y, x) >= _SMALLEST]
