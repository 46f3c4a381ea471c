"""What a microscope adds to a tilt series, drawn from one seed: errors of angles and brightness, shifts, background."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from ..errors import CapacityError, InputError
from ..project.atoms import CUTOFF
from .inputs import Z_EXPONENT, elements_of
from .packing import drop_near_pairs, relax_packing

BACKGROUND_TERMS = 5
"""Coefficients of a background's shape: y, x, x y, x^2 - y^2, x^2 + y^2."""
CARBON = 6
CARBON_DENSITY = 0.0953
"""Atoms per cubic Angstrom of evaporated amorphous carbon, 1.9 g/cm^3 [1]_.

.. [1] J. Robertson, Mater. Sci. Eng. R 37, 129 (2002), table 1.
"""
CARBON_NEAREST = 1.4
"""Smallest distance of two carbon atoms in Angstrom; the bond of graphite is 1.42."""
CARBON_GAP = 2.0
"""Angstrom between the lowest atom of the sample and the carbon below it."""
LARGEST_SUPPORT = 10_000_000
_WAVES = 3
_STREAMS = ("angle_error", "angle_drift", "shift", "brightness", "background", "carbon")


def random_stream(
    entropy: int, name: Literal["angle_error", "angle_drift", "shift", "brightness", "background", "carbon"]
) -> np.random.Generator:
    """The random numbers of one corruption: those of another are the same whether it is there or not."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(0, 1, _STREAMS.index(name))))


def angle_errors(n: int, error: float, drift: float, entropy: int) -> np.ndarray:
    """True less nominal Euler angles of `n` tilts in degrees, shape (n, 3).

    Notes
    -----
    Each angle is off by Normal(0, error), and by a smooth function of the tilt's number t, sum over k = 1, 2, 3 of
    c_k cos(pi k (t + 1/2) / n) with c_k from Normal(0, drift sqrt(2/3)), whose expected rms is `drift`.
    """
    waves = np.cos(np.pi * np.outer((np.arange(n) + 0.5) / n, np.arange(1, _WAVES + 1)))
    smooth = random_stream(entropy, "angle_drift").normal(0.0, drift * np.sqrt(2.0 / _WAVES), (_WAVES, 3))
    return random_stream(entropy, "angle_error").normal(0.0, error, (n, 3)) + waves @ smooth


def brightness_factors(n: int, spread: float, entropy: int) -> np.ndarray:
    """Factors on the images of `n` tilts, whose logarithms have the standard deviation `spread`."""
    return np.exp(random_stream(entropy, "brightness").normal(0.0, spread, n))


def drawn_shifts(n: int, largest: float, entropy: int) -> np.ndarray:
    """Shifts of `n` tilts, (n, 2) as [y, x], drawn evenly up to `largest` along each axis."""
    return random_stream(entropy, "shift").uniform(-largest, largest, (n, 2))


def background_terms(n: int, random: np.random.Generator) -> np.ndarray:
    """Coefficients of the shapes of the backgrounds of `n` tilts, shape (n, BACKGROUND_TERMS)."""
    return random.uniform(-0.15, 0.15, (n, BACKGROUND_TERMS))


def smooth_shape(y: np.ndarray, x: np.ndarray, shape: tuple[int, int], terms: np.ndarray) -> np.ndarray:
    """1 plus a polynomial of second degree in pixels from the centre; above 0 within the field and near it."""
    y, x = y / (shape[0] / 2), x / (shape[1] / 2)
    smooth: np.ndarray = 1 + np.tensordot(terms, np.stack([y, x, x * y, x**2 - y**2, x**2 + y**2]) / 1.5, 1)
    return np.maximum(smooth, 0.0)


def carbon_support(
    positions: np.ndarray, thickness: float, matrices: np.ndarray, x: tuple[float, float], y: tuple[float, float],
    entropy: int,
) -> np.ndarray:  # fmt: skip
    """Positions (carbon atoms, 3) in Angstrom of a film of amorphous carbon that lies below the sample.

    Parameters
    ----------
    positions : ndarray, shape (atoms, 3), float64
        The sample, in Angstrom.
    thickness : float
        Of the carbon along z, in Angstrom.
    matrices : ndarray, shape (tilts, 3, 3), float64
        lab = R @ sample.
    x, y : tuple of float
        Lab coordinates in Angstrom between which no image shows the film's end.
    entropy : int
        Seed.

    Raises
    ------
    InputError
        If a tilt looks along the film.
    CapacityError
        If the film would have more than ten million atoms.

    Notes
    -----
    A random packing (:func:`~aetdist.simulate.packing.relax_packing`) with the density of evaporated carbon and no
    pair nearer than the bond of graphite; its upper surface is 2 Angstrom below the lowest atom.
    """
    top = positions[:, 2].min() - CARBON_GAP
    corners = np.array([(u, v) for u in x for v in y])
    seen = []
    for tilt, matrix in enumerate(matrices):
        if abs(matrix[2, 2]) < 0.05:
            raise InputError(
                f"Tilt {tilt} looks along the carbon film, which would have to be without end; leave the tilt out, or "
                "give carbon=0."
            )
        for z in (top, top - thickness):  # where the rays through the corners cross this plane of the sample
            along = (z - corners @ matrix[:2, 2]) / matrix[2, 2]
            seen.append((corners @ matrix[:2] + along[:, None] * matrix[2])[:, :2])
    low, high = np.min(seen, axis=(0, 1)), np.max(seen, axis=(0, 1))
    low, high = np.append(low, top - thickness), np.append(high, top)
    n = round(CARBON_DENSITY * float(np.prod(high - low)))
    if n > LARGEST_SUPPORT:
        raise CapacityError(
            f"A support of {n:.2g} carbon atoms would be needed to fill the field at every tilt; give a smaller field, "
            "smaller tilts or a thinner film."
        )
    random = random_stream(entropy, "carbon")
    smallest, types = np.array([[CARBON_NEAREST]]), np.zeros(n, dtype=np.int64)
    carbon = relax_packing(
        random.uniform(low, high, (n, 3)), types, smallest, lambda found: np.clip(found, low, high), random
    )
    return carbon[drop_near_pairs(carbon, types, smallest)]


def carbon_height(atoms: xr.Dataset, heights: np.ndarray) -> float:
    """Peak value of a carbon atom beside those of the sample's atoms: the mean one scaled as Z^1.7."""
    numbers = elements_of(atoms, "The brightness of carbon beside the sample")
    return float(heights.mean() / (numbers**Z_EXPONENT).mean() * CARBON**Z_EXPONENT)


def support_table(
    atoms: xr.Dataset, sample: tuple[np.ndarray, np.ndarray, np.ndarray], thickness: float, matrices: np.ndarray,
    x: np.ndarray, y: np.ndarray, shift: float, entropy: int,
) -> np.ndarray:  # fmt: skip
    """Position, height and sigma of every carbon atom, shape (carbon atoms, 5); empty for a thickness of 0.

    `x` and `y` are the coordinates of the pixels and `shift` the largest shift of an image, all in Angstrom.
    """
    if thickness == 0:
        return np.empty((0, 5))
    positions, heights, sigmas = sample
    sigma = float(sigmas.mean())
    reach = CUTOFF * sigma + shift
    spans = [(float(axis[0]) - reach, float(axis[-1]) + reach) for axis in (x, y)]
    height = carbon_height(atoms, heights)
    carbon = carbon_support(positions, thickness, matrices, spans[0], spans[1], entropy)
    return np.column_stack([carbon, np.full(len(carbon), height), np.full(len(carbon), sigma)])


def check_amounts(**amounts: float) -> None:
    """Refuse amounts of corruption that cannot be."""
    for name, value in amounts.items():
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name} came as {value!r}; needed is a number, 0 or more.")
