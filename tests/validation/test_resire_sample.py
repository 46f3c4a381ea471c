"""The test object of the published RESIRE package: projections of its volume, and the volume from its projections."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import aetdist as aet

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def sample(data_folder: Path) -> tuple[xr.Dataset, np.ndarray]:
    """Its tilt series and its true volume."""
    path = data_folder / "resire_sample_64.h5"
    series = aet.import_tilt_series([path], images="projections", angles="angles_deg", pixel_size=1.0).compute()
    with h5py.File(path) as file:
        return series, file["volume"][:]


def test_resire_sample__projecting_the_truth_gives_its_projections(sample: tuple[xr.Dataset, np.ndarray]) -> None:
    """R <= 0.008, eq. 4."""
    series, truth = sample
    images = aet.project_volume(truth, series["angles"].values)
    assert aet.r_factor(images, series["images"].values).mean() <= 0.008


def test_resire_sample__gradient_descent_as_published(sample: tuple[xr.Dataset, np.ndarray]) -> None:
    """After 100 iterations R <= 0.012 and the normalised RMSE to the truth <= 0.22."""
    series, truth = sample
    result = aet.reconstruct_resire(series, solver="published", iterations=100)
    assert result["r_factor"][-1].mean() <= 0.012
    assert aet.normalised_rmse(result["density"].values, truth) <= 0.22


def test_resire_sample__fista_needs_fewer_iterations(sample: tuple[xr.Dataset, np.ndarray]) -> None:
    """Normalised RMSE 0.215 after 30 and 0.18 after 60 iterations at most."""
    series, truth = sample
    for iterations, limit in ((30, 0.215), (60, 0.18)):
        result = aet.reconstruct_resire(series, solver="fista", iterations=iterations)
        assert aet.normalised_rmse(result["density"].values, truth) <= limit


def test_resire_sample__ordered_subsets_need_fewer_still(sample: tuple[xr.Dataset, np.ndarray]) -> None:
    """Normalised RMSE 0.215 after 8 and 0.18 after 15 passes at most."""
    series, truth = sample
    for iterations, limit in ((8, 0.215), (15, 0.18)):
        result = aet.reconstruct_resire(series, solver="ordered_subsets", iterations=iterations)
        assert aet.normalised_rmse(result["density"].values, truth) <= limit
