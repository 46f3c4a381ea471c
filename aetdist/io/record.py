"""How a group was made: stage, parameters, inputs, seed; its digest tells what is current."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError, redacted
from ..schema import SCHEMA_VERSION


def installed_version() -> str:
    """Version of the aetdist that runs, as its installation says: what records keep."""
    return version_of("aetdist")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Record:
    """How a group was made.

    Parameters
    ----------
    stage : str
        Name of the stage, for example ``"trace"``.
    parameters : dict
        Keywords of the stage, defaults included.
    inputs : dict of str to str
        What it was made from: name (of a group or a file) and digest.
    seed : int, optional
        Seed of the random numbers, where there were any.
    version : str
        The aetdist that made it.
    created : str
        When, in UTC (ISO 8601).
    """

    stage: str
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    version: str = field(default_factory=installed_version)
    created: str = field(default_factory=_now, compare=False)

    def __post_init__(self) -> None:
        """Turn the parameters into what JSON keeps, without secrets: a record read back equals the one written."""
        object.__setattr__(self, "parameters", without_secrets(plain(self.parameters)))
        object.__setattr__(self, "inputs", dict(self.inputs))

    @property
    def digest(self) -> str:
        """SHA-256 of stage, parameters, inputs, seed and schema version; not of the time nor of the version."""
        what = [self.stage, self.parameters, self.inputs, self.seed, SCHEMA_VERSION]
        return hashlib.sha256(json.dumps(plain(what), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {**asdict(self), "digest": self.digest}

    @classmethod
    def from_dict(cls, stored: Any) -> Record:
        """The record that `to_dict` wrote.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        try:
            return cls(**{name: value for name, value in stored.items() if name != "digest"})
        except (TypeError, ValueError, AttributeError) as error:
            raise StoreError(
                f"The record of how a group was made is damaged ({error}): restore its zarr.json from a copy, or "
                "delete the group and make it again."
            ) from error


def plain(value: Any) -> Any:
    """`value` as JSON keeps it: tuples as lists, paths as text, large arrays as their digest.

    Raises
    ------
    TypeError
        If it holds something that has no lasting text (a function, say).
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        if value.size <= 1000 and value.dtype.kind in "biufU":
            return plain(value.tolist())
        data = np.ascontiguousarray(value)
        return {
            "shape": list(data.shape),
            "dtype": str(data.dtype),
            "sha256": hashlib.sha256(data.tobytes()).hexdigest(),
        }
    if isinstance(value, Mapping) or hasattr(value, "data_vars"):
        return {str(key): plain(value[key]) for key in value}
    if hasattr(value, "to_numpy"):
        return plain(value.to_numpy())
    raise TypeError(f"A {type(value).__name__} cannot be recorded as a parameter.")


def without_secrets(value: Any) -> Any:
    """What `plain` gave, its texts `redacted`."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    return value
