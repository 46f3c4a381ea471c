"""The alpha shape is the same in every blocking, in every place, and what geometry says it is."""

import numpy as np
import pytest
from scipy.spatial import Delaunay

from aetdist.analysis import surface
from aetdist.analysis.surface import alpha_shape, distance_to_faces, find_surface
from aetdist.errors import InputError


@pytest.fixture(scope="module")
def glass():
    """A ball of points at random, no two nearer than about 2 Angstrom, with a hole in it."""
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(-14, 15)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 2.6
    points = grid + rng.uniform(-0.5, 0.5, grid.shape)
    away = np.linalg.norm(points, axis=1)
    return points[(away < 24) & (away > 9)]


def _cube(n=7, a=2.5):
    return np.stack(np.meshgrid(*[np.arange(n) * a] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


def _fcc(n=4, a=3.9):
    base = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return np.concatenate([base + shift for shift in _cube(n, 1.0)]) * a


def _rows(array):
    return np.unique(np.sort(array, axis=1), axis=0)


@pytest.mark.parametrize("largest", [150, 400])
def test_alpha_shape__does_not_depend_on_blocks(glass, largest):
    for points in (glass, _fcc(6)):
        whole, cut = alpha_shape(points, 3.5), alpha_shape(points, 3.5, largest=largest)
        assert len(points) > 2 * largest or largest == 400
        assert np.array_equal(_rows(cut.tetrahedra), _rows(whole.tetrahedra))
        assert np.array_equal(_rows(cut.faces), _rows(whole.faces))
        assert np.array_equal(cut.surface, whole.surface)
        assert cut.volume == whole.volume == pytest.approx(whole.volumes.sum(), rel=1e-9)
        boundary = alpha_shape(points, 3.5, largest=largest, boundary_only=True)
        assert not len(boundary.tetrahedra)
        assert boundary.volume == whole.volume
        assert np.array_equal(boundary.faces, whole.faces) and np.array_equal(boundary.used, whole.used)


def test_alpha_shape__is_the_delaunay_tetrahedra_of_small_circumradius(glass):
    mesh = Delaunay(glass)
    corners = glass[mesh.simplices]
    edges = corners[:, 1:] - corners[:, :1]
    centre = np.linalg.solve(2 * edges, (edges**2).sum(axis=2)[..., None])[..., 0]
    kept = np.linalg.norm(centre, axis=1) <= 3.5
    shape = alpha_shape(glass, 3.5)
    assert np.array_equal(_rows(shape.tetrahedra), _rows(mesh.simplices[kept]))
    assert shape.volume == pytest.approx(np.abs(np.linalg.det(edges[kept])).sum() / 6, rel=1e-9)
    triangles = np.concatenate([np.delete(mesh.simplices[kept], k, axis=1) for k in range(4)])
    once, count = np.unique(np.sort(triangles, axis=1), axis=0, return_counts=True)
    assert np.array_equal(_rows(shape.faces), once[count == 1])


def test_find_surface__of_a_cube():
    points = _cube()
    found = find_surface(points, radius=2.5)
    assert float(found["volume"]) == pytest.approx(15.0**3, rel=1e-5)
    depth = np.minimum(points, 15.0 - points).min(axis=1)
    assert np.array_equal(found["surface"].values, depth == 0)
    np.testing.assert_allclose(found["depth"].values, depth, atol=1e-9)


def test_find_surface__is_the_same_for_a_turned_shifted_shuffled_sample(glass):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(glass))
    here, there = find_surface(glass), find_surface((glass @ turn + [40.0, -7.0, 3.0])[order])
    assert np.array_equal(there["surface"].values, here["surface"].values[order])
    np.testing.assert_allclose(there["depth"].values, here["depth"].values[order], atol=1e-9)
    assert float(there["volume"]) == pytest.approx(float(here["volume"]), rel=1e-9)


def test_depth__is_the_distance_from_all_triangles_and_negative_outside(glass):
    shape = alpha_shape(glass, 4.0)
    rng = np.random.default_rng(5)
    points = rng.uniform(-26, 26, (40, 3))
    depth = shape.depth(points)
    # A plain reference: the nearest of many points of every triangle.
    s, t = np.meshgrid(*[np.linspace(0, 1, 26)] * 2)
    s, t = s[s + t <= 1], t[s + t <= 1]
    a, b, c = glass[shape.faces].transpose(1, 0, 2)
    near = a[:, None] + s[:, None] * (b - a)[:, None] + t[:, None] * (c - a)[:, None]
    plain = np.array([np.sqrt(((near - point) ** 2).sum(axis=-1).min()) for point in points])
    assert np.all(np.abs(depth) <= plain + 1e-9)
    np.testing.assert_allclose(np.abs(depth), plain, atol=0.04)
    mesh = Delaunay(glass)
    rows = {tuple(row) for row in np.sort(shape.tetrahedra, axis=1).tolist()}
    simplex = mesh.find_simplex(points)
    inside = [k >= 0 and tuple(sorted(mesh.simplices[k].tolist())) in rows for k in simplex]
    assert 8 < sum(inside) < 32
    assert np.array_equal(depth > 0, inside)
    assert shape.depth(np.zeros((1, 3)))[0] < -5  # the middle of the hole


def test_depth__does_not_depend_on_blocks(glass, monkeypatch):
    """Also where atoms lie on the faces of the blocks."""
    lattice = np.stack(np.meshgrid(*[2.5 * np.arange(7.0)] * 3), axis=-1).reshape(-1, 3)
    for atoms in (glass, lattice):
        shape = alpha_shape(atoms, 4.0)
        whole = shape.depth(atoms)
        with monkeypatch.context() as small:
            small.setattr(surface, "_POINTS", 30)
            np.testing.assert_array_equal(shape.depth(atoms), whole)


def test_distance_to_faces__every_region_of_a_triangle():
    triangle = np.array([[[0.0, 0, 0], [2, 0, 0], [0, 2, 0]]])
    points = np.array([[0.5, 0.5, 3], [-1, -1, 0], [3, 0, 0], [0, 4, 0], [1, -2, 0], [-2, 1, 0], [2, 2, 0]])
    expected = [3, np.sqrt(2), 1, 2, 2, 2, np.sqrt(2)]
    np.testing.assert_allclose(distance_to_faces(points, triangle), expected, atol=1e-12)
    assert np.isnan(distance_to_faces(points, triangle[:0])).all()


def test_find_surface__sides_of_a_film_are_no_surface():
    points = _fcc(9) - [2.0, 2.0, 0.0]
    field = (0.0, 30.0, 0.0, 30.0)
    points = points[(points[:, :2] >= 0).all(axis=1) & (points[:, :2] <= 30).all(axis=1)]
    found = find_surface(points, radius=3.0, field=field, margin=4.0)
    off_sides = np.minimum(points[:, :2], 30 - points[:, :2]).min(axis=1) >= 4.0
    assert np.array_equal(~found["side"].values, off_sides)
    top, bottom = points[:, 2].max(), points[:, 2].min()
    outer = (points[:, 2] == top) | (points[:, 2] == bottom)
    assert np.array_equal(found["surface"].values, outer & off_sides)
    assert np.isnan(found["depth"].values[~off_sides]).all()
    expected = np.minimum(points[:, 2] - bottom, top - points[:, 2])[off_sides]
    far = np.minimum(points[:, :2], 30 - points[:, :2]).min(axis=1)[off_sides] > 8
    np.testing.assert_allclose(found["depth"].values[off_sides][far], expected[far], atol=1e-9)


def test_find_surface__refuses_what_has_no_surface(glass):
    flat = _cube()
    flat[:, 2] = 0.0
    with pytest.raises(InputError, match="lie on one another"):
        find_surface(flat)
    flat = np.unique(flat, axis=0)
    with pytest.raises(InputError, match="in a plane"):
        find_surface(flat)
    with pytest.raises(InputError, match="5 or more"):
        find_surface(glass[:4])
    with pytest.raises(InputError, match="positive length"):
        find_surface(glass, radius=0.0)
    with pytest.raises(InputError, match="not finite"):
        find_surface(np.full((6, 3), np.nan))
    with pytest.raises(InputError, match="leaves no interior"):
        find_surface(glass, field=(0.0, 5.0, 0.0, 5.0))


def test_find_surface__atoms_apart_from_the_rest(glass):
    stray = np.concatenate([glass, [[60.0, 0.0, 0.0]]])
    found = find_surface(stray)
    assert found["surface"].values[-1]
    assert found["depth"].values[-1] < -30
