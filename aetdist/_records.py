"""How every group of an experiment would be made: the records that tell what is current from what is stale."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import InputError, StoreError
from .experiment import Experiment
from .io import Record, Store, newest
from .io.groups import (
    ATOMS,
    CALIBRATED,
    CLASSIFIED,
    ORDER,
    PREPROCESSED,
    RAW,
    REFINED,
    REFINED_ATOMS,
    TILTS,
    VOLUME,
)
from .io.readers import digest_of_file, has_frames, list_files

#: What each stage reads, the newest of each, and what it writes.
READS = {
    "preprocess": (RAW,),
    "align": (PREPROCESSED,),
    "refine-angles": (TILTS,),
    "reconstruct": (TILTS,),
    "scan": (TILTS,),
    "trace": (VOLUME,),
    "classify": (ATOMS, VOLUME),
    "refine": (TILTS, ATOMS, VOLUME),
    "validate": (TILTS, ATOMS, VOLUME),
    "analyze": (ATOMS,),
}
WRITES = {
    "preprocess": PREPROCESSED,
    "align": TILTS,
    "refine-angles": REFINED,
    "reconstruct": VOLUME,
    "scan": VOLUME,
    "trace": ATOMS,
    "classify": CLASSIFIED,
    "refine": REFINED_ATOMS,
    "validate": CALIBRATED,
    "analyze": ORDER,
}
#: Commands that make what a stage may lack.
MADE_BY = {
    TILTS: "aetdist import",
    VOLUME: "aetdist reconstruct (or scan)",
    ATOMS: "aetdist trace",
}
#: Groups that hold tilts and their angles.
SERIES = (RAW, PREPROCESSED, TILTS, REFINED)
#: Keywords that say how the work is cut up, which changes nothing but rounding.
HOW = ("slabs", "checkpoint_every")
#: What a reconstruction says in the attributes of its volume.
STOPPING = ("stop", "iterations", "stop_reached", "noise")

#: What refinement says in the attributes of its atoms of the changes that lowered the residual.
CURATION = ("n_added", "n_deleted", "n_split", "n_merged", "n_retyped")


def written_group(name: str, keywords: Mapping[str, Any], stages: Collection[str] = ()) -> str:
    """Group that a stage with these keywords writes, in an experiment of these stages.

    An import writes raw frames, or images that are still to be aligned, or an aligned series.
    """
    if name != "import":
        return WRITES[name]
    if keywords.get("frames") is not None or has_frames(keywords["files"], keywords["images"]):
        return RAW
    return PREPROCESSED if "align" in stages else TILTS


def inputs_of(name: str, store: Store | None, planned: Mapping[str, Record] | None = None) -> dict[str, str]:
    """Groups that a stage reads, the newest of those that stand for one another, with their digests.

    Parameters
    ----------
    name : str
        The stage.
    store : Store, optional
        Open in any mode.
    planned : mapping of str to Record, optional
        What earlier stages of an experiment will have made by then.

    Raises
    ------
    InputError
        If a stage of an experiment needs a group that neither the experiment nor its store has.
    StoreError
        If a stage on its own needs one that the store does not have.
    """
    there = store.groups() if store is not None else []
    inputs = {}
    for group in READS[name]:
        source = newest(group, store, planned, before=WRITES[name])
        if planned is not None and source in planned:
            inputs[source] = planned[source].digest
        elif store is None or (planned is not None and source not in there):
            raise InputError(f"[{name}] needs {source}, which neither the experiment file nor its store has.")
        elif source == PREPROCESSED and source not in there:
            inputs[source] = store.digest(TILTS)  # images that were imported as aligned become preprocessed ones
        elif source not in there and source in MADE_BY and store.pending(source) is None:
            have = ", ".join(there) or "nothing"
            raise StoreError(f"{store.path} holds no {source!r} but {have}; {MADE_BY[source]} makes it.")
        else:
            inputs[source] = store.digest(source)
    return inputs


def stage_record(name: str, keywords: Mapping[str, Any], inputs: dict[str, str]) -> Record:
    """Record of a stage with these keywords; callbacks among them, and how the work is cut up, do not count.

    Of a file of edits its rows count, so that they are kept, and known for others when the file changes.
    """
    parameters = {key: value for key, value in keywords.items() if not callable(value) and key not in HOW}
    if parameters.get("edits") is not None:
        from .refine.edits import read_edits

        parameters["edits"] = [edit.row for edit in read_edits(parameters["edits"])]
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
            records[written_group(name, keywords, experiment.stages)] = import_record(keywords)
        elif name in READS:
            records[WRITES[name]] = stage_record(name, keywords, inputs_of(name, store, records))
    return records


def describe_group(store: Store, group: str) -> dict[str, Any]:
    """Read back from the store what a summary says about a group."""
    dataset = store.read(group)
    if group in SERIES:
        described = describe_series(dataset)
        if group == PREPROCESSED and "frame_kept" in dataset:
            described |= describe_preprocessing(dataset)
        if group == TILTS and "used" in dataset:
            described |= describe_alignment(dataset)
        if group == REFINED:
            described |= describe_refinement(dataset)
        return described
    if group in (ATOMS, CLASSIFIED, REFINED_ATOMS, CALIBRATED):
        return describe_atoms(dataset)
    if group.endswith(ORDER):
        names, told = dataset["figure"].values.tolist(), {"value": "order", "sigma": "order_sigma"}
        kept = {told[name]: dataset[name].values.tolist() for name in told if name in dataset}
        return {key: dict(zip(names, values, strict=True)) for key, values in kept.items()}
    described = {"shape": [dataset.sizes[axis] for axis in "xyz"]}
    if "r_factor" in dataset:
        described["r_factor_mean"] = float(np.nanmean(dataset["r_factor"].values[-1]))
    return described | stopping(dataset)


def describe_series(series: xr.Dataset) -> dict[str, Any]:
    """How many images of which size at which tilts."""
    tilts = series["angles"].values[:, 1]
    described: dict[str, Any] = {"n_tilts": len(tilts), "image_shape": [series.sizes[axis] for axis in "yx"]}
    if "frame" in series.sizes:
        described["n_frames"] = series.sizes["frame"]
    described["tilt_range"] = [float(tilts.min()), float(tilts.max())]
    if "pixel_size" in series:
        described["pixel_size"] = float(series["pixel_size"])
    return described


def describe_preprocessing(series: xr.Dataset) -> dict[str, Any]:
    """What was found in the raw frames."""
    kept, shift = series["frame_kept"].values, series["frame_shift"].values
    there = np.isfinite(series["frame_correlation"].values)
    described: dict[str, Any] = {
        "drift_rms": _rms(shift[kept]),
        "n_frames_dropped": int((~kept & there).sum()),
        "distortion": series["distortion"].values.tolist(),
    }
    described |= {key: value for key, value in series.attrs.items() if key.startswith("noise_")}
    if "residual_applied" in series.attrs:
        described |= {name: series.attrs[name] for name in ("residual_distortion", "residual_applied")}
    if "sweep_correlation" in series:
        chosen = series["sweep_correlation"].dims[:-1]
        described["denoising_chosen"] = {name: series.attrs[f"denoise_{name}"] for name in map(str, chosen)}
    if "object_leaves_field" in series and series["object_leaves_field"].values.any():
        described["tilts_that_leave_the_field"] = np.flatnonzero(series["object_leaves_field"].values).tolist()
    return described


def describe_alignment(series: xr.Dataset) -> dict[str, Any]:
    """Shifts, direction of the axis, and tilts that are not used."""
    used, shift = series["used"].values, series["shift"].values
    described: dict[str, Any] = {
        "already_aligned": bool(series.attrs["already_aligned"]),
        "shift_rms": _rms(shift[used] - shift[used].mean(axis=0)),
        "tilt_axis": float(series["tilt_axis"]),
    }
    if not used.all():
        described["tilts_not_used"] = np.flatnonzero(~used).tolist()
    if "repeat_tilts" in series:
        pairs, differ = series["repeat_tilts"].values, series["repeat_flagged"].values
        described |= {"repeated_tilts": pairs.tolist(), "repeated_tilts_that_differ": pairs[differ].tolist()}
    return described


def describe_refinement(series: xr.Dataset) -> dict[str, Any]:
    """How far angles and shifts moved, R before and after, and tilts that are not used."""
    used, r_factor = (
        series["used"].values,
        np.nanmean(series["round_r_factor"].values[:, series["used"].values], axis=1),
    )
    described: dict[str, Any] = {
        "rotation_rms": _rms(series["rotation"].values[used]),
        "refined_shift_rms": _rms(series["refined_shift"].values[used]),
        "r_factor_before": float(r_factor[0]),
        "r_factor_after": float(r_factor[series.attrs["best_round"]]),
        "rounds": len(r_factor) - 1,
        "converged": bool(series.attrs["converged"]),
        "stopped": series.attrs["stopped"],
    }
    wrong = np.flatnonzero(series["flags"].values.astype(str) != "")
    if wrong.size:
        described["tilts_flagged"] = {int(t): str(series["flags"].values[t]) for t in wrong}
    return described


def describe_atoms(atoms: xr.Dataset) -> dict[str, Any]:
    """How many atoms of each type, how well they explain the images, what curation did, how sure they are."""
    described: dict[str, Any] = {"n_atoms": atoms.sizes["atom"]}
    if "type" in atoms:
        types, counts = np.unique(atoms["type"].values, return_counts=True)
        described["atoms_of_type"] = {str(t): int(n) for t, n in zip(types, counts, strict=True)}
    if atoms.attrs.get("type_separation"):
        described["type_separation"] = list(atoms.attrs["type_separation"])
    if "n_non_atoms" in atoms.attrs:
        described["n_non_atoms"] = int(atoms.attrs["n_non_atoms"])
    for key, attribute in (("atoms_r_factor", "R"), ("atoms_r1_factor", "R1")):
        if attribute in atoms.attrs:
            described[key] = float(atoms.attrs[attribute])
    described |= {key: int(atoms.attrs[key]) for key in CURATION if key in atoms.attrs}
    if "edits" in atoms.attrs:
        actions = [row.partition(",")[0] for row in atoms.attrs["edits"]]
        described["edits_applied"] = {action: actions.count(action) for action in dict.fromkeys(actions)}
    if "unresolved" in atoms:
        described["n_unresolved"] = int(atoms["unresolved"].values.sum())
    if "position_sigma" in atoms and np.isfinite(atoms["position_sigma"].values).any():
        median = np.nanmedian(atoms["position_sigma"].values, axis=0)
        described["position_sigma_pm"] = [float(value) for value in 100.0 * median]
    if "cramer_rao" in atoms.attrs:
        described["cramer_rao_pm"] = 100.0 * float(atoms.attrs["cramer_rao"])
    return described


def _rms(vectors: np.ndarray) -> float:
    """Root mean square length of vectors in the last dimension."""
    return float(np.sqrt(np.square(vectors).sum(axis=-1).mean())) if vectors.size else float("nan")


def stopping(volume: xr.Dataset) -> dict[str, Any]:
    """What stopped the reconstruction of a volume, after how many iterations, judged by what."""
    said = {key: volume.attrs[key] for key in STOPPING if key in volume.attrs}
    if "held_out_error" in volume:
        said["held_out_error"] = float(volume["held_out_error"].min())
    return said


def _file(value: str | Path) -> Path:
    return Path(str(value).partition("::")[0])
