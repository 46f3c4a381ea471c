"""Published data: found in a folder, or fetched from a server, whatever that does."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

import aetdist as aet
from aetdist import data
from aetdist.errors import AetdistWarning, InputError
from aetdist.io import read_atoms
from aetdist.progress import listen

POSITIONS = np.random.default_rng(0).normal(size=(3, 7)) * 20  # as MATLAB has them: one column an atom
TYPES = np.array([[1, 2, 3, 1, 1, 2, 3]], dtype=np.uint8)


class Server(ThreadingHTTPServer):
    """What it answers to every request, and the requests that came."""

    body = b""
    status = 200
    cut = 0
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body[: len(self.server.body) - self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("AETDIST_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(data, "HOST", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


def mat(tmp_path: Path, **variables: np.ndarray) -> bytes:
    scipy.io.savemat(tmp_path / "made.mat", variables)
    return (tmp_path / "made.mat").read_bytes()


def publish(monkeypatch: pytest.MonkeyPatch, key: str = "atoms", **changes: object) -> data.PublishedFile:
    """The particle's data set with one file changed."""
    published = data.PUBLISHED["metallic-glass"]
    file = dataclasses.replace(published.files[key], **changes)
    changed = dataclasses.replace(published, files={**published.files, key: file})
    monkeypatch.setitem(data.PUBLISHED, "metallic-glass", changed)
    return file


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_fetch__first_download_is_recorded_and_the_second_asks_nobody(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(monkeypatch, n_numbers=21)
    server.body = mat(tmp_path, final_atom_coord_inAngstrom=POSITIONS)
    digest = hashlib.sha256(server.body).hexdigest()
    steps = []
    with (
        pytest.warns(AetdistWarning, match=f"No digest of .* is known.*{digest}"),
        listen(lambda *step: steps.append(step)),
    ):
        found = aet.data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")
    assert server.asked == [f"/AET-MetallicGlass/Supplementary-Data-Codes/{file.commit}/{file.path}"]
    assert steps[-1] == (len(server.body), len(server.body), "metallic-glass: atoms")
    np.testing.assert_array_equal(read_atoms(found["atoms"]).position, POSITIONS.T)
    assert left_in(tmp_path / "kept") == ["final_atom_coord_inA.mat", "final_atom_coord_inA.mat.sha256"]
    assert aet.data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept") == found
    assert len(server.asked) == 1


def test_fetch__what_was_recorded_holds(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, n_numbers=21)
    server.body = mat(tmp_path, a=POSITIONS)
    with pytest.warns(AetdistWarning):
        path = Path(data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")["atoms"])
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(data.DownloadError, match="was changed since it was downloaded; delete it"):
        data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")
    path.unlink()
    server.body = mat(tmp_path, a=POSITIONS + 1)
    with pytest.raises(data.DownloadError, match="is not the file that was published: its SHA-256 is another one"):
        data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")
    assert left_in(tmp_path / "kept") == [path.name + ".sha256"]
    server.body = mat(tmp_path, a=POSITIONS)  # scipy's header holds the time
    path.with_name(path.name + ".sha256").write_text(hashlib.sha256(server.body).hexdigest() + f"  {path.name}\n")
    assert data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")["atoms"] == str(path)


def test_fetch__known_digest(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.body = mat(tmp_path, a=POSITIONS)
    publish(monkeypatch, n_numbers=21, sha256=hashlib.sha256(server.body).hexdigest())
    data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")  # warns of nothing
    publish(monkeypatch, n_numbers=21, sha256="0" * 64)
    with pytest.raises(data.DownloadError, match="another one; nothing was kept"):
        data.fetch("metallic-glass", "atoms", folder=tmp_path / "other")
    assert left_in(tmp_path / "other") == []


def test_fetch__interrupted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, n_numbers=21)
    server.body, server.cut = mat(tmp_path, a=POSITIONS), 20
    with pytest.raises(data.DownloadError, match=r"ended before all had come.* Try again, or copy .* AETDIST_DATA"):
        data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")
    assert left_in(tmp_path / "kept") == []


def test_fetch__offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(data.DownloadError, match=r"cannot be reached; is this machine offline\?"):
        data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")
    assert left_in(tmp_path / "kept") == []


def test_fetch__no_such_file_there(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(data.DownloadError, match="404"):
        data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")
    assert left_in(tmp_path / "kept") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>moved</html>", "no MATLAB variable came, one of 21 numbers is needed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "no MATLAB variable"),
        ({"a": POSITIONS[:, :5]}, r"a \(3x5 f8\) came, one of 21 numbers"),
        ({"a": POSITIONS, "b": TYPES}, "came, one of 21"),
    ],
)
def test_fetch__something_else_came(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | dict, message: str
) -> None:
    publish(monkeypatch, n_numbers=21)
    server.body = content if isinstance(content, bytes) else mat(tmp_path, **content)
    with pytest.raises(data.DownloadError, match=message):
        data.fetch("metallic-glass", "atoms", folder=tmp_path / "kept")
    assert left_in(tmp_path / "kept") == []


def test_fetch__folder_of_data_comes_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETDIST_DATA", str(tmp_path))
    with h5py.File(tmp_path / "metallic_glass_nanoparticle.h5", "w") as file:
        file["types"] = TYPES[0]
    published = data.PUBLISHED["metallic-glass"].files
    copied = tmp_path / "metallic-glass" / published["atoms"].path
    copied.parent.mkdir(parents=True)
    copied.write_bytes(mat(tmp_path, a=POSITIONS))
    found = data.fetch("metallic-glass", "atoms", "types", folder=tmp_path / "kept")
    assert found == {"atoms": str(copied), "types": f"{tmp_path / 'metallic_glass_nanoparticle.h5'}::types"}
    assert server.asked == []


def test_fetch__unknown_names() -> None:
    with pytest.raises(InputError, match=r"no published data set 'glass'; needed is one of metallic-glass, "):
        data.fetch("glass")
    with pytest.raises(InputError, match=r"metallic-glass has no file 'angle'; needed is one of atoms, types, angles"):
        data.fetch("metallic-glass", "angle")


def test_published__pinned_and_cited() -> None:
    for name, published in data.PUBLISHED.items():
        assert "(202" in published.citation
        for key, file in published.files.items():
            assert len(file.commit) == 40 and set(file.commit) <= set("0123456789abcdef"), (name, key)
            assert file.path.endswith(".mat") and not file.path.startswith("/")
        assert any(file.by_default for file in published.files.values())


# -- the layout of the published files ---------------------------------------------------------------


def test_import__takes_projections_as_they_are_published(tmp_path: Path) -> None:
    images = np.random.default_rng(1).random((3, 5, 8)).astype("f4")  # (tilt, y, x)
    angles = np.array([[0.5, -30.0, 0.1], [0.0, 0.0, 0.0], [0.1, 31.0, -0.2]])
    scipy.io.savemat(tmp_path / "projections.mat", {"projections": images.transpose(2, 1, 0)}, do_compression=True)
    scipy.io.savemat(tmp_path / "angles.mat", {"angles": angles})
    options = {"angles": tmp_path / "angles.mat", "pixel_size": 0.35, "transpose": True}
    series = aet.import_tilt_series(tmp_path / "projections.mat", **options)
    np.testing.assert_array_equal(series["images"], images)
    np.testing.assert_array_equal(series["angles"], angles)
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["mask"] = (images > 0.1).transpose(0, 2, 1)
    masked = aet.import_tilt_series(tmp_path / "projections.mat", mask=f"{tmp_path / 'mask.h5'}::mask", **options)
    np.testing.assert_array_equal(masked["mask"], images > 0.1)


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (3, 3)])
def test_read_atoms__mat_of_a_single_variable(tmp_path: Path, shape: tuple[int, int]) -> None:
    position = np.random.default_rng(2).random(shape)
    scipy.io.savemat(tmp_path / "model.mat", {"model": position})
    expected = position.T if shape == (3, 7) else position
    np.testing.assert_array_equal(read_atoms(tmp_path / "model.mat").position, expected)
    scipy.io.savemat(tmp_path / "two.mat", {"model": position, "types": TYPES})
    with pytest.raises(InputError, match="name one"):
        read_atoms(tmp_path / "two.mat")
