"""Denoising by collaborative filtering of alike blocks (BM3D), for white noise of one known standard deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.fft import dct

from ..errors import InputError
from . import _bm3d_kernels as kernels

__all__ = ["BM3DParameters", "filter_bm3d"]

BLOCK = kernels.BLOCK


@dataclass(frozen=True)
class BM3DParameters:
    """The normal profile of [1]_, unless said otherwise.

    Parameters
    ----------
    strength : float
        Factor on the noise's standard deviation: above 1 smooths more.
    hard_threshold : float
        Coefficients of a group's spectrum below this many standard deviations are set to 0 (lambda_3D).
    hard_matches, wiener_matches : int
        Most blocks of a group in the first and in the second stage (N_2).
    hard_nearest, wiener_nearest : float
        Mean squared difference, in variances of the noise, below which blocks are taken for equally near; of such
        blocks a scattered choice fills the group. Two noisy blocks of the same object differ by 2. Without it, groups
        in plain areas gather blocks of like noise, which then does not average out. The second was chosen on
        photographs and one simulated particle.
    search : int
        Edge of the window in which alike blocks are searched, in pixels, odd (N_S).
    step : int
        Pixels between reference blocks (N_step).
    kaiser : float
        Shape of the window that weighs a block's estimate, less towards its edges (beta).
    transform : {"bior1.5", "dct"}
        Transform of the blocks in the first stage; the second always takes the cosine transform.

    References
    ----------
    .. [1] K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian, IEEE Trans. Image Process. 16, 2080-2095 (2007), Table I.
    """

    strength: float = 1.0
    hard_threshold: float = 2.7
    hard_matches: int = 16
    wiener_matches: int = 32
    hard_nearest: float = 2.0
    wiener_nearest: float = 0.02
    search: int = 39
    step: int = 3
    kaiser: float = 2.0
    transform: Literal["bior1.5", "dct"] = "bior1.5"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises
        ------
        InputError
            If a number is out of its range.
        """
        for name in ("strength", "hard_threshold", "hard_nearest", "wiener_nearest", "kaiser"):
            if not getattr(self, name) >= 0:
                raise InputError(f"BM3D's {name} came as {getattr(self, name)!r}; needed is a number, 0 or more.")
        for name in ("hard_matches", "wiener_matches", "search", "step"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise InputError(f"BM3D's {name} came as {value!r}; needed is a whole number above 0.")
        if self.search % 2 == 0:
            raise InputError(f"BM3D's search came as {self.search}; the window has a middle, so give an odd number.")
        if self.step > BLOCK:
            raise InputError(f"BM3D's step came as {self.step}; up to {BLOCK} the blocks leave no pixel out.")
        if self.transform not in ("bior1.5", "dct"):
            raise InputError(f"BM3D's transform came as {self.transform!r}; choose 'bior1.5' or 'dct'.")


def filter_bm3d(image: np.ndarray, sigma: float, parameters: BM3DParameters | None = None) -> np.ndarray:
    """Image without its white Gaussian noise.

    Parameters
    ----------
    image : ndarray, shape (y, x), float
        Noisy image, finite, at least 8 x 8.
    sigma : float
        Standard deviation of the noise in the unit of the image; 0 returns the image.
    parameters : BM3DParameters, optional
        The default is the normal profile.

    Returns
    -------
    ndarray, shape (y, x), float32
        In the unit of the image.

    Raises
    ------
    InputError
        If the image or sigma cannot be used.

    Notes
    -----
    For every reference block the blocks most like it are stacked. First stage: the stack's 3D spectrum (block
    transform, Haar along the stack) loses its coefficients below lambda sigma, and the estimates Y of all blocks are
    averaged where they overlap, with weights Kaiser / (number of coefficients left) (eq. 10-12). Second stage: the
    stacks are searched in that basic estimate, and the noisy spectrum is multiplied by W = P^2 / (P^2 + sigma^2), P
    the spectrum of the basic estimate; weights Kaiser / ||W||^2 (eq. 8, 9, 11). A stack's mean is never shrunk, so
    that an offset of the image is an offset of the result. [1]_

    Two things differ from the paper. Blocks beyond a distance of 2500 (400) grey levels squared are not left out: the
    shrinkage sees to them, and the filter then knows no scale. Blocks that differ by no more than the noise are equally
    near (see `hard_nearest`).

    References
    ----------
    .. [1] K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian, IEEE Trans. Image Process. 16, 2080-2095 (2007).
    """
    parameters = parameters or BM3DParameters()
    _check(image, sigma)
    noisy = np.array(image, dtype=np.float32, order="C")
    sigma = float(sigma) * parameters.strength
    if sigma == 0:
        return noisy
    # Near 0, where float32 is fine, and in units of sigma, where no variance under- or overflows.
    middle = np.float32(0.5) * (noisy.min() + noisy.max())
    flat = ((noisy - middle) / np.float32(sigma)).ravel()
    height, width = noisy.shape
    window = np.kaiser(BLOCK, parameters.kaiser)
    places = (
        width,
        _references(height, parameters.step),
        _references(width, parameters.step),
        shifts(parameters.search),
    )
    block_window = np.outer(window, window).astype(np.float32).ravel()
    cosine = _pairs(cosine_matrix())
    first = _pairs(bior15_matrix()) if parameters.transform == "bior1.5" else cosine

    numerator, denominator = np.zeros_like(flat), np.zeros_like(flat)
    kernels.hard_threshold_stage(
        flat,
        flat,
        *places,
        parameters.hard_matches,
        np.float32(parameters.hard_nearest * BLOCK**2),
        np.float32(parameters.hard_threshold),
        *first,
        block_window,
        numerator,
        denominator,
    )
    pilot = numerator / denominator
    numerator[:] = 0
    denominator[:] = 0
    kernels.wiener_stage(
        flat,
        pilot,
        *places,
        parameters.wiener_matches,
        np.float32(parameters.wiener_nearest * BLOCK**2),
        np.float32(1),
        *cosine,
        block_window,
        numerator,
        denominator,
    )
    return (numerator / denominator * np.float32(sigma) + middle).reshape(noisy.shape)


def shifts(search: int) -> np.ndarray:
    """Places (dy, dx) of a window in a scattered order, always the same; shape (search^2, 2), int64."""
    order = np.random.default_rng(0).permutation(search**2)
    return np.stack([order // search, order % search], axis=1) - search // 2


def cosine_matrix() -> np.ndarray:
    """Matrix of the orthonormal cosine transform (type II); shape (8, 8), float64."""
    return np.asarray(dct(np.eye(BLOCK), axis=0, norm="ortho"))


def bior15_matrix() -> np.ndarray:
    """Matrix of the periodic biorthogonal spline wavelet 1.5 over all three levels; shape (8, 8), float64.

    The rows are of norm 1, so that white noise has the same variance in every coefficient. Filters: A. Cohen,
    I. Daubechies, J.-C. Feauveau, Commun. Pure Appl. Math. 45, 485-560 (1992), Table 6.1 (N = 1, N~ = 5).
    """
    low = np.array([3, -3, -22, 22, 128, 128, 22, -22, -3, 3]) / 256.0
    high = np.array([0, 0, 0, 0, 0.5, -0.5, 0, 0, 0, 0])
    matrix = np.eye(BLOCK)
    n = BLOCK
    while n > 1:
        step = np.zeros((n, n))
        for k in range(n // 2):
            for i in range(10):
                step[k, (2 * k + i - 4) % n] += low[i]
                step[n // 2 + k, (2 * k + i - 4) % n] += high[i]
        matrix[:n] = step @ matrix[:n]
        n //= 2
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))


def _pairs(matrix: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(M, M^T) of a transform and of its inverse, flat float32."""
    forward, backward = (
        (m.astype(np.float32).ravel(), m.T.astype(np.float32).ravel()) for m in (matrix, np.linalg.inv(matrix))
    )
    return forward, backward


def _references(n: int, step: int) -> np.ndarray:
    """First pixels of the reference blocks along an axis of n pixels; the last block reaches the edge."""
    return np.unique(np.append(np.arange(0, n - BLOCK + 1, step), n - BLOCK))


def _check(image: np.ndarray, sigma: float) -> None:
    if image.ndim != 2 or min(image.shape) < BLOCK:
        raise InputError(f"The image has shape {image.shape}; needed are two axes of at least {BLOCK} pixels.")
    if not np.isfinite(image).all():
        raise InputError(
            f"{int((~np.isfinite(image)).sum())} of {image.size} pixels are not finite numbers; fill them first."
        )
    if not (np.isfinite(sigma) and sigma >= 0):
        raise InputError(f"The noise's standard deviation came as {sigma!r}; needed is a number, 0 or more.")
