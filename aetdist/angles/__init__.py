"""Euler angles and shifts of every tilt, against the reprojections of the volume."""

from .tilt_series import refine_angles

__all__ = ["refine_angles"]
