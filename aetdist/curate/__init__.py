"""Atoms looked at by a person: a page with the least certain ones first, whose answers are a table of edits."""

from .decisions import Decisions
from .doubt import by_doubt
from .server import CurationServer, curate
from .surroundings import Surroundings

__all__ = ["CurationServer", "Decisions", "Surroundings", "by_doubt", "curate"]
