"""Who may talk to a scheduler whose port is open: TLS certificates that live as long as the cluster."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

DASHBOARD = "127.0.0.1:8787"
"""Where the dashboard of an open scheduler listens: the pages have no password (README: ssh tunnel)."""


@contextlib.contextmanager
def certificates(folder: str | Path | None) -> Iterator[Security]:
    """Certificates in one file, mode 0600, of a folder that every node sees; removed at the end.

    Those of the Dask configuration (``distributed.comm.tls``) are used instead where it has some.

    Parameters
    ----------
    folder : str or Path or None
        ``~`` and variables are expanded; None is ``~/.cache/aetdist``.
    """
    from distributed.security import Security

    configured: Any = Security()
    roles = ("client", "scheduler", "worker")
    if configured.tls_ca_file and all(getattr(configured, f"tls_{role}_cert") for role in roles):
        configured.require_encryption = True
        for role in roles:  # a key may stand in the file of its certificate
            if not getattr(configured, f"tls_{role}_key"):
                setattr(configured, f"tls_{role}_key", getattr(configured, f"tls_{role}_cert"))
        yield configured
        return
    text = temporary_certificates()
    place = shared_folder(folder)
    try:
        number, name = tempfile.mkstemp(prefix="tls-", suffix=".pem", dir=place)  # mode 0600
    except OSError as error:
        raise InputError(f"The folder {place} for TLS certificates cannot be written to ({error.strerror}).") from error
    try:
        with os.fdopen(number, "w", encoding="ascii") as file:
            file.write(text)
        yield security_of(name)
    finally:
        Path(name).unlink(missing_ok=True)


def temporary_certificates() -> str:
    """A new key and its certificate, which is its own authority, as PEM text."""
    from distributed.security import Security

    try:
        made = Security.temporary()
    except ImportError as error:
        raise InputError(
            "TLS needs cryptography, which is not installed; install the extra with pip install 'aetdist[hpc]', or "
            "leave the connections open to everyone on the network with --insecure."
        ) from error
    return str(made.tls_scheduler_key) + str(made.tls_scheduler_cert)


def security_of(pem: str) -> Security:
    """Security of all roles from one file (or its text) that holds key and certificate."""
    from distributed.security import Security

    roles = [f"tls_{role}_{part}" for role in ("client", "scheduler", "worker") for part in ("cert", "key")]
    return Security(require_encryption=True, tls_ca_file=pem, **dict.fromkeys(roles, pem))


def dashboard_of(client: Client) -> str:
    """Where the pages of an open scheduler are: on loopback of its host."""
    information = client.scheduler_info()
    host = information["address"].split("://")[-1].rpartition(":")[0]
    port = information["services"].get("dashboard")
    return f"http://127.0.0.1:{port}/status on {host}" if port else "off"


def shared_folder(folder: str | Path | None) -> Path:
    """The folder for what processes of one cluster share; made, for its owner only, if it is missing."""
    place = Path(os.path.expandvars(str(folder or "~/.cache/aetdist"))).expanduser().absolute()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {place}, to be shared with workers, cannot be made: {error.strerror}.") from error
    return place
