"""Tables in text files: tilt angles as CSV, TXT, .tlt, .rawtlt, and the names of the files they belong to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...errors import InputError
from ._stack import reading
from .files import last_part

TEXT_SUFFIXES = (".csv", ".txt", ".tsv", ".dat", ".tlt", ".rawtlt")
_EULER = ("phi", "theta", "psi")
_FILE = "file"
_SEPARATORS = re.compile(r"[,;\s]+")
_CELLS = re.compile(r"\s*[,;\t]\s*")


def read_text_table(path: Path, max_bytes: int) -> np.ndarray:
    """Numbers in rows, separated by commas, semicolons or blanks.

    Parameters
    ----------
    path : Path
        A text file. Empty lines and what follows ``#`` or ``%`` are left out, one line of names may
        come first. If phi, theta and psi are among the names, these three columns are taken, in this
        order; otherwise all columns but the one named ``file``.
    max_bytes : int
        Refuse longer files.

    Returns
    -------
    ndarray, shape (rows,) or (rows, columns), float64
        One column comes out one-dimensional.

    Raises
    ------
    InputError
        Naming the line that holds something other than numbers, or another number of columns.
    """
    header, rows, _ = _read(path, max_bytes)
    table = np.array(rows, dtype=np.float64)
    if set(_EULER) <= set(header) and len(header) == table.shape[1]:
        table = table[:, [header.index(name) for name in _EULER]]
    return table[:, 0] if table.shape[1] == 1 else table


def read_names(path: Path, max_bytes: int) -> tuple[str, ...] | None:
    """Names of files, without folders, in the column ``file`` of a text file; None if it has no such column.

    Raises
    ------
    InputError
        As :func:`read_text_table`.
    """
    return _read(path, max_bytes)[2]


def _read(path: Path, max_bytes: int) -> tuple[list[str], list[list[float]], tuple[str, ...] | None]:
    """Names of the columns of numbers (empty without a line of names), the numbers, and what stands under ``file``."""
    if path.stat().st_size > max_bytes:
        raise InputError(f"{path} has {path.stat().st_size} bytes, too many for a table; is it the right file?")
    with reading(path, "the text"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    header: list[str] = []
    rows: list[list[float]] = []
    files: list[str] = []
    column: int | None = None
    for number, line in enumerate(lines, start=1):
        content = re.split("[#%]", line)[0].strip()
        if not content:
            continue
        # A file's name may hold blanks where something else stands between the columns.
        fields = (_CELLS if column is not None and _CELLS.search(content) else _SEPARATORS).split(content)
        fields = [field for field in fields if field]
        try:
            if column is not None and len(fields) > column:
                files.append(last_part(fields.pop(column).strip("\"'")))
            row = [float(field) for field in fields]
        except ValueError:
            if not header and not rows:
                header = [field.strip("\"'").lower() for field in fields]
                if _FILE in header:
                    column = header.index(_FILE)
                    header.pop(column)
                continue
            raise InputError(f"{path}, line {number}: {line.strip()[:60]!r} is not a row of numbers.") from None
        if rows and len(row) != len(rows[0]):
            raise InputError(f"{path}, line {number}: {len(row)} columns, the lines before have {len(rows[0])}.")
        rows.append(row)
    if not rows:
        raise InputError(f"{path} holds no numbers; needed is one row for each tilt.")
    return header, rows, None if column is None else tuple(files)
