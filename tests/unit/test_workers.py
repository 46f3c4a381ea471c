"""Workers are asked at the door whether they can do the work."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest

from aetdist import cluster
from aetdist.cluster import workers
from aetdist.errors import InputError


@pytest.fixture(scope="module")
def local():
    with cluster.connect(workers=1, memory_limit="1GiB") as client:
        yield client


class Answers:
    """A client whose workers answer as a real one did, but for what `change` says."""

    def __init__(self, client, change_versions=lambda found: None, change=lambda answer: answer):
        self.found = client.get_versions(packages=workers.PACKAGES)
        (one,) = self.found["workers"].values()
        self.found["workers"] = {name: copy.deepcopy(one) for name in ("tcp://a:1", "tcp://b:2")}
        change_versions(self.found["workers"]["tcp://b:2"])
        self.client, self.change = client, change

    def get_versions(self, packages):
        return self.found

    def run(self, function, *arguments, on_error):
        (one,) = self.client.run(function, *arguments, on_error=on_error).values()
        return {"tcp://a:1": one, "tcp://b:2": self.change(copy.deepcopy(one))}


def test_check_workers__fit(local, tmp_path):
    """Store there, store to be made, read-only place: nothing is left behind."""
    cluster.check_workers(local)
    (tmp_path / "film.zarr").mkdir()
    for name in ("film.zarr", "new.zarr"):
        cluster.check_workers(local, tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["film.zarr"]


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("numba", "0.1", r"The worker tcp://b:2 has numba 0\.1 where this process has [0-9.]+; .*constraints\.txt"),
        ("aetdist", None, "The worker tcp://b:2 lacks aetdist;"),
        ("python", "3.9.1.final.0", r"has python 3\.9 where"),
    ],
)
def test_check_workers__other_versions(local, name, version, words):
    answers = Answers(local, lambda found: found["packages"].update({name: version}))
    with pytest.raises(InputError, match=words):
        cluster.check_workers(answers)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda answer: ModuleNotFoundError("No module named 'aetdist'"), "tcp://b:2 cannot import aetdist .No module"),
        (lambda answer: OSError("timed out"), r"does not answer \(timed out\)"),
        (lambda answer: answer | {"source": "0" * 64}, "another source of aetdist under the same version"),
        (lambda answer: answer | {"too_many": "OMP_NUM_THREADS=8"}, "has 1 threads but OMP_NUM_THREADS=8; start it"),
        (
            lambda answer: answer | {"sees": "No AWS profile 'lab'."},
            r"does not see .*film\.zarr; No AWS profile 'lab'\.$",
        ),
        (lambda answer: answer | {"sees": False}, r"does not see .*film\.zarr; put the store on a file system"),
    ],
)
def test_check_workers__unfit(local, tmp_path, change, words):
    with pytest.raises(InputError, match=words) as caught:
        cluster.check_workers(Answers(local, change=change), tmp_path / "film.zarr")
    assert "\n" not in str(caught.value)


def test_check_workers__folder_that_is_nowhere(local, tmp_path):
    with pytest.raises(InputError, match="does not see"):
        cluster.check_workers(local, tmp_path / "nowhere" / "film.zarr")


def test_connect__asks_the_workers_of_a_scheduler(local, monkeypatch):
    """A worker started by hand, without a nanny and without a word about threads, is named."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [sys.executable, "-m", "distributed.cli.dask_worker", local.scheduler.address, "--no-nanny"]
    options = ["--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard", "--memory-limit", "0"]
    with subprocess.Popen([*command, *options], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            local.wait_for_workers(2, timeout=60)
            with (
                pytest.raises(InputError, match="has 1 threads but no OMP_NUM_THREADS; start it with"),
                cluster.connect(local.scheduler.address, workers=2),
            ):
                pass
        finally:
            process.terminate()
            process.wait()


def test_too_many_threads__says_which(monkeypatch):
    for name, value in cluster.thread_environment(2).items():
        monkeypatch.setenv(name, value)
    from aetdist.cluster.environment import too_many_threads

    assert too_many_threads(2) is None
    assert too_many_threads(1) == "OMP_NUM_THREADS=2"


def test_source_digest__of_the_files_that_are_imported(tmp_path, monkeypatch):
    (tmp_path / "cluster").mkdir()
    monkeypatch.setattr(workers, "__file__", str(tmp_path / "cluster" / "workers.py"))
    digests = []
    for text in ("a = 1", "a = 2", "a = 1"):
        (tmp_path / "one.py").write_text(text)
        digests.append(workers.source_digest.__wrapped__())
    assert digests[0] == digests[2] != digests[1]
