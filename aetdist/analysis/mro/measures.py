"""What clusters measure: lengths, volumes, zone axes, partial g(r), and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import pdist

from ...errors import InputError
from .search import atoms_of, find_mro
from .sharing import atoms_around

LARGEST_CELL = 80.0
"""Angstrom^3: larger Voronoi cells are those of the surface and count as the median cell."""


def mro_sizes(mro: xr.Dataset, positions: np.ndarray | xr.Dataset, neighbours: np.ndarray, volumes: np.ndarray) -> Any:
    """Length and volume of every cluster, its centres with the atoms around them.

    Parameters
    ----------
    mro : xarray.Dataset
        What :func:`find_mro` gives.
    positions : array_like, shape (n, 3), or xarray.Dataset
        Of all atoms, in Angstrom.
    neighbours : ndarray, shape (m, 2), int
        Pairs of atoms whose recomputed Voronoi cells share a face; in one order or both.
    volumes : ndarray, shape (n,), float
        Of the cells, in Angstrom^3; NaN: unbounded.

    Returns
    -------
    xarray.Dataset
        Over `mro`: `length` (Angstrom), largest distance of two of its atoms; `volume` (Angstrom^3), sum of their
        cells, of which those above 80 Angstrom^3 and unbounded ones count as the median; `n_atoms`.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Extended Data Fig. 7.
    """
    position = np.asarray(positions["position"] if isinstance(positions, xr.Dataset) else positions, dtype=np.float64)
    label = mro["mro_label"].values
    if label.shape != (len(position),) or np.shape(volumes) != label.shape:
        raise InputError(
            f"{len(label)} labels, {len(position)} positions and {np.size(volumes)} volumes came; needed is one of "
            "each for every atom."
        )
    around = atoms_around(neighbours, len(position))
    cell = np.asarray(volumes, dtype=np.float64)
    odd = ~(cell <= LARGEST_CELL)
    cell = np.where(odd, np.median(cell[~odd]) if (~odd).any() else np.nan, cell)
    length, volume, count = (np.zeros(mro.sizes["mro"]) for _ in range(3))
    for i in range(mro.sizes["mro"]):
        atoms = np.flatnonzero(np.asarray((label == i) @ around).ravel() + (label == i))
        length[i], volume[i], count[i] = pdist(position[atoms]).max(), cell[atoms].sum(), len(atoms)
    return xr.Dataset(
        {
            "length": ("mro", length, {"units": "angstrom", "long_name": "largest distance of two atoms"}),
            "volume": ("mro", volume, {"units": "angstrom^3", "long_name": "sum of the cells of the atoms"}),
            "n_atoms": ("mro", count.astype(np.int64), {"units": "1", "long_name": "centres and atoms around them"}),
        }
    )


def centre_distances(
    mro: xr.Dataset,
    positions: np.ndarray | xr.Dataset,
    *,
    largest: float = 12.0,
    step: float = 0.05,
    sigma: float = 0.1,
) -> xr.Dataset:
    """Partial g(r) of the centres in clusters of each type, in arbitrary units, and its first peak.

    Parameters
    ----------
    mro : xarray.Dataset
        What :func:`find_mro` gives.
    positions : array_like, shape (n, 3), or xarray.Dataset
        Of all atoms, in Angstrom.
    largest, step : float
        Range and width of bins, in Angstrom.
    sigma : float
        Of the Gaussian that smooths the curve, in Angstrom.

    Returns
    -------
    xarray.Dataset
        `g` (mro_type, r) float64: pairs of centres in one cluster over 4 pi r^2 dr, largest value 1; `first_peak`
        (mro_type,), r of the largest value, in Angstrom.
    """
    position = np.asarray(positions["position"] if isinstance(positions, xr.Dataset) else positions, dtype=np.float64)
    kinds = list(dict.fromkeys(mro["mro_type"].values.tolist()))
    edges = np.arange(0.0, largest + step / 2, step)
    r = 0.5 * (edges[1:] + edges[:-1])
    label = mro["mro_label"].values
    g = np.zeros((len(kinds), len(r)))
    for i in range(mro.sizes["mro"]):
        counts, _ = np.histogram(pdist(position[label == i]), edges)
        g[kinds.index(mro["mro_type"].values[i])] += counts / r**2
    g = gaussian_filter1d(g, sigma / step, axis=1)
    g /= np.maximum(g.max(axis=1, keepdims=True, initial=0.0), 1e-300)
    peak = r[np.argmax(g, axis=1)] if len(kinds) else np.empty(0)
    return xr.Dataset(
        {
            "g": (("mro_type", "r"), g, {"units": "1"}),
            "first_peak": ("mro_type", peak, {"units": "angstrom"}),
        },
        coords={"mro_type": kinds, "r": ("r", r, {"units": "angstrom"})},
    )


def zone_axes(mro: xr.Dataset, direction: Sequence[float] = (0.0, 0.0, 1.0)) -> xr.Dataset:
    """The zone axis of every cluster that lies nearest to a direction.

    Parameters
    ----------
    mro : xarray.Dataset
        What :func:`find_mro` gives.
    direction : sequence of float
        (x, y, z) in the sample, for instance the beam at some tilt.

    Returns
    -------
    xarray.Dataset
        Over `mro`: `zone_axis` (text), "100", "110", "111" of cubic lattices, "0001" or "11-20" of hcp, "" of
        icosahedra; `tilt` float64, degrees between it and the direction; `axis_vector` (mro, axis), it in the sample.
    """
    beam = np.asarray(direction, dtype=np.float64)
    if beam.shape != (3,) or not np.linalg.norm(beam) > 0:
        raise InputError(f"The direction came as {direction!r}; needed are three numbers that are not all 0.")
    beam = beam / np.linalg.norm(beam)
    n = mro.sizes["mro"]
    names, tilt, vector = np.full(n, "", dtype="U5"), np.full(n, np.nan), np.full((n, 3), np.nan)
    for i, kind in enumerate(mro["mro_type"].values.tolist()):
        labels, axes = _zone_axes(kind)
        if len(axes):
            turned = axes @ mro["rotation"].values[i].T
            cosine = turned @ beam
            best = int(np.argmax(np.abs(cosine)))
            names[i], vector[i] = labels[best], np.copysign(1.0, cosine[best]) * turned[best]
            tilt[i] = np.rad2deg(np.arccos(min(1.0, abs(cosine[best]))))
    return xr.Dataset(
        {
            "zone_axis": ("mro", names, {"units": "1"}),
            "tilt": ("mro", tilt, {"units": "degree"}),
            "axis_vector": (("mro", "axis"), vector, {"units": "1"}),
        }
    )


def _zone_axes(kind: str) -> tuple[list[str], np.ndarray]:
    """Names and unit vectors of a lattice's zone axes of low index, one of each pair of opposite ones."""
    if kind == "icosahedron":
        return [], np.empty((0, 3))
    if kind == "hcp":
        turn = np.arange(3) * np.pi / 3
        flat = np.stack([np.cos(turn), np.sin(turn), np.zeros(3)], axis=1)
        return ["0001"] + 3 * ["11-20"], np.concatenate([[(0.0, 0.0, 1.0)], flat])
    names, axes = [], []
    for x in (1, 0, -1):
        for y in (1, 0, -1):
            for z in (1, 0, -1):
                if (x, y, z) > (0, 0, 0):
                    name = "".join(map(str, sorted((abs(x), abs(y), abs(z)), reverse=True)))
                    names.append(name)
                    axes.append(np.array((x, y, z)) / np.linalg.norm((x, y, z)))
    return names, np.array(axes)


def tolerance_table(
    positions: np.ndarray | xr.Dataset,
    types: np.ndarray | None = None,
    *,
    tolerances: Sequence[float] = (0.5, 0.75, 1.0),
    **options: Any,
) -> xr.Dataset:
    """Computes: the number of clusters and of their centres, by type, for several tolerances.

    Parameters
    ----------
    positions, types
        As in :func:`find_mro`.
    tolerances : sequence of float
        In Angstrom.
    **options
        Of :func:`find_mro`.

    Returns
    -------
    xarray.Dataset
        `count` and `centres` (largest_deviation, mro_type) int64; the first axis holds the tolerances.
    """
    found = [find_mro(positions, types, tolerance=t, **options) for t in tolerances]
    kinds = found[0].attrs["lattices"] if found else []
    count = [[np.count_nonzero(f["mro_type"] == k) for k in kinds] for f in found]
    centres = [[int(f["size"].values[f["mro_type"].values == k].sum()) for k in kinds] for f in found]
    shape = len(found), len(kinds)
    return xr.Dataset(
        {
            "count": (
                ("largest_deviation", "mro_type"),
                np.array(count, dtype=np.int64).reshape(shape),
                {"units": "1"},
            ),
            "centres": (
                ("largest_deviation", "mro_type"),
                np.array(centres, dtype=np.int64).reshape(shape),
                {"units": "1"},
            ),
        },
        coords={
            "largest_deviation": ("largest_deviation", list(tolerances), {"units": "angstrom"}),
            "mro_type": list(kinds),
        },
    )


def mro_errors(
    positions: np.ndarray | xr.Dataset,
    types: np.ndarray | None = None,
    *,
    sigma: np.ndarray | float | None = None,
    samples: int = 10,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Computes: how far the numbers of clusters depend on the errors of the positions.

    Parameters
    ----------
    positions, types
        As in :func:`find_mro`.
    sigma : float or ndarray, shape (n,) or (n, 3), optional
        Standard deviation of positions in Angstrom; `position_sigma` of the atoms by default.
    samples : int
        How often positions are drawn from their errors.
    seed : int
    **options
        Of :func:`find_mro`.

    Returns
    -------
    xarray.Dataset
        `count` (mro_type,) of the positions as they are, `sample_count` (sample, mro_type), `error` (mro_type,), their
        standard deviation about `count`; `stay` (mro,) float64, mean over samples of the largest part of a cluster's
        centres that are in one cluster of its type again.

    Raises
    ------
    InputError
        If no sigma is known, it does not suit the atoms, or samples is less than 1.
    """
    position, kind = atoms_of(positions, types)
    if sigma is None and isinstance(positions, xr.Dataset) and "position_sigma" in positions:
        sigma = positions["position_sigma"].values
    if sigma is None or samples < 1:
        raise InputError("No sigma of the positions came, or no samples; refine the atoms, or give sigma in Angstrom.")
    width = np.asarray(sigma, dtype=np.float64)
    width = width[:, None] if width.ndim == 1 else width
    try:
        width = np.broadcast_to(width, position.shape)
    except ValueError:
        raise InputError(f"sigma came with shape {np.shape(sigma)} for {len(position)} atoms.") from None
    width = np.nan_to_num(width)  # of atoms that no tilt tells anything about nothing is known: they stay
    found = find_mro(position, kind, **options)
    names = found.attrs["lattices"]
    counts, stay = [_counts(found, names)], np.zeros(found.sizes["mro"])
    for sample in range(samples):
        drawn = position + width * np.random.default_rng([seed, sample]).normal(size=position.shape)
        other = find_mro(drawn, kind, **options)
        counts.append(_counts(other, names))
        stay += _overlap(found, other) / samples
    table = np.array(counts, dtype=np.int64).reshape(samples + 1, len(names))
    return xr.Dataset(
        {
            "count": ("mro_type", table[0], {"units": "1"}),
            "sample_count": (("sample", "mro_type"), table[1:], {"units": "1"}),
            "error": ("mro_type", np.sqrt(((table[1:] - table[0]) ** 2).mean(axis=0)), {"units": "1"}),
            "stay": ("mro", stay, {"units": "1"}),
        },
        coords={"mro_type": list(names), "sample": np.arange(samples)},
    )


def _counts(found: Mapping[str, Any] | xr.Dataset, names: Sequence[str]) -> list[int]:
    return [int(np.count_nonzero(found["mro_type"].values == name)) for name in names]


def _overlap(found: xr.Dataset, other: xr.Dataset) -> np.ndarray:
    """Largest part of each cluster's centres that are in one cluster of the same type of `other`."""
    a, b = found["mro_label"].values, other["mro_label"].values
    both = np.isfinite(a) & np.isfinite(b)
    table = np.zeros((found.sizes["mro"], other.sizes["mro"]))
    np.add.at(table, (a[both].astype(int), b[both].astype(int)), 1.0)
    table[found["mro_type"].values[:, None] != other["mro_type"].values] = 0.0
    return table.max(axis=1, initial=0.0) / np.maximum(found["size"].values, 1)
