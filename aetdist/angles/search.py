"""Coarse scan of the rotations of a tilt, in small increments, before least squares."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..images import register
from .model import Model


def scan_rotations(
    model: Model,
    image: np.ndarray,
    mask: np.ndarray,
    matrix: np.ndarray,
    shift: np.ndarray,
    *,
    search: float,
    increment: float,
    maximum_shift: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The rotation and the shift of one tilt that agree best, one axis of the laboratory after another.

    Parameters
    ----------
    model : Model
    image : ndarray, shape (y, x), float32
    mask : ndarray, shape (y, x), bool
    matrix : ndarray, shape (3, 3)
        Where to start: lab = R @ sample.
    shift : ndarray, shape (2,)
        Pixels [y, x].
    search, increment : float
        Largest rotation about each axis that is tried, and the steps, in degrees.
    maximum_shift : float
        Pixels by which the image may be moved.

    Returns
    -------
    matrix, shift : ndarray

    Notes
    -----
    Every candidate is registered on the image (:func:`~aetdist.images.register`), so that rotations are
    compared at their best shifts. The tilt axis comes first, as its angle is what a stage gets wrong most.
    """
    masked = np.where(mask, image, np.nan)
    n = int(search / increment + 1e-9)
    steps = np.concatenate([np.arange(-n, 0), np.arange(1, n + 1)]) * increment
    highest, move = _registered(masked, model.images(matrix[None], shift[None])[0], maximum_shift)
    shift = shift + move
    for axis in (1, 0, 2):
        turns = Rotation.from_rotvec(np.outer(steps, np.eye(3)[axis]), degrees=True).as_matrix()
        candidates = turns @ matrix
        seen = model.images(candidates, np.tile(shift, (len(steps), 1)))
        found = [_registered(masked, candidate, maximum_shift) for candidate in seen]
        best = int(np.argmax([correlation for correlation, _ in found])) if found else 0
        if found and found[best][0] > highest:
            highest, matrix, shift = found[best][0], candidates[best], shift + found[best][1]
    return matrix, shift


def _registered(image: np.ndarray, seen: np.ndarray, maximum_shift: float) -> tuple[float, np.ndarray]:
    try:
        found = register(image, seen, maximum_shift=maximum_shift)
    except InputError:  # nothing to see in common
        return -np.inf, np.zeros(2)
    return found.correlation, found.shift
