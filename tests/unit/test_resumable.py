from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from aetdist.errors import StoreError
from aetdist.io import BlockLedger, Record, Store, begun, write_blocks

GROUP, RECORD = "tilt_series/preprocessed", Record("preprocess", {"kind": "film"})


class Interrupted(Exception):
    """What stops a run in these tests."""


def dataset(calls: list[int], *, stop_at: int | None = None, offset: float = 0.0) -> xr.Dataset:
    """Two lazy arrays from one source that counts what is asked of it, and what was found before."""

    def make(block: np.ndarray) -> np.ndarray:
        i = int(block.ravel()[0])
        if i == stop_at:
            raise Interrupted
        calls.append(i)
        return np.full((1, 3, 4), i + offset, np.float32)

    numbers = da.arange(5, chunks=1)[:, None, None] * da.ones((5, 3, 4), chunks=(1, 3, 4), dtype=int)
    images = da.map_blocks(make, numbers, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    return xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images),
            "mask": (("tilt", "y", "x"), images > 2),
            "total": ("tilt", images.sum(axis=(1, 2))),
            "shift": (("tilt", "axis"), np.arange(10.0).reshape(5, 2) + offset),
        },
        attrs={"noise_gain": 4.1 + offset},
    )


@pytest.fixture
def store(tmp_path: Path):
    """An empty store."""
    with Store.create(tmp_path / "run.zarr") as store:
        yield store


def test_write_blocks__what_store_write_gives(store: Store) -> None:
    calls: list[int] = []
    assert write_blocks(store, GROUP, dataset(calls), record=RECORD, dim="tilt") == 5
    assert sorted(calls) == [0, 1, 2, 3, 4]  # one source for all variables, asked once a block
    store.write("other", dataset([]), record=RECORD, chunks={"tilt": 1})
    xr.testing.assert_identical(store.read(GROUP).load(), store.read("other").load())
    assert store.read(GROUP)["images"].chunks == ((1,) * 5, (3,), (4,))


def test_write_blocks__goes_on_where_it_was_interrupted(store: Store) -> None:
    with pytest.raises(Interrupted):
        write_blocks(store, GROUP, dataset([], stop_at=3), record=RECORD, dim="tilt")
    done = BlockLedger(str(store.path), GROUP).done()
    found = begun(store, GROUP, RECORD)
    assert found is not None and GROUP not in store.groups()
    assert found.attrs["noise_gain"] == 4.1
    np.testing.assert_array_equal(found["shift"], np.arange(10.0).reshape(5, 2))
    calls: list[int] = []
    # Found anew with another result: what the first run wrote stays.
    again = dataset(calls).assign(shift=(("tilt", "axis"), np.zeros((5, 2))))
    assert write_blocks(store, GROUP, again, record=RECORD, dim="tilt") == 5 - done.sum()
    assert sorted(calls) == np.flatnonzero(~done).tolist() and 3 in calls
    xr.testing.assert_identical(store.read(GROUP).load(), dataset([]).load())
    assert begun(store, GROUP, RECORD) is None  # complete


def test_write_blocks__another_record_begins_anew(store: Store) -> None:
    with pytest.raises(Interrupted):
        write_blocks(store, GROUP, dataset([], stop_at=3), record=RECORD, dim="tilt")
    assert begun(store, GROUP, replace(RECORD, version="0.0.1")) is None
    other = Record("preprocess", {"kind": "particle"})
    assert begun(store, GROUP, other) is None
    assert write_blocks(store, GROUP, dataset([], offset=1.0), record=other, dim="tilt") == 5
    np.testing.assert_array_equal(store.read(GROUP)["images"][:, 0, 0], np.arange(5) + 1.0)


def test_write_blocks__a_begun_group_without_its_ledger_begins_anew(store: Store) -> None:
    store.begin(GROUP, dataset([]), record=RECORD, chunks={"tilt": 1})  # killed before the ledger was made
    assert begun(store, GROUP, RECORD) is None
    assert write_blocks(store, GROUP, dataset([]), record=RECORD, dim="tilt") == 5


def test_write_blocks__refuses_another_first_dimension(store: Store) -> None:
    with pytest.raises(StoreError, match="images, mask does not have tilt"):
        write_blocks(store, GROUP, dataset([]).transpose("y", "x", "tilt", ...), record=RECORD, dim="tilt")
