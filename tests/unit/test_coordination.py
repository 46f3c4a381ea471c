"""Coordination numbers and chemical order: crystals whose order is known, none in a random alloy, a plain count."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist.analysis.coordination import bond_differences
from aetdist.analysis.surface import alpha_shape
from aetdist.errors import InputError


def lattice(repeats: int, edge: float, centred: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A simple or body-centred cubic crystal, slightly shaken, of two types by turns."""
    cell = np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    if centred:
        return np.concatenate([cell, cell + 0.5]) * edge, np.repeat([1, 2], len(cell))
    return cell * edge, cell.sum(axis=1) % 2 + 1


@pytest.fixture(scope="module")
def alloy() -> tuple[np.ndarray, np.ndarray]:
    """A random ball of three types at random."""
    rng = np.random.default_rng(0)
    points, _ = lattice(13, 2.6)
    points = points - points.mean(axis=0) + rng.normal(0, 0.4, points.shape)
    points = points[np.linalg.norm(points, axis=1) < 16]
    return points, rng.choice([1, 2, 3], len(points), p=[0.5, 0.3, 0.2])


def test_coordination__is_a_plain_count(alloy: tuple[np.ndarray, np.ndarray]) -> None:
    points, types = alloy
    order = np.where(np.arange(len(points)) % 5 == 0, 0.5, 0.49)
    order[3] = np.nan
    surface = np.linalg.norm(points, axis=1) > 13
    cells = aet.voronoi_indices(points)
    found = aet.coordination(points, types, order=order, surface=surface, cells=cells)
    central = [i for i in range(len(points)) if order[i] < 0.5 and not surface[i] and cells.n_faces[i] >= 0]
    np.testing.assert_array_equal(np.flatnonzero(found.central), central)
    assert found.attrs["central"] == len(central) > 300
    faces = list(zip(cells.face_atom.values, cells.face_neighbour.values, strict=True))
    np.testing.assert_array_equal(found.coordination, np.where(cells.n_faces < 0, np.nan, cells.n_faces))
    for a in (1, 2, 3):
        own = [i for i in central if types[i] == a]
        assert float(found.fraction.sel(type=a)) == len(own) / len(central)
        assert float(found.mean_coordination.sel(type=a)) == pytest.approx(np.mean(cells.n_faces.values[own]))
        for b in (1, 2, 3):
            bonds = [np.linalg.norm(points[i] - points[j]) for i, j in faces if i in own and types[j] == b]
            entry = {"type": a, "neighbour_type": b}
            assert float(found.mean_partial_coordination.sel(entry)) == pytest.approx(len(bonds) / len(own))
            assert float(found.bond_length.sel(entry)) == pytest.approx(np.mean(bonds))


def test_coordination__takes_atoms_or_arrays(alloy: tuple[np.ndarray, np.ndarray]) -> None:
    points, types = alloy
    atoms = xr.Dataset({"position": (("atom", "axis"), points, {"units": "angstrom"}), "type": ("atom", types)})
    assert aet.coordination(atoms).identical(aet.coordination(points, types))
    shape = aet.coordination(points, types, surface=5.0)
    on_shape = aet.coordination(points, types, surface=alpha_shape(points, 5.0).surface)
    assert shape.identical(on_shape)


@pytest.mark.parametrize(("centred", "like", "unlike"), [(False, 0, 6), (True, 6, 8)])
def test_warren_cowley__of_ordered_crystals(centred: bool, like: int, unlike: int) -> None:
    """Rock salt and caesium chloride: every number is known."""
    points, types = lattice(8, 3.2, centred)
    within = ((points > 4) & (points < points.max() - 4)).all(axis=1)
    counted = aet.coordination(points, types, surface=~within)
    np.testing.assert_array_equal(counted.mean_coordination, [like + unlike] * 2)
    np.testing.assert_allclose(counted.mean_partial_coordination, [[like, unlike], [unlike, like]])
    found = aet.warren_cowley(points, types, surface=~within)
    chance = (like + unlike) * counted.fraction.values
    np.testing.assert_allclose(
        found.alpha, [1 - np.array([like, unlike]) / chance, 1 - np.array([unlike, like]) / chance]
    )
    nearest = 3.2 * np.sqrt(3) / 2 if centred else 3.2
    np.testing.assert_allclose(counted.bond_length.values[0, 1], nearest)


def test_warren_cowley__random_species_have_none() -> None:
    points, _ = lattice(17, 2.6)
    rng = np.random.default_rng(4)
    points = points + rng.normal(0, 0.3, points.shape)
    cells = aet.voronoi_indices(points)
    off = []
    for _ in range(8):
        types = rng.choice([1, 2, 3], len(points), p=[0.45, 0.35, 0.2])
        found = aet.warren_cowley(points, types, cells=cells)
        assert (found.alpha_sigma < 0.05).all()
        off.append(found.alpha / found.alpha_sigma)
    assert np.abs(off).max() < 4.5
    assert 0.7 < np.std(off) < 1.4  # the standard errors are what they say


def test_warren_cowley__turned_and_permuted_atoms_have_the_same(alloy: tuple[np.ndarray, np.ndarray]) -> None:
    points, types = alloy
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    mixed = np.random.default_rng(2).permutation(len(points))
    one = aet.warren_cowley(points, types)
    other = aet.warren_cowley((points @ turn + 50.0)[mixed], types[mixed])
    np.testing.assert_allclose(other.alpha, one.alpha, atol=1e-10)
    assert one.attrs == other.attrs


def test_warren_cowley__no_central_atom_of_a_type(alloy: tuple[np.ndarray, np.ndarray]) -> None:
    points, types = alloy
    found = aet.warren_cowley(points, types, order=types == 3)
    assert np.isnan(found.alpha.values[2]).all()
    assert np.isnan(found.alpha.values[:, 2]).all()
    assert np.isfinite(found.alpha.values[:2, :2]).all()


def test_bond_differences__against_like_pairs() -> None:
    found = bond_differences([[2.6, 2.7], [2.75, 3.0]])
    np.testing.assert_allclose(found, [[0, -0.1], [-0.05, 0]], atol=1e-12)
    with pytest.raises(InputError, match="every pair"):
        bond_differences([2.6, 2.7])


def test_coordination__bad_input(alloy: tuple[np.ndarray, np.ndarray]) -> None:
    points, types = alloy
    with pytest.raises(InputError, match="no types"):
        aet.coordination(points)
    with pytest.raises(InputError, match="No atom has type 2"):
        aet.coordination(points, np.where(types == 2, 1, types))
    with pytest.raises(InputError, match="one type"):
        aet.warren_cowley(points, np.ones(len(points), int))
    with pytest.raises(InputError, match="order came"):
        aet.coordination(points, types, order=np.zeros(3))
    with pytest.raises(InputError, match="surface came"):
        aet.coordination(points, types, surface=np.zeros(len(points)))
    with pytest.raises(InputError, match="cells are not"):
        aet.coordination(points, types, cells=aet.voronoi_indices(points[:-1]))
