"""Pairs against all distances; an ideal gas has g = 1 in every shape; a lattice has its shells."""

import numpy as np
import pytest
import xarray as xr

from aetdist.analysis.pair_counts import UNIT, Bins, count_pairs, count_points
from aetdist.analysis.pair_distribution import pair_distribution, structure_factor
from aetdist.analysis.peaks import extrema, first_valley, gaussian_peak, peaks_of, split_peak
from aetdist.analysis.shells import body_of
from aetdist.errors import AetdistWarning, InputError
from aetdist.neighbors import periodic_images

DENSITY = 0.05


def _gas(kind, seed=0, n=8000):
    """An ideal gas, and the corners of the body that it fills."""
    rng = np.random.default_rng(seed)
    if kind == "sphere":
        radius = (n / DENSITY * 3 / 4 / np.pi) ** (1 / 3)
        points = rng.normal(size=(n, 3))
        points *= radius * rng.uniform(size=(n, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1)[:, None]
        directions = rng.normal(size=(6000, 3))
        # A little larger than the sphere, so that the polyhedron holds as much.
        return points, 1.0012 * radius * directions / np.linalg.norm(directions, axis=1)[:, None]
    edges = np.array([90.0, 90.0, n / DENSITY / 8100] if kind == "slab" else [30.0, 45.0, n / DENSITY / 1350])
    corners = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)]) * edges
    points = rng.uniform(size=(n, 3)) * edges
    if kind == "field":  # cut from the middle of a slab that goes on
        wide = np.array([3.0, 3.0, 1.0]) * edges
        points = rng.uniform(size=(9 * n, 3)) * wide - [edges[0], edges[1], 0.0]
        points = points[((points >= 0) & (points <= edges)).all(axis=1)]
    return points, corners


def _plain(points, kinds, bins):
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    i, j = np.nonzero(distance < bins.reach)
    d = distance[i, j]
    k = (np.ceil(d / bins.step + 0.01) - 1 if bins.published else np.floor(d / bins.step)).astype(int)
    counts = np.zeros((kinds.max() + 1, kinds.max() + 1, bins.n), int)
    np.add.at(counts, (kinds[i], kinds[j], k), 1)
    return counts, (i, j, k)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("largest", [10_000, 130])
def test_count_pairs__is_all_distances_in_every_blocking(published, largest):
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.uniform(-15, 15, (700, 3)), [[300.0, 0, 0], [301.0, 0, 0]]])
    kinds, weights = rng.integers(0, 3, 702), rng.integers(0, UNIT, 702)
    bins = Bins(12.0, 0.1, published)
    expected, (i, j, k) = _plain(points, kinds, bins)
    counts, shares = count_pairs(points, kinds, bins, weights=weights, largest=largest)
    np.testing.assert_array_equal(counts, expected)
    plain = np.zeros(counts.shape)
    np.add.at(plain, (kinds[i], kinds[j], k), (weights[i] + weights[j]) / (2 * UNIT))
    np.testing.assert_allclose(shares, plain, rtol=1e-12)


@pytest.mark.parametrize("largest", [100_000, 300])
def test_count_points__is_all_distances(largest):
    rng = np.random.default_rng(2)
    points, spread = rng.uniform(0, 30, (300, 3)), rng.uniform(0, 30, (900, 3))
    distance = np.linalg.norm(points[:, None] - spread, axis=2)
    expected = np.histogram(distance, np.arange(0, 10.01, 0.25))[0]
    np.testing.assert_array_equal(count_points(points, spread, 10.0, 0.25, largest=largest), expected)


@pytest.mark.parametrize("kind", ["sphere", "slab", "field"])
def test_pair_distribution__of_an_ideal_gas_is_one(kind):
    points, corners = _gas(kind)
    found = pair_distribution(points, shape=corners)
    z = ((found["g"] - 1) / found["g_error"]).values[5:]
    # A finite sample adds the fluctuation of how many atoms are near its surface: 1.0 to 1.3 of the Poisson error.
    assert np.sqrt(np.mean(z**2)) < 1.5
    assert np.abs(np.mean(z[::4])) < 1.5
    np.testing.assert_allclose(found["g"].values[40:].reshape(-1, 20).mean(axis=1), 1.0, atol=0.01)


@pytest.mark.parametrize("kind", ["sphere", "slab", "field"])
def test_pair_distribution__of_an_ideal_gas_in_its_own_alpha_shape(kind):
    # The shape is drawn through the outermost points, which makes the gas in it 1 to 2 % too dense.
    found = pair_distribution(_gas(kind)[0])
    np.testing.assert_allclose(found["g"].values[30:].reshape(-1, 10).mean(axis=1), 1.0, atol=0.025)


def test_pair_distribution__density_of_a_lattice_counts_the_surface_in_part():
    points = np.stack(np.meshgrid(*[np.arange(9) * 2.5] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    found = pair_distribution(points, r_max=9.0)
    assert float(found["density"]) == pytest.approx(1 / 2.5**3, rel=1e-6)
    assert float(found["volume"]) == pytest.approx(20.0**3, rel=1e-6)
    repeated = pair_distribution(points, r_max=9.0, cell=np.eye(3) * 22.5)
    assert float(repeated["density"]) == pytest.approx(1 / 2.5**3, rel=1e-12)
    shell = repeated["pairs"].values / len(points)
    for square, number in ((1, 6), (2, 12), (3, 8), (4, 6), (5, 24)):
        near = np.abs(repeated["r"].values - 2.5 * np.sqrt(square)) < 0.11
        assert shell[near].sum() == number
    # Both have the same peaks; the finite one has its surface corrected, as well as an average over a shell can be.
    for r in (2.5, 2.5 * np.sqrt(2)):
        near = np.abs(found["r"].values - r) < 0.11
        assert found["g"].values[near].sum() == pytest.approx(repeated["g"].values[near].sum(), rel=0.1)


def test_pair_distribution__partials_of_random_types():
    points, corners = _gas("slab", seed=4)
    types = np.random.default_rng(4).choice([1, 2, 5], len(points), p=[0.5, 0.3, 0.2])
    found = pair_distribution(points, types, shape=corners, step=0.5)
    assert found["pair"].values.tolist() == ["1-1", "1-2", "1-5", "2-2", "2-5", "5-5"]
    np.testing.assert_array_equal(found["partial_pairs"].sum("pair"), found["pairs"])
    z = ((found["partial_g"] - 1) / found["partial_g_error"]).values[:, 4:]
    assert np.sqrt(np.mean(z**2)) < 1.6
    assert found.attrs["atoms_of_type"] == {str(t): int((types == t).sum()) for t in (1, 2, 5)}


def test_pair_distribution__is_the_same_turned_shifted_shuffled():
    rng = np.random.default_rng(7)
    points = _gas("sphere", n=3000)[0]
    turn, order = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.permutation(len(points))
    here, there = pair_distribution(points), pair_distribution((points @ turn + 50.0)[order])
    np.testing.assert_array_equal(here["pairs"], there["pairs"])
    np.testing.assert_allclose(here["shell_volume"][15:], there["shell_volume"][15:], rtol=3e-3)
    assert float(here["volume"]) == pytest.approx(float(there["volume"]), rel=1e-9)


def test_pair_distribution__support_and_corners_agree():
    points, corners = _gas("field", seed=9)
    edges = corners.max(axis=0)
    axes = {axis: np.arange(-3.0, edge + 4.0, 0.5) for axis, edge in zip("xyz", edges, strict=True)}
    x, y, z = np.meshgrid(axes["x"], axes["y"], axes["z"], indexing="ij")
    inside = ((x >= 0) & (x <= edges[0]) & (y >= 0) & (y <= edges[1]) & (z >= 0) & (z <= edges[2])).transpose(2, 1, 0)
    support = xr.DataArray(inside, dims=("z", "y", "x"), coords={k: axes[k] for k in "zyx"})
    a, b = pair_distribution(points, shape=corners), pair_distribution(points, shape=support)
    assert float(b["volume"]) == pytest.approx(float(a["volume"]), rel=0.06)  # half a voxel beyond each side
    np.testing.assert_allclose(b["shell_volume"][20:] / a["shell_volume"][20:], 1.0, atol=0.03)
    outer = support.copy(data=np.zeros_like(inside))
    with pytest.raises(InputError, match="empty"):
        pair_distribution(points, shape=outer)


def test_periodic_images__are_all_within_reach():
    rng = np.random.default_rng(3)
    cell = np.array([[7.0, 0.5, 0.0], [-1.0, 8.0, 0.3], [0.2, 2.0, 6.0]])
    points = rng.uniform(-9, 9, (20, 3))
    inside, images, atom = periodic_images(points, cell, 9.0)
    shift = np.linalg.solve(cell.T, (inside - points).T).T
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-9)
    plain = []
    for a in np.stack(np.meshgrid(*[range(-4, 5)] * 3), axis=-1).reshape(-1, 3):
        if a.any():
            plain.append(inside + a @ cell)
    near = np.linalg.norm(np.concatenate(plain)[:, None] - inside, axis=2) < 9.0
    ours = np.linalg.norm(images[:, None] - inside, axis=2) < 9.0
    assert np.array_equal(near.sum(axis=0), ours.sum(axis=0))
    shift = np.linalg.solve(cell.T, (images - inside[atom]).T).T
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-9)
    with pytest.raises(InputError, match="span a volume"):
        periodic_images(points, np.ones((3, 3)), 3.0)


def _glass_like(r):
    return (
        1.0 + 1.8 * np.exp(-(((r - 2.75) / 0.3) ** 2)) - 0.5 * np.exp(-(((r - 3.8) / 0.4) ** 2))
        + 0.6 * np.exp(-(((r - 4.9) / 0.5) ** 2))
        - 0.3 * np.exp(-(((r - 6.2) / 0.4) ** 2)) - np.exp(-((r / 2.2) ** 6))
    )  # fmt: skip


def test_peaks__of_a_known_curve():
    r = 0.05 * (np.arange(400) + 0.5)
    g = _glass_like(r)
    maxima, minima = extrema(r, g)
    assert maxima[0] == pytest.approx(2.75, abs=0.03)
    assert minima[:2] == pytest.approx([3.78, 6.2], abs=0.05)
    pure = np.exp(-(((r - 2.75) / 0.3) ** 2))
    assert gaussian_peak(r, pure) == pytest.approx(2.75, abs=1e-6)
    second = 0.5 + 0.6 * np.exp(-(((r - 4.76) / 0.3) ** 2)) + 0.35 * np.exp(-(((r - 5.42) / 0.3) ** 2))
    assert split_peak(r, second) == pytest.approx((4.76, 5.42), abs=1e-4)


def test_first_valley__uncertainty_shrinks_with_the_pairs():
    r = 0.1 * (np.arange(200) + 0.5)
    g = _glass_like(r)
    few, many = (first_valley(r, g, np.full(200, n)) for n in (200, 200_000))
    assert few[0] == many[0]
    assert few[1] > 5 * many[1] > 0
    with pytest.raises(InputError, match="no minimum"):
        first_valley(r, np.ones(200))


def test_peaks_of__names_what_there_is():
    points = np.random.default_rng(0).permutation(_gas("slab", n=2000)[0])
    found = peaks_of(pair_distribution(points, np.arange(2000) % 2 + 1, r_max=5.0))
    assert {"peak_1 1-1", "peak_1 1-2", "peak_1 2-2"} <= found.keys()


def test_structure_factor__is_one_for_a_gas_and_has_the_peak_of_a_wave():
    points, corners = _gas("slab", seed=11)
    found = structure_factor(pair_distribution(points, shape=corners))
    assert found["structure_factor"].values[40:] == pytest.approx(1.0, abs=0.1)
    r = 0.1 * (np.arange(200) + 0.5)
    wave = xr.Dataset({"g": ("r", 1 + np.sin(2.9 * r) / r), "density": 0.05}, {"r": r}, {"step": 0.1})
    factor = structure_factor(wave)["structure_factor"]
    assert float(factor["q"][int(np.argmax(factor.values))]) == pytest.approx(2.9, abs=0.06)
    # The integral of a Gaussian is known: g - 1 = exp(-r^2) gives S = 1 + rho pi^1.5 exp(-q^2 / 4).
    gauss = xr.Dataset({"g": ("r", 1 + np.exp(-(r**2))), "density": 0.05}, {"r": r}, {"step": 0.1})
    q = structure_factor(gauss, window=False)["q"].values
    expected = 1 + 0.05 * np.pi**1.5 * np.exp(-(q**2) / 4)
    np.testing.assert_allclose(structure_factor(gauss, window=False)["structure_factor"], expected, atol=1e-6)


def test_pair_distribution__refuses_and_warns():
    points, corners = _gas("slab", n=1000)
    with pytest.raises(InputError, match="yang2021"):
        pair_distribution(points, convention="yang")
    with pytest.raises(InputError, match="0 < step < r_max"):
        pair_distribution(points, step=0.0)
    with pytest.raises(InputError, match="larger alpha_radius"):
        pair_distribution(points, alpha_radius=0.01)
    with pytest.raises(InputError, match="No atom lies in the shape"):
        pair_distribution(points, shape=corners + 1e4)
    with pytest.raises(InputError, match="not finite"):
        pair_distribution(np.where(np.arange(3000).reshape(-1, 3) == 7, np.nan, points))
    with pytest.warns(AetdistWarning, match="positions in nm"):
        pair_distribution(points / 10, r_max=2.0, step=0.01, alpha_radius=0.8)
    with pytest.warns(AetdistWarning, match="lie outside the shape"):
        assert pair_distribution(points, shape=corners * [0.5, 1, 1]).attrs["n_atoms"] < 600


def test_body__points_are_spread_over_the_shape():
    points, corners = _gas("field")
    body = body_of(points, corners, n_points=4096)
    assert body.share.all()
    parts = np.histogramdd(body.points, [4, 4, 4], list(zip(np.zeros(3), corners.max(axis=0), strict=True)))[0]
    assert parts.mean() == 64
    assert parts.std() < 5.5  # 8 at random
