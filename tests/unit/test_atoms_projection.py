"""Projections and volumes of Gaussian atoms against plain references and physical laws."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.geometry import ParallelGeometry, centred_coordinates, matrices_from_euler
from aetdist.project import ParallelProjector
from aetdist.project.atoms import project_atoms, render_atoms

PIXEL = 0.35


def cloud(n: int, reach: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-reach, reach, (n, 3)), rng.uniform(0.5, 3.0, n), rng.uniform(0.4, 0.7, n)


def plain_projection(positions, angles, heights, sigmas, x, y, pixel):
    images = np.zeros((len(angles), len(y), len(x)))
    for image, matrix in zip(images, matrices_from_euler(angles), strict=True):
        for r, h, s in zip(positions, heights, sigmas, strict=True):
            u, v, _ = matrix @ r
            d2 = (x[None, :] - u) ** 2 + (y[:, None] - v) ** 2
            image += h * np.sqrt(2 * np.pi) * s / pixel * np.exp(-d2 / (2 * s * s))
    return images


def test_project_atoms__equals_plain_reference_at_euler_angles_on_an_off_centre_field():
    positions, heights, sigmas = cloud(40, 9.0)
    angles = np.array([[0.0, 0.0, 0.0], [3.0, 61.0, -2.0], [-120.0, -35.0, 17.0]])
    x, y = centred_coordinates(31, PIXEL) + 2.1, centred_coordinates(24, PIXEL) - 1.3
    found = project_atoms(positions, angles, heights=heights, sigmas=sigmas, x=x, y=y, pixel_size=PIXEL)
    plain = plain_projection(positions, angles, heights, sigmas, x, y, PIXEL)
    assert found.shape == (3, 24, 31)
    assert np.abs(found - plain).max() < 2e-5 * plain.max()


def test_project_atoms__lab_x_is_x_cos_minus_z_sin():
    position = np.array([[4.0, 2.0, 3.0]])
    x, y = centred_coordinates(61, 0.2), centred_coordinates(61, 0.2)
    image = project_atoms(position, [[0.0, 30.0, 0.0]], sigmas=0.5, x=x, y=y, pixel_size=0.2)[0]
    mean_x = (image.sum(axis=0) * x).sum() / image.sum()
    mean_y = (image.sum(axis=1) * y).sum() / image.sum()
    assert mean_x == pytest.approx(4.0 * np.cos(np.pi / 6) - 3.0 * np.sin(np.pi / 6), abs=1e-5)
    assert mean_y == pytest.approx(2.0, abs=1e-5)


def test_project_atoms__rotated_atoms_give_the_projection_of_the_rotated_series():
    positions, heights, sigmas = cloud(30, 6.0)
    angles = np.array([[5.0, 40.0, -7.0]])
    grid = {"x": centred_coordinates(61, PIXEL), "y": centred_coordinates(61, PIXEL), "pixel_size": PIXEL}
    tilted = project_atoms(positions, angles, heights=heights, sigmas=sigmas, **grid)
    lab = positions @ matrices_from_euler(angles)[0].T
    untilted = project_atoms(lab, [[0.0, 0.0, 0.0]], heights=heights, sigmas=sigmas, **grid)
    np.testing.assert_allclose(tilted, untilted, atol=1e-10)


def test_project_atoms__conserves_mass_at_every_tilt():
    positions, heights, sigmas = cloud(50, 5.0)
    angles = np.array([[0.0, t, 1.0] for t in (-70.0, 0.0, 33.0)])
    grid = centred_coordinates(91, PIXEL)
    images = project_atoms(positions, angles, heights=heights, sigmas=sigmas, x=grid, y=grid, pixel_size=PIXEL)
    mass = (heights * (2 * np.pi) ** 1.5 * (sigmas / PIXEL) ** 3).sum()
    np.testing.assert_allclose(images.sum(axis=(1, 2)), mass, rtol=3e-6)


def test_project_atoms__a_smaller_field_is_a_crop_of_a_larger_one():
    positions, heights, sigmas = cloud(60, 12.0)
    angles = np.array([[1.0, 25.0, 0.5]])
    x, y = centred_coordinates(101, PIXEL), centred_coordinates(91, PIXEL)
    options = {"heights": heights, "sigmas": sigmas, "pixel_size": PIXEL}
    whole = project_atoms(positions, angles, x=x, y=y, **options)
    part = project_atoms(positions, angles, x=x[40:70], y=y[10:30], **options)
    np.testing.assert_allclose(part, whole[:, 10:30, 40:70], atol=1e-12)


def test_render_atoms__equals_plain_reference_and_sums_to_the_projection():
    positions, heights, sigmas = cloud(25, 4.0)
    x, y, z = (centred_coordinates(n, PIXEL) for n in (43, 44, 45))
    volume = render_atoms(positions, heights=heights, sigmas=sigmas, x=x, y=y, z=z, pixel_size=PIXEL, dtype=np.float64)
    plain = np.zeros_like(volume)
    for r, h, s in zip(positions, heights, sigmas, strict=True):
        d2 = (x[None, None] - r[0]) ** 2 + (y[None, :, None] - r[1]) ** 2 + (z[:, None, None] - r[2]) ** 2
        plain += h * np.exp(-d2 / (2 * s * s))
    assert volume.shape == (45, 44, 43)
    assert np.abs(volume - plain).max() < 2e-5 * plain.max()
    image = project_atoms(positions, np.zeros((1, 3)), heights=heights, sigmas=sigmas, x=x, y=y, pixel_size=PIXEL)[0]
    assert np.abs(volume.sum(axis=0) - image).max() < 3e-5 * image.max()


def test_project_atoms__equals_the_voxel_projector_on_the_rendered_volume():
    positions, heights, sigmas = cloud(40, 5.0)
    angles = np.array([[0.0, 0.0, 0.0], [2.0, 37.0, -3.0], [-1.0, -68.0, 4.0]])
    grid = centred_coordinates(53, PIXEL)
    options = {"heights": heights, "sigmas": sigmas, "pixel_size": PIXEL}
    volume = render_atoms(positions, x=grid, y=grid, z=grid, **options)
    geometry = ParallelGeometry.centred(matrices_from_euler(angles), volume.shape, (53, 53))
    voxels = ParallelProjector(geometry).forward(volume)
    atoms = project_atoms(positions, angles, x=grid, y=grid, **options)
    relative = np.abs(voxels - atoms).sum(axis=(1, 2)) / atoms.sum(axis=(1, 2))
    assert relative[0] < 2e-3 and relative.max() < 1e-2  # the voxel projector interpolates between voxels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((0, 3))}, "no atoms"),
        ({"positions": [[0.0, np.nan, 0.0]]}, "not finite"),
        ({"positions": [[0.0, 0.0]]}, "shape"),
        ({"sigmas": 0.0}, "sigma came as 0"),
        ({"sigmas": [0.5, 0.5]}, "one for each of 1 atoms"),
        ({"heights": -1.0}, "not negative"),
        ({"pixel_size": 0.0}, "pixel size"),
        ({"pixel_size": 0.4}, "apart"),
        ({"x": []}, "one finite coordinate"),
        ({"angles": [[0.0, np.inf, 0.0]]}, "angles of tilt 0"),
    ],
)
def test_project_atoms__refuses_bad_input(change, message):
    good = {"positions": [[0.0, 0.0, 0.0]], "angles": [[0.0, 0.0, 0.0]], "x": centred_coordinates(9, PIXEL)}
    good |= {"y": centred_coordinates(9, PIXEL), "pixel_size": PIXEL} | change
    with pytest.raises(InputError, match=message):
        project_atoms(**good)
