"""Clusters of solute centres on lattices: planted ones are found, and the answer is a property of the sample."""

from __future__ import annotations

import dask
import numpy as np
import pytest

from aetdist.analysis.mro import find_mro, solute_centers
from aetdist.analysis.mro._invariant_kernels import fit
from aetdist.analysis.mro._steps import make_steps
from aetdist.analysis.mro.clusters import Cluster, Neighbours
from aetdist.analysis.mro.invariant import grow_candidates
from aetdist.analysis.mro.lattices import LATTICES, make_lattice, seed_pairs
from aetdist.analysis.mro.published import search_published, select_published
from aetdist.errors import InputError
from aetdist.neighbors import fit_rigid

RANGE = (3.858, 6.079)
ALL = (*LATTICES, "icosahedron")


def turn(seed: int) -> np.ndarray:
    """A random proper rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def packing(n_shells: float, seed: int) -> np.ndarray:
    """Random points in a ball, no two nearer than 3.2 Angstrom: a glass of solute centres."""
    random = np.random.default_rng(seed)
    kept = np.empty((0, 3))
    for point in random.uniform(-n_shells, n_shells, (3000, 3)):
        if np.linalg.norm(point) < n_shells and (np.linalg.norm(kept - point, axis=1) > 3.2).all():
            kept = np.vstack([kept, point])
    return kept


def grown(name: str, random: np.random.Generator) -> np.ndarray:
    """8 to 20 sites of a lattice, each beside one before, that no other lattice holds; of an icosahedron all 13."""
    lattice = make_lattice(name)
    while name != "icosahedron":
        got, count = [0], random.integers(8, 21)
        while len(got) < count:
            beside = lattice.neighbours[got].ravel()
            got.append(int(random.choice(beside[(beside >= 0) & ~np.isin(beside, got)])))
        sites = 4.7 * lattice.sites[got]
        # Two close-packed layers suit fcc and hcp, for instance: no search can tell which they are.
        others = [find_mro(sites, np.full(count, 3), lattices=(o,), tolerance=0.3) for o in ALL if o != name]
        if not any((other["size"] == count).any() for other in others):
            return lattice.sites[got]
    return lattice.sites


def planted(seed: int, compact: bool = False) -> tuple[np.ndarray, list[tuple[str, set[int]]]]:
    """Two clusters of every lattice, turned and moved by 0.2 Angstrom at random, in balls of a random packing.

    Compact ones are the 13 sites nearest to one.
    """
    random = np.random.default_rng(seed)
    points, truth = np.empty((0, 3)), []
    for i, name in enumerate(ALL * 2):
        sites = make_lattice(name).sites[:13] if compact else grown(name, random)
        cluster = 4.7 * sites @ turn(seed * 100 + i).T + random.normal(0, 0.2, sites.shape)
        cluster -= 0 if compact else cluster.mean(axis=0)
        rest = packing(14.0, seed * 100 + i)
        apart = np.linalg.norm(rest[:, None] - cluster, axis=2).min(axis=1) > 4.2
        truth.append((name, set(range(len(points), len(points) + len(cluster)))))
        points = np.concatenate([points, np.concatenate([cluster, rest[apart]]) + np.array([60.0 * i, 0, 0])])
    return points, truth


def n_found(points: np.ndarray, truth: list[tuple[str, set[int]]]) -> int:
    """How many planted clusters have three quarters of their centres in one cluster of their type."""
    found = found_sets(find_mro(points, np.full(len(points), 3), lattices=ALL))
    best = [max(found, key=lambda c: len(members & set(c[1]))) for _, members in truth]
    return sum(
        kind == name and len(members & set(own)) >= 0.75 * len(members)
        for (name, members), (kind, own) in zip(truth, best, strict=True)
    )


@pytest.fixture(scope="module")
def sample():
    return planted(1)


def found_sets(result, numbers=None) -> set[tuple[str, tuple[int, ...]]]:
    label = result["mro_label"].values
    numbers = np.arange(len(label)) if numbers is None else numbers
    members = [tuple(sorted(numbers[label == i].tolist())) for i in range(result.sizes["mro"])]
    return set(zip(result["mro_type"].values.tolist(), members, strict=True))


@pytest.mark.parametrize(
    ("name", "coordination", "kinds"), [("sc", 6, 1), ("bcc", 8, 2), ("fcc", 12, 5), ("hcp", 12, 21)]
)
def test_lattice__neighbours_are_one_apart_and_complete(name, coordination, kinds):
    lattice = make_lattice(name)
    inner = np.linalg.norm(lattice.sites, axis=1) < 4
    assert lattice.coordination == coordination
    assert (lattice.neighbours[inner] >= 0).all()
    distance = np.linalg.norm(lattice.sites[lattice.neighbours[inner]] - lattice.sites[inner][:, None], axis=2)
    np.testing.assert_allclose(distance, 1.0, atol=1e-12)
    assert len(seed_pairs(name)) == kinds  # ordered pairs over rotations: 24 / 24, 48 / 24, 120 / 24, 126 / 6
    counts = {"sc": (6, 12), "bcc": (8, 6), "fcc": (12, 6), "hcp": (12, 6)}[name]
    shells = np.unique(np.linalg.norm(lattice.sites, axis=1).round(6), return_counts=True)[1]
    assert tuple(shells[1:3]) == counts


def test_fit__is_that_of_kabsch_with_a_scale():
    random = np.random.default_rng(3)
    sites = make_lattice("hcp").sites
    for n in (3, 4, 9):
        occupied = random.choice(40, n, replace=False).astype(np.int32)
        points = 4.7 * sites[occupied] @ turn(n).T + random.normal(0, 0.3, (n, 3)) + 50
        pose = np.empty(14)
        fit(n, np.arange(n, dtype=np.int32), occupied, points, sites, pose)
        rotation = fit_rigid(sites[occupied], points).rotation
        s, x = sites[occupied] - sites[occupied].mean(axis=0), points - points.mean(axis=0)
        scale = np.sum(x * (s @ rotation.T)) / np.sum(s**2)
        np.testing.assert_allclose(pose[1:10].reshape(3, 3), rotation, atol=1e-9)
        np.testing.assert_allclose(pose[0], scale, rtol=1e-9)
        np.testing.assert_allclose(pose[13] ** 2 * n, np.sum((x - scale * s @ rotation.T) ** 2), rtol=1e-6, atol=1e-9)


def test_find_mro__planted_clusters(sample):
    points, truth = sample
    assert n_found(points, truth) >= 0.95 * len(truth)


def test_find_mro__planted_compact_clusters_are_found_whole():
    points, truth = planted(1, compact=True)
    found = found_sets(find_mro(points, np.full(len(points), 3), lattices=ALL))
    for name, members in truth:
        best = max(found, key=lambda c: len(members & set(c[1])))
        assert best[0] == name
        assert members <= set(best[1])
        assert len(best[1]) <= len(members) + 5  # what chance adds


@pytest.mark.slow
def test_find_mro__planted_clusters_of_twenty_samples():
    found = [n_found(*planted(seed)) for seed in range(100, 120)]
    assert sum(found) >= 0.95 * 10 * len(found)


def test_find_mro__every_centre_near_its_site_and_in_one_cluster(sample):
    points, _ = sample
    result = find_mro(points, np.full(len(points), 3))
    inside = np.isfinite(result["mro_label"].values)
    label = result["mro_label"].values[inside].astype(int)
    site = result["site"].values[inside]
    at = result["shift"].values[label] + np.einsum(
        "m,mij,mj->mi", result["scale"].values[label], result["rotation"].values[label], site
    )
    distance = np.linalg.norm(points[inside] - at, axis=1)
    np.testing.assert_allclose(distance, result["deviation"].values[inside], atol=1e-9)
    assert distance.max() <= 0.75
    np.testing.assert_array_equal(np.bincount(label), result["size"].values)
    weight = result["size"].values * (1 - (result["rms"].values / 0.75) ** 2)
    assert (np.diff(weight) <= 1e-5).all()
    assert all(result[name].attrs["units"] for name in result.data_vars)
    for i in range(result.sizes["mro"]):  # connected over nearest sites
        own, atoms = site[label == i], points[inside][label == i]
        apart = np.linalg.norm(own[:, None] - own, axis=2)
        length = np.linalg.norm(atoms[:, None] - atoms, axis=2)
        bond = (np.abs(apart - 1) < 1e-6) & (length >= RANGE[0]) & (length <= RANGE[1])
        reached = np.linalg.matrix_power(bond + np.eye(len(own)), len(own)) > 0
        assert reached.all()


@pytest.mark.parametrize("seed", range(4))
def test_find_mro__the_same_for_a_turned_mirrored_and_renumbered_sample(sample, seed):
    points, _ = sample
    points, types = points[:500], np.full(500, 3)
    random = np.random.default_rng(seed)
    order = random.permutation(len(points))
    mirror = np.diag([1.0, 1.0, -1.0 if seed % 2 else 1.0])
    moved = (points @ (turn(seed) @ mirror).T + random.normal(0, 30, 3))[order]
    assert found_sets(find_mro(points, types)) == found_sets(find_mro(moved, types), order)


def test_search__any_blocks_and_threads(sample):
    points = sample[0][:250]
    neighbours = Neighbours.within(points, RANGE)

    def keys(found):
        parts = (np.split(values, found.first[1:-1]) for values in (found.members, found.sites))
        return [(k, a.tolist(), b.tolist()) for k, a, b in zip(found.lattice.tolist(), *parts, strict=True)]

    with dask.config.set(scheduler="synchronous"):
        whole = grow_candidates(points, neighbours, ("fcc", "hcp"), RANGE, 0.75)
        published = search_published(points, neighbours, ("fcc",), RANGE, 0.75, block=250)
    assert sorted(keys(whole)) == sorted(
        keys(grow_candidates(points, neighbours, ("fcc", "hcp"), RANGE, 0.75, block=37))
    )
    parts = search_published(points, neighbours, ("fcc",), RANGE, 0.75, block=41)
    assert [c.members.tolist() for c in published] == [c.members.tolist() for c in parts]
    assert [c.rms for c in published] == [c.rms for c in parts]


def test_solute_centers__counts(sample):
    points = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 9], [2, 0, 0]], dtype=float)
    result = solute_centers(points, [3, 3, 3, 3, 1], order=[0.1, np.nan, 0.6, 0.2, 0.1])
    assert result["solute_center"].values.tolist() == [True, True, False, False, False]
    assert result["n_solute_neighbours"].values.tolist() == [1, 1, 0, 0, 0]
    assert result.attrs["fraction"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solute": 4}, "No atom is of type 4"),
        ({"distance": (6.0, 4.0)}, "distance came as"),
        ({"distance": (0.0, 4.0)}, "distance came as"),
        ({"tolerance": 2.0}, "half the shortest"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"convention": "yang"}, "convention came as"),
        ({"lattices": ("fcc", "diamond")}, "lattices came as"),
        ({"lattices": ()}, "lattices came as none"),
        ({"order": np.zeros(3)}, "order came with shape"),
        ({"types": np.ones(2)}, "Types came with shape"),
        ({"types": None}, "have no types"),
    ],
)
def test_find_mro__bad_input(options, message):
    points = np.arange(15.0).reshape(5, 3) * 2
    types = options.pop("types", np.full(5, 3))
    with pytest.raises(InputError, match=message):
        find_mro(points, types, **options)


def test_find_mro__none_there():
    points = np.array([[0, 0, 0], [5, 0, 0.0]])
    result = find_mro(points, [3, 3])
    assert result.sizes["mro"] == 0
    assert np.isnan(result["mro_label"]).all()


def test_make_steps__hcp_as_adding_the_vectors_in_their_order():
    lattice = make_lattice("hcp")
    steps, stands = make_steps("hcp")
    plane = lattice.sites[lattice.neighbours[0]]
    plane = plane[np.abs(plane[:, 2]) < 1e-6]
    up = np.array([(0.5, np.sqrt(1 / 12), np.sqrt(2 / 3)), (-0.5, np.sqrt(1 / 12), np.sqrt(2 / 3)),
                   (0.0, -np.sqrt(1 / 3), np.sqrt(2 / 3))])  # fmt: skip
    vectors = np.concatenate([up, up * (1, 1, -1), plane])
    random = np.random.default_rng(0)
    for _ in range(50):
        counts, state = np.zeros(12, dtype=int), 0
        for k in random.integers(0, 12, 6):
            counts[k] += 1
            state = steps[state, k]
            site, y = np.zeros(3), 1
            for vector, times in zip(vectors, counts, strict=True):
                for _ in range(times):
                    site += vector * (1, y if vector[2] else 1, 1)
                    y = -y if vector[2] else y
            assert np.allclose(lattice.sites[stands[state]], site)


def test_make_steps__a_step_on_hcp_need_not_lead_to_a_neighbour():
    steps, stands = make_steps("hcp")
    sites = make_lattice("hcp").sites
    length = np.linalg.norm(sites[stands[steps[steps[0, 2]]]] - sites[stands[steps[0, 2]]], axis=1)
    assert length.max() > 1.5
    assert np.allclose(np.linalg.norm(sites[stands[steps[0]]], axis=1), 1)


@pytest.mark.parametrize(
    ("removal", "other", "expected"),
    [
        ("yang2021", False, [1, 3, 4]),  # centre 0 is cut instead of 2, over which 1 still holds
        ("yang2021", True, [3, 4]),  # one cluster later it does not
        ("yang2021-corrected", False, [0, 1]),
        ("yang2021-corrected", True, [0, 1]),
    ],
)
def test_select_published__what_is_left_of_a_row(removal, other, expected):
    points = np.array(
        [(i, 0, 0) for i in range(5)] + [(2, i, 0) for i in range(1, 6)] + [(0, 0, i) for i in range(1, 5)]
    )
    sites = make_lattice("sc").sites

    def cluster(*members):
        at = [int(np.argmin(np.linalg.norm(sites - points[k], axis=1))) for k in members]
        return Cluster("sc", np.array(members), np.array(at), 1.0, np.eye(3), np.zeros(3), 0.0)

    found = [cluster(0, 1, 2, 3, 4), cluster(2, 5, 6, 7, 8, 9)]
    if other:
        found.append(cluster(10, 11, 12, 13))
    chosen = [c.members.tolist() for c in select_published(points.astype(float), found, removal)]
    assert chosen[0] == [2, 5, 6, 7, 8, 9]
    assert chosen[1 + other] == expected


def test_select_published__ties_by_the_rms_of_what_is_left():
    sites = make_lattice("sc").sites
    points = np.array([(i, 0, 0) for i in range(9)] + [(i, 3, 0) for i in range(3)], dtype=float)
    points[8, 1] = 0.3
    points[9:, 1] += 0.1

    def cluster(*members):
        at = [int(np.argmin(np.linalg.norm(sites - points[k], axis=1))) for k in members]
        left = np.linalg.norm(points[list(members)] - sites[at], axis=1)
        return Cluster(
            "sc", np.array(members), np.array(at), 1.0, np.eye(3), np.zeros(3), float(np.sqrt((left**2).mean()))
        )

    found = [cluster(9, 10, 11), cluster(5, 6, 7, 8), cluster(0, 1, 2, 3, 4, 8)]
    chosen = select_published(points, found, "yang2021-corrected")
    assert [c.members.tolist() for c in chosen] == [[0, 1, 2, 3, 4, 8], [5, 6, 7], [9, 10, 11]]
    assert [round(c.rms, 9) for c in chosen[1:]] == [0.0, 0.1]
