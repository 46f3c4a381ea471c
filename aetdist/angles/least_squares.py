"""Levenberg-Marquardt of images against their prediction: rotations, shifts, brightness and background of a tilt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ._kernels import MARGIN, PARAMETERS, normal_equations
from .model import Model

_DAMPING, _LARGEST_DAMPING = 1e-3, 1e3
_SETTLED = 1e-5  # relative fall of the squared residual that ends a fit
_BLUR = 4.0  # pixels: outlines that are smoother agree for any two objects
_SMALL_ROTATION, _SMALL_SHIFT = 1e-4, 3e-3  # radians and pixels: a step that is smaller ends it too
_ROUGHNESS = 0.01
"""Part of the squared residual that a refused step must have promised, or the fit ends. Projections shift planes by
whole parts of a voxel: a volume fits the pattern of the rotations that it was made with. Measured on films, a turn by
0.001 degree raises the residual by up to 1.5 %: what a step promises that is less cannot be had."""


class Fit(NamedTuple):
    """Rotations and shifts that were found.

    Attributes
    ----------
    matrices : ndarray, shape (tilt, 3, 3), float64
        lab = R @ sample.
    shifts : ndarray, shape (tilt, 2), float64
        Pixels [y, x].
    brightness : ndarray, shape (tilt,), float64
        Of the image over that of the prediction.
    background : ndarray, shape (tilt,), float64
        Constant that the image has beyond the prediction.
    covariance : ndarray, shape (tilt, 5, 5), float64
        Of the rotations about lab x, y, z in radians and the shifts along y, x in pixels.
    correlation : ndarray, shape (tilt, 2), float64
        Of image and prediction, both without what is smooth over some atoms, over the pixels that count, before and
        after.
    r_factor : ndarray, shape (tilt, 2), float64
        Sum |image - prediction| / sum |image| there, before and after.
    settled : ndarray, shape (tilt,), bool
        Whether the fit came to an end within its iterations.
    """

    matrices: np.ndarray
    shifts: np.ndarray
    brightness: np.ndarray
    background: np.ndarray
    covariance: np.ndarray
    correlation: np.ndarray
    r_factor: np.ndarray
    settled: np.ndarray


def fit_tilts(
    model: Model,
    images: np.ndarray,
    masks: np.ndarray,
    matrices: np.ndarray,
    shifts: np.ndarray,
    *,
    iterations: int,
) -> Fit:
    """Rotations and shifts of some tilts by damped Gauss-Newton steps, all tilts in step with each other.

    Parameters
    ----------
    model : Model
    images : ndarray, shape (tilt, y, x), float32
    masks : ndarray, shape (tilt, y, x), bool
        Pixels that count; those within two of the border do not.
    matrices, shifts : ndarray, shape (tilt, 3, 3) and (tilt, 2)
        Where to start.
    iterations : int
        At most so many steps.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        If the volume holds NaN or infinite voxels.

    Notes
    -----
    Minimises sum (I - s P(R, d) - c)^2 over w (R becomes exp(w x) R), d, s and c; a step is taken only if it falls.
    The tilts do not depend on each other: they share the reading of the volume. Residuals are not white: what the
    prediction lacks of an atom is some pixels wide. The covariance is H^-1 (sum_b g_b g_b^T) H^-1, with H the sum of
    J^T J and g_b that of J^T r in blocks of 8 x 8 pixels (Huber's sandwich).
    """
    n = len(images)
    matrices, shifts = np.array(matrices, dtype=np.float64), np.array(shifts, dtype=np.float64)
    inside = _without_border(masks)
    seen, heights, starts = model.predict(matrices, shifts)
    if not np.isfinite(seen).all():
        raise InputError("The volume holds NaN or infinite voxels; give finite numbers.")
    before = [_agreement(images[t], seen[t], inside[t]) for t in range(n)]
    shown = list(seen)
    brightness = np.array([_brightness(images[t], seen[t], inside[t]) for t in range(n)])
    sums = [normal_equations(images[t], masks[t], seen[t], heights[t], starts[t], brightness[t]) for t in range(n)]
    damping, going, settled = np.full(n, _DAMPING), np.ones(n, bool), np.zeros(n, bool)
    for _ in range(iterations):
        tried = np.flatnonzero(going)
        if not tried.size:
            break
        steps = np.array([_step(sums[t][0], sums[t][1], damping[t]) for t in tried])
        turned = Rotation.from_rotvec(steps[:, :3]).as_matrix() @ matrices[tried]
        moved, brighter = shifts[tried] + steps[:, 3:5], brightness[tried] + steps[:, 5]
        seen, heights, starts = model.predict(turned, moved)
        small = (np.abs(steps[:, :3]) < _SMALL_ROTATION).all(axis=1) & (np.abs(steps[:, 3:5]) < _SMALL_SHIFT).all(
            axis=1
        )
        for k, t in enumerate(tried):
            found = normal_equations(images[t], masks[t], seen[k], heights[k], starts[k], brighter[k])
            if found[2] < sums[t][2]:
                settled[t] = small[k] or sums[t][2] - found[2] <= _SETTLED * sums[t][2]
                matrices[t], shifts[t], brightness[t], sums[t] = turned[k], moved[k], brighter[k], found
                shown[t] = seen[k]
                damping[t] /= 10
            else:
                damping[t] *= 10
                promised = steps[k] @ sums[t][1]
                settled[t] = small[k] or damping[t] > _LARGEST_DAMPING or promised < _ROUGHNESS * sums[t][2]
            going[t] = not settled[t]
    after = [_agreement(images[t], shown[t], inside[t]) for t in range(n)]
    covariance = np.stack([_covariance(matrix, scatter) for matrix, _, _, scatter in sums])
    both = np.stack([before, after], axis=2)  # (tilt, measure, before or after)
    background = np.array([_background(images[t], shown[t], inside[t], brightness[t]) for t in range(n)])
    return Fit(matrices, shifts, brightness, background, covariance, both[:, 0], both[:, 1], settled)


def _without_border(masks: np.ndarray) -> np.ndarray:
    inside = masks.copy()
    inside[:, :MARGIN] = inside[:, -MARGIN:] = False
    inside[:, :, :MARGIN] = inside[:, :, -MARGIN:] = False
    return inside


def _step(matrix: np.ndarray, vector: np.ndarray, damping: float) -> np.ndarray:
    """Damped Gauss-Newton step; parameters of which the image says nothing stay."""
    scale = np.sqrt(np.diag(matrix))
    known = scale > 1e-9 * scale.max(initial=1e-300)
    step = np.zeros(PARAMETERS)
    if known.any():
        normal = matrix[np.ix_(known, known)] / np.outer(scale[known], scale[known]) + damping * np.eye(known.sum())
        step[known] = np.linalg.solve(normal, vector[known] / scale[known]) / scale[known]
    return step


def _brightness(image: np.ndarray, seen: np.ndarray, inside: np.ndarray) -> float:
    """Slope of the image over the prediction; a constant background has no part in it."""
    a, b = image[inside].astype(np.float64), seen[inside].astype(np.float64)
    b -= b.mean() if b.size else 0.0
    square = float(b @ b)
    return float(a @ b) / square if square > 0 else 1.0


def _background(image: np.ndarray, seen: np.ndarray, inside: np.ndarray, brightness: float) -> float:
    rest = image[inside] - brightness * seen[inside].astype(np.float64)
    return float(rest.mean()) if rest.size else 0.0


def _agreement(image: np.ndarray, seen: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Correlation of what is sharp, and R-factor; brightness and background that fit best are taken out of R."""
    a, b = image[inside].astype(np.float64), seen[inside].astype(np.float64)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan"), float("nan")
    rest = a - _brightness(image, seen, inside) * b
    r_factor = np.abs(rest - rest.mean()).sum() / np.abs(a).sum()
    weights = ndimage.gaussian_filter(inside.astype(np.float32), _BLUR)[inside]
    a -= ndimage.gaussian_filter(np.where(inside, image, 0), _BLUR)[inside] / weights
    b -= ndimage.gaussian_filter(np.where(inside, seen, 0), _BLUR)[inside] / weights
    return float(np.corrcoef(a, b)[0, 1]), float(r_factor)


def _covariance(matrix: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    inverse = np.linalg.pinv(matrix, hermitian=True)
    return np.asarray((inverse @ scatter @ inverse)[:5, :5])
