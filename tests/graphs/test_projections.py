"""Per-angle projection of NumPy, Dask and labelled volumes."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import aetdist as aet
from aetdist.errors import InputError

SHAPE = (14, 18, 22)
ANGLES = np.random.default_rng(2).uniform(-75, 75, (5, 3))
VOLUME = np.random.default_rng(3).random(SHAPE, dtype=np.float32)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*(st.integers(3, n) for n in SHAPE)))
def test_project_volume__is_the_same_for_every_chunking(chunks: tuple[int, int, int]) -> None:
    """To 1e-6 of the largest value."""
    whole = aet.project_volume(VOLUME, ANGLES)
    parts = aet.project_volume(da.from_array(VOLUME, chunks=chunks), ANGLES)
    assert isinstance(parts, da.Array) and isinstance(whole, np.ndarray)
    assert np.abs(parts.compute(scheduler="sync") - whole).max() <= 1e-6 * np.abs(whole).max()


def test_project_volume__building_the_graph_computes_nothing(no_compute: None) -> None:
    """Neither for the arrays nor for the labels."""
    volume = da.from_delayed(_forbidden(), SHAPE, np.float32).rechunk((7, 9, 11))
    images = aet.project_volume(volume, ANGLES, detector_shape=(10, 12))
    assert images.shape == (5, 10, 12) and images.dtype == np.float32
    coords = {d: np.arange(n) * 0.5 for d, n in zip("zyx", SHAPE, strict=True)}
    labelled = xr.DataArray(volume, dims=("z", "y", "x"), coords=coords)
    assert aet.project_volume(labelled, ANGLES).chunks is not None


def _forbidden():
    import dask

    @dask.delayed
    def never():
        raise AssertionError("computed")

    return never()


def test_project_volume__labels_say_where_the_volume_lies() -> None:
    """Moving the volume by whole voxels along x moves its zero-tilt projection as far."""
    coords = {d: (np.arange(n) - n // 2) * 0.4 for d, n in zip("zyx", SHAPE, strict=True)}
    here = xr.DataArray(VOLUME, dims=("z", "y", "x"), coords=coords)
    there = here.assign_coords(x=here.x + 3 * 0.4)
    first, second = (aet.project_volume(v, [[0, 0, 0]], detector_shape=SHAPE[1:]) for v in (here, there))
    np.testing.assert_allclose(second.values[:, :, 3:], first.values[:, :, :-3], atol=2e-3)
    assert first.x.attrs["units"] == "angstrom" and float(first.x[11]) == 0.0
    # without a detector, the images lie over the volume, however far that is from the origin
    far = here.assign_coords(y=here.y - 70.0)
    images = aet.project_volume(far, [[0, 0, 0]])
    np.testing.assert_array_equal(images.y, far.y)
    np.testing.assert_allclose(images.values, first.values, atol=2e-3)


def test_project_volume__refuses_bad_input() -> None:
    """Shape, angles, voxels that are not cubes."""
    with pytest.raises(InputError, match="three axes"):
        aet.project_volume(np.zeros((3, 3)), ANGLES)
    with pytest.raises(InputError, match=r"\(tilts, 3\)"):
        aet.project_volume(VOLUME, [0.0, 10.0])
    with pytest.raises(InputError, match="tilt 1"):
        aet.project_volume(VOLUME, [[0, 0, 0], [0, np.nan, 0]])
    flat = xr.DataArray(
        VOLUME,
        dims=("z", "y", "x"),
        coords={d: np.arange(n) * (0.5 if d == "z" else 0.4) for d, n in zip("zyx", SHAPE, strict=True)},
    )
    with pytest.raises(InputError, match="cubes"):
        aet.project_volume(flat, ANGLES)
