"""What no tilt series can tell: the rotation and the translation of the object as a whole."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def remove_common_motion(
    matrices: np.ndarray, shifts: np.ndarray, references: np.ndarray, *, used: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and shifts with the object turned and moved back as a whole.

    Parameters
    ----------
    matrices : ndarray, shape (tilt, 3, 3)
        lab = R @ sample.
    shifts : ndarray, shape (tilt, 2)
        Pixels [y, x], by which images are off those of the references.
    references : ndarray, shape (tilt, 3, 3)
        Rotations that these are to be nearest to.
    used : ndarray, shape (tilt,), bool, optional
        Tilts that count.

    Returns
    -------
    matrices, shifts : ndarray
        R_t Q^T and d_t - (R_t v)_yx, with Q the rotation that minimises sum |R_t - R0_t Q|^2 and v the
        translation that minimises what is left of the shifts.

    Notes
    -----
    R_t Q of a sample turned by Q^T shows the same images, and a sample moved by v is seen moved by R_t v. Q
    is found in closed form from the singular vectors of sum R0_t^T R_t (orthogonal Procrustes).
    """
    used = np.ones(len(matrices), bool) if used is None else used
    u, _, vt = np.linalg.svd(np.einsum("tji,tjk->ik", references[used], matrices[used]))
    common = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    turned = matrices @ common.T
    seen = turned[:, [1, 0]]
    v, *_ = np.linalg.lstsq(seen[used].reshape(-1, 3), shifts[used].reshape(-1), rcond=None)
    return turned, shifts - seen @ v


def pinned(
    matrices: np.ndarray,
    shifts: np.ndarray,
    references: np.ndarray,
    used: np.ndarray,
    settled: np.ndarray,
    *,
    maximum_angle: float,
    maximum_shift: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations and shifts without the common motion of all tilts but those that went astray.

    Parameters
    ----------
    matrices, shifts, references
        As in `remove_common_motion`; shifts are by how much the tilts moved.
    used : ndarray, shape (tilt,), bool
        Tilts that are judged.
    settled : ndarray, shape (tilt,), bool
        Tilts that may say what is common.
    maximum_angle, maximum_shift : float
        Degrees, and pixels along each axis.

    Returns
    -------
    matrices, shifts : ndarray
    astray : ndarray, shape (tilt,), bool
        Tilts that moved further.

    Notes
    -----
    One that went astray turns what all have in common, and could take others with it: the furthest one is left out
    first, then all are judged again.
    """
    astray = np.zeros(len(matrices), bool)
    while True:
        turned, moved = remove_common_motion(matrices, shifts, references, used=used & settled & ~astray)
        rotation = Rotation.from_matrix(turned @ np.swapaxes(references, 1, 2)).magnitude()
        beyond = np.maximum(np.degrees(rotation) / maximum_angle, np.abs(moved).max(axis=1) / maximum_shift)
        beyond[~used | astray] = 0.0
        if not beyond.max(initial=0.0) > 1.0:
            return turned, moved, astray
        astray[beyond.argmax()] = True
