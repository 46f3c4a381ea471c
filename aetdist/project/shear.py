"""The shear-warp factorisation of a geometry, planned before any voxel is touched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import ParallelGeometry

# Sample axes in the order of array axes (z, y, x) -> component of a vector (x, y, z).
_COMPONENT = (2, 1, 0)
# Half width of the filter in sheared pixels, chosen in a sweep on resire_sample_64: with a cut at 0.4 to 0.5 of the
# Nyquist frequency, half widths of 2 to 6 gave R .0031 to .0041 there, so that figure is not independent of it.
_HALF_WIDTH = 3
_ATOM_SIGMA = 1.2  # voxels: the smallest atom that the filter is weighted for (0.4 Angstrom at 0.35 Angstrom a voxel)


@dataclass(frozen=True, eq=False)
class ShearPlan:
    """The tilts that share a principal axis: how their planes shift and where they land.

    ``layout`` is (plane stride, row stride, planes, rows, columns) of the flat volume, whose
    memory is in the order (y, z, x), or (y, x, z) where ``transposed``: what the tilts of a
    series about y share lies together in the cache.
    """

    tilts: np.ndarray
    transposed: bool
    layout: tuple[int, int, int, int, int]
    transposed_shape: tuple[int, int, int]
    boxes: np.ndarray
    offsets: np.ndarray
    iy: np.ndarray
    fy: np.ndarray
    ix: np.ndarray
    fx: np.ndarray
    taps: tuple[tuple[np.ndarray, np.ndarray], ...]
    inverse: np.ndarray
    origin: np.ndarray
    scale: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What the shear kernels take, in their order."""
        return self.boxes, self.offsets, self.iy, self.fy, self.ix, self.fx

    @property
    def n_sheared(self) -> int:
        """Pixels of all sheared images together."""
        return int((self.boxes[:, 2] * self.boxes[:, 3]).sum())

    @property
    def row_range(self) -> tuple[int, int]:
        """Rows that any sheared image has."""
        return int(self.boxes[:, 0].min()), int((self.boxes[:, 0] + self.boxes[:, 2]).max())

    def sheared_image(self, sheared: np.ndarray, t: int) -> np.ndarray:
        """View of sheared image `t`, (rows, columns)."""
        rows, columns = self.boxes[t, 2:]
        return sheared[self.offsets[t] : self.offsets[t] + rows * columns].reshape(rows, columns)


def plan_shears(geometry: ParallelGeometry) -> list[ShearPlan]:
    """One plan for each principal axis that occurs in `geometry`.

    Parameters
    ----------
    geometry : ParallelGeometry
        Lengths in voxels.

    Returns
    -------
    list of ShearPlan
    """
    beam = geometry.matrices[:, 2, :]  # lab z in the sample
    principal = np.argmax(np.abs(beam)[:, _COMPONENT], axis=1)
    return [_plan_axis(geometry, np.flatnonzero(principal == axis), axis) for axis in np.unique(principal)]


def _plan_axis(geometry: ParallelGeometry, tilts: np.ndarray, axis: int) -> ShearPlan:
    """Tilts whose beam is nearest to array axis `axis` (0 z, 1 y, 2 x)."""
    nz, ny, nx = geometry.volume_shape
    row_axis, column_axis = {0: (1, 2), 1: (0, 2), 2: (1, 0)}[axis]
    layout = {0: (nx, nz * nx, nz, ny, nx), 1: (nz * nx, nx, ny, nz, nx), 2: (nz, nx * nz, nx, ny, nz)}[axis]
    start = np.asarray(geometry.volume_start)
    planes = start[axis] + np.arange(layout[2])
    whole_start, whole_shape = geometry.whole or (geometry.volume_start, geometry.volume_shape)
    all_planes = whole_start[axis] + np.arange(whole_shape[axis])
    boxes, inverse, origin, scale, shifts = [], [], [], [], []
    taps: list[tuple[np.ndarray, np.ndarray]] = []
    for t in tilts:
        rotation = geometry.matrices[t]
        p, r, c = _COMPONENT[axis], _COMPONENT[row_axis], _COMPONENT[column_axis]
        beam = rotation[2]
        shift = np.stack([-beam[r] / beam[p] * planes, -beam[c] / beam[p] * planes])  # (2, planes), in voxels
        # lab (y, x) = matrix @ (row, column) in the plane through the origin; rows and columns counted as indices
        matrix = rotation[np.ix_([1, 0], [r, c])]
        inv = np.linalg.inv(matrix)
        first = inv @ geometry.detector_start[t] - start[[row_axis, column_axis]]
        box = _sheared_box(shift, (layout[3], layout[4]), inv, first, geometry.detector_shape)
        boxes.append(box)
        inverse.append(inv)
        origin.append(first - box[:2])
        scale.append(1.0 / abs(beam[p]))
        shifts.append(shift)
        positions = _warp_positions(inv, geometry.detector_start[t], start[[row_axis, column_axis]])
        all_shifts = (-beam[r] / beam[p] * all_planes, -beam[c] / beam[p] * all_planes)
        taps.append((_deblurring_taps(all_shifts[0], positions[0]), _deblurring_taps(all_shifts[1], positions[1])))
    whole = np.floor(np.array(shifts))
    fraction = (np.array(shifts) - whole).astype(np.float32)
    whole = whole.astype(np.int64)
    boxes_array = np.array(boxes, dtype=np.int64)
    sizes = boxes_array[:, 2] * boxes_array[:, 3]
    return ShearPlan(
        tilts=tilts,
        transposed=axis == 2,
        layout=layout,
        transposed_shape=(ny, nx, nz),
        boxes=boxes_array,
        offsets=np.concatenate([[0], np.cumsum(sizes)[:-1]]),
        iy=whole[:, 0].copy(),
        fy=fraction[:, 0].copy(),
        ix=whole[:, 1].copy(),
        fx=fraction[:, 1].copy(),
        taps=tuple(taps),
        inverse=np.array(inverse),
        origin=np.array(origin),
        scale=np.array(scale),
    )


def _sheared_box(
    shift: np.ndarray, size: tuple[int, int], inverse: np.ndarray, first: np.ndarray, detector: tuple[int, int]
) -> tuple[int, int, int, int]:
    """First row, first column, rows, columns of the sheared image: what the volume reaches and the detector sees."""
    corners = np.array([[v, u] for v in (0, detector[0] - 1) for u in (0, detector[1] - 1)], dtype=np.float64)
    seen = corners @ inverse.T + first
    reach = 2 * _HALF_WIDTH + 2
    lo = np.maximum(np.floor(shift.min(axis=1)) - reach, np.floor(seen.min(axis=0)) - reach)
    hi = np.minimum(np.floor(shift.max(axis=1)) + np.array(size) + 1 + reach, np.ceil(seen.max(axis=0)) + 1 + reach)
    n = np.maximum(hi - lo, 0)
    if n.min() == 0:
        n[:] = 0
    return int(lo[0]), int(lo[1]), int(n[0]), int(n[1])


def _warp_positions(inverse: np.ndarray, detector_start: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Sheared (row, column) of 64 x 64 pixels about the lab's origin, (2, 4096).

    Cropping the detector by whole pixels does not change them, nor the filter that follows from them.
    """
    v, u = np.meshgrid(*(np.arange(-32, 32) + s % 1.0 for s in detector_start), indexing="ij")
    return inverse @ np.stack([v.ravel(), u.ravel()]) - start[:, None]


def _deblurring_taps(shift: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Taps g_0..g_h of the symmetric filter that undoes the mean blur of both interpolations, DC gain 1.

    The mean over the planes of linear interpolation at fraction f has the response
    (1 - f) cos(f w) + f cos((1 - f) w), that of the warp's cubic B-spline
    sum_j B(j - f) cos((j - f) w), j = -1..2 (their odd parts average out). The filter brings the
    product of both nearest to 1 in the least-squares sense, weighted with the spectrum of a small
    atom, so that noise beyond the atoms' content is not blown up.
    """
    w = np.linspace(0, np.pi, 129)[1:]
    f = (shift - np.floor(shift))[:, None]
    shear = np.mean((1 - f) * np.cos(f * w) + f * np.cos((1 - f) * w), axis=0)
    # 64 fractions stand for all of them: quantiles
    f = np.quantile(positions - np.floor(positions), (np.arange(64) + 0.5) / 64)[:, None]
    spline = sum(weight * np.cos((j - f) * w) for j, weight in zip((-1, 0, 1, 2), _cubic_weights(f), strict=True))
    response = shear * np.mean(spline, axis=0)
    basis = 2.0 * (np.cos(np.outer(w, np.arange(1, _HALF_WIDTH + 1))) - 1.0)
    weight = np.exp(-0.5 * (_ATOM_SIGMA * w) ** 2)
    g, *_ = np.linalg.lstsq(basis * (weight * response)[:, None], (1.0 - response) * weight, rcond=None)
    return np.concatenate([[1.0 - 2.0 * g.sum()], g]).astype(np.float32)


def _cubic_weights(f: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cubic B-spline weights of the samples at -1, 0, 1, 2 for points at fractions f (as in the warp kernels)."""
    g = 1.0 - f
    return g**3 / 6, 2.0 / 3 - f**2 * (2 - f) / 2, 2.0 / 3 - g**2 * (2 - g) / 2, f**3 / 6
