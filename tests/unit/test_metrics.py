from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from aetdist import metrics
from aetdist.errors import InputError


def atoms(position, types=None, species=None):
    position = np.asarray(position, dtype=float).reshape(-1, 3)
    ds = xr.Dataset({"position": (("atom", "axis"), position)})
    if types is not None:
        ds["type"] = ("atom", np.asarray(types, dtype=int))
    if species is not None:
        ds["species"] = ("atom", np.asarray(species))
    return ds


def packing(rng, n=400, size=24.0, distance=2.2):
    """Random points no nearer than `distance`."""
    points = np.empty((0, 3))
    while len(points) < n:
        p = rng.uniform(-size / 2, size / 2, 3)
        if not len(points) or np.linalg.norm(points - p, axis=1).min() > distance:
            points = np.vstack([points, p])
    return points


def rotation(axis, degrees):
    axis = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    a = np.deg2rad(degrees)
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * k @ k


def test_r_factor__by_hand():
    measured = np.array([[[1.0, 2.0], [3.0, 100.0]], [[1.0, 1.0], [1.0, 1.0]]])
    calculated = np.array([[[2.0, 2.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 3.0]]])
    mask = np.ones((2, 2, 2), dtype=bool)
    mask[0, 1, 1] = False
    np.testing.assert_allclose(metrics.r_factor(calculated, measured, mask), [3 / 6, 2 / 4])
    np.testing.assert_allclose(metrics.r_factor(calculated, measured)[0], 103 / 106)


def test_r1_factor__equals_plain_sums_of_exponentials():
    rng = np.random.default_rng(5)
    c, m = rng.random((2, 3, 4, 5))
    mask = rng.random((3, 4, 5)) < 0.8
    fy, fx = (np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (4, 5))
    observed, predicted = (np.abs(np.einsum("ka,tab,lb->tkl", fy, a * mask, fx)) for a in (m, c))
    expected = np.abs(observed - predicted).sum() / observed.sum()
    assert metrics.r1_factor(c, m, mask) == pytest.approx(expected, rel=1e-12)
    masked = metrics.r1_factor(np.where(mask, c, 9.0), np.where(mask, m, np.nan), mask)
    assert masked == pytest.approx(expected, rel=1e-12)
    lazy = metrics.r1_factor(*(da.from_array(v, chunks=(1, 4, 5)) for v in (c, m, mask)))
    assert lazy == metrics.r1_factor(c, m, mask)


def test_r1_factor__scales_and_does_not_see_phases():
    measured = np.random.default_rng(6).normal(size=(2, 6, 7))
    assert metrics.r1_factor(1.25 * measured, measured) == pytest.approx(0.25, rel=1e-12)
    assert metrics.r1_factor(np.roll(measured, (2, 3), (1, 2)), measured) == pytest.approx(0.0, abs=1e-12)
    assert metrics.r1_factor(0 * measured, measured) == 1.0
    assert np.isnan(metrics.r1_factor(measured, 0 * measured))
    with pytest.raises(InputError, match="one shape"):
        metrics.r1_factor(measured, measured[:1])


def test_r_factor__lazy_equals_eager_and_empty_is_nan():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 5, 4)).astype(np.float32)
    mask = rng.random((3, 5, 4)) < 0.7
    mask[1] = False
    eager = metrics.r_factor(a, b, mask)
    assert np.isnan(eager[1]) and np.isfinite(eager[[0, 2]]).all()
    lazy = metrics.r_factor(*(da.from_array(v, chunks=(1, 5, 4)) for v in (a, b, mask)))
    np.testing.assert_array_equal(lazy, eager)


def test_r_factor__sums_in_float64():
    # In float32 a sum of 2^25 ones-and-a-bit stalls; here a large pixel followed by many small ones.
    measured = np.full((1, 1000, 1000), 0.1, dtype=np.float32)
    measured[0, 0, 0] = 1e7
    calculated = measured.copy()
    calculated[0, 1:] += np.float32(0.1)
    expected = 0.1 * 999_000 / (1e7 + 0.1 * 999_999)
    assert metrics.r_factor(calculated, measured)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "function", [metrics.r_factor, metrics.normalised_rmse, metrics.correlation, metrics.relative_l1]
)
def test_metric__refuses_other_shapes(function):
    with pytest.raises(InputError, match=r"\(2, 3, 4\).*\(2, 3, 5\)"):
        function(np.ones((2, 3, 4)), np.ones((2, 3, 5)))


def test_normalised_rmse__takes_the_best_scalar():
    rng = np.random.default_rng(1)
    truth = rng.random((4, 5, 6))
    noise = rng.normal(size=truth.shape)
    noise -= truth * np.vdot(noise, truth) / np.vdot(truth, truth)  # orthogonal to the truth
    volume = 3.0 * (truth + 0.3 * noise)
    # The least-squares scalar of t + e with e orthogonal to t leaves |e| / sqrt(t^2 + e^2).
    e, t = np.linalg.norm(0.3 * noise), np.linalg.norm(truth)
    assert metrics.normalised_rmse(volume, truth) == pytest.approx(e / np.hypot(e, t), rel=1e-12)
    assert metrics.normalised_rmse(7 * truth, truth) < 1e-14
    assert metrics.normalised_rmse(0 * truth, truth) == 1.0
    assert np.isnan(metrics.normalised_rmse(truth, 0 * truth))


def test_correlation__equals_numpy():
    rng = np.random.default_rng(2)
    a = rng.random((6, 7, 8))
    b = a + rng.random((6, 7, 8)) + 5
    where = rng.random(a.shape) < 0.5
    assert metrics.correlation(a, b, where) == pytest.approx(np.corrcoef(a[where], b[where])[0, 1], rel=1e-12)
    assert np.isnan(metrics.correlation(a, np.ones_like(a)))
    assert np.isnan(metrics.correlation(a, b, np.zeros(a.shape, dtype=bool)))


def test_relative_l1__by_hand():
    a, b = np.array([[1.0, 2.0], [9.0, 0.0]]), np.array([[2.0, 3.0], [0.0, 0.0]])
    where = np.array([[True, True], [False, True]])
    assert metrics.relative_l1(a, b, where) == pytest.approx(2 / 4)
    assert metrics.relative_l1(b, a, where) == pytest.approx(2 / 4)
    assert np.isnan(metrics.relative_l1(0 * a, 0 * a))


def test_compare__by_hand():
    truth = atoms([[0, 0, 0], [3, 0, 0], [6, 0, 0], [9, 0, 0]], types=[1, 1, 2, 2])
    found = atoms([[0.3, 0, 0], [3, 0.4, 0], [6, 0, 5], [3, 0, 0.5]], types=[1, 2, 2, 1])
    result = metrics.compare_atoms(found, truth, by_type=True)
    assert (result.n_found, result.n_truth, result.n_matched) == (4, 4, 2)
    assert result.pairs.tolist() == [[0, 0], [1, 1]]
    assert (result.recall, result.precision, result.f1) == (0.5, 0.5, 0.5)
    assert (result.recall_typed, result.precision_typed) == (0.25, 0.25)
    assert result.types == (1, 2) and result.confusion.tolist() == [[1, 1], [0, 0]]
    np.testing.assert_allclose(
        [result.rms, result.rms_x, result.rms_y, result.rms_z], np.sqrt([0.125, 0.045, 0.08, 0.0]), atol=1e-15
    )
    assert json.loads(json.dumps(result.to_dict()))["confusion"] == [[1, 1], [0, 0]]


def test_compare__shows_a_table_in_a_notebook():
    here = atoms([[0, 0, 0], [5, 0, 0]], types=[1, 2])
    page = metrics.compare_atoms(here, atoms([[0.1, 0, 0], [9, 0, 0]], types=[1, 1]), by_type=True)._repr_html_()
    assert "<td>recall</td><td>50.00%</td>" in page and "<td>rms distance (Å)</td><td>0.100</td>" in page
    assert "<td>precision, of the right type</td><td>50.00%</td>" in page


def test_compare__identity():
    points = packing(np.random.default_rng(3))
    result = metrics.compare_atoms(
        atoms(points, species=["Ta"] * len(points)), atoms(points, species=["Ta"] * len(points)), by_type=True
    )
    assert result.f1 == 1.0 and result.rms == 0.0 and result.recall_typed == 1.0


def test_compare__tolerance_bounds_every_pair():
    rng = np.random.default_rng(4)
    truth = packing(rng)
    found = truth + rng.normal(0, 0.3, truth.shape)
    wide = metrics.compare_atoms(atoms(found), atoms(truth), tolerance=0.75)
    narrow = metrics.compare_atoms(atoms(found), atoms(truth), tolerance=0.3)
    assert narrow.n_matched < wide.n_matched
    assert np.linalg.norm(found[narrow.pairs[:, 0]] - truth[narrow.pairs[:, 1]], axis=1).max() <= 0.3


def test_compare__empty_sets():
    some, none = atoms([[0, 0, 0]]), atoms([])
    nothing_found = metrics.compare_atoms(none, some)
    assert nothing_found.recall == 0 and np.isnan(nothing_found.precision) and nothing_found.f1 == 0
    assert np.isnan(nothing_found.rms)
    nothing_true = metrics.compare_atoms(some, none)
    assert np.isnan(nothing_true.recall) and nothing_true.precision == 0
    both = metrics.compare_atoms(none, none, align="rigid").to_dict()
    assert both["f1"] is None and json.dumps(both, allow_nan=False)


def test_compare__bad_input():
    good = atoms([[0, 0, 0], [3, 0, 0]])
    with pytest.raises(InputError, match=r"align is 'affine'.*'rigid'"):
        metrics.compare_atoms(good, good, align="affine")
    with pytest.raises(InputError, match="by_type needs"):
        metrics.compare_atoms(good, good, by_type=True)
    with pytest.raises(InputError, match="tolerance is 0"):
        metrics.compare_atoms(good, good, tolerance=0)
    with pytest.raises(InputError, match="index 1"):
        metrics.compare_atoms(atoms([[0, 0, 0], [np.nan, 0, 0]]), good)
    with pytest.raises(InputError, match="needs position"):
        metrics.compare_atoms(xr.Dataset(), good)


@pytest.mark.parametrize(
    ("degrees", "shift"),
    [(0.0, (0.0, 0.0, 0.0)), (2.0, (1.5, -2.0, 1.0)), (5.0, (3.0, 2.0, -3.0)), (-4.0, (0.0, 0.0, 5.0))],
)
def test_compare__rigid_alignment_undoes_a_motion(degrees, shift):
    rng = np.random.default_rng(5)
    truth = packing(rng, n=900, size=32.0)
    r = rotation((1, 2, -1), degrees)
    found = (truth - np.asarray(shift)) @ r + rng.normal(0, 0.1, truth.shape)  # truth = r found + shift
    keep = rng.random(len(truth)) < 0.9  # one in ten is lost, and some are invented
    found = np.vstack([found[keep], rng.uniform(-16, 16, (60, 3))])
    result = metrics.compare_atoms(atoms(found), atoms(truth), align="rigid")
    assert result.recall > 0.88
    assert result.motion.angle == pytest.approx(abs(degrees), abs=0.1)
    np.testing.assert_allclose(result.motion.rotation, r, atol=2e-3)
    np.testing.assert_allclose(result.motion.shift, shift, atol=0.03)
    if degrees:
        assert metrics.compare_atoms(atoms(found), atoms(truth)).recall < 0.5


def test_compare__rigid_alignment_of_partly_overlapping_sets():
    rng = np.random.default_rng(6)
    truth = packing(rng, n=900, size=32.0)
    found = (truth - [1.0, -3.0, 2.0]) @ rotation((0, 1, 1), 3.0)
    result = metrics.compare_atoms(atoms(found[truth[:, 0] < 6]), atoms(truth[truth[:, 0] > -8]), align="rigid")
    both = np.sum((truth[:, 0] < 6) & (truth[:, 0] > -8))
    assert result.n_matched >= both and result.rms < 1e-2
