"""Amorphous films and particles: distances, density, surfaces, reproducibility."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from aetdist.errors import InputError
from aetdist.schema import ATOMS, check
from aetdist.simulate import amorphous_film, film_shape, nanoparticle
from aetdist.simulate.packing import drop_near_pairs


@pytest.fixture(scope="module")
def film():
    return amorphous_film((90.0, 40.0), 24.0, waviness=5.0, wavelength=80.0, wedge=10.0, seed=3)


def nearest_by_pair(atoms):
    positions, species = atoms["position"].values, atoms["species"].values
    pairs = cKDTree(positions).query_pairs(6.0, output_type="ndarray")
    distance = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    names = np.sort(np.stack([species[pairs[:, 0]], species[pairs[:, 1]]], axis=1), axis=1)
    return {
        (a, b): distance[(names == (a, b)).all(axis=1)].min() for a, b in (("Ni", "Ni"), ("Ni", "Pt"), ("Pt", "Pt"))
    }


def test_amorphous_film__is_a_valid_group_of_atoms_typed_by_atomic_number():
    atoms = amorphous_film((25.0, 25.0), 12.0, species=("Pt", "Ni"), seed=0)
    check(atoms, ATOMS)
    assert set(atoms["species"].values[atoms["type"].values == 1]) == {"Ni"}
    assert set(atoms["species"].values[atoms["type"].values == 2]) == {"Pt"}
    assert atoms["position"].attrs["units"] == "angstrom"


def test_amorphous_film__no_pair_is_nearer_than_0_92_of_the_sum_of_radii(film):
    nearest = nearest_by_pair(film)
    for pair, radii in ((("Ni", "Ni"), 2.48), (("Ni", "Pt"), 2.63), (("Pt", "Pt"), 2.78)):
        assert 0.92 * radii <= nearest[pair] < 1.0 * radii


def test_amorphous_film__keeps_a_given_distance_of_one_pair():
    atoms = amorphous_film((30.0, 30.0), 15.0, minimum_distance={("Pt", "Ni"): 2.7}, seed=1)
    assert nearest_by_pair(atoms)[("Ni", "Pt")] >= 2.7


def test_amorphous_film__has_the_density_asked_for_in_the_middle_and_near_the_surface(film):
    shape = film_shape(film)
    x, y, z = film["position"].values.T
    depth = (z - shape.height(x, y)) / (shape.thickness(x, y) / 2)
    inner, outer = (np.abs(depth) < 0.5).sum(), (np.abs(depth) >= 0.5).sum()
    assert inner == pytest.approx(outer, rel=0.06)
    asked = film.attrs["phantom_density_per_A3"]
    assert film.sizes["atom"] / shape.volume() == pytest.approx(asked, rel=0.06)
    assert 0.05 < asked < 0.09


def test_amorphous_film__lies_between_its_true_surfaces_and_reaches_them(film):
    shape = film_shape(film)
    positions = film["position"].values
    assert shape.contains(positions).all()
    assert shape.thickness(-45.0, 0.0) == pytest.approx(19.0) and shape.thickness(45.0, 0.0) == pytest.approx(29.0)
    assert shape.height(20.0, 0.0) == pytest.approx(5.0) and shape.height(20.0, 40.0) == pytest.approx(-5.0)
    for low in range(-40, 40, 10):  # within columns of 10 Angstrom: the extremes found are the surfaces
        x, y, z = positions[(positions[:, 0] >= low) & (positions[:, 0] < low + 10)].T
        above = z - shape.height(x, y)
        assert above.max() - above.min() == pytest.approx(float(shape.thickness(low + 5.0, 0.0)), abs=1.5)
        assert (above.max() + above.min()) / 2 == pytest.approx(0.0, abs=1.0)


def test_amorphous_film__has_no_crystal_peaks(film):
    # fcc and bcc have no pairs at 1.2 nearest distances and sharp ones at sqrt(2) or 2 / sqrt(3); a glass is smooth.
    positions = film["position"].values
    pairs = cKDTree(positions).query_pairs(9.0, output_type="ndarray")
    distance = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    counts, edges = np.histogram(distance, np.arange(3.2, 9.01, 0.1))
    middle = (edges[1:] + edges[:-1]) / 2
    shells = counts / middle**2
    shells = shells / shells[-20:].mean()
    assert 0.55 < shells.min() and shells.max() < 1.75


def test_amorphous_film__same_seed_same_film_other_seed_another():
    one, same, other = (amorphous_film((25.0, 20.0), 10.0, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one["position"], same["position"])
    np.testing.assert_array_equal(one["species"], same["species"])
    assert one.sizes["atom"] != other.sizes["atom"] or not np.allclose(one["position"], other["position"])


def test_amorphous_film__mixes_species_as_asked():
    atoms = amorphous_film((50.0, 50.0), 20.0, species=("Cu", "Zr"), fractions=(3, 1), seed=2)
    share = (atoms["species"].values == "Cu").mean()
    assert share == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / atoms.sizes["atom"]))


def test_nanoparticle__fills_its_sphere():
    atoms = nanoparticle(30.0, species=("Ta",), seed=4)
    radius = np.linalg.norm(atoms["position"].values, axis=1)
    assert radius.max() <= 15.0 and radius.max() > 14.7
    assert (radius < 15.0 / 2 ** (1 / 3)).sum() == pytest.approx(atoms.sizes["atom"] / 2, rel=0.12)
    assert cKDTree(atoms["position"].values).query(atoms["position"].values, 2)[0][:, 1].min() >= 0.92 * 2.92


def test_drop_near_pairs__keeps_one_of_each_forbidden_pair():
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [9.0, 0, 0]])
    keep = drop_near_pairs(positions, np.zeros(4, dtype=int), np.array([[1.5]]))
    np.testing.assert_array_equal(keep, [True, False, True, True])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extent": (0.0, 20.0)}, "extent came as 0"),
        ({"thickness": -3.0}, "thickness came as -3"),
        ({"thickness": float("nan")}, "thickness came as nan"),
        ({"wedge": 20.0}, "no film at the thin end"),
        ({"species": ("Ni", "Xx")}, "'Xx' is not a chemical element"),
        ({"species": ("ni",)}, "did you mean Ni"),
        ({"species": ("Ar",)}, "No metallic radius of Ar"),
        ({"species": "Ni"}, "sequence of different elements"),
        ({"species": ("Ni", "Ni")}, "sequence of different elements"),
        ({"fractions": (1.0,)}, "for each of 2 species"),
        ({"fractions": (0.0, 0.0)}, "for each of 2 species"),
        ({"density": 0.2}, "cannot be packed"),
        ({"minimum_distance": 0.0}, "minimum_distance came as"),
        ({"minimum_distance": {("Ni", "Au"): 2.5}}, "names Au"),
        ({"wavelength": 0.0}, "wavelength came as"),
    ],
)
def test_amorphous_film__refuses_bad_input(change, message):
    good = {"extent": (20.0, 20.0), "thickness": 10.0, "seed": 0}
    good |= change
    with pytest.raises(InputError, match=message):
        amorphous_film(good.pop("extent"), good.pop("thickness"), **good)


def test_film_shape__says_when_the_atoms_are_not_of_a_film():
    with pytest.raises(InputError, match="film_extent_A"):
        film_shape(nanoparticle(10.0, seed=0))
