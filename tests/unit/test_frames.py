"""Frames of a tilt: drift against its truth, frames that do not fit, their mean with all corrections, laziness."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import pytest
import xarray as xr

from aetdist.errors import AetdistWarning, InputError
from aetdist.preprocess.frames import register_frames, sum_frames, warn_of_dropped
from aetdist.project.atoms import project_atoms
from aetdist.simulate import amorphous_film, nanoparticle, simulate_acquisition

DISTORTION = np.array([[1.004, 0.003], [0.003, 0.996]])
SIGMA = 0.6
OFFSET = 100.0


@pytest.fixture(scope="module")
def particle():
    return nanoparticle(26.0, seed=2)


@pytest.fixture(scope="module")
def raw(particle):
    return simulate_acquisition(
        particle, [-50.0, 0.0, 30.0], field=(132, 128), drift=1.5, shift=3.0, sigma=SIGMA, background=0.0, seed=3
    )


@pytest.fixture(scope="module")
def frames(raw):
    return raw["frames"].compute()


@pytest.fixture(scope="module")
def found(frames):
    return register_frames(frames)


def _rms(values):
    return np.sqrt(np.mean(np.square(values)))


def test_register_frames__drift_of_a_particle(raw, found):
    assert np.abs(raw["true_frame_shift"].values).max() > 2
    assert (found["frame_shift"].values[:, 0] == 0).all()
    assert _rms((found["frame_shift"].values - raw["true_frame_shift"].values)[:, 1:]) < 0.06
    assert found["frame_kept"].all() and (found["frame_correlation"] > 0.9).all()
    assert found["frame_shift"].dims == ("tilt", "frame", "axis") and found["frame_shift"].attrs["units"] == "pixel"


def test_register_frames__drift_of_a_film():
    film = amorphous_film((80.0, 60.0), 20.0, seed=4)
    raw = simulate_acquisition(film, [0.0, 40.0], field=(120, 120), drift=2.0, shift=0.0, sigma=SIGMA, seed=5)
    found = register_frames(raw["frames"].compute())
    assert _rms((found["frame_shift"].values - raw["true_frame_shift"].values)[:, 1:]) < 0.04


def test_register_frames__takes_the_group_as_well_and_is_the_same_when_lazy(raw, frames, found):
    lazy = register_frames(raw.chunk({"frame": 2}))
    assert lazy["frame_shift"].chunks[0] == (1, 1, 1)
    xr.testing.assert_identical(lazy.compute(), found)
    images, mask = sum_frames(raw, lazy)
    expected, expected_mask = sum_frames(frames, found)
    assert images.chunks[0] == (1, 1, 1) and images.dtype == np.float32
    xr.testing.assert_equal(images.compute(), expected)
    xr.testing.assert_equal(mask.compute(), expected_mask)


def test_register_frames__building_the_graph_computes_nothing(raw, no_compute):
    found = register_frames(raw)
    images, mask = sum_frames(raw, found.assign(distortion=(("row", "column"), DISTORTION)))
    assert all(dask.is_dask_collection(a) for a in (found, images, mask))


@pytest.mark.parametrize("bad", [0, 2])
def test_register_frames__a_frame_that_does_not_fit_is_left_out_and_named(frames, raw, bad):
    wrong = frames.isel(tilt=[0, 1]).copy(deep=True)
    wrong[1, bad] = np.random.default_rng(0).permutation(frames[1, bad].values.ravel()).reshape(frames.shape[2:])
    with pytest.warns(AetdistWarning, match=f"frame {bad} of tilt 1"):
        found = register_frames(wrong)
    np.testing.assert_array_equal(found["frame_kept"][1], np.arange(4) != bad)
    assert found["frame_kept"][0].all()
    truth = raw["true_frame_shift"].values[1]
    first = 1 if bad == 0 else 0  # shifts count from the first frame that fits
    good = found["frame_kept"][1].values
    assert np.abs((found["frame_shift"][1].values - (truth - truth[first]))[good]).max() < 0.15
    assert np.isfinite(found["frame_shift"][1]).all()  # of the bad one too, such as it is


def test_register_frames__missing_blank_and_single_frames(frames):
    some = frames.isel(tilt=[0, 1, 2]).copy(deep=True)
    some[0, 3] = np.nan  # a tilt of three frames
    some[1, 1] = 7.0  # blank
    some[2, 1:] = np.nan  # a single frame
    some[2, 0, :4] = np.nan  # of which some rows were not measured
    with pytest.warns(AetdistWarning, match=r"1 of 12 frames .* frame 1 of tilt 1 \(blank\)"):
        found = register_frames(some)
    kept = [[True, True, True, False], [True, False, True, True], [True, False, False, False]]
    np.testing.assert_array_equal(found["frame_kept"], kept)
    np.testing.assert_array_equal(np.isfinite(found["frame_shift"]).all("axis"), kept)
    assert np.isnan(found["frame_correlation"][0, 3]) and found["frame_correlation"][1, 1] == 0
    images, mask = sum_frames(some, found)
    assert np.isfinite(images).all() and mask.any(("y", "x")).all()
    assert not mask[2, :4].any()
    np.testing.assert_allclose(images[2, 4:], frames[2, 0, 4:], rtol=1e-5)


def test_register_frames__a_tilt_of_nothing_is_masked(frames):
    some = frames.isel(tilt=[0, 1]).copy(deep=True)
    some[1] = 5.0
    with pytest.warns(AetdistWarning) as caught:
        found = register_frames(some)
    assert "without a usable frame: 1" in str(caught[-1].message)
    images, mask = sum_frames(some, found)
    assert not mask[1].any() and (images[1] == 0).all() and mask[0].any()


def test_warn_of_dropped__says_nothing_where_all_is_well(found):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_dropped(found)


def test_sum_frames__shows_the_sample_where_it_belongs(raw, particle, frames):
    """All corrections in one resampling: no worse than the counts' noise allows."""
    truth = xr.Dataset(
        {
            "frame_shift": raw["true_frame_shift"],
            "frame_kept": (("tilt", "frame"), np.ones((3, 4), bool)),
            "distortion": raw["true_distortion"],
            "shift": raw["true_shift"],
        }
    )
    images, mask = sum_frames(frames, truth)
    clean = project_atoms(
        particle["position"].values,
        raw["true_angles"].values,
        heights=_heights(particle),
        sigmas=SIGMA,
        x=raw["x"].values,
        y=raw["y"].values,
        pixel_size=0.35,
    )
    clean *= raw.attrs["simulation_counts_per_intensity"]
    measured = mask.values
    noise = np.sqrt((4.0 * clean + 1.0) / 4)  # gain 4, four frames
    pull = ((images.values - OFFSET - clean) / np.maximum(noise, 0.5))[measured]
    assert abs(pull.mean()) < 0.02 and pull.std() < 1.05
    still, _ = sum_frames(frames, truth.assign(distortion=(("row", "column"), np.eye(2))))
    assert _rms((still.values - OFFSET - clean)[measured]) > 1.05 * _rms((images.values - OFFSET - clean)[measured])
    assert 0.85 < measured.mean() < 1


def _heights(atoms):
    from aetdist.simulate.inputs import heights_of, types_of

    return heights_of(atoms, types_of(atoms), None)


def test_register_frames__refuses_what_it_cannot_use(frames, found):
    with pytest.raises(InputError, match="all frames of one size"):
        register_frames(frames[:, 0])
    with pytest.raises(InputError, match="maximum_shift"):
        register_frames(frames, maximum_shift=0)
    with pytest.raises(InputError, match="minimum_correlation"):
        register_frames(frames, minimum_correlation=2)
    with pytest.raises(InputError, match="no frame_kept"):
        sum_frames(frames, found.drop_vars("frame_kept"))
    with pytest.raises(InputError, match="frame_shift has shape"):
        sum_frames(frames, found.isel(tilt=[0]))
    with pytest.raises(InputError, match="distortion has shape"):
        sum_frames(frames, found.assign(distortion=(("row", "column"), np.eye(3))))
