"""Euler angles and shifts of every tilt, against the reprojections of the volume."""
