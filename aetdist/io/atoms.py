"""Atoms from whatever file holds their positions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..schema import ATOMS, AXES, with_units
from .csv_atoms import read_csv
from .groups import ATOMS as TRACED
from .groups import newest
from .hierarchy import is_store
from .places import place
from .store import Store
from .xyz import read_xyz

FOREIGN = {
    ".cif": "cif", ".pdb": "proteindatabank", ".lmp": "lammps-data", ".lammps": "lammps-data",
    ".data": "lammps-data", ".dump": "lammps-dump-text", ".lammpstrj": "lammps-dump-text",
}  # fmt: skip
"""Ends of the names of files that ASE reads, and what it calls their format."""


def read_atoms(path: str | Path) -> xr.Dataset:
    """Read atoms; nothing in the file is ever executed.

    Parameters
    ----------
    path : str or pathlib.Path
        Extended XYZ; a store, here or in S3 (its newest atoms: refined, classified or traced); ``file.h5::dataset``,
        ``.mat`` or ``.npy`` with positions of shape (atom, 3), in MAT files also (3, atom); ``.csv``, see `read_csv`.
        All in Angstrom. With the extra ``formats`` (ASE) also ``.cif``, ``.pdb``, and LAMMPS ``.data``, ``.lmp``,
        ``.lammps``, ``.dump``, ``.lammpstrj`` (the first frame).

    Returns
    -------
    xarray.Dataset
        ATOMS.

    Raises
    ------
    InputError
        If the file is missing or is not what its name says; lines are given by number.
    """
    from .readers import read_table  # here, as it brings every foreign format with it

    name, separator, _ = str(path).partition("::")
    file = place(name)
    if not file.exists():
        raise InputError(f"There is no file {name}.")
    if is_store(file):
        with Store.open(file) as store:
            return store.read(newest(TRACED, store))
    if not isinstance(file, Path) or not file.is_file():
        raise InputError(f"{name} is a folder and not an aetdist store; give a store or a file with atoms.")
    suffix = file.suffix.lower()
    if separator or suffix in (".npy", ".npz", ".h5", ".hdf5", ".mat"):
        table = read_table(str(path))
        is_column_per_atom = suffix == ".mat" and table.ndim == 2 and table.shape[0] == 3 != table.shape[1]
        return _from_positions(table.T if is_column_per_atom else table, str(path))
    if suffix in FOREIGN:
        return _read_foreign(file, FOREIGN[suffix])
    return read_csv(file) if suffix == ".csv" else read_xyz(file)


def _read_foreign(file: Path, form: str) -> xr.Dataset:
    """Atoms of a file that ASE reads; the cell, where it repeats, as the attributes of extended XYZ."""
    try:
        from ase.io import read
    except ImportError:
        raise InputError(
            f"{file} needs ASE, which is not installed: pip install 'aetdist[formats]', or write the atoms as XYZ."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what else the file says
            model: Any = read(file, index=0, format=form)  # one frame, so that no list comes
    except Exception as error:  # ASE's readers raise whatever they come across
        raise InputError(f"{file} cannot be read as {form}: {type(error).__name__}: {error}") from None
    types = model.arrays.get("type") if form.startswith("lammps") else None
    dataset = _from_positions(model.get_positions(), str(file), None if types is None else types.astype(np.int64))
    if types is None:
        dataset["species"] = "atom", np.array(model.get_chemical_symbols(), dtype=np.str_)
    if model.pbc.any():
        dataset.attrs |= {"Lattice": np.ravel(model.cell.array).tolist(), "pbc": model.pbc.tolist()}
    return with_units(dataset, ATOMS)


def _from_positions(position: np.ndarray, name: str, types: np.ndarray | None = None) -> xr.Dataset:
    if position.ndim != 2 or position.shape[1] != 3 or position.dtype.kind not in "fiu":
        raise InputError(
            f"{name} is {position.dtype} of shape {position.shape}; positions (atoms, 3) in Angstrom are needed."
        )
    position = position.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(position).all(axis=1))
    if bad.size:
        raise InputError(f"{name}: the position in row {bad[0]} is not a finite number.")
    dataset = xr.Dataset(
        {"position": (("atom", "axis"), position)}, {"atom": np.arange(len(position)), "axis": list(AXES)}
    )
    if types is not None:
        dataset["type"] = "atom", types
    return with_units(dataset, ATOMS)
