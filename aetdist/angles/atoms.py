"""The atoms in a volume stand for it: round, of one shape, at its peaks. They cannot follow what is misaligned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..geometry import ParallelGeometry
from ..project import ParallelProjector
from ..project._atom_kernels import add_rendered_atoms
from ._kernels import fit_peaks, local_maxima
from .model import as_volume

_GRAIN = 0.3  # Angstrom: lengths below are in voxels of this size, or in those that there are where they are coarser
_SMOOTHING = 0.8  # before peaks are looked for
_APART = 2  # around a peak all is lower
_LEAST_HEIGHT = 0.2  # of the typical height: lower peaks are noise
_ROUNDS = 6  # of the fit of all peaks
_LARGEST_STEP = 0.3
_WIDTHS = (0.5, 0.75, 1.1, 1.7, 2.8)
"""Of the Gaussians that add up to an atom's shape, as parts of its width. These constants were chosen on simulated
particles (1,700 atoms of three heights, noise of 5 and 20 %)."""
_WIDEST = _WIDTHS[-2:]  # take longest to render: done once and kept
_CUTOFF = 4.0


class Atoms(NamedTuple):
    """Peaks of a volume.

    Attributes
    ----------
    positions : ndarray, shape (peak, 3), float64
        Voxels along the axes of the volume's memory (y, z, x), from its first voxel.
    heights : ndarray, shape (peak,), float64
    width : float
        Standard deviation in voxels of the Gaussian that is nearest to their shape.
    """

    positions: np.ndarray
    heights: np.ndarray
    width: float


def find_atoms(memory: np.ndarray, voxel_size: float = _GRAIN) -> Atoms:
    """Peaks of a volume, fitted by Gaussians of one width, all together.

    Parameters
    ----------
    memory : ndarray, shape (y, z, x), float32
    voxel_size : float
        Angstrom.

    Returns
    -------
    Atoms
        None where the volume is flat.

    Notes
    -----
    Peaks that the first ones hide show in what is left of the volume without these: it is searched twice.
    Small voxels are smoothed over more of them: else every ripple of the noise is a peak.
    """
    grain = max(1.0, _GRAIN / voxel_size)
    places, heights, width = _peaks(memory, 0.0, grain)
    atoms = Atoms(places, heights, width)
    if not len(heights):
        return atoms
    atoms = _fitted(atoms, memory, grain)
    rest = memory.copy()
    _add(atoms, -1.0, 1.0, rest)
    places, heights, _ = _peaks(rest, _LEAST_HEIGHT * _typical(atoms.heights), grain)
    both = Atoms(np.concatenate([atoms.positions, places]), np.concatenate([atoms.heights, heights]), width)
    return _fitted(both, memory, grain)


def _peaks(memory: np.ndarray, least: float, grain: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Places (peak, 3) in voxels, heights and width of the local maxima that are high enough."""
    smoothing = grain * _SMOOTHING
    smooth = ndimage.gaussian_filter(memory, smoothing)
    places = np.array(local_maxima(smooth, round(grain * _APART), least), dtype=np.intp).reshape(-1, 3)
    heights = smooth[tuple(places.T)].astype(np.float64)
    if not len(places):
        return np.zeros((0, 3)), heights, 1.0
    high = heights > (least or _LEAST_HEIGHT * _typical(heights))
    places, heights = places[high], heights[high]
    positions, bends = places.astype(np.float64), np.empty((len(places), 3))
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        before, after = (smooth[tuple((places + s).T)].astype(np.float64) for s in (-step, step))
        bends[:, axis] = np.minimum(before + after - 2 * heights, -1e-9 * heights)
        positions[:, axis] += np.clip(0.5 * (before - after) / bends[:, axis], -0.6, 0.6)
    width = _width(bends / heights[:, None], smoothing)
    return positions, heights * (1.0 + (smoothing / width) ** 2) ** 1.5, width  # what smoothing has taken


def _fitted(atoms: Atoms, memory: np.ndarray, grain: float) -> Atoms:
    """The atoms where they explain the volume best; those that are nothing beside their neighbours left out."""
    positions, heights = atoms.positions.copy(), atoms.heights.copy()
    atoms = Atoms(positions, heights, atoms.width)
    reach = int(np.ceil(2.5 * atoms.width))
    for _ in range(_ROUNDS):
        difference = memory.copy()
        _add(atoms, -1.0, 1.0, difference)
        fit_peaks(difference, positions, heights, atoms.width, reach, grain * _LARGEST_STEP)
    kept = heights > 0.2 * _LEAST_HEIGHT * _typical(heights)
    return Atoms(positions[kept], heights[kept], atoms.width)


def atomic_model(
    memory: np.ndarray,
    geometry: ParallelGeometry,
    images: np.ndarray,
    masks: np.ndarray,
    *,
    voxel_size: float = _GRAIN,
    threads: int = 1,
) -> np.ndarray:
    """The volume with its atoms in place of itself; a volume without atoms is returned as it is.

    Parameters
    ----------
    memory : ndarray, shape (y, z, x), float32
        Volume.
    geometry : ParallelGeometry
        How the images see it.
    images : ndarray, shape (tilt, y, x), float32
    masks : ndarray, shape (tilt, y, x), bool
    voxel_size : float
        Angstrom.
    threads : int

    Returns
    -------
    ndarray, shape (y, z, x), float32

    Notes
    -----
    All atoms share the shape sum_k c_k exp(-r^2 / (2 w_k^2)), whose c_k minimise the squared residual of all
    images, each with a constant background of its own; a wide Gaussian among them takes up what lies between
    atoms. A reconstruction from misaligned images explains their misalignment by distorted and elongated atoms, and
    predicts each image where it was put; round atoms do not, so that what is off shows. They are also not drawn out
    along the missing wedge.
    """
    atoms = find_atoms(memory, voxel_size)
    if not len(atoms.heights):
        return memory
    projector = ParallelProjector(geometry, threads)
    seen, wide, part = [], [], np.empty_like(memory)
    for width in _WIDTHS:
        if width in _WIDEST:
            part = np.empty_like(memory)
            wide.append(part)
        part[...] = 0
        _add(atoms, 1.0, width, part)
        seen.append(_without_background(projector.forward(as_volume(part)), masks))
    normal = np.array([[np.dot(a, b.astype(np.float64)) for b in seen] for a in seen])
    measured = _without_background(images, masks).astype(np.float64)
    vector = np.array([np.dot(a, measured) for a in seen])
    shape = dict(zip(_WIDTHS, np.linalg.lstsq(normal, vector, rcond=1e-6)[0], strict=True))
    model = wide[0]
    model *= np.float32(shape[_WIDEST[0]])
    wide[1] *= np.float32(shape[_WIDEST[1]])
    model += wide[1]
    for width in _WIDTHS[:-2]:
        _add(atoms, shape[width], width, model)
    return model


def _without_background(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Pixels that count, float32, less the mean of those of their tilt."""
    pixels = [image[mask] for image, mask in zip(images, masks, strict=True) if mask.any()]
    return np.concatenate([p - p.mean(dtype=np.float64).astype(np.float32) for p in pixels])


def _add(atoms: Atoms, factor: float, width: float, memory: np.ndarray) -> None:
    """Add all atoms, `factor` times as high and `width` times as wide as the fitted Gaussian, to a volume's memory."""
    y, z, x = (np.ascontiguousarray(p) for p in atoms.positions.T)
    widths = np.full(len(y), width * atoms.width)
    add_rendered_atoms(x, z, y, factor * atoms.heights, widths, _CUTOFF, memory)


def _typical(heights: np.ndarray) -> float:
    """Height to which half of the summed height belongs: many low peaks of noise do not change it."""
    ordered = np.sort(heights)
    total = np.cumsum(ordered)
    return float(ordered[np.searchsorted(total, 0.5 * total[-1])])


def _width(bends: np.ndarray, smoothing: float) -> float:
    """Standard deviation in voxels of Gaussians from their relative second differences, smoothing taken out."""
    bend = float(np.median(np.clip(bends, -1.999, -1e-6)))
    seen = -1.0 / (2.0 * np.log1p(bend / 2.0))  # 2 (exp(-1 / (2 s^2)) - 1) = bend
    return float(np.sqrt(max(seen - smoothing**2, 0.5**2)))
