"""What a report is put together from: frames, atoms, statistics, commands; and the pictures of a scan."""

from __future__ import annotations

import base64
import io
import shlex

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from aetdist import _report, pipeline
from aetdist.cli import program
from aetdist.errors import InputError
from aetdist.experiment import checked_keywords
from aetdist.io import Record, Store
from aetdist.report.findings import Findings
from aetdist.report.mro import KINDS
from aetdist.report.page import atoms3d, strips
from aetdist.report.page.atoms3d import atoms_data
from aetdist.report.page.statistics import figures_table, statistics, statistics_table
from aetdist.report.page.strips import slice_strips, tilt_strip
from aetdist.report.windows import draw_r_map, draw_windows
from aetdist.schema import ATOMS, TILT_SERIES, VOLUME, with_units


def made_series(n=3, shape=(10, 16)):
    """Images in which the tilt's number brightens the upper left corner."""
    images = np.zeros((n, *shape), np.float32)
    images[:, -3:, :3] = np.arange(1, n + 1)[:, None, None]
    angles = np.zeros((n, 3))
    angles[:, 1] = np.linspace(60, -60, n)
    y, x = (0.5 * (np.arange(m) - m // 2) for m in shape)
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), angles),
            "pixel_size": 0.5,
        },
        {"tilt": np.arange(n), "y": y, "x": x, "euler": ["phi", "theta", "psi"]},
        {"voltage_kV": 200.0, "detector_mrad": [38.0, 190.0], "dose_e_per_A2": 9.5e5},
    )
    return with_units(series, TILT_SERIES)


def made_volume(shape=(6, 8, 10)):
    axes = {axis: 0.5 * (np.arange(n) - n // 2) for axis, n in zip("zyx", shape, strict=True)}
    density = np.random.default_rng(0).random(shape, np.float32)
    return with_units(xr.Dataset({"density": (("z", "y", "x"), density)}, axes), VOLUME)


def made_atoms(n=60):
    rng = np.random.default_rng(1)
    kinds = np.arange(n) % 2 + 1
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), rng.normal(size=(n, 3))),
            "type": ("atom", kinds),
            "species": ("atom", np.where(kinds == 1, "Cu", "Zr")),
            "intensity": ("atom", kinds * 10.0),
            "b_factor": ("atom", kinds * 2.0),
            "position_sigma": (("atom", "axis"), np.full((n, 3), 0.01) * [1.0, 2.0, 3.0]),
        },
        {"atom": np.arange(100, 100 + n), "axis": list("xyz")},
        {"R": 0.08, "R1": 0.12},
    )
    return with_units(atoms, ATOMS)


def decoded(packed):
    return np.frombuffer(base64.b64decode(packed["data"]), packed["type"])


def image_of(uri):
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])), format="webp")


# -- frames ------------------------------------------------------------------------------------------


def test_tilt_strip__shows_every_tilt_by_rising_angle_with_y_upwards():
    strip = tilt_strip(made_series(), "aligned")
    assert strip.labels == ["θ = −60.0°, tilt 2", "θ = 0.0°, tilt 1", "θ = 60.0°, tilt 0"]
    frames = [image_of(frame)[..., 0].astype(int) for frame in strip.frames]
    assert all(frame.shape == (10, 16) for frame in frames)
    corners = [frame[:3, :3].mean() for frame in frames]
    assert corners[0] > corners[1] + 30 > corners[2] + 60  # tilt 2 is the brightest
    assert all(frame[-3:, -3:].mean() < 20 for frame in frames)
    assert "x 8 Å to the right, y 4 Å upwards" in strip.caption
    assert strip.bar == (2.0 / 8.0, 2.0)


def test_tilt_strip__of_many_large_images_is_bounded(monkeypatch):
    monkeypatch.setattr(strips, "LARGEST", 6)
    monkeypatch.setattr(strips, "MOST_TILTS", 5)
    strip = tilt_strip(made_series(11), "aligned")
    assert len(strip.frames) == len(strip.labels) == 5 and "5 of 11 tilts" in strip.caption
    assert strip.labels[0].startswith("θ = −60") and strip.labels[-1].startswith("θ = 60")
    assert image_of(strip.frames[0]).shape[:2] == (3, 5)


def test_tilt_strip__of_images_of_which_nothing_was_measured_is_black():
    series = made_series()
    strip = tilt_strip(series.assign(mask=series["mask"] & False), "aligned")
    assert all(image_of(frame)[..., :3].max() < 4 for frame in strip.frames)


def test_tilt_strip__of_raw_frames_shows_the_first_of_each_tilt():
    series = made_series()
    raw = xr.Dataset({"frames": series["images"].expand_dims(frame=2, axis=1), "angles": series["angles"]})
    strip = tilt_strip(raw, "raw")
    assert strip.title == "raw, first frame of each tilt"
    assert strip.frames == tilt_strip(series, "aligned").frames


@pytest.mark.parametrize("chunks", [None, {"z": 2, "y": 3, "x": 10}, {"x": 1}])
def test_slice_strips__are_the_slices_whatever_the_chunks(chunks):
    volume = made_volume()
    lazy = volume if chunks is None else volume.chunk(chunks)
    across_z, across_y, across_x = slice_strips(lazy)
    assert [len(strip.frames) for strip in (across_z, across_y, across_x)] == [6, 8, 10]
    assert (across_z.shape, across_y.shape, across_x.shape) == ((8, 10), (6, 10), (8, 6))
    assert across_z.labels[0] == "z = −1.5 Å" and across_x.labels[-1] == "x = 2.0 Å"
    assert [s.frames for s in slice_strips(volume)] == [s.frames for s in (across_z, across_y, across_x)]
    shown = image_of(across_y.frames[3])[::-1, :, 0].astype(float)
    assert np.corrcoef(shown.ravel(), volume["density"][:, 3].values.ravel())[0, 1] > 0.97


def test_slice_strips__of_a_film_show_what_lies_near_the_field():
    volume = made_volume((4, 12, 80))
    strip = slice_strips(volume, (-5.0, 5.0, -3.0, 3.0))[0]
    assert strip.shape == (12, 27)  # 15 % beyond the field: 26 voxels, both ends


# -- atoms -------------------------------------------------------------------------------------------


def test_atoms_data__holds_every_atom_and_what_is_known_of_it():
    atoms = made_atoms()
    order = np.linspace(0, 1, 60)
    label = np.full(60, -1)
    label[:5] = 0
    found = {
        "bond_order": xr.Dataset({"order": ("atom", order)}),
        "medium_range_order": xr.Dataset({"mro_label": ("atom", label), "mro_type": ("mro", ["bcc"])}),
    }
    (model,) = atoms_data({"": atoms}, {"": found})["models"]
    assert model["n"] == model["n_shown"] == 60
    np.testing.assert_array_equal(decoded(model["number"]), atoms["atom"])
    for i, axis in enumerate("xyz"):
        np.testing.assert_allclose(decoded(model[axis]), atoms["position"][:, i], rtol=1e-6)
    modes = {mode["key"]: mode for mode in model["modes"]}
    assert [key for key, mode in modes.items() if mode["shown"]] == ["type", "order", "sigma", "mro", "intensity"]
    assert [(c["name"], c["count"]) for c in modes["type"]["classes"]] == [("Cu", 30), ("Zr", 30)]
    np.testing.assert_array_equal(decoded(modes["type"]["values"]), atoms["type"] - 1)
    np.testing.assert_allclose(decoded(modes["order"]["values"]), order, rtol=1e-6)
    np.testing.assert_allclose(decoded(modes["sigma"]["values"]), np.sqrt(14 / 3), rtol=1e-6)  # pm, rms of the axes
    np.testing.assert_allclose(decoded(modes["sigma_z"]["values"]), 3.0, rtol=1e-6)
    assert [(c["name"], c["count"]) for c in modes["mro"]["classes"]] == [("none", 55), ("bcc", 5)]
    assert KINDS.index("bcc") == 2 and modes["mro"]["classes"][1]["colour"] == atoms3d.COLOURS[2]


def test_atoms_data__thins_large_models_evenly(monkeypatch):
    monkeypatch.setattr(atoms3d, "MOST_ATOMS", 7)
    (model,) = atoms_data({"": made_atoms()}, {})["models"]
    assert (model["n"], model["n_shown"]) == (60, 7)
    assert np.ptp(np.diff(decoded(model["number"]))) <= 1
    monkeypatch.setattr(atoms3d, "MOST_IN_ALL", 12)
    assert [m["n_shown"] for m in atoms_data({"a": made_atoms(), "b": made_atoms()}, {})["models"]] == [6, 6]


def test_atoms_data__of_bare_positions_is_coloured_by_height_and_ignores_results_of_other_atoms():
    atoms = made_atoms()[["position"]]
    other = {"bond_order": xr.Dataset({"order": ("atom", np.zeros(3))})}
    (model,) = atoms_data({"": atoms}, {"": other})["models"]
    assert [mode["key"] for mode in model["modes"]] == ["height"]


# -- statistics --------------------------------------------------------------------------------------


def test_statistics__are_those_of_the_paper_s_table():
    atoms = made_atoms()
    volume = made_volume().assign(r_factor=(("iteration", "tilt"), [[0.3, 0.2, 0.4], [0.1, 0.2, np.nan]]))
    findings = Findings("t", made_series(), volume, atoms, None, None, models={"": atoms})
    parts = statistics(findings)
    assert list(parts) == ["Data collection", "Reconstruction", "Atoms", "Precision"]
    data = parts["Data collection"][""]
    assert data["voltage (kV)"] == "200" and data["detector, inner and outer angle (mrad)"] == "38, 190"
    assert data["tilts"] == "3" and data["range of tilts (°)"] == "−60.0 to 60.0"
    assert data["electron dose of the series (e/Å²)"] == "9.5 × 10⁵" and data["pixel (Å)"] == "0.5"
    assert parts["Reconstruction"][""]["R, volume against images (%)"] == "15.0"
    rows = parts["Atoms"][""]
    assert rows["type 2 (Zr): atoms"] == "30" and rows["type 2 (Zr): height H of the Gaussian"] == "20"
    assert rows["type 1 (Cu): B (Å²)"] == "2.00"
    assert rows["R1, Fourier amplitudes (%)"] == "12.0"
    (precision,) = parts["Precision"][""].values()
    assert precision == "1.0, 2.0, 3.0"


def test_statistics__has_a_column_for_each_model_and_leaves_out_what_is_not_known():
    bare = made_atoms()[["position"]].drop_attrs()
    findings = Findings("t", None, None, None, None, None, models={"a<b": made_atoms(), "c": bare})
    parts = statistics(findings)
    assert list(parts) == ["Atoms"] and list(parts["Atoms"]["c"]) == ["atoms"]
    table = statistics_table(parts)
    assert "a&lt;b" in table and "<td>30</td><td>–</td>" in table
    assert "nothing" in statistics_table(statistics(Findings("t", None, None, None, None, None)))


def test_figures_table__says_how_sure_each_figure_is():
    table = xr.Dataset({"value": ("figure", [2.5, np.nan]), "sigma": ("figure", [0.1, np.nan])}, {"figure": ["a", "b"]})
    html = figures_table({"one": {"summary": table}, "two": {"summary": table.isel(figure=[1])}})
    assert "<td>2.5 ± 0.1</td><td>–</td>" in html and figures_table({"": {}}) == ""


# -- commands ----------------------------------------------------------------------------------------

ASKED = {
    "import": {
        "files": ["a b.h5", "c.h5"],
        "images": "im",
        "pixel_size": 0.4,
        "flip_tilt": True,
        "detector": [38, 190],
    },
    "scan": {"window": [64, 48], "overlap": 16, "thickness": 20.0, "stop": "held_out_blocks"},
    "classify": {"species": 2, "elements": ["Cu", "Zr"]},
    "refine": {"curate": False, "heights": "atom"},
    "analyze": {"solute": 2, "field": [-1.5, 1.5, -2.0, 2.0]},
}


@pytest.fixture
def done(tmp_path):
    """A store of which only the records count."""
    path = tmp_path / "my run.zarr"
    with Store.create(path) as store:
        keywords = {"files": ASKED["import"]["files"]} | checked_keywords(
            "import", {k: v for k, v in ASKED["import"].items() if k != "files"}
        )
        store.write("tilt_series/aligned", xr.Dataset({"a": 1}), record=Record("import", keywords))
        for stage, group in (("scan", "volume"), ("classify", "atoms_classified"), ("refine", "atoms_refined"),
                             ("analyze", "analysis/summary")):  # fmt: skip
            store.write(group, xr.Dataset({"a": 1}), record=Record(stage))
            store.note(group, asked={"stage": stage, "keywords": checked_keywords(stage, ASKED[stage])})
    return path


def test_commands_of__say_again_what_was_asked_for(done, monkeypatch):
    with Store.open(done) as store:
        commands = _report.commands_of(store)
    assert [line.split()[1] for line in commands] == list(ASKED)
    calls = {}
    for stage in ASKED:
        name = "import_series" if stage == "import" else stage

        def note(*arguments, _stage=stage, **keywords):
            calls[_stage] = arguments, keywords
            return {}

        monkeypatch.setattr(pipeline, name, note)
    monkeypatch.setattr("aetdist.cluster.connect", lambda *a, **k: pytest.MonkeyPatch.context())
    for line in commands:
        answer = CliRunner().invoke(program, shlex.split(line)[1:])
        assert answer.exit_code == 0, answer.stderr
    for stage, wanted in ASKED.items():
        arguments, keywords = calls[stage]
        if stage == "import":
            assert [str(file) for file in arguments[0]] == wanted["files"] and str(arguments[1]) == "my run.zarr"
        else:
            assert str(arguments[0] if stage != "analyze" else arguments[0][0]) == "my run.zarr"
        wanted = {key: value for key, value in wanted.items() if key != "files"}
        # What the command passes on is checked as the stage would: the same keywords, defaults included.
        assert checked_keywords(stage, keywords) == checked_keywords(stage, wanted)


def test_commands_of__models_in_files(tmp_path):
    with Store.create(tmp_path / "an.zarr") as store:
        for name in ("a", "b"):
            store.write(f"{name}/atoms", made_atoms(), record=Record("import", {"atoms": f"{name}.xyz"}, {"file": "0"}))
            record = Record("analyze", checked_keywords("analyze", {"solute": 3}))
            store.write(f"{name}/analysis/summary", xr.Dataset({"a": 1}), record=record)
        assert _report.commands_of(store) == ["aetdist analyze a.xyz b.xyz -o an.zarr --set solute=3"]


def test_report__is_a_command_with_a_name_by_the_store(tmp_path):
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("atoms", made_atoms(), record=Record("trace"))
    answer = CliRunner().invoke(program, ["report", str(tmp_path / "run.zarr"), "--title", "A <title>"])
    assert answer.exit_code == 0, answer.stderr
    assert "<h1>A &lt;title&gt;</h1>" in (tmp_path / "run.html").read_text(encoding="utf-8")


# -- pictures of a scan ------------------------------------------------------------------------------


def test_draw_windows__frames_the_columns_of_each_window():
    volume = made_volume((4, 12, 20))
    volume["disagreement"] = (("y", "x"), np.zeros((12, 20)))
    windows = xr.Dataset(
        {"density": (("window", "z", "row", "column"), np.zeros((2, 4, 12, 12)))},
        attrs={"first_voxel_yx": [[-6, -10], [-6, -2]]},
    )
    axes = draw_windows(volume, windows).axes[0]
    corners = {tuple(np.round(patch.get_bbox().bounds, 6)) for patch in axes.patches}
    assert corners == {(-5.25, -3.25, 6.0, 6.0), (-1.25, -3.25, 6.0, 6.0)}
    assert axes.get_xlabel() == "x (Å)" and axes.get_ylabel() == "y (Å)"
    with pytest.raises(InputError, match="scan makes both"):
        draw_windows(volume[["density"]], windows)


def test_draw_r_map__orders_the_tilts_by_angle():
    volume = made_volume().assign(r_factor=(("iteration", "tilt"), [[0.3, 0.2, 0.1], [0.2, 0.1, np.nan]]))
    figure = draw_r_map(volume, made_series())
    values = figure.axes[0].collections[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(values, np.nan), [[0.1, 0.2, 0.3], [np.nan, 0.1, 0.2]])
    assert figure.axes[1].get_ylabel() == "R-factor"
    with pytest.raises(InputError, match="several iterations"):
        draw_r_map(made_volume(), made_series())
