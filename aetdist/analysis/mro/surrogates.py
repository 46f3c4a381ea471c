"""How many clusters chance would give: the same search on samples without medium-range order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ...errors import InputError
from .lattices import LATTICES
from .search import SOLUTE_DISTANCE, atoms_of, find_mro, solutes

Surrogate = Literal["labels", "packing"]
_REACH = 1.4  # Angstrom from an atom: half the distance of nearest atoms, so that the places fill the sample
_TRIES = 1000


def mro_significance(
    positions: np.ndarray | xr.Dataset,
    types: np.ndarray | None = None,
    *,
    solute: int = 3,
    order: np.ndarray | None = None,
    distance: tuple[float, float] = SOLUTE_DISTANCE,
    tolerance: float = 0.75,
    lattices: Sequence[str] = LATTICES,
    surrogate: Surrogate = "labels",
    samples: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """Computes: the numbers of clusters by type and size, beside those of samples without order of the solute.

    Parameters
    ----------
    positions, types : array_like
        As in :func:`find_mro`.
    solute, order, distance, tolerance, lattices : optional
        As in :func:`find_mro`.
    surrogate : {"labels", "packing"}
        The types of the disordered atoms drawn again at random; or as many centres at random places in the sample, no
        two nearer than those of the sample are (the thousandth nearest pairs are left out).
    samples : int
        Number of surrogates.
    seed : int
        The surrogates are the same for the same seed.

    Returns
    -------
    xarray.Dataset
        `count` (mro_type, size) int64, clusters of the sample; `surrogate_count` (sample, mro_type, size) int64;
        `expected`, `spread` (mro_type, size) float64, mean and standard deviation of those; `total` and
        `surrogate_total` (mro_type and sample), clusters of any size; `z_score` (mro_type,) float64,
        (total - mean) / standard deviation (NaN where that is 0); `p_value` (mro_type,) float64,
        (1 + surrogates with at least as many) / (1 + samples). The last `mro_type` is "all".

    Raises
    ------
    InputError
        As :func:`find_mro`; if samples is less than 2, or the surrogate is not known.
    """
    if surrogate not in get_args(Surrogate):
        raise InputError(f"surrogate came as {surrogate!r}; needed is one of {', '.join(get_args(Surrogate))}.")
    if samples < 2:
        raise InputError(f"samples came as {samples}; needed are 2 or more, for a standard deviation.")
    position, kind = atoms_of(positions, types)
    options: dict[str, Any] = {"distance": distance, "tolerance": tolerance, "lattices": lattices}
    found = find_mro(position, kind, solute=solute, order=order, **options)
    centres = solutes(position, kind, solute, order, distance)[0]
    counted = [found]
    for sample in range(samples):
        random = np.random.default_rng([seed, sample])
        if surrogate == "labels":
            drawn = shuffled(kind, order, random)
            counted.append(find_mro(position, drawn, solute=solute, order=order, **options))
        else:
            places = random_places(position, position[centres], random)
            counted.append(find_mro(places, np.full(len(places), solute), solute=solute, **options))
    return _compared(counted, list(found.attrs["lattices"]))


def shuffled(kind: np.ndarray, order: np.ndarray | None, random: np.random.Generator) -> np.ndarray:
    """Types with those of the disordered atoms drawn again among them."""
    drawn = kind.copy()
    disordered = np.ones(len(kind), dtype=bool) if order is None else ~(np.asarray(order) >= 0.5)
    drawn[disordered] = random.permutation(kind[disordered])
    return drawn


def random_places(position: np.ndarray, centres: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As many places as there are centres, near atoms and as far from each other as centres are, (n, 3)."""
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1] if len(centres) > 1 else np.zeros(1)
    apart = float(np.quantile(nearest, 0.001))
    places = np.empty((0, 3))
    for _ in range(_TRIES):
        if len(places) >= len(centres):
            return places[: len(centres)]
        n = 2 * (len(centres) - len(places)) + 10
        direction = random.normal(size=(n, 3))
        direction *= (_REACH * random.uniform(size=n) ** (1 / 3) / np.linalg.norm(direction, axis=1))[:, None]
        drawn = position[random.integers(len(position), size=n)] + direction
        if len(places):
            drawn = drawn[cKDTree(places).query(drawn)[0] >= apart]
        pairs = cKDTree(drawn).query_pairs(apart, output_type="ndarray")
        # Of two that are too near the later one goes: some that could stay go too, and are drawn again.
        keep = np.ones(len(drawn), dtype=bool)
        keep[pairs.max(axis=1)] = False
        places = np.concatenate([places, drawn[keep]])
    raise InputError(
        f"Only {len(places)} of {len(centres)} centres at least {apart:.2f} Angstrom apart have room in the sample; "
        "use surrogate='labels'."
    )


def _compared(counted: list[xr.Dataset], lattices: list[str]) -> xr.Dataset:
    """Histograms of the sample (the first) and of the surrogates."""
    largest = max([int(found["size"].max()) for found in counted if found.sizes["mro"]], default=5)
    sizes = np.arange(5, max(largest, 5) + 1)
    kinds = [*lattices, "all"]
    counts = np.zeros((len(counted), len(kinds), len(sizes)), dtype=np.int64)
    for i, found in enumerate(counted):
        for j, name in enumerate(lattices):
            of_type = found["size"].values[found["mro_type"].values == name]
            counts[i, j] = np.bincount(of_type - 5, minlength=len(sizes))
    counts[:, -1] = counts[:, :-1].sum(axis=1)
    total = counts.sum(axis=2)
    spread = total[1:].std(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(spread > 0, (total[0] - total[1:].mean(axis=0)) / spread, np.nan)
    p = (1 + (total[1:] >= total[0]).sum(axis=0)) / len(counted)
    one = {"units": "1"}
    return xr.Dataset(
        {
            "count": (("mro_type", "size"), counts[0], one),
            "surrogate_count": (("sample", "mro_type", "size"), counts[1:], one),
            "expected": (("mro_type", "size"), counts[1:].mean(axis=0), one),
            "spread": (("mro_type", "size"), counts[1:].std(axis=0, ddof=1), one),
            "total": ("mro_type", total[0], one),
            "surrogate_total": (("sample", "mro_type"), total[1:], one),
            "z_score": ("mro_type", z, one),
            "p_value": ("mro_type", p, one),
        },
        coords={"mro_type": kinds, "size": sizes, "sample": np.arange(len(counted) - 1)},
    )
