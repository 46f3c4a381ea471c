"""Objects whose truth is known, and their tilt series, simulated without any of the projectors compared."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import xarray as xr

import aetdist as aet
from aetdist.geometry import ParallelGeometry, centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.project import ParallelProjector
from aetdist.project.atoms import project_atoms, render_atoms
from aetdist.reconstruct.solvers import Objective

VOXEL = 0.347  # Angstrom
SIGMA = 0.5  # Angstrom, of an atom


@dataclass(frozen=True, eq=False)
class Problem:
    """A volume (z, y, x), its images (tilt, y, x), both float32, and the angles in degrees between them."""

    angles: np.ndarray
    images: np.ndarray
    truth: np.ndarray

    @property
    def geometry(self) -> ParallelGeometry:
        """Volume and detector centred on the rotation's origin."""
        return ParallelGeometry.centred(matrices_from_euler(self.angles), self.truth.shape, self.images.shape[1:])

    def objective(self, threads: int = 1) -> Objective:
        """What the solvers minimise; every pixel was measured."""
        return Objective(ParallelProjector(self.geometry, threads), self.images, np.ones(self.images.shape, bool))


def data_folder() -> Path | None:
    """The published data sets, if AETDIST_DATA names them."""
    folder = os.environ.get("AETDIST_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None


def gaussian_atoms(
    positions: np.ndarray, angles: np.ndarray, n: int, heights: np.ndarray | float = 1.0, sigma: float = SIGMA
) -> Problem:
    """Gaussian atoms in n^3 voxels: rendered for the truth, each projected by its formula for the images."""
    c = centred_coordinates(n, VOXEL)
    volume = render_atoms(positions, heights=heights, sigmas=sigma, x=c, y=c, z=c, pixel_size=VOXEL)
    images = project_atoms(positions, angles, heights=heights, sigmas=sigma, x=c, y=c, pixel_size=VOXEL)
    return Problem(angles, images.astype(np.float32), volume.astype(np.float32))


def sphere(n: int, n_tilts: int) -> Problem:
    """A glass of two species filling most of the cube; single axis, -70 to 70 degrees."""
    atoms = aet.nanoparticle(0.8 * n * VOXEL, species=("Ni", "Pt"), seed=1)
    heights = np.where(atoms["type"].values == 1, 1.0, 2.5)
    return gaussian_atoms(atoms["position"].values, euler_from_tilts(np.linspace(-70, 70, n_tilts)), n, heights)


def particle(n: int) -> Problem:
    """The published nanoparticle at its 55 Euler angles; where it is absent or too large, one that was made up."""
    folder = data_folder()
    if folder is None or n < 280:
        rng = np.random.default_rng(1)
        atoms = aet.nanoparticle(0.8 * n * VOXEL, species=("Ni", "Pt"), seed=1)
        angles = np.stack([rng.normal(0, 1, 55), np.linspace(-69, 72, 55), rng.normal(0, 1, 55)], axis=1)
        return gaussian_atoms(atoms["position"].values, angles, n)
    with h5py.File(folder / "metallic_glass_nanoparticle.h5") as file:
        positions, types, angles = (file[name][:] for name in ("positions_angstrom", "types", "angles_deg"))
    heights = np.array([28.0, 46.0, 78.0])[types.astype(int) - 1] / 46.0  # atomic numbers
    return gaussian_atoms(positions.astype(np.float64), angles.astype(np.float64), n, heights)


def resire_sample() -> Problem | None:
    """The published test object of the RESIRE package (single axis), if it is here."""
    folder = data_folder()
    if folder is None:
        return None
    path = folder / "resire_sample_64.h5"
    series = aet.import_tilt_series([path], images="projections", angles="angles_deg", pixel_size=1.0).compute()
    with h5py.File(path) as file:
        return Problem(series["angles"].values, series["images"].values, file["volume"][:].astype(np.float32))


def noise_volume(n: int, n_tilts: int) -> Problem:
    """Random voxels at Euler angles near one axis: for timing alone."""
    rng = np.random.default_rng(2)
    angles = np.stack([rng.normal(0, 1, n_tilts), np.linspace(-69, 72, n_tilts), rng.normal(0, 1, n_tilts)], axis=1)
    return Problem(angles, rng.random((n_tilts, n, n), dtype=np.float32), rng.random((n, n, n), dtype=np.float32))


def measured_film() -> xr.Dataset | None:
    """The tilt series of the measured film, field A, if it is here."""
    folder = data_folder()
    if folder is None:
        return None
    return aet.import_tilt_series(
        [folder / "ta_film_fov_A.h5"],
        images="images",
        angles="angles_deg",
        mask="mask",
        x_pixels="x_pix",
        y_pixels="y_pix",
        pixel_size=0.3216,
    ).compute()


def simulated_film(field: tuple[int, int], n_tilts: int, thickness: float = 14.0) -> xr.Dataset:
    """The tilt series of a made-up film that goes on beyond the field (nx, ny in pixels of 0.4 Angstrom)."""
    extent = tuple(1.6 * 0.4 * n for n in field)
    atoms = aet.amorphous_film(extent, thickness, species=("Ta",), seed=3)
    angles = euler_from_tilts(np.linspace(-60, 60, n_tilts))
    return aet.simulate_tilt_series(atoms, angles, pixel_size=0.4, field=field, dose=2e5, seed=4)


def film_validation() -> ModuleType:
    """tests/validation/film.py: what holds a film's volume against the published one."""
    path = Path(__file__).parents[2] / "validation" / "film.py"
    spec = importlib.util.spec_from_file_location("film", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
