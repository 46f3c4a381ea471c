"""The images of a tilt series and its mask, joined from one or more files and read one tilt at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ._stack import Stack


@dataclass(frozen=True)
class SeriesSource:
    """Where a tilt series lies; small and picklable, nothing is open or read.

    Parameters
    ----------
    images : tuple of Stack
        Stacks joined along the tilts.
    masks : tuple of Stack
        Stacks not 0 where a pixel was measured; of one image where one mask holds for all tilts.
    nan_is_unmeasured : bool
        Pixels that are NaN or infinite were not measured (then there are no `masks`).
    """

    images: tuple[Stack, ...]
    masks: tuple[Stack, ...] = ()
    nan_is_unmeasured: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(tilt, y, x) of the joined images."""
        return _joined(self.images)

    def check(self) -> None:
        """Refuse images and masks that do not fit together.

        Raises
        ------
        InputError
            If files differ in size, the images are only True and False, or the mask has another shape.
        """
        for group, what in ((self.images, "images"), (self.masks, "mask")):
            for stack in group:
                if stack.shape[1:] != group[0].shape[1:]:
                    raise InputError(
                        f"Files of the {what} differ in size: {group[0].path} has {group[0].shape[1:]} pixels (y, x), "
                        f"{stack.path} {stack.shape[1:]}; needed are images of one size."
                    )
        for stack in self.images:
            if np.dtype(stack.dtype) == bool:
                raise InputError(f"The images in {stack.path} are only True and False; name the images, not the mask.")
        if self.masks:
            mask, images = _joined(self.masks), self.shape
            if mask[1:] != images[1:] or mask[0] not in (1, images[0]):
                raise InputError(
                    f"The mask has shape {mask}, the images {images}; needed is a mask for each image, or one for all."
                )

    def read(self, tilt: int) -> tuple[np.ndarray, np.ndarray]:
        """Image `tilt` before masking (float32) and its mask (bool), both of shape (y, x)."""
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which the import looks for
            image = _read(self.images, tilt).astype(np.float32)
        return image, np.isfinite(image) if self.nan_is_unmeasured else self.read_mask(tilt)

    def read_mask(self, tilt: int) -> np.ndarray:
        """Mask of image `tilt`, shape (y, x), bool; reads no more than it needs."""
        if self.nan_is_unmeasured:
            return self.read(tilt)[1]
        if not self.masks:
            return np.ones(self.shape[1:], dtype=bool)
        values = _read(self.masks, 0 if _joined(self.masks)[0] == 1 else tilt)
        return (values != 0) & (values == values)  # a mask of NaN is no measurement either


def _joined(stacks: tuple[Stack, ...]) -> tuple[int, int, int]:
    _, ny, nx = stacks[0].shape
    return sum(stack.shape[0] for stack in stacks), ny, nx


def _read(stacks: tuple[Stack, ...], tilt: int) -> np.ndarray:
    for stack in stacks:
        if tilt < stack.shape[0]:
            return stack.read(tilt)
        tilt -= stack.shape[0]
    raise IndexError(tilt)
