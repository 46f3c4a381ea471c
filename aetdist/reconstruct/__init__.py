"""From a tilt series to a volume: RESIRE in one piece, or scanning AET in windows."""

from .resire import reconstruct_resire
from .scan import reconstruct_scan

__all__ = ["reconstruct_resire", "reconstruct_scan"]
