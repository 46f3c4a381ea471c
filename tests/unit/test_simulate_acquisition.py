"""Simulated acquisitions: every corruption is the one that is recorded, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist.errors import InputError
from aetdist.geometry import matrices_from_euler, rotate_tilt_axis
from aetdist.simulate import nanoparticle, simulate_acquisition

TILTS = np.array([-40.0, 0.0, 55.0])
SEEN = ((1.01, 0.004), (-0.006, 0.99))


@pytest.fixture(scope="module")
def particle():
    return nanoparticle(16.0, seed=3)


def one_atom(position=(3.0, 2.0, 1.0)):
    return xr.Dataset({"position": (("atom", "axis"), np.array([position]))})


def centre_of(image):
    y, x = np.indices(image.shape)
    return np.array([(y * image).sum(), (x * image).sum()]) / image.sum()


def test_simulate_acquisition__an_atom_appears_where_the_truth_says():
    raw = simulate_acquisition(
        one_atom(), TILTS, field=(90, 80), distortion=SEEN, background=0.0, read_noise=0.0, offset=0.0,
        dose=1e9, shift=8.0, tilt_axis=1.5, seed=1,
    )  # fmt: skip
    assert raw["frames"].shape == (3, 4, 80, 90) and raw["frames"].dtype == np.float32
    np.testing.assert_allclose(raw["true_angles"], rotate_tilt_axis(raw["angles"].values, 1.5))
    lab = matrices_from_euler(raw["true_angles"].values) @ [3.0, 2.0, 1.0] / 0.35
    assert np.abs(raw["true_shift"]).max() > 2 and np.abs(raw["true_frame_shift"][:, 1:]).max() > 0.3
    for tilt in range(3):
        for frame in range(4):
            r = lab[tilt, [1, 0]] + raw["true_shift"][tilt].values
            expected = np.array(SEEN) @ r + raw["true_frame_shift"][tilt, frame].values + [40, 45]
            np.testing.assert_allclose(centre_of(raw["frames"][tilt, frame].values), expected, atol=2e-3)


def test_simulate_acquisition__without_corruption_frames_are_the_clean_images(particle):
    raw = simulate_acquisition(
        particle, TILTS, frames=1, distortion=((1, 0), (0, 1)), shift=0.0, drift=0.0, tilt_axis=0.0,
        background=0.0, offset=7.0, read_noise=0.0, dose=1e8, seed=0,
    )  # fmt: skip
    clean = raw["true_images"].values
    np.testing.assert_allclose(raw["frames"][:, 0] - 7.0, clean, atol=6 * np.sqrt(4.0 * clean.max()))
    assert np.corrcoef((raw["frames"][:, 0] - 7.0).values.ravel(), clean.ravel())[0, 1] > 0.99999


def test_simulate_acquisition__a_distorted_atom_is_a_sheared_gaussian():
    """Its second moments are sigma^2 D D^T."""
    strong = np.array([[1.1, 0.06], [0.02, 0.92]])
    raw = simulate_acquisition(
        one_atom(), [0.0], field=(60, 60), sigma=0.8, frames=1, distortion=strong.tolist(), shift=0.0, background=0.0,
        offset=0.0, read_noise=0.0, dose=1e11, tilt_axis=0.0, seed=1,
    )  # fmt: skip
    image = raw["frames"].values[0, 0].astype(np.float64)
    off = np.stack(np.indices(image.shape), -1) - centre_of(image)
    moments = np.einsum("yx,yxi,yxj->ij", image, off, off) / image.sum()
    np.testing.assert_allclose(moments, (0.8 / 0.35) ** 2 * strong @ strong.T, rtol=2e-3, atol=2e-3)


def test_simulate_acquisition__noise_is_what_the_attributes_say(particle):
    raw = simulate_acquisition(particle, [0.0], field=(200, 200), frames=8, drift=0.0, seed=5)
    stack = raw["frames"].values[0].astype(np.float64)
    gain, offset, read = (raw.attrs[f"true_{name}"] for name in ("gain", "offset", "read_noise"))
    mean, variance = stack.mean(0), stack.var(0, ddof=1)
    slope, level = np.polyfit((mean - offset).ravel(), variance.ravel(), 1)
    assert slope == pytest.approx(gain, rel=0.05)
    assert level == pytest.approx(read**2, abs=0.4 * gain)


def test_simulate_acquisition__background_is_smooth_and_of_the_level_asked_for(particle):
    raw = simulate_acquisition(particle, TILTS, background=0.3, seed=2)
    background = raw["true_background"].values
    per_intensity = raw.attrs["simulation_counts_per_intensity"]
    assert background.min() > 0
    from aetdist.simulate import simulate_tilt_series

    reference = simulate_tilt_series(particle, [0.0]).attrs["simulation_average_intensity"]
    centre = background[:, background.shape[1] // 2, background.shape[2] // 2]
    np.testing.assert_allclose(centre, 0.3 * reference * per_intensity, rtol=1e-5)


def test_simulate_acquisition__seeded_whatever_the_chunks(particle):
    one, two = (simulate_acquisition(particle, TILTS, field=(64, 64), seed=9) for _ in range(2))
    np.testing.assert_array_equal(one["frames"][2].compute(), two["frames"].compute()[2])
    other = simulate_acquisition(particle, TILTS, field=(64, 64), seed=10)
    assert not np.array_equal(one["true_shift"], other["true_shift"])
    assert not np.array_equal(one["frames"][0].compute(), one["frames"][1].compute())


def test_simulate_acquisition__building_the_graph_computes_nothing(particle, no_compute):
    raw = simulate_acquisition(particle, TILTS, seed=0)
    assert raw["frames"].chunks[0] == (1, 1, 1)
    with pytest.raises(AssertionError, match="while the graph was built"):
        raw["true_images"].compute()


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"frames": 0}, "frames"),
        ({"distortion": ((2.0, 0.0), (0.0, 1.0))}, "distortion"),
        ({"distortion": ((1.0, 0.0),)}, "distortion"),
        ({"drift": -1.0}, "drift"),
        ({"shift": np.nan}, "shift"),
        ({"gain": 0.0}, "gain"),
        ({"background": -0.1}, "background"),
        ({"dose": 0.0}, "dose"),
        ({"read_noise": -1.0}, "read_noise"),
        ({"field": (0, 5)}, "field"),
    ],
)
def test_simulate_acquisition__refuses_what_cannot_be(particle, keywords, match):
    with pytest.raises(InputError, match=match):
        simulate_acquisition(particle, TILTS, **keywords)
