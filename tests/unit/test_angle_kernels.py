"""Gauss-Newton sums of an image against its prediction."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from aetdist.angles._kernels import BLOCK, MARGIN, PARAMETERS, fit_peaks, local_maxima, normal_equations
from aetdist.angles.model import kernel_memory, model_in_memory
from aetdist.geometry import ParallelGeometry, euler_from_matrices, matrices_from_euler
from aetdist.project import ParallelProjector
from aetdist.project.atoms import project_atoms, render_atoms

NY, NX, SIGMA = 44, 52, 1.7


def exact(atoms: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What Gaussian atoms look like: no voxels, no interpolation."""
    y, x = np.arange(NY) - NY // 2, np.arange(NX) - NX // 2
    angles = euler_from_matrices(matrix[None])
    return project_atoms(atoms, angles, sigmas=SIGMA, x=x - shift[1], y=y - shift[0], pixel_size=1.0)[0]


def test_normal_equations__are_those_of_exact_derivatives_by_finite_differences() -> None:
    random = np.random.default_rng(1)
    atoms = random.uniform(-12, 12, (60, 3))
    matrix = matrices_from_euler([[3.0, 35.0, -2.0]])[0]
    shift, scale = np.array([0.4, -0.7]), 1.3
    x = np.arange(48) - 24.0
    volume = render_atoms(atoms, sigmas=SIGMA, x=x, y=x, z=x, pixel_size=1.0)
    start = np.array([[-(NY // 2), -(NX // 2)]]) - shift
    geometry = ParallelGeometry(matrix[None], volume.shape, (-24.0, -24.0, -24.0), (NY, NX), start)
    model, moment = (a[0] for a in ParallelProjector(geometry).moments(volume))
    image = (scale * model + random.normal(0, 0.5, model.shape)).astype(np.float32)
    mask = random.random(model.shape) < 0.9

    columns, h = [], 1e-4
    for k in range(PARAMETERS):
        up, down = (h * np.eye(PARAMETERS)[k] * sign for sign in (1, -1))
        seen = [
            (scale + d[5]) * exact(atoms, Rotation.from_rotvec(d[:3]).as_matrix() @ matrix, shift + d[3:5])
            for d in (up, down)
        ]
        columns.append((seen[0] - seen[1]) / (2 * h))
    inside = mask.copy()
    inside[:MARGIN] = inside[-MARGIN:] = False
    inside[:, :MARGIN] = inside[:, -MARGIN:] = False
    j = np.stack([c[inside] for c in columns], axis=1)
    j -= j.mean(axis=0)  # of a constant background, which says nothing
    r = (image - scale * model)[inside].astype(np.float64)
    r -= r.mean()

    a, b, square, scatter = normal_equations(image + np.float32(5.0), mask, model, moment, start[0], scale)
    norm = np.linalg.norm(j, axis=0)
    assert np.abs((a - j.T @ j) / np.outer(norm, norm)).max() < 0.04
    assert np.abs((b - j.T @ r) / (norm * np.linalg.norm(r))).max() < 0.01
    assert np.isclose(square, (r**2).sum())
    parts = np.zeros((6 * 7, PARAMETERS))
    rows, cols = np.nonzero(inside)
    np.add.at(parts, rows // BLOCK * 7 + cols // BLOCK, j * r[:, None])
    expected = parts.T @ parts
    assert np.abs((scatter - expected) / np.sqrt(np.outer(np.diag(expected), np.diag(expected)))).max() < 0.06


def test_local_maxima__are_those_of_a_maximum_filter() -> None:
    """Ties and voxels near a face too; none on a face."""
    volume = np.random.default_rng(0).integers(0, 40, (19, 23, 17)).astype(np.float32)
    for reach, least in ((1, 0.0), (2, 30.0)):
        expected = (ndimage.maximum_filter(volume, 2 * reach + 1) == volume) & (volume > least)
        expected[[0, -1]] = expected[:, [0, -1]] = expected[:, :, [0, -1]] = False
        found = local_maxima(volume, reach, least)
        assert len(found) > 5 and np.array_equal(found, np.argwhere(expected))
    assert len(local_maxima(np.zeros((8, 8, 8), np.float32), 1, 0.0)) == 0


def test_fit_peaks__makes_the_step_of_its_formula() -> None:
    """Voxel by voxel, for peaks inside, at a face and beyond it."""
    random = np.random.default_rng(1)
    difference = random.normal(0.0, 1.0, (14, 15, 16)).astype(np.float32)
    positions = np.array([[6.3, 7.1, 8.6], [0.2, 14.1, 3.5], [40.0, 3.0, 3.0]])
    heights, width, reach = np.array([5.0, 3.0, 1.0]), 1.3, 3
    grid = np.stack(np.meshgrid(*map(np.arange, difference.shape), indexing="ij"), axis=-1)
    expected = []
    for p, h in zip(positions, heights, strict=True):
        cube = (np.abs(grid - np.round(p)) <= reach).all(axis=-1)
        d, values = (grid - p)[cube], difference[cube].astype(np.float64)
        g = np.exp(-(d**2).sum(axis=1) / (2 * width**2))
        if not cube.any():
            expected.append([*p, h])
            continue
        slope = h * (g**2 * (d**2).sum(axis=1)).sum() / (3 * width**2)
        step = np.clip(0.7 * (values * g) @ d / slope, -0.1, 0.1)
        expected.append([*(p + step), max(0.0, h + 0.7 * (values @ g) / (g @ g))])
    fit_peaks(difference, positions, heights, width, reach, 0.1)
    np.testing.assert_allclose(np.column_stack([positions, heights]), expected, rtol=1e-12)


def test_model__projects_what_it_predicts() -> None:
    random = np.random.default_rng(2)
    volume = random.random((12, 14, 10)).astype(np.float32)
    model = model_in_memory(kernel_memory(volume), (-6.0, -7.0, -5.0), (16, 18), (-8.0, -9.0))
    matrices = matrices_from_euler([[1.0, -50.0, 2.0], [0.0, 30.0, 0.0]])
    shifts = random.normal(0.0, 1.0, (2, 2))
    assert np.array_equal(model.images(matrices, shifts), model.predict(matrices, shifts)[0])
