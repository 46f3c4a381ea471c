"""Atomic numbers and metallic radii of the chemical elements."""

from __future__ import annotations

import difflib

from ..errors import InputError

SYMBOLS = tuple(
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir "
    "Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl "
    "Mc Lv Ts Og".split()
)

METALLIC_RADII = {
    "Mg": 1.60,
    "Al": 1.43,
    "Ti": 1.47,
    "V": 1.34,
    "Cr": 1.28,
    "Mn": 1.27,
    "Fe": 1.26,
    "Co": 1.25,
    "Ni": 1.24,
    "Cu": 1.28,
    "Zn": 1.34,
    "Y": 1.80,
    "Zr": 1.60,
    "Nb": 1.46,
    "Mo": 1.39,
    "Ru": 1.34,
    "Rh": 1.34,
    "Pd": 1.37,
    "Ag": 1.44,
    "La": 1.87,
    "Hf": 1.59,
    "Ta": 1.46,
    "W": 1.39,
    "Re": 1.37,
    "Os": 1.35,
    "Ir": 1.36,
    "Pt": 1.39,
    "Au": 1.44,
}
"""Half the nearest-neighbour distance at twelve neighbours, in Angstrom."""


def atomic_number(species: str) -> int:
    """Z of an element's symbol.

    Raises
    ------
    InputError
        If there is no such element.
    """
    if species in SYMBOLS:
        return SYMBOLS.index(species) + 1
    near = difflib.get_close_matches(str(species).capitalize(), SYMBOLS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(f"{species!r} is not a chemical element{hint}; give a symbol such as Pt.")


def metallic_radius(species: str) -> float:
    """Metallic radius in Angstrom.

    Raises
    ------
    InputError
        If there is no such element, or its radius is not tabulated here.
    """
    atomic_number(species)
    if species not in METALLIC_RADII:
        raise InputError(
            f"No metallic radius of {species} is tabulated; give minimum_distance for its pairs, "
            f"or take one of {', '.join(METALLIC_RADII)}."
        )
    return METALLIC_RADII[species]
