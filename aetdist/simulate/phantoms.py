"""Made-up amorphous samples with a known truth: thin films and particles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import InputError
from ..schema import ATOMS, AXES, with_units
from ._elements import atomic_number, metallic_radius
from .packing import check_density, drop_near_pairs, packed_density, relax_packing

MARGIN = 4.0
"""Atoms are packed this many Angstrom beyond the surface, which is then cut: no layer lies along it."""
NEAREST = 0.92
"""Smallest distance of a pair, as part of the sum of the metallic radii, unless it is given."""


@dataclass(frozen=True)
class FilmShape:
    """Where the matter of a film is; every length in Angstrom, x and y from the film's middle.

    Parameters
    ----------
    extent : tuple of float
        Size along x and y.
    mean_thickness : float
        Thickness in the middle, along z.
    waviness, wavelength : float
        Amplitude and period of the height of the film's middle.
    wedge : float
        By how much the thickness grows from the low end of x to the high one.
    """

    extent: tuple[float, float]
    mean_thickness: float
    waviness: float = 0.0
    wavelength: float = 150.0
    wedge: float = 0.0

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height z of the film's middle, waviness sin(2 pi x / wavelength) cos(2 pi y / wavelength)."""
        k = 2.0 * np.pi / self.wavelength
        return self.waviness * np.sin(k * np.asarray(x)) * np.cos(k * np.asarray(y))

    def thickness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Thickness along z, mean_thickness + wedge x / extent_x."""
        return self.mean_thickness + self.wedge * np.asarray(x) / self.extent[0] + 0.0 * np.asarray(y)

    def contains(self, positions: np.ndarray) -> np.ndarray:
        """Which positions lie in the film; bool, shape (n,)."""
        x, y, z = positions.T
        inside = (np.abs(x) <= self.extent[0] / 2) & (np.abs(y) <= self.extent[1] / 2)
        return inside & (np.abs(z - self.height(x, y)) <= self.thickness(x, y) / 2)

    def confine(self, positions: np.ndarray) -> np.ndarray:
        """Positions moved along x, y, z into the film widened by ``MARGIN``."""
        x, y = (np.clip(positions[:, i], -self.extent[i] / 2 - MARGIN, self.extent[i] / 2 + MARGIN) for i in (0, 1))
        middle, half = self.height(x, y), self.thickness(x, y) / 2 + MARGIN
        return np.stack([x, y, np.clip(positions[:, 2], middle - half, middle + half)], axis=1)

    def volume(self, margin: float = 0.0) -> float:
        """Volume of the film widened by `margin`, in cubic Angstrom."""
        wide = (self.extent[0] + 2 * margin) * (self.extent[1] + 2 * margin)
        return wide * (self.mean_thickness + 2 * margin)

    def draw(self, n: int, random: np.random.Generator) -> np.ndarray:
        """`n` random positions in the film widened by ``MARGIN``, shape (n, 3)."""
        ends = [self.extent[0] / 2 + MARGIN, self.extent[1] / 2 + MARGIN]
        x, y = np.empty(0), np.empty(0)
        thickest = self.mean_thickness + abs(self.wedge) * ends[0] / self.extent[0] + 2 * MARGIN
        while len(x) < n:  # by rejection, where the film is thin
            u, v = random.uniform(-ends[0], ends[0], n), random.uniform(-ends[1], ends[1], n)
            taken = random.uniform(0, thickest, n) < self.thickness(u, v) + 2 * MARGIN
            x, y = np.append(x, u[taken]), np.append(y, v[taken])
        x, y = x[:n], y[:n]
        depth = random.uniform(-0.5, 0.5, n) * (self.thickness(x, y) + 2 * MARGIN)
        return np.stack([x, y, self.height(x, y) + depth], axis=1)


def amorphous_film(
    extent: tuple[float, float],
    thickness: float,
    *,
    species: Sequence[str] = ("Ni", "Pt"),
    fractions: Sequence[float] | None = None,
    minimum_distance: float | Mapping[tuple[str, str], float] | None = None,
    density: float | None = None,
    waviness: float = 0.0,
    wavelength: float = 150.0,
    wedge: float = 0.0,
    seed: int | None = None,
) -> xr.Dataset:
    """Make an amorphous film at once: a random dense packing of atoms between two wavy surfaces.

    Parameters
    ----------
    extent : tuple of float
        Size along x and y in Angstrom; the film is centred on the origin.
    thickness : float
        Thickness along z in the middle, in Angstrom.
    species : sequence of str
        Chemical elements.
    fractions : sequence of float, optional
        Part of the atoms that each species has; the default is the same for all.
    minimum_distance : float or mapping of (species, species) to float, optional
        Smallest distance of any pair, or of the pairs named, in Angstrom. The default is 0.92 of the
        sum of the metallic radii.
    density : float, optional
        Atoms per cubic Angstrom. The default fills 60 % of space with touching spheres.
    waviness, wavelength : float
        Amplitude and period in Angstrom of the height of the film's middle (:class:`FilmShape`).
    wedge : float
        By how many Angstrom the thickness grows across the film, along x.
    seed : int, optional
        The same seed gives the same film.

    Returns
    -------
    xarray.Dataset
        ATOMS with position (Angstrom), type (1..k by rising atomic number) and species. The
        attributes hold the parameters; :func:`film_shape` gives back the true height and thickness.

    Raises
    ------
    InputError
        If a length is not positive, a species or a fraction cannot be used, or the density leaves
        no room for the smallest distances.
    """
    extent = (float(extent[0]), float(extent[1]))
    for name, value in (("extent", min(extent)), ("thickness", thickness), ("wavelength", wavelength)):
        _check_length(name, value)
    if not (np.isfinite(waviness) and np.isfinite(wedge)):
        raise InputError("waviness and wedge need finite numbers in Angstrom.")
    if thickness - abs(wedge) / 2 <= 0:
        raise InputError(
            f"A wedge of {wedge:g} Angstrom leaves no film at the thin end of one {thickness:g} thick; "
            "lower wedge below twice the thickness."
        )
    shape = FilmShape(extent, float(thickness), float(waviness), float(wavelength), float(wedge))
    atoms = _packed(shape, species, fractions, minimum_distance, density, seed)
    atoms.attrs |= {
        "film_extent_A": list(extent),
        "film_thickness_A": shape.mean_thickness,
        "film_waviness_A": shape.waviness,
        "film_wavelength_A": shape.wavelength,
        "film_wedge_A": shape.wedge,
    }
    return atoms


def film_shape(atoms: xr.Dataset) -> FilmShape:
    """Give back the true surfaces of a film that :func:`amorphous_film` made.

    Raises
    ------
    InputError
        If the atoms do not say how their film was made.
    """
    try:
        x, y = atoms.attrs["film_extent_A"]
        values = [float(atoms.attrs[f"film_{name}_A"]) for name in ("thickness", "waviness", "wavelength", "wedge")]
    except KeyError as error:
        raise InputError(
            f"These atoms carry no attribute {error.args[0]}: they do not come from amorphous_film, "
            "whose true height and thickness alone are known."
        ) from None
    return FilmShape((float(x), float(y)), *values)


@dataclass(frozen=True)
class _Ball:
    """A sphere around the origin."""

    radius: float

    def contains(self, positions: np.ndarray) -> np.ndarray:
        return np.linalg.norm(positions, axis=1) <= self.radius

    def confine(self, positions: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(positions, axis=1, keepdims=True)
        return positions * np.minimum(1.0, (self.radius + MARGIN) / np.maximum(distance, 1e-12))

    def volume(self, margin: float = 0.0) -> float:
        return 4.0 / 3.0 * np.pi * (self.radius + margin) ** 3

    def draw(self, n: int, random: np.random.Generator) -> np.ndarray:
        direction = random.normal(size=(n, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return direction * (self.radius + MARGIN) * np.cbrt(random.uniform(0, 1, (n, 1)))


def nanoparticle(
    diameter: float,
    *,
    species: Sequence[str] = ("Ni", "Pt"),
    fractions: Sequence[float] | None = None,
    minimum_distance: float | Mapping[tuple[str, str], float] | None = None,
    density: float | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Make an amorphous particle at once: a random dense packing of atoms in a sphere.

    Parameters
    ----------
    diameter : float
        Angstrom; the particle is centred on the origin.
    species, fractions, minimum_distance, density, seed : optional
        As in :func:`amorphous_film`.

    Returns
    -------
    xarray.Dataset
        ATOMS with position (Angstrom), type (1..k by rising atomic number) and species.

    Raises
    ------
    InputError
        As :func:`amorphous_film`.
    """
    _check_length("diameter", diameter)
    atoms = _packed(_Ball(diameter / 2.0), species, fractions, minimum_distance, density, seed)
    atoms.attrs["particle_diameter_A"] = float(diameter)
    return atoms


def _packed(
    region: FilmShape | _Ball,
    species: Sequence[str],
    fractions: Sequence[float] | None,
    minimum_distance: float | Mapping[tuple[str, str], float] | None,
    density: float | None,
    seed: int | None,
) -> xr.Dataset:
    """Atoms of a random dense packing in a region."""
    if isinstance(species, str) or len(species) == 0 or len(set(species)) != len(species):
        raise InputError(f"species came as {species!r}; needed is a sequence of different elements, e.g. ('Ni', 'Pt').")
    order = sorted(range(len(species)), key=lambda i: atomic_number(species[i]))
    parts = np.asarray([1.0] * len(species) if fractions is None else fractions, dtype=np.float64)
    if parts.shape != (len(species),) or not (np.isfinite(parts).all() and parts.min() >= 0 and parts.sum() > 0):
        raise InputError(
            f"fractions came as {fractions!r}; needed is one number of 0 or more for each of {len(species)} species."
        )
    parts = parts[order] / parts.sum()
    elements = [str(species[i]) for i in order]
    smallest = _smallest_distances(elements, minimum_distance)
    density = packed_density(smallest, parts) if density is None else float(density)
    check_density(density, smallest, parts)

    entropy = np.random.SeedSequence(seed).entropy
    random = np.random.default_rng(entropy)
    n = max(1, round(density * region.volume(MARGIN)))
    types = random.choice(len(elements), size=n, p=parts)
    confine: Callable[[np.ndarray], np.ndarray] = region.confine
    positions = relax_packing(region.draw(n, random), types, smallest, confine, random)
    kept = np.flatnonzero(region.contains(positions))
    kept = kept[drop_near_pairs(positions[kept], types[kept], smallest)]
    if len(kept) == 0:
        raise InputError("The sample is too small to hold a single atom; make it larger.")
    positions, types = positions[kept], types[kept]
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), positions),
            "type": ("atom", types.astype(np.int64) + 1),
            "species": ("atom", np.array(elements)[types]),
        },
        coords={"atom": np.arange(len(positions)), "axis": list(AXES)},
        attrs={
            "source": "simulated",
            "phantom_seed": int(entropy),  # type: ignore[arg-type]
            "phantom_species": elements,
            "phantom_fractions": [float(p) for p in parts],
            "phantom_minimum_distance_A": smallest.tolist(),
            "phantom_density_per_A3": density,
        },
    )
    return with_units(atoms, ATOMS)


def _smallest_distances(elements: Sequence[str], given: float | Mapping[tuple[str, str], float] | None) -> np.ndarray:
    """Smallest distance of every pair of elements in Angstrom, symmetric."""
    k = len(elements)
    smallest = np.empty((k, k))
    named = {frozenset(pair): float(value) for pair, value in given.items()} if isinstance(given, Mapping) else {}
    unknown = {e for pair in named for e in pair} - set(elements)
    if unknown:
        raise InputError(
            f"minimum_distance names {', '.join(sorted(unknown))}, which the sample does not hold; "
            f"its species are {', '.join(elements)}."
        )
    for i in range(k):
        for j in range(k):
            pair = frozenset((elements[i], elements[j]))
            if pair in named:
                smallest[i, j] = named[pair]
            elif given is None or isinstance(given, Mapping):
                smallest[i, j] = NEAREST * (metallic_radius(elements[i]) + metallic_radius(elements[j]))
            else:
                smallest[i, j] = float(given)
            _check_length("minimum_distance", smallest[i, j])
    return smallest


def _check_length(name: str, value: float) -> None:
    """Refuse a length that is not positive."""
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{name} came as {value!r}; needed is a positive length in Angstrom.")
