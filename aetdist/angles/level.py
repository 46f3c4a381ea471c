"""A tilt series and its volume's grid, coarser by a whole factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import ParallelGeometry


@dataclass(frozen=True, eq=False)
class Level:
    """Images averaged over blocks of pixels, and the grid of voxels as large as the blocks.

    Parameters
    ----------
    factor : int
        Edge of a block in pixels.
    images : ndarray, shape (tilt, y, x), float32
        0 where the mask is False.
    masks : ndarray, shape (tilt, y, x), bool
        Blocks of which at least half was measured.
    fine : ParallelGeometry
        Of the images as they came, unshifted.
    """

    factor: int
    images: np.ndarray
    masks: np.ndarray
    fine: ParallelGeometry

    @classmethod
    def of(cls, images: np.ndarray, masks: np.ndarray, fine: ParallelGeometry, factor: int) -> Level:
        """Average images (tilt, y, x) float32 over measured pixels (bool); rows and columns that remain are dropped."""
        ny, nx = (n // factor for n in images.shape[1:])
        blocks = (len(images), ny, factor, nx, factor)
        seen = masks[:, : ny * factor, : nx * factor].reshape(blocks)
        count = seen.sum(axis=(2, 4))
        total = np.where(seen, images[:, : ny * factor, : nx * factor].reshape(blocks), 0).sum(axis=(2, 4))
        enough = 2 * count >= factor**2
        return cls(factor, np.where(enough, total / np.maximum(count, 1), 0).astype(np.float32), enough, fine)

    def geometry(self, matrices: np.ndarray, shifts: np.ndarray) -> ParallelGeometry:
        """Lengths in blocks; `shifts` (tilt, [y, x]) in pixels of the images as they came."""
        fine, f = self.fine, self.factor
        middle = (f - 1) / 2
        nz, ny, nx = (-(-n // f) for n in fine.volume_shape)
        z, y, x = ((s + middle) / f for s in fine.volume_start)
        starts = (fine.detector_start - shifts + middle) / f
        return ParallelGeometry(matrices, (nz, ny, nx), (z, y, x), self.images.shape[1:], starts)  # type: ignore[arg-type]
