"""A scheduler that is up already, by its address or its scheduler file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def scheduler_at(name: str, workers: int | None, timeout: float, profiles: str) -> Iterator[Client]:
    """Join the scheduler at an address or of a file; wait for its workers. `profiles` is for the error only."""
    from distributed import Client
    from distributed.security import Security

    security: Any = Security()

    if "://" in name:
        # Looked at here: a Client that fails on the form of its address stays the current one.
        if not re.fullmatch(r"(tcp|tls|ws|wss)://[^\s/]+:\d{1,5}", name):
            raise InputError(f"The address {name!r} is not of the form tcp://host:port or tls://host:port.")
        address = name
    elif Path(name).is_file():
        address = _address_in(Path(name))
    else:
        raise InputError(
            f"The cluster {name!r} is neither an address (tcp://host:port, tls://host:port), nor a scheduler file "
            f"that exists, nor a profile ({profiles})."
        )
    if address.startswith("tls://") and not security.tls_ca_file:
        raise InputError(
            f"The scheduler at {address} asks for certificates and there are none here; name those that it was started "
            "with in the Dask configuration, distributed.comm.tls: ca-file, client.cert and client.key."
        )
    try:
        client = Client(address, timeout=timeout)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at {name!r} within {timeout:g} s ({_line(error)}); check that it runs and that "
            "this machine reaches it, or leave the cluster out to work on this machine."
        ) from error
    with client:
        try:
            client.wait_for_workers(workers or 1, timeout=timeout)
        except TimeoutError as error:
            raise InputError(
                f"The scheduler at {name!r} has {len(client.nthreads())} workers after {timeout:g} s; needed are "
                f"{workers or 1}; start workers with 'dask worker {name}'."
            ) from error
        yield client


def _address_in(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no scheduler file, which has an address ({_line(error)}).") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
