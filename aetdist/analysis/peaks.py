"""Maxima and minima of a pair distribution, with the definitions that the published figures follow."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.signal import find_peaks

from ..errors import InputError

_SMOOTHING = 2.0  # standard deviation in bins
_REACH = 0.4  # Angstrom to both sides of an extremum that the parabola is fitted to
_LEAST = 0.02  # prominence of an extremum; g(r) is 1 far away


def extrema(r: np.ndarray, g: np.ndarray, *, r_min: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Maxima and minima of a pair distribution.

    The curve is smoothed with a Gaussian of two bins; a parabola through the 0.4 Angstrom to both sides of each
    extremum says where it lies.

    Parameters
    ----------
    r : ndarray, shape (bins,), float64
        Middle of the bins in Angstrom, evenly spaced.
    g : ndarray, shape (bins,), float64
        The pair distribution.
    r_min : float
        Nothing below counts, in Angstrom.

    Returns
    -------
    maxima, minima : ndarray, shape (k,) and (l,), float64
        In Angstrom, rising; the first minimum is beyond the first maximum.
    """
    smooth = gaussian_filter1d(g, _SMOOTHING, mode="nearest")
    found = []
    for sign in (1.0, -1.0):
        peaks = find_peaks(sign * smooth, prominence=_LEAST)[0]
        found.append(np.array([_parabola(r, smooth, i) for i in peaks if r[i] >= r_min]))
    maxima, minima = found
    return maxima, minima[minima > maxima[0]] if len(maxima) else minima


def first_valley(r: np.ndarray, g: np.ndarray, pairs: np.ndarray | None = None) -> tuple[float, float]:
    """The first minimum behind the first maximum of a pair distribution, with its uncertainty.

    Parameters
    ----------
    r, g : ndarray, shape (bins,), float64
        Middle of the bins in Angstrom, and the pair distribution.
    pairs : ndarray, shape (bins,), int64, optional
        Ordered pairs counted in each bin: Poisson noise of these is added 64 times to see how the minimum moves.

    Returns
    -------
    valley, uncertainty : float
        In Angstrom; the uncertainty is NaN without `pairs`.

    Raises
    ------
    InputError
        If there is no minimum behind a maximum.
    """
    valleys = extrema(r, g)[1]
    if not len(valleys):
        raise InputError("This pair distribution has no minimum behind its first maximum; give the cut-off.")
    if pairs is None:
        return float(valleys[0]), float("nan")
    rng, moved = np.random.default_rng(0), []
    error = g * np.sqrt(2.0 / np.maximum(pairs, 1))  # each pair was counted twice
    for _ in range(64):
        again = extrema(r, g + error * rng.normal(size=g.shape))[1]
        if len(again):
            moved.append(again[np.argmin(np.abs(again - valleys[0]))])
    return float(valleys[0]), float(np.std(moved)) if moved else float("nan")


def gaussian_peak(r: np.ndarray, g: np.ndarray, *, reach: float = 0.25, r_min: float = 1.0) -> float:
    """Middle of a Gaussian through the first maximum of a pair distribution.

    Parameters
    ----------
    r, g : ndarray, shape (bins,), float64
        Middle of the bins in Angstrom, and the pair distribution.
    reach : float, default 0.25
        How far to both sides of the maximum the Gaussian is fitted, in Angstrom.
    r_min : float
        Nothing below counts, in Angstrom.

    Returns
    -------
    float
        In Angstrom; NaN where there is no maximum.
    """
    maxima = extrema(r, g, r_min=r_min)[0]
    if not len(maxima):
        return float("nan")
    near = np.abs(r - maxima[0]) <= reach
    start = [float(g[near].max()), float(maxima[0]), reach]
    fitted = _fit(lambda x, h, m, s: h * np.exp(-(((x - m) / s) ** 2)), r[near], g[near], start)
    return float(fitted[1])


def split_peak(r: np.ndarray, g: np.ndarray, *, between: tuple[float, float] = (4.0, 6.0)) -> tuple[float, float]:
    """Middles of two Gaussians and a constant through the split second maximum of a metallic glass.

    Parameters
    ----------
    r, g : ndarray, shape (bins,), float64
        Middle of the bins in Angstrom, and the pair distribution.
    between : tuple of float, default (4, 6)
        Where they are fitted, in Angstrom.

    Returns
    -------
    first, second : float
        In Angstrom; the second one depends on `between`. NaN where the fit fails.
    """
    low, high = between
    near = (r >= low) & (r <= high)
    third = (high - low) / 3
    top, floor = float(np.ptp(g[near])), float(g[near].min())
    start = [top, low + third, third / 2, top / 2, high - third, third / 2, floor]

    def two(x: np.ndarray, *p: float) -> np.ndarray:
        return p[0] * np.exp(-(((x - p[1]) / p[2]) ** 2)) + p[3] * np.exp(-(((x - p[4]) / p[5]) ** 2)) + p[6]

    fitted = _fit(two, r[near], g[near], start)
    first, second = sorted((float(fitted[1]), float(fitted[4])))
    return first, second


def peaks_of(distribution: xr.Dataset) -> dict[str, float]:
    """The lengths that a pair distribution is summed up by.

    Parameters
    ----------
    distribution : xarray.Dataset
        From :func:`~aetdist.analysis.pair_distribution.pair_distribution`.

    Returns
    -------
    dict
        ``peak_1``, ``valley_1``, ``valley_1_error``, ``valley_2``, ``split_1``, ``split_2``, ``peak_1 A-B`` of each
        pair of types ..., in Angstrom; what there is of them.
    """
    r, g = distribution["r"].values, distribution["g"].values
    maxima, minima = extrema(r, g)
    found = {f"peak_{i}": float(x) for i, x in enumerate(maxima, 1)}
    found |= {f"valley_{i}": float(x) for i, x in enumerate(minima, 1)}
    if len(minima):
        found["valley_1_error"] = first_valley(r, g, distribution["pairs"].values)[1]
    if r[-1] >= 6.0:
        found["split_1"], found["split_2"] = split_peak(r, g)
    if "partial_g" in distribution:
        for name in distribution["pair"].values:
            found[f"peak_1 {name}"] = gaussian_peak(r, distribution["partial_g"].sel(pair=name).values)
    return found


def _parabola(r: np.ndarray, g: np.ndarray, i: int) -> float:
    """Vertex of the parabola around an extremum; the extremum where the parabola has none nearby."""
    near = np.abs(r - r[i]) <= _REACH + 1e-9
    if np.count_nonzero(near) < 3:
        return float(r[i])
    square, slope, _ = np.polyfit(r[near] - r[i], g[near], 2)
    off = -slope / (2 * square) if square else 0.0
    return float(r[i] + off) if abs(off) <= _REACH else float(r[i])


def _fit(function: object, x: np.ndarray, y: np.ndarray, start: list[float]) -> np.ndarray:
    """Parameters of the best fit; NaN where there is none."""
    if len(x) < len(start):
        return np.full(len(start), np.nan)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # about the covariance, which is not used
            return curve_fit(function, x, y, start, maxfev=5000)[0]
    except RuntimeError:
        return np.full(len(start), np.nan)
