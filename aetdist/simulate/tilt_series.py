"""A tilt series of atoms: linear projections or multislice, with the noise of counted electrons and known errors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from ..errors import InputError
from ..geometry import centred_coordinates, matrices_from_euler
from ..project.atoms import check_pixel_size, project_atoms
from ..schema import EULER, TILT_SERIES, with_units
from .cells import planned
from .corruption import (
    BACKGROUND_TERMS,
    CARBON,
    angle_errors,
    background_terms,
    brightness_factors,
    check_amounts,
    drawn_shifts,
    random_stream,
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
    elements_of,
    field_of_everything,
    part_outside,
)
from .multislice import Multislice, import_abtem, multislice_image

Image = Callable[..., np.ndarray]


def simulate_tilt_series(
    atoms: xr.Dataset,
    angles: np.ndarray,
    *,
    pixel_size: float = 0.35,
    sigma: float | Sequence[float] = 0.5,
    heights: float | Sequence[float] | None = None,
    field: tuple[int, int] | None = None,
    field_center: tuple[float, float] = (0.0, 0.0),
    kind: Literal["particle", "film"] | None = None,
    dose: float | None = None,
    efficiency: float = 0.05,
    read_noise: float = 0.0,
    angle_error: float = 0.0,
    angle_drift: float = 0.0,
    shift: float = 0.0,
    brightness: float = 0.0,
    background: float = 0.0,
    carbon: float = 0.0,
    multislice: bool | Multislice = False,
    seed: int | None = None,
) -> xr.Dataset:
    """Tilt series of a model of atoms, one Dask task for each tilt; with the errors that are asked for.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS: position in Angstrom; type, species and intensity where the heights need them. Read
        into memory here, as the checks need every position.
    angles : array_like, shape (tilts, 3) or (tilts,), float
        Nominal Euler angles phi, theta, psi, or single tilts about y, in degrees.
    pixel_size : float
        Edge of a pixel in Angstrom.
    sigma : float or sequence of float
        Standard deviation of an atom in Angstrom, for all or for type 1, 2, ...
    heights : float or sequence of float, optional
        Peak value of an atom, for all or for type 1, 2, ... The default is each atom's intensity;
        without intensities Z^1.7 of its species; without species 1.
    field : tuple of int, optional
        Pixels of the detector along x and y. It may be smaller than the sample: what reaches into it
        at a tilt counts. The default holds every atom at every tilt.
    field_center : tuple of float
        Lab x and y in Angstrom of pixel n // 2, from the projection of the rotation's origin.
    kind : {"particle", "film"}, optional
        A particle must be inside the field at every tilt, a film may go on beyond it. Where it is not said,
        either is taken; the attribute ``simulation_outside_field`` is the largest part of the atoms beside the field.
    dose : float, optional
        Electrons per square Angstrom and tilt; the default is no noise.
    efficiency : float
        Part of the electrons that the detector counts where the sample is of average intensity. Multislice finds
        that part itself; there it only says what a background is measured by.
    read_noise : float
        Standard deviation of the detector's own noise in counted electrons per pixel; needs a dose.
    angle_error, angle_drift : float
        How far the true Euler angles are from the nominal ones, each of the three, in degrees: standard deviation of
        what is random from tilt to tilt, and rms of what varies smoothly along the series.
    shift : float
        Largest shift of a tilt along each axis in pixels; drawn evenly.
    brightness : float
        Standard deviation of the (logarithm of the) brightness of whole images.
    background : float
        Mean level of a smooth background, as a part of the sample's average intensity.
    carbon : float
        Thickness in Angstrom of a film of amorphous carbon below the sample, which fills every image and tilts with
        the sample. Needs the species of the sample's atoms, beside which carbon is as bright as Z^1.7 says.
    multislice : bool or Multislice
        Images by multislice (abTEM) instead of the linear model, with the defaults of
        :class:`~aetdist.simulate.Multislice` or those given; `sigma` and `heights` then mean nothing.
    seed : int, optional
        The same seed gives the same series, however the work is cut up, and each error is the same whether others are
        there or not. Drawn and recorded if it is not given.

    Returns
    -------
    xarray.Dataset
        TILT_SERIES: images float32 (tilt, y, x), a Dask array of one chunk per tilt in the unit of the
        heights (multislice: in parts of the electrons); mask, nominal angles, matrices and pixel_size. The truth of
        every error that is there: ``true_angles`` (tilt, euler) in degrees, ``true_shift`` (tilt, axis) in
        pixels [y, x], ``true_brightness`` (tilt,), and ``true_background`` and ``true_support`` (tilt, y, x), lazy, as
        they are where nothing is shifted (the latter of the linear model only). The attributes record every parameter.

    Raises
    ------
    InputError
        If the atoms, the angles or a number cannot be used, atoms are nearer than 1 Angstrom to each other, a particle
        is larger than its field, or abTEM is needed and absent.
    CapacityError
        If the field that would hold every atom is absurdly large.

    Notes
    -----
    A projection I is the sum of the Gaussian atoms along the beam (:func:`~aetdist.project.atoms.project_atoms`), those
    of the carbon below the sample among them. With r in pixels from the centre, the image of tilt t is
    b_t (I_t(r - a_t) + B_t(r - a_t)): brightness b, shift a, background B, a polynomial of second degree.
    With a dose D the counts of a pixel are n ~ Poisson(D p^2 e I / I0) + Normal(0, read_noise), with
    pixel size p, efficiency e and I0 the sample's average intensity seen along its z axis (its total
    over the area in which there are atoms, counted in squares of 2 Angstrom). The image is
    n I0 / (D p^2 e): its mean is I, its variance I I0 / (D p^2 e).
    """
    check_pixel_size(pixel_size)
    nominal = checked_angles(angles)
    check_noise(dose, efficiency, read_noise)
    check_amounts(
        angle_error=angle_error, angle_drift=angle_drift, shift=shift, brightness=brightness, background=background,
        carbon=carbon,
    )  # fmt: skip
    sample = checked_sample(atoms, heights, sigma)
    center = np.asarray(field_center, dtype=np.float64)
    if center.shape != (2,) or not np.isfinite(center).all():
        raise InputError(f"field_center came as {field_center!r}; needed are lab x and y in Angstrom.")
    n, pixel_size = len(nominal), float(pixel_size)
    entropy = int(np.random.SeedSequence(seed).entropy)  # type: ignore[arg-type]
    true = nominal + angle_errors(n, angle_error, angle_drift, entropy)
    matrices = matrices_from_euler(true)
    shifts, factors = drawn_shifts(n, shift, entropy), brightness_factors(n, brightness, entropy)

    def everything() -> tuple[int, int]:
        """Pixels that hold every atom at every tilt and shift."""
        nx, ny = field_of_everything(sample[0], sample[2], matrices, center, pixel_size)
        return nx + 2 * int(np.ceil(shift)), ny + 2 * int(np.ceil(shift))

    nx, ny = checked_field(everything() if field is None else field)
    x, y = centred_coordinates(nx, pixel_size) + center[0], centred_coordinates(ny, pixel_size) + center[1]
    outside = checked_kind(kind, part_outside(sample[0], matrices, x, y, pixel_size), (nx, ny), everything)

    support = support_table(atoms, sample, carbon, matrices, x, y, shift * pixel_size, entropy)
    table = np.concatenate([np.column_stack(sample), support])
    settings = (multislice if isinstance(multislice, Multislice) else Multislice()) if multislice else None
    image: Image = functools.partial(_linear_image, pixel_size=pixel_size)
    reference, plan = average_intensity(*sample, pixel_size), {}
    if settings is not None:
        import_abtem()
        numbers = np.append(elements_of(atoms, "Multislice"), np.full(len(support), CARBON))
        table = np.column_stack([table[:, :3], numbers])
        image = functools.partial(multislice_image, settings=settings, entropy=entropy)
        reference, plan = efficiency, planned(table, true, x, y, settings)
    if dose is not None and reference <= 0:
        raise InputError("Every atom has height 0, so a dose cannot be scaled to the sample; give heights above 0.")
    per_intensity = 0.0 if dose is None else dose * pixel_size**2 * efficiency / reference

    terms = background_terms(n, random_stream(entropy, "background"))
    rows = da.from_array(np.column_stack([true, shifts, factors, terms]), chunks=(1, -1), name=False)
    still = da.from_array(np.column_stack([true, 0 * shifts, np.ones(n), terms]), chunks=(1, -1), name=False)
    numbers_of_tilts = da.from_array(np.arange(n), chunks=1, name=False)
    grid: dict[str, Any] = {"x": x, "y": y, "pixel_size": pixel_size}

    def lazily(function: Any, rows: da.Array, atoms: np.ndarray, **options: Any) -> da.Array:
        """One task for each tilt."""
        return da.blockwise(
            function, "tyx", numbers_of_tilts, "t", rows, "tp", da.from_array(atoms, chunks=-1, name=False), "aq",
            new_axes={"y": ny, "x": nx}, concatenate=True, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32),
            **grid, **options,
        )  # fmt: skip

    level = float(background) * reference
    noise = {"counts_per_intensity": float(per_intensity), "read_noise": float(read_noise), "entropy": entropy}
    axes = ("tilt", "y", "x")
    variables: dict[str, Any] = {
        "images": (axes, lazily(_tilt_images, rows, table, image=image, level=level, **noise)),
        "mask": (axes, da.ones((n, ny, nx), dtype=bool, chunks=(1, ny, nx))),
        "angles": (("tilt", "euler"), nominal),
        "matrices": (("tilt", "row", "column"), matrices_from_euler(nominal)),
        "pixel_size": ((), pixel_size),
    }
    unit = {"units": "1"}
    if angle_error > 0 or angle_drift > 0:
        variables["true_angles"] = (("tilt", "euler"), true, {"units": "degree"})
    if shift > 0:
        variables["true_shift"] = (("tilt", "axis"), shifts, {"units": "pixel"})
    if brightness > 0:
        variables["true_brightness"] = ("tilt", factors, unit)
    if background > 0:
        variables["true_background"] = (axes, lazily(_tilt_images, still, table, image=_nothing, level=level), unit)
    if carbon > 0 and settings is None:
        variables["true_support"] = (axes, lazily(_tilt_images, still, support, image=image), unit)
    attrs = {
        "source": "simulated",
        "angle_convention": "yang2021",
        "simulation_seed": entropy,
        "simulation_sigma_A": np.asarray(sigma, dtype=np.float64).tolist(),
        "simulation_heights": "per atom" if heights is None else np.asarray(heights, dtype=np.float64).tolist(),
        "simulation_atoms": len(sample[0]),
        "simulation_carbon_atoms": len(support),
        "simulation_efficiency": float(efficiency),
        "simulation_read_noise": float(read_noise),
        "simulation_average_intensity": reference,
        "simulation_field_center_A": center.tolist(),
        "simulation_outside_field": outside,
        "simulation_angle_error": float(angle_error),
        "simulation_angle_drift": float(angle_drift),
        "simulation_shift": float(shift),
        "simulation_brightness": float(brightness),
        "simulation_background": float(background),
        "simulation_carbon_A": float(carbon),
        **plan,
    }
    if settings is not None:
        attrs |= settings.attributes()
    if dose is not None:
        attrs["simulation_dose_per_tilt_e_per_A2"] = float(dose)
        attrs["dose_e_per_A2"] = float(dose) * n  # of the whole series, as for a measured one
    coords: dict[str, Any] = {"tilt": np.arange(n), "y": y, "x": x, "euler": list(EULER)}
    if shift > 0:
        coords["axis"] = ["y", "x"]
    return with_units(xr.Dataset(variables, coords, attrs), TILT_SERIES)


def _tilt_images(
    tilts: np.ndarray,
    rows: np.ndarray,
    atoms: np.ndarray,
    *,
    image: Image,
    x: np.ndarray,
    y: np.ndarray,
    pixel_size: float,
    level: float = 0.0,
    counts_per_intensity: float = 0.0,
    read_noise: float = 0.0,
    entropy: int = 0,
) -> np.ndarray:
    """Images of the tilts of one block, float32, each with noise from its own stream.

    A row holds the Euler angles, shift y and x, brightness and the background's coefficients of a tilt.
    """
    images = np.empty((len(tilts), len(y), len(x)), dtype=np.float32)
    for tilt, row, out in zip(tilts, rows, images, strict=True):
        seen = image(atoms, row[:3], x - row[4] * pixel_size, y - row[3] * pixel_size, int(tilt))
        if level > 0:
            v, u = np.meshgrid(
                centred_coordinates(len(y)) - row[3], centred_coordinates(len(x)) - row[4], indexing="ij"
            )
            seen += level * smooth_shape(v, u, seen.shape, row[-BACKGROUND_TERMS:])
        seen *= row[5]
        if counts_per_intensity > 0:
            # The stream that SeedSequence(entropy).spawn gives to this tilt, whichever worker draws it.
            random = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(int(tilt),)))
            counts = random.poisson(seen * counts_per_intensity).astype(np.float64)
            if read_noise > 0:
                counts += random.normal(0.0, read_noise, counts.shape)
            seen = counts / counts_per_intensity
        out[:] = seen
    return images


def _linear_image(
    atoms: np.ndarray, angles: np.ndarray, x: np.ndarray, y: np.ndarray, _tilt: int, *, pixel_size: float
) -> np.ndarray:
    """Sum of Gaussian atoms along the beam, whose rows are x, y, z, height and sigma."""
    return project_atoms(
        atoms[:, :3], angles[None], heights=atoms[:, 3], sigmas=atoms[:, 4], x=x, y=y, pixel_size=pixel_size
    )[0]


def _nothing(_atoms: np.ndarray, _angles: np.ndarray, x: np.ndarray, y: np.ndarray, _tilt: int) -> np.ndarray:
    """No intensity at all."""
    return np.zeros((len(y), len(x)))
