"""A marker in a film: an island with nothing around it, whose centre of mass can be followed through the tilts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..errors import InputError
from .common_lines import line_profiles

_SMOOTHING = 2.0
_LEAST_AREA = 60  # pixels
_LEAST_GAP = 6.0  # pixels of bare field around an island
_MARGIN = 10.0  # pixels of the gap that the window takes in, at most
_BARE = 0.3  # brightness around the island, as part of its own, up to which it stands alone


class Marker(NamedTuple):
    """Window around a marker in one tilt, in pixel indices: centre and half edges along y and x."""

    y: float
    x: float
    half_y: float
    half_x: float


def choose_marker(image: np.ndarray, reach: float) -> Marker | None:
    """The most isolated island of an image, or None.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        The lowest tilt, NaN where unmeasured.
    reach : float
        Pixels that other tilts may lie off: the window must be that far from the edge of the field.

    Notes
    -----
    Islands are components of the smoothed image above half way between its 5 % and 95 % quantiles; the one
    that is furthest from the others is taken, if its surroundings are less than 0.3 as bright.
    """
    measured = np.isfinite(image)
    smooth = ndimage.gaussian_filter(np.where(measured, image, 0.0), _SMOOTHING)
    low, high = np.quantile(smooth[measured], [0.05, 0.95])
    islands = (smooth > 0.5 * (low + high)) & measured
    labels, n = ndimage.label(islands)
    best, furthest = None, _LEAST_GAP
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        own = labels == label
        if own.sum() < _LEAST_AREA:
            continue
        gap = _MARGIN if n == 1 else float(ndimage.distance_transform_edt(~(islands & ~own))[own].min())
        half = [(s.stop - s.start) / 2 + min(gap / 2, _MARGIN) for s in box]
        window = Marker(*((s.start + s.stop - 1) / 2 for s in box), *half)  # type: ignore[arg-type]
        inside = all(
            centre - size >= reach and centre + size <= edge - 1 - reach
            for centre, size, edge in zip(window[:2], window[2:], image.shape, strict=True)
        )
        if gap > furthest and inside and isolation(image, window) < _BARE:
            best, furthest = window, gap
    return best


def checked_marker(marker: tuple[float, float, float, float], shape: tuple[int, int]) -> Marker:
    """A window given as (first row, last row, first column, last column) of the lowest tilt.

    Raises
    ------
    InputError
        If it is not in the field, or has no area.
    """
    try:
        top, bottom, left, right = (float(v) for v in marker)
    except (TypeError, ValueError):
        raise InputError(
            f"marker came as {marker!r}; needed are (first row, last row, first column, last column) in pixels."
        ) from None
    ny, nx = shape
    if not (0 <= top < bottom <= ny - 1 and 0 <= left < right <= nx - 1):
        raise InputError(
            f"The marker's window, rows {top:g} to {bottom:g} and columns {left:g} to {right:g}, does not lie in the "
            f"field of {ny} x {nx} pixels; give (first row, last row, first column, last column) inside it."
        )
    return Marker((top + bottom) / 2, (left + right) / 2, (bottom - top) / 2, (right - left) / 2)


def window_mask(shape: tuple[int, ...], window: Marker) -> np.ndarray:
    """Pixels of the window, shape (y, x), bool."""
    rows = np.abs(np.arange(shape[0]) - window.y) <= window.half_y
    columns = np.abs(np.arange(shape[1]) - window.x) <= window.half_x
    return np.asarray(rows[:, None] & columns[None, :])


def isolation(image: np.ndarray, window: Marker) -> float:
    """Brightness at the window's border as part of that inside it; NaN where not all of it was measured."""
    inside = window_mask(image.shape, window)
    if not inside.any() or not np.isfinite(image[inside]).all():
        return float("nan")
    core = ndimage.binary_erosion(inside, iterations=2)
    mean = float(image[inside].mean())
    return float(image[inside & ~core].mean() / mean) if mean > 0 else float("nan")


def marker_profile(image: np.ndarray, window: Marker, start: tuple[float, float], axis: float) -> np.ndarray | None:
    """Profile of a marker along the axis, after its centre across and its mass; None where it is not isolated.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        NaN where unmeasured.
    window : Marker
        Where the marker should be; it follows the centre of mass.
    start : tuple of float
        Coordinates (y, x) of pixel (0, 0) in pixels from the origin of the rotation.
    axis : float
        Degrees from image y to the axis, positive towards -x.
    """
    inside = window_mask(image.shape, window)
    level = 0.0
    for _ in range(3):
        if not isolation(image, window) < _BARE:
            return None
        inside = window_mask(image.shape, window)
        level = float(np.median(image[inside & ~ndimage.binary_erosion(inside, iterations=2)]))
        y, x = ndimage.center_of_mass(np.where(inside, np.maximum(image - level, 0.0), 0.0))
        window = Marker(y, x, window.half_y, window.half_x)
    profiles, moments = line_profiles(np.nan_to_num(image - level), inside, start, np.array([axis]))
    mass = profiles.sum()
    return np.concatenate([[moments.sum() / mass, mass], profiles[0]]) if mass > 0 else None
