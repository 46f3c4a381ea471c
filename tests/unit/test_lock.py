"""One writer at a time, among real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aetdist.errors import StoreLockedError
from aetdist.io import Store, StoreLock, lock

HOLD = """
import sys, time
from pathlib import Path
from aetdist.io import StoreLock
StoreLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds the lock of ``run.zarr``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run.zarr")], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_lock__second_process_is_refused_by_host_and_pid(tmp_path: Path, holder: subprocess.Popen) -> None:
    with pytest.raises(StoreLockedError, match=rf"process {holder.pid} on {socket.gethostname()}"):
        Store.create(tmp_path / "run.zarr")
    assert not (tmp_path / "run.zarr").exists()


def test_lock__of_a_killed_process_is_taken_over(tmp_path: Path, holder: subprocess.Popen) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    time.sleep(0.1)  # not waited for: the zombie still has its pid
    mine = StoreLock(tmp_path / "run.zarr").acquire()
    mine.check()
    mine.release()
    assert list(tmp_path.iterdir()) == []


def test_lock__second_in_the_same_process_is_refused(tmp_path: Path) -> None:
    mine = StoreLock(tmp_path / "run.zarr").acquire()
    with pytest.raises(StoreLockedError, match=str(os.getpid())):
        StoreLock(tmp_path / "run.zarr").acquire()
    mine.release()
    StoreLock(tmp_path / "run.zarr").acquire().release()


def test_lock__of_a_reused_pid_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "run.zarr.lock"
    first = StoreLock(tmp_path / "run.zarr").acquire()
    owner = json.loads(file.read_text())
    file.write_text(json.dumps({**owner, "started": owner["started"] - 1000}))
    second = StoreLock(tmp_path / "run.zarr").acquire()
    with pytest.raises(StoreLockedError, match="was lost"):
        first.check()
    first.release()
    second.check()
    second.release()


@pytest.mark.parametrize("elsewhere", [{"host": "node17"}, {"namespace": "pid:[1]"}])
def test_lock__of_another_host_counts_while_it_beats(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    file = tmp_path / "run.zarr.lock"
    StoreLock(tmp_path / "run.zarr").acquire()
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": 4, **elsewhere}))
    os.utime(file, (time.time() - 200,) * 2)
    with pytest.raises(StoreLockedError, match=f"process 4 on {elsewhere.get('host', socket.gethostname())}"):
        StoreLock(tmp_path / "run.zarr").acquire()
    os.utime(file, (time.time() - 400,) * 2)
    StoreLock(tmp_path / "run.zarr").acquire().release()


def test_lock__beats_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    mine = StoreLock(tmp_path / "run.zarr").acquire()
    file = tmp_path / "run.zarr.lock"
    os.utime(file, (0, 0))
    for _ in range(100):
        time.sleep(0.02)
        if file.stat().st_mtime > 0:
            break
    assert file.stat().st_mtime > 0
    mine.release()


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_lock__left_unfilled_is_taken_over_after_a_while(tmp_path: Path, content: str) -> None:
    file = tmp_path / "run.zarr.lock"
    file.write_text(content)
    with pytest.raises(StoreLockedError):
        StoreLock(tmp_path / "run.zarr").acquire()
    os.utime(file, (time.time() - 60,) * 2)
    StoreLock(tmp_path / "run.zarr").acquire().release()


RACE = """
import sys, time
from pathlib import Path
from aetdist.errors import StoreLockedError
from aetdist.io import StoreLock
print("ready", flush=True)
sys.stdin.readline()
try:
    StoreLock(Path(sys.argv[1])).acquire().check()
    print("won", flush=True)
    time.sleep(1)
except StoreLockedError:
    print("lost", flush=True)
"""


def test_lock__only_one_of_many_takes_a_dead_one_over(tmp_path: Path, holder: subprocess.Popen) -> None:
    holder.kill()
    holder.wait()
    command = [sys.executable, "-c", RACE, str(tmp_path / "run.zarr")]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
    said = [racer.communicate(timeout=30)[0].strip() for racer in racers]
    assert sorted(said) == ["lost", "lost", "won"]
