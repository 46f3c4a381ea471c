"""Atoms changed by hand: a table of edits that is kept with its result, so that it can be replayed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from ..errors import InputError
from ..io.text import read_text
from ..schema import ATOMS, check, with_units

COLUMNS = ("action", "x", "y", "z", "type", "new_x", "new_y", "new_z")
TOLERANCE = 0.7
"""Angstrom within which an edit finds its atom: less than half the distance of any two atoms."""
_PLACE, _NEW_PLACE = ("x", "y", "z"), ("new_x", "new_y", "new_z")
#: Columns that an action needs, and those that it may have.
_NEEDED = {
    "add": _PLACE,
    "delete": _PLACE,
    "move": (*_PLACE, *_NEW_PLACE),
    "retype": (*_PLACE, "type"),
}
_ALLOWED = {**_NEEDED, "add": (*_PLACE, "type")}


@dataclass(frozen=True)
class Edit:
    """One row of a table of edits.

    Parameters
    ----------
    action : {"add", "delete", "move", "retype"}
        What is done.
    position : tuple of float
        x, y, z in Angstrom: where the atom is (within ``TOLERANCE``), or is to be added.
    type : int, optional
        Type that the atom gets.
    new_position : tuple of float, optional
        x, y, z in Angstrom where a moved atom goes.
    where : str
        File and line that it came from, for messages; two edits that differ in it only are equal.
    """

    action: str
    position: tuple[float, float, float]
    type: int | None = None
    new_position: tuple[float, float, float] | None = None
    where: str = field(default="edit", compare=False)

    @property
    def row(self) -> str:
        """The edit as a row of a file, without spaces or comments."""
        numbers = [str(value) for value in self.position]
        new = [str(value) for value in self.new_position or ()] or [""] * 3
        return ",".join([self.action, *numbers, "" if self.type is None else str(self.type), *new])


def read_edits(path: str | Path) -> tuple[Edit, ...]:
    """Read a table of edits.

    Parameters
    ----------
    path : str or pathlib.Path
        CSV in UTF-8. Its first line names the columns: ``action,x,y,z,type,new_x,new_y,new_z``, in any order, without
        those that no row needs. Actions are ``add`` (x, y, z, type), ``delete`` (x, y, z), ``move`` (x, y, z, new_x,
        new_y, new_z) and ``retype`` (x, y, z, type); other columns of a row are empty, and may be left out at its end.
        Positions are in Angstrom. Empty lines and those that begin with # do not count.

    Returns
    -------
    tuple of Edit
        In the order of the file.

    Raises
    ------
    InputError
        If the file is missing or malformed; the message names it, the line, what came and what is needed.
    """
    path = Path(path)
    return parse_edits(read_text(path, "file of edits"), path)


def parse_edits(text: str, path: Path) -> tuple[Edit, ...]:
    """Edits in the text of a table; `path` is what messages call it, as `read_edits` does."""
    rows = _rows(text, path)
    where, header = next(rows, (f"{path}, line 1", []))
    names = [name.lower() for name in header]
    wrong = [name for name in names if name not in COLUMNS]
    lacking = [name for name in ("action", *_PLACE) if name not in names]
    if wrong or lacking or len(set(names)) < len(names):
        raise InputError(f"{where}: columns {', '.join(header) or 'none'} came; needed are {','.join(COLUMNS)}.")
    return tuple(_edit(words, names, where) for where, words in rows)


def apply_edits(atoms: xr.Dataset, edits: Sequence[Edit], *, tolerance: float = TOLERANCE) -> xr.Dataset:
    """Change atoms by hand.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS.
    edits : sequence of Edit
        What `read_edits` gave; each is applied to the atoms that those before it left.
    tolerance : float
        An edit is of the one atom within this distance in Angstrom.

    Returns
    -------
    xarray.Dataset
        ATOMS. `origin` of an atom that was added, moved or retyped is "edited"; its number (``atom``) stays, new ones
        have numbers beyond all others. What was measured of an atom where it is no more, and its probability of a type
        that it has no more, are NaN. Attributes: ``edits`` has all rows, those of earlier calls first, and
        ``edited_atoms`` the number of the atom that each was of.

    Raises
    ------
    InputError
        If no atom or more than one is within the tolerance; if there is an atom already where one is to be put; if a
        type came and the atoms have none, or the other way round.
    """
    check(atoms, ATOMS)
    if not edits:
        return atoms
    n = atoms.sizes["atom"]
    edited = atoms.compute() if "atom" in atoms.coords else atoms.compute().assign_coords(atom=np.arange(n))
    if "origin" not in edited:
        edited = edited.assign(origin=("atom", np.full(n, "traced", dtype=object)))
    rows = list(atoms.attrs.get("edits", []))
    numbers = list(atoms.attrs.get("edited_atoms", []))
    fresh = int(edited["atom"].values.max(initial=-1)) + 1
    for edit in edits:
        _check_type(edit, edited)
        if edit.action == "add":
            _check_free(edit, edited, edit.position, tolerance)
            edited = xr.concat([edited, _new_atom(edited, edit, fresh)], "atom", data_vars="minimal", coords="minimal")
            numbers.append(fresh)
            fresh += 1
        else:
            index = _the_atom(edit, edited, tolerance)
            numbers.append(int(edited["atom"].values[index]))
            edited = _changed(edited, edit, index, tolerance)
        rows.append(edit.row)
    text = {name: v.astype(str) for name, v in edited.data_vars.items() if v.dtype.kind == "O"}
    return with_units(edited.assign(text).assign_attrs(atoms.attrs, edits=rows, edited_atoms=numbers), ATOMS)


# -- reading -----------------------------------------------------------------------------------------


def _rows(text: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a line is, and its words, of all lines that say something."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            where = f"{path}, line {number}"
            try:
                (words,) = csv.reader([line], strict=True)
            except csv.Error as error:
                raise InputError(f"{where}: {line[:60]!r} is no line of a CSV file: {error}.") from None
            yield where, [word.strip() for word in words]


def _edit(words: list[str], names: list[str], where: str) -> Edit:
    if len(words) > len(names):
        raise InputError(f"{where}: {len(words)} columns came; the first line names {len(names)}.")
    cells = {name: word for name, word in zip(names, words, strict=False) if word}
    action = cells.pop("action", "").lower()
    if action not in _NEEDED:
        raise InputError(f"{where}: action {action!r} came; needed is one of {', '.join(_NEEDED)}.")
    lacking = [name for name in _NEEDED[action] if name not in cells]
    if lacking:
        raise InputError(f"{where}: {action} came without {', '.join(lacking)}; it needs {', '.join(_NEEDED[action])}.")
    idle = [name for name in cells if name not in _ALLOWED[action]]
    if idle:
        raise InputError(f"{where}: {action} came with {', '.join(idle)}, which it does not use; leave it empty.")
    values = {name: _number(cells[name], name, where) for name in cells if name != "type"}
    place = (values["x"], values["y"], values["z"])
    new = (values["new_x"], values["new_y"], values["new_z"]) if action == "move" else None
    return Edit(action, place, _type(cells["type"], where) if "type" in cells else None, new, where)


def _number(word: str, name: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {name} = {word!r} came; a number in Angstrom is needed.")
    return value


def _type(word: str, where: str) -> int:
    if not (word.isascii() and word.isdecimal() and int(word) >= 1):
        raise InputError(f"{where}: type {word!r} came; a whole number of 1 or more is needed.")
    return int(word)


# -- applying ----------------------------------------------------------------------------------------


def _check_type(edit: Edit, atoms: xr.Dataset) -> None:
    if "type" not in atoms:
        if edit.type is not None:
            raise InputError(
                f"{edit.where}: type {edit.type} came, but these atoms have no types; classify them first."
            )
        return
    n_types = _n_types(atoms)
    if edit.type is None and edit.action == "add":
        raise InputError(f"{edit.where}: add came without type; these atoms have types, 1 to {n_types} is needed.")
    if edit.type is not None and edit.type > n_types:
        raise InputError(f"{edit.where}: type {edit.type} came; these atoms have types, 1 to {n_types} is needed.")


def _n_types(atoms: xr.Dataset) -> int:
    probable = atoms.sizes.get("type_number", 0)
    return max(probable, int(atoms["type"].values.max(initial=1)))


def _distances(atoms: xr.Dataset, position: Sequence[float]) -> np.ndarray:
    return np.linalg.norm(atoms["position"].values - np.asarray(position), axis=1)


def _the_atom(edit: Edit, atoms: xr.Dataset, tolerance: float) -> int:
    """Index of the one atom that an edit is of."""
    distance = _distances(atoms, edit.position)
    near = np.flatnonzero(distance <= tolerance)
    if len(near) == 1:
        return int(near[0])
    place = ", ".join(f"{value:g}" for value in edit.position)
    if len(near):
        these = ", ".join(f"{value:.2f}" for value in np.sort(distance[near]))
        raise InputError(
            f"{edit.where}: {edit.action} at {place} came, where {len(near)} atoms are within {tolerance:g} Angstrom "
            f"({these}); give a position that is near only one."
        )
    nearest = f"the nearest is {distance.min():.2f} Angstrom away" if distance.size else "there are no atoms"
    raise InputError(
        f"{edit.where}: {edit.action} at {place} came, where no atom is within {tolerance:g} Angstrom ({nearest}); "
        "give the position of an atom."
    )


def _check_free(
    edit: Edit, atoms: xr.Dataset, position: Sequence[float], tolerance: float, itself: int | None = None
) -> None:
    distance = _distances(atoms, position)
    if itself is not None:
        distance[itself] = np.inf
    if distance.min(initial=np.inf) <= tolerance:
        place = ", ".join(f"{value:g}" for value in position)
        raise InputError(
            f"{edit.where}: {edit.action} to {place} came, where an atom is {distance.min():.2f} Angstrom away; "
            f"leave more than {tolerance:g}, or delete that one before."
        )


def _new_atom(atoms: xr.Dataset, edit: Edit, number: int) -> xr.Dataset:
    """A Dataset of one atom, of which only its place and type are known."""
    blank = {"f": np.nan, "b": False, "i": 0, "u": 0}
    variables = {
        name: (v.dims, np.full((1, *v.shape[1:]), blank.get(v.dtype.kind, ""), dtype=v.dtype), v.attrs)
        for name, v in atoms.data_vars.items()
        if v.dims[:1] == ("atom",)
    }
    atom = xr.Dataset(variables, {"atom": [number]})
    atom["position"].values[0] = edit.position
    atom["origin"] = "atom", np.array(["edited"], dtype=object)
    return _typed(atom, 0, edit.type, atoms)


def _changed(atoms: xr.Dataset, edit: Edit, index: int, tolerance: float) -> xr.Dataset:
    """The atoms with one of them deleted, moved or retyped."""
    if edit.action == "delete":
        return atoms.drop_isel(atom=index)
    atoms = atoms.copy(deep=True)
    atoms["origin"] = "atom", np.where(np.arange(atoms.sizes["atom"]) == index, "edited", atoms["origin"].values)
    if edit.new_position is None:
        return _typed(atoms, index, edit.type, atoms)
    _check_free(edit, atoms, edit.new_position, tolerance, itself=index)
    for variable in atoms.data_vars.values():
        if variable.dims[:1] == ("atom",) and variable.dtype.kind == "f":
            variable.values[index] = np.nan
    atoms["position"].values[index] = edit.new_position
    return atoms


def _typed(atoms: xr.Dataset, index: int, type_: int | None, others: xr.Dataset) -> xr.Dataset:
    """The atoms, one of them of a type, with the element that others of this type have."""
    if type_ is None:
        return atoms
    if "species" in atoms:
        named = np.unique(others["species"].values[others["type"].values == type_].astype(str))
        species = atoms["species"].values.astype(object)
        species[index] = named[0] if len(named) == 1 else "X"
        atoms["species"] = "atom", species
    atoms["type"].values[index] = type_
    if "type_probability" in atoms:
        atoms["type_probability"].values[index] = np.nan
    return atoms
