"""Who is near whom: neighbour pairs, mutual nearest pairs, rigid alignment of two sets of points."""

from .pairs import mutual_nearest, neighbour_pairs
from .rigid import RigidMotion, fit_rigid, register_rigid

__all__ = ["RigidMotion", "fit_rigid", "mutual_nearest", "neighbour_pairs", "register_rigid"]
