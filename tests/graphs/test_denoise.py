"""The graph of a denoised series: nothing computed while it is built, one task per tilt."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

import aetdist as aet
from aetdist.preprocess.denoise import denoise
from aetdist.preprocess.noise import NoiseModel


@pytest.fixture(scope="module")
def series():
    particle = aet.nanoparticle(8.0, seed=0)
    return aet.simulate_tilt_series(particle, np.arange(-60.0, 61.0, 10.0), pixel_size=0.4, dose=1e4, seed=0)


def test_denoise__building_the_graph_computes_nothing(series, no_compute):
    lazy = denoise(series, NoiseModel(1.0))
    assert isinstance(lazy["images"].data, da.Array) and isinstance(lazy["clamped_pixels"].data, da.Array)
    with pytest.raises(AssertionError, match="while the graph was built"):
        lazy["images"].compute()


def test_denoise__one_task_for_each_tilt(series):
    n = series.sizes["tilt"]
    images = denoise(series, NoiseModel(1.0))["images"].data
    assert images.numblocks == (n, 1, 1)
    whole, one = (dict(dask.optimize(part)[0].__dask_graph__()) for part in (images, images[3]))
    assert n <= len(whole) <= 5 * n + 3
    assert len(one) <= 8
