"""What is in a store, without reading any array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .hierarchy import digest_in, nodes
from .ledger import BlockLedger
from .places import tree_size
from .record import Record
from .regions import open_dataset
from .store import Store


def describe_groups(store: Store) -> dict[str, dict[str, Any]]:
    """Say of every group what made it and whether it is complete.

    Parameters
    ----------
    store : Store
        Open in any mode.

    Returns
    -------
    dict of str to dict
        By group: ``status`` ("complete", "incomplete", or "stale" where a group it was made from has changed
        or is being made anew), ``dimensions``, ``size_bytes`` on disk, ``stage``, ``created``, ``version``,
        ``parameters``, ``inputs``; ``seed`` where there is one; ``n_blocks`` and ``n_blocks_done`` where blocks
        are counted.
    """
    found = dict(nodes(store.path))
    groups = {}
    for group, attributes in found.items():
        record = Record.from_dict(attributes.get("provenance"))
        described: dict[str, Any] = {
            "status": attributes["status"],
            "dimensions": {str(name): size for name, size in open_dataset(store.path, group).sizes.items()},
            "size_bytes": tree_size(store.path / group),
            "stage": record.stage,
            "created": record.created,
            "version": record.version,
            "parameters": record.parameters,
            "inputs": record.inputs,
        }
        if attributes["status"] == "complete" and _is_stale(record, found):
            described["status"] = "stale"
        if record.seed is not None:
            described["seed"] = record.seed
        ledger = BlockLedger(str(store.path), group)
        if ledger.exists():
            done = ledger.done()
            described |= {"n_blocks": len(done), "n_blocks_done": int(done.sum())}
        groups[group] = described
    return groups


def _is_stale(record: Record, groups: Mapping[str, dict[str, Any]]) -> bool:
    """Whether one of the groups it was made from is not as it was; names of files are no groups of a store."""
    return any(
        groups[name]["status"] != "complete" or digest_in(groups[name]) != digest
        for name, digest in record.inputs.items()
        if name in groups
    )
