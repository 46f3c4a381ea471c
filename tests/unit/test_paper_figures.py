"""Figures for a journal: sizes, text, panels that are there and panels that are not, files, numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

import aetdist as aet
from aetdist import _figures
from aetdist.analysis.mro import cluster_pairs, representative_pairs, shared_atoms
from aetdist.analysis.yang2021 import PUBLISHED, compare_published
from aetdist.errors import InputError
from aetdist.io import Record, Store, write_xyz
from aetdist.report.findings import Findings
from aetdist.report.paper import FIGURES, Material, style
from aetdist.report.style import save_picture


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms are painted with fewer dots, for speed."""
    monkeypatch.setattr(style, "DPI", 120)


@pytest.fixture(scope="module")
def material(complete: Findings, analysed: dict[str, xr.Dataset]) -> Material:
    supplements = {}
    for name, (_, compute) in _figures.SUPPLEMENTS.items():
        supplements[name] = compute(complete.atoms, analysed)
    return Material(
        complete.series, complete.volume, complete.atoms, {**analysed, **supplements}, complete.validation,
        complete.series, complete.order, {1: "Co", 2: "Pd", 3: "Pt"},
    )  # fmt: skip


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_figure__has_its_panels_and_the_size_of_a_journal(figure, material: Material) -> None:  # type: ignore[no-untyped-def]
    drawn, missing = figure.draw(material)
    there = len(figure.panels) - len(missing)
    # A small random packing has no cluster on every lattice, and no crystal; nothing else may lack.
    assert all("no cluster" in reason or "no crystal nuclei" in reason for reason in missing.values()), missing
    width, height = 25.4 * drawn.get_size_inches()
    assert width == pytest.approx(min(there, figure.columns) * figure.size[0]) and width <= 183.01 and height <= 250
    drawn.draw_without_rendering()
    sizes = {
        text.get_fontsize() for text in drawn.findobj(Text) if text.get_text() and text.get_visible() and text.axes
    }  # fmt: skip
    assert min(sizes) >= 5.0 and max(sizes) <= 7.0
    letters = [sub.get_suptitle() for sub in drawn.subfigs if sub.get_suptitle()]
    expected = [panel.letter for panel in figure.panels if panel.letter not in missing]
    assert letters == (expected if len(figure.panels) > 1 else [])


def test_figure__says_what_it_lacks(material: Material) -> None:
    for figure in FIGURES:
        with pytest.raises(InputError, match=r"aetdist|there is no|not beside"):
            figure.draw(Material())
    first = FIGURES[0]
    drawn, missing = first.draw(Material(atoms=material.atoms, found=material.found))
    assert list(missing)[:4] == ["a", "b", "c", "d"] and "tilt series" in missing["a"] and "volume" in missing["c"]
    assert drawn.subfigs[0].get_suptitle() == "e"


def test_figure__a_panel_that_does_not_suit_leaves_the_others(material: Material) -> None:
    one_type = {**material.found}
    one_type["pair_distribution"] = one_type["pair_distribution"].drop_vars(["partial_g", "partial_g_error"])
    one_type.pop("disordered_pair_distribution", None)
    _, missing = FIGURES[0].draw(Material(atoms=material.atoms, found=one_type))
    assert "one type" in missing["h"] and "g" not in missing


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_save_picture__text_stays_text_and_the_size_exact(form: str, material: Material, tmp_path: Path) -> None:
    figure = next(f for f in FIGURES if f.name.startswith("extended_data_7"))
    path = save_picture(figure.draw(material)[0], tmp_path / f"figure.{form}", exact=True)
    content = path.read_bytes()
    points = 183.0 / 25.4 * 72
    if form == "svg":
        assert b"length (nm)</text>" in content and f'width="{points:.4f}'[:10].encode() in content
    else:
        assert b"/CIDFontType2" in content  # glyphs of a TrueType font, not outlines


def test_cluster_pairs__against_sets() -> None:
    rng = np.random.default_rng(5)
    positions = rng.uniform(0.0, 12.0, (60, 3))
    centres = rng.random(60) < 0.4
    faces = np.array([(i, j) for i in range(60) for j in range(i) if np.linalg.norm(positions[i] - positions[j]) < 3.5])
    around = [{i} | {int(a + b - i) for a, b in faces if i in (a, b)} for i in range(60)]
    expected = {
        (i, j): len(around[i] & around[j])
        for i in range(60)
        for j in range(i + 1, 60)
        if centres[i] and centres[j] and 3.0 <= np.linalg.norm(positions[i] - positions[j]) <= 6.0
    }
    pairs, shared = cluster_pairs(centres, faces, positions, distance=(3.0, 6.0))
    assert dict(zip(map(tuple, pairs.tolist()), shared.tolist(), strict=True)) == expected
    chosen = representative_pairs(centres, faces, positions, distance=(3.0, 6.0))
    counts = shared_atoms(centres, faces, positions, distance=(3.0, 6.0))
    np.testing.assert_array_equal(chosen["n_pairs"], counts)
    for n in range(1, 6):
        pair = int(chosen["first"].sel(shared=n)), int(chosen["second"].sel(shared=n))
        of_n = sorted(np.linalg.norm(positions[i] - positions[j]) for (i, j), s in expected.items() if s == n)
        assert (pair == (-1, -1)) == (not of_n)
        if of_n:
            assert expected[pair] == n and float(chosen["distance"].sel(shared=n)) == of_n[(len(of_n) - 1) // 2]


def test_compare_published__takes_ours_from_the_analyses(complete: Findings, analysed: dict[str, xr.Dataset]) -> None:
    rows = {row.quantity: row for row in compare_published(complete.atoms, analysed, complete.validation)}
    assert list(rows) == list(PUBLISHED)
    assert rows["atoms"].ours == complete.atoms.sizes["atom"] and rows["atoms"].paper == 18356
    alpha = float(analysed["coordination"]["alpha"].sel(type=2, neighbour_type=3))
    assert rows["Warren-Cowley 2-3"].ours == alpha
    assert rows["Warren-Cowley 2-3"].difference == pytest.approx(alpha + 0.07)
    assert rows["R-factor, measured against simulated"].ours == pytest.approx(15.0)
    nothing = compare_published(complete.atoms, {})
    assert np.isnan(next(row.ours for row in nothing if row.quantity == "ordered atoms"))


def test_draw_figures__of_a_file(complete: Findings, tmp_path: Path) -> None:
    write_xyz(tmp_path / "model.xyz", complete.atoms[["position", "type", "species"]])
    said = aet.draw_figures(
        tmp_path / "model.xyz", tmp_path / "out", only=["figure_2", "extended_data_3"], compare="yang2021", solute=None,
        form="svg", r_max=12.0,
    )  # fmt: skip
    assert list(said["figures"]) == ["figure_2_short_range_order"]
    assert said["not_drawn"] == {"extended_data_3_tilt_series": "there is no tilt series"}
    assert "extended_data_3_tilt_series: there is no tilt series" in said["text"]
    assert "Is this the paper's sample?" in said["text"]
    with (tmp_path / "out" / "numbers.csv").open() as file:
        table = {row["quantity"]: row for row in csv.DictReader(file)}
    assert float(table["atoms"]["ours"]) == complete.atoms.sizes["atom"] and table["fcc clusters"]["ours"] == ""
    assert (tmp_path / "out" / "captions.txt").read_text().startswith("figure_2_short_range_order. After Fig. 2.")
    store = tmp_path / "out" / "analysis.zarr"
    again = aet.draw_figures(store, tmp_path / "again", only=["figure_2"])
    assert Path(again["figures"]["figure_2_short_range_order"]).suffix == ".png" and "numbers" not in again
    with pytest.raises(InputError, match="analyze"):
        aet.draw_figures(store, tmp_path / "again", solute=3)
    with Store.open(store, "a") as opened:  # other atoms: the analyses are not theirs
        opened.write("atoms", complete.atoms[["position", "type"]].isel(atom=slice(1, None)), record=Record("trace"))
    later = aet.draw_figures(store, tmp_path / "later", only=["figure_1", "figure_2"])
    assert list(later["figures"]) == ["figure_1_structure"] and "analyze" in later["not_drawn"]["figure_1_structure g"]


def test_draw_figures__of_a_store_with_nothing_in_it(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run.zarr"):
        pass
    said = aet.draw_figures(tmp_path / "run.zarr", tmp_path / "out", movie=True)
    assert said["figures"] == {} and set(said["not_drawn"]) == {*(f.name for f in FIGURES), "movies"}


@pytest.mark.parametrize(
    ("options", "said"), [({"only": ["fig_9"]}, "fig_9"), ({"form": "bmp"}, "bmp"), ({"compare": "me"}, "yang2021")]
)
def test_draw_figures__refuses_before_it_works(options: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        aet.draw_figures(tmp_path / "model.xyz", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
