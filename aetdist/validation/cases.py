"""An experiment planned: what a dose, a number of tilts and their range would give of a candidate structure."""

from __future__ import annotations

import contextvars
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from ..errors import AetdistError, AetdistWarning, InputError
from ..geometry import euler_from_tilts, matrices_from_euler
from ..io import Record, Store, write_blocks
from ..schema import ATOMS, AXES, check
from ..simulate import simulate_tilt_series
from ..simulate.inputs import average_intensity, heights_of, per_type, types_of
from .comparison import TOLERANCE, compared, match_atoms
from .model import OVERLAP, overlapping
from .solve import ITERATIONS, solve_series

log = logging.getLogger(__name__)

CASES, DESIGN, MODEL = "cases", "design", "model"
#: What a case gives: number of atoms, parts of 1, Angstrom.
FIGURES = ("n_true", "n_found", "identified", "missed", "mistyped", "false", "rms_x", "rms_y", "rms_z")
_DIMS = ("dose", "n_tilts", "tilt_range")


@dataclass(frozen=True)
class Imaging:
    """How every case is imaged and solved.

    Parameters
    ----------
    pixel_size : float
        Angstrom.
    sigma : tuple of float
        Standard deviation of the atoms of each type, Angstrom.
    heights : tuple of float, optional
        Peak value of the atoms of each type.
    counts : float
        Electrons that one pixel of intensity 1 counts for one electron per square Angstrom.
    angle_error : float
        Degrees: standard deviation of what the angles are off.
    iterations : int
        Of the reconstruction.
    tolerance : float
        Angstrom.
    seed : int
    """

    pixel_size: float
    sigma: tuple[float, ...]
    heights: tuple[float, ...] | None
    counts: float
    angle_error: float
    iterations: int
    tolerance: float
    seed: int


def design_experiment(
    atoms: xr.Dataset,
    store: Store,
    *,
    doses: Sequence[float],
    n_tilts: Sequence[int] = (55,),
    tilt_ranges: Sequence[float] = (70.0,),
    radius: float | None = 15.0,
    pixel_size: float = 0.35,
    sigma: float | Sequence[float] = 0.5,
    heights: Sequence[float] | None = None,
    efficiency: float = 0.05,
    angle_error: float = 0.0,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> xr.Dataset:
    """Computes: what experiments would find of a candidate structure, one Dask task for each.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS of an isolated object, or of more than is simulated of it; types, or species.
    store : Store
        Open for writing; finished cases are kept there, and a sweep that was killed goes on.
    doses : sequence of float
        Electrons per square Angstrom of the whole series, shared evenly by its tilts.
    n_tilts : sequence of int
        Numbers of tilts.
    tilt_ranges : sequence of float
        Largest tilt to either side in degrees, about y; the tilts are spread evenly.
    radius : float, optional
        Angstrom: only a sphere around the centre is simulated, in vacuum, so that it takes minutes; None: all atoms.
        The electrons that an atom scatters are as many in either case, but atoms deep in a large object are hidden
        among more others.
    pixel_size : float
        Angstrom.
    sigma : float or sequence of float
        Standard deviation of an atom in Angstrom: thermal motion and probe; for all or for type 1, 2, ...
    heights : sequence of float, optional
        Peak value of an atom of type 1, 2, ...; by default as in `simulate_tilt_series` (Z^1.7).
    efficiency : float
        Part of the electrons that is counted where the whole structure is of average intensity.
    angle_error : float
        Degrees: standard deviation of what every Euler angle is off; the angles are refined first then.
    iterations : int
        Of the reconstruction.
    tolerance : float
        Angstrom: how far a found atom may be from the true one.
    seed : int
        Of noise and errors; the same for all cases.

    Returns
    -------
    xarray.Dataset
        ``identified``, ``missed``, ``mistyped``, ``false`` (dose, n_tilts, tilt_range), parts of 1; ``rms`` (dose,
        n_tilts, tilt_range, axis) in Angstrom; ``n_true``, ``n_found``. A case in which no stage could go on (there is
        nothing to see, say) has identified 0 and NaN elsewhere. Attribute ``n_cases_computed``.

    Raises
    ------
    InputError
        If atoms overlap (nearer than 1 Angstrom), an element is unknown, or a number is off.
    """
    asked = dict(zip(_DIMS, (doses, n_tilts, tilt_ranges), strict=True))
    cases = list(product(*(_checked(name, values) for name, values in asked.items())))
    for name, value in {"pixel_size": pixel_size, "efficiency": efficiency, "tolerance": tolerance}.items():
        if not (np.isfinite(value) and value > 0) or (name == "efficiency" and value > 1):
            raise InputError(f"{name} came as {value!r}; needed is a number above 0{' up to 1' * (name[0] == 'e')}.")
    if not (np.isfinite(angle_error) and angle_error >= 0):
        raise InputError(f"angle_error came as {angle_error!r}; needed are degrees, 0 or more.")
    whole = _typed(atoms)
    types = types_of(whole)
    peaks, widths = heights_of(whole, types, heights), per_type("sigma", sigma, types)
    check_apart(whole, peaks)
    reference = average_intensity(whole["position"].values, peaks, widths, pixel_size)
    imaging = Imaging(
        pixel_size,
        tuple(np.broadcast_to(sigma, int(types.max())).tolist()),
        None if heights is None else tuple(heights),
        pixel_size**2 * efficiency / reference,
        angle_error,
        iterations,
        tolerance,
        seed,
    )
    sample = cropped(whole, radius)
    record = Record(MODEL, {"radius": radius}, {"atoms": _digest(whole)})
    if not store.holds(MODEL, record):
        store.write(MODEL, sample, record=record)
    given = np.array(cases, dtype=np.float64)
    record = Record("design", {"cases": given, **asdict(imaging)}, {MODEL: store.digest(MODEL)}, seed)
    computed = (
        0
        if store.holds(CASES, record)
        else write_blocks(store, CASES, _cases(sample, given, imaging), record=record, dim="case")
    )
    table = as_table(given, store.read(CASES)["figures"].values)
    table.attrs |= {"radius_angstrom": np.nan if radius is None else radius, **_plain(asdict(imaging))}
    store.write(DESIGN, table, record=Record("design", {}, {CASES: store.digest(CASES)}))
    return table.assign_attrs(n_cases_computed=computed)


def check_apart(atoms: xr.Dataset, heights: np.ndarray) -> None:
    """Refuse atoms that overlap.

    Raises
    ------
    InputError
    """
    gone = overlapping(atoms["position"].values, heights)
    if gone.any():
        raise InputError(
            f"{int(gone.sum())} of {len(gone)} atoms are nearer than {OVERLAP:g} Angstrom to another one, the first of "
            f"them number {int(np.argmax(gone))}; drop one of each pair, and check that positions are in Angstrom."
        )


def cropped(atoms: xr.Dataset, radius: float | None) -> xr.Dataset:
    """Atoms no farther than `radius` (Angstrom) from the middle of all, around the origin; None: all of them.

    Raises
    ------
    InputError
        If no atom is left.
    """
    position = atoms["position"].values - atoms["position"].values.mean(axis=0)
    if radius is not None:
        kept = np.flatnonzero(np.linalg.norm(position, axis=1) <= radius)
        if not len(kept):
            raise InputError(f"No atom is within radius = {radius!r} Angstrom of the middle; give a larger one.")
        atoms, position = atoms.isel(atom=kept), position[kept]
    atoms = atoms.assign(position=(("atom", "axis"), position - position.mean(axis=0), {"units": "angstrom"}))
    return atoms.assign_coords(atom=np.arange(len(position)))


def as_table(cases: np.ndarray, figures: np.ndarray) -> xr.Dataset:
    """The figures (case, figure) of cases (case, [dose, n_tilts, tilt_range]) as named variables with units."""
    axes = [np.unique(column) for column in cases.T]
    place = tuple(np.searchsorted(axis, column) for axis, column in zip(axes, cases.T, strict=True))
    grid = np.full((*(len(axis) for axis in axes), len(FIGURES)), np.nan)
    grid[place] = figures
    units = {"identified": "1", "missed": "1", "mistyped": "1", "false": "1", "n_true": "1", "n_found": "1"}
    table = xr.Dataset(
        {name: (_DIMS, grid[..., FIGURES.index(name)], {"units": unit}) for name, unit in units.items()},
        {
            "dose": ("dose", axes[0], {"units": "angstrom^-2", "long_name": "electrons, whole series"}),
            "n_tilts": ("n_tilts", axes[1].astype(np.int64), {"units": "1"}),
            "tilt_range": ("tilt_range", axes[2], {"units": "degree", "long_name": "largest tilt to either side"}),
            "axis": list(AXES),
        },
    )
    return table.assign(rms=((*_DIMS, "axis"), grid[..., -3:], {"units": "angstrom"}))


def _cases(sample: xr.Dataset, cases: np.ndarray, imaging: Imaging) -> xr.Dataset:
    """What each case gives, lazily, one task for each."""
    figures = da.map_blocks(
        _case_figures,
        da.from_array(cases, chunks=(1, -1), name=False),
        sample=sample.load(),
        imaging=imaging,
        chunks=((1,) * len(cases), (len(FIGURES),)),
        dtype=np.float64,
        meta=np.empty((0, 0)),
    )
    return xr.Dataset({"figures": (("case", "figure"), figures)}, {"figure": list(FIGURES)})


def _case_figures(case: np.ndarray, *, sample: xr.Dataset, imaging: Imaging) -> np.ndarray:
    """FIGURES (1, figure) of a case (1, [dose, n_tilts, tilt_range]).

    In a context of its own, in which no Dask client is current: a task that waits for others would never end.
    """
    return contextvars.Context().run(_alone, case[0], sample, imaging)[None]


def _alone(case: np.ndarray, sample: xr.Dataset, imaging: Imaging) -> np.ndarray:
    with dask.config.set(scheduler="synchronous"), warnings.catch_warnings():
        warnings.simplefilter("ignore", AetdistWarning)  # of few tilts, which is what is tried
        try:
            return solved_case(case, sample, imaging)
        except AetdistError as error:
            log.warning("dose %g, %d tilts to %g degrees: %s", *case, error)
            nothing = np.full(len(FIGURES), np.nan)
            nothing[:4] = sample.sizes["atom"], 0, 0.0, 1.0
            return nothing


def solved_case(case: np.ndarray, sample: xr.Dataset, imaging: Imaging) -> np.ndarray:
    """FIGURES (figure,) of a case [dose, n_tilts, tilt_range]."""
    found = solve_series(
        case_series(case, sample, imaging),
        species=int(sample["type"].max()),
        angles=imaging.angle_error > 0,
        options={"reconstruct": {"iterations": imaging.iterations}},
    )
    result = compared(match_atoms(found["refined"], sample, tolerance=imaging.tolerance))
    rms = result["deviation_rms"].sel(component=list(AXES)).values
    return np.array([*(result.attrs[name] for name in FIGURES[:-3]), *rms], dtype=np.float64)


def case_series(case: np.ndarray, sample: xr.Dataset, imaging: Imaging) -> xr.Dataset:
    """The tilt series of a case, in memory, at the angles that are believed."""
    dose, n, reach = float(case[0]), int(case[1]), float(case[2])
    believed = euler_from_tilts(np.linspace(-reach, reach, n))
    random = np.random.default_rng(np.random.SeedSequence(imaging.seed, spawn_key=(0, 0)))
    true = believed + imaging.angle_error * random.standard_normal(believed.shape)
    types = types_of(sample)
    peaks = heights_of(sample, types, imaging.heights)
    average = average_intensity(
        sample["position"].values, peaks, np.array(imaging.sigma)[types - 1], imaging.pixel_size
    )
    series = simulate_tilt_series(
        sample,
        true,
        pixel_size=imaging.pixel_size,
        sigma=imaging.sigma,
        heights=imaging.heights,
        dose=dose / n,
        efficiency=min(1.0, imaging.counts * average / imaging.pixel_size**2),
        seed=imaging.seed,
    ).compute()
    series["angles"].values[:] = believed
    series["matrices"].values[:] = matrices_from_euler(believed)
    return series


def _typed(atoms: xr.Dataset) -> xr.Dataset:
    """ATOMS with types 1 ... k by rising atomic number, where they have only species; with one type without either."""
    from ..simulate._elements import atomic_number

    check(atoms, ATOMS)
    if atoms.sizes["atom"] == 0:
        raise InputError("There are no atoms; give a structure.")
    kept = atoms[[name for name in ("position", "type", "species") if name in atoms]]
    if "species" in kept:
        names, index = np.unique(kept["species"].values.astype(str), return_inverse=True)
        numbers = np.array([atomic_number(str(name)) for name in names])
        if "type" not in kept:
            kept = kept.assign(type=("atom", (np.argsort(np.argsort(numbers)) + 1)[index]))
    if "type" not in kept:
        kept = kept.assign(type=("atom", np.ones(atoms.sizes["atom"], np.int64)))
    return kept.assign_attrs({})


def _checked(name: str, values: Sequence[float]) -> list[float]:
    """Numbers of a list of cases, rising, each once."""
    numbers = sorted({float(value) for value in values})
    low = {"dose": 0.0, "n_tilts": 3.0, "tilt_range": 0.0}[name]
    top = 90.0 if name == "tilt_range" else np.inf
    wrong = [v for v in numbers if not ((np.isfinite(v) and low < v <= top) or (name == "n_tilts" and v == low))]
    if not numbers or wrong or (name == "n_tilts" and any(v != int(v) for v in numbers)):
        needed = {
            "dose": "electrons per square Angstrom, above 0",
            "n_tilts": "whole numbers of 3 or more",
            "tilt_range": "degrees above 0, up to 90",
        }[name]
        raise InputError(f"{name} came as {list(values)!r}; needed are {needed}.")
    return numbers


def _digest(atoms: xr.Dataset) -> str:
    return Record("read", {str(name): variable for name, variable in atoms.variables.items()}).digest


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in values.items() if value is not None
    }
