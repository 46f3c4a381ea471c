"""Half sets: what two halves of the tilts agree on follows the noise, and says how precise positions are."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist.errors import InputError
from aetdist.half_sets import half_sets

ANGLES = np.linspace(-66.0, 66.0, 23)


@pytest.fixture(scope="module")
def particle():
    return aet.nanoparticle(14.0, species=("Ni", "Pt"), seed=1)


def simulated(particle, dose):
    return aet.simulate_tilt_series(particle, ANGLES, dose=dose, seed=2, pixel_size=0.4).load()


def test_half_sets__are_every_other_tilt_by_rising_angle(particle):
    series = simulated(particle, None).isel(tilt=np.random.default_rng(0).permutation(len(ANGLES)))
    first, second = half_sets(series)
    theta = [np.sort(half["angles"].values[:, 1]) for half in (first, second)]
    np.testing.assert_allclose(theta[0], ANGLES[::2])
    np.testing.assert_allclose(theta[1], ANGLES[1::2])
    assert set(first["tilt"].values) | set(second["tilt"].values) == set(range(len(ANGLES)))
    with pytest.raises(InputError, match="at least 6"):
        half_sets(series.isel(tilt=slice(0, 5)))


def test_half_set_resolution__worsens_with_noise(particle):
    fine, coarse = (aet.half_set_resolution(simulated(particle, dose), iterations=15) for dose in (1e5, 3e3))
    assert fine.attrs["tilts_of_halves"] == [12, 11] and fine.attrs["masked"]
    assert fine["fsc"].values[:8].min() > 0.9
    assert fine.attrs["resolution_0.5"] < coarse.attrs["resolution_0.5"]
    assert float(fine["fsc"].mean()) > float(coarse["fsc"].mean()) + 0.05


def test_half_set_resolution__takes_any_reconstruction_and_the_voxels_that_both_have():
    """Volumes of different widths are compared where both are; without a mask, all of it."""
    truth = np.random.default_rng(0).normal(size=(12, 12, 14))

    def reconstruct(half: xr.Dataset, wide: int) -> xr.Dataset:
        n = wide if half.sizes["tilt"] == 12 else 12
        coords = {axis: (np.arange(m) - 6) * 0.4 for axis, m in zip("zyx", (12, 12, n), strict=True)}
        return xr.Dataset({"density": (("z", "y", "x"), truth[..., :n])}, coords)

    series = simulated(aet.nanoparticle(10.0, seed=0), None)
    found = aet.half_set_resolution(series, masked=False, reconstruct=reconstruct, wide=14)
    np.testing.assert_allclose(found["fsc"], 1.0)


def test_compare_half_sets__gives_back_the_errors_that_were_put_in():
    random = np.random.default_rng(3)
    truth = random.uniform(-40, 40, (3000, 3))
    sigma = np.array([0.05, 0.08, 0.12])
    halves = [
        xr.Dataset({"position": (("atom", "axis"), truth + random.normal(0, 1, truth.shape) * sigma)}) for _ in range(2)
    ]
    halves[1] = halves[1].isel(atom=slice(0, 2700))
    found = aet.compare_half_sets(*halves)
    assert found.n_atoms == (3000, 2700)
    assert found.matched_fraction == pytest.approx(5400 / 5700, abs=0.02)
    np.testing.assert_allclose(found.sigma_half, sigma, rtol=0.06)
    np.testing.assert_allclose(found.sigma, sigma / np.sqrt(2), rtol=0.06)
    np.testing.assert_allclose(found.to_dict()["rms_difference"], found.rms_difference)
    nothing = aet.compare_half_sets(*(half.isel(atom=slice(0, 0)) for half in halves)).to_dict()
    assert nothing["matched_fraction"] is None and nothing["sigma"] == [None, None, None]


def test_half_set_atoms__precision_of_each_half_is_that_against_the_truth(particle):
    """Positions that only noise has moved: the difference of two halves is what each is off, times the root of 2."""
    series = simulated(particle, 2e4)

    def find(half: xr.Dataset) -> xr.Dataset:
        """The true atoms, refined; nothing that both halves share."""
        return aet.refine_atoms(half, particle, curate=False, refine_tilts=False, tails=False)

    found = aet.half_set_atoms(series, find=find)
    assert found.matched_fraction == 1.0
    errors = [aet.compare_atoms(find(half), particle) for half in half_sets(series)]
    true = np.sqrt(np.mean([[e.rms_x**2, e.rms_y**2, e.rms_z**2] for e in errors], axis=0))
    np.testing.assert_allclose(found.sigma_half, true, rtol=0.35)
    assert found.sigma_half[2] > found.sigma_half[1]  # the missing wedge
