"""Slabs of a volume along the tilt axis: who keeps which voxels, sees which detector rows, and needs how much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..errors import CapacityError, InputError
from ..geometry import ParallelGeometry

_LONGEST_CHUNK = 128  # voxels along an axis of a stored chunk
_SLABS_PER_WORKER = 8  # thinner slabs need less scratch, but share more of their halo
# Bytes per voxel: iterate, extrapolated volume and support are kept; a step makes the volumes anew, or one of them and
# a transposed copy; a fifth more than was measured.
_KEPT_PER_VOXEL, _WORKING_PER_VOXEL = 9, 10
# Bytes per pixel: images, mask, projections and residual are kept; those of a slab are gathered, sheared and filtered.
_KEPT_PER_PIXEL, _WORKING_PER_PIXEL = 13, 28


@dataclass(frozen=True)
class Slab:
    """A range of rows of the volume and what it has to do with the detector; (start, stop) each.

    ``rows``: voxel rows y that it keeps. ``seen``: detector rows that its projections reach in any
    tilt. ``own``: detector rows whose images and residuals it keeps; every row has one owner.
    """

    rows: tuple[int, int]
    seen: tuple[int, int]
    own: tuple[int, int]

    @property
    def height(self) -> int:
        """Voxels along y."""
        return self.rows[1] - self.rows[0]

    def shared(self, owner: Slab) -> tuple[int, int] | None:
        """Detector rows of `owner` that this slab reaches, if there are any."""
        low, high = max(self.seen[0], owner.own[0]), min(self.seen[1], owner.own[1])
        return (low, high) if high > low else None


def slab_height(n_rows: int, n_slabs: int) -> int:
    """Rows of a slab, a whole number of stored chunks; the last one may have fewer.

    Raises
    ------
    InputError
        If there are more slabs than rows.
    """
    if not 1 <= n_slabs <= n_rows:
        raise InputError(f"{n_slabs} slabs were asked for; needed are 1 to {n_rows}, the rows of the volume along y.")
    height = math.ceil(n_rows / n_slabs)
    return _chunk_length(height) * math.ceil(height / _LONGEST_CHUNK)


def slab_chunks(shape: tuple[int, int, int], height: int) -> tuple[int, int, int]:
    """Chunk (z, y, x) of a stored volume, such that slabs of `height` rows are whole chunks."""
    nz, _, nx = shape
    return min(nz, _LONGEST_CHUNK), _chunk_length(height), min(nx, _LONGEST_CHUNK)


def _chunk_length(height: int) -> int:
    """Longest even piece of so many rows that is not too long for a chunk."""
    return math.ceil(height / math.ceil(height / _LONGEST_CHUNK))


def cut_slabs(geometry: ParallelGeometry, n_slabs: int) -> tuple[Slab, ...]:
    """Cut a volume along y.

    Parameters
    ----------
    geometry : ParallelGeometry
        Of the whole volume.
    n_slabs : int
        How many; rounding up to whole chunks may leave fewer.

    Returns
    -------
    tuple of Slab
        In the order of y.

    Raises
    ------
    InputError
        If there are more slabs than rows.

    Notes
    -----
    A point at y is seen at lab y = R_yy y + R_yx x + R_yz z: for a tilt about y the detector rows of a
    slab are its own rows; off-axis angles add a halo. Any other geometry is right too, with wide halos.
    """
    nz, ny, nx = geometry.volume_shape
    height = slab_height(ny, n_slabs)
    edges = [*range(0, ny, height), ny]
    n_detector = geometry.detector_shape[0]
    lab = float(geometry.matrices[:, 1, 1].mean()) * (geometry.volume_start[1] - 0.5 + np.array(edges))
    borders = np.clip(np.round(lab - geometry.detector_start[:, 0].mean() + 0.5).astype(int), 0, n_detector)
    ends = (0, n_detector) if borders[-1] >= borders[0] else (n_detector, 0)
    borders[0], borders[-1] = ends
    slabs = []
    for i, (start, stop) in enumerate(pairwise(edges)):
        rows, _ = geometry.part((0, start, 0), (nz, stop - start, nx)).footprint()
        seen = (rows.start, rows.stop) if rows.stop > rows.start else (0, 1)
        own = sorted(int(b) for b in borders[i : i + 2])
        slabs.append(Slab((start, stop), seen, (own[0], own[1])))
    return tuple(slabs)


def slab_geometry(geometry: ParallelGeometry, slab: Slab) -> ParallelGeometry:
    """The slab's voxels on the detector rows that they reach; the slabs' projections add up to the whole's."""
    nz, _, nx = geometry.volume_shape
    part = geometry.part((0, slab.rows[0], 0), (nz, slab.height, nx))
    return part.crop_detector(slice(*slab.seen), slice(0, geometry.detector_shape[1]))


def keeper(i: int, n_slabs: int, n_workers: int) -> int:
    """Number of the worker that keeps slab `i`: neighbours share one."""
    return i * min(n_workers, n_slabs) // n_slabs


def bytes_per_worker(geometry: ParallelGeometry, slabs: tuple[Slab, ...], n_workers: int, threads: int = 1) -> int:
    """Most bytes that any worker holds: what it keeps, and what as many steps as it has threads need."""
    nz, _, nx = geometry.volume_shape
    row = geometry.n_tilts * geometry.detector_shape[1]
    kept, working = [0] * n_workers, [[0] for _ in range(n_workers)]
    for i, slab in enumerate(slabs):
        voxels, worker = nz * nx * slab.height, keeper(i, len(slabs), n_workers)
        kept[worker] += _KEPT_PER_VOXEL * voxels + _KEPT_PER_PIXEL * row * (slab.own[1] - slab.own[0])
        working[worker].append(_WORKING_PER_VOXEL * voxels + _WORKING_PER_PIXEL * row * (slab.seen[1] - slab.seen[0]))
    return max(k + sum(sorted(w)[-threads:]) for k, w in zip(kept, working, strict=True))


def plan_slabs(
    geometry: ParallelGeometry, n_workers: int, available: int, *, slabs: int | str = "auto", threads: int = 1
) -> tuple[Slab, ...]:
    """Slabs that fit into the workers.

    Parameters
    ----------
    geometry : ParallelGeometry
        Of the whole volume.
    n_workers : int
    available : int
        Bytes that each worker may hold.
    slabs : int or "auto"
        "auto": one per worker, or more where their scratch would not fit.
    threads : int
        Tasks that a worker runs at a time.

    Returns
    -------
    tuple of Slab

    Raises
    ------
    InputError
        If the number of slabs is neither "auto" nor possible.
    CapacityError
        If they do not fit; the message says how much is needed, and how many workers would do.
    """
    ny = geometry.volume_shape[1]
    if isinstance(slabs, str) and slabs != "auto":
        raise InputError(f"slabs came as {slabs!r}; needed is a number of slabs, or 'auto'.")
    need = 0
    for n in _numbers(slabs, n_workers, ny):
        cut = cut_slabs(geometry, n)
        need = bytes_per_worker(geometry, cut, n_workers, threads)
        if need <= available:
            return cut
    enough = next((w for w in _more(n_workers, ny) if _fits(geometry, w, available, threads)), None)
    start = f"start {enough} workers of this size, " if enough else "start workers with "
    shape = " x ".join(str(n) for n in reversed(geometry.volume_shape))
    raise CapacityError(
        f"A volume of {shape} voxels in slabs needs {need / 2**30:.2f} GiB in each of {n_workers} workers, "
        f"{available / 2**30:.2f} GiB are available; {start}{'or give each ' if enough else ''}more memory "
        "(--memory-limit), or bin the images."
    )


def _numbers(slabs: int | str, n_workers: int, n_rows: int) -> list[int]:
    """Numbers of slabs to try, in this order."""
    if not isinstance(slabs, str):
        return [slabs]
    return sorted({min(n_rows, n_workers * k) for k in range(1, _SLABS_PER_WORKER + 1)})


def _more(n_workers: int, n_rows: int) -> list[int]:
    """Numbers of workers to advise, each a fourth more than the one before."""
    numbers, n = [], n_workers
    while n < n_rows:
        n = min(n_rows, max(n + 1, n * 5 // 4))
        numbers.append(n)
    return numbers


def _fits(geometry: ParallelGeometry, n_workers: int, available: int, threads: int) -> bool:
    return any(
        bytes_per_worker(geometry, cut_slabs(geometry, n), n_workers, threads) <= available
        for n in _numbers("auto", n_workers, geometry.volume_shape[1])
    )
