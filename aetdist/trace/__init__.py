"""From a volume to the position of every atom."""

from .peaks import find_peaks, trace_atoms
from .threshold import noise_threshold

__all__ = ["find_peaks", "noise_threshold", "trace_atoms"]
