"""Extended XYZ and the other files that hold atoms; what is wrong with one is said with its line."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from aetdist.errors import InputError
from aetdist.io import Record, Store, read_atoms, read_xyz, write_xyz


def atoms(n: int = 3, **variables: object) -> xr.Dataset:
    position = np.random.default_rng(1).normal(size=(n, 3)) * 30
    return xr.Dataset(
        {"position": (("atom", "axis"), position), **variables}, {"atom": np.arange(n), "axis": list("xyz")}
    )


def test_xyz__reads_what_ase_writes(tmp_path: Path) -> None:
    path = tmp_path / "ase.xyz"
    path.write_text(
        "2\n"
        'Lattice="5.44 0.0 0.0 0.0 5.44 0.0 0.0 0.0 5.44" Properties=species:S:1:pos:R:3:forces:R:3:fixed:L:1:tag:I:1 '
        'energy=-10.5 name="silicon \\"diamond\\"" pbc="T T F" steps={1 2 3} done nested="_JSON {\\"a\\": [1]}"\n'
        "Si 0.0 0.0 0.0 0.1 -0.2 1e-3 T 4\n"
        "Si 1.36 1.36 1.36 0.0 0.0 0.0 F -5\n"
    )
    found = read_xyz(path)
    assert found.species.values.tolist() == ["Si", "Si"]
    assert found.position.values.tolist() == [[0, 0, 0], [1.36, 1.36, 1.36]]
    assert found.position.attrs["units"] == "angstrom"
    assert found.forces.values.tolist() == [[0.1, -0.2, 1e-3], [0, 0, 0]]
    assert found.fixed.values.tolist() == [True, False]
    assert found.tag.values.tolist() == [4, -5]
    assert found.attrs == {
        "Lattice": [5.44, 0, 0, 0, 5.44, 0, 0, 0, 5.44],
        "energy": -10.5,
        "name": 'silicon "diamond"',
        "pbc": [True, True, False],
        "steps": [1, 2, 3],
        "done": True,
        "nested": {"a": [1]},
    }


def test_xyz__writes_plain_columns(tmp_path: Path) -> None:
    dataset = atoms(1, species=("atom", ["Ta"]), intensity=("atom", [0.1 + 0.2]), threshold=((), 2.5))
    dataset["position"][:] = [1, 2, 1 / 3]
    dataset = dataset.assign_coords(atom=[7]).assign_attrs(Lattice=np.eye(3))
    write_xyz(tmp_path / "a.xyz", dataset)
    assert (tmp_path / "a.xyz").read_text().splitlines() == [
        "1",
        "Properties=species:S:1:pos:R:3:id:I:1:intensity:R:1 "
        'Lattice="1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0" threshold=2.5',
        "Ta 1.0 2.0 0.3333333333333333 7 0.30000000000000004",
    ]
    back = read_xyz(tmp_path / "a.xyz")
    assert back.atom.values.tolist() == [7]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.xyz"]


def test_xyz__a_column_may_be_called_x(tmp_path: Path) -> None:
    dataset = atoms(2, x=("atom", [1.5, 2.5]), y=("atom", [3, 4]))
    write_xyz(tmp_path / "a.xyz", dataset)
    xr.testing.assert_equal(read_xyz(tmp_path / "a.xyz"), dataset)


def test_xyz__plain_file_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"2\r\nmade by hand\r\nTa 0 0 0\r\nTa\t1.5  2 3\r\n\r\n")
    found = read_xyz(tmp_path / "a.xyz")
    assert found.position.values.tolist() == [[0, 0, 0], [1.5, 2, 3]]
    assert found.attrs == {"comment": "made by hand"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: '' came"),
        ("Ta 0 0 0\n", "line 1: 'Ta 0 0 0' came, the number of atoms"),
        ("-1\n\n", "line 1"),
        ("2\n\nTa 0 0 0\n", "line 3: the file ends after 1 of 2 atoms"),
        ("1\n\nTa 0 0 0\nTa 1 1 1\n", "line 4: more lines than the 1 atoms"),
        ("2\n\nTa 0 0 0\nTa 1 1\n", "line 4: 3 columns came, line 2 announces 4"),
        ("2\n\nTa 0 0 0\nTa 1 1 one\n", "line 4: 'one' came for pos, a number is needed"),
        ("2\n\nTa 0 0 0\nTa 1 1 1_0\n", "line 4: '1_0'"),
        ("2\n\nTa 0 0 0\nTa 1 1 nan\n", "line 4: a position is not a finite number"),
        ("1\nProperties=species:S:1:pos:R:3:tag:I:1\nTa 0 0 0 1.5\n", "line 3: '1.5' came for tag, an integer"),
        ("1\nProperties=species:S:1:pos:R:3:on:L:1\nTa 0 0 0 maybe\n", "line 3: 'maybe' came for on, T or F"),
        ("1\nProperties=species:S:1:pos:R:three\nTa 0 0 0\n", "pos:R:three is no column"),
        ("1\nProperties=species:S:1:pos:R\nTa 0 0 0\n", "is not a list"),
        ("1\nProperties=species:S:1:pos:R:3:pos:R:3\nTa 0 0 0 1 1 1\n", "is not a list of different"),
        ("1\nProperties=species:S:1\nTa\n", "a column pos:R:3 is needed"),
        ('1\nname="open\nTa 0 0 0\n', "line 2: from 'name=\"open' on it is not key=value"),
        ("1\nProperties=species:S:1:pos:R:3:type:R:1\nTa 0 0 0 1\n", "type is float64"),
    ],
)
def test_xyz__error_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(InputError, match=rf"a\.xyz.*{message}".replace("(", r"\(")):
        read_xyz(tmp_path / "a.xyz")


def test_xyz__binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"1\n\xff\xfe\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_xyz(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    "variables",
    [
        {"species": ("atom", ["Ta", "Ta", "my atom"])},
        {"species": ("atom", ["Ta", "Ta", ""])},
        {"a b": ("atom", [1, 2, 3])},
        {"a:b": ("atom", [1, 2, 3])},
        {"tensor": (("atom", "i", "j"), np.zeros((3, 2, 2)))},
        {"pos": ("atom", [1, 2, 3])},
        {"when": ("atom", np.zeros(3, dtype="M8[s]"))},
    ],
)
def test_xyz__what_cannot_be_told_apart_is_not_written(tmp_path: Path, variables: dict) -> None:
    with pytest.raises(InputError):
        write_xyz(tmp_path / "a.xyz", atoms(**variables))
    assert list(tmp_path.iterdir()) == []


def test_read_atoms__hdf5_npy_csv_and_store_agree(tmp_path: Path) -> None:
    dataset = atoms(5, type=("atom", [1, 2, 1, 1, 2]))
    position = dataset.position.values
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["found/positions"] = position
    np.save(tmp_path / "a.npy", position)
    lines = [",".join(map(repr, [*row, t])) for row, t in zip(position.tolist(), [1, 2, 1, 1, 2], strict=True)]
    (tmp_path / "a.csv").write_text("# by hand\nx, y, z, type\n" + "\n".join(lines) + "\n")
    with Store.create(tmp_path / "a.zarr") as store:
        store.write("atoms", dataset, record=Record("trace"))
    for name in ("a.h5::found/positions", "a.npy", "a.csv", "a.zarr"):
        found = read_atoms(tmp_path / name)
        np.testing.assert_array_equal(found.position, position)
    assert read_atoms(tmp_path / "a.csv").type.values.tolist() == [1, 2, 1, 1, 2]


def test_read_atoms__never_unpickles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError):
        read_atoms(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y,z\n1,2,3\n1,2\n", "line 3: 2 columns"),
        ("x,y,z\n1,2,3\n1,2,c\n", "line 3: z = 'c' came, a number"),
        ("a,b,c\n1,2,3\n", "line 1: columns a, b, c came"),
        ("x,x,y,z\n1,2,3,4\n", "line 1: columns x, x, y, z came"),
        ("x [nm],y,z\n1,2,3\n", "line 1: x is in 'nm'; needed is 'angstrom'"),
        ("1,2,3\n1,2,inf\n", "line 2: z = 'inf' came; finite numbers"),
        ("x,y,z,type\n1,2,3,1.5\n", "line 2: type = '1.5' came; a whole number"),
        ("x,y,z,type\n1,2,3,1e300\n", "a whole number"),
        ("x,y,z\n1,2,1_0\n", "z = '1_0' came, a number"),
        ("x,y,z,unresolved\n1,2,3,0.5\n", "line 2: unresolved = '0.5' came, True or False"),
        ("x,y,z,position_sigma_x\n1,2,3,0.5\n", "position_sigma_x came; _x, _y and _z are needed"),
        ('x,y,z\n"1,2,3\n', "line 2: "),
        ("1,2,3,4,5\n", "line 1: 5 columns"),
    ],
)
def test_read_atoms__csv_error_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_atoms(tmp_path / "a.csv")


def test_read_atoms__says_what_is_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((4, 2)))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["found/positions"] = np.zeros((4, 3))
    for name, message in {
        "absent.xyz": "no file",
        "flat.npy": r"shape \(4, 2\); positions",
        "a.h5": "positions",
        "a.h5::peaks": "found/positions",
        ".": "folder",
    }.items():
        with pytest.raises(InputError, match=message):
            read_atoms(tmp_path / name)
