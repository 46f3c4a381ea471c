"""What a worker does with its slab and its detector rows: plain functions of what it keeps, which change nothing."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from .._threads import kernel_threads
from ..geometry import ParallelGeometry
from ..io import open_dataset, require_record, write_region
from ..project import ParallelProjector, empty_volume
from . import _kernels as kernels
from .grid import require_finite

#: Images (tilt, y, x) float32 and roles (tilt, pixel) uint8 of a worker's own detector rows, and the sum over
#: measured pixels of |b| of every tilt, (tilt,) float64.
Measured: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
#: The iterate and the extrapolated volume, (z, y, x) float32.
State: TypeAlias = tuple[np.ndarray, np.ndarray]
#: Projections of the iterate and scaled residual of the extrapolated volume on a worker's own detector rows,
#: (tilt, y, x) float32; sums over them, (tilt, 4) float64.
Held: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
#: Detector rows (first, stop), and images on them.
Piece: TypeAlias = tuple[int, int, np.ndarray]


def make_projector(geometry: ParallelGeometry) -> ParallelProjector:
    """A of a slab, which plans once for all iterations."""
    return ParallelProjector(geometry)


def read_measured(path: str, group: str, own: tuple[int, int]) -> Measured:
    """The worker's own detector rows of every tilt.

    Raises
    ------
    InputError
        If a measured pixel is not a finite number.
    """
    series = open_dataset(path, group)
    n_tilts, _, n_columns = series["images"].shape
    images = np.zeros((n_tilts, own[1] - own[0], n_columns), np.float32)
    mask = np.zeros(images.shape, bool)
    rows = slice(*own)
    for t in range(n_tilts if images.size else 0):
        images[t], mask[t] = series["images"][t, rows].values, series["mask"][t, rows].values
    require_finite(images, mask)
    images[~mask] = 0
    totals = np.abs(images).sum(axis=(1, 2), dtype=np.float64)
    return images, mask.reshape(n_tilts, -1).view(np.uint8), totals


def own_totals(measured: Measured) -> tuple[np.ndarray, int]:
    """Sum of |b| of every tilt over a worker's own rows, and how many pixels were measured there."""
    return measured[2], int(measured[1].sum())


def read_support(path: str, group: str, rows: tuple[int, int]) -> np.ndarray:
    """Voxels of a slab that may differ from 0, flat in the projector's order."""
    support = open_dataset(path, group)["support"][:, slice(*rows)].values
    return np.ascontiguousarray(support.transpose(1, 0, 2)).reshape(-1)


def read_state(
    path: str, source: tuple[str | None, str, str], rows: tuple[int, int], shape: tuple[int, int, int]
) -> State:
    """A slab's iterate and extrapolated volume from two variables of a group; zeros without a group."""
    group, *names = source
    if group is None:
        iterate = empty_volume(shape)
        return iterate, iterate
    stored = open_dataset(path, group)
    volumes = [
        _copy(stored[name][:, slice(*rows)].values.astype(np.float32, copy=False)) for name in dict.fromkeys(names)
    ]
    return volumes[0], volumes[-1]


def write_state(
    path: str, target: tuple[str, str], rows: tuple[int, int], state: State, names: tuple[str, ...], at_iterate: bool
) -> None:
    """A slab into its chunks of a group, which must still be made as the digest says; may be run again."""
    group, digest = target
    require_record(path, group, digest)
    volumes = (state[0], state[0] if at_iterate else state[1])
    for name, volume in zip(names, volumes, strict=False):
        region = (slice(0, volume.shape[0]), slice(*rows), slice(0, volume.shape[2]))
        write_region(path, group, name, region, volume)


def project(projector: ParallelProjector, state: State, which: int) -> np.ndarray:
    """Projections of the iterate (0) or the extrapolated volume (1) of a slab on the rows it reaches."""
    projector.threads = kernel_threads()
    return projector.forward(state[which])


def cut_rows(images: np.ndarray, low: int, high: int) -> np.ndarray:
    """Rows `low` to `high` of projections (tilt, y, x), copied, so that the others need not stay in memory."""
    return images[:, low:high].copy()


def cut_residual(held: Held, low: int, high: int) -> np.ndarray:
    """Some rows of the residual that is projected back."""
    return held[1][:, low:high].copy()


def hold(
    measured: Measured, factors: np.ndarray, pieces: list[Piece], before: Held | None = None, momentum: float = 0.0
) -> Held:
    """Add up the slabs' projections on a worker's own rows and hold them against the images.

    Parameters
    ----------
    measured : Measured
    factors : ndarray, shape (tilt,), float32
        Step length times weight.
    pieces : list of Piece
        In the order of the slabs, so that the sum does not depend on who came first.
    before : Held, optional
        Of the iteration before; without it no momentum is taken.
    momentum : float

    Returns
    -------
    Held
        The residual is that of x_k + momentum (x_k - x_{k-1}): A is linear.
    """
    calculated = np.zeros_like(measured[0])
    for low, high, part in pieces:
        calculated[:, low:high] += part
    return _compared(measured, factors, calculated, calculated if before is None else before[0], momentum)


def hold_again(measured: Measured, factors: np.ndarray, held: Held) -> Held:
    """What a slab's rows hold, with the residual of the iterate itself: the momentum starts again."""
    return _compared(measured, factors, held[0], held[0], 0.0)


def join(iterate: Held, ahead: Held) -> Held:
    """Projections of the iterate, residual of the extrapolated volume."""
    return iterate[0], ahead[1], iterate[2]


def _compared(
    measured: Measured, factors: np.ndarray, calculated: np.ndarray, before: np.ndarray, momentum: float
) -> Held:
    images, roles, _ = measured
    n_tilts, residual, sums = len(images), before.copy(), np.zeros((len(images), 4))
    kernels.compare(
        calculated.reshape(n_tilts, -1),
        residual.reshape(n_tilts, -1),
        images.reshape(n_tilts, -1),
        roles,
        np.arange(n_tilts),
        factors,
        np.float32(momentum),
        sums,
        0,
        n_tilts,
    )
    return calculated, residual, sums


def own_sums(held: Held) -> np.ndarray:
    """Sums over a worker's own rows, (tilt, 4) float64."""
    return held[2]


def advance(
    projector: ParallelProjector,
    state: State,
    pieces: list[Piece],
    support: np.ndarray | None,
    positivity: bool,
    momentum: float,
    at_iterate: bool,
) -> State:
    """One step of a slab: from the extrapolated volume (the iterate after a restart) down the gradient."""
    residual = np.zeros(projector.image_shape, np.float32)
    for low, high, part in pieces:
        residual[:, low:high] = part
    ahead = _copy(state[0] if at_iterate else state[1])
    projector.threads = kernel_threads()
    projector.adjoint(residual, out=ahead)
    iterate = _copy(state[0])
    flat = [volume.transpose(1, 0, 2).reshape(-1) for volume in (iterate, ahead)]
    bounds = np.empty(0, bool) if support is None else support
    kernels.advance(*flat, bounds, positivity, np.float32(momentum), 0, flat[0].size)
    return iterate, iterate if momentum == 0 else ahead


def _copy(volume: np.ndarray) -> np.ndarray:
    """A copy whose memory is in the order (y, z, x), which the kernels want."""
    return np.array(volume.transpose(1, 0, 2), order="C").transpose(1, 0, 2)
