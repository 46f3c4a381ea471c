"""Chemical elements for the types of atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from .errors import InputError
from .schema import ATOMS, with_units
from .simulate._elements import atomic_number


def name_species(atoms: xr.Dataset, *, elements: Sequence[str] | None = None) -> xr.Dataset:
    """Name the species of atoms by their types.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS. Without `type`, all are of type 1.
    elements : sequence of str, optional
        Chemical elements of type 1, 2, ... (by rising intensity). By default those that an earlier stage was given.

    Returns
    -------
    xarray.Dataset
        ATOMS with `species`, and the attribute ``elements``; as it came where no elements are known.

    Raises
    ------
    InputError
        If a name is no element, or there is a type without one.
    """
    names = atoms.attrs.get("elements") if elements is None else elements
    if names is None:
        return atoms
    check_elements(names)
    types = atoms["type"].values if "type" in atoms else np.ones(atoms.sizes["atom"], dtype=np.int64)
    if types.max(initial=1) > len(names):
        raise _wrong_number(names, int(types.max()))
    named = np.array(["", *names])[types]
    return with_units(atoms.assign(species=("atom", named)), ATOMS).assign_attrs(elements=list(names))


def check_elements(elements: Sequence[str], n_types: int | None = None) -> None:
    """Refuse names that are no elements, or another number of them than there are types."""
    for name in elements:
        atomic_number(name)
    if n_types is not None and len(elements) != n_types:
        raise _wrong_number(elements, n_types)


def _wrong_number(elements: Sequence[str], n_types: int) -> InputError:
    return InputError(
        f"elements = {','.join(elements)} came for {n_types} types of atoms; name one for each, by rising intensity."
    )
