"""Width of the interface between crystal nuclei and the glass around them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array

from ..errors import InputError
from ._inputs import atoms_of
from .bonds import ORDERED
from .nuclei import order_of
from .surface import alpha_shape, distance_to_faces, surface_mask

# What the uncertainty is the spread over: factors of the radius and of the bins, and of either end of the range.
_RADII, _STEPS, _RANGES = (0.9, 1.0, 1.2), (0.5, 1.0, 2.0), ((1.0, 1.0), (0.5, 1.0), (1.0, 0.75))
_WIDTHS = np.geomspace(0.1, 100.0, 301)  # Angstrom; of these the best is refined


def interface_width(
    atoms: xr.Dataset | np.ndarray,
    order: xr.Dataset | np.ndarray,
    *,
    radius: float | None = None,
    threshold: float = ORDERED,
    step: float = 0.25,
    fit_range: tuple[float, float] = (-2.0, 12.0),
    smoothing: int = 1,
    surface: float | np.ndarray = 5.0,
) -> xr.Dataset:
    """Computes: how the bond order decays across the surface of crystal nuclei into the glass.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions (x, y, z) in Angstrom.
    order : xarray.Dataset or array_like, shape (n,), float
        What `bond_order` gave, or any order of every atom.
    radius : float, optional
        Of the alpha shape of the ordered atoms, whose boundary is the interface, in Angstrom; default: the cut-off of
        `order` (3.688 Angstrom in the paper).
    threshold : float, default 0.5
        Atoms of this order or more are ordered.
    step : float, default 0.25
        Width of a bin of distance, in Angstrom.
    fit_range : tuple of float, default (-2, 12)
        Distances that are fitted, in Angstrom; negative ones are inside the nuclei.
    smoothing : int, default 1
        How often each corner of that boundary moves half way to the mean of its neighbours; 0 takes the atoms as they
        are. Distances from a boundary as rough as atoms make the width too small: synthetic interfaces of 2.5 to 5.5
        Angstrom come out up to 10 % too narrow without, and within 5 % after one (noise of the order up to 0.02).
    surface : float or array_like, shape (n,), bool
        Radius in Angstrom of the alpha shape of all atoms, whose boundary is where the sample ends, or a mask of the
        atoms there: these do not count, and where a nucleus ends with the sample is no interface.

    Returns
    -------
    xarray.Dataset
        ``width`` d_c and its ``width_sigma``, Angstrom; ``amplitude`` a and ``background`` b of the fit; by
        ``distance`` from the interface (Angstrom, middle of the bin): ``order``, the mean of the atoms there,
        ``order_error``, its standard error, ``n_atoms`` and ``fit``; by ``variant``: ``variant_width``,
        ``variant_radius``, ``variant_step``, ``variant_start``, ``variant_end``, all Angstrom.

    Raises
    ------
    InputError
        If the atoms, the order, the bins or the range cannot be used, the ordered atoms enclose no volume, or
        the order does not decay.

    Notes
    -----
    Least squares of a exp(-x / d_c) + b, every bin by the number of its atoms. What the paper does between atoms and
    fit is not said, and the answer depends on it more than on the statistics: `width_sigma` is the standard deviation
    over 27 sensible radii, bins and ranges. Ordered atoms are found by the noisy order that is then averaged, which
    makes an interface look narrower the noisier the order is.

    References
    ----------
    Y. Yang et al., Nature 592, 60 (2021), Fig. 2 and Methods (3.69 Angstrom).
    """
    positions, _ = atoms_of(atoms)
    values, radius = order_of(order, len(positions), radius)
    low, high = map(float, fit_range)
    if smoothing < 0 or smoothing != int(smoothing):
        raise InputError(f"smoothing = {smoothing} came; needed is a whole number from 0 on.")
    if not (step > 0 and low < 0 < high and high - low >= 8 * step):
        raise InputError(
            f"step = {step} and fit_range = {tuple(fit_range)} came; needed are bins of a positive width and a range "
            "from inside (negative) to outside of 8 bins or more."
        )
    at_end = surface_mask(positions, surface)
    distances = [_distance(positions, values >= threshold, factor * radius, smoothing, at_end) for factor in _RADII]
    variants = []
    for (factor, x), wide, (below, above) in product(zip(_RADII, distances, strict=True), _STEPS, _RANGES):
        ends = low * below, high * above
        width = _fit(*_profile(x, values, wide * step, *ends)[:3])[0]
        variants.append((width, factor * radius, wide * step, *ends))
    centres, mean, count, error = _profile(distances[_RADII.index(1.0)], values, step, low, high)
    width, amplitude, background = _fit(centres, mean, count)
    if not np.isfinite(width):
        raise InputError(f"The order does not decay between {low} and {high} Angstrom from the nuclei; no width fits.")
    fitted = amplitude * np.exp(-centres / width) + background
    length = {"units": "angstrom"}
    columns = np.array(variants).T
    names = ("width", "radius", "step", "start", "end")
    return xr.Dataset(
        {
            "width": ((), width, {**length, "long_name": "decay length of the order across the interface"}),
            "width_sigma": ((), float(np.nanstd(columns[0])), length),
            "amplitude": ((), amplitude, {"units": "1"}),
            "background": ((), background, {"units": "1"}),
            "order": ("distance", mean, {"units": "1"}),
            "order_error": ("distance", error, {"units": "1"}),
            "n_atoms": ("distance", count, {"units": "1"}),
            "fit": ("distance", fitted, {"units": "1"}),
            **{f"variant_{name}": ("variant", c, length) for name, c in zip(names, columns, strict=True)},
        },
        {"distance": ("distance", centres, length), "variant": np.arange(len(variants))},
        {
            "radius": radius,
            "threshold": float(threshold),
            "smoothing": int(smoothing),
        },
    )


def _distance(
    positions: np.ndarray, ordered: np.ndarray, radius: float, smoothing: int, at_end: np.ndarray
) -> np.ndarray:
    """Distance (n,) from the interface in Angstrom, negative in the nuclei; NaN where the sample ends."""
    if ordered.sum() < 5:
        raise InputError(f"{ordered.sum()} atoms are ordered; nuclei need 5 or more: lower the threshold.")
    shape = alpha_shape(positions[ordered], radius, boundary_only=True)
    ends = at_end[np.flatnonzero(ordered)[shape.faces]].any(axis=1)
    if ends.all():  # also where there is none
        raise InputError(
            f"The ordered atoms have no surface within the sample at a radius of {radius:.3g} Angstrom; "
            "no interface is there, or a longer radius finds it."
        )
    shape = replace(shape, positions=_smoothed(shape.positions, shape.faces, smoothing))
    triangles = shape.positions[shape.faces]
    x = distance_to_faces(positions, triangles[~ends])
    beyond = distance_to_faces(positions, triangles[ends]) < x  # False where there are none
    return np.where(at_end | beyond, np.nan, np.where(shape.contains(positions), -x, x))


def _smoothed(corners: np.ndarray, faces: np.ndarray, times: int) -> np.ndarray:
    """The corners of faces, each moved half way to the mean of its neighbours, so many times."""
    n = len(corners)
    first, second = faces[:, [0, 1, 2, 1, 2, 0]].ravel(), faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    near = csr_array((np.ones(len(first)), (first, second)), shape=(n, n))  # an edge of two faces is one entry
    near.data[:] = 1.0
    count = np.diff(near.indptr)[:, None]
    for _ in range(times):
        corners = np.where(count > 0, 0.5 * (corners + near @ corners / np.maximum(count, 1)), corners)
    return corners


def _profile(
    x: np.ndarray, order: np.ndarray, step: float, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Middle, mean order, number of atoms and standard error of every bin; NaN where no atoms are."""
    n = int(np.floor((high - low) / step + 1e-9))
    known = np.isfinite(x) & np.isfinite(order) & (x >= low) & (x < low + n * step)
    bins = np.minimum(np.floor((x[known] - low) / step).astype(int), n - 1)
    count = np.bincount(bins, minlength=n)
    some = np.maximum(count, 1)
    mean = np.where(count > 0, np.bincount(bins, order[known], n) / some, np.nan)
    square = np.bincount(bins, (order[known] - mean[bins]) ** 2, n)
    error = np.where(count > 1, np.sqrt(square / (some * np.maximum(count - 1, 1))), np.nan)
    return low + (np.arange(n) + 0.5) * step, mean, count, error


def _fit(x: np.ndarray, mean: np.ndarray, count: np.ndarray) -> tuple[float, float, float]:
    """Width, amplitude and background of the exponential of least squares; NaN where the order does not decay."""
    some = count > 0
    x, mean, weight = x[some], mean[some], count[some] / count.sum()

    def solve(width: float) -> tuple[float, float, float]:
        """Sum of squares of the best amplitude and background, and these two."""
        decay = np.exp(-(x - x[0]) / width)  # from the first bin on, so that it is 1 at most
        centred = decay - weight @ decay
        amplitude = float(weight @ (centred * mean) / max(weight @ centred**2, 1e-300))
        background = float(weight @ (mean - amplitude * decay))
        return float(weight @ (mean - amplitude * decay - background) ** 2), amplitude, background

    squares = [solve(width)[0] for width in _WIDTHS]
    best = int(np.argmin(squares))
    if not 0 < best < len(_WIDTHS) - 1:
        return np.nan, np.nan, np.nan
    around = np.log(_WIDTHS[[best - 1, best + 1]])
    width = float(np.exp(minimize_scalar(lambda u: solve(np.exp(u))[0], bounds=around, options={"xatol": 1e-9}).x))
    _, amplitude, background = solve(width)
    if amplitude <= 0:
        return np.nan, np.nan, np.nan
    return width, amplitude * float(np.exp(x[0] / width)), background
