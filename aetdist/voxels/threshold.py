"""Which peaks are atoms: a threshold chosen from the peaks alone."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..errors import InputError

# Peaks fall into one class where the two best classes are as near as this (lower mean / higher mean):
# the halves of a single normal class whose spread is under 22 percent of its mean.
ONE_CLASS = 0.7
# The lightest species must be so strong relative to the mean of the stronger half; ripples and noise stay below.
LIGHTEST = 0.1
# A valley ends the noise if it is lower than this part of the mode of atoms above it, and by so many standard
# deviations of the counts of peaks.
VALLEY = 0.8
CERTAINTY = 4.0
# A mode has so many peaks, and such a part of all that are not too weak.
FEWEST = 10
SMALLEST_SHARE = 0.03
# A mode of noise is so broad relative to its mean; atoms of one species are more alike.
BROAD = 0.25
NOTHING = 0.05  # of the mode's counts
BIN = 0.0125  # of the mean of the stronger half
SMOOTHING = 2.0  # bins


def noise_threshold(intensities: np.ndarray, noise: np.ndarray | None = None) -> float:
    """A threshold between noise and atoms.

    Parameters
    ----------
    intensities : array_like, shape (n,), float
        Integrated intensity of every peak (any unit); noise is weaker than atoms.
    noise : array_like, shape (m,), float, optional
        Those of the peaks that are known to be noise, because they lie in the vacuum: atoms are stronger than
        half of them.

    Returns
    -------
    float
        In the unit of `intensities`; -inf where all peaks seem to be of one kind.

    Raises
    ------
    InputError
        If there are no peaks, or their intensities are not finite.

    Notes
    -----
    The :func:`noise_valley`, but no more than half way between the means of two classes: those of the k-means
    step of [1]_, solved exactly (Otsu: of all splits of the sorted intensities the one with the least variance
    within the classes). The latter alone where noise and atoms overlap too much for a valley.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods.
    """
    x = _sorted(intensities)
    low, high = _halves(x)
    if low > ONE_CLASS * high:
        return -np.inf
    valley = noise_valley(x, noise)
    return (low + high) / 2 if valley == -np.inf else min(valley, (low + high) / 2)


def noise_valley(intensities: np.ndarray, noise: np.ndarray | None = None) -> float:
    """Where the noise ends and the lightest atoms begin.

    Parameters
    ----------
    intensities : array_like, shape (n,), float
        Integrated intensity of every peak (any unit); noise is weaker than atoms.
    noise : array_like, shape (m,), float, optional
        Those of the peaks that are known to be noise, because they lie in the vacuum: atoms are stronger than
        half of them.

    Returns
    -------
    float
        In the unit of `intensities`; -inf where no valley parts peaks that are noise from the others.

    Raises
    ------
    InputError
        If there are no peaks, or their intensities are not finite.

    Notes
    -----
    Noise has many weak peaks, ever fewer stronger ones; each species has a mode. The valley is the lowest place
    of the smoothed histogram between the noise and the first mode that rises from it for certain: by more
    than the counts of peaks vary by chance. The lightest species is found however many heavier ones there are.
    """
    x = _sorted(intensities)
    _, high = _halves(x)
    if not high > 0:
        return -np.inf
    width = BIN * high
    counts = np.bincount(np.clip(x / width, 0, 2 / BIN).astype(np.int64), minlength=int(2 / BIN) + 2)
    smooth = gaussian_filter1d(counts.astype(float), SMOOTHING, mode="constant")
    spread = np.sqrt(smooth / (2 * math.sqrt(math.pi) * SMOOTHING))
    weakest = LIGHTEST * high
    if noise is not None and len(noise) >= FEWEST:
        weakest = max(weakest, float(np.median(noise)))
    first = int(min(weakest / width, len(smooth) - 2))
    first = _beyond_broad_mode(smooth, first)
    start = int(np.argmax(smooth[:first]))
    left = start + int(np.argmin(smooth[start:first]))
    for p in range(first, len(smooth) - 1):
        left = p if smooth[p] <= smooth[left] else left
        top = smooth[p] > smooth[p - 1] and smooth[p] >= smooth[p + 1]
        rise = smooth[p] - smooth[left]
        if not top or rise <= (1 - VALLEY) * smooth[p] or rise < CERTAINTY * np.hypot(spread[p], spread[left]):
            continue
        lower = smooth[p:] <= smooth[left]
        right = p + int(np.argmax(lower)) if lower.any() else len(counts)
        if counts[left:right].sum() >= max(FEWEST, SMALLEST_SHARE * counts[first:].sum()):
            lowest = start + np.flatnonzero(smooth[start : p + 1] <= smooth[left])
            return float((lowest[0] + lowest[-1] + 1) / 2 * width)
    return -np.inf


def _beyond_broad_mode(smooth: np.ndarray, first: int) -> int:
    """The bin after the first mode from `first` on, if nothing is weaker and it is broad: then it is the noise."""
    rising = (smooth[first:-1] >= smooth[first - 1 : -2]) & (smooth[first:-1] > smooth[first + 1 :])
    if not rising.any():
        return first
    mode = first + int(np.argmax(rising))
    half = smooth < smooth[mode] / 2
    right = mode + (int(np.argmax(half[mode:])) if half[mode:].any() else len(half) - mode)
    left = mode - (int(np.argmax(half[mode::-1])) if half[: mode + 1].any() else mode)
    broad = right - left > BROAD * 2.355 * (mode + 0.5)  # the full width of a normal mode at half its height
    return mode + 1 if broad and np.median(smooth[:first]) < NOTHING * smooth[mode] else first


def _sorted(intensities: np.ndarray) -> np.ndarray:
    """Intensities by rising size; refuses none and what is not finite."""
    x = np.sort(np.asarray(intensities, dtype=np.float64).ravel())
    if x.size == 0 or not np.isfinite(x).all():
        raise InputError(f"{x.size} peaks came, or some are not finite; a threshold needs one finite peak or more.")
    return x


def _halves(x: np.ndarray) -> tuple[float, float]:
    """Means of the two classes with the least variance within them; the same twice for equal numbers."""
    if x[0] == x[-1]:
        return float(x[0]), float(x[0])
    n = np.arange(1, x.size)
    total = np.cumsum(x)
    lower, upper = total[:-1] / n, (total[-1] - total[:-1]) / (x.size - n)
    split = int(np.argmax(n * (x.size - n) * (upper - lower) ** 2))
    return float(lower[split]), float(upper[split])
