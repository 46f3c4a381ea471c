"""When to stop: a fixed count, what held-out pixels say, or the noise of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

STOPS = ("fixed", "held_out_blocks", "held_out_tilts", "discrepancy")
BLOCK = 16  # pixels: atoms are smaller, so that the pixels around do not tell what is held out
_PATIENCE = 8  # iterations: momentum lets the curve ripple
_MOST = 0.5  # of the measured pixels may be held out
_LAPLACIAN_NORM = 6.0  # root of the sum of squares of (1, -2, 1) x (1, -2, 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


@dataclass(frozen=True)
class Stop:
    """The rule that chooses the number of iterations.

    Parameters
    ----------
    rule : {"fixed", "held_out_blocks", "held_out_tilts", "discrepancy"}
    fraction : float
        Part of the measured pixels, or of the tilts, that is held out.
    seed : int
        Of the choice of what is held out.
    noise : float, optional
        Standard deviation of the noise of a pixel; estimated from the images by default.

    Raises
    ------
    InputError
        If the rule is unknown or a number is out of range.
    """

    rule: str = "fixed"
    fraction: float = 0.1
    seed: int = 0
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in STOPS:
            raise InputError(f"Stop rule {self.rule!r} is unknown; choose one of {', '.join(STOPS)}.")
        if not _is_number(self.fraction) or not 0 < self.fraction <= _MOST:
            raise InputError(
                f"The fraction held out came as {self.fraction}; needed is more than 0 and at most {_MOST}."
            )
        if self.noise is not None and not (_is_number(self.noise) and 0 < self.noise < np.inf):
            raise InputError(f"noise came as {self.noise}; needed is a positive number, or leave it out.")
        if self.noise is not None and self.rule != "discrepancy":
            raise InputError(f'noise came with stop = "{self.rule}"; it is for stop = "discrepancy".')
        if not _is_number(self.seed) or not self.seed >= 0 or self.seed % 1 != 0:
            raise InputError(f"seed came as {self.seed}; needed is a whole number of 0 or more.")

    @property
    def holds_out(self) -> bool:
        """Whether the rule needs pixels that are not fitted."""
        return self.rule.startswith("held_out")

    def held_out(self, mask: np.ndarray) -> np.ndarray:
        """The measured pixels that are not fitted, (tilt, y, x) bool, of those that are measured."""
        choose = held_out_blocks if self.rule == "held_out_blocks" else held_out_tilts
        return choose(mask, self.fraction, self.seed)

    def noise_of(self, images: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """Standard deviation of the noise of every tilt, (tilt,) float64; None where the rule needs none.

        Raises
        ------
        InputError
            If it is neither given nor to be seen in a tilt that was measured.
        """
        if self.rule != "discrepancy":
            return None
        if self.noise is not None:
            return np.full(len(images), float(self.noise))
        sigma = estimate_noise(images, mask)
        unknown = np.flatnonzero(~np.isfinite(sigma) & mask.any(axis=(1, 2)))
        if unknown.size:
            raise InputError(
                f"The noise of tilt {unknown[0]} cannot be estimated from its few pixels; give it as noise."
            )
        return sigma


FIXED = Stop()


def held_out_blocks(mask: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Blocks of 16 x 16 pixels at random places of all tilts.

    Parameters
    ----------
    mask : ndarray, shape (tilt, y, x), bool
        True where a pixel was measured.
    fraction : float
        Of the measured pixels.
    seed : int

    Returns
    -------
    ndarray, shape (tilt, y, x), bool
        Measured pixels to hold out; at least one block.

    Raises
    ------
    InputError
        If no measured pixel would be left to fit.

    Notes
    -----
    Neighbouring pixels share atoms and often noise: isolated pixels that are held out are predicted
    from what was fitted around them, and say nothing about noise that is fitted. The blocks are those of a
    grid whose origin is drawn for every tilt.
    """
    rng = np.random.default_rng(seed)
    n_tilts, ny, nx = mask.shape
    offsets = rng.integers(0, BLOCK, (n_tilts, 2))
    corners, counts = [], []
    for t, (oy, ox) in enumerate(offsets):
        for y in range(oy - BLOCK, ny, BLOCK):
            for x in range(ox - BLOCK, nx, BLOCK):
                block = mask[t, max(0, y) : y + BLOCK, max(0, x) : x + BLOCK]
                if block.any():
                    corners.append((t, y, x))
                    counts.append(int(block.sum()))
    order = rng.permutation(len(corners))
    wanted = fraction * sum(counts)
    before = np.cumsum(np.array(counts)[order]) - np.array(counts)[order]
    held = np.zeros(mask.shape, bool)
    for i in order[before < wanted]:
        t, y, x = corners[i]
        held[t, max(0, y) : y + BLOCK, max(0, x) : x + BLOCK] = True
    return _checked(held & mask, mask)


def held_out_tilts(mask: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Whole tilts, one from each of as many runs of neighbours, the first and the last tilt left alone.

    Parameters
    ----------
    mask : ndarray, shape (tilt, y, x), bool
        True where a pixel was measured.
    fraction : float
        Of the tilts; at least one is held out.
    seed : int

    Returns
    -------
    ndarray, shape (tilt, y, x), bool
        Measured pixels to hold out.

    Raises
    ------
    InputError
        If no measured pixel would be left to fit, or there are fewer than three tilts.
    """
    rng = np.random.default_rng(seed)
    seen = np.flatnonzero(mask.any(axis=(1, 2)))[1:-1]
    if seen.size == 0:
        raise InputError(f"A tilt is to be held out of {len(mask)}; needed are 3 or more that were measured.")
    count = min(len(seen), max(1, round(fraction * len(mask))))
    chosen = [rng.choice(run) for run in np.array_split(seen, count)]
    held = np.zeros(mask.shape, bool)
    held[chosen] = True
    return _checked(held & mask, mask)


def is_past_minimum(curve: Sequence[float]) -> bool:
    """Whether the smallest value of a curve lies so far back that no smaller one is to be expected."""
    if not curve:
        return False
    best = int(np.argmin(curve))
    return len(curve) - 1 - best >= max(_PATIENCE, best // 4)


def estimate_noise(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Standard deviation of white noise, from the finest detail of the images themselves.

    Parameters
    ----------
    images : ndarray, shape (tilt, y, x), float32
    mask : ndarray, shape (tilt, y, x), bool
        True where a pixel was measured.

    Returns
    -------
    ndarray, shape (tilt,), float64
        In the unit of the images; NaN for a tilt without a block of measured pixels.

    Notes
    -----
    The kernel (1, -2, 1) x (1, -2, 1) removes what is smooth and multiplies the standard deviation of
    white noise by 6 [1]_: sigma = sqrt(pi / 2) / 6 mean |detail|, here in blocks of 16 x 16 pixels whose
    variances are averaged, because noise follows the signal. On simulated particles with noise of 5 and 15 %
    of the signal it is within 11 %; fine structure counts as noise where there is less. Images that were
    smoothed before show less noise than they have: name it then.

    References
    ----------
    .. [1] J. Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996).
    """
    sigma = np.full(len(images), np.nan)
    for t, (image, measured) in enumerate(zip(images, mask, strict=True)):
        detail = _second_difference(_second_difference(np.where(measured, image, 0).astype(np.float64), 0), 1)
        whole = _all_of_three(_all_of_three(measured, 0), 1)
        variances, counts = [], []
        for y in range(0, detail.shape[0], BLOCK):
            for x in range(0, detail.shape[1], BLOCK):
                there = np.s_[y : y + BLOCK, x : x + BLOCK]
                values = np.abs(detail[there][whole[there]])
                if values.size >= BLOCK:
                    variances.append(np.pi / 2 * (values.mean() / _LAPLACIAN_NORM) ** 2)
                    counts.append(values.size)
        if counts:
            sigma[t] = np.sqrt(np.average(variances, weights=counts))
    return sigma


def _second_difference(image: np.ndarray, axis: int) -> np.ndarray:
    image = np.moveaxis(image, axis, 0)
    return np.moveaxis(image[2:] - 2.0 * image[1:-1] + image[:-2], 0, axis)


def _all_of_three(mask: np.ndarray, axis: int) -> np.ndarray:
    mask = np.moveaxis(mask, axis, 0)
    return np.moveaxis(mask[2:] & mask[1:-1] & mask[:-2], 0, axis)


def _checked(held: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if not held.any() or not (mask & ~held).any():
        raise InputError(
            f"Holding out {int(held.sum())} of {int(mask.sum())} measured pixels leaves nothing to fit or nothing to "
            'judge by; hold out a smaller fraction, or use stop = "fixed".'
        )
    return held
