from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetdist.metrics import compare_atoms
from aetdist.trace import peaks, trace_atoms

SHAPE = (34, 40, 44)
VOXEL = 0.35


def film(points, rng):
    axes = [(np.arange(n) - n // 2) * VOXEL for n in SHAPE[::-1]]
    density = rng.normal(0, 0.1, SHAPE)
    for p in points:
        x, y, z = (np.exp(-2 * (a - c) ** 2) for a, c in zip(axes, p, strict=True))
        density += z[:, None, None] * y[:, None] * x
    density = np.maximum(density, 0).astype(np.float32)
    coordinates = {a: (a, c) for a, c in zip("xyz", axes, strict=True)}
    return xr.Dataset({"density": (("z", "y", "x"), density)}, coords=coordinates)


@pytest.fixture(scope="module")
def volume():
    """Atoms everywhere, some exactly on the borders of likely blocks, with noise."""
    rng = np.random.default_rng(0)
    steps = np.stack(np.meshgrid(*(np.arange(-k, k + 1) * 2.45 for k in (2, 2, 1))), axis=-1).reshape(-1, 3)
    return film(steps + rng.uniform(-0.2, 0.2, steps.shape), rng)


@pytest.fixture(scope="module")
def expected(volume):
    return trace_atoms(volume)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks as small as the chunks ask for, so that a small volume has many borders."""
    monkeypatch.setattr(peaks, "SMALLEST_BLOCK", 12)
    monkeypatch.setattr(peaks, "LARGEST_BLOCK", 24)


def chunks_of(n):
    """Any way to cut n voxels into chunks, thin ones included."""
    return st.lists(st.integers(1, n - 1), max_size=6, unique=True).map(
        lambda cuts: tuple(np.diff([0, *sorted(cuts), n]).tolist())
    )


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.tuples(*(chunks_of(n) for n in SHAPE)))
def test_trace__same_atoms_for_every_chunking(chunks, volume, expected):
    lazy = volume.assign(density=(("z", "y", "x"), da.from_array(volume["density"].values, chunks=chunks)))
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(trace_atoms(lazy), expected)


def test_trace__blocks_of_a_numpy_volume_do_not_show(volume, expected, monkeypatch):
    for largest in (14, 100):
        monkeypatch.setattr(peaks, "LARGEST_BLOCK", largest)
        xr.testing.assert_identical(trace_atoms(volume), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("offset", [-1 / 2, -1 / 3, -1 / 6, 0.0])
def test_trace__an_atom_on_a_border_is_found_once(axis, offset, monkeypatch):
    """Between the last voxel of one block and the first of the next, and on either."""
    monkeypatch.setattr(peaks, "LARGEST_BLOCK", 1000)
    point = np.zeros(3)
    point[axis] = (2 + offset) * VOXEL  # voxel n // 2 + 2 begins a block
    volume = film([point], np.random.default_rng(1))
    n = SHAPE[2 - axis]
    chunks = [(m,) for m in SHAPE]
    chunks[2 - axis] = (n // 2 + 2, n - n // 2 - 2)
    lazy = volume.chunk(dict(zip("zyx", chunks, strict=True)))
    with dask.config.set(scheduler="synchronous"):
        atoms = trace_atoms(lazy, threshold=0.4, isolation=0)
    np.testing.assert_allclose(atoms["position"], [point], atol=0.1)
    xr.testing.assert_identical(atoms, trace_atoms(volume, threshold=0.4, isolation=0))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shift=st.floats(-3.0, 3.0), distance=st.floats(1.6, 3.5))
def test_trace__minimum_distance_holds_across_borders(shift, distance):
    """A chain through many blocks: no two atoms are nearer, and every peak left out has a higher one near."""
    points = [(i * 1.5 + shift / 3, 0.1 * shift, 0.0) for i in range(-4, 5)]
    volume = film(points, np.random.default_rng(2))
    with dask.config.set(scheduler="synchronous"):
        atoms = trace_atoms(
            volume.chunk(z=17, y=20, x=11), sigma=0.5, minimum_distance=distance, threshold=0.2, isolation=0
        )
        every = trace_atoms(volume, sigma=0.5, minimum_distance=0, threshold=0.2)
    position = atoms["position"].values
    gaps = np.linalg.norm(position[:, None] - position[None], axis=2)[np.triu_indices(len(position), 1)]
    assert gaps.min(initial=np.inf) >= distance
    for p, height in zip(every["position"].values, every["intensity"].values, strict=True):
        near = np.linalg.norm(position - p, axis=1) < distance
        assert near.any() and atoms["intensity"].values[near].max() >= height


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 40), m=st.integers(0, 40), tolerance=st.floats(0.1, 3))
def test_compare__swapping_the_sets_swaps_recall_and_precision(seed, n, m, tolerance):
    rng = np.random.default_rng(seed)
    a, b = (
        xr.Dataset({"position": (("atom", "axis"), rng.uniform(0, 6, (k, 3))), "type": ("atom", rng.integers(1, 4, k))})
        for k in (n, m)
    )
    forward, backward = (compare_atoms(p, q, tolerance=tolerance, by_type=True) for p, q in ((a, b), (b, a)))
    np.testing.assert_allclose(
        [forward.recall, forward.f1, forward.rms, forward.recall_typed],
        [backward.precision, backward.f1, backward.rms, backward.precision_typed],
        rtol=1e-12,
    )
    np.testing.assert_array_equal(forward.confusion, backward.confusion.T)
