"""The curation page: what it asks first, what it draws, what it writes, and whom it answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from aetdist.cli import program
from aetdist.curate import CurationServer, Decisions, Surroundings, by_doubt
from aetdist.curate.doubt import certainty
from aetdist.errors import InputError, StoreError
from aetdist.io import Record, Store
from aetdist.refine.edits import Edit, apply_edits, read_edits

STEP, SIGMA = 0.4, 0.7
PLACES = np.array([[0.0, 0, 0], [3.0, 0, 0], [0, 3.2, 0], [0, 0, 3.4], [-3.0, -3, 0], [9.0, 8, 5]])


def atoms(**changes: Any) -> xr.Dataset:
    n = len(PLACES)
    variables = {
        "position": (("atom", "axis"), PLACES),
        "type": ("atom", np.array([1, 2, 1, 2, 1, 2])),
        "species": ("atom", np.array(["Co", "Pt"] * 3)),
        "intensity": ("atom", np.array([1.0, 2, 1, 2, 1, 2])),
        "b_factor": ("atom", np.full(n, 8 * np.pi**2 * SIGMA**2)),
        "probability": ("atom", np.array([0.99, 0.5, 1.0, 0.7, 1.0, 1.0])),
        "position_sigma": (("atom", "axis"), np.full((n, 3), 0.05) * np.arange(1, n + 1)[:, None]),
        **changes,
    }
    return xr.Dataset(variables, {"atom": 10 + np.arange(n), "axis": list("xyz")})


def density(places: np.ndarray = PLACES, heights: tuple[float, ...] = (1, 2, 1, 2, 1, 2)) -> xr.Dataset:
    axes = {"z": np.arange(-30, 31) * STEP, "y": np.arange(-25, 26) * STEP, "x": np.arange(-27, 28) * STEP}
    grid = np.stack(np.meshgrid(*axes.values(), indexing="ij"), axis=-1)[..., ::-1]
    values = sum(
        h * np.exp(-np.square(grid - p).sum(-1) / (2 * SIGMA**2)) for p, h in zip(places, heights, strict=True)
    )
    return xr.Dataset({"density": (("z", "y", "x"), values.astype("f4")), "pixel_size": ((), STEP)}, axes)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a volume of seven atoms of which six were found; only read."""
    volume = density(np.vstack([PLACES, [[3.0, 3.2, 0.4]]]), (1, 2, 1, 2, 1, 2, 2))
    path = tmp_path_factory.mktemp("curate") / "run.zarr"
    with Store.create(path) as store:
        store.write("volume", volume, record=Record("reconstruct"), chunks={"z": 16, "y": 16, "x": 16})
        store.write("atoms", atoms(), record=Record("trace"))
    return path


@contextlib.contextmanager
def serving(path: Path, edits: Path) -> Iterator[CurationServer]:
    with CurationServer(path, edits) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(stored: Path, tmp_path: Path) -> Iterator[CurationServer]:
    with serving(stored, tmp_path / "edits.csv") as server:
        yield server


@pytest.fixture(scope="module")
def unmoved(stored: Path) -> Iterator[CurationServer]:
    """A server whose table stays unwritten."""
    with serving(stored, stored.with_name("never.csv")) as server:
        yield server


def ask(
    server: CurationServer, page: str, wish: Any = None, *, method: str | None = None, **headers: str
) -> tuple[int, Any, http.client.HTTPResponse]:
    """Status, content and answer; headers that came with _ replace the page's own, None leaves one out."""
    host = f"127.0.0.1:{server.server_port}"
    own = {"Host": host}
    body = None
    if wish is not None:
        body = wish if isinstance(wish, bytes) else json.dumps(wish).encode()
        own |= {"Content-Type": "application/json", "Origin": f"http://{host}", "Content-Length": str(len(body))}
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    target = page if page.startswith("/") else f"/{server.token}/{page}"
    connection.putrequest(method or ("GET" if wish is None else "POST"), target, skip_host=True)
    for name, value in own.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    kind = answer.headers.get_content_type()
    return answer.status, json.loads(content) if kind == "application/json" else content.decode(), answer


# -- which atom first --------------------------------------------------------------------------------


def test_doubt__least_certain_first() -> None:
    r = 0.7 / (0.05 * np.arange(1, 7))
    within = [math.erf(x / math.sqrt(2)) - math.sqrt(2 / math.pi) * x * math.exp(-(x**2) / 2) for x in r]  # Maxwell
    np.testing.assert_allclose(certainty(atoms()), np.multiply([0.99, 0.5, 1.0, 0.7, 1.0, 1.0], within))
    assert by_doubt(atoms()).tolist() == [1, 3, 5, 4, 0, 2]
    typed = atoms(type_probability=(("atom", "type_number"), np.array([[1, 0]] * 5 + [[0.55, 0.45]])))
    assert by_doubt(typed).tolist() == [5, 1, 3, 4, 0, 2]
    nothing = np.where(np.arange(6)[:, None] == 1, np.nan, 0.05) * np.ones(3)
    unknown = atoms(
        probability=("atom", np.array([0.9, np.nan, 1.0, 1.0, 1.0, 1.0])), position_sigma=(("atom", "axis"), nothing)
    )
    assert by_doubt(unknown).tolist() == [0, 2, 4, 3, 5, 1]
    assert by_doubt(atoms()[["position", "intensity"]]).tolist() == [0, 2, 4, 1, 3, 5]
    assert by_doubt(atoms()[["position"]]).tolist() == list(range(6))


# -- what is around it -------------------------------------------------------------------------------


def test_surroundings__slices_are_those_of_the_volume(stored: Path) -> None:
    with Store.open(stored) as store:
        around = Surroundings(store, atoms()).around(atoms(), (3.0, 0.0, 0.0))
        volume = store.read("volume")["density"].compute()
    assert [(s["normal"], s["across"], s["up"]) for s in around["slices"]] == [
        ("z", "x", "y"), ("y", "x", "z"), ("x", "z", "y"),
    ]  # fmt: skip
    for one in around["slices"]:
        values = np.array(one["density"]) / 255 * around["peak"]
        u, v = (one["from"][k] + one["step"][k] * np.arange(values.shape[1 - k]) for k in (0, 1))
        plane = volume.sel({one["normal"]: one["at"]}, method="nearest")
        expected = plane.interp({one["across"]: u, one["up"]: v}, kwargs={"fill_value": 0.0})
        np.testing.assert_allclose(
            values, expected.transpose(one["up"], one["across"]).fillna(0), atol=around["peak"] / 255
        )
    marked = {tuple(atom["place"]): (atom["number"], atom["type"]) for atom in around["slices"][0]["atoms"]}
    assert marked == {(0, 0): (10, 1), (3, 0): (11, 2), (0, 3.2): (12, 1), (-3, -3): (14, 1)}


@pytest.mark.parametrize("known", [True, False])
def test_surroundings__difference_shows_the_atom_that_is_missing(stored: Path, known: bool) -> None:
    found = atoms() if known else atoms().drop_vars("b_factor")
    with Store.open(stored) as store:
        around = Surroundings(store, found).around(found, (3.0, 3.0, 0.0))
    np.testing.assert_allclose(around["suggestion"], [3.0, 3.2, 0.4], atol=STEP / 2 + 1e-9)
    at_z = np.array(around["slices"][0]["difference"])
    assert at_z.max() >= 100
    complete = apply_edits(found, [_add(3.0, 3.2, 0.4)])
    with Store.open(stored) as store:
        around = Surroundings(store, found).around(complete, (3.0, 3.0, 0.0))
    if known:  # the new atom gets the usual height, which is between those of the types
        assert np.abs(around["slices"][0]["difference"]).max() < 50


def test_surroundings__reads_only_the_chunks_it_touches(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(stored) as store:
        surroundings = Surroundings(store, atoms())
        read = []
        get = zarr.storage.LocalStore.get

        async def noted(self: Any, key: str, *arguments: Any, **options: Any) -> Any:
            read.append(key)
            return await get(self, key, *arguments, **options)

        monkeypatch.setattr(zarr.storage.LocalStore, "get", noted)
        surroundings.around(atoms(), (-8.0, -8.0, -9.0))
    chunks = {key for key in read if "/c/" in key}
    assert 0 < len(chunks) <= 8 < 4**3


def test_surroundings__outside_the_volume_is_nothing(stored: Path) -> None:
    with Store.open(stored) as store:
        around = Surroundings(store, atoms()).around(atoms(), (500.0, 0.0, -12.0))
    assert all(not np.any(one["density"]) for one in around["slices"])


# -- what is written ---------------------------------------------------------------------------------


def _add(x: float, y: float, z: float) -> Edit:
    return Edit("add", (x, y, z), 2)


def test_decisions__are_the_edits_that_refinement_reads(tmp_path: Path) -> None:
    table = tmp_path / "by hand é.csv"
    decisions = Decisions(atoms(), table)
    decisions.accept(10)
    decisions.delete(11)
    decisions.retype(12, 2)
    decisions.add((3.0, 3.2, 0.4), 2)
    assert decisions.counts() == {"accept": 1, "delete": 1, "retype": 1, "add": 1}
    assert decisions.decided() == {10, 11, 12, 16}
    changed = apply_edits(atoms(), read_edits(table))
    assert changed["atom"].values.tolist() == [10, 12, 13, 14, 15, 16]
    assert changed["type"].values.tolist() == [1, 2, 2, 1, 2, 2]
    assert changed["species"].values.tolist() == ["Co", "Pt", "Pt", "Co", "Pt", "Pt"]
    assert [entry.name for entry in tmp_path.iterdir()] == [table.name]


def test_decisions__go_on_with_the_table_and_take_back(tmp_path: Path) -> None:
    table = tmp_path / "edits.csv"
    table.write_text("# mine\nx,y,z,action,type\n3,0,0.1,delete\n\n0,3.2,0,retype,2\n# accept,0.0,0.0,3.4\n")
    decisions = Decisions(atoms(), table)
    assert decisions.decided() == {11, 12, 13}
    assert decisions.of_atom(12) == {"action": "retype", "type": 2}
    assert decisions.of_atom(10) is None
    decisions.delete(14)
    assert table.read_text().splitlines() == [
        "action,x,y,z,type,new_x,new_y,new_z", "# mine", "delete,3.0,0.0,0.1,,,,", "", "retype,0.0,3.2,0.0,2,,,",
        "# accept,0.0,0.0,3.4", "delete,-3.0,-3.0,0.0,,,,",
    ]  # fmt: skip
    again = Decisions(atoms(), table)
    assert [again.undo() for _ in range(5)] == [14, 13, 12, 11, None]
    assert again.atoms["atom"].values.tolist() == atoms()["atom"].values.tolist()
    assert read_edits(table) == ()
    assert "# mine" in table.read_text()


def test_decisions__what_the_atoms_went_through_is_kept_and_not_done_twice(tmp_path: Path) -> None:
    refined = apply_edits(atoms(), [_add(3.0, 3.2, 0.4)])
    decisions = Decisions(refined, tmp_path / "edits.csv")
    assert decisions.atoms.sizes["atom"] == 7
    assert decisions.decided() == {16}
    with pytest.raises(InputError, match="were refined with this decision"):
        decisions.undo()
    decisions.delete(11)
    assert [edit.action for edit in read_edits(tmp_path / "edits.csv")] == ["add", "delete"]
    again = Decisions(refined, tmp_path / "edits.csv")
    assert again.atoms["atom"].values.tolist() == [10, 12, 13, 14, 15, 16]
    assert again.undo() == 11


def test_decisions__refuse_what_cannot_be_made(tmp_path: Path) -> None:
    table = tmp_path / "edits.csv"
    decisions = Decisions(atoms(), table)
    with pytest.raises(InputError, match=r"add to 0.1, 0, 0 came, where an atom is 0.10 Angstrom away"):
        decisions.add((0.1, 0.0, 0.0), 1)
    with pytest.raises(InputError, match="no atom 99 any more"):
        decisions.delete(99)
    assert not table.exists()
    decisions.delete(11)
    with pytest.raises(InputError, match="no atom 11 any more"):
        decisions.accept(11)
    table.write_text("action,x,y,z\ndelete,0,0,0\n")
    with pytest.raises(InputError, match="was changed by someone else"):
        decisions.delete(12)
    assert table.read_text() == "action,x,y,z\ndelete,0,0,0\n"
    with pytest.raises(InputError, match="no folder"):
        Decisions(atoms(), tmp_path / "absent" / "edits.csv")


# -- whom it answers ---------------------------------------------------------------------------------


def test_server__one_atom_after_the_other(server: CurationServer, stored: Path, tmp_path: Path) -> None:
    status, state, _ = ask(server, "state")
    assert status == 200
    assert (state["n_atoms"], state["n_looked_at"], state["first"]) == (6, 0, 0)
    assert (state["n_types"], state["species"], state["title"]) == (2, ["Co", "Pt"], "run.zarr: atoms")
    _, first, _ = ask(server, "atom?rank=0")
    assert (first["number"], first["probability"], first["type"]) == (11, 0.5, 2)
    assert len(first["slices"]) == 3
    assert ask(server, "decide", {"action": "accept", "number": 11})[1]["first"] == 1
    assert ask(server, "decide", {"action": "retype", "number": 13, "type": 1})[1]["n_looked_at"] == 2
    place = ask(server, "atom?rank=2")[1]["suggestion"]
    assert ask(server, "decide", {"action": "add", "place": place, "type": 2})[1]["counts"]["add"] == 1
    assert ask(server, "decide", {"action": "delete", "number": 10})[1]["counts"]["delete"] == 1
    assert ask(server, "decide", {"action": "undo"})[1]["undone"] == 4
    table = tmp_path / "edits.csv"
    assert [edit.action for edit in read_edits(table)] == ["retype", "add"]
    with CurationServer(stored, table) as second:  # a second start goes on
        assert second.state()["n_looked_at"] == 2
        assert second.token != server.token


def test_server__answers_with_headers_that_keep_others_out(unmoved: CurationServer) -> None:
    for page in ("", "curate.js", "curate.css", "state"):
        status, content, answer = ask(unmoved, page)
        assert status == 200 and content
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
    assert unmoved.server_address[0] == "127.0.0.1"
    assert unmoved.token not in ask(unmoved, "")[1] + ask(unmoved, "curate.js")[1]


WISH = {"action": "delete", "number": 10}


@pytest.mark.parametrize(
    ("page", "wish", "options", "status"),
    [
        ("/", None, {}, 403),
        ("/wrong/", None, {}, 403),
        ("/wrong/decide", WISH, {}, 403),
        ("//evil.example/", None, {}, 403),
        ("state", None, {"Host": "evil.example"}, 403),
        ("state", None, {"Host": "evil.example:80"}, 403),
        ("state", None, {"Host": None}, 403),
        ("state", None, {"Origin": "http://evil.example"}, 403),
        ("state", None, {"Origin": "null"}, 403),
        ("decide", WISH, {"Origin": "http://evil.example"}, 403),
        ("decide", WISH, {"Origin": None}, 403),
        ("decide", WISH, {"Content_Type": "text/plain"}, 415),
        ("decide", WISH, {"Content_Length": None}, 411),
        ("decide", WISH, {"Content_Length": "-1"}, 411),
        ("decide", WISH, {"Content_Length": "5000"}, 413),
        ("decide", WISH, {"Content_Length": "99999999999999"}, 413),
        ("decide", WISH, {"Transfer_Encoding": "chunked"}, 411),
        ("decide", b"{", {}, 400),
        ("decide", b"[" * 4000, {}, 400),
        ("decide", b"\xff\xfe", {}, 400),
        ("decide", [1], {}, 400),
        ("decide", {"action": "format the disk"}, {}, 422),
        ("decide", {"action": "delete", "number": "10; rm"}, {}, 422),
        ("decide", {"action": "retype", "number": 10, "type": 3}, {}, 422),
        ("decide", {"action": "add", "place": ["x", 0, 0], "type": 1}, {}, 422),
        ("decide", b'{"action": "add", "place": [NaN, 0, 0], "type": 1}', {}, 422),
        ("state", WISH, {}, 404),
        ("../../etc/passwd", None, {}, 404),
        ("%2e%2e/%2e%2e/etc/passwd", None, {}, 404),
        ("page/../curate.js", None, {}, 404),
        ("atom?rank=-1", None, {}, 400),
        ("atom?rank=6", None, {}, 404),
        ("atom", None, {}, 400),
        *(("state", None, {"method": method}, 405) for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "TRACE")),
    ],
)
def test_server__refuses_the_rest(
    unmoved: CurationServer, stored: Path, page: str, wish: Any, options: dict, status: int
) -> None:
    got, content, answer = ask(unmoved, page, wish, **options)
    assert got == status
    assert unmoved.token not in str(content)
    assert "Content-Security-Policy" in answer.headers
    assert not stored.with_name("never.csv").exists()


def test_server__needs_atoms_and_a_volume(tmp_path: Path, stored: Path) -> None:
    with Store.create(tmp_path / "empty.zarr") as store:
        store.write("atoms", atoms(), record=Record("trace"))
    with pytest.raises(StoreError, match="volume"):
        CurationServer(tmp_path / "empty.zarr")
    with CurationServer(stored) as first, pytest.raises(InputError, match="cannot be had"):
        assert first.decisions.path == stored.with_name("run.edits.csv")
        CurationServer(stored, port=first.server_port)


def test_command__serves_until_interrupted(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(server: CurationServer) -> None:
        server.decide({"action": "delete", "number": 10})
        raise KeyboardInterrupt

    monkeypatch.setattr(CurationServer, "serve_forever", interrupted)
    answer = CliRunner().invoke(program, ["curate", str(stored), "--edits", str(tmp_path / "e.csv"), "--json"])
    assert answer.exit_code == 0
    assert re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", answer.stderr)
    summary = json.loads(answer.stdout)
    assert summary["edits"] == str(tmp_path / "e.csv")
    assert (summary["n_atoms"], summary["n_looked_at"], summary["n_deleted"], summary["n_added"]) == (6, 1, 1, 0)
