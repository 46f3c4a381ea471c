"""Angles and shifts of a tilt series against the reprojections of a volume. Nothing is resampled."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from ..blocks.windows import run_tasks, share
from ..errors import AetdistWarning, InputError
from ..geometry import euler_from_matrices, grid_step, matrices_from_euler, pinned
from ..schema import AXES, EULER, TILT_SERIES, VOLUME, check
from .flags import NOT_MEASURED, unlike_the_others, warn_of_few
from .least_squares import Fit, fit_tilts
from .model import kernel_memory, model_of
from .search import scan_rotations

_TILTS_PER_TASK = 8  # that read a lazy volume together


def refine_angles(
    tilt_series: xr.Dataset,
    volume: xr.Dataset | xr.DataArray,
    *,
    search: float = 1.0,
    increment: float = 0.5,
    iterations: int = 20,
    maximum_angle: float = 3.0,
    maximum_shift: float = 10.0,
    exclude: Sequence[int] = (),
) -> xr.Dataset:
    """Computes: Euler angles and shift of every tilt that match the reprojection of a volume best.

    Parameters
    ----------
    tilt_series : xarray.Dataset
        TILT_SERIES, in memory or lazy; pixels whose mask is False do not count.
    volume : xarray.Dataset or xarray.DataArray
        VOLUME, or its ``density`` (z, y, x), with voxels as large as the pixels. One in memory is sent to every
        worker once; a lazy one is read slab by slab.
    search, increment : float
        Coarse scan: rotations about each axis of the laboratory up to `search` in steps of `increment`, in
        degrees. A `search` of 0 leaves it out.
    iterations : int
        Steps of the least squares that follow, at most.
    maximum_angle, maximum_shift : float
        Degrees and pixels; a tilt that would move further is left out, with its values as they were.
    exclude : sequence of int
        Tilts to leave out, by their numbers in the coordinate ``tilt``.

    Returns
    -------
    xarray.Dataset
        ``angles`` (tilt, euler) in degrees and ``matrices``; ``shift`` (tilt, axis) in pixels [y, x]:
        aligned_t(r) = image_t(r + shift_t); ``rotation`` (tilt, lab_axis), by how much the sample turns about x, y,
        z of the laboratory, in degrees; ``angle_uncertainty`` (tilt, euler) in degrees and ``shift_uncertainty``
        (tilt, axis) in pixels, standard deviations for the volume as it is: what it has wrong together with all tilts
        is not in them (simulated particles: errors two to three times as large); ``correlation`` and
        ``r_factor`` (tilt, moment) of image and reprojection, before and after; ``used`` (tilt,) bool and ``flags``
        (tilt,), what is wrong with a tilt that is not used or kept its values.

    Raises
    ------
    InputError
        If the voxels are not as large as the pixels, a measured pixel or a voxel is no finite number, fewer than three
        tilts can be used, or an option is off.

    Warns
    -----
    AetdistWarning
        Naming the tilts that are left out, and those that keep their values; and where fewer than nine are used.

    Notes
    -----
    Minimises sum over measured pixels of (I - s P(R, d) - c)^2 for every tilt: the rotation R by three angles, the
    shift d, the brightness s and a constant background c. With w a small rotation of the sample in the laboratory and M
    the sum of z V along the beam, dP/dw_x = d_y M, dP/dw_y = -d_x M, dP/dw_z = y d_x P - x d_y P: a projection and
    its first moment give all derivatives. The steps are Gauss-Newton, damped as Levenberg and Marquardt do. The
    rotation and the translation that all tilts share are taken out: a tilt series does not know them.

    A volume made from misaligned images explains their misalignment in part; see
    :func:`~aetdist.refinement.reconstruct_refined`, which repeats reconstruction and refinement.

    References
    ----------
    Y. Yang et al., Nature 592, 60-64 (2021), Methods, RESIRE (angular refinement).
    """
    density = volume["density"] if isinstance(volume, xr.Dataset) else volume
    check(tilt_series, TILT_SERIES)
    check(density.to_dataset(name="density"), VOLUME)
    size = checked_pixel_size(tilt_series, density)
    check_refinement(search, increment, iterations, maximum_angle, maximum_shift)
    left_out = np.isin(tilt_series["tilt"].values, known_tilts(tilt_series, exclude))
    detector = (tilt_series.sizes["y"], tilt_series.sizes["x"])
    corner = (float(tilt_series["y"].values[0]) / size, float(tilt_series["x"].values[0]) / size)
    start = matrices_from_euler(tilt_series["angles"].values)

    lazy = density.chunks is not None or not density._in_memory
    if lazy:
        source: Any = density
    else:
        source = share(kernel_memory(np.asarray(density.values)))
    first = tuple(float(density[axis].values[0]) / size for axis in "zyx")
    tilts = np.flatnonzero(~left_out)
    items = [(tilt_series[["images", "mask"]].isel(tilt=g), start[g]) for g in tilt_groups(tilts, lazy)]
    options = {"search": search, "increment": increment, "maximum_shift": maximum_shift, "iterations": iterations}
    found = run_tasks(_refine_group, items, source, first, detector, corner, options, label="tilts")
    fit = joined_fits(found, tilts, start, np.zeros((len(start), 2)))
    return _result(tilt_series, start, fit, left_out, maximum_angle, maximum_shift)


def check_refinement(
    search: float, increment: float, iterations: int, maximum_angle: float, maximum_shift: float
) -> None:
    """Refuse numbers that no refinement can use.

    Raises
    ------
    InputError
    """
    if not (0 <= search <= 90 and 0 < increment <= 90):
        raise InputError(
            f"search came as {search} and increment as {increment}; needed are 0 to 90 degrees, and more than 0."
        )
    if not (isinstance(iterations, int | np.integer | float) and iterations >= 1 and iterations % 1 == 0):
        raise InputError(f"iterations came as {iterations}; needed is a whole number of 1 or more.")
    for name, value in (("maximum_angle", maximum_angle), ("maximum_shift", maximum_shift)):
        if not 0 < value < np.inf:
            raise InputError(f"{name} came as {value}; needed is a number above 0.")


def known_tilts(series: xr.Dataset, exclude: Sequence[int]) -> list[int]:
    """Numbers of tilts to leave out.

    Raises
    ------
    InputError
        If there is no such tilt.
    """
    numbers = series["tilt"].values
    unknown = [int(t) for t in exclude if t not in numbers]
    if unknown:
        raise InputError(
            f"Tilt {', '.join(map(str, unknown))} to exclude does not exist; tilts are numbered {numbers[0]} to "
            f"{numbers[-1]}."
        )
    return list(exclude)


def checked_pixel_size(series: xr.Dataset, density: xr.DataArray) -> float:
    """Edge of a pixel and of a voxel in Angstrom.

    Raises
    ------
    InputError
        If they differ.
    """
    size = grid_step(series["x"].values)
    steps = [grid_step(density[axis].values) for axis in "zyx" if density.sizes[axis] > 1]
    if any(abs(step - size) > 1e-3 * size for step in steps):
        raise InputError(
            f"Voxels of {steps} Angstrom (z, y, x) came for pixels of {size:g}; needed are voxels as large."
        )
    return size


def tilt_groups(tilts: np.ndarray, lazy: bool) -> list[np.ndarray]:
    """Tilts of every task: several share the reading of a lazy volume."""
    return np.array_split(tilts, max(1, len(tilts) // _TILTS_PER_TASK if lazy else len(tilts)))


def _refine_group(
    item: tuple[xr.Dataset, np.ndarray],
    source: Any,
    first: tuple[float, float, float],
    detector: tuple[int, int],
    corner: tuple[float, float],
    options: dict[str, Any],
) -> Fit:
    """Coarse scan and least squares of some tilts."""
    series, matrices = item
    series = series.compute(scheduler="synchronous")
    images, masks = series["images"].values.astype(np.float32), series["mask"].values
    model = model_of(source, first, detector, corner)
    spoilt = (masks & ~np.isfinite(images)).any(axis=(1, 2))
    if spoilt.any():
        raise InputError(
            f"Tilt {int(series['tilt'].values[spoilt.argmax()])} holds NaN or infinite pixels inside its mask; set the "
            "mask False there (import with --mask nan), or leave the tilt out."
        )
    usable = measured_tilts(images, masks)
    images = np.where(masks, images, 0.0).astype(np.float32)
    matrices, shifts = matrices.copy(), np.zeros((len(images), 2))
    if options["search"] > 0:
        for t in np.flatnonzero(usable):
            matrices[t], shifts[t] = scan_rotations(
                model, images[t], masks[t], matrices[t], shifts[t],
                search=options["search"], increment=options["increment"], maximum_shift=options["maximum_shift"],
            )  # fmt: skip
    return fit_tilts(model, images, masks & usable[:, None, None], matrices, shifts, iterations=options["iterations"])


def measured_tilts(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Tilts of which something was measured that is not one and the same everywhere, (tilt,) bool."""
    return np.array(
        [bool(m.any() and np.isfinite(i[m]).all() and np.ptp(i[m]) > 0) for i, m in zip(images, masks, strict=True)]
    )


def joined_fits(found: Sequence[Fit], tilts: np.ndarray, matrices: np.ndarray, shifts: np.ndarray) -> Fit:
    """The fits of all tasks in the order of the tilts; tilts that none fitted keep their rotations and shifts."""
    n = len(matrices)
    whole = Fit(
        matrices.copy(), shifts.copy(), np.ones(n), np.zeros(n), np.full((n, 5, 5), np.nan),
        np.full((n, 2), np.nan), np.full((n, 2), np.nan), np.ones(n, bool),
    )  # fmt: skip
    for name, target in zip(Fit._fields, whole, strict=True):
        target[tilts] = np.concatenate([getattr(fit, name) for fit in found])
    return whole


def _result(
    series: xr.Dataset, start: np.ndarray, fit: Fit, left_out: np.ndarray, maximum_angle: float, maximum_shift: float
) -> xr.Dataset:
    """What was found as a Dataset; tilts that cannot be trusted keep their values."""
    flags = np.full(len(start), "", dtype=object)
    flags[left_out] = "left out"
    unmeasured = ~left_out & ~np.isfinite(fit.correlation[:, 0])
    flags[unmeasured] = NOT_MEASURED
    other = unlike_the_others(fit.correlation[:, 1], flags == "")
    flags[other] = "unlike the reprojection"
    used = flags == ""
    _require_three(used, flags)
    keep = used & ~fit.settled
    flags[keep] = "did not converge"
    matrices, shifts, far = pinned(
        fit.matrices, fit.shifts, start, used, ~keep, maximum_angle=maximum_angle, maximum_shift=maximum_shift
    )
    turned = rotation_between(start, matrices)
    flags[far] = "moved too far"
    used &= ~far
    _require_three(used, flags)
    still = ~used | keep
    matrices[still], shifts[still], turned[still] = start[still], 0.0, 0.0
    _warn(series, flags)
    warn_of_few(int(used.sum()))
    return corrections_dataset(series, matrices, shifts, turned, fit.covariance, used, flags).assign(
        correlation=(("tilt", "moment"), fit.correlation, {"units": "1"}),
        r_factor=(("tilt", "moment"), fit.r_factor, {"units": "1"}),
        moment=["before", "after"],
    )


def _require_three(used: np.ndarray, flags: np.ndarray) -> None:
    if used.sum() < 3:
        reasons = ", ".join(f"{n} {what}" for what, n in Counter(flags[~used].tolist()).items())
        raise InputError(
            f"{int(used.sum())} of {len(used)} tilts can be used ({reasons or 'there are no more'}); needed are at "
            "least three: check images, mask and volume, or leave fewer tilts out."
        )


def corrections_dataset(
    series: xr.Dataset,
    matrices: np.ndarray,
    shifts: np.ndarray,
    turned: np.ndarray,
    covariance: np.ndarray,
    used: np.ndarray,
    flags: np.ndarray,
) -> xr.Dataset:
    """Rotations and shifts with their names, units and uncertainties; see :func:`refine_angles`."""
    degrees, pixels = {"units": "degree"}, {"units": "pixel"}
    deviation = np.sqrt(np.einsum("tii->ti", covariance))
    return xr.Dataset(
        {
            "angles": (("tilt", "euler"), euler_from_matrices(matrices), degrees),
            "matrices": (("tilt", "row", "column"), matrices, {"units": "1"}),
            "shift": (("tilt", "axis"), shifts, pixels),
            "rotation": (
                ("tilt", "lab_axis"),
                turned,
                {**degrees, "long_name": "turn of the sample about lab x, y, z"},
            ),
            "angle_uncertainty": (("tilt", "euler"), _euler_deviation(matrices, covariance[:, :3, :3]), degrees),
            "shift_uncertainty": (("tilt", "axis"), deviation[:, 3:], pixels),
            "used": ("tilt", used, {"units": "1", "long_name": "False where a tilt is left out"}),
            "flags": ("tilt", flags.astype(str)),
        },
        coords={
            "tilt": series["tilt"].values,
            "euler": list(EULER),
            "axis": ["y", "x"],
            "lab_axis": list(AXES),
        },
    )


def rotation_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rotation vectors in degrees about lab x, y, z that take the first rotations to the second, shape (tilt, 3)."""
    return Rotation.from_matrix(second @ np.swapaxes(first, 1, 2)).as_rotvec(degrees=True)


def turned_by(vectors: np.ndarray) -> np.ndarray:
    """Rotation matrices (tilt, 3, 3) of rotation vectors in degrees."""
    return np.asarray(Rotation.from_rotvec(vectors, degrees=True).as_matrix())


def _euler_deviation(matrices: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard deviations of the Euler angles in degrees, from covariances of rotations in radians, (tilt, 3)."""
    step = 1e-5
    angles = euler_from_matrices(matrices)
    change = np.empty((len(matrices), 3, 3))  # (tilt, euler, lab axis)
    for axis in range(3):
        moved = euler_from_matrices(Rotation.from_rotvec(step * np.eye(3)[axis]).as_matrix() @ matrices)
        change[:, :, axis] = (moved - angles) / step
    return np.sqrt(np.einsum("tea,tab,teb->te", change, covariance, change))


def _warn(series: xr.Dataset, flags: np.ndarray) -> None:
    bad = np.flatnonzero((flags != "") & (flags != "left out"))
    if bad.size:
        named = ", ".join(f"{int(series['tilt'].values[t])} ({flags[t]})" for t in bad)
        warnings.warn(
            f"Tilt {named}: left out, or (where the fit did not converge) used with the angles that it came with.",
            AetdistWarning,
            stacklevel=4,
        )
