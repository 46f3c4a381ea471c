"""A tilt series of Gaussian atoms: linear projections with the noise of counted electrons."""

from __future__ import annotations

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr

from ..errors import CapacityError, InputError
from ..geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from ..project.atoms import CUTOFF, check_pixel_size, checked_atoms, project_atoms
from ..schema import ATOMS, EULER, TILT_SERIES, check, with_units
from ._elements import atomic_number

Z_EXPONENT = 1.7
"""ADF intensity of an atom grows about as Z^1.7."""
LARGEST_IMAGE = 2**28
"""Pixels of one projection that are still taken to be meant (1 GiB in float32)."""


def simulate_tilt_series(
    atoms: xr.Dataset,
    angles: np.ndarray,
    *,
    pixel_size: float = 0.35,
    sigma: float | Sequence[float] = 0.5,
    heights: float | Sequence[float] | None = None,
    field: tuple[int, int] | None = None,
    field_center: tuple[float, float] = (0.0, 0.0),
    dose: float | None = None,
    efficiency: float = 0.05,
    read_noise: float = 0.0,
    seed: int | None = None,
) -> xr.Dataset:
    """Tilt series of a model of Gaussian atoms, one Dask task for each tilt.

    Parameters
    ----------
    atoms : xarray.Dataset
        ATOMS: position in Angstrom; type, species and intensity where the heights need them. Read
        into memory here, as the checks need every position.
    angles : array_like, shape (tilts, 3) or (tilts,), float
        Euler angles phi, theta, psi, or single tilts about y, in degrees.
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
    dose : float, optional
        Electrons per square Angstrom and tilt; the default is no noise.
    efficiency : float
        Part of the electrons that the detector counts where the sample is of average intensity.
    read_noise : float
        Standard deviation of the detector's own noise in counted electrons per pixel; needs a dose.
    seed : int, optional
        The same seed gives the same noise, however the work is cut up. Drawn and recorded if it is
        not given.

    Returns
    -------
    xarray.Dataset
        TILT_SERIES: images float32 (tilt, y, x), a Dask array of one chunk per tilt in the unit of the
        heights; mask, angles, matrices and pixel_size. The attributes record every parameter.

    Raises
    ------
    InputError
        If the atoms, the angles or a number cannot be used.
    CapacityError
        If the field that would hold every atom is absurdly large.

    Notes
    -----
    A projection I is the sum of the Gaussian atoms along the beam (:func:`~aetdist.project.atoms.project_atoms`).
    With a dose D the counts of a pixel are n ~ Poisson(D p^2 e I / I0) + Normal(0, read_noise), with
    pixel size p, efficiency e and I0 the sample's average intensity seen along its z axis (its total
    over the area in which there are atoms, counted in squares of 2 Angstrom). The image is
    n I0 / (D p^2 e): its mean is I, its variance I I0 / (D p^2 e).
    """
    check(atoms, ATOMS)
    check_pixel_size(pixel_size)
    angles = np.atleast_1d(np.asarray(angles, dtype=np.float64))
    angles = euler_from_tilts(angles) if angles.ndim == 1 else angles
    if len(angles) == 0:
        raise InputError("There are no tilt angles; give at least one.")
    matrices = matrices_from_euler(angles)
    check_noise(dose, efficiency, read_noise)
    types = types_of(atoms)
    positions, peaks, sigmas = checked_atoms(
        atoms["position"].values, heights_of(atoms, types, heights), per_type("sigma", sigma, types)
    )
    center = np.asarray(field_center, dtype=np.float64)
    if center.shape != (2,) or not np.isfinite(center).all():
        raise InputError(f"field_center came as {field_center!r}; needed are lab x and y in Angstrom.")
    if field is None:
        field = field_of_everything(positions, sigmas, matrices, center, pixel_size)
    nx, ny = checked_field(field)
    x, y = centred_coordinates(nx, pixel_size) + center[0], centred_coordinates(ny, pixel_size) + center[1]

    reference = average_intensity(positions, peaks, sigmas, pixel_size)
    counts_per_intensity = 0.0
    if dose is not None:
        if reference <= 0:
            raise InputError("Every atom has height 0, so a dose cannot be scaled to the sample; give heights above 0.")
        counts_per_intensity = dose * pixel_size**2 * efficiency / reference
    entropy = int(np.random.SeedSequence(seed).entropy)  # type: ignore[arg-type]
    n = len(angles)
    images = da.blockwise(
        _tilt_images,
        "tyx",
        da.from_array(np.arange(n), chunks=1, name=False),
        "t",
        da.from_array(angles, chunks=(1, 3), name=False),
        "te",
        da.from_array(np.column_stack([positions, peaks, sigmas]), chunks=-1, name=False),
        "ap",
        x=x,
        y=y,
        pixel_size=float(pixel_size),
        counts_per_intensity=float(counts_per_intensity),
        read_noise=float(read_noise),
        entropy=entropy,
        new_axes={"y": ny, "x": nx},
        concatenate=True,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), dtype=np.float32),
    )
    attrs = {
        "source": "simulated",
        "angle_convention": "yang2021",
        "simulation_seed": entropy,
        "simulation_sigma_A": np.asarray(sigma, dtype=np.float64).tolist(),
        "simulation_heights": "per atom" if heights is None else np.asarray(heights, dtype=np.float64).tolist(),
        "simulation_atoms": len(positions),
        "simulation_efficiency": float(efficiency),
        "simulation_read_noise": float(read_noise),
        "simulation_average_intensity": reference,
        "simulation_field_center_A": center.tolist(),
    }
    if dose is not None:
        attrs["simulation_dose_per_tilt_e_per_A2"] = float(dose)
        attrs["dose_e_per_A2"] = float(dose) * n  # of the whole series, as for a measured one
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images),
            "mask": (("tilt", "y", "x"), da.ones((n, ny, nx), dtype=bool, chunks=(1, ny, nx))),
            "angles": (("tilt", "euler"), angles),
            "matrices": (("tilt", "row", "column"), matrices),
            "pixel_size": ((), float(pixel_size)),
        },
        coords={"tilt": np.arange(n), "y": y, "x": x, "euler": list(EULER)},
        attrs=attrs,
    )
    return with_units(series, TILT_SERIES)


def _tilt_images(
    tilts: np.ndarray,
    angles: np.ndarray,
    atoms: np.ndarray,
    *,
    x: np.ndarray,
    y: np.ndarray,
    pixel_size: float,
    counts_per_intensity: float,
    read_noise: float,
    entropy: int,
) -> np.ndarray:
    """Projections of the tilts of one block, each with noise from its own stream."""
    images = project_atoms(
        atoms[:, :3], angles, heights=atoms[:, 3], sigmas=atoms[:, 4], x=x, y=y, pixel_size=pixel_size, cutoff=CUTOFF
    )
    if counts_per_intensity > 0:
        for tilt, image in zip(tilts, images, strict=True):
            # The stream that SeedSequence(entropy).spawn gives to this tilt, whichever worker draws it.
            random = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(int(tilt),)))
            counts = random.poisson(image * counts_per_intensity).astype(np.float64)
            if read_noise > 0:
                counts += random.normal(0.0, read_noise, counts.shape)
            image[:] = counts / counts_per_intensity
    return images.astype(np.float32)


def types_of(atoms: xr.Dataset) -> np.ndarray:
    """Type of every atom, 1..k; 1 for all where none is given."""
    if "type" not in atoms:
        return np.ones(atoms.sizes["atom"], dtype=np.int64)
    types = atoms["type"].values
    if types.size and types.min() < 1:
        raise InputError(f"Atom types start at 1, but {int(types.min())} came; number them 1, 2, ...")
    return types


def per_type(name: str, value: float | Sequence[float], types: np.ndarray) -> np.ndarray:
    """One number for every atom from one for all or one for each type."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 0:
        return np.full(len(types), float(array))
    if array.ndim != 1 or (types.size and array.size < types.max()):
        raise InputError(
            f"{name} came with shape {array.shape}, but the atoms have {int(types.max(initial=1))} types; "
            "give one number, or one for each type."
        )
    return array[types - 1]


def heights_of(atoms: xr.Dataset, types: np.ndarray, heights: float | Sequence[float] | None) -> np.ndarray:
    """Peak value of every atom."""
    if heights is not None:
        return per_type("heights", heights, types)
    if "intensity" in atoms:
        return np.asarray(atoms["intensity"].values, dtype=np.float64)
    if "species" in atoms:
        names, index = np.unique(np.asarray(atoms["species"].values, dtype=str), return_inverse=True)
        return np.array([float(atomic_number(str(name))) ** Z_EXPONENT for name in names])[index]
    return np.ones(len(types))


def check_noise(dose: float | None, efficiency: float, read_noise: float) -> None:
    """Refuse a dose, an efficiency or a noise that cannot be."""
    if dose is not None and not (np.isfinite(dose) and dose > 0):
        raise InputError(
            f"dose came as {dose!r}; needed is electrons per square Angstrom, above 0, or None for no noise."
        )
    if not 0 < efficiency <= 1:
        raise InputError(
            f"efficiency came as {efficiency!r}; needed is the counted part of the electrons, above 0 up to 1."
        )
    if not (np.isfinite(read_noise) and read_noise >= 0):
        raise InputError(f"read_noise came as {read_noise!r}; needed is 0 or more electrons per pixel.")
    if read_noise > 0 and dose is None:
        raise InputError("read_noise is in counted electrons and so needs a dose; give dose=... as well.")


def checked_field(field: tuple[int, int]) -> tuple[int, int]:
    """Pixels along x and y as whole positive numbers."""
    try:
        nx, ny = (int(n) for n in field)
        usable = nx == field[0] and ny == field[1] and nx > 0 and ny > 0
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise InputError(f"field came as {field!r}; needed are two whole numbers of pixels above 0, (nx, ny).")
    return nx, ny


def field_of_everything(
    positions: np.ndarray, sigmas: np.ndarray, matrices: np.ndarray, center: np.ndarray, pixel_size: float
) -> tuple[int, int]:
    """Pixels (nx, ny) that hold every atom at every tilt."""
    reach = np.zeros(2)
    for matrix in matrices:
        off = np.abs(positions @ matrix[:2].T - center) + CUTOFF * sigmas[:, None]
        reach = np.maximum(reach, off.max(axis=0))
    n = 2 * np.ceil(reach / pixel_size) + 1
    if n.prod() > LARGEST_IMAGE:
        raise CapacityError(
            f"A field that holds every atom would be {n[0]:.0f} x {n[1]:.0f} pixels; "
            "are the positions in Angstrom? Give field=(nx, ny), or a larger pixel_size."
        )
    return int(n[0]), int(n[1])


def average_intensity(positions: np.ndarray, heights: np.ndarray, sigmas: np.ndarray, pixel_size: float) -> float:
    """Average pixel of the view along z: the atoms' total over the squares of 2 Angstrom in which there are any."""
    squares = np.unique(np.floor(positions[:, :2] / 2.0), axis=0)
    total = float((heights * (2.0 * np.pi) ** 1.5 * (sigmas / pixel_size) ** 3).sum())
    return total * pixel_size**2 / (4.0 * len(squares))
