"""Solute centres and medium-range order: what a user calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import xarray as xr

from ...errors import InputError
from ...neighbors import as_points
from ...schema import ATOMS, AXES, check
from .clusters import Cluster, Neighbours
from .invariant import FEWEST, grow_candidates, select_clusters
from .lattices import LATTICES, RANKED, make_lattice
from .published import Removal, search_published, select_published

SOLUTE_DISTANCE = (3.858, 6.079)
"""First and second minimum of g(r) of the published particle, in Angstrom: solute centres share its second shell."""
CRYSTALLINE = 0.5
"""Normalised bond order from which an atom is crystalline."""


def solute_centers(
    positions: np.ndarray | xr.Dataset,
    types: np.ndarray | None = None,
    *,
    solute: int = 3,
    order: np.ndarray | None = None,
    distance: tuple[float, float] = SOLUTE_DISTANCE,
) -> xr.Dataset:
    """Disordered atoms of the solute that have another one in the second shell.

    Parameters
    ----------
    positions : array_like, shape (n, 3), float, or xarray.Dataset
        In Angstrom; or ``schema.ATOMS`` with types.
    types : array_like, shape (n,), int
        Type of each atom; from the Dataset where that came.
    solute : int
        The type of the solute.
    order : array_like, shape (n,), float, optional
        Normalised bond order; atoms of 0.5 or more are crystalline and left out. NaN counts as disordered.
    distance : tuple of float
        Range of the distance of neighbouring solute atoms in Angstrom, ends included.

    Returns
    -------
    xarray.Dataset
        `solute_center` (atom,) bool, `n_solute_neighbours` (atom,) int64: disordered solute atoms in the range, 0
        for other atoms. Attributes: `fraction`, of all atoms of the solute that are centres.

    Raises
    ------
    InputError
        If no atom is of the solute's type, the range is empty, or sizes differ.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Fig. 3.
    """
    position, kind = atoms_of(positions, types)
    chosen, neighbours = solutes(position, kind, solute, order, distance)
    counts = np.zeros(len(position), dtype=np.int64)
    counts[chosen] = neighbours.counts
    return xr.Dataset(
        {
            "solute_center": ("atom", counts > 0, {"units": "1", "long_name": "solute atom with another in range"}),
            "n_solute_neighbours": ("atom", counts, {"units": "1", "long_name": "disordered solute atoms in range"}),
        },
        coords={"atom": np.arange(len(position))},
        attrs={"fraction": float(np.count_nonzero(counts) / np.count_nonzero(kind == solute))},
    )


def find_mro(
    positions: np.ndarray | xr.Dataset,
    types: np.ndarray | None = None,
    *,
    solute: int = 3,
    order: np.ndarray | None = None,
    distance: tuple[float, float] = SOLUTE_DISTANCE,
    tolerance: float = 0.75,
    convention: Removal | None = None,
    lattices: Sequence[str] = LATTICES,
) -> xr.Dataset:
    """Computes: clusters of solute centres that sit on the sites of a lattice, medium-range order.

    Parameters
    ----------
    positions : array_like, shape (n, 3), float, or xarray.Dataset
        In Angstrom; or ``schema.ATOMS`` with types.
    types : array_like, shape (n,), int
        Type of each atom; from the Dataset where that came.
    solute : int
        The type whose atoms are the centres.
    order : array_like, shape (n,), float, optional
        Normalised bond order; atoms of 0.5 or more are crystalline and left out. NaN counts as disordered.
    distance : tuple of float
        Range of the distance of neighbouring centres in Angstrom, and of nearest sites.
    tolerance : float
        Largest distance of a centre from its site, in Angstrom.
    convention : {"yang2021", "yang2021-corrected"}, optional
        The published search and selection, or that with the errors of its removal mended. Its answer depends on
        how the sample is turned.
    lattices : sequence of {"fcc", "hcp", "bcc", "sc", "icosahedron"}
        What clusters are held against; an icosahedron is a centre and twelve vertices.

    Returns
    -------
    xarray.Dataset
        Over `atom`: `mro_label` float64, number of the cluster (NaN: in none); `deviation` float64, distance from
        the site in Angstrom; `site` (atom, axis) float64, the site in units of the lattice's nearest-neighbour
        distance. Over `mro`, by falling weight (see Notes; by size in the published conventions): `mro_type` (text),
        `size` int64, `scale` (Angstrom, distance of nearest sites), `rotation` (3, 3), `shift` (Angstrom) and `rms`
        (Angstrom): site s lies at shift + scale rotation @ s.
        Attributes: the options, `n_centres`.

    Raises
    ------
    InputError
        If no atom is of the solute's type, the range is empty, the tolerance is not positive or more than half the
        shortest distance, or a lattice is not known.

    Notes
    -----
    Three neighbouring centres take the sites of every kind of pair of neighbours of a lattice's origin. A closed-form
    fit (rotation, scale, shift) lays the lattice over them, neighbours of members that are near a free nearest site
    are added, the lattice is fitted again, and so on until none is left; no centre is ever further from its site than
    `tolerance`. The weight of a cluster is the sum of 1 - d^2 / tolerance^2 over the deviations d of its centres;
    that of most weight around every centre on every lattice is a candidate. Of these the one of most weight is taken
    again and again; its centres leave the others, of which the largest connected part stays and is fitted again.
    Clusters have five centres or more. Nothing of this depends on how the sample lies, on which hand it is, or on
    the order of its atoms. A cluster in two close-packed layers suits fcc as well as hcp: it counts as fcc.

    Three random centres suit some lattice often: hold the number of clusters against :func:`mro_significance`.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods, "Determination of the solute centres and MROs".
    """
    position, kind = atoms_of(positions, types)
    names = _checked(distance, tolerance, convention, lattices)
    chosen, neighbours = solutes(position, kind, solute, order, distance)
    points = np.ascontiguousarray(position[chosen])
    if convention is None:
        candidates = grow_candidates(points, neighbours, names, distance, tolerance)
        clusters = select_clusters(points, candidates, distance, tolerance)
    else:
        found = search_published(points, neighbours, names, distance, tolerance)
        clusters = [c for c in select_published(points, found, convention) if len(c) >= FEWEST]
    result = as_dataset(clusters, position, chosen)
    result.attrs = {
        "solute": solute,
        "distance": list(map(float, distance)),
        "tolerance": float(tolerance),
        "convention": convention or "aetdist",
        "lattices": list(names),
        "n_centres": int(np.count_nonzero(neighbours.counts)),
    }
    return result


def atoms_of(positions: np.ndarray | xr.Dataset, types: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 3) float64 and types (n,) of arrays or of a Dataset.

    Raises
    ------
    InputError
        If there are no types, or not one for each atom.
    """
    if isinstance(positions, xr.Dataset):
        check(positions, ATOMS)
        types = positions["type"].values if types is None and "type" in positions else types
        positions = positions["position"].values
    position = as_points(positions)
    if types is None:
        raise InputError("The atoms have no types; classify them first, or give types.")
    kind = np.asarray(types)
    if kind.shape != (len(position),):
        raise InputError(f"Types came with shape {kind.shape} for {len(position)} atoms; needed is one for each.")
    return position, kind


def solutes(
    position: np.ndarray,
    kind: np.ndarray,
    solute: int,
    order: np.ndarray | None,
    distance: tuple[float, float],
) -> tuple[np.ndarray, Neighbours]:
    """Numbers of the disordered atoms of the solute, and who of them are neighbours.

    Raises
    ------
    InputError
        If there are none, the range is empty, or there is not one order for each atom.
    """
    low, high = _checked_range(distance)
    is_solute = kind == solute
    if not is_solute.any():
        there = ", ".join(map(str, np.unique(kind))) or "no atoms"
        raise InputError(f"No atom is of type {solute}, the solute; there are {there}: name one of them as solute.")
    if order is not None:
        values = np.asarray(order, dtype=np.float64)
        if values.shape != kind.shape:
            raise InputError(f"The order came with shape {values.shape} for {len(kind)} atoms; needed is one for each.")
        is_solute &= ~(values >= CRYSTALLINE)
    chosen = np.flatnonzero(is_solute)
    return chosen, Neighbours.within(position[chosen], (low, high))


def _checked_range(distance: tuple[float, float]) -> tuple[float, float]:
    values = np.asarray(distance, dtype=np.float64)
    if values.shape != (2,) or not (np.isfinite(values).all() and 0 < values[0] < values[1]):
        raise InputError(
            f"The distance came as {distance!r}; needed are two lengths in Angstrom, the first above 0 and less than "
            "the second: the first and second minimum of g(r)."
        )
    return float(values[0]), float(values[1])


def _checked(
    distance: tuple[float, float], tolerance: float, convention: str | None, lattices: Sequence[str]
) -> tuple[str, ...]:
    """Names of lattices in the order in which equals are taken; refuses options that are out of range."""
    low, _ = _checked_range(distance)
    if not (np.isfinite(tolerance) and 0 < tolerance <= low / 2):
        raise InputError(
            f"The tolerance is {tolerance:g} Angstrom; needed is more than 0 and at most {low / 2:g}, half the "
            "shortest distance of neighbours: a centre must be nearer to its own site than to the next."
        )
    if convention is not None and convention not in get_args(Removal):
        raise InputError(
            f"convention came as {convention!r}; needed is one of {', '.join(get_args(Removal))}, or None."
        )
    names = (lattices,) if isinstance(lattices, str) else tuple(lattices)
    strange = [name for name in names if name not in RANKED]
    if strange or not names:
        raise InputError(f"lattices came as {', '.join(names) or 'none'}; needed are some of {', '.join(RANKED)}.")
    return tuple(name for name in RANKED if name in names)


def as_dataset(clusters: Sequence[Cluster], position: np.ndarray, chosen: np.ndarray) -> xr.Dataset:
    """Clusters of the atoms `chosen` as variables over atoms and clusters."""
    n, m = len(position), len(clusters)
    label, deviation, site = np.full(n, np.nan), np.full(n, np.nan), np.full((n, 3), np.nan)
    for i, c in enumerate(clusters):
        atoms = chosen[c.members]
        label[atoms], site[atoms] = i, make_lattice(c.lattice).sites[c.sites]
        deviation[atoms] = np.linalg.norm(position[atoms] - c.shift - c.scale * site[atoms] @ c.rotation.T, axis=1)

    def stacked(values: Sequence[float | np.ndarray], *shape: int) -> np.ndarray:
        return np.array(values, dtype=np.float64).reshape(m, *shape)

    angstrom, one = {"units": "angstrom"}, {"units": "1"}
    return xr.Dataset(
        {
            "mro_label": ("atom", label, {**one, "long_name": "number of the cluster; NaN: in none"}),
            "deviation": ("atom", deviation, {**angstrom, "long_name": "distance from the site"}),
            "site": (("atom", "axis"), site, {**one, "long_name": "site, in distances of nearest sites"}),
            "mro_type": ("mro", np.array([c.lattice for c in clusters], dtype="U11"), {**one, "long_name": "lattice"}),
            "size": ("mro", np.array([len(c) for c in clusters], dtype=np.int64), {**one, "long_name": "centres"}),
            "scale": ("mro", stacked([c.scale for c in clusters]), {**angstrom, "long_name": "nearest sites apart"}),
            "rotation": (("mro", "row", "column"), stacked([c.rotation for c in clusters], 3, 3), one),
            "shift": (("mro", "axis"), stacked([c.shift for c in clusters], 3), angstrom),
            "rms": ("mro", stacked([c.rms for c in clusters]), {**angstrom, "long_name": "rms deviation from sites"}),
        },
        coords={"atom": np.arange(n), "mro": np.arange(m), "axis": list(AXES)},
    )
