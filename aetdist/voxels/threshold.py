"""Which peaks are atoms: a threshold chosen from the peaks alone."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..errors import InputError

# Peaks fall into one class where the two best classes are as near as this (lower mean / higher mean):
# the halves of a single normal class whose spread is under 22 percent of its mean.
ONE_CLASS = 0.7
# A lighter species must be so strong relative to the heaviest; ripples around atoms stay below.
LIGHTEST = 0.2
BINS = 96


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
    The k-means step of [1]_ with two classes, solved exactly (Otsu): of all splits of the sorted
    intensities the one with the least variance within the classes; the threshold is half way between
    their means. Where species differ much, the lower class may hold noise and a lighter species: if the
    distribution has a mode of its own there, parted from the heavier atoms and from the noise by valleys
    of less than half its height, the threshold goes to the lower valley.

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
    threshold = (low + high) / 2
    lighter = _valley_below_light_species(x, threshold, high)
    return float(threshold if lighter is None else lighter)


def _valley_below_light_species(x: np.ndarray, threshold: float, high: float) -> float | None:
    """Where a mode of lighter atoms below the threshold ends; None where there is none."""
    counts, edges = np.histogram(x, bins=BINS, range=(0.0, high))
    smooth = gaussian_filter1d(counts.astype(float), 2.0, mode="nearest")
    first, last = int(np.ceil(LIGHTEST * BINS)), int(np.searchsorted(edges, threshold))
    peaks = [i for i in range(first, last) if smooth[i] >= smooth[i - 1] and smooth[i] > smooth[i + 1]]
    for p in sorted(peaks, key=lambda i: -smooth[i]):
        right = p + int(np.argmin(smooth[p:]))
        noise = int(np.argmax(smooth[:p]))
        left = noise + int(np.argmin(smooth[noise : p + 1]))
        # Modes to be told apart hold enough peaks for the valley not to be chance.
        members = counts[left : right + 1].sum()
        enough = members >= max(20, 0.05 * np.count_nonzero(x > threshold))
        deep = max(smooth[left], smooth[right]) < 0.5 * smooth[p]
        if enough and deep and right < BINS - 1 and left < p:
            return float((edges[left] + edges[left + 1]) / 2)
    return None
