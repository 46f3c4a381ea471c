"""Tables in text files: tilt angles as CSV, TXT, .tlt, .rawtlt."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ...errors import InputError
from ._stack import reading

TEXT_SUFFIXES = (".csv", ".txt", ".tsv", ".dat", ".tlt", ".rawtlt")
_EULER = ("phi", "theta", "psi")
_SEPARATORS = re.compile(r"[,;\s]+")


def read_text_table(path: Path, max_bytes: int) -> np.ndarray:
    """Numbers in rows, separated by commas, semicolons or blanks.

    Parameters
    ----------
    path : Path
        A text file. Empty lines and what follows ``#`` or ``%`` are left out, one line of names may
        come first. If phi, theta and psi are among the names, these three columns are taken, in this
        order; otherwise all columns.
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
    if path.stat().st_size > max_bytes:
        raise InputError(f"{path} has {path.stat().st_size} bytes, too many for a table; is it the right file?")
    with reading(path, "the text"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    names: list[str] | None = None
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        fields = [field for field in _SEPARATORS.split(re.split("[#%]", line)[0].strip()) if field]
        if not fields:
            continue
        try:
            row = [float(field) for field in fields]
        except ValueError:
            if names is None and not rows:
                names = [field.strip("\"'").lower() for field in fields]
                continue
            raise InputError(f"{path}, line {number}: {line.strip()[:60]!r} is not a row of numbers.") from None
        if rows and len(row) != len(rows[0]):
            raise InputError(f"{path}, line {number}: {len(row)} columns, the lines before have {len(rows[0])}.")
        rows.append(row)
    if not rows:
        raise InputError(f"{path} holds no numbers; needed is one row for each tilt.")
    table = np.array(rows, dtype=np.float64)
    if names is not None and set(_EULER) <= set(names) and len(names) == table.shape[1]:
        table = table[:, [names.index(name) for name in _EULER]]
    return table[:, 0] if table.shape[1] == 1 else table
