"""Laplace's equation on part of an image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ._kernels import relax_laplace


def solve_laplace(values: np.ndarray, unknown: np.ndarray, known: np.ndarray, *, tolerance: float = 1e-4) -> np.ndarray:
    """Laplace's equation on the pixels `unknown`, with the values on the pixels `known` given.

    Parameters
    ----------
    values : ndarray, shape (y, x)
        Given where `known`.
    unknown, known : ndarray, shape (y, x), bool
        Pixels that are neither let no gradient through.
    tolerance : float
        Largest change in a sweep at which to stop, as part of the spread of the given values.

    Returns
    -------
    ndarray, shape (y, x), float64
        `values`, with the solution where `unknown`.

    Notes
    -----
    Cascadic multigrid: the solution on a grid of half as many pixels starts successive over-relaxation.
    """
    given = values[known]
    spread = float(np.ptp(given)) if given.size else 0.0
    middle = float(given.mean()) if given.size else 0.0
    values = np.where(known, values, middle).astype(np.float64)
    coarsest = min(values.shape) < 24
    if coarsest:
        guess = np.full_like(values, middle)
    else:
        half = [_halved(a) for a in (np.where(known, values, 0.0), known * 1.0, unknown * 1.0)]
        coarse_known = half[1] > 0
        coarse_unknown = (half[2] > 0) & ~coarse_known
        coarse = solve_laplace(
            half[0] / np.where(coarse_known, half[1], 1.0), coarse_unknown, coarse_known, tolerance=tolerance
        )
        guess = np.repeat(np.repeat(coarse, 2, axis=0), 2, axis=1)[: values.shape[0], : values.shape[1]]
        guess = ndimage.uniform_filter(guess, 3, mode="nearest")
    values[unknown] = guess[unknown]
    length = max(float(np.sqrt(unknown.sum())), 4.0)
    factor = 2.0 / (1.0 + np.pi / length)  # the best for a square of that edge
    relax_laplace(values, unknown, known, factor, tolerance * spread, int(20 * length))
    return values


def _halved(array: np.ndarray) -> np.ndarray:
    """Sums over 2 x 2 pixels; an odd edge is padded with 0."""
    ny, nx = array.shape
    padded = np.pad(array, ((0, ny % 2), (0, nx % 2)))
    return np.asarray(padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).sum(axis=(1, 3)))
