"""How well a stored film explains its images: strips of the detector, each by a task that reads what it sees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from .._threads import kernel_threads
from ..blocks.windows import run_tasks
from ..geometry import ParallelGeometry
from ..io import open_dataset
from ..project import ParallelProjector
from .grid import Field
from .windows import ScanPlan

STRIP_ROWS = 256  # of the detector: with fewer, neighbours read much of the same
PIECE_VOXELS = 2**22  # projected at a time
_STRIP_PIXELS = 2**22  # images of a task
_VOXEL_TILTS = 4e8  # some 0.1 s of arithmetic
_BAND = 16  # rows of the film that a strip sees or not


class Strip(NamedTuple):
    """What one task compares: (first, end) of the tilts and of the detector's rows."""

    tilts: tuple[int, int]
    rows: tuple[int, int]


def cut_strips(field: Field, shape: tuple[int, int, int]) -> list[Strip]:
    """Strips whose images fit in little memory, and which are enough work for a task.

    Parameters
    ----------
    field : Field
    shape : tuple of int
        Of the film (z, y, x).
    """
    n_tilts, (ny, nx) = len(field.matrices), field.detector_shape
    height = min(ny, STRIP_ROWS)
    by_memory = _STRIP_PIXELS // (height * nx)
    by_time = int(_VOXEL_TILTS / (shape[0] * min(height, shape[1]) * shape[2]))
    tilts = max(1, min(n_tilts, by_memory, by_time))
    return [
        Strip((t, min(t + tilts, n_tilts)), (y, min(y + height, ny)))
        for y in range(0, ny, height)
        for t in range(0, n_tilts, tilts)
    ]


def film_r_factor(path: str, film_group: str, plan: ScanPlan) -> np.ndarray:
    """Computes: eq. 4 of every tilt for the film's reprojection over the measured pixels, (tilt,) float64."""
    strips = cut_strips(plan.field, plan.shape)
    parts = run_tasks(compare_strip, strips, path, film_group, replace(plan, windows=()), label="R-factor")
    sums = np.zeros((len(plan.field.matrices), 2))
    for strip, part in zip(strips, parts, strict=True):
        sums[slice(*strip.tilts)] += part
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def compare_strip(strip: Strip, path: str, film_group: str, plan: ScanPlan) -> np.ndarray:
    """Sums over the measured pixels of a strip: |A x - b| and |b| of each of its tilts, (tilt, 2) float64."""
    geometry = plan.field.geometry(plan.first, plan.shape).select_tilts(slice(*strip.tilts))
    geometry = geometry.crop_detector(slice(*strip.rows), slice(0, geometry.detector_shape[1]))
    density = open_dataset(path, film_group)["density"]
    calculated = np.zeros((geometry.n_tilts, *geometry.detector_shape), np.float32)
    for rows, columns in _pieces(geometry, plan):
        corner, shape = (0, rows.start, columns.start), (plan.shape[0], _length(rows), _length(columns))
        part = geometry.part(corner, shape)
        seen = part.footprint()
        if all(s.stop > s.start for s in seen):
            projector = ParallelProjector(part.crop_detector(*seen), kernel_threads())
            calculated[:, seen[0], seen[1]] += projector.forward(density[:, rows, columns].values)
    return _sums(calculated, open_dataset(path, plan.series), strip)


def _pieces(geometry: ParallelGeometry, plan: ScanPlan) -> Iterator[tuple[slice, slice]]:
    """Rows and columns (y, x) of the film that a strip may see, whole chunks along x."""
    nz, ny, nx = plan.shape
    bands = [
        y
        for y in range(0, ny, _BAND)
        if _length(geometry.part((0, y, 0), (nz, min(_BAND, ny - y), nx)).footprint()[0]) > 0
    ]
    if not bands:
        return
    rows = slice(bands[0], min(ny, bands[-1] + _BAND))
    chunk = plan.chunk_shape[2]
    width = chunk * max(1, math.floor(PIECE_VOXELS / (nz * _length(rows) * chunk)))
    for x in range(0, nx, width):
        yield rows, slice(x, min(x + width, nx))


def _sums(calculated: np.ndarray, series: xr.Dataset, strip: Strip) -> np.ndarray:
    rows = slice(*strip.rows)
    sums = np.zeros((len(calculated), 2))
    for i, t in enumerate(range(*strip.tilts)):
        mask = series["mask"][t, rows].values
        image = series["images"][t, rows].values[mask].astype(np.float64)
        sums[i] = np.abs(calculated[i][mask] - image).sum(), np.abs(image).sum()
    return sums


def _length(part: slice) -> int:
    return int(part.stop - part.start)
