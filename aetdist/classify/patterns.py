"""The density in a small box around every atom, read block by block."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from ..blocks.halo import block_edges, with_halo
from ..errors import InputError
from ..schema import AXES
from ..voxels import not_finite, voxel_size
from ..voxels._spline_kernels import filter_axes, filter_taps
from ._kernels import pattern_reach, pattern_rule, sample_patterns

# As for tracing: a halo of some 15 voxels does not dominate, and a block's arrays are some 50 MB.
SMALLEST_BLOCK = 96
LARGEST_BLOCK = 192


def atom_patterns(
    volume: xr.Dataset, position: np.ndarray, *, sigma: float = 1.0, box: float = 0.8
) -> tuple[np.ndarray, list[Any]]:
    """Samples of the volume's spline around every atom, in parts: one for each block that holds atoms.

    Parameters
    ----------
    volume : xarray.Dataset
        ``schema.VOLUME``.
    position : ndarray, shape (n, 3), float64
        Atoms (x, y, z) in Angstrom, in the frame of the volume's coordinates.
    sigma : float
        Standard deviation, in voxels, of the Gaussian that smooths the volume first.
    box : float
        Edge of the box around an atom, in Angstrom.

    Returns
    -------
    order : ndarray, shape (n,), int64
        Which atoms the parts hold, one after the other.
    parts : list
        Arrays (m, 27) float32 of a NumPy density; ``dask.delayed`` ones of a lazy density (nothing is
        computed: each task slices its block and halo from the array). The samples lie at the nodes of
        Gauss' rule (:func:`~aetdist.classify._kernels.pattern_rule`).

    Raises
    ------
    InputError
        If an atom lies outside the volume, the volume is not a grid of cubes, its voxels are not finite, or
        sigma or the box is out of its range.
    """
    voxel = voxel_size(volume)
    if not (np.isfinite(box) and 0 < box <= 8 * voxel):
        raise InputError(
            f"box is {box} Angstrom; needed is a positive length, at most 8 voxels ({8 * voxel:.3g} Angstrom)."
        )
    if not (np.isfinite(sigma) and sigma >= 0):
        raise InputError(f"sigma is {sigma}; needed is a number of voxels, 0 or more.")
    density = volume["density"].data
    first = np.array([float(volume[axis][0]) for axis in AXES])
    place = ((position - first) / voxel)[:, ::-1]
    _refuse_outside(place, density.shape, position)
    # Half a voxel beyond the outermost counts as theirs.
    index = np.clip(np.floor(place).astype(np.int64), 0, np.array(density.shape) - 1)
    lazy = isinstance(density, da.Array)
    chunks = density.chunks if lazy else tuple((n,) for n in density.shape)
    edges = [
        np.array(block_edges(n, c, SMALLEST_BLOCK, LARGEST_BLOCK)) for n, c in zip(density.shape, chunks, strict=True)
    ]
    block = np.stack([np.searchsorted(e, index[:, i], side="right") - 1 for i, e in enumerate(edges)], axis=1)
    order = np.lexsort((np.arange(len(block)), *block.T[::-1]))
    starts = np.flatnonzero(np.r_[True, (np.diff(block[order], axis=0) != 0).any(axis=1)])
    nodes, _ = pattern_rule(box / voxel)
    reach, taps = pattern_reach(box / voxel), filter_taps(sigma)
    run = dask.delayed(_patterns_of_block) if lazy else _patterns_of_block
    parts = []
    for members in np.split(order, starts[1:]):
        core = tuple((int(e[b]), int(e[b + 1])) for e, b in zip(edges, block[members[0]], strict=True))
        region, pads = with_halo(core, density.shape, len(taps) - 1 + reach)
        local = index[members] - np.array([lo for lo, _ in core])
        where = ", ".join(f"{axis} {lo}..{hi - 1}" for axis, (lo, hi) in zip("zyx", core, strict=True))
        parts.append(run(density[region], pads, local, place[members] - index[members], nodes, taps, reach, where))
    return order, parts


def _refuse_outside(place: np.ndarray, shape: tuple[int, ...], position: np.ndarray) -> None:
    """Refuse atoms that are not among the voxels (half a voxel beyond the outermost is)."""
    outside = ((place < -0.5) | (place > np.array(shape) - 0.5)).any(axis=1)
    if outside.any():
        x, y, z = position[int(np.argmax(outside))]
        raise InputError(
            f"{int(outside.sum())} of {len(place)} atoms lie outside the volume, the first at ({x:.4g}, {y:.4g}, "
            f"{z:.4g}) Angstrom; give the volume that they were traced in, or leave those atoms out."
        )


def _patterns_of_block(
    block: np.ndarray,
    pads: tuple[tuple[int, int], ...],
    voxel: np.ndarray,
    offset: np.ndarray,
    nodes: np.ndarray,
    taps: np.ndarray,
    reach: int,
    where: str,
) -> np.ndarray:
    """Patterns of the atoms of one block; it comes with its halo but for `pads`."""
    block = np.asarray(block, dtype=np.float32)
    if not np.isfinite(block).all():
        raise InputError(not_finite(int((~np.isfinite(block)).sum()), f"the block of voxels {where}"))
    coefficients = filter_axes(np.pad(block, pads, mode="reflect"), taps)
    return sample_patterns(coefficients, reach, voxel, offset, nodes, reach)
