"""Raw frames of a tilt series of Gaussian atoms, spoilt in known ways: what preprocessing has to undo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import centred_coordinates, matrices_from_euler, rotate_tilt_axis
from ..project.atoms import CUTOFF, check_pixel_size, project_atoms
from ..schema import EULER
from ._acquisition_kernels import add_sheared_atoms
from .corruption import (
    BACKGROUND_TERMS,
    angle_errors,
    background_terms,
    brightness_factors,
    check_amounts,
    smooth_shape,
    support_table,
)
from .inputs import (
    average_intensity,
    check_noise,
    checked_angles,
    checked_field,
    checked_kind,
    checked_sample,
    field_of_everything,
    part_outside,
)

Matrix = tuple[tuple[float, float], tuple[float, float]]


def simulate_acquisition(
    atoms: xr.Dataset,
    angles: np.ndarray,
    *,
    pixel_size: float = 0.35,
    sigma: float | Sequence[float] = 0.5,
    heights: float | Sequence[float] | None = None,
    field: tuple[int, int] | None = None,
    kind: Literal["particle", "film"] | None = None,
    frames: int = 4,
    drift: float = 0.7,
    distortion: Matrix = ((1.004, 0.003), (0.003, 0.996)),
    dose: float = 1.7e4,
    efficiency: float = 0.05,
    gain: float = 4.0,
    offset: float = 100.0,
    read_noise: float = 1.0,
    background: float = 0.2,
    shift: float = 15.0,
    tilt_axis: float = 1.0,
    angle_error: float = 0.0,
    angle_drift: float = 0.0,
    brightness: float = 0.0,
    carbon: float = 0.0,
    seed: int | None = None,
) -> xr.Dataset:
    """Raw frames of a tilt series with every corruption that a microscope adds, one Dask task for each tilt.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS: position in Angstrom; type, species and intensity where the heights need them.
    angles : array_like, shape (tilts, 3) or (tilts,), float
        Nominal Euler angles, or tilts about y, in degrees: what the microscope says.
    pixel_size : float
        Edge of a pixel in Angstrom.
    sigma : float or sequence of float
        Standard deviation of an atom in Angstrom, for all or for type 1, 2, ...
    heights : float or sequence of float, optional
        Peak value of an atom, as in :func:`~aetdist.simulate.simulate_tilt_series`.
    field : tuple of int, optional
        Pixels along x and y. It may be smaller than the sample. The default holds every atom at every
        tilt, shift and drift.
    kind : {"particle", "film"}, optional
        A particle must be inside the field at every tilt, as in :func:`~aetdist.simulate.simulate_tilt_series`.
    frames : int
        Frames of a tilt, among which its dose is divided.
    drift : float
        Standard deviation, in pixels along each axis, of the step from one frame to the next.
    distortion : tuple of tuple of float
        Matrix D of the scan, for vectors (y, x).
    dose : float
        Electrons per square Angstrom and tilt, over all its frames.
    efficiency : float
        Part of the electrons that the detector counts where the sample is of average intensity.
    gain : float
        Detector counts for one counted electron.
    offset : float
        Detector counts where there is no electron.
    read_noise : float
        Standard deviation of the detector's own noise, in detector counts per pixel and frame.
    background : float
        Mean level of a smooth background, as a part of the sample's average intensity.
    shift : float
        Largest shift of a tilt along each axis in pixels; drawn evenly.
    tilt_axis : float
        Angle in degrees from image y to the true tilt axis, positive towards -x; the nominal angles
        do not know of it.
    angle_error, angle_drift, brightness, carbon : float
        Errors of the angles in degrees, of the brightness of whole tilts, and Angstrom of amorphous carbon below the
        sample, as in :func:`~aetdist.simulate.simulate_tilt_series`; none unless they are given.
    seed : int, optional
        The same seed gives the same frames, however the work is cut up. Drawn and recorded if it is not given.

    Returns
    -------
    xarray.Dataset
        FRAMES: ``frames`` (tilt, frame, y, x) float32 in detector counts, lazy, one chunk per tilt, nominal ``angles``,
        and the truth: ``true_frame_shift`` (tilt, frame, axis) and ``true_shift`` (tilt, axis) in pixels [y, x],
        ``true_distortion`` (axis, scan_axis), ``true_tilt_axis`` and ``true_angles`` in degrees, ``true_images`` and
        ``true_background`` (tilt, y, x) in detector counts of one frame, lazy; where asked for, ``true_brightness``
        (tilt,) and ``true_support`` (tilt, y, x), like ``true_images``.

    Raises
    ------
    InputError
        If the atoms, the angles or a number cannot be used.

    Notes
    -----
    With r = (y, x) in pixels from the centre pixel n // 2, frame f of tilt t has at D (r + a_t) + s_tf the
    intensity b_t (I_t(r) + B_t(r)): b_t is the brightness of the tilt, a_t its shift, s_tf the drift since its first
    frame, and I is of the sample and the carbon below it. Nothing is
    interpolated: a Gaussian atom is evaluated where each pixel of the frame looks. Counts are
    gain Poisson(e) + offset + Normal(0, read_noise), with e = D0 p^2 efficiency b (I + B) / (F I0): dose D0, F frames,
    pixel size p, average intensity I0. B is a polynomial of second degree.
    """
    check_pixel_size(pixel_size)
    angles = checked_angles(angles)
    check_noise(dose, efficiency, read_noise)
    matrix = _checked_distortion(distortion)
    _check_frames(frames, gain)
    check_amounts(
        drift=drift, background=background, shift=shift, angle_error=angle_error, angle_drift=angle_drift,
        brightness=brightness, carbon=carbon,
    )  # fmt: skip
    positions, peaks, sigmas = sample = checked_sample(atoms, heights, sigma)
    entropy = int(np.random.SeedSequence(seed).entropy)  # type: ignore[arg-type]
    n = len(angles)
    turned = rotate_tilt_axis(angles + angle_errors(n, angle_error, angle_drift, entropy), tilt_axis)
    truth = _draw(n, frames, drift, shift, entropy)
    factors = brightness_factors(n, brightness, entropy)
    matrices = matrices_from_euler(turned)

    def everything() -> tuple[int, int]:
        """Pixels that hold every atom at every tilt, shift and drift."""
        reach = int(np.ceil(shift + np.abs(truth["drift"]).max() + 1))
        whole = field_of_everything(positions, sigmas, matrices, np.zeros(2), pixel_size)
        return int(np.ceil(1.02 * whole[0])) + 2 * reach, int(np.ceil(1.02 * whole[1])) + 2 * reach

    nx, ny = checked_field(everything() if field is None else field)
    y, x = centred_coordinates(ny, pixel_size), centred_coordinates(nx, pixel_size)
    outside = checked_kind(kind, part_outside(positions, matrices, x, y, pixel_size), (nx, ny), everything)
    reference = average_intensity(positions, peaks, sigmas, pixel_size)
    if reference <= 0:
        raise InputError("Every atom has height 0, so a dose cannot be scaled to the sample; give heights above 0.")
    electrons = dose * pixel_size**2 * efficiency / (frames * reference)  # in one frame for an intensity of 1

    # Frames drift and look through a distorted scan, which shows a little more than the field.
    beyond = pixel_size * (shift + float(np.abs(truth["drift"]).max()) + 0.25 * max(nx, ny))
    support = support_table(atoms, sample, carbon, matrices, x, y, beyond, entropy)
    per_tilt = np.column_stack([turned, truth["shift"], factors, truth["drift"].reshape(n, -1), truth["background"]])
    settings: dict[str, Any] = {
        "shape": (ny, nx),
        "pixel_size": float(pixel_size),
        "level": float(background) * reference,
        "electrons": electrons,
        "gain": float(gain),
    }
    table = np.column_stack(sample)
    rows = da.from_array(per_tilt, chunks=(1, -1), name=False)
    numbers = da.from_array(np.arange(n), chunks=1, name=False)

    def lazily(function: Any, indices: str, new: dict[str, int], atoms: np.ndarray, **options: Any) -> da.Array:
        """One task for each tilt."""
        return da.blockwise(
            function, indices, numbers, "t", rows, "tp", da.from_array(atoms, chunks=-1, name=False), "aq",
            new_axes=new, concatenate=True, dtype=np.float32, meta=np.empty((0,) * len(indices), np.float32),
            **settings, **options,
        )  # fmt: skip

    image = {"y": ny, "x": nx}
    noise = {"distortion": matrix, "offset": float(offset), "read_noise": float(read_noise), "entropy": entropy}
    pixel = {"units": "pixel"}
    counts = {"units": "1", "long_name": "detector counts"}
    all_atoms = np.concatenate([table, support])
    frames_of = lazily(_frames, "tfyx", {"f": frames, **image}, all_atoms, **noise)
    dataset = xr.Dataset(
        {
            "frames": (("tilt", "frame", "y", "x"), frames_of, counts),
            "angles": (("tilt", "euler"), angles, {"units": "degree"}),
            "pixel_size": ((), float(pixel_size), {"units": "angstrom"}),
            "true_images": (("tilt", "y", "x"), lazily(_clean, "tyx", image, table), counts),
            "true_background": (("tilt", "y", "x"), lazily(_background, "tyx", image, table), counts),
            "true_angles": (("tilt", "euler"), turned, {"units": "degree"}),
            "true_tilt_axis": ((), float(tilt_axis), {"units": "degree"}),
            "true_frame_shift": (("tilt", "frame", "axis"), truth["drift"], pixel),
            "true_shift": (("tilt", "axis"), truth["shift"], pixel),
            "true_distortion": (("axis", "scan_axis"), matrix, {"units": "1"}),
        },
        coords={
            "tilt": np.arange(n),
            "frame": np.arange(frames),
            "y": ("y", y, {"units": "angstrom"}),
            "x": ("x", x, {"units": "angstrom"}),
            "euler": list(EULER),
            "axis": ["y", "x"],
        },
        attrs={
            "source": "simulated",
            "angle_convention": "yang2021",
            "dose_e_per_A2": float(dose) * n,
            "true_gain": float(gain),
            "true_offset": float(offset),
            "true_read_noise": float(read_noise),
            "simulation_seed": entropy,
            "simulation_atoms": len(positions),
            "simulation_outside_field": outside,
            "simulation_sigma_A": np.asarray(sigma, dtype=np.float64).tolist(),
            "simulation_heights": "per atom" if heights is None else np.asarray(heights, dtype=np.float64).tolist(),
            "simulation_dose_per_tilt_e_per_A2": float(dose),
            "simulation_efficiency": float(efficiency),
            "simulation_drift": float(drift),
            "simulation_background": float(background),
            "simulation_shift": float(shift),
            "simulation_angle_error": float(angle_error),
            "simulation_angle_drift": float(angle_drift),
            "simulation_brightness": float(brightness),
            "simulation_carbon_A": float(carbon),
            "simulation_carbon_atoms": len(support),
            "simulation_counts_per_intensity": float(gain * electrons),
        },
    )
    if brightness > 0:
        dataset["true_brightness"] = ("tilt", factors, {"units": "1"})
    if carbon > 0:
        dataset["true_support"] = (("tilt", "y", "x"), lazily(_clean, "tyx", image, support), counts)
    return dataset


def _draw(n: int, frames: int, drift: float, shift: float, entropy: int) -> dict[str, np.ndarray]:
    """What is random for every tilt beside the noise; the order of the draws is part of what a seed means."""
    random = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(0, 0)))
    steps = random.normal(0.0, drift, (n, frames, 2))
    steps[:, 0] = 0.0  # frames are registered onto the first
    return {
        "drift": np.cumsum(steps, axis=1),
        "shift": random.uniform(-shift, shift, (n, 2)),
        "background": background_terms(n, random),
    }


def _clean(
    _: np.ndarray,
    tilts: np.ndarray,
    atoms: np.ndarray,
    *,
    shape: tuple[int, int],
    pixel_size: float,
    level: float,
    electrons: float,
    gain: float,
) -> np.ndarray:
    """Projections without any corruption, in counts of one frame."""
    y, x = (centred_coordinates(size, pixel_size) for size in shape)
    images = project_atoms(
        atoms[:, :3], tilts[:, :3], heights=atoms[:, 3], sigmas=atoms[:, 4], x=x, y=y, pixel_size=pixel_size
    )
    return (images * (electrons * gain)).astype(np.float32)


def _background(
    _: np.ndarray,
    tilts: np.ndarray,
    atoms: np.ndarray,
    *,
    shape: tuple[int, int],
    pixel_size: float,
    level: float,
    electrons: float,
    gain: float,
) -> np.ndarray:
    """Backgrounds of aligned images, in counts of one frame."""
    y, x = np.meshgrid(*(centred_coordinates(size) for size in shape), indexing="ij")
    shapes = np.stack([smooth_shape(y, x, shape, tilt[-BACKGROUND_TERMS:]) for tilt in tilts])
    return (level * electrons * gain * shapes).astype(np.float32)


def _frames(
    numbers: np.ndarray,
    tilts: np.ndarray,
    atoms: np.ndarray,
    *,
    shape: tuple[int, int],
    pixel_size: float,
    level: float,
    electrons: float,
    gain: float,
    distortion: np.ndarray,
    offset: float,
    read_noise: float,
    entropy: int,
) -> np.ndarray:
    """Frames of the tilts of one block, each tilt with noise from its own stream."""
    inverse = np.linalg.inv(distortion)
    v, u = np.meshgrid(*(centred_coordinates(size) for size in shape), indexing="ij")
    result = []
    for number, tilt in zip(numbers, tilts, strict=True):
        random = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(1, int(number))))
        a, brightness, drift = tilt[3:5], tilt[5], tilt[6:-BACKGROUND_TERMS].reshape(-1, 2)
        lab = atoms[:, :3] @ matrices_from_euler(tilt[None, :3])[0, :2].T / pixel_size
        stack = np.empty((len(drift), *shape), np.float32)
        for frame, s in zip(stack, drift, strict=True):
            image = np.zeros(shape)
            seen = (lab[:, ::-1] + a) @ distortion.T + s + np.array(shape) // 2
            add_sheared_atoms(seen, atoms[:, 3], atoms[:, 4] / pixel_size, inverse, CUTOFF, image)
            y, x = np.einsum("ij,jyx->iyx", inverse, np.stack([v - s[0], u - s[1]])) - a[:, None, None]
            image += level * smooth_shape(y, x, shape, tilt[-BACKGROUND_TERMS:])
            counts = gain * random.poisson(electrons * brightness * image) + offset
            frame[:] = counts + random.normal(0.0, read_noise, shape)
        result.append(stack)
    return np.stack(result)


def _checked_distortion(distortion: Any) -> np.ndarray:
    matrix = np.asarray(distortion, dtype=np.float64)
    if matrix.shape != (2, 2) or not np.isfinite(matrix).all() or np.abs(matrix - np.eye(2)).max() > 0.2:
        raise InputError(
            f"The distortion came as {np.asarray(distortion).tolist()}; needed is a matrix ((yy, yx), (xy, xx)) within "
            "0.2 of ((1, 0), (0, 1))."
        )
    return matrix


def _check_frames(frames: int, gain: float) -> None:
    """Refuse a number of frames and a gain that cannot be."""
    if frames < 1 or int(frames) != frames:
        raise InputError(f"{frames!r} frames came; needed is a whole number, 1 or more.")
    if not (np.isfinite(gain) and gain > 0):
        raise InputError(f"gain came as {gain!r}; needed are the counts for one electron, above 0.")
