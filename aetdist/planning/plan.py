"""A plan of an experiment file or of a store: read what is there, forecast what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from .._records import written_group
from .._usage import accounted
from ..errors import InputError
from ..experiment import Experiment, accepted_keywords, checked_keywords, read_experiment
from ..io import Store, newest
from ..io.groups import TILTS, VOLUME
from ..io.hierarchy import attributes_of, is_store
from .stages import forecast_stages, require_fit
from .text import table_of
from .workers import workers_of


def plan(
    target: str | Path, *, workers: int | None = None, memory_limit: str | int | None = None, **keywords: Any
) -> dict[str, Any]:
    """Computes: what stages will take before anything of them runs; times a few small kernels for it (seconds).

    Parameters
    ----------
    target : str or Path
        An experiment file, or a store with an aligned tilt series.
    workers : int, optional
        How many single-threaded workers to plan for; by default those of the current client, else one per core.
    memory_limit : str or int, optional
        Memory of each.
    **keywords
        For a store: those of `aetdist.reconstruct.reconstruct_scan` (with a window), or of `reconstruct_resire`.

    Returns
    -------
    dict
        ``stages``: for each ``n_windows``, ``n_tasks``, ``task_bytes`` (of the largest), ``worker_bytes`` (peak of a
        worker), ``stored_bytes`` (at most), ``read_bytes``, ``cpu_seconds``, ``seconds``, ``steps``; ``workers``,
        ``worker_own_bytes`` (without arrays), ``fits``, ``text``, a table.

    Raises
    ------
    InputError
        If the file, an option, or what a stage reads is not as it should be.

    Notes
    -----
    Solvers are timed on the problem's own depth, widths and angles, with fewer rows and tilts; reading, writing and
    stitching on small arrays. The film is taken to fill its thickness: what is forecast is the most that a scan takes.
    """
    path = Path(target)
    with accounted() as summary:
        if is_store(path) and attributes_of(path):
            with Store.open(path) as store:
                stages, series = _asked(store, keywords), series_of(store)
                volume = _volume_of(store)
        elif keywords:
            raise InputError(f"{', '.join(keywords)} came for {path}; an experiment file holds its own keywords.")
        else:
            experiment = read_experiment(path)
            stages, series, volume = experiment.stages, _series_to_come(experiment), None
        there = workers_of(workers, memory_limit)
        forecasts, own = forecast_stages(stages, series, there, volume)
        need = max((f.worker_bytes(there, own) for f in forecasts if f.steps), default=own)
        summary |= {
            "stages": {f.stage: f.summary(there, own) for f in forecasts},
            "workers": there.__dict__,
            "worker_own_bytes": own,
            "fits": need <= there.memory,
        }
    text = table_of(forecasts, there, own)
    return {**summary, "text": text if summary["fits"] else f"{text}\ndoes not fit: {_advice(stages, series, there)}"}


def refuse_what_cannot_fit(stages: Mapping[str, Mapping[str, Any]], store: Store) -> None:
    """Refuse an experiment one of whose stages cannot fit, as far as its tilt series is there.

    Raises
    ------
    CapacityError
        Naming the option that makes it fit.
    """
    series = series_of(store)
    if series is not None:
        for name in {"scan", "reconstruct"} & stages.keys():
            require_fit(name, stages[name], series, workers_of())


def series_of(store: Store) -> xr.Dataset | None:
    """The aligned tilt series of a store, the newest, lazily."""
    return store.read(newest(TILTS, store)) if TILTS in store.groups() else None


def _advice(stages: Mapping[str, Mapping[str, Any]], series: xr.Dataset | None, there: Any) -> str:
    """What makes it fit."""
    from ..errors import CapacityError

    for name in ("scan", "reconstruct"):
        if name in stages and series is not None:
            try:
                require_fit(name, stages[name], series, there)
            except CapacityError as error:
                return str(error)
    return "give each worker more memory (--memory-limit)."


def _asked(store: Store, keywords: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Stages of a store: its volume, by windows or in one piece, and the atoms in it; these alone where it is there."""
    if "window" in keywords:
        stages = {"scan": checked_keywords("scan", keywords)}
    elif keywords or VOLUME not in store.groups():
        stages = {"reconstruct": checked_keywords("reconstruct", keywords)}
    else:
        stages = {}
    if stages and TILTS not in store.groups():
        raise InputError(f"{store.path} holds no {TILTS!r}; aetdist import (or align) makes it.")
    return {**stages, "trace": checked_keywords("trace", {})}


def _volume_of(store: Store) -> tuple[tuple[int, int, int], tuple[int, int, int]] | None:
    if VOLUME not in store.groups():
        return None
    density = store.read(VOLUME)["density"].data
    return density.shape, tuple(max(c) for c in density.chunks)


def _series_to_come(experiment: Experiment) -> xr.Dataset | None:
    """The series of an experiment: in its store, or as it will be imported; None while it is not aligned."""
    if attributes_of(experiment.store):
        with Store.open(experiment.store) as store:
            series = series_of(store)
        if series is not None:
            return series
    given = experiment.stages.get("import")
    if given is None or written_group("import", given, experiment.stages) != TILTS:
        return None
    from ..tilt_series import import_tilt_series

    return import_tilt_series(**accepted_keywords("import", given, import_tilt_series))
