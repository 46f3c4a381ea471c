"""A shift that varies smoothly over an image: what its numbers mean, and how two of them follow each other."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

TERMS = ("y", "x", "yy", "yx", "xx")
"""Of a local shift, pixels along image y and x for each: a(r) = shift + sum over terms of local[axis, term] times
v, u, v v, v u, u u. v and u are the place in the image along y and x from the centre pixel n // 2, in halves of the
field: -1 to 1, so that every number is what its term amounts to at the border."""
_GRID = 9  # points along each axis that stand for an image
_INVERSION_STEPS = 6


def powers(y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The terms of a local shift at pixels.

    Parameters
    ----------
    y, x : ndarray of one shape, float
        Pixels, counted from the first one.
    shape : tuple of int
        Pixels (y, x) of the image.

    Returns
    -------
    ndarray, shape (..., term), float64
    """
    v, u = ((np.asarray(p) - n // 2) / (n / 2) for p, n in zip((y, x), shape, strict=True))
    return np.stack([v, u, v * v, v * u, u * u], axis=-1)


def as_map(
    shift: np.ndarray, local: np.ndarray, shape: tuple[int, int], distortion: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix, shift and bend for :func:`~aetdist.images.resample` of D (r + a(r)).

    Parameters
    ----------
    shift : ndarray, shape (2,)
        Pixels [y, x].
    local : ndarray, shape (2, term)
        Pixels; see ``TERMS``.
    shape : tuple of int
        Pixels (y, x) of the image.
    distortion : ndarray, shape (2, 2), optional
        D; the default is none.

    Returns
    -------
    matrix, shift, bend : ndarray, shape (2, 2), (2,) and (2, 3), float64
        D (1 + A), D a_0 and D Q of a(r) = a_0 + A r + Q (y y, y x, x x).
    """
    d = np.eye(2) if distortion is None else distortion
    half = np.array([shape[0] / 2, shape[1] / 2])
    linear = np.asarray(local)[:, :2] / half
    square = np.asarray(local)[:, 2:] / [half[0] ** 2, half[0] * half[1], half[1] ** 2]
    return d @ (np.eye(2) + linear), d @ np.asarray(shift), d @ square


def composed(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts and local shifts of every tilt that do at once what one after the other does.

    Parameters
    ----------
    first, second : tuple of ndarray, shape (tilt, 2) and (tilt, 2, term)
        Shifts and local shifts in pixels, the second found in images that the first was applied to.
    shape : tuple of int
        Pixels (y, x) of the images.

    Returns
    -------
    shift, local : ndarray, shape (tilt, 2) and (tilt, 2, term)
        b(r) + a(r + b(r)). What of it is of higher than second order is fitted by least squares over the field.
    """
    places, terms = _places(shape)
    fields = []
    for a, b in zip(_joined(first), _joined(second), strict=True):
        moved = b @ terms.T  # (axis, place)
        fields.append(moved + a @ _terms(places + moved, shape).T)
    return _fitted(fields, terms)


def inverted(shift: np.ndarray, local: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Shifts and local shifts of every tilt that undo some: b(r) = -a(r + b(r)), as in :func:`composed`."""
    places, terms = _places(shape)
    fields = []
    for a in _joined((shift, local)):
        back = -a @ terms.T
        for _ in range(_INVERSION_STEPS):
            back = -a @ _terms(places + back, shape).T
        fields.append(back)
    return _fitted(fields, terms)


def _places(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Points (axis, place) that stand for an image, and a constant and the terms there (place, 6)."""
    places = np.stack(np.meshgrid(*(np.linspace(0, n - 1, _GRID) for n in shape), indexing="ij")).reshape(2, -1)
    return places, _terms(places, shape)


def _terms(places: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.column_stack([np.ones(places.shape[1]), powers(places[0], places[1], shape)])


def _joined(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(pair[0])[:, :, None], pair[1]], axis=2)


def _fitted(fields: list[np.ndarray], terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.array(fields) @ np.linalg.pinv(terms).T
    return numbers[:, :, 0], numbers[:, :, 1:]


def checked_local(local: np.ndarray | None, n_tilts: int) -> np.ndarray | None:
    """A local shift of every tilt as float64 (tilt, 2, term), or None.

    Raises
    ------
    InputError
        If it has another shape or is not finite.
    """
    if local is None:
        return None
    local = np.asarray(local, dtype=np.float64)
    if local.shape != (n_tilts, 2, len(TERMS)) or not np.isfinite(local).all():
        raise InputError(
            f"Local shifts of shape {local.shape} came; needed are finite numbers of shape {(n_tilts, 2, len(TERMS))}: "
            f"for every tilt, along y and x, one for each of {', '.join(TERMS)}."
        )
    return local
