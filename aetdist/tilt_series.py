"""Aligned tilt series from foreign files: lazy images, checked before anything is written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from .errors import AetdistWarning, InputError
from .geometry import centred_coordinates, euler_from_convention, matrices_from_astra, matrices_from_euler
from .io.readers import SeriesSource, Stack, list_datasets, open_stack, read_table
from .schema import EULER, TILT_SERIES, check, with_units

__all__ = ["import_tilt_series"]

Files = str | Path | Sequence[str | Path]
Table = str | Path | np.ndarray | Sequence[float] | Sequence[Sequence[float]]

_PIXEL_SIZES = (0.1, 5.0)  # Angstrom; atoms are not seen beyond
_STATISTICS = ("bad", "measured", "minimum", "maximum")
_DUPLICATE = 1e-5  # difference of two rotation matrices; 0.0006 degrees


def import_tilt_series(
    files: Files,
    *,
    images: str | None = None,
    angles: Table | None = None,
    mask: str | Path | None = None,
    x_pixels: Table | None = None,
    y_pixels: Table | None = None,
    pixel_size: float,
    tilt_axis: float = 0.0,
    angle_convention: str = "yang2021",
    flip_tilt: bool = False,
    voltage: float | None = None,
    dose: float | None = None,
    convergence: float | None = None,
    detector: tuple[float, float] | None = None,
) -> xr.Dataset:
    """Computes: one pass over the pixels of an aligned tilt series, which it checks and returns lazily.

    Parameters
    ----------
    files : str, Path or sequence of them
        HDF5, MAT, MRC, TIFF, NPY or NPZ files; images of several files are joined in the order given.
    images : str, optional
        Name of the dataset of shape (tilt, y, x) in HDF5, MAT (there (y, x, tilt)) and NPZ files;
        not needed where only one array has three dimensions.
    angles : str, Path or array_like
        Dataset in the first file, or a file (CSV, TXT, .tlt, .rawtlt, NPY, ``file::dataset``): one row
        for each image, one, three or twelve columns, in degrees.
    mask : str or Path, optional
        Dataset or file of shape (tilt, y, x) or (y, x), not 0 where a pixel was measured; ``"nan"``: pixels
        that are NaN or infinite were not measured. Without it, all were. Unmeasured pixels become 0.
    x_pixels, y_pixels : str, Path or array_like, optional
        Dataset in the first file, or a file: coordinates of the pixels in pixels from the projection
        of the rotation's origin, shape (nx,) and (ny,). Without them, pixel ``n // 2`` is at 0.
    pixel_size : float
        Edge of a pixel in Angstrom.
    tilt_axis : float
        Angle from image y to the tilt axis in degrees, positive towards -x. Images are not resampled.
    angle_convention : {"yang2021", "single", "imod", "astra"}
        What the angles mean, see :mod:`aetdist.geometry.conventions`. IMOD and ASTRA turn about the
        middle (n - 1) / 2 of n pixels. ASTRA vectors say so themselves; for images of even width
        that IMOD aligned, give `x_pixels` and `y_pixels` half a pixel off.
    flip_tilt : bool
        Reverse the sense of the tilt, where a reconstruction comes out mirrored.
    voltage, dose, convergence : float, optional
        kV, electrons / Angstrom^2 of the whole series, and mrad; kept in the attributes.
    detector : tuple of float, optional
        Inner and outer collection angle in mrad; kept in the attributes.

    Returns
    -------
    xarray.Dataset
        The TILT_SERIES group of the schema: float32 images and bool mask as Dask arrays of one chunk for
        each tilt, Euler angles and matrices, pixel size.

    Raises
    ------
    InputError
        If files, datasets, numbers or options cannot be used as they are; before any output.

    Warns
    -----
    AetdistWarning
        For values that look wrong: pixel size in nm or pm, angles in radians, tilts that come twice.
    """
    dataset, source = _lazy_series(
        files,
        images=images,
        angles=angles,
        mask=mask,
        x_pixels=x_pixels,
        y_pixels=y_pixels,
        pixel_size=_checked_pixel_size(pixel_size),
        tilt_axis=tilt_axis,
        angle_convention=angle_convention,
        flip_tilt=flip_tilt,
    )
    dataset.attrs.update(_checked_acquisition(voltage, dose, convergence, detector))
    _check_pixels(_statistics(source), source.shape, mask)
    return dataset


def _lazy_series(
    files: Files,
    *,
    images: str | None,
    angles: Table | None,
    mask: str | Path | None,
    x_pixels: Table | None,
    y_pixels: Table | None,
    pixel_size: float,
    tilt_axis: float,
    angle_convention: str,
    flip_tilt: bool,
) -> tuple[xr.Dataset, SeriesSource]:
    """The Dataset with no pixel read, and where the pixels come from."""
    source = SeriesSource(_open_images(files, images), _open_mask(files, mask), mask == "nan")
    source.check()
    n, ny, nx = source.shape
    first = Path(source.images[0].path)
    table = _angle_table(angles, first)
    if len(table) != n:
        raise InputError(
            f"{len(table)} angles came for {n} images; needed is one row of angles for each image: check the images "
            "and the angles you named."
        )
    euler = euler_from_convention(table, angle_convention, tilt_axis=tilt_axis, flip_tilt=flip_tilt)
    _warn_of_angles(table, euler, angle_convention)
    origin = _astra_origin(table, (ny, nx)) if angle_convention == "astra" else None
    y = _pixel_coordinates(y_pixels, first, ny, "y") if y_pixels is not None or not origin else origin[0]
    x = _pixel_coordinates(x_pixels, first, nx, "x") if x_pixels is not None or not origin else origin[1]
    chunks = ((1,) * n, (ny,), (nx,))
    lazy = {
        name: da.map_blocks(function, chunks=chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype), source=source)
        for name, function, dtype in (("images", _image_block, np.float32), ("mask", _mask_block, np.bool_))
    }
    dataset = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), lazy["images"]),
            "mask": (("tilt", "y", "x"), lazy["mask"]),
            "angles": (("tilt", "euler"), euler),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(euler)),
            "pixel_size": ((), pixel_size),
        },
        coords={
            "tilt": np.arange(n, dtype=np.int64),
            "y": y * pixel_size,
            "x": x * pixel_size,
            "euler": list(EULER),
        },
        attrs={
            "angle_convention": angle_convention,
            "tilt_axis_deg": float(tilt_axis),
            "flip_tilt": bool(flip_tilt),
            "source": [Path(stack.path).name for stack in source.images],
        },
    )
    dataset = with_units(dataset, TILT_SERIES)
    check(dataset, TILT_SERIES)
    return dataset, source


def _image_block(source: SeriesSource, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    image, mask = source.read(block_id[0])
    return np.where(mask, image, np.float32(0))[None]


def _mask_block(source: SeriesSource, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    return source.read_mask(block_id[0])[None]


def _statistics_block(source: SeriesSource, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    """Of one tilt, over measured pixels: values not finite, pixels, smallest and largest finite value."""
    image, mask = source.read(block_id[0])
    values = image[mask]
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
    return np.array([[values.size - finite.size, values.size, low, high]], dtype=np.float64)


def _statistics(source: SeriesSource) -> np.ndarray:
    """One row for each tilt, in the order of ``_STATISTICS``; a task holds one tilt."""
    chunks = ((1,) * source.shape[0], (len(_STATISTICS),))
    lazy = da.map_blocks(_statistics_block, chunks=chunks, dtype=np.float64, meta=np.empty((0, 0)), source=source)
    return np.asarray(lazy.compute())


def _check_pixels(statistics: np.ndarray, shape: tuple[int, ...], mask: str | Path | None) -> None:
    """Refuse images that no reconstruction can use.

    Raises
    ------
    InputError
        For measured pixels that are not finite, or a mask that is False everywhere.
    """
    bad, measured, low, high = statistics.T
    if bad.any():
        worst = int(np.argmax(bad))
        cure = (
            "mask them with --mask nan (mask='nan'), or name a mask that leaves them out"
            if mask is None
            else "the mask must be False there; or use --mask nan (mask='nan')"
        )
        raise InputError(
            f"{int(bad.sum())} pixels in {int((bad > 0).sum())} of {shape[0]} images are NaN or infinite "
            f"(most in tilt {worst}: {int(bad[worst])} of {shape[1] * shape[2]}); {cure}."
        )
    if not measured.any():
        raise InputError(
            "The mask is False for every pixel; needed is True where a pixel was measured"
            + ("; all images are NaN." if mask == "nan" else ": was it inverted?")
        )
    if (measured == 0).any():
        _warn(f"The mask is False for all of tilt {_listed(measured == 0)}, which will not count; is that meant?")
    constant = (measured > 1) & (low == high)
    if constant.any():
        _warn(f"All measured pixels of tilt {_listed(constant)} have one and the same value; is that image empty?")


def _open_images(files: Files, images: str | None) -> tuple[Stack, ...]:
    paths = _as_list(files)
    if not paths:
        raise InputError("No file came to import; name one or more files of images.")
    return tuple(open_stack(path, images) for path in paths)


def _open_mask(files: Files, mask: str | Path | None) -> tuple[Stack, ...]:
    """The mask's stacks: a dataset in the same files, or a file of its own; empty for None and "nan"."""
    if mask is None or mask == "nan":
        return ()
    paths = _as_list(files)
    if all(str(mask) in list_datasets(path) for path in paths) or not _is_file(mask):
        return tuple(_named(path, str(mask), "mask") for path in paths)
    return (open_stack(mask),)


def _named(path: str | Path, dataset: str, what: str) -> Stack:
    """A stack that must be a dataset of `path`, as no file has that name."""
    if not list_datasets(path):
        raise InputError(f"The {what} {dataset!r} is no file, and {path} has no named datasets; name an existing file.")
    return open_stack(path, dataset)


def _resolve_table(table: Table, first: Path, what: str) -> np.ndarray:
    """A table given as an array, as the name of a dataset in the first file, or as a file."""
    if not isinstance(table, str | Path):
        return np.asarray(table)
    datasets = list_datasets(first)
    if str(table) not in datasets and _is_file(table):
        return read_table(table)
    if not datasets:
        raise InputError(
            f"The {what} file {table} does not exist, and {first.name} holds no named datasets; name an existing file "
            "(CSV, TXT, .tlt, .rawtlt, NPY)."
        )
    return read_table(first, str(table))


def _angle_table(angles: Table | None, first: Path) -> np.ndarray:
    if angles is None:
        datasets = list_datasets(first)
        has = f" ({first.name} has {', '.join(datasets)})" if datasets else ""
        raise InputError(f"No tilt angles came; name a dataset{has} or a file (CSV, TXT, .tlt, .rawtlt) with --angles.")
    table = _resolve_table(angles, first, "angles")
    if table.ndim not in (1, 2) or table.dtype.kind not in "fiu":
        raise InputError(
            f"The angles are {table.dtype} of shape {table.shape}; needed is one row of numbers for each tilt, "
            "in degrees."
        )
    return table


def _warn_of_angles(table: np.ndarray, euler: np.ndarray, convention: str) -> None:
    """Warn of angles that look like radians and of tilts that come twice."""
    largest = np.abs(table).max(initial=0.0)
    if convention != "astra" and len(table) > 2 and 0 < largest <= 1.75:
        _warn(
            f"No angle exceeds {largest:.4g} degrees: they look like radians; if so, convert them to degrees "
            f"(the largest would be {np.rad2deg(largest):.1f})."
        )
    matrices = matrices_from_euler(euler).reshape(len(euler), 9)
    same = np.abs(matrices[:, None] - matrices).max(axis=2) < _DUPLICATE
    pairs = np.argwhere(np.triu(same, 1))
    if len(pairs):
        more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
        listed = ", ".join(f"{a} and {b} ({euler[a].round(3).tolist()})" for a, b in pairs[:3])
        _warn(f"Tilts have the same angles: {listed}{more}; does an image come twice?")


def _pixel_coordinates(table: Table | None, first: Path, n: int, axis: str) -> np.ndarray:
    """Coordinates of the pixels along an axis, in pixels from the projection of the rotation's origin."""
    if table is None:
        return centred_coordinates(n)
    pixels = _resolve_table(table, first, f"{axis}-pixels")
    pixels = pixels.reshape(-1) if pixels.ndim == 2 and 1 in pixels.shape else pixels
    if pixels.dtype.kind not in "fiu" or pixels.shape != (n,):
        raise InputError(
            f"The {axis}-pixels are {pixels.dtype} of shape {pixels.shape}; needed are {n} numbers, one for each pixel "
            f"along {axis}."
        )
    pixels = pixels.astype(np.float64)
    steps = np.diff(pixels)
    if not np.isfinite(pixels).all() or np.abs(steps - 1).max(initial=0.0) > 1e-3:
        raise InputError(
            f"The {axis}-pixels go in steps of {steps.min(initial=np.inf):.6g} to {steps.max(initial=-np.inf):.6g}; "
            "needed are pixel coordinates that rise evenly by 1 (pixels, not Angstrom)."
        )
    return pixels[0] + np.arange(n)


def _astra_origin(vectors: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (y, x) that ASTRA vectors imply: their origin is the middle of the volume."""
    centre = matrices_from_astra(vectors).centre
    spread = np.ptp(centre, axis=0).max(initial=0.0)
    if spread > 1e-3:
        raise InputError(
            f"The detector of the ASTRA vectors moves by {spread:.4g} pixels between projections; shift the images so "
            "that it stays in place, then import."
        )
    y, x = (np.arange(n) - (n - 1) / 2 + middle for n, middle in zip(shape, centre.mean(axis=0), strict=True))
    return y, x


def _checked_pixel_size(pixel_size: float) -> float:
    value = float(pixel_size)
    if not np.isfinite(value) or value <= 0:
        raise InputError(f"The pixel size came as {value:g} Angstrom; needed is a positive number, such as 0.35.")
    low, high = _PIXEL_SIZES
    if not low <= value <= high:
        unit = f"nm (then {value * 10:g} Angstrom)" if value < low else f"pm (then {value / 100:g} Angstrom)"
        unit = f"m (then {value * 1e10:g} Angstrom)" if value < 1e-6 else unit
        _warn(f"A pixel of {value:g} Angstrom is unusual for atomic resolution; was it meant in {unit}?")
    return value


def _checked_acquisition(
    voltage: float | None = None,
    dose: float | None = None,
    convergence: float | None = None,
    detector: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Attributes that say how the series was taken; what is not known is left out."""
    attributes: dict[str, Any] = {}
    known = (("voltage_kV", voltage, "kV"), ("dose_e_per_A2", dose, "e/A^2"), ("convergence_mrad", convergence, "mrad"))
    for name, value, unit in known:
        if value is None:
            continue
        if not np.isfinite(value) or value <= 0:
            raise InputError(
                f"The {name.split('_')[0]} came as {value:g} {unit}; needed is a positive number, or leave it out."
            )
        attributes[name] = float(value)
    if attributes.get("voltage_kV", 0.0) >= 1e4:
        _warn(f"A voltage of {voltage:g} kV is unusual; was it meant in V?")
    if detector is not None:
        inner, outer = (float(angle) for angle in detector)
        if not 0 <= inner < outer < np.inf:
            raise InputError(f"The detector came as {inner:g} to {outer:g} mrad; needed is 0 <= inner < outer.")
        attributes["detector_mrad"] = [inner, outer]
    return attributes


def _as_list(files: Files) -> list[str | Path]:
    return [files] if isinstance(files, str | Path) else list(files)


def _is_file(name: str | Path) -> bool:
    return Path(name).is_file() or ("::" in str(name) and Path(str(name).rpartition("::")[0]).is_file())


def _listed(flags: np.ndarray) -> str:
    numbers = np.flatnonzero(flags)
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def _warn(message: str) -> None:
    warnings.warn(message, AetdistWarning, stacklevel=3)
