"""What all analyses of a model work on: its atoms, its periodic cell with images around it, the field of a film."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import InputError
from ..neighbors import periodic_images
from ..schema import AXES
from ._inputs import atoms_of, check_spatial

IMAGES = 15.0
"""Angstrom of images around a periodic cell: beyond any neighbour's neighbour, and any Voronoi cell of dense matter."""


@dataclass(frozen=True)
class Sample:
    """A model.

    Attributes
    ----------
    atoms : xarray.Dataset
        ATOMS; of a periodic sample with the images around the cell behind the atoms themselves.
    n : int
        Number of atoms without images.
    numbers : ndarray, shape (all,), int64
        Which atom each of them is, or is an image of.
    cell : ndarray, shape (3, 3), float64, or None
        Vectors of the periodic cell in Angstrom, one a row.
    field : tuple of float or None
        x0, x1, y0, y1 in Angstrom of a film that goes on beyond it.
    """

    atoms: xr.Dataset
    n: int
    numbers: np.ndarray
    cell: np.ndarray | None = None
    field: tuple[float, float, float, float] | None = None

    @property
    def own(self) -> xr.Dataset:
        """The atoms without images."""
        return self.atoms.isel(atom=slice(0, self.n))

    @property
    def is_typed(self) -> bool:
        """Whether the atoms have types."""
        return "type" in self.atoms

    def cropped(self, found: xr.Dataset) -> xr.Dataset:
        """What was found for the atoms without their images."""
        return found if self.cell is None else found.isel(atom=slice(0, self.n))


def sample_of(
    atoms: xr.Dataset,
    *,
    periodic: bool | None = None,
    field: tuple[float, float, float, float] | None = None,
) -> Sample:
    """A model, checked once for all analyses.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS; ``type`` is made of ``species`` where there is none: 1, 2, ... in alphabetical order. The attributes
        ``Lattice`` (three vectors in a row) and ``pbc`` of extended XYZ say whether it is periodic.
    periodic : bool, optional
        False: a finite sample, whatever the file says. True: periodic. Default: as the file says.
    field : tuple of float, optional
        x0, x1, y0, y1 in Angstrom: the film goes on beyond.

    Returns
    -------
    Sample

    Raises
    ------
    InputError
        If the atoms are not usable, or are periodic along some directions only, or there is no cell.
    """
    positions, types = atoms_of(atoms)
    if types is None and "species" in atoms:
        types = np.unique(atoms["species"].values.astype(str), return_inverse=True)[1] + 1
    cell = _cell_of(atoms, periodic)
    if cell is None:
        check_spatial(positions)
    if cell is not None and field is not None:
        raise InputError("A field came for a periodic sample; give periodic=False to take it as a film.")
    n, numbers = len(positions), np.arange(len(positions))
    if cell is not None:
        positions, images, of = periodic_images(positions, cell, IMAGES)
        positions, numbers = np.concatenate([positions, images]), np.concatenate([numbers, of])
    variables = {"position": (("atom", "axis"), positions, {"units": "angstrom"})}
    made = xr.Dataset(variables, {"atom": np.arange(len(positions)), "axis": list(AXES)})
    if types is not None:
        made["type"] = "atom", np.asarray(types, dtype=np.int64)[numbers]
    return Sample(made, n, numbers, cell, field)


def _cell_of(atoms: xr.Dataset, periodic: bool | None) -> np.ndarray | None:
    """The periodic cell, if there is one and it counts."""
    if periodic is False:
        return None
    lattice = atoms.attrs.get("Lattice")
    if lattice is None:
        if periodic:
            raise InputError("periodic = true came, but the model has no cell (Lattice=... in extended XYZ).")
        return None
    cell = np.ravel(np.asarray(lattice, dtype=np.float64))
    if cell.size != 9:
        raise InputError(f"The cell of the model has {cell.size} numbers; needed are three vectors, 9 numbers.")
    along = np.ravel(np.asarray(atoms.attrs.get("pbc", [True] * 3)))
    along = np.array([value in (True, 1, "T", "True") for value in along.tolist()])
    if periodic or along.all():
        return cell.reshape(3, 3)
    if along.any():
        raise InputError(
            "The model is periodic along some directions only, which is not supported; give periodic = false "
            "(--open) to take it as a finite sample, with a field to leave its sides out."
        )
    return None
