"""One tilt taken again during and after the series: what the beam has changed in the sample."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..errors import AetdistWarning, InputError
from ..images import register, resample

_SAME_ANGLE = 0.1  # degrees between tilts that are one tilt taken again


def repeated_tilts(angles: np.ndarray) -> list[tuple[int, ...]]:
    """Tilts of a series that were taken at the same angles.

    Parameters
    ----------
    angles : ndarray, shape (tilt, 3), float64
        Euler angles in degrees.

    Returns
    -------
    list of tuple of int
        Indices of each tilt that was taken more than once, in the order of the series.
    """
    groups: list[list[int]] = []
    for i, angle in enumerate(angles):
        for group in groups:
            if np.abs(angles[group[0]] - angle).max() <= _SAME_ANGLE:
                group.append(i)
                break
        else:
            groups.append([i])
    return [tuple(group) for group in groups if len(group) > 1]


def compare_repeated_tilts(
    images: Sequence[ArrayLike],
    *,
    names: Sequence[str] | None = None,
    maximum_shift: float = 20.0,
    least_correlation: float = 0.9,
    largest_r: float = 0.2,
) -> xr.Dataset:
    """Computes: shift, correlation and R between images of one tilt, taken before, during and after the series.

    Parameters
    ----------
    images : sequence of array_like, shape (y, x)
        Two or more images at one tilt in the order in which they were taken, background subtracted, NaN where
        unmeasured.
    names : sequence of str, optional
        What to call them; the default is their numbers.
    maximum_shift : float
        Largest shift that is looked for, in pixels.
    least_correlation : float
        Correlation below which a pair is flagged.
    largest_r : float
        R above which a pair is flagged. Both limits are where counting noise of some hundred electrons per pixel
        alone does not bring an undamaged sample; set them for the dose at hand.

    Returns
    -------
    xarray.Dataset
        For every pair, the earlier image first: ``pair`` (pair,), its name, ``members`` (pair, 2), the
        indices of its images, ``shift`` (pair, [y, x]) in pixels, by which the later image lies off the earlier,
        ``correlation`` (pair,), ``r_factor`` (pair,), ``scale`` (pair,), the factor that brings the later
        image to the earlier, and ``flagged`` (pair,) bool.

    Raises
    ------
    InputError
        If there are fewer than two images, they differ in size, are blank or share no measured pixel.

    Warns
    -----
    AetdistWarning
        Naming the pairs that are flagged.

    Notes
    -----
    R = sum |I_a - c I_b| / sum |I_a| over the pixels that both show, I_b shifted onto I_a and c the
    least-squares scale: a brighter beam is no damage.
    """
    arrays = [np.asarray(image, dtype=np.float64) for image in images]
    if len(arrays) < 2:
        raise InputError(f"{len(arrays)} images came; needed are two or more of one tilt.")
    called = [str(i) for i in range(len(arrays))] if names is None else [str(name) for name in names]
    for name, image in zip(called, arrays, strict=True):
        if image.ndim != 2 or image.shape != arrays[0].shape:
            raise InputError(
                f"Image {name} has shape {image.shape}, the first one {arrays[0].shape}; needed are images (y, x) of "
                "one size."
            )
    if not (maximum_shift > 0 and -1 <= least_correlation <= 1 and largest_r > 0):
        raise InputError(
            f"maximum_shift came as {maximum_shift!r}, least_correlation as {least_correlation!r} and largest_r as "
            f"{largest_r!r}; needed are pixels above 0, a correlation, and an R above 0."
        )
    members = list(itertools.combinations(range(len(arrays)), 2))
    pairs = [f"{called[a]}-{called[b]}" for a, b in members]
    rows = []
    for pair, (a, b) in zip(pairs, members, strict=True):
        try:
            rows.append(_compared(arrays[a], arrays[b], maximum_shift))
        except InputError as error:
            raise InputError(f"Repeated tilt {pair}: {error}") from None
    table = np.array(rows)
    flagged = (table[:, 2] < least_correlation) | (table[:, 3] > largest_r)
    if flagged.any():
        listed = ", ".join(
            f"{pair} (correlation {row[2]:.3f}, R {row[3]:.3f})"
            for pair, row, flag in zip(pairs, table, flagged, strict=True)
            if flag
        )
        warnings.warn(
            f"Images of one tilt differ, {listed}: the beam may have changed the sample.", AetdistWarning, stacklevel=2
        )
    one = {"units": "1"}
    return xr.Dataset(
        {
            "members": (("pair", "member"), np.array(members), one),
            "shift": (("pair", "axis"), table[:, :2], {"units": "pixel"}),
            "correlation": ("pair", table[:, 2], one),
            "r_factor": ("pair", table[:, 3], one),
            "scale": ("pair", table[:, 4], one),
            "flagged": ("pair", flagged, one),
        },
        coords={"pair": pairs, "axis": ["y", "x"]},
        attrs={"least_correlation": float(least_correlation), "largest_r": float(largest_r)},
    )


def compare_in_series(
    images: Any, tilts: np.ndarray, groups: Sequence[Sequence[int]], maximum_shift: float
) -> xr.Dataset:
    """Computes: every tilt of a series that was taken more than once, compared (:func:`compare_repeated_tilts`).

    Parameters
    ----------
    images : ndarray or dask Array, shape (tilt, y, x)
        NaN where unmeasured; only those of the groups are computed, a group at a time.
    tilts : ndarray, shape (tilt,), int
        Their numbers.
    groups : sequence of sequence of int
        Indices of the tilts that are one tilt.
    maximum_shift : float
        Of one tilt, in pixels; two of them may lie twice as far apart.

    Returns
    -------
    xarray.Dataset
        ``repeat_tilts`` (repeat, member), the numbers of the pair, and ``repeat_shift``, ``repeat_correlation``,
        ``repeat_r_factor``, ``repeat_scale`` and ``repeat_flagged``; empty without groups.
    """
    found = []
    for group in groups:
        named = [str(tilts[i]) for i in group]
        seen = dask.compute(*(images[i] for i in group))
        pairs = compare_repeated_tilts(seen, names=named, maximum_shift=2 * maximum_shift)
        members = tilts[np.asarray(group)[pairs["members"].values]]
        found.append(pairs.assign(members=(("pair", "member"), members, {"units": "1"})).drop_vars("pair"))
    if not found:
        return xr.Dataset()
    joined = xr.concat(found, "pair").rename(pair="repeat", members="tilts")
    return joined.rename({name: f"repeat_{name}" for name in joined.data_vars})


def _compared(first: np.ndarray, second: np.ndarray, maximum_shift: float) -> tuple[float, float, float, float, float]:
    """Shift along y and x, correlation, R and scale of the second image against the first."""
    shift = register(second, first, maximum_shift=maximum_shift).shift
    moved, inside = resample(second, np.eye(2), shift)
    both = inside & np.isfinite(first)
    a, b = first[both], moved[both].astype(np.float64)
    scale = float((a * b).sum() / (b * b).sum())
    centred = a - a.mean(), b - b.mean()
    spread = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    correlation = float((centred[0] * centred[1]).sum() / spread)
    r_factor = float(np.abs(a - scale * b).sum() / np.abs(a).sum())
    return float(shift[0]), float(shift[1]), correlation, r_factor, scale
