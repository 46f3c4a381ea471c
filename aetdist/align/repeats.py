"""One tilt taken again during and after the series: what the beam has changed in the sample."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..errors import AetdistWarning, InputError
from ..images import register, resample

MOMENTS = ("before", "during", "after")


def compare_repeated_tilts(
    before: ArrayLike,
    during: ArrayLike,
    after: ArrayLike,
    *,
    maximum_shift: float = 20.0,
    least_correlation: float = 0.9,
    largest_r: float = 0.2,
) -> xr.Dataset:
    """Computes: shift, correlation and R between images of one tilt taken before, during and after the series.

    Parameters
    ----------
    before, during, after : array_like, shape (y, x)
        Images at one tilt, background subtracted, NaN where unmeasured.
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
        For the pairs ``before-during``, ``before-after`` and ``during-after``: ``shift`` (pair, [y, x]) in pixels, by
        which the later image lies off the earlier, ``correlation`` (pair,), ``r_factor`` (pair,),
        ``scale`` (pair,), the factor that brings the later image to the earlier, and ``flagged`` (pair,) bool.

    Raises
    ------
    InputError
        If the images differ in size, are blank or share no measured pixel.

    Warns
    -----
    AetdistWarning
        Naming the pairs that are flagged.

    Notes
    -----
    R = sum |I_a - c I_b| / sum |I_a| over the pixels that both show, I_b shifted onto I_a and c the
    least-squares scale: a brighter beam is no damage.
    """
    images = [np.asarray(image, dtype=np.float64) for image in (before, during, after)]
    for name, image in zip(MOMENTS, images, strict=True):
        if image.ndim != 2 or image.shape != images[0].shape:
            raise InputError(
                f"The image taken {name} the series has shape {image.shape}, the first one {images[0].shape}; "
                "needed are images (y, x) of one size."
            )
    if not (maximum_shift > 0 and -1 <= least_correlation <= 1 and largest_r > 0):
        raise InputError(
            f"maximum_shift came as {maximum_shift!r}, least_correlation as {least_correlation!r} and largest_r as "
            f"{largest_r!r}; needed are pixels above 0, a correlation, and an R above 0."
        )
    pairs = [(0, 1), (0, 2), (1, 2)]
    names = [f"{MOMENTS[a]}-{MOMENTS[b]}" for a, b in pairs]
    rows = []
    for name, (a, b) in zip(names, pairs, strict=True):
        try:
            rows.append(_compared(images[a], images[b], maximum_shift))
        except InputError as error:
            raise InputError(f"Repeated tilt {name}: {error}") from None
    table = np.array(rows)
    flagged = (table[:, 2] < least_correlation) | (table[:, 3] > largest_r)
    if flagged.any():
        listed = ", ".join(
            f"{name} (correlation {row[2]:.3f}, R {row[3]:.3f})"
            for name, row, flag in zip(names, table, flagged, strict=True)
            if flag
        )
        warnings.warn(
            f"Images of one tilt differ, {listed}: the beam may have changed the sample.", AetdistWarning, stacklevel=2
        )
    one = {"units": "1"}
    return xr.Dataset(
        {
            "shift": (("pair", "axis"), table[:, :2], {"units": "pixel"}),
            "correlation": ("pair", table[:, 2], one),
            "r_factor": ("pair", table[:, 3], one),
            "scale": ("pair", table[:, 4], one),
            "flagged": ("pair", flagged, one),
        },
        coords={"pair": names, "axis": ["y", "x"]},
        attrs={"least_correlation": float(least_correlation), "largest_r": float(largest_r)},
    )


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
