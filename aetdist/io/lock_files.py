"""What a lock is written into: a file that only one process can make, or an object that only one can put."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .places import S3Place
from .s3 import bucket, obstore, s3_errors


class LockFile:
    """A lock file in the folder of the store.

    Parameters
    ----------
    path : Path
        The file.
    store : Path
        What it locks.
    """

    def __init__(self, path: Path, store: Path) -> None:
        self.path = path
        self.store = store
        self.label = path.name

    def create(self, owner: dict[str, Any]) -> bool:
        """Make it, unless it is there.

        Raises
        ------
        StoreError
            If the folder cannot be written to.
        """
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

    def holder(self) -> dict[str, Any] | None:
        """What it says; ``{}`` if it is empty or unreadable, None if it is not there."""
        try:
            return _read(self.path.read_text())
        except FileNotFoundError:
            return None

    def age(self) -> float:
        """Seconds since it was last touched; 0 if it is gone."""
        try:
            return time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def touch(self, owner: dict[str, Any]) -> None:
        """Say that the owner lives, unless another has it now."""
        with contextlib.suppress(OSError):
            if self.holder() == owner:
                os.utime(self.path)

    def take_over(self, holder: dict[str, Any], owner: dict[str, Any]) -> bool:
        """Move the stale file away, unless another process was quicker, and make a new one.

        Only who holds the kernel's lock on the very file may rename it, and looks again before it
        does: without that, a slow process could remove the new lock of a quick one.
        """
        with contextlib.suppress(FileNotFoundError), _flock(self.path) as descriptor:
            same_file = os.path.samestat(os.fstat(descriptor), self.path.stat())
            if same_file and self.holder() == holder:
                aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
                self.path.rename(aside)
                aside.unlink()
        return self.create(owner)

    def remove(self) -> None:
        """Delete it."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class LockObject:
    """A lock object in the bucket of the store, by S3's conditional writes.

    It is made by a put that fails where there is one (``If-None-Match: *``), and changed by one that fails where it is
    not as it was read (``If-Match``): of several processes one succeeds.

    Parameters
    ----------
    path : S3Place
        Its name.
    """

    def __init__(self, path: S3Place) -> None:
        self.path = path
        self.label = str(path)
        self._beats = 0

    def create(self, owner: dict[str, Any]) -> bool:
        """Put it, unless it is there."""
        if self.holder() is not None:  # also where a server does not heed the condition
            return False
        return self._put(owner, "create")

    def holder(self) -> dict[str, Any] | None:
        """What it says; ``{}`` if it is empty or unreadable, None if it is not there."""
        return self._look()[0]

    def age(self) -> float:
        """Seconds since it was last written, by the clock of S3; 0 if it is gone."""
        probe = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        store = bucket(self.path.bucket)
        try:
            with s3_errors(self.path):
                obstore().put(store, probe.key, b"")
                now = obstore().head(store, probe.key)["last_modified"]
                obstore().delete(store, probe.key)
                return float((now - obstore().head(store, self.path.key)["last_modified"]).total_seconds())
        except FileNotFoundError:
            return 0.0

    def touch(self, owner: dict[str, Any]) -> None:
        """Say that the owner lives, unless another has it now."""
        with contextlib.suppress(StoreError):
            holder, tag = self._look()
            if holder == owner:
                self._put(owner, {"e_tag": tag})

    def take_over(self, holder: dict[str, Any], owner: dict[str, Any]) -> bool:
        """Put the new owner in the place of the stale one, unless another process was quicker."""
        now, tag = self._look()
        return now == holder and self._put(owner, {"e_tag": tag})

    def remove(self) -> None:
        """Delete it."""
        with s3_errors(self.path):
            obstore().delete(bucket(self.path.bucket), self.path.key)

    def _look(self) -> tuple[dict[str, Any] | None, str]:
        """What it says, and S3's tag of just this version."""
        try:
            with s3_errors(self.path):
                found = obstore().get(bucket(self.path.bucket), self.path.key)
                text = bytes(found.bytes()).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None, ""
        owner = _read(text)
        owner.pop("beat", None)
        return owner, str(found.meta["e_tag"])

    def _put(self, owner: dict[str, Any], mode: Any) -> bool:
        self._beats += 1  # so that no two versions have one tag
        content = json.dumps({**owner, "beat": self._beats}).encode()
        with s3_errors(self.path):
            try:
                obstore().put(bucket(self.path.bucket), self.path.key, content, mode=mode)
            except (obstore().exceptions.AlreadyExistsError, obstore().exceptions.PreconditionError):
                return False
            except FileNotFoundError:  # deleted since it was read; or there is no bucket
                if mode == "create":
                    raise
                return False
        return True


def _read(text: str) -> dict[str, Any]:
    try:
        owner = json.loads(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


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
