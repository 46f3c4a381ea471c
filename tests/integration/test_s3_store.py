"""A store in S3 (moto, on this machine): the guarantees of a folder, clear errors, and no secret anywhere."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from aetdist import pipeline
from aetdist.cli import program
from aetdist.errors import InputError, StoreError, StoreLockedError
from aetdist.io import Record, Store, StoreLock, lock, places, read_atoms, write_region
from aetdist.io.places import S3Place, place

sys.path.insert(0, str(Path(__file__).parents[1]))
from s3_server import SECRET, keys, s3_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that speaks like S3."""
    with s3_server() as address:
        yield address


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """Where nothing is yet."""
    return f"s3://lab/{request.node.name}/run.zarr"


def small(value: float) -> xr.Dataset:
    """A group of 3 chunks."""
    values = da.full((3, 4, 4), value, chunks=(1, 4, 4), dtype="float32")
    return xr.Dataset({"images": (("tilt", "y", "x"), values)}, {"tilt": np.arange(3), "name": ("tilt", list("abc"))})


def test_store_s3__a_group_is_there_when_it_is_complete(url: str) -> None:
    record = Record("test")
    with Store.create(url) as store:
        store.begin("volume", small(1.0), record=record, chunks={"tilt": 1})
        write_region(url, "volume", "images", (slice(0, 2), slice(0, 4), slice(0, 4)), np.zeros((2, 4, 4), "f4"))
        with pytest.raises(StoreError, match="1 of 3 chunks were never written"):
            store.finish("volume")
        assert store.groups() == [] and store.pending("volume").digest == record.digest
        with pytest.raises(StoreError, match="not complete"):
            store.read("volume")
        write_region(url, "volume", "images", (slice(2, 3), slice(0, 4), slice(0, 4)), np.ones((1, 4, 4), "f4"))
        store.finish("volume")
        with pytest.raises(StoreError, match="open for reading only"):
            Store.open(url).delete("volume")
    with Store.open(url) as store:
        assert store.groups() == ["volume"] and store.read("volume")["images"].values.sum() == 16
        assert store.read("volume")["name"].values.tolist() == list("abc")
        assert (
            xr.testing.assert_equal(store.tree()["volume"]["images"].compute(), store.read("volume")["images"]) is None
        )


def test_store_s3__a_group_that_is_renamed_is_copied_and_then_deleted(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, nothing is lost; what only is part of a copy is no group."""
    with Store.create(url) as store:
        store.write("tilt_series/aligned", small(1.0), record=Record("test"))
        with monkeypatch.context() as patch:
            patch.setattr(S3Place, "delete", lambda self: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                store.rename("tilt_series/aligned", "tilt_series/preprocessed")
        assert store.groups() == ["tilt_series/aligned", "tilt_series/preprocessed"]
        store.rename("tilt_series/aligned", "tilt_series/preprocessed")
        assert store.groups() == ["tilt_series/preprocessed"]
        assert store.read("tilt_series/preprocessed")["images"].values.sum() == 48
        (store.path / "tilt_series/preprocessed/zarr.json").rename  # noqa: B018
        boto3.client("s3").delete_object(Bucket="lab", Key=f"{store.path.key}/tilt_series/preprocessed/zarr.json")
        assert store.groups() == []
        store.write("tilt_series/preprocessed", small(2.0), record=Record("test"))
        assert store.read("tilt_series/preprocessed")["images"].values.sum() == 96


def test_store_s3__one_that_is_replaced_comes_back_after_an_error_or_a_kill(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values() -> float:
        with Store.open(url) as store:
            assert store.groups() == ["volume"]
            return float(store.read("volume")["images"].values.sum())

    with Store.create(url) as store:
        store.write("volume", small(1.0), record=Record("test"))
    with pytest.raises(StoreError, match="exists; choose another name, or replace it"):
        Store.create(url)
    with pytest.raises(RuntimeError, match="on purpose"), Store.create(url, overwrite=True) as store:
        store.begin("volume", small(2.0), record=Record("test"))
        raise RuntimeError("on purpose")
    assert values() == 48
    killed = Store.create(url, overwrite=True)
    killed.begin("volume", small(2.0), record=Record("test"))
    killed._lock.release()
    with Store.open(url, "a"):
        assert values() == 48
    with monkeypatch.context() as patch:  # killed while the old one was being deleted, its copy being complete
        delete = S3Place.delete
        patch.setattr(S3Place, "delete", lambda self: boto3.client("s3").delete_object(
            Bucket="lab", Key=f"{self.key}/zarr.json") and 1 / 0)  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            Store.create(url, overwrite=True)
        patch.setattr(S3Place, "delete", delete)
    with Store.open(url, "a"):
        assert values() == 48
    with Store.create(url, overwrite=True) as store:
        store.write("volume", small(3.0), record=Record("test"))
    assert values() == 144 and not any(".replaced" in key or ".lock" in key for key in keys(place(url).key))


def test_place_s3__what_says_that_it_is_a_store_goes_first_or_last(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """First where a copy is complete; last where who is killed must be able to tell that it was a store."""
    Store.create(url).close()
    with Store.open(url, "a") as store:
        store.write("volume", small(1.0), record=Record("test"))
    deleted = []
    real = places.obstore()
    stand_in = SimpleNamespace(list=real.list, delete=lambda _, several: deleted.append(several))
    monkeypatch.setattr(places, "obstore", lambda: stand_in)
    place(url).delete()
    place(url).delete(name_last=True)
    root = [f"{place(url).key}/zarr.json"]
    assert deleted[0] == deleted[3] == root and deleted[1] == deleted[2] and len(deleted[1]) > 3
    assert root[0] not in deleted[1]


def test_lock_s3__second_writer_is_refused_until_the_first_is_gone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = StoreLock(place(url)).acquire()
    with pytest.raises(StoreLockedError, match=rf"written by process {os.getpid()} on .* delete {url}\.lock"):
        Store.create(url)
    owner = mine.file.holder()
    mine.file._put({**owner, "machine": "another", "pid": 4}, {"e_tag": mine.file._look()[1]})
    with pytest.raises(StoreLockedError, match="process 4 on"):  # of another machine: it beat just now
        StoreLock(place(url)).acquire()
    with pytest.raises(StoreLockedError, match="was lost"):
        mine.check()
    mine.release()
    assert mine.file.holder()["pid"] == 4
    monkeypatch.setattr(lock, "STALE_SECONDS", -1.0)
    thief = StoreLock(place(url)).acquire()
    thief.check()
    thief.release()
    assert not keys(place(url).key)


def test_lock_s3__of_two_that_take_a_dead_one_over_one_succeeds(url: str) -> None:
    """And none, if the holder beats in between."""
    holder, one, other = (StoreLock(place(url)) for _ in range(3))
    owner = {"host": "node17", "pid": 4, "token": "dead"}
    assert holder.file.create(owner) and not one.file.create({"token": "one"})
    seen, tag = one.file._look()
    holder.file.touch(owner)
    assert seen == owner == one.file.holder()
    assert not one.file._put({"token": "one"}, {"e_tag": tag})
    assert one.file.take_over(owner, {"token": "one"}) and not other.file.take_over(owner, {"token": "other"})
    assert one.file.holder() == {"token": "one"} and 0 <= one.file.age() < 60


def test_place__names_of_stores() -> None:
    where = place("s3://lab/film/run.zarr/")
    assert where == place(Path("s3://lab/film/run.zarr")) == place(where) and str(where) == "s3://lab/film/run.zarr"
    assert (where.name, where.stem, where.suffix) == ("run.zarr", "run", ".zarr")
    assert str(where / "tilt_series/raw") == "s3://lab/film/run.zarr/tilt_series/raw"
    assert place("film/run.zarr") == Path("film/run.zarr")
    for wrong in ("s3://lab", "s3://lab/", "s3://lab/../other", "s3://lab/x?X-Amz-Signature=abc", "gs://lab/x"):
        with pytest.raises(InputError, match="needed is") as raised:
            place(wrong)
        assert "abc" not in str(raised.value)


@pytest.mark.parametrize("words", [("info",), ("trace",), ("analyze", "-o"), ("import", "images.h5", "-o")])
def test_s3__keys_in_a_url_are_refused_and_never_shown(words: tuple[str, ...], tmp_path: Path) -> None:
    secret = "se/cr+et"
    result = CliRunner().invoke(program, [*words, f"s3://AKIA:{secret}@lab/x.zarr", "--log", str(tmp_path / "log")])
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert result.exit_code == 2 and secret not in result.output + log and "AKIA" not in result.output + log


def test_s3__keys_do_not_travel_in_tasks(url: str) -> None:
    with Store.create(url) as store:
        store.write("volume", small(1.0), record=Record("test"))
        sent = pickle.dumps(store.read("volume"))
    assert b"run.zarr" in sent and SECRET.encode() not in sent
    xr.testing.assert_equal(pickle.loads(sent).compute(), small(1.0).compute())


def test_s3__says_what_is_wrong_in_one_line(server: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for open_store in (Store.open, Store.create):
        with pytest.raises(StoreError, match=f"no bucket for s3://nothing/x.* at {server}"):
            open_store("s3://nothing/x")
    with pytest.raises(StoreError, match="no store s3://lab/nothing"):
        Store.open("s3://lab/nothing")
    with pytest.raises(InputError, match="no file s3://lab/nothing"):
        read_atoms("s3://lab/nothing")
    with Store.create(url) as store:
        store.write("atoms", xr.Dataset({"position": (("atom", "axis"), np.zeros((1, 3)))}), record=Record("test"))
    with pytest.raises(InputError, match="only stores can be in S3"):
        pipeline.export(url, atoms="s3://lab/atoms.xyz")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "obstore", None)
        patch.setitem(sys.modules, "obstore.store", None)
        with pytest.raises(InputError, match=r"pip install 'aetdist\[s3\]'"):
            Store.open(url)
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.setenv("HOME", "/nonexistent")
        patch.setenv("AWS_PROFILE", "film")
        with pytest.raises(InputError, match="no AWS profile 'film'"):
            Store.open(url)


def test_s3__refused_keys_are_told_from_a_missing_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moto asks for keys that it knows, and knows none."""
    with Store.create(url) as store:
        store.write("volume", small(1.0), record=Record("test"))
        volume = store.read("volume")
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    for go in (lambda: Store.open(url), lambda: Store.create(url), volume.load):
        with pytest.raises(StoreError, match=r"refused s3://lab/.*set AWS_ACCESS_KEY_ID") as raised:
            go()
        assert SECRET not in str(raised.value) and "AKIA" not in str(raised.value)


def test_s3__keys_of_a_profile(server: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Region, endpoint and keys of ~/.aws, which obstore does not read."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(f"[profile film]\nregion = us-east-1\nendpoint_url = {server}\n")
    (tmp_path / ".aws/credentials").write_text(f"[film]\naws_access_key_id = a\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "film")
    with Store.create(url) as store:
        store.write("volume", small(1.0), record=Record("test"))
        assert SECRET.encode() not in pickle.dumps(store.read("volume"))
    assert Store.open(url).groups() == ["volume"]
    (tmp_path / ".aws/credentials").write_text(f"aws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_REGION", "us-east-1")  # opened anew
    with pytest.raises(InputError, match="cannot be read") as raised:
        Store.open(url)
    assert SECRET not in str(raised.value)
