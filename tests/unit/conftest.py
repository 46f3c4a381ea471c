"""A run of which everything is there, made up, for what is drawn of runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray as xr

from aetdist.analysis.catalogue import analyze_atoms
from aetdist.geometry import centred_coordinates
from aetdist.project.atoms import render_atoms
from aetdist.report.findings import Findings
from aetdist.schema import ATOMS, VALIDATION, VOLUME, with_units
from aetdist.simulate import nanoparticle, simulate_tilt_series
from aetdist.validation.comparison import compared, match_atoms

TILTS = (-50.0, -20.0, 0.0, 0.0, 35.0)


@pytest.fixture(scope="session")
def run_atoms() -> xr.Dataset:
    """A particle of three types, refined."""
    rng = np.random.default_rng(0)
    made = nanoparticle(30.0, species=("Co", "Pd", "Pt"), seed=1)
    n = made.sizes["atom"]
    axis = centred_coordinates(40, 1.0)
    found = {
        "box_intensity": ("atom", made["type"].values * rng.normal(1.0, 0.1, n)),
        "position_sigma": (("atom", "axis"), rng.gamma(30.0, 0.0025, (n, 3))),
        "round_r": ("iteration", 0.1 + 0.2 * np.exp(-np.arange(6.0))),
        "difference_before": (("map_y", "map_x"), rng.random((40, 40))),
        "difference_after": (("map_y", "map_x"), 0.3 * rng.random((40, 40))),
    }
    return with_units(made.assign(found).assign_coords(map_x=axis, map_y=axis), ATOMS)


@pytest.fixture(scope="session")
def run_series(run_atoms: xr.Dataset) -> xr.Dataset:
    """Its images, aligned and refined."""
    rng = np.random.default_rng(1)
    made = simulate_tilt_series(
        run_atoms[["position", "type"]], TILTS, pixel_size=0.8, field=(52, 52), heights=[1, 2, 4]
    )
    made = made.compute()
    n = len(TILTS)
    return made.assign(
        shift=(("tilt", "component"), rng.normal(size=(n, 2))),
        used=("tilt", np.arange(n) != 1),
        repeat_tilts=(("repeat", "two"), made["tilt"].values[[2, 3]][None]),
        repeat_flagged=("repeat", [True]),
        repeat_correlation=("repeat", [0.97]),
        repeat_r_factor=("repeat", [0.11]),
        repeat_scale=("repeat", [1.02]),
        rotation=(("tilt", "lab_axis"), rng.normal(0.0, 0.2, (n, 3))),
        refined_shift=(("tilt", "component"), rng.normal(0.0, 0.3, (n, 2))),
        shift_uncertainty=(("tilt", "component"), np.full((n, 2), 0.05)),
        round_r_factor=(("round", "tilt"), rng.uniform(0.05, 0.1, (2, n))),
    ).assign_attrs(best_round=1)


@pytest.fixture(scope="session")
def run_preprocessed(run_series: xr.Dataset) -> xr.Dataset:
    """The same before alignment."""
    n = run_series.sizes["tilt"]
    return run_series.assign(
        object_mask=run_series["images"] > 1.0,
        frame_shift=(("tilt", "frame", "component"), np.random.default_rng(2).normal(size=(n, 3, 2))),
        frame_kept=(("tilt", "frame"), np.ones((n, 3), bool)),
        sweep_correlation=(("strength", "profile", "model_tilt"), np.full((3, 2, 2), 0.97)),
        sweep_noisy_correlation=("model_tilt", [0.9, 0.91]),
        strength=[0.5, 1.0, 2.0],
        profile=["a", "b"],
    ).assign_attrs(denoise_strength=1.0, denoise_profile="a")


@pytest.fixture(scope="session")
def run_volume(run_atoms: xr.Dataset) -> xr.Dataset:
    """Its volume, with the maps that a film has."""
    axis = centred_coordinates(52, 0.8)
    heights = run_atoms["type"].values.astype(float)
    density = render_atoms(run_atoms["position"].values, heights=heights, x=axis, y=axis, z=axis, pixel_size=0.8)
    seam = np.where(np.abs(axis) < 4, 0.1, 0.0) * np.ones((52, 1))
    made = {
        "density": (("z", "y", "x"), density),
        "r_factor": (("iteration", "tilt"), np.linspace(0.5, 0.1, 10).reshape(2, 5)),
        "height": (("map_y", "map_x"), np.random.default_rng(3).normal(size=(13, 13))),
        "thickness": (("map_y", "map_x"), np.full((13, 13), 10.0)),
        "disagreement": (("y", "x"), seam.astype(np.float32)),
    }
    maps = {"map_x": axis[::4], "map_y": axis[::4]}
    return with_units(xr.Dataset(made, {"x": axis, "y": axis, "z": axis, **maps}), VOLUME)


@pytest.fixture(scope="session")
def analysed(run_atoms: xr.Dataset) -> dict[str, xr.Dataset]:
    """All analyses of the atoms; that of an interface, which they do not have, is made up."""
    x = np.arange(-2.0, 12.0)
    interface = xr.Dataset(
        {
            "order": ("distance", 0.3 + 0.2 * np.exp(-x / 4)), "order_error": ("distance", np.full(len(x), 0.01)),
            "fit": ("distance", 0.3 + 0.2 * np.exp(-x / 4)), "width": 4.0, "width_sigma": 0.5,
        },
        {"distance": x},
    )  # fmt: skip
    return analyze_atoms(run_atoms, cutoff=3.6, solute=3, surrogates=2, draws=0) | {"interface": interface}


@pytest.fixture(scope="session")
def run_validation(run_atoms: xr.Dataset) -> xr.Dataset:
    """The atoms against themselves, moved."""
    moved = run_atoms.assign(
        position=run_atoms["position"] + np.random.default_rng(4).normal(0.0, 0.05, (run_atoms.sizes["atom"], 3))
    )
    result = compared(match_atoms(moved, run_atoms))
    r_factor = ("tilt", np.linspace(0.1, 0.2, len(TILTS)))
    return with_units(result.assign(r_factor=r_factor).assign_coords(tilt=np.arange(len(TILTS))), VALIDATION)


@pytest.fixture(scope="session")
def complete(
    run_atoms: xr.Dataset,
    run_series: xr.Dataset,
    run_preprocessed: xr.Dataset,
    run_volume: xr.Dataset,
    analysed: dict[str, xr.Dataset],
    run_validation: xr.Dataset,
) -> Findings:
    """All of it."""
    frames = run_preprocessed["images"].expand_dims(frame=3, axis=1).rename("frames")
    raw = run_preprocessed[["angles"]].assign(frames=frames)
    other = {name: analysed[name] for name in ("pair_distribution", "bond_order")}
    findings = Findings(
        "run", run_series, run_volume, run_atoms, None, None, raw, run_preprocessed, run_series, run_validation
    )
    windows = xr.Dataset({"density": (("window", "z", "row", "column"), np.zeros((2, 2, 52, 30)))})
    windows.attrs["first_voxel_yx"] = [[-26, -26], [-26, -4]]
    models = {"": run_atoms, "other": run_atoms}
    return dataclasses.replace(findings, order={"": analysed, "other": other}, models=models, windows=windows)
