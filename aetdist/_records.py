"""How every group of an experiment would be made: the records that tell what is current from what is stale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import InputError
from .experiment import Experiment
from .io import Record, Store
from .io.readers import digest_of_file, has_frames, list_files

RAW, TILTS, VOLUME, ATOMS = "tilt_series/raw", "tilt_series/aligned", "volume", "atoms"
#: What each stage reads and writes.
READS = {"reconstruct": TILTS, "scan": TILTS, "trace": VOLUME}
WRITES = {"import": TILTS, "reconstruct": VOLUME, "scan": VOLUME, "trace": ATOMS}
#: Groups that hold tilts and their angles.
SERIES = (RAW, TILTS)
#: Keywords that say how the work is cut up, which changes nothing but rounding.
HOW = ("slabs", "checkpoint_every")
#: What a reconstruction says in the attributes of its volume.
STOPPING = ("stop", "iterations", "stop_reached", "noise")


def written_group(name: str, keywords: Mapping[str, Any]) -> str:
    """Group that a stage with these keywords writes: an import of raw frames, another than one of an aligned series."""
    if name == "import" and (keywords["frames"] is not None or has_frames(keywords["files"], keywords["images"])):
        return RAW
    return WRITES[name]


def stage_record(name: str, keywords: Mapping[str, Any], inputs: dict[str, str]) -> Record:
    """Record of a stage with these keywords; callbacks among them, and how the work is cut up, do not count."""
    parameters = {key: value for key, value in keywords.items() if not callable(value) and key not in HOW}
    return Record(name, parameters, inputs, seed=parameters.get("seed"))


def import_record(keywords: Mapping[str, Any]) -> Record:
    """Record of an import: files count by name and contents, so that an experiment may move to another folder."""
    parameters = dict(keywords)
    files = [_file(file) for file in list_files(keywords["files"])]
    inputs = {f"file {i}": digest_of_file(file) for i, file in enumerate(files)}
    parameters["files"] = [file.name for file in files]
    for key, value in keywords.items():
        if isinstance(value, (str, Path)) and _file(value).is_file():
            inputs[key] = digest_of_file(_file(value))
            parameters[key] = Path(value).name
    return stage_record("import", parameters, inputs)


def expected_records(experiment: Experiment, store: Store | None) -> dict[str, Record]:
    """How each group would be made by the whole experiment, known before anything is computed.

    Raises
    ------
    InputError
        If a stage needs a group that neither a table of the experiment nor the store has.
    """
    records: dict[str, Record] = {}
    for name, keywords in experiment.stages.items():
        if name == "import":
            records[written_group(name, keywords)] = import_record(keywords)
        elif name in READS:
            source = READS[name]
            if source in records:
                digest = records[source].digest
            elif store is not None and source in store.groups():
                digest = store.digest(source)
            else:
                raise InputError(f"[{name}] needs {source}, which neither the experiment file nor its store has.")
            records[WRITES[name]] = stage_record(name, keywords, {source: digest})
    return records


def describe_group(store: Store, group: str) -> dict[str, Any]:
    """Read back from the store what a summary says about a group."""
    dataset = store.read(group)
    if group in SERIES:
        tilts = dataset["angles"].values[:, 1]
        described: dict[str, Any] = {"n_tilts": len(tilts), "image_shape": [dataset.sizes[axis] for axis in "yx"]}
        if "frame" in dataset.sizes:
            described["n_frames"] = dataset.sizes["frame"]
        described["tilt_range"] = [float(tilts.min()), float(tilts.max())]
        if "pixel_size" in dataset:
            described["pixel_size"] = float(dataset["pixel_size"])
        return described
    if group == ATOMS:
        return {"n_atoms": dataset.sizes["atom"]}
    described = {"shape": [dataset.sizes[axis] for axis in "xyz"]}
    if "r_factor" in dataset:
        described["r_factor_mean"] = float(np.nanmean(dataset["r_factor"].values[-1]))
    return described | stopping(dataset)


def stopping(volume: xr.Dataset) -> dict[str, Any]:
    """What stopped the reconstruction of a volume, after how many iterations, judged by what."""
    said = {key: volume.attrs[key] for key in STOPPING if key in volume.attrs}
    if "held_out_error" in volume:
        said["held_out_error"] = float(volume["held_out_error"].min())
    return said


def _file(value: str | Path) -> Path:
    return Path(str(value).partition("::")[0])
