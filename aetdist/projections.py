"""Projections of a volume at given angles: the public door to `ParallelProjector`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from ._threads import kernel_threads
from .blocks.angles import project_blocks
from .errors import InputError
from .geometry import ParallelGeometry, centred_coordinates, grid_step, matrices_from_euler
from .project import ParallelProjector


def project_volume(volume: Any, angles: Any, *, detector_shape: tuple[int, int] | None = None) -> Any:
    """Project a volume along the beam at every tilt.

    Parameters
    ----------
    volume : ndarray, dask.array.Array or xarray.DataArray, shape (z, y, x)
        Intensity per voxel. A DataArray's coordinates (Angstrom) say where it lies; a bare array
        has its voxel n // 2 on the origin of the rotation.
    angles : array_like, shape (tilt, 3)
        phi, theta, psi in degrees.
    detector_shape : tuple of int, optional
        Pixels (y, x) of a projection, each as large as a voxel; pixel n // 2 is then the projection of
        the origin. By default as many as the volume has voxels along y and x, and at their coordinates.

    Returns
    -------
    as `volume`, shape (tilt, y, x), float32
        Intensity summed along lab z in steps of one voxel. NumPy in, NumPy out; dask in, dask out
        (chunked along the tilts); a DataArray comes back with coordinates and units.

    Raises
    ------
    InputError
        If the volume is not three-dimensional, its voxels are not cubes, or the angles are not
        finite triples.

    Notes
    -----
    lab = R @ sample with R = (Rz(phi) Ry(theta) Rx(psi))^T; the image at (u, v) is the sum of
    V over lab z at lab x = u, lab y = v.

    Examples
    --------
    >>> import numpy as np, aetdist as aet
    >>> images = aet.project_volume(np.ones((8, 8, 8), np.float32), [[0, 0, 0], [0, 30, 0]])
    >>> images.shape
    (2, 8, 8)
    """
    if isinstance(volume, xr.DataArray):
        return _project_labelled(volume, angles, detector_shape)
    if volume.ndim != 3:
        raise InputError(f"The volume came with shape {volume.shape}; needed are three axes (z, y, x).")
    start = tuple(float(-(n // 2)) for n in volume.shape)
    return _project_array(volume, _geometry(volume.shape, start, angles, detector_shape))


def _geometry(shape: Any, start: Any, angles: Any, detector_shape: tuple[int, int] | None) -> ParallelGeometry:
    matrices = matrices_from_euler(angles)
    detector_shape = detector_shape or (shape[1], shape[2])
    detector_start = np.tile([-(n // 2) for n in detector_shape], (len(matrices), 1)).astype(np.float64)
    ny, nx = detector_shape
    return ParallelGeometry(matrices, tuple(shape), start, (ny, nx), detector_start)


def _project_array(volume: Any, geometry: ParallelGeometry) -> Any:
    if isinstance(volume, da.Array):
        return project_blocks(volume, geometry)
    return ParallelProjector(geometry, kernel_threads()).forward(np.asarray(volume))


def _project_labelled(volume: xr.DataArray, angles: Any, detector_shape: tuple[int, int] | None) -> xr.DataArray:
    if volume.dims != ("z", "y", "x"):
        raise InputError(f"The volume came with dimensions {volume.dims}; needed are ('z', 'y', 'x').")
    steps = [grid_step(volume[d].values) if volume.sizes[d] > 1 else None for d in volume.dims]
    known = [s for s in steps if s is not None] or [1.0]
    if max(known) - min(known) > 1e-4 * abs(known[0]) or min(known) <= 0:
        raise InputError(f"The voxels measure {steps} along z, y, x; needed are cubes with rising coordinates.")
    size = known[0]
    start = tuple(float(volume[d].values[0]) / size for d in volume.dims)
    geometry = _geometry(volume.shape, start, angles, detector_shape)
    if detector_shape is None:
        geometry = replace(geometry, detector_start=np.tile(start[1:], (geometry.n_tilts, 1)))
        y, x = volume["y"].values, volume["x"].values
    else:
        y, x = (centred_coordinates(n, size) for n in geometry.detector_shape)
    images = _project_array(volume.data, geometry)
    units = {"units": "angstrom"}
    return xr.DataArray(
        images,
        dims=("tilt", "y", "x"),
        coords={
            "tilt": np.arange(geometry.n_tilts),
            "y": ("y", y, units),
            "x": ("x", x, units),
        },
        name="images",
        attrs={"units": volume.attrs.get("units", "1"), "long_name": "intensity summed along the beam"},
    )
