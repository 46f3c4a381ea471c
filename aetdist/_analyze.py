"""The order of models: every analysis in its own group of a store, computed when it is stale, and one table of all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ._records import describe_group
from .analysis.catalogue import analyses_of, summary_of
from .analysis.sample import sample_of
from .errors import InputError
from .io import Record, Store, read_atoms
from .io.groups import ATOMS, ORDER
from .io.hierarchy import attributes_of, is_store
from .io.places import Place, local_path, place
from .io.readers import digest_of_file, read_table

log = logging.getLogger(__name__)

ANALYSIS, COMPARISON = "analysis", "comparison"
_HOW = ("periodic", "field")


def analyze_group(store: Store, group: str, keywords: Mapping[str, Any], record: Record, prefix: str = "") -> int:
    """Computes: the analyses of a group of atoms that are not current; their figures in one more group.

    Parameters
    ----------
    store : Store
        Open for writing.
    group : str
        The atoms.
    keywords : mapping
        Those of `aetdist.analysis.catalogue.analyze_atoms`, all of them.
    record : Record
        Of the group with the figures.
    prefix : str
        Of the names of all groups written; "" or ends with "/".

    Returns
    -------
    int
        How many analyses were computed now.
    """
    atoms = store.read(group)
    sample = sample_of(atoms, **{key: keywords[key] for key in _HOW})
    found: dict[str, xr.Dataset] = {}
    digests: dict[str, str] = {}
    computed = 0
    for analysis in analyses_of(sample, found):
        name = f"{prefix}{ANALYSIS}/{analysis.name}"
        inputs = {group: store.digest(group), **{f"{ANALYSIS}/{need}": digests[need] for need in analysis.needs}}
        parameters = {key: keywords[key] for key in (*analysis.keywords, *_HOW)}
        made = Record(f"analyze {analysis.name}", parameters, inputs)
        digests[analysis.name] = made.digest
        if store.holds(name, made):
            found[analysis.name] = store.read(name)
            continue
        log.info("analyze: computing %s", name)
        result = analysis.compute(sample, found, keywords)
        if result is None:
            store.delete(name)
            continue
        store.write(name, result, record=made)
        found[analysis.name] = store.read(name)
        computed += 1
    store.write(f"{prefix}{ORDER}", summary_of(found, atoms, keywords), record=record)
    return computed


def analyze_files(
    models: Sequence[str | Path],
    output: str | Path,
    keywords: Mapping[str, Any],
    *,
    types: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Computes: the analyses of the atoms in files, in a store of their own; of several models also one table.

    Parameters
    ----------
    models : sequence of str or Path
        Whatever `aetdist.io.read_atoms` reads.
    output : str or Path
        The store; one that is there is gone on with.
    keywords : mapping
        Those of `aetdist.analysis.catalogue.analyze_atoms`, all of them.
    types : str, optional
        ``file.h5::dataset`` with the types of the atoms, where the model has none; of a single model.
    overwrite : bool
        Begin the store anew.

    Returns
    -------
    dict
        ``models``: what `describe_group` says of each model by its name; ``n_analyses_computed``.

    Raises
    ------
    InputError
        If a model cannot be read, or two have one name.
    """
    names = [_name_of(model) for model in models]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"Two models are called {twice[0]}; rename a file, so that the table can tell them apart.")
    if types is not None and len(names) > 1:
        raise InputError("types came for several models; give it with one model, or write the types into the files.")
    read = {name: _read(model, types) for name, model in zip(names, models, strict=True)}
    for atoms, _ in read.values():
        sample_of(atoms, **{key: keywords[key] for key in _HOW})  # refused before anything is written
    fresh = overwrite or not (is_store(output) and attributes_of(output))
    computed, tables = 0, {}
    with Store.create(output, overwrite=overwrite) if fresh else Store.open(output, "a") as store:
        for name, (atoms, source) in read.items():
            prefix = f"{name}/" if len(read) > 1 else ""
            if not store.holds(prefix + ATOMS, source):
                store.write(prefix + ATOMS, atoms, record=source)
            record = Record("analyze", dict(keywords), {prefix + ATOMS: source.digest})
            if not store.holds(prefix + ORDER, record):
                computed += analyze_group(store, prefix + ATOMS, keywords, record, prefix)
            tables[name] = describe_group(store, prefix + ORDER)
        if len(read) > 1:
            inputs = {f"{name}/{ORDER}": store.digest(f"{name}/{ORDER}") for name in read}
            store.write(COMPARISON, _comparison(tables), record=Record("analyze", {}, inputs))
    return {"models": tables, "n_analyses_computed": computed}


def text_of(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Figures of models, as `describe_group` gives them, as a table of text, one column each."""
    rows = dict.fromkeys(key for table in tables.values() for key in table["order"])
    width = max(map(len, rows), default=0)
    columns = {
        name: [_number(table["order"].get(key, np.nan), table.get("order_sigma", {}).get(key)) for key in rows]
        for name, table in tables.items()
    }
    wide = {name: max(map(len, [name, *column])) for name, column in columns.items()}
    lines = [" " * width + "".join(f"  {name:>{wide[name]}}" for name in columns)] if len(columns) > 1 else []
    for k, key in enumerate(rows):
        lines.append(f"{key:<{width}}" + "".join(f"  {column[k]:>{wide[name]}}" for name, column in columns.items()))
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float, sigma: float | None) -> str:
    if not np.isfinite(value):
        return "–"
    number = f"{value:,.0f}" if value == round(value) or abs(value) >= 1e4 else f"{value:.4g}"
    return number if sigma is None or not np.isfinite(sigma) else f"{number} ± {sigma:.2g}"


def _comparison(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> xr.Dataset:
    """Figures of all models, and how sure they are."""
    rows = list(dict.fromkeys(key for table in tables.values() for key in table["order"]))
    made = xr.Dataset(coords={"figure": rows, "model": list(tables)})
    for name, key in (("value", "order"), ("sigma", "order_sigma")):
        values = [[table.get(key, {}).get(row, np.nan) for table in tables.values()] for row in rows]
        made[name] = ("figure", "model"), np.array(values, dtype=np.float64)
    return made


def _name_of(model: str | Path) -> str:
    inner = str(model).partition("::")[2]
    return _file(model).stem + (f"_{Path(inner).name}" if inner else "")


def _read(model: str | Path, types: str | None) -> tuple[xr.Dataset, Record]:
    """Atoms of a file, and the record of how they came."""
    atoms = read_atoms(model)
    inputs = {"file": digest_of_file(local_path(_file(model)))} if not is_store(_file(model)) else {}
    if types is not None:
        given = np.ravel(read_table(types))
        if len(given) != atoms.sizes["atom"]:
            raise InputError(f"{types} has {len(given)} types for {atoms.sizes['atom']} atoms.")
        atoms = atoms.assign(type=("atom", given.astype(np.int64)))
        inputs["types"] = digest_of_file(local_path(_file(types)))
    if not inputs:
        inputs = {"atoms": Record("read", {str(name): values for name, values in atoms.variables.items()}).digest}
    return atoms.load(), Record("import", {"atoms": _file(model).name}, inputs)


def _file(model: str | Path) -> Place:
    return place(str(model).partition("::")[0])
