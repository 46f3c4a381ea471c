"""Names of the groups that stages exchange, and which of those that stand for one another is the newest."""

from __future__ import annotations

from collections.abc import Mapping

from .record import Record
from .store import Store

RAW, PREPROCESSED, TILTS = "tilt_series/raw", "tilt_series/preprocessed", "tilt_series/aligned"
REFINED = "tilt_series/refined"
VOLUME, ATOMS = "volume", "atoms"
CLASSIFIED, REFINED_ATOMS = "atoms_classified", "atoms_refined"
CALIBRATED, VALIDATION = "atoms_calibrated", "validation"
ORDER = "analysis/summary"
#: What later stages make of a group, to be used in its place, in the order of the experiment.
NEWER = {TILTS: (REFINED,), ATOMS: (CLASSIFIED, REFINED_ATOMS, CALIBRATED)}


def newest(
    group: str, store: Store | None, planned: Mapping[str, Record] | None = None, *, before: str | None = None
) -> str:
    """Name of the group that stands for `group` now.

    Parameters
    ----------
    group : str
        ``"tilt_series/aligned"``, ``"atoms"``; any other stands for itself.
    store : Store, optional
        Open in any mode.
    planned : mapping of str to Record, optional
        Groups that are about to be made, and how; they count as if they were there.
    before : str, optional
        A group that does not count, nor do later ones: the one that a stage is about to write.

    Returns
    -------
    str
        The last one that was made from its predecessor, and whatever else it was made from, as they are now. Whether it
        is there is not asked of `group` itself.
    """
    planned = planned or {}
    for later in NEWER.get(group, ()):
        if later == before:
            break
        record = planned.get(later) or (store.record(later) if store is not None else None)
        if record is not None and group in record.inputs and _is_made_from_these(record, store, planned):
            group = later
    return group


def _is_made_from_these(record: Record, store: Store | None, planned: Mapping[str, Record]) -> bool:
    there = store.groups() if store is not None else []
    for name, digest in record.inputs.items():
        if name in planned:
            now = planned[name].digest
        elif store is not None and name in there:
            now = store.digest(name)
        else:
            return False
        if now != digest:
            return False
    return True
