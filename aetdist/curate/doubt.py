"""How certain each atom is: which ones a person should look at first."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import chi

from ..refine.edits import TOLERANCE


def certainty(atoms: xr.Dataset) -> np.ndarray:
    """Probability that there is an atom of this type within 0.7 Angstrom of its position.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS.

    Returns
    -------
    ndarray, shape (atom,), float64
        Product of `probability`, the largest `type_probability`, and the part of a Gaussian with the root mean square
        of `position_sigma` that lies within ``TOLERANCE``, as far as they are known; NaN where none is.
    """
    n = atoms.sizes["atom"]
    known = [np.full(n, np.nan)]
    if "probability" in atoms:
        known.append(atoms["probability"].values)
    if "type_probability" in atoms and atoms["type_probability"].size:
        known.append(atoms["type_probability"].max("type_number").values)
    if "position_sigma" in atoms:
        sigma = np.sqrt(np.square(atoms["position_sigma"].values, dtype=np.float64).mean(axis=1))
        known.append(chi.cdf(TOLERANCE / np.maximum(sigma, 1e-9), 3))
    values = np.stack(known)
    return np.where(np.isfinite(values).any(axis=0), np.nanprod(values, axis=0), np.nan)


def by_doubt(atoms: xr.Dataset) -> np.ndarray:
    """Order the atoms, the least certain first.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS.

    Returns
    -------
    ndarray, shape (atom,), int64
        Indices. Atoms of equal certainty come by rising `intensity`; those of unknown certainty (changed by hand) last,
        unless it is known of none.
    """
    n = atoms.sizes["atom"]
    sure = certainty(atoms)
    intensity = np.nan_to_num(atoms["intensity"].values, nan=np.inf) if "intensity" in atoms else np.zeros(n)
    # Certainties that differ by less than anyone can tell are equal.
    return np.lexsort((np.arange(n), intensity, np.round(np.nan_to_num(sure, nan=2.0), 6)))
