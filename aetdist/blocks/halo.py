"""Blocks with a halo, as plain integers: what a block owns, what it reads, what the array lacks."""

from __future__ import annotations

import math
from itertools import pairwise

Span = tuple[int, int]


def block_edges(n: int, chunks: tuple[int, ...], smallest: int, largest: int) -> list[int]:
    """Where the blocks along an axis begin and end.

    Parameters
    ----------
    n : int
        Length of the axis in voxels.
    chunks : tuple of int
        Lengths of the chunks that the axis is stored in; they sum to `n`.
    smallest : int
        Chunks are merged until a block has so many voxels, so that its halo does not dominate.
    largest : int
        Longer blocks are split evenly.

    Returns
    -------
    list of int
        0, ..., n; blocks lie between successive edges.
    """
    edges, end = [0], 0
    for chunk in chunks:
        end += chunk
        length = end - edges[-1]
        if length >= smallest or end == n:
            pieces = math.ceil(length / largest)
            edges += [edges[-1] + length * i // pieces for i in range(1, pieces + 1)]
    if len(edges) > 2 and n - edges[-2] < smallest / 2:
        del edges[-2]
    return edges


def block_cores(edges: list[list[int]]) -> list[tuple[Span, ...]]:
    """Cores of all blocks in C order: (start, stop) along each of the three axes."""
    a, b, c = (list(pairwise(e)) for e in edges)
    return [(i, j, k) for i in a for j in b for k in c]


def with_halo(core: tuple[Span, ...], shape: tuple[int, ...], halo: int) -> tuple[tuple[slice, ...], tuple[Span, ...]]:
    """The voxels around a core that the array has, and how many it lacks on either side.

    Parameters
    ----------
    core : tuple of (int, int)
        (start, stop) of the block's own voxels along every axis.
    shape : tuple of int
        Shape of the array.
    halo : int
        Voxels that the block needs on either side.

    Returns
    -------
    region : tuple of slice
        What to read: core and halo, cut at the array's faces.
    pads : tuple of (int, int)
        Voxels to add before and after, so that core and halo are complete.
    """
    region, pads = [], []
    for (lo, hi), n in zip(core, shape, strict=True):
        start, stop = max(0, lo - halo), min(n, hi + halo)
        region.append(slice(start, stop))
        pads.append((start - (lo - halo), hi + halo - stop))
    return tuple(region), tuple(pads)
