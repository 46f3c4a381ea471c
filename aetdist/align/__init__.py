"""Shift of every tilt and direction of the tilt axis, found and applied; repeated tilts compared."""

from .stage import apply_alignment, shift_images
from .tilt_series import align_tilt_series

__all__ = ["align_tilt_series", "apply_alignment", "shift_images"]
