"""CIF, PDB and LAMMPS files, read through ASE where it is installed."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.io import read_atoms

needs_ase = pytest.mark.skipif(importlib.util.find_spec("ase") is None, reason="the extra formats is not installed")

LAMMPS = """made by hand

3 atoms
2 atom types
0.0 10.0 xlo xhi
0.0 11.0 ylo yhi
0.0 12.0 zlo zhi

Atoms # atomic

1 1 1.0 2.0 3.0
2 2 4.0 5.0 6.0
3 1 7.0 8.0 9.0
"""
DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS ff ff ff
0 10
0 10
0 10
ITEM: ATOMS id type x y z
1 1 1.0 2.0 3.0
2 2 4.0 5.0 6.0
"""
CIF = """data_salt
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""
PDB = """ATOM      1  CO  MOL     1       1.000   2.000   3.000  1.00  0.00          CO
ATOM      2  PD  MOL     1       4.000   5.000   6.000  1.00  0.00          PD
END
"""


@needs_ase
def test_read_atoms__lammps_data_and_dump(tmp_path):
    (tmp_path / "glass.data").write_text(LAMMPS)
    found = read_atoms(tmp_path / "glass.data")
    assert found["type"].values.tolist() == [1, 2, 1]
    np.testing.assert_allclose(found["position"].values, np.arange(1.0, 10.0).reshape(3, 3))
    assert found.attrs["pbc"] == [True, True, True]
    np.testing.assert_allclose(np.reshape(found.attrs["Lattice"], (3, 3)), np.diag([10.0, 11.0, 12.0]))
    (tmp_path / "glass.dump").write_text(DUMP)
    found = read_atoms(tmp_path / "glass.dump")
    np.testing.assert_allclose(found["position"].values, np.arange(1.0, 7.0).reshape(2, 3))
    assert "Lattice" not in found.attrs


@needs_ase
def test_read_atoms__cif_and_pdb(tmp_path):
    (tmp_path / "salt.cif").write_text(CIF)
    found = read_atoms(tmp_path / "salt.cif")
    assert found["species"].values.tolist() == ["Na", "Cl"]
    np.testing.assert_allclose(found["position"].values[1], [2.82, 2.82, 2.82])
    assert found.attrs["pbc"] == [True, True, True]
    (tmp_path / "two.pdb").write_text(PDB)
    found = read_atoms(tmp_path / "two.pdb")
    assert found["species"].values.tolist() == ["Co", "Pd"]
    assert "Lattice" not in found.attrs


@needs_ase
def test_read_atoms__says_what_is_wrong_with_a_foreign_file(tmp_path):
    (tmp_path / "broken.cif").write_text("nothing of the kind")
    with pytest.raises(InputError, match="cannot be read as cif"):
        read_atoms(tmp_path / "broken.cif")


def test_read_atoms__names_the_extra_where_ase_is_missing(tmp_path, monkeypatch):
    (tmp_path / "salt.cif").write_text(CIF)
    monkeypatch.setitem(sys.modules, "ase", None)
    monkeypatch.setitem(sys.modules, "ase.io", None)
    with pytest.raises(InputError, match=r"aetdist\[formats\]"):
        read_atoms(tmp_path / "salt.cif")
