"""Shifts that vary smoothly over the field of a film, against the reprojections of its volume."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..blocks.windows import run_tasks, share
from ..errors import InputError
from ..geometry import matrices_from_euler
from ..images import resample
from ..images.displacement import TERMS, as_map, checked_local, inverted, powers
from ..schema import TILT_SERIES, VOLUME, check
from ._local_kernels import FIELD, tile_sums
from .model import kernel_memory
from .tilt_series import checked_pixel_size, measured_tilts, model_of, tilt_groups

_ITERATIONS = 8
_SETTLED = 0.002  # pixels at the border of the field
_SPREAD = 1.0  # pixels: what a term is expected to be
_ROTATION = np.deg2rad(5.0)  # what refined angles are taken to be off by, at most: a rotation explains what it can
_LEAST_PART = 0.25  # of a tile's pixels that must be measured
_UNCERTAIN = 0.5  # pixels: a tile that is less sure of its own shift does not count
_OUTLIER, _LEAST_SPREAD = 6.0, 0.05  # robust standard deviations, of at least so many pixels
_FIRST, _UNLIKE = 2, 6.0  # from then on a tile that leaves so many times more unexplained than the median is of another
# object; before, displacements may be why
_GRID = 9


class Local(NamedTuple):
    """Displacements of some tilts.

    Attributes
    ----------
    field : ndarray, shape (tilt, 2, 6)
        Pixels along y and x: a constant and the terms.
    deviation : ndarray, shape (tilt, 2, 6)
        Their standard deviations.
    r_factor : ndarray, shape (tilt, 2)
        Before and after.
    tiles : ndarray, shape (tilt, 2)
        Tiles that count, and tiles.
    """

    field: np.ndarray
    deviation: np.ndarray
    r_factor: np.ndarray
    tiles: np.ndarray


def local_shifts(
    tilt_series: xr.Dataset,
    volume: xr.Dataset | xr.DataArray,
    *,
    tile: int = 96,
    degree: int = 2,
    before: np.ndarray | None = None,
) -> xr.Dataset:
    """Computes: how shifts vary over the field of a film, from the reprojections of its volume at refined angles.

    Parameters
    ----------
    tilt_series : xarray.Dataset
        TILT_SERIES, in memory or lazy; pixels whose mask is False do not count.
    volume : xarray.Dataset or xarray.DataArray
        VOLUME, or its ``density`` (z, y, x), with voxels as large as the pixels; a lazy one is read slab by slab.
    tile : int
        Pixels along y and x of the tiles that are held against each other: what is empty, or does not fit in with
        the others, does not count.
    degree : {1, 2}
        Of the polynomial in the place in the image.
    before : ndarray, shape (tilt, 2, term), optional
        Local shifts that the images were already moved by, in pixels: what is expected counts from there.

    Returns
    -------
    xarray.Dataset
        ``local_shift`` (tilt, axis, term) in pixels, what varies (:data:`~aetdist.images.displacement.TERMS`), and
        ``shift`` (tilt, axis), the constant that goes with it: aligned_t(r) = image_t(r + a_t(r));
        ``local_shift_uncertainty`` (tilt, axis, term), standard deviations;
        ``r_factor`` (tilt, moment) before and after; ``tiles`` (tilt, moment), how many there are and how many
        count.

    Raises
    ------
    InputError
        If the voxels are not as large as the pixels, or an option is off.

    Notes
    -----
    Minimises, for every tilt, sum (I(r + a(r)) - s p(r))^2 over the pixels of all tiles that count, each with its own
    brightness s, by Gauss-Newton steps: the image is moved, the reprojection p is made once. Beside the polynomial
    stands what a rotation of the film does to its middle plane: with Z = k X + l Y its lab height, a turn by w moves
    (X, Y) by (w_y Z - w_z Y, w_z X - w_x Z). The rotation is expected to be up to 5 degrees, every term of the
    polynomial 1 pixel (ridge): what a rotation explains is left to the angles, what the images do not say is 0.
    Residuals are not white: what the reprojection lacks of an atom is some pixels wide. Their variance, as it counts
    for a shift, is that of sums over blocks of 8 x 8 pixels.

    A film that is bent or stretched as a whole is seen at (R_t u(x, y))_xy; the tilt series cannot tell it from a film
    that is so. With u of second order in x, y, the u that all tilts share is taken out by least squares.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods "CuTa thin film" iii-iv (local volumes aligned each by itself).
    """
    density = volume["density"] if isinstance(volume, xr.Dataset) else volume
    check(tilt_series, TILT_SERIES)
    check(density.to_dataset(name="density"), VOLUME)
    size = checked_pixel_size(tilt_series, density)
    check_tiles(tile, degree)
    shape = (tilt_series.sizes["y"], tilt_series.sizes["x"])
    corner = (float(tilt_series["y"].values[0]) / size, float(tilt_series["x"].values[0]) / size)
    matrices = matrices_from_euler(tilt_series["angles"].values)
    lazy = density.chunks is not None or not density._in_memory
    source: Any = density if lazy else share(kernel_memory(np.asarray(density.values)))
    first = tuple(float(density[axis].values[0]) / size for axis in "zyx")
    groups = tilt_groups(np.arange(len(matrices)), lazy)
    moved = checked_local(before, len(matrices))
    moved = np.zeros((len(matrices), 2, len(TERMS))) if moved is None else moved
    items = [(tilt_series[["images", "mask"]].isel(tilt=g), matrices[g], moved[g]) for g in groups]
    found = run_tasks(_fit_group, items, source, first, shape, corner, int(tile), int(degree), label="local shifts")
    fit = Local(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    field = without_common_deformation(fit.field, matrices, shape, corner, np.isfinite(fit.r_factor[:, 1]), degree)
    pixels = {"units": "pixel"}
    return xr.Dataset(
        {
            "shift": (("tilt", "axis"), field[:, :, 0], pixels),
            "local_shift": (("tilt", "axis", "term"), field[:, :, 1:], pixels),
            "local_shift_uncertainty": (("tilt", "axis", "term"), fit.deviation[:, :, 1:], pixels),
            "r_factor": (("tilt", "moment"), fit.r_factor, {"units": "1"}),
            "tiles": (("tilt", "moment"), fit.tiles, {"units": "1"}),
        },
        {
            "tilt": tilt_series["tilt"].values,
            "axis": ["y", "x"],
            "term": list(TERMS),
            "moment": ["before", "after"],
        },
    )


def check_tiles(tile: int, degree: int) -> None:
    """Refuse tiles or a polynomial that cannot be used.

    Raises
    ------
    InputError
    """
    if not (int(tile) == tile and tile >= 16) or degree not in (1, 2):
        raise InputError(f"tile came as {tile} and degree as {degree}; needed are 16 pixels or more, and 1 or 2.")


def without_common_deformation(
    field: np.ndarray,
    matrices: np.ndarray,
    shape: tuple[int, int],
    corner: tuple[float, float],
    used: np.ndarray,
    degree: int = 2,
) -> np.ndarray:
    """Displacements less those of a film that is bent and stretched as a whole.

    Parameters
    ----------
    field : ndarray, shape (tilt, 2, 6)
        Pixels: a constant and the terms.
    matrices : ndarray, shape (tilt, 3, 3)
    shape : tuple of int
        Pixels (y, x).
    corner : tuple of float
        Lab coordinates (y, x) of pixel [0, 0] in pixels.
    used : ndarray, shape (tilt,), bool
        Tilts that count; the others are returned as they are.
    degree : {1, 2}

    Returns
    -------
    ndarray, shape (tilt, 2, 6)
        The part that no u(x, y) = (u_x, u_y, u_z) of that order in the film's plane explains.
    """
    places = [g.ravel() for g in np.meshgrid(*(np.linspace(0, n - 1, _GRID) for n in shape), indexing="ij")]
    n_terms = FIELD if degree == 2 else 3
    basis = np.column_stack([np.ones(_GRID**2), powers(places[0], places[1], shape)])
    fitting = np.linalg.pinv(basis)
    seen = []
    for matrix in matrices:  # (axis, number of the displacement, component of u, its term)
        lab = np.stack([places[1] + corner[1], places[0] + corner[0]])  # X, Y
        x, y = np.linalg.solve(matrix[:2, :2], lab)
        terms = np.column_stack([np.ones_like(x), powers(y - corner[0], x - corner[1], shape)])[:, :n_terms]
        seen.append(np.einsum("cp,pk,au->acuk", fitting, terms, matrix[[1, 0]]))
    columns = np.array(seen).reshape(len(matrices), 2 * FIELD, -1)
    left = field.copy()
    if used.any():
        a = columns[used].reshape(-1, columns.shape[-1])
        common = np.linalg.lstsq(a, field[used].reshape(-1), rcond=1e-8)[0]
        left[used] -= (columns[used] @ common).reshape(-1, 2, FIELD)
    return left


# -- one task ----------------------------------------------------------------------------------------


def _fit_group(
    item: tuple[xr.Dataset, np.ndarray, np.ndarray],
    source: Any,
    first: tuple[float, float, float],
    shape: tuple[int, int],
    corner: tuple[float, float],
    tile: int,
    degree: int,
) -> Local:
    """Displacements of some tilts, which share the reading of the volume."""
    series, matrices, moved = item
    series = series.compute(scheduler="synchronous")
    images, masks = series["images"].values.astype(np.float32), series["mask"].values
    seen, _, _ = model_of(source, first, shape, corner).predict(matrices, np.zeros((len(images), 2)))
    n = len(images)
    result = Local(
        np.zeros((n, 2, FIELD)), np.full((n, 2, FIELD), np.nan), np.full((n, 2), np.nan), np.zeros((n, 2), int)
    )
    for t in np.flatnonzero(measured_tilts(images, masks)):
        turns = rotation_columns(matrices[t], shape)
        found = fit_field(images[t], masks[t], seen[t], turns, moved[t], tile, degree)
        for whole, part in zip(result, found, strict=True):
            whole[t] = part
    return result


def fit_field(
    image: np.ndarray,
    mask: np.ndarray,
    seen: np.ndarray,
    turns: np.ndarray,
    before: np.ndarray,
    tile: int,
    degree: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Displacement of one image against its prediction.

    Parameters
    ----------
    image, seen : ndarray, shape (y, x), float32
    mask : ndarray, shape (y, x), bool
    turns : ndarray, shape (12, 3)
        What rotations do; see :func:`rotation_columns`.
    before : ndarray, shape (2, term)
        Local shift that the image was already moved by.
    tile, degree : int

    Returns
    -------
    tuple
        As in `Local`, of one tilt.
    """
    shape = image.shape
    n_terms = FIELD if degree == 2 else 3
    own = np.eye(2 * FIELD)[:, np.flatnonzero(np.arange(2 * FIELD) % FIELD < n_terms)]
    design = np.hstack([own, turns])  # displacement from its own numbers and the rotation
    constant = np.flatnonzero(np.arange(own.shape[1]) % n_terms == 0)
    prior = np.full(design.shape[1], _SPREAD**-2)
    prior[constant], prior[own.shape[1] :] = 0.0, _ROTATION**-2
    already = np.zeros(len(prior))
    already[: own.shape[1]] = own.T @ np.column_stack([np.zeros(2), before]).ravel()
    spans = [list(pairwise(_edges(n, tile))) for n in shape]
    tiles = [(rows, columns) for rows in spans[0] for columns in spans[1]]
    centres = np.array([[(rows[0] + rows[1] - 1) / 2, (columns[0] + columns[1] - 1) / 2] for rows, columns in tiles])
    at_centres = np.column_stack([np.ones(len(tiles)), powers(centres[:, 0], centres[:, 1], shape)])
    areas = np.array([(rows[1] - rows[0]) * (columns[1] - columns[0]) for rows, columns in tiles])
    masked = np.where(mask, image, np.nan)

    numbers, counted, covariance = np.zeros(len(prior)), np.zeros(len(tiles), bool), np.full((len(prior),) * 2, np.nan)
    moved, inside = np.where(mask, image, 0.0).astype(np.float32), mask
    for number in range(_ITERATIONS):
        sums = [tile_sums(moved, inside, seen, rows, columns) for rows, columns in tiles]
        normal, vectors = np.array([s[0] for s in sums]), np.array([s[1] for s in sums])
        squares, counts, noises = (np.array([s[k] for s in sums]) for k in (2, 3, 4))
        shifts, deviations = _own_shifts(normal, vectors, noises, counts)
        sure = (counts >= _LEAST_PART * areas) & (deviations < _UNCERTAIN)
        if not sure.any():
            break
        if number >= _FIRST:
            unexplained = squares / np.maximum(counts, 1)
            sure &= unexplained <= _UNLIKE * np.median(unexplained[sure])
        counted, step = sure, np.zeros(len(prior))
        for _ in range(3):
            noise = float(np.average(noises[counted], weights=counts[counted]))
            hessian = design.T @ normal[counted].sum(axis=0) @ design / noise + np.diag(prior)
            gradient = design.T @ vectors[counted].sum(axis=0) / noise - prior * (numbers + already)
            step = np.linalg.solve(hessian, gradient)
            covariance = np.linalg.inv(hessian)
            off = np.linalg.norm(shifts - at_centres @ (design @ step).reshape(2, FIELD).T, axis=1)
            spread = max(1.4826 * float(np.median(off[sure])), _LEAST_SPREAD)
            kept = sure & (off <= _OUTLIER * spread)
            if (kept == counted).all():
                break
            counted = kept
        numbers = numbers + step
        whole = (design @ numbers).reshape(2, FIELD)
        matrix, place, bend = as_map(whole[:, 0], whole[:, 1:], shape)
        moved, inside = resample(masked, matrix, place, bend=bend)
        if number >= _FIRST and np.abs(design @ step).max() < _SETTLED:
            break
    agreed = np.array([len(tiles), counted.sum()])
    r_factor = _r_factors(image, mask, seen, (design @ numbers).reshape(2, FIELD))
    if not r_factor[1] <= r_factor[0]:  # it did not help: the image stays where it was
        return np.zeros((2, FIELD)), np.full((2, FIELD), np.nan), r_factor[[0, 0]], agreed
    field = (own @ numbers[: own.shape[1]]).reshape(2, FIELD)
    variance = np.diag(own @ covariance[: own.shape[1], : own.shape[1]] @ own.T)
    return field, np.sqrt(variance).reshape(2, FIELD), r_factor, agreed


def rotation_columns(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """What turns about lab x, y, z by a radian do to the image of a film's middle plane.

    Parameters
    ----------
    matrix : ndarray, shape (3, 3)
    shape : tuple of int
        Pixels (y, x).

    Returns
    -------
    ndarray, shape (12, 3)
        Displacement along y, then along x, as a constant (0) and terms, in pixels.
    """
    along_x, along_y = np.linalg.solve(matrix[:2, :2].T, matrix[2, :2])  # Z = k X + l Y in the plane z = 0
    half_y, half_x = shape[0] / 2, shape[1] / 2
    columns = np.zeros((2, FIELD, 3))  # terms 1 and 2 are v = Y / half_y and u = X / half_x
    columns[0, 1:3, 0] = -along_y * half_y, -along_x * half_x
    columns[1, 1:3, 1] = along_y * half_y, along_x * half_x
    columns[0, 2, 2], columns[1, 1, 2] = half_x, -half_y
    return columns.reshape(2 * FIELD, 3)


def _edges(n: int, tile: int) -> np.ndarray:
    return np.linspace(0, n, max(1, round(n / tile)) + 1).round().astype(int)


def _own_shifts(
    normal: np.ndarray, vectors: np.ndarray, noises: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shift of every tile by itself, (tile, 2), and its standard deviation along the direction that is worst known."""
    pair = [0, FIELD]
    shifts, deviations = np.zeros((len(normal), 2)), np.full(len(normal), np.inf)
    for i, (matrix, vector) in enumerate(zip(normal, vectors, strict=True)):
        own = matrix[np.ix_(pair, pair)]
        least = np.linalg.eigvalsh(own)[0]
        if least > 0 and counts[i] > 3:
            shifts[i] = np.linalg.solve(own, vector[pair])
            deviations[i] = np.sqrt(noises[i] / least)
    return shifts, deviations


def _r_factors(image: np.ndarray, mask: np.ndarray, seen: np.ndarray, field: np.ndarray) -> np.ndarray:
    """R before and after. The prediction is moved, not the image, whose noise would be smoothed."""
    (back,), (back_local,) = inverted(field[None, :, 0], field[None, :, 1:], image.shape)
    matrix, place, bend = as_map(back, back_local, image.shape)
    moved, inside = resample(seen, matrix, place, bend=bend)
    both = mask & inside
    return np.array([_r_factor(image[both], seen[both]), _r_factor(image[both], moved[both])])


def _r_factor(image: np.ndarray, seen: np.ndarray) -> float:
    """Sum |I - s p| / sum |I| with the brightness that fits best."""
    a, b = image.astype(np.float64), seen.astype(np.float64)
    total, square = np.abs(a).sum(), b @ b
    return float(np.abs(a - (a @ b / square) * b).sum() / total) if total > 0 and square > 0 else float("nan")
