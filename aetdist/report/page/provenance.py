"""How everything in a store was made: its records, and the commands that repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_FIRST = ("truth", "tilt_series", "scan", "volume", "atoms", "atoms_classified", "atoms_refined", "atoms_calibrated")


def by_stage(group: str) -> tuple[int, str]:
    """Key that sorts groups in the order of the experiment, others after them."""
    first = group.partition("/")[0]
    return (_FIRST.index(first) if first in _FIRST else len(_FIRST)), group


def commands_block(commands: Sequence[str]) -> str:
    """The commands that repeat an experiment, to copy."""
    if not commands:
        return '<p class="soft">The groups of this store were not made by commands that can be told.</p>'
    return (
        '<div class="commands"><button type="button" class="copy" data-of="commands" hidden>Copy</button>'
        f'<pre id="commands">{escape(chr(10).join(commands))}</pre></div>'
    )


def records_table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Every group: stage, parameters, what it was made from, by which version and when, and the digest of all that."""
    rows = "\n".join(_row(group, record) for group, record in records.items())
    heads = "".join(f'<th scope="col">{name}</th>' for name in _HEADS)
    return f'<table class="records"><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table>'


_HEADS = ("Group", "Stage", "Parameters", "Made from", "Version, time", "Digest")


def _row(group: str, record: Mapping[str, Any]) -> str:
    parameters = ", ".join(
        f"{name} = {_short(value)}" for name, value in record["parameters"].items() if value is not None
    )
    if record["seed"] is not None and "seed" not in record["parameters"]:
        parameters += f", seed = {record['seed']}"
    made_from = ", ".join(f"{name} {digest[:10]}" for name, digest in record["inputs"].items())
    cells = (
        escape(group),
        escape(str(record["stage"])),
        escape(parameters.removeprefix(", ") or "none"),
        escape(made_from or "files"),
        escape(f"{record['version']}, {record['created'][:16].replace('T', ' ')}"),
        f"<code>{escape(str(record['digest'])[:10])}</code>",
    )
    return (
        "<tr>"
        + "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in zip(_HEADS, cells, strict=True))
        + "</tr>"
    )


def _short(value: Any) -> str:
    """Write a parameter as text of at most a line or two."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
