"""Shifts that vary over an image: their numbers, one after the other, undone, and applied once."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist.align import shift_images
from aetdist.errors import InputError
from aetdist.images import resample
from aetdist.images.displacement import TERMS, as_map, checked_local, composed, inverted, powers
from aetdist.preprocess import sum_frames

SHAPE = (40, 61)
RANDOM = np.random.default_rng(4)
SHIFT, LOCAL = RANDOM.uniform(-2, 2, (3, 2)), RANDOM.uniform(-1, 1, (3, 2, len(TERMS)))
DISTORTION = np.array([[1.01, 0.02], [-0.03, 0.98]])


def field(shift: np.ndarray, local: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """a(r) written out, (2, ...) pixels."""
    v, u = (y - SHAPE[0] // 2) / (SHAPE[0] / 2), (x - SHAPE[1] // 2) / (SHAPE[1] / 2)
    return np.array(
        [
            s + a[0] * v + a[1] * u + a[2] * v * v + a[3] * v * u + a[4] * u * u
            for s, a in zip(shift, local, strict=True)
        ]
    )


def pixels() -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(np.arange(SHAPE[0], dtype=float), np.arange(SHAPE[1], dtype=float), indexing="ij")


def test_powers__one_at_the_border():
    np.testing.assert_allclose(powers(0, 0, (40, 60)), [-1, -1, 1, 1, 1])
    np.testing.assert_allclose(powers(20, 30, (40, 60)), 0)


@pytest.mark.parametrize("distortion", [None, DISTORTION])
def test_as_map__is_the_displaced_place(distortion):
    y, x = pixels()
    matrix, shift, bend = as_map(SHIFT[0], LOCAL[0], SHAPE, distortion)
    r = np.stack([y - SHAPE[0] // 2, x - SHAPE[1] // 2])
    place = np.einsum("ab,byx->ayx", matrix, r) + shift[:, None, None]
    place += np.einsum("ab,byx->ayx", bend, [r[0] ** 2, r[0] * r[1], r[1] ** 2])
    d = np.eye(2) if distortion is None else distortion
    np.testing.assert_allclose(place, np.einsum("ab,byx->ayx", d, r + field(SHIFT[0], LOCAL[0], y, x)), atol=1e-9)


def test_composed__one_after_the_other():
    y, x = pixels()
    other = SHIFT[::-1], 0.5 * LOCAL[::-1]
    shift, local = composed((SHIFT, LOCAL), other, SHAPE)
    for t in range(3):
        b = field(other[0][t], other[1][t], y, x)
        expected = b + field(SHIFT[t], LOCAL[t], y + b[0], x + b[1])
        assert np.abs(field(shift[t], local[t], y, x) - expected).max() < 0.05  # terms of the third order
    only_shifts, nothing = composed((SHIFT, 0 * LOCAL), (SHIFT, 0 * LOCAL), SHAPE)
    np.testing.assert_allclose(only_shifts, 2 * SHIFT)
    np.testing.assert_allclose(nothing, 0, atol=1e-12)


def test_inverted__comes_back():
    y, x = pixels()
    back, back_local = inverted(SHIFT, 0.5 * LOCAL, SHAPE)
    for t in range(3):
        b = field(back[t], back_local[t], y, x)
        assert np.abs(b + field(SHIFT[t], 0.5 * LOCAL[t], y + b[0], x + b[1])).max() < 0.03


@pytest.fixture(scope="module")
def series() -> xr.Dataset:
    random = np.random.default_rng(1)
    mask = random.random((3, *SHAPE)) < 0.98
    images = np.where(mask, random.random((3, *SHAPE)), 0).astype(np.float32)
    return xr.Dataset({"images": (("tilt", "y", "x"), images), "mask": (("tilt", "y", "x"), mask)})


def test_shift_images__every_tilt_by_its_own_displacement(series):
    moved = shift_images(series, SHIFT, local=LOCAL)
    for t in range(3):
        matrix, place, bend = as_map(SHIFT[t], LOCAL[t], SHAPE)
        image = np.where(series["mask"][t], series["images"][t], np.nan)
        expected, inside = resample(image, matrix, place, bend=bend)
        np.testing.assert_array_equal(moved["images"][t], expected)
        np.testing.assert_array_equal(moved["mask"][t], inside)
    for chunks in ({"tilt": 1}, {"tilt": 2, "y": 13}):
        xr.testing.assert_equal(shift_images(series.chunk(chunks), SHIFT, local=LOCAL).compute(), moved.compute())


def test_shift_images__builds_a_graph_only(series, no_compute):
    assert shift_images(series.chunk({"tilt": 1}), SHIFT, local=LOCAL)["images"].shape == (3, *SHAPE)


def test_sum_frames__distortion_drift_and_displacement_at_once():
    frames = np.random.default_rng(2).random((3, 2, *SHAPE)).astype(np.float32)
    drift = np.random.default_rng(3).uniform(-1, 1, (3, 2, 2))
    corrections = xr.Dataset(
        {
            "frame_shift": (("tilt", "frame", "axis"), drift),
            "frame_kept": (("tilt", "frame"), np.ones((3, 2), bool)),
            "distortion": (("axis", "scan_axis"), DISTORTION),
            "shift": (("tilt", "axis"), SHIFT),
            "local_shift": (("tilt", "axis", "term"), LOCAL),
        }
    )
    array = xr.DataArray(frames, dims=("tilt", "frame", "y", "x"))
    images, mask = sum_frames(array, corrections)
    for t in range(3):
        matrix, place, bend = as_map(SHIFT[t], LOCAL[t], SHAPE, DISTORTION)
        parts = [resample(frames[t, f], matrix, place + drift[t, f], bend=bend) for f in range(2)]
        both = parts[0][1] & parts[1][1]
        np.testing.assert_array_equal(mask[t], both)
        np.testing.assert_allclose(images[t].values[both], (parts[0][0] + parts[1][0])[both] / 2, rtol=1e-6)
    lazy = sum_frames(array.chunk({"tilt": 2}), corrections)
    np.testing.assert_array_equal(lazy[0].values, images.values)


@pytest.mark.parametrize("local", [np.zeros((3, 2)), np.zeros((2, 2, 5)), np.full((3, 2, 5), np.nan)])
def test_checked_local__refuses(local):
    with pytest.raises(InputError, match="for every tilt"):
        checked_local(local, 3)
    assert checked_local(None, 3) is None
