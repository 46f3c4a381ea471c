"""Voronoi cells of the atoms: indices, volumes, faces."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from scipy.spatial import ConvexHull, cKDTree

from ..blocks.atoms import ATOMS_PER_BLOCK, AtomBlock, atom_blocks, map_blocks
from ..errors import InputError
from ..neighbors import neighbour_list
from ._inputs import atoms_of
from ._voronoi_kernels import CLOSED, OPEN, voronoi_cells

EDGES = np.array([3, 4, 5, 6])
"""The faces that an index counts, by their edges."""
_NEAR = 40  # neighbours within the first radius: enough to close nearly every cell inside a dense sample
_WIDER = 2.0  # from one halo to the next
_MARGIN = 1.0 + 1e-9  # for rounding
_FLAT = 1e-6  # a sample whose thickness is a smaller part of its width is a plane


def voronoi_indices(
    atoms: xr.Dataset | np.ndarray,
    *,
    smallest_face: float = 0.01,
    recomputed: bool = True,
    convention: Literal["yang2021"] | None = None,
    shortest_edge: float = 1e-6,
    largest_block: int = ATOMS_PER_BLOCK,
) -> xr.Dataset:
    """Computes: the Voronoi cell of every atom, and the faces that its index counts.

    Cells are those of all atoms, without walls. Faces with less than `smallest_face` of their cell's area are dropped,
    and the cell is built once more from the neighbours that are left: its index <n3, n4, n5, n6> is the number of
    faces with 3, 4, 5 and 6 edges.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions (x, y, z) in Angstrom; 5 or more that do not lie in a plane.
    smallest_face : float
        Part of the cell's area, 0 or more and below 1.
    recomputed : bool
        False: faces are dropped, but the cell is not built again; the edges that they cut off are still counted.
    convention : {"yang2021"}, optional
        "yang2021": areas of pentagons as in the published script, by which it finds the faces that it drops. It takes
        the cross products of the triangles of a fan along the wrong axis of a 3 x 3 array, so its indices depend on
        how the sample lies.
    shortest_edge : float
        Shorter edges are not counted, in Angstrom. Where more than three faces meet in a corner, as in crystals,
        rounding turns the corner into edges of 1e-12 Angstrom; positions with few decimals need more than the default.
    largest_block : int
        Atoms that one task owns at most; the answer does not depend on it.

    Returns
    -------
    xarray.Dataset
        ``voronoi_index`` (atom, edges), int16, faces with 3, 4, 5 and 6 edges, and ``n_faces`` (atom), int16, all of
        them; -1 where there is no index. ``volume`` (atom), float64, Angstrom^3, of the cell before faces were
        dropped, NaN where unbounded. ``unbounded`` (atom), bool: atoms on the convex hull. The faces, atom by atom
        and by rising neighbour: ``face_atom``, ``face_neighbour`` (face), int64, ``face_area`` (face), float64,
        Angstrom^2, ``face_edges`` (face), int16. Cells that are unbounded, also without the dropped faces, have none.

    Raises
    ------
    InputError
        If positions are not finite triples, are fewer than 5, lie in a plane or on one another, or if a keyword makes
        no sense.

    Notes
    -----
    A plane half-way to a neighbour can cut a cell only if the neighbour is nearer than twice the cell's farthest
    corner [1]_; neighbours are tried by rising distance until then. A block of atoms is cut with a halo in which an
    atom has 40 neighbours or so. Cells with a corner farther away than half the halo stay open: only atoms with open
    cells can still be neighbours of one another, as a corner is equally far from all of its atoms. Those are
    cut with a halo twice as wide, and so on. Every cell is cut by the same neighbours in the same order, whatever the
    blocks are.

    References
    ----------
    .. [1] C. H. Rycroft, Chaos 19, 041111 (2009).
    .. [2] Y. Yang et al., Nature 592, 60-64 (2021), Methods, "Voronoi tessellation".
    """
    if not 0 <= smallest_face < 1:
        raise InputError(f"smallest_face came as {smallest_face}; needed is a part of a cell's area from 0 to below 1.")
    if not (np.isfinite(shortest_edge) and shortest_edge >= 0):
        raise InputError(f"shortest_edge came as {shortest_edge}; needed is a length in Angstrom of 0 or more.")
    if convention not in (None, "yang2021"):
        raise InputError(f"convention came as {convention!r}; needed is None or 'yang2021'.")
    if largest_block < 1:
        raise InputError(f"largest_block came as {largest_block}; needed is 1 atom or more.")
    positions, _ = atoms_of(atoms)
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    if spread[2] <= _FLAT * spread[0]:
        raise InputError("All atoms lie in one plane, where no Voronoi cell is closed; needed are atoms in space.")
    settings = {
        "smallest_face": float(smallest_face),
        "recomputed": bool(recomputed),
        "shortest_edge": float(shortest_edge),
    }
    parts, unbounded = _cut_cells(positions, largest_block, {**settings, "published": convention == "yang2021"})
    found = _dataset(len(positions), parts, unbounded)
    return found.assign_attrs(settings, convention=convention or "")


def _cut_cells(positions: np.ndarray, largest: int, settings: dict) -> tuple[list[tuple[np.ndarray, ...]], np.ndarray]:
    """Cut the cells of all atoms, with a wider halo for those that are still open; give them and the convex hull."""
    inner = _first_radius(positions)
    width = float(np.linalg.norm(np.ptp(positions, axis=0)))
    outer, reach, hull = inner, np.full(len(positions), np.inf), np.zeros(len(positions), bool)
    blocks, parts = atom_blocks(positions, inner, largest=largest), []
    while blocks:
        results = map_blocks(_cells_of_block, blocks, positions, reach, inner=inner, outer=outer, **settings)
        is_open = hull.copy()
        for block, (state, farthest, *cells, neighbour, area, edges) in zip(blocks, results, strict=True):
            owned, done = block.members[block.core], state != OPEN
            reach[owned], is_open[owned] = _MARGIN * farthest, ~done
            parts.append((owned[done], state[done], *(c[done] for c in cells), block.members[neighbour], area, edges))
        if outer == inner:
            hull = _on_hull(positions, is_open)
        if np.isinf(outer):
            break
        outer = _WIDER * outer if _WIDER * outer < width else np.inf
        blocks = _open_blocks(positions, reach >= inner, is_open & ~hull, inner, outer, largest)
    return parts, is_open


def _first_radius(positions: np.ndarray) -> float:
    """Radius within which a typical atom has 40 neighbours, from every so manieth atom."""
    sample = positions[:: len(positions) // 1000 + 1]
    distance, _ = cKDTree(positions).query(sample, k=min(_NEAR + 1, len(positions)))
    return float(np.median(distance[:, -1]))


def _on_hull(positions: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Tell which of the candidates are corners of the convex hull or lie in one of its faces: mask of all atoms."""
    index = np.flatnonzero(candidates)
    hull = ConvexHull(positions[index], qhull_options="Qc")  # Qc: list points within faces, too
    mask = np.zeros(len(positions), bool)
    mask[index[hull.vertices]] = True
    mask[index[hull.coplanar[:, 0]]] = True
    return mask


def _open_blocks(
    positions: np.ndarray, is_open: np.ndarray, owned: np.ndarray, near: float, halo: float, largest: int
) -> list[AtomBlock]:
    """Cut the owned atoms into blocks that see all atoms nearby, and open ones within the halo."""
    index, blocks = np.flatnonzero(owned), []
    for core in atom_blocks(positions[index], 0.0, largest=largest):
        mine = index[core.members[core.core]]
        low, high = positions[mine].min(axis=0), positions[mine].max(axis=0)
        off = np.maximum(np.maximum(low - positions, positions - high), 0.0).max(axis=1)
        members = np.flatnonzero((off <= near) | (is_open & (off <= halo)))
        blocks.append(AtomBlock(members, np.isin(members, mine, assume_unique=True)))
    return blocks


def _cells_of_block(
    core: np.ndarray,
    positions: np.ndarray,
    reach: np.ndarray,
    *,
    inner: float,
    outer: float,
    smallest_face: float,
    recomputed: bool,
    shortest_edge: float,
    published: bool,
) -> tuple[np.ndarray, ...]:
    """Cut the cells of a block's own atoms."""
    near = neighbour_list(positions, inner, wanted=core)
    others = np.flatnonzero(reach >= inner) if outer > inner else np.empty(0, np.int64)
    return voronoi_cells(
        positions, reach, np.flatnonzero(core), near.start, near.index, others,
        inner, outer, smallest_face, recomputed, shortest_edge, published,
    )  # fmt: skip


def _dataset(n: int, parts: list[tuple[np.ndarray, ...]], unbounded: np.ndarray) -> xr.Dataset:
    """Put the cells of the blocks where their atoms belong."""
    count, volume, known = np.zeros(n, np.int64), np.full(n, np.nan), np.zeros(n, bool)
    for own, state, v, c, *_ in parts:
        count[own], volume[own], known[own] = c, v, state == CLOSED
    first = np.concatenate([[0], np.cumsum(count)])
    neighbour, area, edges = np.empty(first[-1], np.int64), np.empty(first[-1]), np.empty(first[-1], np.int16)
    for own, _, _, c, *faces in parts:
        into = np.repeat(first[own] - np.concatenate([[0], np.cumsum(c)[:-1]]), c) + np.arange(c.sum())
        neighbour[into], area[into], edges[into] = faces
    atom = np.repeat(np.arange(n), count)
    index = np.stack([np.bincount(atom[edges == e], minlength=n) for e in EDGES], axis=1).astype(np.int16)
    index[~known], count[~known] = -1, -1
    described = {
        "voronoi_index": (("atom", "edges"), index, "1", "faces of the cell with so many edges; -1: no index"),
        "n_faces": ("atom", count.astype(np.int16), "1", "faces of the cell; -1: no index"),
        "volume": ("atom", volume, "angstrom^3", "volume of the cell before small faces were dropped"),
        "unbounded": ("atom", unbounded, "1", "True on the convex hull"),
        "face_atom": ("face", atom, "1", "atom whose cell has the face; rising"),
        "face_neighbour": ("face", neighbour, "1", "atom on the other side; rising for each atom"),
        "face_area": ("face", area, "angstrom^2", "area of the face"),
        "face_edges": ("face", edges, "1", "edges of the face"),
    }
    return xr.Dataset(
        {k: (dims, v, {"units": units, "description": text}) for k, (dims, v, units, text) in described.items()},
        {"atom": np.arange(n), "edges": EDGES},
    )
