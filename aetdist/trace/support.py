"""Where in a volume the matter is."""

from __future__ import annotations

import math
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label

from ..errors import InputError
from ..schema import VOLUME, check
from ..voxels import voxel_size
from . import _kernels

CELL = 1.1  # Angstrom: voxels are averaged over cells no longer than this first
# Two classes are vacuum and matter if they explain this part of the variance: the halves of one normal class
# explain 0.64, those of the inside of simulated glasses 0.55 to 0.59.
TWO_CLASSES = 0.7
# Else there is matter wherever the density is more than this part of the denser half's.
LEAST_DENSITY = 0.5
# Parts smaller than this part of the largest one are noise.
SMALLEST_PART = 0.01
BINS = 512
SLAB = 16  # planes of cells whose distances are found at once


def find_support(volume: xr.Dataset, *, smoothing: float = 2.5, margin: float = 0.0) -> xr.DataArray:
    """Computes: where the matter is, from the density alone.

    Parameters
    ----------
    volume : xarray.Dataset
        ``schema.VOLUME``: `density` (z, y, x) with coordinates in Angstrom. A lazy density is read block by
        block on the current Dask client.
    smoothing : float
        Standard deviation, in Angstrom, of the Gaussian that smooths the density: about the distance of
        neighbouring atoms, so that the gaps between them close.
    margin : float
        How far the support reaches beyond the matter, in Angstrom: 0 for a tight support; for a loose one
        some 3, so that no atom at the surface is lost.

    Returns
    -------
    xarray.DataArray
        (z, y, x) bool, True in matter, with the coordinates of the density; lazy if the density is.

    Raises
    ------
    InputError
        If the volume is not a grid of cubes, is nowhere positive or not finite, or an option is out of range.

    Notes
    -----
    Voxels are averaged over cells of at most 1.1 Angstrom, which alone are held in memory; the cells are
    smoothed and parted into two classes (Otsu); where these do not explain 70 % of the variance, matter fills
    the volume but for what has less than half the density of the denser class. Holes are filled, small parts
    left out, and the rest is widened by the margin. The threshold is one for the whole volume: the support
    does not depend on the blocks.
    """
    inside, factor = matter_cells(volume, smoothing=smoothing, margin=margin)
    density = volume["density"]
    support = _voxels_of(inside, factor, density.data)
    return xr.DataArray(support, dims=("z", "y", "x"), coords=density.coords, name="support")


def matter_cells(volume: xr.Dataset, *, smoothing: float = 2.5, margin: float = 0.0) -> tuple[np.ndarray, int]:
    """Computes: the support of :func:`find_support`, whose parameters these are, on its cells.

    Returns
    -------
    inside : ndarray, shape (cells_z, cells_y, cells_x), bool
        True in matter.
    factor : int
        Voxels along the edge of a cell; cell i holds the voxels i factor ... (i + 1) factor - 1.
    """
    check(volume, VOLUME)
    voxel = voxel_size(volume)
    if not (np.isfinite(smoothing) and smoothing > 0):
        raise InputError(f"smoothing is {smoothing}; needed is a positive length in Angstrom.")
    if not (np.isfinite(margin) and margin >= 0):
        raise InputError(f"margin is {margin}; needed is a length in Angstrom, 0 or more.")
    factor = max(1, math.floor(CELL / voxel))
    cells = _cell_means(volume["density"].data, factor)
    if not np.isfinite(cells).all():
        raise InputError("The density is not finite everywhere; fill it (volume.fillna(0)) first.")
    step = factor * voxel
    smooth = gaussian_filter(cells, smoothing / step, mode="nearest")
    if smooth.max() <= 0:
        raise InputError(f"The density is nowhere positive (smoothed: at most {smooth.max():.3g}): there is no matter.")
    inside = _large_parts(binary_fill_holes(smooth > _matter_threshold(smooth)))
    if margin > 0:
        inside = _grown(inside, margin / step)
    return inside, factor


def _grown(inside: np.ndarray, reach: float) -> np.ndarray:
    """Cells no farther than `reach` cells from one that is inside, slab by slab: distances take 48 bytes a cell."""
    grown, halo = np.zeros_like(inside), math.ceil(reach)
    for first in range(0, len(inside), SLAB):
        low = max(0, first - halo)
        part = inside[low : first + SLAB + halo]
        if part.any():
            near = distance_transform_edt(~part) <= reach
            grown[first : first + SLAB] = near[first - low : first - low + SLAB]
    return grown


def _cell_means(density: np.ndarray | da.Array, factor: int) -> np.ndarray:
    """Mean over cells of factor^3 voxels, those at the far faces of what there is; float32 (z, y, x)."""
    edges = [_cell_edges(c, n, factor) for n, c in zip(density.shape, _chunks(density), strict=True)]
    result = np.empty(tuple(math.ceil(n / factor) for n in density.shape), dtype=np.float32)
    run = dask.delayed(_block_means) if isinstance(density, da.Array) else _block_means
    regions = [
        tuple(slice(*span) for span in spans)
        for spans in ((i, j, k) for i in pairwise(edges[0]) for j in pairwise(edges[1]) for k in pairwise(edges[2]))
    ]
    means = dask.compute(*[run(density[region], factor) for region in regions])
    for region, mean in zip(regions, means, strict=True):
        result[tuple(slice(s.start // factor, math.ceil(s.stop / factor)) for s in region)] = mean
    return result


def _chunks(density: np.ndarray | da.Array) -> tuple[tuple[int, ...], ...]:
    """Chunks of an array; a NumPy array goes in slabs."""
    if isinstance(density, da.Array):
        return density.chunks
    n = density.shape[0]
    return (64,) * (n // 64) + (n % 64,) * (n % 64 > 0), *((m,) for m in density.shape[1:])


def _cell_edges(chunks: tuple[int, ...], n: int, factor: int) -> list[int]:
    """Ends of the chunks, moved to ends of cells."""
    ends = {min(n, round(end / factor) * factor) for end in np.cumsum(chunks)[:-1].tolist()}
    return sorted({0, *ends, n})


def _block_means(block: np.ndarray, factor: int) -> np.ndarray:
    # One kind of array (writeable float32), so that the kernel is compiled once.
    return _kernels.cell_means(np.require(block, np.float32, ["C", "W"]), factor)


def _matter_threshold(smooth: np.ndarray) -> float:
    """Otsu's threshold between vacuum and matter; a lower one where matter fills the volume."""
    counts, edges = np.histogram(smooth, bins=BINS, range=(0.0, float(smooth.max())))
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = total[:-1] / below, (total[-1] - total[:-1]) / above
        between = np.nan_to_num(below * above * (high - low) ** 2)
    split = int(np.argmax(between))
    n, mean = counts.sum(), total[-1] / counts.sum()
    if between[split] >= TWO_CLASSES * n * (counts @ (middle - mean) ** 2):
        return float(edges[split + 1])
    return float(min(edges[split + 1], LEAST_DENSITY * high[split]))


def _large_parts(inside: np.ndarray) -> np.ndarray:
    """The connected parts (by faces) that are not much smaller than the largest."""
    parts, n = label(inside)
    if n <= 1:
        return inside
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= SMALLEST_PART * sizes.max())[parts]


def _voxels_of(cells: np.ndarray, factor: int, density: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Cells as voxels; lazy, in the chunks of the density, if that is."""
    if isinstance(density, da.Array):
        lazy = da.from_array(cells, chunks=64)
        for axis in range(3):
            lazy = da.repeat(lazy, factor, axis=axis)
        return lazy[tuple(slice(n) for n in density.shape)].rechunk(density.chunks)
    for axis in range(3):
        cells = np.repeat(cells, factor, axis=axis)
    return cells[tuple(slice(n) for n in density.shape)]
