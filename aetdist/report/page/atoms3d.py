"""What the three-dimensional view of the atoms needs: their positions, and what to colour them by."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import to_hex

from ..atoms import kinds_of_atoms
from ..mro import KINDS
from ..style import COLOURS

MOST_ATOMS = 20_000
"""Of a model that are shown; of more, evenly spaced ones by number."""
MOST_IN_ALL = 60_000
"""Of all models of a page together."""
_FAINT = "#9aa0a6"
DIAMETER = 1.9
"""Angstrom of a ball: less than neighbours are apart, so that all can be told from each other."""


def atoms_data(
    models: Mapping[str, xr.Dataset], order: Mapping[str, Mapping[str, xr.Dataset]]
) -> dict[str, list[dict[str, Any]]]:
    """Positions of the atoms of every model, and what they can be coloured by.

    Parameters
    ----------
    models : mapping of str to xarray.Dataset
        ATOMS by the model's name.
    order : mapping of str to mapping
        Results of the analyses of each model, by name.
    """
    most = min(MOST_ATOMS, MOST_IN_ALL // max(1, len(models)))
    return {"models": [_model(name, atoms, order.get(name, {}), most) for name, atoms in models.items()]}


def _model(name: str, atoms: xr.Dataset, found: Mapping[str, xr.Dataset], most: int) -> dict[str, Any]:
    n = atoms.sizes["atom"]
    shown = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
    position = atoms["position"].values[shown].astype(np.float32)
    return {
        "name": name,
        "n": n,
        "n_shown": len(shown),
        "number": _packed(atoms["atom"].values[shown].astype(np.int32)),
        **{axis: _packed(np.ascontiguousarray(position[:, i])) for i, axis in enumerate("xyz")},
        "diameter": DIAMETER,
        "modes": [{**mode, "values": _packed(mode["values"][shown])} for mode in _modes(atoms, found)],
    }


def _modes(atoms: xr.Dataset, found: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """What the atoms can be coloured by, and what else the page says of one that is picked (shown = False)."""
    n, modes = atoms.sizes["atom"], []
    if "type" in atoms:
        modes.append(_classes("type", "type", *_types(atoms)))
    order = _of_atoms(found, "bond_order", "order", n)
    if order is not None:
        modes.append(
            _scale("order", "order", order, "viridis", "bond order, 1 in a perfect fcc crystal", limits=(0, 1))
        )
    if "position_sigma" in atoms and np.isfinite(atoms["position_sigma"].values).any():
        sigma = 100.0 * atoms["position_sigma"].values
        mean = np.sqrt(np.mean(np.square(sigma), axis=1))
        modes.append(_scale("sigma", "sigma", mean, "cividis", "standard deviation of a coordinate", "pm"))
        for i, axis in enumerate("xyz"):
            modes.append(_scale(f"sigma_{axis}", f"sigma {axis}", sigma[:, i], "cividis", "", "pm", shown=False))
    label = _of_atoms(found, "medium_range_order", "mro_label", n)
    if label is not None:
        modes.append(_classes("mro", "MRO", *_clusters(label, found["medium_range_order"]["mro_type"].values)))
    for name, text in (("intensity", "intensity"), ("probability", "probability of being an atom")):
        if name in atoms and np.isfinite(atoms[name].values).any():
            modes.append(_scale(name, name, atoms[name].values, "magma", text, shown=name == "intensity"))
    if not any(mode["shown"] for mode in modes):
        modes.append(_scale("height", "height", atoms["position"].values[:, 2], "viridis", "z", "Å"))
    return modes


def _of_atoms(found: Mapping[str, xr.Dataset], group: str, name: str, n: int) -> np.ndarray | None:
    """A result that says something of every one of these n atoms."""
    there = group in found and name in found[group] and found[group][name].shape == (n,)
    return found[group][name].values if there else None


def _types(atoms: xr.Dataset) -> tuple[np.ndarray, list[tuple[str, str, float]]]:
    codes, kinds = np.zeros(atoms.sizes["atom"], np.uint8), kinds_of_atoms(atoms)
    for code, (_, _, which) in enumerate(kinds):
        codes[which] = code
    return codes, [(name, colour, 1.0) for name, colour, _ in kinds]


def _clusters(label: np.ndarray, lattice: np.ndarray) -> tuple[np.ndarray, list[tuple[str, str, float]]]:
    """Lattice of the cluster that an atom is a centre of; those of none are small and faint."""
    there = [kind for kind in KINDS if kind in lattice]
    codes = np.zeros(len(label), np.uint8)
    for code, kind in enumerate(there, 1):
        codes[np.isin(label, np.flatnonzero(lattice == kind))] = code
    return codes, [("none", _FAINT, 0.4), *((kind, COLOURS[KINDS.index(kind)], 1.2) for kind in there)]


def _classes(key: str, label: str, codes: np.ndarray, classes: list[tuple[str, str, float]]) -> dict[str, Any]:
    """A mode that gives every atom one of a few colours."""
    counts = np.bincount(codes, minlength=len(classes)).tolist()
    described = [
        {"name": name, "colour": colour, "size": size, "count": count}
        for (name, colour, size), count in zip(classes, counts, strict=True)
    ]
    return {"key": key, "label": label, "shown": True, "unit": "", "values": codes, "classes": described}


def _scale(
    key: str,
    label: str,
    values: np.ndarray,
    colours: str,
    text: str,
    unit: str = "",
    *,
    limits: tuple[float, float] | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """A mode that colours atoms by a number; the scale leaves the outermost hundredths out."""
    values = np.asarray(values, dtype=np.float32)
    finite = values[np.isfinite(values)]
    low, high = limits or (np.quantile(finite, (0.01, 0.99)) if finite.size else (0.0, 1.0))
    steps = [to_hex(mpl.colormaps[colours](i / 8)) for i in range(9)]
    high = high if high > low else low + 1.0
    return {"key": key, "label": label, "shown": shown, "unit": unit, "text": text, "values": values,
            "low": float(low), "high": float(high), "colours": steps}  # fmt: skip


def _packed(values: np.ndarray) -> dict[str, str]:
    """Numbers as the page keeps them."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return {"type": str(values.dtype), "data": base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")}
