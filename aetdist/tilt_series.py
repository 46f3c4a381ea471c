"""Aligned tilt series from foreign files: lazy images, checked before anything is written."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr

from ._inputs import (
    Files,
    Table,
    angle_table,
    as_list,
    checked_acquisition,
    is_file,
    listed,
    order_files,
    pixel_size_of,
    resolve_table,
    warn,
    warn_of_angles,
    wrong_number,
)
from .errors import InputError
from .geometry import centred_coordinates, euler_from_convention, matrices_from_astra, matrices_from_euler
from .io.readers import SeriesSource, Stack, TransposedStack, list_datasets, open_stack, read_calibration
from .schema import EULER, TILT_SERIES, check, with_units

__all__ = ["import_tilt_series"]

_STATISTICS = ("bad", "measured", "minimum", "maximum")


def import_tilt_series(
    files: Files,
    *,
    images: str | None = None,
    angles: Table | None = None,
    mask: str | Path | None = None,
    x_pixels: Table | None = None,
    y_pixels: Table | None = None,
    pixel_size: float | None = None,
    order: str | Path | None = None,
    tilt_axis: float = 0.0,
    angle_convention: str = "yang2021",
    flip_tilt: bool = False,
    transpose: bool = False,
    voltage: float | None = None,
    dose: float | None = None,
    convergence: float | None = None,
    detector: tuple[float, float] | None = None,
) -> xr.Dataset:
    """Computes: one pass over the pixels of an aligned tilt series, which it checks and returns lazily.

    Parameters
    ----------
    files : str, Path or sequence of them
        HDF5, MAT, MRC, TIFF, NPY, NPZ or SER files; DM3, DM4 or EMD with the extra ``em``. A folder stands for the
        images in it; images of several files are joined.
    images : str, optional
        Name of the dataset of shape (tilt, y, x) in HDF5, MAT (there (y, x, tilt)) and NPZ files;
        not needed where only one array has three dimensions.
    angles : str, Path or array_like of shape (tilt,) or (tilt, 3)
        Dataset in the first file, or a file (CSV, TXT, .tlt, .rawtlt, NPY, ``file::dataset``): one row
        for each image, one, three or twelve columns, in degrees.
    mask : str or Path, optional
        Dataset or file of shape (tilt, y, x) or (y, x), not 0 where a pixel was measured; ``"nan"``: pixels
        that are NaN or infinite were not measured. Without it, all were. Unmeasured pixels become 0.
    x_pixels, y_pixels : str, Path or array_like of shape (x,) and (y,), optional
        Dataset in the first file, or a file: coordinates of the pixels in pixels from the projection
        of the rotation's origin, shape (nx,) and (ny,). Without them, pixel ``n // 2`` is at 0.
    pixel_size : float, optional
        Edge of a pixel in Angstrom, where the files do not say it, or say it wrongly.
    order : str or Path, optional
        ``"natural"`` (img_2 before img_10), ``"given"``, or a table that names the files: an .mdoc, or a text
        file with a column ``file``. Without it, that of `angles` where this is such a table, otherwise natural.
    tilt_axis : float
        Angle from image y to the tilt axis in degrees, positive towards -x. Images are not resampled.
    angle_convention : {"yang2021", "single", "imod", "astra"}
        What the angles mean, see :mod:`aetdist.geometry.conventions`. IMOD and ASTRA turn about the
        middle (n - 1) / 2 of n pixels. ASTRA vectors say so themselves; for images of even width
        that IMOD aligned, give `x_pixels` and `y_pixels` half a pixel off.
    flip_tilt : bool
        Reverse the sense of the tilt, where a reconstruction comes out mirrored.
    transpose : bool
        Images, and the mask, are stored with x and y the other way round: in MAT files (x, y, tilt), as the published
        ones of AET are.
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
    paths = order_files(files, order, angles)
    dataset, source = _lazy_series(
        paths,
        images=images,
        angles=angles,
        mask=mask,
        x_pixels=x_pixels,
        y_pixels=y_pixels,
        pixel_size=pixel_size_of(pixel_size, [read_calibration(path, images) for path in paths], paths),
        tilt_axis=tilt_axis,
        angle_convention=angle_convention,
        flip_tilt=flip_tilt,
        transpose=transpose,
    )
    dataset.attrs.update(checked_acquisition(voltage, dose, convergence, detector))
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
    transpose: bool,
) -> tuple[xr.Dataset, SeriesSource]:
    """The Dataset with no pixel read, and where the pixels come from."""
    stacks, masks = _open_images(files, images), _open_mask(files, mask)
    if transpose:
        stacks, masks = tuple(map(TransposedStack, stacks)), tuple(map(TransposedStack, masks))
    source = SeriesSource(stacks, masks, mask == "nan")
    source.check()
    n, ny, nx = source.shape
    first = Path(source.images[0].path)
    table = angle_table(angles, first)
    if len(table) != n:
        raise wrong_number(len(table), n, "images", source.images)
    euler = euler_from_convention(table, angle_convention, tilt_axis=tilt_axis, flip_tilt=flip_tilt)
    warn_of_angles(table, euler, angle_convention)
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
        warn(f"The mask is False for all of tilt {listed(measured == 0)}, which will not count; is that meant?")
    constant = (measured > 1) & (low == high)
    if constant.any():
        warn(f"All measured pixels of tilt {listed(constant)} have one and the same value; is that image empty?")


def _open_images(files: Files, images: str | None) -> tuple[Stack, ...]:
    return tuple(open_stack(path, images) for path in as_list(files))


def _open_mask(files: Files, mask: str | Path | None) -> tuple[Stack, ...]:
    """The mask's stacks: a dataset in the same files, or a file of its own; empty for None and "nan"."""
    if mask is None or mask == "nan":
        return ()
    paths = as_list(files)
    if all(str(mask) in list_datasets(path) for path in paths) or not is_file(mask):
        return tuple(_named(path, str(mask), "mask") for path in paths)
    return (open_stack(mask),)


def _named(path: str | Path, dataset: str, what: str) -> Stack:
    """A stack that must be a dataset of `path`, as no file has that name."""
    if not list_datasets(path):
        raise InputError(f"The {what} {dataset!r} is no file, and {path} has no named datasets; name an existing file.")
    return open_stack(path, dataset)


def _pixel_coordinates(table: Table | None, first: Path, n: int, axis: str) -> np.ndarray:
    """Coordinates of the pixels along an axis, in pixels from the projection of the rotation's origin."""
    if table is None:
        return centred_coordinates(n)
    pixels = resolve_table(table, first, f"{axis}-pixels")
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
