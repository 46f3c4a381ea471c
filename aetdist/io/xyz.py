"""Atoms as extended XYZ, extra columns kept both ways."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..schema import ATOMS, AXES, check, with_units
from .record import plain
from .whole import whole

#: What a species is called that nobody named.
UNKNOWN = "X"
_PAIR = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|[^\s="]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|\{[^}]*\}|\[[^\]]*\]|[^\s"]+))?(?=\s|$)'
)
_INTEGER = re.compile(r"[+-]?\d+")
_LETTERS = {"b": "L", "i": "I", "u": "I", "f": "R", "U": "S", "O": "S", "T": "S"}
_TRUTH = {"T": True, "F": False, "True": True, "False": False, "true": True, "false": False}


def write_xyz(path: str | Path, atoms: xr.Dataset) -> None:
    """Write atoms as extended XYZ.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write; it appears once it is complete and replaces what was there.
    atoms : xarray.Dataset
        ATOMS. Every variable along ``atom`` becomes a column (two-dimensional ones several), those that ATOMS
        knows first, numbers with as many digits as read back exactly; attributes and scalars go to the comment line.
        The number of the atom (``id``) is written where it is not 0, 1, 2, ...

    Raises
    ------
    InputError
        If a name, or a text in a column, cannot be told from the columns beside it (spaces), or a
        variable along ``atom`` has more than two dimensions.
    """
    check(atoms, ATOMS)
    path = Path(path)
    n = atoms.sizes["atom"]
    if not np.isfinite(atoms["position"].values).all():
        raise InputError(f"Some positions are not finite numbers; drop those atoms before writing {path}.")
    species = atoms["species"].values if "species" in atoms else np.full(n, UNKNOWN)
    table: dict[str, np.ndarray] = {"species": np.asarray(species, dtype=object), "pos": atoms["position"].values}
    if "atom" in atoms.coords and not np.array_equal(atoms["atom"], np.arange(n)):
        table["id"] = atoms["atom"].values
    known = [name for name in ATOMS.variables if name in atoms.variables]
    for name in (*known, *(name for name in atoms.variables if name not in known)):
        variable = atoms.variables[name]
        if variable.dims[:1] == ("atom",) and name not in ("species", "position", "atom"):
            if variable.ndim > 2 or str(name) in table:
                raise InputError(f"{name} {dict(variable.sizes)} cannot be a column of {path}; drop or rename it.")
            table[str(name)] = variable.values
    properties, columns = [], []
    for name, values in table.items():
        if not name or re.search(r'[\s:="\\]', name) or values.dtype.kind not in _LETTERS:
            raise InputError(f"{name!r} ({values.dtype}) cannot be a column of {path}; rename or drop it.")
        letter = _LETTERS[values.dtype.kind]
        pieces = values.reshape(n, -1) if n else values.reshape(0, *values.shape[1:2] or (1,))
        properties.append(f"{name}:{letter}:{pieces.shape[1]}")
        columns += [_format_column(column, letter, name, path) for column in pieces.T]
    comment = {str(k): plain(v) for k, v in atoms.attrs.items()}
    comment |= {str(k): plain(v.values[()]) for k, v in atoms.data_vars.items() if v.ndim == 0}
    if "Properties" in comment:
        raise InputError(f"An attribute called Properties cannot be written to {path}; rename it.")
    if "Lattice" in comment:
        comment["Lattice"] = np.ravel(comment["Lattice"]).astype(float).tolist()
    header = " ".join([f"Properties={':'.join(properties)}", *(_format_pair(k, v) for k, v in comment.items())])
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{n}\n{header}\n")
        file.writelines(" ".join(row) + "\n" for row in zip(*columns, strict=True))


def read_xyz(path: str | Path) -> xr.Dataset:
    """Read atoms from extended (or plain) XYZ.

    Parameters
    ----------
    path : str or pathlib.Path
        File with one frame; its comment may hold ``Properties=species:S:1:pos:R:3:...``, ``Lattice``
        and other key=value pairs.

    Returns
    -------
    xarray.Dataset
        ATOMS; the pairs of the comment as attributes, further columns under their names
        (``pos`` as ``position``, ``id`` as the coordinate ``atom``).

    Raises
    ------
    InputError
        If the file is not what its first two lines announce; the message gives the line's number.
    """
    path = Path(path)
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            return _read_frame(path, (line.rstrip("\r\n") for line in file))
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None


def _read_frame(path: Path, lines: Iterator[str]) -> xr.Dataset:
    first = next(lines, "").strip()
    if not _INTEGER.fullmatch(first) or len(first) > 18 or int(first) < 0:
        raise InputError(f"{path}, line 1: {first[:40]!r} came, the number of atoms is needed; is it an XYZ file?")
    n = int(first)
    comment = next(lines, "")
    attributes = _parse_comment(comment, path) if "=" in comment else {"comment": comment} if comment.strip() else {}
    columns = _parse_properties(attributes.pop("Properties", "species:S:1:pos:R:3"), path)
    width = sum(count for _, _, count in columns)
    rows: list[list[str]] = []
    for number, line in enumerate(lines, start=3):
        words = line.split()
        if len(rows) == n:
            if words:
                raise InputError(
                    f"{path}, line {number}: more lines than the {n} atoms of line 1; give one frame only."
                )
        elif len(words) != width:
            raise InputError(f"{path}, line {number}: {len(words)} columns came, line 2 announces {width}.")
        else:
            rows.append(words)
    if len(rows) < n:
        raise InputError(
            f"{path}, line {len(rows) + 2}: the file ends after {len(rows)} of {n} atoms; is it truncated?"
        )
    table, start = {}, 0
    for name, letter, count in columns:
        parts = [_parse_column((row[start + i] for row in rows), letter, name, path, 3) for i in range(count)]
        table[name] = np.stack(parts, axis=1) if count > 1 else parts[0]
        start += count
    return _atoms(path, table, attributes)


def _atoms(path: Path, table: dict[str, np.ndarray], attributes: dict[str, Any]) -> xr.Dataset:
    position = table.pop("pos", None)
    if position is None or position.shape[1:] != (3,) or position.dtype.kind != "f":
        raise InputError(f"{path} has no positions: a column pos:R:3 is needed among its Properties.")
    bad = np.flatnonzero(~np.isfinite(position).all(axis=1))
    if bad.size:
        raise InputError(f"{path}, line {bad[0] + 3}: a position is not a finite number.")
    if "species" in table and (table["species"] == UNKNOWN).all():
        del table["species"]
    numbers = table.pop("id", np.arange(len(position)))
    dataset = xr.Dataset({"position": (("atom", "axis"), position)}, {"atom": numbers, "axis": list(AXES)}, attributes)
    for name, values in table.items():
        safe = f"{name}_" if name in dataset.variables or name in dataset.dims else name
        dims = ("atom", f"{safe}_component")[: values.ndim]
        if name in ATOMS.variables and len(ATOMS.variables[name].dims) == 2:
            dims, values = ATOMS.variables[name].dims, values.reshape(len(position), -1)
        try:
            dataset[safe] = dims, values
        except ValueError:
            raise InputError(f"{path}: {name} has {values.shape[1]} columns, not one for each {dims[1]}.") from None
    try:
        check(dataset, ATOMS)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return with_units(dataset, ATOMS)


def _parse_properties(text: Any, path: Path) -> list[tuple[str, str, int]]:
    parts = str(text).split(":")
    names = parts[::3]
    if len(parts) % 3 or len(set(names)) < len(names):
        raise InputError(f"{path}, line 2: Properties={text} is not a list of different name:type:count.")
    columns = []
    for name, letter, count in zip(names, parts[1::3], parts[2::3], strict=True):
        if not name or letter not in ("R", "I", "S", "L") or not re.fullmatch(r"[1-9]\d{0,3}", count, re.ASCII):
            raise InputError(
                f"{path}, line 2: {name[:40]}:{letter[:40]}:{count[:40]} is no column; needed is name:type:count, type "
                "one of R I S L, count up to 9999."
            )
        columns.append((name, letter, int(count)))
    return columns


def _parse_column(words: Iterable[str], letter: str, name: str, path: Path, first: int) -> np.ndarray:
    values: list[Any] = []
    converters: dict[str, Callable[[str], Any]] = {"S": str, "R": _real, "I": _integer, "L": _TRUTH.__getitem__}
    convert = converters[letter]
    kind = {"S": str, "R": np.float64, "I": np.int64, "L": np.bool_}[letter]
    for number, word in enumerate(words, start=first):
        try:
            values.append(convert(word))
        except (ValueError, KeyError):
            what = {"R": "a number", "I": "an integer", "L": "T or F"}[letter]
            raise InputError(f"{path}, line {number}: {word!r} came for {name}, {what} is needed.") from None
    return np.array(values, dtype=kind)


def _real(word: str) -> float:
    if "_" in word:  # Python would read 1_0 as ten
        raise ValueError
    return float(word)


def _integer(word: str) -> int:
    if not _INTEGER.fullmatch(word) or len(word) > 20 or not -(2**63) <= int(word) < 2**63:
        raise ValueError
    return int(word)


def _format_column(values: np.ndarray, letter: str, name: str, path: Path) -> list[str]:
    if letter == "R":
        return [repr(value) for value in values.astype(np.float64).tolist()]
    if letter == "L":
        return ["T" if value else "F" for value in values.tolist()]
    words = [str(value) for value in values.tolist()]
    for word in words if letter == "S" else ():
        if word.split() != [word]:
            raise InputError(f"{name} holds {word!r}: a text in a column of {path} must not be empty or have spaces.")
    return words


def _parse_comment(comment: str, path: Path) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    position, end = 0, len(comment.rstrip())
    while position < end:
        match = _PAIR.match(comment, position)
        if match is None:
            raise InputError(f"{path}, line 2: from {comment[position : position + 30]!r} on it is not key=value.")
        key, value = match.groups()
        pairs[_unquote(key)] = True if value is None else _parse_value(_unquote(value))
        position = match.end()
    if isinstance(lattice := pairs.get("Lattice"), list) and len(lattice) == 9:
        pairs["Lattice"] = [float(value) for value in lattice]
    return pairs


def _unquote(text: str) -> str:
    if text[:1] == '"':
        return re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), text[1:-1], flags=re.DOTALL)
    return text[1:-1] if text[:1] in ("{", "[") else text


def _parse_value(text: str) -> Any:
    if text.startswith("_JSON "):
        try:
            return json.loads(text[6:])
        except (ValueError, RecursionError):
            return text
    words = text.replace(",", " ").split()
    converters: tuple[Callable[[str], Any], ...] = (_TRUTH.__getitem__, _integer, _real)
    for convert in converters:
        try:
            values = [convert(word) for word in words]
        except (ValueError, KeyError):
            continue
        if len(values) > 1:
            return values
        if values:
            return values[0]
    return text


def _format_pair(key: str, value: Any) -> str:
    """``key=value``; a value that would not read back as it is goes as JSON, as ASE writes nested ones."""
    if isinstance(value, list):
        text = " ".join(_word(item) for item in value)
    else:
        text = value if isinstance(value, str) else _word(value)
    back = _parse_value(text)
    if repr(back) != repr(value) or isinstance(value, dict):
        text = "_JSON " + json.dumps(value)
    return f"{_quote(key)}={_quote(text)}"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return repr(value) if isinstance(value, float) and math.isfinite(value) else str(value)


def _quote(text: str) -> str:
    if re.fullmatch(r"[\w.+:/-]+", text, flags=re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
