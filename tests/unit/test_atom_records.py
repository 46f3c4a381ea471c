"""Which atoms are the newest, what the stages of the atoms read, and what makes them stale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from aetdist._records import describe_atoms, expected_records, inputs_of, stage_record
from aetdist._species import name_species
from aetdist.errors import InputError, StoreError
from aetdist.experiment import Experiment
from aetdist.io import Record, Store, newest, read_atoms, read_xyz, write_xyz
from aetdist.io.groups import ATOMS, CLASSIFIED, REFINED, REFINED_ATOMS, TILTS, VOLUME
from aetdist.schema import ATOMS as ATOMS_GROUP
from aetdist.schema import with_units


def atoms(n: int) -> xr.Dataset:
    position = np.arange(3.0 * n).reshape(n, 3)
    return with_units(
        xr.Dataset({"position": (("atom", "axis"), position)}, {"atom": np.arange(n), "axis": list("xyz")}), ATOMS_GROUP
    )


def make(store: Store, group: str, stage: str, n: int = 3, **parameters: object) -> None:
    """A group as its stage would write it: from the newest of what it reads."""
    inputs = inputs_of(stage, store) if stage != "import" else {}
    store.write(group, atoms(n), record=Record(stage, parameters, inputs))


@pytest.fixture
def store(tmp_path: Path):
    with Store.create(tmp_path / "run.zarr") as opened:
        make(opened, TILTS, "import")
        make(opened, VOLUME, "reconstruct")
        make(opened, ATOMS, "trace")
        yield opened


def test_newest__follows_the_stages(store: Store) -> None:
    assert newest(ATOMS, store) == ATOMS
    assert list(inputs_of("refine", store)) == [TILTS, ATOMS, VOLUME]
    make(store, REFINED_ATOMS, "refine", 4)
    assert newest(ATOMS, store) == REFINED_ATOMS
    assert read_atoms(store.path).sizes["atom"] == 4
    make(store, CLASSIFIED, "classify", 5)
    assert list(store.record(CLASSIFIED).inputs) == [ATOMS, VOLUME]
    assert newest(ATOMS, store) == CLASSIFIED  # what was refined was not these
    assert list(inputs_of("refine", store)) == [TILTS, CLASSIFIED, VOLUME]
    assert read_atoms(store.path).sizes["atom"] == 5
    make(store, REFINED_ATOMS, "refine")
    assert newest(ATOMS, store) == REFINED_ATOMS
    assert list(inputs_of("classify", store)) == [ATOMS, VOLUME]  # never of what comes after it
    make(store, REFINED, "refine-angles")
    assert list(inputs_of("refine", store)) == [REFINED, CLASSIFIED, VOLUME]


def test_newest__leaves_what_was_made_from_something_else(store: Store) -> None:
    make(store, CLASSIFIED, "classify")
    make(store, REFINED_ATOMS, "refine")
    make(store, ATOMS, "trace", minimum_distance=1.5)
    assert newest(ATOMS, store) == ATOMS
    make(store, CLASSIFIED, "classify")
    assert newest(ATOMS, store) == CLASSIFIED
    make(store, REFINED_ATOMS, "refine")
    make(store, VOLUME, "reconstruct", iterations=3)
    assert newest(ATOMS, store) == ATOMS
    assert newest(VOLUME, store) == VOLUME


def test_newest__counts_what_is_planned(store: Store) -> None:
    make(store, CLASSIFIED, "classify")
    traced = Record("trace", {"minimum_distance": 1.5}, inputs_of("trace", store))
    assert newest(ATOMS, store, {ATOMS: traced}) == ATOMS
    classified = Record("classify", {}, {ATOMS: traced.digest, VOLUME: store.digest(VOLUME)})
    assert newest(ATOMS, store, {ATOMS: traced, CLASSIFIED: classified}) == CLASSIFIED
    assert newest(ATOMS, None, {ATOMS: traced, CLASSIFIED: classified}) == ATOMS  # there is no such volume
    assert newest(ATOMS, store, {ATOMS: traced, CLASSIFIED: classified}, before=CLASSIFIED) == ATOMS


REFINE = {"iterations": 20, "edits": None}


def test_expected__a_whole_experiment_without_a_store() -> None:
    stages = {"classify": {"species": 3}, "refine": REFINE}
    with pytest.raises(InputError, match=r"\[classify\] needs atoms, which neither"):
        expected_records(Experiment(Path("run.zarr"), stages), None)


def test_expected__chains_what_changes(store: Store) -> None:
    make(store, REFINED_ATOMS, "refine")

    def expected(**stages: dict) -> dict[str, Record]:
        return expected_records(Experiment(store.path, stages), store)

    first = expected(classify={"species": 3}, refine=REFINE)
    assert first[CLASSIFIED].inputs == {ATOMS: store.digest(ATOMS), VOLUME: store.digest(VOLUME)}
    assert first[REFINED_ATOMS].inputs == {
        TILTS: store.digest(TILTS),
        CLASSIFIED: first[CLASSIFIED].digest,
        VOLUME: store.digest(VOLUME),
    }
    second = expected(classify={"species": 2}, refine=REFINE)
    assert first[REFINED_ATOMS].digest != second[REFINED_ATOMS].digest
    alone = expected(refine=REFINE)
    assert alone[REFINED_ATOMS].inputs[ATOMS] == store.digest(ATOMS)
    make(store, CLASSIFIED, "classify")
    assert CLASSIFIED in expected(refine=REFINE)[REFINED_ATOMS].inputs
    retraced = expected(trace={"minimum_distance": 1.0}, refine=REFINE)
    assert ATOMS in retraced[REFINED_ATOMS].inputs  # the classified ones are not of these


def test_inputs__what_is_missing(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.zarr") as store:
        make(store, TILTS, "import")
        make(store, VOLUME, "reconstruct")
        with pytest.raises(StoreError, match="holds no 'atoms' but"):
            inputs_of("classify", store)
        with pytest.raises(StoreError, match="holds no 'atoms' but tilt_series/aligned, volume; aetdist trace makes"):
            inputs_of("refine", store)


def test_record__of_edits_has_their_rows_not_the_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("action,x,y,z\ndelete,1,2,3\n")
    second.write_text("# the same\nz,y,x,action\n3, 2.0,1e0,delete\n")
    records = [stage_record("refine", {"edits": path}, {}) for path in (first, second)]
    assert records[0].parameters == {"edits": ["delete,1.0,2.0,3.0,,,,"]}
    assert records[0].digest == records[1].digest
    first.write_text("action,x,y,z\ndelete,1,2,3.5\n")
    assert stage_record("refine", {"edits": first}, {}).digest != records[0].digest
    first.write_text("action,x,y,z\nerase,1,2,3.5\n")
    with pytest.raises(InputError, match="line 2: action 'erase' came"):
        stage_record("refine", {"edits": first}, {})
    assert stage_record("refine", {"edits": None}, {}).parameters == {"edits": None}


def test_species__by_type_and_kept_on(tmp_path: Path) -> None:
    typed = atoms(4).assign(type=("atom", [1, 3, 2, 3]))
    xr.testing.assert_identical(name_species(typed), typed)
    named = name_species(typed, elements=["Co", "Pd", "Pt"])
    assert named["species"].values.tolist() == ["Co", "Pt", "Pd", "Pt"]
    again = name_species(named.drop_vars("species").isel(atom=[0, 2]))  # as an earlier stage was given
    assert again["species"].values.tolist() == ["Co", "Pd"]
    assert name_species(atoms(2), elements=["Ta"])["species"].values.tolist() == ["Ta", "Ta"]
    write_xyz(tmp_path / "a.xyz", named)
    assert (tmp_path / "a.xyz").read_text().splitlines()[3].split()[0] == "Pt"
    assert read_xyz(tmp_path / "a.xyz").attrs["elements"] == ["Co", "Pd", "Pt"]


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (["Co", "Pd"], "elements = Co,Pd came for 3 types of atoms"),
        (["Co", "Xq", "Pt"], "Xq"),
        (["co", "Pd", "Pt"], "did you mean Co"),
    ],
)
def test_species__is_refused(elements: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        name_species(atoms(2).assign(type=("atom", [1, 3])), elements=elements)


def test_describe__says_what_there_is() -> None:
    assert describe_atoms(atoms(3)) == {"n_atoms": 3}
    sigma = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, np.nan, 0.3]])
    found = describe_atoms(
        atoms(3)
        .assign(
            type=("atom", [1, 3, 3]),
            unresolved=("atom", [True, False, False]),
            position_sigma=(("atom", "axis"), sigma),
        )
        .assign_attrs(
            type_separation=[5.5],
            n_non_atoms=7,
            R=0.2,
            R1=0.1,
            n_added=4,
            n_deleted=0,
            cramer_rao=0.075,
            edits=["add,1", "delete,2", "add,3"],
        )
    )
    assert found.pop("position_sigma_pm") == pytest.approx([20.0, 20.0, 30.0])
    assert found.pop("cramer_rao_pm") == pytest.approx(7.5)
    assert found == {
        "n_atoms": 3,
        "atoms_of_type": {"1": 1, "3": 2},
        "type_separation": [5.5],
        "n_non_atoms": 7,
        "atoms_r_factor": 0.2,
        "atoms_r1_factor": 0.1,
        "n_added": 4,
        "n_deleted": 0,
        "edits_applied": {"add": 2, "delete": 1},
        "n_unresolved": 1,
    }


def test_xyz__columns_of_atoms_in_order_and_back(tmp_path: Path) -> None:
    wide = atoms(2).assign(
        origin=("atom", ["traced", "added"]),
        extra=("atom", [1.5, 2.5]),
        type_probability=(("atom", "type_number"), np.array([[0.25, 0.75], [1.0, 0.0]])),
        position_sigma=(("atom", "axis"), np.full((2, 3), 0.125)),
        unresolved=("atom", [True, False]),
        intensity=("atom", [1.0, np.nan]),
        type=("atom", [2, 1]),
        r_factor=(("iteration", "tilt"), np.ones((2, 2))),
    )
    write_xyz(tmp_path / "a.xyz", wide)
    assert (tmp_path / "a.xyz").read_text().splitlines()[1].split()[0] == (
        "Properties=species:S:1:pos:R:3:type:I:1:intensity:R:1:position_sigma:R:3:type_probability:R:2:"
        "unresolved:L:1:origin:S:1:extra:R:1"
    )
    back = read_xyz(tmp_path / "a.xyz")
    for name in ("position", "position_sigma", "type_probability", "unresolved", "origin", "intensity", "type"):
        assert back[name].dims == wide[name].dims
        np.testing.assert_array_equal(back[name], wide[name])
    write_xyz(tmp_path / "one.xyz", wide.isel(type_number=[0]))
    assert read_xyz(tmp_path / "one.xyz")["type_probability"].shape == (2, 1)
    (tmp_path / "bad.xyz").write_text("1\nProperties=species:S:1:pos:R:3:position_sigma:R:2\nX 0 0 0 1 2\n")
    with pytest.raises(InputError, match="position_sigma has 2 columns, not one for each axis"):
        read_xyz(tmp_path / "bad.xyz")
