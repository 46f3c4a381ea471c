"""Refined atoms as a Dataset; changes by hand in between; what the images show beside the atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..metrics import amplitude_sums
from ..schema import AXES
from .curation import Curated
from .edits import Edit, apply_edits
from .series import Series
from .sharing import Sharing
from .tails import Tails, shown
from .tilts import Group, Model
from .uncertainty import PositionError, probabilities

RESOLVED = 0.8
"""Probability of the most probable type below which an atom is unresolved."""


def origin_of(atoms: xr.Dataset) -> np.ndarray:
    """How each atom came, (n,) object; "traced" where nothing is said."""
    n = atoms.sizes["atom"]
    return atoms["origin"].values.astype(object) if "origin" in atoms else np.full(n, "traced", dtype=object)


def with_edits(atoms: Curated, edits: Sequence[Edit]) -> Curated:
    """The atoms after changes by hand; new and moved ones begin with the height of their type.

    Raises
    ------
    InputError
        If an edit finds no atom, or more than one.
    """
    table = xr.Dataset(
        {
            "position": (("atom", "axis"), atoms.model.positions),
            "type": ("atom", atoms.types + 1),
            "intensity": ("atom", atoms.model.heights),
            "sigma": ("atom", atoms.model.sigmas),
            "origin": ("atom", atoms.origin),
        },
        {"atom": np.arange(len(atoms.types)), "axis": list(AXES)},
    )
    table = apply_edits(table, edits)
    types = table["type"].values.astype(np.int64) - 1
    heights, sigmas = table["intensity"].values.copy(), table["sigma"].values.copy()
    unknown = ~np.isfinite(heights)
    heights[unknown] = atoms.mixture.means[types[unknown]]
    sigmas[~np.isfinite(sigmas)] = np.median(atoms.model.sigmas)
    return replace(
        atoms,
        model=Model(table["position"].values, heights, sigmas),
        types=types,
        origin=table["origin"].values.astype(object),
        anchor=table["position"].values,
        edits={"edits": table.attrs["edits"]},
    )


def as_dataset(
    atoms: Curated,
    own: np.ndarray,
    error: PositionError,
    r_factors: np.ndarray,
    images: Series,
    tails: Tails | None,
    sharing: Sharing,
) -> xr.Dataset:
    """ATOMS by falling height.

    Parameters
    ----------
    atoms : Curated
    own : ndarray, shape (n,), float64
        Height of every atom on its own, at the width of its type.
    error : PositionError
    r_factors : ndarray, shape (iteration, tilt), float64
    images : Series
    tails : Tails, optional
    sharing : Sharing
    """
    model, k = atoms.model, len(atoms.mixture.means)
    atom, kinds = probabilities(own, atoms.mixture, atoms.rejected)
    order = np.argsort(-own, kind="stable")
    per_atom = {
        "position": (("atom", "axis"), model.positions),
        "type": ("atom", atoms.types + 1),
        "intensity": ("atom", model.heights if sharing.own_widths else own),
        "b_factor": ("atom", 8.0 * np.pi**2 * model.sigmas**2),
        "position_sigma": (("atom", "axis"), error.sigma),
        "probability": ("atom", atom),
        "type_probability": (("atom", "type_number"), kinds),
        "unresolved": ("atom", atom * kinds.max(axis=1) < RESOLVED),
        "origin": ("atom", atoms.origin.astype(str)),
    }
    dataset = xr.Dataset(
        {name: (dims, values[order]) for name, (dims, values) in per_atom.items()},
        {"atom": np.arange(len(own)), "axis": list(AXES), "type_number": np.arange(1, k + 1)},
    )
    kinds_there = [atoms.types == kind for kind in range(k)]
    return dataset.assign(
        r_factor=(("iteration", "tilt"), r_factors), round_r=("iteration", np.nanmean(r_factors, axis=1))
    ).assign_attrs(
        R=float(np.nanmean(r_factors[-1])),
        R1=r1_factor_of(images, model, tails),
        type_heights=[float(np.median(model.heights[which])) if which.any() else float("nan") for which in kinds_there],
        type_sigmas=[float(np.median(model.sigmas[which])) if which.any() else float("nan") for which in kinds_there],
        tails=[] if tails is None else [float(part) for part in tails.parts],
        tail_blurs=[] if tails is None else [float(blur) for blur in tails.blurs],
        heights="atom" if sharing.own_heights else "type",
        widths="atom" if sharing.own_widths else "type",
        cramer_rao=error.cramer_rao,
        crowding=error.crowding.tolist(),
        tilt_disagreement=error.tilts.tolist(),
        **{"n_added": 0, "n_deleted": 0, "n_merged": 0, "n_retyped": 0, **atoms.counts},
        **atoms.edits,
    )


def r_factor(images: Series, model: Model, tails: Tails | None = None) -> np.ndarray:
    """R (eq. 4) of every tilt, (tilt,) float64; a background that was taken off counts against it."""
    sums = np.concatenate(images.map(_misfit, model, tails))
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def r1_factor_of(images: Series, model: Model, tails: Tails | None = None) -> float:
    """R1 of all tilts, see `aetdist.metrics.r1_factor`."""
    difference, signal = images.sum(_amplitudes, model, tails)
    return float(difference / signal) if signal > 0 else float("nan")


def difference_map(images: Series, model: Model, tails: Tails | None = None) -> np.ndarray:
    """Root mean square over the tilts of image - prediction, (y, x) float64; NaN where no tilt was measured."""
    square, count = images.sum(_squares, model, tails)
    return np.sqrt(np.divide(square, count, out=np.full(np.shape(square), np.nan), where=count > 0))


def differences(before: np.ndarray, after: np.ndarray, series: xr.Dataset) -> dict[str, Any]:
    """Variables of the difference maps with their coordinates."""
    place = {f"map_{axis}": series[axis].to_numpy() for axis in "yx"}
    return {
        f"difference_{name}": xr.DataArray(values.astype(np.float32), place, ("map_y", "map_x"))
        for name, values in (("before", before), ("after", after))
    }


def _misfit(group: Group, model: Model, tails: Tails | None) -> np.ndarray:
    known = group.weights > 0
    left = np.abs(shown(group, model, tails) - group.raw, dtype=np.float64)
    whole = np.abs(group.raw, dtype=np.float64)
    return np.stack([left.sum(axis=(1, 2), where=known), whole.sum(axis=(1, 2), where=known)], axis=1)


def _squares(group: Group, model: Model, tails: Tails | None) -> np.ndarray:
    known = group.weights > 0
    left = np.square(group.measured - shown(group, model, tails), dtype=np.float64)
    return np.array([left.sum(axis=0, where=known), known.sum(axis=0)])


def _amplitudes(group: Group, model: Model, tails: Tails | None) -> np.ndarray:
    return np.array(amplitude_sums(shown(group, model, tails), group.raw, group.weights > 0))
