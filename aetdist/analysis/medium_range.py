"""Medium-range order among the analyses of a model: clusters, what they measure, and what chance would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..errors import InputError
from .mro import centre_distances, find_mro, mro_significance, mro_sizes, shared_atoms, solute_centers
from .peaks import extrema
from .sample import Sample
from .voronoi import voronoi_statistics

Found = Mapping[str, xr.Dataset]
Settings = Mapping[str, Any]


def solute_clusters(sample: Sample, found: Found, settings: Settings) -> xr.Dataset | None:
    """Solute centres, the commonest Voronoi indices of theirs, and how many atoms neighbouring clusters share."""
    if settings["solute"] is None:
        return None
    keywords = {"solute": settings["solute"], "order": found["bond_order"]["order"].values}
    distance = _second_shell(found)
    centres = solute_centers(sample.own, distance=distance, **keywords)
    inside, cells = centres["solute_center"].values, found["voronoi"]
    shared = shared_atoms(inside, _faces(cells), sample.own, distance=distance)
    commonest = voronoi_statistics(cells, inside)
    return commonest.merge(centres, combine_attrs="drop").assign(
        n_pairs=("shared", shared, {"units": "1", "long_name": "pairs of clusters that share so many atoms"}),
        shared=np.arange(1, len(shared) + 1),
    ).assign_attrs(centres.attrs, distance=list(distance))  # fmt: skip


def solute_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    """Number of solute centres, and their part of all solute atoms in %: rows of the summary of `analyze`."""
    return {
        "solute centres": float(found["solute_center"].sum()),
        "solute centres (% of the solute)": 100.0 * float(found.attrs["fraction"]),
    }


def medium_range_order(sample: Sample, found: Found, settings: Settings) -> xr.Dataset:
    """Clusters of solute centres on lattices (`find_mro`), by the convention that `settings` names."""
    return find_mro(sample.own, convention=settings["convention"], **_options(found, settings))


def medium_range_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    """How many clusters there are on each lattice, and the largest."""
    kinds = found["mro_type"].values.astype(str)
    figures = {f"medium-range order, {kind} clusters": float((kinds == kind).sum()) for kind in np.unique(kinds)}
    return figures | {"largest cluster (centres)": float(max(found["size"].values, default=0))}


def mro_measures(sample: Sample, found: Found, settings: Settings) -> xr.Dataset | None:
    """Lengths and volumes of the clusters, and the distances of their centres."""
    clusters, cells = found["medium_range_order"], found["voronoi"]
    if not clusters.sizes["mro"]:
        return None
    sizes = mro_sizes(clusters, sample.own, _faces(cells), cells["volume"].values)
    return sizes.assign(mro_type_of=clusters["mro_type"]).merge(centre_distances(clusters, sample.own))


def measures_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    """Means over the clusters on each lattice."""
    figures, kinds = {}, found["mro_type_of"].values
    for kind in found["mro_type"].values.tolist():
        figures[f"mean length of {kind} clusters (Å)"] = float(found["length"].values[kinds == kind].mean())
        figures[f"mean volume of {kind} clusters (Å³)"] = float(found["volume"].values[kinds == kind].mean())
    return figures


def chance(sample: Sample, found: Found, settings: Settings) -> xr.Dataset | None:
    """What the same search gives where the types of the disordered atoms are drawn again at random."""
    if settings["surrogates"] == 0 or settings["convention"] is not None:
        return None
    return mro_significance(sample.own, samples=settings["surrogates"], **_options(found, settings))


def chance_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    """All clusters and the large ones, as many as chance gives, and how likely that is."""
    every = found.sel(mro_type="all")
    large = every.sel(size=slice(8, None))
    return {
        "medium-range order, clusters": float(every["total"]),
        "medium-range order, clusters by chance": float(every["surrogate_total"].mean()),
        "medium-range order, p of so many by chance": float(every["p_value"]),
        "medium-range order, clusters of 8 centres or more": float(large["count"].sum()),
        "medium-range order, of 8 or more by chance": float(large["expected"].sum()),
    }


def _options(found: Found, settings: Settings) -> dict[str, Any]:
    distance = tuple(found["solute_clusters"].attrs["distance"])
    return {"solute": settings["solute"], "order": found["bond_order"]["order"].values, "distance": distance}


def _second_shell(found: Found) -> tuple[float, float]:
    """Between the first and the second valley of g(r) of the disordered atoms, in Angstrom."""
    distribution = found["disordered_pair_distribution"]
    valleys = extrema(distribution["r"].values, distribution["g"].values)[1]
    if len(valleys) < 2:
        raise InputError(
            "g(r) of the disordered atoms has no two valleys, between which solute centres are neighbours."
        )
    return float(valleys[0]), float(valleys[1])


def _faces(cells: xr.Dataset) -> np.ndarray:
    """Pairs of atoms whose cells share a face."""
    return np.stack([cells["face_atom"].values, cells["face_neighbour"].values], axis=1)
