"""Pictures of classified and refined atoms: they show the numbers that the atoms hold."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist import write_report
from aetdist.errors import InputError
from aetdist.geometry import centred_coordinates
from aetdist.io import Record, Store
from aetdist.project.atoms import render_atoms
from aetdist.report import (
    draw_atom_refinement,
    draw_differences,
    draw_intensities,
    draw_sigmas,
    draw_types_on_slices,
    write_pictures,
)
from aetdist.report.findings import find, summary
from aetdist.schema import ATOMS, VOLUME, with_units
from aetdist.simulate import nanoparticle, simulate_tilt_series

HEIGHTS = np.array([1.0, 2.2, 5.0])


@pytest.fixture(scope="module")
def refined() -> xr.Dataset:
    """A particle of three types with everything that classification and refinement find, made up."""
    rng = np.random.default_rng(0)
    atoms = nanoparticle(30.0, species=("Co", "Pd", "Pt"), seed=1)
    n = atoms.sizes["atom"]
    x, y = centred_coordinates(80, 0.5), centred_coordinates(72, 0.5)
    bump = np.exp(-(np.hypot(x, y[:, None]) ** 2) / 200)
    intensity = HEIGHTS[atoms["type"].values - 1] * rng.normal(1.0, 0.12, n)
    fall = 0.05 + 0.2 * np.exp(-np.arange(12) / 3)
    found = {
        "intensity": ("atom", intensity),
        "box_intensity": ("atom", 8.0 * intensity),
        "position_sigma": (("atom", "axis"), rng.gamma(30.0, [0.0025, 0.0026, 0.003], (n, 3))),
        "unresolved": ("atom", rng.random(n) < 0.01),
        "round_r": ("iteration", fall),
        "r_factor": (("iteration", "tilt"), fall[:, None] * rng.normal(1.0, 0.05, (12, 3))),
        "difference_before": (("map_y", "map_x"), bump * rng.normal(1.0, 0.3, bump.shape)),
        "difference_after": (("map_y", "map_x"), 0.3 * bump * rng.normal(1.0, 0.3, bump.shape)),
    }
    attrs = {"R": 0.054, "R1": 0.112, "cramer_rao": 0.07, "elements": ["Co", "Pd", "Pt"], "edits": ["delete,1,2,3,,,,"]}
    return with_units(atoms.assign(found).assign_coords(map_x=x, map_y=y).assign_attrs(attrs), ATOMS)


@pytest.fixture(scope="module")
def volume(refined: xr.Dataset) -> xr.Dataset:
    x, y, z = (centred_coordinates(n, 0.5) for n in (80, 76, 72))
    heights = HEIGHTS[refined["type"].values - 1]
    density = render_atoms(refined["position"].values, heights=heights, x=x, y=y, z=z, pixel_size=0.5)
    return with_units(xr.Dataset({"density": (("z", "y", "x"), density)}, {"x": x, "y": y, "z": z}), VOLUME)


def labels(figure: object) -> list[str]:
    legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
    return [text.get_text() for text in legend.get_texts()]


def test_intensities__count_every_atom_of_a_type(refined: xr.Dataset) -> None:
    figure = draw_intensities(refined)
    axes = figure.axes[0]
    counts = [patch.get_data().values.sum() for patch in axes.patches[1::2]]
    assert counts == np.unique(refined["type"].values, return_counts=True)[1].tolist()
    assert labels(figure) == [f"{e}: {int(n):,}" for e, n in zip(("Co", "Pd", "Pt"), counts, strict=True)]
    assert axes.get_xlabel() == "box intensity"
    bare = refined.drop_vars(["box_intensity", "species"])
    assert draw_intensities(bare).axes[0].get_xlabel() == "intensity"
    assert labels(draw_intensities(bare))[0].startswith("type 1: ")
    assert labels(draw_intensities(bare.drop_vars("type"))) == [f"atoms: {refined.sizes['atom']:,}"]
    with pytest.raises(InputError, match="have no intensity"):
        draw_intensities(bare.drop_vars("intensity"))


def test_slices__mark_the_atoms_inside_by_type(refined: xr.Dataset, volume: xr.Dataset) -> None:
    figure = draw_types_on_slices(volume, refined, thickness=3.0, reach=12.0)
    assert labels(figure) == ["Co", "Pd", "Pt"]
    position, types = refined["position"].values, refined["type"].values
    for axes, gone, seen in zip(figure.axes, (2, 1, 0), ([0, 1], [0, 2], [2, 1]), strict=True):
        for number, marks in zip((1, 2, 3), axes.collections, strict=True):
            inside = (types == number) & (np.abs(position[:, gone]) <= 1.5)
            np.testing.assert_allclose(np.asarray(marks.get_offsets()), position[inside][:, seen])
    shown = figure.axes[0].images[0].get_array()
    expected = volume["density"].sel(z=slice(-1.5, 1.5), y=slice(-12, 12), x=slice(-12, 12)).mean("z")
    np.testing.assert_allclose(shown, expected, rtol=1e-6)


def test_refinement__plots_r_of_every_iteration(refined: xr.Dataset) -> None:
    x, y = draw_atom_refinement(refined).axes[0].lines[0].get_data()
    np.testing.assert_array_equal(x, np.arange(12))  # the first is before refinement
    np.testing.assert_array_equal(y, refined["round_r"])
    tilts = refined.drop_vars("round_r")
    tilts["r_factor"][3, 1] = np.nan
    mean = draw_atom_refinement(tilts).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(mean, np.nanmean(tilts["r_factor"], axis=1))
    with pytest.raises(InputError, match="no R-factor"):
        draw_atom_refinement(tilts.drop_vars("r_factor"))


def test_differences__share_one_scale(refined: xr.Dataset) -> None:
    before, after = (axes.images[0] for axes in draw_differences(refined).axes[:2])
    np.testing.assert_array_equal(before.get_array(), refined["difference_before"])
    np.testing.assert_array_equal(after.get_array(), refined["difference_after"])
    assert before.get_clim() == after.get_clim()
    assert tuple(after.get_extent()) == (-20.25, 19.75, -18.25, 17.75)
    with pytest.raises(InputError, match="no maps of the difference"):
        draw_differences(refined.drop_vars(["difference_before", "difference_after"]))


def test_sigmas__count_every_known_one(refined: xr.Dataset) -> None:
    partly = refined.copy(deep=True)
    partly["position_sigma"][:40, 2] = np.nan
    figure = draw_sigmas(partly)
    n = refined.sizes["atom"]
    assert [patch.get_data().values.sum() for patch in figure.axes[0].patches] == [n, n, n - 40]
    medians = 100 * np.nanmedian(partly["position_sigma"], axis=0)
    assert labels(figure)[:3] == [f"{a}, median {m:.1f} pm" for a, m in zip("xyz", medians, strict=True)]
    assert labels(figure)[3] == "Cramér-Rao bound of an axis, rms 4.0 pm"
    with pytest.raises(InputError, match="no position_sigma"):
        draw_sigmas(refined.drop_vars("position_sigma"))


def test_report__is_of_the_newest_atoms(tmp_path, refined: xr.Dataset, volume: xr.Dataset) -> None:
    series = simulate_tilt_series(refined, [-60.0, 0.0, 60.0], pixel_size=0.5, heights=HEIGHTS).compute()
    traced = refined[["position", "intensity"]].isel(atom=slice(100))
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("tilt_series/aligned", series, record=Record("import"))
        store.write("volume", volume, record=Record("reconstruct"))
        store.write("atoms", traced, record=Record("trace", {}, {"volume": store.digest("volume")}))
        inputs = {group: store.digest(group) for group in ("tilt_series/aligned", "atoms", "volume")}
        store.write("atoms_refined", refined, record=Record("refine", {}, inputs))
        numbers = summary(find(store))
    assert numbers["R-factor of the atoms"] == "0.054" and numbers["R1-factor of the atoms"] == "0.112"
    assert numbers["of each type"].count(",") >= 2 and numbers["edits by hand"] == "1"
    assert numbers["standard deviation of x, y, z, median"].endswith(" pm")
    names = {file.stem for file in write_pictures(tmp_path / "run.zarr", tmp_path / "pictures")}
    assert names >= {"types_on_slices", "intensities", "atom_refinement", "differences", "sigmas", "atoms"}
    page = write_report(tmp_path / "run.zarr", tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2 * len(names) and "Not drawn" not in page
    assert page.index('">atoms</td>') < page.index('">atoms_refined</td>')
