"""The box of atoms that one tilt of a multislice simulation is made of, and what it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.fft import next_fast_len

from ..errors import InputError
from ..geometry import matrices_from_euler

if TYPE_CHECKING:
    from .multislice import Multislice

REACH = 4.0
"""Angstrom beyond the outermost atom at which a probe still sees anything."""
PADDING = 5.0
"""Angstrom of the cell around the outermost probe, into which its tails reach."""
BATCH_BYTES = 64 * 2**20
"""Wave functions that are propagated at once."""
WAVE_COPIES = 8
"""Arrays as large as a batch of waves that are alive at once (measured with abTEM 1.0.11)."""


@dataclass(frozen=True)
class Cell:
    """Box around the atoms that one tilt's probes see, and the pixels that are scanned.

    Parameters
    ----------
    low : tuple of float
        Lab x, y and z of its corner in Angstrom.
    size : tuple of float
        Edges along x, y and z in Angstrom.
    grid : tuple of int
        Points of a wave function along x and y.
    slices : int
        Along z.
    columns, rows : range
        Scanned pixels, counted from the field's first one; they may lie outside it by the reach of the source.
    """

    low: tuple[float, float, float]
    size: tuple[float, float, float]
    grid: tuple[int, int]
    slices: int
    columns: range
    rows: range

    def waves(self, settings: Multislice) -> int:
        """Wave functions that are propagated: probes, or plane waves inside the aperture."""
        if not settings.prism:
            return len(self.columns) * len(self.rows)
        area = self.size[0] * self.size[1] / settings.prism**2
        return math.ceil(math.pi * (1e-3 * settings.convergence / settings.wavelength()) ** 2 * area)

    def steps(self, settings: Multislice) -> float:
        """Grid points times slices times waves; adding up PRISM's plane waves costs about a slice for every probe."""
        points = float(self.grid[0] * self.grid[1])
        steps = points * self.slices * self.waves(settings)
        if settings.prism:
            probes = len(self.columns) * len(self.rows)
            steps += probes * points / settings.prism**2
        return steps * max(1, settings.frozen_phonons)

    def memory(self, settings: Multislice) -> float:
        """Bytes that one tilt takes: potential, transmission functions, waves."""
        points = self.grid[0] * self.grid[1]
        kept = self.waves(settings) if settings.prism else 0
        return points * (12.0 * self.slices + 8.0 * (kept + WAVE_COPIES * self.batch()))

    def batch(self) -> int:
        """Probes that are propagated at once."""
        return max(1, min(len(self.columns) * len(self.rows), BATCH_BYTES // (8 * self.grid[0] * self.grid[1])))


def plan_cell(lab: np.ndarray, x: np.ndarray, y: np.ndarray, settings: Multislice) -> Cell | None:
    """Cell of one tilt; None where the field shows no atom.

    Parameters
    ----------
    lab : ndarray, shape (atoms, 3), float64
        Positions in the lab in Angstrom.
    x, y : ndarray, shape (nx,) and (ny,), float64
        Lab coordinates of the pixels in Angstrom.
    settings : Multislice
        How it is made.
    """
    scanned, low, size, grid = [], [], [], []
    for axis, pixels in ((0, x), (1, y)):
        step = float(pixels[1] - pixels[0]) if len(pixels) > 1 else 1.0
        more = math.ceil(4.0 * settings.source_size / step)
        first = max(-more, math.ceil((lab[:, axis].min() - REACH - pixels[0]) / step))
        last = min(len(pixels) - 1 + more, math.floor((lab[:, axis].max() + REACH - pixels[0]) / step))
        if first > last:
            return None
        scanned.append(range(first, last + 1))
        low.append(pixels[0] + first * step - PADDING)
        size.append((last - first) * step + 2.0 * PADDING)
        factor = max(1, settings.prism)
        # Three points more than angles need, as a detector's edge falls between two of them.
        points = math.ceil(size[-1] / (settings.sampling or settings.finest()) / factor) + 3
        grid.append(factor * next_fast_len(points))
    inside = ((lab[:, :2] >= low) & (lab[:, :2] < np.add(low, size))).all(axis=1)
    if not inside.any():
        return None
    bottom, top = float(lab[inside, 2].min()) - 2.0, float(lab[inside, 2].max()) + 2.0
    slices = math.ceil((top - bottom) / settings.slice_thickness)
    return Cell(
        (low[0], low[1], bottom),
        (size[0], size[1], slices * settings.slice_thickness),
        (grid[0], grid[1]),
        slices,
        scanned[0],
        scanned[1],
    )


def planned(
    atoms: np.ndarray, angles: np.ndarray, x: np.ndarray, y: np.ndarray, settings: Multislice
) -> dict[str, Any]:
    """What the simulation of all tilts takes, as attributes; no abTEM is needed."""
    cells = [plan_cell(atoms[:, :3] @ matrix.T, x, y, settings) for matrix in matrices_from_euler(angles)]
    there = [cell for cell in cells if cell is not None]
    if not there:
        raise InputError("The field shows no atom at any tilt; move it by field_center, or make it larger.")
    largest = max(there, key=lambda cell: cell.grid[0] * cell.grid[1])
    return {
        "simulation_multislice_grid": list(largest.grid),
        "simulation_multislice_slices": max(cell.slices for cell in there),
        "simulation_multislice_probes": max(len(cell.columns) * len(cell.rows) for cell in there),
        "simulation_multislice_steps": sum(cell.steps(settings) for cell in there),
        "simulation_multislice_memory_bytes": int(max(cell.memory(settings) for cell in there)),
    }
