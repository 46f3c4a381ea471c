"""What images have beside Gaussian atoms: tails of the probe, and a smooth background."""

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
_REACH = 3.0  # of the widest blur: how far images are continued beyond their edges


class Tails(NamedTuple):
    """Blurs that act on a projection, and how much of it they take.

    Attributes
    ----------
    parts : ndarray, shape (2,), float64
        Of an atom's intensity.
    blurs : ndarray, shape (2,), float64
        Standard deviations in pixels: they make atoms `WIDER`.
    """

    parts: np.ndarray
    blurs: np.ndarray

    @classmethod
    def none(cls, sigma: float) -> Tails:
        """No tails, for atoms of a standard deviation of `sigma` pixels."""
        return cls(np.zeros(len(WIDER)), sigma * np.sqrt(np.square(WIDER) - 1.0))


def blurred(image: np.ndarray, tails: Tails) -> list[np.ndarray]:
    """The image after each blur, (y, x) float32."""
    spectrum, square, cut, shape = _transformed(image, tails)
    return [
        np.ascontiguousarray(fft.irfft2(spectrum * np.exp(-0.5 * blur**2 * square), shape)[cut], dtype=np.float32)
        for blur in tails.blurs
    ]


def shown(group: Group, model: Model, tails: Tails | None) -> np.ndarray:
    """What the group's tilts show of a model, with the tails of the probe, (tilt, y, x) float32."""
    images = np.array([group.predicted(t, model) for t in range(len(group.numbers))])
    if tails is not None and tails.parts.any():
        for image in images:
            image += np.sum([p * (b - image) for p, b in zip(tails.parts, blurred(image, tails), strict=True)], axis=0)
    return images


def less_background(group: Group, model: Model, tails: Tails | None, scale: float) -> Group:
    """The group without what is smooth (over `scale` pixels) of that which is not predicted.

    Always from the raw images: what was taken off before comes back where it is predicted now.
    """
    measured = np.empty_like(group.measured)
    for t, (image, predicted) in enumerate(zip(group.raw, shown(group, model, tails), strict=True)):
        known = (group.weights[t] > 0).astype(np.float32)
        left = ndimage.gaussian_filter(known * (image - predicted), scale, mode="constant")
        around = ndimage.gaussian_filter(known, scale, mode="constant")
        measured[t] = image - known * left / np.maximum(around, 1e-3)
    return replace(group, measured=measured, images=measured)


def without_tails(group: Group, model: Model, tails: Tails) -> Group:
    """The group with images as they would be without tails; beside measured pixels they are what the model predicts."""
    images = np.empty_like(group.images)
    for t, (measured, weights) in enumerate(zip(group.measured, group.weights, strict=True)):
        known = weights > 0
        image = measured
        if not known.all():
            predicted = group.predicted(t, model)
            wide = sum(p * (b - predicted) for p, b in zip(tails.parts, blurred(predicted, tails), strict=True))
            image = np.where(known, measured, predicted + wide)
        spectrum, square, cut, shape = _transformed(image, tails)
        passed = (
            1.0
            - tails.parts.sum()
            + sum(p * np.exp(-0.5 * b**2 * square) for p, b in zip(tails.parts, tails.blurs, strict=True))
        )
        images[t] = np.where(known, fft.irfft2(spectrum / passed, shape)[cut], 0.0)
    return replace(group, images=images)


def _transformed(
    image: np.ndarray, tails: Tails
) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice], tuple[int, int]]:
    """Spectrum of the image continued beyond its edges, squared angular frequencies, where it lies, and the shape."""
    margin = int(np.ceil(_REACH * tails.blurs.max()))
    shape = tuple(fft.next_fast_len(n + 2 * margin, real=True) for n in image.shape)
    extra = [(margin, s - n - margin) for s, n in zip(shape, image.shape, strict=True)]
    spectrum = fft.rfft2(np.pad(image, extra, mode="edge"))
    ky, kx = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])
    square = ((2.0 * np.pi) ** 2 * (ky**2 + kx**2)).astype(np.float32)
    cut = (slice(margin, margin + image.shape[0]), slice(margin, margin + image.shape[1]))
    return spectrum, square, cut, (shape[0], shape[1])
