"""The experiment as a TOML file: its tables hold the keywords of the stages' functions."""

from __future__ import annotations

import collections.abc
import contextlib
import difflib
import inspect
import json
import textwrap
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._tables import SIMULATIONS, TABLES, is_settable, options_of
from .errors import InputError
from .io.places import Place, within


@dataclass(frozen=True)
class Experiment:
    """What an experiment file says, checked.

    Parameters
    ----------
    store : Path or S3Place
        The store of the experiment.
    stages : dict of str to dict
        Keywords of each stage, in the order of the experiment; paths are absolute.
    """

    store: Place
    stages: dict[str, dict[str, Any]]


def read_experiment(path: str | Path) -> Experiment:
    """Read and check an experiment file.

    Parameters
    ----------
    path : str or Path
        TOML. Its tables are named by stage; paths in it are taken from its own folder. Without a table
        ``[import]`` the key ``store`` says which store to go on with.

    Raises
    ------
    InputError
        If it is not TOML, or holds an unknown table or key, a value of the wrong type, both
        ``[reconstruct]`` and ``[scan]``, or lacks something; nothing is computed then.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no experiment file {path}; aetdist config > {path.name} writes one.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # broken TOML, broken UTF-8, brackets without end
        raise InputError(f"{path} is not TOML: {error}") from None
    folder = path.absolute().parent
    store = content.pop("store", None)
    for name, keywords in content.items():
        if name not in TABLES:
            raise InputError(f"{path}: [{name}] is no stage; {_nearest(name, TABLES, '[{}]')}")
        if not isinstance(keywords, dict):
            raise InputError(f"{path}: {name} = {keywords!r} came, a table [{name}] with keywords is needed.")
    if {"reconstruct", "scan"} <= content.keys():
        raise InputError(f"{path} has both [reconstruct] and [scan]; keep the one that shall make the volume.")
    if ("import" in content) == (store is not None):
        raise InputError(f'{path} needs either a table [import], or store = "run.zarr" to go on with a store there is.')
    stages = {}
    for name in TABLES:
        if name in content:
            stages[name] = _check_table(name, content[name], folder, str(path))
    if store is not None and not isinstance(store, str):
        raise InputError(f"{path}: store = {store!r} came, text is needed.")
    where = within(folder, stages["import"].pop("output") if store is None else store)
    return Experiment(where, stages)


def checked_keywords(name: str, keywords: Mapping[str, Any], *, where: str = "") -> dict[str, Any]:
    """Keywords of a stage with its defaults, each of the type that its annotation names.

    Parameters
    ----------
    name : str
        The stage, one of `TABLES`, or ``"simulate"``, ``"simulate multislice"``, ``"simulate frames"``, ``"design"``.
    keywords : mapping
        What was given.
    where : str
        What an error begins with.

    Raises
    ------
    InputError
        If a keyword is unknown (the nearest valid one is named), of the wrong type, or missing.
    """
    table = (TABLES | SIMULATIONS)[name]
    parameters = table.parameters()
    hints = table.hints()
    where = f"{where}: [{name}]" if where else name
    checked = {}
    for key, value in keywords.items():
        if key not in parameters:
            raise InputError(f"{where} has no {key}; {_nearest(key, parameters)}")
        try:
            checked[key] = None if value is None else _convert(value, hints.get(key, Any))
        except TypeError:
            raise InputError(f"{where}: {key} = {value!r} came, {_describe(hints[key])} is needed.") from None
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in checked]
    if missing:
        raise InputError(f"{where} needs {', '.join(missing)}.")
    complete = {key: checked.get(key, parameter.default) for key, parameter in parameters.items()}
    if table.switch:
        accepted_keywords(name, complete, table.load()[complete[table.switch] is not None])
    return complete


def accepted_keywords(name: str, keywords: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Those of the checked keywords of a stage that are set and that one of its functions takes.

    Raises
    ------
    InputError
        If one that it does not take differs from the default.
    """
    parameters, takes = TABLES[name].parameters(), inspect.signature(function).parameters
    for key, value in keywords.items():
        if key not in takes and value is not parameters[key].default and value != parameters[key].default:
            raise InputError(
                f"{name}: {key} = {value!r} came, which {function.__name__} does not take; leave {key} out."
            )
    return {key: value for key, value in keywords.items() if key in takes and value is not None}


def default_config() -> str:
    """Write a complete experiment file: every keyword with its default, what it means and its unit.

    Returns
    -------
    str
        TOML.
    """
    lines = [
        "# An experiment for `aetdist run`. Paths are taken from the folder of this file; lengths are in Angstrom",
        "# unless said. A keyword that is commented out is not set.",
    ]
    for name, table in TABLES.items():
        mark = "# " if table.optional else ""
        lines += ["", f"{mark}[{name}]" + ("   # instead of [reconstruct]" if name == "scan" else "")]
        docs, hints = table.docs(), table.hints()
        for key, text in table.leading.items():
            lines += [f"# {text}", f"# {key} =   # needed"]
        for key, parameter in table.parameters().items():
            if not is_settable(hints.get(key, Any)):
                continue
            lines += textwrap.wrap(docs.get(key, ""), 108, initial_indent="# ", subsequent_indent="# ")
            if parameter.default is parameter.empty:
                lines.append(f"# {key} =   # needed: {_describe(hints[key])}")
            elif parameter.default is None:
                lines.append(f"# {key} =   # {_describe(hints[key])}")
            else:
                lines.append(f"{mark}{key} = {toml_value(parameter.default)}")
    return "\n".join(lines) + "\n"


def _check_table(name: str, given: Mapping[str, Any], folder: Path, path: str) -> dict[str, Any]:
    leading = TABLES[name].leading
    valid = [*leading, *TABLES[name].parameters()]
    for key in given:
        if key not in valid:
            raise InputError(f"{path}: [{name}] has no {key}; {_nearest(key, valid)}")
    missing = [key for key in leading if key not in given]
    if missing:
        raise InputError(f"{path}: [{name}] needs {' and '.join(missing)}.")
    first = {}
    for key in leading:
        values = [given[key]] if isinstance(given[key], str) else given[key]
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            raise InputError(f"{path}: [{name}] {key} = {given[key]!r} came, text is needed.")
        if key == "files":
            first[key] = [folder / value for value in values]
        elif isinstance(given[key], str):
            first[key] = given[key]
        else:
            raise InputError(f"{path}: [{name}] {key} = {given[key]!r} came, text is needed.")
    checked = checked_keywords(name, {k: v for k, v in given.items() if k not in leading}, where=path)
    return {**first, **{key: _located(name, key, value, folder) for key, value in checked.items()}}


def _located(name: str, key: str, value: Any, folder: Path) -> Any:
    """Paths relative to the experiment's folder; in [import] a text may be a dataset's name as well."""
    if not isinstance(value, (str, Path)):
        return value
    is_file = False
    with contextlib.suppress(OSError):  # a name that is too long
        is_file = name == "import" and (folder / str(value).partition("::")[0]).is_file()
    return str(folder / value) if is_file or name == "export" or key == "edits" else value


def _nearest(word: str, valid: Iterable[str], form: str = "{}") -> str:
    valid = list(valid)
    close = difflib.get_close_matches(word, valid, 1, 0.5)
    return f"did you mean {form.format(close[0])}?" if close else f"it may have {', '.join(map(form.format, valid))}."


def _convert(value: Any, hint: Any) -> Any:
    """`value` as one of the types of `hint`; a whole number serves where a real one is needed."""
    options = options_of(hint)
    for exact in (True, False):
        for option in options:
            try:
                return _convert_one(value, option, exact)
            except TypeError:
                continue
    raise TypeError


def _convert_one(value: Any, option: Any, exact: bool) -> Any:
    origin, arguments = typing.get_origin(option) or option, typing.get_args(option)
    if option is Any:
        return value
    if origin is typing.Literal:
        if value in arguments:
            return value
    elif option in (bool, int, str):
        if isinstance(value, option) and isinstance(value, bool) == (option is bool):
            return value
    elif option is float:
        if isinstance(value, float) or (not exact and isinstance(value, int) and not isinstance(value, bool)):
            return float(value)
    elif option is Path:
        if isinstance(value, (str, Path)):
            return value
    elif isinstance(value, (list, tuple)) and origin in (tuple, list, collections.abc.Sequence):
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            if len(arguments) != len(value):
                raise TypeError
            return tuple(_convert(item, part) for item, part in zip(value, arguments, strict=True))
        return tuple(_convert(item, arguments[0]) if arguments else item for item in value)
    elif isinstance(origin, type) and isinstance(value, origin) and not isinstance(value, str):  # no list of letters
        return value
    elif origin is collections.abc.Callable and callable(value):
        return value
    raise TypeError


def _describe(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "text"}
    said = []
    for option in options_of(hint):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if option in words:
            said.append(words[option])
        elif origin is typing.Literal:
            said.append("one of " + ", ".join(json.dumps(argument) for argument in arguments))
        elif origin is tuple and Ellipsis not in arguments:
            said.append("[" + ", ".join(_describe(argument) for argument in arguments) + "]")
        elif origin in (tuple, list, collections.abc.Sequence) and all(map(is_settable, arguments)):
            said.append(f"a list of {_describe(arguments[0])}" if arguments else "a list")
    return " or ".join(dict.fromkeys(said)) or "what only Python can give"


def toml_value(value: Any) -> str:
    """A keyword's value as an experiment file or ``--set`` holds it."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return repr(value)
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
