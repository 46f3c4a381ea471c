"""A volume as MRC."""

from __future__ import annotations

from pathlib import Path

import dask
import dask.array as da
import mrcfile
import numpy as np
import pytest
import xarray as xr

from aetdist.errors import InputError, StoreError
from aetdist.io import mrc_export, voxel_export, write_mrc


def volume(shape: tuple[int, int, int] = (4, 3, 5), step: float = 0.3216) -> xr.Dataset:
    density = np.random.default_rng(0).normal(size=shape).astype("f4")
    starts = {"z": -10.0, "y": 4.0, "x": 0.5}
    coordinates = {name: starts[name] + step * np.arange(n) for name, n in zip("zyx", shape, strict=True)}
    return xr.Dataset({"density": (("z", "y", "x"), density)}, coordinates)


def test_mrc__holds_voxels_size_and_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxel_export, "_SLAB_BYTES", 4 * 3 * 5 * 3)  # three slices at a time, then one
    path = tmp_path / "volume é.mrc"
    write_mrc(path, volume())
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        density = volume().density.values
        np.testing.assert_array_equal(file.data, density)
        np.testing.assert_allclose(file.voxel_size.tolist(), [0.3216] * 3, rtol=1e-6)
        np.testing.assert_allclose(file.header.origin.tolist(), [0.5, 4.0, -10.0])
        statistics = [float(file.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        np.testing.assert_allclose(statistics, [density.min(), density.max(), density.mean(), density.std()], rtol=1e-5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["volume é.mrc"]


def test_mrc__never_holds_more_than_a_slab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxel_export, "_SLAB_BYTES", 4 * 64)
    sizes = []

    def count(block: np.ndarray) -> np.ndarray:
        sizes.append(block.size)
        return block

    density = da.zeros((6, 8, 8), chunks=(1, 8, 8), dtype="f4").map_blocks(
        count, dtype="f4", meta=np.empty((0, 0, 0), "f4")
    )
    lazy = volume((6, 8, 8))
    lazy["density"] = lazy.density.copy(data=density)
    with dask.config.set(scheduler="synchronous"):
        write_mrc(tmp_path / "v.mrc", lazy)
    assert sizes == [64] * 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.drop_vars("z"), "no coordinate z"),
        (lambda v: v.assign_coords(x=[0.0, 1, 2, 4, 5]), "evenly spaced"),
        (lambda v: v.isel(y=slice(None, None, -1)), "rising"),
        (lambda v: v.isel(y=slice(0, 0)), "no voxel"),
        (lambda v: v.rename(density="other"), "needs density"),
    ],
)
def test_mrc__refuses_what_it_cannot_hold(tmp_path: Path, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_mrc(tmp_path / "v.mrc", change(volume()))
    assert list(tmp_path.iterdir()) == []


def test_mrc__full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mrc_export, "_write_slabs", full)
    with pytest.raises(StoreError, match="No room left"):
        write_mrc(tmp_path / "v.mrc", volume())
    assert list(tmp_path.iterdir()) == []
