"""What measured images have that a model does not explain."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import fft, ndimage, optimize

from ..errors import InputError
from ..metrics import r_factor

_BINS = 24  # of intensity
_LEAST_PIXELS = 50  # of a bin that counts
_LAGS = 8  # pixels over which noise may be correlated
_WHITE = (
    3.0  # pixels that share a residual, at most, as in refinement: where more do, it is no noise of counted electrons
)


class Noise(NamedTuple):
    """Noise of a pixel: variance gain * intensity + floor.

    Attributes
    ----------
    gain : float
        Intensity of one counted electron; 0: none are counted.
    floor : float
        Variance where the image is dark.
    white : bool
        Pixels are independent; otherwise the noise has the power spectrum of the residual, tilt by tilt.
    area : float
        Pixels that share one independent residual.
    """

    gain: float
    floor: float
    white: bool = True
    area: float = 1.0


def measure_noise(measured: Any, clean: Any, mask: Any, background: float) -> tuple[Noise, np.ndarray]:
    """Computes: the noise of measured images, one tilt at a time, and how far they are from the simulated ones.

    Parameters
    ----------
    measured, clean : array_like, shape (tilt, y, x), float
        Images, and those of the model.
    mask : array_like, shape (tilt, y, x), bool
        True where a pixel was measured.
    background : float
        Pixels; what of the difference is smoother than that is no noise. 0 for none.

    Returns
    -------
    noise : Noise
    r_factor : ndarray, shape (tilt,), float64
        R (eq. 4) of the measured against the simulated images, background included.

    Notes
    -----
    Squared differences are averaged over pixels of similar intensity of the model; a line of a slope and an
    intercept of 0 or more is fitted to the averages, each counting as much as it is certain.
    """
    top = max(float(np.asarray(image).max()) for image in clean)
    bins, lags, ratios = np.zeros((_BINS, 3)), np.zeros((2, 2 * _LAGS - 1, _LAGS)), []
    for image, model, known in zip(measured, clean, mask, strict=True):
        image, model, known = np.asarray(image, np.float64), np.asarray(model, np.float64), np.asarray(known, bool)
        ratios.append(r_factor(model[None], image[None], known[None])[0])
        residual = np.where(known, image - model, 0.0)
        if background:
            around = ndimage.gaussian_filter(known.astype(float), background, mode="constant")
            smooth = ndimage.gaussian_filter(residual, background, mode="constant")
            residual -= known * smooth / np.maximum(around, 1e-3)
        number = np.clip(model[known] * (_BINS / max(top, 1e-300)), 0, _BINS - 1).astype(int)
        for column, values in enumerate((None, model[known], residual[known] ** 2)):
            bins[:, column] += np.bincount(number, values, _BINS)
        lags += lag_products(residual, known)
    gain, floor = _line(bins)
    area = _area(lags)
    return Noise(gain, floor, area < _WHITE, area), np.array(ratios)


def counted_noise(dose: float, efficiency: float, read_noise: float, reference: float, pixel_size: float) -> Noise:
    """Noise of counted electrons, see :func:`~aetdist.simulate.simulate_tilt_series`.

    Parameters
    ----------
    dose : float
        Electrons per square Angstrom and tilt.
    efficiency : float
        Part of them that is counted where the sample is of average intensity, `reference`.
    read_noise : float
        Counted electrons.
    reference, pixel_size : float
        Intensity, and Angstrom.

    Raises
    ------
    InputError
        If a number cannot be.
    """
    if not (np.isfinite(dose) and dose > 0):
        raise InputError(f"dose came as {dose!r}; needed is electrons per square Angstrom and tilt, above 0.")
    if not 0 < efficiency <= 1:
        raise InputError(f"efficiency came as {efficiency!r}; needed is the counted part, above 0 up to 1.")
    if not (np.isfinite(read_noise) and read_noise >= 0):
        raise InputError(f"read_noise came as {read_noise!r}; needed is 0 or more electrons per pixel.")
    gain = reference / (dose * pixel_size**2 * efficiency)
    return Noise(gain, (gain * read_noise) ** 2)


def noise_like(residual: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An image (y, x) with the power spectrum of a residual, and random phases.

    Parameters
    ----------
    residual : ndarray, shape (y, x), float
        What is measured less what is explained.
    mask : ndarray, shape (y, x), bool
        True where it was measured.
    random : numpy.random.Generator
    """
    part = mask.mean()
    if not part > 0:
        return np.zeros(residual.shape)
    amplitude = np.abs(np.fft.rfft2(np.where(mask, residual, 0.0))) / np.sqrt(part)
    phases = np.fft.rfft2(random.normal(size=residual.shape))
    return np.asarray(np.fft.irfft2(amplitude * phases / np.abs(phases), residual.shape))


def lag_products(residual: np.ndarray, known: np.ndarray) -> np.ndarray:
    """By lag y = -7 ... 7, x = 0 ... 7: summed products of residuals, and numbers of pairs, (2, 15, 8)."""
    shape = tuple(fft.next_fast_len(n + _LAGS, real=True) for n in residual.shape)
    sums = np.empty((2, 2 * _LAGS - 1, _LAGS))
    for k, values in enumerate((residual, known.astype(float))):
        power = fft.irfft2(np.abs(fft.rfft2(values, shape)) ** 2, shape)
        sums[k] = np.concatenate([power[1 - _LAGS :, :_LAGS], power[:_LAGS, :_LAGS]])
    return sums


def _line(bins: np.ndarray) -> tuple[float, float]:
    """Variance = gain * intensity + floor, from pixels, summed intensity and summed square of every bin."""
    count, intensity, square = bins[bins[:, 0] >= _LEAST_PIXELS].T
    if not len(count):
        return 0.0, 0.0
    intensity, square = intensity / count, square / count
    gain, floor = 0.0, float(np.average(square, weights=count))
    for _ in range(3):  # weights from the variances of the averages, 2 v^2 / n
        spread = np.maximum(gain * intensity + floor, 1e-3 * square.max()) / np.sqrt(count)
        spread = np.maximum(spread, 1e-300)
        design = np.stack([np.maximum(intensity, 0.0), np.ones_like(intensity)], axis=1) / spread[:, None]
        gain, floor = optimize.nnls(design, square / spread)[0]
    return float(gain), float(floor)


def _area(sums: np.ndarray) -> float:
    """Sum of the autocorrelation over lags: pixels that share one residual, 1 for white noise."""
    mean = np.divide(sums[0], sums[1], out=np.zeros_like(sums[0]), where=sums[1] > 0.5)
    zero = mean[_LAGS - 1, 0]
    return float(max(1.0, (mean[:, 0].sum() + 2.0 * mean[:, 1:].sum()) / zero)) if zero > 0 else 1.0
