"""The numbers of Yang et al. 2021 on their particle 1, and the same of analyses of ours.

References
----------
Y. Yang et al., "Determining the three-dimensional atomic structure of an amorphous solid", Nature 592, 60-64 (2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from .peaks import extrema, peaks_of

CUTOFF = 3.688
"""Angstrom, of the bond order: an input, the paper's first valley of g(r) of all atoms."""
SOLUTE = 3
"""Type of the solute."""
LATTICES = ("fcc", "hcp", "bcc", "sc")
_TEXT, _METHODS = "text", "Methods"

#: What the paper says: value, unit, where, by the name of the quantity.
PUBLISHED: dict[str, tuple[float, str, str]] = {
    "atoms": (18356, "", _TEXT),
    "atoms of type 1": (8322, "", _TEXT),
    "atoms of type 2": (6896, "", _TEXT),
    "atoms of type 3": (3138, "", _TEXT),
    "ordered atoms": (15.46, "%", _TEXT),
    "g(r): first peak": (2.73, "Å", "Fig. 1g"),
    "g(r): first minimum": (3.86, "Å", "Fig. 1g"),
    "g(r): second peak, first part": (4.76, "Å", "Fig. 1g"),
    "g(r): second peak, second part": (5.42, "Å", "Fig. 1g"),
    "g(r): second minimum": (6.08, "Å", "Fig. 1g"),
    "g(r): fourth peak": (7.22, "Å", "Fig. 1g"),
    "g(r): fifth peak": (9.57, "Å", "Fig. 1g"),
    **{
        f"partial g(r), {pair}: first peak": (value, "Å", "Fig. 1h")
        for pair, value in {"1-1": 2.59, "1-2": 2.71, "1-3": 2.78, "2-2": 2.72, "2-3": 2.75, "3-3": 2.90}.items()
    },
    "width of the interface": (3.69, "Å", _METHODS),
    "Voronoi index <0,4,4,3>": (5.02, "%", "Fig. 2"),
    **{
        f"{edges}-edged faces": (value, "%", "Fig. 2")
        for edges, value in {3: 3.27, 4: 29.14, 5: 43.91, 6: 23.67}.items()
    },
    "distorted icosahedra": (7.03, "%", _TEXT),
    **{f"central atoms of type {t}": (v, "%", "Fig. 2") for t, v in {1: 42.97, 2: 38.28, 3: 18.75}.items()},
    **{f"coordination of type {t}": (v, "", "Fig. 2") for t, v in {1: 11.97, 2: 12.02, 3: 12.41}.items()},
    **{
        f"Warren-Cowley {t}-{u}": (value, "", "Fig. 2")
        for t, row in enumerate(((-0.11, 0.10, 0.05), (0.02, 0.01, -0.07), (0.03, -0.06, 0.06)), 1)
        for u, value in enumerate(row, 1)
    },
    "solute centres": (2682, "", _TEXT),
    "solute centres, of the solute": (85.47, "%", _TEXT),
    **{
        f"pairs of clusters that share {n}": (value, "", "Fig. 3f")
        for n, value in enumerate((1406, 2426, 2234, 855, 421), 1)
    },
    **{f"{k} clusters": (v, "", "Fig. 3g") for k, v in zip(LATTICES, (85, 71, 31, 17), strict=True)},
    **{
        f"length of {k} clusters": (v, "nm", "Extended Data Fig. 7")
        for k, v in zip(LATTICES, (2.27, 2.40, 2.07, 2.11), strict=True)
    },
    **{
        f"volume of {k} clusters": (v, "nm³", "Extended Data Fig. 7")
        for k, v in zip(LATTICES, (1.80, 1.96, 1.63, 1.96), strict=True)
    },
    **{f"distance of {k} centres": (v, "Å", _TEXT) for k, v in zip(LATTICES, (4.62, 4.77, 4.82, 3.88), strict=True)},
    "rms deviation in the simulated experiment": (21, "pm", _METHODS),
    "R-factor, measured against simulated": (14.96, "%", _METHODS),
}


@dataclass(frozen=True)
class Row:
    """A number of the paper and ours, NaN where we have none."""

    quantity: str
    unit: str
    paper: float
    ours: float
    where: str

    @property
    def difference(self) -> float:
        """Ours without the paper's."""
        return self.ours - self.paper


def compare_published(
    atoms: xr.Dataset, found: Mapping[str, xr.Dataset], validation: xr.Dataset | None = None
) -> list[Row]:
    """Our numbers beside those of the paper, in its order.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS with types: the particle 1 of the paper, or a model of it.
    found : mapping of str to xarray.Dataset
        What `aetdist.analysis.catalogue.analyze_atoms` gave for them, or part of it.
    validation : xarray.Dataset, optional
        VALIDATION of the run that they come from.

    Returns
    -------
    list of Row
        One for each of `PUBLISHED`; lengths in the unit that it names.
    """
    ours = dict(_ours(atoms, found, validation))
    return [
        Row(name, unit, float(paper), float(ours.get(name, np.nan)), where)
        for name, (paper, unit, where) in PUBLISHED.items()
    ]


def _ours(
    atoms: xr.Dataset, found: Mapping[str, xr.Dataset], validation: xr.Dataset | None
) -> Iterator[tuple[str, float]]:
    """The quantities that there are."""
    yield "atoms", atoms.sizes["atom"]
    if "type" in atoms:
        yield from ((f"atoms of type {t}", int((atoms["type"] == t).sum())) for t in (1, 2, 3))
    if "bond_order" in found:
        yield "ordered atoms", 100.0 * float(found["bond_order"].attrs["ordered_fraction"])
    if "disordered_pair_distribution" in found:
        yield from lengths_of(found["disordered_pair_distribution"]).items()
    if "interface" in found:
        yield "width of the interface", float(found["interface"]["width"])
    if "voronoi_statistics" in found:
        statistics = found["voronoi_statistics"]
        which = (statistics["top_index"].values == (0, 4, 4, 3)).all(axis=1)
        yield "Voronoi index <0,4,4,3>", 100.0 * float(statistics["top_fraction"].values[which].sum())
        yield from ((f"{e}-edged faces", 100.0 * float(statistics["face_fraction"].sel(edges=e))) for e in (3, 4, 5, 6))
        yield "distorted icosahedra", 100.0 * float(statistics["icosahedra"])
    if "coordination" in found:
        yield from _chemistry(found["coordination"])
    yield from _clusters(found)
    if validation is not None:
        yield (
            "rms deviation in the simulated experiment",
            100.0 * float(validation["deviation_rms"].sel(component="distance")),
        )
        if "r_factor" in validation:
            yield "R-factor, measured against simulated", 100.0 * float(validation["r_factor"].mean())


def lengths_of(distribution: xr.Dataset) -> dict[str, float]:
    """Peaks and minima of a pair distribution by the names of `PUBLISHED`, in Angstrom.

    Parameters
    ----------
    distribution : xarray.Dataset
        From `aetdist.analysis.pair_distribution.pair_distribution`, of the disordered atoms.

    Returns
    -------
    dict
        Those that there are. The two parts of the second peak count as the second and the third.
    """
    peaks = peaks_of(distribution)
    maxima, _ = extrema(distribution["r"].values, distribution["g"].values)
    names = {"peak_1": "first peak", "valley_1": "first minimum", "valley_2": "second minimum"}
    names |= {"split_1": "second peak, first part", "split_2": "second peak, second part"}
    lengths = {f"g(r): {name}": peaks[key] for key, name in names.items() if key in peaks}
    lengths |= {f"g(r): {name}": float(x) for name, x in zip(("fourth peak", "fifth peak"), maxima[2:4], strict=False)}
    for key, value in peaks.items():
        if key.startswith("peak_1 "):
            lengths[f"partial g(r), {key.removeprefix('peak_1 ')}: first peak"] = value
    return lengths


def _chemistry(coordination: xr.Dataset) -> Iterator[tuple[str, float]]:
    for t in coordination["type"].values.tolist():
        yield f"central atoms of type {t}", 100.0 * float(coordination["fraction"].sel(type=t))
        yield f"coordination of type {t}", float(coordination["mean_coordination"].sel(type=t))
        if "alpha" in coordination:
            for u in coordination["neighbour_type"].values.tolist():
                yield f"Warren-Cowley {t}-{u}", float(coordination["alpha"].sel(type=t, neighbour_type=u))


def _clusters(found: Mapping[str, xr.Dataset]) -> Iterator[tuple[str, float]]:
    if "solute_clusters" in found:
        solutes = found["solute_clusters"]
        yield "solute centres", int(solutes["solute_center"].sum())
        yield "solute centres, of the solute", 100.0 * float(solutes.attrs["fraction"])
        for n in solutes["shared"].values.tolist():
            yield f"pairs of clusters that share {n}", int(solutes["n_pairs"].sel(shared=n))
    if "medium_range_order" in found:
        kinds = found["medium_range_order"]["mro_type"].values
        yield from ((f"{kind} clusters", int(np.count_nonzero(kinds == kind))) for kind in LATTICES)
    if "mro_measures" in found:
        measures = found["mro_measures"]
        kinds = measures["mro_type_of"].values
        for kind in measures["mro_type"].values.tolist():
            yield f"length of {kind} clusters", 0.1 * float(measures["length"].values[kinds == kind].mean())
            yield f"volume of {kind} clusters", 1e-3 * float(measures["volume"].values[kinds == kind].mean())
            yield f"distance of {kind} centres", float(measures["first_peak"].sel(mro_type=kind))
