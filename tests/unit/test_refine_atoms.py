"""Atoms refined end to end: what is found, said and refused; the same wherever it is computed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client
from scipy.spatial import cKDTree

from aetdist import schema
from aetdist.errors import InputError
from aetdist.geometry import centred_coordinates
from aetdist.project.atoms import render_atoms
from aetdist.refine import Edit, read_edits, refine_atoms
from aetdist.refine import series as refine_series
from aetdist.refine.edits import COLUMNS
from aetdist.simulate import nanoparticle, simulate_tilt_series

PIXEL, SIGMA, HEIGHTS = 0.4, 0.6, np.array([1.0, 2.2])
QUICK: dict[str, Any] = {"iterations": 4, "curation_rounds": 2}
BRIEF: dict[str, Any] = {"iterations": 1, "curation_rounds": 1, "heights": "type", "widths": "type"}


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return nanoparticle(14.0, species=("Ni", "Pt"), seed=1)


@pytest.fixture(scope="module")
def series(truth: xr.Dataset) -> xr.Dataset:
    return simulate_tilt_series(
        truth,
        np.linspace(-72, 72, 15),
        pixel_size=PIXEL,
        sigma=SIGMA,
        heights=HEIGHTS,
        field=(46, 46),
        dose=1e5,
        seed=1,
    ).compute()


@pytest.fixture(scope="module")
def traced(truth: xr.Dataset) -> xr.Dataset:
    """Atoms 0.1 Angstrom off, without three of them, with a false one, and one of a wrong type."""
    position = truth["position"].values + np.random.default_rng(0).normal(0, 0.06, (truth.sizes["atom"], 3))
    types = truth["type"].values.copy()
    types[11] = 3 - types[11]
    position, types = np.delete(position, [0, 30, 52], axis=0), np.delete(types, [0, 30, 52])
    position, types = np.vstack([position, [0.0, 0.0, 8.6]]), np.append(types, 1)
    return schema.with_units(
        xr.Dataset({"position": (("atom", "axis"), position), "type": ("atom", types)}, {"axis": list("xyz")}),
        schema.ATOMS,
    )


@pytest.fixture(scope="module")
def refined(series: xr.Dataset, traced: xr.Dataset) -> xr.Dataset:
    return refine_atoms(series, traced)


@pytest.fixture(scope="module")
def quick(series: xr.Dataset, traced: xr.Dataset) -> xr.Dataset:
    return refine_atoms(series, traced, **QUICK)


def deviations(atoms: xr.Dataset, truth: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """What each true atom's nearest is off, (n, 3), and which that is."""
    which = cKDTree(atoms["position"].values).query(truth["position"].values)[1]
    return atoms["position"].values[which] - truth["position"].values, which


# -- what is found -------------------------------------------------------------------------------------


def test_refine__finds_all_atoms_and_their_types(refined: xr.Dataset, truth: xr.Dataset, traced: xr.Dataset) -> None:
    off, which = deviations(refined, truth)
    assert refined.sizes["atom"] == truth.sizes["atom"] == len(set(which))
    assert np.sqrt(np.mean(np.sum(off**2, axis=1))) < 0.03
    np.testing.assert_array_equal(refined["type"].values[which], truth["type"].values)
    np.testing.assert_allclose(refined.attrs["type_heights"], HEIGHTS, rtol=0.02)
    np.testing.assert_allclose(refined.attrs["type_sigmas"], SIGMA, rtol=0.02)
    np.testing.assert_allclose(refined["b_factor"], 8 * np.pi**2 * SIGMA**2, rtol=0.05)
    assert (refined.attrs["n_added"], refined.attrs["n_deleted"]) == (3, 1)
    assert refined.attrs["n_retyped"] == 1 and refined.attrs["n_merged"] == 0
    assert sorted(refined["origin"].values.tolist()) == ["added"] * 3 + ["traced"] * (len(which) - 3)


def test_refine__says_how_sure_it_is(refined: xr.Dataset, truth: xr.Dataset) -> None:
    off, which = deviations(refined, truth)
    said = refined["position_sigma"].values[which]
    assert 0.8 < np.sqrt(np.mean(off**2) / np.mean(said**2)) < 1.25
    assert (refined["probability"] > 0.99).all() and not refined["unresolved"].any()
    np.testing.assert_allclose(refined["type_probability"].sum("type_number"), 1.0)
    np.testing.assert_array_equal(refined["type_probability"].argmax("type_number") + 1, refined["type"])


def test_refine__columns_and_attributes(refined: xr.Dataset, series: xr.Dataset) -> None:
    schema.check(refined, schema.ATOMS)
    assert {"position", "type", "intensity", "b_factor", "position_sigma", "probability", "type_probability"} <= set(
        refined
    )
    assert {"unresolved", "origin", "r_factor", "round_r", "difference_before", "difference_after"} <= set(refined)
    assert {"angles", "shift", "gain"} <= set(refined)
    for name in ("R", "R1", "cramer_rao", "crowding", "noise_gain", "noise_floor", "tails", "heights", "widths"):
        assert name in refined.attrs, name
    assert (np.diff(refined["intensity"]) <= 0).all()  # by falling height
    np.testing.assert_array_equal(refined["atom"], np.arange(refined.sizes["atom"]))
    assert refined["type"].dtype == np.int64 and refined["position"].attrs["units"] == "angstrom"
    assert refined["r_factor"].shape == (7, 15) and refined.attrs["R"] == refined["round_r"].values[-1]
    assert refined["round_r"].values[-1] < 0.6 * refined["round_r"].values[0]
    assert refined["difference_after"].mean() < refined["difference_before"].mean()
    np.testing.assert_array_equal(refined["map_x"], series["x"])
    counted = series["images"].values.max()  # of the simulated noise: variance = gain * intensity
    assert 0 < refined.attrs["noise_gain"] < 0.1 * counted and refined.attrs["heights"] == "type"


def test_refine__what_came_stays_as_it_was(series: xr.Dataset, traced: xr.Dataset) -> None:
    before = series.copy(deep=True), traced.copy(deep=True)
    for dataset in (series, traced):
        for variable in dataset.data_vars.values():
            variable.values.setflags(write=False)
    refine_atoms(series, traced, edits=[Edit("add", (0.0, 8.8, 0.0), 1)], **QUICK)
    xr.testing.assert_identical(series, before[0])
    xr.testing.assert_identical(traced, before[1])


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "published"},
        {"heights": "atom"},
        {"heights": "type", "widths": "atom"},
        {"heights": "atom", "widths": "atom"},
        {
            "curate": False,
            "tails": False,
            "refine_tilts": False,
            "background": 0,
            "weights": "uniform",
            "iterations": 1,
        },
    ],
)
def test_refine__options(series: xr.Dataset, traced: xr.Dataset, truth: xr.Dataset, options: dict[str, Any]) -> None:
    found = refine_atoms(series, traced, **{**QUICK, **options})
    schema.check(found, schema.ATOMS)
    assert found["round_r"].values[-1] < found["round_r"].values[0]
    for name in ("heights", "widths"):
        assert found.attrs[name] == options.get(name, found.attrs[name])
    if not options.get("curate", True):
        assert found.sizes["atom"] == traced.sizes["atom"]
        assert found.attrs["n_added"] == found.attrs["n_deleted"] == 0


def test_refine__atoms_without_types_and_one_alone(series: xr.Dataset, traced: xr.Dataset) -> None:
    untyped = refine_atoms(series, traced.drop_vars("type"), **QUICK)
    assert (untyped["type"] == 1).all() and len(untyped.attrs["type_heights"]) == 1
    position = np.array([[0.4, -0.3, 0.2]])
    atoms = xr.Dataset({"position": (("atom", "axis"), position)})
    alone = simulate_tilt_series(atoms, np.linspace(-60, 60, 9), pixel_size=PIXEL, field=(30, 30), dose=1e4, seed=0)
    found = refine_atoms(alone, atoms + 0.05, refine_tilts=False, **QUICK)  # it would tell no rotation
    np.testing.assert_allclose(found["position"], position, atol=0.02)
    assert found.attrs["type_heights"][0] == pytest.approx(1.0, rel=0.05)


def test_refine__tilts_without_a_pixel_or_not_used(series: xr.Dataset, traced: xr.Dataset) -> None:
    lacking = series.copy(deep=True)
    lacking["mask"][3] = False
    lacking["images"][3] = np.nan
    found = refine_atoms(lacking, traced, **QUICK)
    assert np.isnan(found["r_factor"].values[:, 3]).all() and np.isfinite(found.attrs["R"])
    used = np.arange(15) != 3
    dropped = refine_atoms(series.assign(used=("tilt", used)), traced, **QUICK)
    np.testing.assert_array_equal(dropped["tilt"], np.flatnonzero(used))
    np.testing.assert_allclose(dropped["position"], found["position"], atol=5e-3)


def test_refine__takes_off_what_is_outside_the_support(truth: xr.Dataset, series: xr.Dataset) -> None:
    """A lump beside the atoms that the volume shows: taken off; pixels that see mostly it do not count."""
    x = centred_coordinates(46, PIXEL)
    density = render_atoms(
        np.vstack([truth["position"].values, [0.0, 8.0, 0.0]]),
        heights=np.append(HEIGHTS[truth["type"].values - 1], 0.8),
        sigmas=np.append(np.full(truth.sizes["atom"], SIGMA), 1.5),
        x=x, y=x, z=x, pixel_size=PIXEL,
    )  # fmt: skip
    support = np.ones(density.shape, bool)
    support[:, x > 6.0] = False
    coordinates = {"z": x, "y": x, "x": x}
    volume = xr.Dataset({"density": (("z", "y", "x"), density), "support": (("z", "y", "x"), support)}, coordinates)
    lump = xr.Dataset({"position": (("atom", "axis"), np.array([[0.0, 8.0, 0.0]]))})
    beside = simulate_tilt_series(
        lump, series["angles"].values, pixel_size=PIXEL, sigma=1.5, heights=0.8, field=(46, 46)
    )
    both = series.assign(images=series["images"] + beside["images"].values)
    inside = truth.isel(atom=np.flatnonzero(truth["position"].values[:, 1] < 4.0))
    options = {**QUICK, "curate": False, "background": 0.0, "refine_tilts": False}
    start = truth[["position", "type"]]
    off, _ = deviations(refine_atoms(both, start, volume=volume, **options), inside)
    assert np.sqrt(np.mean(np.sum(off**2, axis=1))) < 0.05
    lazy = refine_atoms(both.chunk({"tilt": 2}), start, volume=volume.chunk({"z": 10, "y": 7}), **options)
    np.testing.assert_array_equal(lazy["position"], refine_atoms(both, start, volume=volume, **options)["position"])


# -- the same wherever it is computed --------------------------------------------------------------------


def test_refine__is_the_same_for_any_number_of_threads(
    series: xr.Dataset, traced: xr.Dataset, quick: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in ("1", "2"):
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        xr.testing.assert_identical(refine_atoms(series, traced, **QUICK), quick)


def test_refine__is_the_same_for_any_chunks(series: xr.Dataset, traced: xr.Dataset, quick: xr.Dataset) -> None:
    for chunks in ({"tilt": 1}, {"tilt": 6, "y": 20, "x": 33}):
        xr.testing.assert_identical(refine_atoms(series.chunk(chunks), traced.chunk(), **QUICK), quick)


def test_refine__is_the_same_with_images_in_files(
    series: xr.Dataset, traced: xr.Dataset, quick: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    keep = refine_series.OnDisk.of
    monkeypatch.setattr(refine_series, "IN_MEMORY", 0)
    monkeypatch.setattr(
        refine_series.OnDisk, "of", lambda *given: written.append(len(list(tmp_path.iterdir()))) or keep(*given)
    )
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        xr.testing.assert_identical(refine_atoms(series, traced, **QUICK), quick)
    assert max(written) > 0
    gc.collect()
    assert list(tmp_path.iterdir()) == []


# -- changes by hand -----------------------------------------------------------------------------------


def test_refine__edits_are_made_counted_and_made_again(
    series: xr.Dataset, traced: xr.Dataset, truth: xr.Dataset, quick: xr.Dataset, tmp_path: Path
) -> None:
    place = truth["position"].values.round(2)
    edits = [
        *(Edit("add", tuple(place[i]), int(truth["type"][i])) for i in (0, 30, 52)),
        Edit("delete", (0.0, 0.0, 8.6)),
        Edit("retype", tuple(place[11]), int(truth["type"][11])),
        Edit("move", tuple(place[20]), None, tuple(place[20] + [0.0, 0.02, 0.0])),
    ]
    options = {"curate": False, "iterations": 8}
    found = refine_atoms(series, traced, edits=edits, **options)
    assert found.sizes["atom"] == truth.sizes["atom"]
    assert found.attrs["edits"] == [edit.row for edit in edits] and "edits" not in quick.attrs
    off, which = deviations(found, truth)
    assert np.linalg.norm(off, axis=1).max() < 0.1
    np.testing.assert_array_equal(found["type"].values[which], truth["type"])
    assert np.flatnonzero(found["origin"].values[which] == "edited").tolist() == [0, 11, 20, 30, 52]
    table = tmp_path / "edits.csv"
    table.write_text("\n".join([",".join(COLUMNS), *found.attrs["edits"]]))
    xr.testing.assert_identical(refine_atoms(series, traced, edits=table, **options), found)
    assert [edit.row for edit in read_edits(table)] == found.attrs["edits"]


def test_refine__what_was_said_by_hand_stays(series: xr.Dataset, traced: xr.Dataset, truth: xr.Dataset) -> None:
    light = truth["position"].values[np.flatnonzero(truth["type"].values == 1)[9]].round(2)
    vacant = (0.0, 8.8, 0.0)
    found = refine_atoms(series, traced, edits=[Edit("retype", tuple(light), 2), Edit("add", vacant, 1)], curate=False)
    by_hand = found.isel(atom=np.flatnonzero(found["origin"] == "edited"))
    assert sorted(by_hand["type"].values.tolist()) == [1, 2]
    wrong, added = (by_hand.isel(atom=by_hand["type"].values.tolist().index(kind)) for kind in (2, 1))
    assert np.linalg.norm(wrong["position"] - light) < 0.5 and np.linalg.norm(added["position"] - vacant) < 1.0
    assert wrong["type_probability"].values[1] < 0.5  # the images say something else
    assert added["intensity"] < 0.5


def test_refine__an_edit_of_no_atom(series: xr.Dataset, traced: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"delete at 30, 0, 0 came, where no atom is"):
        refine_atoms(series, traced, edits=[Edit("delete", (30.0, 0.0, 0.0))], **QUICK)
    with pytest.raises(InputError, match=r"There is no file"):
        refine_atoms(series, traced, edits=tmp_path / "absent.csv")


# -- on workers (last: a client that is there is used by whatever follows) -----------------------------


@pytest.fixture(scope="module")
def brief(series: xr.Dataset, traced: xr.Dataset) -> xr.Dataset:
    return refine_atoms(series.isel(tilt=slice(None, None, 2)), traced, **BRIEF)


@pytest.fixture
def none_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series as small as this one go to the workers too."""
    monkeypatch.setattr(refine_series, "ALONE", 0)


@pytest.mark.usefixtures("none_alone")
def test_refine__is_the_same_on_one_worker(series: xr.Dataset, traced: xr.Dataset, brief: xr.Dataset) -> None:
    with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None):
        xr.testing.assert_identical(
            refine_atoms(series.isel(tilt=slice(None, None, 2)).chunk({"tilt": 3}), traced, **BRIEF), brief
        )


@pytest.mark.usefixtures("none_alone")
def test_refine__is_the_same_on_two_workers_of_their_own_processes(
    series: xr.Dataset, traced: xr.Dataset, brief: xr.Dataset, client: Any
) -> None:
    xr.testing.assert_identical(refine_atoms(series.isel(tilt=slice(None, None, 2)), traced, **BRIEF), brief)


def test_refine__keeps_a_small_series_to_itself(
    series: xr.Dataset, traced: xr.Dataset, brief: xr.Dataset, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "submit", None)
    xr.testing.assert_identical(refine_atoms(series.isel(tilt=slice(None, None, 2)), traced, **BRIEF), brief)
