"""The report of a store, with the command lines that repeat what it holds."""

from __future__ import annotations

import shlex
from inspect import Parameter
from pathlib import Path
from typing import Any

import xarray as xr

from ._tables import TABLES
from .experiment import toml_value
from .io import Store
from .io.groups import ATOMS, ORDER
from .report import write_page


def write_report(
    store_path: str | Path,
    output: str | Path,
    *,
    truth: xr.Dataset | str | Path | None = None,
    tolerance: float = 0.75,
    title: str | None = None,
    pictures_to: str | Path | None = None,
) -> Path:
    """Computes: the report of a store, one HTML file that needs nothing else; see `aetdist.report.write_page`.

    Parameters
    ----------
    store_path : str or Path
        The store, in any state.
    output : str or Path
        The file to write; one that is there is replaced.
    truth : xarray.Dataset, str or Path, optional
        True atoms, or the file they stand in, to hold the found ones against. Default: the group ``truth``.
    tolerance : float
        Largest distance in Angstrom at which a found atom counts as a true one.
    title : str, optional
        Heading; the default is the name of the store.
    pictures_to : str or Path, optional
        Folder that gets the pictures as PNG files too.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If there is no folder for the file.
    StoreError
        If there is no store.
    """
    with Store.open(store_path) as store:
        commands = commands_of(store)
    return write_page(
        store_path,
        output,
        truth=truth,
        tolerance=tolerance,
        title=title,
        pictures_to=pictures_to,
        commands=commands,
    )


def commands_of(store: Store) -> list[str]:
    """Command lines that repeat the groups of a store, in the order of the experiment; defaults are not said.

    Parameters
    ----------
    store : Store
        Open in any mode. The files it was imported from are named as they were then.
    """
    name, made = store.path.name if isinstance(store.path, Path) else str(store.path), {}
    models, of_models = [], None
    for group in store.groups():
        record, asked = store.record(group), store.notes(group).get("asked")
        if record is None:
            continue
        if asked is not None:
            made[asked["stage"]] = [name, *_settings(asked["stage"], asked["keywords"])]
        elif record.stage == "import" and "files" in record.parameters:
            given = _differing("import", record.parameters)
            made["import"] = [*given.pop("files"), "-o", name, *_import_options(given)]
        elif record.stage == "import" and group.rpartition("/")[2] == ATOMS:
            models.append(record.parameters["atoms"])
        elif record.stage == "analyze" and group.endswith(ORDER):
            of_models = record.parameters
    if models and of_models is not None:
        made["analyze"] = [*models, "-o", name, *_settings("analyze", of_models)]
    return [shlex.join(["aetdist", stage, *made[stage]]) for stage in TABLES if stage in made]


def _differing(stage: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """Keywords that are not as the defaults are."""
    parameters = TABLES[stage].parameters()
    return {
        key: value
        for key, value in keywords.items()
        if value is not None and (key not in parameters or _listed(parameters[key].default) != value)
    }


def _settings(stage: str, keywords: dict[str, Any]) -> list[str]:
    """Keywords of a stage as options: those that it needs by their own, the others by the one that takes all."""
    words, parameters = [], TABLES[stage].parameters()
    for key, value in _differing(stage, keywords).items():
        needed = key in parameters and parameters[key].default is Parameter.empty
        words += _option(key, value) if needed else ["--set", f"{key}={toml_value(value)}"]
    return words


def _import_options(keywords: dict[str, Any]) -> list[str]:
    """Keywords of an import, which has an option for each."""
    words = []
    for key, value in keywords.items():
        words += ["--raw"] if (key, value) == ("frames", "axis") else _option(key, value)
    return words


def _option(key: str, value: Any) -> list[str]:
    """A keyword as an option of its own name."""
    values = [] if value is True else value if isinstance(value, list) else [value]
    return [f"--{key.replace('_', '-')}", *map(str, values)]


def _listed(value: Any) -> Any:
    """A default as a record keeps it."""
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
