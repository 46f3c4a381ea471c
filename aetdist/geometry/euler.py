"""Euler angles, rotation matrices and single-axis tilts.

phi is about z, theta about y (the tilt), psi about x; right-handed active rotations;
R = (Rz(phi) Ry(theta) Rx(psi))^T and lab = R * sample, with the beam along lab z.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def matrices_from_euler(angles: np.ndarray) -> np.ndarray:
    """Rotation matrices that take sample vectors to the laboratory.

    Parameters
    ----------
    angles : array_like, shape (n, 3)
        phi, theta, psi of every tilt in degrees.

    Returns
    -------
    ndarray, shape (n, 3, 3), float64
        ``lab = R @ sample`` for vectors (x, y, z).

    Raises
    ------
    InputError
        If the angles are not n triples of finite numbers.

    Notes
    -----
    R = (Rz(phi) Ry(theta) Rx(psi))^T; for phi = psi = 0, lab x = x cos(theta) - z sin(theta).
    """
    angles = np.asarray(angles, dtype=np.float64)
    if angles.ndim != 2 or angles.shape[1] != 3:
        raise InputError(
            f"Euler angles came with shape {angles.shape}; needed is (tilts, 3) for phi, theta, psi; "
            "make single tilt angles into triples with euler_from_tilts."
        )
    if not np.isfinite(angles).all():
        bad = int(np.argmax(~np.isfinite(angles).all(axis=1)))
        raise InputError(f"The angles of tilt {bad} are not finite numbers; give each tilt three angles in degrees.")
    phi, theta, psi = np.deg2rad(angles).T
    zero, one = np.zeros_like(phi), np.ones_like(phi)

    def stack(rows: list[list[np.ndarray]]) -> np.ndarray:
        return np.moveaxis(np.array(rows), 2, 0)

    rz = stack([[np.cos(phi), -np.sin(phi), zero], [np.sin(phi), np.cos(phi), zero], [zero, zero, one]])
    ry = stack([[np.cos(theta), zero, np.sin(theta)], [zero, one, zero], [-np.sin(theta), zero, np.cos(theta)]])
    rx = stack([[one, zero, zero], [zero, np.cos(psi), -np.sin(psi)], [zero, np.sin(psi), np.cos(psi)]])
    return np.ascontiguousarray(np.swapaxes(rz @ ry @ rx, 1, 2))


def euler_from_matrices(matrices: np.ndarray) -> np.ndarray:
    """Euler angles of rotation matrices, the inverse of :func:`matrices_from_euler`.

    Parameters
    ----------
    matrices : array_like, shape (n, 3, 3)
        Proper rotations, ``lab = R @ sample``.

    Returns
    -------
    ndarray, shape (n, 3), float64
        phi in (-180, 180], theta in [-90, 90], psi in (-180, 180], in degrees. At theta = +-90
        only one combination of phi and psi is defined; psi is then 0.

    Raises
    ------
    InputError
        If a matrix is not a rotation (orthogonal with determinant +1 to 1e-6).
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise InputError(f"Rotation matrices came with shape {matrices.shape}; needed is (tilts, 3, 3).")
    defect = np.abs(matrices @ np.swapaxes(matrices, 1, 2) - np.eye(3)).max(axis=(1, 2))
    wrong = ~((defect < 1e-6) & (np.linalg.det(matrices) > 0))
    if wrong.any():
        raise InputError(
            f"Matrix {int(np.argmax(wrong))} is not a rotation (orthogonal, determinant +1, to 1e-6); "
            "a mirrored axis has to be undone before import."
        )
    m = np.swapaxes(matrices, 1, 2)  # Rz(phi) Ry(theta) Rx(psi)
    theta = np.arctan2(-m[:, 2, 0], np.hypot(m[:, 0, 0], m[:, 1, 0]))
    locked = np.hypot(m[:, 0, 0], m[:, 1, 0]) < 1e-9
    phi = np.where(locked, np.arctan2(-m[:, 0, 1], m[:, 1, 1]), np.arctan2(m[:, 1, 0], m[:, 0, 0]))
    psi = np.where(locked, 0.0, np.arctan2(m[:, 2, 1], m[:, 2, 2]))
    return np.rad2deg(np.stack([phi, theta, psi], axis=1))


def euler_from_tilts(tilts: np.ndarray) -> np.ndarray:
    """Euler angles of a single-axis series tilted about y.

    Parameters
    ----------
    tilts : array_like, shape (n,)
        Tilt angles in degrees.

    Returns
    -------
    ndarray, shape (n, 3), float64
        phi = psi = 0, theta = tilt, in degrees.
    """
    tilts = np.asarray(tilts, dtype=np.float64)
    if tilts.ndim != 1:
        raise InputError(f"Tilt angles came with shape {tilts.shape}; needed is one angle for each tilt.")
    angles = np.zeros((tilts.size, 3))
    angles[:, 1] = tilts
    return angles


def tilts_from_euler(angles: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Tilt angles of a series that is single-axis about y.

    Raises
    ------
    InputError
        If phi or psi of any tilt differ from 0 by more than `tolerance` degrees.
    """
    angles = np.asarray(angles, dtype=np.float64)
    off_axis = np.abs(angles[:, [0, 2]]).max(initial=0.0)
    if off_axis > tolerance:
        raise InputError(
            f"The series is not single-axis: phi or psi reach {off_axis:.3g} degrees; "
            "keep the Euler angles, or raise the tolerance to drop them."
        )
    return angles[:, 1].copy()
