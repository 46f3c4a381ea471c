"""How the microscope departs from round Gaussian projections: brightness of tilts, tails of the probe, saturation."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..geometry import remove_common_motion
from ._kernels import push
from .imaging import Noise
from .tilts import Group, Model, Series, itself

_TAILS = (np.sqrt(3.0), np.sqrt(15.0))
"""Blur, in widths of an atom, that makes it twice and four times as wide."""
_MOST_TAILS = 0.6  # of an atom's intensity
_MOST_SATURATION = 0.3  # of the brightest pixel


class Response(NamedTuple):
    """What is the same for all tilts, and each one's brightness.

    Attributes
    ----------
    gains : ndarray, shape (tilt,), float64
    tails : tuple of float
        Parts of an atom's intensity that lie in Gaussians twice and four times as wide.
    saturation : float
        Part by which the brightest pixel is too dark: what was measured is I - saturation I^2 / brightest.
    brightest : float
    sigma : float
        Standard deviation of an atom in pixels, which the tails are measured in.
    """

    gains: np.ndarray
    tails: tuple[float, ...]
    saturation: float
    brightest: float
    sigma: float


def fit_response(raw: Series, model: Model, n_tilts: int, sigma: float, *, shape: bool) -> Response:
    """Computes: the response that turns the predictions into what was measured.

    Parameters
    ----------
    raw : Series
        What was measured, with weights.
    model : Model
    n_tilts : int
    sigma : float
        Width of an atom in pixels.
    shape : bool
        Tails and saturation too, not only the brightness of the tilts.
    """
    top = max(raw.map(_brightest, model))
    parts = raw.map(_response_equations, model, sigma, top)
    normal = np.concatenate([p[0] for p in parts])
    vector = np.concatenate([p[1] for p in parts])
    m = normal.shape[1] - 1
    gains = _ratio(vector[:, 0], normal[:, 0, 0])
    tails, saturation = np.zeros(m - 1), 0.0
    if shape:
        for _ in range(5):
            # b = g (m + columns . c): with the brightness as it is, the shared coefficients; then the brightness again.
            left = np.einsum("t,tij->ij", gains**2, normal[:, 1:, 1:])
            right = np.einsum("t,ti->i", gains, vector[:, 1:]) - np.einsum("t,ti->i", gains**2, normal[:, 1:, 0])
            root = np.sqrt(np.maximum(np.diag(left), 1e-300))
            shared = np.linalg.lstsq(left / root[:, None] / root, right / root, rcond=1e-8)[0] / root
            tails, saturation = np.clip(shared[:-1], -0.05, _MOST_TAILS), float(np.clip(-shared[-1], -0.05, _MOST_SATURATION))
            c = np.concatenate([[1.0], tails, [-saturation]])
            gains = _ratio(vector @ c, np.einsum("i,tij,j->t", c, normal, c))
    return Response(gains / gains.mean(), tuple(float(v) for v in tails), saturation, top, sigma)


def corrected(group: Group, model: Model, response: Response) -> Group:
    """What would have been measured without tails and saturation, all tilts as bright as each other.

    Unmeasured pixels are filled with the prediction for the tails of what lies beside them. Weights follow the change
    of the noise.
    """
    images, weights = np.empty_like(group.images), np.empty_like(group.weights)
    for t, number in enumerate(group.numbers):
        known = group.weights[t] > 0
        measured = group.images[t] / response.gains[number]
        change = np.ones_like(measured)
        if response.saturation:
            bend = response.saturation / response.brightest
            # I - bend I^2 = b has the root that is near b.
            inner = np.sqrt(np.maximum(1.0 - 4.0 * bend * measured, 0.05))
            measured, change = (1.0 - inner) / (2.0 * bend), 1.0 / inner
        if any(response.tails):
            measured = _without_tails(measured, known, group.predicted(t, model), response)
        images[t] = np.where(known, measured, 0.0)
        weights[t] = group.weights[t] * (response.gains[number] / change) ** 2
    return replace(group, images=images, weights=weights)


def _without_tails(image: np.ndarray, known: np.ndarray, predicted: np.ndarray, response: Response) -> np.ndarray:
    """Fixed-point iteration of image = core + tails * (blurred core - core)."""
    if not known.all():
        image = np.where(known, image, _with_tails(predicted, response))
    core = image.copy()
    for _ in range(12):
        core += image - _with_tails(core, response)
    return core


def _with_tails(image: np.ndarray, response: Response) -> np.ndarray:
    shown = (1.0 - sum(response.tails)) * image
    for part, blur in zip(response.tails, _TAILS, strict=True):
        if part:
            shown += part * ndimage.gaussian_filter(image, blur * response.sigma, mode="nearest")
    return np.asarray(shown, dtype=np.float32)


def _response_equations(group: Group, model: Model, sigma: float, top: float) -> tuple[np.ndarray, np.ndarray]:
    """Per tilt: normal matrix and vector of the prediction, its tails less itself, and its square."""
    m = len(_TAILS) + 2
    normal, vector = np.zeros((len(group.numbers), m, m)), np.zeros((len(group.numbers), m))
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        predicted = group.predicted(t, model)
        columns = [predicted]
        columns += [ndimage.gaussian_filter(predicted, blur * sigma, mode="nearest") - predicted for blur in _TAILS]
        columns.append(predicted**2 / top)
        root = np.sqrt(weights)
        flat = np.array([(c * root).ravel() for c in columns], dtype=np.float64)
        normal[t], vector[t] = flat @ flat.T, flat @ (image * root).ravel()
    return normal, vector


def _brightest(group: Group, model: Model) -> float:
    return float(max(group.predicted(t, model).max() for t in range(len(group.numbers))))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.ones(len(a)), where=b > 0)


class Motion(NamedTuple):
    """How tilts are off: rotations (tilt, 3, 3), and shifts in pixels [y, x]."""

    matrices: np.ndarray
    shifts: np.ndarray


def fit_motion(series: Series, model: Model, motion: Motion, start: np.ndarray) -> Motion:
    """Computes: a Gauss-Newton step of the rotation and the shift of every tilt, the common motion taken out.

    Parameters
    ----------
    series : Series
        Already moved by `motion`.
    model : Model
    motion : Motion
    start : ndarray, shape (tilt, 3, 3)
        Rotations before any motion, which the common one is measured from.
    """
    from scipy.spatial.transform import Rotation

    steps = np.concatenate(series.map(_motion_steps, model))
    matrices = Rotation.from_rotvec(steps[:, 2:5]).as_matrix() @ motion.matrices
    shifts = motion.shifts + steps[:, [1, 0]]
    return Motion(*remove_common_motion(matrices, shifts, start))


def moved(group: Group, corner: np.ndarray, motion: Motion) -> Group:
    """The group with the rotations and shifts of its tilts among those of all."""
    return replace(group, matrices=motion.matrices[group.numbers], corners=corner - motion.shifts[group.numbers])


def _motion_steps(group: Group, model: Model) -> np.ndarray:
    """Of every tilt: shift x, y (pixels) and rotation about lab x, y, z (radians) that lower its residual."""
    n = len(model.heights)
    steps = np.zeros((len(group.numbers), 5))
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        lab = model.positions @ group.matrices[t].T / group.pixel_size
        seen = group.seen(t, model)
        columns = np.zeros((6, *image.shape), np.float32)
        push(*seen, itself(n), columns[5])
        ways = (
            (np.ones(n), np.zeros(n)),
            (np.zeros(n), np.ones(n)),
            (np.zeros(n), -lab[:, 2]),
            (lab[:, 2], np.zeros(n)),
            (-lab[:, 1], lab[:, 0]),
        )
        for column, (vx, vy) in zip(columns, ways, strict=False):
            push(*seen, np.stack([vx, vy, np.zeros(n), np.zeros(n)], axis=1), column)
        root = np.sqrt(weights)
        flat = np.array([(c * root).ravel() for c in columns], dtype=np.float64)
        residual = ((image - columns[5]) * root).ravel()
        normal, vector = flat @ flat.T, flat @ residual
        scale = np.sqrt(np.maximum(np.diag(normal), 1e-300))
        steps[t] = np.linalg.lstsq(normal / scale[:, None] / scale, vector / scale, rcond=1e-6)[0][:5] / scale[:5]
    return steps


__all__ = ["Motion", "Noise", "Response", "corrected", "fit_motion", "fit_response", "moved"]
