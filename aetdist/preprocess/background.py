"""Background of ADF images: Laplace's equation behind an isolated object, a smooth surface under a film."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import ndimage

from ..errors import AetdistWarning, InputError
from ..schema import TILT_SERIES, check, with_units
from .laplace import solve_laplace
from .object_mask import blurred, fit_surface, object_mask_of

Kind = Literal["particle", "film"]
KINDS = ("particle", "film")

_BOUNDARY = 3.0
"""Boundary values are averaged over a Gaussian of this many times `smoothing`, outside the object."""
_QUIET = 1.5
"""Times the constant's: rms of the bare regions of a larger surface. Film comes to 20 and more, bare regions to 1."""
_DARKEST, _ROUGH = 0.02, 0.5
"""Part of the field where the search for bare regions starts; part of the image's rms at which regions are no quieter
than the film. Chosen on five simulated films whose holes cover 0 to 20 % of the field."""
_HAZE = 2.0
"""Deviations of the bare regions that a surface must rise above the constant to count by half: film that hides in them
makes slopes too steep. On two simulated films with three holes (seeds that are not reported) the background was 0.75
and 0.74 counts rms off so, 0.83 and 0.79 without, 0.77 and 0.81 with the constant alone."""
_SURFACES = (("constant", 1, 0), ("plane", 3, 5), ("quadratic", 6, 7))
"""Name, terms, and sectors into which the bare regions have to reach."""


class Background(NamedTuple):
    """Background of one image.

    Attributes
    ----------
    background : ndarray, shape (y, x), float32
        Background, in the image's unit; finite everywhere.
    object_mask : ndarray, shape (y, x), bool
        True where a pixel belongs to the object (film: everywhere it was measured).
    leaves_field : bool
        Whether the object touches the edge of what was measured.
    """

    background: np.ndarray
    object_mask: np.ndarray
    leaves_field: bool


def subtract_background(
    series: xr.Dataset,
    *,
    kind: Kind = "particle",
    mask: ArrayLike | xr.DataArray | None = None,
    margin: float = 4.0,
    smoothing: float = 2.0,
    surface: Literal["auto", "constant", "plane", "quadratic"] = "auto",
    reprojections: Any = None,
    reprojection_smoothing: float = 12.0,
) -> xr.Dataset:
    """Subtract the background of every image, one Dask task for each tilt.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES; unmeasured pixels (mask False) count nowhere.
    kind : {"particle", "film"}
        An isolated object with background all around it, or a film that fills the field.
    mask : array_like or DataArray, optional, shape (y, x) or (tilt, y, x), bool
        Particle: True on the object, slightly larger than it. Without it, see :func:`object_mask_of`.
    margin : float
        Pixels by which the mask that is found is larger than the object.
    smoothing : float
        Standard deviation in pixels of the Gaussian behind which the object is told from the background.
    surface : {"auto", "constant", "plane", "quadratic"}
        Film: the surface; "auto" takes the one that the bare regions support (:func:`film_background`).
    reprojections : array_like or DataArray, optional, shape (tilt, y, x)
        Projections of a reconstruction on the pixels of `series`: the background is then measured
        behind the object too, as the smooth part of image - reprojection.
    reprojection_smoothing : float
        Standard deviation in pixels of the Gaussian that gives that smooth part.

    Returns
    -------
    xarray.Dataset
        `series` with images less background (float32; particle: 0 outside the object; 0 where
        unmeasured), ``background`` (tilt, y, x), ``object_mask`` (tilt, y, x) bool and
        ``object_leaves_field`` (tilt,) bool; all lazy, chunks of one tilt. Once computed,
        :func:`warn_of_lost_objects` names the tilts in which the object leaves the field.

    Raises
    ------
    InputError
        If an option or a shape cannot be used; inside a task if an image is blank or has no background
        around its object (the message names the tilt). An image without a measured pixel stays 0.

    Notes
    -----
    Particle: inside the mask the background b solves Laplace's equation, div grad b = 0, with b on the
    rim of the mask averaged over a Gaussian of the pixels outside, so that noise on single rim pixels
    does not reach inside; edges of the field and unmeasured pixels let no gradient through (Neumann).
    Film: b is a polynomial of lowest order through the regions without film. That such regions exist,
    or that the darkest ones hold as little film as can be told from none, is assumed.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods, image pre-processing iii (Laplace).
    """
    check(series, TILT_SERIES)
    _check_options(kind, margin, smoothing, surface, reprojection_smoothing)
    images = series["images"]
    if mask is not None and kind == "film":
        raise InputError("A film has no object mask; leave out mask, or say kind='particle'.")
    given = None if mask is None else _as_series("mask", mask, images)
    projected = None if reprojections is None else _as_series("reprojections", reprojections, images)
    pieces = [
        _per_tilt(images.data),
        _per_tilt(series["mask"].data),
        *(() if given is None else (_per_tilt(given),)),
        *(() if projected is None else (_per_tilt(projected),)),
    ]
    stacked = da.map_blocks(
        _background_block,
        *pieces,
        has_mask=given is not None,
        has_projection=projected is not None,
        kind=kind,
        margin=float(margin),
        smoothing=float(smoothing),
        surface=surface,
        reprojection_smoothing=float(reprojection_smoothing),
        new_axis=1,
        chunks=((1,) * images.shape[0], (3,), *((n,) for n in images.shape[1:])),
        dtype=np.float32,
        meta=np.empty((0, 0, 0, 0), dtype=np.float32),
    )
    background, inside = stacked[:, 0], stacked[:, 1] > 0
    corrected = da.where(inside, pieces[0].astype(np.float32) - background, np.float32(0))
    result = series.assign(
        images=(images.dims, corrected, images.attrs),
        background=(images.dims, background, {"units": "1", "long_name": "background that was subtracted"}),
        object_mask=(images.dims, inside, {"units": "1", "long_name": "True on the object"}),
        object_leaves_field=(
            "tilt",
            stacked[:, 2, 0, 0] > 0,
            {"units": "1", "long_name": "whether the object touches the edge of what was measured"},
        ),
    )
    result.attrs |= {
        "background_kind": kind,
        "background_assumes": (
            "background is smooth and seen all around the object"
            if kind == "particle"
            else "the darkest regions of each image hold no film"
        ),
    }
    return with_units(result, TILT_SERIES)


def warn_of_lost_objects(series: xr.Dataset) -> None:
    """Warn, naming the tilts, of an object that leaves the field.

    Parameters
    ----------
    series : xarray.Dataset
        What :func:`subtract_background` returned, computed or lazy.

    Warns
    -----
    AetdistWarning
        If ``object_leaves_field`` is True for a tilt.
    """
    lost = np.flatnonzero(np.asarray(series["object_leaves_field"].values, dtype=bool))
    if not lost.size:
        return
    tilts = ", ".join(f"{int(series['tilt'].values[i])} ({series['angles'].values[i, 1]:.1f} degrees)" for i in lost)
    warnings.warn(
        f"The object leaves the field in tilt {tilts}: its mass and its background are not known there; "
        "switch these tilts off when the series is aligned (exclude), or go on with one that is less sure there.",
        AetdistWarning,
        stacklevel=2,
    )


def particle_background(
    image: np.ndarray,
    measured: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    margin: float = 4.0,
    smoothing: float = 2.0,
    reprojection: np.ndarray | None = None,
    reprojection_smoothing: float = 12.0,
) -> Background:
    """Background of one image of an isolated object; parameters as in :func:`subtract_background`.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    measured : ndarray, shape (y, x), bool
    mask, margin, smoothing, reprojection, reprojection_smoothing
        Of this image.

    Returns
    -------
    Background

    Raises
    ------
    InputError
        If the image is blank, nothing was measured, or no background is left around the object.
    """
    image = _checked_image(image, measured)
    found = object_mask_of(image, measured, margin=margin, smoothing=smoothing) if mask is None else mask & measured
    outside = measured & ~found
    if not found.any():
        raise InputError("The object mask is False everywhere; give one that is True on the object.")
    if outside.sum() < 0.01 * measured.sum():
        raise InputError(
            "The object fills what was measured, so no background is left around it; give a mask, or say kind='film'."
        )
    leaves = bool((found & _rim(measured)).any())
    if reprojection is not None:
        projected = np.asarray(reprojection, dtype=np.float64)
        smooth = blurred(image - projected, measured, reprojection_smoothing)
        return Background(smooth.astype(np.float32), found, leaves)
    values = blurred(image, outside, _BOUNDARY * smoothing)
    return Background(solve_laplace(values, found, outside).astype(np.float32), found, leaves)


def film_background(
    image: np.ndarray, measured: np.ndarray, *, smoothing: float = 2.0, surface: str = "auto"
) -> tuple[np.ndarray, str]:
    """Smooth surface under a film, from the regions in which there is least of it.

    Parameters
    ----------
    image : ndarray, shape (y, x)
    measured : ndarray, shape (y, x), bool
    smoothing : float
        Standard deviation in pixels of the Gaussian before the regions are told.
    surface : {"auto", "constant", "plane", "quadratic"}

    Returns
    -------
    background : ndarray, shape (y, x), float64
    surface : str
        Which surface was taken.

    Notes
    -----
    The surface starts as the lower envelope: asymmetric least squares, in which pixels above it weigh a
    fiftieth of those below. The bare regions are then, eight times over, the pixels of the smoothed image
    within 2.5 standard deviations of the surface through them, the deviation being that of the pixels below
    it: film can only be brighter. "auto" takes the surface of least BIC, n ln(mean square) + k ln(n), n
    being the number of patches of independent noise that are bare under the largest surface, among those
    whose bare regions reach into enough of the field's 3 x 3 sectors (a plane needs 5, a quadratic 7) and
    are as quiet as those of the constant: a surface that bends up to the film takes its atoms for bare. Of its rise r
    above the constant the part r^2 / (r^2 + (2 s)^2) is taken, r in the quadratic mean and s the deviation of its bare
    regions, in which some film hides. Where no
    surface finds regions quieter than half of the image's rms, there are none that are bare (a hole is closed at a
    high tilt): the darkest fiftieth of the image gives a constant, and the film keeps its shape.

    References
    ----------
    P. H. C. Eilers, Anal. Chem. 76, 404-411 (2004) (asymmetric least squares).
    """
    image = _checked_image(image, measured)
    smooth = blurred(image, measured, smoothing)
    terms = {name: n for name, n, _ in _SURFACES}
    if surface != "auto":
        return _fit_bare(smooth, measured, terms[surface])[0], surface
    found = {name: _fit_bare(smooth, measured, n) for name, n in terms.items()}
    spread = {name: float((smooth - fitted)[bare].std()) for name, (fitted, bare) in found.items()}
    if min(spread.values()) > _ROUGH * smooth[measured].std():
        darkest = (smooth <= np.quantile(smooth[measured], _DARKEST)) & measured
        return fit_surface(smooth, darkest, 1), "constant"
    fits = {
        name: found[name]
        for name, _, needed in _SURFACES
        if _sectors(found[name][1]) >= needed and spread[name] <= _QUIET * spread["constant"]
    }
    common = next(reversed(fits.values()))[1]
    n = max(common.sum() / (4.0 * np.pi * smoothing**2), 2.0)  # so many pixels share their noise after the Gaussian

    def criterion(name: str) -> float:
        square = float(((smooth - fits[name][0])[common] ** 2).mean())
        return float(n * np.log(max(square, 1e-30)) + terms[name] * np.log(n))

    chosen = min(fits, key=criterion)
    level = fits["constant"][0]
    rise = fits[chosen][0] - level
    square = float((rise**2).mean())
    return level + square / (square + (_HAZE * spread[chosen]) ** 2 + 1e-30) * rise, chosen


def _fit_bare(smooth: np.ndarray, measured: np.ndarray, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """Surface through the bare regions, and these regions."""
    fitted = fit_surface(smooth, measured, terms)
    for _ in range(20):
        fitted = fit_surface(smooth, measured, terms, np.where(smooth > fitted, 0.02, 1.0))
    residual = smooth - fitted
    bare = (residual <= np.quantile(residual[measured], _DARKEST)) & measured
    for _ in range(8):
        below = residual[(residual < 0) & measured]
        spread = float(np.sqrt((below**2).mean())) if below.size else 0.0
        near = (np.abs(residual) <= 2.5 * spread) & measured
        if near.sum() < 4 * terms:
            break
        bare = near
        fitted = fit_surface(smooth, bare, terms)
        residual = smooth - fitted
    return fitted, bare


def _sectors(bare: np.ndarray) -> int:
    """How many of 3 x 3 sectors of the field are bare over more than 2 % of them."""
    parts = (part for rows in np.array_split(bare, 3, axis=0) for part in np.array_split(rows, 3, axis=1))
    return sum(bool(part.mean() > 0.02) for part in parts)


def _background_block(
    image: np.ndarray,
    measured: np.ndarray,
    *others: np.ndarray,
    has_mask: bool,
    has_projection: bool,
    kind: str,
    margin: float,
    smoothing: float,
    surface: str,
    reprojection_smoothing: float,
    block_info: Any = None,
) -> np.ndarray:
    """Background, object mask and (everywhere the same) whether the object leaves the field, of one tilt."""
    if not measured.any():  # nothing of this tilt can be used
        return np.zeros((1, 3, *image[0].shape), np.float32)
    mask = np.asarray(others[0][0], dtype=bool) if has_mask else None
    projected = others[-1][0] if has_projection else None
    try:
        if kind == "particle":
            found = particle_background(
                image[0],
                measured[0],
                mask=mask,
                margin=margin,
                smoothing=smoothing,
                reprojection=projected,
                reprojection_smoothing=reprojection_smoothing,
            )
        elif projected is not None:
            smooth = blurred(_checked_image(image[0], measured[0]) - projected, measured[0], reprojection_smoothing)
            found = Background(smooth, measured[0], False)
        else:
            surface_found, _ = film_background(image[0], measured[0], smoothing=smoothing, surface=surface)
            found = Background(surface_found, measured[0], False)
    except InputError as error:
        tilt = block_info[0]["chunk-location"][0] if block_info else "?"
        raise InputError(f"Background of tilt {tilt}: {error}") from None
    leaves = np.full(image[0].shape, found.leaves_field)
    return np.stack([found.background, found.object_mask, leaves]).astype(np.float32)[None]


def _checked_image(image: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The image in float64, refused if it cannot hold an object."""
    if not measured.any():
        raise InputError("no pixel of the image was measured; switch the tilt off.")
    image = np.where(measured, image, 0.0).astype(np.float64)
    if not np.isfinite(image[measured]).all():
        raise InputError("measured pixels are not finite; mask them.")
    if np.ptp(image[measured]) == 0:
        raise InputError("all measured pixels have one and the same value; the image is blank, switch the tilt off.")
    return image


def _check_options(kind: str, margin: float, smoothing: float, surface: str, reprojection_smoothing: float) -> None:
    if kind not in KINDS:
        raise InputError(f"kind came as {kind!r}; choose one of {', '.join(KINDS)}.")
    if surface not in ("auto", *(name for name, *_ in _SURFACES)):
        raise InputError(f"surface came as {surface!r}; choose one of auto, constant, plane, quadratic.")
    if not (np.isfinite(margin) and margin >= 0):
        raise InputError(f"margin came as {margin!r}; needed is a number of pixels of 0 or more.")
    for name, value in (("smoothing", smoothing), ("reprojection_smoothing", reprojection_smoothing)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} came as {value!r}; needed is a number of pixels above 0.")


def _as_series(name: str, array: Any, images: xr.DataArray) -> Any:
    """`array` as (tilt, y, x), refused when its shape is another one."""
    data = array.data if isinstance(array, xr.DataArray) else array
    data = data if isinstance(data, da.Array) else np.asarray(data)
    if name == "mask" and data.dtype != bool:
        raise InputError(f"mask came as {data.dtype}; needed is bool, True on the object.")
    if data.shape not in (images.shape, images.shape[1:]):
        raise InputError(f"{name} came with shape {data.shape}; needed is {images.shape}, as the images have.")
    return (da if isinstance(data, da.Array) else np).broadcast_to(data, images.shape)


def _per_tilt(data: Any) -> da.Array:
    """A Dask array of one chunk for each tilt."""
    chunks = (1, *data.shape[1:])
    return data.rechunk(chunks) if isinstance(data, da.Array) else da.from_array(data, chunks=chunks)


def _rim(measured: np.ndarray) -> np.ndarray:
    """Measured pixels beside the edge of the field or beside unmeasured ones."""
    return measured & ~ndimage.binary_erosion(measured, border_value=0)
