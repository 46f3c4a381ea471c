"""The order of models from the command line, from Python, and as a stage of an experiment."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import aetdist as aet
from aetdist import pipeline
from aetdist.analysis.catalogue import analyze_atoms
from aetdist.analysis.sample import sample_of
from aetdist.cli import program
from aetdist.errors import AetdistWarning, InputError
from aetdist.io import Store

pytestmark = pytest.mark.integration
EDGE = 3.9  # Angstrom


def _model(n=6, jitter=0.35, seed=0, pbc=None):
    """An fcc crystal shaken until it has little order, of two types at random, in its periodic cell."""
    rng = np.random.default_rng(seed)
    base = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    position = ((cells + base) * EDGE).reshape(-1, 3)
    position += np.clip(rng.normal(0, jitter, position.shape), -0.8, 0.8)
    atoms = xr.Dataset(
        {"position": (("atom", "axis"), position), "type": ("atom", rng.integers(1, 3, len(position)))},
        {"atom": np.arange(len(position)), "axis": list("xyz")},
    )
    if pbc is not None:
        atoms.attrs |= {"Lattice": np.ravel(np.eye(3) * n * EDGE).tolist(), "pbc": pbc}
    return atoms


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    aet.write_xyz(folder / "one.xyz", _model(7))
    aet.write_xyz(folder / "two.xyz", _model(6, seed=1, pbc=[True] * 3))
    return folder


def _run(*words):
    found = CliRunner().invoke(program, ["analyze", *map(str, words), "--json"])
    assert found.exit_code == 0, found.stderr
    return json.loads(found.stdout)


def test_analyze__of_a_file_is_resumed(files, tmp_path):
    output = tmp_path / "analysis.zarr"
    first = _run(files / "one.xyz", "-o", output, "--cutoff", 3.4)
    with Store.open(output) as store:
        groups = {group.removeprefix("analysis/") for group in store.groups()}
        order = store.read("analysis/bond_order")
    expected = {"surface", "pair_distribution", "bond_order", "disordered_pair_distribution", "voronoi", "coordination"}
    assert expected <= groups
    assert first["n_analyses_computed"] >= len(expected)
    plain = aet.bond_order(_model(7), 3.4)
    np.testing.assert_array_equal(order["order"].values, plain["order"].values)
    assert first["order"]["cut-off (Å)"] == 3.4
    again = _run(files / "one.xyz", "-o", output, "--cutoff", 3.4)
    assert again["n_analyses_computed"] == 0
    assert again["order"] == first["order"]
    changed = _run(files / "one.xyz", "-o", output, "--cutoff", 3.6)
    assert 0 < changed["n_analyses_computed"] < first["n_analyses_computed"]  # what the cut-off does not touch is kept
    assert changed["order"]["volume of the alpha shape (Å³)"] == first["order"]["volume of the alpha shape (Å³)"]


def test_analyze__several_models_make_one_table(files, tmp_path):
    output, report = tmp_path / "both.zarr", tmp_path / "both.html"
    found = _run(files / "one.xyz", files / "two.xyz", "-o", output, "--report", report)
    assert list(found["models"]) == ["one", "two"]
    with Store.open(output) as store:
        table = store.read("comparison")
        assert "one/analysis/pair_distribution" in store.groups()
    assert table["model"].values.tolist() == ["one", "two"]
    for name, figures in found["models"].items():
        for key, value in figures["order"].items():
            assert value is None or value == float(table["value"].sel(figure=key, model=name))
    text = report.read_text(encoding="utf-8")
    assert "Pair distributions, structure factors and bond orders of all models." in text
    assert "one: Partial pair distribution functions" in text
    lines = pipeline.analyze([files / "one.xyz", files / "two.xyz"], output)["text"].splitlines()
    assert lines[0].split() == ["one", "two"]


def test_analyze__is_a_stage_of_a_store(files, tmp_path):
    output = tmp_path / "run.zarr"
    pipeline.analyze(files / "one.xyz", output)
    (tmp_path / "experiment.toml").write_text('store = "run.zarr"\n[analyze]\nr_max = 12.0\ncutoff = 3.4\n')
    said = pipeline.run(tmp_path / "experiment.toml")
    assert said["stages"] == {"analyze": "computed"}
    assert said["order"]["cut-off (Å)"] == 3.4
    assert pipeline.run(tmp_path / "experiment.toml", dry_run=True)["stages"] == {"analyze": "current"}
    alone = pipeline.analyze(output, r_max=12.0, cutoff=3.4)
    assert alone["state"] == "current"
    with Store.open(output) as store:
        assert float(store.read("analysis/pair_distribution")["r"].max()) < 12.0


def test_analyze__a_supercell_is_the_same_sample():
    one = _model(4, pbc=[True] * 3)
    shifted = one["position"].values + np.array([4 * EDGE, 0, 0])
    two = xr.concat([one, one.assign(position=one["position"].copy(data=shifted))], "atom")
    two = two.assign_coords(atom=np.arange(two.sizes["atom"]))
    two.attrs |= {"Lattice": np.ravel(np.diag([8, 4, 4]) * EDGE).tolist(), "pbc": [True] * 3}
    keywords = {"cutoff": 3.4, "r_max": 10.0}
    here, there = analyze_atoms(one, **keywords), analyze_atoms(two, **keywords)
    n = one.sizes["atom"]
    np.testing.assert_allclose(there["bond_order"]["order"].values[:n], here["bond_order"]["order"].values, atol=1e-9)
    np.testing.assert_array_equal(there["voronoi"]["voronoi_index"][n:], here["voronoi"]["voronoi_index"])
    np.testing.assert_allclose(there["voronoi"]["volume"].values.sum(), 2 * (4 * EDGE) ** 3, rtol=1e-9)
    np.testing.assert_allclose(there["pair_distribution"]["g"], here["pair_distribution"]["g"], atol=1e-3)
    np.testing.assert_allclose(there["coordination"]["alpha"], here["coordination"]["alpha"], atol=1e-9)
    assert int(there["voronoi"]["face_neighbour"].max()) < 2 * n
    assert "surface" not in here


def test_analyze__film_sides_are_no_surface():
    film = _model(6)
    x = film["position"].values
    field = (0.0, 5.5 * EDGE, 0.0, 5.5 * EDGE)
    found = analyze_atoms(film, cutoff=3.4, field=field)
    surface, side = found["surface"]["surface"].values, found["surface"]["side"].values
    assert not (surface & side).any()
    middle = np.abs(x[:, 2] - x[:, 2].mean()) < 4.0
    assert not surface[middle].any()
    central = found["coordination"]["central"].values
    assert central.any() and not (central & (side | surface)).any()


def test_analyze__figures_have_error_bars_where_atoms_have(files, tmp_path):
    atoms = _model(6)
    atoms["position_sigma"] = ("atom", "axis"), np.full((atoms.sizes["atom"], 3), 0.1)
    aet.write_xyz(tmp_path / "sure.xyz", atoms)
    found = pipeline.analyze(tmp_path / "sure.xyz", tmp_path / "a.zarr", draws=3, cutoff=3.4, r_max=8.0)
    assert list(found["order_sigma"]) == list(found["order"])
    assert 0 < found["order_sigma"]["mean bond order"] < 0.05
    assert found["order_sigma"]["cut-off (Å)"] == 0.0
    assert " ± " in found["text"]
    again = analyze_atoms(atoms, draws=3, cutoff=3.4, r_max=8.0)["summary"]
    expected = again["sigma"].sel(figure="mean bond order")
    assert found["order_sigma"]["mean bond order"] == pytest.approx(float(expected), rel=1e-9)
    assert "sigma" not in analyze_atoms(atoms, draws=0, cutoff=3.4, r_max=8.0)["summary"]


def test_figures__of_a_perfect_crystal():
    crystal = _model(6, jitter=0.0, pbc=[True] * 3)
    crystal["position"] = crystal["position"] + 0.01  # away from the faces of the cell
    found = analyze_atoms(crystal)
    figures = dict(zip(*(found["summary"][k].values.tolist() for k in ("figure", "value")), strict=True))
    assert figures["ordered atoms (%)"] == 100.0
    assert figures["density (1/Å³)"] == pytest.approx(4 / EDGE**3, rel=1e-9)
    assert figures["first peak of g(r) (Å)"] == pytest.approx(EDGE / np.sqrt(2), abs=0.06)
    np.testing.assert_allclose(found["bond_order"]["order"], 1.0, atol=1e-4)
    assert "disordered_pair_distribution" not in found


def test_analyze__medium_range_order_and_chance():
    atoms = _model(7, seed=2)
    found = analyze_atoms(atoms, cutoff=3.4, r_max=10.0, solute=2, surrogates=2, draws=0)
    distance = tuple(found["solute_clusters"].attrs["distance"])
    options = {"solute": 2, "order": found["bond_order"]["order"].values, "distance": distance}
    centres = aet.solute_centers(atoms, **options)["solute_center"]
    np.testing.assert_array_equal(found["solute_clusters"]["solute_center"], centres)
    commonest = aet.voronoi_statistics(found["voronoi"], centres.values)["top_index"]
    np.testing.assert_array_equal(found["solute_clusters"]["top_index"], commonest)
    clusters = aet.find_mro(atoms, **options)
    assert clusters.sizes["mro"] > 0
    np.testing.assert_array_equal(found["medium_range_order"]["mro_label"], clusters["mro_label"])
    assert (found["mro_measures"]["n_atoms"].values > clusters["size"].values).all()
    assert int(found["mro_significance"]["count"].sel(mro_type="all").sum()) == clusters.sizes["mro"]
    assert found["mro_significance"].sizes["sample"] == 2
    figures = dict(zip(*(found["summary"][k].values.tolist() for k in ("figure", "value")), strict=True))
    assert figures["medium-range order, clusters"] == clusters.sizes["mro"]
    assert figures["solute centres"] == int(centres.sum())


def test_analyze__species_make_types():
    atoms = _model(4).drop_vars("type")
    atoms["species"] = "atom", np.where(np.arange(atoms.sizes["atom"]) % 3 == 0, "Co", "Pd")
    sample = sample_of(atoms)
    assert sample.atoms["type"].values[:4].tolist() == [1, 2, 2, 1]
    found = analyze_atoms(atoms, cutoff=3.4)
    assert found["pair_distribution"]["pair"].values.tolist() == ["1-1", "1-2", "2-2"]


def test_analyze__refuses_before_it_writes(files, tmp_path):
    with pytest.raises(InputError, match="name the store to make"):
        pipeline.analyze(files / "one.xyz")
    with pytest.raises(InputError, match="called one"):
        pipeline.analyze([files / "one.xyz"] * 2, tmp_path / "a.zarr")
    with pytest.raises(InputError, match="has no cut_off; did you mean cutoff"):
        pipeline.analyze(files / "one.xyz", tmp_path / "a.zarr", cut_off=3.0)
    aet.write_xyz(tmp_path / "slab.xyz", _model(4, pbc=[True, True, False]))
    with pytest.raises(InputError, match="periodic along some directions only"):
        pipeline.analyze(tmp_path / "slab.xyz", tmp_path / "a.zarr")
    with pytest.raises(InputError, match="no cell"):
        sample_of(_model(4), periodic=True)
    twice = _model(4)
    twice["position"][5] = twice["position"][6]
    aet.write_xyz(tmp_path / "twice.xyz", twice)
    with pytest.raises(InputError, match="lie on one another"):
        pipeline.analyze(tmp_path / "twice.xyz", tmp_path / "a.zarr")
    aet.write_xyz(tmp_path / "few.xyz", _model(4).isel(atom=slice(4)))
    with pytest.raises(InputError, match="4 atoms came"):
        pipeline.analyze(tmp_path / "few.xyz", tmp_path / "a.zarr")
    np.save(tmp_path / "types.npy", np.ones((3, 1)))
    with pytest.raises(InputError, match="3 types for"):
        pipeline.analyze(files / "one.xyz", tmp_path / "a.zarr", types=str(tmp_path / "types.npy"))
    assert not (tmp_path / "a.zarr").exists()
    nanometres = _model(4)
    nanometres["position"] = nanometres["position"] / 10
    with pytest.warns(AetdistWarning, match="positions in nm"):
        sample_of(nanometres)
