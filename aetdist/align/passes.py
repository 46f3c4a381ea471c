"""Passes over a tilt series: one Dask task for each tilt, or for each pair of tilts, that returns a few numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np

from .common_lines import line_profiles, profile_bins


def per_tilt(data: Any) -> da.Array:
    """A Dask array of one chunk for each tilt."""
    chunks = (1, *data.shape[1:])
    return data.rechunk(chunks) if isinstance(data, da.Array) else da.from_array(data, chunks=chunks)


def profile_fan(images: da.Array, where: da.Array, start: tuple[float, float], axes: np.ndarray) -> da.Array:
    """Profiles and moments along several axes, shape (tilt, 2, axis, bins); see `line_profiles`."""
    bins = profile_bins(images.shape[1:], start, float(np.abs(axes).max()))[1]
    return da.map_blocks(
        _fan_block,
        images,
        where,
        start=start,
        axes=axes,
        drop_axis=(1, 2),
        new_axis=(1, 2, 3),
        chunks=((1,) * len(images), (2,), (len(axes),), (bins,)),
        dtype=np.float64,
        meta=np.empty((0, 0, 0, 0)),
    )


def over_tilts(
    function: Callable[..., np.ndarray],
    images: da.Array,
    mask: da.Array,
    numbers: np.ndarray,
    columns: int,
    **fixed: Any,
) -> da.Array:
    """`function(image, numbers[t], **fixed)` for every tilt, shape (tilt, columns); image is NaN where unmeasured."""
    return _rows(_tilt_block, [images, mask], numbers, columns, function=function, fixed=fixed)


def over_pairs(
    function: Callable[..., np.ndarray],
    images: da.Array,
    mask: da.Array,
    first: np.ndarray,
    second: np.ndarray,
    numbers: np.ndarray,
    columns: int,
    **fixed: Any,
) -> da.Array:
    """`function(image of first, image of second, numbers[p], **fixed)` for every pair, shape (pair, columns)."""
    arrays = [images[first], mask[first], images[second], mask[second]]
    return _rows(_pair_block, arrays, numbers, columns, function=function, fixed=fixed)


def _rows(
    block: Callable[..., np.ndarray], arrays: list[da.Array], numbers: np.ndarray, columns: int, **options: Any
) -> da.Array:
    numbers = np.asarray(numbers, dtype=np.float64).reshape(len(arrays[0]), -1)
    table = da.from_array(numbers[:, :, None], chunks=(1, -1, -1), name=False)
    return da.map_blocks(
        block,
        *arrays,
        table,
        **options,
        drop_axis=2,
        chunks=((1,) * len(numbers), (columns,)),
        dtype=np.float64,
        meta=np.empty((0, 0)),
    )


def _with_nan(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask & np.isfinite(image), image, np.nan)


def _fan_block(image: np.ndarray, where: np.ndarray, *, start: tuple[float, float], axes: np.ndarray) -> np.ndarray:
    return np.stack(line_profiles(image[0], where[0] & np.isfinite(image[0]), start, axes))[None]


def _tilt_block(
    image: np.ndarray,
    mask: np.ndarray,
    numbers: np.ndarray,
    *,
    function: Callable[..., np.ndarray],
    fixed: dict[str, Any],
) -> np.ndarray:
    return function(_with_nan(image[0], mask[0]), numbers[0, :, 0], **fixed)[None]


def _pair_block(
    first: np.ndarray,
    first_mask: np.ndarray,
    second: np.ndarray,
    second_mask: np.ndarray,
    numbers: np.ndarray,
    *,
    function: Callable[..., np.ndarray],
    fixed: dict[str, Any],
) -> np.ndarray:
    images = _with_nan(first[0], first_mask[0]), _with_nan(second[0], second_mask[0])
    return function(*images, numbers[0, :, 0], **fixed)[None]
