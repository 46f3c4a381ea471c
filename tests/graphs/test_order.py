"""Pairs, surfaces and pair distributions are the same on worker processes as here."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

import aetdist as aet
from aetdist.analysis.pair_counts import Bins, count_pairs
from aetdist.analysis.surface import alpha_shape


def _sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[np.arange(14)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return 2.6 * grid + rng.normal(0, 0.3, grid.shape), rng.integers(0, 2, len(grid))


def test_order__is_the_same_on_workers(client: Any) -> None:
    positions, kinds = _sample()
    there = (
        count_pairs(positions, kinds, Bins(9.0, 0.1), largest=700),
        alpha_shape(positions, 3.5, largest=700),
        aet.pair_distribution(positions, kinds + 1, r_max=9.0),
    )
    with mock.patch("aetdist.blocks.atoms.current_client", return_value=None):
        here = (
            count_pairs(positions, kinds, Bins(9.0, 0.1)),
            alpha_shape(positions, 3.5),
            aet.pair_distribution(positions, kinds + 1, r_max=9.0),
        )
    for a, b in zip(there[0], here[0], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(there[1].tetrahedra, here[1].tetrahedra)
    np.testing.assert_array_equal(there[1].faces, here[1].faces)
    for name in here[2].data_vars:
        np.testing.assert_array_equal(there[2][name], here[2][name])
