"""The experiment on one page: each command is a function here that returns a summary.

A tilt series is imported, raw or aligned (`import_series`), or simulated (`simulate`); the volume is reconstructed in
one piece (`reconstruct`) or from local volumes (`scan`); atoms are traced in it (`trace`) and written
for other programs (`export`). `run` does what an experiment file asks for and is not done yet. Every
stage is checked, compared with the record of what the store holds, computed if that is stale, and written.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from ._exports import export_stale, stale_files, write_file
from ._forward import project, simulate
from ._records import (
    ATOMS,
    PREPROCESSED,
    RAW,
    READS,
    REFINED,
    SERIES,
    TILTS,
    VOLUME,
    describe_alignment,
    describe_group,
    expected_records,
    import_record,
    source_of,
    stage_record,
    stopping,
    written_group,
)
from ._usage import accounted, current_client
from .errors import InputError
from .experiment import Experiment, accepted_keywords, checked_keywords, default_config, read_experiment
from .io import (
    Record,
    Store,
    begun,
    describe_groups,
    open_dataset,
    store_errors,
    write_blocks,
)
from .io.hierarchy import attributes_of
from .progress import report

log = logging.getLogger(__name__)

Summary = dict[str, Any]

__all__ = [
    "align",
    "default_config",
    "export",
    "import_series",
    "info",
    "preprocess",
    "project",
    "reconstruct",
    "refine_angles",
    "run",
    "scan",
    "simulate",
    "trace",
]


#: Arrays that a reconstruction takes from a group of the store, where a keyword names one: the variable there.
NAMED = {"support": "support", "start": "density"}


# -- the stages, in the order of the experiment ------------------------------------------------------


def _import(store: Store, keywords: dict[str, Any], record: Record, group: str) -> None:
    """Frames as the microscope wrote them, or images and mask of an aligned series; one chunk per tilt."""
    from .acquisition import import_acquisition
    from .tilt_series import import_tilt_series

    read = import_acquisition if group == RAW else import_tilt_series
    accepted = accepted_keywords("import", keywords, read)
    store.write(group, read(**accepted), record=record, chunks={"tilt": 1})


def _preprocess(store: Store, keywords: dict[str, Any], record: Record) -> Summary:
    """Frames registered, corrected and summed in one resampling, denoised, without background; resumed per tilt."""
    from .preprocess import correct_frames, preprocess_acquisition, warn_of_images
    from .simulate import nanoparticle

    raw, found = store.read(RAW), begun(store, PREPROCESSED, record)
    if found is None:
        make_atoms = functools.partial(nanoparticle, seed=keywords["seed"])
        series = preprocess_acquisition(raw, **keywords, make_atoms=make_atoms)
    else:
        series = correct_frames(raw, found)
    computed = write_blocks(store, PREPROCESSED, series, record=record, dim="tilt")
    warn_of_images(store.read(PREPROCESSED))
    return {"n_tilts_computed": computed}


def _align(store: Store, keywords: dict[str, Any], record: Record) -> Summary:
    """Images where they belong: made again from the raw frames, where the store has them; resumed per tilt."""
    from .align import align_tilt_series, apply_alignment
    from .preprocess import correct_frames

    imported = PREPROCESSED not in store.groups()
    found = align_tilt_series(store.read(TILTS if imported else PREPROCESSED), **keywords).compute()
    if imported:
        if found.attrs["already_aligned"]:
            return {"state": "left as it is", **describe_alignment(found)}
        store.rename(TILTS, PREPROCESSED)
    series = store.read(PREPROCESSED)
    remake = None
    if "frame_shift" in series and RAW in store.groups():
        remake = functools.partial(correct_frames, store.read(RAW), series)
    computed = write_blocks(store, TILTS, apply_alignment(series, found, remake=remake), record=record, dim="tilt")
    return {"n_tilts_computed": computed}


def _refine_angles(store: Store, keywords: dict[str, Any], record: Record) -> Summary | None:
    """Angles and shifts that match the reprojections, round by round, in one piece or over the scanned film."""
    from .angles import apply_refinement
    from .film_refinement import refine_scan
    from .refinement import reconstruct_refined, without_background

    series = store.read(TILTS)
    remake = _remake(store, series)
    if keywords["window"] is not None:
        return refine_scan(store, remake=remake, **accepted_keywords("refine-angles", keywords, refine_scan))
    accepted = accepted_keywords("refine-angles", keywords, reconstruct_refined)
    refined = reconstruct_refined(series, **accepted)
    done = apply_refinement(series, refined.corrections, remake)
    if refined.corrections.attrs["background"]:
        done = without_background(done, refined.volume)
    store.write(REFINED, done, record=record, chunks={"tilt": 1})
    return None


def _remake(store: Store, series: xr.Dataset) -> Callable[..., xr.Dataset]:
    """How the images of an aligned series are made with another shift: from the raw frames, where there are any."""
    from .align import shift_images
    from .preprocess import correct_frames

    if "shift" not in series or PREPROCESSED not in store.groups():
        return functools.partial(shift_images, series)
    before = store.read(PREPROCESSED)
    if "frame_shift" in before and RAW in store.groups():
        return functools.partial(correct_frames, store.read(RAW), before)
    return functools.partial(shift_images, before)


def _reconstruct(store: Store, keywords: dict[str, Any], record: Record) -> Summary | None:
    """The whole volume at once, in one task, or in slabs that the workers keep."""
    if keywords["slabs"] is not None:
        from .reconstruct import reconstruct_slabs

        accepted = accepted_keywords("reconstruct", keywords, reconstruct_slabs)
        return reconstruct_slabs(store, series=next(iter(record.inputs)), **accepted)
    for key, variable in NAMED.items():  # refused before a worker starts on it
        if isinstance(keywords[key], str) and variable not in store.read(keywords[key]):
            raise InputError(f"{key} = {keywords[key]!r} came, a group without {variable}; name one that has it.")
    path, group = str(store.path), next(iter(record.inputs))
    client = current_client()
    volume = (
        _reconstruct_task(path, group, keywords)
        if client is None
        else client.submit(_reconstruct_task, path, group, keywords, pure=False).result()
    )
    store.write(VOLUME, volume, record=record)
    return None


def _reconstruct_task(path: str, group: str, keywords: dict[str, Any]) -> xr.Dataset:
    from .reconstruct import reconstruct_resire

    def on_iteration(done: int, _: float) -> None:
        report(done, keywords["iterations"], "iterations")

    accepted = accepted_keywords("reconstruct", keywords, reconstruct_resire)
    for key, variable in NAMED.items():
        if isinstance(accepted.get(key), str):
            accepted[key] = open_dataset(path, accepted[key])[variable].load()
    return reconstruct_resire(open_dataset(path, group).load(), **{**accepted, "on_iteration": on_iteration})


def _scan(store: Store, keywords: dict[str, Any], record: Record) -> Summary:
    """Local volumes, one task each, stitched; goes on where a killed run stopped."""
    from .reconstruct import reconstruct_scan

    return reconstruct_scan(store, series=next(iter(record.inputs)), **keywords)


def _trace(store: Store, keywords: dict[str, Any], record: Record) -> None:
    """Peaks of the volume that are atoms."""
    from .trace import trace_atoms

    store.write(ATOMS, trace_atoms(store.read(VOLUME), **keywords), record=record)


STAGES: dict[str, Callable[[Store, dict[str, Any], Record], Summary | None]] = {
    "preprocess": _preprocess,
    "align": _align,
    "refine-angles": _refine_angles,
    "reconstruct": _reconstruct,
    "scan": _scan,
    "trace": _trace,
}


# -- the commands ------------------------------------------------------------------------------------


def import_series(
    files: str | Path | Sequence[str | Path], output: str | Path, *, overwrite: bool = False, **options: Any
) -> Summary:
    """Computes: a store from the files of a tilt series: aligned images, or (where there are) raw frames.

    Parameters
    ----------
    files : str, Path or sequence of them
        HDF5, MAT, MRC, TIFF, NPY, NPZ, SER, DM3, DM4 or EMD; a folder stands for the images in it.
    output : str or Path
        The store to make.
    overwrite : bool, default False
        Replace a store that is there.
    **options
        Keywords of `aetdist.tilt_series.import_tilt_series`; with `frames`, or for files of several frames a
        tilt, those of `aetdist.acquisition.import_acquisition`.

    Returns
    -------
    dict
        ``n_tilts``, ``pixel_size`` (Angstrom), ``tilt_range`` (degrees), ``seconds``, ``peak_memory_bytes`` ...
    """
    keywords = _import_keywords(files, options)
    with accounted() as summary, Store.create(output, overwrite=overwrite) as store:
        summary |= _do(store, "import", keywords, import_record(keywords), written_group("import", keywords))
    return summary


def preprocess(path: str | Path, **keywords: Any) -> Summary:
    """Computes: images from raw frames, by `aetdist.preprocess.preprocess_acquisition` and its keywords.

    Returns
    -------
    dict
        ``drift_rms`` (pixels), ``n_frames_dropped``, ``distortion``, ``noise_gain`` ..., ``n_tilts_computed`` (the
        others were there from a run that was killed), ``state`` ...
    """
    return _stage("preprocess", path, keywords)


def align(path: str | Path, **keywords: Any) -> Summary:
    """Computes: the aligned tilt series, by `aetdist.align.align_tilt_series` and its keywords.

    Images that were imported without raw frames are taken for preprocessed ones.

    Returns
    -------
    dict
        ``shift_rms`` (pixels), ``tilt_axis`` (degrees), ``tilts_not_used``, ``already_aligned``, ``n_tilts_computed``,
        ``state`` ...
    """
    return _stage("align", path, keywords)


def refine_angles(path: str | Path, **keywords: Any) -> Summary:
    """Computes: angles and shifts against the reprojections, by `aetdist.refinement.reconstruct_refined`.

    Returns
    -------
    dict
        ``rotation_rms`` (degrees), ``refined_shift_rms`` (pixels), ``r_factor_before``, ``r_factor_after``,
        ``converged``, ``tilts_flagged``, ``state`` ...
    """
    return _stage("refine-angles", path, keywords)


def reconstruct(path: str | Path, **keywords: Any) -> Summary:
    """Computes: the volume, by `aetdist.reconstruct.reconstruct_resire` and its keywords.

    With `slabs` by `aetdist.reconstruct.reconstruct_slabs`, over the workers of the current client.

    Returns
    -------
    dict
        ``r_factor_mean`` (eq. 4 over measured pixels, mean over tilts), ``state`` ("computed" or "current") ...
    """
    return _stage("reconstruct", path, keywords)


def scan(path: str | Path, **keywords: Any) -> Summary:
    """Computes: the volume of a film from local volumes, by `aetdist.reconstruct.reconstruct_scan` and its keywords.

    Returns
    -------
    dict
        ``r_factor_mean`` (eq. 4 over measured pixels, mean over tilts), ``state`` ("computed" or "current") ...
    """
    return _stage("scan", path, keywords)


def trace(path: str | Path, **keywords: Any) -> Summary:
    """Computes: the atoms in the volume, by `aetdist.trace.trace_atoms` and its keywords.

    Returns
    -------
    dict
        ``n_atoms``, ``state`` ("computed" or "current") ...
    """
    return _stage("trace", path, keywords)


def export(path: str | Path, *, atoms: str | Path | None = None, volume: str | Path | None = None) -> Summary:
    """Computes: files for other programs; one that is there is replaced.

    Parameters
    ----------
    path : str or Path
        The store.
    atoms : str or Path, optional
        Extended XYZ file to write the atoms to, in Angstrom.
    volume : str or Path, optional
        MRC file to write the volume to; its origin is the position of the first voxel in Angstrom.

    Raises
    ------
    InputError
        If neither is asked for.
    StoreError
        If the store does not hold what is asked for.
    """
    if atoms is None and volume is None:
        raise InputError("Nothing to export came; name a file for atoms, for volume, or for both.")
    with accounted() as summary, Store.open(path) as store:
        for group, file in ((ATOMS, atoms), (VOLUME, volume)):
            if file is not None:
                write_file(store, group, Path(file))
                summary[group] = str(file)
    return summary


def run(experiment_toml: str | Path, *, dry_run: bool = False) -> Summary:
    """Computes: the stages of an experiment file that are not current, in order.

    Parameters
    ----------
    experiment_toml : str or Path
        See `aetdist.experiment.read_experiment`; `default_config` writes one.
    dry_run : bool, default False
        Only say what would be computed; nothing is written.

    Returns
    -------
    dict
        ``stages``: for each one "computed" or "current" ("to compute" in a dry run); and what the stages say.
    """
    experiment = read_experiment(experiment_toml)
    with accounted() as summary:
        summary |= {"store": str(experiment.store), "stages": {}}
        states = summary["stages"]
        has_store = bool(attributes_of(experiment.store)) and bool(Store.open(experiment.store).groups())
        if dry_run:
            found = Store.open(experiment.store) if has_store or "import" not in experiment.stages else None
            records = expected_records(experiment, found)
            for name in experiment.stages:
                fresh = found is not None and _is_current(found, name, experiment, records)
                states[name] = "current" if fresh else "to compute"
            return summary
        first_time = "import" in experiment.stages and not has_store
        with Store.create(experiment.store) if first_time else Store.open(experiment.store, "a") as store:
            records = expected_records(experiment, store)
            for name, keywords in experiment.stages.items():
                if name == "export":
                    states[name] = export_stale(store, keywords, records)
                    continue
                group = written_group(name, keywords, experiment.stages)
                summary |= _do(store, name, keywords, records[group], group)
                states[name] = summary.pop("state")
    return summary


def info(path: str | Path) -> Summary:
    """Say what a store holds, what made it, whether it is complete and still belongs together.

    Returns
    -------
    dict
        ``groups`` (see `aetdist.io.describe_groups`), pixel size (Angstrom), range of tilts (degrees) and
        the attributes of the acquisition.
    """
    with accounted() as summary, Store.open(path) as store:
        root = {name: value for name, value in attributes_of(store.path).items() if name.startswith("aetdist_")}
        summary |= {"store": str(store.path), **root, "groups": describe_groups(store)}
        for group in SERIES:
            if group in store.groups():
                summary |= describe_group(store, group) | store.read(group).attrs
        if VOLUME in store.groups():
            summary |= stopping(store.read(VOLUME))
    return summary


# -- what is stale -----------------------------------------------------------------------------------


def _stage(name: str, path: str | Path, keywords: Mapping[str, Any]) -> Summary:
    """One stage on its own, whatever it reads being there."""
    checked = checked_keywords(name, keywords)
    with accounted() as summary, Store.open(path, "a") as store:
        source = source_of(name, store)
        record = stage_record(name, checked, {READS[name] if name == "align" else source: store.digest(source)})
        summary |= _do(store, name, checked, record, written_group(name, checked))
    return summary


def _do(store: Store, name: str, keywords: dict[str, Any], record: Record, group: str) -> Summary:
    """Compute and write a stage unless the store holds just that; its summary, with ``state``."""
    if store.holds(group, record):
        said = store.notes(group).get("summary", {})
        said = {key: 0 if key.endswith("_computed") else value for key, value in said.items()}
        return {**describe_group(store, group), **said, "state": "current"}
    log.info("%s: computing %s", name, group)
    with store_errors(store.path):
        stage = functools.partial(_import, group=group) if name == "import" else STAGES[name]
        said = stage(store, keywords, record) or {}
    if "state" in said:
        return {**describe_group(store, group), **said}
    store.note(group, request=record.digest, summary=said)
    return {**describe_group(store, group), **said, "state": "computed"}


def _is_current(store: Store, name: str, experiment: Experiment, records: Mapping[str, Record]) -> bool:
    keywords = experiment.stages[name]
    if name == "export":
        return not stale_files(store, keywords, records)
    group = written_group(name, keywords, experiment.stages)
    return store.holds(group, records[group])


def _import_keywords(files: str | Path | Sequence[str | Path], options: Mapping[str, Any]) -> dict[str, Any]:
    several = [files] if isinstance(files, (str, Path)) else list(files)
    return {"files": several, **checked_keywords("import", options)}
