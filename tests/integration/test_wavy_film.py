"""A wavy, wedge-shaped film 310 Angstrom wide, whose rays leave the field at high tilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist import pipeline
from aetdist.io import Record, Store
from aetdist.simulate import film_shape

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PIXEL = 0.5
ANGLES = np.array([[0.2 * (-1) ** i, t, 0.1] for i, t in enumerate(np.linspace(-60, 60, 31))])


def scan(folder: Path, atoms: xr.Dataset, field: tuple[int, int]) -> tuple[Path, dict[str, Any]]:
    """Simulate, scan and trace a field of a film."""
    tilts = aet.simulate_tilt_series(atoms, ANGLES, pixel_size=PIXEL, field=field, dose=1e5, seed=5)
    path = folder / "film.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", tilts, record=Record("simulate", {"seed": 5}), chunks={"tilt": 1})
    summary = pipeline.scan(path, window=(96, 64), overlap=40, thickness=56.0, iterations=16, solver="ordered_subsets")
    pipeline.trace(path)
    return path, summary


def atoms_in_the_middle(path: Path, truth: xr.Dataset, reach: float) -> dict[str, Any]:
    """Atoms with |x| <= reach, |y| <= 10 Angstrom against the true ones."""
    with Store.open(path) as store:
        found = store.read("atoms")
    box = np.array([reach, 10.0])
    parts = [a.isel(atom=(np.abs(a["position"].values[:, :2]) <= box).all(axis=1)) for a in (found, truth)]
    return aet.compare_atoms(*parts, tolerance=0.75).to_dict()


@pytest.fixture(scope="module")
def wavy(tmp_path_factory: pytest.TempPathFactory, client: Any) -> tuple[Path, xr.Dataset, dict[str, Any]]:
    """Thickness 22 to 34 Angstrom, height +- 9 Angstrom."""
    atoms = aet.amorphous_film((470.0, 60.0), 28.0, species=("Ta",), waviness=9.0, wavelength=160.0, wedge=18.0, seed=4)
    return *(result := scan(tmp_path_factory.mktemp("wavy"), atoms, (620, 64)))[:1], atoms, result[1]


def test_wavy_film__maps_are_right_to_3_angstrom(wavy: tuple[Path, xr.Dataset, dict[str, Any]]) -> None:
    """Height and thickness in every column of the field but its outermost 5 Angstrom."""
    path, atoms, _ = wavy
    with Store.open(path) as store:
        volume = store.read("volume")
    x, y = np.meshgrid(volume["map_x"].values, volume["map_y"].values)
    inside = (np.abs(x) < 150) & (np.abs(y) < 11)
    shape = film_shape(atoms)
    for name, truth in (("height", shape.height(x, y)), ("thickness", shape.thickness(x, y))):
        error = (volume[name].values - truth)[inside]
        assert np.abs(error).max() <= 3.0, name
        assert np.sqrt(np.mean(error**2)) <= 1.5, name


def test_wavy_film__atoms_are_as_good_as_those_of_a_small_film(
    wavy: tuple[Path, xr.Dataset, dict[str, Any]], tmp_path: Path
) -> None:
    """Its middle, and its whole width, against the same atoms as a small film, cut out of the middle."""
    path, atoms, summary = wavy
    assert summary["n_windows"] > 5
    small = atoms.isel(atom=np.abs(atoms["position"].values[:, 0]) < 55.0)
    small_path, _ = scan(tmp_path, small, (112, 64))
    narrow = atoms_in_the_middle(small_path, small, 18.0)
    assert narrow["f1"] > 0.97
    for reach in (18.0, 140.0):
        wide = atoms_in_the_middle(path, atoms, reach)
        assert wide["f1"] > narrow["f1"] - 0.01
        assert wide["rms"] < narrow["rms"] + 0.02
