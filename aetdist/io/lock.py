"""One writer at a time: a lock file beside the store."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from ..errors import StoreError, StoreLockedError

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
#: A lock file is filled right after it is made; one that stays empty longer than this was left by a killed process.
EMPTY_SECONDS = 5.0


class StoreLock:
    """The right to write to one store, as the file ``<store>.lock``.

    The file names the host, the process and its start time. A process of this host is asked for
    directly; one of another host (or another container) is believed to live while it touches the
    file, which a thread does every 30 s; after 5 min without it the lock is stale.

    Parameters
    ----------
    store : pathlib.Path
        Folder of the store; it need not exist.
    """

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(store.name + ".lock")
        self.store = store
        self._owner: dict[str, Any] | None = None
        self._stop = threading.Event()

    def acquire(self) -> StoreLock:
        """Take the lock, from a dead process if need be.

        Raises
        ------
        StoreLockedError
            If a living process holds it; the message names its host and pid.
        StoreError
            If the folder of the store cannot be written to.
        """
        owner = {**_this_process(), "token": uuid.uuid4().hex}
        while not self._create(owner):
            holder = self._holder()
            if holder is None:
                continue  # released between the two looks
            if not _is_stale(holder, self.path):
                raise StoreLockedError(
                    f"{self.store} is being written by process {holder.get('pid')} on {holder.get('host')}; wait until "
                    f"it has finished, or, if it is gone for certain, delete {self.path.name}."
                )
            self._remove_stale(holder)
        self._owner = owner
        self._stop.clear()
        threading.Thread(target=self._beat, name="aetdist-lock", daemon=True).start()
        return self

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not ours (any more)."""
        self._stop.set()
        if self._owner is not None and self._holder() == self._owner:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        self._owner = None

    def check(self) -> None:
        """Refuse to go on when the lock is not ours any more.

        Raises
        ------
        StoreLockedError
            If another process took it over (this one slept for more than 5 min) or it was deleted.
        """
        holder = self._holder()
        if self._owner is None or holder != self._owner:
            who = f"process {holder.get('pid')} on {holder.get('host')} has it now" if holder else "its file is gone"
            raise StoreLockedError(f"The lock of {self.store} was lost ({who}); nothing more is written. Run again.")

    def _create(self, owner: dict[str, Any]) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise StoreError(f"There is no folder {self.path.parent} to write {self.store.name} into.") from None
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise
            raise StoreError(
                f"{self.path.parent} cannot be written to ({error.strerror}); choose another place, or ask for the "
                "right to write."
            ) from None
        try:
            os.write(descriptor, json.dumps(owner).encode())
        except OSError as error:
            self.path.unlink()
            raise StoreError(
                f"The lock of {self.store} could not be written ({error.strerror}); free some space and run again."
            ) from None
        finally:
            os.close(descriptor)
        return True

    def _holder(self) -> dict[str, Any] | None:
        try:
            return _read_owner(self.path)
        except FileNotFoundError:
            return None

    def _remove_stale(self, holder: dict[str, Any]) -> None:
        """Move the stale file away, unless another process was quicker.

        Only who holds the kernel's lock on the very file may rename it, and looks again before it
        does: without that, a slow process could remove the new lock of a quick one.
        """
        with contextlib.suppress(FileNotFoundError), _flock(self.path) as descriptor:
            same_file = os.path.samestat(os.fstat(descriptor), self.path.stat())
            if same_file and self._holder() == holder:
                aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
                self.path.rename(aside)
                aside.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):
                if self._holder() == self._owner:
                    os.utime(self.path)


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {**_place(), "pid": process.pid, "started": process.create_time()}


def _place() -> dict[str, str]:
    """Host and namespace of process numbers (containers have their own): within both, a pid means one process."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "namespace": namespace}


def _read_owner(path: Path) -> dict[str, Any]:
    """What the lock file says; ``{}`` for one that is empty or unreadable."""
    try:
        owner = json.loads(path.read_text())
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_stale(holder: dict[str, Any], path: Path) -> bool:
    if {name: holder.get(name) for name in ("host", "namespace")} == _place():
        try:
            process = psutil.Process(int(holder["pid"]))
            # Two seconds: the start time is kept in ticks since boot, and the boot time drifts with the clock.
            same = abs(process.create_time() - float(holder["started"])) < 2.0
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    return age > (STALE_SECONDS if holder else EMPTY_SECONDS)


@contextlib.contextmanager
def _flock(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(ImportError, OSError):  # a filesystem without flock: the look after it must do
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
