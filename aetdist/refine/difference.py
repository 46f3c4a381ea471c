"""What the atoms do not explain: residual images, their backprojection, and atoms that would explain it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from ..geometry import ParallelGeometry
from ..project import ParallelProjector
from ._kernels import curvature, pull
from .series import Series
from .tilts import Group, Model

_MARGIN = 3.0  # Angstrom around the atoms in which more are looked for
_BLOCK = 256  # voxels of a backprojected block along every axis
_HALO = 2
_ABOVE = 2.5  # robust standard deviations of the difference map: lower maxima are not tried


class Candidates(NamedTuple):
    """Maxima of the difference map.

    Attributes
    ----------
    positions : ndarray, shape (n, 3), float64
        Angstrom.
    heights : ndarray, shape (n,), float64
        Of the Gaussian there that explains most, everything else as it is.
    significance : ndarray, shape (n,), float64
        Height over its standard deviation.
    """

    positions: np.ndarray
    heights: np.ndarray
    significance: np.ndarray

    def select(self, which: np.ndarray) -> Candidates:
        """Some of the candidates."""
        return Candidates(self.positions[which], self.heights[which], self.significance[which])


def residuals(group: Group, model: Model) -> np.ndarray:
    """What was measured and is not predicted, (tilt, y, x) float32; 0 where nothing was measured."""
    left = np.empty_like(group.images)
    for t, (image, weights) in enumerate(zip(group.images, group.weights, strict=True)):
        left[t] = np.where(weights > 0, image - group.predicted(t, model), 0.0)
    return left


def find_candidates(series: Series, model: Model, sigma: float, apart: float) -> Candidates:
    """Computes: places where an atom more would explain what is left, the highest first, `apart` from each other.

    Parameters
    ----------
    series : Series
    model : Model
    sigma : float
        Standard deviation in Angstrom of an atom.
    apart : float
        Angstrom.

    Notes
    -----
    Residual images are filtered by |k| along the direction across the tilt axis and by the atoms' own Gaussian, and
    backprojected; of the maxima those count that stand out of the map's own spread.
    """
    filtered = series.changed(filtered_residuals, model, sigma)
    size = series.pixel_size
    low = np.floor((model.positions.min(axis=0) - _MARGIN) / size).astype(int)
    high = np.ceil((model.positions.max(axis=0) + _MARGIN) / size).astype(int) + 1
    near = cKDTree(model.positions)
    positions, values, spread = [], [], []
    for start in np.ndindex(*-(-(high - low) // _BLOCK)):
        first = low + _BLOCK * np.array(start)
        end = np.minimum(first + _BLOCK, high)
        block = filtered.sum(_backprojected, first - _HALO, end + _HALO)
        where, value, mad = _maxima(block)
        where = (where[:, ::-1] - _HALO + first) * size
        positions.append(where)
        values.append(value)
        spread.append(mad)
    place, value = np.concatenate(positions), np.concatenate(values)
    high_enough = value > _ABOVE * max(np.median(spread), 1e-30)
    place, value = place[high_enough], value[high_enough]
    close = near.query(place)[0] <= _MARGIN if len(place) else np.zeros(0, bool)
    place = place[close]
    return judged_candidates(series, model, place, sigma, apart)


def judged_candidates(series: Series, model: Model, place: np.ndarray, sigma: float, apart: float) -> Candidates:
    """Candidates at these places: how high the atom is that explains most there."""
    if not len(place):
        return Candidates(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    unit = Model(place, np.ones(len(place)), np.full(len(place), sigma))
    along, square = series.sum(_match, model, unit)
    known = square > 0
    heights = np.where(known, along / np.where(known, square, 1.0), 0.0)
    found = Candidates(place, heights, heights * np.sqrt(square))
    order = np.lexsort((*place.T, -heights))
    found = found.select(order)
    return found.select(_apart(found.positions, apart))


def _match(group: Group, model: Model, unit: Model) -> np.ndarray:
    """Weighted product of the residuals with every candidate's image, and of this with itself."""
    n = len(unit.heights)
    along, square = np.zeros(n), np.zeros(n)
    out, products = np.empty((n, 4)), np.empty((n, 10))
    for t, left in enumerate(residuals(group, model)):
        seen = group.seen(t, unit)
        pull(*seen, group.weights[t] * left, out)
        curvature(*seen, group.weights[t], products)
        along += out[:, 2]
        square += products[:, 7]
    return np.array([along, square])


def filtered_residuals(group: Group, model: Model, sigma: float) -> Group:
    """The group of its residuals alone, filtered by |k_x| and by a Gaussian of `sigma` Angstrom."""
    images, s = residuals(group, model), sigma / group.pixel_size
    ny, nx = images.shape[1:]
    shape = (fft.next_fast_len(ny + 16), fft.next_fast_len(2 * nx))
    ky, kx = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])
    window = kx * np.exp(-2.0 * (np.pi * s) ** 2 * (kx**2 + ky**2))
    for image in images:
        image[:] = fft.irfft2(fft.rfft2(image, shape) * window, shape)[:ny, :nx]
    return replace(group, raw=images, measured=images, images=images, weights=images)


def _backprojected(group: Group, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Images backprojected into voxels first ... end - 1, (x, y, z) from the origin, as (z, y, x) float32."""
    nx, ny, nz = (int(n) for n in end - first)
    x, y, z = (float(n) for n in first)
    geometry = ParallelGeometry(group.matrices, (nz, ny, nx), (z, y, x), group.images.shape[1:], group.corners)
    return np.asarray(ParallelProjector(geometry).adjoint(group.images))


def _maxima(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Positions (z, y, x) in voxels, values and robust spread of the local maxima inside the block's halo."""
    core = tuple(slice(_HALO, -_HALO) for _ in range(3))
    highest = (block == ndimage.maximum_filter(block, 3))[core] & (block[core] > 0)
    where = np.argwhere(highest) + _HALO
    values = block[tuple(where.T)]
    positions = where.astype(np.float64)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        before, after = (block[tuple((where + s).T)].astype(np.float64) for s in (-step, step))
        curve = before + after - 2.0 * values
        positions[:, axis] += np.where(
            curve < 0, np.clip(0.5 * (before - after) / np.minimum(curve, -1e-30), -0.5, 0.5), 0
        )
    sample = block[core].ravel()[:: max(1, block.size // 200_000)]
    return positions, values, float(1.4826 * np.median(np.abs(sample - np.median(sample))))


def _apart(positions: np.ndarray, distance: float) -> np.ndarray:
    """Which points stay (bool) when each that stays removes all later ones nearer than `distance`."""
    stays = np.ones(len(positions), bool)
    pairs = cKDTree(positions).query_pairs(distance, output_type="ndarray")
    later: dict[int, list[int]] = {}
    for i, j in np.sort(pairs, axis=1):
        later.setdefault(int(i), []).append(int(j))
    for i in sorted(later):
        if stays[i]:
            stays[later[i]] = False
    return stays
