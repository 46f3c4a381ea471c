"""What images have beside Gaussian atoms: tails of the probe, saturation, and a smooth background."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from .tilts import Group, Model

WIDER = (2.0, 4.0)
"""Widths of the tails' Gaussians in widths of an atom."""
MOST = 0.6
"""Part of an atom's intensity that is in its tails, at most."""
MOST_SATURATED = 0.2
"""Part by which the brightest pixel is too dark, or too bright, at most."""
_LEAST_ROOT = 0.04  # of the square root that undoes saturation: pixels five times as bright as `top` at most
_REACH = 3.0  # of the widest blur: how far images are continued beyond their edges


class Response(NamedTuple):
    """What becomes of a projection P: T = P + sum_k p_k (B_k P - P), and of this I = T - s T^2 / top.

    Attributes
    ----------
    parts : ndarray, shape (2,), float64
        p: of an atom's intensity, what is in its tails.
    blurs : ndarray, shape (2,), float64
        Of B: standard deviations in pixels that make atoms `WIDER`.
    saturation : float
        s: by how much a pixel as bright as `top` is too dark, as a part of it.
    top : float
        Of the brightest pixel.
    """

    parts: np.ndarray
    blurs: np.ndarray
    saturation: float
    top: float

    @classmethod
    def none(cls, sigma: float, top: float) -> Response:
        """The projection as it is, for atoms of a standard deviation of `sigma` pixels."""
        return cls(np.zeros(len(WIDER)), sigma * np.sqrt(np.square(WIDER) - 1.0), 0.0, top)

    def changed(self, change: np.ndarray) -> Response:
        """After a change of the parts and of the saturation, (3,)."""
        return self._replace(
            parts=np.clip(self.parts + change[:-1], 0.0, MOST),
            saturation=float(np.clip(self.saturation + change[-1], -MOST_SATURATED, MOST_SATURATED)),
        )

    def detected(self, image: np.ndarray) -> np.ndarray:
        """An image T as it is measured."""
        return image - np.float32(self.saturation / self.top) * np.square(image)

    def undone(self, measured: np.ndarray) -> np.ndarray:
        """The image T that was measured so; noise beyond `top` twice over stays as it is there."""
        if self.saturation == 0.0:
            return measured
        a = np.float32(self.saturation / self.top)
        return np.float32(2.0) * measured / (1.0 + np.sqrt(np.maximum(1.0 - 4.0 * a * measured, _LEAST_ROOT)))


def blurred(image: np.ndarray, response: Response) -> list[np.ndarray]:
    """The image after each blur, (y, x) float32."""
    spectrum, square, cut, shape = _transformed(image, response)
    return [
        np.ascontiguousarray(fft.irfft2(spectrum * np.exp(-0.5 * blur**2 * square), shape)[cut], dtype=np.float32)
        for blur in response.blurs
    ]


def shown(group: Group, model: Model, response: Response | None) -> np.ndarray:
    """What the group's tilts show of a model, (tilt, y, x) float32."""
    images = np.array([group.predicted(t, model) for t in range(len(group.numbers))])
    if response is None:
        return images
    for image in images:
        if response.parts.any():
            spread = zip(response.parts, blurred(image, response), strict=True)
            image += np.sum([p * (b - image) for p, b in spread], axis=0)
        image[:] = response.detected(image)
    return images


def less_background(group: Group, model: Model, response: Response | None, scale: float) -> Group:
    """The group without what is smooth (over `scale` pixels) of that which is not predicted.

    Always from the raw images: what was taken off before comes back where it is predicted now.
    """
    measured = np.empty_like(group.measured)
    for t, (image, predicted) in enumerate(zip(group.raw, shown(group, model, response), strict=True)):
        known = (group.weights[t] > 0).astype(np.float32)
        left = ndimage.gaussian_filter(known * (image - predicted), scale, mode="constant")
        around = ndimage.gaussian_filter(known, scale, mode="constant")
        measured[t] = image - known * left / np.maximum(around, 1e-3)
    return replace(group, measured=measured, images=measured)


def without_response(group: Group, model: Model, response: Response) -> Group:
    """The group with images as projections are; beside measured pixels they are what the model predicts."""
    images = np.empty_like(group.images)
    for t, (measured, weights) in enumerate(zip(group.measured, group.weights, strict=True)):
        known = weights > 0
        image = response.undone(measured)
        if not known.all():
            predicted = group.predicted(t, model)
            spread = zip(response.parts, blurred(predicted, response), strict=True)
            image = np.where(known, image, predicted + sum(p * (b - predicted) for p, b in spread))
        spectrum, square, cut, shape = _transformed(image, response)
        spread = zip(response.parts, response.blurs, strict=True)
        passed = 1.0 - response.parts.sum() + sum(p * np.exp(-0.5 * b**2 * square) for p, b in spread)
        images[t] = np.where(known, fft.irfft2(spectrum / passed, shape)[cut], 0.0)
    return replace(group, images=images)


def _transformed(
    image: np.ndarray, response: Response
) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice], tuple[int, int]]:
    """Spectrum of the image continued beyond its edges, squared angular frequencies, where it lies, and the shape."""
    margin = int(np.ceil(_REACH * response.blurs.max()))
    shape = tuple(fft.next_fast_len(n + 2 * margin, real=True) for n in image.shape)
    extra = [(margin, s - n - margin) for s, n in zip(shape, image.shape, strict=True)]
    spectrum = fft.rfft2(np.pad(image, extra, mode="edge"))
    ky, kx = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])
    square = ((2.0 * np.pi) ** 2 * (ky**2 + kx**2)).astype(np.float32)
    cut = (slice(margin, margin + image.shape[0]), slice(margin, margin + image.shape[1]))
    return spectrum, square, cut, (shape[0], shape[1])
