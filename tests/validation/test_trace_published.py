"""Trace the published volume of a tantalum film and hold the atoms against the published ones."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray as xr

from aetdist.metrics import compare_atoms
from aetdist.trace import trace_atoms

pytestmark = pytest.mark.validation

ORIGIN = np.array([201, 176, 171])  # voxel (x, y, z) of the film's frame, counted from 1
LAST_ROW = 116  # the published volume is cut at row 118


@pytest.fixture(scope="module")
def published(data_folder):
    with h5py.File(data_folder / "ta_film_reference_A.h5") as file:
        voxel = float(file.attrs["voxel_size_angstrom"])
        density = file["volume"][:].astype(np.float32)
        first = file["volume"].attrs["first_voxel_xyz_1based"]
        support, positions = file["support"][:], file["positions_angstrom"][:].astype(np.float64)
    coordinates = {
        axis: (axis, (np.arange(n) + k - o) * voxel)
        for axis, n, k, o in zip("zyx", density.shape, first[::-1], ORIGIN[::-1], strict=True)
    }
    volume = xr.Dataset({"density": (("z", "y", "x"), density)}, coords=coordinates)
    return volume, support, positions, voxel


def place(positions, support, voxel):
    """Which positions lie in rows <= 116, and which of them inside the support."""
    x, y, z = (np.round(positions / voxel).astype(int) + ORIGIN - 1).T
    rows = y < LAST_ROW
    inside = rows.copy()
    inside[rows] = support[z[rows], y[rows], x[rows]]
    return rows, inside


def as_atoms(positions):
    return xr.Dataset({"position": (("atom", "axis"), positions)})


@pytest.mark.parametrize("sigma", [0.0, 0.7, 1.0])
def test_trace__published_volume(published, sigma):
    volume, support, truth, voxel = published
    found = trace_atoms(volume, sigma=sigma)["position"].values
    rows, inside = place(found, support, voxel)
    truth = truth[place(truth, support, voxel)[1]]
    result = compare_atoms(as_atoms(found[inside]), as_atoms(truth), tolerance=0.75)
    assert len(truth) == 1790
    assert result.f1 >= 0.88, result.to_dict()
    assert result.rms <= 0.26, result.to_dict()
    # The support is tight: atoms at its rim may lie just outside, hardly any in the vacuum between islands.
    assert (rows & ~inside).sum() <= 0.03 * inside.sum()


def test_trace__no_atoms_in_the_vacuum_between_islands(published):
    volume, support, _, voxel = published
    found = trace_atoms(volume)["position"].values
    rows, _ = place(found, support, voxel)
    reach = 10  # voxels, 3.2 Angstrom
    for x, y, z in np.round(found[rows] / voxel).astype(int) + ORIGIN - 1:
        box = (slice(max(c - reach, 0), c + reach + 1) for c in (z, y, x))
        assert support[tuple(box)].any(), (x, y, z)
