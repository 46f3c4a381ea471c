"""What all atoms of a type have in common, how bright every tilt is, and how noisy its pixels are."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import fft

from ._kernels import add_products, push
from .series import Series
from .tails import MOST, Tails, blurred
from .tilts import Group, Model, itself

_VACUUM = 0.01  # of the brightest pixel
_LAGS = 8  # pixels over which residuals may be correlated
_BINS = 24
_LEAST_PIXELS = 50  # of a bin that counts
_LEAST_RATIO = 0.2  # that a height falls by at once, at most
_WIDTH_STEP = 0.3  # change of ln sigma at once, at most


class Noise(NamedTuple):
    """Variance of a pixel: gain * intensity + floor."""

    gain: float
    floor: float


def fit_types(
    series: Series,
    model: Model,
    labels: np.ndarray,
    *,
    widths: bool = True,
    rounds: int = 1,
    tails: Tails | None = None,
) -> tuple[Model, Tails | None]:
    """Computes: heights and widths that all atoms of a type share, by Gauss-Newton steps.

    Parameters
    ----------
    series : Series
    model : Model
        Where to start; atoms of one type have one height and one width afterwards.
    labels : ndarray of int, shape (n,)
        Type of every atom, 0 ... k - 1.
    widths : bool
        One height for each type and (True) one width for each type.
    rounds : int
        Steps, at most.
    tails : Tails, optional
        Where to start with the probe's tails, which are then fitted too.

    Returns
    -------
    model : Model
    tails : Tails or None
    """
    k = int(labels.max()) + 1
    count = np.maximum(np.bincount(labels), 1)
    heights, sigmas = (np.exp(np.bincount(labels, np.log(v)) / count)[labels] for v in (model.heights, model.sigmas))
    model = Model(model.positions, heights, sigmas)
    misfit, best, step, fraction = np.inf, (model, tails), np.zeros(0), 1.0
    for _ in range(rounds + 1):
        parts = series.map(type_equations, model, labels, k, widths, tails)
        new = sum(part[2] for part in parts)
        if new < misfit:
            converged = not new < (1 - 1e-6) * misfit
            misfit, best, fraction = new, (model, tails), 1.0
            step = _type_step(sum(part[0] for part in parts), sum(part[1] for part in parts))
            if converged:
                break
        else:
            fraction *= 0.3
        model, tails = best
        change = np.zeros((len(labels), 5))
        change[:, 3] = np.log(np.maximum(1.0 + fraction * step[:k], _LEAST_RATIO))[labels]  # images are linear in H
        if widths:
            change[:, 4] = np.clip(fraction * step[k : 2 * k], -_WIDTH_STEP, _WIDTH_STEP)[labels]
        model = model.changed(change)
        if tails is not None:
            tails = tails._replace(parts=np.clip(tails.parts + fraction * step[-len(tails.parts) :], 0.0, MOST))
    return best


def _type_step(normal: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Solution of the normal equations; what no pixel tells stays as it is."""
    there = np.diag(normal) > 0
    root = np.sqrt(np.diag(normal)[there])
    scaled = normal[np.ix_(there, there)] / root[:, None] / root
    step = np.zeros(len(vector))
    step[there] = np.linalg.lstsq(scaled, vector[there] / root, rcond=1e-10)[0] / root
    return step


def type_equations(
    group: Group, model: Model, labels: np.ndarray, k: int, widths: bool, tails: Tails | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Normal matrix and vector of changes of ln H and (`widths`) ln sigma of each type and of the tails; sum w r^2."""
    m = (2 * k if widths else k) + (0 if tails is None else len(tails.parts))
    normal, vector, misfit = np.zeros((m, m)), np.zeros(m), 0.0
    kinds = [np.flatnonzero(labels == kind) for kind in range(k)]
    for t, weights in enumerate(group.weights):
        columns = np.zeros((m, *weights.shape), np.float32)
        for kind, which in enumerate(kinds):
            seen = group.seen(t, model.select(which))
            push(*seen, itself(len(which)), columns[kind])
            if widths:
                wider = np.zeros((len(which), 4))
                wider[:, 3] = 1.0
                push(*seen, wider, columns[k + kind])
        predicted, image = columns[:k].sum(axis=0), group.images[t]
        if tails is not None:
            image = group.measured[t]
            spread = [b - predicted for b in blurred(predicted, tails)]
            columns[-len(spread) :] = spread
            predicted = predicted + sum(p * c for p, c in zip(tails.parts.astype(np.float32), spread, strict=True))
        misfit += add_products(columns, image - predicted, weights, normal, vector)
    return normal, vector, misfit


def fit_gains(series: Series, model: Model, n_tilts: int) -> tuple[Series, np.ndarray]:
    """Computes: brightness of every tilt beside the mean one, (tilt,), and the series with it."""
    sums = np.concatenate(series.map(_overlap, model))
    gains = np.divide(sums[:, 0], sums[:, 1], out=np.ones(n_tilts), where=sums[:, 1] > 0)
    gains /= gains.mean()
    return series.changed(with_gains, gains), gains


def with_gains(group: Group, gains: np.ndarray) -> Group:
    """The group with the brightness of its tilts among those of all."""
    return replace(group, gains=gains[group.numbers])


def fit_noise(series: Series, model: Model, *, uniform: bool = False) -> tuple[Series, Noise, float]:
    """Computes: the noise from what the model does not explain, and the series weighted by it.

    Parameters
    ----------
    series : Series
    model : Model
    uniform : bool
        All pixels have the same variance.

    Returns
    -------
    series : Series
        With weights 1 / (area * variance): sum w r^2 counts independent pixels.
    noise : Noise
    area : float
        Pixels that share one independent residual, 1 for white noise: sum of the autocorrelation of the weighted
        residuals over lags of up to 7 pixels along each axis. Pixels of images that were denoised, or residuals that
        are no noise at all, tell less than there are pixels.

    Notes
    -----
    Squared residuals are averaged over pixels of similar predicted intensity; a line is fitted to the averages, each
    counting as much as it is certain.
    """
    top = max(series.map(_brightest))
    parts = series.map(_residuals, model, top)
    bins = np.asarray(sum(part[0] for part in parts))
    noise = _line(bins.sum(axis=0, keepdims=True) if uniform else bins, top)
    area = _area(sum(part[1] for part in parts))
    return series.changed(weighted, model, noise, 1.0 / area), noise, area


def _line(sums: np.ndarray, top: float) -> Noise:
    """Variance against intensity from the sums of every bin."""
    enough = sums[:, 0] >= _LEAST_PIXELS
    count, intensity, square = sums[enough].T
    intensity, square = intensity / count, square / count
    if not len(count) or not square.max() > 0:
        return Noise(0.0, 1.0)
    if len(sums) == 1:
        return Noise(0.0, float(square[0]))
    gain, floor = 0.0, float(np.average(square, weights=count))
    for _ in range(3):  # weights from the variances of the averages, 2 v^2 / n
        spread = np.maximum(gain * intensity + floor, 1e-3 * square.max()) / np.sqrt(count)
        design = np.stack([intensity, np.ones_like(intensity)], axis=1) / spread[:, None]
        gain, floor = np.linalg.lstsq(design, square / spread, rcond=None)[0]
        if gain < 0:
            gain, floor = 0.0, float(np.average(square, weights=1 / spread**2))
        if floor < 0:
            gain, floor = float(np.sum(square * intensity / spread**2) / np.sum((intensity / spread) ** 2)), 0.0
    least = _VACUUM * top  # nothing is certain in the vacuum
    return Noise(float(gain), max(float(floor), float(gain) * least, 1e-12 * float(square.max())))


def _area(sums: np.ndarray) -> float:
    """Summed autocorrelation from products of residuals and numbers of pairs, by lag."""
    mean = np.divide(sums[0], sums[1], out=np.zeros_like(sums[0]), where=sums[1] > 0)
    zero = mean[_LAGS - 1, 0]
    return float(max(1.0, (mean[:, 0].sum() + 2.0 * mean[:, 1:].sum()) / zero)) if zero > 0 else 1.0


def weighted(group: Group, model: Model, noise: Noise, factor: float) -> Group:
    """The group whose measured pixels weigh factor / (gain * prediction + floor)."""
    weights = np.zeros_like(group.weights)
    for t, before in enumerate(group.weights):
        known = before > 0
        predicted = np.maximum(group.predicted(t, model)[known], 0.0)
        weights[t][known] = factor / (noise.gain * predicted + noise.floor)
    return replace(group, weights=weights)


def _overlap(group: Group, model: Model) -> np.ndarray:
    """Of every tilt: weighted products of the image with its prediction, and of this with itself, (t, 2)."""
    sums = np.zeros((len(group.numbers), 2))
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        predicted = group.predicted(t, model) / np.float32(group.gains[t])
        vector, normal = np.zeros(1), np.zeros((1, 1))
        add_products(predicted[None], image, weights, normal, vector)
        sums[t] = vector[0], normal[0, 0]
    return sums


def _brightest(group: Group) -> float:
    return float(group.images.max(initial=1e-30))


def _residuals(group: Group, model: Model, top: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every bin of predicted intensity: pixels, summed intensity, summed squared residual, (bin, 3).

    And by lag y = -7 ... 7, x = 0 ... 7 (2, 15, 8): sums of products of weighted residuals, and numbers of pairs.
    """
    bins, lags = np.zeros((_BINS, 3)), np.zeros((2, 2 * _LAGS - 1, _LAGS))
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        known = weights > 0
        predicted = group.predicted(t, model)
        residual = np.where(known, image - predicted, np.float32(0.0))
        number = np.clip(predicted[known] * np.float32(_BINS / top), 0, _BINS - 1).astype(np.intp)
        for column, values in enumerate((None, predicted[known], np.square(residual[known], dtype=np.float64))):
            bins[:, column] += np.bincount(number, values, _BINS)
        shape = tuple(fft.next_fast_len(n + _LAGS, real=True) for n in image.shape)
        for k, values in enumerate((np.sqrt(weights) * residual, known.astype(np.float32))):
            power = fft.irfft2(np.abs(fft.rfft2(values, shape)) ** 2, shape)
            lags[k] += np.concatenate([power[1 - _LAGS :, :_LAGS], power[:_LAGS, :_LAGS]])
    return bins, lags
