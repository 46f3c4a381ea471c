"""Bond order against scipy's spherical harmonics and known clusters; laws; every blocking; nuclei."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

import aetdist as aet
from aetdist.analysis.bonds import wigner_3j
from aetdist.errors import InputError

FCC = ([0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5])
BCC = ([0, 0, 0], [0.5, 0.5, 0.5])
HCP = ([0, 0, 0], [0.5, 0.5, 0], [0.5, 5 / 6, 0.5], [0, 1 / 3, 0.5])
GOLDEN = (1 + 5**0.5) / 2


def crystal(basis, edges, n: int = 5) -> np.ndarray:
    """A block of n^3 cells, in Angstrom."""
    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    return ((cells + np.array(basis)) * np.array(edges)).reshape(-1, 3)


def icosahedron() -> np.ndarray:
    """A central atom and twelve around it."""
    corners = np.array([(0.0, s, t * GOLDEN) for s in (1, -1) for t in (1, -1)])
    return np.concatenate([[[0.0, 0, 0]], *(np.roll(corners, k, axis=1) for k in range(3))]) * 1.3


def glass(n: int = 700, seed: int = 0) -> np.ndarray:
    """Points no two of which are nearer than 2 Angstrom, about as dense as a metal, beside an ordered corner."""
    rng = np.random.default_rng(seed)
    points = crystal(FCC, [3.9] * 3, 3)
    while len(points) < n:
        new = rng.uniform(-12, 12, 3)
        if np.linalg.norm(points - new, axis=1).min() > 2.0:
            points = np.concatenate([points, new[None]])
    return points


def reference(points: np.ndarray, cutoff: float, degree: int, averaged: bool) -> np.ndarray:
    """Q_l as the definition says it, atom by atom."""
    n = len(points)
    q = np.full((n, 2 * degree + 1), np.nan, complex)
    near = [np.flatnonzero(np.linalg.norm(points - p, axis=1) < cutoff) for p in points]
    for i, group in enumerate(near):
        x, y, z = (points[group[group != i]] - points[i]).T
        if len(x):
            theta, phi = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
            q[i] = [sph_harm_y(degree, m, theta, phi).mean() for m in range(-degree, degree + 1)]
    if averaged:
        q = np.array([q[group].mean(axis=0) for group in near])
    return np.sqrt(4 * np.pi / (2 * degree + 1) * (np.abs(q) ** 2).sum(axis=1))


@pytest.mark.parametrize("averaged", [True, False])
def test_bond_order__is_the_definition(averaged: bool) -> None:
    points = np.concatenate([glass(250), [[90.0, 0, 0]]])
    degrees = (6, 1, 2, 3, 4, 5, 7, 11, 12, 20)
    found = aet.bond_order(points, 3.4, l=degrees, averaged=averaged)
    for degree in degrees:
        expected = reference(points, 3.4, degree, averaged)
        assert np.isnan(expected[-1]) and np.isfinite(expected[:-1]).sum() > 200
        np.testing.assert_allclose(found[f"q{degree}"], expected, rtol=0, atol=1e-12)
    assert found["q6"].dtype == np.float64 and found["n_neighbours"][-1] == 0 and np.isnan(found["order"][-1])
    order = np.sqrt(found["q4"] ** 2 + found["q6"] ** 2) / np.sqrt(0.190941**2 + 0.574524**2)
    np.testing.assert_allclose(found["order"], order, rtol=1e-14)
    assert found.attrs["ordered_fraction"] == np.mean(order.values >= 0.5) and found.attrs["cutoff"] == 3.4


@pytest.mark.parametrize(
    ("points", "cutoff", "q4", "q6", "w4", "w6"),
    [  # Steinhardt et al. 1983; Mickel et al., J. Chem. Phys. 138, 044501 (2013)
        (crystal(FCC, [4.0] * 3), 3.4, 0.190941, 0.574524, -0.159317, -0.013161),
        (crystal(HCP, [2.8, 2.8 * 3**0.5, 2.8 * (8 / 3) ** 0.5], 6), 3.4, 0.097222, 0.484762, 0.134097, -0.012442),
        (crystal(BCC, [3.0] * 3), 3.6, 0.036370, 0.510688, 0.159317, 0.013161),
        (crystal(BCC, [3.0] * 3), 2.8, 0.509175, 0.628539, -0.159317, 0.013161),
        (icosahedron(), 2.6, 0.0, 0.663325, np.nan, -0.169754),
    ],
    ids=["fcc", "hcp", "bcc of 14", "bcc of 8", "icosahedron"],
)
def test_bond_order__known_clusters(points, cutoff, q4, q6, w4, w6) -> None:
    middle = np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))
    found = aet.bond_order(points, cutoff, averaged=False, third=True).isel(atom=middle)
    np.testing.assert_allclose([found["q4"], found["q6"]], [q4, q6], atol=1e-6)
    np.testing.assert_allclose([found["w4"], found["w6"]], [w4, w6], atol=1e-6)
    if len(points) > 13:  # all atoms of a crystal are alike, so averaging changes nothing inside
        np.testing.assert_allclose(aet.bond_order(points, cutoff)["q6"][middle], q6, atol=1e-6)


def test_wigner_3j__is_orthogonal() -> None:
    """Sum over m1, m2 of the squares at fixed m3 is 1 / (2 l + 1); the symbol of l = 2 by hand."""
    for degree in (1, 2, 6, 13, 20):
        table = wigner_3j(degree)
        sums = [np.sum(np.fliplr(table).diagonal(k) ** 2) for k in range(-degree, degree + 1)]
        np.testing.assert_allclose(sums, 1 / (2 * degree + 1), rtol=1e-12)
    assert wigner_3j(2)[2, 2] == pytest.approx(-np.sqrt(2 / 35))
    assert wigner_3j(3)[3, 3] == 0.0  # of an odd sum of degrees


def test_bond_order__does_not_see_how_the_sample_lies() -> None:
    points = glass()
    rng = np.random.default_rng(1)
    shuffled = rng.permutation(len(points))
    moved = (Rotation.random(rng=rng).apply(points) + np.array([100.0, -30, 7]))[shuffled]
    mirrored = points * [1, 1, -1]
    found = aet.bond_order(points, 3.4, third=True)
    for other, index in ((moved, shuffled), (mirrored, slice(None))):
        again = aet.bond_order(other, 3.4, third=True)
        for name in ("q4", "q6", "w4", "w6", "order"):
            np.testing.assert_allclose(again[name], found[name].values[index], rtol=0, atol=1e-10)
        np.testing.assert_array_equal(again["n_neighbours"], found["n_neighbours"].values[index])


@pytest.mark.parametrize("averaged", [True, False])
def test_bond_order__is_the_same_for_every_blocking(averaged: bool) -> None:
    points = glass(400)
    whole = aet.bond_order(points, 3.4, averaged=averaged, l=(3, 4, 6), third=True)
    threshold = float(whole["order"].quantile(0.7))
    nuclei = aet.find_nuclei(points, whole, threshold=threshold)
    assert 1 < nuclei.sizes["nucleus"] < (nuclei["label"] >= 0).sum()
    for largest in (1, 13, 100):
        xr.testing.assert_identical(
            aet.bond_order(points, 3.4, averaged=averaged, l=(3, 4, 6), third=True, largest=largest), whole
        )
        xr.testing.assert_identical(aet.find_nuclei(points, whole, threshold=threshold, largest=largest), nuclei)


def test_bond_order__keeps_the_numbers_of_atoms() -> None:
    points = glass(200)
    atoms = xr.Dataset({"position": (("atom", "axis"), points)}, {"atom": np.arange(200) * 3})
    found = aet.bond_order(atoms, 3.4)
    np.testing.assert_array_equal(found["atom"], atoms["atom"])
    np.testing.assert_array_equal(found["q6"], aet.bond_order(points, 3.4)["q6"])
    np.testing.assert_array_equal(aet.find_nuclei(atoms, found)["atom"], atoms["atom"])


def test_bond_order__finds_the_cutoff() -> None:
    """Between the first two shells of a warm crystal, where any cut-off gives the same neighbours."""
    points = crystal(FCC, [4.0] * 3, 6) + np.random.default_rng(0).normal(0, 0.05, (864, 3))
    found = aet.bond_order(points)
    assert 2.83 < found.attrs["cutoff"] < 4.0 and 0 < found.attrs["cutoff_error"] < 0.1
    np.testing.assert_array_equal(found["q6"], aet.bond_order(points, found.attrs["cutoff"])["q6"])
    assert found["n_neighbours"].max() == 12
    assert np.isnan(aet.bond_order(points, 3.4).attrs["cutoff_error"])


def test_bond_order__bad_input() -> None:
    points = glass(120)
    for cutoff in (0.0, np.nan, -1.0):
        with pytest.raises(InputError, match=r"cut-off is .* positive length"):
            aet.bond_order(points, cutoff)
    with pytest.raises(InputError, match=r"No atom has a neighbour within the cut-off of 0\.5"):
        aet.bond_order(points, 0.5)
    for degrees in ((), (0,), (4, 4), (21,), (4.5,)):
        with pytest.raises(InputError, match="whole numbers from 1 to 20"):
            aet.bond_order(points, 3.4, l=degrees)


def test_nuclei__are_the_connected_components() -> None:
    points, order = glass(400), np.random.default_rng(3).uniform(0, 1, 400)
    found = aet.find_nuclei(points, order, cutoff=3.0, threshold=0.4)
    ordered = order >= 0.4
    near = np.linalg.norm(points[ordered, None] - points[ordered], axis=2) < 3.0
    n, expected = connected_components(near)
    labels = found["label"].values
    assert n == found.sizes["nucleus"] and (labels[~ordered] == -1).all()
    assert len(set(zip(labels[ordered], expected, strict=True))) == n
    sizes = found["n_atoms"].values
    assert (np.diff(sizes) <= 0).all() and sizes[0] > 5 and sizes.sum() == ordered.sum()
    for k in (0, 3):
        inside = points[labels == k]
        np.testing.assert_allclose(found["centre"][k], inside.mean(axis=0))
        np.testing.assert_allclose(found["radius_of_gyration"][k] ** 2, inside.var(axis=0).sum())
    first = [np.flatnonzero(labels == k)[0] for k in np.flatnonzero(sizes == 1)]
    assert first == sorted(first)


def test_nuclei__may_be_none_and_need_an_order() -> None:
    points = glass(120)
    found = aet.find_nuclei(points, np.full(120, np.nan), cutoff=3.0)
    assert found.sizes["nucleus"] == 0 and (found["label"] == -1).all()
    with pytest.raises(InputError, match="one for each of the 120 atoms"):
        aet.find_nuclei(points, np.ones(3), cutoff=3.0)
    with pytest.raises(InputError, match="give cutoff="):
        aet.find_nuclei(points, np.ones(120))
    with pytest.raises(InputError, match=r"no `order`; give l=\(4, 6\)"):
        aet.find_nuclei(points, aet.bond_order(points, 3.4, l=(6,)))
