"""All analyses of a model, in order: what each needs, computes, and sums up in figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..errors import AetdistWarning, InputError
from .bonds import ORDERED, bond_order
from .coordination import coordination, warren_cowley
from .interface import interface_width
from .medium_range import (
    chance,
    chance_figures,
    measures_figures,
    medium_range_figures,
    medium_range_order,
    mro_measures,
    solute_clusters,
    solute_figures,
)
from .nuclei import find_nuclei
from .pair_distribution import pair_distribution, structure_factor
from .peaks import first_valley, peaks_of
from .resampling import with_uncertainty
from .sample import Sample, sample_of
from .surface import find_surface
from .voronoi import voronoi_indices, voronoi_statistics

Found = Mapping[str, xr.Dataset]
Settings = Mapping[str, Any]
UNSURE = ("position_sigma", "type_probability", "probability")
"""What says how atoms may differ from what was found."""
_FEWEST = 500  # atoms of a phase: fewer have no pair distribution or interface to speak of


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Attributes
    ----------
    name : str
        Of its group, ``analysis/<name>``.
    compute : callable
        Called as ``compute(sample, found, settings)``; gives the Dataset of its group, or None where there is nothing.
    figures : callable
        Called as ``figures(dataset, settings)``; the numbers that it is summed up by, unit in the name.
    needs : tuple of str
        Analyses that come before and whose results `found` holds.
    keywords : tuple of str
        Keywords of `analyze_atoms` that it depends on.
    suits : callable
        Whether a sample can be analysed so.
    """

    name: str
    compute: Callable[[Sample, Found, Settings], xr.Dataset | None]
    figures: Callable[[xr.Dataset, Settings], dict[str, float]]
    needs: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    suits: Callable[[Sample], bool] = lambda sample: True


def analyze_atoms(
    atoms: xr.Dataset,
    *,
    convention: Literal["yang2021"] | None = None,
    cutoff: float | None = None,
    r_max: float = 20.0,
    step: float = 0.1,
    alpha_radius: float = 4.0,
    surface_radius: float = 5.0,
    periodic: bool | None = None,
    field: tuple[float, float, float, float] | None = None,
    solute: int | None = None,
    surrogates: int = 10,
    draws: int = 8,
    seed: int = 0,
) -> dict[str, xr.Dataset]:
    """Computes: all analyses of the order of a model.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS, with types or species where chemical order is asked for.
    convention : {"yang2021"}, optional
        Bins, normalisation and face areas of the published scripts of Yang et al. 2021, errors included. Default:
        the correct definitions.
    cutoff : float, optional
        Distance within which atoms are neighbours for the bond order, in Angstrom. Default: the first valley of g(r).
    r_max : float
        Largest distance of g(r) in Angstrom.
    step : float
        Width of the bins of g(r) in Angstrom; half of it for the disordered atoms alone.
    alpha_radius : float
        Radius of the alpha shape that g(r) is corrected with, in Angstrom.
    surface_radius : float
        Radius of the alpha shape that tells the surface atoms, in Angstrom.
    periodic : bool, optional
        Whether the cell of the model repeats. Default: as its file says.
    field : tuple of 4 float, optional
        x0, x1, y0, y1 in Angstrom: a film goes on beyond, its sides are no surface.
    solute : int, optional
        Type of the atoms that are held against lattices for medium-range order, neighbours of each other between the
        first and the second valley of the disordered g(r). Default: this is left out.
    surrogates : int
        Samples with the types of the disordered atoms drawn again at random, of which the numbers of clusters are held
        against chance (not for published conventions): 0, or 2 or more. Each takes as long as the search itself.
    draws : int
        Copies of the atoms, redrawn within their error bars and probabilities where they have such, that say how sure
        each figure is; 0: none.
    seed : int
        Of these copies.

    Returns
    -------
    dict of str to xarray.Dataset
        One for each analysis, by name; and ``summary``, the figures, see :func:`summary_of`.
    """
    settings = {
        "convention": convention, "cutoff": cutoff, "r_max": r_max, "step": step, "alpha_radius": alpha_radius,
        "surface_radius": surface_radius, "periodic": periodic, "field": field, "solute": solute,
        "surrogates": surrogates, "draws": draws, "seed": seed,
    }  # fmt: skip
    sample = sample_of(atoms, periodic=periodic, field=field)
    found: dict[str, xr.Dataset] = {}
    for analysis in analyses_of(sample, found):
        result = analysis.compute(sample, found, settings)
        if result is not None:
            found[analysis.name] = result
    return found | {"summary": summary_of(found, atoms, settings)}


def analyses_of(sample: Sample, found: Found) -> Iterator[Analysis]:
    """Those analyses that suit a sample, in order, as soon as what they need is found."""
    for analysis in ANALYSES:
        if analysis.suits(sample) and all(name in found for name in analysis.needs):
            yield analysis


def summary_of(found: Found, atoms: xr.Dataset, settings: Settings) -> xr.Dataset:
    """Computes: the figures of results, and how sure they are.

    Parameters
    ----------
    found : mapping of str to xarray.Dataset
        What the analyses gave.
    atoms : xarray.Dataset
        ATOMS; with position_sigma, type_probability or probability each figure gets its standard deviation over
        ``settings["draws"]`` copies of them.
    settings : mapping
        Keywords of :func:`analyze_atoms`, all of them.

    Returns
    -------
    xarray.Dataset
        ``value`` (figure) and, where it is known, ``sigma`` (figure), both in the unit that the name ends with.
    """
    figures = figures_of(found, settings)
    names = list(figures)
    summary = xr.Dataset({"value": ("figure", np.array(list(figures.values()), float))}, {"figure": names})
    if settings["draws"] < 2 or not set(UNSURE) & set(atoms):
        return summary
    again = {key: value for key, value in settings.items() if key not in ("draws", "seed")} | {"solute": None}
    spread = with_uncertainty(_figures, atoms, n=settings["draws"], seed=settings["seed"], **again)
    sigma = [float(spread.get(f"{name}_sigma", np.nan)) for name in names]  # the copies' clusters are not looked for
    return summary.assign(sigma=("figure", np.array(sigma)))


def _figures(atoms: xr.Dataset, **settings: Any) -> dict[str, float]:
    """The figures of one copy."""
    found = analyze_atoms(atoms, draws=0, **settings)["summary"]
    return dict(zip(found["figure"].values.tolist(), found["value"].values.tolist(), strict=True))


def figures_of(found: Found, settings: Settings) -> dict[str, float]:
    """The numbers that results are summed up by."""
    figures: dict[str, float] = {}
    for analysis in ANALYSES:
        if analysis.name in found:
            figures |= analysis.figures(found[analysis.name], settings)
    return figures


# -- the analyses ------------------------------------------------------------------------------------


def _surface(sample: Sample, found: Found, settings: Settings) -> xr.Dataset | None:
    if sample.cell is not None:
        return None
    return find_surface(sample.atoms, radius=settings["surface_radius"], field=sample.field)


def _surface_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    return {
        "volume of the alpha shape (Å³)": float(found["volume"]),
        "atoms at the surface (%)": 100.0 * float(found["surface"].mean()),
        "largest depth (Å)": float(found["depth"].max()),
    }


def _pair_distribution(sample: Sample, found: Found, settings: Settings) -> xr.Dataset:
    return _distribution(sample, np.ones(sample.n, bool), settings, settings["step"])


def _disordered_distribution(sample: Sample, found: Found, settings: Settings) -> xr.Dataset | None:
    which = _disordered(found)
    return _distribution(sample, which, settings, settings["step"] / 2) if which.sum() >= _FEWEST else None


def _distribution(sample: Sample, which: np.ndarray, settings: Settings, step: float) -> xr.Dataset:
    """Pair distribution, structure factor and peaks of some of the atoms."""
    keywords = {key: settings[key] for key in ("convention", "r_max", "alpha_radius")}
    some = sample.own.isel(atom=np.flatnonzero(which))
    distribution = pair_distribution(some, cell=sample.cell, step=step, **keywords)
    return xr.merge(
        [distribution, structure_factor(distribution)], compat="no_conflicts", combine_attrs="drop_conflicts"
    )


def _distribution_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    names = {"peak_1": "first peak", "valley_1": "first valley", "valley_2": "second valley"}
    peaks = peaks_of(found)
    figures = {f"{text} of g(r) (Å)": peaks[key] for key, text in names.items() if key in peaks}
    return figures | {"density (1/Å³)": float(found["density"])}


def _disordered_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    figures = _distribution_figures(found, settings)
    return {f"disordered: {name}": value for name, value in figures.items()}


def _bond_order(sample: Sample, found: Found, settings: Settings) -> xr.Dataset:
    cutoff, error = settings["cutoff"], float("nan")
    if cutoff is None:
        distribution = found["pair_distribution"]
        cutoff, error = first_valley(*(distribution[name].values for name in ("r", "g", "pairs")))
    order = sample.cropped(bond_order(sample.atoms, cutoff))
    order.attrs |= {"ordered_fraction": float((order["order"] >= ORDERED).mean()), "cutoff_error": error}
    return order


def _bond_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    return {
        "cut-off (Å)": float(found.attrs["cutoff"]),
        "ordered atoms (%)": 100.0 * float(found.attrs["ordered_fraction"]),
        "mean bond order": float(found["order"].mean()),
    }


def _disordered(found: Found) -> np.ndarray:
    return found["bond_order"]["order"].values < ORDERED


def _nuclei(sample: Sample, found: Found, settings: Settings) -> xr.Dataset:
    return find_nuclei(sample.own, found["bond_order"])


def _nuclei_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    sizes = found["n_atoms"].values
    return {"nuclei of 13 atoms or more": float((sizes >= 13).sum()), "largest nucleus (atoms)": float(sizes[:1].sum())}


def _interface(sample: Sample, found: Found, settings: Settings) -> xr.Dataset | None:
    """Width of the crystals' interface, where there are crystals and a glass."""
    disordered = _disordered(found)
    if min(disordered.sum(), (~disordered).sum()) < _FEWEST:
        return None
    try:
        at_end = settings["surface_radius"] if sample.field else found["surface"]["surface"].values
        return interface_width(sample.own, found["bond_order"], surface=at_end)
    except InputError as error:  # nuclei without a volume, or an order that does not decay
        warnings.warn(f"The width of the interface was left out. {error}", AetdistWarning, stacklevel=2)
        return None


def _interface_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    return {"interface width (Å)": float(found["width"]), "its uncertainty (Å)": float(found["width_sigma"])}


def _voronoi(sample: Sample, found: Found, settings: Settings) -> xr.Dataset:
    cells = voronoi_indices(sample.atoms, convention=settings["convention"])
    if sample.cell is None:
        return cells
    cells = cells.isel(face=np.flatnonzero(cells["face_atom"].values < sample.n))
    cells["face_neighbour"] = cells["face_neighbour"].copy(data=sample.numbers[cells["face_neighbour"].values])
    return sample.cropped(cells)


def _voronoi_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    return {"atoms with a Voronoi index (%)": 100.0 * float((found["n_faces"] >= 0).mean())}


def _voronoi_statistics(sample: Sample, found: Found, settings: Settings) -> xr.Dataset:
    return voronoi_statistics(found["voronoi"], _disordered(found))


def _statistics_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    figures = {
        f"disordered: {e}-edged faces (%)": 100.0 * float(found["face_fraction"].sel(edges=e)) for e in (3, 4, 5, 6)
    }
    figures["disordered: distorted icosahedra (%)"] = 100.0 * float(found["icosahedra"])
    return figures


def _coordination(sample: Sample, found: Found, settings: Settings) -> xr.Dataset | None:
    """Coordination and chemical order of the disordered atoms that are not at the surface."""
    outside, ordered, cells = np.zeros(sample.n, bool), ~_disordered(found), found["voronoi"]
    if "surface" in found:
        outside = found["surface"]["surface"].values | found["surface"].get("side", xr.DataArray(False)).values
    if sample.cell is not None:  # the faces of the images' cells are not kept
        images = sample.atoms.sizes["atom"] - sample.n
        outside, ordered = (np.concatenate([mask, np.ones(images, bool)]) for mask in (outside, ordered))
        cells = voronoi_indices(sample.atoms, convention=settings["convention"])
    if (outside | ordered).all():
        return None
    keywords: dict[str, Any] = {"order": ordered, "surface": outside, "cells": cells}
    done = coordination(sample.atoms, **keywords)
    if done.sizes["type"] > 1:
        done = xr.merge(
            [done, warren_cowley(sample.atoms, **keywords)], compat="no_conflicts", combine_attrs="drop_conflicts"
        )
    return sample.cropped(done)


def _coordination_figures(found: xr.Dataset, settings: Settings) -> dict[str, float]:
    figures = {
        f"disordered: coordination of type {t}": found["mean_coordination"].sel(type=t) for t in found["type"].values
    }
    if "alpha" in found:
        for t in found["type"].values:
            for u in found["neighbour_type"].values:
                figures[f"disordered: Warren-Cowley {t}-{u}"] = found["alpha"].sel(type=t, neighbour_type=u)
    return {key: float(value) for key, value in figures.items()}


#: In the order in which they are done; another one is one line.
ANALYSES = (
    Analysis("surface", _surface, _surface_figures, (), ("surface_radius",)),
    Analysis(
        "pair_distribution", _pair_distribution, _distribution_figures, (),
        ("convention", "r_max", "step", "alpha_radius"),
    ),
    Analysis("bond_order", _bond_order, _bond_figures, ("pair_distribution",), ("cutoff",)),
    Analysis("nuclei", _nuclei, _nuclei_figures, ("bond_order",), (), lambda s: s.cell is None),
    Analysis(
        "disordered_pair_distribution", _disordered_distribution, _disordered_figures, ("bond_order",),
        ("convention", "r_max", "step", "alpha_radius"),
    ),
    Analysis(
        "interface", _interface, _interface_figures, ("bond_order", "surface"), ("surface_radius",),
        lambda s: s.cell is None,
    ),
    Analysis("voronoi", _voronoi, _voronoi_figures, (), ("convention",)),
    Analysis("voronoi_statistics", _voronoi_statistics, _statistics_figures, ("bond_order", "voronoi")),
    Analysis(
        "coordination", _coordination, _coordination_figures, ("bond_order", "voronoi"), ("surface_radius",),
        lambda s: s.is_typed,
    ),
    Analysis(
        "solute_clusters", solute_clusters, solute_figures,
        ("bond_order", "disordered_pair_distribution", "voronoi"), ("solute",), lambda s: s.is_typed and s.cell is None,
    ),
    Analysis(
        "medium_range_order", medium_range_order, medium_range_figures, ("bond_order", "solute_clusters"),
        ("solute", "convention"),
    ),
    Analysis("mro_measures", mro_measures, measures_figures, ("medium_range_order", "voronoi")),
    Analysis(
        "mro_significance", chance, chance_figures, ("bond_order", "solute_clusters", "medium_range_order"),
        ("solute", "convention", "surrogates"),
    ),
)  # fmt: skip
