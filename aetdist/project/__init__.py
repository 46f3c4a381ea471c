"""A and A^T: projections of volumes and of atoms."""

from .operator import ParallelProjector, empty_volume

__all__ = ["ParallelProjector", "empty_volume"]
