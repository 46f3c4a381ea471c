"""How certain each atom is: which ones a person should look at first."""

from __future__ import annotations

import numpy as np
import xarray as xr


def certainty(atoms: xr.Dataset) -> np.ndarray:
    """Probability that an atom is one, and of the type that it was given.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS.

    Returns
    -------
    ndarray, shape (atom,), float64
        Product of `probability` and the largest `type_probability`, as far as they are known; NaN where neither is.
    """
    n = atoms.sizes["atom"]
    known = [atoms["probability"].values] if "probability" in atoms else []
    if "type_probability" in atoms and atoms["type_probability"].size:
        known.append(np.nan_to_num(atoms["type_probability"].values, nan=-1.0).max(axis=1))
    if not known:
        return np.full(n, np.nan)
    values = np.stack(known).astype(np.float64)
    said = np.isfinite(values) & (values >= 0)
    return np.where(said.any(axis=0), np.where(said, values, 1.0).prod(axis=0), np.nan)


def by_doubt(atoms: xr.Dataset) -> np.ndarray:
    """Order the atoms, the least certain first.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS.

    Returns
    -------
    ndarray, shape (atom,), int64
        Indices. Atoms of equal certainty come by falling `position_sigma`, then by rising `intensity`; those of unknown
        certainty (changed by hand) last, unless it is known of none.
    """
    n = atoms.sizes["atom"]
    sure = certainty(atoms)
    sigma = np.zeros(n)
    if "position_sigma" in atoms:
        sigma = np.nan_to_num(np.linalg.norm(atoms["position_sigma"].values, axis=1), nan=0.0)
    intensity = np.nan_to_num(atoms["intensity"].values, nan=np.inf) if "intensity" in atoms else np.zeros(n)
    # Certainties that differ by less than anyone can tell are equal.
    return np.lexsort((np.arange(n), intensity, -sigma, np.round(np.nan_to_num(sure, nan=2.0), 6)))
