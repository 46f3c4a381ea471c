"""What a report costs: bytes of the page, seconds until it is open, seconds in which its atoms are drawn anew.

    python tests/benchmarks/bench_report.py [run.zarr ...] [--atoms 20000]

prints JSON. Without stores a particle of so many atoms is made up, with a tilt series and a volume of 320 voxels along
each axis. Needs Debian's chromium; WebGL is drawn by the processor there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from playwright.sync_api import sync_playwright

from aetdist import write_report
from aetdist.analysis.catalogue import analyze_atoms
from aetdist.geometry import centred_coordinates
from aetdist.io import Record, Store
from aetdist.project.atoms import render_atoms
from aetdist.schema import ATOMS, VOLUME, with_units
from aetdist.simulate import nanoparticle, simulate_tilt_series

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import CHROMIUM

REDRAW = """() => [...document.querySelectorAll(".modes button")].flatMap((button) => [1, 2, 3].map(() => {
  const { view } = document.querySelector(".atoms3d");
  const { gl } = view.spheres;
  const begin = performance.now();
  button.click();
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));  // waits until all is drawn
  return [button.dataset.mode, (performance.now() - begin) / 1000];
}))"""


def make_particle(path: Path, n_atoms: int, *, size: int = 320, pixel_size: float = 0.35, n_tilts: int = 55) -> None:
    """Write a store with a particle, its tilt series and its volume."""
    diameter = (6 * 15.5 * n_atoms / np.pi) ** (1 / 3)  # 15.5 cubic Angstrom of an atom: scaled to the number below
    atoms = nanoparticle(diameter, species=("Co", "Pd", "Pt"), seed=1)
    diameter *= (n_atoms / atoms.sizes["atom"]) ** (1 / 3)
    atoms = nanoparticle(diameter, species=("Co", "Pd", "Pt"), seed=1)
    rng = np.random.default_rng(0)
    sigma = rng.gamma(30.0, 0.0025, (atoms.sizes["atom"], 3))
    atoms = with_units(atoms.assign(position_sigma=(("atom", "axis"), sigma)), ATOMS)
    heights = atoms["type"].values.astype(float)
    angles = np.linspace(-70.0, 70.0, n_tilts)
    series = simulate_tilt_series(
        atoms[["position", "type"]], angles, pixel_size=pixel_size, field=(size, size), heights=[1, 2, 3], dose=2e4
    ).compute()
    axis = centred_coordinates(size, pixel_size)
    density = render_atoms(
        atoms["position"].values, heights=heights, x=axis, y=axis, z=axis, pixel_size=pixel_size
    ).astype(np.float32)
    volume = xr.Dataset(
        {
            "density": (("z", "y", "x"), density + rng.normal(0.0, 0.05, density.shape).astype(np.float32)),
            "r_factor": (("iteration", "tilt"), 0.1 + 0.4 * np.exp(-np.arange(200)[:, None] / 40 * np.ones(n_tilts))),
        },
        {"x": axis, "y": axis, "z": axis},
    )
    with Store.create(path) as store:
        store.write("tilt_series/aligned", series, record=Record("import"))
        store.write("volume", with_units(volume, VOLUME), record=Record("reconstruct"))
        store.write("atoms", atoms, record=Record("trace"))
        for name, found in analyze_atoms(atoms, draws=0).items():
            store.write(f"analysis/{name}", found, record=Record("analyze"))


def measure(store: Path, folder: Path) -> dict[str, Any]:
    """Write the report of a store, open it thrice, and draw its atoms in every colour."""
    begin, cpu = time.perf_counter(), time.process_time()
    page = write_report(store, folder / f"{store.stem}.html")
    figures: dict[str, Any] = {
        "bytes": page.stat().st_size,
        "seconds_to_write": time.perf_counter() - begin,
        "cpu_seconds_to_write": time.process_time() - cpu,
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        opened, drawn = [], []
        for _ in range(3):
            tab = browser.new_page(viewport={"width": 1400, "height": 900})
            begin = time.perf_counter()
            tab.goto(page.absolute().as_uri())
            tab.wait_for_function("document.querySelector('.atoms3d')?.dataset.state !== 'waiting'")
            opened.append(time.perf_counter() - begin)
            drawn = tab.evaluate(REDRAW) if tab.query_selector(".atoms3d") else []
            figures["atoms"] = tab.evaluate("document.querySelector('.atoms3d')?.view.model.x.length ?? 0")
            tab.close()
        browser.close()
    figures["seconds_to_open"] = statistics.median(opened)
    for mode in dict.fromkeys(mode for mode, _ in drawn):
        figures[f"seconds_to_redraw_{mode}"] = statistics.median(s for name, s in drawn if name == mode)
    return figures


def main() -> None:
    """Measure the stores that are named, or a particle that is made up."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stores", nargs="*", type=Path)
    parser.add_argument("--atoms", type=int, default=20000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = arguments.stores
        if not stores:
            stores = [Path(folder) / "particle.zarr"]
            make_particle(stores[0], arguments.atoms)
        print(json.dumps({store.stem: measure(store, Path(folder)) for store in stores}, indent=2))


if __name__ == "__main__":
    main()
