"""A and A^T against plain references and laws."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.geometry import ParallelGeometry, matrices_from_euler
from aetdist.project import ParallelProjector, empty_volume, operator
from aetdist.project.atoms import project_atoms, render_atoms


def gaussian(shape: tuple[int, int, int], centre: tuple[float, float, float], sigma: float = 2.0) -> np.ndarray:
    """A blob at `centre` (x, y, z) from voxel n // 2."""
    z, y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    r2 = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
    return np.exp(-r2 / (2 * sigma**2)).astype(np.float32)


def projected_gaussian(rotation: np.ndarray, centre: tuple[float, float, float], n: int, sigma: float) -> np.ndarray:
    """What its projection is: the line integral of a Gaussian is a Gaussian."""
    u, v, _ = rotation @ np.array(centre)
    y, x = np.meshgrid(np.arange(n) - n // 2, np.arange(n) - n // 2, indexing="ij")
    return np.sqrt(2 * np.pi) * sigma * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))


@pytest.mark.parametrize("angles", [(0, 0, 0), (5, 40, -3), (0, 70, 0), (170, -80, 95), (90, 10, 45), (30, 5, 88)])
def test_projector__projects_a_gaussian_as_the_integral_does(angles: tuple[float, float, float]) -> None:
    """Position, height and width for all three principal axes."""
    centre, n, sigma = (6.3, -4.6, 5.2), 48, 2.0
    rotation = matrices_from_euler([angles])
    image = ParallelProjector(ParallelGeometry.centred(rotation, (n, n, n), (n, n))).forward(
        gaussian((n, n, n), centre, sigma)
    )[0]
    truth = projected_gaussian(rotation[0], centre, n, sigma)
    assert np.abs(image - truth).max() < 0.01 * truth.max()
    assert np.abs(image - truth).sum() < 0.015 * truth.sum()
    assert abs(image.sum() / truth.sum() - 1) < 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_projector__adjoint_is_the_transpose(seed: int) -> None:
    """<A x, y> = <x, A^T y> for random angles of any size, off-centre grids and narrow detectors."""
    rng = np.random.default_rng(seed)
    shape, detector = tuple(rng.integers(5, 40, 3)), tuple(rng.integers(4, 30, 2))
    geometry = ParallelGeometry(
        matrices_from_euler(rng.uniform(-180, 180, (7, 3))),
        shape,
        tuple(rng.uniform(-30, 0, 3)),
        detector,
        rng.uniform(-20, 5, (7, 2)),
    )
    projector = ParallelProjector(geometry)
    volume = rng.normal(size=shape).astype(np.float32)
    images = rng.normal(size=projector.image_shape).astype(np.float32)
    forward, adjoint = projector.forward(volume), projector.adjoint(images)
    left = np.vdot(forward.astype(np.float64), images)
    right = np.vdot(volume.astype(np.float64), adjoint)
    assert abs(left - right) < 1e-6 * np.linalg.norm(volume) * np.linalg.norm(adjoint)
    assert np.linalg.norm(adjoint) > 0


def random_geometry(seed: int) -> ParallelGeometry:
    """Volumes from one voxel to long thin films, detectors that see part of them or nothing, right angles too."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(rng.integers(1, n + 1)) for n in rng.choice([2, 5, 20, 90], 3))
    detector = tuple(int(rng.integers(1, n + 1)) for n in rng.choice([2, 5, 20, 60], 2))
    n = int(rng.integers(1, 8))
    angles = [
        rng.uniform(-360, 360, (n, 3)),
        np.column_stack([rng.normal(0, 1, n), rng.uniform(-80, 80, n), rng.normal(0, 1, n)]),
        rng.choice([0, 45, -45, 90, 180, -90, 135, 54.7356], (n, 3)),
    ][seed % 3]
    start = tuple(rng.uniform(-40, 10, 3))
    return ParallelGeometry(matrices_from_euler(angles), shape, start, detector, rng.uniform(-40, 20, (n, 2)))


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_projector__corners_of_geometry(first: int) -> None:
    """The adjoint is the transpose, and two parts of a volume add up to the whole, whatever the shapes."""
    for seed in range(first, first + 20):
        geometry, rng = random_geometry(seed), np.random.default_rng(seed)
        projector, shape = ParallelProjector(geometry), geometry.volume_shape
        volume = rng.normal(size=shape).astype(np.float32)
        images = rng.normal(size=projector.image_shape).astype(np.float32)
        forward, adjoint = projector.forward(volume), projector.adjoint(images)
        left, right = np.vdot(forward.astype(np.float64), images), np.vdot(volume.astype(np.float64), adjoint)
        assert abs(left - right) <= 1e-5 * (0.1 + np.linalg.norm(volume) * np.linalg.norm(adjoint)), seed
        axis = int(np.argmax(shape))
        cut = int(rng.integers(1, max(2, shape[axis])))
        total = np.zeros_like(forward)
        for here in (slice(0, cut), slice(cut, shape[axis])):
            if here.stop > here.start:
                corner, size = [0, 0, 0], list(shape)
                corner[axis], size[axis] = here.start, here.stop - here.start
                block = volume[tuple(here if a == axis else slice(None) for a in range(3))]
                total += ParallelProjector(geometry.part(tuple(corner), tuple(size))).forward(block)
        np.testing.assert_allclose(total, forward, atol=1e-5 * max(1.0, np.abs(forward).max()), err_msg=str(seed))


def test_projector__adjoint_of_a_film_wider_than_the_detector() -> None:
    """Most of the volume is beyond the detector at every tilt, off-axis angles included."""
    rng = np.random.default_rng(0)
    angles = np.column_stack([rng.normal(0, 0.5, 8), np.linspace(-65, 65, 8), rng.normal(0, 0.5, 8)])
    geometry = ParallelGeometry.centred(matrices_from_euler(angles), (40, 12, 700), (12, 60))
    projector = ParallelProjector(geometry)
    volume = rng.normal(size=(40, 12, 700)).astype(np.float32)
    images = rng.normal(size=projector.image_shape).astype(np.float32)
    forward, adjoint = projector.forward(volume), projector.adjoint(images)
    right = np.vdot(volume.astype(np.float64), adjoint)
    assert np.vdot(forward.astype(np.float64), images) == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("tilt_axis", [90.0, -90.0, 180.0])
def test_projector__a_turned_tilt_axis_is_a_turned_image(tilt_axis: float) -> None:
    """Steps that are no more than rounding do not lose pixels."""
    from aetdist.project import make_projector

    angles = [[tilt_axis, t, 0.0] for t in range(-60, 61, 12)]
    volume = gaussian((32, 32, 32), (3.0, 2.0, -4.0))
    geometry = ParallelGeometry.centred(matrices_from_euler(angles), (32, 32, 32), (32, 32))
    images, exact = (make_projector(name, geometry).forward(volume) for name in ("shear", "fourier"))
    np.testing.assert_allclose(images, exact, atol=0.01 * exact.max())


def test_projector__does_not_depend_on_threads_or_memory_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer to the bit."""
    monkeypatch.setattr(operator, "_VOXEL_TILTS_PER_THREAD", 1)  # else so small a volume stays in one thread
    rng = np.random.default_rng(1)
    geometry = ParallelGeometry.centred(matrices_from_euler(rng.uniform(-80, 80, (9, 3))), (20, 24, 28), (22, 26))
    volume = empty_volume((20, 24, 28))
    volume[...] = rng.random((20, 24, 28), dtype=np.float32)
    one, three = ParallelProjector(geometry, 1), ParallelProjector(geometry, 3)
    images = one.forward(volume)
    np.testing.assert_array_equal(images, three.forward(np.ascontiguousarray(volume)))
    np.testing.assert_array_equal(one.adjoint(images), three.adjoint(images))
    np.testing.assert_array_equal(one.adjoint(images), one.adjoint(images, out=np.zeros((20, 24, 28), np.float32)))


def test_projector__adds_the_adjoint_to_out() -> None:
    """`out` is added to, not replaced."""
    geometry = ParallelGeometry.centred(matrices_from_euler([[0, 20, 0], [3, 75, 1]]), (8, 9, 10), (9, 10))
    projector = ParallelProjector(geometry)
    images = np.random.default_rng(0).random(projector.image_shape, dtype=np.float32)
    out = empty_volume((8, 9, 10), 1.0)
    projector.adjoint(images, out=out)
    np.testing.assert_allclose(out, projector.adjoint(images) + 1, rtol=1e-5)


def test_projector__keeps_the_mass_of_what_the_detector_sees() -> None:
    """The sum over a projection is the sum over the volume, at any tilt."""
    volume = gaussian((40, 40, 40), (3.0, 2.0, -4.0), 3.0)
    rotations = matrices_from_euler([[0, t, 0] for t in (-70, -45, -10, 0, 30, 60)])
    images = ParallelProjector(ParallelGeometry.centred(rotations, (40, 40, 40), (64, 64))).forward(volume)
    np.testing.assert_allclose(images.sum(axis=(1, 2)), volume.sum(), rtol=2e-3)


def test_projector__a_shifted_detector_sees_a_shifted_image() -> None:
    """A crop by whole pixels is the crop of the image, exactly."""
    rotations = matrices_from_euler([[1, 30, 2], [0, -66, 1]])
    volume = np.random.default_rng(0).random((16, 30, 40), dtype=np.float32)
    geometry = ParallelGeometry.centred(rotations, (16, 30, 40), (30, 40))
    whole = ParallelProjector(geometry).forward(volume)
    crop = ParallelProjector(geometry.crop_detector(slice(5, 17), slice(11, 30))).forward(volume)
    np.testing.assert_allclose(crop, whole[:, 5:17, 11:30], rtol=1e-5, atol=1e-5)


def test_projector__a_volume_that_no_ray_meets_projects_to_zero() -> None:
    """Far away is nothing, not an error."""
    geometry = ParallelGeometry(
        matrices_from_euler([[0, 0, 0]]), (4, 4, 4), (0.0, 1000.0, 0.0), (8, 8), np.zeros((1, 2))
    )
    projector = ParallelProjector(geometry)
    assert not projector.forward(np.ones((4, 4, 4), np.float32)).any()
    assert not projector.adjoint(np.ones((1, 8, 8), np.float32)).any()


def test_projector__refuses_another_shape() -> None:
    """The message names both shapes."""
    projector = ParallelProjector(ParallelGeometry.centred(matrices_from_euler([[0, 0, 0]]), (4, 4, 4), (4, 4)))
    with pytest.raises(InputError, match=r"\(4, 4, 5\).*\(4, 4, 4\)"):
        projector.forward(np.zeros((4, 4, 5), np.float32))


@pytest.mark.parametrize("angles", [(5.0, 20.0, -3.0), (0.0, 75.0, 2.0), (3.0, 4.0, 80.0)])
def test_moments__are_projections_of_z_times_the_volume(angles: tuple[float, float, float]) -> None:
    # Gaussian atoms: the height of each above z = 0 of the laboratory is known.
    random = np.random.default_rng(0)
    atoms = random.uniform(-9, 9, (20, 3))
    x = np.arange(48) - 24.0
    volume = render_atoms(atoms, sigmas=1.6, x=x, y=x, z=x, pixel_size=1.0)
    geometry = ParallelGeometry.centred(matrices_from_euler([angles]), (48, 48, 48), (48, 48))
    images, moments = ParallelProjector(geometry).moments(volume)
    heights = atoms @ geometry.matrices[0][2]
    up, down = (
        project_atoms(atoms, [angles], heights=np.maximum(s * heights, 0), sigmas=1.6, x=x, y=x, pixel_size=1.0)[0]
        for s in (1, -1)
    )
    np.testing.assert_array_equal(images, ParallelProjector(geometry).forward(volume))
    assert np.abs(moments[0] - (up - down)).max() < 0.03 * np.abs(up - down).max()
