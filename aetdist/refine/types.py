"""Types of atoms by how high they are: a mixture of normal distributions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LEAST_SPREAD = 0.01  # of a type's height
_OUTLIERS = 1e-2  # part of the atoms, at most, that are like no type
_ROUNDS = 200


class Mixture(NamedTuple):
    """Heights of all atoms as a sum of normal distributions, by rising height.

    Attributes
    ----------
    parts, means, spreads : ndarray, shape (k,), float64
        Part of the atoms, mean height and standard deviation of each type.
    """

    parts: np.ndarray
    means: np.ndarray
    spreads: np.ndarray

    def densities(self, heights: np.ndarray, sigma: np.ndarray | float = 0.0) -> np.ndarray:
        """Part times probability density of each type at every height, (n, k); `sigma` adds to the spread."""
        spread = np.hypot(self.spreads, np.reshape(sigma, (-1, 1)))
        z = (np.reshape(heights, (-1, 1)) - self.means) / spread
        return self.parts * np.exp(-0.5 * z**2) / (np.sqrt(2 * np.pi) * spread)

    def between(self, heights: np.ndarray) -> np.ndarray:
        """Heights, those beyond the lowest and the highest type at its mean: far out the widest type is no likelier."""
        return np.clip(heights, self.means[0], self.means[-1])

    def types(self, heights: np.ndarray) -> np.ndarray:
        """The most probable type of every atom, 0 ... k - 1, int64; far out the nearest one."""
        z = ((np.reshape(self.between(heights), (-1, 1)) - self.means) / self.spreads) ** 2
        return np.asarray(np.argmax(np.log(self.parts) - np.log(self.spreads) - 0.5 * z, axis=1), dtype=np.int64)


def mixture_of_types(heights: np.ndarray, types: np.ndarray, k: int | None = None) -> Mixture:
    """The mixture of atoms whose types (0 ... k - 1) are given: medians, and spreads from median deviations."""
    k = int(types.max()) + 1 if k is None else k
    parts, means, spreads = np.full(k, 0.5), np.full(k, np.median(heights)), np.full(k, np.std(heights))
    for kind in range(k):
        own = heights[types == kind]
        if len(own):
            parts[kind], means[kind] = len(own), np.median(own)
            spreads[kind] = 1.4826 * np.median(np.abs(own - means[kind]))
    return _ordered(parts / parts.sum(), means, np.maximum(spreads, _LEAST_SPREAD * np.abs(means)))


def fit_mixture(heights: np.ndarray, start: Mixture) -> Mixture:
    """The mixture that explains the heights best, near to where it starts.

    Notes
    -----
    Expectation-maximisation. A flat background takes heights that are far from every type; spreads are never smaller
    than one percent of the mean height.
    """
    parts, means, spreads = start
    outlier = _OUTLIERS / max(float(np.ptp(heights)), _LEAST_SPREAD * float(np.abs(heights).max()), 1e-30)
    for _ in range(_ROUNDS):
        density = Mixture(parts, means, spreads).densities(heights)
        share = density / (density.sum(axis=1, keepdims=True) + outlier)
        total = np.maximum(share.sum(axis=0), 1e-9)
        new = (share * heights[:, None]).sum(axis=0) / total
        deviation = np.sqrt((share * (heights[:, None] - new) ** 2).sum(axis=0) / total)
        change = np.abs(new - means).max()
        parts, means = total / total.sum(), new
        spreads = np.maximum(deviation, _LEAST_SPREAD * np.abs(means))
        if change < 1e-6 * np.abs(means).max():
            break
    return _ordered(parts, means, spreads)


def _ordered(parts: np.ndarray, means: np.ndarray, spreads: np.ndarray) -> Mixture:
    order = np.argsort(means)
    return Mixture(parts[order], means[order], spreads[order])
