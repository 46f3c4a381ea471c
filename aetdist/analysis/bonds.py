"""Bond-orientational order of atoms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import xarray as xr

from ..blocks.atoms import ATOMS_PER_BLOCK, atom_blocks, gather_owned, map_blocks
from ..errors import InputError
from ..neighbors import neighbour_list
from ._bond_kernels import bond_harmonics, legendre_tables, neighbour_means, norms, third_order
from ._inputs import atoms_of
from .pair_distribution import pair_distribution
from .peaks import first_valley

ORDERED = 0.5
"""Normalised order from which on the paper calls an atom crystalline."""
_FCC = math.hypot(0.190941, 0.574524)  # Q4 and Q6 of a perfect fcc crystal, in the digits that the paper divides by
_VALLEY_WITHIN = 8.0  # Angstrom; the first valley of every element lies well before
_ATOMS = 4 * ATOMS_PER_BLOCK  # of a block, which is little work
_LARGEST_DEGREE = 20  # the recursions and 3j symbols are checked so far


def bond_order(
    atoms: xr.Dataset | np.ndarray,
    cutoff: float | None = None,
    *,
    l: Sequence[int] = (4, 6),  # noqa: E741
    averaged: bool = True,
    third: bool = False,
    largest: int = _ATOMS,
) -> xr.Dataset:
    """Computes: bond-orientational order parameters of every atom, open boundaries.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions (x, y, z) in Angstrom.
    cutoff : float, optional
        Neighbours are nearer than this, in Angstrom; default: the first valley of the pair distribution, corrected
        for the sample's shape.
    l : sequence of int, default (4, 6)
        Degrees of the spherical harmonics, 1 to 20.
    averaged : bool, default True
        Average q_lm over the neighbours and the atom itself (Lechner and Dellago); False: Steinhardt's own.
    third : bool, default False
        Also the third-order invariants w_l of the even degrees.
    largest : int
        Atoms of a block; the answer does not depend on it, to the last bit.

    Returns
    -------
    xarray.Dataset
        ``q4``, ``q6``, ... (atom) float64; ``w4``, ``w6``, ... (atom) float64 where asked for; ``order`` (atom)
        float64 where l has 4 and 6: sqrt(Q4^2 + Q6^2) over that of a perfect fcc crystal, which it may exceed;
        ``n_neighbours`` (atom) int64. An atom without neighbours has NaN. Attributes: ``cutoff`` and
        ``cutoff_error`` in Angstrom, the latter the Poisson error of the valley, NaN where the cut-off was given;
        ``averaged``; ``ordered_fraction``, the share of all atoms with an order of 0.5 or more.

    Raises
    ------
    InputError
        If the atoms cannot be used, the cut-off is no length, no atom has a neighbour within it, or `l` is not made
        of different whole numbers from 1 to 20.

    Notes
    -----
    q_lm(i) is the mean over the neighbours j of Y_lm(r_ij), averaged over the neighbours and i itself;
    Q_l = sqrt(4 pi / (2 l + 1) sum_m |q_lm|^2);
    w_l = sum_(m1 + m2 + m3 = 0) (l l l; m1 m2 m3) q_lm1 q_lm2 q_lm3 / (sum_m |q_lm|^2)^(3/2).

    References
    ----------
    P. J. Steinhardt, D. R. Nelson, M. Ronchetti, Phys. Rev. B 28, 784 (1983); W. Lechner, C. Dellago, J. Chem. Phys.
    129, 114707 (2008); Y. Yang et al., Nature 592, 60 (2021), Methods.
    """
    degrees = _checked(l)
    positions, _ = atoms_of(atoms)
    error = np.nan
    if cutoff is None:
        distribution = pair_distribution(positions, r_max=_VALLEY_WITHIN)
        cutoff, error = first_valley(*(distribution[name].values for name in ("r", "g", "pairs")))
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"The cut-off is {cutoff}; needed is a positive length in Angstrom.")
    blocks = atom_blocks(positions, (2 if averaged else 1) * cutoff, largest=largest)
    settings = {"cutoff": float(cutoff), "degrees": degrees, "averaged": averaged, "third": third}
    parts = map_blocks(_block, blocks, positions, **settings)
    invariants, count = (gather_owned(blocks, [part[k] for part in parts], len(positions)) for k in range(2))
    if not count.any():
        raise InputError(f"No atom has a neighbour within the cut-off of {cutoff} Angstrom; give a longer one.")
    names = [f"q{degree}" for degree in degrees] + [f"w{degree}" for degree in degrees if third and degree % 2 == 0]
    found = xr.Dataset(
        {name: ("atom", values, {"units": "1"}) for name, values in zip(names, invariants.T.copy(), strict=True)},
        {"atom": numbers_of(atoms)},
        {"cutoff": float(cutoff), "cutoff_error": float(error), "averaged": int(averaged)},
    )
    if {4, 6} <= set(degrees):
        order = np.hypot(found["q4"].values, found["q6"].values) / _FCC
        found["order"] = "atom", order, {"units": "1", "long_name": "bond order, 1 in a perfect fcc crystal"}
        found.attrs["ordered_fraction"] = float(np.mean(order >= ORDERED))
    found["n_neighbours"] = "atom", count, {"units": "1"}
    return found


def numbers_of(atoms: xr.Dataset | np.ndarray) -> np.ndarray:
    """Numbers of atoms, shape (n,): their own where they have them, else from 0 on."""
    if isinstance(atoms, xr.Dataset):
        return np.asarray(atoms["atom"].values)
    return np.arange(len(atoms))


def _checked(degrees: Sequence[int]) -> tuple[int, ...]:
    """The degrees as integers, or an error."""
    known = range(1, _LARGEST_DEGREE + 1)
    if not len(degrees) or len(set(degrees)) < len(degrees) or not all(degree in known for degree in degrees):
        raise InputError(f"l came as {degrees}; needed are different whole numbers from 1 to {_LARGEST_DEGREE}.")
    return tuple(int(degree) for degree in degrees)


def _block(
    core: np.ndarray, positions: np.ndarray, *, cutoff: float, degrees: tuple[int, ...], averaged: bool, third: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Invariants, first Q then w, and number of neighbours of a block's own atoms."""
    own, neighbours = np.flatnonzero(core), neighbour_list(positions, cutoff)
    begin = 2 * np.cumsum([0] + [degree + 1 for degree in degrees])
    column = np.full(max(degrees) + 1, -1)
    column[list(degrees)] = begin[:-1]
    tables = legendre_tables(max(degrees))
    q = bond_harmonics(positions, neighbours.start, neighbours.index, *tables, column, int(begin[-1]))
    q = neighbour_means(q, neighbours.start, neighbours.index, own) if averaged else q[own]
    parts = [q[:, a:b] for a, b in pairwise(begin)]
    invariants = [norms(part, degree) for part, degree in zip(parts, degrees, strict=True)]
    if third:
        even = [(part, degree) for part, degree in zip(parts, degrees, strict=True) if degree % 2 == 0]
        invariants += [third_order(part, degree, wigner_3j(degree)) for part, degree in even]
    return np.stack(invariants, axis=1), neighbours.count[own]


def wigner_3j(degree: int) -> np.ndarray:
    """Wigner's 3j symbols (l l l; m1 m2 -m1-m2) by Racah's formula.

    Parameters
    ----------
    degree : int
        l.

    Returns
    -------
    ndarray, shape (2 l + 1, 2 l + 1), float64
        By m1 + l and m2 + l; 0 where m1 + m2 is beyond l.
    """
    l, f = degree, math.factorial  # noqa: E741
    table = np.zeros((2 * l + 1, 2 * l + 1))
    for m1 in range(-l, l + 1):
        for m2 in range(max(-l, -l - m1), min(l, l - m1) + 1):
            m3 = -m1 - m2
            scale = f(l) ** 3 * math.prod(f(l + m) * f(l - m) for m in (m1, m2, m3))
            terms = range(max(0, -m1, m2), min(l, l - m1, l + m2) + 1)
            total = sum(  # of fractions: the terms cancel to many digits
                Fraction((-1) ** k, f(k) * f(l - k) * f(l - m1 - k) * f(l + m2 - k) * f(k + m1) * f(k - m2))
                for k in terms
            )
            table[l + m1, l + m2] = (-1) ** m3 * math.sqrt(scale / f(3 * l + 1)) * float(total)
    return table
