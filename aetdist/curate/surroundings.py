"""What the volume shows around a place, and what of it the atoms do not explain."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import grid_step
from ..io import Store, open_dataset
from ..io.groups import VOLUME
from ..schema import AXES

_HALF = 6.0  # Angstrom from the place to the edge of a slice
_NEAR = 1.0  # Angstrom from a slice within which atoms are marked on it
_REACH = 3.0  # standard deviations that an atom reaches
_WIDTHS = np.linspace(0.4, 1.2, 17)  # Angstrom, standard deviations tried where the atoms' own are unknown
_VIEWS = {"z": ("x", "y"), "y": ("x", "z"), "x": ("z", "y")}  # normal of a slice: axes across and up


class Surroundings:
    """Slices of a stored volume around places; only the chunks they touch are read.

    Parameters
    ----------
    store : Store
        With a volume.
    atoms : xarray.Dataset
        ATOMS; `intensity` and `b_factor` say how high and wide they are, where known.

    Raises
    ------
    InputError
        If the volume's voxels are not evenly spaced.
    """

    def __init__(self, store: Store, atoms: xr.Dataset) -> None:
        store.record(VOLUME) or store.read(VOLUME)  # which says why there is no complete one
        self._density = open_dataset(store.path, VOLUME)["density"]  # lazy, without Dask
        self._first, self._step = {}, {}
        for axis in AXES:
            values = self._density[axis].values.astype(np.float64)
            if len(values) < 2 or not grid_step(values) > 0:
                raise InputError(f"The volume has {len(values)} voxels along {axis}; needed are 2 or more, rising.")
            self._first[axis], self._step[axis] = float(values[0]), grid_step(values)
        self._heights = {}
        for name, fill in (("intensity", 1.0), ("b_factor", np.nan)):
            values = atoms[name].values if name in atoms else np.full(atoms.sizes["atom"], fill)
            numbers = atoms["atom"].values if "atom" in atoms.coords else np.arange(atoms.sizes["atom"])
            self._heights[name] = dict(zip(numbers.tolist(), values.tolist(), strict=True))
        self._usual = {
            name: float(np.nanmedian(list(values.values()))) if np.isfinite(list(values.values())).any() else np.nan
            for name, values in self._heights.items()
        }

    def around(self, atoms: xr.Dataset, place: tuple[float, float, float]) -> dict[str, Any]:
        """Computes: three slices through a place, and the same of the difference to the atoms.

        Parameters
        ----------
        atoms : xarray.Dataset
            ATOMS as they are now.
        place : tuple of float
            x, y, z in Angstrom.

        Returns
        -------
        dict
            ``slices``: for the normals z, y, x the axes across and up, their coordinates (Angstrom), where the slice
            lies, `density` and `difference` as rows of whole numbers (0..255, -127..127), and the atoms within
            1 Angstrom of it; ``peak``: the density that 255 and 127 stand for; ``suggestion``: x, y, z of the highest
            difference that is 1.2 Angstrom or more from all atoms, or None.

        Notes
        -----
        The atoms are Gaussians H exp(-r^2 / (2 sigma^2)), scaled together so that the squares of the differences add
        up to least; where the widths are unknown one for all is chosen alike.
        """
        coordinates, box = self._box(place)
        positions = atoms["position"].values
        near = np.flatnonzero((np.abs(positions - place) <= _HALF + 3.0).all(axis=1))
        model = self._model(atoms["atom"].values[near].tolist(), positions[near], coordinates, box)
        difference = box - model
        peak = max(float(np.abs(box).max()), 1e-30)
        slices = []
        for normal, (across, up) in _VIEWS.items():
            index = int(np.abs(coordinates[normal] - place[AXES.index(normal)]).argmin())
            at = float(coordinates[normal][index])
            shown = np.flatnonzero(np.abs(positions[near, AXES.index(normal)] - at) <= _NEAR)
            slices.append(
                {
                    "normal": normal,
                    "across": across,
                    "up": up,
                    "at": at,
                    "from": [float(coordinates[across][0]), float(coordinates[up][0])],
                    "step": [self._step[across], self._step[up]],
                    "density": _whole(_plane(box, normal, index, across, up), peak, 255, 0),
                    "difference": _whole(_plane(difference, normal, index, across, up), peak, 127, -127),
                    "atoms": [
                        {
                            "number": int(atoms["atom"].values[near[k]]),
                            "place": [float(positions[near[k], AXES.index(axis)]) for axis in (across, up)],
                            "type": int(atoms["type"].values[near[k]]) if "type" in atoms else None,
                        }
                        for k in shown
                    ],
                }
            )
        return {"slices": slices, "peak": peak, "suggestion": _suggestion(difference, coordinates, positions[near])}

    def _box(self, place: tuple[float, float, float]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Coordinates of the voxels around a place, and their density (z, y, x); 0 outside the volume."""
        coordinates, inside, padding = {}, {}, []
        for axis in "zyx":
            first, step, n = self._first[axis], self._step[axis], self._density.sizes[axis]
            middle = round((place[AXES.index(axis)] - first) / step)
            half = round(_HALF / step)
            low, high = middle - half, middle + half + 1
            coordinates[axis] = first + step * np.arange(low, high)
            begin, end = min(max(low, 0), n), max(min(high, n), 0)
            end = max(begin, end)
            inside[axis] = slice(begin, end)
            padding.append((begin - low if end > begin else high - low, high - end if end > begin else 0))
        values = self._density.isel(inside).values.astype(np.float64)
        return coordinates, np.nan_to_num(np.pad(values, padding))

    def _model(
        self, numbers: list[int], positions: np.ndarray, coordinates: dict[str, np.ndarray], box: np.ndarray
    ) -> np.ndarray:
        """Density of the atoms that explains the box best."""
        heights, widths = (
            np.array([values.get(number, np.nan) for number in numbers], dtype=np.float64)
            for values in (self._heights["intensity"], self._heights["b_factor"])
        )
        heights[~np.isfinite(heights)] = self._usual["intensity"]
        widths[~np.isfinite(widths)] = self._usual["b_factor"]
        sigmas = np.sqrt(widths / (8 * np.pi**2))
        tried = [sigmas] if np.isfinite(sigmas).all() else [np.full(len(numbers), sigma) for sigma in _WIDTHS]
        best, least = np.zeros_like(box), np.inf
        for sigma in tried:
            model = np.zeros_like(box)
            for position, height, s in zip(positions, heights, sigma, strict=True):
                z, y, x = (
                    np.exp(-((coordinates[axis] - position[AXES.index(axis)]) ** 2) / (2 * s**2)) for axis in "zyx"
                )
                model += height * z[:, None, None] * y[:, None] * x
            square = float(np.vdot(model, model))
            scale = max(float(np.vdot(model, box)) / square, 0.0) if square > 0 else 0.0
            misfit = float(np.square(box - scale * model).sum())
            if misfit < least:
                best, least = scale * model, misfit
        return best


def _plane(box: np.ndarray, normal: str, index: int, across: str, up: str) -> np.ndarray:
    """A slice (up, across) of a box (z, y, x)."""
    plane = np.take(box, index, axis="zyx".index(normal))
    left = [axis for axis in "zyx" if axis != normal]
    return plane if left == [up, across] else plane.T


def _whole(values: np.ndarray, peak: float, most: int, least: int) -> list[list[int]]:
    """Values as whole numbers, `most` for `peak`."""
    return np.clip(np.rint(values / peak * most), least, most).astype(int).tolist()


def _suggestion(
    difference: np.ndarray, coordinates: dict[str, np.ndarray], positions: np.ndarray
) -> list[float] | None:
    """Where an atom more would explain most, apart from all atoms; as x, y, z."""
    grid = np.stack(np.meshgrid(*(coordinates[axis] for axis in "zyx"), indexing="ij"), axis=-1)[..., ::-1]
    free = difference > 0
    free[[0, -1]] = free[:, [0, -1]] = free[:, :, [0, -1]] = False
    for position in positions:
        free &= np.square(grid - position).sum(axis=-1) >= 1.2**2
    if not free.any():
        return None
    best = np.unravel_index(np.where(free, difference, -np.inf).argmax(), difference.shape)
    return [float(value) for value in grid[best]]
