"""Shift of every tilt and direction of the tilt axis, found and applied."""

from .stage import apply_alignment, shift_images

__all__ = ["apply_alignment", "shift_images"]
