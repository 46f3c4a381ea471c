"""Atoms added, deleted, merged and retyped; types from heights; atoms that would explain what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

from aetdist.refine.curation import Curated, curate_atoms, lowest_height, without_doubles
from aetdist.refine.difference import find_candidates, judged_candidates
from aetdist.refine.motion import Tilts
from aetdist.refine.series import Series
from aetdist.refine.tilts import Model
from aetdist.refine.types import Mixture, fit_mixture, mixture_of_types
from aetdist.simulate import nanoparticle, simulate_tilt_series

HEIGHTS, SIGMA, DISTANCE = np.array([1.0, 2.2]), 0.6, 2.0
VACANT = np.array([0.0, 0.0, 8.6])  # at the surface


def imaged(positions: np.ndarray, heights: np.ndarray) -> xr.Dataset:
    atoms = xr.Dataset({"position": (("atom", "axis"), positions), "intensity": ("atom", heights)})
    return simulate_tilt_series(
        atoms, np.linspace(-72, 72, 21), pixel_size=0.4, sigma=SIGMA, field=(48, 48), dose=1e5, seed=1
    ).compute()


@pytest.fixture(scope="module")
def case() -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """A noisy series, positions and types of the atoms in it."""
    atoms = nanoparticle(14.0, species=("Ni", "Pt"), seed=1)
    positions, types = atoms["position"].values, atoms["type"].values - 1
    assert 3.0 > cKDTree(positions).query(VACANT)[0] > DISTANCE
    return imaged(positions, HEIGHTS[types]), positions, types


def start(positions: np.ndarray, types: np.ndarray, seed: int = 0) -> Curated:
    """Atoms as they might be traced, 0.08 Angstrom off."""
    positions = positions + np.random.default_rng(seed).normal(0, 0.05, positions.shape)
    n = len(types)
    return Curated.start(Model(positions, HEIGHTS[types], np.full(n, SIGMA)), types, np.full(n, "traced", dtype=object))


def curated(series: xr.Dataset, atoms: Curated, rounds: int = 6) -> Curated:
    tilts = Tilts(series, move=False, background=0.0, noise=True)
    return curate_atoms(
        Series.of(series), atoms, tilts, rounds=rounds, minimum_distance=DISTANCE, reach=1.0, prior=0.15
    )[1]


def holds_all(found: Curated, positions: np.ndarray, types: np.ndarray) -> None:
    distance, which = cKDTree(found.model.positions).query(positions)
    assert len(found.types) == len(types) and distance.max() < 0.12
    np.testing.assert_array_equal(found.types[which], types)


def counts(found: Curated) -> tuple[int, ...]:
    return tuple(found.counts[f"n_{name}"] for name in ("added", "deleted", "merged", "retyped"))


def test_curate__what_is_right_stays(case: Any) -> None:
    series, positions, types = case
    found = curated(series, start(positions, types))
    holds_all(found, positions, types)
    assert counts(found) == (0, 0, 0, 0) and (found.origin == "traced").all()
    assert found.anchor.shape == positions.shape


def test_curate__a_missing_atom_is_added(case: Any) -> None:
    series, positions, types = case
    lost = [int(np.linalg.norm(positions, axis=1).argmin()), int(np.flatnonzero(types == 1)[-1])]  # inside; a heavy one
    found = curated(series, start(np.delete(positions, lost, 0), np.delete(types, lost)))
    holds_all(found, positions, types)
    assert counts(found) == (2, 0, 0, 0)
    added = found.model.positions[found.origin == "added"]
    assert cKDTree(added).query(positions[lost])[0].max() < 0.12


def test_curate__a_false_atom_is_deleted(case: Any) -> None:
    series, positions, types = case
    found = curated(series, start(np.vstack([positions, VACANT]), np.append(types, 0)))
    holds_all(found, positions, types)
    assert counts(found) == (0, 1, 0, 0)


def test_curate__two_traced_for_one_are_merged(case: Any) -> None:
    series, positions, types = case
    twice = int(np.linalg.norm(positions, axis=1).argmin())
    twins = np.vstack([positions, positions[twice] + [0.0, 0.4, 0.3]])
    twins[twice] -= [0.0, 0.4, 0.3]
    atoms = start(twins, np.append(types, types[twice]))
    found = curated(series, atoms)
    holds_all(found, positions, types)
    assert counts(found)[1:3] == (0, 1) and (found.origin == "merged").sum() == 1
    assert cKDTree(found.model.positions[found.origin == "merged"]).query(positions[twice])[0] < 0.12
    assert (atoms.origin == "traced").all()  # what came is as it was


def test_curate__a_wrong_type_is_mended_but_not_one_set_by_hand(case: Any) -> None:
    series, positions, types = case
    wrong = types.copy()
    swapped = [int(np.flatnonzero(types == kind)[2]) for kind in (0, 1)]
    wrong[swapped] = 1 - wrong[swapped]
    found = curated(series, start(positions, wrong))
    holds_all(found, positions, types)
    assert counts(found) == (0, 0, 0, 2)
    by_hand = start(positions, wrong)
    by_hand.origin[swapped[0]] = "edited"
    found = curated(series, by_hand)
    expected = types.copy()
    expected[swapped[0]] = 1
    holds_all(found, positions, expected)
    assert counts(found)[3] == 1


def test_curate__a_place_given_up_is_not_tried_again(case: Any) -> None:
    """Something less than half as high as the lightest atom: high enough to be tried, too low to stay."""
    _, positions, types = case
    series = imaged(np.vstack([positions, VACANT]), np.append(HEIGHTS[types], 0.43))
    found = curated(series, start(positions, types), rounds=8)
    holds_all(found, positions, types)
    assert counts(found)[:2] == (0, 0)  # tried in vain: neither added nor deleted
    assert (found.rejected > 0.35).any()  # it is still seen


def test_curate__is_the_same_again_and_changes_nothing_that_came(case: Any) -> None:
    series, positions, types = case
    atoms = start(positions[1:], types[1:])
    before = [values.copy() for values in (*atoms.model, atoms.types, atoms.origin, atoms.anchor)]
    first, second = (curated(series, atoms) for _ in range(2))
    for a, b in zip((*first.model, first.types), (*second.model, second.types), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip((*atoms.model, atoms.types, atoms.origin, atoms.anchor), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_doubles__the_higher_one_takes_both_heights_at_their_centre() -> None:
    model = Model(np.array([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [5.5, 0, 0], [9, 0, 0]]), np.arange(1.0, 6), np.ones(5))
    kept, higher, merged = without_doubles(model, 0.8)
    assert kept.tolist() == [True, True, False, True, True] and higher.tolist() == [3]
    np.testing.assert_allclose(merged.positions[3], [(3 * 5 + 4 * 5.5) / 7, 0, 0])
    assert merged.heights.tolist() == [1, 2, 3, 7, 5] and model.heights[3] == 4.0
    kept, higher, _ = without_doubles(model, 0.1)
    assert kept.all() and higher.size == 0
    row = Model(np.array([[0.0, 0, 0], [0.5, 0, 0], [1.1, 0, 0]]), np.array([1.0, 2, 4]), np.ones(3))
    kept, _, merged = without_doubles(row, 0.7)
    assert kept.tolist() == [False, False, True] and merged.heights[2] == 7.0


def test_find_candidates__where_atoms_lack(case: Any) -> None:
    series, positions, types = case
    lost = np.array([5, 30, 60])
    rest = np.setdiff1d(np.arange(len(types)), lost)
    model = Model(positions[rest], HEIGHTS[types[rest]], np.full(len(rest), SIGMA))
    found = find_candidates(Series.of(series), model, SIGMA, DISTANCE)
    distance, which = cKDTree(found.positions).query(positions[lost])
    assert distance.max() < 0.15
    assert sorted(which) == [0, 1, 2]  # the highest
    np.testing.assert_allclose(found.heights[which], HEIGHTS[types[lost]], rtol=0.1)
    assert (np.diff(found.heights) <= 0).all()
    near = cKDTree(found.positions).query_pairs(DISTANCE * 0.999)
    assert not near


def test_judged_candidates__height_is_that_of_least_squares(case: Any) -> None:
    series, positions, types = case
    images = Series.of(series)
    model = Model(positions[1:], HEIGHTS[types[1:]], np.full(len(types) - 1, SIGMA))
    found = judged_candidates(images, model, positions[:1], SIGMA, DISTANCE)
    unit = Model(positions[:1], np.ones(1), np.full(1, SIGMA))
    along = square = 0.0
    for group in images.groups:
        for t, image in enumerate(group.images):
            shown = group.predicted(t, unit).astype(np.float64)
            along += np.vdot(shown, image - group.predicted(t, model))
            square += np.vdot(shown, shown)
    np.testing.assert_allclose(found.heights, along / square, rtol=1e-4)
    np.testing.assert_allclose(found.significance, along / np.sqrt(square), rtol=1e-4)
    assert judged_candidates(images, model, np.zeros((0, 3)), SIGMA, DISTANCE).heights.size == 0


# -- types by heights ----------------------------------------------------------------------------------


def test_fit_mixture__finds_the_types() -> None:
    random = np.random.default_rng(0)
    types = random.choice(3, 3000, p=[0.5, 0.3, 0.2])
    heights = random.normal(np.array([1.0, 1.6, 2.8])[types], np.array([0.1, 0.12, 0.2])[types])
    wrong = np.where(random.random(3000) < 0.15, random.integers(0, 3, 3000), types)
    found = fit_mixture(np.append(heights, [20.0, 0.01]), mixture_of_types(heights, wrong))  # and two outliers
    np.testing.assert_allclose(found.parts, [0.5, 0.3, 0.2], atol=0.03)
    np.testing.assert_allclose(found.means, [1.0, 1.6, 2.8], rtol=0.02)
    np.testing.assert_allclose(found.spreads, [0.1, 0.12, 0.2], rtol=0.15)
    assert (found.types(heights) == types).mean() > 0.98
    np.testing.assert_array_equal(found.types(np.array([-5.0, 100.0])), [0, 2])


def test_mixture__densities_are_normal_and_types_rise() -> None:
    mixture = Mixture(np.array([0.7, 0.3]), np.array([1.0, 2.0]), np.array([0.1, 0.2]))
    h = np.linspace(-5, 10, 30001)
    np.testing.assert_allclose(mixture.densities(h).sum(axis=0) * (h[1] - h[0]), [0.7, 0.3], rtol=1e-6)
    np.testing.assert_allclose(mixture.densities(h, 0.5).sum(axis=0) * (h[1] - h[0]), [0.7, 0.3], rtol=1e-6)
    falling = mixture_of_types(np.array([3.0, 3.1, 1.0, 1.1, 0.9]), np.array([0, 0, 1, 1, 1]))
    np.testing.assert_allclose(falling.means, [1.0, 3.05])
    np.testing.assert_allclose(falling.parts, [0.6, 0.4])
    empty = mixture_of_types(np.array([1.0, 1.2]), np.array([0, 0]), 2)
    assert np.isfinite(empty.means).all() and (empty.spreads > 0).all()
    assert lowest_height(mixture) == pytest.approx(0.5)
    assert lowest_height(mixture._replace(spreads=np.array([0.2, 0.2]))) == pytest.approx(0.4)
    assert lowest_height(mixture._replace(spreads=np.array([0.5, 0.2]))) == pytest.approx(0.25)
