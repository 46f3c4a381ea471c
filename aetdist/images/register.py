"""Where one image lies on another: normalised cross-correlation, to a small part of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from ..errors import InputError
from .resample import resample

_OVERLAP = 0.3  # of the smaller mask: with less in common a correlation says little
_TAPER = 1 / 8  # of the shorter side: over so much the images are faded out before their phases are compared


@dataclass(frozen=True)
class Registration:
    """How an image lies on a reference: image(r + shift) ~ reference(r).

    Attributes
    ----------
    shift : ndarray, shape (2,), float64
        Pixels (y, x).
    correlation : float
        Pearson's coefficient of the two images without their noise, at that shift, over what both show.
    """

    shift: np.ndarray
    correlation: float


def register(
    image: np.ndarray,
    reference: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    maximum_shift: float | None = None,
    precision: float = 1e-3,
) -> Registration:
    """Shift between two images by normalised cross-correlation.

    Parameters
    ----------
    image, reference : ndarray, shape (ny, nx), real numbers
        NaN where nothing was measured.
    mask : ndarray, shape (ny, nx), bool, optional
        True where pixels of both count. What should be found must lie well inside it: near its border
        the images are faded out.
    maximum_shift : float, optional
        Largest shift looked for along y and x, in pixels; the default is half the shorter side. Where the
        object repeats itself, keep it below half the period.
    precision : float
        Pixels to which the correlation's maximum is found.

    Returns
    -------
    Registration
        Shift in pixels (y, x), and the correlation there.

    Raises
    ------
    InputError
        If the images differ in size, have one value everywhere or nothing in common, or an option cannot be.

    Notes
    -----
    1. Both images lose their noise: H(k) = max(0, 1 - N / P(k)) with P(k) their radially averaged power
       and N its level beyond the highest frequency of the rows, 1/2 per pixel, where counted electrons are
       all there is. The scale of the low-pass comes from the images, and nothing is filtered where there
       is no noise.
    2. The whole-pixel shift is where Pearson's coefficient over the measured pixels that overlap, for all
       shifts at once by Fourier transforms, is largest.
    3. Around it the cross-correlation c(s) = Re sum F_reference* F_image exp(2 pi i k s) of the overlap,
       faded out at its border, is a smooth function: Newton's method finds the maximum, with no grid.

    References
    ----------
    J. P. Lewis, Vision Interface, 120-123 (1995); D. Padfield, IEEE Trans. Image Process. 21, 2706 (2012);
    M. Guizar-Sicairos, S. T. Thurman & J. R. Fienup, Opt. Lett. 33, 156 (2008).
    """
    image, reference = np.asarray(image, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if image.ndim != 2 or image.shape != reference.shape:
        raise InputError(
            f"An image of shape {image.shape} came for a reference of shape {reference.shape}; "
            "needed are two images of the same size, (y, x): crop or pad one of them."
        )
    if mask is not None and np.shape(mask) != image.shape:
        raise InputError(f"The mask has shape {np.shape(mask)}, the images {image.shape}; give it their shape.")
    if maximum_shift is None:
        maximum_shift = min(image.shape) // 2
    if not (0 <= maximum_shift < np.inf) or not precision > 0:
        raise InputError(
            f"maximum_shift came as {maximum_shift!r} and precision as {precision!r}; needed are pixels, "
            "0 or more and above 0."
        )
    masks = [np.isfinite(a) & (True if mask is None else np.asarray(mask, dtype=bool)) for a in (image, reference)]
    image, reference = (_standardised(a, m, name) for a, m, name in zip((image, reference), masks, _NAMES, strict=True))
    image, reference = _without_noise([image, reference], masks)
    reach = np.minimum(int(np.ceil(maximum_shift)), np.array(image.shape) - 1)
    coefficients = _masked_correlation(image, reference, masks, reach)
    best = np.unravel_index(np.argmax(coefficients), coefficients.shape)
    whole = np.array(best) - reach
    shift = whole + _refined(image, reference, masks, whole, precision)
    return Registration(shift, _correlation_at(image, reference, masks, shift))


_NAMES = ("image", "reference")


def _standardised(image: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """The image with mean 0 and variance 1 over its mask, 0 elsewhere."""
    values = image[mask]
    spread = values.std() if values.size else 0.0
    if not spread > 1e-6 * np.abs(values).max(initial=0.0):
        what = "has no measured pixel" if values.size == 0 else f"has the value {values[0]:g} everywhere"
        raise InputError(f"The {name} {what}, so nothing in it can be found; leave it out, or check its mask.")
    return np.where(mask, (image - values.mean()) / spread, 0.0)


def _without_noise(images: list[np.ndarray], masks: list[np.ndarray]) -> list[np.ndarray]:
    """Images low-passed by one filter that keeps at each frequency the part of the power that is no white noise."""
    ny, nx = images[0].shape
    k = np.hypot(fft.fftfreq(ny)[:, None], fft.rfftfreq(nx)[None, :])
    corners = k > 0.5
    if not corners.any():
        return images
    power = np.zeros(k.shape)
    for image, mask in zip(images, masks, strict=True):
        power += np.abs(fft.rfft2(image * _fade(mask))) ** 2
    ring = np.rint(k * max(ny, nx)).astype(np.intp).ravel()
    count = np.bincount(ring)
    radial = np.bincount(ring, power.ravel()) / np.maximum(count, 1)
    noise = power[corners].mean()
    keep = np.maximum(0.0, 1.0 - noise / np.maximum(radial, np.finfo(float).tiny))[ring].reshape(k.shape)
    if not keep.any():
        return images
    return [fft.irfft2(fft.rfft2(image) * keep, s=(ny, nx)) * mask for image, mask in zip(images, masks, strict=True)]


def _fade(mask: np.ndarray) -> np.ndarray:
    """Weight that rises smoothly from 0 outside the mask (and outside the field) to 1 inside it."""
    if mask.all():
        ny, nx = mask.shape
        y, x = (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)) for n in (ny, nx))
        distance = np.minimum(y[:, None], x[None, :]).astype(np.float64)
    else:
        distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    width = min(_TAPER * min(mask.shape), distance.max() / 2)
    return np.sin(0.5 * np.pi * np.minimum(distance / max(width, 1.0), 1.0)) ** 2


def _masked_correlation(
    image: np.ndarray, reference: np.ndarray, masks: list[np.ndarray], reach: np.ndarray
) -> np.ndarray:
    """Pearson's coefficient over the overlap for whole shifts -reach .. reach; -1 where too little overlaps."""
    size = [fft.next_fast_len(int(n + m), real=True) for n, m in zip(image.shape, reach, strict=True)]
    window = np.ix_(*(np.arange(-m, m + 1) for m in reach))

    def transforms(a: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
        a = a * mask
        return [fft.rfft2(b, s=size) for b in (mask.astype(np.float64), a, a * a)]

    def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return fft.irfft2(np.conj(a) * b, s=size)[window]

    ones_i, first_i, second_i = transforms(image, masks[0])
    ones_r, first_r, second_r = transforms(reference, masks[1])
    count = overlaps(ones_r, ones_i)
    enough = count > max(1.5, _OVERLAP * min(mask.sum() for mask in masks))
    if not enough.any():
        raise InputError("The measured pixels of image and reference hardly overlap at any shift; check their masks.")
    count = np.maximum(count, 1.0)
    sum_r, sum_i = overlaps(first_r, ones_i), overlaps(ones_r, first_i)
    spread_r = overlaps(second_r, ones_i) - sum_r**2 / count
    spread_i = overlaps(ones_r, second_i) - sum_i**2 / count
    least = 1e-3 * np.maximum(spread_r, spread_i).max()  # a nearly blank overlap would fit anything
    enough &= (spread_r > least) & (spread_i > least)
    product = overlaps(first_r, first_i) - sum_r * sum_i / count
    return np.where(enough, product / np.sqrt(np.maximum(spread_r * spread_i, least**2)), -1.0)


def _moved(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """image(r + shift) for a whole shift, 0 (False) outside."""
    out = np.zeros_like(image)
    to = tuple(slice(max(0, -s), min(n, n - s)) for n, s in zip(image.shape, shift, strict=True))
    source = tuple(slice(max(0, s), min(n, n + s)) for n, s in zip(image.shape, shift, strict=True))
    out[to] = image[source]
    return out


def _refined(
    image: np.ndarray, reference: np.ndarray, masks: list[np.ndarray], whole: np.ndarray, precision: float
) -> np.ndarray:
    """What remains of the shift after whole pixels: the cross-correlation's maximum within one pixel."""
    fade = _fade(_moved(masks[0], whole) & masks[1])
    total = fade.sum()
    spectra = []
    for a in (_moved(image, whole), reference):
        spectra.append(fft.rfft2(fade * (a - (fade * a).sum() / total)))
    cross = np.conj(spectra[1]) * spectra[0]
    ny, nx = image.shape
    cross[:, 1 : (nx + 1) // 2] *= 2.0  # the half of the plane that rfft2 leaves out
    ky, kx = 2.0 * np.pi * fft.fftfreq(ny), 2.0 * np.pi * fft.rfftfreq(nx)
    if ny % 2 == 0:
        cross[ny // 2] = 0.0  # the highest frequency cannot tell a shift from its opposite
    if nx % 2 == 0:
        cross[:, nx // 2] = 0.0
    shift = np.zeros(2)
    for _ in range(20):
        turned = np.exp(1j * ky * shift[0])[:, None] * cross * np.exp(1j * kx * shift[1])
        along_x = np.stack([np.ones_like(kx), kx, kx * kx], axis=1)
        sums = np.stack([np.ones_like(ky), ky, ky * ky]) @ (turned @ along_x)
        gradient = -np.array([sums[1, 0].imag, sums[0, 1].imag])
        hessian = -np.array([[sums[2, 0].real, sums[1, 1].real], [sums[1, 1].real, sums[0, 2].real]])
        if np.linalg.eigvalsh(hessian)[1] >= 0:  # no maximum here: a flat or a rough correlation
            break
        step = np.clip(-np.linalg.solve(hessian, gradient), -0.5, 0.5)
        shift = np.clip(shift + step, -1.0, 1.0)
        if np.abs(step).max() < precision:
            break
    return shift


def _correlation_at(image: np.ndarray, reference: np.ndarray, masks: list[np.ndarray], shift: np.ndarray) -> float:
    """Pearson's coefficient over the overlap at a shift that need not be whole."""
    moved, inside = resample(np.where(masks[0], image, np.nan), np.eye(2), shift)
    both = inside & masks[1]
    a, b = moved[both].astype(np.float64), reference[both]
    a, b = a - a.mean(), b - b.mean()
    spread = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / spread) if spread > 0 else 0.0
