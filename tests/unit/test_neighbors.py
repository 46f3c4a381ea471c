from __future__ import annotations

import numpy as np
import pytest

from aetdist import neighbors
from aetdist.errors import InputError


def test_neighbour_pairs__equals_brute_force():
    points = np.random.default_rng(0).uniform(0, 10, (200, 3))
    pairs, distances = neighbors.neighbour_pairs(points, 2.5)
    matrix = np.linalg.norm(points[:, None] - points[None], axis=2)
    i, j = np.nonzero(np.triu(matrix < 2.5, 1))
    np.testing.assert_array_equal(pairs, np.stack([i, j], axis=1))
    np.testing.assert_allclose(distances, matrix[i, j], rtol=1e-14)


def test_neighbour_pairs__cutoff_is_strict():
    points = [[0, 0, 0], [2, 0, 0], [0, 1, 0]]
    assert neighbors.neighbour_pairs(points, 2.0)[0].tolist() == [[0, 2]]
    assert neighbors.neighbour_pairs(points, 2.0 + 1e-9)[0].tolist() == [[0, 1], [0, 2]]


def test_neighbour_pairs__few_points():
    for points in (np.empty((0, 3)), [[0, 0, 0]]):
        pairs, distances = neighbors.neighbour_pairs(points, 1.0)
        assert pairs.shape == (0, 2) and distances.shape == (0,)


def test_neighbours__bad_input():
    with pytest.raises(InputError, match=r"shape \(4, 2\)"):
        neighbors.neighbour_pairs(np.zeros((4, 2)), 1.0)
    with pytest.raises(InputError, match="cut-off is -1"):
        neighbors.neighbour_pairs(np.zeros((4, 3)), -1)
    with pytest.raises(InputError, match="1 of 4 are not finite"):
        neighbors.neighbour_pairs([[0, 0, 0], [0, 0, 1], [0, np.inf, 0], [1, 0, 0]], 1)
    with pytest.raises(InputError, match="tolerance is nan"):
        neighbors.mutual_nearest(np.zeros((1, 3)), np.zeros((1, 3)), np.nan)


def test_mutual_nearest__equals_brute_force():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 8, (150, 3)), rng.uniform(0, 8, (120, 3))
    matrix = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = [
        (i, j) for i, j in enumerate(matrix.argmin(axis=1)) if matrix[:, j].argmin() == i and matrix[i, j] <= 0.9
    ]
    pairs, distances = neighbors.mutual_nearest(a, b, 0.9)
    assert [tuple(p) for p in pairs.tolist()] == expected and 0 < len(expected) < 120
    np.testing.assert_allclose(distances, matrix[pairs[:, 0], pairs[:, 1]])


def test_mutual_nearest__swapped_sets_give_swapped_pairs():
    rng = np.random.default_rng(2)
    a, b = rng.uniform(0, 8, (150, 3)), rng.uniform(0, 8, (120, 3))
    forward, backward = neighbors.mutual_nearest(a, b, 0.9)[0], neighbors.mutual_nearest(b, a, 0.9)[0]
    assert sorted(map(tuple, forward.tolist())) == sorted((i, j) for j, i in backward.tolist())


def test_fit_rigid__recovers_a_motion_and_never_mirrors():
    rng = np.random.default_rng(3)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))
    source = rng.normal(size=(20, 3))
    motion = neighbors.fit_rigid(source, source @ q.T + [1, 2, 3])
    np.testing.assert_allclose(motion.rotation, q, atol=1e-12)
    np.testing.assert_allclose(motion.shift, [1, 2, 3], atol=1e-12)
    mirrored = neighbors.fit_rigid(source, source * [1, 1, -1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1.0)
    with pytest.raises(InputError, match="three pairs"):
        neighbors.fit_rigid(source[:2], source[:2])


def test_register_rigid__too_few_points_stay():
    motion = neighbors.register_rigid([[0, 0, 0]], [[1, 1, 1]])
    assert motion.angle == 0 and not motion.shift.any()
