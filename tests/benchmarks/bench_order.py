"""CPU seconds and memory of the analyses of order, beside scipy and freud where installed; prints JSON.

    python tests/benchmarks/bench_order.py                          # a glass of 18,356 and 76,000 atoms
    python tests/benchmarks/bench_order.py 100000 1000000 --only pairs,pair_distribution,bond_order
    python tests/benchmarks/bench_order.py --workers 200000         # by one and by two worker processes

With AETDIST_DATA the glass is the middle of the published nanoparticle, repeated; else a random one. Each part runs in
a process of its own, on one thread with OMP_NUM_THREADS=1, after a small run that compiles; medians of three. Voronoi
cells are beside more peers in bench_voronoi.py.

    pairs              histogram of all pairs nearer than 20 Angstrom, by type
    pair_distribution  the same, with alpha shape and shell volumes
    surface            alpha shape and depth of all atoms
    bond_order         averaged Q4 and Q6 within 3.688 Angstrom
    voronoi            indices with recomputed cells
    analyze            all analyses that `aetdist analyze` does
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr

import aetdist as aet
from aetdist.analysis.catalogue import analyze_atoms
from aetdist.analysis.pair_counts import Bins, count_pairs

sys.path.insert(0, str(Path(__file__).parent))
from bench_voronoi import LARGEST_PEER, glass
from engine.measure import Memory, in_child, timed
from engine.parallel import workers_gain

CUTOFF, REACH, STEP = 3.688, 20.0, 0.1  # Angstrom


def model(n_atoms: int) -> xr.Dataset:
    """A glass of three types at random."""
    positions = glass(n_atoms)
    types = np.random.default_rng(1).integers(1, 4, len(positions))
    variables = {"position": (("atom", "axis"), positions), "type": ("atom", types)}
    return xr.Dataset(variables, {"atom": np.arange(len(positions)), "axis": list("xyz")})


def _pairs(atoms: xr.Dataset) -> None:
    count_pairs(atoms["position"].values, atoms["type"].values - 1, Bins(REACH, STEP))


def _scipy_pairs(atoms: xr.Dataset) -> None:
    from scipy.spatial import cKDTree

    tree = cKDTree(atoms["position"].values)
    tree.count_neighbors(tree, STEP * np.arange(1, round(REACH / STEP) + 1))


def _freud_box(atoms: xr.Dataset) -> Any:
    """A periodic box far larger than the sample, as freud needs one, and the positions around its middle."""
    import freud

    freud.parallel.set_num_threads(1)
    positions = atoms["position"].values
    edge = float(np.ptp(positions, axis=0).max()) + 3 * REACH
    return freud.box.Box.cube(edge), (positions - positions.mean(axis=0)).astype(np.float32)


def _freud_pairs(atoms: xr.Dataset) -> None:
    import freud

    freud.density.RDF(bins=round(REACH / STEP), r_max=REACH).compute(_freud_box(atoms))


def _freud_order(atoms: xr.Dataset) -> None:
    import freud

    for degree in (4, 6):
        order = freud.order.Steinhardt(degree, average=True)
        order.compute(_freud_box(atoms), neighbors={"r_max": CUTOFF})


PARTS: dict[str, Callable[[xr.Dataset], object]] = {
    "pairs": _pairs,
    "pair_distribution": aet.pair_distribution,
    "surface": aet.find_surface,
    "bond_order": lambda atoms: aet.bond_order(atoms, CUTOFF),
    "voronoi": aet.voronoi_indices,
    "analyze": lambda atoms: analyze_atoms(atoms, cutoff=CUTOFF),
}
PEERS: dict[str, dict[str, Callable[[xr.Dataset], object]]] = {
    "pairs": {"scipy": _scipy_pairs, "freud": _freud_pairs},
    "bond_order": {"freud": _freud_order},
}


def measure(part: str, n_atoms: int) -> dict[str, Any]:
    """Seconds and memory of a part, ours and others'."""
    with dask.config.set(num_workers=1):
        small, atoms = model(2_000), model(n_atoms)
        run = PARTS[part]
        run(small)
        memory = Memory()
        repeats = 3 if n_atoms <= LARGEST_PEER and part != "analyze" else 1
        figures: dict[str, Any] = {"atoms": atoms.sizes["atom"], **timed(lambda: run(atoms), repeats, warm=False)}
        figures |= memory.read()
        for name, peer in PEERS.get(part, {}).items() if n_atoms <= LARGEST_PEER else ():
            if importlib.util.find_spec(name):
                peer(small)
                figures[name] = timed(lambda peer=peer: peer(atoms), 1, warm=False)
    return figures


def make_part(part: str, n_atoms: int) -> Callable[[], object]:
    """A part with its model."""
    atoms = model(n_atoms)
    return lambda: PARTS[part](atoms)


def by_workers(part: str, n_atoms: int) -> dict[str, Any]:
    """What two worker processes gain over one, beside what two copies of the part gain; medians of five."""
    return {"atoms": n_atoms, **workers_gain(make_part, (part, n_atoms), 5)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atoms", type=int, nargs="*", default=[18_356, 76_000])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--workers", action="store_true", help="one and two worker processes instead")
    options = parser.parse_args()
    parts = options.only.split(",")
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        parser.error(f"{unknown[0]} is no part; there are {', '.join(PARTS)}")
    run = by_workers if options.workers else measure
    figures = {part: [in_child(run, part, n) for n in options.atoms] for part in parts}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
