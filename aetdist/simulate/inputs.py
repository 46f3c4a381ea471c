"""What both simulations check and derive: atoms, angles, field, dose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from ..errors import CapacityError, InputError
from ..geometry import euler_from_tilts
from ..project.atoms import CUTOFF, checked_atoms
from ..schema import ATOMS, check
from ._elements import atomic_number

Z_EXPONENT = 1.7
"""ADF intensity of an atom grows about as Z^1.7."""
LARGEST_IMAGE = 2**28
"""Pixels of one projection that are still taken to be meant (1 GiB in float32)."""
NEAREST = 1.0
"""Atoms nearer to each other than this, in Angstrom, are one atom twice, or in another unit."""


def checked_sample(
    atoms: xr.Dataset, heights: float | Sequence[float] | None, sigma: float | Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (atoms, 3) in Angstrom, heights (atoms,) and sigmas (atoms,) in Angstrom, all float64.

    Raises
    ------
    InputError
        If an atom cannot be used, or two overlap.
    """
    check(atoms, ATOMS)
    types = types_of(atoms)
    found = checked_atoms(atoms["position"].values, heights_of(atoms, types, heights), per_type("sigma", sigma, types))
    check_apart(found[0])
    return found


def checked_angles(angles: np.ndarray) -> np.ndarray:
    """Euler angles (tilts, 3) in degrees, of Euler angles or single tilts about y."""
    angles = np.atleast_1d(np.asarray(angles, dtype=np.float64))
    if len(angles) == 0:
        raise InputError("There are no tilt angles; give at least one.")
    return euler_from_tilts(angles) if angles.ndim == 1 else angles


def check_apart(positions: np.ndarray) -> None:
    """Refuse atoms that overlap; the nearest pair is named."""
    if len(positions) < 2:
        return
    tree = cKDTree(positions)
    distance, neighbour = tree.query(positions, 2)
    first = int(np.argmin(distance[:, 1]))
    if distance[first, 1] < NEAREST:
        i, j = sorted((first, int(neighbour[first][neighbour[first] != first][0])))
        at = ", ".join(f"{value:.2f}" for value in positions[i])
        raise InputError(
            f"Atoms {i} and {j} (counted from 0), near ({at}), are {distance[first, 1]:.3g} Angstrom apart, and "
            f"{len(tree.query_pairs(NEAREST, output_type='ndarray'))} pairs are nearer than {NEAREST:g}; drop one atom "
            "of each, or give positions in Angstrom."
        )


def elements_of(atoms: xr.Dataset, purpose: str) -> np.ndarray:
    """Atomic number of every atom, int64.

    Raises
    ------
    InputError
        If the atoms have no species, or one is no chemical element.
    """
    if "species" not in atoms:
        raise InputError(f"{purpose} needs to know the element of every atom; give the atoms `species`.")
    names, index = np.unique(np.asarray(atoms["species"].values, dtype=str), return_inverse=True)
    return np.array([atomic_number(str(name)) for name in names], dtype=np.int64)[index]


def types_of(atoms: xr.Dataset) -> np.ndarray:
    """Type of every atom, 1..k; 1 for all where none is given."""
    if "type" not in atoms:
        return np.ones(atoms.sizes["atom"], dtype=np.int64)
    types = atoms["type"].values
    if types.size and types.min() < 1:
        raise InputError(f"Atom types start at 1, but {int(types.min())} came; number them 1, 2, ...")
    return types


def per_type(name: str, value: float | Sequence[float], types: np.ndarray) -> np.ndarray:
    """One number for every atom from one for all or one for each type."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return np.full(len(types), float(array))
    if array.ndim != 1 or (types.size and array.size < types.max()):
        raise InputError(
            f"{name} came with shape {array.shape}, but the atoms have {int(types.max(initial=1))} types; "
            "give one number, or one for each type."
        )
    return array[types - 1]


def heights_of(atoms: xr.Dataset, types: np.ndarray, heights: float | Sequence[float] | None) -> np.ndarray:
    """Peak value of every atom: as given, else its intensity, else Z^1.7 of its species, else 1; (n,) float64."""
    if heights is not None:
        return per_type("heights", heights, types)
    if "intensity" in atoms:
        return np.asarray(atoms["intensity"].values, dtype=np.float64)
    if "species" in atoms:
        return elements_of(atoms, "The default height") ** Z_EXPONENT
    return np.ones(len(types))


def check_noise(dose: float | None, efficiency: float, read_noise: float) -> None:
    """Refuse a dose, an efficiency or a noise that cannot be."""
    if dose is not None and not (np.isfinite(dose) and dose > 0):
        raise InputError(
            f"dose came as {dose!r}; needed is electrons per square Angstrom, above 0, or None for no noise."
        )
    if not 0 < efficiency <= 1:
        raise InputError(
            f"efficiency came as {efficiency!r}; needed is the counted part of the electrons, above 0 up to 1."
        )
    if not (np.isfinite(read_noise) and read_noise >= 0):
        raise InputError(f"read_noise came as {read_noise!r}; needed is 0 or more electrons per pixel.")
    if read_noise > 0 and dose is None:
        raise InputError("read_noise is in counted electrons and so needs a dose; give dose=... as well.")


def checked_field(field: tuple[int, int]) -> tuple[int, int]:
    """Pixels along x and y as whole positive numbers."""
    try:
        nx, ny = (int(n) for n in field)
        usable = nx == field[0] and ny == field[1] and nx > 0 and ny > 0
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise InputError(f"field came as {field!r}; needed are two whole numbers of pixels above 0, (nx, ny).")
    return nx, ny


def field_of_everything(
    positions: np.ndarray, sigmas: np.ndarray, matrices: np.ndarray, center: np.ndarray, pixel_size: float
) -> tuple[int, int]:
    """Pixels (nx, ny) that hold every atom at every tilt."""
    reach = np.zeros(2)
    for matrix in matrices:
        off = np.abs(positions @ matrix[:2].T - center) + CUTOFF * sigmas[:, None]
        reach = np.maximum(reach, off.max(axis=0))
    n = 2 * np.ceil(reach / pixel_size) + 1
    if n.prod() > LARGEST_IMAGE:
        raise CapacityError(
            f"A field that holds every atom would be {n[0]:.0f} x {n[1]:.0f} pixels; "
            "are the positions in Angstrom? Give field=(nx, ny), or a larger pixel_size."
        )
    return int(n[0]), int(n[1])


def average_intensity(positions: np.ndarray, heights: np.ndarray, sigmas: np.ndarray, pixel_size: float) -> float:
    """Average pixel of the view along z: the atoms' total over the squares of 2 Angstrom in which there are any."""
    squares = np.unique(np.floor(positions[:, :2] / 2.0), axis=0)
    total = float((heights * (2.0 * np.pi) ** 1.5 * (sigmas / pixel_size) ** 3).sum())
    return total * pixel_size**2 / (4.0 * len(squares))


def part_outside(
    positions: np.ndarray, matrices: np.ndarray, x: np.ndarray, y: np.ndarray, pixel_size: float
) -> tuple[float, int]:
    """Largest part of the atoms whose centres the field does not show, and the tilt at which that is so."""
    worst, at = 0.0, 0
    for tilt, matrix in enumerate(matrices):
        lab = positions @ matrix[:2].T
        off = (lab < (x[0] - pixel_size / 2, y[0] - pixel_size / 2)) | (
            lab > (x[-1] + pixel_size / 2, y[-1] + pixel_size / 2)
        )
        part = float(off.any(axis=1).mean())
        if part > worst:
            worst, at = part, tilt
    return worst, at


def checked_kind(
    kind: str | None, outside: tuple[float, int], field: tuple[int, int], everything: Callable[[], tuple[int, int]]
) -> float:
    """Largest part of the atoms that are beside the field at a tilt; a particle must have none."""
    if kind not in (None, "particle", "film"):
        raise InputError(f"kind came as {kind!r}; choose particle or film, or leave it out.")
    part, tilt = outside
    if kind == "particle" and part > 0:
        raise InputError(
            f"{100 * part:.3g} % of the atoms are beside the field of {field[0]} x {field[1]} pixels at tilt {tilt}, "
            f"but a particle has to be inside it; give field={everything()}, a larger pixel_size, or kind='film'."
        )
    return part
