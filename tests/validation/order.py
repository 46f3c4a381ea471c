"""The order of the published metallic glass nanoparticle: paper, published files, and ours; prints a table.

    AETDIST_DATA=... python tests/validation/order.py

Each row has the value in the paper, that of the files published with it, ours by the published definitions
(convention="yang2021"), and ours by the correct ones; the gate says how far ours may be from the reference (paper, or
file where that is exact), "-" that nothing is asked for. Ends with 1 where a gate fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter1d

import aetdist as aet
from aetdist.analysis.peaks import extrema
from aetdist.analysis.yang2021 import CUTOFF, PUBLISHED, lengths_of

NAN = float("nan")
TOP = {
    (0, 4, 4, 3): 4.77, (0, 3, 6, 3): 4.75, (0, 4, 4, 2): 3.73, (0, 3, 6, 2): 3.53, (0, 4, 4, 4): 3.37,
    (0, 3, 6, 4): 3.02, (0, 2, 8, 1): 2.91, (0, 2, 8, 2): 2.89, (0, 3, 6, 1): 1.84, (0, 4, 5, 3): 1.70,
}  # fmt: skip
"""Percent of the disordered atoms with an index, by the correct definition, of independent code."""
HEAVY = {"3-3, second peak": 4.77, "3-3, second over first peak": 1.49}  # of the partial g(r), Angstrom and ratio
PAPER = {name: value for name, (value, *_) in PUBLISHED.items()}


@dataclass(frozen=True)
class Row:
    """One figure: what others say, what we say, and how far from `asked` ours may be."""

    name: str
    paper: float = NAN
    file: float = NAN
    yang2021: float = NAN
    correct: float = NAN
    gate: float = NAN
    asked: float = NAN  # what the gate is about; the paper by default
    least: bool = False  # ours shall be `asked` at least
    only: str = ""  # the one of ours that the gate is about; both by default

    def passes(self) -> bool:
        """Whether every one of ours is within the gate; True where there is none."""
        if np.isnan(self.gate):
            return True
        reference = self.paper if np.isnan(self.asked) else self.asked
        both = {"yang2021": self.yang2021, "correct": self.correct}
        ours = [value for name, value in both.items() if self.only in ("", name) and not np.isnan(value)]
        if self.least:
            return bool(ours) and all(value >= reference - self.gate for value in ours)
        return bool(ours) and all(abs(value - reference) <= self.gate * (1 + 1e-9) for value in ours)


class Particle:
    """The published model and what its authors found of it."""

    def __init__(self, folder: Path) -> None:
        with h5py.File(folder / "metallic_glass_nanoparticle.h5") as file:
            self.positions = file["positions_angstrom"][:].astype(np.float64)
            self.types = file["types"][:].astype(np.int64)
            self.boo = {name: file["boo"][name][:] for name in ("Q4", "Q6", "scaled_order")}
            self.rdf = {name: {key: file[name][key][:] for key in file[name]} for name in ("rdf_all", "rdf_amorphous")}
            self.faces = file["voronoi/faces_by_edges"][:].astype(np.int64)
        self.disordered = self.boo["scaled_order"] < 0.5


def rows(particle: Particle) -> Iterator[Row]:
    """All figures, in the order of the paper's methods."""
    yield from pair_rows(particle)
    order = aet.bond_order(particle.positions, CUTOFF)
    yield from bond_rows(particle, order)
    yield from voronoi_rows(particle)


def pair_rows(particle: Particle) -> Iterator[Row]:
    """Pair counts, shell volumes, and the lengths of g(r)."""
    disordered: dict[str, xr.Dataset] = {}
    for name, which, step in (
        ("rdf_all", np.ones_like(particle.disordered), 0.1), ("rdf_amorphous", particle.disordered, 0.05),
    ):  # fmt: skip
        published, label = particle.rdf[name], name.removeprefix("rdf_").replace("amorphous", "disordered")
        arguments = particle.positions[which], particle.types[which]
        ours = aet.pair_distribution(*arguments, step=step, convention="yang2021")
        disordered = {"yang2021": ours, "correct": aet.pair_distribution(*arguments, step=step)}
        counts = published["pair_counts"].ravel().astype(np.int64)
        n = int(which.sum())
        total = int(counts.sum())
        paper = {"all": 22_053_934, "disordered": 16_545_128}[label]
        yield Row(f"{label}: pairs", paper, total, int(ours["pairs"].sum()) + n, gate=0.0)
        counts[0] = 0
        off = int(np.abs(ours["pairs"].values - counts).sum())
        yield Row(f"{label}: pairs in another bin", NAN, 0, off, gate=0.0, asked=0.0)
        partial = published["partial_pair_counts"].astype(np.int64)
        off = 0
        for pair in ours["pair"].values:
            a, b = (int(number) - 1 for number in pair.split("-"))
            expected = partial[:, a, b] + (partial[:, b, a] if a != b else 0)
            off += int(np.abs(ours["partial_pairs"].sel(pair=pair).values - expected)[1:].sum())
        yield Row(f"{label}: partial pairs in another bin", NAN, 0, off, gate=0.0, asked=0.0)
        shells = published["shell_volume_angstrom3"].ravel()
        ratio = (ours["shell_volume"].values / shells)[round(1 / step) : round(20 / step)]
        ratio /= ratio.mean()
        yield Row(f"{label}: shell volumes, rms off (%)", NAN, 0, 100 * ratio.std(), gate=0.06, asked=0.0)
        yield Row(f"{label}: shell volumes, most off (%)", NAN, 0, 100 * abs(ratio - 1).max(), gate=0.4, asked=0.0)
        volume = {"all": 359_801, "disordered": 320_533}[label]
        yield Row(
            f"{label}: alpha shape (Å³)", NAN, volume, *(float(d["volume"]) for d in disordered.values()), 1, volume
        )
    lengths = {convention: _lengths(found) for convention, found in disordered.items()}
    gates = {name: 0.04 if "minimum" in name else 0.03 for name in lengths["correct"] if name in PAPER}
    gates |= {"g(r): second peak, second part": NAN, "3-3, second peak": 0.05, "3-3, second over first peak": 0.05}
    for name, gate in gates.items():
        paper = PAPER.get(name, HEAVY.get(name))
        yield Row(name, paper, NAN, lengths["yang2021"][name], lengths["correct"][name], gate)


def bond_rows(particle: Particle, order: xr.Dataset) -> Iterator[Row]:
    """Bond-orientational order; one definition."""
    for ours, name in (("q4", "Q4"), ("q6", "Q6"), ("order", "scaled_order")):
        off = float(np.abs(order[ours].values - particle.boo[name]).max())
        yield Row(f"{name}: largest difference", NAN, 0, NAN, off, 1e-12, 0.0)
    ordered = int((order["order"].values >= 0.5).sum())
    yield Row("atoms with an order of 0.5 or more", 2838, int((~particle.disordered).sum()), NAN, ordered, 0)
    width = aet.interface_width(particle.positions, order)["width"]
    paper = PAPER["width of the interface"]
    yield Row("width of the interface (Å), not fixed by the text", paper, NAN, NAN, float(width))
    yield Row("the same (%)", PAPER["ordered atoms"], NAN, NAN, 100 * ordered / len(particle.positions), 0.005)


def voronoi_rows(particle: Particle) -> Iterator[Row]:
    """Voronoi indices, coordination numbers and chemical order of the disordered atoms."""
    cells = {
        name: aet.voronoi_indices(particle.positions, convention=convention)
        for name, convention in (("yang2021", "yang2021"), ("correct", None))
    }
    same = {}
    for name, found in cells.items():
        index = np.maximum(found["voronoi_index"].values, 0)
        same[name] = 100 * float((index == particle.faces[:, 2:]).all(axis=1).mean())
    yield Row("Voronoi: rows as published (%)", NAN, 100, same["yang2021"], NAN, 0, 87.0, least=True)
    yield Row("the same, correct (%)", NAN, 100, NAN, same["correct"], 0.1, 75.0)
    known = cells["correct"]["n_faces"].values >= 0
    yield Row("unbounded cells", NAN, NAN, NAN, int(cells["correct"]["unbounded"].sum()), 0, 419)
    yield Row("disordered atoms with an index", 15_289, NAN, NAN, int((known & particle.disordered).sum()), 0, 15_305)
    counted = {name: aet.voronoi_statistics(found, particle.disordered, top=500) for name, found in cells.items()}
    published = particle.faces[particle.disordered & particle.faces.any(axis=1)][:, 2:]
    for index, share in TOP.items():
        ours = {name: _share(statistics, index) for name, statistics in counted.items()}
        file = 100 * float((published == index).all(axis=1).mean())
        name = f"<{','.join(map(str, index))}> (%)"
        yield Row(name, NAN, file, ours["yang2021"], ours["correct"], 0.011, share, only="correct")
    for edges, correct in {3: 3.59, 4: 29.15, 5: 43.35, 6: 23.91}.items():
        paper = PAPER[f"{edges}-edged faces"]
        ours = {name: 100 * float(s["face_fraction"].sel(edges=edges)) for name, s in counted.items()}
        file = 100 * published[:, edges - 3].sum() / published.sum()
        yield Row(
            f"{edges}-edged faces (%)", paper, file, ours["yang2021"], ours["correct"], 0.006, correct, only="correct"
        )
    ours = {name: 100 * float(s["icosahedra"]) for name, s in counted.items()}
    paper = PAPER["distorted icosahedra"]
    yield Row("distorted icosahedra (%)", paper, NAN, ours["yang2021"], ours["correct"], 0.006, 6.60, only="correct")
    keywords: dict[str, Any] = {"order": particle.boo["scaled_order"], "surface": 5.0, "cells": cells["correct"]}
    found = aet.coordination(particle.positions, particle.types, **keywords)
    yield Row("central atoms of the coordination", NAN, NAN, NAN, found.attrs["central"], 0, 14_190)
    for t in (1, 2, 3):
        fraction, mean = PAPER[f"central atoms of type {t}"], PAPER[f"coordination of type {t}"]
        yield Row(f"type {t} (%)", fraction, NAN, NAN, 100 * float(found["fraction"].sel(type=t)), 0.1)
        yield Row(f"coordination of type {t}", mean, NAN, NAN, float(found["mean_coordination"].sel(type=t)), 0.05)
    alpha = aet.warren_cowley(particle.positions, particle.types, **keywords)["alpha"].values
    for i in range(3):
        for j in range(3):
            name = f"Warren-Cowley {i + 1}-{j + 1}"
            yield Row(name, PAPER[name], NAN, NAN, float(alpha[i, j]), 0.01)


def table(found: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'':<44} {'paper':>12} {'file':>12} {'yang2021':>14} {'correct':>14} {'gate':>10}"]
    for row in found:
        values = [_text(value) for value in (row.paper, row.file, row.yang2021, row.correct)]
        gate = "-" if np.isnan(row.gate) else ("ok" if row.passes() else "FAILS")
        lines.append(f"{row.name:<44} {values[0]:>12} {values[1]:>12} {values[2]:>14} {values[3]:>14} {gate:>10}")
    return "\n".join(lines)


def _lengths(found: xr.Dataset) -> dict[str, float]:
    """The lengths that the paper gives, of the disordered atoms."""
    r, lengths = found["r"].values, lengths_of(found)
    heavy = found["partial_g"].sel(pair="3-3").values
    smooth = gaussian_filter1d(heavy, 2.0)
    between, below = (r > 4.2) & (r < 5.6), (r > 2.0) & (r < 3.3)
    peaks = extrema(r, heavy)[0]
    inside = peaks[(peaks > 4.2) & (peaks < 5.6)]
    lengths["3-3, second peak"] = float(inside[np.argmax(np.interp(inside, r, smooth))])
    lengths["3-3, second over first peak"] = float(smooth[between].max() / smooth[below].max())
    return lengths


def _share(statistics: xr.Dataset, index: tuple[int, ...]) -> float:
    """Percent of the counted atoms that have an index."""
    which = (statistics["top_index"].values == np.array(index)).all(axis=1)
    return 100 * float(statistics["top_fraction"].values[which].sum())


def _text(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def main() -> int:
    """Print the table; 1 where a gate fails."""
    folder = os.environ.get("AETDIST_DATA")
    if not folder:
        print("AETDIST_DATA is not set: it names the folder that holds the published data sets", file=sys.stderr)
        return 2
    found = list(rows(Particle(Path(folder))))
    print(table(found))
    return 0 if all(row.passes() for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
