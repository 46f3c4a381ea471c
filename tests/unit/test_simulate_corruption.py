"""Errors of simulated tilt series: each is the one that is recorded, and switches no other."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

from aetdist.errors import CapacityError, InputError
from aetdist.geometry import matrices_from_euler
from aetdist.project.atoms import project_atoms
from aetdist.schema import TILT_SERIES, check
from aetdist.simulate import nanoparticle, simulate_acquisition, simulate_tilt_series
from aetdist.simulate.corruption import CARBON_DENSITY, angle_errors, brightness_factors, carbon_support

TILTS = np.array([-55.0, -20.0, 0.0, 30.0, 60.0])
ALL = {"angle_error": 0.4, "angle_drift": 0.8, "shift": 3.0, "brightness": 0.1, "background": 0.2, "carbon": 12.0}


@pytest.fixture(scope="module")
def particle():
    return nanoparticle(14.0, seed=3)


@pytest.fixture(scope="module")
def spoilt(particle):
    return simulate_tilt_series(particle, TILTS, **ALL, seed=4)


def test_simulate_tilt_series__of_spoilt_images_is_the_truth_that_is_recorded(particle, spoilt):
    """b (I(r - a) + B(r - a)) of the true angles, the carbon in I; every part is there on its own."""
    check(spoilt, TILT_SERIES)
    np.testing.assert_array_equal(spoilt["angles"][:, 1], TILTS)
    np.testing.assert_allclose(spoilt["matrices"], matrices_from_euler(spoilt["angles"].values))
    x, y = spoilt["x"].values, spoilt["y"].values
    sample = simulate_tilt_series(particle, spoilt["true_angles"].values, field=(len(x), len(y)))["images"]
    still = (sample + spoilt["true_support"] + spoilt["true_background"]).values
    for tilt in range(len(TILTS)):
        dy, dx = spoilt["true_shift"].values[tilt]
        heights = {"Ni": 28**1.7, "Pt": 78**1.7}
        seen = project_atoms(
            particle["position"].values, spoilt["true_angles"].values[tilt][None],
            heights=[heights[name] for name in particle["species"].values], x=x - dx * 0.35, y=y - dy * 0.35,
            pixel_size=0.35,
        )[0]  # fmt: skip
        rest = spoilt["images"].values[tilt] / float(spoilt["true_brightness"][tilt]) - seen
        support_and_background = still[tilt] - sample.values[tilt]
        moved = shifted(support_and_background, dy, dx)
        inner = (slice(5, -5), slice(5, -5))
        np.testing.assert_allclose(rest[inner], moved[inner], atol=0.02 * support_and_background.max())


def shifted(image, dy, dx):
    from scipy.ndimage import shift

    return shift(image, (dy, dx), order=5, mode="nearest")


def test_simulate_tilt_series__switching_an_error_on_leaves_the_others_as_they_are(particle, spoilt):
    names = {
        "angle_error": "true_angles", "shift": "true_shift", "brightness": "true_brightness",
        "background": "true_background", "carbon": "true_support",
    }  # fmt: skip
    for off in ("shift", "brightness", "background", "carbon"):
        field = (spoilt.sizes["x"], spoilt.sizes["y"])
        other = simulate_tilt_series(particle, TILTS, **{**ALL, off: 0.0}, field=field, seed=4)
        assert names[off] not in other
        for name in set(names.values()) - {names[off], *({"true_support"} if off == "shift" else ())}:
            np.testing.assert_array_equal(other[name], spoilt[name], err_msg=f"{name} without {off}")
    both = simulate_tilt_series(particle, TILTS, angle_error=0.4, angle_drift=0.8, seed=4)["true_angles"]
    apart = [
        simulate_tilt_series(particle, TILTS, **{name: ALL[name]}, seed=4) for name in ("angle_error", "angle_drift")
    ]
    np.testing.assert_allclose(both, sum(a["true_angles"] for a in apart) - apart[0]["angles"], atol=1e-12)


def test_simulate_tilt_series__is_clean_unless_asked(particle):
    clean = simulate_tilt_series(particle, TILTS, seed=4)
    assert set(clean.data_vars) == {"images", "mask", "angles", "matrices", "pixel_size"}


def test_simulate_tilt_series__same_errors_however_it_is_chunked(particle, spoilt):
    noisy = simulate_tilt_series(particle, TILTS, **ALL, dose=1e4, read_noise=0.5, seed=4)
    for name in ("images", "true_background", "true_support"):
        expected = noisy[name].compute(scheduler="synchronous")
        np.testing.assert_array_equal(noisy[name].chunk(tilt=5).compute(scheduler="threads"), expected)
    last = simulate_tilt_series(particle, TILTS, **ALL, dose=1e4, read_noise=0.5, seed=4)["images"][4].compute()
    np.testing.assert_array_equal(last, noisy["images"].compute()[4])


def test_angle_errors__have_the_spread_asked_for_and_the_drift_is_smooth():
    random = np.concatenate([angle_errors(200, 0.7, 0.0, seed) for seed in range(20)])
    assert random.std() == pytest.approx(0.7, rel=4 / np.sqrt(2 * random.size))
    smooth = np.array([angle_errors(200, 0.0, 0.7, seed) for seed in range(300)])
    assert np.sqrt((smooth**2).mean()) == pytest.approx(0.7, rel=0.1)
    assert np.abs(np.diff(smooth, axis=1)).max() < 0.15
    one = angle_errors(1, 0.3, 0.3, 5)
    assert one.shape == (1, 3) and np.isfinite(one).all()


def test_brightness_factors__are_positive_with_the_spread_asked_for():
    factors = np.concatenate([brightness_factors(500, 0.2, seed) for seed in range(10)])
    assert factors.min() > 0
    assert np.log(factors).std() == pytest.approx(0.2, rel=0.05)


def test_carbon_support__is_a_slab_below_that_fills_every_field():
    positions = np.array([[0.0, 0.0, -20.0], [0.0, 0.0, 20.0]])
    matrices = matrices_from_euler(np.array([[0.0, -50.0, 0.0], [2.0, 0.0, 1.0], [0.0, 50.0, 0.0]]))
    carbon = carbon_support(positions, 15.0, matrices, (-12.0, 12.0), (-9.0, 9.0), 3)
    assert carbon[:, 2].max() <= -22.0 and carbon[:, 2].min() >= -37.0
    assert cKDTree(carbon).query(carbon, 2)[0][:, 1].min() >= 1.4
    assert len(carbon) / np.prod(np.ptp(carbon, axis=0)) == pytest.approx(CARBON_DENSITY, rel=0.03)
    for matrix in matrices:  # as many atoms over every part of the field, in proportion to the path
        lab = carbon @ matrix.T
        for low in (-12.0, -4.0, 4.0):
            here = (lab[:, 0] >= low) & (lab[:, 0] < low + 8) & (np.abs(lab[:, 1]) <= 9)
            expected = CARBON_DENSITY * 8 * 18 * 15 / matrix[2, 2]
            assert here.sum() == pytest.approx(expected, rel=0.12)
    np.testing.assert_array_equal(carbon, carbon_support(positions, 15.0, matrices, (-12.0, 12.0), (-9.0, 9.0), 3))


def test_carbon_support__refuses_what_would_be_endless():
    edge = matrices_from_euler(np.array([[0.0, 90.0, 0.0]]))
    with pytest.raises(InputError, match="looks along the carbon"):
        carbon_support(np.zeros((1, 3)), 10.0, edge, (-5.0, 5.0), (-5.0, 5.0), 0)
    with pytest.raises(CapacityError, match="carbon atoms"):
        carbon_support(np.zeros((1, 3)), 100.0, np.eye(3)[None], (-2e3, 2e3), (-2e3, 2e3), 0)


def test_simulate_tilt_series__carbon_is_as_bright_as_its_atomic_number_says():
    """Per area: density times thickness times (6 / 78)^1.7 of a platinum atom's total."""
    one = xr.Dataset({"position": (("atom", "axis"), np.zeros((1, 3))), "species": ("atom", ["Pt"])})
    series = simulate_tilt_series(one, [0.0], field=(60, 60), heights=2.0, carbon=20.0, seed=1)
    mass = 2.0 * (2 * np.pi) ** 1.5 * (0.5 / 0.35) ** 3
    expected = CARBON_DENSITY * 20.0 * 0.35**2 * mass * (6 / 78) ** 1.7
    assert float(series["true_support"].mean()) == pytest.approx(expected, rel=0.05)
    with pytest.raises(InputError, match="brightness of carbon"):
        simulate_tilt_series(one.drop_vars("species"), [0.0], carbon=20.0)


def test_simulate_acquisition__takes_the_same_errors(particle):
    options = {"field": (70, 70), "frames": 2, "background": 0.0, "seed": 6, "tilt_axis": 0.0, "drift": 0.0}
    plain = simulate_acquisition(particle, TILTS, **options)
    errors = {name: ALL[name] for name in ("angle_error", "angle_drift", "brightness", "carbon")}
    raw = simulate_acquisition(particle, TILTS, **errors, **options)
    series = simulate_tilt_series(particle, TILTS, angle_error=0.4, angle_drift=0.8, brightness=0.1, seed=6)
    np.testing.assert_allclose(raw["true_angles"], series["true_angles"])
    np.testing.assert_array_equal(raw["true_brightness"], series["true_brightness"])
    np.testing.assert_array_equal(raw["true_shift"], plain["true_shift"])
    still = simulate_acquisition(particle, TILTS, **errors, **options | {"shift": 0.0, "distortion": ((1, 0), (0, 1))})
    clean = still["true_brightness"] * (still["true_images"] + still["true_support"])
    seen = still["frames"].mean("frame") - 100.0
    assert np.corrcoef(seen.values.ravel(), clean.values.ravel())[0, 1] > 0.98
    np.testing.assert_allclose(seen.mean(("y", "x")), clean.mean(("y", "x")), rtol=0.02)
    assert "true_support" not in plain and "true_brightness" not in plain


def test_simulate_tilt_series__linear_model_equals_an_exact_sum_over_gaussians():
    """To 1e-5, of every pixel beside the brightest one and of all differences beside the sum."""
    atoms = nanoparticle(20.0, species=("Co", "Pd", "Pt"), seed=2)
    heights, sigmas = np.array([1.0, 2.0, 3.0]), np.array([0.45, 0.5, 0.6])
    angles = np.array([[1.0, -62.0, 0.5], [-2.0, 17.0, 3.0]])
    series = simulate_tilt_series(atoms, angles, heights=heights, sigma=sigmas, field=(70, 64))
    x, y, types = series["x"].values, series["y"].values, atoms["type"].values - 1
    for image, matrix in zip(series["images"].values, matrices_from_euler(angles), strict=True):
        u, v, _ = matrix @ atoms["position"].values.T
        s = sigmas[types]
        row, column = (np.exp(-((axis[:, None] - c) ** 2) / (2 * s * s)) for axis, c in ((y, v), (x, u)))
        exact = (row * (heights[types] * np.sqrt(2 * np.pi) * s / 0.35)) @ column.T
        assert np.abs(image - exact).max() <= 1e-5 * exact.max()
        assert np.abs(image - exact).sum() <= 1e-5 * exact.sum()


def test_simulate_tilt_series__refuses_atoms_that_overlap(particle):
    twice = particle["position"].values.copy()
    twice[7] = twice[31] + [0.0, 0.3, 0.4]
    doubled = particle.assign(position=(("atom", "axis"), twice))
    for simulate in (simulate_tilt_series, simulate_acquisition):
        with pytest.raises(InputError, match=r"Atoms 7 and 31 .* are 0\.5 Angstrom apart, and 1 pairs"):
            simulate(doubled, TILTS)
    same = particle.assign(position=particle["position"] * 0.0)
    with pytest.raises(InputError, match="are 0 Angstrom apart"):
        simulate_tilt_series(same, TILTS)


def test_simulate_tilt_series__a_particle_must_be_inside_its_field(particle):
    options = {"pixel_size": 0.35, "field": (24, 60)}
    with pytest.raises(InputError, match=r"% of the atoms are beside the field of 24 x 60 .* particle"):
        simulate_tilt_series(particle, TILTS, kind="particle", **options)
    film = simulate_tilt_series(particle, TILTS, kind="film", **options)
    lab = np.einsum("tij,aj->tai", film["matrices"].values, particle["position"].values)[..., 0]
    outside = ((lab < -12.5 * 0.35) | (lab > 11.5 * 0.35)).mean(axis=1).max()
    assert film.attrs["simulation_outside_field"] == pytest.approx(outside)
    whole = simulate_tilt_series(particle, TILTS, kind="particle")
    assert whole.attrs["simulation_outside_field"] == 0.0
    with pytest.raises(InputError, match=r"beside the field of 24 x 60 .* particle"):
        simulate_acquisition(particle, TILTS, kind="particle", **options)
    with pytest.raises(InputError, match="choose particle or film"):
        simulate_tilt_series(particle, TILTS, kind="sphere")


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("simulate", [simulate_tilt_series, simulate_acquisition])
def test_simulate__refuses_amounts_that_cannot_be(particle, simulate, name):
    for value in (-0.1, np.nan):
        with pytest.raises(InputError, match=f"{name} came as"):
            simulate(particle, TILTS, **{name: value})
