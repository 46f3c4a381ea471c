"""Who is near whom: neighbour pairs, mutual nearest pairs, rigid alignment of two sets of points."""

from .pairs import as_points, mutual_nearest, neighbour_pairs
from .rigid import RigidMotion, fit_rigid, register_rigid

__all__ = ["RigidMotion", "as_points", "fit_rigid", "mutual_nearest", "neighbour_pairs", "register_rigid"]
