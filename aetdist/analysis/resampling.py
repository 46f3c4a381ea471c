"""Error bars of analyses: atoms redrawn within what is known of them, and analysed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from ..blocks.atoms import blocks_in_turn
from ..errors import InputError
from ..neighbors import as_points
from ..schema import ATOMS, check

Analysis = Callable[..., xr.Dataset | Mapping[str, float]]
PERCENTILES = (2.5, 16.0, 50.0, 84.0, 97.5)


def draw_atoms(atoms: xr.Dataset, seed: int, draw: int = 0) -> xr.Dataset:
    """Atoms as they might be: positions, types and presence redrawn from what is known of them.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS. `position_sigma` (atom, axis) moves positions by normal deviates; `type_probability` redraws `type`,
        and `species` after it where each type has one; `probability` leaves atoms out. What is missing stays as it
        is. Where one atom's value is NaN its type stays, it is kept, or it moves by the median sigma of the others.
    seed, draw : int
        Each pair gives other atoms, and always the same ones.

    Returns
    -------
    xarray.Dataset
        `position`, `type` and `species` where there are any, and the attributes; `atom` holds each one's place among
        the atoms that came.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(draw,)))
    n = atoms.sizes["atom"]
    # All numbers are drawn for all atoms, so that what one quantity does changes nothing in another.
    deviate, choice, presence = rng.standard_normal((n, 3)), rng.uniform(size=n), rng.uniform(size=n)
    redrawn = atoms[[name for name in ("position", "type", "species") if name in atoms]].copy(deep=True)
    if "position_sigma" in atoms:
        sigma = atoms["position_sigma"].values.astype(np.float64)
        known = np.isfinite(sigma)
        if known.any():
            typical = [np.median(s[k]) if k.any() else 0.0 for s, k in zip(sigma.T, known.T, strict=True)]
            moved = redrawn["position"].values + deviate * np.where(known, sigma, typical)
            redrawn["position"] = redrawn["position"].dims, moved
    if "type_probability" in atoms and "type" in atoms:
        chances = np.cumsum(atoms["type_probability"].values.astype(np.float64), axis=1)
        known = np.isfinite(chances[:, -1]) & (chances[:, -1] > 0)
        chances = chances / np.where(known, chances[:, -1], 1.0)[:, None]
        picked = 1 + np.minimum((choice[:, None] >= chances).sum(axis=1), chances.shape[1] - 1)
        redrawn["type"] = "atom", np.where(known, picked, atoms["type"].values)
        if "species" in atoms:
            redrawn = _renamed(redrawn, atoms)
    redrawn = redrawn.assign_coords(atom=np.arange(n))
    if "probability" in atoms:
        chance = atoms["probability"].values
        redrawn = redrawn.isel(atom=np.flatnonzero(np.isnan(chance) | (presence < chance)))
    return redrawn


def resample(
    function: Analysis,
    atoms: xr.Dataset | np.ndarray,
    *,
    n: int = 50,
    seed: int = 0,
    position_sigma: float | np.ndarray | None = None,
    **settings: Any,
) -> xr.Dataset:
    """An analysis of many redrawn copies of the atoms; lazy, but for one run on the atoms as they are.

    Parameters
    ----------
    function : callable
        Takes ATOMS, then `settings`; gives a Dataset, or figures by name.
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions in Angstrom (then with `position_sigma`).
    n : int, default 50
        Number of copies.
    seed : int, default 0
        The copies depend on it and on their own number alone, not on how many workers there are.
    position_sigma : float or array_like, shape (n, 3), optional
        Standard deviation of the positions along each axis, in Angstrom; default: that of the atoms.
    **settings
        Keywords of `function`.

    Returns
    -------
    xarray.Dataset
        The numeric variables of the analysis with a dimension `draw` in front, float64, one Dask chunk for each copy.
        What the analysis says of every atom is NaN where a copy lacks that atom.

    Raises
    ------
    InputError
        If nothing is known of how the atoms may differ, `n` is less than 2; while computing, if the shape of a
        variable changes from copy to copy.
    """
    return _draws(function, atoms, n, seed, position_sigma, settings)[1]


def with_uncertainty(
    function: Analysis,
    atoms: xr.Dataset | np.ndarray,
    *,
    n: int = 50,
    seed: int = 0,
    position_sigma: float | np.ndarray | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    **settings: Any,
) -> xr.Dataset:
    """Computes: an analysis and the error bar of each of its numbers.

    Parameters
    ----------
    function : callable
        As in :func:`resample`.
    atoms : xarray.Dataset
        As in :func:`resample`.
    n, seed, position_sigma : optional
        As in :func:`resample`.
    percentiles : sequence of float
        From 0 to 100.
    **settings
        As in :func:`resample`.

    Returns
    -------
    xarray.Dataset
        What `function` gives for the atoms as they are; of each numeric variable also ``<name>_mean``,
        ``<name>_sigma`` (standard deviation) and ``<name>_percentile`` (percentile, ...) over the copies, in its unit.
        An order that atoms are shaken out of has a mean below its value: the copies are shaken twice, once
        by the measurement and once more here.

    Raises
    ------
    InputError
        As :func:`resample`.
    """
    whole, draws = _draws(function, atoms, n, seed, position_sigma, settings)
    draws = draws.compute()
    asked = np.asarray(percentiles, dtype=np.float64)
    for name, values in draws.data_vars.items():
        some = np.isfinite(values.values).any(axis=0)
        filled = np.where(some, values.values, 0.0)  # nothing but NaN gives NaN, without a warning
        dims, attrs = values.dims[1:], {"units": values.attrs.get("units", "1")}
        whole[f"{name}_mean"] = dims, np.where(some, np.nanmean(filled, axis=0), np.nan), attrs
        whole[f"{name}_sigma"] = dims, np.where(some, np.nanstd(filled, axis=0), np.nan), attrs
        spread = np.where(some, np.nanpercentile(filled, asked, axis=0), np.nan)
        whole[f"{name}_percentile"] = ("percentile", *dims), spread, attrs
    return whole.assign_coords(percentile=asked).assign_attrs(n_draws=n, seed=seed)


def _draws(
    function: Analysis, atoms: Any, n: int, seed: int, position_sigma: Any, settings: dict[str, Any]
) -> tuple[xr.Dataset, xr.Dataset]:
    """The analysis of the atoms as they are, and that of the copies (lazy)."""
    if n < 2:
        raise InputError(f"n = {n} copies came; an error bar needs 2 or more.")
    atoms = _known(atoms, position_sigma)
    whole = _as_dataset(function(atoms, **settings))
    n_atoms = atoms.sizes["atom"]
    numeric = [str(name) for name, v in whole.data_vars.items() if v.dtype.kind in "biuf"]
    shapes = {name: whole[name].shape for name in numeric}
    of_atoms = {name: [i for i, d in enumerate(whole[name].dims) if d == "atom"] for name in numeric}
    shared = dask.delayed(atoms, traverse=False, name=f"atoms-{dask.base.tokenize(atoms, seed)}")
    one = dask.delayed(_one, pure=False)
    copies = [one(function, shared, seed, draw, settings, shapes, of_atoms, n_atoms) for draw in range(n)]
    stacked = {}
    for name in numeric:
        parts = [da.from_delayed(copy[name], shapes[name], dtype=np.float64) for copy in copies]
        stacked[name] = ("draw", *whole[name].dims), da.stack(parts), whole[name].attrs
    return whole, xr.Dataset(stacked, {**whole.coords, "draw": np.arange(n)}, {"seed": seed})


def _one(
    function: Analysis, atoms: xr.Dataset, seed: int, draw: int, settings: dict[str, Any],
    shapes: dict[str, tuple[int, ...]], of_atoms: dict[str, list[int]], n_atoms: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The numbers that the analysis of one copy gives, each with the shape that it has for the atoms as they are."""
    redrawn = draw_atoms(atoms, seed, draw)
    place = redrawn["atom"].values
    with blocks_in_turn():
        found = _as_dataset(function(redrawn.assign_coords(atom=np.arange(len(place))), **settings))
    numbers = {}
    for name, shape in shapes.items():
        values = found[name].values.astype(np.float64) if name in found else np.full(shape, np.nan)
        for axis in of_atoms[name] if name in found and values.shape != shape else ():
            spread = np.full((*values.shape[:axis], n_atoms, *values.shape[axis + 1 :]), np.nan)
            np.moveaxis(spread, axis, 0)[place] = np.moveaxis(values, axis, 0)
            values = spread
        if values.shape != shape:
            raise InputError(
                f"{name} has the shape {shape} for the atoms as they are and {values.shape} for copy {draw}; resample "
                "a function that gives numbers of one shape, for instance some of them or a histogram."
            )
        numbers[name] = values
    return numbers


def _known(atoms: Any, position_sigma: Any) -> xr.Dataset:
    """Atoms with what is known of how they may differ, or an error."""
    if isinstance(atoms, xr.Dataset):
        check(atoms, ATOMS)
    else:
        atoms = xr.Dataset({"position": (("atom", "axis"), as_points(atoms))})
    if position_sigma is not None:
        sigma = np.asarray(position_sigma, dtype=np.float64)
        shape = atoms["position"].shape
        if sigma.shape not in ((), shape) or not (sigma >= 0).all():
            raise InputError(
                f"position_sigma came with shape {sigma.shape}; needed is a length in Angstrom of 0 or more, or one "
                f"for each atom and axis, {shape}."
            )
        atoms = atoms.assign(position_sigma=(("atom", "axis"), np.broadcast_to(sigma, shape)))
    if not {"position_sigma", "type_probability", "probability"} & set(atoms):
        raise InputError(
            "The atoms have no position_sigma, type_probability or probability to redraw them by; refine finds them, "
            "or give position_sigma= in Angstrom."
        )
    return atoms


def _as_dataset(found: xr.Dataset | Mapping[str, Any]) -> xr.Dataset:
    """What an analysis gave; figures by name become variables without dimensions."""
    return found.copy() if isinstance(found, xr.Dataset) else xr.Dataset({k: ((), v) for k, v in found.items()})


def _renamed(redrawn: xr.Dataset, atoms: xr.Dataset) -> xr.Dataset:
    """Atoms with the species of their types, or without species where a type has several."""
    types, species = atoms["type"].values, atoms["species"].values.astype(str)
    names = {number: np.unique(species[types == number]) for number in np.unique(types)}
    drawn = redrawn["type"].values
    if any(len(found) > 1 for found in names.values()) or not set(np.unique(drawn)) <= set(names):
        return redrawn.drop_vars("species")
    return redrawn.assign(species=("atom", np.array([names[number][0] for number in drawn], dtype=str)))
