"""Atoms changed by hand: what a table may hold, what is said of one that is wrong, and what it does to the atoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from aetdist import schema
from aetdist.errors import InputError
from aetdist.io import Record, Store, read_xyz, write_xyz
from aetdist.refine.edits import COLUMNS, Edit, apply_edits, read_edits

HEADER = ",".join(COLUMNS) + "\n"


@pytest.fixture
def atoms() -> xr.Dataset:
    """Four atoms of two types along x, 3 Angstrom apart, with all that refinement finds."""
    position = np.array([[0.0, 0, 0], [3, 0, 0], [6, 0, 0], [9, 0, 0]])
    dataset = xr.Dataset(
        {
            "position": (("atom", "axis"), position),
            "type": ("atom", [1, 2, 1, 2]),
            "species": ("atom", ["Co", "Pt", "Co", "Pt"]),
            "intensity": ("atom", [1.0, 2, 1, 2]),
            "position_sigma": (("atom", "axis"), np.full((4, 3), 0.1)),
            "probability": ("atom", np.ones(4)),
            "type_probability": (("atom", "type_number"), np.tile([0.75, 0.25], (4, 1))),
            "unresolved": ("atom", [False, True, False, False]),
            "r_factor": (("iteration", "tilt"), np.ones((2, 5))),
            "difference_after": (("map_y", "map_x"), np.ones((3, 4))),
        },
        {
            "atom": [0, 1, 2, 7],
            "axis": list("xyz"),
            "tilt": np.arange(5),
            "map_y": np.arange(3.0),
            "map_x": np.arange(4.0),
        },
        {"R": 0.1, "elements": ["Co", "Pt"]},
    )
    return schema.with_units(dataset, schema.ATOMS)


def table(tmp_path: Path, text: str, header: str = HEADER) -> Path:
    path = tmp_path / "edits é.csv"
    path.write_text(header + text, encoding="utf-8")
    return path


def test_read__every_action(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "add,1,2,3.5,2\n\n# too close\n delete , -1e1,0,0,,,,\nMOVE,0,0,0,,1,2,3\n  # more\nretype,0,0,0,1\n",
    )
    found = read_edits(path)
    assert [(e.action, e.position, e.type, e.new_position) for e in found] == [
        ("add", (1, 2, 3.5), 2, None),
        ("delete", (-10, 0, 0), None, None),
        ("move", (0, 0, 0), None, (1, 2, 3)),
        ("retype", (0, 0, 0), 1, None),
    ]
    assert [edit.where for edit in found] == [f"{path}, line {n}" for n in (2, 5, 6, 8)]


def test_read__columns_in_another_order_and_only_those_needed(tmp_path: Path) -> None:
    (edit,) = read_edits(table(tmp_path, "1,2,3,delete\n", "\ufeff# by hand\nX, y,z,Action\n"))
    assert (edit.action, edit.position) == ("delete", (1, 2, 3))
    assert read_edits(table(tmp_path, "")) == ()


def test_read__rows_read_back_as_they_are(tmp_path: Path) -> None:
    text = "add,0.1,0.30000000000000004,-1e-17,2\nmove,1,2,3,,4,5,6.25\ndelete,1,2,3\nretype,7,8,9,1\n"
    edits = read_edits(table(tmp_path, text))
    again = read_edits(table(tmp_path, "\n".join(edit.row for edit in edits)))
    assert [edit.row for edit in again] == [edit.row for edit in edits]
    assert again == edits
    of_numpy = Edit("move", tuple(np.array([0.1, 2.5, -1e-17])), np.int64(1), tuple(np.float32([1.5, 0, 2])))
    assert of_numpy.row == "move,0.1,2.5,-1e-17,1,1.5,0.0,2.0"


@pytest.mark.parametrize(
    ("header", "text", "line", "message"),
    [
        ("", "", 1, r"columns none came; needed are action,x,y,z,type"),
        ("", "add,1,2,3,1\n", 1, r"columns add, 1, 2, 3, 1 came; needed are action"),
        ("action,x,y\n", "", 1, r"columns action, x, y came; needed are"),
        ("action,x,y,z,x\n", "", 1, r"columns action, x, y, z, x came"),
        ("action,x,y,z,mass\n", "", 1, r"columns action, x, y, z, mass came"),
        (HEADER, "add,1,2,3,1\nremove,1,2,3\n", 3, r"action 'remove' came; needed is one of add, delete, move, retype"),
        (HEADER, "add,1,2,,1\n", 2, r"add came without z; it needs x, y, z"),
        (HEADER, "move,1,2,3,,4\n", 2, r"move came without new_y, new_z"),
        (HEADER, "retype,1,2,3\n", 2, r"retype came without type"),
        (HEADER, "delete,1,2,3,1\n", 2, r"delete came with type, which it does not use"),
        (HEADER, "add,1,2,3,1,4,5,6\n", 2, r"add came with new_x, new_y, new_z"),
        (HEADER, "delete,1,2,3,,,,,\n", 2, r"9 columns came; the first line names 8"),
        (HEADER, "# note\n\nadd,1,two,3,1\n", 4, r"y = 'two' came; a number in Angstrom is needed"),
        (HEADER, "add,1,inf,3,1\n", 2, r"y = 'inf' came"),
        (HEADER, "add,nan,0,3,1\n", 2, r"x = 'nan' came"),
        (HEADER, "add,1,2,3,0\n", 2, r"type '0' came; a whole number of 1 or more"),
        (HEADER, "add,1,2,3,1.5\n", 2, r"type '1.5' came"),
        (HEADER, "add,1,2,3,²\n", 2, r"type '²' came"),
        (HEADER, 'delete,"1,2,3\n', 2, r"is no line of a CSV file"),
        (HEADER, "delete;1;2;3\n", 2, r"action 'delete;1;2;3' came"),
    ],
)
def test_read__what_is_wrong_and_where(tmp_path: Path, header: str, text: str, line: int, message: str) -> None:
    path = table(tmp_path, text, header)
    with pytest.raises(InputError, match=message) as caught:
        read_edits(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")


def test_read__no_file_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file of edits .*absent\.csv"):
        read_edits(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_edits(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"action,x,y,z\n\xff\xfe\n")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_edits(tmp_path / "a.csv")


def test_apply__each_action(atoms: xr.Dataset) -> None:
    before = atoms.copy(deep=True)
    edited = apply_edits(
        atoms,
        [
            Edit("add", (0.0, 3, 0), 2),
            Edit("delete", (3.2, 0.1, 0)),
            Edit("move", (6.0, 0, 0.5), None, (6.0, 0, 2)),
            Edit("retype", (9.0, 0, 0), 1),
        ],
    )
    xr.testing.assert_identical(atoms, before)
    schema.check(edited, schema.ATOMS)
    assert edited["atom"].values.tolist() == [0, 2, 7, 8]
    assert edited["position"].values.tolist() == [[0, 0, 0], [6, 0, 2], [9, 0, 0], [0, 3, 0]]
    assert edited["type"].values.tolist() == [1, 1, 1, 2]
    assert edited["species"].values.tolist() == ["Co", "Co", "Co", "Pt"]
    assert edited["origin"].values.tolist() == ["traced", "edited", "edited", "edited"]
    np.testing.assert_array_equal(edited["intensity"], [1, np.nan, 2, np.nan])
    np.testing.assert_array_equal(np.isnan(edited["position_sigma"]).all("axis"), [False, True, False, True])
    np.testing.assert_array_equal(np.isnan(edited["type_probability"]).any("type_number"), [False, True, True, True])
    assert edited["unresolved"].dtype == bool and not edited["unresolved"].any()
    assert edited["type"].dtype == atoms["type"].dtype
    xr.testing.assert_identical(edited["r_factor"], atoms["r_factor"])
    xr.testing.assert_identical(edited["difference_after"], atoms["difference_after"])
    assert edited.attrs == {
        "R": 0.1,
        "elements": ["Co", "Pt"],
        "edits": [
            "add,0.0,3,0,2,,,",
            "delete,3.2,0.1,0,,,,",
            "move,6.0,0,0.5,,6.0,0,2",
            "retype,9.0,0,0,1,,,",
        ],
        "edited_atoms": [8, 1, 2, 7],
    }


def test_apply__positions_alone_in_the_order_of_the_rows() -> None:
    bare = xr.Dataset({"position": (("atom", "axis"), np.array([[0.0, 0, 0], [2, 0, 0]]))})
    edits = [
        Edit("delete", (2.0, 0, 0)),
        Edit("add", (2.0, 0, 0)),
        Edit("move", (2.0, 0, 0), None, (4.0, 0, 0)),
        Edit("move", (4.0, 0, 0), None, (4.5, 0, 0)),
    ]
    edited = apply_edits(bare, edits)
    assert edited["position"].values.tolist() == [[0, 0, 0], [4.5, 0, 0]]
    assert edited.attrs["edited_atoms"] == [1, 2, 2, 2]
    assert edited["origin"].values.tolist() == ["traced", "edited"]
    xr.testing.assert_identical(apply_edits(bare, []), bare)
    more = apply_edits(edited, [Edit("delete", (0.0, 0, 0))])
    assert len(more.attrs["edits"]) == 5 and more.attrs["edited_atoms"][-1] == 0
    none = apply_edits(more, [Edit("delete", (4.5, 0, 0))])
    assert none.sizes["atom"] == 0
    assert apply_edits(none, [Edit("add", (1.0, 1, 1))])["position"].values.tolist() == [[1, 1, 1]]


def test_apply__the_nearest_atom_is_that_of_a_plain_search() -> None:
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(5) * 2.5] * 3), -1).reshape(-1, 3)
    position = grid + rng.uniform(-0.4, 0.4, grid.shape)
    atoms = xr.Dataset({"position": (("atom", "axis"), position)}, {"atom": np.arange(len(grid)), "axis": list("xyz")})
    wanted = rng.permutation(len(grid))[:20]
    offsets = rng.normal(size=(20, 3))
    offsets *= 0.69 / np.linalg.norm(offsets, axis=1, keepdims=True)
    edited = apply_edits(atoms, [Edit("delete", tuple(p)) for p in position[wanted] + offsets])
    assert edited.attrs["edited_atoms"] == wanted.tolist()
    np.testing.assert_array_equal(edited["position"], np.delete(position, wanted, axis=0))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            Edit("delete", (0.0, 0.71, 0), where="e.csv, line 4"),
            r"^e.csv, line 4: delete at 0, 0.71, 0 came, where no atom is within 0.7 Angstrom "
            r"\(the nearest is 0.71 Angstrom away\); give",
        ),
        (Edit("delete", (9.5, 0, 0)), r"where 2 atoms are within 0.7 Angstrom \(0.50, 0.50\)"),
        (Edit("add", (0.5, 0, 0), 1), r"add to 0.5, 0, 0 came, where an atom is 0.50 Angstrom away; leave more than"),
        (Edit("move", (0.0, 0, 0), None, (3.0, 0, 0.2)), r"move to 3, 0, 0.2 came, where an atom is 0.20"),
        (Edit("add", (0.0, 9, 0)), r"add came without type; these atoms have types, 1 to 2 is needed"),
        (Edit("retype", (0.0, 0, 0), 3), r"type 3 came; these atoms have types, 1 to 2"),
    ],
)
def test_apply__is_refused_with_its_line(atoms: xr.Dataset, edit: Edit, message: str) -> None:
    twin = atoms.isel(atom=[3]).assign_coords(atom=[9])
    twin = twin.assign(position=twin["position"] + np.array([1.0, 0, 0]))
    both = xr.concat([atoms, twin], "atom", data_vars="minimal")
    with pytest.raises(InputError, match=message):
        apply_edits(both, [edit])


def test_apply__types_where_there_are_none(atoms: xr.Dataset) -> None:
    untyped = atoms.drop_vars(["type", "species", "type_probability"])
    with pytest.raises(InputError, match="type 1 came, but these atoms have no types; classify them"):
        apply_edits(untyped, [Edit("retype", (0.0, 0, 0), 1)])
    with pytest.raises(InputError, match="no atoms"):
        apply_edits(untyped.isel(atom=[]), [Edit("delete", (0.0, 0, 0))])


def test_apply__of_two_edits_a_moved_atom_may_come_back(atoms: xr.Dataset) -> None:
    back = apply_edits(
        atoms, [Edit("move", (0.0, 0, 0), None, (0.0, 5, 0)), Edit("move", (0.0, 5, 0), None, (0.0, 0, 0))]
    )
    np.testing.assert_array_equal(back["position"], atoms["position"])
    slightly = apply_edits(atoms, [Edit("move", (0.0, 0, 0), None, (0.1, 0, 0))])  # its own place is free for it
    assert slightly["position"].values[0].tolist() == [0.1, 0, 0]


def test_apply__is_kept_by_the_store_and_the_file(atoms: xr.Dataset, tmp_path: Path) -> None:
    edited = apply_edits(atoms, [Edit("add", (0.0, 3, 0), 2), Edit("delete", (3.0, 0, 0))])
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("atoms", edited, record=Record("refine"))
        kept = store.read("atoms")
    assert kept.attrs["edits"] == ["add,0.0,3,0,2,,,", "delete,3.0,0,0,,,,"]
    assert kept.attrs["edited_atoms"] == [8, 1]
    assert kept["origin"].values.tolist() == ["traced", "traced", "traced", "edited"]
    write_xyz(tmp_path / "a.xyz", kept)
    assert read_xyz(tmp_path / "a.xyz").attrs["edits"] == kept.attrs["edits"]
