"""The report and its pictures: self-contained, escaped, complete, and drawn of what is there."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from aetdist import write_report
from aetdist.errors import CapacityError, InputError, StoreError
from aetdist.geometry import centred_coordinates
from aetdist.io import Record, Store, write_xyz
from aetdist.metrics import r_factor
from aetdist.project.atoms import render_atoms
from aetdist.report import (
    draw_atoms,
    draw_atoms_on_slice,
    draw_disagreement,
    draw_film_maps,
    draw_r_factors,
    draw_reprojection,
    draw_slices,
    pictures,
    save_picture,
    write_pictures,
)
from aetdist.report.findings import find, in_field, summary
from aetdist.report.page import document
from aetdist.report.style import bar_length, png
from aetdist.schema import ATOMS, VOLUME, with_units
from aetdist.simulate import amorphous_film, simulate_tilt_series

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def truth():
    return amorphous_film((30.0, 24.0), 10.0, species=("Ru", "Pt"), seed=1)


@pytest.fixture(scope="module")
def series(truth):
    return simulate_tilt_series(truth, [-60.0, -1.0, 60.0], pixel_size=0.5, field=(44, 36), heights=1.0).compute()


@pytest.fixture(scope="module")
def volume(truth):
    x, y, z = (centred_coordinates(n, 0.5) for n in (64, 52, 28))
    density = render_atoms(truth["position"].values, x=x, y=y, z=z, pixel_size=0.5)
    disagreement = np.where(np.abs(x) < 4, 0.1, 0.0) * np.ones((len(y), 1))
    return with_units(
        xr.Dataset(
            {
                "density": (("z", "y", "x"), density),
                "r_factor": (("iteration", "tilt"), np.array([[0.5, 0.4, 0.6], [0.2, 0.1, np.nan]])),
                "height": (("map_y", "map_x"), np.full((6, 8), 0.5)),
                "thickness": (("map_y", "map_x"), np.full((6, 8), 10.0)),
                "disagreement": (("y", "x"), disagreement.astype(np.float32)),
            },
            {"x": x, "y": y, "z": z, "map_x": x[::8], "map_y": y[::9]},
        ),
        VOLUME,
    )


@pytest.fixture(scope="module")
def found(truth):
    atoms = truth.isel(atom=slice(0, None, 2)).drop_vars(["type", "species"])
    atoms = atoms.assign_coords(atom=np.arange(atoms.sizes["atom"]))
    atoms["position"] = atoms["position"] + 0.1
    atoms["intensity"] = ("atom", np.linspace(1.0, 2.0, atoms.sizes["atom"]))
    return with_units(atoms, ATOMS)


@pytest.fixture(scope="module")
def store(tmp_path_factory, truth, series, volume, found):
    path = tmp_path_factory.mktemp("report") / "run <1> & ünïcode.zarr"
    with Store.create(path) as store:
        store.write("truth", truth, record=Record("simulate", {}, seed=1))
        nasty = {"note": "<script>alert(1)</script>\"'&", "long": "x" * 500}
        store.write("tilt_series/aligned", series, record=Record("import", nasty, {"file": "ab" * 32}))
        store.write("volume", volume, record=Record("scan", {"window": [20, 20]}))
        store.write("atoms", found, record=Record("trace"))
    return path


class Page(HTMLParser):
    """Tags that opened and closed, links, images and visible text."""

    VOID = ("meta", "img", "source", "br", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.links, self.images, self.text, self.tags = [], [], 0, [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.images += tag == "img"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(store, tmp_path_factory):
    output = tmp_path_factory.mktemp("html") / "report.html"
    assert write_report(store, output) == output
    return output.read_text(encoding="utf-8")


def test_write_report__is_one_file_that_links_to_nothing(page):
    parsed = Page()
    parsed.feed(page)
    assert not parsed.open
    assert parsed.images == 9 + 4  # pictures; a strip of tilts and three of slices
    assert all(re.match(r"data:image/(png;base64,iVBORw0KGgo|webp;base64,UklGR)|#\w+$", link) for link in parsed.links)
    assert not re.search(r"https?://|@import|url\(", page)


def test_write_report__escapes_names_and_parameters(page):
    assert "<script>alert" not in page and page.count("alert(1)") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<h1>run &lt;1&gt; &amp; ünïcode</h1>" in page
    assert "x" * 200 not in page


def test_write_report__begins_with_the_numbers(page, truth, found, series):
    parsed = Page()
    parsed.feed(page)
    text = "|".join(piece.strip() for piece in parsed.text if piece.strip())
    n_found, n_true = (in_field(atoms, series).sizes["atom"] for atoms in (found, truth))
    assert f"atoms found in the field|{n_found}" in text
    recall = float(re.search(r"of the true atoms found\|([\d.]+) %", text)[1])
    assert recall == pytest.approx(100 * n_found / n_true, abs=1.0)  # 0.1 Angstrom off: all but some on the border
    assert "R-factor, mean over tilts|0.150" in text
    assert "rms deviation|0.17 Å" in text
    assert "film thickness, median|10 Å" in text
    assert page.index('id="summary"') < page.index('id="view"')


def test_write_report__is_made_for_dark_pages_and_narrow_screens(page):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert page.count('<source media="(prefers-color-scheme: dark)"') == 9
    assert "color-scheme: light dark" in page
    light, dark = re.search(r'srcset="(data:[^"]+)"><img src="(data:[^"]+)"', page).groups()
    assert light != dark


def test_write_report__tells_how_every_group_was_made(page):
    for group, stage in (
        ("truth", "simulate"),
        ("tilt_series/aligned", "import"),
        ("volume", "scan"),
        ("atoms", "trace"),
    ):
        assert f'<td data-label="Group">{group}</td><td data-label="Stage">{stage}</td>' in page
    assert "window = [20, 20]" in page and "seed = 1" in page and "file ababababab" in page


def test_write_report__of_a_store_with_a_series_only(tmp_path, series):
    with Store.create(tmp_path / "new.zarr") as store:
        store.write("tilt_series/aligned", series, record=Record("import"))
    text = write_report(tmp_path / "new.zarr", tmp_path / "r.html").read_text(encoding="utf-8")
    assert "-60° to 60°" in text and "a volume (aetdist reconstruct or scan), atoms (aetdist trace)" in text
    assert text.count("<img") == 1 and 'class="atoms3d"' not in text


def test_find__takes_the_truth_from_a_file(tmp_path, store, truth):
    write_xyz(tmp_path / "truth.xyz", truth.isel(atom=slice(0, 300, 3)))
    with Store.open(store) as opened:
        findings = find(opened, truth=tmp_path / "truth.xyz")
    assert findings.comparison.n_truth == findings.truth.sizes["atom"] < 100
    assert summary(findings)["of the true atoms found"] == f"{100 * findings.comparison.recall:.1f} %"


def test_write_report__into_a_folder_that_is_not_there(tmp_path, store):
    with pytest.raises(InputError, match=r"no folder .*absent.* make it"):
        write_report(store, tmp_path / "absent" / "r.html")


def test_write_report__without_a_store_says_so_and_leaves_no_file(tmp_path):
    with pytest.raises(StoreError):
        write_report(tmp_path / "absent.zarr", tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_write_report__says_which_picture_could_not_be_drawn(tmp_path, store, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST_REPROJECTED", 10)
    every = document.pictures
    monkeypatch.setattr(document, "pictures", lambda findings: [p for p in every(findings) if p.name == "reprojection"])
    text = write_report(store, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Not drawn: Reprojecting needs the whole volume" in text
    assert text.count("image/png") == 0


def test_write_pictures__writes_files_of_the_kind_asked_for(tmp_path, store):
    files = write_pictures(store, tmp_path / "new" / "pictures")
    assert len(files) == 9 and all(file.read_bytes().startswith(PNG) for file in files)
    assert {file.name for file in files} >= {"slices.png", "atoms.png", "r_factors.png", "reprojection.png"}


def test_draw_slices__shows_the_planes_asked_for(volume):
    figure = draw_slices(volume, at=(2.0, -3.0, 1.0))
    above, front, side = (axes.images[0].get_array() for axes in figure.axes)
    density = volume["density"]
    np.testing.assert_array_equal(above, density.sel(z=1.0).values)
    np.testing.assert_array_equal(front, density.sel(y=-3.0).values)
    np.testing.assert_array_equal(side, density.sel(x=2.0).values.T)
    left, right, bottom, top = figure.axes[1].images[0].get_extent()
    assert (left, right) == (-16.25, 15.75) and (bottom, top) == (-7.25, 6.75)


def test_draw_slices__reads_only_the_slices(volume):
    def refuse(block):
        raise AssertionError("a chunk away from the slices was read")

    # Every chunk but those that the slices cut refuses to be read.
    lazy = volume["density"].chunk(z=4, y=4, x=4)
    kept = lazy.data.copy()
    far = kept.map_blocks(
        lambda block, block_info=None: refuse(block) if _far(block_info) else block, dtype=kept.dtype, meta=kept._meta
    )
    shown = draw_slices(volume.assign(density=(("z", "y", "x"), far)), at=(0.0, 0.0, 0.5))
    assert len(shown.axes) == 3


def _far(block_info):
    if block_info is None:
        return False
    (z, y, x) = block_info[0]["array-location"]
    return not (z[0] <= 15 < z[1] or y[0] <= 26 < y[1] or x[0] <= 32 < x[1])


def test_draw_reprojection__equals_the_measured_projection_of_the_same_atoms(series, volume):
    for tilt in range(3):
        calculated = pictures.reproject(series, volume, tilt)
        assert r_factor(calculated[None], series["images"].values[tilt : tilt + 1])[0] < 0.02
    assert draw_reprojection(series, volume).axes[0].get_title(loc="left") == "measured"


def test_draw_reprojection__leaves_unmeasured_pixels_blank(series, volume):
    masked = series.copy(deep=True)
    masked["mask"][1, :5] = False
    shown = draw_reprojection(masked, volume, tilt=1).axes[0].images[0].get_array()
    assert np.isnan(np.ma.filled(shown, np.nan)[:5]).all() and np.isfinite(shown[5:]).all()


def test_draw_r_factors__plots_the_last_iteration_against_the_tilt(volume, series):
    tilts, values = draw_r_factors(volume, series).axes[0].lines[0].get_data()
    np.testing.assert_array_equal(tilts, [-60.0, -1.0, 60.0])
    np.testing.assert_array_equal(values, [0.2, 0.1, np.nan])


def test_draw_atoms_on_slice__marks_the_atoms_of_the_slice_only(volume, found, truth):
    axes = draw_atoms_on_slice(volume, found, truth=truth, thickness=3.0, reach=100.0).axes[0]
    for marks, atoms in zip(axes.collections, (found, truth), strict=True):
        inside = np.abs(atoms["position"].values[:, 2] - 0.5) <= 1.5
        np.testing.assert_allclose(np.asarray(marks.get_offsets()), atoms["position"].values[inside, :2])


def test_draw_atoms__colours_by_what_is_there(truth, found):
    assert [text.get_text() for text in draw_atoms(truth).legends[0].get_texts()] == ["Pt", "Ru"]
    assert draw_atoms(found).axes[-1].get_ylabel() == "intensity"
    assert draw_atoms(found, by="z").axes[-1].get_ylabel() == "z (Å)"
    with pytest.raises(InputError, match="have no charge"):
        draw_atoms(found, by="charge")
    with pytest.raises(InputError, match="no atoms to draw"):
        draw_atoms(found.isel(atom=slice(0, 0)))


def test_pictures__are_white_or_dark_paper(volume):
    assert draw_film_maps(volume).get_facecolor()[:3] == (1.0, 1.0, 1.0)
    assert max(draw_film_maps(volume, theme="dark").get_facecolor()[:3]) < 0.2
    with pytest.raises(InputError, match="theme came as 'pink'"):
        draw_film_maps(volume, theme="pink")


def test_pictures__say_what_a_volume_lacks(volume, series):
    bare = volume[["density"]]
    for draw, name in ((draw_film_maps, "height"), (draw_disagreement, "disagreement")):
        with pytest.raises(InputError, match=name):
            draw(bare)
    with pytest.raises(InputError, match="r_factor"):
        draw_r_factors(bare, series)
    with pytest.raises(CapacityError, match="GiB"):
        huge = xr.Dataset({"density": (("z", "y", "x"), np.broadcast_to(np.float32(0), (1024, 1024, 1024)))})
        draw_reprojection(series, huge)


def test_save_picture__by_the_end_of_the_name(tmp_path, volume, series):
    figure = draw_r_factors(volume, series)
    assert save_picture(figure, tmp_path / "a.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert save_picture(figure, tmp_path / "a.png").read_bytes() == png(figure, dpi=200)
    with pytest.raises(InputError, match=r"ends in '\.gif'"):
        save_picture(figure, tmp_path / "a.gif")


@pytest.mark.parametrize(("width", "length"), [(100.0, 20.0), (45.0, 10.0), (8.0, 2.0), (900.0, 200.0), (0.0, 1.0)])
def test_bar_length__is_round_and_at_most_a_quarter(width, length):
    assert bar_length(width) == length
