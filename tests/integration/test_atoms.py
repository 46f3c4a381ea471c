"""From the projections of a known particle to its classified, refined and exported atoms, stage by stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import aetdist
from aetdist import pipeline, schema
from aetdist.errors import AetdistError, AetdistWarning, InputError
from aetdist.io import Store, read_xyz, write_xyz
from aetdist.metrics import Comparison, compare_atoms
from aetdist.report import write_pictures
from aetdist.simulate import nanoparticle

pytestmark = pytest.mark.integration

ELEMENTS = ("Co", "Pd", "Pt")
EXPERIMENT = """\
store = "run.zarr"
[reconstruct]
iterations = 80
[trace]
[classify]
species = 3
[refine]
iterations = 8
elements = ["Co", "Pd", "Pt"]
[export]
atoms = "atoms.xyz"
"""


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return nanoparticle(22.0, species=ELEMENTS, seed=3)


@pytest.fixture(scope="module")
def done(truth: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Folder of an experiment that ran, and its summary."""
    folder = tmp_path_factory.mktemp("atoms")
    write_xyz(folder / "truth.xyz", truth)
    np.savetxt(folder / "angles.csv", np.linspace(-75, 75, 41))
    pipeline.simulate(
        folder / "truth.xyz", folder / "run.zarr", angles=folder / "angles.csv", pixel_size=0.4, dose=1e5, seed=1
    )
    (folder / "experiment.toml").write_text(EXPERIMENT)
    return folder, pipeline.run(folder / "experiment.toml")


def against(truth: xr.Dataset, atoms: xr.Dataset) -> Comparison:
    return compare_atoms(atoms, truth, tolerance=0.75, by_type=True)


def test_run__finds_the_particle_and_refines_it(done: tuple[Path, dict], truth: xr.Dataset) -> None:
    folder, said = done
    assert set(said["stages"].values()) == {"computed"}
    with Store.open(folder / "run.zarr") as store:
        traced, classified, refined = (store.read(group) for group in ("atoms", "atoms_classified", "atoms_refined"))
        parameters = store.record("atoms_refined").parameters
    for atoms in (traced, classified, refined):
        schema.check(atoms, schema.ATOMS)
    assert parameters["edits"] is None and parameters["elements"] == list(ELEMENTS)
    before, after = against(truth, classified), against(truth, refined)
    assert before.recall_typed >= 0.9
    assert after.recall_typed >= 0.97 and after.precision_typed >= 0.97
    assert after.rms < before.rms
    assert after.rms < 0.12
    assert set(np.unique(refined["type"])) == {1, 2, 3}
    assert refined["origin"].isin(["traced", "added", "merged"]).all()
    assert said["n_added"] >= (refined["origin"] == "added").sum()  # one that was added may be merged
    changes = said["n_added"] - said["n_deleted"] - said["n_merged"]
    assert refined.sizes["atom"] == classified.sizes["atom"] + changes


def test_run__says_how_sure_it_is(done: tuple[Path, dict], truth: xr.Dataset) -> None:
    folder, said = done
    with Store.open(folder / "run.zarr") as store:
        refined = store.read("atoms_refined")
    sigma, probability = refined["position_sigma"].values, refined["probability"].values
    resolved = ~refined["unresolved"].values
    assert (sigma[resolved] > 0).all() and np.isfinite(sigma[resolved]).all()
    assert ((probability >= 0) & (probability <= 1)).all()
    np.testing.assert_allclose(refined["type_probability"].sum("type_number")[resolved], 1.0, atol=1e-6)
    assert (refined["b_factor"] > 0).all()
    pairs = against(truth, refined).pairs
    deviation = refined["position"].values[pairs[:, 0]] - truth["position"].values[pairs[:, 1]]
    within = np.abs(deviation / sigma[pairs[:, 0]]) < 3.0
    assert within[resolved[pairs[:, 0]]].mean() > 0.9
    assert said["position_sigma_pm"] == pytest.approx((100 * np.nanmedian(sigma, axis=0)).tolist())
    assert 0 < said["atoms_r_factor"] < 0.2 and said["atoms_r1_factor"] > 0 and said["cramer_rao_pm"] > 0
    assert {"n_added", "n_deleted", "n_merged", "n_retyped"} <= set(said)
    r_factor = refined["r_factor"].mean("tilt").values
    assert r_factor[-1] <= r_factor[0]


def test_run__exports_the_refined_atoms_and_draws_them(done: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = done
    exported = read_xyz(folder / "atoms.xyz")
    with Store.open(folder / "run.zarr") as store:
        refined = store.read("atoms_refined")
    np.testing.assert_array_equal(exported["position"], refined["position"])
    np.testing.assert_array_equal(exported["position_sigma"], refined["position_sigma"])
    assert exported["species"].values.tolist() == [ELEMENTS[t - 1] for t in refined["type"].values]
    names = {file.stem for file in write_pictures(folder / "run.zarr", tmp_path)}
    assert names >= {"types_on_slices", "intensities", "atom_refinement", "differences", "sigmas"}


def test_run__a_second_time_computes_nothing(done: tuple[Path, dict]) -> None:
    folder, _ = done
    assert set(pipeline.run(folder / "experiment.toml")["stages"].values()) == {"current"}


def test_refine__applies_edits_and_says_so(done: tuple[Path, dict]) -> None:
    folder, _ = done
    with Store.open(folder / "run.zarr") as store:
        classified = store.read("atoms_classified")
    place = classified["position"].values[np.argmin(np.square(classified["position"]).sum("axis").values)]
    edits = folder / "edits.csv"
    edits.write_text("action,x,y,z\ndelete," + ",".join(map(str, place)) + "\n")
    options = {"iterations": 2, "curate": False}
    plain = pipeline.refine(folder / "run.zarr", **options)
    said = pipeline.refine(folder / "run.zarr", edits=edits, **options)
    assert said["edits_applied"] == {"delete": 1}
    assert said["n_atoms"] == plain["n_atoms"] - 1
    with Store.open(folder / "run.zarr") as store:
        refined, record = store.read("atoms_refined"), store.record("atoms_refined")
    assert len(record.parameters["edits"]) == 1 and refined.attrs["edits"] == record.parameters["edits"]
    assert np.linalg.norm(refined["position"] - place, axis=1).min() > 1.0
    assert pipeline.refine(folder / "run.zarr", edits=edits, **options)["state"] == "current"
    with pytest.warns(AetdistWarning, match="1 edits by hand"):
        pipeline.refine(folder / "run.zarr", **options)


def test_refine__the_published_descent_is_stable(done: tuple[Path, dict], truth: xr.Dataset) -> None:
    folder, _ = done
    with Store.open(folder / "run.zarr") as store:
        series, atoms = store.read("tilt_series/aligned").load(), store.read("atoms_classified").load()
    refined = aetdist.refine_atoms(series, atoms, solver="published", curate=False, refine_tilts=False)
    r_factor = refined["round_r"].values
    assert r_factor[-1] < r_factor[0]
    assert against(truth, refined).rms < against(truth, atoms).rms


@pytest.mark.parametrize(
    "options",
    [
        {"heights": "both"},
        {"widths": "one"},
        {"solver": "newton"},
        {"weights": "dose"},
        {"iterations": 0},
        {"curation_rounds": 1.5},
        {"prior": 0.0},
        {"background": -1.0},
        {"minimum_distance": np.nan},
        {"maximum_move": np.inf},
    ],
)
def test_refine__says_which_option_is_wrong(done: tuple[Path, dict], options: dict) -> None:
    folder, _ = done
    with Store.open(folder / "run.zarr") as store, pytest.raises(InputError, match=f"{next(iter(options))} came as"):
        aetdist.refine_atoms(store.read("tilt_series/aligned"), store.read("atoms"), **options)


def test_stages__refuse_what_they_cannot_use(done: tuple[Path, dict]) -> None:
    folder, _ = done
    with Store.open(folder / "run.zarr") as store:
        series, volume = store.read("tilt_series/aligned"), store.read("volume")
        atoms = store.read("atoms_classified")
    few = atoms.isel(atom=slice(3))
    with pytest.raises(AetdistError):
        aetdist.classify_atoms(volume, few, species=5)
    outside = atoms.assign(position=atoms["position"] + 1000.0)
    with pytest.raises(InputError):
        aetdist.classify_atoms(volume, outside)
    with pytest.raises(InputError):
        aetdist.refine_atoms(series, outside)
    other = volume.assign_coords({axis: volume[axis] * 1.5 for axis in "xyz"})
    with pytest.raises(InputError):
        aetdist.refine_atoms(series, atoms, volume=other)
    (folder / "broken.csv").write_text("action,x,y,z\nadd,1,2\n")
    with pytest.raises(InputError, match=r"broken\.csv, line 2"):
        pipeline.refine(folder / "run.zarr", edits=folder / "broken.csv")
