"""A and A^T through Fourier space, against integrals, sums and laws."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import aetdist as aet
from aetdist.errors import CapacityError, InputError
from aetdist.geometry import ParallelGeometry, matrices_from_euler
from aetdist.project import empty_volume
from aetdist.project.fourier import FourierProjector


def random_geometry(seed: int) -> ParallelGeometry:
    """Any angles, off-centre grids of any shape, narrow and wide detectors."""
    rng = np.random.default_rng(seed)
    shape, detector = (tuple(int(n) for n in rng.integers(low, high)) for low, high in ((1, [40] * 3), (1, [30] * 2)))
    return ParallelGeometry(
        matrices_from_euler(rng.uniform(-180, 180, (7, 3))),
        shape,
        tuple(rng.uniform(-30, 0, 3)),
        detector,
        rng.uniform(-20, 5, (7, 2)),
    )


def blob(geometry: ParallelGeometry, centre: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian at `centre` (x, y, z)."""
    axes = (s + np.arange(n) for s, n in zip(geometry.volume_start, geometry.volume_shape, strict=True))
    z, y, x = np.meshgrid(*axes, indexing="ij")
    r2 = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
    return np.exp(-r2 / (2 * sigma**2)).astype(np.float32)


@pytest.mark.parametrize("angles", [(0, 0, 0), (5, 40, -3), (0, 70, 0), (170, -80, 95), (90, 10, 45), (30, 5, 88)])
def test_fourier__projects_a_gaussian_as_the_integral_does(angles: tuple[float, float, float]) -> None:
    """To 0.1 % of its height at most, with fractions of a voxel in every offset and a detector that cuts it."""
    rotation = matrices_from_euler([angles])
    geometry = ParallelGeometry(rotation, (40, 44, 48), (-20.3, -21.6, -25.5), (26, 31), np.array([[-9.4, -18.8]]))
    centre, sigma = np.array([6.3, -4.6, 5.2]), 2.0
    u, v, _ = rotation[0] @ centre
    y, x = np.meshgrid(np.arange(26) - 9.4, np.arange(31) - 18.8, indexing="ij")
    truth = np.sqrt(2 * np.pi) * sigma * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    image = FourierProjector(geometry).forward(blob(geometry, centre, sigma))[0]
    assert np.abs(image - truth).max() < 1e-3 * np.sqrt(2 * np.pi) * sigma
    assert truth.max() > 1


@pytest.mark.parametrize("seed", range(8))
def test_fourier__adjoint_is_the_transpose(seed: int) -> None:
    """<A x, y> = <x, A^T y>, and |A x|^2 = <x, A^T A x>, to 1e-6."""
    geometry = random_geometry(seed)
    projector = FourierProjector(geometry)
    rng = np.random.default_rng(seed)
    volume = rng.normal(size=geometry.volume_shape).astype(np.float32)
    images = rng.normal(size=projector.image_shape).astype(np.float32)
    forward, adjoint = projector.forward(volume), projector.adjoint(images)
    left = np.vdot(forward.astype(np.float64), images)
    right = np.vdot(volume.astype(np.float64), adjoint)
    assert np.linalg.norm(adjoint) > 0
    assert abs(left - right) < 1e-6 * np.linalg.norm(volume) * np.linalg.norm(adjoint)
    square = np.vdot(forward.astype(np.float64), forward)
    assert np.vdot(volume.astype(np.float64), projector.adjoint(forward)) == pytest.approx(square, rel=1e-6)


def test_fourier__does_not_depend_on_threads_or_memory_order() -> None:
    """One answer to the bit."""
    rng = np.random.default_rng(1)
    geometry = ParallelGeometry.centred(matrices_from_euler(rng.uniform(-80, 80, (9, 3))), (20, 24, 28), (22, 26))
    volume = empty_volume((20, 24, 28))
    volume[...] = rng.random((20, 24, 28), dtype=np.float32)
    one, three = FourierProjector(geometry, 1), FourierProjector(geometry, 3)
    images = one.forward(volume)
    np.testing.assert_array_equal(images, three.forward(np.ascontiguousarray(volume)))
    np.testing.assert_array_equal(one.adjoint(images), three.adjoint(images))
    np.testing.assert_array_equal(one.adjoint(images), one.adjoint(images, out=np.zeros((20, 24, 28), np.float32)))


def test_fourier__overwrites_images_and_adds_to_a_volume() -> None:
    """What `out` means for either direction."""
    geometry = ParallelGeometry.centred(matrices_from_euler([[0, 20, 0], [3, 75, 1]]), (8, 9, 10), (9, 10))
    projector = FourierProjector(geometry)
    images = np.random.default_rng(0).random(projector.image_shape, dtype=np.float32)
    volume = empty_volume((8, 9, 10), 1.0)
    assert projector.adjoint(images, out=volume) is volume
    np.testing.assert_allclose(volume, projector.adjoint(images) + 1, rtol=1e-5)
    full = np.full_like(images, 7.0)
    assert projector.forward(volume, out=full) is full
    np.testing.assert_array_equal(full, projector.forward(volume))


def test_fourier__sums_voxels_along_an_axis() -> None:
    """Rotations that take the grid to itself: plain sums, of noise too, the more exact the more oversampling."""
    volume = np.random.default_rng(0).random((13, 15, 17), dtype=np.float32)
    geometry = ParallelGeometry.centred(
        matrices_from_euler([[0, 0, 0], [0, 90, 0], [0, 0, 90]]), volume.shape, (21, 21)
    )
    sums = np.zeros((3, 21, 21))
    sums[0, 3:18, 2:19] = volume.sum(axis=0)
    sums[1, 3:18, 4:17] = volume.sum(axis=2).T[:, ::-1]  # lab x = -z
    sums[2, 4:17, 2:19] = volume.sum(axis=1)  # lab y = z
    for oversampling, limit in ((1.1, 2e-3), (1.5, 1e-4), (2.5, 1e-5)):
        images = FourierProjector(geometry, oversampling=oversampling).forward(volume)
        assert aet.r_factor(images, sums).max() < limit


def test_fourier__matter_beyond_the_detector_stays_there() -> None:
    """A narrow detector sees what a wide one sees there, however wide the volume."""
    rotations = matrices_from_euler([[2, -35, 1], [0, 0, 0], [30, 60, -4]])
    whole = ParallelGeometry.centred(rotations, (20, 70, 80), (140, 140))
    volume = sum(blob(whole, c, 2.0) for c in np.random.default_rng(0).uniform([-30, -25, -3], [30, 25, 3], (40, 3)))
    narrow = whole.crop_detector(slice(61, 80), slice(50, 90))
    expected = FourierProjector(whole).forward(volume)[:, 61:80, 50:90]
    np.testing.assert_allclose(FourierProjector(narrow).forward(volume), expected, atol=2e-3 * expected.max())


def test_fourier__parts_add_up_to_the_whole() -> None:
    """Two halves of a volume, cut where there is matter only in between the cuts' ringing."""
    rotations = matrices_from_euler([[2, -35, 1], [30, 60, -4]])
    geometry = ParallelGeometry.centred(rotations, (20, 40, 30), (44, 44))
    volume = blob(geometry, np.array([2.0, -10.0, 1.0]), 2.0) + blob(geometry, np.array([-4.0, 9.0, -2.0]), 2.0)
    total = sum(
        FourierProjector(geometry.part((0, first, 0), (20, 20, 30))).forward(volume[:, first : first + 20])
        for first in (0, 20)
    )
    np.testing.assert_allclose(total, FourierProjector(geometry).forward(volume), atol=2e-3 * total.max())


def test_fourier__a_volume_that_no_ray_meets_projects_to_zero() -> None:
    """Far away is nothing, not an error, and costs nothing."""
    geometry = ParallelGeometry(matrices_from_euler([[0, 0, 0]]), (4, 4, 4), (0.0, 1e6, 0.0), (8, 8), np.zeros((1, 2)))
    projector = FourierProjector(geometry, memory=2**20)
    assert not projector.forward(np.ones((4, 4, 4), np.float32)).any()
    assert not projector.adjoint(np.ones((1, 8, 8), np.float32)).any()


def test_fourier__takes_the_memory_that_it_says() -> None:
    """Peak of both directions beside the arrays that come and go: no more than required_bytes, and not far below."""
    geometry = ParallelGeometry.centred(matrices_from_euler([[0, t, 0] for t in (-60, 0, 45)]), (50, 60, 64), (60, 64))
    projector = FourierProjector(geometry)
    volume = np.ones(geometry.volume_shape, np.float32)
    images = projector.forward(volume)
    peaks = []
    for work in (lambda: projector.forward(volume, out=images), lambda: projector.adjoint(images, out=volume)):
        tracemalloc.start()
        work()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 0.6 * projector.required_bytes < max(peaks) <= projector.required_bytes


def test_fourier__refuses_a_spectrum_that_does_not_fit() -> None:
    """Before anything is allocated; the message says what would."""
    geometry = ParallelGeometry.centred(matrices_from_euler([[0, 0, 0]]), (40, 40, 40), (40, 40))
    need = FourierProjector(geometry).required_bytes
    assert FourierProjector(geometry, memory=need).required_bytes == need
    with pytest.raises(CapacityError, match=r"60 x 60 x 60 points.*lower oversampling \(now 1\.5\)"):
        FourierProjector(geometry, memory=need - 1)
    with pytest.raises(CapacityError, match=r"GiB are available"):
        FourierProjector(ParallelGeometry.centred(geometry.matrices, (20_000,) * 3, (40, 40)))


@pytest.mark.parametrize("oversampling", [1.0, 0.0, -2.0, np.nan, np.inf])
def test_fourier__refuses_an_oversampling_that_pads_nothing(oversampling: float) -> None:
    """It has to be above 1 and finite."""
    geometry = ParallelGeometry.centred(matrices_from_euler([[0, 0, 0]]), (4, 4, 4), (4, 4))
    with pytest.raises(InputError, match=r"oversampling came as .*above 1"):
        FourierProjector(geometry, oversampling=oversampling)


def test_fourier__refuses_another_shape() -> None:
    """The message names both shapes."""
    projector = FourierProjector(ParallelGeometry.centred(matrices_from_euler([[0, 0, 0]]), (4, 4, 4), (4, 5)))
    with pytest.raises(InputError, match=r"\(4, 4, 5\).*\(4, 4, 4\)"):
        projector.forward(np.zeros((4, 4, 5), np.float32))
    with pytest.raises(InputError, match=r"\(1, 4, 4\).*\(1, 4, 5\)"):
        projector.adjoint(np.zeros((1, 4, 4), np.float32))
