"""An image seen on another grid: one smooth map, one interpolation by cubic B-splines."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ..errors import InputError
from ._kernels import PAD, filter_columns, interpolate


def resample(
    image: np.ndarray,
    matrix: ArrayLike,
    shift: ArrayLike,
    *,
    bend: ArrayLike | None = None,
    out_shape: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Image at M r + s, or M r + s + B (y y, y x, x x), for every pixel r = (y, x) of the output, interpolated once.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), real numbers
        NaN where nothing was measured.
    matrix : array_like, shape (2, 2), float
        M: acts on vectors (y, x) in pixels from the centre pixel n // 2 of the output.
    shift : array_like, shape (2,), float
        s in pixels (y, x); M r + s counts from the centre pixel n // 2 of the image.
    bend : array_like, shape (2, 3), float, optional
        B in 1 / pixel; none by default.
    out_shape : tuple of int, optional
        Pixels (y, x) of the output; the default is the image's.

    Returns
    -------
    resampled : ndarray, shape `out_shape`, float32
        In the unit of the image; 0 where not inside.
    inside : ndarray, shape `out_shape`, bool
        True where the place lies in the image, between its first and last pixel centres, and the pixels on
        either side of it were measured.

    Raises
    ------
    InputError
        If the image is not two-dimensional, or the matrix, the shift or the bend cannot be used.

    Notes
    -----
    The interpolant is the cubic spline through all pixels, mirrored at the border: the samples are turned
    into B-spline coefficients by the exact recursive filter, so that at whole pixels the image comes back.
    Pixels that are NaN take the value of the nearest measured one before the filter.

    References
    ----------
    M. Unser, A. Aldroubi & M. Eden, IEEE Trans. Signal Process. 41, 821 & 834 (1993).
    """
    image = np.asarray(image)
    if image.ndim != 2 or image.size == 0:
        raise InputError(f"An image of shape {image.shape} came; needed is one image, (y, x).")
    m, s = np.array(matrix, dtype=np.float64), np.asarray(shift, dtype=np.float64)
    if m.shape != (2, 2) or s.shape != (2,) or not (np.isfinite(m).all() and np.isfinite(s).all()):
        raise InputError(
            f"matrix has shape {m.shape} and shift {s.shape}; needed are finite numbers of shape (2, 2) and (2,), "
            "both for vectors (y, x) in pixels."
        )
    b = None if bend is None else np.array(bend, dtype=np.float64)
    if b is not None and (b.shape != (2, 3) or not np.isfinite(b).all()):
        raise InputError(f"bend has shape {b.shape}; needed are finite numbers of shape (2, 3), for y y, y x and x x.")
    ny, nx = image.shape
    shape = image.shape if out_shape is None else (int(out_shape[0]), int(out_shape[1]))
    out, inside = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    valid = np.isfinite(image)
    if not valid.any():
        return out, inside
    centre = np.array([ny // 2, nx // 2])
    y0, x0 = shape[0] // 2, shape[1] // 2
    y, x = centre + s - m @ [y0, x0]
    if b is not None:  # the same polynomial, counted from pixel (0, 0)
        y, x = b @ [y0 * y0, y0 * x0, x0 * x0] + [y, x]
        m -= np.column_stack([2 * y0 * b[:, 0] + x0 * b[:, 1], y0 * b[:, 1] + 2 * x0 * b[:, 2]])
    coefficients = np.pad(_coefficients(image, valid), PAD, mode="reflect")
    interpolate(coefficients.ravel(), valid.ravel(), (ny, nx), m, (float(y), float(x)), b, out, inside)
    return out, inside


def _coefficients(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """B-spline coefficients of the image, its gaps closed with the nearest values; float64."""
    samples = image.astype(np.float64)
    if not valid.all():
        nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
        samples = samples[tuple(nearest)]
    filter_columns(samples)
    turned = np.ascontiguousarray(samples.T)
    filter_columns(turned)
    return np.ascontiguousarray(turned.T)
