"""An experiment in S3 (moto, on this machine) is that of a folder, to the bit, and goes on after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import aetdist as aet
from aetdist import pipeline
from aetdist.cli import program
from aetdist.cluster import check_workers
from aetdist.errors import InputError
from aetdist.io import BlockLedger, Store
from aetdist.io.places import S3Place, place

sys.path.insert(0, str(Path(__file__).parents[1]))
from s3_server import SECRET, keys, s3_server

pytestmark = pytest.mark.integration

SCAN = {"window": (40, 36), "overlap": 16, "thickness": 16.0, "iterations": 4, "coarse_iterations": 4}
TRACE = {"minimum_distance": 2.0}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that speaks like S3."""
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def workers(server: str) -> Iterator[Any]:
    """A client of two worker processes, which find the keys in their own environment."""
    with aet.connect(workers=2, memory_limit="2GiB") as client:
        yield client


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """Where nothing is yet."""
    return f"s3://lab/{request.node.name}/run.zarr"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tilt series of a film that is larger than the field, as an HDF5 file."""
    atoms = aet.amorphous_film((50.0, 30.0), 10.0, species=("Ta",), seed=7)
    angles = np.array([[0.2, t, -0.1] for t in np.linspace(-60, 60, 5)])
    series = aet.simulate_tilt_series(atoms, angles, pixel_size=0.5, field=(58, 36), dose=2e5, seed=8)
    path = tmp_path_factory.mktemp("images") / "film.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["angles"] = series["images"].values, series["angles"].values
    return path


@pytest.fixture(scope="module")
def local(images: Path) -> Path:
    """The film in a folder: imported, scanned without a cluster, traced, analysed."""
    path = images.with_name("run.zarr")
    pipeline.import_series(images, path, images="images", angles="angles", pixel_size=0.5)
    pipeline.scan(path, **SCAN)
    pipeline.trace(path, **TRACE)
    pipeline.analyze(path)
    pipeline.export(path, atoms=images.with_name("atoms.xyz"), volume=images.with_name("volume.mrc"))
    return path


def assert_equal(one: str | Path, other: str | Path) -> None:
    """The same groups, equal to the bit."""
    with Store.open(one) as a, Store.open(other) as b:
        assert a.groups() == b.groups()
        for group in a.groups():
            assert a.digest(group) == b.digest(group)
            xr.testing.assert_equal(a.read(group).load(), b.read(group).load())


def test_s3__an_experiment_is_that_of_a_folder(
    workers: Any, images: Path, local: Path, url: str, tmp_path: Path
) -> None:
    """TOML and command line; both workers read and write the store themselves; no key in it or in the log."""
    text = f"""
        [import]
        files = "{images}"
        output = "{url}"
        images = "images"
        angles = "angles"
        pixel_size = 0.5
        [scan]
        window = [40, 36]
        overlap = 16
        thickness = 16
        iterations = 4
        coarse_iterations = 4
        [trace]
        minimum_distance = 2.0
        """
    (tmp_path / "film.toml").write_text(textwrap.dedent(text))

    def command(*words: str | Path) -> dict[str, Any]:
        result = CliRunner().invoke(program, [*map(str, words), "--json", "--log", str(tmp_path / "log")])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    done = command("run", tmp_path / "film.toml", "--cluster", workers.scheduler.address)
    assert done["store"] == url and set(done["stages"].values()) == {"computed"}
    tasks = workers.run(lambda dask_worker: sum(1 for line in dask_worker.state.log if "executing" in str(line)))
    assert len(tasks) == 2 and all(tasks.values())
    before = keys(place(url).key)
    states = command("run", tmp_path / "film.toml", "--dry-run")["stages"]
    assert set(states.values()) == {"current"} and keys(place(url).key) == before
    command("analyze", url)
    command("export", url, "--atoms", tmp_path / "atoms.xyz", "--volume", tmp_path / "volume.mrc")
    assert_equal(url, local)
    for name in ("atoms.xyz", "volume.mrc"):
        assert (tmp_path / name).read_bytes() == local.with_name(name).read_bytes()
    with Store.open(local) as store:
        sizes = {group: said["size_bytes"] for group, said in aet.io.describe_groups(store).items()}
    said = command("info", url)["groups"]
    assert {group: said[group]["status"] for group in said} == dict.fromkeys(sizes, "complete")
    assert {g: said[g]["size_bytes"] for g in said} == pytest.approx(sizes, rel=0.05)  # records name another file
    told = [S3Place("lab", key).read_text() for key in keys(place(url).key) if key.endswith("zarr.json")]
    told.append((tmp_path / "log").read_text())
    assert "tilt_series" in "".join(told) and SECRET not in "".join(told)


def test_connect_s3__says_which_worker_cannot_open_the_store(workers: Any, url: str) -> None:
    """Before anything is computed: keys or obstore may be missing there."""
    check_workers(workers, url)
    somewhere = next(iter(workers.scheduler_info()["workers"]))
    workers.run(lambda: os.environ.update(AWS_PROFILE="film"), workers=[somewhere])
    try:
        with pytest.raises(InputError, match=rf"does not see {url}; There is no AWS profile 'film'"):
            check_workers(workers, place(url))
    finally:
        workers.run(lambda: os.environ.pop("AWS_PROFILE", None))


RUN = """
import sys
from aetdist import pipeline
pipeline.scan(sys.argv[1], **{scan!r})
"""


def recorded(url: str) -> dict[str, Any]:
    """When the block of every recorded window, of every pass, was written."""
    found = {}
    for group in ("scan/windows_1", "scan/windows_2"):
        if BlockLedger(url, group).exists():
            for i in np.flatnonzero(BlockLedger(url, group).done()):
                found |= keys(f"{place(url).key}/{group}/density/c/{i}/")
    return found


def test_s3__goes_on_after_it_was_killed(images: Path, local: Path, url: str) -> None:
    """The lock of the dead process is taken over; no recorded window is computed again."""
    pipeline.import_series(images, url, images="images", angles="angles", pixel_size=0.5)
    with subprocess.Popen([sys.executable, "-c", RUN.format(scan=SCAN), url]) as process:
        for _ in range(1200):
            if recorded(url):
                break
            time.sleep(0.05)
        process.kill()
    before = recorded(url)
    n = len(before)
    assert n >= 1 and S3Place.of(f"{url}.lock").is_file()
    total = pipeline.scan(url, **SCAN)["n_windows_computed"] + n
    with Store.open(local) as store:
        assert total == sum(store.read(f"scan/windows_{k}").sizes["window"] for k in (1, 2)) > n
    assert before.items() <= recorded(url).items() and not S3Place.of(f"{url}.lock").is_file()
    for variable in ("density", "disagreement"):
        with Store.open(local) as one, Store.open(url) as other:
            np.testing.assert_array_equal(one.read("volume")[variable], other.read("volume")[variable])
