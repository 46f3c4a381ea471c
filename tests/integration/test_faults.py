"""What may go wrong while a film is scanned: the same film to the bit, or one line that says what to do and a run
that goes on. Nothing whose record was written is lost or computed twice.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import WorkerPlugin

import aetdist
from aetdist import pipeline
from aetdist.cluster import connect, thread_environment
from aetdist.errors import CapacityError, ClusterError, InputError, StoreError
from aetdist.io import Store
from aetdist.reconstruct import scan

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_film import N_WINDOWS, PASSES, SCAN, copy, density, film_series, recorded, wait_for_windows

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes of 1 GiB."""
    with connect(workers=2, memory_limit="1GiB") as client:
        yield client


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One series for all tests."""
    return film_series(tmp_path_factory.mktemp("faults") / "series.zarr", dose=2e5)


@pytest.fixture(scope="module")
def film(series: Path, client: Any, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The film of a run that nothing disturbs."""
    path = copy(series, tmp_path_factory.mktemp("undisturbed"))
    pipeline.scan(path, **SCAN)
    return density(path)


@contextmanager
def meanwhile(path: Path, act: Callable[[], Any], after: int = 2) -> Iterator[dict[str, int]]:
    """Once `after` windows are recorded, `act`; gives what was recorded by then."""
    before: dict[str, int] = {}

    def wait() -> None:
        wait_for_windows(path, after, alive=lambda: not ended.is_set())
        before.update(recorded(path))
        act()

    ended = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield before
    finally:
        ended.set()
        thread.join()


def assert_goes_on(path: Path, film: np.ndarray, client: Any) -> None:
    """The next run computes what is missing, only that, and gives the film of an undisturbed one."""
    client.wait_for_workers(2, timeout=60)
    while any(client.run(lambda dask_worker: len(dask_worker.state.executing)).values()):
        time.sleep(0.05)  # what was under way when the run ended may still be recorded
    before = recorded(path)
    assert 0 < len(before) < PASSES * N_WINDOWS
    with Store.open(path) as store:
        assert "volume" not in store.groups()
    summary = pipeline.scan(path, **SCAN)
    assert summary["n_windows_computed"] == PASSES * N_WINDOWS - len(before)
    assert_whole(path, film, before)


def assert_whole(path: Path, film: np.ndarray, before: dict[str, int]) -> None:
    """All windows are recorded, those of `before` were not written again, and the film is the same to the bit."""
    after = recorded(path)
    assert before and len(after) == PASSES * N_WINDOWS and before.items() <= after.items()
    np.testing.assert_array_equal(density(path), film)


# -- workers -------------------------------------------------------------------------------------------


def test_faults__worker_killed(series: Path, film: np.ndarray, tmp_path: Path, client: Any) -> None:
    """kill -9 in the middle: others do its work."""
    path = copy(series, tmp_path)
    pids = client.run(os.getpid)
    with meanwhile(path, lambda: os.kill(next(iter(pids.values())), signal.SIGKILL)) as before:
        pipeline.scan(path, **SCAN)
    assert_whole(path, film, before)


def eat(*_: Any) -> None:
    """Take memory until someone stops it."""
    held = []
    while True:
        held.append(np.ones(2**22))
        time.sleep(0.01)


class Eaters(WorkerPlugin):
    """Every worker, also one that is started anew, needs more memory for a window than there is."""

    def setup(self, worker: Any) -> None:
        self.whole, scan.reconstruct_window = scan.reconstruct_window, eat

    def teardown(self, worker: Any) -> None:
        scan.reconstruct_window = self.whole


def test_faults__worker_out_of_memory_once(series: Path, film: np.ndarray, tmp_path: Path, client: Any) -> None:
    """The nanny ends it and starts another, which does the window again."""
    path = copy(series, tmp_path)
    client.wait_for_workers(2, timeout=60)
    before = client.run(os.getpid)
    hungry = next(iter(before))
    client.run(lambda dask_worker: Eaters().setup(dask_worker), workers=[hungry])
    pipeline.scan(path, **SCAN)
    client.wait_for_workers(2, timeout=60)
    assert before[hungry] not in client.run(os.getpid).values()
    assert_whole(path, film, {"scan/windows_1/0": recorded(path)["scan/windows_1/0"]})


def test_faults__workers_out_of_memory_always(series: Path, film: np.ndarray, tmp_path: Path, client: Any) -> None:
    """One line says which options help; with more memory the next run goes on."""
    path = copy(series, tmp_path)
    scheduler = client.cluster.scheduler
    allowed, scheduler.allowed_failures = scheduler.allowed_failures, 0
    try:
        with (
            pytest.raises(CapacityError, match=r"lost with its worker 1 times.*--memory-limit.*what was finished"),
            meanwhile(path, lambda: client.register_plugin(Eaters(), name="eaters")),
        ):
            pipeline.scan(path, **SCAN)
    finally:
        scheduler.allowed_failures = allowed
        client.unregister_worker_plugin("eaters")
    assert_goes_on(path, film, client)


# -- scheduler and client ------------------------------------------------------------------------------


@contextmanager
def started(
    program: str, *arguments: str, cwd: Path | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's own command line, in a group of its own that is killed at the end."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--host", "127.0.0.1", "--no-dashboard"]
    options: dict[str, Any] = {
        "env": os.environ | thread_environment(1) | environment,
        "start_new_session": True,
        "cwd": cwd,
    }
    with subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, **options) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def scheduler_elsewhere(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A scheduler in a process of its own, and its address."""
    file = folder / "scheduler.json"
    with started("scheduler", "--port", "0", "--scheduler-file", str(file)) as scheduler:
        for _ in range(1200):
            if file.is_file() and file.read_text().endswith("}"):
                break
            time.sleep(0.05)
        yield scheduler, json.loads(file.read_text())["address"]


def worker_of(scheduler: str, **options: Any) -> Any:
    """A worker of one thread, without a nanny."""
    return started("worker", scheduler, "--no-nanny", "--nthreads", "1", "--memory-limit", "0", **options)


def test_faults__scheduler_killed(series: Path, film: np.ndarray, tmp_path: Path, client: Any) -> None:
    """kill -9: one line says so; another cluster goes on."""
    path = copy(series, tmp_path)
    with (
        scheduler_elsewhere(tmp_path) as (scheduler, address),
        worker_of(address),
        worker_of(address),
        connect(address, workers=2, store=path, timeout=60),
        pytest.raises(ClusterError, match=r"scheduler is lost.*what was finished is kept"),
        meanwhile(path, scheduler.kill),
    ):
        pipeline.scan(path, **SCAN)
    assert_goes_on(path, film, client)


def test_faults__command_killed(series: Path, film: np.ndarray, tmp_path: Path) -> None:
    """kill -9 of the command alone: its workers end themselves, and the same command goes on."""
    path = copy(series, tmp_path)
    options = [str(word) for word in ("--window", *SCAN["window"], "--overlap", SCAN["overlap"])]
    options += ["--thickness", str(SCAN["thickness"]), "--iterations", str(SCAN["iterations"])]
    options += ["--set", f"coarse_iterations={SCAN['coarse_iterations']}", "--workers", "2", "--json"]
    command = [sys.executable, "-m", "aetdist", "scan", str(path), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_windows(path, 2, alive=lambda: process.poll() is None)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert len(gone) >= 2 and not alive
    before = recorded(path)
    assert len(before) < PASSES * N_WINDOWS
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["n_windows_computed"] == PASSES * N_WINDOWS - len(before)
    assert_whole(path, film, before)


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "aetdist":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Blocked())
"""


def without_aetdist(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text(BLOCKED)


def with_other_numba(folder: Path) -> None:
    (folder / "numba-0.0.1.dist-info").mkdir()
    (folder / "numba-0.0.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: numba\nVersion: 0.0.1\n")


def with_other_source(folder: Path) -> None:
    shutil.copytree(Path(aetdist.__file__).parent, folder / "aetdist", ignore=shutil.ignore_patterns("__pycache__"))
    changed = folder / "aetdist/errors.py"
    changed.write_text(changed.read_text() + "\n")


@pytest.mark.parametrize(
    ("prepare", "store", "message"),
    [
        (without_aetdist, "film.zarr", "cannot import aetdist .*; install it where the worker starts"),
        (with_other_numba, "film.zarr", r"has numba 0\.0\.1 where this process has .*constraints\.txt"),
        (with_other_source, "film.zarr", "has another source of aetdist under the same version; install this one"),
        # Where a process is at work has one name for all, and is another folder for each.
        (
            lambda folder: None,
            "/proc/self/cwd/film.zarr",
            r"does not see .*film\.zarr; put the store on a file system that every worker sees",
        ),
    ],
    ids=["lacks aetdist", "other versions", "other source", "sees another folder"],
)
def test_faults__worker_unfit(
    series: Path, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch, prepare: Any, store: str, message: str
) -> None:
    """Told when it is connected, before anything is computed: which worker, what is wrong, what to do."""
    copy(series, tmp_path)
    client.wait_for_workers(2, timeout=60)
    folder = tmp_path / "environment"
    folder.mkdir()
    prepare(folder)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    monkeypatch.chdir(tmp_path)
    with (
        worker_of(client.scheduler.address, cwd=folder, PYTHONPATH=path),
        pytest.raises(InputError, match=rf"The worker tcp://127\.0\.0\.1:\d+ .*{message}") as caught,
        connect(client.scheduler.address, workers=3, store=store, timeout=60),
    ):
        raise AssertionError("it was let in")
    assert "\n" not in str(caught.value) and not list((tmp_path / "film.zarr").glob(".connected*"))


# -- disks ---------------------------------------------------------------------------------------------


def limit_files(n_bytes: int) -> None:
    """No file of this process may grow beyond that."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def test_faults__disk_full(series: Path, film: np.ndarray, tmp_path: Path, client: Any) -> None:
    """One line; nothing half written is taken for a window; with room again the next run goes on."""
    path = copy(series, tmp_path)
    client.wait_for_workers(2, timeout=60)
    try:
        with (
            pytest.raises(StoreError, match=r"No room left to write .*film\.zarr.*what is finished is kept"),
            meanwhile(path, lambda: client.run(limit_files, 4096)),
        ):
            pipeline.scan(path, **SCAN)
    finally:
        client.run(limit_files, resource.RLIM_INFINITY)
    assert_goes_on(path, film, client)


def flip(file: Path) -> None:
    """Turn one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("chunk", "stage", "after"),
    [
        ("tilt_series/aligned/images/c/7/0/0", "simulate", 2),
        ("scan/windows_1/density/c/1/0/0/0", "scan windows", N_WINDOWS - 1),
    ],
)
def test_faults__chunk_damaged(
    series: Path, film: np.ndarray, tmp_path: Path, client: Any, chunk: str, stage: str, after: int
) -> None:
    """Its checksum notices; one line names the file and what makes it; restored, the next run goes on."""
    path = copy(series, tmp_path)
    client.wait_for_workers(2, timeout=60)
    sound: list[bytes] = []

    def damage() -> None:
        sound.append((path / chunk).read_bytes())
        flip(path / chunk)

    with (
        pytest.raises(StoreError, match=rf"the chunk {chunk} is damaged.*Restore.*stage '{stage}'"),
        meanwhile(path, damage, after),
    ):
        pipeline.scan(path, **SCAN)
    (path / chunk).write_bytes(sound[0])
    assert_goes_on(path, film, client)
