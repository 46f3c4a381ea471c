"""Error bars: what is redrawn, the same for every scheduler, nothing computed early; cropping; precision."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

import aetdist as aet
from aetdist.analysis.resampling import draw_atoms
from aetdist.errors import InputError


@pytest.fixture(scope="module")
def atoms() -> xr.Dataset:
    """400 atoms of two types; the first 100 are sure in every way."""
    rng = np.random.default_rng(0)
    cells = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:400]
    sure = np.arange(400) < 100
    unsure = ~sure[:, None]
    types = rng.integers(1, 3, 400)
    return xr.Dataset(
        {
            "position": (("atom", "axis"), 2.8 * cells + rng.uniform(-0.5, 0.5, (400, 3))),
            "type": ("atom", types),
            "species": ("atom", np.array(["Co", "Pt"])[types - 1]),
            "position_sigma": (("atom", "axis"), unsure * np.array([0.05, 0.1, 0.2])),
            "probability": ("atom", np.where(sure, 1.0, 0.9)),
            "type_probability": (("atom", "type_number"), np.eye(2)[types - 1] * (1 - 0.4 * unsure) + 0.2 * unsure),
        },
        {"atom": np.arange(400) + 7},
    )


def moments(atoms: xr.Dataset) -> xr.Dataset:
    """An analysis with a number for all atoms, one of each and one of each pair of atom and axis."""
    position = atoms["position"].values
    return xr.Dataset(
        {
            "second": ("atom", (atoms["type"].values == 2).astype(float)),
            "place": (("atom", "axis"), position),
            "width": ((), position.std(), {"units": "angstrom"}),
        }
    )


def test_draw_atoms__has_the_given_spread(atoms: xr.Dataset) -> None:
    draws = aet.resample(moments, atoms, n=200, seed=3).compute()
    place, second = draws["place"], draws["second"]
    np.testing.assert_array_equal(place.values[:, :100], np.broadcast_to(atoms["position"][:100], (200, 100, 3)))
    spread = place[:, 100:].std("draw").mean("atom").values
    np.testing.assert_allclose(spread, [0.05, 0.1, 0.2], rtol=0.02)
    moved = (place[:, 100:].mean("draw") - atoms["position"].values[100:]).values
    assert np.abs(moved).mean() < 0.01
    present = np.isfinite(second[:, 100:])
    assert present.mean() == pytest.approx(0.9, abs=0.005) and np.isfinite(second[:, :100]).all()
    np.testing.assert_array_equal(np.isfinite(place[:, :, 0]), np.isfinite(second))
    changed = (second[:, 100:] != (atoms["type"].values[100:] == 2)).where(present)
    assert float(changed.mean()) == pytest.approx(0.2, abs=0.005)


def test_draw_atoms__keeps_what_is_not_known(atoms: xr.Dataset) -> None:
    partly = atoms.copy(deep=True)
    partly["position_sigma"][200] = np.nan
    partly["type_probability"][200] = np.nan
    partly["probability"][200] = np.nan
    drawn = [draw_atoms(partly, 0, k).set_index(atom="atom").sel(atom=200) for k in range(150)]
    assert {int(d["type"]) for d in drawn} == {int(atoms["type"][200])}
    spread = np.std([d["position"].values for d in drawn], axis=0)
    np.testing.assert_allclose(spread, [0.05, 0.1, 0.2], rtol=0.2)  # the median of the others
    one = draw_atoms(atoms, 0, 1)
    np.testing.assert_array_equal(one["species"], np.array(["Co", "Pt"])[one["type"].values - 1])
    alloy = atoms.assign(species=("atom", np.where(np.arange(400) % 2, "Fe", atoms["species"])))
    assert "species" not in draw_atoms(alloy, 0, 1)
    bare = draw_atoms(atoms[["position", "probability"]], 0)
    assert set(bare.data_vars) == {"position"} and bare.sizes["atom"] < 400


def test_resample__builds_without_computing_and_is_the_same_everywhere(atoms: xr.Dataset, client, no_compute) -> None:
    calls = []

    def counted(atoms: xr.Dataset) -> xr.Dataset:
        calls.append(atoms.sizes["atom"])
        return moments(atoms)

    lazy = aet.resample(counted, atoms, n=6, seed=5)
    assert calls == [400] and all(dask.is_dask_collection(v) for v in lazy.data_vars.values())
    assert lazy["place"].chunks[0] == (1,) * 6
    lazy = aet.resample(moments, atoms, n=6, seed=5)
    with dask.config.set(scheduler="synchronous"):
        expected = lazy.compute()
    with dask.config.set(scheduler="threads"):
        xr.testing.assert_identical(lazy.compute(), expected)
    with dask.config.set(scheduler=None):
        xr.testing.assert_identical(client.compute(lazy, sync=True), expected)
    assert not np.array_equal(expected["width"][0], expected["width"][1])
    with dask.config.set(scheduler="synchronous"):
        more = aet.resample(moments, atoms, n=8, seed=5).isel(draw=slice(6)).compute()
        other = aet.resample(moments, atoms, n=2, seed=6).compute()
    xr.testing.assert_identical(more, expected)
    assert not np.isin(other["width"], expected["width"]).any()


def order(atoms: xr.Dataset) -> xr.Dataset:
    return aet.bond_order(atoms, 3.6, largest=50)


def test_with_uncertainty__blocks_inside_tasks(atoms: xr.Dataset, client) -> None:
    """An analysis that is cut into blocks runs inside the tasks of the copies, on a client of two workers."""
    found = aet.with_uncertainty(order, atoms, n=4)
    draws = aet.resample(order, atoms, n=4).compute(scheduler="synchronous")
    np.testing.assert_allclose(found["q6_mean"], np.nanmean(draws["q6"], axis=0))
    np.testing.assert_allclose(found["q6_sigma"], np.nanstd(draws["q6"], axis=0))
    np.testing.assert_allclose(found["q6_percentile"], np.nanpercentile(draws["q6"], found["percentile"], axis=0))
    xr.testing.assert_equal(found["q6"], order(atoms)["q6"])
    assert found.sizes["percentile"] == 5 and found.attrs["n_draws"] == 4 and found.attrs["cutoff"] == 3.6


def test_with_uncertainty__of_figures(atoms: xr.Dataset) -> None:
    positions = atoms["position"].values
    found = aet.with_uncertainty(lambda a: {"x": float(a["position"][0, 0])}, positions, position_sigma=0.3, n=100)
    assert float(found["x"]) == positions[0, 0] and float(found["x_sigma"]) == pytest.approx(0.3, rel=0.25)
    assert float(found["x_mean"]) == pytest.approx(positions[0, 0], abs=0.1)


def test_resample__bad_input(atoms: xr.Dataset) -> None:
    with pytest.raises(InputError, match="give position_sigma="):
        aet.resample(moments, atoms[["position", "type"]])
    with pytest.raises(InputError, match="2 or more"):
        aet.resample(moments, atoms, n=1)
    with pytest.raises(InputError, match=r"position_sigma came with shape \(5,\)"):
        aet.resample(moments, atoms, position_sigma=np.ones(5))
    changing = aet.resample(lambda a: xr.Dataset({"x": ("bond", np.zeros(a.sizes["atom"]))}), atoms, n=2)
    with pytest.raises(InputError, match=r"x has the shape \(400,\) .* copy"):
        changing.compute()


def test_crop_like__has_the_shape() -> None:
    rng = np.random.default_rng(1)
    cells = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    model = 2.8 * cells + rng.uniform(-0.4, 0.4, cells.shape) + 100.0
    other = 2.8 * cells + rng.uniform(-0.4, 0.4, cells.shape)
    ball = np.linalg.norm((other - 21.0) / [1.0, 1.0, 0.7], axis=1) < 18.0
    cut = aet.crop_like(model, other[ball])
    assert len(cut) == pytest.approx(ball.sum(), rel=0.05)
    np.testing.assert_allclose(np.ptp(cut, axis=0), np.ptp(other[ball], axis=0), atol=3.0)
    middle_of_mass = [points.mean(axis=0) - (box.min(axis=0) + box.max(axis=0)) / 2
                      for points, box in ((cut, model), (other[ball], other[ball]))]  # fmt: skip
    np.testing.assert_allclose(*middle_of_mass, atol=0.5)
    as_atoms = aet.crop_like(xr.Dataset({"position": (("atom", "axis"), model)}), other[ball])
    np.testing.assert_array_equal(as_atoms["position"], cut)
    assert len(aet.crop_like(model, other[ball], margin=0.0)) < len(cut)
    with pytest.raises(InputError, match="repeat a periodic one"):
        aet.crop_like(other[ball], model)


def test_precision_effect__grows_with_the_error(atoms: xr.Dataset) -> None:
    """Of a warm crystal beside a glass."""
    cells = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(2)
    bcc = np.concatenate([3.1 * cells, 3.1 * cells + 1.55])
    points = bcc + np.where(bcc[:, :1] > 12, 0.35, 0.02) * rng.normal(size=bcc.shape)
    small, large = (aet.precision_effect(points, p, cutoff=3.8, top=3, n=3) for p in (0.02, 0.3))
    for found in (small, large):
        np.testing.assert_array_equal(found["fraction"], np.sort(found["fraction"])[::-1])
        changed = found["ordered_fraction"] - found["lost_mean"] + found["gained_mean"]
        assert float(changed) == pytest.approx(float(found["ordered_fraction_mean"]), abs=1e-12)
    assert small["order_rms_mean"] < 0.1 * large["order_rms_mean"] and small.sizes["kind"] == 3
    assert large["same_index_mean"] < small["same_index_mean"] < 1.0
    assert large.attrs["cutoff"] == 3.8 and large.attrs["precision"] == 0.3
    with pytest.raises(InputError, match="precision is 0"):
        aet.precision_effect(points, 0.0)
