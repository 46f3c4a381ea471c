"""What a person decided of the atoms: a table of edits that grows line by line, and what it makes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from ..io.whole import whole
from ..refine.edits import COLUMNS, TOLERANCE, Edit, apply_edits, parse_edits

_HEADER = ",".join(COLUMNS)
_ACCEPT = "# accept,"


@dataclass(frozen=True)
class _Line:
    """A line of the table: its text, the edit that it is, the atom that was accepted or edited."""

    text: str
    edit: Edit | None = None
    atom: int | None = None
    is_refined: bool = False

    @property
    def action(self) -> str:
        if self.edit is not None:
            return self.edit.action
        return "accept" if self.atom is not None else ""


class Decisions:
    """Decisions on atoms, each written at once.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS as the store holds them. Edits that they went through already (attribute ``edits``) are not applied again.
    path : str or Path
        Table of edits (see `aetdist.refine.edits.read_edits`). One that is there is gone on with. Atoms that were
        accepted stand in it as comments, ``# accept,x,y,z``.

    Raises
    ------
    InputError
        If the table cannot be read, or an edit in it finds no atom.
    """

    def __init__(self, atoms: xr.Dataset, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise InputError(f"There is no folder {self.path.parent} to write {self.path.name} into; make it.")
        kept = {name: atoms[name].compute() for name in ("position", "type", "species", "origin") if name in atoms}
        self.started_from = xr.Dataset(kept)
        if "atom" not in self.started_from.coords:
            self.started_from = self.started_from.assign_coords(atom=np.arange(atoms.sizes["atom"]))
        self._n_types = max(
            atoms.sizes.get("type_number", 0), int(atoms["type"].values.max(initial=1)) if "type" in atoms else 0
        )
        refined = [str(row) for row in atoms.attrs.get("edits", [])]
        self._written = self._read_text()
        self._lines = self._read_lines(refined)
        self.atoms = self._made(self._lines)

    # -- what is there -------------------------------------------------------------------------------

    @property
    def n_types(self) -> int:
        """Types that an atom may have; 0 where they have none."""
        return self._n_types

    def counts(self) -> dict[str, int]:
        """How many decisions of each kind there are."""
        return dict(Counter(line.action for line in self._lines if line.action))

    def of_atom(self, number: int) -> dict[str, Any] | None:
        """The last decision on an atom, as {"action", "type"}; None if there is none."""
        for line in reversed(self._lines):
            if line.action and line.atom == number:
                return {"action": line.action, "type": line.edit.type if line.edit else None}
        return None

    def decided(self) -> set[int]:
        """Numbers of the atoms on which there is a decision."""
        return {line.atom for line in self._lines if line.action and line.atom is not None}

    # -- what is decided -----------------------------------------------------------------------------

    def accept(self, number: int) -> None:
        """Leave an atom as it is.

        Raises
        ------
        InputError
            If there is no such atom.
        """
        x, y, z = self._position(number)
        self._write([*self._lines, _Line(f"{_ACCEPT}{x},{y},{z}", atom=number)])

    def edit(self, edit: Edit) -> int:
        """Change the atoms; returns the number of the atom that it was.

        Raises
        ------
        InputError
            If the edit cannot be made; nothing is written then.
        """
        changed = apply_edits(self.atoms, [edit])
        number = int(changed.attrs["edited_atoms"][-1])
        self._write([*self._lines, _Line(edit.row, edit, number)])
        self.atoms = changed
        return number

    def delete(self, number: int) -> None:
        """Delete an atom."""
        self.edit(Edit("delete", self._position(number), where="this atom"))

    def retype(self, number: int, type_: int) -> None:
        """Give an atom another type."""
        self.edit(Edit("retype", self._position(number), type_, where="this atom"))

    def add(self, position: tuple[float, float, float], type_: int | None) -> int:
        """Add an atom; returns its number."""
        return self.edit(Edit("add", position, type_, where="the new atom"))

    def undo(self) -> int | None:
        """Take the last decision back; returns the number of its atom, None if there was nothing to take back.

        Raises
        ------
        InputError
            If the atoms were refined with it.
        """
        last = next((k for k in reversed(range(len(self._lines))) if self._lines[k].action), None)
        if last is None:
            return None
        line = self._lines[last]
        if line.is_refined:
            raise InputError("The atoms were refined with this decision; delete its row in the table and refine again.")
        kept = self._lines[:last] + self._lines[last + 1 :]
        self._write(kept)
        if line.edit is not None:
            self.atoms = self._made(kept)
        return line.atom

    # -- inside --------------------------------------------------------------------------------------

    def _position(self, number: int) -> tuple[float, float, float]:
        where = np.flatnonzero(self.atoms["atom"].values == number)
        if not len(where):
            raise InputError(f"There is no atom {number} any more; it was deleted.")
        x, y, z = self.atoms["position"].values[where[0]].tolist()
        return x, y, z

    def _read_text(self) -> str | None:
        return self.path.read_text(encoding="utf-8-sig") if self.path.is_file() else None

    def _read_lines(self, refined: list[str]) -> list[_Line]:
        """Lines of the table in their order; without a table, the edits that the atoms went through."""
        text = "\n".join([_HEADER, *refined]) if self._written is None else self._written
        edits = iter(parse_edits(text, self.path))
        left = Counter(refined)
        lines: list[_Line] = []
        atoms, is_header = self.started_from, True
        for line in text.splitlines():
            if line.lstrip().startswith(_ACCEPT):
                lines.append(_Line(line, atom=self._found(line)))
            elif line.lstrip().startswith("#") or not line.strip():
                lines.append(_Line(line))
            elif is_header:
                is_header = False
            else:
                edit = next(edits)
                if left[edit.row] > 0:
                    left[edit.row] -= 1
                    number = None if edit.action == "delete" else self._nearest(edit.new_position or edit.position)
                    lines.append(_Line(edit.row, edit, number, is_refined=True))
                else:
                    atoms = apply_edits(atoms, [edit])
                    lines.append(_Line(edit.row, edit, int(atoms.attrs["edited_atoms"][-1])))
        return lines

    def _found(self, text: str) -> int | None:
        """Number of the atom that was accepted at a place, if there is still one."""
        try:
            x, y, z = (float(word) for word in text.lstrip()[len(_ACCEPT) :].split(","))
        except ValueError:
            return None
        return self._nearest((x, y, z))

    def _nearest(self, place: tuple[float, float, float]) -> int | None:
        """Number of the atom at a place, if there is one."""
        distance = np.linalg.norm(self.started_from["position"].values - place, axis=1)
        if not distance.min(initial=np.inf) <= TOLERANCE:
            return None
        return int(self.started_from["atom"].values[distance.argmin()])

    def _made(self, lines: list[_Line]) -> xr.Dataset:
        """The atoms after all edits that they have not gone through yet."""
        return apply_edits(self.started_from, [line.edit for line in lines if line.edit and not line.is_refined])

    def _write(self, lines: list[_Line]) -> None:
        """Write the whole table; it is there at once or not at all."""
        if self._read_text() != self._written:
            raise InputError(f"{self.path} was changed by someone else since it was read; start the page again.")
        text = "\n".join([_HEADER, *(line.text for line in lines)]) + "\n"
        with whole(self.path) as partial:
            partial.write_text(text, encoding="utf-8")
        self._lines, self._written = lines, text
