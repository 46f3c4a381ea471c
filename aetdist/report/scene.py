"""Atoms and bonds in three dimensions, painted as shaded balls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb

from ._kernels import paint_balls

_LIGHT = np.array([-0.45, 0.5, 0.74]) / np.linalg.norm([-0.45, 0.5, 0.74])
_FOG = 0.35  # part of the colour that the furthest ball loses
_FINER = 2  # pixels are averaged over so many each way


@dataclass(frozen=True, eq=False)
class Balls:
    """Balls to paint.

    Parameters
    ----------
    position : ndarray, shape (n, 3), float64
        In Angstrom.
    radius : ndarray, shape (n,), float64
        In Angstrom.
    colour : ndarray, shape (n, 3), float64
        Red, green, blue, 0 to 1.
    """

    position: np.ndarray
    radius: np.ndarray
    colour: np.ndarray

    @classmethod
    def of(cls, position: np.ndarray, radius: float, colour: str | Sequence[str]) -> Balls:
        """Balls of one radius in Angstrom, and of one colour or one each."""
        position = np.asarray(position, dtype=np.float64).reshape(-1, 3)
        names = [colour] * len(position) if isinstance(colour, str) else list(colour)
        known = {name: to_rgb(name) for name in dict.fromkeys(names)}
        colours = np.array([known[name] for name in names], dtype=np.float64).reshape(-1, 3)
        return cls(position, np.full(len(position), float(radius)), colours)

    @classmethod
    def rods(cls, begin: np.ndarray, end: np.ndarray, radius: float, colour: str) -> Balls:
        """Rods from points (n, 3) to points (n, 3) in Angstrom, as rows of small balls."""
        begin, end = (np.asarray(ends, dtype=np.float64).reshape(-1, 3) for ends in (begin, end))
        longest = float(np.linalg.norm(end - begin, axis=1).max(initial=0.0))
        along = np.linspace(0.0, 1.0, max(2, int(np.ceil(longest / (0.4 * radius)))))
        places = begin[:, None] + along[:, None] * (end - begin)[:, None]
        return cls.of(places.reshape(-1, 3), radius, colour)

    def __add__(self, other: Balls) -> Balls:
        """Both together."""
        pairs = ((self.position, other.position), (self.radius, other.radius), (self.colour, other.colour))
        return Balls(*(np.concatenate(pair) for pair in pairs))


def view_of(azimuth: float = 0.0, elevation: float = 0.0) -> np.ndarray:
    """Rotation of the sample to the eye, which looks down z with x to the right and y up.

    Parameters
    ----------
    azimuth : float
        Turn about the sample's z, degrees.
    elevation : float
        Tilt about the horizontal after that, degrees: 0 looks down the sample's z, -90 sees its z upwards.

    Returns
    -------
    ndarray, shape (3, 3), float64
        seen = matrix @ position.
    """
    (ca, ce), (sa, se) = np.cos(np.deg2rad([azimuth, elevation])), np.sin(np.deg2rad([azimuth, elevation]))
    return np.array([[1, 0, 0], [0, ce, -se], [0, se, ce]]) @ np.array([[ca, -sa, 0], [sa, ca, 0], [0, 0, 1]])


def frame_of(balls: Balls, view: np.ndarray, *, round_z: bool = False) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of what is seen, in Angstrom; `round_z`: for every turn about the sample's z."""
    if round_z:
        flat = np.hypot(balls.position[:, 0], balls.position[:, 1])
        wide = float((flat + balls.radius).max())
        tilt = np.array([view[1, 2], np.hypot(view[1, 0], view[1, 1])])
        low = float((tilt[0] * balls.position[:, 2] - tilt[1] * flat - balls.radius).min())
        high = float((tilt[0] * balls.position[:, 2] + tilt[1] * flat + balls.radius).max())
        return -wide, wide, low, high
    seen = balls.position @ view.T
    low, high = (seen - balls.radius[:, None]).min(axis=0), (seen + balls.radius[:, None]).max(axis=0)
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def paint(
    balls: Balls, view: np.ndarray, frame: tuple[float, float, float, float], pixels: float, *, fog: float = _FOG
) -> np.ndarray:
    """Paint balls as they are seen.

    Parameters
    ----------
    balls : Balls
    view : ndarray, shape (3, 3), float64
        From :func:`view_of`.
    frame : tuple of float
        Left, right, bottom and top of the picture in Angstrom.
    pixels : float
        For one Angstrom.
    fog : float
        Part of its colour that the ball furthest away loses.

    Returns
    -------
    ndarray, shape (rows, columns, 4), uint8
        Red, green, blue, opacity; the first row is the lowest.
    """
    left, right, bottom, top = frame
    columns, rows = (max(1, round((high - low) * pixels)) for low, high in ((left, right), (bottom, top)))
    seen = balls.position @ view.T
    scale = _FINER * pixels
    centres = np.stack([(seen[:, 0] - left) * scale - 0.5, (seen[:, 1] - bottom) * scale - 0.5, seen[:, 2] * scale], 1)
    far = seen[:, 2].max(initial=0.0) - seen[:, 2]
    lost = fog * far / max(float(far.max(initial=0.0)), 1e-9)
    image = np.zeros((rows * _FINER, columns * _FINER, 4), dtype=np.float32)
    depth = np.full(image.shape[:2], -np.inf)
    first = np.argsort(far, kind="stable")  # nearest first: what is hidden is not shaded
    paint_balls(centres[first], balls.radius[first] * scale, balls.colour[first], _LIGHT, lost[first], image, depth)
    mean = image.reshape(rows, _FINER, columns, _FINER, 4).mean(axis=(1, 3))
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-6)  # colours of what is there, not of the empty part of a pixel
    return np.round(255.0 * np.clip(mean, 0.0, 1.0)).astype(np.uint8)
