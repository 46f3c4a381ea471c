"""The tables of an experiment file: the functions whose keywords they hold, their types and what they mean."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """One table of the file: the function whose keywords it holds, and what else it may hold.

    Parameters
    ----------
    function : str
        ``module:name`` inside the package; imported when it is needed.
    leading : mapping of str to str
        Arguments of the stage that are not keywords of that function but stand in the table: their
        names and one line on each. All are needed.
    supplied : tuple of str
        Arguments of the function that the pipeline supplies.
    optional : bool
        Whether `default_config` shows the table commented out.
    beside : str
        Another function that the stage may call instead: what it takes beside is unset unless it is given.
    switch : str
        The keyword that, where it is set, has the stage call the function beside; "" if more than that decides.
    """

    function: str
    leading: Mapping[str, str]
    supplied: tuple[str, ...]
    optional: bool = False
    beside: str = ""
    switch: str = ""

    def load(self) -> list[Callable[..., Any]]:
        """Import the function, and the one beside it."""
        names = [name.partition(":")[::2] for name in (self.function, self.beside) if name]
        return [getattr(importlib.import_module(f".{module}", __package__), name) for module, name in names]

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Keywords that a user may set."""
        function, *others = self.load()
        found = dict(inspect.signature(function).parameters)
        for other in others:
            found |= {
                k: p.replace(default=None) for k, p in inspect.signature(other).parameters.items() if k not in found
            }
        return {name: parameter for name, parameter in found.items() if name not in self.supplied}

    def hints(self) -> dict[str, Any]:
        """Types of the keywords; the other function's too where the first wants what no file can hold."""
        found: dict[str, Any] = {}
        for function in self.load():
            for name, hint in hints_of(function).items():
                if name not in found:
                    found[name] = hint
                elif not is_settable(found[name]):
                    found[name] = typing.Union[found[name], hint]  # noqa: UP007
        return found

    def docs(self) -> dict[str, str]:
        """What the docstrings say about each keyword, of the function whose type a file can hold."""
        first, *others = self.load()
        found, hints = parameter_docs(first), hints_of(first)
        for other in others:
            for name, text in parameter_docs(other).items():
                if name not in found or not is_settable(hints.get(name, Any)):
                    found[name] = text
        return found


#: The tables in the order of the experiment.
TABLES = {
    "import": Table(
        "tilt_series:import_tilt_series",
        {"files": "Files of the tilt series, one, or a folder.", "output": "The store to make, such as run.zarr."},
        ("files",),
        beside="acquisition:import_acquisition",
    ),
    "preprocess": Table("preprocess:preprocess_acquisition", {}, ("raw", "make_atoms"), optional=True),
    "align": Table("align:align_tilt_series", {}, ("series",), optional=True),
    "refine-angles": Table(
        "refinement:reconstruct_refined",
        {},
        ("tilt_series", "store", "remake"),
        optional=True,
        beside="film_refinement:refine_scan",
        switch="window",
    ),
    "reconstruct": Table(
        "reconstruct:reconstruct_resire",
        {},
        ("tilt_series", "store", "client", "series"),
        beside="reconstruct:reconstruct_slabs",
        switch="slabs",
    ),
    "scan": Table("reconstruct:reconstruct_scan", {}, ("store", "series"), optional=True),
    "trace": Table("trace:trace_atoms", {}, ("volume", "support")),
    "classify": Table(
        "classify:classify_atoms", {}, ("volume", "atoms"), optional=True, beside="_species:name_species"
    ),
    "refine": Table(
        "refine:refine_atoms", {}, ("tilt_series", "volume", "atoms"), optional=True, beside="_species:name_species"
    ),
    "validate": Table("validation:validate_model", {}, ("run",), optional=True),
    "analyze": Table("analysis.catalogue:analyze_atoms", {}, ("atoms",), optional=True),
    "export": Table("pipeline:export", {}, ("path",)),
}
#: Commands whose keywords are checked alike, but that no experiment file holds.
SIMULATIONS = {
    "simulate": Table("simulate:simulate_tilt_series", {}, ("atoms", "angles")),
    "simulate multislice": Table(
        "simulate:simulate_tilt_series", {}, ("atoms", "angles"), beside="simulate:Multislice"
    ),
    "simulate frames": Table("simulate:simulate_acquisition", {}, ("atoms", "angles")),
    "design": Table("validation:design_experiment", {}, ("atoms", "store")),
}


def parameter_docs(function: Callable[..., Any]) -> dict[str, str]:
    """What the numpydoc text of a function says about each of its parameters, as one line."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}|\Z)", text, re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        if line and not line[0].isspace():
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            found |= dict.fromkeys(names, "")
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return {name: re.sub(r":\w+:(?=`)|`~?", "", text) for name, text in found.items()}


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of the arguments of a function."""
    try:
        return typing.get_type_hints(function)
    except NameError:  # a type that is only imported for type checkers
        return {}


def options_of(hint: Any) -> list[Any]:
    """Types of a union, without None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for part in typing.get_args(hint) for option in options_of(part)]
    return [] if hint is type(None) else [hint]


def is_settable(hint: Any) -> bool:
    """Whether a value of this type can stand in TOML."""
    return any(
        option in (Any, bool, int, float, str, Path)
        or typing.get_origin(option) in (typing.Literal, tuple, list, collections.abc.Sequence)
        for option in options_of(hint)
    )
