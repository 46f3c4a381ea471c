"""How much of the shells around atoms lies in the sample: points spread over its shape stand for its volume."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..errors import AetdistWarning, InputError
from ..neighbors import as_points
from ._shape_kernels import solid_angles
from .pair_counts import count_points
from .surface import AlphaShape, alpha_shape

N_POINTS = 65_536
"""Points in a shape. Shell volumes of a particle of 18,000 atoms then are within 0.03 % rms of exact ones."""

_DEGREE = 10  # of the Chebyshev polynomial through the filled part of the shells; 8 leaves 0.05 %, 12 follows noise
_PLASTIC = 1.2207440846057596  # root of x^4 = x + 1, of the three-dimensional R sequence


@dataclass(frozen=True)
class Body:
    """What a sample fills.

    Attributes
    ----------
    volume : float
        In Angstrom^3.
    points : ndarray, shape (m, 3), float64
        Points that each stand for the same part of it, in Angstrom.
    share : ndarray, shape (n,), float64
        Part of each atom that lies in it: of an atom on the boundary, the solid angle over 4 pi.
    """

    volume: float
    points: np.ndarray
    share: np.ndarray


def body_of(
    positions: np.ndarray,
    shape: AlphaShape | xr.DataArray | np.ndarray | None,
    *,
    radius: float = 4.0,
    n_points: int = N_POINTS,
) -> Body:
    """Computes: the body that atoms fill.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), float64
        Angstrom.
    shape : AlphaShape, xarray.DataArray, ndarray of shape (k, 3), or None
        The alpha shape of these atoms, found with `radius` if None; a support (z, y, x) bool on coordinates in
        Angstrom; or the corners of a convex body in Angstrom (the 8 of a box, say).
    radius : float
        Of the alpha shape, in Angstrom.
    n_points : int
        Points that stand for the volume.

    Returns
    -------
    Body

    Raises
    ------
    InputError
        If the shape is none of these, is empty, or holds no atom.

    Warns
    -----
    AetdistWarning
        If atoms lie outside a given shape; they do not count.
    """
    if shape is None:
        shape = alpha_shape(positions, radius)
    if isinstance(shape, AlphaShape) and np.array_equal(shape.positions, positions):
        if not len(shape.tetrahedra):
            raise InputError(
                f"No tetrahedron of these atoms has a circumradius of {shape.radius} Angstrom or less; give a larger "
                "alpha_radius, or the shape of the sample."
            )
        share = solid_angles(shape.positions, shape.tetrahedra) / (4.0 * np.pi)
        return Body(shape.volume, _spread_over_tetrahedra(shape, n_points), share)
    if isinstance(shape, xr.DataArray):
        volume, points, inside = _of_support(shape, positions, n_points)
    else:
        if not isinstance(shape, AlphaShape):
            corners = as_points(shape, "The corners of the shape")
            shape = alpha_shape(corners, 1e6 * float(np.ptp(corners, axis=0).max()))
        volume, points = shape.volume, _spread_over_tetrahedra(shape, n_points)
        inside = shape.depth(positions) >= -1e-6
    if not inside.any():
        raise InputError("No atom lies in the shape that was given; are both in Angstrom and in one frame?")
    if not inside.all():
        warnings.warn(
            f"{int((~inside).sum())} of {len(inside)} atoms lie outside the shape that was given and do not count.",
            AetdistWarning,
            stacklevel=3,
        )
    return Body(volume, points, inside.astype(np.float64))


def shell_volumes(centres: np.ndarray, body: Body, reach: float, step: float) -> np.ndarray:
    """Computes: volume of the body in the shells around the centres, summed over them.

    Parameters
    ----------
    centres : ndarray, shape (n, 3), float64
        Positions in Angstrom.
    body : Body
        What the sample fills.
    reach, step : float
        Radius of the last shell and thickness of each, in Angstrom.

    Returns
    -------
    ndarray, shape (bins,), float64
        Angstrom^3; the part of the shells that is filled is a smooth function of the radius (a Chebyshev polynomial).
    """
    n_bins = round(reach / step)
    counts = count_points(centres, body.points, n_bins * step, step)
    edges = step * np.arange(n_bins + 1)
    whole = 4.0 / 3.0 * np.pi * np.diff(edges**3) * len(centres)
    filled = counts * (body.volume / len(body.points)) / whole
    middle = (edges[1:] + edges[:-1]) / 2
    degree = min(_DEGREE, max(n_bins // 4, 1))
    smooth = np.polynomial.Chebyshev.fit(middle, filled, degree, domain=(0.0, edges[-1]), w=np.sqrt(whole))
    return smooth(middle) * whole


def _spread_over_tetrahedra(shape: AlphaShape, n_points: int) -> np.ndarray:
    """Points of equal volume, taken from the tetrahedra in turn; quasi-random in each."""
    reached = np.cumsum(shape.volumes)
    stops = (np.arange(n_points) + 0.5) * (reached[-1] / n_points)
    which = np.minimum(np.searchsorted(reached, stops), len(reached) - 1)
    a, b, c = _quasi_random(n_points).T.copy()
    # The cube is folded onto the tetrahedron (Rocchini & Cignoni, J. Graph. Tools 5, 9 (2000)).
    fold = a + b > 1
    a[fold], b[fold] = 1 - a[fold], 1 - b[fold]
    fold, rest = b + c > 1, a + b + c > 1
    rest &= ~fold
    b[fold], c[fold] = 1 - c[fold], 1 - a[fold] - b[fold]
    a[rest], c[rest] = 1 - b[rest] - c[rest], a[rest] + b[rest] + c[rest] - 1
    weights = np.stack([1 - a - b - c, a, b, c], axis=1)
    return np.einsum("ij,ijk->ik", weights, shape.positions[shape.tetrahedra[which]])


def _of_support(support: xr.DataArray, positions: np.ndarray, n_points: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Volume of a support, points spread over its voxels, and which atoms lie in it."""
    if set(support.dims) != {"z", "y", "x"} or support.dtype != bool or not all(d in support.coords for d in "zyx"):
        raise InputError(
            f"The shape came as {support.dtype} over {support.dims}; a support is bool over (z, y, x) with coordinates "
            "in Angstrom."
        )
    support = support.transpose("z", "y", "x")
    axes = [support[axis].values.astype(np.float64) for axis in "zyx"]
    edge = np.array([axis[1] - axis[0] if len(axis) > 1 else np.nan for axis in axes])
    filled = np.argwhere(support.values)
    if not len(filled) or not np.isfinite(edge).all():
        raise InputError("The support that was given as shape is empty, or has an axis of one voxel.")
    low = np.array([axis[0] for axis in axes])
    stops = ((np.arange(n_points) + 0.5) * (len(filled) / n_points)).astype(np.int64)
    points = low + (filled[stops] + _quasi_random(n_points) - 0.5) * edge
    index = np.floor((positions[:, ::-1] - low) / edge + 0.5).astype(np.int64)
    there = ((index >= 0) & (index < support.shape)).all(axis=1)
    inside = np.zeros(len(positions), bool)
    inside[there] = support.values[tuple(index[there].T)]
    return float(len(filled) * np.abs(np.prod(edge))), points[:, ::-1].copy(), inside


def _quasi_random(n: int) -> np.ndarray:
    """Points of the unit cube, evenly spread: the R sequence."""
    return (0.5 + np.arange(1, n + 1)[:, None] * _PLASTIC ** -np.arange(1.0, 4.0)) % 1.0
