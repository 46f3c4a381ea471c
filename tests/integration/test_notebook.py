from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook__is_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.integration
@pytest.mark.slow
def test_notebook__scan_a_film_runs_and_finds_the_atoms(tmp_path):
    (path,) = (path for path in NOTEBOOKS if path.name == "01_scan_a_film.ipynb")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    recall, precision = map(float, re.search(r"found ([\d.]+)% .*; ([\d.]+)% of what", text).groups())
    assert recall >= 95
    assert precision >= 95
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
