"""The coarse film: the whole field at low resolution, and from it height, thickness, and starting volumes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from .._threads import kernel_threads
from ..geometry import ParallelGeometry
from ..io import open_dataset
from ..project import ParallelProjector
from .grid import Field, require_finite, require_measured, volume_grid
from .solvers import Objective, largest_eigenvalue, solve

SERIES, COARSE, FILM = "tilt_series/aligned", "scan/coarse", "volume"  # groups of the store
COARSEST_VOXEL = 1.3  # Angstrom: larger voxels do not show atoms any more
_BAND_PIXELS = 2**21
_TEXTURE_SCALE = 2.0  # Angstrom: what varies over less than this is atoms
_IN_PLANE_SIGMA, _HEIGHT_SIGMA = 7.0, 1.0  # Angstrom: smooths over atoms, follows islands
_GAP = 4.0  # Angstrom: a thinner layer without texture is part of the film
_SURFACE = 0.55  # of a column's own level: where the film's surface is
_LEAST_TEXTURE = 0.05  # of the field's level (a variance): less is vacuum


@dataclass(frozen=True)
class CoarseFilm:
    """The grid of a coarse volume: `factor` fine voxels along each edge.

    ``start`` is the fine coordinate (z, y, x) of the middle of its first voxel.
    """

    factor: int
    start: tuple[float, float, float]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, first: tuple[int, int, int], shape: tuple[int, int, int], factor: int) -> CoarseFilm:
        """The grid that covers fine voxels `first`..`first` + `shape` - 1 with blocks of `factor`^3."""
        start = tuple(f + (factor - 1) / 2 for f in first)
        return cls(factor, start, tuple(-(-n // factor) for n in shape))  # type: ignore[arg-type]


def coarse_film(field: Field, thickness: float, window: tuple[int, int]) -> CoarseFilm:
    """The coarse grid of a film of this thickness (Angstrom) that is scanned in windows of so many pixels (y, x).

    Its binning is the smallest, 2 or more, that leaves no more voxels than a local volume has, as long as atoms show.
    """
    first, shape = volume_grid(field, None, thickness)
    depth = shape[0]
    widest = 1.0 / np.abs(np.linalg.det(field.matrices[:, :2, :2])).min()
    local = depth * window[0] * (window[1] + depth) * widest
    wanted = int(np.ceil((np.prod(shape, dtype=np.float64) / local) ** (1 / 3)))
    return CoarseFilm.of(first, shape, max(1, min(max(2, wanted), int(COARSEST_VOXEL / field.pixel_size))))


def binned_series(path: str, group: str, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Images averaged over factor x factor measured pixels, and where at least half of them were measured.

    Reads a band of one tilt at a time and refuses what `measured` refuses. Returns float32 and bool, both
    (tilt, ceil(y / factor), ceil(x / factor)).
    """
    series = open_dataset(path, group)
    n_tilts, ny, nx = series["images"].shape
    shape = (n_tilts, -(-ny // factor), -(-nx // factor))
    images, mask = np.zeros(shape, np.float32), np.zeros(shape, bool)
    band = factor * max(1, _BAND_PIXELS // (factor * nx))  # rows at a time: images of a large field take much memory
    padding = (0, shape[2] * factor - nx)
    for t, low in itertools.product(range(n_tilts), range(0, ny, band)):
        rows = slice(low, min(ny, low + band))
        image, measured = series["images"][t, rows].values, series["mask"][t, rows].values
        require_finite(image, measured)
        pads = ((0, -len(image) % factor), padding)
        seen, values = np.pad(measured, pads), np.pad(image.astype(np.float64), pads)
        blocks = (-1, factor, shape[2], factor)
        count = seen.reshape(blocks).sum(axis=(1, 3))
        total = np.where(seen, values, 0.0).reshape(blocks).sum(axis=(1, 3))
        part = slice(low // factor, low // factor + len(count))
        mask[t, part] = 2 * count >= factor * factor
        images[t, part] = np.where(mask[t, part], total / np.maximum(count, 1), 0.0)
    require_measured(mask)
    return images, mask


def reconstruct_coarse(path: str, group: str, field: Field, coarse: CoarseFilm, iterations: int) -> np.ndarray:
    """The whole field at low resolution, (z, y, x) float32, in intensity per FINE voxel.

    Projections sum in steps of a voxel, so that a volume on voxels of s fine ones has s times the
    density; it is divided out.
    """
    s = coarse.factor
    images, mask = binned_series(path, group, s)
    start = (np.asarray(field.detector_start) + (s - 1) / 2) / s
    geometry = ParallelGeometry(
        field.matrices,
        coarse.shape,
        tuple(v / s for v in coarse.start),  # type: ignore[arg-type]
        images.shape[1:],  # type: ignore[arg-type]
        np.tile(start, (len(field.matrices), 1)),
    )
    solution = solve(
        Objective(ParallelProjector(geometry, kernel_threads()), images, mask),
        solver="fista",
        iterations=iterations,
        step=1.0 / largest_eigenvalue(geometry),
    )
    return solution.volume / np.float32(s)


def height_and_thickness(density: np.ndarray, z: np.ndarray, voxel: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the film lies in every column of a coarse volume.

    Parameters
    ----------
    density : ndarray, shape (z, y, x)
        Its voxels must still show atoms: 1.3 Angstrom or less.
    z : ndarray, shape (z,), float64
        Heights of the voxels in Angstrom.
    voxel : float
        Edge of a voxel in Angstrom.

    Returns
    -------
    height, thickness : ndarray, shape (y, x), float64
        Middle between the two surfaces, and their distance, in Angstrom; NaN and 0 where there is
        no matter.

    Notes
    -----
    How the mean density of a wide film varies with height lies in the missing wedge; the texture of
    its atoms does not. A surface is where the local variance of the density (less its mean over
    2 Angstrom in the plane, smoothed over 7 Angstrom in the plane and 1 Angstrom in height) falls to
    0.55 of the column's own level, the median of what is above half of its maximum. The constants
    were set on simulated wavy wedges (23-45 Angstrom thick, waves of 8-15 Angstrom).
    """
    density = np.asarray(density, dtype=np.float32)
    plane = np.array([0.0, 1.0, 1.0])
    texture = (density - ndimage.gaussian_filter(density, _TEXTURE_SCALE / voxel * plane, mode="nearest")) ** 2
    texture = ndimage.gaussian_filter(texture, (plane * _IN_PLANE_SIGMA + (1 - plane) * _HEIGHT_SIGMA) / voxel)
    peak = texture.max(axis=0)
    level = _SURFACE * np.nanmedian(np.where(texture >= 0.5 * peak, texture, np.nan), axis=0)
    matter = peak > _LEAST_TEXTURE * np.percentile(peak, 90)
    first, last = _run_about(texture.argmax(axis=0), texture >= level, max(1, round(_GAP / voxel)))
    bottom, top = _crossing(texture, level, first, z, -1), _crossing(texture, level, last, z, +1)
    height = np.where(matter, 0.5 * (bottom + top), np.nan)
    return height, np.where(matter, top - bottom, 0.0)


def _run_about(index: np.ndarray, above: np.ndarray, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last True of the run of every column that holds `index`; gaps of up to `gap` voxels are bridged."""
    padding = ((gap, gap), (0, 0), (0, 0))
    closed = ndimage.binary_closing(np.pad(above, padding), np.ones((gap + 1, 1, 1), bool))[gap:-gap]
    z = np.arange(len(above))[:, None, None]
    outside = ~closed
    first = np.where(outside & (z < index), z, -1).max(axis=0) + 1
    last = np.where(outside & (z > index), z, len(above)).min(axis=0) - 1
    return first, last


def _crossing(profile: np.ndarray, level: np.ndarray, index: np.ndarray, z: np.ndarray, side: int) -> np.ndarray:
    """Height where the profile falls to `level` between voxel `index` and its neighbour at `side`."""
    step = z[1] - z[0] if len(z) > 1 else 1.0
    neighbour = index + side
    inside = np.take_along_axis(profile, index[None], axis=0)[0]
    clipped = np.clip(neighbour, 0, len(z) - 1)
    outside = np.where(clipped == neighbour, np.take_along_axis(profile, clipped[None], axis=0)[0], 0.0)
    fraction = np.clip((inside - level) / np.maximum(inside - outside, 1e-12), 0.0, 1.0)
    return z[index] + side * fraction * step


def start_volume(
    coarse_density: Any, coarse: CoarseFilm, first: tuple[int, int, int], shape: tuple[int, int, int]
) -> np.ndarray:
    """A coarse volume on a fine grid by linear interpolation (nearest beyond its border), (z, y, x) float32.

    `coarse_density` may be any lazily indexed array; only what is needed is read.
    """
    parts, weights = [], []
    for axis in range(3):
        position = (np.arange(first[axis], first[axis] + shape[axis]) - coarse.start[axis]) / coarse.factor
        position = np.clip(position, 0, coarse.shape[axis] - 1)
        low = np.minimum(np.floor(position).astype(int), max(0, coarse.shape[axis] - 2))
        parts.append(low)
        weights.append((position - low).astype(np.float32))
    window = tuple(slice(int(p.min()), int(p.max()) + 2) for p in parts)
    array = np.asarray(coarse_density[window], dtype=np.float32)
    for axis in (0, 1):
        array = _interpolated(array, parts[axis] - window[axis].start, weights[axis], axis)
    volume = np.empty(shape, np.float32)
    for plane, coarse_plane in zip(volume, array, strict=True):  # one at a time: nothing else is as large as the volume
        plane[...] = _interpolated(coarse_plane, parts[2] - window[2].start, weights[2], 1)
    return volume


def _interpolated(array: np.ndarray, low: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along an axis, between `low` and the next, which counts `weight`."""
    high = np.minimum(low + 1, array.shape[axis] - 1)
    f = weight.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    return np.take(array, low, axis=axis) * (1 - f) + np.take(array, high, axis=axis) * f


def coarse_dataset(density: np.ndarray, coarse: CoarseFilm, size: float) -> xr.Dataset:
    """A coarse volume with its coordinates (Angstrom), height and thickness maps."""
    axes = [(s + coarse.factor * np.arange(n)) * size for s, n in zip(coarse.start, coarse.shape, strict=True)]
    height, thickness = height_and_thickness(density, axes[0], coarse.factor * size)
    return xr.Dataset(
        {
            "density": (("z", "y", "x"), density),
            "height": (("y", "x"), height),
            "thickness": (("y", "x"), thickness),
        },
        coords={name: (name, axis, {"units": "angstrom"}) for name, axis in zip("zyx", axes, strict=True)},
    )
