"""A volume that predicts images: in one piece in memory, or read slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr

from ..geometry import ParallelGeometry, grid_step
from ..project import ParallelProjector

_SLAB_BYTES = 2**28  # of a volume that is read slab by slab


@dataclass(frozen=True, eq=False)
class Model:
    """A volume on the grid of the tilt series' pixels, and the detector that sees it; lengths in voxels.

    Parameters
    ----------
    shape : tuple of int
        Voxels (nz, ny, nx).
    start : tuple of float
        Sample coordinates (z, y, x) of voxel [0, 0, 0].
    detector_shape : tuple of int
        Pixels (ny, nx).
    detector_start : tuple of float
        Lab coordinates (y, x) of pixel [0, 0] of an image that is not shifted.
    edges : tuple of int
        First rows of the slabs along y, and the end of the last one.
    load : callable
        Gives the rows first..end - 1 as float32 (z, rows, x).
    """

    shape: tuple[int, int, int]
    start: tuple[float, float, float]
    detector_shape: tuple[int, int]
    detector_start: tuple[float, float]
    edges: tuple[int, ...]
    load: Callable[[int, int], np.ndarray]

    def geometry(self, matrices: np.ndarray, shifts: np.ndarray) -> ParallelGeometry:
        """The grid as it is seen by images that are shifted by `shifts` (tilt, [y, x]) pixels."""
        starts = np.asarray(self.detector_start) - np.asarray(shifts, dtype=np.float64)
        return ParallelGeometry(np.asarray(matrices), self.shape, self.start, self.detector_shape, starts)

    def predict(self, matrices: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What images at these rotations and shifts would show.

        Parameters
        ----------
        matrices : ndarray, shape (tilt, 3, 3)
            lab = R @ sample.
        shifts : ndarray, shape (tilt, 2)
            Pixels [y, x]: what lies at r without a shift is seen at r + shift.

        Returns
        -------
        images, moments : ndarray, shape (tilt, y, x), float32
            Sum of V and of z V along the beam (:meth:`~aetdist.project.ParallelProjector.moments`).
        starts : ndarray, shape (tilt, 2), float64
            Lab coordinates (y, x) of pixel [0, 0] of every image.
        """
        whole = self.geometry(matrices, shifts)
        images = np.zeros((whole.n_tilts, *whole.detector_shape), np.float32)
        moments = np.zeros_like(images)
        for projector, volume, where in self._parts(whole):
            seen, height = projector.moments(volume)
            images[where] += seen
            moments[where] += height
        return images, moments, whole.detector_start

    def images(self, matrices: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """The images of `predict` alone, (tilt, y, x) float32."""
        whole = self.geometry(matrices, shifts)
        images = np.zeros((whole.n_tilts, *whole.detector_shape), np.float32)
        for projector, volume, where in self._parts(whole):
            images[where] += projector.forward(volume)
        return images

    def _parts(
        self, whole: ParallelGeometry
    ) -> Iterator[tuple[ParallelProjector, np.ndarray, tuple[slice, slice, slice]]]:
        """Projectors of the slabs, the slabs, and the pixels that see them."""
        for first, end in pairwise(self.edges):
            part = whole.part((0, first, 0), (self.shape[0], end - first, self.shape[2]))
            rows, columns = part.footprint()
            if rows.stop > rows.start and columns.stop > columns.start:
                projector = ParallelProjector(part.crop_detector(rows, columns))
                yield projector, self.load(first, end), (slice(None), rows, columns)


def model_in_memory(
    memory: np.ndarray,
    start: tuple[float, float, float],
    detector_shape: tuple[int, int],
    detector_start: tuple[float, float],
) -> Model:
    """A model of a volume in memory, whose order is that of the kernels: float32 (y, z, x)."""
    ny, nz, nx = memory.shape

    def load(first: int, end: int) -> np.ndarray:
        return memory[first:end].transpose(1, 0, 2)

    return Model((nz, ny, nx), start, detector_shape, detector_start, (0, ny), load)


def model_in_slabs(
    density: xr.DataArray, detector_shape: tuple[int, int], detector_start: tuple[float, float]
) -> Model:
    """A model of a lazy volume (z, y, x), of which one slab at a time is read."""
    shape = tuple(density.sizes[axis] for axis in "zyx")
    size = grid_step(density["x"].values)
    start = tuple(float(density[axis].values[0]) / size for axis in "zyx")
    rows = max(1, _SLAB_BYTES // (4 * shape[0] * shape[2]))

    def load(first: int, end: int) -> np.ndarray:
        part = density.isel(y=slice(first, end)).compute(scheduler="synchronous")
        return np.asarray(part.values, dtype=np.float32)

    edges = (*range(0, shape[1], rows), shape[1])
    return Model(shape, start, detector_shape, detector_start, edges, load)  # type: ignore[arg-type]


def model_of(
    source: np.ndarray | xr.DataArray,
    start: tuple[float, float, float],
    detector_shape: tuple[int, int],
    detector_start: tuple[float, float],
) -> Model:
    """A model of a volume in memory (y, z, x), or of a lazy one, which knows itself where it starts."""
    if isinstance(source, xr.DataArray):
        return model_in_slabs(source, detector_shape, detector_start)
    return model_in_memory(source, start, detector_shape, detector_start)


def kernel_memory(volume: np.ndarray) -> np.ndarray:
    """The memory (y, z, x), float32, of a volume (z, y, x): without a copy where it lies so."""
    return np.ascontiguousarray(volume.transpose(1, 0, 2), dtype=np.float32)


def as_volume(memory: np.ndarray) -> np.ndarray:
    """The volume (z, y, x) that lies in such a memory."""
    return memory.transpose(1, 0, 2)
