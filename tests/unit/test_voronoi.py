"""Voronoi cells against a plain loop over Qhull, in every blocking and place, and what geometry says of crystals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist.analysis.voronoi import voronoi_statistics
from aetdist.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[1]))
from qhull_cells import qhull_faces, qhull_indices

TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
AWAY = np.array([310.0, -40.0, 7.0])


def ball(n: int, seed: int) -> np.ndarray:
    """A dense random ball with a hole beside its middle, as rough as a glass."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil((2 * n) ** (1 / 3)))
    points = (np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) - side / 2) * 2.6
    points = points + rng.normal(0, 0.5, points.shape)
    away = np.linalg.norm(points, axis=1)
    return points[(away < np.sort(away)[n]) & (np.linalg.norm(points - 4.0, axis=1) > 5.0)]


def cubic(basis: list[list[float]], repeats: int, edge: float) -> np.ndarray:
    """A cube of a cubic crystal."""
    cells = np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    return ((cells + np.array(basis)) * edge).reshape(-1, 3)


def inside(points: np.ndarray, depth: float) -> np.ndarray:
    """Atoms at least so deep below every side of a box of atoms."""
    return ((points >= points.min(axis=0) + depth) & (points <= points.max(axis=0) - depth)).all(axis=1)


SC = [[0.0, 0, 0]]
BCC = [[0.0, 0, 0], [0.5, 0.5, 0.5]]
FCC = [[0.0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


@pytest.fixture(scope="module")
def glass() -> np.ndarray:
    return ball(700, 1)


@pytest.fixture(scope="module")
def cells(glass: np.ndarray) -> xr.Dataset:
    return aet.voronoi_indices(glass)


def test_voronoi_indices__is_a_loop_over_qhull(glass: np.ndarray, cells: xr.Dataset) -> None:
    index, volume, faces = qhull_indices(glass)
    np.testing.assert_array_equal(cells.voronoi_index, index)
    np.testing.assert_allclose(cells.volume, volume, rtol=1e-9)
    np.testing.assert_array_equal(cells.unbounded, np.isnan(volume))
    expected = [(i, j, *found) for i, cell in enumerate(faces) for j, found in sorted(cell.items())]
    atom, neighbour, edges, size = (np.array(column) for column in zip(*expected, strict=True))
    np.testing.assert_array_equal(cells.face_atom, atom)
    np.testing.assert_array_equal(cells.face_neighbour, neighbour)
    np.testing.assert_array_equal(cells.face_edges, edges)
    np.testing.assert_allclose(cells.face_area, size, rtol=1e-8, atol=1e-10)
    known = index[:, 0] >= 0
    assert np.count_nonzero(known) > 400 and np.count_nonzero(~known) > 20
    np.testing.assert_array_equal(cells.n_faces, np.where(known, np.bincount(atom, minlength=len(glass)), -1))


def test_voronoi_indices__keep_all_faces(glass: np.ndarray) -> None:
    """Without a smallest face a cell is Qhull's, recomputed or not, and every face has two sides."""
    plain = aet.voronoi_indices(glass, smallest_face=0.0, recomputed=False)
    counted = [[c.shape[0] for c in f.values()] if f is not None else None for f in qhull_faces(glass)]
    expected = [[-1] * 4 if edges is None else [edges.count(e) for e in (3, 4, 5, 6)] for edges in counted]
    np.testing.assert_array_equal(plain.voronoi_index, expected)
    again = aet.voronoi_indices(glass, smallest_face=0.0)
    np.testing.assert_array_equal(again.face_neighbour, plain.face_neighbour)
    pairs = set(zip(plain.face_atom.values, plain.face_neighbour.values, strict=True))
    bounded = ~plain.unbounded.values
    assert all((b, a) in pairs for a, b in pairs if bounded[b])


def test_voronoi_indices__thresholding_is_not_recomputing(glass: np.ndarray, cells: xr.Dataset) -> None:
    """A face that is dropped without recomputing leaves the edges that it cut off the others."""
    dropped = aet.voronoi_indices(glass, recomputed=False)
    np.testing.assert_array_equal(dropped.volume, cells.volume)
    assert (dropped.voronoi_index.values == cells.voronoi_index.values).all(axis=1).mean() < 0.5


@pytest.mark.parametrize("largest", [1, 17, 150])
def test_voronoi_indices__does_not_depend_on_blocks(glass: np.ndarray, cells: xr.Dataset, largest: int) -> None:
    some = glass[:60] if largest == 1 else glass
    whole = aet.voronoi_indices(some) if largest == 1 else cells
    assert aet.voronoi_indices(some, largest=largest).identical(whole)


def test_voronoi_indices__crystal_does_not_depend_on_blocks() -> None:
    """Where many corners coincide, the order of cutting decides: it is the same in every block."""
    for basis in (SC, BCC, FCC):
        points = cubic(basis, 6, 4.0)
        assert aet.voronoi_indices(points, largest=40).identical(aet.voronoi_indices(points))


@pytest.mark.parametrize("move", ["turned", "shifted", "permuted", "mirrored"])
def test_voronoi_indices__moved_atoms_have_the_same(glass: np.ndarray, cells: xr.Dataset, move: str) -> None:
    order = np.random.default_rng(2).permutation(len(glass)) if move == "permuted" else np.arange(len(glass))
    points = {"turned": glass @ TURN, "shifted": glass + AWAY, "mirrored": -glass}.get(move, glass)
    moved = aet.voronoi_indices(points[order])
    np.testing.assert_array_equal(moved.voronoi_index, cells.voronoi_index.values[order])
    np.testing.assert_array_equal(moved.unbounded, cells.unbounded.values[order])
    np.testing.assert_allclose(moved.volume, cells.volume.values[order], rtol=1e-8)
    one, other = (
        np.sort(name[c.face_atom.values] * len(glass) + name[c.face_neighbour.values])
        for c, name in ((moved, order), (cells, np.arange(len(glass))))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("basis", "edge", "index", "volume"),
    [(SC, 2.7, [0, 6, 0, 0], 2.7**3), (BCC, 3.2, [0, 6, 0, 8], 3.2**3 / 2), (FCC, 3.9, [0, 12, 0, 0], 3.9**3 / 4)],
)
@pytest.mark.parametrize("smallest_face", [0.01, 0.0])
def test_voronoi_indices__of_crystals(
    basis: list, edge: float, index: list[int], volume: float, smallest_face: float
) -> None:
    """Faces and edges without size, where more than three faces meet, do not count; turned and far away, too."""
    points = cubic(basis, 5, edge)
    deep = inside(points, 1.1 * edge)
    for place in (points, points @ TURN, points @ TURN + 2.5 * AWAY):
        found = aet.voronoi_indices(place, smallest_face=smallest_face).isel(atom=deep)
        assert (found.voronoi_index == index).all()
        assert (found.n_faces == sum(index)).all()
        np.testing.assert_allclose(found.volume, volume, rtol=1e-9)


def test_voronoi_indices__of_an_icosahedron() -> None:
    golden = (1 + np.sqrt(5)) / 2
    shell = np.array([[0, a, b * golden] for a in (1, -1) for b in (1, -1)])
    shell = np.concatenate([np.roll(shell, k, axis=1) for k in range(3)])
    points = np.concatenate([[[0.0, 0, 0]], shell * 2.7 / np.linalg.norm(shell[0])])
    found = aet.voronoi_indices(points)
    assert found.voronoi_index.values[0].tolist() == [0, 0, 12, 0]
    assert found.unbounded.values.tolist() == [False] + [True] * 12
    assert (found.voronoi_index.values[1:] == -1).all()


def test_voronoi_indices__more_faces_than_usual() -> None:
    """One atom in the middle of a shell of 600 has a face with each of them."""
    k = np.arange(600) + 0.5
    z, turn = 1 - 2 * k / 600, np.pi * (1 + np.sqrt(5)) * k
    shell = 30.0 * np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    found = aet.voronoi_indices(np.concatenate([[[0.0, 0, 0]], shell]), smallest_face=0.0)
    assert int(found.n_faces[0]) == 600
    assert found.unbounded.values.sum() == 600


def test_voronoi_indices__stray_atom(glass: np.ndarray, cells: xr.Dataset) -> None:
    """An atom far away changes no cell inside."""
    found = aet.voronoi_indices(np.concatenate([glass, [[4e4, 1e3, -2e3]]]))
    inner = np.linalg.norm(glass, axis=1) < 12
    np.testing.assert_array_equal(found.voronoi_index.values[:-1][inner], cells.voronoi_index.values[inner])


def test_voronoi_indices__yang2021(glass: np.ndarray, cells: xr.Dataset) -> None:
    """Only cells with a pentagon can differ, some do; how the sample lies decides, but not which atom comes first."""
    published = aet.voronoi_indices(glass, convention="yang2021")
    differ = (published.voronoi_index.values != cells.voronoi_index.values).any(axis=1)
    assert 0.02 < differ.mean() < 0.6
    np.testing.assert_array_equal(published.volume, cells.volume)
    turned = aet.voronoi_indices(glass @ TURN, convention="yang2021")
    assert (turned.voronoi_index.values != published.voronoi_index.values).any()
    reverse = aet.voronoi_indices(glass[::-1], convention="yang2021")
    np.testing.assert_array_equal(reverse.voronoi_index.values[::-1], published.voronoi_index)


def test_voronoi_statistics__counts(cells: xr.Dataset) -> None:
    which = np.arange(cells.sizes["atom"]) % 3 > 0
    found = voronoi_statistics(cells, which, top=5)
    index = cells.voronoi_index.values[which & (cells.voronoi_index.values[:, 0] >= 0)]
    kinds, counts = np.unique(index, axis=0, return_counts=True)
    assert found.attrs["indexed"] == len(index)
    np.testing.assert_array_equal(np.sort(counts)[::-1][:5], found.top_count)
    assert all(
        (kinds[counts == c] == k).all(axis=1).any()
        for k, c in zip(found.top_index.values, found.top_count.values, strict=True)
    )
    np.testing.assert_allclose(found.top_fraction, found.top_count / len(index))
    np.testing.assert_allclose(found.face_fraction, index.sum(axis=0) / index.sum())
    kinds = [[0, 0, 12, 0], [0, 1, 10, 2], [0, 2, 8, 2], [0, 2, 8, 1]]
    assert float(found.icosahedra) == (index[:, None] == kinds).all(axis=2).sum() / which.sum()


def test_voronoi_indices__bad_input(glass: np.ndarray) -> None:
    with pytest.raises(InputError, match="lie on one another"):
        aet.voronoi_indices(np.concatenate([glass, glass[:1]]))
    with pytest.raises(InputError, match="in a plane"):
        aet.voronoi_indices(np.random.default_rng(0).uniform(0, 20, (50, 2)) @ TURN[:2])
    with pytest.raises(InputError, match="5 or more"):
        aet.voronoi_indices(glass[:4])
    with pytest.raises(InputError):
        aet.voronoi_indices(np.where(np.arange(len(glass))[:, None] == 3, np.nan, glass))
    for wrong in ({"smallest_face": 1.0}, {"smallest_face": -0.1}, {"shortest_edge": -1.0}, {"convention": "yang"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            aet.voronoi_indices(glass, **wrong)
