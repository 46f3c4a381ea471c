"""Medium-range order of the published particle: the paper, the published file and ours, line by line.

Run: AETDIST_DATA=<folder> python tests/validation/mro.py [--tolerances 0.5 0.75 1.0] [--samples 20]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from aetdist.analysis.mro import (
    centre_distances,
    find_mro,
    mro_errors,
    mro_significance,
    mro_sizes,
    shared_atoms,
    solute_centers,
)
from aetdist.analysis.mro.clusters import Neighbours
from aetdist.analysis.mro.published import search_published, select_published
from aetdist.analysis.voronoi import voronoi_indices
from aetdist.analysis.yang2021 import PUBLISHED

TYPES = ("fcc", "hcp", "bcc", "sc")
NAMES = (None, "sc", "bcc", "fcc", "hcp")
PAPER_LENGTH, PAPER_VOLUME, PAPER_PEAK = (
    tuple(PUBLISHED[name.format(k)][0] for k in TYPES)
    for name in ("length of {} clusters", "volume of {} clusters", "distance of {} centres")
)
COUNTS = {0.5: (63, 79, 33, 28), 0.75: (85, 71, 31, 17), 1.0: (56, 69, 29, 16)}
Sets = set[tuple[str, frozenset[int]]]


def line(what: str, paper: Any, file: Any, ours: Any) -> None:
    print(f"{what:<46} {paper!s:<26} {file!s:<26} {ours}", flush=True)


def sets_of(mro: xr.Dataset) -> Sets:
    label = mro["mro_label"].values
    return {(k, frozenset(np.flatnonzero(label == i).tolist())) for i, k in enumerate(mro["mro_type"].values.tolist())}


def counts_of(mro: xr.Dataset) -> tuple[int, ...]:
    return tuple(int(np.count_nonzero(mro["mro_type"].values == k)) for k in TYPES)


def by_type(mro: xr.Dataset, values: xr.DataArray, factor: float) -> str:
    of_type = [factor * values.values[mro["mro_type"].values == k] for k in TYPES]
    return " ".join(f"{v.mean():.2f}±{v.std():.2f}" for v in of_type)


def published(file: h5py.File) -> xr.Dataset:
    """The published clusters of five centres or more, as find_mro gives them."""
    size, kind = file["mro/network_size"][:].astype(int), file["mro/network_type"][:]
    label = np.full(len(file["types"]), np.nan)
    for i, atoms in enumerate(np.split(file["mro/atom_index_0based"][:].astype(int), np.cumsum(size)[:-1])):
        if size[i] >= 5:
            label[atoms] = i
    kinds = np.array([NAMES[k] for k in kind[size >= 5]])
    return xr.Dataset({"mro_label": ("atom", label), "mro_type": ("mro", kinds), "size": ("mro", size[size >= 5])})


def moved(position: np.ndarray, types: np.ndarray, order: np.ndarray, seed: int) -> Sets:
    """Clusters of a turned and renumbered particle, mirrored too for seed 0, in the numbers that atoms had before."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn)) * (1 if seed else -1)
    numbers = random.permutation(len(types))
    after = find_mro((position @ turn.T)[numbers], types[numbers], order=order[numbers])
    return {(kind, frozenset(numbers[list(atoms)].tolist())) for kind, atoms in sets_of(after)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tolerances", type=float, nargs="*", default=[0.5, 0.75, 1.0], help="of the published search")
    parser.add_argument("--samples", type=int, default=20, help="surrogates, and draws from the errors of positions")
    given = parser.parse_args()
    with h5py.File(Path(os.environ["AETDIST_DATA"]) / "metallic_glass_nanoparticle.h5") as file:
        position, types = file["positions_angstrom"][:].astype(np.float64), file["types"][:].astype(np.int64)
        order, truth = file["boo/scaled_order"][:], published(file)
    known = {"order": order}
    centres = solute_centers(position, types, **known)
    cells = voronoi_indices(position)
    pairs = np.stack([cells["face_atom"].values, cells["face_neighbour"].values], axis=1)
    volumes = cells["volume"].values

    line("", "paper", "published file", "ours")
    inside = centres["solute_center"].values
    line("solute centres, % of the solute", "2682, 85.47", "", f"{inside.sum()}, {100 * centres.attrs['fraction']:.2f}")
    theirs = voronoi_indices(position, convention="yang2021")
    for name, faces in (("", cells), (", published cells", theirs)):
        around = np.stack([faces["face_atom"].values, faces["face_neighbour"].values], axis=1)
        shared = " ".join(map(str, shared_atoms(inside, around, position)))
        line(f"pairs of clusters sharing 1..5 atoms{name}", "1406 2426 2234 855 421", "", shared)
    total = centre_distances(truth, position)
    peaks = " ".join(f"{float(total['first_peak'].sel(mro_type=k)):.2f}" for k in TYPES)
    line("first peak of the centres (fcc hcp bcc sc)", PAPER_PEAK, peaks, "")
    sizes = mro_sizes(truth, position, pairs, volumes)
    line("length, nm", PAPER_LENGTH, "", f"of the published sets: {by_type(truth, sizes['length'], 0.1)}")
    line("volume, nm^3", PAPER_VOLUME, "", f"of the published sets: {by_type(truth, sizes['volume'], 1e-3)}")

    wanted = sets_of(truth)
    chosen = np.flatnonzero((types == 3) & (order < 0.5))
    points = position[chosen]
    neighbours = Neighbours.within(points, (3.858, 6.079))
    for tolerance in given.tolerances:
        start, cpu = time.perf_counter(), time.process_time()
        found = search_published(points, neighbours, ("sc", "bcc", "fcc", "hcp"), (3.858, 6.079), tolerance)
        spent = f"{time.perf_counter() - start:.0f} s, {time.process_time() - cpu:.0f} CPU-s"
        for convention in ("yang2021", "yang2021-corrected"):
            clusters = select_published(points, found, convention)
            large = [c for c in clusters if len(c) >= 5]
            counts = tuple(sum(c.lattice == k for c in large) for k in TYPES)
            same = len({(c.lattice, frozenset(chosen[c.members].tolist())) for c in large} & wanted)
            aim = COUNTS.get(tolerance, "") if convention == "yang2021" else "(86, 91, 24, 17)" * (tolerance == 0.75)
            line(f"{convention}, {tolerance} A: fcc hcp bcc sc", aim, counts_of(truth) if tolerance == 0.75 else "",
                 f"{counts}, {len(clusters)} networks, {same} identical; search {spent}")  # fmt: skip

    for tolerance in COUNTS:
        start, cpu = time.perf_counter(), time.process_time()
        mro = find_mro(position, types, tolerance=tolerance, **known)
        spent = f"{time.perf_counter() - start:.1f} s, {time.process_time() - cpu:.1f} CPU-s"
        line(f"default, {tolerance} A: fcc hcp bcc sc", COUNTS[tolerance], "",
             f"{counts_of(mro)}, {int(mro['size'].sum())} centres, {len(sets_of(mro) & wanted)} as published; "
             f"largest deviation {float(mro['deviation'].max()):.3f}; {spent}")  # fmt: skip
    mro = find_mro(position, types, **known)
    large = int((mro["size"] >= 8).sum())
    line("default: clusters, of 8 centres or more", "", "", f"{mro.sizes['mro']}, {large}")
    same = [moved(position, types, order, seed) == sets_of(mro) for seed in range(given.samples + 1)]
    line("default: turned and renumbered, one mirrored", "", "", f"{sum(same)} of {len(same)} identical")
    sizes = mro_sizes(mro, position, pairs, volumes)
    line("default: length, nm", PAPER_LENGTH, "", by_type(mro, sizes["length"], 0.1))
    line("default: volume, nm^3", PAPER_VOLUME, "", by_type(mro, sizes["volume"], 1e-3))
    for surrogate in ("labels", "packing"):
        chance = mro_significance(position, types, surrogate=surrogate, samples=given.samples, **known)
        for kind in (*TYPES, "all"):
            one = chance.sel(mro_type=kind)
            line(f"default against {surrogate}, {kind}", "", "",
                 f"{int(one['total'])} of {float(one['surrogate_total'].mean()):.1f} by chance, z "
                 f"{float(one['z_score']):+.1f}, p {float(one['p_value']):.3f}; of 8 centres or more "
                 f"{int(one['count'].sel(size=slice(8, None)).sum())} of "
                 f"{float(one['expected'].sel(size=slice(8, None)).sum()):.1f}")  # fmt: skip
    errors = mro_errors(position, types, sigma=0.1, samples=given.samples, **known)
    line("default, positions off by 0.1 A along each axis", "", "",
         " ".join(f"{k} {int(errors['count'].sel(mro_type=k))}±{float(errors['error'].sel(mro_type=k)):.1f}"
                  for k in TYPES) + f"; centres that stay {100 * float(errors['stay'].mean()):.0f} %")  # fmt: skip


if __name__ == "__main__":
    main()
