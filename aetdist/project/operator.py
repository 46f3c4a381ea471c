"""A and A^T: projections of a voxel volume along the beam, and their exact transpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from ..errors import InputError
from ..geometry import ParallelGeometry
from ._kernels import shear_adjoint, shear_forward
from ._warp_kernels import warp_adjoint, warp_forward
from .shear import ShearPlan, TiltShear, plan_shears, shear_tilts

_VOXEL_TILTS_PER_THREAD = 10_000_000  # a few milliseconds; with less, threads cost more than they save

_NO_WEIGHTS = np.empty(0, np.float32)
Part = tuple[int, int]  # first and end of a stretch of tilts or rows


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
        self._plan(geometry, threads, shear_tilts(geometry))

    def _plan(self, geometry: ParallelGeometry, threads: int, tilts: Sequence[TiltShear]) -> None:
        self.geometry, self.threads, self._tilts = geometry, max(1, threads), tilts
        self._plans = plan_shears(tilts, geometry.volume_shape)

    def __repr__(self) -> str:
        return f"ParallelProjector({self.geometry!r}, threads={self.threads})"

    def select_tilts(self, tilts: slice | np.ndarray) -> ParallelProjector:
        """The projector of some of the tilts (a slice, or int (n,)), without planning them again."""
        chosen = type(self).__new__(type(self))
        selected = [self._tilts[t] for t in np.arange(len(self._tilts))[tilts]]
        chosen._plan(self.geometry.select_tilts(tilts), self.threads, selected)
        return chosen

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
        return self._project(volume, [_NO_WEIGHTS] * len(self._plans), out)

    def moments(self, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projections of a volume, and how high above the laboratory's plane z = 0 their intensity lies.

        Parameters
        ----------
        volume : ndarray, shape (z, y, x), float32
            Intensity per voxel.

        Returns
        -------
        images, moments : ndarray, shape (tilt, y, x), float32
            Sum of V and of lab z V over lab z, z in voxels.

        Notes
        -----
        The sample's coordinate q along the principal axis of a tilt is one number for each plane, so that the
        projection of q V costs what that of V costs; q = R_0q x + R_1q y + R_2q z in the laboratory gives z.
        """
        geometry = self.geometry
        axes = [self._tilts[plan.warps.tilt[0]].axis for plan in self._plans]
        images = self.forward(volume)
        moments = self._project(
            volume,
            [
                np.float32(geometry.volume_start[a]) + np.arange(geometry.volume_shape[a], dtype=np.float32)
                for a in axes
            ],
        )
        for t, tilt in enumerate(self._tilts):
            rotation = geometry.matrices[t][:, 2 - tilt.axis]
            y, x = (s + np.arange(n) for s, n in zip(geometry.detector_start[t], geometry.detector_shape, strict=True))
            seen = (rotation[1] * y[:, None] + rotation[0] * x).astype(np.float32)
            moments[t] = (moments[t] - seen * images[t]) / np.float32(rotation[2])
        return images, moments

    def _project(self, volume: np.ndarray, weights: Sequence[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        """Projections of a volume whose planes along the principal axis of each plan are weighted."""
        memory = _y_major(_checked(volume, self.geometry.volume_shape, "volume")).reshape(-1)
        images = np.empty(self.image_shape, np.float32) if out is None else out
        for plan, factors in zip(self._plans, weights, strict=True):
            sheared = np.empty(plan.n_sheared, np.float32)

            def project(
                tilts: Part, plan: ShearPlan = plan, factors: np.ndarray = factors, sheared: np.ndarray = sheared
            ) -> None:
                shear_forward(memory, plan.layout, plan.shears, tilts, factors, sheared)
                warp_forward(sheared, plan.warps, tilts, images)

            self._each(project, plan.n_tilts)
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
            sheared = np.empty(plan.n_sheared, np.float32)

            def unwarp(tilts: Part, plan: ShearPlan = plan, sheared: np.ndarray = sheared) -> None:
                warp_adjoint(images, plan.warps, tilts, sheared)

            def spread(rows: Part, plan: ShearPlan = plan, sheared: np.ndarray = sheared) -> None:
                shear_adjoint(sheared, plan.layout, plan.shears, rows, memory.reshape(-1))

            self._each(unwarp, plan.n_tilts)
            self._each(spread, plan.layout[4])
        if not np.shares_memory(memory, volume):
            volume[...] = memory.transpose(1, 0, 2)
        return volume

    def _each(self, function: Callable[[Part], None], n: int) -> None:
        """Call `function` with parts of 0..n - 1, one for each thread that has enough to do."""
        worth = int(np.prod(self.geometry.volume_shape)) * self.geometry.n_tilts // _VOXEL_TILTS_PER_THREAD
        edges = np.linspace(0, n, max(1, min(self.threads, n, worth)) + 1).astype(int).tolist()
        if len(edges) == 2:
            function((0, n))
            return
        with ThreadPoolExecutor(len(edges) - 1) as pool:
            list(pool.map(function, pairwise(edges)))


def empty_volume(shape: tuple[int, int, int], fill: float = 0.0) -> np.ndarray:
    """A float32 volume (z, y, x) whose memory is in the order (y, z, x), which the kernels want."""
    nz, ny, nx = shape
    memory = np.zeros((ny, nz, nx), np.float32) if fill == 0 else np.full((ny, nz, nx), fill, np.float32)
    return memory.transpose(1, 0, 2)


def _y_major(volume: np.ndarray) -> np.ndarray:
    """The volume as contiguous float32 memory (y, z, x): a view where it already is that, else a copy."""
    return np.ascontiguousarray(volume.transpose(1, 0, 2), dtype=np.float32)


def _checked(array: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if array.shape != shape:
        raise InputError(f"The {name} came with shape {array.shape}; the geometry needs {shape}.")
    return array
