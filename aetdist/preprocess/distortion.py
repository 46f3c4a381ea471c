"""Scan distortion: from nanoparticles at several stage angles, and what is left of it from common lines."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import AetdistWarning, InputError
from ..geometry import matrices_from_euler
from .particles import find_particles, match_particles

__all__ = ["ScanDistortion", "calibrate_scan", "residual_distortion", "split_rotation"]

_LEAST_TURN = 5.0  # degrees modulo 180 between some two stage angles
_LEAST_TILTS = 5
_AXIS_SPREAD = 0.02  # of the axis of rotation, as the sine of an angle
_LEVI_CIVITA = np.cross(np.eye(3)[:, None], np.eye(3))


@dataclass(frozen=True)
class ScanDistortion:
    """What is known of the scan's distortion.

    Attributes
    ----------
    matrix : ndarray, shape (2, 2), float64
        D for vectors (y, x): what belongs at r is in the image at D r, both from the centre pixel. Symmetric, of
        determinant 1: a rotation belongs to the tilt axis and an overall scale to the pixel size.
    uncertainty : float
        Standard deviation of the elements of the matrix, from what the fit leaves.
    rotation : float
        Degrees that the image is turned besides, from y towards -x; NaN where it cannot be known.
    residual : float
        Rms misfit: in Angstrom of a distance between particles, or as a part of the profiles' rms.
    """

    matrix: np.ndarray
    uncertainty: float
    rotation: float
    residual: float


def split_rotation(matrix: ArrayLike) -> tuple[np.ndarray, float]:
    """Parts of a distortion: matrix = scale * symmetric @ rotation.

    Parameters
    ----------
    matrix : array_like, shape (2, 2), float
        For vectors (y, x); of positive determinant.

    Returns
    -------
    symmetric : ndarray, shape (2, 2), float64
        Symmetric, positive, of determinant 1: the same for every matrix with the same ratio of gains and the same
        angle between the scan directions.
    rotation : float
        Degrees, from y towards -x.

    Raises
    ------
    InputError
        If the matrix does not have this shape or turns the image over.
    """
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape != (2, 2) or not np.isfinite(m).all() or np.linalg.det(m) <= 0:
        raise InputError(f"The matrix {m.tolist()} came; needed is 2 x 2 for vectors (y, x), of positive determinant.")
    left, gains, right = np.linalg.svd(m / np.sqrt(np.linalg.det(m)))
    turn = left @ right
    return (left * gains) @ left.T, float(np.rad2deg(np.arctan2(turn[0, 1], turn[0, 0])))


def calibrate_scan(images: Sequence[np.ndarray], stage_angles: ArrayLike, pixel_size: float) -> ScanDistortion:
    """Matrix of the scan from images of nanoparticles at several rotations of the stage.

    Parameters
    ----------
    images : sequence of ndarray, shape (y, x), real numbers
        At low magnification: one field of particles, bright on dark, some pixels wide and apart, at each angle.
    stage_angles : array_like, shape (images,), float
        Rotation of the stage about the beam in degrees, in either sense; good to a degree, as they serve
        only to tell which particle is which.
    pixel_size : float
        Nominal edge of a pixel in Angstrom.

    Returns
    -------
    ScanDistortion
        Its rotation is NaN: the direction of the specimen is not known.

    Raises
    ------
    InputError
        If there are fewer than two images or three particles common to them, or the stage angles do not
        differ (an angle and the opposite one look the same).

    Notes
    -----
    A particle at p is seen at q_k = D (R(alpha_k) p + t_k). With the metric G = (D D^T)^-1 every squared distance
    (q_ik - q_jk)^T G (q_ik - q_jk) = |p_i - p_j|^2 is the same at all angles: linear equations in the three
    elements of G and in the distances, solved by least squares with trace G = 2. G holds the ratio of the gains
    and the angle between the scan directions; D = G^(-1/2) makes them equal and perpendicular. A scale and a
    rotation common to all images remain unknown. Positions are two-dimensional Gaussian fits.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods.
    """
    angles = np.asarray(stage_angles, dtype=np.float64)
    if angles.shape != (len(images),) or len(images) < 2 or not np.isfinite(angles).all():
        raise InputError(
            f"{len(images)} images came with stage angles of shape {angles.shape}; needed are two or more images "
            "and the angle of each in degrees."
        )
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"The pixel size came as {pixel_size!r}; needed is a positive number in Angstrom.")
    turns = np.abs(angles[:, None] - angles) % 180.0
    if np.minimum(turns, 180.0 - turns).max() < _LEAST_TURN:
        raise InputError(
            f"The stage angles {angles.tolist()} differ by less than {_LEAST_TURN:g} degrees (modulo 180): they say "
            "nothing about the scan; give images at angles such as 0, 45 and 90."
        )
    found = [find_particles(image) for image in images]
    positions = match_particles(found, angles)
    seen = np.isfinite(positions[..., 0])
    positions = positions[:, seen.sum(axis=0) >= 2]
    if positions.shape[1] < 3:
        raise InputError(
            f"{positions.shape[1]} particles were found in more than one image (in each: "
            f"{', '.join(str(len(p)) for p in found)}); needed are three or more: choose a field with more, well apart."
        )
    return _metric_fit(positions, float(pixel_size))


def _metric_fit(positions: np.ndarray, pixel_size: float) -> ScanDistortion:
    """Distortion from positions (image, particle, [y, x]) in pixels, NaN where a particle is not seen."""
    rows, lengths = [], []
    for i, j in itertools.combinations(range(positions.shape[1]), 2):
        d = positions[:, j] - positions[:, i]
        d = d[np.isfinite(d[:, 0])]
        if len(d) < 2:
            continue
        length = np.sqrt((d**2).sum(axis=1).mean())
        # G = 1 + ((a, b), (b, -a)), so d^T G d = d.d + a (yy - xx) + 2 b yx; over twice the length: a misfit in pixels
        terms = np.stack([d[:, 0] ** 2 - d[:, 1] ** 2, 2 * d[:, 0] * d[:, 1], (d**2).sum(axis=1)], axis=1)
        rows.append((terms - terms.mean(axis=0)) / (2 * length))
        lengths.append(len(d) - 1)
    equations = np.concatenate(rows)
    design, target = equations[:, :2], -equations[:, 2]
    (a, b), *_ = np.linalg.lstsq(design, target, rcond=None)
    misfit = target - design @ [a, b]
    free = max(1, sum(lengths) - 2)
    variance = (misfit**2).sum() / free
    # a particle serves in many pairs: as many equations count as there are positions
    share = max(1.0, len(target) / max(1, 2 * np.isfinite(positions[..., 0]).sum()))
    covariance = variance * share * np.linalg.inv(design.T @ design)
    metric = np.array([[1 + a, b], [b, 1 - a]])
    values, vectors = np.linalg.eigh(metric)
    if values[0] <= 0:
        raise InputError(
            "The distances of the particles fit no scan; check that the stage angles belong to the images."
        )
    matrix, _ = split_rotation((vectors / np.sqrt(values)) @ vectors.T)
    uncertainty = 0.5 * float(np.sqrt(np.diag(covariance).max()))
    return ScanDistortion(matrix, uncertainty, float("nan"), pixel_size * float(np.sqrt(variance)))


def residual_distortion(
    images: ArrayLike, angles: ArrayLike, pixel_size: float, *, calibration: ArrayLike | None = None
) -> ScanDistortion:
    """Computes: the shear that remains in a tilt series, from its common lines and centres.

    Parameters
    ----------
    images : array_like, shape (tilt, y, x), real numbers
        Of one isolated object that lies wholly in every image, its background subtracted; need not be
        aligned. All are held in memory.
    angles : array_like, shape (tilt, 3), float
        Nominal Euler angles in degrees, of rotations about one axis in the plane of the images.
    pixel_size : float
        Edge of a pixel in Angstrom.
    calibration : array_like, shape (2, 2), float, optional
        Matrix that is known already (:func:`calibrate_scan`); the images are not corrected for it. The default
        is none.

    Returns
    -------
    ScanDistortion
        The whole matrix, the calibration included, for the images as they came; ``rotation`` is the direction of
        the true tilt axis from the nominal one; ``residual`` the rms difference of the common lines as a
        part of their own rms.

    Raises
    ------
    InputError
        If there are fewer than five tilts over 30 degrees, the angles have no common axis in the plane of the
        images, or an image is blank or not finite.

    Warns
    -----
    AetdistWarning
        If the totals of the images differ by more than 10 %: the object is not isolated, or its background is there.

    Notes
    -----
    With u = y + b x along the nominal axis and v = x + c y across it for a point seen at (u, v) that belongs at
    (y, x), a series about a single axis determines

    - b, the direction in which the points move as the object turns: the profiles sum_v I_t along u - b v, the common
      lines, are the same in all tilts but for a shift a_t. Their mean squared difference is minimised over b and
      the shifts (Gauss-Newton);
    - c, the direction of the axis itself: the profile of first moments across is X(y) cos theta + Z(y) sin theta for
      an undistorted object, besides a shift of each tilt; what does not turn with the tilt is c y (linear least
      squares).

    (b + c) / 2 is a shear of the scan, (c - b) / 2 a rotation of the axis: common lines alone cannot tell one from
    the other, for any b. Nothing in such a series determines the ratio of the gains along and across the axis: an
    object stretched along the axis gives the same images. That ratio comes from `calibration`, or stays as it is.

    Profiles enter by their Fourier transforms sum I exp(-2 pi i k (u - b v)), which are exact for any b: no image
    is resampled. Frequencies count by the part of their power that the tilts have in common.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods (common lines).
    """
    stack = np.asarray(images, dtype=np.float64)
    known = np.eye(2) if calibration is None else np.asarray(calibration, dtype=np.float64)
    split_rotation(known)  # refuses what is none
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"The pixel size came as {pixel_size!r}; needed is a positive number in Angstrom.")
    if stack.ndim != 3 or np.shape(angles) != (len(stack), 3):
        raise InputError(
            f"Images of shape {stack.shape} came with angles of shape {np.shape(angles)}; needed are (tilt, y, x) and "
            "(tilt, 3)."
        )
    totals = stack.sum(axis=(1, 2))
    if not (np.isfinite(totals).all() and totals.min(initial=np.inf) > 0):
        raise InputError(
            f"The images sum to {totals.min():g} and more; needed is an object brighter than its background, without "
            "NaN, in every image: leave out blank tilts, and set what was not measured to 0."
        )
    basis, theta = _single_axis(np.asarray(angles, dtype=np.float64))
    if totals.std() > 0.1 * totals.mean():
        warnings.warn(
            f"The totals of the images differ by {100 * totals.std() / totals.mean():.0f} %: common lines need an "
            "isolated object without background; the distortion found may be wrong.",
            AetdistWarning,
            stacklevel=2,
        )
    lines = _CommonLines(stack / totals[:, None, None], np.linalg.solve(known, np.eye(2)).T @ basis)
    moved, moved_spread, misfit = lines.fit_motion()
    axis, axis_spread = lines.fit_axis(moved, theta)
    matrix, rotation = split_rotation(known @ basis @ np.array([[1.0, moved], [axis, 1.0]]) @ basis.T)
    return ScanDistortion(matrix, 0.5 * float(np.hypot(moved_spread, axis_spread)), rotation, misfit)


def _single_axis(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (y, x) along and across the nominal axis, as columns, and the turn of each tilt in radians.

    The axis n is what no tilt moves: R_t R_0^T n = n.
    """
    matrices = matrices_from_euler(angles)
    turns = matrices @ matrices[0].T
    _, sizes, vectors = np.linalg.svd((turns - np.eye(3)).reshape(-1, 3))
    n = vectors[-1] * (1.0 if vectors[-1][1] >= 0 else -1.0)
    sines = 0.5 * np.einsum("tij,kji,k->t", turns, _LEVI_CIVITA, n)
    theta = np.arctan2(sines, 0.5 * (np.trace(turns, axis1=1, axis2=2) - 1.0))
    if len(angles) < _LEAST_TILTS or np.ptp(theta) < np.deg2rad(30.0):
        raise InputError(
            f"{len(angles)} tilts over {np.rad2deg(np.ptp(theta)):.0f} degrees came; needed are {_LEAST_TILTS} or more "
            "over 30 degrees or more to tell a distortion from the object."
        )
    if sizes[-1] > _AXIS_SPREAD * np.sqrt(len(angles)) or abs(n[2]) > _AXIS_SPREAD:
        raise InputError(
            "The angles are not those of rotations about one axis in the plane of the images; give the nominal "
            "angles of a series about a single axis."
        )
    y, x = n[1] / np.hypot(n[0], n[1]), n[0] / np.hypot(n[0], n[1])
    return np.array([[y, -x], [x, y]]), theta


class _CommonLines:
    """Transforms of profiles along the axis, k in 1 / pixel, at the frequencies j / n."""

    def __init__(self, images: np.ndarray, along_across: np.ndarray) -> None:
        """Images (tilt, y, x) of total 1; columns l, m: u = l . pixel, v = m . pixel."""
        self.images = images
        self.along, self.across = along_across.T
        self.y, self.x = (np.arange(n) - n // 2 for n in images.shape[1:])
        self.length = max(images.shape[1:])
        middle = np.stack([images.sum(axis=2) @ self.y, images.sum(axis=1) @ self.x], axis=1)
        self.y, self.x = self.y - middle[:, 0].mean(), self.x - middle[:, 1].mean()  # moments stay small
        self.shift = (middle - middle.mean(axis=0)) @ self.along  # so that the coarsest lines begin within a period

    def transforms(self, k: np.ndarray, b: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of I, I v and I u: sums over pixels times exp(-2 pi i k (u - b v - shift)), each (tilt, k)."""
        direction = self.along - b * self.across
        rows = np.exp(-2j * np.pi * np.outer(k, self.y * direction[0]))
        columns = np.exp(-2j * np.pi * np.outer(self.x * direction[1], k))
        both = np.concatenate([columns, self.x[:, None] * columns], axis=1)
        plain, by_y, by_x = (np.empty((len(self.images), len(k)), complex) for _ in range(3))
        for t, image in enumerate(self.images):
            summed = (image @ both.real + 1j * (image @ both.imag)).T
            first, second = summed[: len(k)], summed[len(k) :]
            plain[t] = (rows * first).sum(axis=1)
            by_y[t] = (rows * (first * self.y)).sum(axis=1)
            by_x[t] = (rows * second).sum(axis=1)
        phase = np.exp(2j * np.pi * np.outer(self.shift, k))
        u, v = (a[0] * by_y + a[1] * by_x for a in (self.along, self.across))
        return plain * phase, v * phase, u * phase

    def fit_motion(self) -> tuple[float, float, float]:
        """Direction b of motion, its standard deviation, and the lines' relative rms difference.

        From coarse to fine, so that no line is fitted to a wrong period; the shifts of the tilts are kept.
        """
        b, n = 0.0, len(self.images)
        for finest in (8, 16, 32, 64, 128):
            if finest > 8 and finest > self.length / 4:
                break
            k = np.arange(1, finest + 1) / self.length
            for _ in range(6):
                plain, v, _ = self.transforms(k, b)
                left = plain - plain.mean(axis=0)
                weight = _common_part(plain)
                steps = np.zeros((n, len(k), 1 + n), complex)
                steps[:, :, 0] = 2j * np.pi * k * (v - v.mean(axis=0))
                for t in range(n):
                    change = 2j * np.pi * k * plain[t]
                    steps[:, :, 1 + t] -= change / n
                    steps[t, :, 1 + t] += change
                step, spread = _least_squares(steps * weight[:, None], -left * weight)
                b += step[0]
                self.shift += step[1:]
                if abs(step[0]) < 1e-7:
                    break
        plain, _, _ = self.transforms(k, b)
        weight = _common_part(plain)
        left, mean = (plain - plain.mean(axis=0)) * weight, plain.mean(axis=0) * weight
        misfit = float(np.sqrt((np.abs(left) ** 2).sum() / (n * (np.abs(mean) ** 2).sum())))
        self.k = k
        return float(b), float(spread[0]), misfit

    def fit_axis(self, b: float, theta: np.ndarray) -> tuple[float, float]:
        """Direction c of the axis and its standard deviation, for a direction b of motion."""
        plain, v, u = self.transforms(self.k, b)
        weight = _common_part(plain)
        mean = plain.mean(axis=0)
        lever = (u - b * v - self.shift[:, None] * plain).mean(axis=0)
        turning = np.stack([np.cos(theta), np.sin(theta)], axis=1)
        rest = np.eye(len(theta)) - turning @ np.linalg.pinv(turning)  # takes out what turns with the tilt
        terms = np.concatenate([rest.sum(axis=1)[:, None, None] * lever[None, :, None],
                                rest[:, None, :] * mean[None, :, None]], axis=2)  # fmt: skip
        found, spread = _least_squares(terms * weight[:, None], (rest @ v) * weight)
        return float(found[0] / (1.0 + b * found[0])), float(spread[0])


def _common_part(transforms: np.ndarray) -> np.ndarray:
    """Weight of each frequency: part of the power that the tilts have in common, (k,)."""
    signal = np.abs(transforms.mean(axis=0)) ** 2
    scatter = (np.abs(transforms - transforms.mean(axis=0)) ** 2).sum(axis=0) / (len(transforms) - 1)
    signal = np.maximum(signal - scatter / len(transforms), 0.0)
    return signal / np.maximum(signal + scatter, np.finfo(float).tiny)


def _least_squares(terms: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real unknowns of complex equations terms @ unknowns = target, shortest where not unique, and their deviations."""
    n = terms.shape[-1]
    design = terms.reshape(-1, n)
    design = np.concatenate([design.real, design.imag])
    values = np.concatenate([target.real.ravel(), target.imag.ravel()])
    size = np.maximum(np.sqrt((design**2).sum(axis=0)), np.finfo(float).tiny)
    design = design / size
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
    found = inverse @ (design.T @ values)
    variance = ((values - design @ found) ** 2).sum() / max(1, len(values) - n)
    return found / size, np.sqrt(variance * np.maximum(np.diag(inverse), 0.0)) / size
