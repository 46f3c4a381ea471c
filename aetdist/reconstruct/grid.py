"""From a tilt series to the grid of its volume: where it lies, how large it has to be, what it needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import ParallelGeometry, grid_step, matrices_from_euler
from ..schema import TILT_SERIES, check


@dataclass(frozen=True, eq=False)
class Field:
    """The measured field: rotations, detector and pixel size of a tilt series, without its images.

    ``matrices`` (tilt, 3, 3); ``detector_shape`` (y, x); ``detector_start`` lab (y, x) of pixel
    [0, 0] in pixels; ``pixel_size`` in Angstrom.
    """

    matrices: np.ndarray
    detector_shape: tuple[int, int]
    detector_start: tuple[float, float]
    pixel_size: float

    @classmethod
    def of(cls, tilt_series: xr.Dataset) -> Field:
        """The field of a tilt series.

        Raises
        ------
        InputError
            If it is not a tilt series, has no tilts, an angle is not a finite number, or its pixels are not squares.
        """
        check(tilt_series, TILT_SERIES)
        if tilt_series.sizes["tilt"] == 0:
            raise InputError("The tilt series has no tilts; import at least one image with its angles.")
        angles = tilt_series["angles"].values
        undefined = np.flatnonzero(~np.isfinite(angles).all(axis=1))
        if undefined.size:
            raise InputError(
                f"The angles of tilt {undefined[0]} came as {angles[undefined[0]].tolist()}; needed are finite numbers "
                "in degrees; mend them or leave that tilt out."
            )
        steps = [grid_step(tilt_series[d].values) for d in ("y", "x") if tilt_series.sizes[d] > 1]
        size = float(tilt_series["pixel_size"]) if "pixel_size" in tilt_series else steps[0]
        if any(abs(s - size) > 1e-3 * size for s in steps):
            raise InputError(
                f"The pixels measure {' x '.join(f'{s:.4g}' for s in steps)} Angstrom (y, x) and the pixel size is "
                f"{size:.4g}; needed are square pixels with rising coordinates; resample or import again."
            )
        start = tuple(float(tilt_series[d].values[0]) / size for d in ("y", "x"))
        matrices = matrices_from_euler(tilt_series["angles"].values)
        return cls(matrices, (tilt_series.sizes["y"], tilt_series.sizes["x"]), start, size)  # type: ignore[arg-type]

    @property
    def centre(self) -> tuple[int, int]:
        """Voxel (y, x) above the middle pixel of the detector."""
        return tuple(int(np.round(s)) + n // 2 for s, n in zip(self.detector_start, self.detector_shape, strict=True))  # type: ignore[return-value]

    def geometry(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> ParallelGeometry:
        """The detector and a grid of voxels as large as its pixels."""
        return ParallelGeometry(
            self.matrices,
            shape,
            tuple(float(s) for s in start),  # type: ignore[arg-type]
            self.detector_shape,
            np.tile(np.asarray(self.detector_start, dtype=np.float64), (len(self.matrices), 1)),
        )


def covering_box(
    matrices: np.ndarray,
    half_y: float,
    half_x: float,
    z_low: float,
    z_high: float,
    centre: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, float, float, float]:
    """How far matter between two heights can lie and still be seen by a detector.

    Parameters
    ----------
    matrices : ndarray, shape (n, 3, 3)
    half_y, half_x : float
        Half widths of the detector.
    z_low, z_high : float
        Heights.
    centre : tuple of float
        Lab (y, x) of the middle of the detector in every tilt. (0, 0) for one that follows a point of
        the sample; lengths are then from that point.

    Returns
    -------
    y_low, y_high, x_low, x_high : float
        In the unit of the input. For a tilt by theta about y: |x| <= (half_x + |z| sin(theta)) / cos(theta).

    Raises
    ------
    InputError
        If the beam runs nearly (within 3 degrees) along the film in some tilt.
    """
    in_plane = matrices[:, :2, :2]
    determinant = np.abs(np.linalg.det(in_plane))
    if determinant.min() < np.sin(np.deg2rad(3.0)):
        raise InputError(
            f"Tilt {int(determinant.argmin())} looks along the film (within 3 degrees); "
            "leave that tilt out, or give the volume's shape (--shape NX NY NZ)."
        )
    inverse = np.linalg.inv(in_plane)
    corners = []
    for z in (z_low, z_high):
        for u in (-half_x, half_x):
            for v in (-half_y, half_y):
                target = np.array([centre[1] + u, centre[0] + v]) - matrices[:, :2, 2] * z
                corners.append(np.einsum("nij,nj->ni", inverse, target))
    xy = np.concatenate(corners)
    return float(xy[:, 1].min()), float(xy[:, 1].max()), float(xy[:, 0].min()), float(xy[:, 0].max())


def volume_grid(
    field: Field, shape: tuple[int, int, int] | None, thickness: float | None
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First voxel (z, y, x) and shape (z, y, x) of the volume of a field.

    Parameters
    ----------
    field : Field
    shape : tuple of int, optional
        (nx, ny, nz) as the user gives it.
    thickness : float, optional
        Of a film, in Angstrom: the volume then reaches as far as rays that the detector sees. Without
        both, the object is taken as isolated: a cube as wide as the field.

    Raises
    ------
    InputError
        If the shape or the thickness is not positive, or both are given.
    """
    if shape is not None and thickness is not None:
        raise InputError(f"shape {tuple(shape)} and thickness {thickness} Angstrom both came; give one of the two.")
    cy, cx = field.centre
    ny, nx = field.detector_shape
    if shape is not None:
        if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
            raise InputError(f"The shape of the volume came as {shape}; needed are three voxel numbers NX NY NZ.")
        nx, ny, nz = (int(n) for n in shape)
        return (-(nz // 2), cy - ny // 2, cx - nx // 2), (nz, ny, nx)
    if thickness is None:
        return (-(nx // 2), cy - ny // 2, cx - nx // 2), (nx, ny, nx)
    if not 0 < thickness < np.inf:
        raise InputError(f"The thickness came as {thickness} Angstrom; needed is a positive length.")
    nz = max(1, int(np.ceil(thickness / field.pixel_size - 1e-6)))
    half_z = nz / 2
    middle = (field.detector_start[0] + (ny - 1) / 2, field.detector_start[1] + (nx - 1) / 2)
    y_low, y_high, x_low, x_high = covering_box(field.matrices, ny / 2, nx / 2, -half_z, half_z, middle)
    first, last = (int(np.floor(y_low)), int(np.floor(x_low))), (int(np.ceil(y_high)), int(np.ceil(x_high)))
    return (-(nz // 2), *first), (nz, last[0] - first[0] + 1, last[1] - first[1] + 1)


def require_measured(mask: np.ndarray) -> None:
    """Refuse a mask (bool) that is False everywhere: nothing was measured.

    Raises
    ------
    InputError
    """
    if not mask.any():
        raise InputError("The mask is False everywhere: no pixel counts as measured; check the mask's meaning.")


def require_finite(images: np.ndarray, mask: np.ndarray) -> None:
    """Refuse images (float) with a NaN or infinite pixel where the mask (bool, same shape) is True.

    Raises
    ------
    InputError
    """
    if not np.isfinite(images, where=mask, out=np.ones_like(mask)).all():
        raise InputError("The images hold NaN or infinite pixels inside the mask; import with --mask nan.")
