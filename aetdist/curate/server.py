"""The page served on this machine alone: whoever has its address may decide, nobody else."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ..errors import AetdistError, InputError
from ..io import Store, newest
from ..io.groups import ATOMS
from .decisions import Decisions
from .doubt import by_doubt, certainty
from .surroundings import Surroundings

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_MOST_BYTES = 4096  # of what a decision says
_PATIENCE = 20.0  # seconds for a request to come
_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "curate.js": ("curate.js", "text/javascript; charset=utf-8"),
    "curate.css": ("curate.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """An answer other than 200, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class CurationServer(ThreadingHTTPServer):
    """Serves the page of a store on 127.0.0.1 until it is shut down.

    Parameters
    ----------
    store : str or Path
        The store; it is only read.
    edits : str or Path, optional
        Table to write; the default lies beside the store, ``run.edits.csv`` for ``run.zarr``; of a store in S3, in the
        current folder.
    port : int
        0 for one that is free.

    Raises
    ------
    StoreError
        If the store holds no volume or no atoms.
    InputError
        If the table cannot be gone on with.
    """

    daemon_threads = True

    def __init__(self, store: str | Path, edits: str | Path | None = None, *, port: int = 0) -> None:
        with Store.open(store) as opened:
            path = opened.path
            group = newest(ATOMS, opened)
            atoms = opened.read(group)
            self.surroundings = Surroundings(opened, atoms)
        beside = path.parent if isinstance(path, Path) else Path()  # of a store in S3 in the current folder
        self.decisions = Decisions(atoms, edits or beside / f"{path.stem}.edits.csv")
        numbers = self.decisions.started_from["atom"].values
        self.order = numbers[by_doubt(atoms)].tolist()
        self.rank = {number: rank for rank, number in enumerate(self.order)}
        self._atoms = atoms.drop_dims(["iteration", "map_y"], errors="ignore").load()
        self._index = {number: k for k, number in enumerate(numbers.tolist())}
        self._certainty = certainty(atoms)
        self.title = f"{path.name}: {group}"
        self.species = _species(atoms)
        self.token = secrets.token_urlsafe(24)
        self.lock = threading.Lock()
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"Port {port} cannot be had ({error}); leave it out, or name another.") from None

    @property
    def url(self) -> str:
        """Address of the page; whoever knows it may decide."""
        return f"http://{_HOST}:{self.server_port}/{self.token}/"

    # -- what the page asks for ----------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """How far the decisions are."""
        decided = self.decisions.decided()
        undecided = (rank for rank, number in enumerate(self.order) if number not in decided)
        return {
            "title": self.title,
            "table": str(self.decisions.path),
            "n_atoms": len(self.order),
            "n_looked_at": sum(number in decided for number in self.order),
            "counts": self.decisions.counts(),
            "n_types": self.decisions.n_types,
            "species": self.species,
            "first": next(undecided, None),
        }

    def atom(self, rank: int) -> dict[str, Any]:
        """One atom and what is around it."""
        if not 0 <= rank < len(self.order):
            raise Refused(404, f"There is no atom {rank}; there are {len(self.order)}.")
        number = self.order[rank]
        index = self._index[number]
        known = _known(self._atoms, index, self._certainty[index])
        place = tuple(known["position"])
        return {
            "rank": rank,
            "number": number,
            "decision": self.decisions.of_atom(number),
            **known,
            **self.surroundings.around(self.decisions.atoms, place),  # type: ignore[arg-type]
        }

    def decide(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Carry out one decision of the page; returns the state after it."""
        action = wish.get("action")
        if action == "undo":
            number = self.decisions.undo()
            return {**self.state(), "undone": self.rank.get(number) if number is not None else None}
        number, type_ = wish.get("number"), wish.get("type")
        if type_ is not None and not (isinstance(type_, int) and 1 <= type_ <= max(self.decisions.n_types, 1)):
            raise InputError(f"Type {type_!r} came; needed is 1 to {self.decisions.n_types}.")
        if action == "add":
            self.decisions.add(_place(wish.get("place")), type_)
        elif not isinstance(number, int):
            raise InputError(f"The number of an atom came as {number!r}.")
        elif action == "accept":
            self.decisions.accept(number)
        elif action == "delete":
            self.decisions.delete(number)
        elif action == "retype" and type_ is not None:
            self.decisions.retype(number, type_)
        else:
            raise InputError(f"The action came as {action!r}; needed is accept, delete, retype, add or undo.")
        return self.state()


class _Handler(BaseHTTPRequestHandler):
    server: CurationServer
    server_version = "aetdist"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _refuse_method(self) -> None:
        self._send(405, b"Only GET and POST are answered.\n", "text/plain; charset=utf-8", {"Allow": "GET, POST"})

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method

    def log_message(self, format: str, *arguments: Any) -> None:
        # Not the address: who reads a log shall not be able to decide.
        log.debug("curate: %s answered %s", self.command, arguments[1] if len(arguments) > 1 else arguments)

    # -- inside --------------------------------------------------------------------------------------

    def _answer(self, answer: Callable[[str, dict[str, list[str]]], tuple[bytes, str]]) -> None:
        """Check who asks and for what; every way out is an answer."""
        try:
            page, query = self._checked()
            body, kind = answer(page, query)
        except Refused as refused:
            self._send_json(refused.status, {"error": str(refused)})
        except AetdistError as error:
            self._send_json(422, {"error": str(error)})
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except Exception:
            log.exception("curate: the request failed")
            self._send_json(500, {"error": "This went wrong; the log says why."})
        else:
            self._send(200, body, kind)

    def _checked(self) -> tuple[str, dict[str, list[str]]]:
        """Name of what is asked for, and the query; refuses whoever does not belong here."""
        port = self.server.server_port
        ours = {f"{host}:{port}" for host in (_HOST, "localhost")}
        if self.headers.get_all("Host", []) not in [[host] for host in ours]:  # a name that was led here
            raise Refused(403, "The host is another one.")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in ours}:
            raise Refused(403, "The origin is another one.")
        if origin is None and self.command == "POST":
            raise Refused(403, "The origin is needed.")
        target = urlsplit(self.path)
        token, slash, page = target.path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "The address is not the one that aetdist curate printed.")
        return page, parse_qs(target.query)

    def _get(self, page: str, query: dict[str, list[str]]) -> tuple[bytes, str]:
        if page in _FILES:
            name, kind = _FILES[page]
            return files(__package__).joinpath("page", name).read_bytes(), kind
        if page not in ("state", "atom"):
            raise Refused(404, "There is nothing of this name.")
        with self.server.lock:
            if page == "state":
                return _json(self.server.state())
            rank = query.get("rank", [""])[0]
            if not (rank.isascii() and rank.isdecimal() and len(rank) < 10):
                raise Refused(400, "The rank of an atom is needed.")
            return _json(self.server.atom(int(rank)))

    def _post(self, page: str, query: dict[str, list[str]]) -> tuple[bytes, str]:
        if page != "decide":
            raise Refused(404, "There is nothing of this name.")
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "JSON is needed.")
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            raise Refused(411, "The length is needed.")
        if int(length) > _MOST_BYTES:
            raise Refused(413, f"At most {_MOST_BYTES} bytes are read.")
        try:
            wish = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused(400, "This is no JSON.") from None
        if not isinstance(wish, dict):
            raise Refused(400, "A JSON object is needed.")
        with self.server.lock:
            return _json(self.server.decide(wish))

    def _send_json(self, status: int, content: dict[str, Any]) -> None:
        self.close_connection = True  # what the request still holds is not read
        self._send(status, *_json(content))

    def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS, **(more or {})}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def curate(
    store: str | Path,
    *,
    edits: str | Path | None = None,
    port: int = 0,
    on_ready: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Serve the page on which atoms are accepted, deleted, retyped and added, until it is interrupted.

    Parameters
    ----------
    store : str or Path
        The store; it is only read.
    edits : str or Path, optional
        Table of edits to write, or to go on with; the default lies beside the store, ``run.edits.csv`` for
        ``run.zarr``. `aetdist.refine.refine_atoms` takes it.
    port : int
        On 127.0.0.1; 0 for one that is free.
    on_ready : callable, optional
        Called with the address once it is served.

    Returns
    -------
    dict
        ``edits``: the table; ``n_atoms``, ``n_looked_at``, and how many were accepted, deleted, retyped and added.

    Raises
    ------
    StoreError
        If the store holds no volume or no atoms.
    InputError
        If the table cannot be gone on with, or the port is taken.
    """
    with CurationServer(store, edits, port=port) as server:
        if on_ready is not None:
            on_ready(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the way to end it
            pass
        state = server.state()
    words = {"accept": "n_accepted", "delete": "n_deleted", "retype": "n_retyped", "add": "n_added"}
    counts = {word: state["counts"].get(action, 0) for action, word in words.items()}
    return {"edits": state["table"], "n_atoms": state["n_atoms"], "n_looked_at": state["n_looked_at"], **counts}


def _known(atoms: Any, k: int, sure: float) -> dict[str, Any]:
    """What is known of an atom, as JSON holds it."""
    known: dict[str, Any] = {"position": atoms["position"].values[k].tolist(), "certainty": _finite(sure)}
    for name in ("type", "species", "origin"):
        known[name] = atoms[name].values[k].item() if name in atoms else None
    for name in ("probability", "intensity", "b_factor"):
        known[name] = _finite(atoms[name].values[k]) if name in atoms else None
    if "position_sigma" in atoms:
        known["position_sigma"] = [_finite(value) for value in atoms["position_sigma"].values[k]]
    if "type_probability" in atoms:
        known["type_probability"] = [_finite(value) for value in atoms["type_probability"].values[k]]
    return known


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _species(atoms: Any) -> list[str]:
    """What the types are called, where each has one element."""
    if "species" not in atoms or "type" not in atoms:
        return []
    types = atoms["type"].values
    names = [
        np.unique(atoms["species"].values[types == t].astype(str)) for t in range(1, int(types.max(initial=0)) + 1)
    ]
    return [str(name[0]) if len(name) == 1 else "" for name in names]


def _place(place: Any) -> tuple[float, float, float]:
    good = isinstance(place, list) and len(place) == 3 and all(isinstance(v, (int, float)) for v in place)
    if not good or not np.isfinite(place).all():
        raise InputError("A place came that is not x, y, z in Angstrom.")
    x, y, z = (round(float(value), 4) for value in place)
    return x, y, z


def _json(content: dict[str, Any]) -> tuple[bytes, str]:
    return json.dumps(content, allow_nan=False).encode(), "application/json; charset=utf-8"
