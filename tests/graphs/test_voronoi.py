"""Voronoi cells on worker processes are those of one process."""

from __future__ import annotations

from typing import Any

import numpy as np

import aetdist as aet


def test_voronoi_indices__same_on_workers(client: Any) -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(11)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 2.7
    points = grid + rng.normal(0, 0.4, grid.shape)
    assert aet.voronoi_indices(points, largest=300).identical(aet.voronoi_indices(points))
