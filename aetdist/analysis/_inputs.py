"""What every analysis checks: positions that can be those of atoms, and their types."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ..errors import AetdistWarning, InputError
from ..neighbors import as_points, neighbour_list
from ..schema import ATOMS, check

_TOUCHING = 1e-3  # Angstrom; nearer atoms are one atom that came twice
_FLAT = 1e-3  # Angstrom; atoms spread across all planes by more
_SAMPLE = 2000  # atoms whose nearest neighbour is looked at
_SHORTEST, _LONGEST = 1.0, 10.0  # Angstrom; typical distances of neighbours lie between


def atoms_of(
    atoms: xr.Dataset | np.ndarray, types: np.ndarray | None = None, *, fewest: int = 5, typed: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions and types of atoms that came as an array or as a Dataset.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions (x, y, z) in Angstrom.
    types : array_like, shape (n,), int, optional
        Type of every atom, 1, 2, ...; the Dataset's own by default.
    fewest : int
        Fewer atoms are refused.
    typed : bool
        Whether types are needed.

    Returns
    -------
    positions : ndarray, shape (n, 3), float64
        Angstrom.
    types : ndarray, shape (n,), int64, or None
        None where there are none.

    Raises
    ------
    InputError
        If positions are not finite triples, are too few, or one came twice; if types are missing where needed, are
        no whole numbers from 1 on, or are not one for each atom.

    Warns
    -----
    AetdistWarning
        If atoms are so near to, or so far from, each other that the unit cannot be Angstrom.
    """
    if isinstance(atoms, xr.Dataset):
        check(atoms, ATOMS)
        types = atoms["type"].values if types is None and "type" in atoms else types
        atoms = atoms["position"].values
    positions = as_points(atoms)
    if len(positions) < fewest:
        raise InputError(f"{len(positions)} atoms came; this analysis needs {fewest} or more.")
    _check_distances(positions)
    if types is None:
        if typed:
            raise InputError("The atoms have no types, and this analysis needs them; give types=, one for each atom.")
        return positions, None
    numbers = np.asarray(types)
    if numbers.shape != (len(positions),):
        raise InputError(
            f"types came with shape {numbers.shape}; needed is one for each of the {len(positions)} atoms."
        )
    if not np.array_equal(numbers, np.round(numbers.astype(float))) or (len(numbers) and numbers.min() < 1):
        raise InputError("The types of atoms are the whole numbers 1, 2, ...; other values came.")
    return positions, numbers.astype(np.int64)


def check_spatial(positions: np.ndarray) -> None:
    """Refuse atoms in a plane, (n, 3) Angstrom, where no cell is closed and nothing has a volume."""
    centred = positions - positions.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1]
    if np.ptp(centred @ axes, axis=0).min() < _FLAT:
        raise InputError("All atoms lie in a plane, where nothing has a volume; needed are atoms in three dimensions.")


def _check_distances(positions: np.ndarray) -> None:
    """Refuse atoms that came twice; warn where the positions look like nanometres or voxels."""
    if len(positions) < 2:
        return
    near = neighbour_list(positions, _TOUCHING)
    if len(near.index):
        i, partner = int(near.centre[0]), int(near.index[0])
        raise InputError(
            f"{len(np.unique(near.index))} atoms lie on one another, atoms {i} and {partner} at "
            f"{positions[i].tolist()} first; leave one of each pair out."
        )
    typical = _typical_distance(positions)
    if not _SHORTEST <= typical <= _LONGEST:
        unit = "nm" if typical < _SHORTEST else "pm, or voxels"
        warnings.warn(
            f"The nearest neighbour of a typical atom is {typical:.3g} away, which is not so in Angstrom; are the "
            f"positions in {unit}? All lengths here are in Angstrom.",
            AetdistWarning,
            stacklevel=3,
        )


def _typical_distance(positions: np.ndarray) -> float:
    """Distance of the nearest neighbour, median of the atoms around the middle one."""
    ball = positions
    if len(positions) > 2 * _SAMPLE:
        away = positions - positions[len(positions) // 2]
        from_middle = np.einsum("na,na->n", away, away)
        nearest = np.argpartition(from_middle, 2 * _SAMPLE)[: 2 * _SAMPLE]
        ball = positions[nearest[np.argsort(from_middle[nearest])]]
    return float(np.median(cKDTree(ball).query(ball[:_SAMPLE], k=2)[0][:, 1]))
