"""The experiment on one page: each command is a function here that returns a summary.

A tilt series is imported, raw or aligned (`import_series`), or simulated (`simulate`); the volume is reconstructed in
one piece (`reconstruct`) or from local volumes (`scan`); atoms are traced in it (`trace`), told apart (`classify`),
refined against the images (`refine`), held against a simulation of themselves (`validate`) and written for other
programs (`export`). `run` does what an experiment file asks for and is not done yet; `design` plans an experiment.
Every stage (`_stages`) is checked, compared with the record of what the store holds, computed if that is stale, and
written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._analyze import analyze_files, text_of
from ._exports import check_files, export, export_stale, report, stale_files
from ._forward import project, simulate
from ._records import (
    SERIES,
    describe_group,
    expected_records,
    import_record,
    inputs_of,
    stage_record,
    stopping,
    written_group,
)
from ._stages import STAGES, do_stage
from ._usage import accounted
from .errors import InputError
from .experiment import Experiment, checked_keywords, default_config, read_experiment
from .io import Record, Store, describe_groups, newest, write_export
from .io.groups import ATOMS, VOLUME
from .io.hierarchy import attributes_of, is_store
from .io.places import local_path
from .planning import plan, refuse_what_cannot_fit
from .validation import design, nested_path, table_of, validate_stage

Summary = dict[str, Any]

#: Those that compute one group from others, and the one that does an experiment of its own with them.
ALL_STAGES = {**STAGES, "validate": validate_stage}

__all__ = [
    "align",
    "analyze",
    "classify",
    "default_config",
    "design",
    "export",
    "import_series",
    "info",
    "plan",
    "preprocess",
    "project",
    "reconstruct",
    "refine",
    "refine_angles",
    "report",
    "run",
    "scan",
    "simulate",
    "trace",
    "validate",
]


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
        summary |= do_stage(store, "import", keywords, import_record(keywords), written_group("import", keywords))
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


def classify(path: str | Path, **keywords: Any) -> Summary:
    """Computes: the types of the traced atoms, by `aetdist.classify.classify_atoms` and its keywords.

    With `elements` (of type 1, 2, ... by rising intensity) the atoms get their `species`.

    Returns
    -------
    dict
        ``n_atoms``, ``atoms_of_type``, ``state`` ("computed" or "current") ...
    """
    return _stage("classify", path, keywords)


def refine(path: str | Path, **keywords: Any) -> Summary:
    """Computes: the atoms that explain all images best, by `aetdist.refine.refine_atoms` and its keywords.

    It starts from the classified atoms, where those are current, else from the traced ones. `edits` is a file
    (see `aetdist.refine.edits.read_edits`) whose rows are kept with the result. With `elements` (of type 1, 2, ... by
    rising intensity) the atoms get their `species`; otherwise those that `classify` was given.

    Returns
    -------
    dict
        ``n_atoms``, ``atoms_of_type``, ``atoms_r_factor``, ``atoms_r1_factor``, ``n_added``, ``n_deleted``,
        ``edits_applied``, ``n_unresolved``, ``position_sigma_pm`` (median along x, y, z), ``cramer_rao_pm``, ``state``
        ("computed" or "current") ...
    """
    return _stage("refine", path, keywords)


def validate(
    path: str | Path, *, truth: str | Path | None = None, found: str | Path | None = None, **keywords: Any
) -> Summary:
    """Computes: how far the refined atoms can be trusted, by `aetdist.validation.validate_model` and its keywords.

    Parameters
    ----------
    path : str or Path
        The store.
    truth, found : str or Path, optional
        Files to write, ``.xyz`` or ``.csv``: the atoms that were simulated, and those that the stages found of them,
        laid over the former.
    **keywords
        Of `validate_model`.

    Returns
    -------
    dict
        ``validation``: how many are identified, missed and false, deviations, calibration ...; ``text``: the same as
        a table; and what `refine` says of the atoms, whose error bars are calibrated now.
    """
    check_files({"truth": truth, "found": found})
    with accounted() as summary:
        summary |= _stage("validate", path, keywords)
        for name, file in (("truth", truth), ("found", found)):
            if file is not None:
                with Store.open(nested_path(path)) as nested:
                    write_export(name, local_path(file), nested.read(name))
                summary[name] = str(file)
    return {**summary, "text": table_of(summary)}


def analyze(
    models: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    types: str | None = None,
    report: str | Path | None = None,
    overwrite: bool = False,
    **keywords: Any,
) -> Summary:
    """Computes: the order of atoms, by `aetdist.analysis.catalogue.analyze_atoms` and its keywords.

    Parameters
    ----------
    models : str, Path or sequence of them
        A store, whose newest atoms are analysed in place; or files with atoms, see `aetdist.io.read_atoms`.
    output : str or Path, optional
        The store to make of files, or to go on with; several models get one table beside their own groups.
    types : str, optional
        ``file.h5::dataset`` with the types of the atoms of one model.
    report : str or Path, optional
        HTML file to write, with the figures of every analysis.
    overwrite : bool, default False
        Begin `output` anew.
    **keywords
        Of `analyze_atoms`.

    Returns
    -------
    dict
        ``order``: the figures that the analyses are summed up by, and ``order_sigma``, how sure they are, where that is
        known; of several models ``models``, these by name; ``text``: the same as a table.
    """
    several = [models] if isinstance(models, (str, Path)) else list(models)
    if output is None:
        if len(several) != 1 or not is_store(several[0]):
            raise InputError("Files with atoms came; name the store to make, with -o analysis.zarr.")
        summary = _stage("analyze", several[0], keywords)
        tables = {"": summary}
    else:
        checked = checked_keywords("analyze", keywords)
        with accounted() as summary:
            summary |= analyze_files(several, output, checked, types=types, overwrite=overwrite)
        tables = summary.pop("models")
        summary |= {"models": tables} if len(tables) > 1 else next(iter(tables.values()))
    if report is not None:
        from ._report import write_report

        summary["report"] = str(write_report(output or several[0], report))
    return {**summary, "text": text_of(tables)}


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
    check_files(experiment.stages.get("export", {}))
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
                to_come = {n: k for n, k in experiment.stages.items() if not _is_current(store, n, experiment, records)}
                refuse_what_cannot_fit(to_come, store)
                if name == "export":
                    states[name] = export_stale(store, keywords, records)
                    continue
                group = written_group(name, keywords, experiment.stages)
                summary |= do_stage(store, name, keywords, records[group], group, ALL_STAGES)
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
        there = store.groups()
        for group in SERIES:
            if group in there:
                summary |= describe_group(store, group) | store.read(group).attrs
        if VOLUME in there:
            summary |= stopping(store.read(VOLUME))
        if ATOMS in there:
            summary |= describe_group(store, newest(ATOMS, store))
    return summary


# -- what is stale -----------------------------------------------------------------------------------


def _stage(name: str, path: str | Path, keywords: Mapping[str, Any]) -> Summary:
    """One stage on its own, whatever it reads being there."""
    checked = checked_keywords(name, keywords)
    with accounted() as summary, Store.open(path, "a") as store:
        record = stage_record(name, checked, inputs_of(name, store))
        summary |= do_stage(store, name, checked, record, written_group(name, checked), ALL_STAGES)
    return summary


def _is_current(store: Store, name: str, experiment: Experiment, records: Mapping[str, Record]) -> bool:
    keywords = experiment.stages[name]
    if name == "export":
        return not stale_files(store, keywords, records)
    group = written_group(name, keywords, experiment.stages)
    return store.holds(group, records[group])


def _import_keywords(files: str | Path | Sequence[str | Path], options: Mapping[str, Any]) -> dict[str, Any]:
    several = [files] if isinstance(files, (str, Path)) else list(files)
    return {"files": several, **checked_keywords("import", options)}
