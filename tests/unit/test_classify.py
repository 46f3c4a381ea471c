from __future__ import annotations

import itertools

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from aetdist import schema
from aetdist.classify import classify_atoms, species
from aetdist.classify._kernels import pattern_rule
from aetdist.classify.kmeans import kmeans_1d
from aetdist.classify.patterns import atom_patterns
from aetdist.classify.species import agree_locally, separation, whitened
from aetdist.errors import InputError
from aetdist.project.atoms import render_atoms
from aetdist.simulate import nanoparticle

VOXEL = 0.35
HEIGHTS = np.array([28.0, 45.0, 78.0])


def as_atoms(position, **variables):
    atoms = xr.Dataset({"position": (("atom", "axis"), np.asarray(position, dtype=float).reshape(-1, 3))})
    return atoms.assign({name: ("atom", value) for name, value in variables.items()})


def volume_of(position, heights, shape, sigma=0.5):
    x, y, z = ((np.arange(n) - n // 2) * VOXEL for n in shape[::-1])
    density = render_atoms(position, heights=heights, sigmas=sigma, x=x, y=y, z=z, pixel_size=VOXEL)
    return xr.Dataset({"density": (("z", "y", "x"), density)}, coords={"z": z, "y": y, "x": x})


@pytest.fixture(scope="module")
def particle():
    """A particle of three species, its noisy volume, and peaks of which some are none, in random order."""
    rng = np.random.default_rng(0)
    truth = nanoparticle(24.0, species=("Ni", "Rh", "Pt"), seed=3)
    volume = volume_of(truth["position"].values, HEIGHTS[truth["type"].values - 1], (96, 90, 92))
    volume["density"] = volume["density"] + rng.normal(0, 2.0, volume["density"].shape).astype(np.float32)
    none = rng.uniform(-14, 14, (900, 3))
    gap = np.linalg.norm(none[:, None] - truth["position"].values, axis=2).min(axis=1)
    none = none[gap > 1.9]
    position = np.concatenate([truth["position"].values, none])
    types = np.concatenate([truth["type"].values, np.zeros(len(none), dtype=np.int64)])
    order = rng.permutation(len(types))
    assert (types == 0).sum() > 300
    return volume, position[order], types[order]


def test_classify__types_and_non_atoms(particle):
    volume, position, types = particle
    result = classify_atoms(volume, as_atoms(position, intensity=np.arange(float(len(position)))), species=3)
    schema.check(result, schema.ATOMS)
    expected = position[types > 0]
    np.testing.assert_array_equal(result["position"], expected)
    np.testing.assert_array_equal(result["intensity"], np.flatnonzero(types > 0))
    np.testing.assert_array_equal(result["type"], types[types > 0])
    assert result["type"].dtype == np.int64 and result["position"].attrs["units"] == "angstrom"
    np.testing.assert_array_equal(result["atom"], np.arange(len(expected)))
    assert result.attrs["n_types"] == np.bincount(types)[1:].tolist()
    assert result.attrs["n_non_atoms"] == (types == 0).sum()
    assert result.attrs["converged"] and result.attrs["type_intensity"] == sorted(result.attrs["type_intensity"])
    means = [result["box_intensity"].values[result["type"] == t].mean() for t in (1, 2, 3)]
    np.testing.assert_allclose(result.attrs["type_intensity"], means)


def test_classify__a_bad_start_of_k_means_would_lose_the_lightest_type(particle):
    """Lloyd's iteration from some starts takes types 1 and 0 for one class; ours has no start."""
    volume, position, types = particle
    order, parts = atom_patterns(volume, position)
    intensity = np.empty(len(position))
    intensity[order] = np.concatenate(parts) @ pattern_rule(0.8 / VOXEL)[1]
    bad = np.quantile(intensity[types == 3], [0.1, 0.5, 0.9])
    means = np.array([intensity[types < 2].mean(), *bad])
    for _ in range(100):
        labels = np.argmin(np.abs(intensity[:, None] - means), axis=1)
        means = np.array([intensity[labels == k].mean() for k in range(4)])
    assert (labels == types).mean() < 0.8  # the trap is real
    assert (kmeans_1d(intensity, 4)[0] == types).all()
    found = classify_atoms(volume, as_atoms(position))
    assert found.attrs["n_types"] == np.bincount(types)[1:].tolist()


@pytest.mark.parametrize("n_none", [0, 3])
def test_classify__hardly_any_non_atoms(particle, n_none):
    """A class of its own for them would take a type's place."""
    volume, position, types = particle
    kept = np.sort(np.concatenate([np.flatnonzero(types > 0), np.flatnonzero(types == 0)[:n_none]]))
    result = classify_atoms(volume, as_atoms(position[kept]))
    assert result.attrs["n_types"] == np.bincount(types)[1:].tolist()
    assert result.attrs["n_non_atoms"] == n_none


def test_separation__of_types_that_differ_and_of_one_that_is_parted():
    rng = np.random.default_rng(5)
    apart = np.concatenate([rng.normal(10, 1, 5000), rng.normal(18, 1, 5000)])
    np.testing.assert_allclose(separation(apart, np.arange(10000) // 5000, 2), [8.0], rtol=0.03)
    normal, even = rng.normal(10, 2, 20000), rng.uniform(0, 1, 20000)
    for one, expected in ((normal, 2 / np.sqrt(np.pi / 2 - 1)), (even, 2 * np.sqrt(3))):
        np.testing.assert_allclose(separation(one, (one > one.mean()).astype(int), 2), [expected], rtol=0.03)
    assert np.isnan(separation(even, np.zeros(20000, int), 2)).all()


def test_classify__where_intensity_changes_from_place_to_place(particle):
    """The thickness or the missing wedge scales the density: the types around decide."""
    volume, position, types = particle
    position, types = position[types > 0], types[types > 0]
    ramp = 1 + 0.45 * volume["x"] / 12
    sloped = volume.assign(density=(volume["density"] * ramp).astype(np.float32))
    overall = classify_atoms(sloped, as_atoms(position), radius=0)
    local = classify_atoms(sloped, as_atoms(position), radius=8)
    assert overall.sizes["atom"] == local.sizes["atom"] == len(types)
    right = [(r["type"].values == types).mean() for r in (overall, local)]
    assert right[0] < 0.9 and right[1] > right[0] + 0.05
    assert overall.attrs["iterations"] == 0 and local.attrs["iterations"] > 1


def test_classify__one_species(particle):
    volume, position, types = particle
    only = types == 2
    result = classify_atoms(volume, as_atoms(position[only]), species=1)
    assert (result["type"] == 1).all() and result.attrs["n_types"] == [only.sum()]


def test_classify__two_types_of_one_atom_each():
    position = [[-2.0, 0, 0], [2.0, 0, 0]]
    volume = volume_of(position, [50.0, 30.0], (20, 20, 30))
    assert classify_atoms(volume, as_atoms(position), species=2)["type"].values.tolist() == [2, 1]


def test_classify__order_and_unit_do_not_matter(particle):
    volume, position, _ = particle
    expected = classify_atoms(volume, as_atoms(position))
    order = np.random.default_rng(1).permutation(len(position))
    scaled = volume.assign(density=volume["density"] * 1024)
    moved = scaled.assign_coords(x=scaled["x"] + 5, z=scaled["z"] - 7)
    found = classify_atoms(moved, as_atoms(position[order] + [5, 0, -7]))
    assert found.attrs["n_types"] == expected.attrs["n_types"]
    by_place = [np.lexsort(np.round(r["position"].values.T, 6)) for r in (expected, found)]
    np.testing.assert_array_equal(
        expected["type"].values[np.argsort(expected["position"].values[:, 0])],
        found["type"].values[np.argsort(found["position"].values[:, 0])],
    )
    assert len(by_place[0]) == len(by_place[1])
    assert found.attrs["threshold"] == pytest.approx(1024 * expected.attrs["threshold"], rel=1e-4)


def test_classify__minimum_distance_for_each_pair_of_types():
    """A chain 1.8 apart of types 2 1 2 2, and its like 2.6 apart."""
    x = np.array([-9.0, -7.2, -5.4, -3.6, 1.0, 3.6, 6.2])
    types = np.array([2, 1, 2, 2, 2, 1, 2])
    position = np.stack([x, 0 * x, 0 * x], axis=1)
    heights = np.array([20.0, 60.0])[types - 1] + np.arange(7) * 0.5  # of equal types the last is the strongest
    volume = volume_of(position, heights, (24, 24, 70), sigma=0.35)

    def kept(distances):
        options = {"species": 2, "sigma": 0.0, "radius": 0, "minimum_distance": distances}
        return classify_atoms(volume, as_atoms(position), **options)["position"].values[:, 0].tolist()

    assert kept(None) == x.tolist()
    assert kept([[0, 0], [0, 2.0]]) == x[[0, 1, 3, 4, 5, 6]].tolist()
    assert kept([[0, 2.0], [2.0, 0]]) == x[[0, 2, 3, 4, 5, 6]].tolist()
    assert kept([[0, 1.9], [1.9, 1.9]]) == x[[0, 3, 4, 5, 6]].tolist()
    assert kept(3.0) == x[[0, 3, 4, 6]].tolist()


def test_patterns__equal_scipys_spline():
    rng = np.random.default_rng(2)
    density = rng.random((20, 22, 24)).astype(np.float32)
    axes = {a: (np.arange(n) - n // 2) * VOXEL for a, n in zip("zyx", density.shape, strict=True)}
    volume = xr.Dataset({"density": (("z", "y", "x"), density)}, coords=axes)
    # Anywhere, on the outermost voxels, and half a voxel beyond.
    place = np.concatenate([rng.uniform(0, [23, 21, 19], (40, 3)), [[0, 0, 0], [23, 21, 19], [-0.5, 21.5, 10]]])
    position = place * VOXEL + [axes["x"][0], axes["y"][0], axes["z"][0]]
    for sigma in (0.0, 1.0):
        order, parts = atom_patterns(volume, position, sigma=sigma, box=0.8)
        smooth = gaussian_filter(density.astype(float), sigma, mode="mirror", truncate=8) if sigma else density
        nodes = np.polynomial.legendre.leggauss(3)[0] * 0.4 / VOXEL
        box = np.array(list(itertools.product(nodes, nodes, nodes)))
        points = place[order][:, ::-1][:, None] + box
        coefficients = spline_filter(smooth.astype(float), 3, mode="mirror")
        expected = map_coordinates(coefficients, points.reshape(-1, 3).T, order=3, mode="mirror", prefilter=False)
        np.testing.assert_allclose(np.concatenate(parts).ravel(), expected, atol=2e-5)


def test_pattern_rule__is_the_integral_over_the_box():
    nodes, weights = pattern_rule(2.0)
    z, y, x = (a.ravel() for a in np.meshgrid(nodes, nodes, nodes, indexing="ij"))
    assert weights.sum() == pytest.approx(1)
    for a, b, c in itertools.product(range(6), repeat=3):
        exact = np.prod([0.0 if p % 2 else 1 / (p + 1) for p in (a, b, c)])
        assert weights @ (z**a * y**b * x**c) == pytest.approx(exact, abs=1e-12)


def plain_k_means(x, k):
    """The best of all ways to cut sorted numbers into k intervals."""
    ordered = np.sort(x)
    best, cuts = np.inf, None
    for c in itertools.combinations(range(1, len(x)), k - 1):
        cost = sum(((p - p.mean()) ** 2).sum() for p in np.split(ordered, c))
        if cost < best - 1e-12:
            best, cuts = cost, c
    return best, [p.mean() for p in np.split(ordered, cuts)]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_kmeans__equals_trying_all(k, seed):
    x = np.random.default_rng(seed).normal(0, 1, 14) ** 3 + 100
    labels, means = kmeans_1d(x, k)
    cost, expected = plain_k_means(x, k)
    assert ((x - means[labels]) ** 2).sum() == pytest.approx(cost, rel=1e-9)
    np.testing.assert_allclose(means, expected)
    np.testing.assert_allclose(means, [x[labels == c].mean() for c in range(k)])


def test_kmeans__many_numbers():
    """More than are taken one by one; unequal classes."""
    rng = np.random.default_rng(5)
    truth = rng.choice(3, 40_000, p=[0.6, 0.3, 0.1])
    x = np.array([1.0, 5.0, 9.0])[truth] + rng.normal(0, 0.5, truth.size)
    labels, means = kmeans_1d(x, 3)
    assert (labels == truth).mean() > 0.999
    # Nothing is nearer to another class.
    np.testing.assert_array_equal(np.argmin(np.abs(x[:, None] - means), axis=1), labels)


def test_kmeans__equal_numbers():
    labels, means = kmeans_1d([2.0, 1.0, 2.0, 1.0, 2.0], 2)
    assert labels.tolist() == [1, 0, 1, 0, 1] and means.tolist() == [1.0, 2.0]
    labels, means = kmeans_1d(np.repeat([1.0, 2.0, 7.0], [5000, 3, 2]), 3)
    assert np.bincount(labels).tolist() == [5000, 3, 2] and means == pytest.approx([1.0, 2.0, 7.0])
    with pytest.raises(InputError, match="3 classes of 2 different"):
        kmeans_1d([1.0, 2.0, 2.0], 3)


def plain_agreement(position, pattern, types, radius, rounds, prior):
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    near = (distance <= radius) & ~np.eye(len(position), dtype=bool)
    k = types.max() + 1
    for _ in range(rounds):
        new = np.empty_like(types)
        overall = [pattern[types == t].mean(axis=0) for t in range(k)]
        for i in range(len(position)):
            norms = []
            for t in range(k):
                members = pattern[near[i] & (types == t)]
                mean = (members.sum(axis=0) + prior * overall[t]) / (len(members) + prior)
                norms.append(np.linalg.norm(pattern[i] - mean))
            new[i] = int(np.argmin(norms))
        if np.array_equal(new, types):
            break
        types = new
    return types


@pytest.mark.parametrize("radius", [1.5, 4.0, 100.0])
def test_agree_locally__equals_a_plain_loop(radius):
    rng = np.random.default_rng(7)
    position = rng.uniform(0, 15, (300, 3)) * [1, 0.6, 0.3]
    truth = rng.integers(0, 3, 300)
    pattern = np.array([1.0, 2.0, 3.0])[truth, None] * (1 + 0.05 * position[:, :1]) + rng.normal(0, 0.2, (300, 5))
    start = kmeans_1d(pattern.mean(axis=1), 3)[0]
    found, rounds, converged = agree_locally(position, pattern, start, radius)
    expected = plain_agreement(position, pattern, start, radius, rounds, species.PRIOR)
    assert converged and (rounds > 1 or radius > 50)
    np.testing.assert_array_equal(found, expected)


def test_agree_locally__a_circle_ends_with_its_best_state(monkeypatch):
    """Two near atoms that take each other's type for ever."""
    monkeypatch.setattr(species, "PRIOR", 1e-12)
    monkeypatch.setattr(species, "_overall", lambda pattern, types, k: np.array([[50.0], [100.0]]))
    position = np.array([[0.0, 0, 0], [1.0, 0, 0], [1.0, 1, 0], [0.5, 1, 0]])
    pattern = np.array([[1.0], [1.3], [40.0], [41.0]])
    states, types = [], np.array([0, 1, 0, 0])
    distance = np.linalg.norm(position[:, None] - position, axis=2)
    for _ in range(6):
        new, total = types.copy(), 0.0
        for i in range(4):
            norms = []
            for t, everywhere in enumerate((50.0, 100.0)):
                members = (types == t) & (distance[i] <= 5) & (np.arange(4) != i)
                norms.append(abs(pattern[i, 0] - (pattern[members].mean() if members.any() else everywhere)))
            new[i], total = int(np.argmin(norms)), total + min(norms)
        states.append((total, types.tolist()))
        types = new
    assert states[-1] == states[-3] != states[-2]  # a circle of two
    found, rounds, converged = agree_locally(position, pattern, np.array([0, 1, 0, 0]), 5.0)
    assert not converged and rounds < 10
    assert found.tolist() == min(states[-2:])[1]


def test_whitened__residuals_have_unit_spread():
    rng = np.random.default_rng(3)
    types = rng.integers(0, 2, 5000)
    pattern = rng.normal(0, 1, (5000, 3)) @ np.array([[3.0, 1, 0], [0, 0.5, 0], [0, 0, 2]]) + 10 * types[:, None]
    white = whitened(pattern, types)
    residual = white - np.stack([white[types == t].mean(axis=0) for t in (0, 1)])[types]
    np.testing.assert_allclose(np.cov(residual.T), np.eye(3), atol=0.05)
    alike = np.ones((4, 3))
    np.testing.assert_array_equal(whitened(alike, np.zeros(4, dtype=np.int64)), alike)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"species": 0}, "species is 0"),
        ({}, {"species": 2.5}, "species is 2.5"),
        ({}, {"species": 5}, "4 of 4 peaks are atoms; ask for 4 species"),
        ({}, {"radius": -1}, "radius is -1"),
        ({}, {"radius": np.nan}, "radius is nan"),
        ({}, {"sigma": -0.1}, "sigma is -0.1"),
        ({}, {"box": 0}, "box is 0"),
        ({}, {"box": 9}, r"at most 8 voxels \(2.8 Angstrom\)"),
        ({}, {"minimum_distance": -1}, "minimum_distance is -1"),
        ({}, {"minimum_distance": [[1, 2], [2, 1]]}, "table of 3 x 3"),
        ({}, {"minimum_distance": [[1, 2, 3], [1, 1, 1], [3, 1, 1]]}, "symmetric"),
        ({"position": np.zeros((0, 3))}, {}, "no atoms to classify"),
        ({"position": [[0, 0, 0], [np.nan, 0, 0]]}, {}, "1 of 2 atoms have positions that are not finite"),
        ({"position": [[0, 0, 0], [0, 0, 4.0]]}, {}, r"1 of 2 atoms lie outside the volume, the first at \(0, 0, 4\)"),
        ({"density": np.nan}, {}, "1 voxels of the block of voxels z 0..19, .* are not finite"),
    ],
)
def test_classify__bad_input(change, options, message):
    position = [[-2.5, 0, 0], [0, 0, 0], [2.5, 0, 0], [0, 2.5, 0]]
    volume = volume_of(position, [20.0, 40.0, 60.0, 80.0], (20, 20, 24))
    if "density" in change:
        volume["density"].values[4, 5, 6] = change["density"]
    with pytest.raises(InputError, match=message):
        classify_atoms(volume, as_atoms(change.get("position", position)), **options)


def test_classify__missing_variables():
    position = [[0.0, 0, 0]]
    volume = volume_of(position, [1.0], (12, 12, 12))
    with pytest.raises(InputError, match="needs position"):
        classify_atoms(volume, xr.Dataset())
    with pytest.raises(InputError, match="needs density"):
        classify_atoms(xr.Dataset(), as_atoms(position))
    with pytest.raises(InputError, match="no coordinate y"):
        classify_atoms(volume.drop_vars("y"), as_atoms(position))


def test_classify__input_stays(particle):
    volume, position, _ = particle
    atoms = as_atoms(position)
    before = atoms.copy(deep=True), volume.copy(deep=True)
    classify_atoms(volume, atoms)
    xr.testing.assert_identical(atoms, before[0])
    xr.testing.assert_identical(volume, before[1])


def test_classify__same_for_every_chunking_and_block(particle, monkeypatch):
    from aetdist.classify import patterns

    volume, position, _ = particle
    atoms = as_atoms(position)
    expected = classify_atoms(volume, atoms)
    monkeypatch.setattr(patterns, "SMALLEST_BLOCK", 8)
    for largest, chunks in ((20, None), (30, (40, 17, 92)), (100, (96, 90, 5))):
        monkeypatch.setattr(patterns, "LARGEST_BLOCK", largest)
        lazy = volume if chunks is None else volume.chunk(dict(zip("zyx", chunks, strict=True)))
        with dask.config.set(scheduler="synchronous"):
            xr.testing.assert_identical(classify_atoms(lazy, atoms), expected)


def test_patterns__building_the_graph_computes_nothing(particle, no_compute):
    volume, position, _ = particle
    order, parts = atom_patterns(volume.chunk(z=48, y=45, x=46), position)
    assert len(order) == len(position) and all(dask.is_dask_collection(p) for p in parts)
