"""The demo: a small amorphous film with a known truth, taken through every stage."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xarray as xr

from . import pipeline
from ._report import write_report
from .errors import InputError
from .io import Store, newest, write_xyz
from .io.groups import ATOMS
from .io.groups import TILTS as TILT_SERIES
from .metrics import compare_atoms
from .report.findings import in_field
from .simulate import amorphous_film, simulate_tilt_series

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

PIXEL_SIZE = 0.4
"""Angstrom."""
FIELD = (112, 80)
"""Pixels along x and y; the film goes on beyond them."""
TILTS = np.linspace(-68.0, 68.0, 43)
"""Degrees; every tilt is a little off in phi and psi too."""
DOSE = 2.0e4
"""Electrons per square Angstrom and tilt."""
TOLERANCE = 0.75
"""Angstrom within which a found atom counts as a true one."""

_EXPERIMENT = """\
# aetdist demo, seed {seed}
# A simulated film; its true atoms are in truth.xyz. `aetdist run experiment.toml` does what is not done yet.

[import]
files = ["tilt_series.h5"]
output = "run.zarr"
images = "images"
angles = "angles"
pixel_size = {pixel_size}  # Angstrom
dose = {dose}  # electrons per square Angstrom, whole series

[scan]
window = [64, 48]  # pixels along x and y: 2 x 2 windows
overlap = 16  # pixels
thickness = 32.0  # Angstrom: the film and its waves
iterations = 30

[trace]
minimum_distance = 2.0  # Angstrom

[classify]
elements = ["Cu", "Zr"]  # of type 1 and 2, by rising brightness
species = 2

[refine]

[analyze]
field = [{x0}, {x1}, {y0}, {y1}]  # Angstrom: the film goes on beyond it
solute = 2  # medium-range order of the Zr atoms
surrogates = 0  # its clusters are not held against chance
draws = 0  # nor the figures against the error bars, both for time

[export]
atoms = "atoms.xyz"
"""


def run_demo(
    folder: str | Path,
    *,
    seed: int = 2021,
    overwrite: bool = False,
    client: Client | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Computes: a film of two species, its noisy tilt series, and every stage from the import to the report.

    Parameters
    ----------
    folder : str or Path
        Gets tilt_series.h5, truth.xyz, experiment.toml, run.zarr, atoms.xyz, pictures/ and
        report.html. One that an interrupted demo of the same seed left is gone on with.
    seed : int
        Of the film, the angles and the noise.
    overwrite : bool
        Write into a folder that holds anything else.
    client : distributed.Client, optional
        Where the work runs; the default is the client that is current, or else workers started on
        this machine for the demo.
    on_stage : callable, optional
        Called with a line of text as each stage begins.

    Returns
    -------
    dict
        What was recovered of the truth inside the field: ``recall``, ``precision``, ``f1``, ``rms`` (Angstrom)
        and others of :class:`aetdist.metrics.Comparison`; ``r_factor_mean``, ``n_atoms``; the ``stages``; paths of
        what was written; ``seconds``.

    Raises
    ------
    InputError
        If the folder holds something else and `overwrite` is False.
    """
    begin = time.monotonic()
    folder = Path(folder)
    _check_folder(folder, seed, overwrite)

    def stage(text: str) -> None:
        log.info("demo: %s", text)
        if on_stage is not None:
            on_stage(text)

    with _current(client):
        stage("making a film and its tilt series")
        folder.mkdir(parents=True, exist_ok=True)
        # First of all, so that an interrupted demo is known for one.
        text = _EXPERIMENT.format(seed=seed, pixel_size=PIXEL_SIZE, dose=DOSE * len(TILTS), **_edges())
        (folder / "experiment.toml").write_text(text, encoding="utf-8")
        truth, series = make_experiment(seed)
        write_xyz(folder / "truth.xyz", truth)
        _write_series(folder / "tilt_series.h5", series)

        stage("importing, scanning, tracing, classifying, refining, analysing and exporting")
        done = pipeline.run(folder / "experiment.toml")

        stage("comparing with the truth and writing the report")
        with Store.open(folder / "run.zarr") as store:
            found, imported = store.read(newest(ATOMS, store)), store.read(TILT_SERIES)
        inside = in_field(truth, imported)
        comparison = compare_atoms(in_field(found, imported), inside, tolerance=TOLERANCE)
        report = write_report(
            folder / "run.zarr",
            folder / "report.html",
            truth=truth,
            tolerance=TOLERANCE,
            title="aetdist demo",
            pictures_to=folder / "pictures",
        )
    return {
        **{name: value for name, value in comparison.to_dict().items() if value is not None},
        "r_factor_mean": done["r_factor_mean"],
        "n_atoms": done["n_atoms"],
        "stages": done["stages"],
        "peak_memory_bytes": done["peak_memory_bytes"],
        "store": str(folder / "run.zarr"),
        "experiment": str(folder / "experiment.toml"),
        "atoms": str(folder / "atoms.xyz"),
        "truth": str(folder / "truth.xyz"),
        "report": str(report),
        "pictures": str(folder / "pictures"),
        "seconds": time.monotonic() - begin,
    }


def make_experiment(seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    """Make the demo's film and its tilt series.

    Parameters
    ----------
    seed : int
        Of the film, the angles and the noise.

    Returns
    -------
    truth, series : xarray.Dataset
        ATOMS, and TILT_SERIES (lazy).

    Notes
    -----
    At a tilt theta the field shows field / cos(theta) of the film, and what lies a height z above the
    origin moves by z tan(theta): the film is made wide enough to fill the field at every tilt.
    """
    steepest = np.deg2rad(np.abs(TILTS).max())
    thickness, waviness, wedge = 18.0, 2.0, 4.0
    top = thickness / 2 + waviness + wedge / 2
    extent_x = FIELD[0] * PIXEL_SIZE / np.cos(steepest) + 2 * top * np.tan(steepest)
    extent_y = FIELD[1] * PIXEL_SIZE + 8.0
    truth = amorphous_film(
        (round(extent_x), round(extent_y)),
        thickness,
        species=("Cu", "Zr"),
        waviness=waviness,
        wavelength=90.0,
        wedge=wedge,
        seed=seed,
    )
    random = np.random.default_rng([seed, 1])
    angles = np.zeros((len(TILTS), 3))
    angles[:, 1] = TILTS
    angles[:, [0, 2]] = random.normal(0.0, 0.3, (len(TILTS), 2))
    series = simulate_tilt_series(truth, angles, pixel_size=PIXEL_SIZE, field=FIELD, dose=DOSE, seed=seed)
    return truth, series


def _edges() -> dict[str, float]:
    """Edges of the field in Angstrom."""
    (x0, x1), (y0, y1) = ((-(n // 2) * PIXEL_SIZE, (n - 1 - n // 2) * PIXEL_SIZE) for n in FIELD)
    return {name: round(value, 1) for name, value in (("x0", x0), ("x1", x1), ("y0", y0), ("y1", y1))}


def _write_series(path: Path, series: xr.Dataset) -> None:
    """The series as a microscope's software might leave it; the same series gives the same bytes."""
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w", track_order=False) as file:
            file.create_dataset("images", data=series["images"].values, chunks=(1, *FIELD[::-1]), compression="gzip")
            file.create_dataset("angles", data=series["angles"].values)
            file["images"].attrs["pixel_size_angstrom"] = PIXEL_SIZE
            file["angles"].attrs["units"] = "degree"
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check_folder(folder: Path, seed: int, overwrite: bool) -> None:
    """Refuse a folder in which something else lies."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the demo a folder of its own.")
    if overwrite or not folder.exists() or not any(folder.iterdir()):
        return
    experiment = folder / "experiment.toml"
    first = f"# aetdist demo, seed {seed}"
    if experiment.is_file() and experiment.read_text(encoding="utf-8", errors="replace").partition("\n")[0] == first:
        return
    raise InputError(
        f"{folder} holds something other than the demo of seed {seed}; give an empty or new folder, or overwrite=True."
    )


@contextlib.contextmanager
def _current(client: Client | None):  # type: ignore[no-untyped-def]
    """The client made current, or the one that is, or a new one on this machine."""
    from .cluster import connect

    with contextlib.ExitStack() as stack:
        if client is None:
            stack.enter_context(connect())
        else:
            stack.enter_context(client.as_current())
        yield
