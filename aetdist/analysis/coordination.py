"""Coordination numbers and chemical short-range order, from the faces of the Voronoi cells."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..errors import InputError
from ._inputs import atoms_of
from .surface import surface_mask
from .voronoi import voronoi_indices

DISORDERED = 0.5
"""Atoms with a normalised bond order below it are disordered."""


def coordination(
    atoms: xr.Dataset | np.ndarray,
    types: np.ndarray | None = None,
    *,
    order: np.ndarray | None = None,
    surface: float | np.ndarray = 5.0,
    cells: xr.Dataset | None = None,
) -> xr.Dataset:
    """Computes: coordination numbers, total and partial, and bond lengths.

    The neighbours of an atom are those that its recomputed Voronoi cell has a face with, of whatever type and order.
    Means are over the central atoms: those with an index that are disordered and not at the surface.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS with types, or positions in Angstrom.
    types : array_like, shape (n,), int, optional
        Type of every atom, 1..k without a gap; the Dataset's own by default.
    order : array_like, shape (n,), float or bool, optional
        Normalised bond order, of which 0.5 or more (and NaN) is left out of the central atoms, or a mask of the atoms
        to leave out; by default none.
    surface : float or array_like, shape (n,), bool
        Radius in Angstrom of the alpha shape whose surface atoms are no central atoms, or a mask of those.
    cells : xarray.Dataset, optional
        From :func:`aetdist.voronoi_indices`, of the same atoms; found here by default.

    Returns
    -------
    xarray.Dataset
        ``coordination`` (atom), float64, number of neighbours, and ``partial_coordination`` (atom, neighbour_type),
        of each type; NaN where an atom has no index. ``central`` (atom), bool. Over the central atoms of each type:
        ``fraction`` (type), their part of all central atoms; ``mean_coordination`` (type) and
        ``mean_partial_coordination`` (type, neighbour_type), and their standard errors ``..._sigma``;
        ``bond_length`` (type, neighbour_type), Angstrom, the mean distance of the neighbours. NaN where a type has no
        central atom or no such neighbour. Attribute ``central``: their number.

    Raises
    ------
    InputError
        If :func:`aetdist.voronoi_indices` refuses the atoms, if there are no types or one of 1..k is missing, or if
        `order`, `surface` or `cells` do not belong to the atoms.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods.
    """
    positions, numbers = atoms_of(atoms, types, typed=True)
    assert numbers is not None
    n, k = len(positions), int(numbers.max())
    missing = np.setdiff1d(np.arange(1, k + 1), numbers)
    if len(missing):
        raise InputError(f"No atom has type {missing[0]}, though types up to {k} came; number the types without a gap.")
    ordered = _ordered(np.zeros(n, bool) if order is None else np.asarray(order), n)
    outside = surface_mask(positions, surface)
    cells = voronoi_indices(positions) if cells is None else cells
    if cells.sizes.get("atom") != n or "face_atom" not in cells:
        raise InputError(f"cells are not those of these {n} atoms; needed is what voronoi_indices gave for them.")
    known = cells["voronoi_index"].values[:, 0] >= 0
    atom, neighbour = cells["face_atom"].values, cells["face_neighbour"].values
    partial = np.bincount(atom * k + numbers[neighbour] - 1, minlength=n * k).reshape(n, k).astype(np.float64)
    partial[~known] = np.nan
    total = partial.sum(axis=1)
    central = known & ~ordered & ~outside
    which = [np.flatnonzero(central & (numbers == a + 1)) for a in range(k)]
    means = [_mean(np.column_stack([total, partial])[w]) for w in which]
    mean, sigma = (np.array([m[part] for m in means]) for part in range(2))
    length = np.linalg.norm(positions[atom] - positions[neighbour], axis=1)
    pair = ((numbers[atom] - 1) * k + numbers[neighbour] - 1)[central[atom]]
    bonds = np.bincount(pair, minlength=k * k)
    with np.errstate(invalid="ignore"):
        lengths = np.bincount(pair, length[central[atom]], minlength=k * k) / bonds
        fraction = np.array([len(w) for w in which]) / central.sum()
    pairs = ("type", "neighbour_type")
    units = {"units": "angstrom"}
    return xr.Dataset(
        {
            "coordination": ("atom", total),
            "partial_coordination": (("atom", "neighbour_type"), partial),
            "central": ("atom", central),
            "fraction": ("type", fraction),
            "mean_coordination": ("type", mean[:, 0]),
            "mean_coordination_sigma": ("type", sigma[:, 0]),
            "mean_partial_coordination": (pairs, mean[:, 1:]),
            "mean_partial_coordination_sigma": (pairs, sigma[:, 1:]),
            "bond_length": (pairs, lengths.reshape(k, k), units),
        },
        {"atom": np.arange(n), "type": np.arange(1, k + 1), "neighbour_type": np.arange(1, k + 1)},
        {"central": int(central.sum())},
    )


def warren_cowley(
    atoms: xr.Dataset | np.ndarray,
    types: np.ndarray | None = None,
    *,
    order: np.ndarray | None = None,
    surface: float | np.ndarray = 5.0,
    cells: xr.Dataset | None = None,
) -> xr.Dataset:
    """Computes: the Warren-Cowley parameters of chemical short-range order.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        As in :func:`coordination`, in Angstrom; two types or more.
    types, order, surface, cells : optional
        As in :func:`coordination`.

    Returns
    -------
    xarray.Dataset
        ``alpha`` (type, neighbour_type), float64: below 0 where more neighbours of that type are found than by chance;
        ``alpha_sigma``, its standard error from the spread among the central atoms; NaN where a type has no
        central atom. ``fraction`` (type), of the central atoms; attribute ``central``, their number.

    Raises
    ------
    InputError
        As :func:`coordination` does; if there is one type only.

    Notes
    -----
    alpha_ij = 1 - Z_ij / (chi_j Z_i), with the mean partial and total coordination numbers Z_ij and Z_i of the central
    atoms of type i, and the fraction chi_j of type j among all central atoms.

    References
    ----------
    .. [1] J. M. Cowley, Phys. Rev. 77, 669 (1950).
    .. [2] Y. Yang et al., Nature 592, 60-64 (2021), Methods.
    """
    found = coordination(atoms, types, order=order, surface=surface, cells=cells)
    k = found.sizes["type"]
    if k < 2:
        raise InputError("All atoms have one type; chemical order needs two or more.")
    numbers = atoms_of(atoms, types)[1]
    partial, total = found["partial_coordination"].values, found["coordination"].values
    chance = found["fraction"].values
    alpha, sigma = np.full((k, k), np.nan), np.full((k, k), np.nan)
    for i in range(k):
        own = found["central"].values & (numbers == i + 1)
        if own.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                expected = chance * total[own].mean()
                alpha[i] = 1.0 - partial[own].mean(axis=0) / expected
                off = partial[own] - (1.0 - alpha[i]) * chance * total[own, None]  # of a ratio of means
                sigma[i] = np.sqrt((off**2).mean(axis=0) / own.sum()) / expected
            sigma[i, i] *= np.sqrt(2.0)  # bonds between atoms of one type are seen from both ends
    alpha[:, chance == 0] = np.nan
    return xr.Dataset(
        {
            "alpha": (("type", "neighbour_type"), alpha),
            "alpha_sigma": (("type", "neighbour_type"), sigma),
            "fraction": found["fraction"],
        },
        attrs=found.attrs,
    )


def bond_differences(lengths: np.ndarray) -> np.ndarray:
    """Compare bonds between unlike atoms with the averages of the like pairs.

    Parameters
    ----------
    lengths : array_like, shape (k, k), float
        Bond lengths by pair of types, such as ``coordination(...).bond_length`` or the first peaks of partial pair
        distributions, in Angstrom.

    Returns
    -------
    ndarray, shape (k, k), float64
        l_ij - (l_ii + l_jj) / 2, in Angstrom; negative: the bond is shorter than sizes alone would have it.

    Raises
    ------
    InputError
        If `lengths` is not square.
    """
    lengths = np.asarray(lengths, dtype=np.float64)
    if lengths.ndim != 2 or lengths.shape[0] != lengths.shape[1]:
        raise InputError(f"lengths came with shape {lengths.shape}; needed is a length for every pair of types.")
    like = np.diag(lengths)
    return lengths - (like[:, None] + like) / 2.0


def _ordered(order: np.ndarray, n: int) -> np.ndarray:
    """Atoms to leave out: the mask itself, or those whose order is not below that of disordered atoms."""
    if order.shape != (n,):
        raise InputError(f"order came with shape {order.shape}; needed is a value for each of the {n} atoms.")
    return order if order.dtype == bool else ~(order.astype(np.float64) < DISORDERED)


def _mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of rows and its standard error; NaN where there are none."""
    if not len(values):
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    return values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))
