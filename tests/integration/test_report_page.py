"""The report in a browser: whole, silent, without the network, in both themes, wide and narrow; atoms are picked."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist import write_report
from aetdist.io import Record, Store
from aetdist.report.mro import KINDS
from aetdist.schema import ATOMS, with_units

pytestmark = pytest.mark.integration

LARGEST = 15e6  # bytes of a page
SECTIONS = ["view", "tilts", "volume", "film", "atoms", "trust", "order", "statistics", "provenance"]

#: Elements that hold something to be seen; none may lie on another, reach out of the page, or hide a part of itself.
LAYOUT = """() => {
  const kinds = `h1, h2, p, a, button, select, input, output, dt, dd, th, td, pre, summary, figcaption, img, canvas,
    .plot, .key, .ramp`;
  const seen = [...document.querySelectorAll(kinds)].map((e) => [e, e.getBoundingClientRect()])
    .filter(([e, box]) => !e.matches(".marks") && box.width > 0 && box.height > 0);
  const width = document.documentElement.clientWidth;
  const wrong = [];
  const name = (e) => `${e.tagName}.${e.className} ${(e.textContent || e.alt || "").trim().slice(0, 30)}`;
  for (const [e, box] of seen) {
    if (box.left < -0.5 || box.right > width + 0.5) wrong.push(`beyond the page: ${name(e)}`);
    if (!e.matches("input, img") && e.scrollWidth > Math.ceil(e.clientWidth) + 1 && e.clientWidth) {
      wrong.push(`wider than its place: ${name(e)}`);
    }
    for (let up = e.parentElement; up; up = up.parentElement) {
      const around = up.getBoundingClientRect();
      const hides = getComputedStyle(up).overflow !== "visible" && up !== document.documentElement;
      if (hides && (box.right > around.right + 1 || box.bottom > around.bottom + 1 || box.left < around.left - 1)) {
        wrong.push(`clipped: ${name(e)}`);
      }
    }
  }
  seen.forEach(([e, a], i) => {
    for (const [f, b] of seen.slice(i + 1)) {
      if (e.contains(f) || f.contains(e)) continue;
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 1) wrong.push(`on one another: ${name(e)} | ${name(f)}`);
    }
  });
  return wrong;
}"""

#: Colour that the view shows where an atom is, and how its centre is reached with the mouse.
LOOK = """(index) => {
  const { view } = document.querySelector(".atoms3d");
  const [x, y] = view.placeOf(index).map(Math.round);
  const pixel = new Uint8Array(4);
  const { gl } = view.spheres;
  gl.readPixels(x, view.canvas.height - 1 - y, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  const ratio = view.canvas.width / view.canvas.clientWidth;
  return { x: x / ratio, y: y / ratio, colour: [...pixel].slice(0, 3) };
}"""
NEAREST = """() => {
  const { view } = document.querySelector(".atoms3d");
  const near = Array.from(view.model.x, (_, i) => view.placeOf(i)[2]);
  return near.indexOf(Math.max(...near));
}"""


class Visit:
    """A page that is open, what it said and what it asked for."""

    def __init__(self, browser, file, *, width=1400, theme="light", before=None):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.route("**/*", self._route)
        if before:
            self.page.add_init_script(before)
        self.uri = file.absolute().as_uri()
        self.page.goto(self.uri)

    def _route(self, route):
        self.asked.append(route.request.url)
        route.continue_() if route.request.url == self.uri else route.abort()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.close()
        assert self.said == []
        assert [url for url in self.asked if not url.startswith("data:")] == [self.uri]

    def click_atom(self, index):
        """Click where an atom is drawn; the colour there."""
        look = self.page.evaluate(LOOK, index)
        self.page.locator(".atoms3d canvas").first.click(position={"x": look["x"], "y": look["y"]})
        return look["colour"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A report on 20,500 atoms of two types on a lattice, with a bond order and clusters."""
    n = 20500
    rng = np.random.default_rng(0)
    position = 2.7 * np.argwhere(np.ones((28, 28, 28), bool))[:n] + rng.normal(0.0, 0.1, (n, 3))
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), position),
            "type": ("atom", np.where(position[:, 0] > 36, 2, 1)),
            "position_sigma": (("atom", "axis"), rng.gamma(30.0, 0.002, (n, 3))),
        },
        {"atom": np.arange(n), "axis": list("xyz")},
    )
    label = np.where(np.arange(n) % 50 == 0, np.arange(n) // 50 % 2, -1)
    clusters = xr.Dataset({"mro_label": ("atom", label), "mro_type": ("mro", list(KINDS[:2]))})
    clusters = clusters.assign(size=("mro", np.bincount(label[label >= 0])))
    folder = tmp_path_factory.mktemp("many")
    with Store.create(folder / "many.zarr") as store:
        store.write("atoms", with_units(atoms, ATOMS), record=Record("trace"))
        order = xr.Dataset({"order": ("atom", rng.random(n))})
        for name, found in (("bond_order", order), ("medium_range_order", clusters)):
            store.write(f"analysis/{name}", found, record=Record("analyze"))
    return folder, atoms


@pytest.fixture(scope="module")
def many_page(many, monkeypatch_module):
    """Its page, without the pictures."""
    folder, _ = many
    monkeypatch_module.setattr("aetdist.report.page.document.pictures", lambda findings: [])
    return write_report(folder / "many.zarr", folder / "many.html")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_page__of_the_demo_is_whole_and_fits(browser, demo):
    folder, _, _ = demo
    assert (folder / "report.html").stat().st_size <= LARGEST
    with Visit(browser, folder / "report.html") as visit:
        page = visit.page
        assert page.eval_on_selector_all("main > section", "all => all.map((e) => e.id)") == ["summary", *SECTIONS]
        assert page.eval_on_selector_all("nav a", "all => all.map((e) => e.hash.slice(1))") == SECTIONS
        assert page.locator("section:not(:has(h2))").count() == 1
        broken = "all => all.filter((e) => !(e.complete && e.naturalWidth)).map((e) => e.alt)"
        assert page.eval_on_selector_all("img", broken) == []
        assert "Not drawn" not in page.inner_text("main") and page.locator("#picture-windows").count() == 1
        assert page.get_attribute(".atoms3d", "data-state") == "ready"
        assert page.locator(".modes button").all_inner_texts() == ["type", "order", "sigma", "MRO", "intensity"]
        commands = page.inner_text("#commands").splitlines()
        stages = ["import", "scan", "trace", "classify", "refine", "analyze"]
        assert [line.split()[1] for line in commands] == stages
        assert "R1, Fourier amplitudes (%)" in page.inner_text("#statistics")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_page__nothing_overlaps_or_is_cut_off(browser, demo, width, theme):
    with Visit(browser, demo[0] / "report.html", width=width, theme=theme) as visit:
        page = visit.page
        page.locator("details summary").click()
        visit.click_atom(page.evaluate(NEAREST))
        for mode in page.locator(".modes button").all():
            mode.click()
            assert page.evaluate(LAYOUT) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(
    ("style", "wrong"),
    [
        ("h2 { margin-bottom: -3rem }", "on one another"),
        (".numbers { width: 150vw }", "beyond the page"),
        ("p { white-space: nowrap }", "wider than its place"),
        (".atoms3d .plot canvas { height: 60rem }", "clipped"),
    ],
)
def test_page__what_overlaps_or_is_cut_off_would_be_noticed(browser, many_page, style, wrong):
    with Visit(browser, many_page, width=390) as visit:
        visit.page.add_style_tag(content=style)
        assert any(line.startswith(wrong) for line in visit.page.evaluate(LAYOUT))


def test_page__is_light_or_dark_by_the_system_and_by_its_button(browser, demo):
    shown = """() => [getComputedStyle(document.body).backgroundColor,
        document.querySelector("#volume picture img").currentSrc.length, getComputedStyle(document.body).color]"""
    with Visit(browser, demo[0] / "report.html", theme="dark") as visit:
        dark = visit.page.evaluate(shown)
        visit.page.click("#theme")
        light = visit.page.evaluate(shown)
        assert light[0] == "rgb(255, 255, 255)" and all(a != b for a, b in zip(light, dark, strict=True))
        visit.page.click("#theme")
        assert visit.page.evaluate(shown) == dark


def test_page__a_slider_shows_the_tilts_and_the_slices(browser, demo):
    with Store.open(demo[0] / "run.zarr") as store:
        tilts = np.sort(store.read("tilt_series/aligned")["angles"].values[:, 1])
    with Visit(browser, demo[0] / "report.html") as visit:
        for strip in visit.page.locator(".strip").all():
            slider, image = strip.locator("input"), strip.locator("img")
            before = image.get_attribute("src")
            slider.focus()
            visit.page.keyboard.press("End")
            assert image.get_attribute("src") != before
        assert visit.page.locator("#tilts output").inner_text().startswith(f"θ = {tilts[-1]:.1f}°")
        assert visit.page.locator("#volume output").first.inner_text().startswith("z = ")


def test_page__atoms_are_picked_and_coloured_by_a_click(browser, many, many_page):
    _, atoms = many
    assert many_page.stat().st_size <= LARGEST
    with Visit(browser, many_page) as visit:
        page = visit.page
        assert "20,000 of 20,500 atoms" in page.inner_text("#view")
        index = page.evaluate(NEAREST)
        as_type = visit.click_atom(index)
        number = int(page.get_attribute(".atoms3d", "data-picked"))
        said = dict(zip(page.locator(".picked dt").all_inner_texts(), page.locator(".picked dd").all_inner_texts(),
                        strict=True))  # fmt: skip
        one = atoms.sel(atom=number)
        for axis, value in zip("xyz", one["position"].values, strict=True):
            assert said[axis] == f"{value:.2f} Å"
        assert said["type"] == f"type {int(one['type'])}"
        assert float(said["sigma z"].split()[0]) == pytest.approx(100 * float(one["position_sigma"][2]), rel=0.01)
        assert as_type[2] > as_type[0] if int(one["type"]) == 1 else as_type[0] > as_type[2]  # blue, orange
        looks = [as_type]
        for mode, words in (("order", "perfect fcc"), ("sigma", "pm"), ("mro", "fcc: "), ("type", "type 1: ")):
            page.click(f".modes button[data-mode={mode}]")
            assert words in page.inner_text(".legend")
            assert page.get_attribute(f".modes button[data-mode={mode}]", "aria-pressed") == "true"
            assert page.locator(".modes button[aria-pressed=true]").count() == 1
            looks.append(page.evaluate(LOOK, index)["colour"])
        assert looks[-1] == looks[0] and len({tuple(look) for look in looks}) == 4
        page.fill(".picked input", "41")
        page.keyboard.press("Enter")
        assert page.get_attribute(".atoms3d", "data-picked") == "41"


def test_page__turns_and_comes_nearer(browser, many_page):
    zoom = "document.querySelector('.atoms3d').view.zoom()"
    with Visit(browser, many_page) as visit:
        page = visit.page
        index = page.evaluate(NEAREST)
        before, far = page.evaluate(LOOK, index), page.evaluate(zoom)
        box = page.locator(".plot").bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 200)
        page.mouse.down()
        page.mouse.move(box["x"] + 380, box["y"] + 200)
        page.mouse.up()
        turned = page.evaluate(LOOK, index)
        assert abs(turned["x"] - before["x"]) > 5
        assert page.get_attribute(".atoms3d", "data-picked") == ""  # to drag is not to pick
        page.click(".nearer")
        assert page.evaluate(zoom) == pytest.approx(1.25 * far)
        page.click(".reset")
        assert page.evaluate(LOOK, index)["x"] == before["x"] and page.evaluate(zoom) == far


def test_page__without_webgl_says_so(browser, many_page):
    none = """const get = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
          return kind.startsWith("webgl") ? null : get.call(this, kind, ...rest);
        };"""
    with Visit(browser, many_page, before=none) as visit:
        assert "needs WebGL" in visit.page.inner_text(".plot")
        assert visit.page.get_attribute(".atoms3d", "data-state") == "failed"
