"""Every variable that stages exchange: name, dimensions, unit, one line; and `check`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from .errors import InputError

SCHEMA_VERSION = 1
AXES = ("x", "y", "z")
EULER = ("phi", "theta", "psi")
SERIES_CHUNKS = {"tilt": 1, "y": 512, "x": 512}
"""Stored chunks of a tilt series: a window of a large field must not have to read whole images."""


@dataclass(frozen=True)
class Variable:
    """What a named variable is: dimensions, kind of number ("f" floating, "b" bool, "i" integer, "U" text), unit."""

    name: str
    dims: tuple[str, ...]
    kind: str
    units: str
    description: str


@dataclass(frozen=True)
class Group:
    """A Dataset that stages exchange: what it must and what it may hold."""

    name: str
    required: tuple[Variable, ...]
    optional: tuple[Variable, ...] = ()
    coordinates: tuple[Variable, ...] = ()

    @property
    def variables(self) -> dict[str, Variable]:
        """All variables and coordinates by name."""
        return {v.name: v for v in (*self.required, *self.optional, *self.coordinates)}


FRAMES = Group(
    "raw",
    required=(
        Variable("frames", ("tilt", "frame", "y", "x"), "f", "1", "detector counts; NaN: the tilt has fewer frames"),
        Variable("angles", ("tilt", "euler"), "f", "degree", "Euler angles phi, theta, psi"),
    ),
    optional=(
        Variable("matrices", ("tilt", "row", "column"), "f", "1", "lab = R @ sample for vectors (x, y, z)"),
        Variable("pixel_size", (), "f", "angstrom", "edge of a detector pixel"),
    ),
    coordinates=(
        Variable("tilt", ("tilt",), "i", "1", "number of the tilt"),
        Variable("frame", ("frame",), "i", "1", "number of the frame of a tilt, in the order of acquisition"),
        Variable("y", ("y",), "f", "angstrom", "y of a pixel row, from the centre pixel n // 2"),
        Variable("x", ("x",), "f", "angstrom", "x of a pixel column, from the centre pixel n // 2"),
        Variable("euler", ("euler",), "U", "1", "name of the Euler angle"),
    ),
)

TILT_SERIES = Group(
    "tilt_series",
    required=(
        Variable("images", ("tilt", "y", "x"), "f", "1", "aligned ADF-STEM projections, sum along the beam"),
        Variable("mask", ("tilt", "y", "x"), "b", "1", "True where a pixel was measured"),
        Variable("angles", ("tilt", "euler"), "f", "degree", "Euler angles phi, theta, psi"),
    ),
    optional=(
        Variable("matrices", ("tilt", "row", "column"), "f", "1", "lab = R @ sample for vectors (x, y, z)"),
        Variable("pixel_size", (), "f", "angstrom", "edge of a detector pixel and of a voxel"),
    ),
    coordinates=(
        Variable("tilt", ("tilt",), "i", "1", "number of the tilt"),
        Variable("y", ("y",), "f", "angstrom", "lab y of a pixel row, from the projection of the rotation's origin"),
        Variable("x", ("x",), "f", "angstrom", "lab x of a pixel column, from the projection of the rotation's origin"),
        Variable("euler", ("euler",), "U", "1", "name of the Euler angle"),
    ),
)

VOLUME = Group(
    "volume",
    required=(Variable("density", ("z", "y", "x"), "f", "1", "ADF intensity per voxel"),),
    optional=(
        Variable("support", ("z", "y", "x"), "b", "1", "True where atoms can be told from the volume"),
        Variable("r_factor", ("iteration", "tilt"), "f", "1", "R-factor (eq. 4) over measured pixels"),
        Variable("held_out_error", ("trial_iteration",), "f", "1", "relative error over pixels held out of a trial"),
        Variable("height", ("map_y", "map_x"), "f", "angstrom", "height of the middle of the film"),
        Variable("thickness", ("map_y", "map_x"), "f", "angstrom", "local thickness of the film"),
        Variable("disagreement", ("y", "x"), "f", "1", "relative L1 difference of overlapping windows, summed over z"),
    ),
    coordinates=(
        Variable("z", ("z",), "f", "angstrom", "sample z of a voxel, from the rotation's origin"),
        Variable("y", ("y",), "f", "angstrom", "sample y of a voxel, from the rotation's origin"),
        Variable("x", ("x",), "f", "angstrom", "sample x of a voxel, from the rotation's origin"),
    ),
)

ATOMS = Group(
    "atoms",
    required=(Variable("position", ("atom", "axis"), "f", "angstrom", "(x, y, z) from the rotation's origin"),),
    optional=(
        Variable("type", ("atom",), "i", "1", "1..k by rising intensity"),
        Variable("species", ("atom",), "U", "1", "chemical element"),
        Variable("intensity", ("atom",), "f", "1", "value of the fitted peak; once refined, height H of the Gaussian"),
        Variable("box_intensity", ("atom",), "f", "1", "mean of the smoothed density over a small box"),
        Variable("b_factor", ("atom",), "f", "angstrom^2", "8 pi^2 sigma^2 of the Gaussian atom"),
        Variable("position_sigma", ("atom", "axis"), "f", "angstrom", "standard deviation of the position"),
        Variable("position_sigma_uncalibrated", ("atom", "axis"), "f", "angstrom", "as refinement tells it"),
        Variable("probability", ("atom",), "f", "1", "of being an atom"),
        Variable("probability_uncalibrated", ("atom",), "f", "1", "as refinement tells it"),
        Variable("type_probability", ("atom", "type_number"), "f", "1", "of being of type 1..k"),
        Variable("unresolved", ("atom",), "b", "1", "True where the images do not tell what is there"),
        Variable("origin", ("atom",), "U", "1", "how the atom came: traced, added, merged, edited"),
        Variable("r_factor", ("iteration", "tilt"), "f", "1", "R-factor (eq. 4) over measured pixels"),
        Variable("round_r", ("iteration",), "f", "1", "R before refinement and after every round of it, mean of tilts"),
        Variable("difference_before", ("map_y", "map_x"), "f", "1", "image - model before refinement, rms of tilts"),
        Variable("difference_after", ("map_y", "map_x"), "f", "1", "the same after refinement"),
        Variable("angles", ("tilt", "euler"), "f", "degree", "Euler angles phi, theta, psi that suit the atoms best"),
        Variable("shift", ("tilt", "shift_axis"), "f", "pixel", "(y, x) by which the image is off beside the atoms"),
        Variable("gain", ("tilt",), "f", "1", "brightness of the image beside the mean one"),
    ),
    coordinates=(
        Variable("atom", ("atom",), "i", "1", "number of the atom"),
        Variable("axis", ("axis",), "U", "1", "x, y, z"),
        Variable("type_number", ("type_number",), "i", "1", "type, 1..k"),
        Variable("tilt", ("tilt",), "i", "1", "number of the tilt"),
        Variable("map_y", ("map_y",), "f", "angstrom", "y of a row of the difference maps"),
        Variable("map_x", ("map_x",), "f", "angstrom", "x of a column of the difference maps"),
    ),
)


VALIDATION = Group(
    "validation",
    required=(
        Variable("confusion", ("true_type", "found_type"), "i", "1", "pairs by true and by found type"),
        Variable("true_atoms", ("true_type",), "i", "1", "atoms that were simulated"),
        Variable("missed_atoms", ("true_type",), "i", "1", "true atoms without a counterpart"),
        Variable("false_atoms", ("found_type",), "i", "1", "found atoms without a counterpart"),
        Variable("identified", ("true_type",), "f", "1", "part of the true atoms found as of their type"),
        Variable("depth_true", ("depth_bin",), "i", "1", "true atoms"),
        Variable("depth_missed", ("depth_bin",), "i", "1", "true atoms without a counterpart"),
        Variable("depth_mistyped", ("depth_bin",), "i", "1", "true atoms found as of another type"),
        Variable("depth_found", ("depth_bin",), "i", "1", "found atoms"),
        Variable("depth_false", ("depth_bin",), "i", "1", "found atoms without a counterpart"),
        Variable("depth_rms", ("depth_bin", "axis"), "f", "angstrom", "rms deviation of identified atoms"),
        Variable("deviation", ("component", "deviation_bin"), "i", "1", "identified atoms by found - true position"),
        Variable("deviation_mean", ("component",), "f", "angstrom", "mean of the deviations"),
        Variable("deviation_rms", ("component",), "f", "angstrom", "root mean square of the deviations"),
        Variable("deviation_peak", ("component",), "f", "angstrom", "most frequent deviation"),
    ),
    optional=(
        Variable("r_factor", ("tilt",), "f", "1", "R (eq. 4) of the measured images against the simulated ones"),
        Variable("sigma_factor", ("sigma_depth", "axis"), "f", "1", "what position_sigma is to be multiplied by"),
        Variable("within_sigma", ("axis",), "f", "1", "part of the deviations within position_sigma, uncalibrated"),
        Variable("within_calibrated_sigma", ("axis",), "f", "1", "the same, calibrated"),
        Variable("probability_atoms", ("probability_bin",), "i", "1", "found atoms by claimed probability"),
        Variable("probability_claimed", ("probability_bin",), "f", "1", "mean of the claimed probabilities"),
        Variable("probability_right", ("probability_bin",), "f", "1", "part of them that has a counterpart"),
        Variable("probability_odds", ("odds",), "f", "1", "intercept and slope that the log odds get"),
    ),
    coordinates=(
        Variable("true_type", ("true_type",), "i", "1", "type, 1..k"),
        Variable("found_type", ("found_type",), "i", "1", "type, 1..k"),
        Variable("axis", ("axis",), "U", "1", "x, y, z"),
        Variable("component", ("component",), "U", "1", "x, y, z, distance"),
        Variable("depth_from", ("depth_bin",), "f", "angstrom", "depth below the surface, from"),
        Variable("depth_to", ("depth_bin",), "f", "angstrom", "depth below the surface, to"),
        Variable("deviation_at", ("deviation_bin",), "f", "angstrom", "middle of a bin; the outermost hold the rest"),
        Variable("sigma_depth", ("sigma_depth",), "f", "angstrom", "depth below the surface"),
        Variable("probability_from", ("probability_bin",), "f", "1", "claimed probability, from"),
        Variable("tilt", ("tilt",), "i", "1", "number of the tilt"),
    ),
)


def check(dataset: xr.Dataset, group: Group) -> None:
    """Refuse a Dataset that is not what `group` says.

    Parameters
    ----------
    dataset : xarray.Dataset
        What came.
    group : Group
        ``FRAMES``, ``TILT_SERIES``, ``VOLUME``, ``ATOMS`` or ``VALIDATION``.

    Raises
    ------
    InputError
        If a required variable is missing, or a known one has other dimensions, another kind of
        number or another unit. Unknown variables are let through.
    """
    missing = [v.name for v in group.required if v.name not in dataset]
    if missing:
        raise InputError(
            f"A {group.name} needs {', '.join(missing)}, but the Dataset has only "
            f"{', '.join(map(str, dataset.variables)) or 'nothing'}."
        )
    for name, variable in group.variables.items():
        if name not in dataset:
            continue
        array = dataset[name]
        if array.dims != variable.dims:
            raise InputError(f"{group.name}: {name} has dimensions {array.dims}; needed is {variable.dims}.")
        if variable.kind == "U":
            if array.dtype.kind not in "UOT":
                raise InputError(f"{group.name}: {name} is {array.dtype}; needed is text.")
        elif not np.issubdtype(array.dtype, {"f": np.floating, "b": np.bool_, "i": np.integer}[variable.kind]):
            raise InputError(f"{group.name}: {name} is {array.dtype}; needed is a kind of {variable.kind!r}.")
        units = array.attrs.get("units")
        if units is not None and units != variable.units:
            raise InputError(f"{group.name}: {name} is in {units!r}; needed is {variable.units!r}; convert it first.")


def with_units(dataset: xr.Dataset, group: Group) -> xr.Dataset:
    """A copy of `dataset` whose known variables carry ``units`` and ``long_name``."""
    dataset = dataset.copy()
    for name, variable in group.variables.items():
        if name in dataset.variables:
            attrs = {**dataset[name].attrs, "units": variable.units, "long_name": variable.description}
            dataset[name].attrs = attrs
    return dataset
