"""The noise of counted electrons and of the detector: its model, how it is added and how it is found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage, optimize, special

from ..errors import InputError

__all__ = ["NoiseModel", "add_noise", "estimate_noise_model"]

_HIGH_PASS = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / math.sqrt(70.0)
"""Fourth difference of norm 1: atoms of a standard deviation of 1.2 pixels leave 1e-6 of their power."""
_LEVELS = 24  # levels of brightness of an image, each a point of the line
_FEWEST = 100  # pixels of a level
_SMOOTH = 9  # pixels that say the level of the one in their middle, along an edge: their noise hardly decides
_LEVEL_ERROR = 0.01  # of a level's variance, however many its pixels are
_OUTLIER = 5.0  # standard deviations
_WINDOW = 21  # pixels; in the dark, the mean of so many says what to expect of the one in the middle
_DARK = 0.2  # part of an image that counts as its dark
_DARK_PIXELS = 2**14  # of an image, at most
_DARK_LEVELS = 32
_FLAT = 4.0  # standard deviations by which a level's variance may exceed the line's
_FAR = 10.0  # standard deviations beyond which a dark pixel is a spike
_MOST_ELECTRONS = 40.0  # of a dark pixel; the shape of a Poisson law of a larger mean tells nothing
_GAIN_ERROR = 0.01  # of the line's gain, as the dark weighs it


@dataclass(frozen=True)
class NoiseModel:
    """Counts z = gain Poisson(electrons) + offset + Normal(0, read_noise).

    Their variance is gain (mean - offset) + read_noise^2.

    Parameters
    ----------
    gain : float
        Counts for one electron.
    offset : float
        Counts without electrons.
    read_noise : float
        Standard deviation of the detector's own noise, in counts.
    """

    gain: float
    offset: float = 0.0
    read_noise: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises
        ------
        InputError
            If a number is not finite, or the gain or the read noise is negative.
        """
        for name in ("gain", "offset", "read_noise"):
            value = getattr(self, name)
            if not (np.isfinite(value) and (value >= 0 or name == "offset")):
                raise InputError(f"The noise's {name} came as {value!r}; needed is a finite number, 0 or more.")

    def variance(self, mean: np.ndarray) -> np.ndarray:
        """Variance of counts of a mean, not below that of the read noise."""
        return np.asarray(self.gain * np.maximum(np.asarray(mean) - self.offset, 0.0) + self.read_noise**2)

    def of_mean(self, n_frames: int) -> NoiseModel:
        """Model of the mean of some frames that each have this noise."""
        return NoiseModel(self.gain / n_frames, self.offset, self.read_noise / math.sqrt(n_frames))


def add_noise(images: Any, noise: NoiseModel, seed: int) -> np.ndarray:
    """Images as the detector would count them.

    Parameters
    ----------
    images : array_like, shape (tilt, y, x), float
        Mean counts.
    noise : NoiseModel
    seed : int
        Each tilt draws from a stream of its own.

    Returns
    -------
    ndarray, shape (tilt, y, x), float32
        Counts.

    Raises
    ------
    InputError
        If the images have other dimensions.
    """
    images = np.asarray(images, dtype=np.float64)
    if images.ndim != 3:
        raise InputError(f"The images came with shape {images.shape}; needed is (tilt, y, x).")
    counts = np.empty(images.shape, np.float32)
    for tilt, image in enumerate(images):
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(tilt,)))
        if noise.gain > 0:
            electrons = np.maximum(image - noise.offset, 0.0) / noise.gain
            image = noise.gain * random.poisson(electrons) + noise.offset
        counts[tilt] = image + random.normal(0.0, noise.read_noise, image.shape)
    return counts


def estimate_noise_model(images: Any, mask: Any = None) -> NoiseModel:
    """Computes: one pass over the images; their noise is what their finest details show.

    Parameters
    ----------
    images : array_like or xarray.DataArray, shape (..., y, x), float
        Counts as the detector gave them (a tilt series or its frames, lazy or not): not resampled, not filtered, as
        both change the finest details.
    mask : array_like or xarray.DataArray of bool, same shape, optional
        True where a pixel was measured. Pixels that are not finite never count.

    Returns
    -------
    NoiseModel

    Raises
    ------
    InputError
        If no image has enough measured pixels, or all have the same value.

    Notes
    -----
    The detail d of a pixel (fourth difference along both axes, of norm 1) has the variance gain (m - offset) +
    read_noise^2, m the mean weighted by the squared filter. The pixels of an image are sorted into levels by a smoothed
    image; each level gives one pair (mean m, variance of d without what is beyond 5 robust standard deviations), and
    a line is fitted to all pairs by least squares with Huber's weights (after [1]_).

    The line gives the gain, and one number for offset and read noise. What tells these apart is the shape of the
    counts where there are few electrons: of the flat part of the darkest fifth of every image, the likelihood of
    Poisson + Gauss is largest (the line's gain is known to 1 %). Where nothing is dark enough and flat (more than 40
    electrons in a pixel), they cannot be told apart: then either the offset or the read noise is 0. That changes no
    variance.

    References
    ----------
    .. [1] A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, IEEE Trans. Image Process. 17, 1737-1754 (2008).
    """
    samples = [s for s in _all_samples(images, mask) if s is not None]
    if not samples:
        raise InputError(
            f"No image has {_FEWEST} measured pixels with measured neighbours; the noise cannot be found: give it."
        )
    levels = np.concatenate([s[0] for s in samples])
    means, variances, n_pixels = levels.T
    if not variances.max() > 0:
        raise InputError("No image has any noise: neighbouring pixels are all the same; give the noise model.")
    gain, intercept = fit_line(means, variances, n_pixels)
    if gain <= 0:
        return NoiseModel(0.0, 0.0, math.sqrt(float(np.average(variances, weights=n_pixels))))
    middle, values = (np.concatenate(part) for part in zip(*(s[1:] for s in samples), strict=True))
    dark = _fit_dark(middle.astype(np.float64), values.astype(np.float64), gain, intercept)
    if dark is not None:
        return dark
    return NoiseModel(gain, max(-intercept / gain, 0.0), math.sqrt(max(intercept, 0.0)))


def _all_samples(images: Any, mask: Any) -> list[Any]:
    """What every image tells: one task for each if the images are lazy."""
    images, mask = (a.data if isinstance(a, xr.DataArray) else a for a in (images, mask))
    shape = np.shape(images)
    if len(shape) < 2 or (mask is not None and np.shape(mask) != shape):
        raise InputError(f"Images of shape {shape} came with a mask of shape {np.shape(mask)}; needed is (..., y, x).")
    if not isinstance(images, da.Array) and not isinstance(mask, da.Array):
        stack = np.asarray(images).reshape(-1, *shape[-2:])
        masks = [None] * len(stack) if mask is None else np.asarray(mask).reshape(stack.shape)
        return [_samples(image, inside) for image, inside in zip(stack, masks, strict=True)]
    chunks = (1,) * (len(shape) - 2) + (-1, -1)
    blocks = da.asarray(images).rechunk(chunks).to_delayed().ravel()
    insides = [None] * len(blocks) if mask is None else da.asarray(mask).rechunk(chunks).to_delayed().ravel()
    task = dask.delayed(_samples, pure=True)
    return list(dask.compute(*(task(image, inside) for image, inside in zip(blocks, insides, strict=True))))


def _samples(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, ...] | None:
    """Levels of one image (rows: mean, variance, pixels) and its dark (expected, came); None if too few."""
    image = np.asarray(image, dtype=np.float64).reshape(image.shape[-2:])
    inside = np.isfinite(image) if mask is None else np.isfinite(image) & np.asarray(mask).reshape(image.shape)
    whole = ndimage.binary_erosion(inside, np.ones((_SMOOTH, _SMOOTH), bool))
    if whole.sum() < _FEWEST:
        return None
    image = np.where(inside, image, 0.0)
    detail, mean = _both_axes(image, _HIGH_PASS)[whole], _both_axes(image, _HIGH_PASS**2)[whole]
    smooth = ndimage.uniform_filter(ndimage.median_filter(image, _SMOOTH // 2 + 1), _SMOOTH // 2 + 1)[whole]
    low, high = np.quantile(smooth, (0.001, 0.999))
    level = np.searchsorted(np.linspace(low, high, _LEVELS + 1)[1:-1], smooth)
    parts = [level == k for k in range(_LEVELS) if np.count_nonzero(level == k) >= _FEWEST] or [level >= 0]
    levels = np.array([_level(mean[part], detail[part]) for part in parts])
    return (levels, *_dark_pixels(image, inside))


def _both_axes(image: np.ndarray, taps: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.correlate1d(ndimage.correlate1d(image, taps, axis=0), taps, axis=1))


def _window_mean(image: np.ndarray, inside: np.ndarray, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the measured pixels of the window around each pixel, and how many they are; `image` is 0 elsewhere."""
    n_pixels = np.round(ndimage.uniform_filter(inside.astype(np.float64), edge, mode="constant") * edge**2)
    total = ndimage.uniform_filter(image, edge, mode="constant") * edge**2
    return total / np.maximum(n_pixels, 1.0), n_pixels


def _level(mean: np.ndarray, detail: np.ndarray) -> tuple[float, float, int]:
    """Mean, variance and number of a level's pixels but for outliers.

    The ninth decile of the details' size helps their median where most pixels have no electron.
    """
    size = np.abs(detail)
    middle, high = np.quantile(size, (0.5, 0.9))
    sigma = max(middle / 0.6745, high / 1.6449)
    kept = size <= _OUTLIER * sigma if sigma > 0 else size >= 0
    return float(mean[kept].mean()), float(np.mean(detail[kept] ** 2)), int(kept.sum())


def _dark_pixels(image: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of an image's dark: mean of the window around each pixel, without the pixel, and the pixel; float32."""
    mean, weight = _window_mean(image, inside, _WINDOW)
    usable = inside & (weight > _WINDOW**2 / 2)
    if not usable.any():
        return np.empty(0, np.float32), np.empty(0, np.float32)
    value, mean, weight = image[usable], mean[usable], weight[usable]
    mean = (mean * weight - value) / (weight - 1)
    darkest = np.flatnonzero(mean <= np.quantile(mean, _DARK))
    darkest = darkest[:: max(1, len(darkest) // _DARK_PIXELS)]
    return mean[darkest].astype(np.float32), value[darkest].astype(np.float32)


def fit_line(x: np.ndarray, variance: np.ndarray, n_pixels: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of variances over x, each found from some pixels.

    Parameters
    ----------
    x, variance, n_pixels : ndarray, shape (n,), float

    Returns
    -------
    tuple of float
    """
    floor = 0.01 * float(np.median(variance[variance > 0]))
    relative = np.sqrt(2.0 / n_pixels + _LEVEL_ERROR**2)
    error = relative * np.maximum(variance, floor)
    huber = np.ones_like(variance)
    slope = intercept = 0.0
    for _ in range(50):
        weight = huber / error**2
        middle, height = np.average(x, weights=weight), np.average(variance, weights=weight)
        slope = float((weight * (x - middle) * variance).sum() / max((weight * (x - middle) ** 2).sum(), 1e-300))
        intercept = float(height - slope * middle)
        error = relative * np.maximum(slope * x + intercept, floor)
        residual = np.abs(variance - slope * x - intercept) / error
        scale = max(1.4826 * float(np.median(residual)), 1e-9)
        huber = np.minimum(1.0, 1.345 * scale / np.maximum(residual, 1e-300))
    return slope, intercept


def _fit_dark(middle: np.ndarray, values: np.ndarray, gain: float, intercept: float) -> NoiseModel | None:
    """The model of largest likelihood in the dark; None where the dark cannot tell offset and read noise apart."""
    if len(values) < 1000:
        return None
    levels = _flat_levels(middle, values, gain, intercept)
    if not levels:
        return None
    means = np.array([level.mean() for level in levels])
    expected = gain * means.mean() + intercept
    low, high = np.quantile(np.concatenate(levels), (1e-4, 1.0 - 1e-4))
    edges = np.linspace(low - gain, high + gain, 400)
    counts = np.array([np.histogram(level, edges)[0] for level in levels], dtype=np.float64)

    def loss(parameters: np.ndarray) -> float:
        g, offset, read = _dark_parameters(parameters, gain, means)
        electrons = np.maximum((means - offset) / g, 1e-9)
        n = np.arange(int(electrons.max() + 8 * math.sqrt(electrons.max()) + 8))
        poisson = np.exp(n * np.log(electrons)[:, None] - electrons[:, None] - special.gammaln(n + 1.0))
        below = special.ndtr((edges - offset - g * n[:, None]) / read)
        likelihood = np.maximum(poisson @ np.diff(below, axis=1), 1e-12)
        return float(-(counts * np.log(likelihood)).sum() + 0.5 * (parameters[0] / _GAIN_ERROR) ** 2)

    starts = []
    for part in (0.02, 0.2, 0.5, 0.8):  # of the dark's variance that is read noise
        electrons = (1.0 - part) * expected / gain**2
        starts.append(np.array([0.0, math.log(electrons), 0.5 * math.log(part * expected / gain**2)]))

    def lowest(places: list[np.ndarray]) -> Any:
        found = [optimize.minimize(loss, place, method="Nelder-Mead", options={"maxiter": 400}) for place in places]
        return min(found, key=lambda result: result.fun)

    best, better = None, lowest(starts)
    while best is None or better.fun < best.fun:  # the counts are a comb: an offset one electron off is a valley too
        best, electrons = better, math.exp(better.x[1])
        beside = [n for n in (electrons - 1.0, electrons + 1.0) if n > 0]
        better = lowest([np.array([best.x[0], math.log(n), best.x[2]]) for n in beside])
    g, offset, read = _dark_parameters(best.x, gain, means)
    return NoiseModel(g, offset, read if read > 0.03 * g else 0.0)


def _flat_levels(middle: np.ndarray, values: np.ndarray, gain: float, intercept: float) -> list[np.ndarray]:
    """Dark pixels by what is expected of them, darkest first, while nothing but noise tells those of a level apart.

    Beside a film the window of a dark pixel reaches into it: such levels vary by more than the line's variance.
    """
    levels = []
    for part in np.array_split(np.argsort(middle, kind="stable"), _DARK_LEVELS):
        level = values[part]
        middle_value = np.median(level)
        level = level[np.abs(level - middle_value) <= _FAR * math.sqrt(max(gain * middle_value + intercept, gain**2))]
        expected = gain * level.mean() + intercept
        if not 0 < expected <= _MOST_ELECTRONS * gain**2:
            break
        if level.var() > (1.0 + _FLAT * math.sqrt(2.0 / len(level))) * expected:
            break
        levels.append(level)
    return levels


def _dark_parameters(parameters: np.ndarray, gain: float, means: np.ndarray) -> tuple[float, float, float]:
    """Gain, offset and read noise from their unbounded forms: the dark holds exp(p1) electrons on average."""
    g = gain * math.exp(parameters[0])
    return g, float(means.mean()) - g * math.exp(parameters[1]), g * max(math.exp(parameters[2]), 0.02)
