"""Polyhedral template matching through OVITO, where it is installed: a cross-check of the bond order."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..errors import InputError
from ._inputs import atoms_of
from .bonds import numbers_of

_STRUCTURES = {"FCC": "fcc", "HCP": "hcp", "BCC": "bcc", "ICO": "ico", "SC": "sc"}


def template_matching(atoms: xr.Dataset | np.ndarray, *, largest_rmsd: float = 0.15) -> xr.Dataset:
    """Computes: the crystal structure around every atom, by OVITO's polyhedral template matching.

    Parameters
    ----------
    atoms : xarray.Dataset or array_like, shape (n, 3), float
        ATOMS, or positions (x, y, z) in Angstrom; open boundaries.
    largest_rmsd : float, default 0.15
        Atoms that deviate more from every template have none; in units of the interatomic distance.

    Returns
    -------
    xarray.Dataset
        ``structure`` (atom), text: "fcc", "hcp", "bcc", "ico", "sc" or "none"; ``rmsd`` (atom) float64, deviation from
        the template, and ``interatomic_distance`` (atom) float64, Angstrom: NaN where there is none; ``fraction``
        (kind) of all atoms of each structure. Attribute: ``largest_rmsd``.

    Raises
    ------
    InputError
        If the atoms cannot be used, the rmsd is not positive, or OVITO is not installed.

    References
    ----------
    P. M. Larsen, S. Schmidt, J. Schiotz, Modelling Simul. Mater. Sci. Eng. 24, 055007 (2016).
    """
    positions, _ = atoms_of(atoms)
    if not largest_rmsd > 0:
        raise InputError(f"largest_rmsd is {largest_rmsd}; needed is a positive number.")
    try:
        from ovito.data import DataCollection, Particles
        from ovito.modifiers import PolyhedralTemplateMatchingModifier as Matching
    except ImportError:
        raise InputError("Template matching needs OVITO: pip install ovito.") from None
    data = DataCollection()
    data.objects.append(Particles(count=len(positions)))
    data.particles_.create_property("Position", data=positions)
    matching = Matching(rmsd_cutoff=largest_rmsd, output_rmsd=True, output_interatomic_distance=True)
    numbers = {0: "none"}
    for ours, theirs in ((name, getattr(Matching.Type, key)) for key, name in _STRUCTURES.items()):
        matching.structures[int(theirs)].enabled = True
        numbers[int(theirs)] = ours
    data.apply(matching)
    particles = data.particles
    kinds = np.array([numbers[number] for number in range(max(numbers) + 1)])
    structure = kinds[np.asarray(particles["Structure Type"])]
    none = structure == "none"
    names = [*_STRUCTURES.values(), "none"]
    return xr.Dataset(
        {
            "structure": ("atom", structure),
            "rmsd": ("atom", np.where(none, np.nan, particles["RMSD"]), {"units": "1"}),
            "interatomic_distance": (
                "atom", np.where(none, np.nan, particles["Interatomic Distance"]), {"units": "angstrom"},
            ),
            "fraction": ("kind", [float(np.mean(structure == name)) for name in names], {"units": "1"}),
        },
        {"atom": numbers_of(atoms), "kind": names},
        {"largest_rmsd": float(largest_rmsd)},
    )  # fmt: skip
