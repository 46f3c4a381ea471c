"""Nanoparticles at low magnification: where they are, and which is which after the stage has turned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, optimize
from scipy.spatial import cKDTree

from ..errors import InputError
from .object_mask import otsu_threshold

__all__ = ["find_particles", "match_particles"]

_SMOOTHING = 1.0  # pixels, before a threshold parts the particles from what is around them
_SMALLEST = 5  # pixels of a particle above the threshold
_REACH = 0.25  # of the median distance to the next particle: so near is the same particle


def find_particles(image: np.ndarray) -> np.ndarray:
    """Positions of the bright particles that lie wholly in an image, by two-dimensional Gaussian fits.

    Parameters
    ----------
    image : ndarray, shape (ny, nx), real numbers
        Bright particles on a dark ground.

    Returns
    -------
    ndarray, shape (particles, 2), float64
        Pixels (y, x) from the centre pixel n // 2.

    Raises
    ------
    InputError
        If the image is not two-dimensional, blank, or has pixels that are not finite.

    Notes
    -----
    Otsu's threshold of the smoothed image gives the particles; around each, B + A exp(-|r - r0|^2 / (2 s^2)) is fitted
    by least squares. Particles at the border or more than twice as large in area as the median are left out: they are
    cut off, or several.
    """
    image = np.asarray(image, dtype=np.float64)
    if image.ndim != 2 or not np.isfinite(image).all() or np.ptp(image) == 0:
        raise InputError(
            f"An image of shape {image.shape} with {int((~np.isfinite(image)).sum())} pixels that are not finite came"
            f"{', blank' if image.size and np.ptp(image) == 0 else ''}; needed is one image (y, x) of particles."
        )
    smooth = ndimage.gaussian_filter(image, _SMOOTHING)
    labels, _ = ndimage.label(smooth > otsu_threshold(smooth.ravel()))
    boxes = ndimage.find_objects(labels)
    areas = np.bincount(labels.ravel(), minlength=len(boxes) + 1)[1:]
    whole = np.array(
        [all(0 < s.start and s.stop < n for s, n in zip(b, image.shape, strict=True)) for b in boxes], bool
    )
    wanted = whole & (areas >= _SMALLEST)
    if wanted.any():
        wanted &= areas <= 2 * np.median(areas[wanted])
    centre = np.array(image.shape) // 2
    found = []
    for label in np.flatnonzero(wanted) + 1:
        middle = np.array(ndimage.center_of_mass(np.maximum(smooth - smooth.min(), 0), labels, label))
        radius = float(np.sqrt(areas[label - 1] / np.pi))
        position = _gaussian_fit(image, labels, int(label), middle, radius)
        if position is not None:
            found.append(position - centre)
    return np.array(found).reshape(-1, 2)


def _gaussian_fit(
    image: np.ndarray, labels: np.ndarray, label: int, middle: np.ndarray, radius: float
) -> np.ndarray | None:
    """Centre of a round Gaussian on a level ground, in pixels; None where the fit runs away."""
    reach = int(np.ceil(2.5 * radius)) + 1
    low = np.maximum(np.floor(middle).astype(int) - reach, 0)
    high = np.minimum(np.floor(middle).astype(int) + reach + 1, image.shape)
    part = (slice(low[0], high[0]), slice(low[1], high[1]))
    y, x = np.mgrid[part]
    near = np.hypot(y - middle[0], x - middle[1]) <= reach
    use = near & np.isin(labels[part], (0, label))  # not the neighbours
    y, x, values = y[use] - middle[0], x[use] - middle[1], image[part][use]
    ground = float(np.percentile(values, 20))
    start = np.array([0.0, 0.0, max(radius / 1.2, 0.5), image[tuple(np.rint(middle).astype(int))] - ground, ground])

    def misfit(p: np.ndarray) -> np.ndarray:
        return p[4] + p[3] * np.exp(-((y - p[0]) ** 2 + (x - p[1]) ** 2) / (2 * p[2] ** 2)) - values

    fit = optimize.least_squares(misfit, start, x_scale=[1.0, 1.0, 1.0, max(start[3], 1e-12), max(start[3], 1e-12)])
    if not fit.success or np.hypot(*fit.x[:2]) > radius or fit.x[3] <= 0:
        return None
    return middle + fit.x[:2]


def match_particles(found: Sequence[np.ndarray], stage_angles: np.ndarray) -> np.ndarray:
    """Positions of the particles of the first image in all images.

    Parameters
    ----------
    found : sequence of ndarray, shape (particles, 2), float64
        Of each image, pixels (y, x).
    stage_angles : ndarray, shape (images,), float64
        Degrees, good to about one, in either sense.

    Returns
    -------
    ndarray, shape (images, particles, 2), float64
        Pixels (y, x); NaN where a particle of the first image is not seen.

    Notes
    -----
    The first image's positions are turned by the angle of each other image. Of all shifts that bring one particle onto
    one of the other image, the one that brings the most onto others is taken; then an affine map is fitted to the
    pairs, which finds more pairs, until nothing changes. The sense of the rotation that matches more is taken.
    """
    first = found[0]
    positions = np.full((2, len(found), len(first), 2), np.nan)
    positions[:, 0] = first
    if len(first) < 3:
        return positions[0]
    next_one = cKDTree(first).query(first, k=2)[0][:, 1]
    reach = _REACH * float(np.median(next_one))
    for sense, (k, other) in ((s, o) for s in (0, 1) for o in enumerate(found[1:], 1)):
        if len(other) < 3:
            continue
        turn = np.deg2rad(stage_angles[k] - stage_angles[0]) * (1 - 2 * sense)
        turned = first @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        pairs = _matched(turned, other, reach)
        positions[sense, k, pairs[:, 0]] = other[pairs[:, 1]]
    return positions[int(np.argmax(np.isfinite(positions[..., 0]).sum(axis=(1, 2))))]


def _matched(points: np.ndarray, other: np.ndarray, reach: float) -> np.ndarray:
    """Pairs (index into points, index into other) of the same particle, shape (pairs, 2)."""
    tree = cKDTree(other)
    shifts = (other[:, None] - points).reshape(-1, 2)
    votes = [int((tree.query(points + shift, distance_upper_bound=2 * reach)[0] < np.inf).sum()) for shift in shifts]
    moved = points + shifts[int(np.argmax(votes))]
    pairs = _mutual(moved, other, tree, 2 * reach)
    for _ in range(10):
        if len(pairs) < 4:
            break
        known = np.column_stack([points[pairs[:, 0]], np.ones(len(pairs))])
        affine, *_ = np.linalg.lstsq(known, other[pairs[:, 1]], rcond=None)
        more = _mutual(np.column_stack([points, np.ones(len(points))]) @ affine, other, tree, reach)
        if np.array_equal(more, pairs):
            break
        pairs = more
    return pairs


def _mutual(points: np.ndarray, other: np.ndarray, tree: cKDTree, reach: float) -> np.ndarray:
    """Pairs that are each other's nearest, within reach."""
    distance, there = tree.query(points, distance_upper_bound=reach)
    near = np.flatnonzero(distance < np.inf)
    back = cKDTree(points).query(other[there[near]])[1]
    near = near[back == near]
    return np.column_stack([near, there[near]])
