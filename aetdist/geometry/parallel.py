"""The parallel-beam geometry of a voxel grid and a tilt series, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class ParallelGeometry:
    """A voxel grid, a detector and the rotations between them; every length in voxels.

    Parameters
    ----------
    matrices : ndarray, shape (n, 3, 3), float64
        ``lab = R @ sample`` of every tilt.
    volume_shape : tuple of int
        (nz, ny, nx).
    volume_start : tuple of float
        Sample coordinates (z, y, x) of voxel [0, 0, 0].
    detector_shape : tuple of int
        (ny, nx) of every projection.
    detector_start : ndarray, shape (n, 2), float64
        Lab coordinates (y, x) of pixel [0, 0] of every projection. They may differ from tilt to
        tilt and be fractional: a crop that follows the object needs no resampling.
    whole : tuple, optional
        Start and shape of the volume of which this one is a part: the parts' projections then add
        up to those of the whole.
    """

    matrices: np.ndarray
    volume_shape: tuple[int, int, int]
    volume_start: tuple[float, float, float]
    detector_shape: tuple[int, int]
    detector_start: np.ndarray
    whole: tuple[tuple[float, float, float], tuple[int, int, int]] | None = None

    def __post_init__(self) -> None:
        n = len(self.matrices)
        if self.matrices.shape != (n, 3, 3) or n == 0:
            raise InputError(
                f"Rotation matrices came with shape {self.matrices.shape}; needed is (tilts, 3, 3), tilts > 0."
            )
        products = self.matrices @ np.swapaxes(self.matrices, 1, 2)
        wrong = np.flatnonzero(~np.isclose(products, np.eye(3), rtol=0, atol=1e-3).all(axis=(1, 2)))
        if wrong.size:
            raise InputError(
                f"The matrix of tilt {wrong[0]} is no rotation, so that the beam has no direction in the volume; "
                "needed are finite angles, or matrices R with R R^T = 1."
            )
        if min(self.volume_shape) < 1 or min(self.detector_shape) < 1:
            raise InputError(
                f"Volume {self.volume_shape} and detector {self.detector_shape} need a voxel or more along every axis."
            )
        if self.detector_start.shape != (n, 2):
            raise InputError(f"detector_start came with shape {self.detector_start.shape}; needed is ({n}, 2).")

    @property
    def n_tilts(self) -> int:
        """Number of projections."""
        return len(self.matrices)

    @classmethod
    def centred(
        cls, matrices: np.ndarray, volume_shape: tuple[int, int, int], detector_shape: tuple[int, int]
    ) -> ParallelGeometry:
        """Volume and detector centred (voxel n // 2) on the origin of the rotation."""
        start = np.array([-(n // 2) for n in detector_shape], dtype=np.float64)
        return cls(
            np.asarray(matrices, dtype=np.float64),
            volume_shape,
            tuple(float(-(n // 2)) for n in volume_shape),  # type: ignore[arg-type]
            detector_shape,
            np.tile(start, (len(matrices), 1)),
        )

    def part(self, first: tuple[int, int, int], shape: tuple[int, int, int]) -> ParallelGeometry:
        """The block of `shape` voxels from voxel `first` (z, y, x) on, seen by the same detector."""
        z, y, x = (s + f for s, f in zip(self.volume_start, first, strict=True))
        whole = self.whole or (self.volume_start, self.volume_shape)
        return replace(self, volume_start=(z, y, x), volume_shape=shape, whole=whole)

    def footprint(self, margin: int = 10) -> tuple[slice, slice]:
        """Detector rows and columns that the volume can reach at any tilt, `margin` pixels included."""
        start, shape = np.array(self.volume_start), np.array(self.volume_shape)
        corners = np.array([start + (shape - 1) * c for c in np.ndindex(2, 2, 2)])[:, ::-1]  # (x, y, z)
        lab = np.einsum("nij,cj->nci", self.matrices[:, :2], corners)[:, :, ::-1] - self.detector_start[:, None]
        low = np.floor(lab.min(axis=(0, 1))).astype(int) - margin
        high = np.ceil(lab.max(axis=(0, 1))).astype(int) + margin + 1
        rows, columns = (
            slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, self.detector_shape, strict=True)
        )
        return slice(rows.start, max(rows.start, rows.stop)), slice(columns.start, max(columns.start, columns.stop))

    def crop_detector(self, rows: slice, columns: slice) -> ParallelGeometry:
        """The same volume on a part of the detector."""
        return replace(
            self,
            detector_shape=(rows.stop - rows.start, columns.stop - columns.start),
            detector_start=self.detector_start + np.array([rows.start, columns.start], dtype=np.float64),
        )

    def select_tilts(self, tilts: slice | np.ndarray) -> ParallelGeometry:
        """The same grid seen at some of the tilts."""
        return replace(self, matrices=self.matrices[tilts], detector_start=self.detector_start[tilts])
