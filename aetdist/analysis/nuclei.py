"""Crystal nuclei: connected groups of ordered atoms."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ..blocks.atoms import ATOMS_PER_BLOCK, atom_blocks, map_blocks
from ..errors import InputError
from ..neighbors import neighbour_list
from ._inputs import atoms_of
from .bonds import ORDERED, numbers_of


def find_nuclei(
    atoms: xr.Dataset | np.ndarray,
    order: xr.Dataset | np.ndarray,
    *,
    cutoff: float | None = None,
    threshold: float = ORDERED,
    largest: int = ATOMS_PER_BLOCK,
) -> xr.Dataset:
    """Computes: nuclei, the connected components of ordered atoms that are neighbours of each other.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions (x, y, z) in Angstrom.
    order : xarray.Dataset or array_like, shape (n,), float
        What `bond_order` gave, or any order of every atom; NaN is not ordered.
    cutoff : float, optional
        Neighbours are nearer than this, in Angstrom; default: that of `order`.
    threshold : float, default 0.5
        Atoms of this order or more are ordered.
    largest : int
        Atoms of a block; the answer does not depend on it.

    Returns
    -------
    xarray.Dataset
        ``label`` (atom) int64: number of the atom's nucleus, -1 for atoms that are not ordered; of every nucleus, the
        largest first (of equal ones that with the lowest atom): ``n_atoms`` int64, ``centre`` (nucleus, axis)
        float64, Angstrom, the mean of its positions, and ``radius_of_gyration`` float64, Angstrom, their
        root-mean-square distance from there. Attributes: ``cutoff``, ``threshold``.

    Raises
    ------
    InputError
        If the atoms cannot be used, there is not one order for each, or no cut-off is known.
    """
    positions, _ = atoms_of(atoms)
    values, cutoff = order_of(order, len(positions), cutoff)
    ordered = np.flatnonzero(values >= threshold)
    inside = positions[ordered]
    numbers, n_atoms = _components(inside, cutoff, largest)
    label = np.full(len(positions), -1)
    label[ordered] = numbers
    centre = np.stack([np.bincount(numbers, x, len(n_atoms)) for x in inside.T], axis=1) / n_atoms[:, None]
    square = np.bincount(numbers, np.square(inside - centre[numbers]).sum(axis=1), len(n_atoms))
    return xr.Dataset(
        {
            "label": ("atom", label, {"units": "1"}),
            "n_atoms": ("nucleus", n_atoms, {"units": "1"}),
            "centre": (("nucleus", "axis"), centre, {"units": "angstrom"}),
            "radius_of_gyration": ("nucleus", np.sqrt(square / n_atoms), {"units": "angstrom"}),
        },
        {"atom": numbers_of(atoms), "nucleus": np.arange(len(n_atoms)), "axis": list("xyz")},
        {"cutoff": cutoff, "threshold": float(threshold)},
    )


def order_of(order: xr.Dataset | np.ndarray, n: int, cutoff: float | None) -> tuple[np.ndarray, float]:
    """Order (n,) of every atom and cut-off in Angstrom, where they come with a Dataset or apart.

    Raises
    ------
    InputError
        If there is not one order for each atom, or the cut-off is not known or no length.
    """
    if isinstance(order, xr.Dataset):
        if "order" not in order:
            raise InputError(f"The bond order has {', '.join(map(str, order))} and no `order`; give l=(4, 6).")
        cutoff = order.attrs.get("cutoff") if cutoff is None else cutoff
        order = order["order"].values
    values = np.asarray(order, dtype=np.float64)
    if values.shape != (n,):
        raise InputError(f"The order came with shape {values.shape}; needed is one for each of the {n} atoms.")
    if cutoff is None or not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"The cut-off is {cutoff}; needed is a positive length in Angstrom: give cutoff=.")
    return values, float(cutoff)


def _components(positions: np.ndarray, cutoff: float, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Component of every point, the largest first, and how many points each has."""
    n = len(positions)
    blocks = atom_blocks(positions, cutoff, largest=largest)
    firsts = map_blocks(_block, blocks, positions, cutoff=cutoff)
    rows = np.concatenate([np.empty(0, np.int64), *(block.members for block in blocks)])
    columns = np.concatenate([rows[:0], *(b.members[first] for b, first in zip(blocks, firsts, strict=True))])
    _, found = connected_components(csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n)))
    _, lowest, found, sizes = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    rank = np.lexsort((lowest, -sizes))
    return np.argsort(rank)[found], sizes[rank]


def _block(core: np.ndarray, positions: np.ndarray, *, cutoff: float) -> np.ndarray:
    """The first of the points that each point of a block is connected with by bonds of the block's own points."""
    bonds = neighbour_list(positions, cutoff, wanted=core)
    rows = np.flatnonzero(core)[bonds.centre]
    n = len(positions)
    _, found = connected_components(csr_array((np.ones(len(rows), bool), (rows, bonds.index)), shape=(n, n)), False)
    return np.unique(found, return_index=True)[1][found]
