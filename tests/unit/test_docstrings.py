"""What the public names say of themselves is complete: a summary, every parameter with its type, what comes back."""

from __future__ import annotations

import inspect

import pytest
from numpydoc.validate import validate

import aetdist

COMPLETE = {"GL08", "SS01", "SS03", "PR01", "PR02", "PR04", "PR07", "RT01", "RT02", "RT03"}
"""Codes of numpydoc: no docstring, no summary, one without a full stop; parameters that are missing, unknown, without a
type or a description; no Returns section, names without need, no description of what comes back."""


@pytest.mark.parametrize("name", sorted(name for name in aetdist.__all__ if callable(getattr(aetdist, name))))
def test_docstring__is_complete(name: str) -> None:
    errors = [f"{code}: {text}" for code, text in validate(f"aetdist.{name}")["errors"] if code in COMPLETE]
    assert not errors


@pytest.mark.parametrize("name", sorted(name for name in aetdist.__all__ if inspect.isfunction(getattr(aetdist, name))))
def test_docstring__of_arrays_says_shape(name: str) -> None:
    """Every parameter that is an array says its shape, or where that is said."""
    text = inspect.getdoc(getattr(aetdist, name)) or ""
    for line in text.splitlines():
        if " : " in line and not line.startswith(" ") and ("ndarray" in line or "array_like" in line):
            assert "shape" in line or "As in" in text, line
