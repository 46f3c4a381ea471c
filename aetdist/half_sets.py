"""How good is it, without a truth: two halves of the tilts, each reconstructed on its own, and what they agree on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .errors import InputError
from .fourier_shells import fourier_shell_correlation, soft_mask
from .geometry import grid_step
from .metrics import Comparison, compare_atoms
from .progress import report
from .reconstruct import reconstruct_resire
from .refine import refine_atoms
from .schema import TILT_SERIES, check
from .trace import find_support, trace_atoms

FEWEST = 3
"""Tilts that a half must have."""
MARGIN = 3.0
"""Angstrom of the mask around the matter, and as many again over which it falls."""


def half_sets(tilt_series: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Two halves of a tilt series: every other tilt by rising tilt angle.

    Parameters
    ----------
    tilt_series : xarray.Dataset
        TILT_SERIES.

    Returns
    -------
    tuple of two xarray.Dataset
        TILT_SERIES each, the tilts in the order in which they were.

    Raises
    ------
    InputError
        If a half would have fewer than three tilts.
    """
    check(tilt_series, TILT_SERIES)
    if tilt_series.sizes["tilt"] < 2 * FEWEST:
        raise InputError(
            f"{tilt_series.sizes['tilt']} tilts came; two halves need at least {2 * FEWEST}, {FEWEST} in each."
        )
    order = np.argsort(tilt_series["angles"].values[:, 1], kind="stable")
    first, second = (tilt_series.isel(tilt=np.sort(order[i::2])) for i in (0, 1))
    return first, second


def half_set_resolution(
    tilt_series: xr.Dataset,
    *,
    masked: bool = True,
    reconstruct: Callable[..., xr.Dataset] = reconstruct_resire,
    **keywords: Any,
) -> xr.Dataset:
    """Computes: the Fourier shell correlation of two volumes, each reconstructed from every other tilt.

    Parameters
    ----------
    tilt_series : xarray.Dataset
        TILT_SERIES.
    masked : bool
        Compare only where there is matter: where the mean of both volumes, smoothed over the distance of
        neighbouring atoms, has any (:func:`~aetdist.trace.find_support`), 3 Angstrom more, and softly 3 beyond.
    reconstruct : callable
        What makes a volume (VOLUME) of a tilt series.
    **keywords
        Its keywords, such as ``iterations`` or ``thickness``.

    Returns
    -------
    xarray.Dataset
        As of :func:`~aetdist.fourier_shells.fourier_shell_correlation`. The attributes say how many tilts each half
        has, and whether it is masked.

    Raises
    ------
    InputError
        If there are fewer than six tilts, or a keyword cannot be used.

    Notes
    -----
    Errors that both halves share are not seen: a wrong axis, the missing wedge, what positivity makes of noise. A
    half has twice the angle between its tilts, so that the volume of all tilts is somewhat better.
    """
    volumes = []
    for number, half in enumerate(half_sets(tilt_series)):
        report(number, 2, "half sets")
        volumes.append(reconstruct(half, **keywords)["density"])
    report(2, 2, "half sets")
    # A volume made to hold what its tilts see may be a few voxels wider than the other's; voxels are the same.
    a, b = xr.align(*volumes, join="inner")
    size = grid_step(a["x"].values)
    mask = None
    if masked:
        support = find_support(((a + b) / 2).to_dataset(name="density"), margin=MARGIN)
        mask = soft_mask(support.values, MARGIN / size)
    result = fourier_shell_correlation(a.values, b.values, size, mask=mask)
    sizes = [half.sizes["tilt"] for half in half_sets(tilt_series)]
    return result.assign_attrs(tilts_of_halves=sizes, masked=masked)


@dataclass(frozen=True, eq=False)
class HalfSetAtoms:
    """What two sets of atoms, found in independent halves of the data, say of each other.

    Parameters
    ----------
    n_atoms : tuple of int
        Atoms of each half.
    matched_fraction : float
        2 pairs / (atoms of both halves).
    rms_difference : ndarray, shape (3,), float64
        Along x, y and z in Angstrom, of the pairs.
    sigma_half, sigma : ndarray, shape (3,), float64
        Standard deviation in Angstrom of a position of one half, rms_difference / sqrt(2), and of one from all the
        data, rms_difference / 2, where the errors come from noise. Errors that both halves share are not in it.
    comparison : Comparison
        Everything else, pairs among it.
    """

    n_atoms: tuple[int, int]
    matched_fraction: float
    rms_difference: np.ndarray
    sigma_half: np.ndarray
    sigma: np.ndarray
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, fit for JSON; None for what is not defined."""
        lists = {name: getattr(self, name).tolist() for name in ("rms_difference", "sigma_half", "sigma")}
        return {
            "n_atoms": list(self.n_atoms),
            "matched_fraction": None if math.isnan(self.matched_fraction) else self.matched_fraction,
            **{name: [None if math.isnan(v) else v for v in values] for name, values in lists.items()},
        }


def compare_half_sets(a: xr.Dataset, b: xr.Dataset, *, tolerance: float = 0.75) -> HalfSetAtoms:
    """How well the atoms of two halves agree, and how precise that says their positions are.

    Parameters
    ----------
    a, b : xarray.Dataset
        ATOMS, each found in one half of the tilts.
    tolerance : float
        Largest distance of a pair in Angstrom.

    Returns
    -------
    HalfSetAtoms
        Pairs, and what they say of the precision.

    Raises
    ------
    InputError
        If these are no atoms, or the tolerance is not positive.
    """
    found = compare_atoms(a, b, tolerance=tolerance)
    rms = np.array([found.rms_x, found.rms_y, found.rms_z])
    return HalfSetAtoms((found.n_found, found.n_truth), found.f1, rms, rms / math.sqrt(2.0), rms / 2.0, found)


def half_set_atoms(
    tilt_series: xr.Dataset, *, tolerance: float = 0.75, find: Callable[[xr.Dataset], xr.Dataset] | None = None
) -> HalfSetAtoms:
    """Computes: the atoms of each half of the tilts, and what they say of each other.

    Parameters
    ----------
    tilt_series : xarray.Dataset
        TILT_SERIES.
    tolerance : float
        Largest distance of a pair in Angstrom.
    find : callable, optional
        From a TILT_SERIES to its ATOMS. By default a volume is reconstructed, traced, and the atoms refined, with
        the defaults of :func:`~aetdist.reconstruct.reconstruct_resire`, :func:`~aetdist.trace.trace_atoms` and
        :func:`~aetdist.refine.refine_atoms`.

    Returns
    -------
    HalfSetAtoms
        Pairs, and what they say of the precision.
    """
    first, second = ((find or _atoms_of)(half) for half in half_sets(tilt_series))
    return compare_half_sets(first, second, tolerance=tolerance)


def _atoms_of(tilt_series: xr.Dataset) -> xr.Dataset:
    """Reconstruct, trace, refine."""
    volume = reconstruct_resire(tilt_series)
    return refine_atoms(tilt_series, trace_atoms(volume), volume=volume)
