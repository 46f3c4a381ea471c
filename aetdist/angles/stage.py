"""The stage `refine-angles`: what was found is applied, with all other corrections, in one resampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from ..geometry import matrices_from_euler
from ..schema import TILT_SERIES, check, with_units


def apply_refinement(
    series: xr.Dataset, corrections: xr.Dataset, remake: Callable[[np.ndarray], xr.Dataset]
) -> xr.Dataset:
    """Images where the refinement has them, at its angles, lazily, with everything that was found.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES that was refined; where alignment moved it, with ``shift`` (tilt, [y, x]) in pixels.
    corrections : xarray.Dataset
        What :func:`~aetdist.angles.refine_angles` or :func:`~aetdist.refinement.reconstruct_refined` found in it.
    remake : callable
        Makes the images again from what alignment started from, with the whole shift (tilt, [y, x]) in pixels, so
        that they are resampled once.

    Returns
    -------
    xarray.Dataset
        TILT_SERIES. The mask of a tilt that is not used is False. ``shift`` is alignment's and the refinement's
        together, ``refined_shift`` the refinement's alone.
    """
    check(series, TILT_SERIES)
    found = corrections["shift"].values
    whole = found + (series["shift"].values if "shift" in series else 0.0)
    images = remake(whole)
    angles = corrections["angles"].values
    kept = {str(n): v for n, v in corrections.data_vars.items() if n not in (*TILT_SERIES.variables, "shift")}
    result = images.assign(
        kept
        | {
            "mask": images["mask"] & corrections["used"],
            "angles": (("tilt", "euler"), angles),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(angles)),
            "shift": (("tilt", "axis"), whole, {"units": "pixel"}),
            "refined_shift": (("tilt", "axis"), found, {"units": "pixel"}),
        }
    )
    result.attrs = {**images.attrs, **corrections.attrs}
    return with_units(result, TILT_SERIES)
