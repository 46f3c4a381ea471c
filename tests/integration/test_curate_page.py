"""The curation page in a real browser: keys, clicks, what is written, how it looks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from aetdist.curate import CurationServer
from aetdist.io import Record, Store
from aetdist.refine.edits import Edit, read_edits

pytestmark = [pytest.mark.integration]

PLACES = np.array([[0.0, 0, 0], [3.0, 0, 0], [0, 3.2, 0], [0, 0, 3.4]])
MISSING = (3.0, 3.2, 0.4)
NAMES = ["<b onclick=alert(1)>Co", "<img src=x onerror=document.title='x'>"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CurationServer]:
    """A particle of which one atom was not found."""
    axes = {axis: np.arange(-18, 19) * 0.4 for axis in "zyx"}
    grid = np.stack(np.meshgrid(*axes.values(), indexing="ij"), axis=-1)[..., ::-1]
    places, heights = np.vstack([PLACES, [MISSING]]), (1, 2, 1, 2, 2)
    density = sum(h * np.exp(-np.square(grid - p).sum(-1) / 0.98) for p, h in zip(places, heights, strict=True))
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), PLACES),
            "type": ("atom", np.array([1, 2, 1, 2])),
            "species": ("atom", np.array(NAMES * 2)),
            "intensity": ("atom", np.array([1.0, 2, 1, 2])),
            "b_factor": ("atom", np.full(4, 8 * np.pi**2 * 0.49)),
            "probability": ("atom", np.array([0.9, 0.5, 0.7, 1.0])),
            "position_sigma": (("atom", "axis"), np.full((4, 3), 0.2)),
        },
        {"atom": np.arange(4), "axis": list("xyz")},
    )
    with Store.create(tmp_path / "run.zarr") as store:
        store.write("volume", xr.Dataset({"density": (tuple("zyx"), density)}, axes), record=Record("reconstruct"))
        store.write("atoms", atoms, record=Record("trace"))
    with CurationServer(tmp_path / "run.zarr") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Page:
    """The page of a server, and what its console said."""

    def __init__(self, browser: Any, server: CurationServer, width: int = 1400, theme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(server.url)
        self.steps = 0
        self.settle()

    def settle(self) -> None:
        """Wait until the page has done what it was asked."""
        self.steps += 1
        self.page.wait_for_selector(f'body[data-ready="{self.steps}"]')

    def press(self, key: str) -> str:
        self.page.keyboard.press(key)
        self.settle()
        return self.page.inner_text("#message")

    def click(self, canvas: str, across: float, up: float) -> str:
        """Click at parts of a slice from its lower left corner."""
        box = self.page.locator(f"#{canvas}").bounding_box()
        x, y = box["x"] + 36 + across * (box["width"] - 40), box["y"] + 4 + (1 - up) * (box["height"] - 38)
        self.page.mouse.click(x, y)
        return self.page.inner_text("#message")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)


def test_page__keys_decide_and_are_written_at_once(browser: Any, server: CurationServer) -> None:
    page = Page(browser, server)
    table = server.decisions.path
    assert page.text("#atom").startswith("Atom 1 (1 of 4")
    assert page.press("a") == "Atom 1 accepted."
    assert page.text("#atom").startswith("Atom 2 (2 of 4")
    assert page.press("d") == "Atom 2 deleted."
    assert read_edits(table) == (Edit("delete", (0.0, 3.2, 0.0)),)
    assert page.press("2").startswith("Atom 0 is of type 2")
    assert page.text("#progress-text") == "3 of 4 atoms looked at: 1 accepted, 1 deleted, 1 retyped"
    page.press("ArrowLeft")
    assert "retype to 2" in page.text("#facts")
    assert page.press("u") == "Taken back."
    assert page.text("#atom").startswith("Atom 0 (3 of 4")
    page.page.select_option("#add-type", "2")
    page.page.focus("#title")
    page.page.locator("#add-type").blur()
    assert page.press("n").startswith("Added an atom of type 2")
    _, added = read_edits(table)
    assert (added.action, added.type) == ("add", 2)
    np.testing.assert_allclose(added.position, MISSING, atol=0.21)
    page.click("density-z", 0.5, 0.5)  # on the atom itself
    assert "where an atom is" in page.press("n")
    assert len(read_edits(table)) == 2
    assert page.text("#title") == "run.zarr: atoms"
    assert NAMES[1] in page.text("#types")  # as text
    assert page.page.locator("#types img, #facts img").count() == 0
    assert [text for text in page.said if "422" not in text] == []
    again = Page(browser, server)
    assert again.text("#progress-text").startswith("2 of 4 atoms looked at")


def test_page__a_click_moves_the_cross(browser: Any, server: CurationServer) -> None:
    page = Page(browser, server)
    moved = page.click("density-z", 0.5, 0.75)
    x, y, z = (float(word) for word in moved.removeprefix("The cross is at ").removesuffix(" Å.").split(", "))
    np.testing.assert_allclose((x, y, z), (2.8, 3.1, 0.0), atol=0.35)
    page.press("n")
    (added,) = read_edits(server.decisions.path)
    np.testing.assert_allclose(added.position, (x, y, z), atol=0.006)


def test_page__says_when_the_server_is_gone(browser: Any, server: CurationServer) -> None:
    page = Page(browser, server)
    page.page.route("**/decide", lambda route: route.abort())
    assert page.press("a") == "aetdist curate does not answer; is it still running?"


def test_page__no_other_site_can_decide(browser: Any, server: CurationServer) -> None:
    page = browser.new_page()
    page.set_content("<p>another site</p>")
    send = """address => fetch(address + 'decide', {method: 'POST', mode: 'no-cors',
        body: JSON.stringify({action: 'delete', number: 1})}).then(() => 'sent', () => 'refused')"""
    page.evaluate(send, server.url)
    assert not server.decisions.path.exists()
    framed = browser.new_page()
    framed.set_content(f'<iframe src="{server.url}"></iframe>')
    framed.wait_for_timeout(200)
    assert all(frame.locator("#atom").count() == 0 for frame in framed.frames)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_page__nothing_overlaps_or_is_cut(browser: Any, server: CurationServer, width: int, theme: str) -> None:
    page = Page(browser, server, width, theme)
    wide = page.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    boxes = page.page.evaluate(
        "[...document.querySelectorAll('h1, h2, progress, #progress-text, canvas, figcaption, dt, dd, button, select,"
        " p')].filter(e => e.textContent || e.tagName === 'CANVAS').map(e => { const b = e.getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom, e.scrollWidth - e.clientWidth, e.tagName] })"
    )
    assert len(boxes) > 25
    for left, _, right, _, hidden, name in boxes:
        assert 0 <= left <= right <= width, name
        assert hidden <= 1, name
    for a, b in itertools.combinations(boxes, 2):
        apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
        assert apart, (a, b)
    paper = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if theme == "light" else "rgb(22, 24, 28)")
    drawn = page.page.evaluate(
        "[...document.querySelectorAll('canvas')].map(c => new Set(c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data).size)"
    )
    assert len(drawn) == 6 and min(drawn) > 20
    assert page.said == []
