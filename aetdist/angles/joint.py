"""Volume, rotations and shifts together: Gauss-Newton steps for films, whose tilts know each other only in a chain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.spatial.transform import Rotation

from ..project import ParallelProjector
from ._kernels import PARAMETERS, derivatives
from .level import Level

_PRIOR = np.array([*np.deg2rad([0.7, 0.7, 0.7]), 2.5, 2.5, 0.1])
"""Standard deviations of the corrections that are expected: rotations (radians), shifts (pixels), brightness."""
_INFLATION = 5.0  # of the residual's variance: what is not explained goes together over some pixels
_LONG_WAVES = 0.02  # weight of what the high pass takes
_PRECONDITIONER = 0.3  # part of the largest eigenvalue of A^T A that stands for all of them
_LARGEST_STEP = 2.0  # of the prior's standard deviations


class Estimate(NamedTuple):
    """What is known so far.

    Attributes
    ----------
    volume : ndarray, shape (z, y, x), float32
        On the level's voxels.
    matrices : ndarray, shape (tilt, 3, 3), float64
    shifts : ndarray, shape (tilt, 2), float64
        Pixels [y, x] of the images as they came.
    brightness : ndarray, shape (tilt,), float64
        Mean 1.
    corrections : ndarray, shape (tilt, 6), float64
        All steps so far in standard deviations of the prior.
    """

    volume: np.ndarray
    matrices: np.ndarray
    shifts: np.ndarray
    brightness: np.ndarray
    corrections: np.ndarray


def joint_step(
    level: Level,
    estimate: Estimate,
    *,
    scale: float,
    eigenvalue: float,
    iterations: int,
    shifts_only: bool = False,
    threads: int = 1,
) -> Estimate:
    """One Gauss-Newton step of the volume and of the parameters of all tilts together.

    Parameters
    ----------
    level : Level
        Images, masks and grid.
    estimate : Estimate
    scale : float
        Standard deviation, in pixels of the images as they came, of the Gaussian behind which waves are long.
    eigenvalue : float
        Largest eigenvalue of A^T A.
    iterations : int
        Of the conjugate gradients that solve for the step.
    shifts_only : bool
        Leave the rotations as they are.
    threads : int
        Of the projector.

    Returns
    -------
    Estimate

    Notes
    -----
    With residuals r_t = I_t - s_t A(R_t, d_t) V, minimises to first order in the changes of V and of the parameters u
    (in units of their prior) sum_t r_t^T W r_t + tau |u|^2, by conjugate gradients over both. Voxels at 0 that
    the gradient does not raise stay there. When volume and parameters take turns instead, the volume explains
    most of a misalignment, and each turn mends little.

    W is a high pass: the images of a film disagree in long waves (background, matter beyond the field, brightness),
    and by more than in all the rest. Where the data say nothing (tilts know distant ones only through long
    waves), the prior keeps the corrections small: tau is the variance of a residual, times 5 because neighbouring
    pixels err together.
    """
    projector = ParallelProjector(level.geometry(estimate.matrices, estimate.shifts), threads)
    seen, moments = projector.moments(estimate.volume)
    bright = estimate.brightness[:, None, None].astype(np.float32)
    slopes = np.empty((len(seen), PARAMETERS, *seen.shape[1:]), np.float32)
    for t in range(len(seen)):
        slopes[t, :5] = bright[t] * derivatives(seen[t], moments[t], projector.geometry.detector_start[t])
    slopes[:, 3:5] /= level.factor
    slopes[:, 5] = seen
    slopes *= _PRIOR.astype(np.float32)[:, None, None]
    if shifts_only:
        slopes[:, :3] = 0

    def weighed(images: np.ndarray) -> np.ndarray:
        return _high_pass(images, level.masks, scale / level.factor)

    rest = level.images - bright * seen
    weighed_rest = weighed(rest)
    tau = _INFLATION * float(np.vdot(rest, weighed_rest)) / level.masks.sum()
    uphill = projector.adjoint(bright * weighed_rest)
    free = (estimate.volume > 0) | (uphill > 0)
    uphill *= free
    pull = np.einsum("tkyx,tyx->tk", slopes, weighed_rest).astype(np.float64) - tau * estimate.corrections
    blocks = np.einsum(
        "tkyx,tlyx->tkl", slopes, np.stack([weighed(slopes[:, k]) for k in range(PARAMETERS)], axis=1)
    ).astype(np.float64)
    inverse = np.linalg.inv(blocks + tau * np.eye(PARAMETERS))
    scaling = np.float32(1.0 / (_PRECONDITIONER * eigenvalue))

    def conditioned(v: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return scaling * v, np.einsum("tkl,tl->tk", inverse, u)

    def applied(v: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        changes = bright * projector.forward(v) + np.einsum("tkyx,tk->tyx", slopes, u.astype(np.float32))
        changes = weighed(changes)
        back = projector.adjoint(bright * changes)
        back *= free
        return back, np.einsum("tkyx,tyx->tk", slopes, changes).astype(np.float64) + tau * u

    volume_step, step = _conjugate_gradients(applied, conditioned, uphill, pull, iterations)
    part = min(1.0, _LARGEST_STEP / max(1e-12, float(np.abs(step).max())))
    step = part * step
    change = step * _PRIOR
    brightness = estimate.brightness + change[:, 5]
    mean = float(brightness.mean())
    corrections = estimate.corrections + step
    corrections[:, 5] = (brightness / mean - 1.0) / _PRIOR[5]
    return Estimate(
        np.maximum(estimate.volume + np.float32(part) * volume_step, 0) * np.float32(mean),
        Rotation.from_rotvec(change[:, :3]).as_matrix() @ estimate.matrices,
        estimate.shifts + change[:, 3:5],
        brightness / mean,
        corrections,
    )


def _conjugate_gradients(applied, conditioned, volume: np.ndarray, pull: np.ndarray, iterations: int):  # type: ignore[no-untyped-def]
    """Solve for (volume, parameters) with a right-hand side of such a pair; preconditioned."""
    x, y = np.zeros_like(volume), np.zeros_like(pull)
    rv, ru = volume.copy(), pull.copy()
    zv, zu = conditioned(rv, ru)
    qv, qu = zv.copy(), zu.copy()
    size = float(np.vdot(rv, zv)) + float((ru * zu).sum())
    for _ in range(iterations):
        if not size > 0:
            break
        av, au = applied(qv, qu)
        length = size / (float(np.vdot(qv, av)) + float((qu * au).sum()))
        x += np.float32(length) * qv
        y += length * qu
        rv -= np.float32(length) * av
        ru -= length * au
        zv, zu = conditioned(rv, ru)
        before, size = size, float(np.vdot(rv, zv)) + float((ru * zu).sum())
        qv = zv + np.float32(size / before) * qv
        qu = zu + size / before * qu
    return x, y


def _high_pass(images: np.ndarray, masks: np.ndarray, sigma: float) -> np.ndarray:
    """Long waves weakened within the mask; symmetric, so that it can weigh squares."""
    ny, nx = images.shape[1:]
    shape = (fft.next_fast_len(ny + int(3 * sigma), real=True), fft.next_fast_len(nx + int(3 * sigma), real=True))
    square = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None] ** 2
    gain = 1.0 - (1.0 - _LONG_WAVES) * np.exp(-2.0 * (np.pi * sigma) ** 2 * square)
    spectra = fft.rfft2(np.where(masks, images, 0), shape)
    return np.where(masks, fft.irfft2(spectra * gain.astype(np.float32), shape)[:, :ny, :nx], 0).astype(np.float32)
