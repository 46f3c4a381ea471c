"""The pair distribution function g(r) of a finite or periodic sample, its partial ones, and the structure factor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..neighbors import periodic_images
from ._inputs import atoms_of
from .pair_counts import UNIT, Bins, count_pairs
from .shells import N_POINTS, body_of, shell_volumes
from .surface import AlphaShape

YANG2021 = "yang2021"
_FAR = (15.0, 20.0)  # Angstrom; where the published g(r) is 1 on average


def pair_distribution(
    atoms: xr.Dataset | np.ndarray,
    types: np.ndarray | None = None,
    *,
    r_max: float = 20.0,
    step: float = 0.1,
    shape: AlphaShape | xr.DataArray | np.ndarray | None = None,
    alpha_radius: float = 4.0,
    cell: np.ndarray | None = None,
    n_points: int = N_POINTS,
    convention: str | None = None,
) -> xr.Dataset:
    """Computes: the pair distribution function of atoms, total and partial, corrected for the shape of the sample.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions in Angstrom.
    types : array_like, shape (n,), int, optional
        Type of every atom, 1, 2, ...; those of the Dataset by default. Without types there is the total g(r) only.
    r_max, step : float
        Largest distance and width of a bin, in Angstrom.
    shape : AlphaShape, xarray.DataArray or ndarray of shape (k, 3), optional
        What the sample fills: a support (z, y, x) bool on coordinates in Angstrom, the corners of a convex body, or an
        alpha shape. Default: the alpha shape of the atoms.
    alpha_radius : float, default 4.0
        Radius of that alpha shape in Angstrom.
    cell : array_like, shape (3, 3), optional
        Vectors of the cell that repeats in all directions, one a row, in Angstrom; then there is no surface.
    n_points : int
        Points that stand for the volume of the shape.
    convention : str, optional
        ``"yang2021"``: bins ceil(d / step + 0.01) - 1 of float32 positions, and every g(r) divided by its mean over
        15 to 20 Angstrom, as in the published scripts.

    Returns
    -------
    xarray.Dataset
        Over ``r`` (middle of the bins, Angstrom): ``g``; ``g_error``, its Poisson error; ``pairs``, ordered pairs
        counted (int64); ``shell_volume``, that of the sample in the shells around all atoms (Angstrom^3); with types
        ``partial_g``, ``partial_g_error`` and ``partial_pairs`` over ``pair`` ("1-2", both orders counted);
        ``volume`` (Angstrom^3) and ``density`` (atoms per Angstrom^3).

    Raises
    ------
    InputError
        If the atoms, the bins or the shape are not usable; see the message.

    Notes
    -----
    g_ab(r) = sum over i of type a, j of type b, j != i, of w_j [r <= d_ij < r + step] / (rho_b sum_i v_i(r)), where
    v_i(r) is the volume of the sample in the shell around atom i (its sum over all atoms, times the fraction of type
    a), w_j the part of atom j that lies in the sample (an atom on a flat face counts one half), and
    rho_b = sum_j w_j / volume without the atom itself. So an ideal gas has g = 1 at all distances in any shape.

    References
    ----------
    Y. Yang et al., Nature 592, 60 (2021), Methods "PDF".
    """
    if convention not in (None, YANG2021):
        raise InputError(f'convention = {convention!r} came; there is "{YANG2021}", or leave it out.')
    published = convention == YANG2021
    if published and (cell is not None or r_max < _FAR[1]):
        raise InputError("The convention yang2021 is of finite samples, with r_max of 20 Angstrom or more.")
    bins = Bins(float(r_max), float(step), published)
    positions, types = atoms_of(atoms, types)
    names, kinds = (np.ones(1, int), np.zeros(len(positions), np.int64))
    if types is not None:
        names, kinds = np.unique(types, return_inverse=True)
    if cell is None:
        sample = _finite(positions, kinds, shape, alpha_radius, n_points, bins)
    else:
        sample = _periodic(positions, kinds, cell, bins)
    counted = sample
    if published:
        low = (positions - positions.min(axis=0) + 1.0).astype(np.float32).astype(np.float64)
        counted = replace(sample, positions=low, share=np.ones(len(positions)))
    weights = np.round(counted.share * UNIT).astype(np.int64)
    counts, shares = count_pairs(counted.positions, counted.kinds, bins, weights=weights, images=counted.images)
    expected = _expected_pairs(counted, len(names))
    shells = sample.shells

    def normalised(pairs: np.ndarray, shares: np.ndarray, expected: float) -> tuple[np.ndarray, np.ndarray]:
        """The pair distribution and its Poisson error; NaN where there can be no pair."""
        g = shares / (expected * shells) if expected > 0 else np.full(bins.n, np.nan)
        if published:
            g = g / g[(middle >= _FAR[0]) & (middle < _FAR[1])].mean()
        with np.errstate(invalid="ignore", divide="ignore"):
            return g, np.where(pairs > 0, g * np.sqrt(2.0 / np.maximum(pairs, 1)), 0.0)

    middle = bins.step * (np.arange(bins.n) + 0.5)
    n = len(sample.positions)
    density = float(sample.share.sum()) / sample.volume
    g, error = normalised(counts.sum(axis=(0, 1)), shares.sum(axis=(0, 1)), float(expected.sum()))
    found = xr.Dataset(
        {
            "g": ("r", g, {"long_name": "pair distribution function"}),
            "g_error": ("r", error, {"long_name": "Poisson error of g"}),
            "pairs": ("r", counts.sum(axis=(0, 1)), {"long_name": "ordered pairs"}),
            "shell_volume": ("r", shells, {"units": "angstrom^3"}),
            "volume": ((), sample.volume, {"units": "angstrom^3"}),
            "density": ((), density, {"units": "1/angstrom^3"}),
        },
        {"r": ("r", middle, {"units": "angstrom"})},
        {"n_atoms": n, "step": bins.step, "convention": convention or "aetdist"},
    )
    if types is None:
        return found
    couples = [(a, b) for a in range(len(names)) for b in range(a, len(names))]
    rows = []
    for a, b in couples:
        both = [(a, b)] if a == b else [(a, b), (b, a)]
        pairs, part = (sum(array[i, j] for i, j in both) for array in (counts, shares))
        rows.append((*normalised(pairs, part, float(sum(expected[i, j] for i, j in both))), pairs))
    found = found.assign_coords(pair=[f"{names[a]}-{names[b]}" for a, b in couples])
    for k, name in enumerate(("partial_g", "partial_g_error", "partial_pairs")):
        found[name] = ("pair", "r"), np.stack([row[k] for row in rows])
    found.attrs["atoms_of_type"] = {str(t): int(c) for t, c in zip(names, np.bincount(sample.kinds), strict=True)}
    return found


def structure_factor(
    distribution: xr.Dataset, *, q_max: float = 20.0, q_step: float = 0.05, window: bool = True
) -> xr.Dataset:
    """The structure factor of a pair distribution.

    Parameters
    ----------
    distribution : xarray.Dataset
        From :func:`pair_distribution`.
    q_max, q_step : float
        Largest wave number and distance between them, in 1/Angstrom.
    window : bool, default True
        Multiply g - 1 by the window of Lorch, sin(pi r / R) / (pi r / R) with R the largest r, against the ripples of
        a g(r) that is cut off there.

    Returns
    -------
    xarray.Dataset
        ``structure_factor`` over ``q`` (1/Angstrom).

    Raises
    ------
    InputError
        If q_max or q_step is not positive.

    Notes
    -----
    S(q) = 1 + 4 pi rho integral of r^2 (g(r) - 1) sin(q r) / (q r) window(r) dr (all atoms alike; Lorch, J. Phys. C 2,
    229 (1969)). Features narrower than 2 pi / R are washed out.
    """
    if not 0 < q_step < q_max:
        raise InputError(f"q_max = {q_max} and q_step = {q_step} came; needed is 0 < q_step < q_max.")
    r = distribution["r"].values
    step, reach = float(distribution.attrs["step"]), float(r[-1] + distribution.attrs["step"] / 2)
    q = np.arange(1, round(q_max / q_step) + 1) * q_step
    weight = np.sinc(r / reach) if window else 1.0
    inner = r**2 * np.nan_to_num(distribution["g"].values - 1.0) * weight * step
    factor = 1.0 + 4.0 * np.pi * float(distribution["density"]) * (np.sinc(np.outer(q, r) / np.pi) @ inner)
    return xr.Dataset(
        {"structure_factor": ("q", factor, {"long_name": "structure factor"})},
        {"q": ("q", q, {"units": "1/angstrom"})},
        {"window": "lorch" if window else "none", "r_max": reach},
    )


@dataclass(frozen=True)
class _Sample:
    """Atoms whose pairs are counted, the part of each in the sample, and what the sample fills around them."""

    positions: np.ndarray
    kinds: np.ndarray
    share: np.ndarray
    volume: float
    shells: np.ndarray
    images: tuple[np.ndarray, np.ndarray] | None = None


def _finite(
    positions: np.ndarray, kinds: np.ndarray, shape: Any, alpha_radius: float, n_points: int, bins: Bins
) -> _Sample:
    """A sample with open boundaries; atoms outside a given shape are left out."""
    body = body_of(positions, shape, radius=alpha_radius, n_points=n_points)
    inside = np.ones(len(positions), bool) if shape is None else body.share > 0.0
    shells = shell_volumes(positions[inside], body, bins.n * bins.step, bins.step)
    return _Sample(positions[inside], kinds[inside], body.share[inside], body.volume, shells)


def _periodic(positions: np.ndarray, kinds: np.ndarray, cell: np.ndarray, bins: Bins) -> _Sample:
    """A sample that repeats: every shell is filled."""
    cell = np.asarray(cell, dtype=np.float64)
    inside, where, atom = periodic_images(positions, cell, bins.reach)
    edges = np.minimum(bins.step * np.arange(bins.n + 1), bins.reach)
    shells = len(inside) * 4.0 / 3.0 * np.pi * np.diff(edges**3)
    return _Sample(inside, kinds, np.ones(len(inside)), abs(float(np.linalg.det(cell))), shells, (where, atom))


def _expected_pairs(sample: _Sample, n_kinds: int) -> np.ndarray:
    """Pairs of each two kinds in an ideal gas, per volume of the shells around all atoms."""
    number = np.bincount(sample.kinds, minlength=n_kinds)
    part = np.bincount(sample.kinds, weights=sample.share, minlength=n_kinds)
    expected = np.outer(number, part)
    if sample.images is None:
        expected[np.diag_indices(n_kinds)] -= part  # no atom is its own neighbour
    return expected / (sample.volume * len(sample.positions))
