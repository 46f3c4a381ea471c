"""Trace and classify the published nanoparticle of Yang et al., simulated at its measured angles and reconstructed."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray as xr

from aetdist.classify import classify_atoms
from aetdist.metrics import Comparison, compare_atoms
from aetdist.reconstruct import reconstruct_resire
from aetdist.simulate import simulate_tilt_series
from aetdist.trace import trace_atoms

pytestmark = [pytest.mark.validation, pytest.mark.slow]

PIXEL = 0.347  # Angstrom
HEIGHTS = tuple(float(z) ** 1.7 for z in (28, 45, 78))  # of the mean atomic number of each type
COUNTS = 100.0  # per pixel at the particle's centre


@pytest.fixture(scope="module")
def particle(data_folder):
    """The published atoms, and their projections without noise."""
    with h5py.File(data_folder / "metallic_glass_nanoparticle.h5") as file:
        position, types = file["positions_angstrom"][:].astype(np.float64), file["types"][:].astype(np.int64)
        angles = file["angles_deg"][:].astype(np.float64)
    atoms = xr.Dataset({"position": (("atom", "axis"), position - position.mean(axis=0)), "type": ("atom", types)})
    series = simulate_tilt_series(atoms, angles, pixel_size=PIXEL, sigma=0.5, heights=HEIGHTS)
    return atoms, series.compute()


def found(series: xr.Dataset, atoms: xr.Dataset) -> Comparison:
    """Traced and classified atoms against the true ones."""
    volume = reconstruct_resire(series, iterations=100)
    result = classify_atoms(volume, trace_atoms(volume), species=3)
    return compare_atoms(result, atoms, tolerance=1.5, by_type=True)


@pytest.mark.parametrize(("noise", "recall", "false", "rms"), [(False, 0.990, 0.005, 0.16), (True, 0.970, 0.015, 0.22)])
def test_classify__published_particle(particle, noise, recall, false, rms):
    atoms, series = particle
    if noise:
        images = series["images"].values
        y, x = (n // 2 for n in images.shape[1:])
        scale = COUNTS / images[:, y - 3 : y + 4, x - 3 : x + 4].mean()
        counts = np.random.default_rng(1).poisson(images * scale) / scale
        series = series.assign(images=(("tilt", "y", "x"), counts.astype(np.float32)))
    result = found(series, atoms)
    assert result.recall_typed >= recall, result.to_dict()
    assert 1 - result.precision_typed <= false, result.to_dict()
    assert result.rms <= rms, result.to_dict()
