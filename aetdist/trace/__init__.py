"""From a volume to the position of every atom."""

from ..voxels import noise_threshold
from .peaks import find_peaks, trace_atoms

__all__ = ["find_peaks", "noise_threshold", "trace_atoms"]
