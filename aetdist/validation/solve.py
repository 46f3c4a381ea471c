"""From a tilt series in memory to refined atoms, stage by stage: for small samples, one task each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import xarray as xr

from ..align import shift_images
from ..angles import apply_refinement
from ..classify import classify_atoms
from ..reconstruct import reconstruct_resire
from ..refine import refine_atoms
from ..refinement import reconstruct_refined
from ..trace import trace_atoms

#: Tracing wants a volume of more iterations than the one that matches the images best.
ITERATIONS = 100

Run = Callable[..., Any]


def solve_series(
    series: xr.Dataset,
    *,
    species: int,
    angles: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    run: Run | None = None,
) -> dict[str, xr.Dataset]:
    """Computes: volume and atoms of an isolated object from its projections.

    Parameters
    ----------
    series : xarray.Dataset
        TILT_SERIES in memory.
    species : int
        Types of atoms.
    angles : bool
        Refine angles and shifts first.
    options : mapping, optional
        Keywords of ``refine-angles``, ``reconstruct``, ``trace``, ``classify`` and ``refine``. Beside them the
        defaults, but for 100 iterations of reconstruction.
    run : callable, optional
        Called as run(stage, function, *inputs, **keywords), and has to call the function: it may take the time.

    Returns
    -------
    dict of str to xarray.Dataset
        ``series`` (that was solved), ``volume``, and the atoms ``traced``, ``classified`` and ``refined``.
    """
    given = {stage: dict(keywords) for stage, keywords in (options or {}).items()}
    given["reconstruct"] = {"iterations": ITERATIONS} | given.get("reconstruct", {})

    def stage(name: str, function: Callable[..., Any], *inputs: Any, **keywords: Any) -> Any:
        keywords |= given.get(name, {})
        return function(*inputs, **keywords) if run is None else run(name, function, *inputs, **keywords)

    if angles:
        series = stage("refine-angles", _refined_series, series)
    volume = stage("reconstruct", reconstruct_resire, series)
    traced = stage("trace", trace_atoms, volume)
    classified = stage("classify", classify_atoms, volume, traced, species=species)
    refined = stage("refine", refine_atoms, series, classified, volume=volume)
    return {"series": series, "volume": volume, "traced": traced, "classified": classified, "refined": refined}


def _refined_series(series: xr.Dataset, **options: Any) -> xr.Dataset:
    """The series with angles and shifts refined together with the volume, resampled once."""
    corrections = reconstruct_refined(series, **options).corrections
    return apply_refinement(series, corrections, remake=partial(shift_images, series)).compute()
