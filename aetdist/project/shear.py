"""The shear-warp factorisation of a geometry, planned before any voxel is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..geometry import ParallelGeometry
from ._kernels import TOGETHER, group_planes
from ._warp_kernels import HALF_WIDTH

# Sample axes in the order of array axes (z, y, x) -> component of a vector (x, y, z).
_COMPONENT = (2, 1, 0)
# Array axes of planes, rows and columns for each principal axis.
_AXES = ([0, 1, 2], [1, 0, 2], [2, 1, 0])
# Shifts along columns are whole multiples of 1 / 6 voxel, with the error carried over to the next plane. Shifts along
# rows, which change slowly in a series about y, are shared by neighbouring planes that differ by at most 1 / 8 voxel.
_STEPS_X, _STEPS_Y = 6, 8
_ATOM_SIGMA = 1.2  # voxels: the smallest atom that the filter is weighted for (0.4 Angstrom at 0.35 Angstrom a voxel)
_W = np.linspace(0, np.pi, 17)[1:]  # frequencies at which the filter is fitted
_BASIS = 2.0 * (np.cos(np.outer(_W, np.arange(1, HALF_WIDTH + 1))) - 1.0)
_ATOM = np.exp(-0.5 * (_ATOM_SIGMA * _W) ** 2)
_REACH = HALF_WIDTH + 4  # columns by which splines and filter reach beyond what they are given


class Shears(NamedTuple):
    """How planes are summed into the sheared images of some tilts, and spread back.

    A run is what planes share that shift alike along rows; a slot is what planes of a run share that
    also have the same fraction of a shift along columns; a group is four planes of a slot that are
    summed in one pass. Planes are spread back from four tilts, a quartet, in one pass.

    boxes : int64 (tilt, 4)
        First row, first column, rows and columns of every sheared image, in voxel indices.
    offsets : int64 (tilt,)
        Where each sheared image starts, after HALF_WIDTH empty rows.
    run_start, slot_start, group_start : int64 (tilt + 1,), (run + 1,), (slot + 1,)
        Where the runs of a tilt start, the slots of a run, the groups of a slot.
    iy, wy : int64 (run,), float32 (run, 3)
        Volume row y goes to sheared rows y + iy - 1, y + iy and y + iy + 1 with these weights.
    wx : float32 (slot, 3)
        Weights of the sheared columns before, at and after the one that a voxel is moved to.
    least, most : int64 (slot,)
        Smallest and largest whole shift along columns in a slot.
    first, last : int64 (slot,)
        Sheared columns that a slot reaches, as far as they count: -1 to columns + 1.
    group_first, group_last : int64 (group,)
        The same for every group.
    group_position : int64 (group, 4)
        Where the four rows have column `group_first`; see `_kernels.group_planes`.
    spread_start : int64 (slot,)
        Where the row of a slot starts that is spread back, sheared column `least` first.
    spread_size : int
        Length of all such rows of a quartet.
    spread_first, spread_last : int64 (quartet, plane)
        Columns of a plane that a quartet sees.
    spread_position : int64 (quartet, plane, 4)
        Where the rows of its four tilts have column `spread_first`.
    """

    boxes: np.ndarray
    offsets: np.ndarray
    run_start: np.ndarray
    slot_start: np.ndarray
    group_start: np.ndarray
    iy: np.ndarray
    wy: np.ndarray
    wx: np.ndarray
    least: np.ndarray
    most: np.ndarray
    first: np.ndarray
    last: np.ndarray
    group_first: np.ndarray
    group_last: np.ndarray
    group_position: np.ndarray
    spread_start: np.ndarray
    spread_size: int
    spread_first: np.ndarray
    spread_last: np.ndarray
    spread_position: np.ndarray


class Warps(NamedTuple):
    """How the sheared images of some tilts are filtered and resampled onto the detector.

    boxes, offsets
        As in `Shears`.
    tilt : int64 (tilt,)
        Which images these are.
    row_taps, column_taps : float32 (tilt, taps)
        g_0..g_h of the symmetric filters along the rows' index and the columns' index.
    inverse : float64 (tilt, 2, 2)
        Steps (row, column) in the sheared image for one pixel along detector y and x.
    origin : float64 (tilt, 2)
        Sheared (row, column) of detector pixel [0, 0].
    scale : float64 (tilt,)
        1 / |ray direction along the principal axis|: from a sum over planes to one along the ray.
    """

    boxes: np.ndarray
    offsets: np.ndarray
    tilt: np.ndarray
    row_taps: np.ndarray
    column_taps: np.ndarray
    inverse: np.ndarray
    origin: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True, eq=False)
class ShearPlan:
    """The tilts that share a principal axis: how their planes shift and where they land.

    ``layout`` is (plane stride, row stride, column stride, planes, rows, columns) of the flat volume,
    whose memory is in the order (y, z, x): what the tilts of a series about y share lies together.
    """

    layout: tuple[int, int, int, int, int, int]
    shears: Shears
    warps: Warps

    @property
    def n_tilts(self) -> int:
        """Tilts of this plan."""
        return len(self.warps.tilt)

    @property
    def n_sheared(self) -> int:
        """Pixels of all sheared images together, with the empty rows around each."""
        return int(((self.warps.boxes[:, 2] + 2 * HALF_WIDTH) * self.warps.boxes[:, 3]).sum())


@dataclass(frozen=True, eq=False)
class TiltShear:
    """The factorisation of one tilt.

    ``axis`` is the array axis of its planes (0 z, 1 y, 2 x), ``box`` the first row, first column, rows
    and columns of its sheared image; ``iy``, ``wy``, ``ix``, ``wx`` the whole shifts of every plane within
    it and the weights around them; the others as in `Warps`.
    """

    axis: int
    box: tuple[int, int, int, int]
    iy: np.ndarray
    wy: np.ndarray
    ix: np.ndarray
    wx: np.ndarray
    row_taps: np.ndarray
    column_taps: np.ndarray
    inverse: np.ndarray
    origin: np.ndarray
    scale: float


def shear_tilts(geometry: ParallelGeometry) -> list[TiltShear]:
    """The factorisation of every tilt: along the axis nearest to its beam.

    Parameters
    ----------
    geometry : ParallelGeometry
        Lengths in voxels.

    Returns
    -------
    list of TiltShear
    """
    principal = np.argmax(np.abs(geometry.matrices[:, 2, _COMPONENT]), axis=1)  # row 2: lab z in the sample
    return [_shear_tilt(geometry, t, int(axis)) for t, axis in enumerate(principal)]


def _shear_tilt(geometry: ParallelGeometry, t: int, axis: int) -> TiltShear:
    order = _AXES[axis]
    p, r, c = (_COMPONENT[a] for a in order)
    rotation, shape = geometry.matrices[t], np.array(geometry.volume_shape)[order]
    start = np.asarray(geometry.volume_start)[order]
    whole_start, whole_shape = geometry.whole or (geometry.volume_start, geometry.volume_shape)
    planes = whole_start[axis] + np.arange(whole_shape[axis])
    along_rows, along_columns = (-rotation[2, i] / rotation[2, p] * planes for i in (r, c))
    # lab (y, x) = matrix @ (row, column) in the plane through the origin; rows and columns counted as indices
    inverse = np.linalg.inv(rotation[np.ix_([1, 0], [r, c])])
    first = inverse @ geometry.detector_start[t] - start[1:]
    positions = _warp_positions(inverse, geometry.detector_start[t], start[1:])
    (iy, wy), (ix, wx) = share_shifts(along_rows), round_shifts(along_columns)
    row_taps = _deblurring_taps(along_rows, iy, wy, positions[0])
    column_taps = _deblurring_taps(along_columns, ix, wx, positions[1])
    ours = round(start[0] - whole_start[axis]) + np.arange(shape[0])  # this volume's planes among the whole one's
    box = _sheared_box(iy[ours], ix[ours], (shape[1], shape[2]), inverse, first, geometry.detector_shape)
    return TiltShear(
        axis=axis,
        box=box,
        iy=iy[ours] - box[0],
        wy=wy[ours],
        ix=ix[ours] - box[1],
        wx=wx[ours],
        row_taps=row_taps,
        column_taps=column_taps,
        inverse=inverse,
        origin=first - box[:2],
        scale=1.0 / abs(rotation[2, p]),
    )


def plan_shears(tilts: Sequence[TiltShear], volume_shape: tuple[int, int, int]) -> list[ShearPlan]:
    """One plan for each principal axis that occurs.

    Parameters
    ----------
    tilts : sequence of TiltShear
    volume_shape : tuple of int
        (nz, ny, nx).

    Returns
    -------
    list of ShearPlan
    """
    nz, _, nx = volume_shape
    strides = (nx, nz * nx, 1)  # of axes z, y, x in memory (y, z, x)
    plans = []
    for axis in sorted({tilt.axis for tilt in tilts}):
        order = _AXES[axis]
        layout = (*(strides[a] for a in order), *(volume_shape[a] for a in order))
        chosen = [t for t, tilt in enumerate(tilts) if tilt.axis == axis]
        ours = [tilts[t] for t in chosen]
        shears = _gather(ours, volume_shape[order[2]])
        warps = Warps(
            boxes=shears.boxes,
            offsets=shears.offsets,
            tilt=np.array(chosen),
            row_taps=np.array([tilt.row_taps for tilt in ours]),
            column_taps=np.array([tilt.column_taps for tilt in ours]),
            inverse=np.array([tilt.inverse for tilt in ours]),
            origin=np.array([tilt.origin for tilt in ours]),
            scale=np.array([tilt.scale for tilt in ours]),
        )
        plans.append(ShearPlan(layout, shears, warps))  # type: ignore[arg-type]
    return plans


def round_shifts(shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts rounded so that their sums are right: (planes,) int64 and the spline's weights (planes, 3).

    The error of one plane is carried over to the next: an atom, which spans several planes, stays
    where it is.
    """
    steps = np.diff(np.round(np.cumsum(np.concatenate([[0.0], shift * _STEPS_X]))).astype(np.int64))
    whole = (steps + _STEPS_X // 2) // _STEPS_X
    return whole, _spline_weights(steps / _STEPS_X - whole)


def share_shifts(shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shifts of planes replaced by the mean of their neighbours' that round to the same step; as `round_shifts`.

    Planes that do not shift at all are not interpolated.
    """
    if not np.any(shift):
        return np.zeros(len(shift), np.int64), np.tile(np.array([0, 1, 0], np.float32), (len(shift), 1))
    _, inverse, count = np.unique(np.round(shift * _STEPS_Y), return_inverse=True, return_counts=True)
    mean = (np.bincount(inverse, weights=shift) / count)[inverse]
    whole = np.floor(mean + 0.5)
    return whole.astype(np.int64), _spline_weights(mean - whole)


def _spline_weights(f: np.ndarray) -> np.ndarray:
    """Quadratic B-spline weights of the samples before, at and after a point at -1/2 <= f <= 1/2, (n, 3) float32."""
    return np.stack([0.5 * (0.5 - f) ** 2, 0.75 - f**2, 0.5 * (0.5 + f) ** 2], axis=1).astype(np.float32)


def _gather(tilts: Sequence[TiltShear], n_columns: int) -> Shears:
    """Sort the planes of every tilt by what they share."""
    n_tilts, n_planes = len(tilts), len(tilts[0].iy)
    boxes = np.array([tilt.box for tilt in tilts], dtype=np.int64)
    iy, ix = (np.concatenate([getattr(tilt, name) for tilt in tilts]) for name in ("iy", "ix"))
    wy, wx = (np.concatenate([getattr(tilt, name) for tilt in tilts]) for name in ("wy", "wx"))
    tilt = np.repeat(np.arange(n_tilts), n_planes)
    plane = np.tile(np.arange(n_planes), n_tilts)
    order = np.lexsort([plane, wx[:, 2], wy[:, 2], iy, tilt])
    new_run = _changes(tilt[order], iy[order], wy[order, 2])
    new_slot = new_run | _changes(wx[order, 2])
    runs, slots = np.flatnonzero(new_run), np.flatnonzero(new_slot)
    run_of_slot = np.cumsum(new_run)[slots] - 1
    slot_of = np.empty(len(order), np.int64)
    slot_of[order] = np.cumsum(new_slot) - 1
    tilt_of = tilt[order][slots]
    columns = boxes[tilt_of, 3]
    least, most = np.minimum.reduceat(ix[order], slots), np.maximum.reduceat(ix[order], slots)
    end = most + n_columns
    first, last = (np.clip(np.clip(edge, -1, columns + 1), least, end) for edge in (least, end))
    slot_start = np.append(slots, len(order))
    groups = group_planes(plane[order], ix[order], slot_start, columns, n_columns)
    # rows that are spread back, one after another within a quartet of tilts
    lengths = most - least + n_columns
    ends = np.cumsum(lengths)
    quartets = -(-n_tilts // TOGETHER)
    quartet_end = ends[np.searchsorted(tilt_of, (np.arange(quartets) + 1) * TOGETHER) - 1]
    quartet_begin = np.append(0, quartet_end[:-1])
    spread_start = ends - lengths - quartet_begin[tilt_of // TOGETHER]
    spread_size = int((quartet_end - quartet_begin).max())
    shape = (quartets, TOGETHER, n_planes)
    missing = np.full(quartets * TOGETHER * n_planes, 2**40)
    low, high, position = missing.copy(), -missing, missing.copy()
    low[: len(ix)] = -1 - ix
    high[: len(ix)] = boxes[tilt, 3] + 1 - ix
    position[: len(ix)] = (spread_start - least)[slot_of] + ix
    spread_first = np.clip(low.reshape(shape).min(axis=1), 0, n_columns)
    spread_last = np.clip(high.reshape(shape).max(axis=1), 0, n_columns)
    position = position.reshape(shape) + spread_first[:, None]
    position[position >= 2**40] = spread_size  # where zeros are
    return Shears(
        boxes=boxes,
        offsets=np.cumsum((boxes[:, 2] + 2 * HALF_WIDTH) * boxes[:, 3]) - (boxes[:, 2] + HALF_WIDTH) * boxes[:, 3],
        run_start=np.searchsorted(tilt[order][runs], np.arange(n_tilts + 1)),
        slot_start=np.searchsorted(run_of_slot, np.arange(len(runs) + 1)),
        group_start=groups[0],
        iy=iy[order][runs],
        wy=wy[order][runs],
        wx=wx[order][slots],
        least=least,
        most=most,
        first=first,
        last=last,
        group_first=groups[1],
        group_last=groups[2],
        group_position=groups[3],
        spread_start=spread_start,
        spread_size=spread_size,
        spread_first=spread_first,
        spread_last=spread_last,
        spread_position=np.ascontiguousarray(position.transpose(0, 2, 1)),
    )


def _changes(*sorted_keys: np.ndarray) -> np.ndarray:
    """True where any key differs from the one before, and at the first."""
    changed = np.zeros(len(sorted_keys[0]), bool)
    changed[0] = True
    for key in sorted_keys:
        changed[1:] |= key[1:] != key[:-1]
    return changed


def _sheared_box(
    iy: np.ndarray,
    ix: np.ndarray,
    size: tuple[int, int],
    inverse: np.ndarray,
    first: np.ndarray,
    detector: tuple[int, int],
) -> tuple[int, int, int, int]:
    """First row, first column, rows, columns of the sheared image: what the volume reaches and the detector sees."""
    corners = np.array([[v, u] for v in (0, detector[0] - 1) for u in (0, detector[1] - 1)], dtype=np.float64)
    seen = corners @ inverse.T + first
    lo = np.maximum([iy.min(), ix.min()], np.floor(seen.min(axis=0))) - _REACH
    hi = np.minimum([iy.max() + size[0], ix.max() + size[1]], np.ceil(seen.max(axis=0)) + 1) + _REACH
    n = np.maximum(hi - lo, 0)
    if n.min() <= 2 * _REACH - 6:
        n[:] = 0
    return int(lo[0]), int(lo[1]), int(n[0]), int(n[1])


def _warp_positions(inverse: np.ndarray, detector_start: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Sheared (row, column) of 32 x 32 pixels about the lab's origin, (2, 1024).

    Cropping the detector by whole pixels does not change them, nor the filter that follows from them.
    """
    v, u = np.meshgrid(*(np.arange(-16, 16) + s % 1.0 for s in detector_start), indexing="ij")
    return inverse @ np.stack([v.ravel(), u.ravel()]) - start[:, None]


def _deblurring_taps(shift: np.ndarray, whole: np.ndarray, weights: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Taps g_0..g_h of the symmetric filter that undoes the mean blur of both interpolations, DC gain 1.

    The response of a plane that belongs at `shift` and is added at `whole` + (-1, 0, 1) with `weights`
    is sum_j weights_j cos((whole + j - shift) w), that of the warp's cubic B-spline at fraction f
    sum_j B(j - f) cos((j - f) w), j = -1..2 (the odd parts average out). The filter brings the
    product of the means of both nearest to 1 in the least-squares sense, weighted with the spectrum
    of a small atom, so that noise beyond the atoms' content is not blown up.
    """
    some = slice(None, None, len(shift) // 64 or 1)  # planes enough to stand for all
    offset = (whole - shift)[some, None] * _W
    even = weights[some, 1:2] + (weights[some, :1] + weights[some, 2:]) * np.cos(_W)
    odd = (weights[some, 2:] - weights[some, :1]) * np.sin(_W)
    shear = (np.cos(offset) * even - np.sin(offset) * odd).mean(axis=0)
    f = np.sort(positions % 1.0)[64::128, None]  # 8 fractions stand for all: quantiles
    cubic, neighbours = np.concatenate(_cubic_weights(f), axis=1), np.outer([-1, 0, 1, 2], _W)
    spline = np.cos(f * _W) * (cubic @ np.cos(neighbours)) + np.sin(f * _W) * (cubic @ np.sin(neighbours))
    response = shear * spline.mean(axis=0)
    matrix, target = _BASIS * (_ATOM * response)[:, None], (1.0 - response) * _ATOM
    g = np.linalg.solve(matrix.T @ matrix, matrix.T @ target)
    return np.concatenate([[1.0 - 2.0 * g.sum()], g]).astype(np.float32)


def _cubic_weights(f: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cubic B-spline weights of the samples at -1, 0, 1, 2 for points at fractions f (as in the warp kernels)."""
    g = 1.0 - f
    return g**3 / 6, 2.0 / 3 - f**2 * (2 - f) / 2, 2.0 / 3 - g**2 * (2 - g) / 2, f**3 / 6
