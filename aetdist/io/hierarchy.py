"""Names and attributes of the groups of a store, read without opening any array."""

from __future__ import annotations

import json
from typing import Any

from ..errors import StoreError
from ..schema import SCHEMA_VERSION
from .places import Place, S3Place, at_once, place, subfolders
from .record import Record, installed_version

_SCHEMA = "aetdist_schema_version"
_VERSION = "aetdist_version"


def root_attributes() -> dict[str, Any]:
    """What the root of a store says about itself."""
    return {_SCHEMA: SCHEMA_VERSION, _VERSION: installed_version()}


def is_store(path: str | Place) -> bool:
    """Whether a folder is an aetdist store, of whatever version."""
    return _SCHEMA in attributes_of(path)


def check_root(path: Place) -> None:
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


def nodes(path: Place) -> list[tuple[str, dict[str, Any]]]:
    """Name and attributes of every group that a stage made or is making, in alphabetical order."""
    together = at_once if isinstance(path, S3Place) else map
    found: dict[str, dict[str, Any]] = {}
    level = [("", path, attributes_of(path))] if path.is_dir() else []
    while level:
        found |= {name: attributes for name, _, attributes in level if "status" in attributes}
        inside = zip(level, together(subfolders, [folder for _, folder, _ in level]), strict=True)
        below = [(f"{name}/{child.name}".lstrip("/"), child) for (name, _, _), folders in inside for child in folders]
        metadata = zip(below, together(_metadata, [child for _, child in below]), strict=True)
        level = [(*child, _attributes(said)) for child, said in metadata if said.get("node_type") == "group"]
    return sorted(found.items(), key=lambda node: node[0].split("/"))


def attributes_of(folder: str | Place) -> dict[str, Any]:
    """Attributes of a group; empty where there is none."""
    metadata = _metadata(place(folder))
    return _attributes(metadata) if metadata.get("node_type") == "group" else {}


def _attributes(metadata: dict[str, Any]) -> dict[str, Any]:
    attributes = metadata.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def digest_in(attributes: dict[str, Any]) -> str:
    """Digest of how a group was made, in its attributes: as it was asked for, or by its own record."""
    asked = attributes.get("notes", {}).get("request")
    return str(asked or Record.from_dict(attributes.get("provenance")).digest)


def _metadata(folder: Place) -> dict[str, Any]:
    try:
        metadata = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
