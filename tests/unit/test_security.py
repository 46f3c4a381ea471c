"""What comes from outside runs nothing, leads nowhere else, and takes nothing out: code, links, names, secrets."""

from __future__ import annotations

import ast
import io
import json
import logging
import pickle
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import psutil
import pytest
import scipy.io
import tifffile
import xarray as xr
from click.testing import CliRunner

import aetdist
from aetdist import _console, pipeline, write_report
from aetdist.cli import program
from aetdist.cluster import connect
from aetdist.errors import AetdistError, InputError, StoreError, redacted
from aetdist.io import BlockLedger, Record, Store, open_dataset, read_atoms, write_region
from aetdist.io.places import FolderZarr, inside
from aetdist.io.readers import list_datasets, list_files, open_frames, open_stack, read_calibration, read_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_files import write_ncem

PACKAGE = Path(aetdist.__file__).parent


# -- ports ---------------------------------------------------------------------------------------------


def test_connect__listens_on_loopback_only() -> None:
    """Scheduler, dashboard, nannies and workers."""
    with connect(workers=2, memory_limit="1GiB") as client:
        mine = psutil.Process()
        processes = [mine, *mine.children(recursive=True)]
        listening = [
            (process.pid, connection.laddr)
            for process in processes
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        pids = set(client.run(lambda: __import__("os").getpid()).values())
        assert {mine.pid, *pids} <= {pid for pid, _ in listening}
        assert {address.ip for _, address in listening} == {"127.0.0.1"}
        assert client.dashboard_link.startswith("http://127.0.0.1:")


# -- code ----------------------------------------------------------------------------------------------


def test_package__has_no_way_to_run_what_it_reads() -> None:
    """No pickle, no eval, no shell, no archive that is unpacked."""
    forbidden = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "os.system", "__import__"), (file, node.lineno)
                assert called.rpartition(".")[2] not in ("extractall", "unpack_archive", "loadmat"), (file, node.lineno)
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert keywords.get("shell", "False") == "False", (file, node.lineno)
                assert keywords.get("allow_pickle", "False") == "False", (file, node.lineno)
                if called in ("np.load", "numpy.load"):
                    assert "allow_pickle" in keywords, (file, node.lineno)
            assert not forbidden & {name.partition(".")[0] for name in names}, file


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_readers__unpickle_nothing(tmp_path: Path) -> None:
    """NPY, NPZ, HDF5 and text with a pickle inside, under every name."""
    exploded = tmp_path / "exploded"
    bomb = np.array([[[Bomb(exploded)]]], dtype=object)
    np.save(tmp_path / "a.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=bomb)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        file.create_dataset("images", (1, 1, 1), dtype=kind)[0, 0, 0] = np.frombuffer(pickle.dumps(bomb), np.uint8)
        file["reference"] = file["images"].ref
        file["text"] = np.array([[b"a" * 9]], dtype=object).astype(h5py.string_dtype())
    data = pickle.dumps(bomb)
    names = ["a.npy", "a.npz", "a.h5"]
    for suffix in (".pkl", ".npy", ".npz", ".h5", ".mat", ".csv", ".xyz", ".tif", ".mrc", ".dm4", ".ser", ".mdoc"):
        (tmp_path / f"b{suffix}").write_bytes(data)
        names.append(f"b{suffix}")
    for name in names:
        for dataset in (None, "images", "reference", "text"):
            for read in (open_stack, open_frames, read_table, read_calibration):
                try:
                    read(tmp_path / name, dataset)
                except AetdistError as error:
                    assert "\n" not in str(error)
                else:
                    assert read is read_calibration, (name, dataset)  # which looks at no array
        with pytest.raises(AetdistError):
            read_atoms(tmp_path / name)
    assert not exploded.exists()
    pickle.loads(data)
    assert exploded.exists()


def test_readers__matlab_objects_are_refused(tmp_path: Path) -> None:
    """Objects, function handles, structures and cells, in both kinds of MAT files."""
    path = tmp_path / "a.mat"
    opaque = scipy.io.matlab.MatlabObject(np.zeros((1, 1), dtype=[("a", object)]), "dataset")
    scipy.io.savemat(path, {"thing": opaque, "cell": np.array([1, "x"], object), "structure": {"a": 1}, "text": "x"})
    changed = bytearray(path.read_bytes())
    scipy.io.savemat(tmp_path / "f.mat", {"images": np.zeros((3, 3))})
    function = bytearray((tmp_path / "f.mat").read_bytes())
    assert function[144] == 6  # class of the array: double
    function[144] = 16  # a function handle
    (tmp_path / "f.mat").write_bytes(function)
    with h5py.File(tmp_path / "a73.mat", "w") as file:
        for name in ("function_handle", "cell", "struct", "char"):
            file[name] = np.zeros((2, 2, 2))
            file[name].attrs["MATLAB_class"] = np.bytes_(name)
    assert changed
    for file, names in (
        ("a.mat", ("thing", "cell", "structure", "text")),
        ("f.mat", ("images",)),
        ("a73.mat", ("function_handle", "cell", "struct", "char")),
    ):
        for name in names:
            for read in (open_stack, read_table):
                with pytest.raises(InputError, match="needed is a full array of numbers"):
                    read(tmp_path / file, name)


# -- links ---------------------------------------------------------------------------------------------


def test_readers__members_of_archives_are_never_files(tmp_path: Path) -> None:
    """A name that leads upwards is only a name."""
    outside = tmp_path / "outside.npy"
    inside_ = tmp_path / "in"
    inside_.mkdir()
    stack = np.arange(24.0).reshape(2, 3, 4)
    buffer = io.BytesIO()
    np.save(buffer, stack)
    with zipfile.ZipFile(inside_ / "a.npz", "w") as archive:
        archive.writestr("../outside.npy", buffer.getvalue())
        archive.writestr("/outside.npy", buffer.getvalue())
        link = zipfile.ZipInfo("link.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(outside))
    with pytest.raises(InputError):
        list_datasets(inside_ / "a.npz")  # the link is no array
    np.testing.assert_array_equal(open_stack(inside_ / "a.npz", "../outside").read(1), stack[1])
    with pytest.raises(InputError):
        open_stack(inside_ / "a.npz", "link")
    assert not outside.exists() and [path.name for path in tmp_path.iterdir()] == ["in"]


def test_list_files__links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    """A link inside it is a file like others; a file that is named may be a link."""
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "deeper").mkdir()
    for path in (tmp_path / "private.tif", folder / "1.tif", folder / "deeper" / "0.tif"):
        tifffile.imwrite(path, np.zeros((4, 5), np.uint8))
    (folder / "2.tif").symlink_to("deeper/0.tif")
    assert [Path(file).name for file in list_files(folder)] == ["1.tif", "2.tif"]
    (folder / "3.tif").symlink_to("../private.tif")
    with pytest.raises(InputError, match=r"3\.tif is a link to .*private\.tif, outside the folder.*name that file"):
        list_files(folder)
    assert list_files(folder / "3.tif") == [folder / "3.tif"]


def test_readers__tiff_opens_no_other_file(tmp_path: Path) -> None:
    """OME-XML may name files anywhere."""
    (tmp_path / "in").mkdir()
    image = np.zeros((4, 5), np.uint8)
    tifffile.imwrite(tmp_path / "private.ome.tif", image + 7, metadata={"axes": "YX"})
    path = tmp_path / "in" / "a.ome.tif"
    xml = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="5" SizeY="4" SizeZ="2" SizeC="1" SizeT="1">
<TiffData IFD="0" FirstZ="0"><UUID FileName="a.ome.tif">urn:uuid:0</UUID></TiffData>
<TiffData IFD="0" FirstZ="1"><UUID FileName="../private.ome.tif">urn:uuid:1</UUID></TiffData>
</Pixels></Image></OME>"""
    tifffile.imwrite(path, image, description=xml, metadata=None)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].shape == (2, 4, 5)  # what happens otherwise
    stack = open_stack(path)
    assert stack.shape == (1, 4, 5) and stack.read(0).max() == 0


def test_readers__emd_opens_no_other_file(tmp_path: Path) -> None:
    """Links and virtual arrays in an EMD are refused, wherever they lead."""
    pytest.importorskip("rsciio")
    images = np.ones((3, 4, 5), np.float32)
    write_ncem(tmp_path / "private.emd", images)
    for name in ("link", "virtual"):
        with h5py.File(write_ncem(tmp_path / f"{name}.emd", images), "r+") as file:
            del file["data/series/data"]
            if name == "link":
                file["data/series/data"] = h5py.ExternalLink(str(tmp_path / "private.emd"), "data/series/data")
            else:
                layout = h5py.VirtualLayout(images.shape, np.float32)
                layout[:] = h5py.VirtualSource(str(tmp_path / "private.emd"), "data/series/data", images.shape)
                file.create_virtual_dataset("data/series/data", layout)
        with pytest.raises(InputError, match=r"(links to .*private\.emd|keeps its numbers in other files); copy"):
            open_frames(tmp_path / f"{name}.emd")


RECORD = Record("test")
DATASET = xr.Dataset({"density": (("z", "y", "x"), da.ones((2, 2, 2), chunks=(1, 2, 2)))})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store, with a folder of someone else beside it."""
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("volume", DATASET, record=RECORD)
    with Store.create(tmp_path / "private.zarr") as store:
        store.write("volume", DATASET + 1, record=RECORD)
    return tmp_path / "run.zarr"


@pytest.mark.parametrize("name", ["../private.zarr/volume", "/etc", "a/../../b", "", ".", "a//b", "a\\b", "a\0b"])
def test_store__names_of_groups_stay_inside(store: Path, name: str) -> None:
    """Refused before anything is read, written or deleted."""
    before = sorted(store.parent.rglob("*"))
    with Store.open(store, "a") as opened:
        for act in (
            lambda: opened.read(name),
            lambda: opened.record(name),
            lambda: opened.write(name, DATASET, record=RECORD),
            lambda: opened.begin(name, DATASET, record=RECORD),
            lambda: opened.delete(name),
            lambda: opened.rename("volume", name),
            lambda: opened.rename(name, "volume"),
            lambda: opened.note(name, a=1),
            lambda: open_dataset(store, name),
            lambda: write_region(store, name, "density", np.s_[0:1, :, :], np.zeros((1, 2, 2))),
            lambda: BlockLedger(str(store), name).create(3),
        ):
            with pytest.raises((StoreError, ValueError)):
                act()
        assert opened.read("volume")["density"].values.sum() == 8
    assert [path for path in sorted(store.parent.rglob("*")) if "lock" not in path.name] == before


@pytest.mark.parametrize("linked", ["volume", "volume/density", "volume/density/c", "volume/density/c/0"])
def test_store__links_stay_inside(store: Path, linked: str) -> None:
    """A group, an array, a folder of chunks that lies elsewhere is neither read nor written nor deleted."""
    other = store.parent / "private.zarr" / linked
    link = store / linked
    link.rename(store.parent / "aside")
    link.symlink_to(other)
    before = {path: path.stat().st_mtime_ns for path in other.rglob("*")}
    with Store.open(store, "a") as opened:
        for act in (
            lambda: opened.read("volume").load(),
            lambda: write_region(store, "volume", "density", np.s_[0:1, :, :], np.zeros((1, 2, 2))),
        ):
            with pytest.raises(StoreError, match=r"a link that leads out of the store.*put a copy"):
                act()
        if linked == "volume":
            with pytest.raises(StoreError, match="leads out of the store"):
                opened.delete("volume")
        else:
            opened.delete("volume")  # the link goes, what it points to stays
    assert {path: path.stat().st_mtime_ns for path in other.rglob("*")} == before


def test_store__a_store_may_itself_be_a_link(store: Path) -> None:
    """To another disk, say; and links inside it are followed."""
    link = store.parent / "link.zarr"
    link.symlink_to(store)
    (store / "again").symlink_to("volume")
    with Store.open(link, "a") as opened:
        assert opened.read("volume")["density"].values.sum() == opened.read("again")["density"].values.sum() == 8
        opened.write("volume", DATASET * 2, record=RECORD)
    assert Store.open(store).read("volume")["density"].values.sum() == 16
    assert inside(link, "volume") == link / "volume"
    assert pickle.loads(pickle.dumps(FolderZarr(store))) == FolderZarr(store)


# -- pages ---------------------------------------------------------------------------------------------

EVIL = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{", "{title}", "</style>"]


def test_write_report__escapes_whatever_it_shows(tmp_path: Path) -> None:
    """Names of stores, species and models, attributes and parameters, as markup, as formulas, as places to fill in."""
    rng = np.random.default_rng(0)
    position = 3.0 * np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3) + rng.normal(0, 0.1, (125, 3))
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), position),
            "type": ("atom", np.arange(125) % len(EVIL) + 1),
            "species": ("atom", np.array(EVIL)[np.arange(125) % len(EVIL)]),
        },
        {"axis": list("xyz")},
        {"comment": EVIL[0], EVIL[1]: EVIL[2]},
    )
    path = tmp_path / "<script>alert(2)<.zarr"
    with Store.create(path) as store:
        record = Record(EVIL[0], {EVIL[1]: EVIL[0], "title": EVIL[3]}, {EVIL[0]: EVIL[1]})
        store.write("atoms", atoms, record=record)
    page = write_report(path, tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(page)
    assert "<script>alert" not in page and not any(script.startswith("alert") for script in parsed.scripts)
    assert not parsed.foreign
    assert "&lt;script&gt;alert(2)" in page and "&lt;script&gt;alert(1)" in page


class Page(HTMLParser):
    """What a browser would run or fetch of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[tuple[str, Any]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            fetched = name in ("src", "srcset", "action", "data") and not str(value).startswith("data:")
            if fetched or name.startswith("on") or "javascript:" in str(value):
                self.foreign.append((tag, (name, value)))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script":
            self.scripts.append(data)


# -- secrets -------------------------------------------------------------------------------------------

SECRETS = [
    "s3://AKIAKEY:hunter2secret@bucket/run.zarr",
    "https://user:hunter2secret@host.example/a?x=1",
    "https://host.example/a.h5?X-Amz-Signature=hunter2secret&X-Amz-Credential=hunter2secret",
    "tls://:hunter2secret@10.0.0.1:8786",
    "AWS_SECRET_ACCESS_KEY=hunter2secret",
    "--set token=hunter2secret",
    "{'password': 'hunter2secret', \"api_key\": \"hunter2secret\"}",
    "s3:/AKIAKEY:hunter2secret@bucket/run.zarr",  # what pathlib makes of it
]


@pytest.mark.parametrize("text", SECRETS)
def test_redacted__secrets_go_and_the_rest_stays(text: str) -> None:
    done = redacted(f"before {text} after")
    assert "hunter2" not in done and done.startswith("before ") and done.endswith(" after") and "***" in done


@pytest.mark.parametrize(
    "text", ["run.zarr", "/data/me@lab/a.h5::images", "s3://bucket/run.zarr", "iterations=20 n_tokens: 3", "a?b", "x@y"]
)
def test_redacted__leaves_the_rest(text: str) -> None:
    assert redacted(text) == text


def test_errors__name_no_secrets() -> None:
    """Neither here nor when they come from a worker."""
    error = pickle.loads(pickle.dumps(InputError(f"No scheduler answers at {SECRETS[3]}.")))
    assert "hunter2" not in str(error) and "10.0.0.1:8786" in str(error)


@pytest.mark.parametrize("text", SECRETS)
def test_record__keeps_no_secrets(tmp_path: Path, text: str) -> None:
    """Neither do the notes beside it; and a record that is read back is the one that was written."""
    with Store.create(tmp_path / "run.zarr") as store:
        record = Record("import", {"files": [text, Path(text)], "more": {"of": text}})
        store.write("volume", DATASET, record=record)
        store.note("volume", asked={"keywords": {"a": text}})
        assert store.record("volume") == record
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


def test_command__shows_and_logs_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the command, the error and its traceback."""
    log = tmp_path / "log.txt"
    for words in (["info", SECRETS[0], "--debug"], ["import", SECRETS[1], "-o", SECRETS[0], "--debug"]):
        monkeypatch.setattr(sys, "argv", ["aetdist", *words])
        done = CliRunner().invoke(program, [*words, "--log", str(log)])
        assert done.exit_code == 2
        assert "hunter2" not in done.output and "Traceback" in done.stderr
    written = log.read_text()
    assert "hunter2" not in written and "Traceback" in written and "aetdist info" in written


def test_log__of_anything_is_redacted(tmp_path: Path) -> None:
    """Also what stages say, and the summary."""
    with _console.session(as_json=True, log_file=tmp_path / "log.txt") as show:
        logging.getLogger("aetdist.somewhere").warning("connected to %s", SECRETS[3])
        show({"store": SECRETS[7]})
    assert "hunter2" not in (tmp_path / "log.txt").read_text()


def test_store__credentials_in_a_url_are_refused() -> None:
    with pytest.raises(InputError, match=r"\*\*\*@bucket") as caught:
        pipeline.info(SECRETS[0])
    assert "hunter2" not in json.dumps(str(caught.value))
