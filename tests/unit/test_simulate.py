"""Simulated tilt series: intensities, field, noise, seeds, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist.errors import CapacityError, InputError
from aetdist.project.atoms import project_atoms
from aetdist.schema import TILT_SERIES, check
from aetdist.simulate import amorphous_film, simulate_tilt_series

ANGLES = np.array([[0.3, -60.0, 0.2], [0.0, 0.0, 0.0], [-0.4, 35.0, 1.0]])


@pytest.fixture(scope="module")
def film():
    return amorphous_film((40.0, 40.0), 15.0, seed=11)


def test_simulate_tilt_series__is_a_valid_series_of_one_chunk_per_tilt(film):
    series = simulate_tilt_series(film, ANGLES, field=(40, 30))
    check(series, TILT_SERIES)
    assert series["images"].chunks == ((1, 1, 1), (30,), (40,))
    assert series["images"].dtype == np.float32 and series["images"].compute().dtype == np.float32
    assert bool(series["mask"].all())
    assert series["x"].values[20] == 0.0 and series["y"].values[15] == 0.0
    np.testing.assert_allclose(series["matrices"][1], np.eye(3), atol=1e-12)


def test_simulate_tilt_series__without_dose_equals_the_projection_of_its_atoms(film):
    series = simulate_tilt_series(film, ANGLES, field=(50, 40), field_center=(3.0, -2.0), sigma=0.6, heights=(1.0, 4.0))
    plain = project_atoms(
        film["position"].values,
        ANGLES,
        heights=np.array([1.0, 4.0])[film["type"].values - 1],
        sigmas=0.6,
        x=series["x"].values,
        y=series["y"].values,
        pixel_size=0.35,
    )
    np.testing.assert_allclose(series["images"], plain, rtol=1e-6, atol=1e-6)


def test_simulate_tilt_series__default_field_holds_every_atom_at_every_tilt(film):
    series = simulate_tilt_series(film, ANGLES, heights=1.0, pixel_size=0.5)
    mass = film.sizes["atom"] * (2 * np.pi) ** 1.5
    np.testing.assert_allclose(series["images"].sum(("y", "x")), mass, rtol=1e-5)


def test_simulate_tilt_series__heights_come_from_intensity_then_species_then_one(film):
    def peak(atoms):
        return simulate_tilt_series(atoms, [0.0], field=(1, 1), pixel_size=0.5).images.values.max() / np.sqrt(2 * np.pi)

    one = xr.Dataset({"position": (("atom", "axis"), np.zeros((1, 3)))})
    assert peak(one) == pytest.approx(1.0)
    with_species = one.assign(species=("atom", ["Pt"]))
    assert peak(with_species) == pytest.approx(78**1.7)
    assert peak(with_species.assign(intensity=("atom", [2.5]))) == pytest.approx(2.5)


def test_simulate_tilt_series__same_noise_however_it_is_chunked_or_scheduled(film):
    series = simulate_tilt_series(film, ANGLES, field=(30, 30), dose=3e4, seed=8)
    expected = series["images"].compute(scheduler="synchronous")
    threaded = series["images"].chunk(tilt=3).compute(scheduler="threads", num_workers=2)
    last = simulate_tilt_series(film, ANGLES, field=(30, 30), dose=3e4, seed=8)["images"][2].compute()
    np.testing.assert_array_equal(threaded, expected)
    np.testing.assert_array_equal(last, expected[2])
    other = simulate_tilt_series(film, ANGLES, field=(30, 30), dose=3e4, seed=9)["images"].compute()
    assert not np.allclose(other, expected)
    assert not np.allclose(expected[0] - expected[0].mean(), expected[1] - expected[1].mean())


def test_simulate_tilt_series__records_a_seed_that_repeats_an_unseeded_run(film):
    first = simulate_tilt_series(film, [0.0], field=(20, 20), dose=1e4)
    again = simulate_tilt_series(film, [0.0], field=(20, 20), dose=1e4, seed=first.attrs["simulation_seed"])
    np.testing.assert_array_equal(first["images"].compute(), again["images"].compute())
    assert first.attrs["simulation_dose_per_tilt_e_per_A2"] == 1e4


def test_simulate_tilt_series__records_the_dose_of_the_whole_series(film):
    series = simulate_tilt_series(film, [0.0, 10.0, 20.0], field=(20, 20), dose=1e4)
    assert series.attrs["dose_e_per_A2"] == 3e4


def test_simulate_tilt_series__noise_has_poisson_mean_and_variance(film):
    options = {"field": (60, 60), "heights": (2.0, 5.0)}
    clean = simulate_tilt_series(film, np.zeros(40), **options)["images"].values.astype(np.float64)
    noisy = simulate_tilt_series(film, np.zeros(40), dose=2e4, efficiency=0.04, seed=1, **options)
    per_intensity = 2e4 * 0.35**2 * 0.04 / noisy.attrs["simulation_average_intensity"]
    # z-scores of all pixels together: mean 0 +- 1/sqrt(n), mean square 1 +- sqrt(2/n + kurtosis)
    z = (noisy["images"].values - clean) / np.sqrt(clean / per_intensity)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(3 / z.size)
    # the average pixel counts dose x pixel area x efficiency electrons
    assert (clean * per_intensity).mean() == pytest.approx(2e4 * 0.35**2 * 0.04, rel=0.1)


def test_simulate_tilt_series__read_noise_adds_its_variance(film):
    options = {"field": (60, 60), "heights": 1.0, "dose": 5e4, "seed": 2}
    quiet = simulate_tilt_series(film, np.zeros(30), **options)
    noisy = simulate_tilt_series(film, np.zeros(30), read_noise=6.0, **options)
    per_intensity = 5e4 * 0.35**2 * 0.05 / noisy.attrs["simulation_average_intensity"]
    added = (noisy["images"].values.astype(np.float64) - quiet["images"].values) * per_intensity
    assert added.std() == pytest.approx(6.0, rel=4 / np.sqrt(2 * added.size))
    assert abs(added.mean()) < 4 * 6.0 / np.sqrt(added.size)


def test_simulate_tilt_series__single_tilts_are_about_y(film):
    one = simulate_tilt_series(film, [20.0], field=(20, 20))
    three = simulate_tilt_series(film, [[0.0, 20.0, 0.0]], field=(20, 20))
    np.testing.assert_array_equal(one["images"].compute(), three["images"].compute())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"angles": []}, "no tilt angles"),
        ({"angles": [np.nan]}, "angles of tilt 0"),
        ({"pixel_size": 0.0}, "pixel size"),
        ({"sigma": 0.0}, "sigma came as 0"),
        ({"sigma": (0.5,)}, "2 types"),
        ({"heights": (1.0,)}, "2 types"),
        ({"heights": -2.0}, "not negative"),
        ({"field": (0, 10)}, "field came as"),
        ({"field": (10.5, 10)}, "field came as"),
        ({"field": 12}, "field came as"),
        ({"field_center": (np.nan, 0.0)}, "field_center"),
        ({"dose": -1.0}, "dose came as -1"),
        ({"dose": 0.0}, "dose came as 0"),
        ({"dose": 1e4, "efficiency": 0.0}, "efficiency came as 0"),
        ({"dose": 1e4, "read_noise": -1.0}, "read_noise came as -1"),
        ({"read_noise": 1.0}, "needs a dose"),
        ({"dose": 1e4, "heights": 0.0}, "height 0"),
    ],
)
def test_simulate_tilt_series__refuses_bad_parameters(film, change, message):
    options = {"angles": [0.0], "field": (8, 8)} | change
    with pytest.raises(InputError, match=message):
        simulate_tilt_series(film, options.pop("angles"), **options)


def test_simulate_tilt_series__refuses_bad_atoms(film):
    with pytest.raises(InputError, match="no atoms"):
        simulate_tilt_series(film.isel(atom=slice(0, 0)), [0.0])
    broken = film.copy(deep=True)
    broken["position"][5, 1] = np.nan
    with pytest.raises(InputError, match="atom 5 first"):
        simulate_tilt_series(broken, [0.0])
    unknown = film.assign(species=("atom", np.full(film.sizes["atom"], "Unobtainium")))
    with pytest.raises(InputError, match="not a chemical element"):
        simulate_tilt_series(unknown, [0.0])
    assert simulate_tilt_series(unknown, [0.0], heights=1.0).sizes["tilt"] == 1
    with pytest.raises(InputError, match="types start at 1"):
        simulate_tilt_series(film.assign(type=film["type"] - 1), [0.0])
    with pytest.raises(InputError, match="needs position"):
        simulate_tilt_series(film.drop_vars("position"), [0.0])


def test_simulate_tilt_series__refuses_a_field_beyond_reason(film):
    with pytest.raises(CapacityError, match="are the positions in Angstrom"):
        simulate_tilt_series(film.assign(position=film["position"] * 1e4), [0.0])
