"""The experiment inside the experiment: a store of its own, and the stages of the run with the run's keywords."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from .._records import MADE_BY, inputs_of, stage_record, written_group
from .._stages import NAMED, do_stage
from .._tables import TABLES
from ..errors import InputError, StoreError
from ..experiment import checked_keywords
from ..io import Record, Store, begun, newest, write_blocks
from ..io.groups import ATOMS, CALIBRATED, CLASSIFIED, REFINED, REFINED_ATOMS, TILTS, VOLUME
from ..io.hierarchy import is_store
from ..io.places import Place, place
from ..progress import report
from ..refine.inputs import beside_the_atoms
from ..simulate import Multislice, forecast_multislice
from .images import MOSTLY_INSIDE, NOTHING, Beside, noise_free, with_noise
from .model import Geometry
from .noise import Noise

log = logging.getLogger(__name__)

TRUTH, CLEAN, FOUND = "truth", "tilt_series/noise_free", "found"
#: Keywords of a run that its validation leaves out: work by hand, and what names other data of the run.
_LEFT_OUT = ("edits", "exclude")


def nested_path(run: str | Place) -> Place:
    """Where the validation of a run is computed: ``run.validation.zarr`` beside ``run.zarr``."""
    where = place(run).absolute()
    return where.with_name(f"{where.stem}.validation{where.suffix}")


@contextmanager
def nested_store(run: Place) -> Iterator[Store]:
    """The store of a run's validation, made where there is none, open for writing."""
    path = nested_path(run)
    with Store.open(path, "a") if is_store(path) else Store.create(path) as store:
        yield store


def refined_group(run: Store) -> str:
    """Group of the refined atoms of a run, if they are of what the run holds now.

    Raises
    ------
    InputError
        Naming the command that makes what is missing.
    """
    there = run.groups()
    for group in (TILTS, VOLUME, ATOMS):
        if group not in there:
            raise InputError(f"{run.path.name} holds no {group!r}, which validation needs; {MADE_BY[group]} makes it.")
    group = newest(ATOMS, run, before=CALIBRATED)
    if group != REFINED_ATOMS:
        raise InputError(
            f"The newest atoms of {run.path.name} are {group!r}; validation needs refined ones: run aetdist refine."
        )
    return group


def stages_of(run: Store) -> dict[str, dict[str, Any]]:
    """The stages that made the refined atoms of a run, in order, with the keywords that they had.

    Those of work by hand (edits), of tilts that are left out anyway, and names of other groups of the run are not
    among them.
    """
    groups = [VOLUME, ATOMS, REFINED_ATOMS]
    inputs = _record(run, REFINED_ATOMS).inputs
    if CLASSIFIED in inputs:
        groups.insert(2, CLASSIFIED)
    if REFINED in inputs:
        groups.insert(0, REFINED)
    stages = {}
    for group in groups:
        record = _record(run, group)
        asked = run.notes(group).get("asked") or {"stage": record.stage, "keywords": record.parameters}
        if asked["stage"] not in TABLES:
            raise InputError(f"{group!r} does not say how it was asked for; make it again, by the command that did.")
        given = {key: value for key, value in asked["keywords"].items() if key not in _LEFT_OUT}
        given = {key: value for key, value in given.items() if not (key in NAMED and isinstance(value, str))}
        stages[asked["stage"]] = checked_keywords(asked["stage"], given)
    return stages


def simulate_model(
    store: Store,
    model: xr.Dataset,
    geometry: Geometry,
    beside: Beside,
    multislice: Multislice | None,
    parameters: Mapping[str, Any],
    inputs: dict[str, str],
) -> int:
    """Computes: the groups ``truth`` and ``tilt_series/noise_free``; tilts that were computed now.

    Parameters
    ----------
    store : Store
        Of the validation.
    model : xarray.Dataset
    geometry : Geometry
    beside : Beside
    multislice : Multislice, optional
        Linear projections without it.
    parameters : mapping
        Of the simulation, for its record: ``multislice``, ``heights``, ``angle_error``, ``shift_error``, ``seed``.
    inputs : dict of str to str
        What the model was made from, with digests.
    """
    record = Record("model", {"heights": parameters["heights"]}, inputs)
    if not store.holds(TRUTH, record):
        store.write(TRUTH, model, record=record)
    images = {key: value for key, value in parameters.items() if key != "heights"}
    record = Record("simulate", images, {TRUTH: store.digest(TRUTH), **inputs}, parameters["seed"])
    if store.holds(CLEAN, record):
        return 0
    clean = noise_free(model, geometry, beside, multislice=multislice)
    if multislice is not None and begun(store, CLEAN, record) is None:
        forecast = forecast_multislice(clean)
        hours, memory = forecast["cpu_seconds"] / 3600, forecast["memory_bytes"] / 1e9
        log.warning("multislice: about %.2g hours of one core, %.2g GB for each tilt at a time", hours, memory)
    return write_blocks(store, CLEAN, clean, record=record, dim="tilt")


def add_noise(
    store: Store, clean: xr.Dataset, geometry: Geometry, noise: Noise, asked: Mapping[str, Any], seed: int
) -> int:
    """Computes: the tilt series of the validation; tilts that were computed now.

    `asked` says how the noise was asked for: numbers that were measured may differ in their last digit next time.
    """
    record = Record("simulate noise", dict(asked), {CLEAN: store.digest(CLEAN)}, seed)
    if store.holds(TILTS, record):
        return 0
    return write_blocks(store, TILTS, with_noise(clean, geometry, noise, seed), record=record, dim="tilt")


def keep_found(store: Store, found: xr.Dataset, tolerance: float) -> None:
    """Write the found atoms, laid over the true ones, as the group ``found``."""
    inputs = {group: store.digest(group) for group in (REFINED_ATOMS, TRUTH)}
    record = Record("compare", {"tolerance": tolerance}, inputs)
    if not store.holds(FOUND, record):
        store.write(FOUND, found, record=record)


def solved_series(run: Store) -> str:
    """Group of the tilt series that the atoms of a run were refined against."""
    return REFINED if REFINED in _record(run, REFINED_ATOMS).inputs else TILTS


def run_stages(store: Store, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Computes: every stage that is not current; "computed" or "current" by its name."""
    states = {}
    for done, (name, keywords) in enumerate(stages.items()):
        report(done, len(stages), "stages of the validation")
        record = stage_record(name, keywords, inputs_of(name, store))
        said = do_stage(store, name, dict(keywords), record, written_group(name, keywords))
        states[name] = said["state"]
    report(len(stages), len(stages), "stages of the validation")
    return states


def matter_outside(run: Store, series: xr.Dataset) -> Beside:
    """What a scanned film has beside the atoms, as the tilts see it, lazily."""
    outside, inside = beside_the_atoms(run.read(VOLUME), series)
    if outside is None:
        return NOTHING
    return Beside(outside, outside <= MOSTLY_INSIDE * (outside + inside))


def check_inside(model: xr.Dataset, geometry: Geometry) -> None:
    """Refuse an isolated object that is larger than the field.

    Raises
    ------
    InputError
    """
    series = geometry.series
    lab = np.einsum("tij,nj->nti", series["matrices"].values[:, :2], model["position"].values)
    half = float(series["pixel_size"]) / 2
    x, y = series["x"].values, series["y"].values
    out = (lab[..., 0] < x[0] - half) | (lab[..., 0] > x[-1] + half)
    out |= (lab[..., 1] < y[0] - half) | (lab[..., 1] > y[-1] + half)
    if out.any():
        raise InputError(
            f"{int(out.any(axis=1).sum())} of {len(out)} atoms leave the field of {len(x)} x {len(y)} pixels at some "
            "tilt, so that the object is larger than it; such a sample is a film: reconstruct it with aetdist scan."
        )


def _record(store: Store, group: str) -> Record:
    record = store.record(group)
    if record is None:
        raise StoreError(f"{store.path} holds no complete {group!r}.")
    return record
