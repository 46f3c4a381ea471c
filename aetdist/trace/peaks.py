"""Peaks of a volume, block by block, and the atoms among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ..blocks.halo import block_cores, block_edges, with_halo
from ..errors import InputError
from ..schema import ATOMS, AXES, VOLUME, check, with_units
from ..voxels import noise_threshold, not_finite, voxel_size
from ..voxels._spline_kernels import filter_axes, filter_taps, spline_weights
from . import _fit_kernels, _kernels
from .support import matter_cells

# A block is large enough that its halo (some 18 voxels) does not dominate, and its arrays are some 50 MB.
SMALLEST_BLOCK = 96
LARGEST_BLOCK = 192
FIT_ITERATIONS = 10
FIT_WEIGHT = 0.5  # standard deviation of the Gaussian weight, in half boxes
# Maxima below this part of the density at a typical place of matter are not worth a fit: spline ripples, rounding.
SEARCH_FLOOR = 0.1
VACUUM = 3.0  # Angstrom from the tight support: farther out there is noise, or matter that the support missed,
FEWEST_IN_VACUUM = 3  # where an atom has so many others within `isolation` (some 13 at the surface of a metal)


@dataclass(frozen=True, eq=False)
class Peaks:
    """Local maxima of a volume (candidates), in voxels from its first voxel.

    Parameters
    ----------
    maximum : ndarray, shape (n, 3), int64
        Point (z, y, x) of the x3 upsampled grid; point 0 is voxel 0.
    position : ndarray, shape (n, 3), float64
        Fitted position (z, y, x) in voxels.
    height : ndarray, shape (n,), float64
        Value of the fitted polynomial there, in the unit of the volume.
    mean : ndarray, shape (n,), float64
        Mean of the volume over the fitted box around there.
    """

    maximum: np.ndarray
    position: np.ndarray
    height: np.ndarray
    mean: np.ndarray

    def __len__(self) -> int:
        return len(self.height)

    def select(self, which: np.ndarray) -> Peaks:
        """Some of the peaks, by index or by mask."""
        return Peaks(self.maximum[which], self.position[which], self.height[which], self.mean[which])

    @classmethod
    def concatenate(cls, parts: list[Peaks]) -> Peaks:
        """All peaks of all parts, the highest first; equal heights by place."""
        columns = (np.concatenate([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__)
        peaks = cls(*columns)
        z, y, x = peaks.maximum.T
        return peaks.select(np.lexsort((x, y, z, -peaks.height)))


@dataclass(frozen=True)
class Search:
    """What the search for peaks needs to know; lengths in voxels.

    Parameters
    ----------
    sigma : float
        Standard deviation of the Gaussian that smooths the volume.
    fit_box : float
        Edge of the box that the polynomial is fitted in.
    floor : float
        Maxima of the upsampled grid that are not larger are left out; in the unit of the volume.
    """

    sigma: float
    fit_box: float
    floor: float

    @property
    def step(self) -> float:
        """Distance of the samples of the fitted box."""
        return self.fit_box / (_fit_kernels.SAMPLES - 1)

    @property
    def halo(self) -> int:
        """Voxels around a block that its peaks depend on: the reach of the filter plus that of the fit."""
        return len(filter_taps(self.sigma)) - 1 + _fit_kernels.fit_reach(self.step)


def trace_atoms(
    volume: xr.Dataset,
    *,
    minimum_distance: float = 1.7,
    threshold: float | None = None,
    sigma: float = 1.0,
    fit_box: float = 0.8,
    isolation: float = 5.0,
    support: Any = None,
) -> xr.Dataset:
    """Computes: atoms are the strong local maxima of a volume that keep their distance.

    Parameters
    ----------
    volume : xarray.Dataset
        ``schema.VOLUME``: `density` (z, y, x) with coordinates in Angstrom. A lazy density is read block
        by block, one task each, on the current Dask client.
    minimum_distance : float
        Of two peaks nearer than this, in Angstrom, only the higher one can be an atom.
    threshold : float, optional
        Least mean density (after smoothing) over the fitted box around an atom, in the unit of `density`.
        By default it is chosen by :func:`noise_threshold` from all peaks that keep their distance, and from
        those of them in the vacuum, which are noise (:func:`find_support`).
    sigma : float
        Standard deviation, in voxels, of the Gaussian that smooths the volume first. 0 for a volume
        without noise; 0.7 to 1.3 for a measured one.
    fit_box : float
        Edge of the box, in Angstrom, around a maximum in which a polynomial is fitted.
    isolation : float
        An atom without another one within this length, in Angstrom, is noise; far from the matter, one without
        three others. 0 keeps such atoms.
    support : array_like, shape (z, y, x), bool, optional
        True where atoms may be. By default the volume's own `support` (a scan's says where its windows
        are: in the margin around the field atoms cannot be told); everywhere if it has none.

    Returns
    -------
    xarray.Dataset
        ``schema.ATOMS``, the highest peak first: `position` (atom, axis) float64 in Angstrom in the frame
        of the volume's coordinates; `intensity` (atom,) float64, height of the fitted peak of the smoothed
        density; `box_intensity` (atom,) float64, its mean over the fitted box. Attributes: `threshold`,
        `n_peaks` (all maxima), `minimum_distance`, `sigma`, `fit_box`, `isolation`.

    Raises
    ------
    InputError
        If the volume has no coordinates, uneven or unequal steps, fewer than four voxels along an axis, or
        values that are not finite; if an option is out of its range; if no peak is above the threshold.

    Notes
    -----
    Steps of [1]_: the volume, smoothed, is interpolated on a grid three times as fine by a cubic B-spline;
    around every local maximum (of 26 neighbours) of that grid a polynomial of fourth order with a Gaussian
    weight is fitted [2]_, the box centred on the polynomial's maximum until it stays; from the highest
    down, a peak stays if no higher one that stayed is nearer than `minimum_distance`; weak ones, and single
    ones in the vacuum, are noise.
    The spline mirrors the volume at its faces, and maxima on the faces themselves do not count.

    A block finds the maxima of its own voxels and reads as many voxels around it as they depend on; all
    that compares peaks is done once for the whole volume. The atoms do not depend on the blocks, to the bit.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods.
    .. [2] S. S. Rogers et al., Phys. Biol. 4, 220-227 (2007).
    """
    if not (np.isfinite(minimum_distance) and minimum_distance >= 0):
        raise InputError(f"minimum_distance is {minimum_distance}; needed is a length in Angstrom, 0 or more.")
    if threshold is not None and not np.isfinite(threshold):
        raise InputError(f"The threshold is {threshold}; needed is a finite density, or None to have one chosen.")
    if not isolation >= 0:
        raise InputError(f"isolation is {isolation}; needed is a length in Angstrom, or 0 to keep isolated atoms.")
    if support is None and "support" in volume:
        support = volume["support"].data
    voxel, _ = _checked(volume, sigma, fit_box, support)
    floor = SEARCH_FLOOR * _matter_density(volume["density"].data)
    parts = find_peaks(volume, sigma=sigma, fit_box=fit_box, floor=floor, support=support)
    peaks = Peaks.concatenate(list(dask.compute(*parts)))
    n_peaks = len(peaks)
    if n_peaks == 0:
        raise InputError(
            f"There are no maxima above {floor:.3g}, the least that is searched"
            f"{' inside the support' if support is not None else ''}; trace a volume that was reconstructed."
        )
    peaks = peaks.select(_far_from_higher(peaks.position * voxel, minimum_distance))
    vacuum = _in_vacuum(volume, peaks)
    if threshold is None:
        threshold = noise_threshold(peaks.mean, peaks.mean[vacuum])
    strong = peaks.mean > threshold
    atoms, vacuum = peaks.select(strong), vacuum[strong]
    if len(atoms) == 0:
        raise InputError(
            f"No maxima above the threshold {threshold:.4g}: the strongest of {n_peaks} reaches "
            f"{peaks.mean.max():.4g}; lower the threshold, or leave it out to have one chosen."
        )
    if isolation > 0:
        crowd = ~vacuum | (_neighbours(atoms.position * voxel, isolation) >= FEWEST_IN_VACUUM)
        atoms = atoms.select(crowd)
        atoms = atoms.select(_neighbours(atoms.position * voxel, isolation) > 0)
        if len(atoms) == 0:
            raise InputError(
                f"Every maximum above the threshold {threshold:.4g} is farther than {isolation:.4g} Angstrom from the "
                "others; set isolation to 0 to keep isolated atoms."
            )
    start = np.array([float(volume[axis][0]) for axis in AXES])
    dataset = xr.Dataset(
        {
            "position": (("atom", "axis"), start + voxel * atoms.position[:, ::-1]),
            "intensity": ("atom", atoms.height),
            "box_intensity": (
                "atom",
                atoms.mean,
                {"units": "1", "long_name": "mean of the smoothed density over the fitted box"},
            ),
        },
        coords={"atom": np.arange(len(atoms)), "axis": list(AXES)},
        attrs={
            "threshold": float(threshold),
            "n_peaks": n_peaks,
            "minimum_distance": float(minimum_distance),
            "sigma": float(sigma),
            "fit_box": float(fit_box),
            "isolation": float(isolation),
        },
    )
    return with_units(dataset, ATOMS)


def find_peaks(
    volume: xr.Dataset, *, sigma: float = 1.0, fit_box: float = 0.8, floor: float = 0.0, support: Any = None
) -> list[Any]:
    """All local maxima above a floor, in parts: one for each block of the volume.

    Parameters
    ----------
    volume, sigma, fit_box, support
        See :func:`trace_atoms`.
    floor : float
        Maxima of the upsampled grid that are not larger than this are left out; in the unit of `density`.

    Returns
    -------
    list
        A :class:`Peaks` for each block of a NumPy density; a ``dask.delayed`` one of a lazy density (nothing
        is computed: each task slices its block and halo from the array).

    Raises
    ------
    InputError
        See :func:`trace_atoms`.
    """
    voxel, support = _checked(volume, sigma, fit_box, support)
    density = volume["density"].data
    search = Search(float(sigma), fit_box / voxel, float(floor))
    lazy = isinstance(density, da.Array)
    if not lazy:
        density = np.asarray(density, dtype=np.float32)
        if not np.isfinite(density).all():
            raise InputError(not_finite(int((~np.isfinite(density)).sum()), "the volume"))
        if isinstance(support, da.Array):
            support = support.compute()
    chunks = density.chunks if lazy else tuple((n,) for n in density.shape)
    edges = [block_edges(n, c, SMALLEST_BLOCK, LARGEST_BLOCK) for n, c in zip(density.shape, chunks, strict=True)]
    run = dask.delayed(_peaks_of_block) if lazy else _peaks_of_block
    parts = []
    for core in block_cores(edges):
        region, pads = with_halo(core, density.shape, search.halo)
        inside = None if support is None else support[tuple(slice(*c) for c in core)]
        parts.append(run(density[region], inside, core, pads, density.shape, search))
    return parts


def _peaks_of_block(
    block: np.ndarray,
    support: np.ndarray | None,
    core: tuple[tuple[int, int], ...],
    pads: tuple[tuple[int, int], ...],
    shape: tuple[int, int, int],
    search: Search,
) -> Peaks:
    """Peaks whose maximum lies in voxels `core` of a volume of `shape`; `block` has the halo but for `pads`."""
    block = np.asarray(block, dtype=np.float32)
    if not np.isfinite(block).all():
        where = ", ".join(f"{axis} {lo}..{hi - 1}" for axis, (lo, hi) in zip("zyx", core, strict=True))
        raise InputError(not_finite(int((~np.isfinite(block)).sum()), f"the block of voxels {where}"))
    reach = _fit_kernels.fit_reach(search.step)
    coefficients = filter_axes(np.pad(block, pads, mode="reflect"), filter_taps(search.sigma))
    weights = spline_weights(np.arange(3) / 3).astype(np.float32)
    maxima = _kernels.find_maxima(coefficients, reach, weights, np.float32(search.floor))
    first = np.array([lo for lo, _ in core])
    size = np.array(shape)
    point = maxima + 3 * first
    own = ((point > 0) & (point < 3 * (size - 1))).all(axis=1)
    if support is not None:
        z, y, x = ((maxima + 1) // 3).T
        own &= np.asarray(support, dtype=bool)[z, y, x]
    maxima, point = maxima[own], point[own].astype(np.int64)
    matrix = _fit_kernels.fit_matrix(FIT_WEIGHT)
    offset, height, mean, _ = _fit_kernels.fit_peaks(coefficients, reach, maxima, matrix, search.step, FIT_ITERATIONS)
    return Peaks(point, (point + 1) // 3 + offset, height, mean)


def _matter_density(density: Any) -> float:
    """Mean of the positive density, weighted with itself: the same however much vacuum surrounds the matter."""
    if isinstance(density, da.Array):
        blocks = [dask.delayed(_moments)(block) for block in density.to_delayed().ravel()]
        moments = np.array(dask.compute(*blocks))
    else:
        moments = np.array([_moments(density)])
    total, square = moments[:, :2].sum(axis=0)
    least, largest = moments[:, 2].min(), moments[:, 3].max()
    if least > largest:
        raise InputError("The density is nowhere a finite number; trace a volume that was reconstructed.")
    if largest <= 0 or largest - least <= 1e-5 * max(abs(least), largest):
        raise InputError(
            f"There are no maxima above the threshold: the density is {least:.4g} to {largest:.4g} everywhere; trace "
            "a volume that was reconstructed."
        )
    # Three digits, so that the order of the sums cannot show.
    return float(f"{square / total:.2e}")


def _moments(block: Any) -> tuple[float, float, float, float]:
    # One kind of array (writeable float32), so that the kernel is compiled once.
    return _kernels.density_moments(np.require(block, np.float32, ["C", "W"]))


def _in_vacuum(volume: xr.Dataset, peaks: Peaks) -> np.ndarray:
    """Which peaks lie far from all matter."""
    matter, factor = matter_cells(volume, margin=VACUUM)
    z, y, x = ((peaks.maximum + 1) // 3 // factor).T
    return ~matter[z, y, x]


def _far_from_higher(position: np.ndarray, distance: float) -> np.ndarray:
    """Which peaks (highest first) stay when each that stays removes all later ones nearer than `distance`."""
    if distance == 0 or len(position) < 2:
        return np.ones(len(position), dtype=bool)
    pairs = cKDTree(position).query_pairs(distance, output_type="ndarray").astype(np.int64)
    near = np.linalg.norm(position[pairs[:, 0]] - position[pairs[:, 1]], axis=1) < distance
    pairs = np.sort(pairs[near], axis=1)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return _kernels.suppress_near(pairs[:, 0], pairs[:, 1], len(position))


def _neighbours(position: np.ndarray, distance: float) -> np.ndarray:
    """How many others each point has within `distance`."""
    if len(position) == 0:
        return np.zeros(0, dtype=np.int64)
    return cKDTree(position).query_ball_point(position, distance, return_length=True) - 1


def _checked(volume: xr.Dataset, sigma: float, fit_box: float, support: Any) -> tuple[float, Any]:
    """Voxel size in Angstrom and the bare array of the support; refuses what cannot be traced."""
    check(volume, VOLUME)
    voxel = voxel_size(volume)
    if not (np.isfinite(sigma) and sigma >= 0):
        raise InputError(f"sigma is {sigma}; needed is a number of voxels, 0 or more.")
    if not (np.isfinite(fit_box) and 0 < fit_box <= 8 * voxel):
        raise InputError(
            f"fit_box is {fit_box} Angstrom; needed is a positive length, at most 8 voxels ({8 * voxel:.3g} Angstrom)."
        )
    support = support.data if isinstance(support, xr.DataArray) else support
    shape = volume["density"].shape
    if support is not None and np.shape(support) != shape:
        raise InputError(f"The support has shape {np.shape(support)}; the volume has {shape}; crop one of them.")
    return voxel, support
