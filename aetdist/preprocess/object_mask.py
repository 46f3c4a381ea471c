"""Where the object of an image is: Otsu's threshold, grown to the object's faint rim."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_FAINT = 0.04
"""Part of the object's own brightness that still belongs to the object: a sphere's rim fades to nothing."""
_GROWTH = 0.25
"""The object is looked for up to this part of its radius around the pixels that Otsu's threshold gives."""


def object_mask_of(
    image: np.ndarray, measured: np.ndarray, *, margin: float = 4.0, smoothing: float = 2.0
) -> np.ndarray:
    """Mask of the largest object in an image, `margin` pixels larger than it.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    measured : ndarray, shape (y, x), bool
    margin, smoothing : float
        Pixels, as in :func:`subtract_background`.

    Returns
    -------
    ndarray, shape (y, x), bool

    Notes
    -----
    Otsu's threshold of the smoothed image gives the bright part of the object, whose largest component is
    kept. A round object fades towards its rim, far below that threshold: around the bright part the
    background's level and noise are taken from the pixels well away from it (a plane through them), and
    the object grows to where it is 4 % of its own brightness, or three times that noise, above them;
    holes are filled.

    References
    ----------
    N. Otsu, IEEE Trans. Syst. Man Cybern. 9, 62-66 (1979).
    """
    smooth = blurred(image, measured, smoothing)
    bright = _largest_component((smooth > otsu_threshold(smooth[measured])) & measured)
    radius = np.sqrt(bright.sum() / np.pi)
    distance = ndimage.distance_transform_edt(~bright)
    away = (distance > max(_GROWTH * radius, margin) + 2 * smoothing) & measured
    if away.sum() < 0.02 * measured.sum():  # an object that fills the field: no level to compare with
        grown = bright
    else:
        level = fit_surface(smooth, away, 3)
        spread = 1.4826 * float(np.median(np.abs(smooth - level)[away]))
        height = float(np.median((smooth - level)[bright]))
        faint = (smooth - level > max(_FAINT * height, 3.0 * spread)) & (distance <= max(_GROWTH * radius, 1.0))
        grown = _component_at(ndimage.binary_opening(faint & measured) | bright, bright)
    grown = ndimage.binary_fill_holes(grown)
    return (ndimage.distance_transform_edt(~grown) <= margin) & measured


def otsu_threshold(values: np.ndarray, bins: int = 512) -> float:
    """Threshold that parts values into the two classes that differ most (Otsu 1979).

    Parameters
    ----------
    values : ndarray
        Finite numbers.
    bins : int
        Bins of their histogram.

    Returns
    -------
    float
        The edge between bins at which w0 w1 (m0 - m1)^2 is largest, with weights w and means m of
        the classes below and above.
    """
    counts, edges = np.histogram(values, bins)
    centres = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    between = below * above * (sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)) ** 2
    best = np.flatnonzero(between == between.max())  # a run of empty bins ties: its middle
    return float(edges[1:-1][best].mean())


def blurred(image: np.ndarray, where: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian average of some pixels, on all pixels.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    where : ndarray, shape (y, x), bool
        Pixels that count.
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    ndarray, shape (y, x), float64
        (G * (image where)) / (G * where); far from any pixel that counts, the nearest such average.
    """
    weights = ndimage.gaussian_filter(where.astype(np.float64), sigma, mode="constant")
    total = ndimage.gaussian_filter(np.where(where, image, 0.0).astype(np.float64), sigma, mode="constant")
    near = weights > 1e-3
    blurred = total / np.where(near, weights, 1.0)
    if near.all():
        return blurred
    index = ndimage.distance_transform_edt(~near, return_distances=False, return_indices=True)
    return np.asarray(blurred[tuple(index)])


def fit_surface(values: np.ndarray, where: np.ndarray, terms: int, weight: np.ndarray | None = None) -> np.ndarray:
    """Least-squares polynomial through some pixels, on all pixels.

    Parameters
    ----------
    values : ndarray, shape (y, x)
    where : ndarray, shape (y, x), bool
        Pixels that count.
    terms : int
        1 constant, 3 plane, 6 quadratic in (y, x).
    weight : ndarray, shape (y, x), optional
        Of the squares; the default is 1.

    Returns
    -------
    ndarray, shape (y, x), float64
    """
    y, x = (np.linspace(-1.0, 1.0, n) for n in values.shape)
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    one = np.ones_like(grid_x)
    basis = [one, grid_y, grid_x, grid_y**2, grid_y * grid_x, grid_x**2][:terms]
    matrix = np.stack([b[where] for b in basis], axis=1)
    weighted = matrix if weight is None else matrix * weight[where][:, None]
    gram = weighted.T @ matrix
    factors = np.linalg.solve(gram + 1e-9 * max(np.trace(gram), 1e-300) * np.eye(terms), weighted.T @ values[where])
    return np.asarray(sum(f * b for f, b in zip(factors, basis, strict=True)))


def _largest_component(mask: np.ndarray) -> np.ndarray:
    labels, n = ndimage.label(mask)
    return mask if n < 2 else labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def _component_at(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The parts of `mask` that touch `seed`."""
    labels, _ = ndimage.label(mask)
    return np.isin(labels, np.setdiff1d(np.unique(labels[seed]), [0]))
