"""Names and attributes of the groups of a store, read without opening any array."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..schema import SCHEMA_VERSION
from .record import installed_version

_SCHEMA = "aetdist_schema_version"
_VERSION = "aetdist_version"


def root_attributes() -> dict[str, Any]:
    """What the root of a store says about itself."""
    return {_SCHEMA: SCHEMA_VERSION, _VERSION: installed_version()}


def is_store(path: Path) -> bool:
    """Whether a folder is an aetdist store, of whatever version."""
    return _SCHEMA in attributes_of(path)


def check_root(path: Path) -> None:
    """Refuse what is not a store that this aetdist can read.

    Raises
    ------
    StoreError
        If there is nothing, something else, or a store of a newer schema; the message names the aetdist that is needed.
    """
    if not path.exists():
        raise StoreError(f"There is no store {path}; make one with aetdist import or aetdist simulate.")
    if not is_store(path):
        raise StoreError(f"{path} is not an aetdist store; give a folder that aetdist made.")
    attributes = attributes_of(path)
    if attributes[_SCHEMA] > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {attributes[_SCHEMA]}, this aetdist {installed_version()} reads up to "
            f"{SCHEMA_VERSION}: install aetdist {attributes.get(_VERSION, 'of a newer version')} or newer."
        )


def nodes(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Name and attributes of every group that a stage made or is making, in alphabetical order."""
    found = []

    def visit(folder: Path, name: str) -> None:
        attributes = attributes_of(folder)
        if "status" in attributes:
            found.append((name, attributes))
        for child in sorted(folder.iterdir()):
            if child.is_dir() and _metadata(child).get("node_type") == "group":
                visit(child, f"{name}/{child.name}".lstrip("/"))

    if path.is_dir():
        visit(path, "")
    return found


def attributes_of(folder: Path) -> dict[str, Any]:
    """Attributes of a group; empty where there is none."""
    metadata = _metadata(folder)
    return metadata.get("attributes", {}) if metadata.get("node_type") == "group" else {}


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
