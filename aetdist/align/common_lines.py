"""Common lines: profiles along the tilt axis, which every tilt shares but for a shift."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from ._kernels import add_profiles

_UPSAMPLING = 8
_BAND = 1.0
"""Standard deviation in pixels of the Gaussian over profiles before they are compared."""


class LineAlignment(NamedTuple):
    """Profiles brought onto one another.

    Attributes
    ----------
    shift : ndarray, shape (tilt,), float64
        Pixels: profile_t(u + shift_t) fits the mean profile.
    uncertainty : ndarray, shape (tilt,), float64
        Standard deviation of the shift in pixels, from what the fit leaves.
    mean : ndarray, shape (bins,), float64
        Mean profile, of sum 1.
    residual : ndarray, shape (tilt,), float64
        Rms difference from the mean profile over the rms of the mean profile.
    """

    shift: np.ndarray
    uncertainty: np.ndarray
    mean: np.ndarray
    residual: np.ndarray


def profile_bins(shape: tuple[int, int], start: tuple[float, float], largest_angle: float) -> tuple[float, int]:
    """First coordinate and number of the bins that hold every pixel at every angle of the axis.

    Parameters
    ----------
    shape : tuple of int
        Pixels (y, x).
    start : tuple of float
        Coordinates (y, x) of pixel (0, 0) in pixels from the origin of the rotation.
    largest_angle : float
        Degrees from image y to the axis.
    """
    corners_y, corners_x = ((first, first + n - 1) for first, n in zip(start, shape, strict=True))
    tilt = np.sin(np.deg2rad(abs(largest_angle)))
    reach = max(map(abs, corners_x)) * tilt
    low, high = min(0.0, corners_y[0]) - reach, max(0.0, corners_y[1]) + reach
    first = np.floor(low) - 3.0
    return float(first), int(np.ceil(high) - first) + 4


def line_profiles(
    image: np.ndarray, where: np.ndarray, start: tuple[float, float], angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Profiles of an image along axes at several angles, and their first moments across.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    where : ndarray, shape (y, x), bool
        Pixels that count.
    start : tuple of float
        Coordinates (y, x) of pixel (0, 0) in pixels from the origin of the rotation.
    angles : ndarray, shape (angles,), float
        From image y to the axis, positive towards -x, in degrees.

    Returns
    -------
    profiles, moments : ndarray, shape (angles, bins), float64
        P(u) = sum of I over v, and sum of I v, with u = y cos(a) - x sin(a) along the axis and
        v = y sin(a) + x cos(a) across; bins as :func:`profile_bins` says for the largest angle.
    """
    first, n = profile_bins((image.shape[0], image.shape[1]), start, float(np.abs(angles).max()))
    profiles, moments = np.zeros((len(angles), n)), np.zeros((len(angles), n))
    turns = np.deg2rad(np.asarray(angles, dtype=np.float64))
    add_profiles(image, where, start[0], start[1], np.cos(turns), np.sin(turns), first, profiles, moments)
    return profiles, moments


def align_profiles(
    profiles: np.ndarray, guess: np.ndarray, *, counted: np.ndarray | None = None, iterations: int = 4
) -> LineAlignment:
    """Shift profiles onto their mean, again and again.

    Parameters
    ----------
    profiles : ndarray, shape (tilt, bins)
        Zero outside the object.
    guess : ndarray, shape (tilt,), float
        First shifts in pixels, such as those of the centres of mass.
    counted : ndarray, shape (tilt,), bool, optional
        Which profiles make the mean; the default is all.
    iterations : int
        How often the mean is made anew.

    Returns
    -------
    LineAlignment

    Notes
    -----
    Projections about one axis share the profile along it: P_t(u + d_t) = P(u) for every tilt. With P the mean
    of the shifted profiles (each of sum 1), d_t is where the normalised cross-correlation of P_t
    and P is largest, which is the least-squares shift; found to 1/8 pixel by zero-padding the
    spectrum and between these by a parabola. The common constant is such that the mean of the shifts
    stays that of `guess`.
    """
    profiles = np.asarray(profiles, dtype=np.float64)
    counted = np.ones(len(profiles), dtype=bool) if counted is None else counted
    sums = profiles.sum(axis=1, keepdims=True)
    normal = ndimage.gaussian_filter1d(profiles / np.where(sums == 0, 1.0, sums), _BAND, axis=1, mode="constant")
    n = fft.next_fast_len(2 * normal.shape[1], real=True)
    spectra = fft.rfft(normal, n, axis=1)
    frequency = np.arange(spectra.shape[1]) / n
    shift = np.asarray(guess, dtype=np.float64).copy()
    centre = shift[counted].mean()
    mean = np.zeros(spectra.shape[1], dtype=complex)
    for _ in range(iterations):
        moved = spectra * np.exp(2j * np.pi * frequency * shift[:, None])
        mean = moved[counted].mean(axis=0)
        shift += _peaks(moved, mean, n)
        shift += centre - shift[counted].mean()
    moved = spectra * np.exp(2j * np.pi * frequency * shift[:, None])
    mean = moved[counted].mean(axis=0)
    lines = fft.irfft(moved, n, axis=1)
    line = fft.irfft(mean, n)
    slope = fft.irfft(2j * np.pi * frequency * mean, n)
    square = ((lines - line) ** 2).sum(axis=1)
    # The Gaussian and the B-spline of the bins share noise among neighbours: so many bins count as one.
    shared = 2.0 * np.sqrt(np.pi * (_BAND**2 + 1.0 / 3.0))
    length = max(float((line > 0.05 * line.max()).sum()), 1.0)
    uncertainty = np.sqrt(shared * square / length / max(float((slope**2).sum()), 1e-300))
    residual = np.sqrt(square / max(float((line**2).sum()), 1e-300))
    return LineAlignment(shift, uncertainty, line[: normal.shape[1]], residual)


def _peaks(spectra: np.ndarray, reference: np.ndarray, n: int) -> np.ndarray:
    """Shift of each line at which its correlation with the reference is largest, in pixels."""
    product = spectra * np.conj(reference)
    fine = fft.irfft(product, n * _UPSAMPLING, axis=1)
    peak = np.argmax(fine, axis=1)
    rows = np.arange(len(fine))
    left, middle, right = (fine[rows, (peak + k) % fine.shape[1]] for k in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    part = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), 0.0)
    whole = np.where(peak > fine.shape[1] // 2, peak - fine.shape[1], peak)
    return (whole + part) / _UPSAMPLING
