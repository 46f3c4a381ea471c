"""Both projectors against an independent one: a non-uniform FFT (ducc0) and the Fourier slice theorem."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import aetdist as aet
from aetdist.geometry import ParallelGeometry, centred_coordinates, matrices_from_euler
from aetdist.project import ParallelProjector
from aetdist.project.atoms import project_atoms, render_atoms
from aetdist.project.fourier import FourierProjector

VOXEL = 0.347  # Angstrom
PERIOD = 193  # pixels: odd, and wider than volume and detector here


@pytest.fixture(scope="module")
def nufft():  # type: ignore[no-untyped-def]
    return pytest.importorskip("ducc0", reason="ducc0, the non-uniform FFT to compare with, is not installed").nufft


def oracle(nufft, volume: np.ndarray, geometry: ParallelGeometry, epsilon: float = 1e-6) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Projections (tilt, y, x) of the band-limited function through the voxels, in double precision."""
    fy, fx = np.meshgrid(np.fft.fftfreq(PERIOD), np.fft.fftfreq(PERIOD), indexing="ij")
    first = np.array(geometry.volume_start) + np.array(volume.shape) // 2  # sample (z, y, x) of mode 0
    images = []
    for rotation, (v0, u0) in zip(geometry.matrices, geometry.detector_start, strict=True):
        k = (fx[..., None] * rotation[0] + fy[..., None] * rotation[1])[..., ::-1]  # (z, y, x), cycles per voxel
        coordinates = 2 * np.pi * np.ascontiguousarray(k.reshape(-1, 3))
        spectrum = nufft.u2nu(grid=volume.astype(np.complex128), coord=coordinates, forward=True, epsilon=epsilon)
        spectrum = spectrum.reshape(fx.shape) * (np.abs(k).max(axis=-1) <= 0.5)
        spectrum *= np.exp(2j * np.pi * (fy * v0 + fx * u0 - k @ first))
        images.append(np.fft.ifft2(spectrum).real[: geometry.detector_shape[0], : geometry.detector_shape[1]])
    return np.array(images)


def r_factor(images: np.ndarray, truth: np.ndarray) -> float:
    """Eq. 4, mean over the tilts."""
    return float(aet.r_factor(images, truth).mean())


@pytest.mark.validation
def test_oracle__sample(nufft, data_folder: Path) -> None:  # type: ignore[no-untyped-def]
    """R against the published projections and against the oracle, which themselves agree to .0002."""
    with h5py.File(data_folder / "resire_sample_64.h5") as file:
        volume, images, angles = file["volume"][:], file["projections"][:], file["angles_deg"][:]
    geometry = ParallelGeometry.centred(matrices_from_euler(angles), volume.shape, images.shape[1:])
    truth = oracle(nufft, volume, geometry)
    assert r_factor(truth, images) <= 2e-4
    parallel = ParallelProjector(geometry).forward(volume)
    assert r_factor(parallel, images) <= 0.008
    assert r_factor(parallel, truth) <= 0.008
    fourier = FourierProjector(geometry).forward(volume)
    assert r_factor(fourier, images) <= 2.5e-4
    assert r_factor(fourier, truth) <= 2e-5


@pytest.mark.parametrize(
    ("name", "angles"),
    [
        ("z", [[5, 20, -3], [40, -30, 10], [170, 15, -20], [-100, 35, 5]]),
        ("y", [[0, 0, 90], [30, 10, 80], [170, -5, -75], [10, 5, 100]]),
        ("x", [[0, 90, 0], [20, 75, 10], [-60, -80, 15], [160, 100, -5]]),
    ],
)
def test_oracle__atoms_at_any_angle(nufft, name: str, angles: list[list[float]]) -> None:  # type: ignore[no-untyped-def]
    """Gaussian atoms of 0.4 Angstrom, beam nearest to each axis of the volume; volume and detector off centre.

    R against the oracle: found .012 to .018 by shearing; below .0002 by Fourier slices, most of it the ringing of
    band edges in periods of different length. The oracle itself is .0016 from the integrals of the atoms at most.
    """
    matrices = matrices_from_euler(np.array(angles, dtype=float))
    assert set(np.argmax(np.abs(matrices[:, 2]), axis=1)) == {"xyz".index(name)}
    positions = aet.nanoparticle(12.0, species=("Cu", "Zr"), seed=5)["position"].values
    z, y, x = centred_coordinates(44, VOXEL), centred_coordinates(46, VOXEL), centred_coordinates(48, VOXEL)
    volume = render_atoms(positions, heights=1.0, sigmas=0.4, x=x, y=y, z=z, pixel_size=VOXEL).astype(np.float32)
    v, u = centred_coordinates(52, VOXEL) + 0.3 * VOXEL, centred_coordinates(54, VOXEL) - 0.45 * VOXEL
    geometry = ParallelGeometry(
        matrices, volume.shape, (-22.0, -23.0, -24.0), (52, 54), np.tile([v[0] / VOXEL, u[0] / VOXEL], (4, 1))
    )
    truth = oracle(nufft, volume, geometry)
    exact = project_atoms(positions, angles, heights=1.0, sigmas=0.4, x=u, y=v, pixel_size=VOXEL)
    parallel, fourier = ParallelProjector(geometry).forward(volume), FourierProjector(geometry).forward(volume)
    assert r_factor(truth, exact) <= 0.002
    assert r_factor(parallel, truth) <= 0.025
    assert r_factor(fourier, truth) <= 3e-4
    assert r_factor(fourier, exact) <= 0.002


def test_oracle__part_of_a_band_limited_field(nufft) -> None:  # type: ignore[no-untyped-def]
    """A narrow detector under a wide volume of noise: found R .0005 to .0009 by shearing, .00002 by slices."""
    rng = np.random.default_rng(3)
    volume = np.zeros((20, 60, 90), np.float32)
    volume[5:-5, 5:-5, 5:-5] = rng.random((10, 50, 80), dtype=np.float32)
    volume = gaussian_filter(volume, 1.2)
    matrices = matrices_from_euler([[2, -35, 1], [0, 0, 0], [30, 60, -4]])
    geometry = ParallelGeometry(matrices, volume.shape, (-10.5, -30.0, -44.8), (18, 23), rng.uniform(-12, -8, (3, 2)))
    truth = oracle(nufft, volume, geometry)
    parallel, fourier = ParallelProjector(geometry).forward(volume), FourierProjector(geometry).forward(volume)
    assert r_factor(parallel, truth) <= 0.002
    assert r_factor(fourier, truth) <= 5e-5
