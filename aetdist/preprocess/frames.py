"""Frames of a tilt: how they drifted, which of them fit, and their mean, resampled once."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import AetdistWarning, InputError
from ..images import register, resample
from ..images.displacement import as_map, checked_local

__all__ = ["register_frames", "sum_frames", "warn_of_dropped"]

MAXIMUM_SHIFT = 32.0
"""Pixels that a frame may have drifted."""
MINIMUM_CORRELATION = 0.9
"""Of the best pair of its tilt: what two frames of one view must reach. Chosen on simulated frames of 200^2 pixels:
equal views reach 0.96 or more down to 1000 e/A^2 per tilt, a film that jumps by 2 pixels amid a frame 0.88, another
view of it 0.2. The outline of a small particle alone gives 0.9: a higher value is stricter there."""
_CHANCE = 0.3
"""A pair below this says nothing, even where it is the best of its tilt."""
_DIMS = ("tilt", "frame", "y", "x")


def register_frames(
    frames: xr.Dataset | xr.DataArray,
    *,
    maximum_shift: float = MAXIMUM_SHIFT,
    minimum_correlation: float = MINIMUM_CORRELATION,
) -> xr.Dataset:
    """Drift of the frames of every tilt since its first one; lazy where the frames are, one task per tilt.

    Parameters
    ----------
    frames : xarray.Dataset or xarray.DataArray
        FRAMES, or its ``frames``: (tilt, frame, y, x), floating, detector counts; NaN throughout where a
        tilt has fewer frames, NaN in pixels that were not measured.
    maximum_shift : float
        Largest drift between two frames along y and x, in pixels. Keep it below half the period of a lattice
        that fills the field.
    minimum_correlation : float
        Two frames fit each other if their correlation is at least this part of the best in their tilt.

    Returns
    -------
    xarray.Dataset
        ``frame_shift`` (tilt, frame, axis), float64, pixels [y, x]: frame(r + shift) shows what the first
        fitting frame shows at r; NaN for frames that are missing or blank. ``frame_kept`` (tilt, frame), bool:
        frames to sum. ``frame_correlation`` (tilt, frame), float64: the best with another frame of the tilt; NaN
        where there is none to compare with, 0 for a blank frame. For frames in memory an
        :class:`~aetdist.errors.AetdistWarning` names those that are left out; for lazy ones
        :func:`warn_of_dropped` does, once computed.

    Raises
    ------
    InputError
        If the frames have other dimensions, or an option cannot be.

    Notes
    -----
    Every pair of frames is registered (:func:`~aetdist.images.register`); the pairs that fit join frames to
    groups, of which the largest is kept (of two as large, the one with the earliest frame): a bad first frame
    spoils nothing. Shifts s minimise the sum over those pairs of |s_j - s_i - s_ij|^2. A frame that is left out
    has the shift to the group's first frame that was found, such as it is.

    References
    ----------
    J. P. Lewis, Vision Interface, 120-123 (1995).
    """
    array = _frames_of(frames)
    if not maximum_shift > 0 or not 0 <= minimum_correlation <= 1:
        raise InputError(
            f"maximum_shift came as {maximum_shift!r} and minimum_correlation as {minimum_correlation!r}; needed are "
            "pixels above 0, and 0 to 1."
        )
    shift, kept, correlation = xr.apply_ufunc(
        _register_tilt,
        array,
        kwargs={"maximum_shift": float(maximum_shift), "minimum_correlation": float(minimum_correlation)},
        input_core_dims=[["frame", "y", "x"]],
        output_core_dims=[["frame", "axis"], ["frame"], ["frame"]],
        exclude_dims={"frame"},
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64, np.bool_, np.float64],
        dask_gufunc_kwargs={"output_sizes": {"axis": 2, "frame": array.sizes["frame"]}},
    )
    found = xr.Dataset({"frame_shift": shift, "frame_kept": kept, "frame_correlation": correlation})
    found = found.assign_coords({"axis": ["y", "x"], **{k: array[k] for k in ("tilt", "frame") if k in array.coords}})
    for name, units in (("frame_shift", "pixel"), ("frame_kept", "1"), ("frame_correlation", "1")):
        found[name].attrs["units"] = units
    if array.chunks is None:
        warn_of_dropped(found)
    return found


def sum_frames(frames: xr.Dataset | xr.DataArray, corrections: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean of the kept frames of every tilt with all corrections, each frame resampled once; lazy as they are.

    Parameters
    ----------
    frames : xarray.Dataset or xarray.DataArray
        As for :func:`register_frames`.
    corrections : xarray.Dataset
        ``frame_shift`` and ``frame_kept`` (:func:`register_frames`); where present also ``distortion``
        (2, 2) and ``shift`` (tilt, axis) in pixels [y, x]: the scan's matrix D and the shift of a tilt; and
        ``local_shift`` (tilt, axis, term), what varies over the field (:data:`~aetdist.images.displacement.TERMS`).

    Returns
    -------
    images : xarray.DataArray, shape (tilt, y, x), float32
        image_t(r) = mean over kept frames f of frame_tf(D (r + a_t) + s_tf), r from the centre pixel n // 2, in
        detector counts of one frame; the mean, not the sum, as tilts need not have the same number of frames.
        0 where the mask is False.
    mask : xarray.DataArray, shape (tilt, y, x), bool
        True where every kept frame was measured: all pixels of a tilt have the same noise per count.

    Raises
    ------
    InputError
        If a correction is missing, or its shape does not fit the frames.
    """
    array = _frames_of(frames)
    n, n_frames = array.sizes["tilt"], array.sizes["frame"]
    missing = [name for name in ("frame_shift", "frame_kept") if name not in corrections]
    if missing:
        raise InputError(f"The corrections hold no {' and no '.join(missing)}; register_frames(frames) finds them.")
    distortion = np.asarray(corrections["distortion"].values) if "distortion" in corrections else np.eye(2)
    shift = corrections["shift"].data if "shift" in corrections else np.zeros((n, 2))
    given = {"distortion": distortion, "shift": shift} | {k: corrections[k] for k in ("frame_shift", "frame_kept")}
    needed = {"distortion": (2, 2), "shift": (n, 2), "frame_shift": (n, n_frames, 2), "frame_kept": (n, n_frames)}
    for name, value in given.items():
        if value.shape != needed[name]:
            raise InputError(f"{name} has shape {value.shape}; these frames need {needed[name]}.")
    parts = [
        xr.DataArray(corrections["frame_shift"].data, dims=("tilt", "frame", "axis")),
        xr.DataArray(corrections["frame_kept"].data, dims=("tilt", "frame")),
        xr.DataArray(shift, dims=("tilt", "axis")),
    ]
    local = checked_local(corrections["local_shift"].values if "local_shift" in corrections else None, n)
    if local is not None:
        parts.append(xr.DataArray(local, dims=("tilt", "axis", "term")))
    if array.chunks is not None:
        parts = [part.chunk({"tilt": 1, **{d: -1 for d in part.dims[1:]}}) for part in parts]
    images, mask = xr.apply_ufunc(
        _sum_tilt,
        array.drop_vars(["tilt", "frame"], errors="ignore"),
        *parts,
        kwargs={"distortion": distortion},
        input_core_dims=[["frame", "y", "x"], *(list(part.dims[1:]) for part in parts)],
        output_core_dims=[["y", "x"], ["y", "x"]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float32, np.bool_],
    )
    coords = {k: array[k] for k in ("tilt", "y", "x") if k in array.coords}
    return images.assign_coords(coords), mask.assign_coords(coords)


def warn_of_dropped(corrections: xr.Dataset) -> None:
    """Warn of the frames that are there and were left out.

    Parameters
    ----------
    corrections : xarray.Dataset
        What :func:`register_frames` found, computed.

    Warns
    -----
    AetdistWarning
        Names the tilts and frames with their correlation, and tilts of which nothing is left.
    """
    kept, correlation = corrections["frame_kept"].values, corrections["frame_correlation"].values
    dropped = np.argwhere(~kept & np.isfinite(correlation))
    if len(dropped):
        named = [
            f"frame {f} of tilt {t} (" + ("blank" if correlation[t, f] == 0 else f"{correlation[t, f]:.2f}") + ")"
            for t, f in dropped[:5]
        ]
        more = f" and {len(dropped) - 5} more" if len(dropped) > 5 else ""
        warnings.warn(
            f"{len(dropped)} of {kept.size} frames do not fit the others of their tilt and are left out "
            f"(best correlation): {', '.join(named)}{more}. Lower minimum_correlation to keep them.",
            AetdistWarning,
            stacklevel=2,
        )
    empty = np.flatnonzero(~kept.any(axis=1))
    if len(empty):
        warnings.warn(
            f"Tilts without a usable frame: {', '.join(map(str, empty))}; their images will be masked throughout.",
            AetdistWarning,
            stacklevel=2,
        )


def _frames_of(frames: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """The array of frames, one chunk per tilt where it is lazy."""
    array = frames["frames"] if isinstance(frames, xr.Dataset) and "frames" in frames else frames
    if not isinstance(array, xr.DataArray) or array.dims != _DIMS:
        raise InputError(
            f"Frames came with dimensions {tuple(map(str, array.dims))}; needed is (tilt, frame, y, x), all frames of "
            "one size: crop or pad those that differ."
        )
    return array if array.chunks is None else array.chunk({"tilt": 1, "frame": -1, "y": -1, "x": -1})


def _register_tilt(
    frames: np.ndarray, maximum_shift: float, minimum_correlation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift, whether it is kept, and best correlation of every frame of a tilt."""
    n = len(frames)
    shift, kept, correlation = np.full((n, 2), np.nan), np.zeros(n, np.bool_), np.full(n, np.nan)
    there = np.array([bool(np.isfinite(frame).any()) for frame in frames])
    usable = [int(f) for f in np.flatnonzero(there) if np.nanmin(_finite(frames[f])) < np.nanmax(_finite(frames[f]))]
    correlation[there] = 0.0
    correlation[usable] = np.nan
    if not usable:
        return shift, kept, correlation
    pairs = np.array(list(itertools.combinations(usable, 2)), dtype=np.intp).reshape(-1, 2)
    found = [register(frames[j], frames[i], maximum_shift=maximum_shift) for i, j in pairs]
    shifts = np.array([pair.shift for pair in found]).reshape(-1, 2)
    fit = np.array([pair.correlation for pair in found])
    for f in usable:
        correlation[f] = fit[(pairs == f).any(axis=1)].max(initial=-1.0) if len(pairs) else np.nan
    fits = fit >= max(minimum_correlation * fit.max(initial=0.0), _CHANCE)
    group = _largest_group(n, pairs[fits], usable)
    kept[group] = True
    first = group[0]
    inside = fits & kept[pairs].all(axis=1)
    difference = np.zeros((inside.sum() + 1, n))  # s_j - s_i of every pair, and s_first = 0
    rows = np.arange(inside.sum())
    difference[rows, pairs[inside, 1]], difference[rows, pairs[inside, 0]] = 1.0, -1.0
    difference[-1, first] = 1.0
    solved, *_ = np.linalg.lstsq(difference, np.vstack([shifts[inside], np.zeros((1, 2))]), rcond=None)
    shift[group] = solved[group] - solved[first]
    for f in set(usable) - set(group):
        (pair,) = np.flatnonzero((pairs == [min(f, first), max(f, first)]).all(axis=1))
        shift[f] = shifts[pair] if f > first else -shifts[pair]
    return shift, kept, correlation


def _finite(frame: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(frame), frame, np.nan)


def _largest_group(n: int, pairs: np.ndarray, usable: list[int]) -> np.ndarray:
    """Frames of the largest group that pairs join; of two as large, of that with the earliest frame."""
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    label = connected_components(links, directed=False)[1]
    sizes = [int((label[usable] == label[f]).sum()) for f in usable]
    return np.flatnonzero(label == label[usable[int(np.argmax(sizes))]])


def _sum_tilt(
    frames: np.ndarray,
    frame_shift: np.ndarray,
    kept: np.ndarray,
    shift: np.ndarray,
    local: np.ndarray | None = None,
    *,
    distortion: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the kept frames of a tilt, and where all of them were measured."""
    matrix, place, bend = distortion, distortion @ shift, None
    if local is not None:
        matrix, place, bend = as_map(shift, local, frames.shape[1:], distortion)
    total, mask = np.zeros(frames.shape[1:], np.float64), np.full(frames.shape[1:], bool(kept.any()))
    for frame, moved in zip(frames[kept], frame_shift[kept], strict=True):
        image, inside = resample(frame, matrix, place + moved, bend=bend)
        total += image
        mask &= inside
    return np.where(mask, total / max(1, int(kept.sum())), 0.0).astype(np.float32), mask
