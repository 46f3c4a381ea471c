"""Other people's angles, converted to Euler angles at the door.

A convention is a way of saying which rotation took the sample to the laboratory:

``yang2021``
    Columns phi, theta, psi (the house convention); one column is theta.
``single``
    One column: the tilt about the tilt axis, with the house sign: for an axis along y,
    lab x = x cos(theta) - z sin(theta).
``imod``
    One column as in IMOD's ``.tlt`` and ``.rawtlt``: x right, y up, z to the viewer, positive tilts
    are right-handed rotations of the specimen about y, x' = x cos(tilt) + z sin(tilt). That is the
    other sign: theta = -tilt.
``astra``
    Twelve columns as in ASTRA's ``parallel3d_vec``: ray, centre of the detector, step from a
    pixel to the next along a row (u) and along a column (v), in the frame of the volume.

A tilt axis that does not lie along image y is said by the angle `tilt_axis` from image y to the axis,
positive from y towards -x (right-handed about the beam; in IMOD and SerialEM, where row 0 is drawn at
the bottom, the counter-clockwise "rotation angle"). Images are not resampled: with alpha the angle and
T the rotation for an axis along y, R = Rz(alpha) T Rz(-alpha), so that the axis stays where it is, and
at zero tilt the sample's x and y are the image's.

References
----------
Y. Yang et al., Nature 592, 60-64 (2021); J. R. Kremer et al., J. Struct. Biol. 116, 71-76 (1996)
(IMOD, manual page of tilt); W. van Aarle et al., Opt. Express 24, 25129 (2016) (ASTRA, 3D geometries).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .euler import euler_from_matrices, euler_from_tilts, matrices_from_euler

CONVENTIONS = ("yang2021", "single", "imod", "astra")
_COLUMNS = {"yang2021": (1, 3), "single": (1,), "imod": (1,), "astra": (12,)}


class AstraGeometry(NamedTuple):
    """What ASTRA vectors say, in the words of this package.

    Attributes
    ----------
    matrices : ndarray, shape (n, 3, 3), float64
        ``lab = R @ sample``, the sample's axes being those of ASTRA's volume.
    pixel_size : float
        Edge of a detector pixel, in ASTRA's unit of length (usually the voxel).
    centre : ndarray, shape (n, 2), float64
        Lab coordinates (y, x) of the middle of the detector from the middle of ASTRA's volume, in pixels.
    """

    matrices: np.ndarray
    pixel_size: float
    centre: np.ndarray


def euler_from_convention(
    angles: np.ndarray, convention: str = "yang2021", *, tilt_axis: float = 0.0, flip_tilt: bool = False
) -> np.ndarray:
    """Euler angles of angles given in another convention.

    Parameters
    ----------
    angles : array_like, shape (n,) or (n, columns)
        One, three or twelve columns, see the module; degrees (ASTRA vectors: any length).
    convention : {"yang2021", "single", "imod", "astra"}
        What the columns mean.
    tilt_axis : float
        Angle from image y to the tilt axis in degrees, positive towards -x.
    flip_tilt : bool
        Reverse the sense of the tilt. It is the same as mirroring the sample at z = 0: the
        projections stay, the handedness of the reconstruction changes.

    Returns
    -------
    ndarray, shape (n, 3), float64
        phi, theta, psi in degrees.

    Raises
    ------
    InputError
        If the convention is unknown, the number of columns does not fit it, or a number is not finite.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"The angle convention {convention!r} is not known; choose one of {', '.join(CONVENTIONS)}.")
    if not np.isfinite(tilt_axis):
        raise InputError(f"The tilt axis came as {tilt_axis} degrees; needed is a finite angle from image y.")
    table = _as_table(angles, convention)
    if convention == "astra":
        if tilt_axis != 0:
            raise InputError(
                f"A tilt axis of {tilt_axis} degrees came with ASTRA vectors, which hold the whole geometry; "
                "leave it out."
            )
        euler = euler_from_matrices(matrices_from_astra(table).matrices)
    elif table.shape[1] == 3:
        euler = table.copy()
    else:
        euler = euler_from_tilts(-table[:, 0] if convention == "imod" else table[:, 0])
    if flip_tilt:
        euler = euler * np.array([1.0, -1.0, -1.0])
    return rotate_tilt_axis(euler, tilt_axis)


def rotate_tilt_axis(angles: np.ndarray, tilt_axis: float) -> np.ndarray:
    """Euler angles after sample and detector axes were both turned about the beam.

    Parameters
    ----------
    angles : array_like, shape (n, 3)
        phi, theta, psi in degrees.
    tilt_axis : float
        Angle in degrees by which the tilt axis moves from y towards -x.

    Returns
    -------
    ndarray, shape (n, 3), float64
        Euler angles of Rz(tilt_axis) R Rz(-tilt_axis), in degrees; the input itself when the angle is 0.
    """
    angles = np.asarray(angles, dtype=np.float64)
    if tilt_axis == 0:
        return angles
    turn = _about_z(tilt_axis)
    return euler_from_matrices(turn @ matrices_from_euler(angles) @ turn.T)


def single_tilts_from_euler(angles: np.ndarray, *, tilt_axis: float = 0.0, tolerance: float = 1e-6) -> np.ndarray:
    """Tilts about one axis, the inverse of ``euler_from_convention(tilts, "single", tilt_axis=...)``.

    Parameters
    ----------
    angles : array_like, shape (n, 3)
        phi, theta, psi in degrees.
    tilt_axis : float
        Angle from image y to the tilt axis in degrees, positive towards -x.
    tolerance : float
        How far, in degrees, a rotation may be from one about that axis.

    Returns
    -------
    ndarray, shape (n,), float64
        Tilts in (-180, 180] degrees.

    Raises
    ------
    InputError
        If the rotation of a tilt is not about that axis.
    """
    turn = _about_z(-tilt_axis)
    matrices = turn @ matrices_from_euler(angles) @ turn.T
    tilts = np.arctan2(-matrices[:, 0, 2], matrices[:, 0, 0])
    error = np.abs(matrices - matrices_from_euler(euler_from_tilts(np.rad2deg(tilts)))).max(axis=(1, 2), initial=0.0)
    worst = np.rad2deg(error.max(initial=0.0))
    if worst > tolerance:
        raise InputError(
            f"The series is not single-axis about {tilt_axis:g} degrees from image y: tilt {int(error.argmax())} is "
            f"{worst:.3g} degrees off; keep the Euler angles, or raise the tolerance to drop the rest."
        )
    return np.rad2deg(tilts)


def imod_tilts_from_euler(angles: np.ndarray, *, tilt_axis: float = 0.0, tolerance: float = 1e-6) -> np.ndarray:
    """Tilts as IMOD's ``.tlt`` holds them, in degrees; see :func:`single_tilts_from_euler`."""
    return -single_tilts_from_euler(angles, tilt_axis=tilt_axis, tolerance=tolerance)


def matrices_from_astra(vectors: np.ndarray) -> AstraGeometry:
    """Rotation matrices and detector positions of ASTRA's ``parallel3d_vec``.

    Parameters
    ----------
    vectors : array_like, shape (n, 12)
        (ray, d, u, v) of every projection, each (x, y, z) in the frame of ASTRA's volume.

    Returns
    -------
    AstraGeometry
        Matrices, pixel size and where the middle of the detector lies.

    Raises
    ------
    InputError
        If u, v and the ray of a projection are not at right angles, or pixels are not square and
        equal in all projections.

    Notes
    -----
    The rows of R are u and v, normalised, and their cross product. The direction in which a ray is walked
    does not matter to a parallel projection, so the ray may also be the negative of that product.
    """
    vectors = _as_table(vectors, "astra")
    ray, d, u, v = (vectors[:, 3 * k : 3 * k + 3] for k in range(4))
    lengths = np.stack([np.linalg.norm(a, axis=1) for a in (ray, u, v)])
    if (lengths == 0).any():
        raise InputError(
            f"ASTRA vectors of projection {int(np.argmax((lengths == 0).any(axis=0)))} hold a ray, u or v of length 0."
        )
    ray, x, y = ray / lengths[0][:, None], u / lengths[1][:, None], v / lengths[2][:, None]
    skew = np.stack([np.abs((a * b).sum(axis=1)) for a, b in ((x, y), (x, ray), (y, ray))]).max(axis=0, initial=0.0)
    if skew.size and skew.max() > 1e-6:
        raise InputError(
            f"ASTRA vectors of projection {int(skew.argmax())}: ray, u and v are not at right angles "
            f"(cosine {skew.max():.2g}); a slanted detector has to be resampled before import."
        )
    pixel_size = float(lengths[1:].mean()) if len(vectors) else 1.0
    if np.abs(lengths[1:] / pixel_size - 1).max(initial=0.0) > 1e-6:
        raise InputError(
            f"ASTRA vectors have detector pixels of {lengths[1:].min():.6g} to {lengths[1:].max():.6g}; "
            "needed are square pixels of one size in all projections."
        )
    centre = np.stack([(d * y).sum(axis=1), (d * x).sum(axis=1)], axis=1) / pixel_size
    return AstraGeometry(np.stack([x, y, np.cross(x, y)], axis=1), pixel_size, centre)


def astra_from_matrices(
    matrices: np.ndarray, *, pixel_size: float = 1.0, centre: np.ndarray | tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """ASTRA ``parallel3d_vec`` vectors, the inverse of :func:`matrices_from_astra`.

    Parameters
    ----------
    matrices : array_like, shape (n, 3, 3)
        ``lab = R @ sample``.
    pixel_size : float
        Edge of a detector pixel in ASTRA's unit of length (1 when it is the voxel).
    centre : array_like, shape (2,) or (n, 2)
        Lab coordinates (y, x) of the middle of the detector from the middle of ASTRA's volume, in
        pixels. ASTRA puts the origin into the middle of the volume and the detector, this package
        into voxel and pixel n // 2: for arrays centred here, see :func:`astra_centre`.

    Returns
    -------
    ndarray, shape (n, 12), float64
        (ray, d, u, v) of every projection.
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise InputError(f"Rotation matrices came with shape {matrices.shape}; needed is (tilts, 3, 3).")
    centre = np.broadcast_to(np.asarray(centre, dtype=np.float64), (len(matrices), 2))
    x, y, z = matrices[:, 0], matrices[:, 1], matrices[:, 2]
    d = pixel_size * (centre[:, 1:] * x + centre[:, :1] * y)
    return np.concatenate([z, d, pixel_size * x, pixel_size * y], axis=1)


def astra_centre(
    matrices: np.ndarray, volume_shape: tuple[int, int, int], detector_shape: tuple[int, int]
) -> np.ndarray:
    """Where ASTRA finds the middle of a detector when volume and detector are centred the way they are here.

    Parameters
    ----------
    matrices : array_like, shape (n, 3, 3)
        ``lab = R @ sample``.
    volume_shape : tuple of int
        (nz, ny, nx), the rotation's origin being voxel ``n // 2``.
    detector_shape : tuple of int
        (ny, nx), the origin's projection being pixel ``n // 2``.

    Returns
    -------
    ndarray, shape (n, 2), float64
        Lab coordinates (y, x) of the middle of the detector from the middle of the volume, in pixels.
    """
    origin = np.array([n // 2 - (n - 1) / 2 for n in reversed(volume_shape)])  # (x, y, z) from ASTRA's origin
    middle = np.array([(n - 1) / 2 - n // 2 for n in detector_shape])  # (y, x) from the projection of our origin
    return (np.asarray(matrices, dtype=np.float64) @ origin)[:, [1, 0]] + middle


def _about_z(degrees: float) -> np.ndarray:
    """The right-handed rotation about z, shape (3, 3)."""
    return matrices_from_euler(np.array([[-degrees, 0.0, 0.0]]))[0]


def _as_table(angles: np.ndarray, convention: str) -> np.ndarray:
    """`angles` as finite float64 numbers of shape (n, columns that fit the convention)."""
    table = np.asarray(angles)
    if table.dtype.kind not in "fiu":
        raise InputError(f"The angles are {table.dtype}; needed are real numbers.")
    table = table.astype(np.float64)
    if table.ndim == 1:
        table = table[:, None]
    wanted = _COLUMNS[convention]
    if table.ndim != 2 or table.shape[1] not in wanted:
        raise InputError(
            f"Angles in the {convention} convention came with shape {np.shape(angles)}; needed is one row for each "
            f"tilt and {' or '.join(map(str, wanted))} column{'s' if wanted != (1,) else ''}; "
            "give the matching angle convention, or transpose the table."
        )
    if not np.isfinite(table).all():
        bad = int(np.argmax(~np.isfinite(table).all(axis=1)))
        raise InputError(f"The angles of tilt {bad} are not finite numbers; give every tilt its angles.")
    return table
