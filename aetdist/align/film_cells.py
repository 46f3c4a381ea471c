"""A film's cells: windows that follow a patch of the film through the tilts, and their spectra."""

from __future__ import annotations

from typing import NamedTuple

import dask.array as da
import numpy as np
from scipy import fft, ndimage

from ..images import resample
from .passes import over_tilts

_LARGEST = 0.22
"""Cycles per pixel up to which spectra are compared: atoms have little beyond, at the usual 0.3 to 0.4 Angstrom."""
_NYQUIST = 0.45  # cycles per pixel of the image that a stretched wave may have
_SURE = 0.95  # part of the power that is signal, at most: the model of the film is no better
_COVERED = 0.5  # part of a window that must be measured
_WIDEST = 3.0  # times its own width that a field sees of the film, at most


class Cells(NamedTuple):
    """Windows on the film, in pixels.

    Attributes
    ----------
    edge : int
    along, across : ndarray, shape (cell,), float64
        Centres in film coordinates: along the axis, and across it as a film at tilt 0 shows it.
    height : ndarray, shape (cell,), float64
        Height of the film there above its plane.
    """

    edge: int
    along: np.ndarray
    across: np.ndarray
    height: np.ndarray


class Spectra(NamedTuple):
    """Spectra of every cell in every tilt.

    Attributes
    ----------
    values : ndarray, shape (cell, ky, q, tilt), complex128
        Of power about 1; 0 where a tilt does not show the cell.
    signal : ndarray, shape (ky, q, tilt), float64
        Root of the part of the power that is signal.
    seen : ndarray, shape (cell, tilt), bool
    """

    values: np.ndarray
    signal: np.ndarray
    seen: np.ndarray


def plan_cells(shape: tuple[int, int], origin: tuple[float, float], lengths: np.ndarray) -> Cells:
    """Windows of half the field's shorter edge, half overlapping, over all that the tilts show of the film.

    Parameters
    ----------
    shape : tuple of int
        Pixels (y, x) of the field.
    origin : tuple of float
        Film coordinates (along, across) of the field's centre.
    lengths : ndarray, shape (tilt,), float
        Length across the axis of the film's unit in every tilt.
    """
    edge = int(np.clip(min(shape) // 4 * 2, 48, 128))
    n = max(1, int(np.ceil(2 * (shape[0] - edge) / edge - 1e-9)) + 1)
    along = np.linspace(-(shape[0] - edge) / 2, (shape[0] - edge) / 2, n) if n > 1 else np.zeros(1)
    reach = shape[1] / 2 / max(float(lengths.min()), 1.0 / _WIDEST) - 0.45 * edge
    steps = max(0, int(reach / (edge // 2)))
    across = np.arange(-steps, steps + 1) * (edge // 2)
    u, x = (a.ravel() for a in np.meshgrid(along, across, indexing="ij"))
    return Cells(edge, u + origin[0], x + origin[1], np.zeros(u.size))


def window(edge: int) -> np.ndarray:
    """The window of a cell, shape (edge, edge): half a sine along either side."""
    side = np.sin(np.pi * (np.arange(edge) + 0.5) / edge)
    return np.outer(side, side)


def frequencies(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Cycles per pixel along the axis, shape (ky,), and across it, shape (q,), from 0 on."""
    both = fft.fftfreq(edge)
    return both[np.abs(both) <= _LARGEST], both[(both >= 0) & (both <= _LARGEST)]


def cell_spectra(
    images: da.Array,
    mask: da.Array,
    cells: Cells,
    *,
    shift: np.ndarray,
    stretch: np.ndarray,
    lean: np.ndarray,
    axis: float,
    centre: tuple[float, float],
) -> Spectra:
    """Spectra of all cells, where the film is thought to lie; one Dask task for each tilt.

    Parameters
    ----------
    images, mask : dask.array.Array, shape (tilt, y, x)
    cells : Cells
    shift : ndarray, shape (tilt, 2)
        Shift (y, x) of every tilt in pixels.
    stretch, lean : ndarray, shape (tilt, 2, 2) and (tilt, 2)
        What is at p = (along, across) on the film and h above its plane is seen at stretch (p + lean h).
    axis : float
        Degrees from image y to the direction along, positive towards -x.
    centre : tuple of float
        Coordinates (y, x) of pixel n // 2 in pixels from the projection of the rotation's origin.

    Notes
    -----
    The local mean is taken away and the image is stretched onto the film once; windows lie on whole pixels,
    and what is left goes into the phases. Power and noise are those of the whole image at the same frequency, the
    noise being what is beyond 1/2 cycle per pixel, as in :func:`~aetdist.images.register`.
    """
    ky, q = frequencies(cells.edge)
    n_cells, n_values = len(cells.along), len(ky) * len(q)
    numbers = np.column_stack([shift, stretch.reshape(-1, 4), lean])
    columns = 2 * n_cells * n_values + n_values
    rows = np.asarray(
        over_tilts(_spectra_row, images, mask, numbers, columns, cells=cells, axis=axis, centre=centre).compute()
    )
    values, signal = np.split(rows, [2 * n_cells * n_values], axis=1)
    shape = (len(rows), n_cells, len(ky), len(q))
    values = np.moveaxis(np.ascontiguousarray(values).view(np.complex128).reshape(shape), 0, -1)
    return Spectra(
        np.ascontiguousarray(values),
        np.moveaxis(signal.reshape(len(rows), len(ky), len(q)), 0, -1),
        (values != 0).any(axis=(1, 2)),
    )


def _spectra_row(
    image: np.ndarray, numbers: np.ndarray, *, cells: Cells, axis: float, centre: tuple[float, float]
) -> np.ndarray:
    """Spectra of one tilt's cells, then the root of the signal's part."""
    shift, stretch, lean = numbers[:2], numbers[2:6].reshape(2, 2), numbers[6:]
    edge, turn = cells.edge, np.deg2rad(axis)
    directions = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # (y, x) of along, across
    ky, q = frequencies(edge)
    inside = np.abs(fft.fftfreq(edge)) <= _LARGEST
    kept = np.ix_(inside, inside & (fft.fftfreq(edge) >= 0))
    flat = _without_mean(image, edge / 5)
    power, noise = _radial_power(flat, edge)
    waves = np.linalg.inv(stretch).T  # what a wave on the film is in the image
    radius = np.hypot(*(row[0] * ky[:, None] + row[1] * q for row in waves))
    level = np.maximum(np.interp(radius, (np.arange(len(power)) + 0.5) / edge, power), 1e-300)
    signal = np.where(radius > _NYQUIST, 0.0, np.sqrt(np.clip(1.0 - noise / level, 0.0, _SURE)))
    places = np.column_stack([cells.along, cells.across])
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    half = (np.ptp(places, axis=0) / 2 + edge).astype(int)
    to_image = directions @ stretch
    film, measured = resample(
        flat, to_image, to_image @ middle + shift - np.array(centre), out_shape=(2 * half[0] + 1, 2 * half[1] + 1)
    )
    weight = ndimage.gaussian_filter(ndimage.binary_erosion(measured, iterations=3).astype(np.float64), 1.5)
    taper = window(edge)
    values = np.zeros((len(places), len(ky), len(q)), np.complex128)
    for value, place in zip(values, places + np.outer(cells.height, lean), strict=True):
        corner = place - middle + half - edge // 2
        first = np.rint(corner).astype(int)
        if (first < 0).any() or (first + edge > film.shape).any():
            continue
        patch = tuple(slice(a, a + edge) for a in first)
        w = taper * weight[patch]
        square = float((w**2).sum())
        if square < _COVERED * float((taper**2).sum()):
            continue
        rest = np.exp(2j * np.pi * (ky[:, None] * (corner - first)[0] + q * (corner - first)[1]))
        area = abs(float(np.linalg.det(stretch)))
        value[:] = fft.fft2(w * film[patch])[kept] * rest / np.sqrt(square * level / area)
    return np.concatenate([values.reshape(-1).view(np.float64), signal.reshape(-1)])


def _without_mean(image: np.ndarray, sigma: float) -> np.ndarray:
    """The image without its Gaussian local mean, NaN where unmeasured."""
    measured = np.isfinite(image)
    both = (
        ndimage.gaussian_filter(a, sigma, mode="constant") for a in (np.where(measured, image, 0.0), measured * 1.0)
    )
    total, share = both
    return np.where(measured, image - total / np.maximum(share, 1e-6), np.nan)


def _radial_power(image: np.ndarray, edge: int) -> tuple[np.ndarray, float]:
    """Power of an image in rings as wide as a cell resolves, and that beyond 1/2 cycle per pixel."""
    measured = np.isfinite(image)
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in image.shape)) * measured
    power = np.abs(fft.fft2(taper * np.where(measured, image, 0.0))) ** 2 / max(float((taper**2).sum()), 1e-300)
    radius = np.hypot(*np.meshgrid(*(fft.fftfreq(n) for n in image.shape), indexing="ij"))
    ring = (radius * edge).astype(int)
    rings = np.bincount(ring.ravel(), power.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    return ndimage.gaussian_filter1d(rings, 0.7, mode="nearest"), float(power[radius > 0.5].mean())
