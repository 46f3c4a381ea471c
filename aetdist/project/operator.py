"""A and A^T: projections of a voxel volume along the beam, and their exact transpose."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from ..errors import InputError
from ..geometry import ParallelGeometry
from . import _kernels as kernels
from .shear import ShearPlan, plan_shears


class ParallelProjector:
    """The linear map from a volume to its projections, and its exact transpose.

    Parameters
    ----------
    geometry : ParallelGeometry
        Voxel grid, detector and rotations, in voxels.
    threads : int
        Kernel threads; the result does not depend on them.

    Notes
    -----
    A projection is the sum over lab z in steps of one voxel: ``b(u, v) = integral V ds``. Rays
    are followed plane by plane along the principal axis of each tilt [1]_ (the axis nearest to
    the beam) with linear interpolation; a cubic B-spline warp takes the sheared image to the
    detector. A short symmetric filter between the two undoes the mean blur of both
    interpolations. The volume may be wider than the detector and the detector wider than the
    volume.

    References
    ----------
    .. [1] P. M. Joseph, IEEE Trans. Med. Imaging 1, 192 (1982); P. Lacroute and M. Levoy,
       Proc. SIGGRAPH 94, 451 (1994).
    """

    def __init__(self, geometry: ParallelGeometry, threads: int = 1) -> None:
        self.geometry = geometry
        self.threads = max(1, threads)
        self._plans = plan_shears(geometry)

    def __repr__(self) -> str:
        return f"ParallelProjector({self.geometry!r}, threads={self.threads})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(tilt, y, x)."""
        return (self.geometry.n_tilts, *self.geometry.detector_shape)

    def forward(self, volume: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Projections of a volume.

        Parameters
        ----------
        volume : ndarray, shape (z, y, x), float32
            Intensity per voxel.
        out : ndarray, shape (tilt, y, x), float32, optional
            Overwritten and returned.

        Returns
        -------
        ndarray, shape (tilt, y, x), float32
            Intensity summed along the beam.
        """
        memory = _y_major(_checked(volume, self.geometry.volume_shape, "volume"))
        images = np.empty(self.image_shape, np.float32) if out is None else out
        for plan in self._plans:
            data = _swapped(memory) if plan.transposed else memory
            sheared = np.zeros(plan.n_sheared, np.float32)

            def shear(
                rows: tuple[int, int], plan: ShearPlan = plan, data: np.ndarray = data, sheared: np.ndarray = sheared
            ) -> None:
                kernels.shear_forward(data.reshape(-1), plan.layout, *plan.arrays, sheared, *rows)

            def warp(part: range, plan: ShearPlan = plan, sheared: np.ndarray = sheared) -> None:
                for t in part:
                    image = plan.sheared_image(sheared, t)
                    if image.size == 0:
                        images[plan.tilts[t]] = 0
                        continue
                    image = _filter(image, plan.taps[t])
                    kernels.warp_forward(image, plan.inverse[t], plan.origin[t], plan.scale[t], images[plan.tilts[t]])

            self._each(shear, _split_rows(*plan.row_range, self.threads))
            self._each(warp, _split_range(len(plan.tilts), self.threads))
        return images

    def adjoint(self, images: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The transpose: ``<A x, y> = <x, A^T y>`` to rounding.

        Parameters
        ----------
        images : ndarray, shape (tilt, y, x), float32
        out : ndarray, shape (z, y, x), float32, optional
            A volume to which the result is added.

        Returns
        -------
        ndarray, shape (z, y, x), float32
        """
        images = np.ascontiguousarray(_checked(images, self.image_shape, "images"), dtype=np.float32)
        volume = empty_volume(self.geometry.volume_shape, 0.0) if out is None else out
        memory = _y_major(volume)
        for plan in self._plans:
            sheared = np.zeros(plan.n_sheared, np.float32)

            def warp(part: range, plan: ShearPlan = plan, sheared: np.ndarray = sheared) -> None:
                for t in part:
                    image = plan.sheared_image(sheared, t)
                    if image.size:
                        kernels.warp_adjoint(
                            images[plan.tilts[t]], plan.inverse[t], plan.origin[t], plan.scale[t], image
                        )
                        image[...] = _filter(image, plan.taps[t])

            target = np.zeros(plan.transposed_shape, np.float32) if plan.transposed else memory

            def shear(
                rows: tuple[int, int],
                plan: ShearPlan = plan,
                sheared: np.ndarray = sheared,
                target: np.ndarray = target,
            ) -> None:
                kernels.shear_adjoint(sheared, plan.layout, *plan.arrays, target.reshape(-1), *rows)

            self._each(warp, _split_range(len(plan.tilts), self.threads))
            self._each(shear, _split_rows(0, plan.layout[3], self.threads))
            if plan.transposed:
                kernels.transpose_last(target, memory, True)
        if not np.shares_memory(memory, volume):
            volume[...] = memory.transpose(1, 0, 2)
        return volume

    def _each(self, function, parts: list) -> None:  # type: ignore[no-untyped-def, type-arg]
        if len(parts) <= 1:
            for part in parts:
                function(part)
            return
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(function, parts))


def _filter(image: np.ndarray, taps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    first, second = np.empty_like(image), np.empty_like(image)
    kernels.filter_columns(image, taps[0], first)
    kernels.filter_rows(first, taps[1], second)
    return second


def empty_volume(shape: tuple[int, int, int], fill: float = 0.0) -> np.ndarray:
    """A float32 volume (z, y, x) whose memory is in the order (y, z, x), which the kernels want."""
    nz, ny, nx = shape
    memory = np.zeros((ny, nz, nx), np.float32) if fill == 0 else np.full((ny, nz, nx), fill, np.float32)
    return memory.transpose(1, 0, 2)


def _y_major(volume: np.ndarray) -> np.ndarray:
    """The volume as contiguous float32 memory (y, z, x): a view where it already is that, else a copy."""
    return np.ascontiguousarray(volume.transpose(1, 0, 2), dtype=np.float32)


def _swapped(memory: np.ndarray) -> np.ndarray:
    """A copy (y, x, z) of memory (y, z, x)."""
    ny, nz, nx = memory.shape
    copy = np.empty((ny, nx, nz), np.float32)
    kernels.transpose_last(memory, copy, False)
    return copy


def _checked(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if array.shape != shape:
        raise InputError(f"The {name} came with shape {array.shape}; the geometry needs {shape}.")
    return array


def _split_rows(start: int, stop: int, parts: int) -> list[tuple[int, int]]:
    edges = np.linspace(start, stop, parts + 1).astype(int)
    return [(int(a), int(b)) for a, b in pairwise(edges) if b > a]


def _split_range(n: int, parts: int) -> list[range]:
    return [range(a, b) for a, b in _split_rows(0, n, parts)]
