"""Validation of a run: its model simulated, taken through the same stages, compared with itself, error bars mended."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..errors import InputError
from ..io import Record, Store
from ..io.groups import CALIBRATED, REFINED_ATOMS, TILTS, VALIDATION
from ..schema import VALIDATION as VALIDATION_GROUP
from ..schema import with_units
from ..simulate import Multislice
from ..simulate.inputs import average_intensity
from . import experiment
from .calibration import Calibration, calibrate, calibrated, calibration_variables
from .comparison import TOLERANCE, Matched, compared, match_atoms
from .images import NOTHING, widths_of
from .model import Geometry, geometry_of, model_of
from .noise import Noise, counted_noise, measure_noise
from .tables import figures_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Validation:
    """What a validation gives.

    Parameters
    ----------
    result : xarray.Dataset
        VALIDATION.
    atoms : xarray.Dataset
        ATOMS: the refined atoms of the run, with calibrated error bars.
    truth, found : xarray.Dataset
        ATOMS that were simulated, and those that the stages found, laid over the former.
    states : dict of str to str
        What became of every stage of the validation.
    n_tilts_computed : int
        Tilts that were simulated now; the others were there from a run that was killed.
    """

    result: xr.Dataset
    atoms: xr.Dataset
    truth: xr.Dataset
    found: xr.Dataset
    states: dict[str, str]
    n_tilts_computed: int


def validate_model(
    run: Store | str | Path,
    *,
    multislice: bool = False,
    prism: int = 0,
    frozen_phonons: int = 0,
    source_size: float = 0.4,
    heights: Literal["refined", "type"] = "refined",
    dose: float | None = None,
    efficiency: float = 0.05,
    read_noise: float = 0.0,
    angle_error: float = 0.0,
    shift_error: float = 0.0,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Validation:
    """Computes: how far the refined atoms of a run can be trusted, by simulating them and doing all again.

    Parameters
    ----------
    run : Store, str or Path
        A store that holds refined atoms; it is only read. The simulated experiment is written beside it
        (``run.validation.zarr``), so that one that was killed goes on.
    multislice : bool
        Simulate by multislice (the extra `multislice`; needs elements) instead of linear projections, with the
        microscope's voltage and angles where the tilt series has them.
    prism, frozen_phonons, source_size : optional
        Of multislice, see :class:`~aetdist.simulate.Multislice`.
    heights : {"refined", "type"}
        Simulate every atom as bright and wide as refined, or as the median of its type.
    dose : float, optional
        Electrons per square Angstrom and tilt. The default is the noise that was measured: what the atoms leave
        unexplained of the images.
    efficiency, read_noise : float
        With a dose: part of the electrons that is counted where the sample is of average intensity; standard
        deviation of the detector's own noise in counted electrons.
    angle_error, shift_error : float
        Standard deviation of errors of every Euler angle (degrees) and of shifts (pixels) beside those that the run
        found and corrected, which are simulated anyway.
    tolerance : float
        Angstrom: how far a found atom may be from the true one.
    seed : int
        Of the noise and of the errors.

    Returns
    -------
    Validation
        The comparison, the calibration, and the simulated experiment that they come from.

    Raises
    ------
    InputError
        If a stage was not run (it says which), an option is off, or the object is larger than the field.

    Notes
    -----
    The tilts are where refinement found them; the simulated experiment begins with the angles and the shifts that the
    run began with. Every stage from there on (refinement of the angles, if there was one; reconstruction, tracing,
    classification, refinement) is the run's, with its keywords; edits by hand are not done again. Noise that is white
    is that of counted electrons, variance = gain * intensity + floor; otherwise (a film, say) it has the power
    spectrum of the residual, tilt by tilt. Of a scanned film, the matter that was reconstructed beside the atoms is
    part of the simulated images.

    An atom is identified when it and a true atom of its type are each other's nearest within the tolerance. How the
    sample lies as a whole, which no tilt series tells, does not count.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods, "3D precision estimation with multislice simulations".
    """
    _check(heights, tolerance, seed, angle_error=angle_error, shift_error=shift_error)
    store = run if isinstance(run, Store) else Store.open(run)
    refined = store.read(experiment.refined_group(store))
    model = model_of(refined, heights)
    stages = experiment.stages_of(store)
    settings = None
    if multislice:
        _check_multislice(model, stages)
        given = {"prism": prism, "frozen_phonons": frozen_phonons, "source_size": source_size}
        settings = Multislice.of(store.read(TILTS), **given)
    geometry = geometry_of(
        refined,
        store.read(experiment.solved_series(store)),
        store.read(TILTS),
        angle_error=angle_error,
        shift_error=shift_error,
        seed=seed,
    )
    if "scan" not in stages:
        experiment.check_inside(model, geometry)
    counted = None if dose is None else _counted(dose, efficiency, read_noise, model, geometry)
    parameters = {
        "multislice": None if settings is None else asdict(settings),
        "heights": heights,
        "angle_error": angle_error,
        "shift_error": shift_error,
        "seed": seed,
    }
    with experiment.nested_store(store.path) as nested:
        beside = experiment.matter_outside(store, geometry.series) if "scan" in stages else NOTHING
        inputs = {REFINED_ATOMS: store.digest(REFINED_ATOMS)}
        computed = experiment.simulate_model(nested, model, geometry, beside, settings, parameters, inputs)
        clean = nested.read(experiment.CLEAN)
        if multislice:
            clean, unit = _scaled(clean, geometry)
            if dose is not None:  # images are parts of the electrons
                counted = counted_noise(dose, 1.0, read_noise, unit, float(geometry.series["pixel_size"]))
        measured, r_factor = _measured_noise(clean, geometry, stages["refine"]["background"])
        noise = counted or measured
        log.info("noise: variance %.3g x intensity + %.3g, %.1f pixels share one residual", *_said(noise))
        asked = {"dose": dose, "efficiency": efficiency, "read_noise": read_noise}
        computed = max(computed, experiment.add_noise(nested, clean, geometry, noise, asked, seed))
        states = experiment.run_stages(nested, stages)
        matched = match_atoms(nested.read(REFINED_ATOMS), model, tolerance=tolerance)
        experiment.keep_found(nested, matched.found, tolerance)
    calibration = calibrate(matched)
    result = _result(matched, calibration, geometry, r_factor)
    result.attrs |= (
        parameters | {"multislice": multislice} | {f"noise_{name}": value for name, value in noise._asdict().items()}
    )
    result.attrs |= {"tolerance": tolerance, "n_overlapping": model.attrs["n_overlapping"], "stages": list(stages)}
    return Validation(result, calibrated(refined, calibration), model, matched.found, states, computed)


def _result(matched: Matched, calibration: Calibration, geometry: Geometry, r_factor: np.ndarray) -> xr.Dataset:
    """VALIDATION."""
    result = compared(matched).assign(calibration_variables(matched, calibration)).set_coords("probability_from")
    result = result.assign(r_factor=("tilt", r_factor)).assign_coords(tilt=geometry.series["tilt"].values)
    return with_units(result, VALIDATION_GROUP)


def validate_stage(store: Store, keywords: dict[str, Any], record: Record) -> dict[str, Any]:
    """Computes: the groups ``validation`` and ``atoms_calibrated`` of a run; the figures for its summary."""
    done = validate_model(store, **keywords)
    store.write(VALIDATION, done.result, record=record)
    store.write(CALIBRATED, done.atoms, record=record)
    return {"validation": figures_of(done.result), "n_tilts_computed": done.n_tilts_computed}


def _check(heights: str, tolerance: float, seed: int, **errors: float) -> None:
    """Refuse options that cannot be."""
    if heights not in ("refined", "type"):
        raise InputError(f"heights came as {heights!r}; needed is 'refined' or 'type'.")
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance came as {tolerance!r}; needed is a length in Angstrom above 0.")
    for name, error in errors.items():
        if not (np.isfinite(error) and error >= 0):
            raise InputError(f"{name} came as {error!r}; needed is a standard deviation of 0 or more.")
    if seed < 0:
        raise InputError(f"seed came as {seed}; needed is a whole number of 0 or more.")


def _check_multislice(model: xr.Dataset, stages: dict[str, Any]) -> None:
    """Refuse what multislice cannot simulate."""
    if "species" not in model:
        raise InputError("Multislice needs elements; name them: aetdist refine ... --elements Co,Pd,Pt.")
    if "scan" in stages:
        raise InputError("A scanned film goes on beyond its atoms, which multislice needs; leave multislice out.")


def _counted(dose: float, efficiency: float, read_noise: float, model: xr.Dataset, geometry: Geometry) -> Noise:
    """Noise of the electrons of a dose that the model makes the detector count."""
    size = float(geometry.series["pixel_size"])
    average = average_intensity(model["position"].values, model["intensity"].values, widths_of(model), size)
    return counted_noise(dose, efficiency, read_noise, average, size)


def _measured_noise(clean: xr.Dataset, geometry: Geometry, background: float) -> tuple[Noise, np.ndarray]:
    series = geometry.series
    scale = background / float(series["pixel_size"])
    return measure_noise(series["images"], clean["images"], clean["counted"], scale)


def _said(noise: Noise) -> tuple[float, float, float]:
    return noise.gain, noise.floor, noise.area


def _scaled(clean: xr.Dataset, geometry: Geometry) -> tuple[xr.Dataset, float]:
    """Computes: images in the unit of the measured ones, by one factor (least squares, all tilts); and that factor."""
    measured, mask = geometry.series["images"], clean["counted"]
    both = own = 0.0
    for image, seen, known in zip(measured, clean["images"], mask, strict=True):
        there, wanted = np.where(known, seen, 0.0), np.where(known, image, 0.0)
        both, own = both + float(np.vdot(there, wanted)), own + float(np.vdot(there, there))
    factor = both / own if own > 0 else 1.0
    return clean.assign(images=clean["images"] * np.float32(factor)), factor
