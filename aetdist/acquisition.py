"""Raw acquisitions from the microscope's files: lazy frames, in the right order, checked before anything is written."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from ._inputs import (
    Files,
    Table,
    angle_table,
    checked_acquisition,
    is_file,
    order_files,
    pixel_size_of,
    warn,
    warn_of_angles,
    wrong_number,
)
from .errors import InputError
from .geometry import centred_coordinates, euler_from_convention, matrices_from_euler
from .io.readers import (
    Calibration,
    Stack,
    list_files,
    match_names,
    open_frames,
    read_calibration,
    read_order,
)
from .schema import EULER, FRAMES, check, with_units

__all__ = ["import_acquisition"]

_SATURATED = 0.01  # part of the pixels at the largest number that the integers hold
_STATISTICS = ("bad", "lowest", "highest", "saturated", "skewness", "checksum")
_BLOCK = 8  # pixels; averages of such blocks show the object, not its noise
_INVERTED = -0.5  # skewness; a measured film has 0.6 to 1.2, the same inverted the negative of it
_STAGE = 1.0  # degree; angles that were refined stay closer to those of the stage


def import_acquisition(
    files: Files,
    *,
    frames: int | str = "axis",
    images: str | None = None,
    angles: Table | None = None,
    order: str | Path | None = None,
    pixel_size: float | None = None,
    tilt_axis: float = 0.0,
    angle_convention: str = "yang2021",
    flip_tilt: bool = False,
    voltage: float | None = None,
    dose: float | None = None,
    convergence: float | None = None,
    detector: tuple[float, float] | None = None,
) -> xr.Dataset:
    """Computes: one pass over the pixels of raw frames, which it checks and returns lazily.

    Parameters
    ----------
    files : str, Path or sequence of them
        HDF5, MAT, MRC, TIFF, NPY, NPZ or SER files; DM3, DM4 or EMD (Velox, NCEM) with the extra ``em``. A folder
        stands for the images in it.
    frames : int or str
        Which images are the frames of one tilt. ``"axis"``: those along the axis after the tilt, in arrays
        of four axes, otherwise each image alone. A number: so many consecutive images. ``"files"``: those
        of one file. A pattern of names, such as ``"tilt_{tilt}_frame_{frame}.tif"``, where ``{angle}`` instead
        of ``{tilt}`` says the angle in degrees and ``*`` stands for anything.
    images : str, optional
        Name of the dataset in HDF5, MAT and NPZ files, or title of the images in DM and EMD files; not
        needed where there is only one.
    angles : str, Path or array_like of shape (tilt,) or (tilt, 3), optional
        Dataset in the first file, or a file (CSV, TXT, .tlt, .rawtlt, .mdoc, NPY, ``file::dataset``): one row for
        each tilt, in degrees. Without it, the tilt of the stage that the files say.
    order : str or Path, optional
        ``"natural"`` (img_2 before img_10), ``"given"``, or a table that names the files: an .mdoc, or a text
        file with a column ``file``. Without it, that of `angles` where this is such a table, otherwise natural.
    pixel_size : float, optional
        Edge of a pixel in Angstrom, where the files do not say it, or say it wrongly.
    tilt_axis, angle_convention, flip_tilt, voltage, dose, convergence, detector : optional
        As in :func:`aetdist.tilt_series.import_tilt_series`.

    Returns
    -------
    xarray.Dataset
        The FRAMES group of the schema: ``frames`` (tilt, frame, y, x) float32 in detector counts as a Dask array of
        one chunk for each tilt, NaN where a tilt has fewer frames; Euler angles and matrices, pixel size. What the
        files say of the microscope stands in the attributes, with the unit in the name.

    Raises
    ------
    InputError
        If files, numbers or options cannot be used as they are; before any output.

    Warns
    -----
    AetdistWarning
        For frames that look wrong: blank, saturated, dark atoms, a frame that comes twice.
    """
    by_name = isinstance(frames, str) and frames not in ("axis", "files")
    paths = list_files(files) if by_name else order_files(files, order, angles)
    if angles is None and order is not None and Path(order).suffix.lower() == ".mdoc":
        angles = order
    groups, tilts = None, None
    if by_name:
        paths, groups, tilts = _match(paths, str(frames), order)
        if isinstance(angles, str | Path) and is_file(angles) and read_order(angles) is not None:
            raise InputError(
                f"{angles} names the files; with the pattern {frames!r} tilts stand in the natural order of their "
                "names: leave the column out, or the pattern."
            )
    stacks = _opened(paths, images)
    calibrations = [read_calibration(path, images) for path in paths]
    first = Path(stacks[0].path)
    table = tilts if angles is None else angle_table(angles, first)
    layout = _layout(stacks, frames, groups, None if table is None else len(table))
    stage = _stage_tilts(stacks, calibrations, layout)
    if table is None:
        table = angle_table(angles, first) if stage is None else stage
    if len(table) != len(layout):
        raise wrong_number(len(table), len(layout), "tilts", stacks)
    _compare_with_stage(table, stage)
    euler = euler_from_convention(table, angle_convention, tilt_axis=tilt_axis, flip_tilt=flip_tilt)
    warn_of_angles(table, euler, angle_convention)
    mdocs = [t for t in (angles, order) if isinstance(t, str | Path) and Path(t).suffix.lower() == ".mdoc"]
    calibrations += [read_calibration(mdoc) for mdoc in mdocs]
    size = pixel_size_of(pixel_size, calibrations, [*paths, *mdocs])
    source = FrameSource(stacks, layout)
    dataset = _lazy_frames(source, euler, size)
    dataset.attrs |= {
        "angle_convention": angle_convention,
        "tilt_axis_deg": float(tilt_axis),
        "flip_tilt": bool(flip_tilt),
        "source": [Path(stack.path).name for stack in stacks],
        **_described(calibrations),
        **checked_acquisition(voltage, dose, convergence, detector),
    }
    _check_frames(_statistics(source), source)
    return dataset


@dataclass(frozen=True)
class FrameSource:
    """Where the frames lie; small and picklable, nothing is open or read.

    Parameters
    ----------
    stacks : tuple of Stack
        The files, in order.
    layout : tuple of tuple of (int, int)
        For each tilt, number of the stack and of the image in it for each of its frames.
    """

    stacks: tuple[Stack, ...]
    layout: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(tilt, frame, y, x); as many frames as the tilt with most of them."""
        return (len(self.layout), max(map(len, self.layout)), *self.stacks[0].shape[1:])

    def read(self, tilt: int, frame: int) -> np.ndarray:
        """A frame as the file has it, shape (y, x)."""
        stack, image = self.layout[tilt][frame]
        return self.stacks[stack].read(image)

    def name(self, tilt: int, frame: int) -> str:
        """Name of a frame in a message."""
        return f"frame {frame} of tilt {tilt} ({Path(self.stacks[self.layout[tilt][frame][0]].path).name})"


def _match(
    paths: Sequence[str | Path], pattern: str, order: str | Path | None
) -> tuple[list[str | Path], list[int], np.ndarray | None]:
    """Files by tilt and frame of their names, how many each tilt has, and the angles if the names say them."""
    if order not in (None, "natural"):
        raise InputError(
            f"The pattern {pattern!r} and the order {order} came; tilts stand in the natural order of their names: "
            "leave one out."
        )
    matched, left_out, by_angle = match_names(paths, pattern)
    if left_out:
        warn(
            f"{len(left_out)} of {len(paths)} files are not named like {pattern!r} ({left_out[0]}); they are left out."
        )
    ordered = [file for frames in matched.values() for file in frames.values()]
    tilts = np.array([float(tilt) for tilt in matched]) if by_angle else None
    return ordered, [len(frames) for frames in matched.values()], tilts


def _opened(paths: Sequence[str | Path], images: str | None) -> tuple[Stack, ...]:
    """The files' stacks, all of one size."""
    stacks = tuple(open_frames(path, images) for path in paths)
    for stack in stacks:
        if stack.shape[1:] != stacks[0].shape[1:]:
            raise InputError(
                f"Frames differ in size: {stacks[0].path} has {stacks[0].shape[1:]} pixels (y, x), {stack.path} "
                f"{stack.shape[1:]}; needed are frames of one size: leave the others out, or crop them."
            )
        if np.dtype(stack.dtype) == bool:
            raise InputError(f"The images in {stack.path} are only True and False; name the images, not a mask.")
    return stacks


def _layout(
    stacks: Sequence[Stack], frames: int | str, groups: Sequence[int] | None, n_angles: int | None
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each tilt, stack and image of each of its frames."""
    by_file = [[(s, k) for k in range(stack.shape[0])] for s, stack in enumerate(stacks)]
    every = [image for file in by_file for image in file]
    axis = {stack.frames for stack in stacks}
    if groups is not None:
        ends = np.cumsum(groups)
        return tuple(tuple(i for f in by_file[end - n : end] for i in f) for n, end in zip(groups, ends, strict=True))
    if frames == "files":
        return tuple(map(tuple, by_file))
    if frames == "axis":
        cut = [(file, stack.frames) for file, stack in zip(by_file, stacks, strict=True)]
        return tuple(tuple(file[k : k + n]) for file, n in cut for k in range(0, len(file), n))
    n = int(frames)
    if n < 1:
        raise InputError(f"{n} frames came for each tilt; needed is 1 or more.")
    if axis not in ({1}, {n}):
        raise InputError(f"{n} frames came for each tilt, but the files hold {sorted(axis)}; leave frames out.")
    if len(every) % n:
        raise wrong_number(n_angles or len(every) // n, len(every), f"images, {n} frames for each tilt", stacks)
    return tuple(tuple(every[k : k + n]) for k in range(0, len(every), n))


def _stage_tilts(
    stacks: Sequence[Stack], calibrations: Sequence[Calibration], layout: Sequence[Sequence[tuple[int, int]]]
) -> np.ndarray | None:
    """Tilt of the stage at the first frame of each tilt, in degrees; None where a file does not say it."""
    tilts = []
    holds = [stack for frames in layout for stack in {s for s, _ in frames}]
    for frames in layout:
        stack, image = frames[0]
        said = calibrations[stack].stage_tilts or ()
        if len(said) == stacks[stack].shape[0]:
            tilts.append(said[image])
        elif len(said) == 1 and holds.count(stack) == 1:
            tilts.append(said[0])
        else:
            return None
    return np.array(tilts)


def _compare_with_stage(table: np.ndarray, stage: np.ndarray | None) -> None:
    """Warn of angles that are not those of the stage: a sign that files and angles are not in one order."""
    theta = table[:, 1] if table.ndim == 2 and table.shape[1] == 3 else table
    if stage is None or theta.shape != stage.shape:
        return
    off = min(np.abs(theta - stage), np.abs(theta + stage), key=np.max)
    if off.max() > _STAGE:
        k = int(off.argmax())
        warn(
            f"The angles differ from the stage's by up to {off[k]:.4g} degrees (tilt {k}: {theta[k]:.4g}, the file "
            f"says {stage[k]:.4g}); the angles that came are used: are they in the order of the files?"
        )


def _lazy_frames(source: FrameSource, euler: np.ndarray, pixel_size: float) -> xr.Dataset:
    """The group with no pixel read."""
    n, n_frames, ny, nx = source.shape
    lazy = da.map_blocks(
        _frames_block,
        chunks=((1,) * n, (n_frames,), (ny,), (nx,)),
        dtype=np.float32,
        meta=np.empty((0, 0, 0, 0), np.float32),
        source=source,
    )
    dataset = xr.Dataset(
        {
            "frames": (("tilt", "frame", "y", "x"), lazy),
            "angles": (("tilt", "euler"), euler),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(euler)),
            "pixel_size": ((), pixel_size),
        },
        coords={
            "tilt": np.arange(n, dtype=np.int64),
            "frame": np.arange(n_frames, dtype=np.int64),
            "y": centred_coordinates(ny) * pixel_size,
            "x": centred_coordinates(nx) * pixel_size,
            "euler": list(EULER),
        },
    )
    dataset = with_units(dataset, FRAMES)
    check(dataset, FRAMES)
    return dataset


def _frames_block(source: FrameSource, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    _, *shape = source.shape
    frames = np.full((1, *shape), np.nan, np.float32)
    for k in range(len(source.layout[block_id[0]])):
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which the import looks for
            frames[0, k] = source.read(block_id[0], k)
    return frames


def _described(calibrations: Sequence[Calibration]) -> dict[str, Any]:
    """What the files say of the microscope: one value, or a list where they differ."""
    names = {name: None for calibration in calibrations for name in calibration.attributes}
    found: dict[str, Any] = {}
    for name in names:
        values = [calibration.attributes[name] for calibration in calibrations if name in calibration.attributes]
        alike = np.ptp(values) <= 1e-3 * np.abs(values).max()
        found[name] = values[0] if alike else values
        if not alike:
            warn(
                f"{name} goes from {min(values):.6g} to {max(values):.6g} between the files; all are imported: were "
                "they taken alike?"
            )
    return found


def _statistics(source: FrameSource) -> np.ndarray:
    """``_STATISTICS`` of each frame (tilt, frame, statistic), NaN where there is none; a task holds one frame."""
    chunks = ((1,) * source.shape[0], (source.shape[1],), (len(_STATISTICS),))
    lazy = da.map_blocks(_statistics_block, chunks=chunks, dtype=np.float64, meta=np.empty((0, 0, 0)), source=source)
    return np.asarray(lazy.compute())


def _statistics_block(source: FrameSource, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    found = np.full((1, source.shape[1], len(_STATISTICS)), np.nan)
    for k in range(len(source.layout[block_id[0]])):
        stored = source.read(block_id[0], k)
        with np.errstate(over="ignore"):
            frame = stored.astype(np.float32)
        finite = frame[np.isfinite(frame)]
        low, high = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
        full = np.mean(stored == np.iinfo(stored.dtype).max) if stored.dtype.kind in "iu" else 0.0
        checksum = zlib.crc32(np.ascontiguousarray(frame).data)
        found[0, k] = frame.size - finite.size, low, high, full, _skewness(frame), checksum
    return found


def _skewness(frame: np.ndarray) -> float:
    """Skewness of a frame's averages over blocks: above 0 for bright atoms in vacuum, below for dark ones."""
    ny, nx = (n // _BLOCK * _BLOCK for n in frame.shape)
    if min(ny, nx) < 2 * _BLOCK or not np.isfinite(frame).all():
        return float("nan")
    means = frame[:ny, :nx].reshape(ny // _BLOCK, _BLOCK, nx // _BLOCK, _BLOCK).mean(axis=(1, 3), dtype=np.float64)
    deviation = means - means.mean()
    spread = np.square(deviation).mean()
    return float((deviation**3).mean() / spread**1.5) if spread > 0 else float("nan")


def _check_frames(statistics: np.ndarray, source: FrameSource) -> None:
    """Refuse frames with undefined pixels; warn of those that look wrong.

    Raises
    ------
    InputError
        For pixels that are not finite.
    """
    bad, low, high, saturated, skewness, checksum = np.moveaxis(statistics, 2, 0)
    n_pixels = source.shape[2] * source.shape[3]
    if (bad > 0).any():
        worst = divmod(int(np.nanargmax(bad)), bad.shape[1])
        raise InputError(
            f"{int(np.nansum(bad))} pixels in {int((bad > 0).sum())} frames are NaN or infinite (most in "
            f"{source.name(*worst)}: {int(bad[worst])} of {n_pixels}); put the average of their neighbours there, or "
            "leave the frame out."
        )
    blank = low == high
    for flags, what, verdict in (
        (blank, "All pixels have one value in", "is it blank?"),
        (
            saturated > _SATURATED,
            f"More than {_SATURATED:.0%} of the pixels are saturated in",
            "was the gain too high?",
        ),
    ):
        if flags.any():
            places = np.argwhere(flags)
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            named = ", ".join(source.name(*place) for place in places[:3])
            warn(f"{what} {named}{more}; imported as it is: {verdict}")
    sound = np.isfinite(checksum) & ~blank
    _, inverse, counts = np.unique(checksum[sound], return_inverse=True, return_counts=True)
    if (counts > 1).any():
        pair = np.argwhere(sound)[inverse == int(np.argmax(counts > 1))]
        warn(
            f"{int((counts - 1).sum())} frames are copies of others: {source.name(*pair[0])} and "
            f"{source.name(*pair[1])}; imported as they are: does a file come twice?"
        )
    if np.isfinite(skewness).any() and np.nanmedian(skewness) < _INVERTED:
        warn(
            f"The images are dark on bright (median skewness {np.nanmedian(skewness):.2f}), as in bright field; "
            "imported as they are: ADF-STEM has bright atoms, so invert the contrast if it is inverted."
        )
