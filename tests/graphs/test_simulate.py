"""The graph of a simulated series: nothing computed while it is built, one task per tilt."""

from __future__ import annotations

import dask
import numpy as np
import pytest

from aetdist.simulate import nanoparticle, simulate_tilt_series


@pytest.fixture(scope="module")
def particle():
    return nanoparticle(14.0, seed=0)


def test_simulate_tilt_series__building_the_graph_computes_nothing(particle, no_compute):
    series = simulate_tilt_series(particle, np.arange(-60.0, 61.0, 5.0), dose=1e4)
    with pytest.raises(AssertionError, match="while the graph was built"):
        series["images"].compute()


def test_simulate_tilt_series__one_tilt_needs_one_projection(particle):
    angles = np.arange(-60.0, 61.0, 5.0)
    images = simulate_tilt_series(particle, angles, dose=1e4, seed=0)["images"].data
    whole, one = (dict(dask.optimize(part)[0].__dask_graph__()) for part in (images, images[3]))
    assert len(angles) <= len(whole) <= 3 * len(angles) + 2
    assert len(one) <= 6
