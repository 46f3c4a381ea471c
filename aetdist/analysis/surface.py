"""The surface of a finite sample: the alpha shape of its atoms, and how deep below it each atom lies.

The alpha shape of radius r is the union of the Delaunay tetrahedra whose circumsphere has a radius of at most r
(Edelsbrunner & Muecke, ACM Trans. Graph. 13, 43 (1994)); what a ball of that radius can enter from outside, or from a
hole that it fits in, is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.spatial import Delaunay, QhullError, cKDTree

from ..blocks.atoms import ATOMS_PER_BLOCK, atom_blocks, gather_owned, map_blocks
from ..errors import InputError
from ..neighbors import as_points
from ._inputs import atoms_of, check_spatial
from ._shape_kernels import boxes_of, count_crossings, measure_tetrahedra, nearest_squares
from ._tree_kernels import grow_tree

_NUDGE = 1e-8  # Angstrom; atoms of a perfect lattice then are cut into tetrahedra in one way only, in every block
_UNIT = 2.0**24  # volumes are summed as whole numbers of its inverse, in Angstrom^3: the order does not matter
_POINTS = 2 * ATOMS_PER_BLOCK  # of a block that is held against the faces
_TURN = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]  # along no direction of a lattice


@dataclass(frozen=True)
class AlphaShape:
    """The alpha shape of points; lengths in the unit of the points.

    Attributes
    ----------
    positions : ndarray, shape (n, 3), float64
        The points.
    radius : float
        Largest circumradius of a tetrahedron.
    tetrahedra : ndarray, shape (m, 4), int32
        Corners of each tetrahedron, rising; sorted.
    volumes : ndarray, shape (m,), float64
        Volume of each.
    circumradii : ndarray, shape (m,), float64
        Radius of the sphere through the corners of each.
    faces : ndarray, shape (f, 3), int32
        Corners of the boundary, rising; sorted: the triangles that belong to one tetrahedron only.
    used : ndarray, shape (n,), bool
        Points that are the corner of a tetrahedron.
    volume : float
        Volume of the shape; holes are not part of it.
    """

    positions: np.ndarray
    radius: float
    tetrahedra: np.ndarray
    volumes: np.ndarray
    circumradii: np.ndarray
    faces: np.ndarray
    used: np.ndarray
    volume: float

    @property
    def surface(self) -> np.ndarray:
        """Points on the boundary, or the corner of no tetrahedron; shape (n,), bool."""
        on = ~self.used
        on[self.faces] = True
        return on

    def depth(self, points: np.ndarray) -> np.ndarray:
        """How far each point is below the boundary.

        Parameters
        ----------
        points : ndarray, shape (k, 3), float64
            Any points.

        Returns
        -------
        ndarray, shape (k,), float64
            Distance from the nearest boundary face, negative outside the shape; NaN where there is no boundary.
        """
        points, triangles = self._with_faces(points)
        if not len(triangles):
            return np.full(len(points), np.nan)
        signed = _of_points(_block_of_depths, points, triangles)
        return np.copysign(np.sqrt(np.abs(signed)), signed) + 0.0  # no -0.0

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Which points, shape (k, 3), are inside the boundary; (k,) bool."""
        return _of_points(_block_of_crossings, *self._with_faces(points))

    def _with_faces(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points and the boundary's triangles, turned so that a ray along z meets no edge of a lattice."""
        return _turned(as_points(points)), _turned(self.positions)[self.faces]


def alpha_shape(
    positions: np.ndarray, radius: float, *, boundary_only: bool = False, largest: int = ATOMS_PER_BLOCK
) -> AlphaShape:
    """Computes: the alpha shape of atoms, block by block.

    A tetrahedron with a circumradius of at most `radius` is Delaunay where no atom lies in its circumsphere, which a
    block sees that looks twice the radius beyond the atoms it owns; a tetrahedron belongs to the block of its lowest
    atom. Atoms that share a sphere (a perfect lattice) are told apart by shifts of 1e-8 Angstrom.

    Parameters
    ----------
    positions : array_like, shape (n, 3), float
        Positions in Angstrom.
    radius : float
        Largest circumradius, in Angstrom.
    boundary_only : bool, default False
        Keep no tetrahedra, which take most of the memory: only boundary, volume, and which points are corners.
    largest : int
        Atoms of a block; the answer does not depend on it.

    Returns
    -------
    AlphaShape

    Raises
    ------
    InputError
        If there are fewer than 5 atoms, if all lie in a plane, or if the radius is not positive and finite.
    """
    positions = np.ascontiguousarray(as_points(positions))
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"The radius of the alpha shape is {radius}; needed is a positive length in Angstrom.")
    n = len(positions)
    if n < 5:
        raise InputError(f"{n} atoms came; an alpha shape needs 5 or more.")
    check_spatial(positions)
    nudge = np.random.default_rng(0).uniform(-_NUDGE, _NUDGE, positions.shape)
    blocks = atom_blocks(positions, 2 * radius, largest=largest)
    settings = {"radius": float(radius), "boundary_only": boundary_only}
    parts = map_blocks(_block, blocks, positions + nudge, np.arange(n, dtype=np.int32), **settings)
    tetrahedra, volumes, circumradii, faces = (np.concatenate([part[k] for part in parts]) for k in range(4))
    # The same for all blockings: a block sorts its own, and one lowest corner is in one block only.
    order, of_faces = (np.argsort(corners[:, 0], kind="stable") for corners in (tetrahedra, faces))
    used = gather_owned(blocks, [part[4] for part in parts], n)
    volume = sum(part[5] for part in parts) / _UNIT
    return AlphaShape(
        positions, float(radius), tetrahedra[order], volumes[order], circumradii[order], faces[of_faces], used, volume
    )


def find_surface(
    atoms: xr.Dataset | np.ndarray,
    *,
    radius: float = 5.0,
    field: tuple[float, float, float, float] | None = None,
    margin: float | None = None,
) -> xr.Dataset:
    """Computes: which atoms are at the surface of a sample, and how deep the others lie.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions in Angstrom.
    radius : float, default 5.0
        Of the ball that the surface keeps out, in Angstrom. The paper's analyses leave out surface atoms by 5.
    field : tuple of float, optional
        x0, x1, y0, y1 in Angstrom: the film goes on beyond this field, whose sides are no surface.
    margin : float, optional
        Atoms nearer than this to a side of the field, or beyond it, are neither surface nor interior (``side``), in
        Angstrom. Default: the radius.

    Returns
    -------
    xarray.Dataset
        ``surface`` (atom) bool: on the boundary of the alpha shape, or in none of its tetrahedra;
        ``depth`` (atom) Angstrom: distance from the nearest boundary face, negative outside the shape; NaN for atoms
        at a side, and an upper limit where a side of the field is nearer;
        ``side`` (atom) bool, with a field; ``volume`` Angstrom^3, ``radius`` Angstrom.

    Raises
    ------
    InputError
        If there are fewer than 5 atoms, they lie on one another or all in a plane, or the field is none.
    """
    positions, _ = atoms_of(atoms)
    shape = alpha_shape(positions, radius, boundary_only=True)
    if field is None:
        surface, depth, side = shape.surface, shape.depth(positions), None
    else:
        margin = radius if margin is None else margin
        side = beside(positions, field, margin)
        sides = beside(positions[shape.faces].mean(axis=1), field, margin)
        surface = ~shape.used
        surface[shape.faces[~sides]] = True
        surface &= ~side
        inside = shape.depth(positions) >= 0.0
        distance = distance_to_faces(positions, positions[shape.faces[~sides]])
        depth = np.where(side, np.nan, np.where(inside, distance, -distance) + 0.0)
    found = xr.Dataset(
        {
            "surface": ("atom", surface),
            "depth": ("atom", depth, {"units": "angstrom"}),
            "volume": ((), shape.volume, {"units": "angstrom^3"}),
            "radius": ((), float(radius), {"units": "angstrom"}),
        },
        {"atom": np.arange(len(positions))},
    )
    if side is not None:
        found["side"] = "atom", side
        found.attrs |= {"field": list(field or ()), "margin": float(margin or 0.0)}
    return found


def beside(points: np.ndarray, field: tuple[float, float, float, float], margin: float) -> np.ndarray:
    """Points nearer than a margin to a side of a film's field, or beyond it.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions in Angstrom.
    field : tuple of float
        x0, x1, y0, y1 in Angstrom.
    margin : float
        In Angstrom.

    Returns
    -------
    ndarray, shape (n,), bool

    Raises
    ------
    InputError
        If the field has no width, or none is left inside the margin.
    """
    x0, x1, y0, y1 = field
    if not (x1 - x0 > 2 * margin and y1 - y0 > 2 * margin and margin >= 0):
        raise InputError(
            f"field = {tuple(field)} with a margin of {margin} Angstrom leaves no interior; give x0, x1, y0, y1 in "
            "Angstrom with x0 < x1, y0 < y1, or a smaller margin."
        )
    x, y = points[:, 0], points[:, 1]
    return (x < x0 + margin) | (x > x1 - margin) | (y < y0 + margin) | (y > y1 - margin)


def _turned(points: np.ndarray) -> np.ndarray:
    """Points (n, 3) as a lattice is not; equal points stay equal to the bit."""
    return np.ascontiguousarray(points[:, :1] * _TURN[0] + points[:, 1:2] * _TURN[1] + points[:, 2:] * _TURN[2])


def surface_mask(positions: np.ndarray, surface: float | np.ndarray) -> np.ndarray:
    """Which atoms are at the surface, by the radius of the alpha shape or as a mask that is checked, (n,) bool."""
    if not np.ndim(surface):
        return alpha_shape(positions, float(surface), boundary_only=True).surface
    mask = np.asarray(surface)
    if mask.shape != (len(positions),) or mask.dtype != bool:
        raise InputError(
            f"surface came with shape {mask.shape} and dtype {mask.dtype}; needed is a radius in Angstrom, or True or "
            f"False for each of the {len(positions)} atoms."
        )
    return mask


def distance_to_faces(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Distance of points from the nearest of many triangles.

    Parameters
    ----------
    points : ndarray, shape (n, 3), float64
        Positions.
    triangles : ndarray, shape (m, 3, 3), float64
        Corners of the triangles, in the same unit.

    Returns
    -------
    ndarray, shape (n,), float64
        NaN where there are no triangles.
    """
    if not len(triangles):
        return np.full(len(points), np.nan)
    return np.sqrt(_of_points(_block_of_squares, np.ascontiguousarray(points, dtype=np.float64), triangles))


def _of_points(function: Callable[..., np.ndarray], points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """What a function of points and triangles says of every point, block by block."""
    if not len(points):
        return np.empty(0)
    blocks = atom_blocks(points, 0.0, largest=_POINTS)
    return gather_owned(blocks, map_blocks(function, blocks, points, tree=_tree_of(triangles)), len(points))


def _block_of_squares(core: np.ndarray, points: np.ndarray, *, tree: tuple[np.ndarray, ...]) -> np.ndarray:
    """Square of the distance of each of the block's own points from the nearest triangle."""
    points = points[core]
    near = cKDTree(tree[0].mean(axis=1)).query(points)[1].astype(np.int64)
    return nearest_squares(points, near, *tree)


def _block_of_crossings(core: np.ndarray, points: np.ndarray, *, tree: tuple[np.ndarray, ...]) -> np.ndarray:
    """Which of the block's own points are inside: the ray along z meets an odd number of triangles.

    The faces are the shape's boundary modulo 2, so that parity decides.
    """
    return count_crossings(points[core], *tree) % 2 == 1


def _block_of_depths(core: np.ndarray, points: np.ndarray, *, tree: tuple[np.ndarray, ...]) -> np.ndarray:
    """Squares of distances as `_block_of_squares`, negative outside."""
    squares = _block_of_squares(core, points, tree=tree)
    return np.where(_block_of_crossings(core, points, tree=tree), squares, -squares)


def _block(
    core: np.ndarray, positions: np.ndarray, numbers: np.ndarray, *, radius: float, boundary_only: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Tetrahedra, volumes, circumradii, boundary faces of a block, its own atoms that are corners, whole volume."""
    local = positions - positions.mean(axis=0)
    try:
        mesh = Delaunay(local)
    except QhullError as error:
        raise InputError(f"The atoms cannot be cut into tetrahedra: {str(error).splitlines()[0]}") from None
    circumradii, volumes = measure_tetrahedra(local, mesh.simplices)
    kept = circumradii <= radius
    boundary = kept[:, None] & ~((mesh.neighbors >= 0) & kept[mesh.neighbors])
    which, opposite = np.nonzero(boundary)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    faces = np.sort(mesh.simplices[which[:, None], others[opposite]], axis=1)
    faces = faces[core[faces[:, 0]]]
    used = np.zeros(len(local), bool)
    used[mesh.simplices[kept]] = True
    corners = np.sort(mesh.simplices, axis=1)
    own = np.flatnonzero(kept & core[corners[:, 0]])
    volume = int(np.round(volumes[own] * _UNIT).astype(np.int64).sum())
    own = own[:0] if boundary_only else own[_order_of_rows(corners[own])]
    faces = faces[_order_of_rows(faces)]
    return numbers[corners[own]], volumes[own], circumradii[own], numbers[faces], used[core], volume


def _order_of_rows(corners: np.ndarray) -> np.ndarray:
    """Order of tetrahedra or faces by their corners, which rise in every row."""
    return np.lexsort(corners.T[::-1])


def _tree_of(triangles: np.ndarray) -> tuple[np.ndarray, ...]:
    """Triangles in the order of a tree of boxes, and its nodes in preorder (see `nearest_squares`)."""
    order, _, _, begin, end, right = grow_tree(triangles.mean(axis=1))
    triangles = np.ascontiguousarray(triangles[order])
    low, high, after = boxes_of(triangles, begin, end, right)
    return triangles, low, high, begin, np.where(right > 0, begin, end), after
