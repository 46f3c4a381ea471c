"""A group of tilts: what the atoms' parameters explain of it, and how they should change."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ._kernels import curvature, pull, push

_OUTSIDE = 0.1  # of what a pixel sees: where more of it is not refined, it does not count
_ATOMS = 10_000  # whose matrices are turned at a time
ROOT = np.sqrt(2.0 * np.pi)


class Model(NamedTuple):
    """Gaussian atoms.

    Attributes
    ----------
    positions : ndarray, shape (n, 3), float64
        Angstrom, (x, y, z) in the sample's frame.
    heights : ndarray, shape (n,), float64
        Peak in the volume.
    sigmas : ndarray, shape (n,), float64
        Standard deviation in Angstrom.
    """

    positions: np.ndarray
    heights: np.ndarray
    sigmas: np.ndarray

    def changed(self, change: np.ndarray) -> Model:
        """After a change (n, 5) of x, y, z (Angstrom), ln H and ln sigma."""
        return Model(
            self.positions + change[:, :3],
            self.heights * np.exp(change[:, 3]),
            self.sigmas * np.exp(change[:, 4]),
        )

    def select(self, which: np.ndarray) -> Model:
        """Some of the atoms."""
        return Model(self.positions[which], self.heights[which], self.sigmas[which])


@dataclass(frozen=True, eq=False)
class Group:
    """Some tilts as they were measured, and how the microscope shows a projection.

    Parameters
    ----------
    numbers : ndarray, shape (t,), intp
        Which tilts of the series.
    raw, measured : ndarray, shape (t, y, x), float32
        What was measured of the atoms, and the same without a background.
    images, weights : ndarray, shape (t, y, x), float32
        The same without tails of the probe, and 1 / variance of each pixel: 0 where nothing was measured.
    matrices : ndarray, shape (t, 3, 3), float64
        lab = R @ sample.
    corners : ndarray, shape (t, 2), float64
        Lab coordinates (y, x) of pixel [0, 0], in pixels.
    gains : ndarray, shape (t,), float64
        Brightness of each tilt.
    pixel_size : float
        Angstrom.
    """

    numbers: np.ndarray
    raw: np.ndarray
    measured: np.ndarray
    images: np.ndarray
    weights: np.ndarray
    matrices: np.ndarray
    corners: np.ndarray
    gains: np.ndarray
    pixel_size: float

    def seen(self, t: int, model: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Where atoms fall at a tilt (pixels from pixel [0, 0]), their peak there, their width in pixels."""
        lab = model.positions @ self.matrices[t, :2].T / self.pixel_size
        s = model.sigmas / self.pixel_size
        return (
            np.ascontiguousarray(lab[:, 0] - self.corners[t, 1]),
            np.ascontiguousarray(lab[:, 1] - self.corners[t, 0]),
            self.gains[t] * ROOT * model.heights * s,
            s,
        )

    def projected(self, t: int, change: np.ndarray) -> np.ndarray:
        """A change (n, 5) in the sample's frame as one (n, 4) that :func:`push` takes."""
        return np.concatenate([change[:, :3] @ self.matrices[t, :2].T / self.pixel_size, change[:, 3:]], axis=1)

    def select(self, which: np.ndarray) -> Group:
        """Some of the tilts, (t,) bool."""
        arrays = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "pixel_size"}
        return Group(**arrays, pixel_size=self.pixel_size)

    def predicted(self, t: int, model: Model) -> np.ndarray:
        """The image of the atoms at a tilt, (y, x) float32."""
        image = np.zeros(self.images.shape[1:], np.float32)
        push(*self.seen(t, model), itself(len(model.heights)), image)
        return image


class Judged(NamedTuple):
    """What a group says of a model: gradient (n, 5), per tilt the sums |r|, |image| and w r^2, measured pixels."""

    gradient: np.ndarray
    misfit: np.ndarray


def itself(n: int) -> np.ndarray:
    """The change whose image is the projection itself."""
    change = np.zeros((n, 4))
    change[:, 2] = 1.0
    return change


def judge(group: Group, model: Model) -> Judged:
    """Gradient of sum w r^2 / 2, r = model - image, and the misfit of every tilt."""
    gradient = np.zeros((len(model.heights), 5))
    out = np.empty((len(model.heights), 4))
    misfit = np.zeros((len(group.numbers), 4))
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        residual = group.predicted(t, model) - image
        known = weights > 0
        weighted = weights * residual
        misfit[t] = (
            np.abs(residual, dtype=np.float64)[known].sum(),
            np.abs(image, dtype=np.float64)[known].sum(),
            np.einsum("yx,yx->", weighted, residual, dtype=np.float64),
            known.sum(),
        )
        pull(*group.seen(t, model), weighted, out)
        gradient[:, :3] += out[:, :2] @ group.matrices[t, :2] / group.pixel_size
        gradient[:, 3:] += out[:, 2:]
    return Judged(gradient, misfit)


def misfit_of(group: Group, model: Model) -> np.ndarray:
    """Sum of w r^2, r = model - image, of every tilt."""
    misfit = np.zeros(len(group.numbers))
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        residual = group.predicted(t, model) - image
        misfit[t] = np.einsum("yx,yx,yx->", weights, residual, residual, dtype=np.float64)
    return misfit


def steepness(group: Group, model: Model, change: np.ndarray) -> float:
    """Sum of w (J change)^2: how the misfit bends along a change (n, 5)."""
    total = 0.0
    for t, weights in enumerate(group.weights):
        image = np.zeros(weights.shape, np.float32)
        push(*group.seen(t, model), group.projected(t, change), image)
        total += float(np.einsum("yx,yx,yx->", weights, image, image, dtype=np.float64))
    return total


def bend(group: Group, model: Model) -> np.ndarray:
    """Second derivatives of sum w r^2 / 2 by the parameters of every atom alone, (n, 5, 5) float64."""
    n = len(model.heights)
    total = np.zeros((n, 5, 5))
    lab = np.empty((n, 10))
    for t, weights in enumerate(group.weights):
        curvature(*group.seen(t, model), weights, lab)
        turn = np.zeros((4, 5))
        turn[:2, :3] = group.matrices[t, :2] / group.pixel_size
        turn[2, 3] = turn[3, 4] = 1.0
        for first in range(0, n, _ATOMS):
            some = slice(first, first + _ATOMS)
            square = lab[some].T[[0, 1, 2, 3, 1, 4, 5, 6, 2, 5, 7, 8, 3, 6, 8, 9]]
            total[some] += np.einsum("ia,ijn,jb->nab", turn, square.reshape(4, 4, -1), turn, optimize=True)
    return total


def make_group(
    numbers: np.ndarray,
    images: Any,
    mask: Any,
    outside: Any,
    inside: Any,
    matrices: np.ndarray,
    corner: np.ndarray,
    pixel_size: float,
) -> Group:
    """Images in memory; pixels that were not measured weigh nothing.

    Raises
    ------
    InputError
        If a pixel that was measured is no finite number.
    """
    images = np.array(images, dtype=np.float32)
    weights = np.array(mask, dtype=np.float32)
    if not np.isfinite(images[weights > 0]).all():
        raise InputError(
            "The images hold NaN or infinite pixels inside the mask; set the mask False there (import with --mask nan)."
        )
    if outside is not None:
        images -= np.asarray(outside)
        weights[np.asarray(outside) > _OUTSIDE * (np.asarray(outside) + np.asarray(inside))] = 0.0
    images[weights == 0] = 0.0
    n = len(numbers)
    return Group(
        numbers,
        images,
        images,
        images,
        weights,
        np.ascontiguousarray(matrices),
        np.tile(corner, (n, 1)),
        np.ones(n),
        pixel_size,
    )
