from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import distance_transform_edt

from aetdist.errors import InputError
from aetdist.project.atoms import render_atoms
from aetdist.simulate import nanoparticle
from aetdist.trace import find_support
from aetdist.trace.support import _block_means, _cell_means, _grown

VOXEL = 0.35


def volume_of(position, shape, noise=0.0):
    x, y, z = ((np.arange(n) - n // 2) * VOXEL for n in shape[::-1])
    density = render_atoms(position, sigmas=0.5, x=x, y=y, z=z, pixel_size=VOXEL)
    density = np.maximum(density + np.random.default_rng(0).normal(0, noise, shape), 0).astype(np.float32)
    return xr.Dataset({"density": (("z", "y", "x"), density)}, coords={"z": z, "y": y, "x": x})


@pytest.fixture(scope="module")
def position():
    return nanoparticle(22.0, seed=1)["position"].values


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_support__tight_and_loose(position, noise):
    volume = volume_of(position, (101, 99, 103), noise)
    tight, loose = find_support(volume), find_support(volume, margin=3.0)
    assert tight.dims == ("z", "y", "x") and tight.dtype == bool and tight.shape == volume["density"].shape
    radius = np.sqrt(volume.z**2 + volume.y**2 + volume.x**2).values
    assert tight.values[radius < 8.5].all() and not tight.values[radius > 13].any()
    assert (loose.values >= tight.values).all() and not loose.values[radius > 16.5].any()
    at = {a: xr.DataArray(p, dims="atom") for a, p in zip("xyz", position.T, strict=True)}
    assert loose.sel(at, method="nearest").all()


def test_support__matter_that_fills_the_volume(position):
    volume = volume_of(position, (32, 32, 32), 0.1)
    assert find_support(volume).all()


def test_support__holes_are_filled_and_specks_left_out(position):
    hollow = position[np.linalg.norm(position, axis=1) > 5]
    volume = volume_of(np.concatenate([hollow, [[25.0, 0, 0]]]), (91, 91, 161))
    support = find_support(volume)
    assert support.sel(x=0, y=0, z=0, method="nearest")
    assert not support.sel(x=25, y=0, z=0, method="nearest")


@pytest.mark.parametrize("chunks", [(40, 33, 17), (101, 7, 103), (5, 99, 51)])
def test_support__same_for_every_chunking(position, chunks):
    volume = volume_of(position, (101, 99, 103), 0.1)
    with dask.config.set(scheduler="synchronous"):
        chunked = volume.chunk(dict(zip("zyx", chunks, strict=True)))
        lazy = find_support(chunked, margin=2.0)
        assert isinstance(lazy.data, da.Array) and lazy.chunks == chunked["density"].chunks
        xr.testing.assert_identical(lazy.compute(), find_support(volume, margin=2.0))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_cell_means__equal_plain_means(factor):
    density = np.random.default_rng(2).random((10, 7, 11)).astype(np.float32)
    expected = np.empty([-(-n // factor) for n in density.shape])
    for i in np.ndindex(*expected.shape):
        expected[i] = density[tuple(slice(factor * k, factor * (k + 1)) for k in i)].mean()
    np.testing.assert_allclose(_block_means(density, factor), expected, rtol=1e-6)
    np.testing.assert_array_equal(_cell_means(density, factor), _block_means(density, factor))


def test_support__bad_input(position):
    volume = volume_of(position, (20, 20, 20))
    with pytest.raises(InputError, match="smoothing is 0"):
        find_support(volume, smoothing=0)
    with pytest.raises(InputError, match="margin is -1"):
        find_support(volume, margin=-1)
    with pytest.raises(InputError, match="nowhere positive"):
        find_support(volume * 0)
    with pytest.raises(InputError, match="not finite"):
        find_support(volume.where(volume.x > 0))
    with pytest.raises(InputError, match="needs density"):
        find_support(xr.Dataset())


@pytest.mark.parametrize("shape", [(50, 20, 30), (7, 5, 6)])
@pytest.mark.parametrize("reach", [0.5, 1.0, 2.7, 4.6])
def test_grown__is_the_same_in_slabs(shape, reach):
    inside = np.random.default_rng(0).random(shape) < 0.003
    inside[-1, 0, 0] = True
    np.testing.assert_array_equal(_grown(inside, reach), distance_transform_edt(~inside) <= reach)
