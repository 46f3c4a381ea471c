"""Volume blocks x groups of tilts: partial projections are summed; volumes stay where they are."""

from __future__ import annotations

import itertools

import dask
import dask.array as da
import numpy as np

from ..geometry import ParallelGeometry
from ..project.operator import ParallelProjector

_VOXEL_TILTS_PER_TASK = 5e8  # some 0.2 s of arithmetic
_IMAGE_BYTES_PER_TASK = 2**27


def tilts_per_task(block_voxels: int, detector_pixels: int, n_tilts: int) -> int:
    """How many tilts one task projects: enough arithmetic for a task, images that fit."""
    by_time = int(np.ceil(_VOXEL_TILTS_PER_TASK / max(1, block_voxels)))
    by_memory = max(1, _IMAGE_BYTES_PER_TASK // (4 * max(1, detector_pixels)))
    return max(1, min(n_tilts, by_time, by_memory))


def project_blocks(volume: da.Array, geometry: ParallelGeometry, group: int | None = None) -> da.Array:
    """Projections of a chunked volume; building the graph computes nothing.

    Parameters
    ----------
    volume : dask.array.Array, shape (z, y, x)
    geometry : ParallelGeometry
    group : int, optional
        Tilts per task.

    Returns
    -------
    dask.array.Array, shape (tilt, y, x), float32
        Chunked along the tilts.
    """
    largest = int(np.prod([max(c) for c in volume.chunks]))
    group = group or tilts_per_task(largest, int(np.prod(geometry.detector_shape)), geometry.n_tilts)
    starts = [np.concatenate([[0], np.cumsum(c)[:-1]]) for c in volume.chunks]
    blocks = volume.to_delayed()
    images = []
    for first in range(0, geometry.n_tilts, group):
        seen = geometry.select_tilts(slice(first, first + group))
        parts = []
        for index in itertools.product(*(range(n) for n in volume.numblocks)):
            corner = tuple(int(s[i]) for s, i in zip(starts, index, strict=True))
            shape = tuple(c[i] for c, i in zip(volume.chunks, index, strict=True))
            part = seen.part(corner, shape)  # type: ignore[arg-type]
            rows, columns = part.footprint()
            if rows.stop > rows.start and columns.stop > columns.start:
                parts.append((rows, columns, _project(blocks[index], part.crop_detector(rows, columns))))
        images.append(
            da.from_delayed(
                _sum_parts(parts, seen.n_tilts, seen.detector_shape), (seen.n_tilts, *seen.detector_shape), np.float32
            )
        )
    return da.concatenate(images, axis=0)


@dask.delayed(pure=True)
def _project(block: np.ndarray, geometry: ParallelGeometry) -> np.ndarray:
    return ParallelProjector(geometry).forward(np.asarray(block))


@dask.delayed(pure=True)
def _sum_parts(parts: list, n_tilts: int, detector_shape: tuple[int, int]) -> np.ndarray:  # type: ignore[type-arg]
    images = np.zeros((n_tilts, *detector_shape), np.float32)
    for rows, columns, part in parts:
        images[:, rows, columns] += part
    return images
