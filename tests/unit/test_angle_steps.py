"""Least squares of a tilt against a volume that was made with its own image."""

from __future__ import annotations

import numpy as np

from aetdist.angles._kernels import MARGIN
from aetdist.angles.least_squares import fit_tilts
from aetdist.angles.model import kernel_memory, model_in_memory
from aetdist.geometry import ParallelGeometry, matrices_from_euler
from aetdist.project import ParallelProjector
from aetdist.project.atoms import project_atoms
from aetdist.reconstruct.solvers import Objective, eigenvalue_for, solve

N = 64


def test_fit_tilts__comes_to_an_end_where_the_volume_was_made() -> None:
    """It has fitted the pattern of these rotations' shears: small steps, right as they may be, raise the residual."""
    random = np.random.default_rng(3)
    directions = random.normal(size=(120, 3))
    atoms = 20.0 * random.random((120, 1)) ** (1 / 3) * directions / np.linalg.norm(directions, axis=1)[:, None]
    true = np.array([[0.0, t, 0.0] for t in np.linspace(-65, 65, 17)])
    wrong = true + random.normal(0.0, 0.15, true.shape)
    x = np.arange(N) - N // 2
    images = project_atoms(atoms, true, sigmas=1.5, x=x, y=x, pixel_size=1.0)
    images = (images + 0.05 * images.mean() * random.normal(size=images.shape)).astype(np.float32)
    masks, matrices = np.ones(images.shape, bool), matrices_from_euler(wrong)
    start = (-N // 2.0,) * 2
    geometry = ParallelGeometry(matrices, (N, N, N), (*start, start[0]), (N, N), np.tile(start, (len(true), 1)))
    solution = solve(
        Objective(ParallelProjector(geometry), images, masks),
        solver="ordered_subsets", iterations=8, step=1.0 / eigenvalue_for("ordered_subsets", geometry),
    )  # fmt: skip
    model = model_in_memory(kernel_memory(solution.volume), (*start, start[0]), (N, N), start)
    fit = fit_tilts(model, images, masks, matrices, np.zeros((len(true), 2)), iterations=8)
    assert fit.settled.mean() > 0.9
    before, after = (
        [unexplained(image, seen) for image, seen in zip(images, model.images(*where), strict=True)]
        for where in ((matrices, np.zeros((len(true), 2))), (fit.matrices, fit.shifts))
    )
    assert (np.array(after) <= np.array(before) * (1 + 1e-6)).all()


def unexplained(image: np.ndarray, seen: np.ndarray) -> float:
    """What a fit minimises: the rest of an image after the brightness and the background that fit best."""
    image, seen = (a[MARGIN:-MARGIN, MARGIN:-MARGIN].ravel().astype(np.float64) for a in (image, seen))
    columns = np.stack([seen, np.ones(seen.size)], axis=1)
    return float(np.linalg.norm(image - columns @ np.linalg.lstsq(columns, image, rcond=None)[0]))
