"""Rotation and shift of every tilt against the atoms' own projections."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from ..geometry import euler_from_matrices, remove_common_motion
from ._kernels import add_products, push
from .descent import Bounds
from .imaging import Noise, fit_gains, fit_noise
from .series import Series
from .tails import Tails, less_background, without_tails
from .tilts import Group, Model, itself

log = logging.getLogger(__name__)

_WHITE = 3.0
"""Pixels that share a residual, at most: where more do, the model lacks more than a motion, and would turn tilts by it.
Noise of simulated images gives 1 to 1.5, what a measured film's atoms do not explain 30."""


class Motion(NamedTuple):
    """Where tilts are.

    Attributes
    ----------
    matrices : ndarray, shape (tilt, 3, 3), float64
        lab = R @ sample.
    shifts : ndarray, shape (tilt, 2), float64
        Pixels [y, x] by which images are off.
    """

    matrices: np.ndarray
    shifts: np.ndarray


def fit_motion(series: Series, model: Model, motion: Motion, start: np.ndarray) -> Motion:
    """Computes: a Gauss-Newton step of rotation and shift of every tilt, their common part taken out.

    Parameters
    ----------
    series : Series
        With its tilts where `motion` has them.
    model : Model
    motion : Motion
    start : ndarray, shape (tilt, 3, 3)
        The rotations that the series came with.
    """
    steps = np.concatenate(series.map(motion_steps, model))
    matrices = Rotation.from_rotvec(steps[:, 2:]).as_matrix() @ motion.matrices
    return Motion(*remove_common_motion(matrices, motion.shifts + steps[:, [1, 0]], start))


def moved(group: Group, corner: np.ndarray, motion: Motion) -> Group:
    """The group with rotations and shifts of its tilts among those of all; `corner` (y, x) is that without a shift."""
    return replace(group, matrices=motion.matrices[group.numbers], corners=corner - motion.shifts[group.numbers])


def motion_steps(group: Group, model: Model) -> np.ndarray:
    """Shift x, y (pixels) and rotation about lab x, y, z (radians) that lower the residual of each tilt, (t, 5)."""
    n = len(model.heights)
    still, one = np.zeros(n), np.ones(n)
    steps = np.zeros((len(group.numbers), 5))
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        x, y, z = group.matrices[t] @ model.positions.T / group.pixel_size
        seen = group.seen(t, model)
        columns = np.zeros((6, *image.shape), np.float32)
        ways = ((one, still), (still, one), (still, -z), (z, still), (-y, x))
        for column, (vx, vy) in zip(columns, ways, strict=False):
            push(*seen, np.stack([vx, vy, still, still], axis=1), column)
        push(*seen, itself(n), columns[5])  # its brightness is free too, so that a wrong one turns nothing
        normal, vector = np.zeros((6, 6)), np.zeros(6)
        add_products(columns, image - columns[5], weights, normal, vector)
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        step = np.linalg.lstsq(normal / scale[:, None] / scale, vector / scale, rcond=1e-6)[0] / scale
        steps[t] = step[:5]
    return steps


class Tilts:
    """What is refined of the tilts, round by round: brightness, rotation, shift, background, and the noise of pixels.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES with ``matrices`` and ``pixel_size``.
    move : bool
        Refine rotations, shifts and brightness, where the model explains the images but for noise.
    background : float
        Angstrom; what is smoother than that and not predicted is background. 0 for none.
    noise : bool
        Weigh pixels by the noise that the model leaves, not all alike.
    """

    def __init__(self, series: xr.Dataset, *, move: bool, background: float, noise: bool) -> None:
        size = float(series["pixel_size"])
        self.start = series["matrices"].values
        self.corner = np.array([float(series[axis].values[0]) for axis in "yx"]) / size
        self.motion = Motion(self.start, np.zeros((len(self.start), 2)))
        self.gains = np.ones(len(self.start))
        self.noise, self.area = Noise(0.0, 1.0), 1.0
        self.move, self.scale, self.weigh = move, background / size, noise

    def settled(self, images: Series, model: Model, tails: Tails | None = None) -> Series:
        """Computes: the images with what suits this model best."""
        if self.scale:
            images = images.changed(less_background, model, tails, self.scale)
        if tails is not None:
            images = images.changed(without_tails, model, tails)
        images = self.weighted(images, model)
        if self.move and self.explained:
            images, self.gains = fit_gains(images, model, len(self.start))
            self.motion = fit_motion(images, model, self.motion, self.start)
            images = images.changed(moved, self.corner, self.motion)
        log.info(
            "residuals: variance %.3g x intensity + %.3g, one independent in %.1f pixels%s",
            *self.noise,
            self.area,
            "" if self.explained else ": not white, so that tilts stay where they are" if self.move else "",
        )
        return images

    @property
    def explained(self) -> bool:
        """Whether the model explains the images but for noise."""
        return self.area < _WHITE

    def weighted(self, images: Series, model: Model) -> Series:
        """Computes: the images weighted by the noise that this model leaves."""
        images, self.noise, self.area = fit_noise(images, model, uniform=not self.weigh)
        return images

    def bounds(self, anchor: np.ndarray, reach: float, prior: float) -> Bounds:
        """Where atoms may be: `prior` counts only as far as residuals are not white."""
        return Bounds(anchor, reach, prior / np.sqrt(max(1.0 - 1.0 / self.area, 1e-12)))

    def frame_variance(self, positions: np.ndarray, pixel_size: float) -> np.ndarray:
        """How sure the frame is that the angles and shifts of the series define, at each atom.

        Parameters
        ----------
        positions : ndarray, shape (n, 3), float64
            Angstrom.
        pixel_size : float
            Angstrom.

        Returns
        -------
        ndarray, shape (n, 3), float64
            Angstrom^2, along x, y, z. 0 where tilts were not moved.

        Notes
        -----
        The object stays where all tilts have it on average. Where they were off by random rotations and shifts, so
        is their average, by as much over the root of their number.
        """
        n_tilts = len(self.start)
        turns = Rotation.from_matrix(self.motion.matrices @ np.swapaxes(self.start, 1, 2)).as_rotvec()
        turns = np.einsum("tji,tj->ti", self.motion.matrices, turns)  # about the sample's axes
        vx, vy, vz = turns.var(axis=0) / n_tilts
        x, y, z = np.square(positions).T
        rotated = np.stack([vy * z + vz * y, vz * x + vx * z, vx * y + vy * x], axis=1)
        seen = self.motion.matrices[:, :2]
        spread = self.motion.shifts.var() * pixel_size**2
        moved_by = spread * np.diag(np.linalg.inv(np.einsum("tai,taj->ij", seen, seen)))
        return np.asarray(rotated + moved_by)

    def found(self) -> dict[str, Any]:
        """Variables for the record: Euler angles (degrees), shifts (pixels) and brightness of every tilt."""
        return {
            "angles": (("tilt", "euler"), euler_from_matrices(self.motion.matrices)),
            "shift": (("tilt", "shift_axis"), self.motion.shifts),
            "gain": ("tilt", self.gains),
        }
