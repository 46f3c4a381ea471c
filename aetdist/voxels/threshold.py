"""Which peaks are atoms: a threshold chosen from the peaks alone."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..errors import InputError

# Peaks fall into one class where the two best classes are as near as this (lower mean / higher mean):
# the halves of a single normal class whose spread is under 22 percent of its mean.
ONE_CLASS = 0.7
# The lightest species must be so strong relative to the mean of the stronger half; ripples and noise stay below.
LIGHTEST = 0.2
# A valley ends the noise if it is lower than this part of the mode of atoms above it.
VALLEY = 0.5
BIN = 0.0125  # of the mean of the stronger half
SMOOTHING = 2.0  # bins


def noise_threshold(intensities: np.ndarray) -> float:
    """A threshold between noise and atoms.

    Parameters
    ----------
    intensities : array_like, shape (n,), float
        Integrated intensity of every peak (any unit); noise is weaker than atoms.

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
    Noise has many weak peaks, ever fewer stronger ones; each species has a mode. The threshold is the lowest
    place between the noise and the lightest mode that is parted from it by a valley of less than half the
    mode's height: the lightest species is found however many heavier ones there are. Where noise and atoms
    overlap too much for such a valley: the k-means step of [1]_ with two classes, solved exactly (Otsu), and
    the threshold half way between their means.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60-64 (2021), Methods.
    """
    x = np.sort(np.asarray(intensities, dtype=np.float64).ravel())
    if x.size == 0 or not np.isfinite(x).all():
        raise InputError(f"{x.size} peaks came, or some are not finite; a threshold needs one finite peak or more.")
    if x[0] == x[-1]:
        return -np.inf
    n = np.arange(1, x.size)
    total = np.cumsum(x)
    lower, upper = total[:-1] / n, (total[-1] - total[:-1]) / (x.size - n)
    split = int(np.argmax(n * (x.size - n) * (upper - lower) ** 2))
    low, high = lower[split], upper[split]
    if low > ONE_CLASS * high:
        return -np.inf
    valley = _valley_above_noise(x, high)
    return float((low + high) / 2 if valley is None else valley)


def _valley_above_noise(x: np.ndarray, high: float) -> float | None:
    """Where the noise ends and the lightest atoms begin; None where no valley parts them."""
    width = BIN * high
    counts = np.bincount(np.clip(x / width, 0, 2 / BIN).astype(np.int64), minlength=int(2 / BIN) + 2)
    smooth = gaussian_filter1d(counts.astype(float), SMOOTHING, mode="constant")
    first = int(LIGHTEST / BIN)
    noise = int(np.argmax(smooth[:first]))
    below = np.concatenate([[0], np.cumsum(counts)])
    left = noise + int(np.argmin(smooth[noise:first]))
    for p in range(first, len(smooth) - 1):
        if smooth[p] <= smooth[left]:
            left = p
        top = smooth[p] > smooth[p - 1] and smooth[p] >= smooth[p + 1]
        if not top or smooth[left] >= VALLEY * smooth[p]:
            continue
        right = p + int(np.argmax(smooth[p:] <= smooth[left])) if (smooth[p:] <= smooth[left]).any() else len(counts)
        # A mode holds enough peaks for its valley not to be chance.
        if below[right] - below[left] >= max(10, 0.03 * (x.size - below[first])):
            lowest = np.flatnonzero(smooth[noise : p + 1] <= smooth[left]) + noise
            return (0.5 * (lowest[0] + lowest[-1]) + 0.5) * width
    return None
