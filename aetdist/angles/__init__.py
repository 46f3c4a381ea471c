"""Euler angles and shifts of every tilt, against the reprojections of the volume."""

from .stage import apply_refinement
from .tilt_series import refine_angles

__all__ = ["apply_refinement", "refine_angles"]
