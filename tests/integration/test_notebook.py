"""Every notebook, run from top to bottom: what it says is right, and it is stored without outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


class Done:
    """What a notebook that ran shows."""

    def __init__(self, path: Path, folder: Path) -> None:
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        self.text = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
        self.data = [output.get("data", {}) for output in outputs]
        self.pictures = sum("image/png" in data for data in self.data)
        self.html = "".join(data.get("text/html", "") for data in self.data)

    def numbers(self, pattern: str) -> list[float]:
        """Numbers of the first place where the text matches."""
        found = re.search(pattern, self.text, flags=re.DOTALL)
        assert found, f"{pattern!r} is not in {self.text!r}"
        return [float(word) for word in found.groups()]


def from_raw_frames(done: Done) -> None:
    (drift,) = done.numbers(r"drift found within ([\d.]+) pixels")
    gain, axis = done.numbers(r"detector ([\d.]+) counts.*tilt axis ([-\d.]+) degrees")
    y, x = done.numbers(r"shifts within \[([\d.]+) +([\d.]+)\] pixels")
    assert drift < 0.05 and abs(gain - 4) < 0.1 and abs(axis - 1) < 0.1
    assert max(y, x) < 0.1
    assert done.pictures == 3


def refine_angles(done: Done) -> None:
    before, after = done.numbers(r"R ([\d.]+) before, ([\d.]+) after")
    assert after < 0.6 * before
    before, after = done.numbers(r"off by ([\d.]+) degrees before, ([\d.]+) after")
    assert after < 0.5 * before
    n, rms, n_refined, rms_refined = done.numbers(
        r"nominal angles: (\d+) of \d+ atoms, rms ([\d.]+) pm.*refined angles: (\d+) of \d+ atoms, rms ([\d.]+) pm"
    )
    assert n_refined >= n and rms_refined < rms
    assert done.pictures == 3
    assert '<progress value="6" max="6"' in done.html


def atoms(done: Done) -> None:
    (within,) = done.numbers(r"(\d+)% of the deviations are within")
    assert 55 <= within <= 80
    assert "position_sigma_x [angstrom]" in done.text
    assert done.html.count("Found atoms against true ones") == 2
    assert "<td>recall</td><td>100.00%</td>" in done.html
    assert done.pictures == 2


def order(done: Done) -> None:
    cutoff, ordered = done.numbers(r"neighbours within ([\d.]+) Å; ([\d.]+)% of the atoms are ordered")
    assert 3.3 < cutoff < 4.1 and ordered < 5
    assert done.pictures == 3


def a_whole_experiment(done: Done) -> None:
    assert done.text.count("'current'") == 6
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+/status\nworkers: 2\n", done.text)
    assert re.search(r"R 0\.0\d+, computed", done.text)
    assert "<td>atoms_calibrated</td><td>complete</td><td>validate</td>" in done.html
    assert "stages of the validation 4 of 4" in done.html
    dry = done.data[-1]["text/plain"]
    assert "'reconstruct': 'to compute'" in dry and "'refine': 'current'" in dry
    assert done.pictures == 1


def scan_a_film(done: Done) -> None:
    recall, precision = done.numbers(r"found ([\d.]+)% .*; ([\d.]+)% of what")
    assert recall >= 95
    assert precision >= 95
    assert done.pictures == 3


CHECKS = {
    "01_scan_a_film": scan_a_film,
    "02_from_raw_frames": from_raw_frames,
    "03_reconstruct_and_refine_angles": refine_angles,
    "04_atoms": atoms,
    "05_order": order,
    "06_a_whole_experiment": a_whole_experiment,
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook__is_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook__runs_from_top_to_bottom(path, tmp_path):
    CHECKS[path.stem](Done(path, tmp_path))
