"""Voronoi cells, coordination and chemical order of the published nanoparticle against what was published."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import aetdist as aet

sys.path.insert(0, str(Path(__file__).parents[1]))
from qhull_cells import qhull_indices

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def published(data_folder):
    with h5py.File(data_folder / "metallic_glass_nanoparticle.h5") as file:
        return {
            "positions": file["positions_angstrom"][:].astype(np.float64),
            "types": file["types"][:],
            "order": file["boo/scaled_order"][:],
            "faces": file["voronoi/faces_by_edges"][:].astype(int),
        }


@pytest.fixture(scope="module")
def cells(published):
    return aet.voronoi_indices(published["positions"])


def test_cells__are_those_of_qhull(published, cells):
    """A loop over Qhull, for every eighth atom."""
    wanted = np.arange(0, len(published["positions"]), 8)
    index, volume, faces = qhull_indices(published["positions"], wanted=wanted)
    np.testing.assert_array_equal(cells.voronoi_index.values[wanted], index)
    np.testing.assert_allclose(cells.volume.values[wanted], volume, rtol=1e-9)
    start = np.searchsorted(cells.face_atom, np.arange(len(published["positions"]) + 1))
    for i, expected in zip(wanted, faces, strict=True):
        own = slice(start[i], start[i + 1])
        assert cells.face_neighbour.values[own].tolist() == sorted(expected)
        assert cells.face_edges.values[own].tolist() == [expected[j][0] for j in sorted(expected)]


def test_statistics__of_disordered_atoms(published, cells):
    found = aet.voronoi_statistics(cells, published["order"] < 0.5)
    assert (int(cells.unbounded.sum()), found.attrs["atoms"], found.attrs["indexed"]) == (419, 15518, 15305)
    expected = {
        (0, 4, 4, 3): 4.77, (0, 3, 6, 3): 4.75, (0, 4, 4, 2): 3.73, (0, 3, 6, 2): 3.53, (0, 4, 4, 4): 3.37,
        (0, 3, 6, 4): 3.02, (0, 2, 8, 1): 2.91, (0, 2, 8, 2): 2.89, (0, 3, 6, 1): 1.84, (0, 4, 5, 3): 1.70,
    }  # fmt: skip
    assert [tuple(kind) for kind in found.top_index.values.tolist()] == [*expected]
    np.testing.assert_allclose(100 * found.top_fraction, [*expected.values()], atol=0.005)
    np.testing.assert_allclose(100 * found.face_fraction, [3.59, 29.15, 43.35, 23.91], atol=0.005)
    assert 100 * float(found.icosahedra) == pytest.approx(6.60, abs=0.005)
    bounded = np.where(cells.volume <= 80.0, cells.volume, np.nan)
    assert np.nanmedian(cells.volume) == pytest.approx(21.26, abs=0.005)
    assert np.nanmedian(bounded) < 21.26


def test_yang2021__repeats_the_published_rows(published):
    """The published areas of pentagons are repeated but for the corner that their fan starts at."""
    found = aet.voronoi_indices(published["positions"], convention="yang2021")
    index = np.maximum(found.voronoi_index.values, 0)
    assert (index == published["faces"][:, 2:]).all(axis=1).mean() >= 0.90
    statistics = aet.voronoi_statistics(found, published["order"] < 0.5)
    assert [tuple(kind) for kind in statistics.top_index.values[:3].tolist()] == [
        (0, 4, 4, 3),
        (0, 3, 6, 3),
        (0, 4, 4, 2),
    ]
    np.testing.assert_allclose(100 * statistics.top_fraction[[0, 9]], [5.02, 1.72], atol=0.15)
    np.testing.assert_allclose(100 * statistics.face_fraction, [3.27, 29.14, 43.91, 23.67], atol=0.05)
    assert 100 * float(statistics.icosahedra) == pytest.approx(7.03, abs=0.1)


def test_coordination__of_disordered_atoms(published, cells):
    found = aet.coordination(published["positions"], published["types"], order=published["order"], cells=cells)
    assert found.attrs["central"] == 14190
    np.testing.assert_allclose(100 * found.fraction, [42.90, 38.34, 18.77], atol=0.005)
    np.testing.assert_allclose(found.mean_coordination, [12.00, 12.04, 12.43], atol=0.005)
    np.testing.assert_allclose(found.mean_coordination, [11.97, 12.02, 12.41], atol=0.05)  # the paper's


def test_warren_cowley__is_the_published(published, cells):
    found = aet.warren_cowley(published["positions"], published["types"], order=published["order"], cells=cells)
    paper = [[-0.11, 0.10, 0.05], [0.02, 0.01, -0.07], [0.03, -0.06, 0.06]]
    np.testing.assert_allclose(found.alpha, paper, atol=0.01)
