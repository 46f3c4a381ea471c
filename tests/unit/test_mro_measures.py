"""What clusters measure, and how many chance gives: small samples whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import cdist

from aetdist.analysis.mro import (
    centre_distances,
    find_mro,
    mro_errors,
    mro_significance,
    mro_sizes,
    shared_atoms,
    tolerance_table,
    zone_axes,
)
from aetdist.analysis.mro.lattices import make_lattice
from aetdist.analysis.mro.surrogates import random_places, shuffled
from aetdist.errors import InputError
from aetdist.report.mro import draw_largest_mros, draw_mro_map, draw_mro_measures, draw_mro_sizes
from aetdist.report.style import png


@pytest.fixture(scope="module")
def atoms():
    """A glass of two types with an fcc cluster of the second in the middle, its cube axis along z."""
    random = np.random.default_rng(5)
    cluster = 4.7 * make_lattice("fcc").sites[:13] + random.normal(0, 0.05, (13, 3))
    rest = random.uniform(-14, 14, (4000, 3))
    kept = cluster
    for point in rest:
        if np.linalg.norm(kept - point, axis=1).min() > 2.4:
            kept = np.vstack([kept, point])
    types = np.where(random.uniform(size=len(kept)) < 0.1, 3, 1)
    types[:13] = 3
    return xr.Dataset({"position": (("atom", "axis"), kept), "type": ("atom", types)})


@pytest.fixture(scope="module")
def mro(atoms):
    return find_mro(atoms)


def test_mro_sizes__cluster_of_known_atoms(mro):
    label = np.full(8, np.nan)
    label[[0, 1]] = 0
    one = xr.Dataset({"mro_label": ("atom", label), "mro_type": ("mro", np.array(["fcc"]))})
    position = np.zeros((8, 3))
    position[:, 0] = np.arange(8) * 3.0
    sizes = mro_sizes(one, position, np.array([[0, 2], [3, 1], [1, 2]]), np.array([10, 20, 30, 500, 1, 1, np.nan, 20]))
    assert float(sizes["length"][0]) == 9.0
    assert int(sizes["n_atoms"][0]) == 4
    assert float(sizes["volume"][0]) == 10 + 20 + 30 + 15  # the median of 10, 20, 30, 1, 1, 20
    with pytest.raises(InputError, match="one of"):
        mro_sizes(one, position, np.array([[0, 2]]), np.ones(3))
    with pytest.raises(InputError, match="Neighbours name"):
        mro_sizes(one, position, np.array([[0, 9]]), np.ones(8))


def test_shared_atoms__equals_pairwise_intersections():
    random = np.random.default_rng(0)
    position = random.uniform(0, 12, (120, 3))
    pairs = np.argwhere(np.triu(cdist(position, position) < 3.5, 1))
    centers = random.uniform(size=120) < 0.3
    clusters = {i: {i, *pairs[pairs[:, 0] == i, 1], *pairs[pairs[:, 1] == i, 0]} for i in np.flatnonzero(centers)}
    apart = cdist(position, position)
    shared = [len(clusters[i] & clusters[j]) for i in clusters for j in clusters if i < j and 2.0 <= apart[i, j] <= 5.0]
    expected = [shared.count(k) for k in range(1, 6)]
    assert sum(expected) > 20
    np.testing.assert_array_equal(shared_atoms(centers, pairs, position, distance=(2.0, 5.0)), expected)
    np.testing.assert_array_equal(shared_atoms(centers, pairs[:, ::-1], position, distance=(2.0, 5.0)), expected)


def test_zone_axes__follow_the_sample(atoms, mro):
    first = int(np.argmax(mro["size"].values))
    assert mro["mro_type"].values[first] == "fcc"
    axes = zone_axes(mro)
    assert axes["zone_axis"].values[first] == "100"
    assert float(axes["tilt"][first]) < 3
    assert zone_axes(mro, (1, 1, 1))["zone_axis"].values[first] == "111"
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    turned = zone_axes(find_mro(atoms["position"].values @ turn.T, atoms["type"].values), turn @ (0, 0, 1))
    np.testing.assert_allclose(turned["tilt"], axes["tilt"], atol=1e-6)
    with pytest.raises(InputError, match="direction"):
        zone_axes(mro, (0, 0, 0))


def test_centre_distances__first_peak_of_fcc(atoms, mro):
    result = centre_distances(mro, atoms)
    assert abs(float(result["first_peak"].sel(mro_type="fcc")) - 4.7) < 0.25
    assert float(result["g"].max()) == 1.0


def test_tolerance_table__rows_are_those_of_find_mro(atoms, mro):
    table = tolerance_table(atoms, tolerances=(0.5, 0.75))
    for kind in table["mro_type"].values:
        assert int(table["count"].sel(largest_deviation=0.75, mro_type=kind)) == np.count_nonzero(
            mro["mro_type"] == kind
        )
    assert int(table["centres"].sel(largest_deviation=0.75).sum()) == int(mro["size"].sum())


def test_mro_errors__nothing_changes_without_errors(atoms):
    still = mro_errors(atoms, sigma=0.0, samples=2)
    np.testing.assert_array_equal(still["stay"], 1.0)
    np.testing.assert_array_equal(still["error"], 0.0)
    moved = atoms.assign(position_sigma=(("atom", "axis"), np.full((atoms.sizes["atom"], 3), 0.3)))
    first = mro_errors(moved, samples=3, seed=4)
    assert float(first["stay"].min()) < 1.0
    np.testing.assert_array_equal(first["sample_count"], mro_errors(moved, samples=3, seed=4)["sample_count"])
    with pytest.raises(InputError, match="No sigma"):
        mro_errors(atoms)
    with pytest.raises(InputError, match="sigma came with shape"):
        mro_errors(atoms, sigma=np.ones(3))


def test_surrogates__keep_what_they_say(atoms):
    random = np.random.default_rng(1)
    kind, position = atoms["type"].values, atoms["position"].values
    order = np.where(np.arange(len(kind)) < 13, 1.0, 0.0)
    drawn = shuffled(kind, order, random)
    np.testing.assert_array_equal(drawn[:13], kind[:13])
    np.testing.assert_array_equal(np.bincount(drawn), np.bincount(kind))
    assert (drawn != kind).any()
    centres = position[kind == 3]
    places = random_places(position, centres, random)
    assert places.shape == centres.shape
    apart = cdist(places, places) + 99 * np.eye(len(places))
    smallest = (cdist(centres, centres) + 99 * np.eye(len(centres))).min()
    assert apart.min() >= smallest
    assert cdist(places, position).min(axis=1).max() <= 1.4


@pytest.mark.parametrize("surrogate", ["labels", "packing"])
def test_mro_significance__a_planted_cluster_is_more_than_chance(atoms, mro, surrogate):
    result = mro_significance(atoms, surrogate=surrogate, samples=4, seed=2)
    assert int(result["total"].sel(mro_type="all")) == mro.sizes["mro"]
    assert int(result["count"].sel(mro_type="all").sum()) == mro.sizes["mro"]
    large = result.sel(mro_type="all", size=slice(13, None))
    assert int(large["count"].sum()) == 1
    assert float(large["expected"].sum()) == 0.0
    again = mro_significance(atoms, surrogate=surrogate, samples=4, seed=2)
    np.testing.assert_array_equal(result["surrogate_count"], again["surrogate_count"])


def test_mro_significance__a_surrogate_is_chance(atoms):
    drawn = atoms.copy()
    drawn["type"] = ("atom", shuffled(atoms["type"].values, None, np.random.default_rng(77)))
    result = mro_significance(drawn, samples=19, seed=3)
    assert float(result["p_value"].sel(mro_type="all")) > 0.05
    assert abs(float(result["z_score"].sel(mro_type="all"))) < 3


def test_mro_significance__bad_input(atoms):
    with pytest.raises(InputError, match="surrogate came as"):
        mro_significance(atoms, surrogate="none")
    with pytest.raises(InputError, match="samples came as"):
        mro_significance(atoms, samples=1)


def test_pictures__drawn_and_refused(atoms, mro):
    sizes = xr.Dataset({"length": ("mro", np.ones(mro.sizes["mro"])), "volume": ("mro", np.ones(mro.sizes["mro"]))})
    significance = mro_significance(atoms, samples=2)
    for figure in (
        draw_mro_sizes(mro, significance),
        draw_mro_map(atoms, mro),
        draw_largest_mros(atoms, mro, theme="dark"),
        draw_mro_measures(mro, sizes, centre_distances(mro, atoms)),
    ):
        assert png(figure, dpi=50).startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no clusters"):
        draw_mro_sizes(mro.isel(mro=slice(0, 0)))
