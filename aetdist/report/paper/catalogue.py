"""The figures of the paper: which panels each has, what these need, and how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure

from ...errors import InputError
from .style import add_letter, journal_figure


@dataclass(frozen=True)
class Material:
    """What figures are made of; whatever is not there is None or absent.

    Parameters
    ----------
    series, volume, atoms : xarray.Dataset, optional
        TILT_SERIES, VOLUME and ATOMS.
    found : mapping of str to xarray.Dataset
        Analyses of the atoms by name, and what only figures need: ``shared_pairs``, ``tolerances``, ``icosahedra``,
        ``precision_effect``.
    validation, simulated : xarray.Dataset, optional
        VALIDATION, and the TILT_SERIES that was simulated for it.
    models : mapping of str to mapping
        The analyses of several models, by name.
    names : mapping of int to str
        Element of a type.
    """

    series: xr.Dataset | None = None
    volume: xr.Dataset | None = None
    atoms: xr.Dataset | None = None
    found: Mapping[str, xr.Dataset] = field(default_factory=dict)
    validation: xr.Dataset | None = None
    simulated: xr.Dataset | None = None
    models: Mapping[str, Mapping[str, xr.Dataset]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def lacks(self, need: str) -> str:
        """Why something is not there; "" if it is."""
        if need == "models":
            return "" if len(self.models) > 1 else "there is one model; aetdist analyze takes several"
        if need in _MISSING:
            return "" if getattr(self, need) is not None else _MISSING[need]
        if need in self.found:
            return ""
        if need in _OF_CLUSTERS:
            return (
                "no medium-range order of these atoms was looked for, or none found: aetdist analyze ... --solute TYPE"
            )
        return f"there is no {need} of these atoms: aetdist analyze makes it{_WHERE.get(need, '')}"

    def type_name(self, number: int) -> str:
        """Element of a type, or its number."""
        return self.names.get(int(number), f"type {number}")

    def disordered(self) -> np.ndarray:
        """Which atoms are disordered."""
        return ~np.asarray(self.found["bond_order"]["order"].values >= 0.5)


_MISSING = {
    "series": "there is no tilt series",
    "volume": "there is no volume: aetdist reconstruct or scan",
    "atoms": "there are no atoms: aetdist trace",
    "validation": "the atoms are not validated: aetdist validate",
    "simulated": "the simulated tilt series of aetdist validate is not beside the store",
}
_WHERE = {
    "coordination": ", of atoms that have types",
    "interface": ", where 500 atoms and more are ordered, and 500 are not",
    "nuclei": ", of finite samples",
}
_OF_CLUSTERS = (
    "solute_clusters", "shared_pairs", "medium_range_order", "mro_measures", "mro_significance", "tolerances",
    "icosahedra", "icosahedra_loose",
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A panel of a figure: its letter in the paper, what it needs, and what fills it."""

    letter: str
    needs: tuple[str, ...]
    fill: Callable[[SubFigure, Material], None]


@dataclass(frozen=True)
class PaperFigure:
    """A figure: name of its file, which one of the paper it is like, what it shows, its panels, their size in mm."""

    name: str
    like: str
    caption: str
    panels: tuple[Panel, ...]
    columns: int
    size: tuple[float, float]

    def missing(self, material: Material) -> dict[str, str]:
        """Panels that cannot be drawn, and why."""
        reasons = {p.letter: next(filter(None, map(material.lacks, p.needs)), "") for p in self.panels}
        return {letter: reason for letter, reason in reasons.items() if reason}

    def draw(self, material: Material) -> tuple[Figure, dict[str, str]]:
        """The figure of the panels that can be drawn; the others and why they cannot.

        Raises
        ------
        InputError
            If none can.
        """
        missing = self.missing(material)
        while True:
            panels = [panel for panel in self.panels if panel.letter not in missing]
            if not panels:
                raise InputError("; ".join(dict.fromkeys(missing.values())))
            try:
                return self._drawn(panels, material), missing
            except _Refused as refused:  # what it needs is there, and does not suit
                missing[refused.letter] = str(refused.__cause__)

    def _drawn(self, panels: list[Panel], material: Material) -> Figure:
        columns = min(self.columns, len(panels))
        rows = -(-len(panels) // columns)

        def fill(figure: Figure) -> None:
            cells = figure.subfigures(rows, columns, squeeze=False).ravel()
            for panel, cell in zip(panels, cells, strict=False):
                try:
                    panel.fill(cell, material)
                except InputError as error:
                    raise _Refused(panel.letter) from error
                if len(self.panels) > 1:
                    add_letter(cell, panel.letter)

        return journal_figure(fill, columns * self.size[0], rows * self.size[1])


class _Refused(Exception):
    """A panel cannot be drawn."""

    def __init__(self, letter: str) -> None:
        super().__init__(letter)
        self.letter = letter
