"""Whether the workers of a cluster can do the work: same software, same threads, same files as the client."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AetdistError, InputError
from .environment import too_many_threads

if TYPE_CHECKING:
    from distributed import Client

    from ..io.places import Place

PACKAGES = ("aetdist", "dask", "distributed", "numpy", "numba", "zarr")
"""Packages of which client and workers need the same version."""


def check_workers(client: Client, store: str | Place | None = None) -> None:
    """Ask every worker whether it can do the client's work.

    Parameters
    ----------
    client : distributed.Client
        Connected to the workers.
    store : str or Path, optional
        The store that they are to work on, or where it is going to be: a folder, or ``s3://bucket/name``.

    Raises
    ------
    InputError
        If a worker has another Python, other versions of `PACKAGES` or another source of aetdist
        than the client, libraries that take more threads than the worker has, or does not see the
        store; the message names the worker and what differs.
    """
    from ..io.places import place

    versions: Any = client.get_versions(packages=PACKAGES)
    here = _versions(versions["client"])
    _refuse({worker: _other_versions(here, _versions(found)) for worker, found in versions["workers"].items()})
    where = None if store is None else place(store).absolute()
    with _mark(where) as mark:
        # What is not in S3 yet is to be absent for everyone.
        seen = mark is None or isinstance(mark, Path) or mark.exists()
        # "return": a worker that cannot import this module answers with the error of its import.
        answers = client.run(_describe, mark, on_error="return")
    _refuse({worker: _unfit(answer, where, seen) for worker, answer in answers.items()})


def _versions(found: dict[str, Any]) -> dict[str, str | None]:
    """Python (its minor version) and the packages of one process."""
    packages = found["packages"]
    return {"python": ".".join(packages["python"].split(".")[:2])} | {name: packages[name] for name in PACKAGES}


def _other_versions(here: dict[str, str | None], there: dict[str, str | None]) -> str | None:
    differ = [
        f"has {name} {there[name]} where this process has {here[name]}" if there[name] else f"lacks {name}"
        for name in here
        if there[name] != here[name]
    ]
    if not differ:
        return None
    return f"{' and '.join(differ)}; start it from the same environment, or install the same versions (constraints.txt)"


@contextlib.contextmanager
def _mark(where: Place | None) -> Iterator[Place | None]:
    """A file in the store for a moment (beside it, where there is none yet): who sees it shares the file system."""
    if not isinstance(where, Path):
        yield where
        return
    folder = where if where.is_dir() else where.parent
    try:
        file = tempfile.NamedTemporaryFile(prefix=".connected-", dir=folder)
    except OSError:  # read only, or not there: the folder itself has to do
        yield folder
        return
    with file:
        yield Path(file.name)


def _describe(mark: Place | None, dask_worker: Any) -> dict[str, Any]:
    """What a worker says of itself (runs on the worker)."""
    try:
        seen: bool | str = mark is None or mark.exists()
    except AetdistError as error:  # of S3: no credentials, no such bucket
        seen = _line(error)
    return {
        "source": source_digest(),
        "threads": dask_worker.state.nthreads,
        "too_many": too_many_threads(dask_worker.state.nthreads),
        "sees": seen,
        "host": socket.gethostname(),
    }


def _unfit(answer: dict[str, Any] | Exception, where: Place | None, seen: bool) -> str | None:
    """What is wrong with a worker that gave this answer, and what to do."""
    # Where the function itself could not be unpacked, Dask sends only the text of the error.
    if isinstance(answer, ImportError) or (isinstance(answer, Exception) and "No module named" in str(answer)):
        return f"cannot import aetdist ({_line(answer)}); install it where the worker starts"
    if isinstance(answer, Exception):
        return f"does not answer ({_line(answer)}); look into its log, or start it again"
    if answer["source"] != source_digest():
        return "has another source of aetdist under the same version; install this one where the worker starts"
    if answer["too_many"]:
        return (
            f"has {answer['threads']} threads but {answer['too_many']}; start it with OMP_NUM_THREADS, "
            f"OPENBLAS_NUM_THREADS and MKL_NUM_THREADS set to {answer['threads']}"
        )
    if isinstance(answer["sees"], str):
        return f"(on {answer['host']}) does not see {where}; {answer['sees'].rstrip('.')}"
    if answer["sees"] != seen:
        return (
            f"(on {answer['host']}) does not see {where}; put the store on a file system that every worker sees "
            "under the same path"
        )
    return None


def _refuse(reasons: dict[str, str | None]) -> None:
    """Raise for the first worker that is unfit, and say how many more are."""
    unfit = {worker: reason for worker, reason in reasons.items() if reason}
    for worker, reason in unfit.items():
        more = f" ({len(unfit) - 1} of the other {len(reasons) - 1} workers are unfit too)" if len(unfit) > 1 else ""
        raise InputError(f"The worker {worker} {reason}{more}.")


@cache
def source_digest() -> str:
    """SHA-256 of the Python files of the aetdist that this process imports."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
