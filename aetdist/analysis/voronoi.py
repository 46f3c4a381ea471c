"""Voronoi cells of the atoms: indices, volumes, faces."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ..blocks.atoms import ATOMS_PER_BLOCK, AtomBlock, atom_blocks, map_blocks
from ..errors import InputError
from ..neighbors import neighbour_list
from ._inputs import atoms_of, check_spatial
from ._tree_kernels import grow_tree
from ._voronoi_kernels import CLOSED, OPEN, UNBOUNDED, voronoi_cells

EDGES = np.array([3, 4, 5, 6])
"""The faces that an index counts, by their edges."""
ICOSAHEDRA = np.array([[0, 0, 12, 0], [0, 1, 10, 2], [0, 2, 8, 2], [0, 2, 8, 1]])
"""Indices of the icosahedron and of what counts as a distorted one."""
_NEAR = 40  # neighbours within the first radius: enough to close nearly every cell inside a dense sample


def voronoi_indices(
    atoms: xr.Dataset | np.ndarray,
    *,
    smallest_face: float = 0.01,
    recomputed: bool = True,
    convention: Literal["yang2021"] | None = None,
    shortest_edge: float = 1e-6,
    largest: int = ATOMS_PER_BLOCK,
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
    largest : int
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
    atom has 40 neighbours or so. Cells with a corner farther away than half the halo stay open, at the surface and
    beside holes. Only atoms with open cells can still be neighbours, as a corner is equally far from all of its
    atoms; those are sorted into a tree, and every far corner is cut off by the atom nearest to it until its own atom
    is that one. Each cell is cut by the same neighbours in the same order, whatever the blocks are.

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
    if largest < 1:
        raise InputError(f"largest came as {largest}; needed is 1 atom or more.")
    positions, _ = atoms_of(atoms)
    check_spatial(positions)
    settings = {
        "smallest_face": float(smallest_face),
        "recomputed": bool(recomputed),
        "shortest_edge": float(shortest_edge),
    }
    parts = _cut_cells(positions, largest, {**settings, "published": convention == "yang2021"})
    found = _dataset(len(positions), parts)
    return found.assign_attrs(settings, convention=convention or "")


def voronoi_statistics(cells: xr.Dataset, which: np.ndarray | None = None, *, top: int = 10) -> xr.Dataset:
    """Count the indices and the faces of some of the atoms.

    Parameters
    ----------
    cells : xarray.Dataset
        From :func:`voronoi_indices`.
    which : array_like, shape (n,), bool, optional
        The atoms to count, for instance the disordered ones; all by default.
    top : int
        Number of indices that are listed.

    Returns
    -------
    xarray.Dataset
        ``top_index`` (kind, edges), int16, the commonest indices, equally common ones in their own order;
        ``top_count`` (kind), int64; ``top_fraction`` (kind), of the atoms with an index; ``face_fraction`` (edges), of
        their faces with 3 to 6 edges; ``icosahedra``, fraction of all atoms counted, with an index or without, that
        have one of <0,0,12,0>, <0,1,10,2>, <0,2,8,2>, <0,2,8,1>. Fractions are NaN where nothing was counted.
        Attributes: ``atoms`` and ``indexed``, how many were counted, and how many of them have an index.

    Raises
    ------
    InputError
        If `which` is not a mask of the atoms.
    """
    index = cells["voronoi_index"].values
    which = np.ones(len(index), bool) if which is None else np.asarray(which)
    if which.dtype != bool or which.shape != (len(index),):
        raise InputError(
            f"which came as {which.dtype} with shape {which.shape}; needed is a mask of the {len(index)} atoms."
        )
    index = index[which & (index[:, 0] >= 0)]
    kinds, count = np.unique(index, axis=0, return_counts=True)
    first = np.argsort(-count, kind="stable")[:top]
    faces = index.sum(axis=0)
    icosahedra = (index[:, None] == ICOSAHEDRA).all(axis=2).sum()
    with np.errstate(invalid="ignore"):
        return xr.Dataset(
            {
                "top_index": (("kind", "edges"), kinds[first]),
                "top_count": ("kind", count[first]),
                "top_fraction": ("kind", count[first] / len(index)),
                "face_fraction": ("edges", faces / faces.sum()),
                "icosahedra": ((), np.divide(icosahedra, np.count_nonzero(which))),
            },
            {"edges": cells["edges"]},
            {"atoms": int(np.count_nonzero(which)), "indexed": len(index)},
        )


def _cut_cells(positions: np.ndarray, largest: int, settings: dict) -> list[tuple[np.ndarray, ...]]:
    """Cut the cells of all atoms; those that stay open in their block once more, by all atoms with open cells."""
    numbers, inner = np.arange(len(positions)), _first_radius(positions)
    blocks, is_open, far, parts = atom_blocks(positions, inner, largest=largest), [], numbers[:0], []
    for _ in range(2):
        tree = (*grow_tree(positions[far]), positions[far], far)
        results = map_blocks(_cells_of_block, blocks, positions, numbers, inner=inner, tree=tree, **settings)
        for block, (state, volume, count, *faces) in zip(blocks, results, strict=True):
            owned, done = block.members[block.core], state != OPEN
            parts.append((owned[done], state[done], volume[done], count[done], *faces))
            is_open.append(owned[~done])
        far = np.sort(np.concatenate(is_open))
        blocks = _blocks_of(positions, far, inner, largest)
    return parts


def _first_radius(positions: np.ndarray) -> float:
    """Radius within which a typical atom has 40 neighbours, from every so manieth atom."""
    sample = positions[:: len(positions) // 1000 + 1]
    distance, _ = cKDTree(positions).query(sample, k=min(_NEAR + 1, len(positions)))
    return float(np.median(distance[:, -1]))


def _blocks_of(positions: np.ndarray, some: np.ndarray, halo: float, largest: int) -> list[AtomBlock]:
    """Cut some of the atoms into blocks that see all atoms within the halo."""
    blocks = []
    for part in atom_blocks(positions[some], 0.0, largest=largest):
        owned = some[part.members[part.core]]
        low, high = positions[owned].min(axis=0) - halo, positions[owned].max(axis=0) + halo
        members = np.flatnonzero(((positions >= low) & (positions <= high)).all(axis=1))
        blocks.append(AtomBlock(members, np.isin(members, owned, assume_unique=True)))
    return blocks


def _cells_of_block(
    core: np.ndarray,
    positions: np.ndarray,
    numbers: np.ndarray,
    *,
    inner: float,
    tree: tuple[np.ndarray, ...],
    smallest_face: float,
    recomputed: bool,
    shortest_edge: float,
    published: bool,
) -> tuple[np.ndarray, ...]:
    """Cut the cells of a block's own atoms."""
    near = neighbour_list(positions, inner, wanted=core)
    *nodes, far, far_numbers = tree
    return voronoi_cells(
        positions, numbers, np.flatnonzero(core), near.start, near.index, inner, tuple(nodes), far, far_numbers,
        smallest_face, recomputed, shortest_edge, published,
    )  # fmt: skip


def _dataset(n: int, parts: list[tuple[np.ndarray, ...]]) -> xr.Dataset:
    """Put the cells of the blocks where their atoms belong."""
    state, count, volume = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    for own, s, v, c, *_ in parts:
        state[own], volume[own], count[own] = s, v, c
    first = np.concatenate([[0], np.cumsum(count)])
    neighbour, area, edges = np.empty(first[-1], np.int64), np.empty(first[-1]), np.empty(first[-1], np.int16)
    for own, _, _, c, *faces in parts:
        into = np.repeat(first[own] - np.concatenate([[0], np.cumsum(c)[:-1]]), c) + np.arange(c.sum())
        neighbour[into], area[into], edges[into] = faces
    atom = np.repeat(np.arange(n), count)
    index = np.stack([np.bincount(atom[edges == e], minlength=n) for e in EDGES], axis=1).astype(np.int16)
    index[state != CLOSED], count[state != CLOSED] = -1, -1
    described = {
        "voronoi_index": (("atom", "edges"), index, "1", "faces of the cell with so many edges; -1: no index"),
        "n_faces": ("atom", count.astype(np.int16), "1", "faces of the cell; -1: no index"),
        "volume": ("atom", volume, "angstrom^3", "volume of the cell before small faces were dropped"),
        "unbounded": ("atom", state == UNBOUNDED, "1", "True on the convex hull"),
        "face_atom": ("face", atom, "1", "atom whose cell has the face; rising"),
        "face_neighbour": ("face", neighbour, "1", "atom on the other side; rising for each atom"),
        "face_area": ("face", area, "angstrom^2", "area of the face"),
        "face_edges": ("face", edges, "1", "edges of the face"),
    }
    return xr.Dataset(
        {k: (dims, v, {"units": units, "description": text}) for k, (dims, v, units, text) in described.items()},
        {"atom": np.arange(n), "edges": EDGES},
    )
