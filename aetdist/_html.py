"""Small tables for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def html_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Write rows as an HTML table; the first one has the headings."""
    head, *body = ([escape(cell) for cell in row] for row in rows)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
    headings = "".join(f"<th>{cell}</th>" for cell in head)
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{headings}</tr></thead><tbody>{lines}</tbody></table>"
    )
