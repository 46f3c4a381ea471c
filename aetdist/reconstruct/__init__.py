"""From a tilt series to a volume: RESIRE in one piece or in slabs, or scanning AET in windows."""

from .resire import reconstruct_resire
from .scan import reconstruct_scan
from .slabs import reconstruct_slabs

__all__ = ["reconstruct_resire", "reconstruct_scan", "reconstruct_slabs"]
