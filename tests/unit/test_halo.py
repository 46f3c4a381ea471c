from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetdist.blocks.halo import block_cores, block_edges, with_halo


@pytest.mark.parametrize(
    ("n", "chunks", "edges"),
    [
        (320, (320,), [0, 160, 320]),
        (100, (10,) * 10, [0, 100]),
        (200, (64, 64, 64, 8), [0, 128, 200]),
        (130, (100, 30), [0, 130]),
        (5, (5,), [0, 5]),
    ],
)
def test_block_edges__merge_and_split_chunks(n, chunks, edges):
    assert block_edges(n, chunks, smallest=96, largest=192) == edges


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 40), st.integers(40, 90))
def test_block_edges__cover_the_axis_once(chunks, smallest, largest):
    n = sum(chunks)
    edges = block_edges(n, tuple(chunks), smallest, largest)
    lengths = np.diff(edges)
    assert edges[0] == 0 and edges[-1] == n and (lengths > 0).all()
    assert len(lengths) == 1 or lengths.min() >= smallest / 2
    assert lengths.max() <= largest + smallest / 2


def test_block_cores__own_every_voxel_once():
    count = np.zeros((5, 7, 9), dtype=int)
    for core in block_cores([[0, 2, 5], [0, 7], [0, 3, 6, 9]]):
        count[tuple(slice(*c) for c in core)] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("halo", [0, 2, 20])
def test_with_halo__region_and_pads_make_core_and_halo(halo):
    shape, core = (10, 12, 30), ((0, 10), (4, 8), (20, 30))
    region, pads = with_halo(core, shape, halo)
    padded = np.pad(np.zeros(shape)[region], pads)
    assert padded.shape == tuple(hi - lo + 2 * halo for lo, hi in core)
    assert all(0 <= r.start <= lo and hi <= r.stop <= n for r, (lo, hi), n in zip(region, core, shape, strict=True))
