"""From a volume to the position of every atom."""

from ..voxels import noise_threshold
from .peaks import find_peaks, trace_atoms
from .support import find_support

__all__ = ["find_peaks", "find_support", "noise_threshold", "trace_atoms"]
