"""Those that the engine is compared with: ASTRA on the CPU, ducc0's non-uniform FFT, a plain voxel-driven pair."""

from __future__ import annotations

import importlib.util
from typing import Any

import numba
import numpy as np

from aetdist.geometry import ParallelGeometry

from .cases import Problem


def installed(package: str) -> bool:
    """Whether a peer of the extra ``benchmark`` is here."""
    return importlib.util.find_spec(package) is not None


class AstraSlices:
    """SIRT or SART of ASTRA on the CPU, slice by slice with the projector "linear" (it has no 3D projector there).

    Parameters
    ----------
    problem : Problem
        Single axis: phi = psi = 0.
    algorithm : {"SIRT", "SART"}
    relaxation : float
        ASTRA's default is 1. Below 0 is clipped away after every update, as ours is.

    Notes
    -----
    ASTRA's rows run from the top (largest Y) down and its axes are centred on n / 2 - 1/2; ours on
    voxel n // 2. With X = x and Y = -z a voxel lies in the image at x cos(theta) - z sin(theta) =
    X cos(theta) + Y sin(theta), and the windows below put our centre at X = Y = 0.
    """

    def __init__(self, problem: Problem, algorithm: str, relaxation: float = 1.0) -> None:
        import astra

        if np.abs(problem.angles[:, [0, 2]]).max() > 1e-6:
            raise ValueError("ASTRA has slices only for a single axis: phi and psi have to be 0.")
        self._astra = astra
        nz, _, nx = problem.truth.shape
        self._tilts, n_rows, columns = problem.images.shape
        c, s = np.cos(np.deg2rad(problem.angles[:, 1])), np.sin(np.deg2rad(problem.angles[:, 1]))
        middle = (columns - 1) / 2 - columns // 2
        rays = astra.create_proj_geom("parallel_vec", columns, np.stack([-s, c, middle * c, middle * s, c, s], axis=1))
        left, bottom = -(nx // 2) - 0.5, nz // 2 - nz + 0.5
        grid = astra.create_vol_geom(nz, nx, left, left + nx, bottom, bottom + nz)
        self._projector = astra.create_projector("linear", rays, grid)
        self._volumes, self._sinograms, self._algorithms = [], [], []
        for y in range(n_rows):
            sinogram = astra.data2d.create("-sino", rays, np.ascontiguousarray(problem.images[:, y]))
            volume = astra.data2d.create("-vol", grid, 0)
            config = {
                **astra.astra_dict(algorithm),
                "ProjectorId": self._projector,
                "ProjectionDataId": sinogram,
                "ReconstructionDataId": volume,
                "option": {"MinConstraint": 0.0, "Relaxation": relaxation},
            }
            self._volumes.append(volume)
            self._sinograms.append(sinogram)
            self._algorithms.append(astra.algorithm.create(config))
        self._updates = self._tilts if algorithm == "SART" else 1

    def step(self) -> None:
        """One pass over all tilts: an iteration of SIRT, an update for each tilt of SART."""
        for algorithm in self._algorithms:
            self._astra.algorithm.run(algorithm, self._updates)

    @property
    def volume(self) -> np.ndarray:
        """(z, y, x)."""
        return np.stack([self._astra.data2d.get(v) for v in self._volumes], axis=1)

    def project(self, volume: np.ndarray) -> np.ndarray:
        """Its own projections (tilt, y, x) of a volume (z, y, x), to see that both mean the same."""
        images = []
        for y in range(volume.shape[1]):
            sinogram_id, sinogram = self._astra.create_sino(np.ascontiguousarray(volume[:, y]), self._projector)
            self._astra.data2d.delete(sinogram_id)
            images.append(sinogram)
        return np.stack(images, axis=1)

    def close(self) -> None:
        """Give its memory back."""
        self._astra.algorithm.delete(self._algorithms)
        self._astra.data2d.delete(self._volumes + self._sinograms)
        self._astra.projector.delete(self._projector)


class Nufft:
    """The projections' spectra as slices through the volume's spectrum, by ducc0, single precision, planned once.

    Images are real: the half of their spectrum that says everything is computed. The 2D FFTs between
    spectra and images are left out, in the peer's favour.
    """

    def __init__(self, geometry: ParallelGeometry, epsilon: float) -> None:
        import ducc0

        rows, columns = geometry.detector_shape
        ky, kx = np.meshgrid(2 * np.pi * np.fft.fftfreq(rows), 2 * np.pi * np.fft.rfftfreq(columns), indexing="ij")
        plane = np.stack([kx.ravel(), ky.ravel()], axis=1)
        coordinates = np.concatenate([plane @ m[:2] for m in geometry.matrices])[:, ::-1].astype(np.float32)
        options = {"coord": coordinates, "grid_shape": geometry.volume_shape, "epsilon": epsilon, "nthreads": 1}
        self._forward = ducc0.nufft.plan(nu2u=False, **options)
        self._adjoint = ducc0.nufft.plan(nu2u=True, **options)
        self._points = np.empty(len(coordinates), np.complex64)
        self._grid = np.empty(geometry.volume_shape, np.complex64)
        self._shape = (geometry.n_tilts, rows, columns // 2 + 1)

    def forward(self, density: np.ndarray) -> np.ndarray:
        """Spectra (tilt, ky, kx), half of kx, of a complex64 density (z, y, x)."""
        return self._forward.u2nu(grid=density, out=self._points, forward=True).reshape(self._shape)

    def pair(self, density: np.ndarray) -> np.ndarray:
        """The transform and its adjoint."""
        self.forward(density)
        return self._adjoint.nu2u(points=self._points, out=self._grid, forward=False)


@numba.njit(nogil=True)
def voxel_forward(volume: np.ndarray, matrices: np.ndarray, images: np.ndarray) -> None:
    """Voxel-driven splat with bilinear weights; volume (z, y, x), images (tilt, y, x), added to."""
    nz, ny, nx = volume.shape
    n_tilts, nv, nu = images.shape
    for t in range(n_tilts):
        for k in range(nz):
            for j in range(ny):
                for i in range(nx):
                    x, y, z = i - nx // 2, j - ny // 2, k - nz // 2
                    u = matrices[t, 0, 0] * x + matrices[t, 0, 1] * y + matrices[t, 0, 2] * z + nu // 2
                    v = matrices[t, 1, 0] * x + matrices[t, 1, 1] * y + matrices[t, 1, 2] * z + nv // 2
                    a, b = int(np.floor(u)), int(np.floor(v))
                    if 0 <= a < nu - 1 and 0 <= b < nv - 1:
                        f, g, value = u - a, v - b, volume[k, j, i]
                        images[t, b, a] += (1 - f) * (1 - g) * value
                        images[t, b, a + 1] += f * (1 - g) * value
                        images[t, b + 1, a] += (1 - f) * g * value
                        images[t, b + 1, a + 1] += f * g * value


@numba.njit(nogil=True)
def voxel_adjoint(images: np.ndarray, matrices: np.ndarray, volume: np.ndarray) -> None:
    """Its transpose, a gather; added to the volume."""
    nz, ny, nx = volume.shape
    n_tilts, nv, nu = images.shape
    for t in range(n_tilts):
        for k in range(nz):
            for j in range(ny):
                for i in range(nx):
                    x, y, z = i - nx // 2, j - ny // 2, k - nz // 2
                    u = matrices[t, 0, 0] * x + matrices[t, 0, 1] * y + matrices[t, 0, 2] * z + nu // 2
                    v = matrices[t, 1, 0] * x + matrices[t, 1, 1] * y + matrices[t, 1, 2] * z + nv // 2
                    a, b = int(np.floor(u)), int(np.floor(v))
                    if 0 <= a < nu - 1 and 0 <= b < nv - 1:
                        f, g = u - a, v - b
                        volume[k, j, i] += (
                            (1 - f) * (1 - g) * images[t, b, a]
                            + f * (1 - g) * images[t, b, a + 1]
                            + (1 - f) * g * images[t, b + 1, a]
                            + f * g * images[t, b + 1, a + 1]
                        )


def voxel_pair(volume: np.ndarray, geometry: ParallelGeometry) -> tuple[Any, Any]:
    """The voxel-driven projections of a volume (centred geometry), and back."""
    images = np.zeros((geometry.n_tilts, *geometry.detector_shape), np.float32)
    back = np.zeros(geometry.volume_shape, np.float32)
    voxel_forward(volume, geometry.matrices, images)
    voxel_adjoint(images, geometry.matrices, back)
    return images, back
