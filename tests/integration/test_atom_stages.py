"""The stages of the atoms with small stand-ins for their functions: records, edits, elements, exports."""

from __future__ import annotations

import sys
import types
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import xarray as xr

import aetdist.refine
import aetdist.trace
from aetdist import pipeline, schema
from aetdist.errors import AetdistWarning, InputError, StoreError
from aetdist.io import Record, Store, read_xyz
from aetdist.refine.edits import apply_edits

pytestmark = pytest.mark.integration

POSITIONS = np.array([[0.0, 0, 0], [3, 0, 0], [6, 0, 0], [9, 0, 0]])


def with_atoms(position: np.ndarray, **variables: object) -> xr.Dataset:
    dataset = xr.Dataset(
        {"position": (("atom", "axis"), position), **variables}, {"atom": range(len(position)), "axis": list("xyz")}
    )
    return schema.with_units(dataset, schema.ATOMS)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each stand-in ran."""
    counted: Counter = Counter()

    def trace_atoms(volume: xr.Dataset, *, minimum_distance: float = 2.0) -> xr.Dataset:
        counted["trace"] += 1
        return with_atoms(POSITIONS)

    def classify_atoms(volume: xr.Dataset, atoms: xr.Dataset, *, species: int = 3, box: float = 0.8) -> xr.Dataset:
        """Stand in: the last atom is none."""
        counted["classify"] += 1
        schema.check(volume, schema.VOLUME)
        n = atoms.sizes["atom"] - 1
        return atoms.isel(atom=slice(n)).assign(type=("atom", np.arange(n) % species + 1))

    def refine_atoms(
        tilt_series: xr.Dataset,
        atoms: xr.Dataset,
        *,
        volume: xr.Dataset | None = None,
        iterations: int = 20,
        heights: Literal["type", "atom"] = "type",
        curate: bool = True,
        edits: str | Path | tuple | None = None,
    ) -> xr.Dataset:
        """Stand in."""
        counted["refine"] += 1
        schema.check(tilt_series, schema.TILT_SERIES)
        schema.check(volume, schema.VOLUME)
        refined = apply_edits(atoms, edits or ())
        return refined.assign(
            position=refined["position"] + 0.01,
            position_sigma=(("atom", "axis"), np.full((refined.sizes["atom"], 3), 0.08)),
            probability=("atom", np.ones(refined.sizes["atom"])),
        ).assign_attrs(R=0.25, n_added=0)

    classify = types.ModuleType("aetdist.classify")
    monkeypatch.setattr(classify, "classify_atoms", classify_atoms, raising=False)
    monkeypatch.setitem(sys.modules, "aetdist.classify", classify)
    monkeypatch.setattr(aetdist.refine, "refine_atoms", refine_atoms, raising=False)
    monkeypatch.setattr(aetdist.trace, "trace_atoms", trace_atoms)
    return counted


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A store with a tilt series and a volume."""
    grid = {axis: np.arange(4) * 0.5 for axis in "zyx"}
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), np.ones((3, 4, 4), "f4")),
            "mask": (("tilt", "y", "x"), np.ones((3, 4, 4), bool)),
            "angles": (("tilt", "euler"), np.outer([-60.0, 0, 60], [0, 1, 0])),
            "pixel_size": ((), 0.5),
        },
        {"tilt": range(3), "euler": list(schema.EULER), "y": grid["y"], "x": grid["x"]},
    )
    volume = xr.Dataset({"density": (("z", "y", "x"), np.ones((4, 4, 4), "f4"))}, grid)
    path = tmp_path / "run.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", schema.with_units(series, schema.TILT_SERIES), record=Record("import"))
        inputs = {"tilt_series/aligned": store.digest("tilt_series/aligned")}
        record = Record("reconstruct", {}, inputs)
        store.write("volume", schema.with_units(volume, schema.VOLUME), record=record)
    return path


def edit_file(run: Path, text: str) -> Path:
    path = run.with_name("edits.csv")
    path.write_text("action,x,y,z,type,new_x,new_y,new_z\n" + text)
    return path


def test_stages__one_by_one(run: Path, calls: Counter) -> None:
    with pytest.raises(StoreError, match="holds no 'atoms'"):
        pipeline.classify(run)
    assert pipeline.trace(run)["n_atoms"] == 4
    assert pipeline.export(run, atoms=run.with_name("a.xyz"))["atoms_from"] == "atoms"
    said = pipeline.classify(run, species=2, elements=["Co", "Pt"])
    assert (said["state"], said["n_atoms"], said["atoms_of_type"]) == ("computed", 3, {"1": 2, "2": 1})
    assert pipeline.export(run, atoms=run.with_name("a.xyz"))["atoms_from"] == "atoms_classified"
    said = pipeline.refine(run, curate=False)
    assert (said["state"], said["atoms_r_factor"], said["n_added"]) == ("computed", 0.25, 0)
    assert said["position_sigma_pm"] == pytest.approx([8.0] * 3)
    assert pipeline.refine(run, curate=False)["state"] == "current"
    assert pipeline.export(run, atoms=run.with_name("a.xyz"))["atoms_from"] == "atoms_refined"
    found = read_xyz(run.with_name("a.xyz"))
    np.testing.assert_allclose(found["position"], POSITIONS[:3] + 0.01)
    assert found["species"].values.tolist() == ["Co", "Pt", "Co"]  # named where they were told apart
    assert set(found.data_vars) >= {"type", "position_sigma", "probability"}
    assert calls == {"trace": 1, "classify": 1, "refine": 1}
    said = pipeline.info(run)
    assert said["n_atoms"] == 3 and said["atoms_r_factor"] == 0.25
    assert said["groups"]["atoms_refined"]["status"] == "complete"
    pipeline.trace(run, minimum_distance=1.0)
    said = pipeline.info(run)
    assert said["groups"]["atoms_classified"]["status"] == "stale"
    assert said["n_atoms"] == 4  # the newest that belong to what is there


def test_refine__without_classify_names_one_element(run: Path, calls: Counter) -> None:
    pipeline.trace(run)
    pipeline.refine(run, elements=["Ta"])
    with Store.open(run) as store:
        assert list(store.record("atoms_refined").inputs) == ["tilt_series/aligned", "atoms", "volume"]
        assert store.read("atoms_refined")["species"].values.tolist() == ["Ta"] * 4


def test_elements__are_refused_before_the_work(run: Path, calls: Counter) -> None:
    pipeline.trace(run)
    with pytest.raises(InputError, match="elements = Co,Pt came for 3 types"):
        pipeline.classify(run, elements=["Co", "Pt"])
    with pytest.raises(InputError, match="did you mean Pt"):
        pipeline.classify(run, species=2, elements=["Co", "Ptt"])
    with pytest.raises(InputError, match="elements = Co,Pt came for 1 types"):
        pipeline.refine(run, elements=["Co", "Pt"])
    assert calls == {"trace": 1}


def test_edits__are_kept_replayed_and_known_when_they_change(run: Path, calls: Counter) -> None:
    pipeline.trace(run)
    pipeline.classify(run)
    edits = edit_file(run, "delete,0,0,0\nadd,0,3,0,2\n")
    said = pipeline.refine(run, edits=edits)
    assert said["edits_applied"] == {"delete": 1, "add": 1}
    edits.write_text("# the same\n" + edits.read_text())
    assert pipeline.refine(run, edits=edits)["state"] == "current"
    with Store.open(run) as store:
        rows = ["delete,0.0,0.0,0.0,,,,", "add,0.0,3.0,0.0,2,,,"]
        assert store.record("atoms_refined").parameters["edits"] == rows
        assert store.read("atoms_refined").attrs["edits"] == rows
    edit_file(run, "delete,0,0,0\n")
    said = pipeline.refine(run, edits=edits)
    assert (said["state"], said["edits_applied"], calls["refine"]) == ("computed", {"delete": 1}, 2)
    with pytest.warns(AetdistWarning, match="had 1 edits by hand, this one has none"):
        assert "edits_applied" not in pipeline.refine(run)


def test_edits__malformed_are_refused_before_anything_is_done(run: Path, calls: Counter) -> None:
    pipeline.trace(run)
    edits = edit_file(run, "delete,0,0\n")
    with pytest.raises(InputError, match=r"edits\.csv, line 2: delete came without z"):
        pipeline.refine(run, edits=edits)
    experiment = run.with_name("experiment.toml")
    experiment.write_text('store = "run.zarr"\n[trace]\nminimum_distance = 1.0\n[refine]\nedits = "edits.csv"\n')
    with pytest.raises(InputError, match="line 2"):
        pipeline.run(experiment)
    assert calls == {"trace": 1}


def test_edits__changed_while_earlier_stages_ran(run: Path, calls: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.trace(run)
    edits = edit_file(run, "delete,0,0,0\n")
    traced = aetdist.trace.trace_atoms

    def meddled(volume: xr.Dataset, *, minimum_distance: float = 2.0) -> xr.Dataset:
        edit_file(run, "delete,3,0,0\n")
        return traced(volume)

    monkeypatch.setattr(aetdist.trace, "trace_atoms", meddled)
    experiment = run.with_name("experiment.toml")
    experiment.write_text(f'store = "run.zarr"\n[trace]\nminimum_distance = 1.0\n[refine]\nedits = "{edits.name}"\n')
    with pytest.raises(InputError, match="was changed while the stages before ran"):
        pipeline.run(experiment)
    assert pipeline.run(experiment)["stages"] == {"trace": "current", "refine": "computed"}


EXPERIMENT = """\
store = "run.zarr"
[trace]
[classify]
species = 2
[refine]
elements = ["Co", "Pt"]
[export]
atoms = "atoms.xyz"
"""


def test_run__computes_what_follows_a_change(run: Path, calls: Counter) -> None:
    experiment = run.with_name("experiment.toml")
    experiment.write_text(EXPERIMENT)
    assert set(pipeline.run(experiment, dry_run=True)["stages"].values()) == {"to compute"}
    said = pipeline.run(experiment)
    assert set(said["stages"].values()) == {"computed"}
    assert said["n_atoms"] == 3 and said["atoms_r_factor"] == 0.25
    assert set(pipeline.run(experiment)["stages"].values()) == {"current"}
    experiment.write_text(EXPERIMENT.replace('"Co", "Pt"', '"Ni", "Pt"'))
    planned = {"trace": "current", "classify": "current", "refine": "to compute", "export": "to compute"}
    assert pipeline.run(experiment, dry_run=True)["stages"] == planned
    pipeline.run(experiment)
    assert read_xyz(run.with_name("atoms.xyz"))["species"].values.tolist() == ["Ni", "Pt", "Ni"]
    experiment.write_text(EXPERIMENT.replace("species = 2", "species = 2\nbox = 1.0"))
    states = {"trace": "current", "classify": "computed", "refine": "computed", "export": "computed"}
    assert pipeline.run(experiment)["stages"] == states


def test_run__exports_the_newest_atoms_that_belong_there(run: Path, calls: Counter) -> None:
    experiment = run.with_name("experiment.toml")
    experiment.write_text(EXPERIMENT)
    pipeline.run(experiment)
    alone = 'store = "run.zarr"\n[trace]\n[export]\natoms = "atoms.xyz"\n'
    experiment.write_text(alone)
    assert set(pipeline.run(experiment)["stages"].values()) == {"current"}  # refined atoms are those of this tracing
    experiment.write_text(alone.replace("[trace]", "[trace]\nminimum_distance = 1.0"))
    assert pipeline.run(experiment, dry_run=True)["stages"]["export"] == "to compute"
    assert pipeline.run(experiment)["stages"] == {"trace": "computed", "export": "computed"}
    assert "type" not in read_xyz(run.with_name("atoms.xyz"))
