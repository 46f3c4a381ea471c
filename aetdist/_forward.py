"""From a model back to its tilt series: stores that are made, not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ._records import describe_group
from ._usage import accounted
from .experiment import checked_keywords
from .io import Record, Store, read_atoms, read_volume
from .io.groups import RAW, TILTS, VOLUME
from .io.readers import digest_of_file, read_table


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
        Keywords of `aetdist.simulate.simulate_tilt_series`; with `frames` those of
        `aetdist.simulate.simulate_acquisition`, which gives raw frames with all their corruption.
    """
    from .simulate import simulate_acquisition, simulate_tilt_series

    raw = "frames" in keywords
    group = RAW if raw else TILTS
    keywords = checked_keywords("simulate frames" if raw else "simulate", keywords)
    with accounted() as summary:
        atoms = read_atoms(atoms_file)
        table = _angles(angles)
        series = (simulate_acquisition if raw else simulate_tilt_series)(atoms, table, **keywords)
        source = Record("read", {str(name): variable for name, variable in atoms.variables.items()})
        record = Record("simulate", {"angles": table, **keywords}, {"truth": source.digest}, keywords["seed"])
        with Store.create(output, overwrite=overwrite) as store:
            store.begin("truth", atoms.load(), record=source)  # finished last: nothing is kept where one of both fails
            store.write(group, series, record=record, chunks={"tilt": 1})
            store.finish("truth")
            summary |= {"store": str(output), "n_atoms": atoms.sizes["atom"], **describe_group(store, group)}
    return summary


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
    """
    from .geometry import euler_from_tilts, grid_step, matrices_from_euler
    from .projections import project_volume
    from .schema import EULER, TILT_SERIES, with_units

    with accounted() as summary:
        table = _angles(angles)
        euler = euler_from_tilts(table) if table.ndim == 1 else table
        density, inputs = _volume(Path(volume), pixel_size)
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
            {"source": f"projections of {Path(volume).name}"},
        )
        with Store.create(output, overwrite=overwrite) as store:
            record = Record("project", {"angles": euler, "pixel_size": size}, inputs)
            store.write(TILTS, with_units(series, TILT_SERIES), record=record, chunks={"tilt": 1})
            summary |= {"store": str(output), **describe_group(store, TILTS)}
    return summary


def _angles(angles: str | Path | np.ndarray) -> np.ndarray:
    return read_table(angles) if isinstance(angles, (str, Path)) else np.asarray(angles, dtype=np.float64)


def _volume(path: Path, pixel_size: float | None) -> tuple[xr.DataArray, dict[str, str]]:
    """Density to project, and digests of what it was read from."""
    if path.is_dir():
        store = Store.open(path)
        return store.read(VOLUME)["density"], {VOLUME: store.digest(VOLUME)}
    density = read_volume(path, pixel_size=pixel_size)["density"]
    return density, {path.name: digest_of_file(path)}
