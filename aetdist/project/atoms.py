"""Gaussian atoms: their projections at arbitrary Euler angles, and their volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..geometry import matrices_from_euler
from ._atom_kernels import add_projected_atoms, add_rendered_atoms

CUTOFF = 5.0
"""A Gaussian reaches this many standard deviations: exp(-12.5) = 4e-6 of its peak is left out."""


def project_atoms(
    positions: ArrayLike,
    angles: ArrayLike,
    *,
    heights: ArrayLike = 1.0,
    sigmas: ArrayLike = 0.5,
    x: ArrayLike,
    y: ArrayLike,
    pixel_size: float,
    cutoff: float = CUTOFF,
) -> np.ndarray:
    """Projections of Gaussian atoms, each the sum along the beam in steps of one voxel.

    Parameters
    ----------
    positions : array_like, shape (atoms, 3), float
        x, y, z in Angstrom from the rotation's origin, in the sample's frame.
    angles : array_like, shape (tilts, 3), float
        Euler angles phi, theta, psi in degrees.
    heights : array_like, shape () or (atoms,), float
        Peak value H of an atom in the volume.
    sigmas : array_like, shape () or (atoms,), float
        Standard deviation of an atom in Angstrom.
    x, y : array_like, shape (nx,) and (ny,), float
        Lab coordinates of the detector's columns and rows in Angstrom, one pixel apart. The field
        may be smaller than the sample: atoms off it count as far as their Gaussians reach.
    pixel_size : float
        Edge of a pixel and of a voxel in Angstrom.
    cutoff : float
        Reach of a Gaussian in standard deviations, along each axis.

    Returns
    -------
    ndarray, shape (tilts, ny, nx), float64
        Projections in the unit of `heights`.

    Raises
    ------
    InputError
        If the atoms, the angles or the pixel coordinates cannot be used.

    Notes
    -----
    An atom V(r) = H exp(-r^2 / (2 sigma^2)) at r0 is seen at (R r0)_x, (R r0)_y as
    H sqrt(2 pi) (sigma / pixel) exp(-d^2 / (2 sigma^2)); its pixels sum to
    H (2 pi)^(3/2) (sigma / pixel)^3. Summing the rendered volume over voxels gives the same to
    2 exp(-2 pi^2 (sigma / pixel)^2), 1e-9 for a sigma of one voxel.
    """
    positions, heights, sigmas = checked_atoms(positions, heights, sigmas)
    check_pixel_size(pixel_size)
    columns = _start_and_length("x", x, pixel_size)
    rows = _start_and_length("y", y, pixel_size)
    matrices = matrices_from_euler(np.asarray(angles))
    images = np.zeros((len(matrices), rows[1], columns[1]))
    for matrix, image in zip(matrices, images, strict=True):
        lab = positions @ matrix[:2].T
        add_projected_atoms(
            np.ascontiguousarray((lab[:, 0] - columns[0]) / pixel_size),
            np.ascontiguousarray((lab[:, 1] - rows[0]) / pixel_size),
            heights,
            sigmas / pixel_size,
            cutoff,
            image,
        )
    return images


def render_atoms(
    positions: ArrayLike,
    *,
    heights: ArrayLike = 1.0,
    sigmas: ArrayLike = 0.5,
    x: ArrayLike,
    y: ArrayLike,
    z: ArrayLike,
    pixel_size: float,
    cutoff: float = CUTOFF,
    dtype: type = np.float32,
) -> np.ndarray:
    """Volume of Gaussian atoms.

    Parameters
    ----------
    positions, heights, sigmas, pixel_size, cutoff
        As in :func:`project_atoms`.
    x, y, z : array_like, shape (nx,), (ny,) and (nz,), float
        Sample coordinates of the voxels in Angstrom, one voxel apart.
    dtype : numpy floating type
        Type of the volume.

    Returns
    -------
    ndarray, shape (nz, ny, nx), `dtype`
        V(r) = sum of H exp(-|r - r0|^2 / (2 sigma^2)), in the unit of `heights`.

    Raises
    ------
    InputError
        If the atoms or the voxel coordinates cannot be used.
    """
    positions, heights, sigmas = checked_atoms(positions, heights, sigmas)
    check_pixel_size(pixel_size)
    grid = [_start_and_length(name, axis, pixel_size) for name, axis in (("x", x), ("y", y), ("z", z))]
    volume: np.ndarray = np.zeros(tuple(n for _, n in reversed(grid)), dtype=dtype)
    scaled = [np.ascontiguousarray((positions[:, i] - start) / pixel_size) for i, (start, _) in enumerate(grid)]
    add_rendered_atoms(*scaled, heights, sigmas / pixel_size, cutoff, volume)
    return volume


def checked_atoms(
    positions: ArrayLike, heights: ArrayLike, sigmas: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, heights and sigmas as float64 arrays of shape (atoms, 3), (atoms,), (atoms,).

    Raises
    ------
    InputError
        If there is no atom, a number is not finite, a height is negative or a sigma not positive.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"Atom positions came with shape {positions.shape}; needed is (atoms, 3) for x, y, z.")
    if len(positions) == 0:
        raise InputError("There are no atoms; give at least one position.")
    bad = ~np.isfinite(positions).all(axis=1)
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(positions)} atoms have positions that are not finite numbers, "
            f"atom {int(np.argmax(bad))} first; drop or mend them."
        )
    values = []
    for name, value in (("heights", heights), ("sigmas", sigmas)):
        array = np.asarray(value, dtype=np.float64)
        if array.shape not in ((), (len(positions),)):
            raise InputError(
                f"{name} came with shape {array.shape}; needed is one number or one for each of {len(positions)} atoms."
            )
        values.append(np.ascontiguousarray(np.broadcast_to(array, len(positions))))
    if not (np.isfinite(values[0]).all() and values[0].min() >= 0.0):
        raise InputError("The heights of the atoms must be finite and not negative; mend the ones that are not.")
    if not (np.isfinite(values[1]).all() and values[1].min() > 0.0):
        raise InputError(
            f"sigma came as {values[1].min():g} Angstrom; a Gaussian atom needs a width above 0, e.g. sigma=0.5."
        )
    return positions, values[0], values[1]


def check_pixel_size(pixel_size: float) -> None:
    """Refuse a pixel size that is not a positive number."""
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"The pixel size came as {pixel_size!r}; needed is a positive number in Angstrom.")


def _start_and_length(name: str, coordinates: ArrayLike, step: float) -> tuple[float, int]:
    """First coordinate and number of pixels of an axis whose pixels are `step` apart."""
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if coordinates.ndim != 1 or coordinates.size == 0 or not np.isfinite(coordinates).all():
        raise InputError(f"{name} came with shape {coordinates.shape}; needed is one finite coordinate for each pixel.")
    off = np.abs(coordinates - (coordinates[0] + step * np.arange(coordinates.size))).max()
    if off > 1e-3 * step:
        raise InputError(
            f"The coordinates {name} are not {step:g} Angstrom apart (off by up to {off:.3g}); "
            "give evenly spaced pixel coordinates that fit pixel_size."
        )
    return float(coordinates[0]), coordinates.size
