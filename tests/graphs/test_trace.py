from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from aetdist.errors import InputError
from aetdist.trace import find_peaks, trace_atoms


def volume(shape=(40, 44, 230)):
    """A row of atoms along a volume of two blocks."""
    axes = {a: (np.arange(n) - n // 2) * 0.35 for a, n in zip("zyx", shape, strict=True)}
    density = np.random.default_rng(0).normal(0, 0.05, shape)
    for position in np.arange(-36, 37, 3.0):
        x, y, z = (np.exp(-2 * (axes[a] - p) ** 2) for a, p in zip("xyz", (position, 0.3, -0.2), strict=True))
        density += z[:, None, None] * y[:, None] * x
    density = np.maximum(density, 0).astype(np.float32)
    return xr.Dataset({"density": (("z", "y", "x"), density)}, coords={a: (a, c) for a, c in axes.items()})


def test_find_peaks__building_the_graph_computes_nothing(no_compute):
    lazy = volume().chunk(z=20, y=22, x=50)
    support = xr.ones_like(lazy["density"], dtype=bool)
    parts = find_peaks(lazy, floor=0.1, support=support)
    assert len(parts) == 2 and all(dask.is_dask_collection(p) for p in parts)


def test_find_peaks__one_task_reads_only_its_block_and_halo():
    lazy = volume().chunk(z=20, y=22, x=23)
    for part in find_peaks(lazy, floor=0.1):
        graph = part.__dask_graph__().cull(set(part.__dask_keys__()))
        tasks = [k for k in graph.to_dict() if isinstance(k, str) and "_peaks_of_block" in k]
        assert len(tasks) == 1


def test_trace__lazy_equals_eager_with_a_support():
    eager = volume()
    support = xr.zeros_like(eager["density"], dtype=bool)
    support[:, :, :115] = True
    lazy = eager.chunk(z=20, y=22, x=50)
    expected = trace_atoms(eager, support=support)
    assert 10 < expected.sizes["atom"] < 14
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(trace_atoms(lazy, support=support.chunk(x=30)), expected)


def test_trace__a_block_with_nan_names_its_place():
    bad = volume()
    bad["density"][3, 4, 200] = np.nan
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(InputError, match=r"1 voxels of the block .* x 115\.\.229"),
    ):
        trace_atoms(bad.chunk(x=115))


def test_trace__from_zarr_on_a_client(client, tmp_path):
    eager = volume()
    eager.to_zarr(
        tmp_path / "volume.zarr", zarr_format=3, consolidated=False, encoding={"density": {"chunks": (40, 44, 46)}}
    )
    lazy = xr.open_zarr(tmp_path / "volume.zarr", consolidated=False)
    assert isinstance(lazy["density"].data, da.Array)
    xr.testing.assert_identical(trace_atoms(lazy), trace_atoms(eager))
