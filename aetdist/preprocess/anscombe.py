"""The generalised Anscombe transform: counts to values whose noise has the standard deviation 1, and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlogy

from ..errors import InputError
from .noise import NoiseModel

__all__ = ["anscombe", "clamped", "inverse_anscombe"]

_LARGEST = 200.0
"""Electrons up to which the inverse is tabulated; beyond, its expansion is exact to 1e-6 electrons."""
_ROWS = 1024
_FAR = 5.0  # standard deviations of the read noise


def anscombe(counts: ArrayLike, noise: NoiseModel) -> np.ndarray:
    """Counts with the noise's standard deviation made 1.

    Parameters
    ----------
    counts : array_like, any shape, float
    noise : NoiseModel
        Of a gain or read noise above 0.

    Returns
    -------
    ndarray, same shape, float64
        D = 2 sqrt(max(z + 3/8 + s^2, 0)), z = (counts - offset) / gain, s = read_noise / gain. Without a gain, the
        noise is white: (counts - offset) / read_noise.

    Raises
    ------
    InputError
        If the model has no noise.

    References
    ----------
    M. Makitalo, A. Foi, IEEE Trans. Image Process. 22, 91-103 (2013), eq. 2.
    """
    _check(noise)
    if noise.gain == 0:
        return (np.asarray(counts, dtype=np.float64) - noise.offset) / noise.read_noise
    return np.asarray(2.0 * np.sqrt(np.maximum(_argument(counts, noise), 0.0)))


def clamped(counts: ArrayLike, noise: NoiseModel) -> np.ndarray:
    """Where counts are below the transform's zero, which it takes them for, and read noise does not explain it.

    Parameters
    ----------
    counts : array_like, any shape, float
    noise : NoiseModel

    Returns
    -------
    ndarray, same shape, bool
        True for z < -(3/8 + s^2) and z < -5 s. The inverse allows for what read noise puts below zero.
    """
    if noise.gain == 0:
        return np.zeros(np.shape(counts), dtype=bool)
    too_low = np.asarray(counts, dtype=np.float64) < noise.offset - _FAR * noise.read_noise
    return np.asarray(too_low & (_argument(counts, noise) < 0.0))


def inverse_anscombe(values: ArrayLike, noise: NoiseModel) -> np.ndarray:
    """The exact unbiased inverse: the mean counts for which the transform has the given mean.

    Parameters
    ----------
    values : array_like, any shape, float
        Denoised values of :func:`anscombe`, taken for its mean E(D).
    noise : NoiseModel
        As for the transform.

    Returns
    -------
    ndarray, same shape, float64
        Counts. Values below E(D) of no electron go on along the line there, so that noise that is left has no bias.

    Raises
    ------
    InputError
        If the model has no noise.

    Notes
    -----
    E(D | electrons) is tabulated up to 200 electrons, by summing over the Poisson law and by the trapezoidal rule over
    the read noise, clamped pixels included; beyond, the closed form D^2/4 + sqrt(3/2)/(4 D) - 11/(8 D^2) +
    5 sqrt(3/2)/(8 D^3) - 1/8 - s^2 takes over, shifted to meet the table.

    References
    ----------
    M. Makitalo, A. Foi, IEEE Trans. Image Process. 20, 99-109 (2011) and 22, 91-103 (2013).
    """
    _check(noise)
    values = np.asarray(values, dtype=np.float64)
    if noise.gain == 0:
        return values * noise.read_noise + noise.offset
    s = noise.read_noise / noise.gain
    mean, electrons = _table(s)
    slope = (electrons[1] - electrons[0]) / (mean[1] - mean[0])
    below = (values - mean[0]) * slope
    beyond = np.maximum(values, mean[-1])
    above = _closed_form(beyond, s) - _closed_form(mean[-1], s) + electrons[-1]
    found = np.where(values < mean[0], below, np.where(values > mean[-1], above, np.interp(values, mean, electrons)))
    return np.asarray(found * noise.gain + noise.offset)


def _argument(counts: ArrayLike, noise: NoiseModel) -> np.ndarray:
    z = (np.asarray(counts, dtype=np.float64) - noise.offset) / noise.gain
    return np.asarray(z + 0.375 + (noise.read_noise / noise.gain) ** 2)


def _closed_form(values: np.ndarray, s: float) -> np.ndarray:
    root = np.sqrt(1.5)
    series = values**2 / 4 + root / (4 * values) - 11 / (8 * values**2) + 5 * root / (8 * values**3)
    return np.asarray(series - 0.125 - s**2)


@lru_cache(maxsize=16)
def _table(s: float) -> tuple[np.ndarray, np.ndarray]:
    """E(D) and the electrons it belongs to; (1024,) each, evenly spaced in the root of the electrons."""
    electrons = np.linspace(0.0, np.sqrt(_LARGEST), _ROWS) ** 2
    n = np.arange(int(_LARGEST + 10 * np.sqrt(_LARGEST)))
    nodes = np.linspace(-8.0, 8.0, 1601)  # even steps, as the clamp at 0 is no polynomial
    weights = np.exp(-0.5 * nodes**2)
    values = 2.0 * np.sqrt(np.maximum(n[:, None] + s * nodes + 0.375 + s**2, 0.0))
    mean_of_n = values @ (weights / weights.sum())
    poisson = np.exp(xlogy(n, electrons[:, None]) - electrons[:, None] - gammaln(n + 1.0))
    return poisson @ mean_of_n, electrons


def _check(noise: NoiseModel) -> None:
    if noise.gain == 0 and noise.read_noise == 0:
        raise InputError("A noise model of gain 0 and read noise 0 has no noise that could be made 1.")
