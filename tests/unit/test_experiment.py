"""The experiment file: what it may hold, and what is said when it holds something else."""

from __future__ import annotations

import sys
import tomllib
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import aetdist.reconstruct
import aetdist.refine
import aetdist.trace
from aetdist import experiment
from aetdist._tables import parameter_docs
from aetdist.errors import InputError
from aetdist.experiment import checked_keywords, default_config, read_experiment


def reconstruct_resire(
    tilt_series: object,
    *,
    shape: tuple[int, int, int] | None = None,
    thickness: float | None = None,
    solver: Literal["fista", "gradient"] = "fista",
    iterations: int = 40,
    positivity: bool = True,
    weights: float | Sequence[float] = 1.0,
    support: np.ndarray | None = None,
    on_iteration: Callable[[int], None] | None = None,
) -> None:
    """Stand in.

    Parameters
    ----------
    tilt_series : object
        Not for the file.
    shape : tuple of int, optional
        Voxels of the volume along x, y, z;
        see `Notes`.
    thickness : float, optional
        Thickness of the volume in Angstrom.
    solver, iterations
        How, and how often.

    Returns
    -------
    None
        Nothing.
    """


def reconstruct_scan(store: object, *, window: tuple[int, int], overlap: int = 10) -> None:
    """Stand in."""


def trace_atoms(volume: object, *, minimum_distance: float = 2.0, name: str = 'a "b"') -> None:
    """Stand in."""


def classify_atoms(volume: object, atoms: object, *, species: int = 3, box: float = 0.8) -> None:
    """Stand in."""


def refine_atoms(
    tilt_series: object,
    atoms: object,
    *,
    volume: object = None,
    iterations: int = 20,
    heights: Literal["type", "atom"] = "type",
    curate: bool = True,
    edits: str | Path | None = None,
) -> None:
    """Stand in.

    Parameters
    ----------
    edits : str or Path, optional
        File of atoms changed by hand.
    """


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aetdist.reconstruct, "reconstruct_resire", reconstruct_resire, raising=False)
    monkeypatch.setattr(aetdist.reconstruct, "reconstruct_scan", reconstruct_scan, raising=False)
    monkeypatch.setattr(aetdist.trace, "trace_atoms", trace_atoms, raising=False)
    classify = types.ModuleType("aetdist.classify")
    monkeypatch.setattr(classify, "classify_atoms", classify_atoms, raising=False)
    monkeypatch.setitem(sys.modules, "aetdist.classify", classify)
    monkeypatch.setattr(aetdist.refine, "refine_atoms", refine_atoms, raising=False)


IMPORT = '[import]\nfiles = "a.h5"\noutput = "run.zarr"\npixel_size = 0.3\n'


def read(tmp_path: Path, text: str) -> experiment.Experiment:
    path = tmp_path / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return read_experiment(path)


def test_experiment__paths_are_taken_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "angles.csv").write_text("0\n")
    text = IMPORT + 'angles = "angles.csv"\nimages = "images"\n[export]\natoms = "out/é.xyz"\n'
    found = read(tmp_path, text)
    assert found.store == tmp_path / "run.zarr"
    assert found.stages["import"]["files"] == [tmp_path / "a.h5"]
    assert found.stages["import"]["angles"] == str(tmp_path / "angles.csv")
    assert found.stages["import"]["images"] == "images"
    assert found.stages["export"] == {"atoms": str(tmp_path / "out" / "é.xyz"), "volume": None}


def test_experiment__edits_are_a_file_and_elements_names(tmp_path: Path) -> None:
    text = IMPORT + '[classify]\nspecies = 2\n[refine]\nedits = "by hand.csv"\nelements = ["Co", "Pt"]\n'
    found = read(tmp_path, text)
    assert list(found.stages) == ["import", "classify", "refine"]
    assert found.stages["classify"] == {"species": 2, "box": 0.8, "elements": None}
    refine = found.stages["refine"]
    assert refine["edits"] == str(tmp_path / "by hand.csv")
    assert (refine["elements"], refine["heights"], refine["curate"]) == (("Co", "Pt"), "type", True)
    assert "volume" not in refine and "atoms" not in refine


def test_experiment__defaults_come_from_the_function(tmp_path: Path) -> None:
    found = read(tmp_path, 'store = "run.zarr"\n[trace]\nminimum_distance = 3\n[reconstruct]\nshape = [4, 5, 6]\n')
    assert list(found.stages) == ["reconstruct", "trace"]
    assert found.stages["trace"] == {"minimum_distance": 3.0, "name": 'a "b"'}
    assert isinstance(found.stages["trace"]["minimum_distance"], float)
    assert found.stages["reconstruct"]["shape"] == (4, 5, 6)
    assert found.stages["reconstruct"]["iterations"] == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[import\n", "is not TOML"),
        (IMPORT + "[reconstuct]\n", r"\[reconstuct\] is no stage; did you mean \[reconstruct\]\?"),
        (IMPORT + "[zzz]\n", r"it may have \[import\], \[preprocess\]"),
        ("trace = 3\n" + IMPORT, r"trace = 3 came, a table \[trace\]"),
        (IMPORT + "[reconstruct]\niteration = 3\n", r"\[reconstruct\] has no iteration; did you mean iterations\?$"),
        (IMPORT + "pixelsize = 3\n", r"\[import\] has no pixelsize; did you mean pixel_size\?"),
        (IMPORT + "[reconstruct]\ntilt_series = 3\n", r"\[reconstruct\] has no tilt_series"),
        (IMPORT + "[reconstruct]\niterations = 3.5\n", r"iterations = 3.5 came, a whole number is needed"),
        (IMPORT + "[reconstruct]\niterations = true\n", r"iterations = True came, a whole number is needed"),
        (IMPORT + "[reconstruct]\npositivity = 1\n", r"positivity = 1 came, true or false is needed"),
        (IMPORT + '[reconstruct]\nthickness = "10"\n', r"thickness = '10' came, a number is needed"),
        (IMPORT + '[reconstruct]\nsolver = "cg"\n', r'one of "fista", "gradient" is needed'),
        (IMPORT + "[reconstruct]\nshape = [1, 2]\n", r"\[a whole number, a whole number, a whole number\] is needed"),
        (IMPORT + '[reconstruct]\nweights = ["a"]\n', r"a number or a list of a number is needed"),
        (IMPORT + "[reconstruct]\nsupport = [1]\n", r"support = \[1\] came, text is needed"),
        (IMPORT + "[reconstruct]\n[scan]\nwindow = [3, 3]\n", r"both \[reconstruct\] and \[scan\]"),
        (IMPORT + "[scan]\n", r"\[scan\] needs window"),
        ('[import]\nfiles = ["a.h5"]\npixel_size = 0.3\n', r"\[import\] needs output"),
        ('[import]\nfiles = []\noutput = "o"\npixel_size = 0.3\n', r"files = \[\] came"),
        ('[import]\nfiles = "f"\noutput = 3\npixel_size = 0.3\n', r"output = 3 came, text is needed"),
        ('store = "r"\n[scan]\noverlap = 3\n', r"\[scan\] needs window"),
        (IMPORT + "[refine]\nheights = 3\n", r'heights = 3 came, one of "type", "atom" is needed'),
        (IMPORT + '[refine]\nelements = "Co,Pt"\n', r"elements = 'Co,Pt' came, a list of text is needed"),
        (IMPORT + "[refine]\nvolume = 1\n", r"\[refine\] has no volume"),
        ("[trace]\n", r"either a table \[import\], or store"),
        ('store = "a"\n' + IMPORT, r"either a table \[import\], or store"),
        ("store = 3\n[trace]\n", "store = 3 came, text is needed"),
    ],
)
def test_experiment__is_refused_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert "experiment.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_experiment__missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"aetdist config > e\.toml"):
        read_experiment(tmp_path / "e.toml")


def test_keywords__python_may_give_what_toml_cannot() -> None:
    support, notify = np.ones((2, 2, 2), dtype=bool), print
    found = checked_keywords(
        "reconstruct", {"support": support, "on_iteration": notify, "weights": [1, 2.5], "shape": None}
    )
    assert found["support"] is support
    assert found["on_iteration"] is notify
    assert found["weights"] == (1.0, 2.5)
    assert found["shape"] is None


def test_config__is_complete_and_loads(tmp_path: Path) -> None:
    text = default_config()
    loaded = tomllib.loads(text)
    assert list(loaded) == ["import", "reconstruct", "trace", "export"]
    assert loaded["reconstruct"] == {"solver": "fista", "iterations": 40, "positivity": True, "weights": 1.0}
    assert loaded["trace"] == {"minimum_distance": 2.0, "name": 'a "b"'}
    for line in (
        "# Voxels of the volume along x, y, z; see Notes.",
        "# shape =   # [a whole number, a whole number, a whole number]",
        "# Thickness of the volume in Angstrom.",
        "# [scan]   # instead of [reconstruct]",
        "# window =   # needed: [a whole number, a whole number]",
        "# overlap = 10",
        "# [classify]",
        "# species = 3",
        "# [refine]",
        "# File of atoms changed by hand.",
        "# edits =   # text",
        '# heights = "type"',
        "# curate = true",
        "# elements =   # a list of text",
        "# pixel_size =   # a number",
    ):
        assert line in text.splitlines()
    assert "on_iteration" not in text
    assert "# support =   # text" in text  # the name of a group
    filled = text.replace("# files =   # needed", 'files = "a.h5"').replace(
        "# output =   # needed", 'output = "run.zarr"'
    )
    filled = filled.replace("# pixel_size =   # a number", "pixel_size = 0.3")
    assert list(read(tmp_path, filled).stages) == ["import", "reconstruct", "trace", "export"]


def test_docs__are_read_from_numpydoc() -> None:
    assert parameter_docs(reconstruct_resire) == {
        "tilt_series": "Not for the file.",
        "shape": "Voxels of the volume along x, y, z; see Notes.",
        "thickness": "Thickness of the volume in Angstrom.",
        "solver": "How, and how often.",
        "iterations": "How, and how often.",
    }
    assert parameter_docs(trace_atoms) == {}


def test_config__says_nothing_that_is_meant_for_the_manual_or_for_python():
    text = default_config()
    assert not any(mark in text for mark in ("~", "]_", "only Python"))
