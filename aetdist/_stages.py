"""The stages in the order of the experiment: each reads its group of the store, calls its function, and writes."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr

from ._records import describe_alignment, describe_group
from ._species import check_elements, name_species
from ._usage import current_client
from .blocks.lost import cluster_errors
from .errors import AetdistWarning, InputError
from .experiment import accepted_keywords
from .io import Record, Store, begun, open_dataset, store_errors, write_blocks
from .io.groups import ATOMS, CLASSIFIED, PREPROCESSED, RAW, REFINED, REFINED_ATOMS, TILTS, VOLUME
from .progress import report
from .schema import SERIES_CHUNKS

log = logging.getLogger(__name__)

Summary = dict[str, Any]
Stage = Callable[[Store, dict[str, Any], Record], Summary | None]

#: Arrays that a reconstruction takes from a group of the store, where a keyword names one: the variable there.
NAMED = {"support": "support", "start": "density"}


def import_files(store: Store, keywords: dict[str, Any], record: Record, group: str) -> None:
    """Frames as the microscope wrote them, a tilt in a chunk; or images and mask of an aligned series."""
    from .acquisition import import_acquisition
    from .tilt_series import import_tilt_series

    read = import_acquisition if group == RAW else import_tilt_series
    accepted = accepted_keywords("import", keywords, read)
    store.write(group, read(**accepted), record=record, chunks={"tilt": 1} if group == RAW else SERIES_CHUNKS)


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
    computed = write_blocks(
        store, TILTS, apply_alignment(series, found, remake=remake), record=record, dim="tilt", chunks=SERIES_CHUNKS
    )
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
    store.write(REFINED, done, record=record, chunks=SERIES_CHUNKS)
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


def _classify(store: Store, keywords: dict[str, Any], record: Record) -> None:
    """Types of the traced atoms by their brightness; what is no atom is left out."""
    from .classify import classify_atoms

    given = dict(keywords)
    elements = given.pop("elements")
    if elements is not None:
        check_elements(elements, given["species"])
    accepted = accepted_keywords("classify", given, classify_atoms)
    atoms = classify_atoms(store.read(VOLUME), store.read(ATOMS), **accepted)
    store.write(CLASSIFIED, name_species(atoms, elements=elements), record=record)


def _refine(store: Store, keywords: dict[str, Any], record: Record) -> None:
    """Positions, brightness and width of the atoms that explain all images best; curated, edited, with error bars."""
    from .refine import refine_atoms

    series, atoms, volume = (store.read(group) for group in record.inputs)
    given = dict(keywords)
    elements = given.pop("elements")
    if elements is not None:
        check_elements(elements, int(atoms["type"].max()) if "type" in atoms else 1)
    given["edits"] = _edits(store, keywords, record)
    refined = refine_atoms(series, atoms, volume=volume, **accepted_keywords("refine", given, refine_atoms))
    known = atoms.attrs.get("elements") if elements is None else elements
    store.write(REFINED_ATOMS, name_species(refined, elements=known), record=record)


def _edits(store: Store, keywords: dict[str, Any], record: Record) -> tuple[Any, ...] | None:
    """Edits by hand, as the record has them; those of the last refinement are not dropped without a word."""
    from .refine.edits import read_edits

    if keywords["edits"] is not None:
        edits = read_edits(keywords["edits"])
        if [edit.row for edit in edits] != record.parameters["edits"]:
            raise InputError(f"{keywords['edits']} was changed while the stages before ran; run again.")
        return edits
    last = store.record(REFINED_ATOMS)
    if last is not None and last.parameters.get("edits"):
        warnings.warn(
            f"The refinement that is replaced had {len(last.parameters['edits'])} edits by hand, this one has none; "
            "give edits again to keep them.",
            AetdistWarning,
            stacklevel=2,
        )
    return None


def _analyze(store: Store, keywords: dict[str, Any], record: Record) -> Summary:
    """All analyses of the order of the atoms, each in its own group."""
    from ._analyze import analyze_group

    return {"n_analyses_computed": analyze_group(store, next(iter(record.inputs)), keywords, record)}


STAGES: dict[str, Stage] = {
    "preprocess": _preprocess,
    "align": _align,
    "refine-angles": _refine_angles,
    "reconstruct": _reconstruct,
    "scan": _scan,
    "trace": _trace,
    "classify": _classify,
    "refine": _refine,
    "analyze": _analyze,
}


def do_stage(
    store: Store,
    name: str,
    keywords: dict[str, Any],
    record: Record,
    group: str,
    stages: Mapping[str, Stage] = STAGES,
) -> Summary:
    """Computes: a stage, and writes its group, unless the store holds just that; its summary, with ``state``."""
    if store.holds(group, record):
        said = store.notes(group).get("summary", {})
        said = {key: 0 if key.endswith("_computed") else value for key, value in said.items()}
        return {**describe_group(store, group), **said, "state": "current"}
    log.info("%s: computing %s", name, group)
    with store_errors(store.path), cluster_errors():
        stage = functools.partial(import_files, group=group) if name == "import" else stages[name]
        said = stage(store, keywords, record) or {}
    if "state" in said:
        return {**describe_group(store, group), **said}
    store.note(group, request=record.digest, summary=said)
    if name != "import":  # a driver's own record says how it went, not what was asked for
        given = {key: value for key, value in keywords.items() if not callable(value)}
        store.note(group, asked={"stage": name, "keywords": given})
    return {**describe_group(store, group), **said, "state": "computed"}
