"""Tilt series of particles whose atoms are known: the paper's nanoparticle, all of it or a sphere cut from it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from aetdist.geometry import centred_coordinates
from aetdist.project.atoms import project_atoms
from aetdist.schema import ATOMS, AXES, EULER, with_units
from aetdist.simulate import simulate_tilt_series
from aetdist.simulate.inputs import Z_EXPONENT, average_intensity

PIXEL, SIGMA = 0.347, 0.5  # Angstrom
HEIGHTS = np.array([28.0, 45.0, 78.0]) ** Z_EXPONENT  # of types 1, 2, 3: Co and Ni; Ru to Ag; Ir and Pt
DOSE = 1.7e4  # electrons per square Angstrom and tilt
CENTRE = 5.0  # Angstrom: what a pixel counts is said for the middle of the whole particle, so far around it


@dataclass(frozen=True)
class Imperfections:
    """What simulated data have that the model of round atoms has not; standard deviations, but for the last but one.

    Parameters
    ----------
    shift : float
        Pixels along each axis, of every tilt.
    angle : float
        Degrees, of each of the three Euler angles of every tilt.
    gain : float
        Of every tilt, relative.
    tails : float
        Part of every atom's intensity that is spread twice as widely.
    saturation : float
        Part by which the brightest pixel is too dark; others in proportion to their brightness.
    width : float
        Of every atom, relative.
    """

    shift: float = 0.15
    angle: float = 0.2
    gain: float = 0.01
    tails: float = 0.15
    saturation: float = 0.05
    width: float = 0.05


@dataclass(frozen=True, eq=False)
class Case:
    """A tilt series with its truth.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES in memory, with the angles that an experimenter would believe.
    truth : xarray.Dataset
        ATOMS: ``position``, ``type``, and ``sigma`` (atom,) in Angstrom.
    counts : float or None
        Electrons that a pixel of intensity 1 counts; None without noise.
    taken : dict
        What was simulated, for the record.
    geometry : dict
        ``angles`` (tilt, euler) in degrees and ``shifts`` (tilt, [y, x]) in pixels that are true.
    """

    series: xr.Dataset
    truth: xr.Dataset
    counts: float | None
    taken: dict[str, Any]
    geometry: dict[str, np.ndarray]


def published_particle() -> tuple[xr.Dataset, np.ndarray]:
    """The paper's nanoparticle around its centre, and its angles (tilt, euler) in degrees. Needs AETDIST_DATA."""
    with h5py.File(Path(os.environ["AETDIST_DATA"]) / "metallic_glass_nanoparticle.h5") as file:
        positions, types = file["positions_angstrom"][:].astype(np.float64), file["types"][:].astype(np.int64)
        angles = file["angles_deg"][:].astype(np.float64)
    return as_atoms(positions - positions.mean(axis=0), types), angles


def as_atoms(positions: np.ndarray, types: np.ndarray) -> xr.Dataset:
    """Atoms of the published width; positions (atom, axis) in Angstrom, types 1, 2, 3."""
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), positions),
            "type": ("atom", types),
            "sigma": ("atom", np.full(len(types), SIGMA)),
        },
        {"axis": list(AXES)},
    )
    return with_units(atoms, ATOMS)


def sphere(atoms: xr.Dataset, radius: float) -> xr.Dataset:
    """Atoms no farther than `radius` (Angstrom) from the origin, around their own centre."""
    cut = atoms.isel(atom=np.flatnonzero(np.linalg.norm(atoms["position"].values, axis=1) <= radius))
    return cut.assign(position=cut["position"] - cut["position"].mean("atom"))


def counts_per_intensity(atoms: xr.Dataset, angles: np.ndarray, efficiency: float) -> float:
    """Electrons for an intensity of 1 if a part `efficiency` of them is counted in the middle of the atoms' image."""
    x = centred_coordinates(2 * int(CENTRE / PIXEL) + 1, PIXEL)
    middle = project_atoms(
        atoms["position"].values, angles, heights=heights(atoms), sigmas=SIGMA, pixel_size=PIXEL, x=x, y=x
    ).mean(axis=0)[np.hypot(*np.meshgrid(x, x)) <= CENTRE]
    return float(DOSE * PIXEL**2 * efficiency / middle.mean())


def heights(atoms: xr.Dataset) -> np.ndarray:
    """Peak value of every atom by its type."""
    return HEIGHTS[atoms["type"].values - 1]


def simulated(
    whole: xr.Dataset,
    angles: np.ndarray,
    *,
    efficiency: float | None = 0.05,
    radius: float | None = None,
    every: int = 1,
    imperfect: Imperfections | None = None,
    seed: int = 0,
) -> Case:
    """A case of the atoms of a particle.

    Parameters
    ----------
    whole : xarray.Dataset
        ATOMS of the particle, which also says what an electron dose counts.
    angles : ndarray, shape (tilts, 3)
        Degrees.
    efficiency : float, optional
        Part of the electrons that is counted in the middle of the whole particle's image; None for no noise.
    radius : float, optional
        Only a sphere of the particle, in Angstrom: the same counts for each atom.
    every : int
        Only every so many tilts.
    imperfect : Imperfections, optional
        None: the series is what the model says.
    seed : int
        Of everything random.
    """
    atoms = whole if radius is None else sphere(whole, radius)
    counts = None if efficiency is None else counts_per_intensity(whole, angles, efficiency)
    angles = angles[::every]
    taken: dict[str, Any] = {"atoms": atoms.sizes["atom"], "tilts": len(angles), "seed": seed}
    geometry = {"angles": angles, "shifts": np.zeros((len(angles), 2))}
    positions, peaks = atoms["position"].values, heights(atoms)
    options: dict[str, Any] = {}
    if counts is not None:
        # What `simulate_tilt_series` calls efficiency is that where the sample is of average intensity.
        average = average_intensity(positions, peaks, atoms["sigma"].values, PIXEL)
        options = {"dose": DOSE, "efficiency": counts * average / (DOSE * PIXEL**2), "seed": seed}
        taken |= {
            "dose": DOSE,
            "efficiency": efficiency,
            "counts_per_pixel_at_the_centre": DOSE * PIXEL**2 * efficiency,
        }
    series = simulate_tilt_series(
        atoms, angles, pixel_size=PIXEL, sigma=SIGMA, heights=HEIGHTS.tolist(), **options
    ).compute()
    if imperfect is not None:
        atoms, images, geometry = spoilt_images(atoms, series, imperfect, counts, seed)
        series["images"].values[:] = images
        taken["imperfections"] = asdict(imperfect)
    if counts is not None:
        middle = np.hypot(*np.meshgrid(series["x"].values, series["y"].values)) <= CENTRE
        taken["counts_per_pixel_measured"] = float(counts * series["images"].values[:, middle].mean())
    return Case(series, atoms, counts, taken, geometry)


def spoilt_images(
    atoms: xr.Dataset, series: xr.Dataset, wrong: Imperfections, counts: float | None, seed: int
) -> tuple[xr.Dataset, np.ndarray, dict[str, np.ndarray]]:
    """Atoms with their own widths, images that no model of round atoms explains, and the true geometry."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    n_tilts, n_atoms = series.sizes["tilt"], atoms.sizes["atom"]
    widths = SIGMA * (1.0 + random.normal(0.0, wrong.width, n_atoms))
    angles = series["angles"].values + random.normal(0.0, wrong.angle, (n_tilts, len(EULER)))
    shifts = random.normal(0.0, wrong.shift, (n_tilts, 2))
    gains = 1.0 + random.normal(0.0, wrong.gain, n_tilts)
    # Twice as wide, an eighth as high: the same intensity.
    parts = ((1.0 - wrong.tails, widths), (wrong.tails / 8.0, 2.0 * widths))
    images = np.stack(
        [
            sum(
                project_atoms(
                    atoms["position"].values,
                    angles[[t]],
                    heights=part * heights(atoms),
                    sigmas=sigmas,
                    pixel_size=PIXEL,
                    x=series["x"].values - shifts[t, 1] * PIXEL,
                    y=series["y"].values - shifts[t, 0] * PIXEL,
                )[0]
                for part, sigmas in parts
            )
            for t in range(n_tilts)
        ]
    )
    images *= 1.0 - wrong.saturation * images / images.max()
    if counts is not None:
        images = random.poisson(counts * images) / counts
    images *= gains[:, None, None]
    return atoms.assign(sigma=("atom", widths)), images, {"angles": angles, "shifts": shifts}


def clean_images(case: Case) -> np.ndarray:
    """Images (tilt, y, x) of the true atoms at the angles that are believed, without noise and imperfections."""
    return project_atoms(
        case.truth["position"].values,
        case.series["angles"].values,
        heights=heights(case.truth),
        sigmas=SIGMA,
        pixel_size=PIXEL,
        x=case.series["x"].values,
        y=case.series["y"].values,
    )
