"""Neighbour lists against all distances; blocks of atoms give the same neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.blocks.atoms import atom_blocks, gather_owned, map_blocks
from aetdist.errors import InputError
from aetdist.neighbors import neighbour_list


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(-20, 20, (600, 3)), [[500.0, 0, 0]], rng.normal(0, 1e-3, (3, 3)) + 9])


@pytest.mark.parametrize("cutoff", [0.5, 3.7, 80.0])
def test_neighbour_list__is_all_pairs(points: np.ndarray, cutoff: float) -> None:
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    found = neighbour_list(points, cutoff)
    expected_i, expected_j = np.nonzero(distance < cutoff)
    np.testing.assert_array_equal(found.centre, expected_i)
    np.testing.assert_array_equal(found.index, expected_j)


def test_neighbour_list__wanted(points: np.ndarray) -> None:
    mask = np.arange(len(points)) % 7 == 3
    whole, some = neighbour_list(points, 4.0), neighbour_list(points, 4.0, wanted=mask)
    rows = [whole.index[a:b] for a, b in zip(whole.start[:-1][mask], whole.start[1:][mask], strict=True)]
    np.testing.assert_array_equal(some.index, np.concatenate(rows))


def test_neighbour_list__bad_input(points: np.ndarray) -> None:
    with pytest.raises(InputError, match="positive length"):
        neighbour_list(points, 0.0)
    assert neighbour_list(np.empty((0, 3)), 1.0).start.tolist() == [0]


def counts(core: np.ndarray, positions: np.ndarray, *, cutoff: float) -> np.ndarray:
    return neighbour_list(positions, cutoff, wanted=core).count


@pytest.mark.parametrize("largest", [1, 30, 1000])
def test_atom_blocks__own_every_atom_once(points: np.ndarray, largest: int) -> None:
    blocks = atom_blocks(points, 4.0, largest=largest)
    owned = np.concatenate([block.members[block.core] for block in blocks])
    np.testing.assert_array_equal(np.sort(owned), np.arange(len(points)))
    assert max(block.core.sum() for block in blocks) <= largest
    found = gather_owned(blocks, map_blocks(counts, blocks, points, cutoff=4.0), len(points))
    np.testing.assert_array_equal(found, neighbour_list(points, 4.0).count)
