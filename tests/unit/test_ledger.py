"""The record of finished blocks."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from aetdist.errors import StoreError
from aetdist.io import BlockLedger, Record, Store


def ledger(path: Path, n: int = 5) -> BlockLedger:
    with Store.create(path) as store:
        store.write("atoms", xr.Dataset(), record=Record("trace"))
        store.begin("volume", xr.Dataset({"a": ("x", np.arange(4))}), record=Record("scan"))
        result = BlockLedger(str(path), "volume")
        result.create(n)
    return result


def test_ledger__remembers_what_is_done(tmp_path: Path) -> None:
    blocks = ledger(tmp_path / "run.zarr")
    blocks.mark(1)
    pickle.loads(pickle.dumps(blocks)).mark(4)
    assert blocks.done().tolist() == [False, True, False, False, True]
    assert blocks.is_done(4)
    assert not blocks.is_done(0)
    blocks.mark(4)
    assert blocks.done().sum() == 2
    blocks.create(3)
    assert blocks.done().tolist() == [False] * 3


def test_ledger__has_one_file_per_block(tmp_path: Path) -> None:
    blocks = ledger(tmp_path / "run.zarr")
    folder = tmp_path / "run.zarr" / "volume" / "blocks" / "done" / "c"
    blocks.mark(2)
    assert [entry.name for entry in folder.iterdir()] == ["2"]


def test_ledger__goes_with_its_group(tmp_path: Path) -> None:
    blocks = ledger(tmp_path / "run.zarr")
    assert blocks.exists()
    with Store.open(tmp_path / "run.zarr", mode="a") as store:
        store.begin("volume", xr.Dataset(), record=Record("scan"))
    assert not blocks.exists()
    with pytest.raises(StoreError, match="no record of blocks for 'volume'"):
        blocks.mark(0)


def test_ledger__unfinished_blocks_do_not_keep_a_group_from_finishing(tmp_path: Path) -> None:
    ledger(tmp_path / "run.zarr")
    with Store.open(tmp_path / "run.zarr", mode="a") as store:
        store.finish("volume")
        assert "volume" in store.groups()
