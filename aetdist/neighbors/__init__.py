"""Who is near whom: neighbour lists and pairs, mutual nearest pairs, rigid alignment of two sets of points."""

from .cells import NeighbourList, neighbour_list
from .images import periodic_images
from .pairs import as_points, mutual_nearest, neighbour_pairs
from .rigid import RigidMotion, fit_rigid, register_rigid

__all__ = [
    "NeighbourList",
    "RigidMotion",
    "as_points",
    "fit_rigid",
    "mutual_nearest",
    "neighbour_list",
    "neighbour_pairs",
    "periodic_images",
    "register_rigid",
]
