"""The store: what is written comes back, and what is wrong is refused before anything is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from aetdist import schema
from aetdist.errors import StoreError
from aetdist.io import BlockLedger, Record, Store, open_dataset, write_region

RECORD = Record("reconstruct", {"iterations": 40, "shape": (4, 5, 6)}, {"tilt_series/aligned": "abc"}, seed=3)


def volume(value: float | None = None, chunks: tuple[int, ...] = (2, 5, 2)) -> xr.Dataset:
    density = da.arange(120, chunks=120).reshape(6, 5, 4).astype("f4") if value is None else da.full((6, 5, 4), value)
    dataset = xr.Dataset(
        {
            "density": (("z", "y", "x"), density.astype("f4").rechunk(chunks)),
            "r_factor": (("iteration", "tilt"), np.array([[0.5, np.nan]])),
            "label": ("tilt", np.array(["Fe", "Gd₂"])),
            "count": ((), np.int64(7)),
            "nothing": (("none", "axis"), np.zeros((0, 3))),
        },
        {"z": np.arange(6.0), "y": np.arange(5.0), "x": np.arange(4.0), "axis": list("xyz")},
        {"voltage_kV": 300.0, "detector_mrad": [30.0, 200.0]},
    )
    return schema.with_units(dataset, schema.VOLUME)


def run_python(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_store__reads_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "mesure d'été 1.zarr"
    with Store.create(path) as store:
        store.write("volume", volume(), record=RECORD)
    with Store.open(path) as store:
        back = store.read("volume")
        assert store.groups() == ["volume"]
        assert store.record("volume") == RECORD
        assert store.record("atoms") is None
        assert isinstance(back.density.data, da.Array)
        assert back.density.chunks == ((2, 2, 2), (5,), (2, 2))
        assert isinstance(back.r_factor.data, np.ndarray)
        xr.testing.assert_identical(back.compute(), volume().compute())
        assert back.density.attrs["units"] == "1"
        assert back.x.attrs["units"] == "angstrom"


def test_store__opens_as_a_datatree(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", volume(), record=RECORD)
        store.begin("volume", volume(), record=RECORD)
        BlockLedger(str(path), "volume").create(3)
        assert store.groups() == ["tilt_series/aligned"]
    tree = xr.open_datatree(path, engine="zarr", consolidated=False)
    assert set(tree.groups) >= {"/tilt_series/aligned", "/volume", "/volume/blocks"}
    assert tree.attrs["aetdist_schema_version"] == schema.SCHEMA_VERSION
    assert tree["tilt_series/aligned"].attrs["provenance"]["stage"] == "reconstruct"


def test_store__stored_chunks_follow_the_request(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("volume", volume(chunks=(1, 3, 4)), record=RECORD, chunks={"z": 4, "y": 2})
        back = store.read("volume")
        assert back.density.chunks == ((4, 2), (2, 2, 1), (4,))
        np.testing.assert_array_equal(back.density, volume().density)


def test_store__large_array_in_memory_is_cut(tmp_path: Path) -> None:
    dataset = xr.Dataset({"density": (("z", "y", "x"), np.zeros((20, 512, 512), dtype="f4"))})
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("volume", dataset, record=RECORD)
        assert store.read("volume").density.data.npartitions > 1


def test_store__writing_a_graph_runs_one_task_per_chunk(tmp_path: Path) -> None:
    shapes = []

    def block(block_info: dict) -> np.ndarray:
        shapes.append(block_info[None]["chunk-shape"])
        return np.ones(block_info[None]["chunk-shape"], dtype="f4")

    density = da.map_blocks(block, chunks=((2, 2, 2), (5,), (4,)), dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("volume", xr.Dataset({"density": (("z", "y", "x"), density)}), record=RECORD)
    assert shapes == [(2, 5, 4)] * 3


def test_store__begun_group_is_hidden_until_every_chunk_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with dask.config.set(scheduler=_refuse), Store.create(path) as store:
        store.begin("volume", volume(), record=RECORD)
        assert store.record("volume") is None
        assert store.pending("volume") == RECORD
        with pytest.raises(StoreError, match="not complete"):
            store.read("volume")
        assert np.isnan(open_dataset(path, "volume").density.values).all()
        for z in range(0, 6, 2):
            write_region(path, "volume", "density", np.s_[z : z + 2, :, 0:2], np.zeros((2, 5, 2)))
        with pytest.raises(StoreError, match="3 of 6 chunks were never written"):
            store.finish("volume")
        write_region(path, "volume", "density", np.s_[:, :, 2:4], np.ones((6, 5, 2)))
        store.finish("volume")
        assert store.pending("volume") is None
    np.testing.assert_array_equal(open_dataset(path, "volume").density.mean(["z", "y"]), [0, 0, 1, 1])


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("nothing may be computed here")


def test_write_region__writes_chunks_that_look_empty(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    template = {"a": ("x", da.zeros(4, chunks=2)), "b": ("x", da.zeros(4, chunks=2, dtype=int))}
    with Store.create(path) as store:
        store.begin("volume", xr.Dataset(template), record=RECORD)
        for name, value in (("a", np.nan), ("b", 0)):
            write_region(path, "volume", name, (slice(0, 4),), np.full(4, value))
        store.finish("volume")
        assert np.isnan(store.read("volume").a).all()


def test_store__workers_write_and_the_client_never_holds_the_array(tmp_path: Path, client) -> None:
    def pid(block: np.ndarray) -> np.ndarray:
        time.sleep(0.2)
        return np.full_like(block, os.getpid())

    density = da.zeros((6, 2, 2), chunks=(1, 2, 2), dtype="i8").map_blocks(
        pid, dtype="i8", meta=np.empty((0, 0, 0), "i8")
    )
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("volume", xr.Dataset({"density": (("z", "y", "x"), density)}), record=RECORD)
        writers = set(np.unique(store.read("volume").density).tolist())
    assert len(writers) == 2
    assert os.getpid() not in writers


@pytest.mark.parametrize(
    ("region", "shape", "message"),
    [
        (np.s_[1:3, :, :], (2, 5, 4), "1:3 along dimension 0 cuts chunks of 2"),
        (np.s_[0:2, :, 0:3], (2, 5, 3), "0:3 along dimension 2 cuts chunks of 2"),
        (np.s_[0:2, :], (2, 5), "3 dimensions"),
        (np.s_[0:2, :, :], (2, 5, 2), r"shape \(2, 5, 2\)"),
    ],
)
def test_write_region__refuses_what_is_not_whole_chunks(tmp_path: Path, region, shape, message: str) -> None:
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.begin("volume", volume(), record=RECORD)
        with pytest.raises(StoreError, match=message):
            write_region(path, "volume", "density", region, np.zeros(shape))


def test_store__interrupted_write_stays_incomplete_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(block: np.ndarray, block_info: dict) -> np.ndarray:
        if block_info[0]["chunk-location"][0] == 2:
            raise ValueError("a broken frame")
        return block

    broken = volume()
    broken["density"] = broken.density.copy(
        data=broken.density.data.map_blocks(fail, dtype="f4", meta=np.empty((0, 0, 0)))
    )
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("tilt_series/aligned", volume(), record=RECORD)
        store.write("volume", volume(1.0), record=RECORD)
        with pytest.raises(ValueError, match="a broken frame"):
            store.write("volume", broken, record=RECORD)
        assert store.groups() == ["tilt_series/aligned"]
        store.write("volume", volume(2.0), record=RECORD)
        assert (store.read("volume").density == 2).all()


def test_store__failed_creation_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with pytest.raises(RuntimeError, match="no such luck"), Store.create(path) as store:
        store.begin("volume", volume(), record=RECORD)
        raise RuntimeError("no such luck")
    assert list(tmp_path.iterdir()) == []


def test_store__failed_creation_leaves_nothing_where_tasks_still_write(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"

    def write_on() -> None:
        for i in range(6):
            chunk = path / "tilt_series" / "images" / "c" / str(i)
            with contextlib.suppress(FileNotFoundError):  # a parent of it was just deleted
                chunk.mkdir(parents=True, exist_ok=True)
            time.sleep(0.03)

    late = threading.Thread(target=write_on)
    with pytest.raises(RuntimeError, match="full"), Store.create(path):
        late.start()
        raise RuntimeError("full")
    late.join()
    assert list(tmp_path.iterdir()) == []


def test_store__error_after_the_first_group_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with pytest.raises(RuntimeError, match="later"), Store.create(path) as store:
        store.write("volume", volume(), record=RECORD)
        raise RuntimeError("later")
    assert Store.open(path).groups() == ["volume"]


def test_store__overwrites_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("volume", volume(1.0), record=RECORD)
    with pytest.raises(StoreError, match="--overwrite"):
        Store.create(path)
    with Store.create(path, overwrite=True) as store:
        assert store.groups() == []
        store.write("atoms", volume(2.0), record=RECORD)
    assert Store.open(path).groups() == ["atoms"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.zarr"]


def test_store__failed_overwrite_puts_the_old_store_back(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("volume", volume(1.0), record=RECORD)
    with pytest.raises(RuntimeError, match="bad input"), Store.create(path, overwrite=True):
        raise RuntimeError("bad input")
    assert Store.open(path).groups() == ["volume"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.zarr"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_store__never_replaces_another_folder(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w", attributes={"title": "not ours"})
    (tmp_path / "file.zarr").write_text("a file")
    for name in ("thesis", "other.zarr", "file.zarr"):
        with pytest.raises(StoreError, match="never overwritten"):
            Store.create(tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


KILLED = """
import os, sys
import numpy as np, xarray as xr
from aetdist.io import Record, Store
store = Store.create(sys.argv[1], overwrite=True)
store.begin("volume", xr.Dataset({"a": ("x", np.arange(3))}), record=Record("reconstruct"))
os.kill(os.getpid(), 9)
"""


def test_store__killed_creation_is_replaced_without_asking(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    assert run_python(KILLED, path).returncode == -9
    with Store.create(path) as store:
        store.write("volume", volume(), record=RECORD)
    assert Store.open(path).groups() == ["volume"]


def test_store__killed_overwrite_gives_the_old_store_back(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("volume", volume(), record=RECORD)
    assert run_python(KILLED, path).returncode == -9
    with Store.open(path, mode="a") as store:
        assert store.groups() == ["volume"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.zarr"]


def test_store__damaged_chunk_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    noise = np.random.default_rng(0).random((4, 4, 4))
    with Store.create(path) as store:
        store.write("volume", xr.Dataset({"density": (("z", "y", "x"), noise)}), record=RECORD)
    chunk = path / "volume" / "density" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(RuntimeError, match="checksum"):
        Store.open(path).read("volume").compute()
    with pytest.raises(StoreError, match="damaged"), Store.create(tmp_path / "copy.zarr") as copy:
        copy.write("volume", Store.open(path).read("volume"), record=RECORD)
    assert not (tmp_path / "copy.zarr").exists()


def test_store__newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    Store.create(path).close()
    newer = {"aetdist_schema_version": schema.SCHEMA_VERSION + 1, "aetdist_version": "9.8.7"}
    zarr.open_group(str(path), mode="r+").attrs.update(newer)
    for mode in ("r", "a"):
        with pytest.raises(StoreError, match=r"install aetdist 9\.8\.7"):
            Store.open(path, mode=mode)
    assert not path.with_name("run.zarr.lock").exists()


@pytest.mark.parametrize("mode", ["r", "a"])
def test_store__missing_or_foreign_is_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(StoreError, match="There is no store"):
        Store.open(tmp_path / "absent.zarr", mode=mode)
    with pytest.raises(StoreError, match="not an aetdist store"):
        Store.open(tmp_path, mode=mode)
    with pytest.raises(StoreError, match="no folder"):
        Store.create(tmp_path / "absent" / "run.zarr")
    assert list(tmp_path.iterdir()) == []


def test_store__opened_for_reading_refuses_to_write(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("volume", volume(), record=RECORD)
    store = Store.open(path)
    for act in (lambda: store.write("atoms", volume(), record=RECORD), lambda: store.delete("volume")):
        with pytest.raises(StoreError, match="mode='a'"):
            act()


READ_ONLY = """
import os, sys
from aetdist.io import Store
Store.open(sys.argv[1]).read("volume").compute()
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
{act}
"""


@pytest.mark.parametrize("act", ["Store.open(sys.argv[1], mode='a')", "Store.create(sys.argv[1] + '.new')"])
def test_store__read_only_folder_is_refused_in_one_line(act: str) -> None:
    folder = Path(tempfile.mkdtemp())  # tmp_path lies in a folder that only its owner can reach
    try:
        with Store.create(folder / "run.zarr") as store:
            store.write("volume", volume(), record=RECORD)
        for entry in (*folder.rglob("*"), folder):
            entry.chmod(0o555 if entry.is_dir() else 0o444)
        result = run_python(READ_ONLY.format(act=act), folder / "run.zarr")
        assert result.returncode == 1
        assert "StoreError: " in result.stderr.splitlines()[-1]
        assert "right to write" in result.stderr.splitlines()[-1]
    finally:
        folder.chmod(0o755)
        for entry in folder.rglob("*"):
            entry.chmod(0o755)
        shutil.rmtree(folder)


FULL = """
import resource, sys
import dask.array as da, xarray as xr
from aetdist.io import Record, Store
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
dataset = xr.Dataset({"density": (("z", "y", "x"), da.random.random((40, 40, 40), chunks=(20, 40, 40)))})
with Store.open(sys.argv[1], mode="a") as store:
    store.write("volume", dataset, record=Record("reconstruct"))
"""


def test_store__full_disk_is_one_line_and_the_next_run_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", volume(), record=RECORD)
    result = run_python(FULL, path, "full")
    assert result.returncode == 1
    assert "StoreError: No room left" in result.stderr.splitlines()[-1]
    assert Store.open(path).groups() == ["tilt_series/aligned"]
    assert not list(path.rglob("*.partial"))
    result = run_python(FULL, path, "enough")
    assert result.returncode == 0, result.stderr
    assert Store.open(path).groups() == ["tilt_series/aligned", "volume"]


def test_store__deleted_group_is_gone(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("tilt_series/aligned", volume(), record=RECORD)
        store.write("atoms", volume(), record=RECORD)
        store.delete("tilt_series")
        store.delete("absent")
        assert store.groups() == ["atoms"]
        with pytest.raises(StoreError, match="holds no 'tilt_series/aligned' but atoms"):
            store.read("tilt_series/aligned")


def test_store__notes_go_with_their_group(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("volume", volume(), record=RECORD)
        store.note("volume", summary={"n": np.int64(3)})
        store.note("volume", request="abc")
        assert store.notes("volume") == {"summary": {"n": 3}, "request": "abc"}
        xr.testing.assert_identical(store.read("volume").compute(), volume().compute())
        store.write("volume", volume(), record=RECORD)
        assert store.notes("volume") == store.notes("absent") == {}
        with pytest.raises(StoreError, match="holds no 'atoms'"):
            store.note("atoms", summary={})


def test_store__shows_its_groups_in_a_notebook(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a <b>.zarr") as store:
        store.write("volume", volume(), record=RECORD)
        store.begin("atoms", xr.Dataset({"a": ("b", np.zeros(2))}), record=Record("trace"))
        page = store._repr_html_()
    assert "<td>volume</td><td>complete</td><td>reconstruct</td>" in page
    assert "<td>atoms</td><td>incomplete</td><td>trace</td>" in page
    assert "a &lt;b&gt;.zarr</caption>" in page


def test_store__lazy_text_is_refused(tmp_path: Path) -> None:
    dataset = xr.Dataset({"species": ("atom", da.from_array(np.array(["Fe", "Co"]), chunks=1))})
    with Store.create(tmp_path / "run.zarr") as store, pytest.raises(StoreError, match="load it first"):
        store.write("atoms", dataset, record=RECORD)


def test_record__digest_says_what_matters() -> None:
    digest = RECORD.digest
    assert digest == Record(**{**RECORD.__dict__, "created": "then", "version": "0"}).digest
    assert digest == Record("reconstruct", {"shape": [4, 5, 6], "iterations": 40}, RECORD.inputs, seed=3).digest
    for change in ({"stage": "scan"}, {"parameters": {}}, {"inputs": {}}, {"seed": 4}):
        assert digest != Record(**{**RECORD.__dict__, **change}).digest
    assert Record.from_dict(RECORD.to_dict()) == RECORD


def test_record__arrays_count_by_their_values() -> None:
    support = np.zeros((20, 20, 20), dtype=bool)
    one = Record("reconstruct", {"support": support}).digest
    support[3, 4, 5] = True
    assert one != Record("reconstruct", {"support": support}).digest
    assert one != Record("reconstruct", {"support": xr.DataArray(support)}).digest
    with pytest.raises(TypeError, match="function"):
        Record("reconstruct", {"on_iteration": volume})
