"""One writer at a time: a lock file beside the store, in S3 a lock object."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

import psutil

from ..errors import StoreLockedError
from .lock_files import LockFile, LockObject
from .places import Place, S3Place

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
#: A lock file is filled right after it is made; one that stays empty longer than this was left by a killed process.
EMPTY_SECONDS = 5.0


class StoreLock:
    """The right to write to one store, as the file (in S3 the object) ``<store>.lock``.

    The file names the host, the process and its start time. A process of this host is asked for
    directly; one of another host (or another container) is believed to live while it touches the
    file, which a thread does every 30 s; after 5 min without it the lock is stale.

    Parameters
    ----------
    store : pathlib.Path or S3Place
        Where the store is; it need not exist.
    """

    def __init__(self, store: Place) -> None:
        self.store = store
        self.file: LockFile | LockObject
        if isinstance(store, S3Place):
            self.file = LockObject(store.with_name(store.name + ".lock"))
            self._here = {**_place(), "machine": _machine()}
        else:
            self.file = LockFile(store.with_name(store.name + ".lock"), store)
            self._here = _place()
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
        process = psutil.Process()
        owner = {**self._here, "pid": process.pid, "started": process.create_time(), "token": uuid.uuid4().hex}
        while not self.file.create(owner):
            holder = self.file.holder()
            if holder is None:
                continue  # released between the two looks
            if not self._is_stale(holder):
                raise StoreLockedError(
                    f"{self.store} is being written by process {holder.get('pid')} on {holder.get('host')}; wait until "
                    f"it has finished, or, if it is gone for certain, delete {self.file.label}."
                )
            if self.file.take_over(holder, owner):
                break
        self._owner = owner
        self._stop.clear()
        threading.Thread(target=self._beat, args=(owner,), name="aetdist-lock", daemon=True).start()
        return self

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not ours (any more)."""
        self._stop.set()
        if self._owner is not None and self.file.holder() == self._owner:
            self.file.remove()
        self._owner = None

    def check(self) -> None:
        """Refuse to go on when the lock is not ours any more.

        Raises
        ------
        StoreLockedError
            If another process took it over (this one slept for more than 5 min) or it was deleted.
        """
        holder = self.file.holder()
        if self._owner is None or holder != self._owner:
            who = f"process {holder.get('pid')} on {holder.get('host')} has it now" if holder else "its file is gone"
            raise StoreLockedError(f"The lock of {self.store} was lost ({who}); nothing more is written. Run again.")

    def _is_stale(self, holder: dict[str, Any]) -> bool:
        if {name: holder.get(name) for name in self._here} == self._here:
            try:
                process = psutil.Process(int(holder["pid"]))
                # Two seconds: the start time is kept in ticks since boot, and the boot time drifts with the clock.
                same = abs(process.create_time() - float(holder["started"])) < 2.0
                return not same or process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True
            except psutil.AccessDenied:
                return False
        return self.file.age() > (STALE_SECONDS if holder else EMPTY_SECONDS)

    def _beat(self, owner: dict[str, Any]) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self.file.touch(owner)


def _place() -> dict[str, str]:
    """Host and namespace of process numbers (containers have their own): within both, a pid means one process."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "namespace": namespace}


def _machine() -> str:
    """What tells machines of one name apart: a bucket is seen from anywhere, a folder within one network."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{uuid.getnode():x}"
