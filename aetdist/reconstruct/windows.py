"""The plan of a scan as plain values: which local volumes, what each one reads, what it keeps."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ..blocks.windows import Span, cut_axis
from ..errors import InputError
from ..geometry import ParallelGeometry
from .film import SERIES, CoarseFilm
from .grid import Field, covering_box

_SURFACE_MARGIN = 6.0  # Angstrom kept free above and below the film of a window: twice the maps' error
_OUTSIDE = 2  # pixels beyond the field that its border windows still make up: off-axis angles see them
_CHUNK = 128  # voxels of a stored film chunk along y and x


@dataclass(frozen=True)
class Window:
    """One local volume, in voxels of the film's frame.

    It sees, in every tilt, the pixels around the projection of ``centre`` (z, y, x); ``first`` and
    ``shape`` say which voxels those rays can cross, ``kept_first`` and ``kept_shape`` (y, x) which
    columns it keeps (all heights of the film).
    """

    index: int
    y: Span
    x: Span
    centre: tuple[float, float, float]
    first: tuple[int, int, int]
    shape: tuple[int, int, int]
    kept_first: tuple[int, int]
    kept_shape: tuple[int, int]

    @property
    def crop_shape(self) -> tuple[int, int]:
        """Pixels (y, x) that it reads of every tilt."""
        return self.y.stop - self.y.start, self.x.stop - self.x.start


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """Everything that the tasks of a scan need to know; no images, no voxels."""

    field: Field
    first: tuple[int, int, int]
    shape: tuple[int, int, int]
    coarse: CoarseFilm
    windows: tuple[Window, ...]
    series: str = SERIES  # group of the store

    @property
    def kept_shape(self) -> tuple[int, int]:
        """The largest (y, x) that a window keeps: the shape of a stored block."""
        return tuple(max(w.kept_shape[a] for w in self.windows) for a in (0, 1))  # type: ignore[return-value]

    def chunks(self) -> list[tuple[slice, slice]]:
        """Columns (y, x) of every stored chunk of the film."""
        _, ny, nx = self.shape
        step_y, step_x = self.chunk_shape[1:]
        return [
            (slice(y, min(y + step_y, ny)), slice(x, min(x + step_x, nx)))
            for y in range(0, ny, step_y)
            for x in range(0, nx, step_x)
        ]

    @property
    def chunk_shape(self) -> tuple[int, int, int]:
        """Stored chunk of the film (z, y, x): all heights, some columns."""
        return self.shape[0], min(_CHUNK, self.shape[1]), min(_CHUNK, self.shape[2])

    def touching(self, rows: slice, columns: slice) -> list[Window]:
        """Windows that keep some of these columns of the film."""
        low = (rows.start + self.first[1], columns.start + self.first[2])
        high = (rows.stop + self.first[1], columns.stop + self.first[2])
        first, stop = self._kept
        return [self.windows[i] for i in np.flatnonzero(((first < high) & (stop > low)).all(axis=1))]

    @functools.cached_property
    def _kept(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last + 1 column (y, x) that each window keeps, (window, 2) int64."""
        first = np.array([w.kept_first for w in self.windows], np.int64).reshape(-1, 2)
        return first, first + np.array([w.kept_shape for w in self.windows], np.int64).reshape(-1, 2)

    def weights(self, window: Window, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Weight of a window at film coordinates (voxels); shape (rows, columns), float32."""
        wy = window.y.weights(rows - self.field.detector_start[0])
        wx = window.x.weights(columns - self.field.detector_start[1])
        return np.outer(wy, wx).astype(np.float32)


def check_windows(window: tuple[int, int], overlap: int, field: Field) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and overlap (y, x) of a field; the overlap is at most half of the window along each axis.

    Raises
    ------
    InputError
        If a number is not positive.
    """
    if np.shape(window) != (2,) or min(window) < 8 or any(int(n) != n for n in window):
        raise InputError(f"The window came as {window} pixels; needed are two whole numbers NX NY of 8 or more.")
    if int(overlap) != overlap or overlap < 2:
        raise InputError(f"The overlap came as {overlap} pixels; needed is a whole number of 2 or more.")
    if min(field.detector_shape) < 8:
        ny, nx = field.detector_shape
        raise InputError(
            f"The field has {nx} x {ny} pixels; a scan needs 8 or more along both; use `aetdist reconstruct`."
        )
    size = tuple(min(int(w), n) for w, n in zip(window[::-1], field.detector_shape, strict=True))
    return size, tuple(max(2, min(int(overlap), s // 2)) for s in size)  # type: ignore[return-value]


def plan_windows(
    field: Field,
    first: tuple[int, int, int],
    shape: tuple[int, int, int],
    coarse: CoarseFilm,
    window: tuple[int, int],
    overlap: int,
    height: np.ndarray,
    thickness: np.ndarray,
) -> ScanPlan:
    """Cut the field into windows, each as deep as the film is along its rays.

    Parameters
    ----------
    field : Field
    first, shape : tuple of int
        First voxel and shape (z, y, x) of the film volume.
    coarse : CoarseFilm
        Grid of the maps.
    window : tuple of int
        (nx, ny) pixels.
    overlap : int
        Pixels shared by neighbours, at most half of the window along each axis.
    height, thickness : ndarray, shape (y, x), float64
        Maps on the coarse grid, in Angstrom.

    Returns
    -------
    ScanPlan

    Raises
    ------
    InputError
        If the windows are not positive, or a tilt looks along the film.
    """
    size, shared = check_windows(window, overlap, field)
    z_low, z_high = first[0], first[0] + shape[0] - 1
    margin = int(np.ceil(_SURFACE_MARGIN / field.pixel_size))
    spans_y, spans_x = (
        cut_axis(n, s, o, _OUTSIDE, fade=max(1, o // 2))
        for n, s, o in zip(field.detector_shape, size, shared, strict=True)
    )
    planned: list[Window] = []
    bottom, top = (height + sign * thickness / 2 for sign in (-1, 1))
    for y in spans_y:
        for x in spans_x:
            cy, cx = (
                start + (span.start + span.stop - 1) / 2
                for start, span in zip(field.detector_start, (y, x), strict=True)
            )
            cz = _mean(height[_columns(coarse, cy, cx, size[0] / 2, size[1] / 2)]) / field.pixel_size
            cz = float(np.clip(cz, z_low, z_high))
            half = (size[0] / 2 + 1, size[1] / 2 + 1)
            box = covering_box(field.matrices, *half, z_low - cz, z_high - cz)
            seen = _columns(
                coarse,
                cy + (box[0] + box[1]) / 2,
                cx + (box[2] + box[3]) / 2,
                (box[1] - box[0]) / 2,
                (box[3] - box[2]) / 2,
            )
            low = _nan_extreme(bottom[seen], np.nanmin, z_low * field.pixel_size) / field.pixel_size
            high = _nan_extreme(top[seen], np.nanmax, z_high * field.pixel_size) / field.pixel_size
            local_z = (max(z_low, int(np.floor(low)) - margin), min(z_high, int(np.ceil(high)) + margin))
            box = covering_box(field.matrices, *half, local_z[0] - cz, local_z[1] - cz)
            ends = [
                (max(f, int(np.floor(c + a))), min(f + n - 1, int(np.ceil(c + b))))
                for f, n, c, a, b in (
                    (first[1], shape[1], cy, box[0], box[1]),
                    (first[2], shape[2], cx, box[2], box[3]),
                )
            ]
            kept = [_kept(span, start, e) for span, start, e in zip((y, x), field.detector_start, ends, strict=True)]
            planned.append(
                Window(
                    len(planned),
                    y,
                    x,
                    (cz, cy, cx),
                    (local_z[0], ends[0][0], ends[1][0]),
                    (local_z[1] - local_z[0] + 1, ends[0][1] - ends[0][0] + 1, ends[1][1] - ends[1][0] + 1),
                    (kept[0][0], kept[1][0]),
                    (kept[0][1] - kept[0][0], kept[1][1] - kept[1][0]),
                )
            )
    return ScanPlan(field, first, shape, coarse, tuple(planned))


def window_geometry(field: Field, window: Window) -> tuple[ParallelGeometry, np.ndarray]:
    """Geometry of a local volume and the first pixel (y, x) of its crop in every tilt.

    The crop is whole pixels around the projection of the window's centre; that the projection falls
    between pixels is part of the geometry, so that nothing is resampled.
    """
    centre = np.array(window.centre[::-1])  # (x, y, z)
    lab = (field.matrices[:, :2] @ centre)[:, ::-1]  # (y, x)
    start = np.asarray(field.detector_start)
    corner = np.round(lab - start - (np.array(window.crop_shape) - 1) / 2).astype(int)
    geometry = ParallelGeometry(
        field.matrices,
        window.shape,
        tuple(float(f) for f in window.first),  # type: ignore[arg-type]
        window.crop_shape,
        start + corner,
    )
    return geometry, corner


def _kept(span: Span, start: float, ends: tuple[int, int]) -> tuple[int, int]:
    """First and last + 1 film coordinate where a span weighs more than 0 and the local volume reaches."""
    low = int(np.floor(span.rise[0] + start))
    high = int(np.ceil(span.fall[1] + start)) + 1
    return max(low, ends[0]), min(high, ends[1] + 1)


def _columns(coarse: CoarseFilm, cy: float, cx: float, half_y: float, half_x: float) -> tuple[slice, slice]:
    """Columns of the coarse maps within a rectangle (fine voxels), at least one."""
    result = []
    for axis, c, h in ((1, cy, half_y), (2, cx, half_x)):
        n = coarse.shape[axis]
        low = int(np.floor((c - h - coarse.start[axis]) / coarse.factor))
        high = int(np.ceil((c + h - coarse.start[axis]) / coarse.factor)) + 1
        low = min(max(0, low), n - 1)
        result.append(slice(low, max(low + 1, min(n, high))))
    return result[0], result[1]


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else 0.0


def _nan_extreme(values: np.ndarray, extreme, otherwise: float) -> float:  # type: ignore[no-untyped-def]
    return float(extreme(values)) if np.isfinite(values).any() else otherwise
