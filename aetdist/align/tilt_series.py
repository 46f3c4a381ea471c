"""Coarse alignment of a tilt series: where every tilt lies, and the direction of the axis. Nothing is resampled."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Literal

import dask.array as da
import numpy as np
import xarray as xr

from ..errors import AetdistWarning, InputError
from .film_series import align_film_series
from .frame import Frame, checked_frame, usable_tilts
from .marker import checked_marker
from .particle import Alignment
from .particle_series import align_particle_series
from .quality import quality_flags, quality_table
from .repeats import compare_in_series, repeated_tilts

log = logging.getLogger(__name__)


def align_tilt_series(
    series: xr.Dataset,
    *,
    kind: Literal["particle", "film"] = "particle",
    marker: tuple[float, float, float, float] | Literal["auto"] | None = "auto",
    maximum_shift: float = 20.0,
    maximum_axis: float = 3.0,
    find_axis: bool = True,
    exclude: Sequence[int] = (),
    repeated: Literal["auto"] | Sequence[Sequence[int]] = "auto",
    keep_aligned: bool = True,
) -> xr.Dataset:
    """Computes: shifts of all tilts and the tilt axis, in a few passes over the images; nothing is resampled.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES, background subtracted. Where it has an ``object_mask``, a particle is weighed within it.
    kind : {"particle", "film"}
        An isolated particle that is seen whole in every tilt, or a film that fills the field.
    marker : tuple of float, "auto" or None
        Film: the window of an isolated feature in the lowest tilt, (first row, last row, first column,
        last column) in pixels; "auto" takes the most isolated island, if there is one; None takes none.
    maximum_shift : float
        Largest shift of a tilt that is looked for, in pixels.
    maximum_axis : float
        Largest turn of the axis that is looked for, in degrees.
    find_axis : bool
        Look for the axis; otherwise it stays where the Euler angles have it.
    exclude : sequence of int
        Tilts to switch off, by their numbers in the coordinate ``tilt``.
    repeated : "auto" or sequence of sequence of int
        Tilts that are one tilt taken again, by their numbers, such as [[0, 20, 41]]: they are compared, which shows
        what the beam has changed. "auto" takes those of the same Euler angles to 0.1 degree; [] none.
    keep_aligned : bool
        Leave a series as it is that is aligned already.

    Returns
    -------
    xarray.Dataset
        ``shift`` (tilt, [y, x]) in pixels: aligned_t(r) = image_t(r + shift_t); ``shift_uncertainty``, the same
        shape; ``tilt_axis`` and ``tilt_axis_uncertainty`` in degrees, by how much the axis is turned from
        where the Euler angles have it, positive from image y towards -x (as
        :func:`~aetdist.geometry.rotate_tilt_axis` takes it); ``quality`` (tilt, measure), ``flags`` (tilt,)
        and ``used`` (tilt,) bool. ``attrs["already_aligned"]`` says whether the series was left as it is: shift
        and axis are then 0, and what was found is kept in ``found_shift`` and ``found_tilt_axis``. Where there are
        repeated tilts, ``repeat_tilts`` (repeat, member), the numbers of each pair of them, ``repeat_shift`` in pixels,
        ``repeat_correlation``, ``repeat_r_factor``, ``repeat_scale`` and ``repeat_flagged``
        (:func:`~aetdist.align.repeats.compare_repeated_tilts`).

    Raises
    ------
    InputError
        If the kind is unknown, there are fewer than three usable tilts, a number is off, a tilt to switch
        off does not exist, or a marker is not in the field.

    Warns
    -----
    AetdistWarning
        Naming the tilts that are blank or unmeasured, those that stand out and are switched off, and repeated ones
        that differ.

    Notes
    -----
    A parallel tilt about the axis takes a point to x cos(theta) - z sin(theta) across the axis and leaves it
    where it is along it. So the profiles along the axis (sums over lines across it) agree in all tilts: common
    lines, whose agreement gives the shifts along the axis and the axis itself
    (:mod:`~aetdist.align.particle`). The centre of mass of a particle moves across as a point does.

    What no alignment can know is where the object lies (the gauge): moving it by (x0, y0, z0) adds y0 to all
    shifts along the axis and x0 cos(theta) - z0 sin(theta) across it. Here the rotation's origin is put into a
    particle's centre of mass; of a film the lowest tilt stays where it is, and z = 0 is the film's middle.
    Take this sinusoid away before two alignments are compared. It is taken away too where it is
    judged whether a series is aligned already: that is so when what is left is less than twice its standard
    deviation, on the quadratic mean; of a film, when it is less than 1 pixel rms, and from tilt to tilt less than
    0.4 pixel rms, or not known so well.

    Film: neighbouring tilts are registered after the cos(theta) stretch (:mod:`~aetdist.align.film`); from there on
    shifts, axis and the heights of the film's parts are those at which all tilts are most coherent
    (:func:`~aetdist.align.film_fit.fit_film`). A marker adds its centre of mass across and its common line along the
    axis.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods, image pre-processing iv; M. C. Scott et al., Nature 483,
    444-447 (2012) (centre of mass); R. A. Crowther et al., Nature 226, 421-425 (1970) (common lines).
    """
    frame = checked_frame(series, kind, maximum_shift, maximum_axis)
    excluded = _numbered(series, exclude, "exclude")
    window = None
    if marker is not None and not isinstance(marker, str):
        if kind == "particle":
            raise InputError("A particle is its own marker; leave out marker, or say kind='film'.")
        window = checked_marker(marker, frame.images.shape[1:])
    usable = usable_tilts(frame)
    if not usable.all():
        _warn(series, ~usable, "is blank or was not measured, and is left out")
    counted = usable & ~excluded
    if counted.sum() < 3:
        raise InputError(
            f"{int(counted.sum())} of {len(counted)} tilts can be used; needed are at least three to align: "
            "check images and mask, or switch fewer tilts off."
        )
    if kind == "particle":
        found, aligned = align_particle_series(frame, counted, maximum_axis, find_axis)
    else:
        found, aligned = align_film_series(
            frame, counted, window, marker is not None, maximum_shift, maximum_axis, find_axis
        )
    columns = {
        "correlation": found.correlation,
        "common_line_residual": found.common_line_residual,
        "mass": found.mass,
    }
    table = quality_table(columns)
    used, flags = quality_flags(table.values, unmeasured=~usable, excluded=excluded)
    outliers = ~used & counted
    if outliers.any():
        _warn(series, outliers, "stands out and is switched off", flags)
    result = _result(series, frame, found, table, used, flags, aligned and keep_aligned)
    groups = _repeated(series, repeated, usable)
    measured = da.where(frame.mask, frame.images, np.nan)
    return result.assign(compare_in_series(measured, series["tilt"].values, groups, maximum_shift).data_vars)


def _result(
    series: xr.Dataset,
    frame: Frame,
    found: Alignment,
    table: xr.DataArray,
    used: np.ndarray,
    flags: np.ndarray,
    aligned: bool,
) -> xr.Dataset:
    """The Dataset of what was found."""
    turn = np.deg2rad(frame.axis + found.axis)
    along, across = np.array([np.cos(turn), -np.sin(turn)]), np.array([np.sin(turn), np.cos(turn)])  # (y, x)
    shift = np.outer(found.along, along) + np.outer(found.across, across)
    deviation = np.sqrt(
        np.outer(found.along_uncertainty**2, along**2) + np.outer(found.across_uncertainty**2, across**2)
    )
    shift = np.where(np.isfinite(shift), shift, 0.0)
    if aligned:
        log.info("The series is aligned already and is left as it is.")
    pixels, degrees = {"units": "pixel"}, {"units": "degree"}
    result = xr.Dataset(
        {
            "shift": (("tilt", "axis"), 0.0 * shift if aligned else shift, pixels),
            "shift_uncertainty": (("tilt", "axis"), deviation, pixels),
            "found_shift": (("tilt", "axis"), shift, pixels),
            "tilt_axis": ((), 0.0 if aligned else found.axis, degrees),
            "tilt_axis_uncertainty": ((), found.axis_uncertainty, degrees),
            "found_tilt_axis": ((), found.axis, degrees),
            "quality": table,
            "flags": ("tilt", flags),
            "used": ("tilt", used, {"units": "1", "long_name": "False where a tilt is switched off"}),
        },
        coords={"tilt": series["tilt"].values, "axis": ["y", "x"]},
        attrs={"already_aligned": bool(aligned)},
    )
    return result


def _numbered(series: xr.Dataset, tilts: Sequence[int], keyword: str) -> np.ndarray:
    """Where the tilts of some numbers are; bool, shape (tilt,)."""
    numbers = series["tilt"].values
    unknown = [int(t) for t in tilts if t not in numbers]
    if unknown:
        raise InputError(
            f"Tilt {', '.join(map(str, unknown))} to {keyword} does not exist; tilts are numbered {numbers[0]} to "
            f"{numbers[-1]}."
        )
    return np.isin(numbers, list(tilts))


def _repeated(
    series: xr.Dataset, repeated: Literal["auto"] | Sequence[Sequence[int]], usable: np.ndarray
) -> list[tuple[int, ...]]:
    """Indices of the usable tilts that are one tilt taken again."""
    if isinstance(repeated, str):
        groups = repeated_tilts(series["angles"].values)
    else:
        groups = [tuple(np.flatnonzero(_numbered(series, tilts, "compare"))) for tilts in repeated]
        if any(len(group) < 2 for group in groups):
            raise InputError(f"repeated came as {repeated!r}; needed are groups of two or more tilts.")
    seen = [tuple(i for i in group if usable[i]) for group in groups]
    return [group for group in seen if len(group) > 1]


def _warn(series: xr.Dataset, flags: np.ndarray, what: str, reasons: np.ndarray | None = None) -> None:
    tilts = ", ".join(
        f"{int(series['tilt'].values[t])}" + (f" ({reasons[t]})" if reasons is not None else "")
        for t in np.flatnonzero(flags)
    )
    warnings.warn(f"Tilt {tilts} {what}.", AetdistWarning, stacklevel=3)
