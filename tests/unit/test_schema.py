"""What stages exchange."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist import schema
from aetdist.errors import InputError


def atoms() -> xr.Dataset:
    return xr.Dataset({"position": (("atom", "axis"), np.zeros((2, 3)))}, {"axis": list(schema.AXES), "atom": [0, 1]})


def test_schema__lets_a_right_dataset_and_unknown_variables_pass() -> None:
    schema.check(atoms(), schema.ATOMS)
    schema.check(schema.with_units(atoms().assign(mine=("atom", ["a", "b"])), schema.ATOMS), schema.ATOMS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("position"), "needs position, but the Dataset has only axis, atom"),
        (lambda d: d.transpose("axis", "atom"), r"dimensions \('axis', 'atom'\); needed is \('atom', 'axis'\)"),
        (lambda d: d.astype(int), "position is int64; needed is a kind of 'f'"),
        (lambda d: d.assign(position=d.position.assign_attrs(units="nm")), "in 'nm'; needed is 'angstrom'"),
        (lambda d: d.assign(species=("atom", [1, 2])), "needed is text"),
    ],
)
def test_schema__refuses_what_is_something_else(change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        schema.check(change(atoms()), schema.ATOMS)


def test_schema__units_go_on_a_copy() -> None:
    given = atoms()
    labelled = schema.with_units(given, schema.ATOMS)
    assert labelled.position.attrs["units"] == "angstrom"
    assert labelled.axis.attrs["units"] == "1"
    assert given.position.attrs == {}


@pytest.mark.parametrize("group", [schema.TILT_SERIES, schema.VOLUME, schema.ATOMS], ids=lambda group: group.name)
def test_schema__every_variable_has_a_unit_and_a_line(group: schema.Group) -> None:
    for variable in group.variables.values():
        assert variable.units in {"1", "angstrom", "angstrom^2", "degree", "pixel"}
        assert variable.description
        assert variable.kind in "fbiU"
