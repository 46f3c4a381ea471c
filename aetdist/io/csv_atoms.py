"""Atoms as a table in CSV: a column for each number that is known of them, its unit in the first line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from ..errors import InputError
from ..schema import ATOMS, AXES, Variable, check, with_units
from .whole import whole

_HEADING = re.compile(r"(?P<name>[^\[\]]*?)\s*(?:\[(?P<units>[^\[\]]*)\])?")
_TRUTH = {"True": True, "False": False}


def write_csv(path: str | Path, atoms: xr.Dataset) -> None:
    """Write atoms as CSV.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write, in UTF-8; it appears once it is complete and replaces what was there.
    atoms : xarray.Dataset
        ATOMS. Every variable along ``atom`` becomes a column, those of two dimensions one for each component
        (``position_sigma_x``, ``type_probability_1``); the number of the atom comes first, then x, y, z. The first line
        names them, with the unit where there is one: ``b_factor [angstrom^2]``. Numbers read back exactly.

    Raises
    ------
    InputError
        If a variable along ``atom`` has more than two dimensions, or two columns would have one name.
    """
    check(atoms, ATOMS)
    path = Path(path)
    named = with_units(atoms, ATOMS)
    if "atom" not in named.coords:
        named = named.assign_coords(atom=np.arange(named.sizes["atom"]))
    known = [name for name in ("atom", *ATOMS.variables) if name in named.variables]
    columns: dict[str, np.ndarray] = {}
    headings: set[str] = set()
    for name in dict.fromkeys([*known, *named.variables]):
        variable = named.variables[name]
        if variable.dims[:1] != ("atom",):
            continue
        if variable.ndim > 2 or variable.dtype.kind not in "biufUOT":
            raise InputError(f"{name} {dict(variable.sizes)} cannot be columns of {path}; drop or reshape it.")
        units = variable.attrs.get("units", "1")
        components = [variable.values] if variable.ndim == 1 else variable.values.T
        for heading, values in zip(_headings(str(name), named), components, strict=True):
            if heading in headings or "[" in heading:
                raise InputError(f"{heading!r} cannot be the name of a column of {path}; rename the variable {name}.")
            headings.add(heading)
            columns[heading if units == "1" else f"{heading} [{units}]"] = values
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


def read_csv(path: str | Path) -> xr.Dataset:
    """Read atoms from CSV.

    Parameters
    ----------
    path : str or pathlib.Path
        What `write_csv` wrote; or any table with columns x, y, z in Angstrom and others, named in its first line; or
        numbers alone, x, y, z and perhaps the type. Empty lines and those that begin with # do not count.

    Returns
    -------
    xarray.Dataset
        ATOMS; columns that it does not know under their names.

    Raises
    ------
    InputError
        If it is anything else; lines are given by number.
    """
    path = Path(path)
    lines = _lines(path)
    where, first = next(lines, (f"{path}, line 1", ["x", "y", "z"]))
    rows = []
    if all(map(_is_number, first)):
        if len(first) not in (3, 4):
            raise InputError(f"{where}: {len(first)} columns came; x, y, z[, type] are needed, or names in line 1.")
        names = [*AXES, "type"][: len(first)]
        rows.append((where, first))
    else:
        names = _names(first, where)
    rows += lines
    for where, words in rows:
        if len(words) != len(names):
            raise InputError(f"{where}: {len(words)} columns came; {', '.join(names)} are needed in every line.")
    columns = {name: _column(name, [(where, words[i]) for where, words in rows]) for i, name in enumerate(names)}
    return _dataset(columns, path)


def _headings(name: str, atoms: xr.Dataset) -> list[str]:
    """Names of the columns of a variable."""
    if name == "position":
        return list(AXES)
    if atoms[name].ndim == 1:
        return [name]
    dim = str(atoms[name].dims[1])
    known = atoms[dim].values.tolist() if dim in atoms.coords else range(1, atoms.sizes[dim] + 1)
    return [f"{name}_{component}" for component in known]


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a line is, and its words, of all lines that say something."""
    with path.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened)
        try:
            for words in reader:
                if any(word.strip() for word in words) and not words[0].lstrip().startswith("#"):
                    yield f"{path}, line {reader.line_num}", [" ".join(word.split()) for word in words]
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: this is no line of a CSV file: {error}.") from None


def _names(headings: list[str], where: str) -> list[str]:
    """Names of the columns; refuses units other than those of ATOMS."""
    names = []
    for heading in headings:
        match = _HEADING.fullmatch(heading)
        name, units = (match["name"], match["units"]) if match else ("", None)
        lower = name.lower()
        names.append(lower if lower in (*AXES, *ATOMS.variables) else name)
        known = ATOMS.variables["position"] if lower in AXES else _known(names[-1])[0]
        if known is not None and units not in (None, known.units):
            raise InputError(f"{where}: {name} is in {units!r}; needed is {known.units!r}; convert it first.")
    if not set(AXES) <= set(names) or "" in names or len(set(names)) < len(names):
        raise InputError(f"{where}: columns {', '.join(headings)} came; x, y, z and other different names are needed.")
    return names


def _known(name: str) -> tuple[Variable | None, str]:
    """What of ATOMS a column is, and which component of it."""
    variable = ATOMS.variables.get(name)
    if variable is not None and variable.dims == ("atom",):
        return variable, ""
    stem, _, component = name.rpartition("_")
    variable = ATOMS.variables.get(stem)
    return (variable, component) if variable is not None and variable.dims[:1] == ("atom",) else (None, "")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word  # Python would read 1_0 as ten


def _column(name: str, words: list[tuple[str, str]]) -> np.ndarray:
    """Values of a column, of the kind that ATOMS says, or else that all its words have."""
    known, _ = _known(name)
    kind = "f" if name in AXES else known.kind if known is not None else ""
    values = [word for _, word in words]
    if not kind:
        kind = "b" if values and all(v in _TRUTH for v in values) else "f" if all(map(_is_number, values)) else "U"
    if kind == "U":
        return np.array(values, dtype=np.str_)
    for where, word in words:
        if kind == "b" and word not in _TRUTH:
            raise InputError(f"{where}: {name} = {word!r} came, True or False is needed.")
        if kind != "b" and not _is_number(word):
            raise InputError(f"{where}: {name} = {word!r} came, a number is needed.")
        if name in AXES and not np.isfinite(float(word)):
            raise InputError(f"{where}: {name} = {word!r} came; finite numbers are needed.")
        if kind == "i" and not (float(word).is_integer() and abs(float(word)) < 2**53):
            raise InputError(f"{where}: {name} = {word!r} came; a whole number is needed.")
    if kind == "b":
        return np.array([_TRUTH[word] for word in values], dtype=bool)
    return np.array([float(word) for word in values]).astype(np.int64 if kind == "i" else np.float64)


def _dataset(columns: dict[str, np.ndarray], path: Path) -> xr.Dataset:
    """ATOMS of the columns; those of one variable together."""
    position = np.stack([columns.pop(axis) for axis in AXES], axis=1)
    atom = columns.pop("atom", np.arange(len(position)))
    dataset = xr.Dataset({"position": (("atom", "axis"), position)}, {"atom": atom, "axis": list(AXES)})
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, values in columns.items():
        known, component = _known(name)
        if known is None or not component:
            dataset[name] = "atom", values
        else:
            parts.setdefault(known.name, {})[component] = values
    for name, of in parts.items():
        dim = ATOMS.variables[name].dims[1]
        if dim == "axis" and set(of) != set(AXES):
            raise InputError(f"{path}: columns {name}_{', _'.join(of)} came; _x, _y and _z are needed.")
        if dim != "axis" and not all(component.isdecimal() for component in of):
            raise InputError(f"{path}: columns {name}_{', _'.join(of)} came; numbers of the components are needed.")
        order = list(AXES) if dim == "axis" else sorted(of, key=int)
        if dim != "axis":
            dataset = dataset.assign_coords({dim: [int(component) for component in order]})
        dataset[name] = ("atom", dim), np.stack([of[component] for component in order], axis=1)
    check(dataset, ATOMS)
    return with_units(dataset, ATOMS)
