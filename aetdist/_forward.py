"""From a model back to its tilt series: stores that are made, not measured."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ._records import describe_group
from ._threads import kernel_threads
from ._usage import accounted, current_client
from .errors import AetdistWarning
from .experiment import checked_keywords
from .io import Record, Store, begun, read_atoms, read_volume, write_blocks
from .io.groups import RAW, TILTS, VOLUME
from .io.hierarchy import is_store
from .io.places import Place, local_path, place
from .io.readers import digest_of_file, read_table

log = logging.getLogger(__name__)

TRUTH = "truth"


def simulate(
    atoms_file: str | Path,
    output: str | Path,
    *,
    angles: str | Path | np.ndarray,
    overwrite: bool = False,
    **keywords: Any,
) -> dict[str, Any]:
    """Computes: a store with the tilt series that atoms would give, and the atoms as ``truth``.

    Parameters
    ----------
    atoms_file : str or Path
        Whatever `aetdist.io.read_atoms` reads, in Angstrom.
    output : str or Path
        The store to make.
    angles : str, Path or ndarray of shape (tilt, 3) or (tilt,)
        Angles in degrees, or the file they stand in.
    overwrite : bool, default False
        Replace a store that is there.
    **keywords
        Keywords of `aetdist.simulate.simulate_tilt_series`; with `multislice` those of
        `aetdist.simulate.Multislice` too; with `frames` those of
        `aetdist.simulate.simulate_acquisition`, which gives raw frames with all their corruption.

    Returns
    -------
    dict
        ``n_atoms``, ``n_tilts``, ``n_tilts_computed`` (the others were there from a run that was killed),
        ``outside_field`` (largest part of the atoms beside the field at a tilt); with `multislice` ``forecast``
        (`aetdist.simulate.forecast_multislice`) ...

    Warns
    -----
    AetdistWarning
        If some atoms are beside the field and `kind` does not say that it is a film.
    """
    raw = "frames" in keywords
    group = RAW if raw else TILTS
    name = "simulate frames" if raw else "simulate multislice" if keywords.get("multislice") else "simulate"
    keywords = checked_keywords(name, keywords)
    with accounted() as summary:
        atoms = read_atoms(atoms_file)
        table = _angles(angles)
        source = Record("read", {str(name): variable for name, variable in atoms.variables.items()})
        record = Record("simulate", {"angles": table, **keywords}, {TRUTH: source.digest}, keywords["seed"])
        there = is_store(output)
        store, found = _opened(output, group, record, overwrite)
        with store:
            if found is not None:  # the seed that was drawn then
                keywords["seed"] = int(found.attrs["simulation_seed"])
            series = _simulated(atoms, table, keywords)
            summary |= _foreseen(series, keywords)
            if found is None:
                store.begin(TRUTH, atoms.load(), record=source)
                if not there:  # what is written from here on is kept and gone on with, whatever happens
                    store.finish(TRUTH)
            try:
                summary["n_tilts_computed"] = write_blocks(store, group, series, record=record, dim="tilt")
            except KeyboardInterrupt:  # one that was to be replaced comes back after an error only
                store.finish(TRUTH)
                raise
            store.finish(TRUTH)
            summary |= {"store": str(output), "n_atoms": atoms.sizes["atom"], **describe_group(store, group)}
    return summary


def _opened(output: str | Path, group: str, record: Record, overwrite: bool) -> tuple[Store, xr.Dataset | None]:
    """The store that a killed run began in just this way, and what it holds of the group; or else a new one."""
    if is_store(output):
        store = Store.open(output, "a")
        found = begun(store, group, record) if TRUTH in store.groups() else None
        if found is not None:
            return store, found
        store.close()
    return Store.create(output, overwrite=overwrite), None


def _simulated(atoms: xr.Dataset, angles: np.ndarray, keywords: dict[str, Any]) -> xr.Dataset:
    """The series, lazy; what is said of multislice beside the other keywords goes together."""
    from .simulate import Multislice, simulate_acquisition, simulate_tilt_series

    if "frames" in keywords:
        return simulate_acquisition(atoms, angles, **keywords)
    names = {field.name for field in dataclasses.fields(Multislice)}
    own = {name: value for name, value in keywords.items() if name not in names}
    if own["multislice"] is True:
        own["multislice"] = Multislice(**{k: v for k, v in keywords.items() if k in names and v is not None})
    return simulate_tilt_series(atoms, angles, **own)


def _foreseen(series: xr.Dataset, keywords: dict[str, Any]) -> dict[str, Any]:
    """What can be said before the work begins: atoms beside the field, time and memory of multislice."""
    from .simulate import forecast_multislice

    said: dict[str, Any] = {}
    if "simulation_outside_field" in series.attrs:
        said["outside_field"] = part = series.attrs["simulation_outside_field"]
        if part > 0 and keywords["kind"] is None:
            warnings.warn(
                f"At one tilt {100 * part:.3g} % of the atoms are beside the field of {series.sizes['x']} x "
                f"{series.sizes['y']} pixels. That is right for a film (say so with kind=film, --kind film); a "
                "particle needs a larger field.",
                AetdistWarning,
                stacklevel=3,
            )
    if keywords.get("multislice"):
        said["forecast"] = forecast = forecast_multislice(series)
        client = current_client()
        cores = sum(client.nthreads().values()) if client is not None else kernel_threads()
        at_once = min(cores, series.sizes["tilt"])
        log.warning(  # no mere information: a terminal shows it too
            "multislice: about %.2g hours of one core for %d tilts (%d at once here), %.2g GB for each at a time; up "
            "to %d probes through %d slices of %d x %d points",
            forecast["cpu_seconds"] / 3600, series.sizes["tilt"], at_once, forecast["memory_bytes"] / 1e9,
            forecast["n_probes"], forecast["n_slices"], *forecast["grid"],
        )  # fmt: skip
    return said


def project(
    volume: str | Path,
    output: str | Path,
    *,
    angles: str | Path | np.ndarray,
    pixel_size: float | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Computes: a store with the projections of a volume.

    Parameters
    ----------
    volume : str or Path
        A store (its group ``volume``), or an MRC or NPY file of shape (z, y, x).
    output : str or Path
        The store to make; the projections are its aligned tilt series.
    angles : str, Path or ndarray of shape (tilt, 3) or (tilt,)
        Euler angles or single tilts about y in degrees, or the file they stand in.
    pixel_size : float, optional
        Edge of a voxel in Angstrom; needed for NPY, otherwise the file says it.
    overwrite : bool, default False
        Replace a store that is there.

    Returns
    -------
    dict
        ``n_tilts``, ``pixel_size`` (Angstrom), ``seconds`` ...
    """
    from .geometry import euler_from_tilts, grid_step, matrices_from_euler
    from .projections import project_volume
    from .schema import EULER, SERIES_CHUNKS, TILT_SERIES, with_units

    with accounted() as summary:
        table = _angles(angles)
        euler = euler_from_tilts(table) if table.ndim == 1 else table
        density, inputs = _volume(place(volume), pixel_size)
        size = grid_step(density["x"].values)
        images = project_volume(density, euler)
        series = xr.Dataset(
            {
                "images": images,
                "mask": xr.ones_like(images, dtype=bool),
                "angles": (("tilt", "euler"), euler),
                "matrices": (("tilt", "row", "column"), matrices_from_euler(euler)),
                "pixel_size": ((), size),
            },
            {"euler": list(EULER), "tilt": np.arange(len(euler))},
            {"source": f"projections of {place(volume).name}"},
        )
        with Store.create(output, overwrite=overwrite) as store:
            record = Record("project", {"angles": euler, "pixel_size": size}, inputs)
            store.write(TILTS, with_units(series, TILT_SERIES), record=record, chunks=SERIES_CHUNKS)
            summary |= {"store": str(output), **describe_group(store, TILTS)}
    return summary


def _angles(angles: str | Path | np.ndarray) -> np.ndarray:
    return read_table(angles) if isinstance(angles, (str, Path)) else np.asarray(angles, dtype=np.float64)


def _volume(path: Place, pixel_size: float | None) -> tuple[xr.DataArray, dict[str, str]]:
    """Density to project, and digests of what it was read from."""
    if path.is_dir():
        store = Store.open(path)
        return store.read(VOLUME)["density"], {VOLUME: store.digest(VOLUME)}
    file = local_path(path)
    density = read_volume(file, pixel_size=pixel_size)["density"]
    return density, {file.name: digest_of_file(file)}
