"""What is written as extended XYZ reads back as it was."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aetdist.io import read_xyz, write_xyz
from aetdist.schema import ATOMS

WORDS = st.text(min_size=1, max_size=8).filter(lambda word: word.split() == [word])
KNOWN = {*ATOMS.variables, "pos", "id", "Properties"}
NAMES = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_.-]{0,8}\Z").filter(lambda name: name not in KNOWN)
FLOATS = st.floats(-1e300, 1e300, allow_nan=False, width=64)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.text(max_size=20), FLOATS, INTEGERS, st.booleans(), st.none(), st.lists(FLOATS, max_size=4), st.lists(st.text())
)


@st.composite
def atoms(draw: st.DrawFn) -> xr.Dataset:
    n = draw(st.integers(0, 5))
    dataset = xr.Dataset(
        {"position": (("atom", "axis"), draw(hnp.arrays(np.float64, (n, 3), elements=FLOATS)))},
        {"atom": np.arange(n), "axis": list("xyz")},
    )
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        elements, dtype = draw(
            st.sampled_from([(FLOATS, np.float64), (INTEGERS, np.int64), (st.booleans(), np.bool_), (WORDS, object)])
        )
        width = draw(st.integers(1, 3))
        shape, dims = ((n, width), ("atom", f"{name}_component")) if width > 1 else ((n,), ("atom",))
        values = draw(hnp.arrays(dtype, shape, elements=elements))
        dataset[name] = dims, np.array(values.tolist(), dtype=str).reshape(shape) if dtype is object else values
    keys = st.text(min_size=1, max_size=8).filter(lambda key: key not in {"Properties", "Lattice"})
    return dataset.assign_attrs(draw(st.dictionaries(keys, VALUES, max_size=3)))


@settings(max_examples=150, deadline=None)
@given(dataset=atoms())
def test_xyz__written_and_read_is_the_same(dataset: xr.Dataset, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("xyz") / "atoms.xyz"
    write_xyz(path, dataset)
    back = read_xyz(path)
    xr.testing.assert_equal(back, dataset)
    for name in dataset.data_vars:
        assert back[name].dtype.kind == dataset[name].dtype.kind or back[name].dtype.kind == "U"
    assert json.dumps(back.attrs, sort_keys=True) == json.dumps(dataset.attrs, sort_keys=True)
