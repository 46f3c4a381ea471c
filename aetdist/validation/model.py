"""The refined atoms as a model, and the geometry at which it is seen."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ..errors import AetdistWarning, InputError
from ..geometry import grid_step, matrices_from_euler
from ..schema import ATOMS, EULER, TILT_SERIES, with_units

OVERLAP = 1.0
"""Angstrom: no two atoms are nearer."""


class Geometry(NamedTuple):
    """How a series is seen, tilt by tilt.

    Attributes
    ----------
    series : xarray.Dataset
        Images, mask and ``x``, ``y`` of the series that the run began with, of the tilts that were used; ``angles`` as
        they were believed then.
    angles : ndarray, shape (tilt, 3), float64
        True Euler angles, degrees.
    shift : ndarray, shape (tilt, 2), float64
        (y, x) in pixels by which an image is off.
    gain : ndarray, shape (tilt,), float64
        Brightness beside the mean one.
    """

    series: xr.Dataset
    angles: np.ndarray
    shift: np.ndarray
    gain: np.ndarray


def model_of(refined: xr.Dataset, heights: Literal["refined", "type"] = "refined") -> xr.Dataset:
    """Atoms to simulate: the refined ones with the height and the width that explain the images.

    Parameters
    ----------
    refined : xarray.Dataset
        ATOMS that were refined.
    heights : {"refined", "type"}
        Height and width of each atom as the refinement had them (its own, or its type's), or the medians of its type.

    Returns
    -------
    xarray.Dataset
        ATOMS: position, type, intensity (height of the Gaussian), b_factor; species where they are known. Attributes
        ``tails`` and ``tail_blurs``, and ``n_overlapping``.

    Raises
    ------
    InputError
        If the atoms were not refined.

    Warns
    -----
    AetdistWarning
        If atoms are nearer than 1 Angstrom to a brighter one: they are left out.
    """
    missing = [name for name in ("type", "intensity", "b_factor", "position_sigma") if name not in refined]
    if missing or "type_heights" not in refined.attrs:
        raise InputError("Refined atoms are needed; run aetdist refine (and, for several types, classify before it).")
    types = refined["type"].values
    median_height, median_sigma = (np.array(refined.attrs[f"type_{name}"])[types - 1] for name in ("heights", "sigmas"))
    own = heights == "refined" and refined.attrs["heights"] == "atom"
    height = refined["intensity"].values if own else median_height
    b_factor = refined["b_factor"].values if heights == "refined" else 8.0 * np.pi**2 * median_sigma**2
    model = refined[[name for name in ("position", "type", "species") if name in refined]].assign(
        intensity=("atom", np.maximum(height, 0.0)), b_factor=("atom", b_factor)
    )
    kept = np.flatnonzero(~overlapping(model["position"].values, height))
    n_gone = refined.sizes["atom"] - len(kept)
    if n_gone:
        warnings.warn(
            f"{n_gone} atoms are nearer than {OVERLAP:g} Angstrom to a brighter one, which no sample has; the model is "
            "simulated without them.",
            AetdistWarning,
            stacklevel=2,
        )
    model = model.isel(atom=kept).assign_coords(atom=np.arange(len(kept)))
    model.attrs = {name: refined.attrs[name] for name in ("tails", "tail_blurs", "elements") if name in refined.attrs}
    return with_units(model.assign_attrs(n_overlapping=n_gone), ATOMS)


def overlapping(positions: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Atoms (n,) bool that are nearer than ``OVERLAP`` to a brighter one that stays."""
    gone = np.zeros(len(positions), bool)
    neighbours = cKDTree(positions).query_ball_point(positions, OVERLAP)
    for i in np.argsort(-heights, kind="stable"):
        if not gone[i]:
            gone[[j for j in neighbours[i] if j != i]] = True
    return gone


def geometry_of(
    refined: xr.Dataset, solved: xr.Dataset, began: xr.Dataset, *, angle_error: float, shift_error: float, seed: int
) -> Geometry:
    """Where the tilts were, as far as the run knows, and where it believed them to be when it began.

    Parameters
    ----------
    refined : xarray.Dataset
        ATOMS with ``angles``, ``shift`` and ``gain`` of the tilts that were used.
    solved : xarray.Dataset
        TILT_SERIES that they were refined against.
    began : xarray.Dataset
        The series before its angles were refined against reprojections; the same where they were not.
    angle_error, shift_error : float
        Standard deviation of further errors of every angle (degrees) and shift (pixels).
    seed : int
    """
    tilts = refined["tilt"].values
    solved, began = solved.sel(tilt=tilts), began.sel(tilt=tilts)
    size = grid_step(began["x"].values)
    shift = refined["shift"].values + (solved["refined_shift"].values if "refined_shift" in solved else 0.0)
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 0)))
    n = len(tilts)
    believed = began["angles"].values + angle_error * random.standard_normal((n, len(EULER)))
    shift = shift + shift_error * random.standard_normal((n, 2))
    series = xr.Dataset(
        {
            "images": began["images"],
            "mask": began["mask"],
            "angles": (("tilt", "euler"), believed),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(believed)),
            "pixel_size": ((), size),
        },
        {"tilt": tilts, "y": began["y"].values, "x": began["x"].values, "euler": list(EULER)},
        {"angle_convention": "yang2021", "source": "simulated"},
    )
    return Geometry(with_units(series, TILT_SERIES), refined["angles"].values, shift, refined["gain"].values)
