"""The solvers: each holds its iterate and does one iteration with `step`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from ..errors import InputError
from ..geometry import ParallelGeometry
from ..project import empty_volume
from . import _kernels as kernels

_SUBSETS = 4  # stable with momentum on 41 to 55 tilts; eight diverged on some data
_TILTS_PER_SUBSET = 5  # fewer tilts do not stand for all
_WORTH_A_THREAD = 1 << 20  # elements: a pass over fewer is done before a thread has started


NO_RAY = "No ray of the tilt series meets the volume; check the pixel coordinates, the angles and the shape."


class Projector(Protocol):
    """A and its transpose, as `aetdist.project.ParallelProjector` has them."""

    geometry: ParallelGeometry
    threads: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(tilt, y, x)."""

    def forward(self, volume: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """A x; `out` is overwritten."""

    def adjoint(self, images: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """A^T y; added to `out`."""

    def select_tilts(self, tilts: slice, /) -> Projector:
        """The projector of some of the tilts."""


@dataclass(frozen=True, eq=False)
class Objective:
    """What a solver minimises: 1/2 sum_t w_t ||M_t (A_t x - b_t)||^2 within the constraints.

    Parameters
    ----------
    projector : Projector
        A.
    images : ndarray, shape (tilt, y, x), float32
        b; what lies outside the mask weighs nothing, whatever stands there.
    mask : ndarray, shape (tilt, y, x), bool
        True where a pixel was measured.
    weights : ndarray, shape (tilt,), float64, optional
        w, of mean 1; all 1 by default.
    positivity : bool
        Keep the volume at or above 0.
    support : ndarray, shape (z, y, x), bool, optional
        The volume is 0 elsewhere.
    held_out : ndarray, shape (tilt, y, x), bool, optional
        Measured pixels that are not fitted: how well they are predicted is followed.
    """

    projector: Projector
    images: np.ndarray
    mask: np.ndarray
    weights: np.ndarray | None = None
    positivity: bool = True
    support: np.ndarray | None = None
    held_out: np.ndarray | None = None


class Solver(ABC):
    """What the solvers share: the iterate, its constraints, and the comparison with the images.

    Parameters
    ----------
    objective : Objective
    step_length : float
        Length of the gradient step.
    start : ndarray, shape (z, y, x), float32, optional
        Where to start; zeros by default. Not changed.

    Attributes
    ----------
    volume : ndarray, shape (z, y, x), float32
        The iterate.
    """

    #: The longest step that is stable, times the largest eigenvalue of A^T W A.
    step_limit: ClassVar[float] = 1.0
    #: Whether the step is relative: then 1 takes the place of that eigenvalue.
    relative_step: ClassVar[bool] = False

    def __init__(self, objective: Objective, step_length: float, start: np.ndarray | None = None) -> None:
        self.objective, self.projector, self.step_length = objective, objective.projector, step_length
        self.volume = empty_volume(self.projector.geometry.volume_shape)
        if start is not None:
            self.volume[...] = start
        n = self.projector.image_shape[0]
        weights = np.ones(n) if objective.weights is None else objective.weights
        self._factors, self._weights = (step_length * weights).astype(np.float32), weights
        self._support = np.empty(0, bool) if objective.support is None else _memory(objective.support)
        self._measured, self._roles = _flat(objective.images), _flat(objective.mask).view(np.uint8)
        if objective.held_out is not None:
            self._roles = self._roles + self._roles * _flat(objective.held_out)
        self._tilts, self._sums = np.arange(n), np.zeros((n, 3))
        nothing = np.zeros((1, self._measured.shape[1]), np.float32)
        for t in range(n):  # |b|, as the residual of nothing
            self._compare(nothing, nothing, self._tilts[t : t + 1])
            nothing[:] = 0
        self._totals = self._sums.copy()

    @abstractmethod
    def step(self) -> tuple[np.ndarray, float]:
        """One iteration.

        Returns
        -------
        r_factor : ndarray, shape (tilt,), float64
            Eq. 4 of every tilt over its fitted pixels; NaN where it has none.
        error : float
            sum_t w_t ||M_t (A_t x - b_t)||^2.
        """

    def r_factor(self) -> np.ndarray:
        """Eq. 4 of every tilt for `volume`, (tilt,) float64; from then on the errors are those of `volume` too."""
        return _quotient(self._sums[:, 0], self._totals[:, 0])

    def _compare(
        self, calculated: np.ndarray, previous: np.ndarray, tilts: np.ndarray | None = None, momentum: float = 0.0
    ) -> None:
        """Sums over the residuals of projections, and in place of `previous` what is projected back next."""
        tilts = self._tilts if tilts is None else tilts
        arrays = (_flat(calculated), _flat(previous), self._measured, self._roles, tilts, self._factors)

        def part(first: int, last: int) -> None:
            kernels.compare(*arrays, np.float32(momentum), self._sums, first, last)

        self._in_parts(part, len(tilts), calculated.size)

    @property
    def error(self) -> float:
        """sum_t w_t ||M_t (A_t x - b_t)||^2 over the fitted pixels, of what was compared last."""
        return float(self._weights @ self._sums[:, 1])

    @property
    def held_out_error(self) -> float:
        """Root of sum w_t |A_t x - b_t|^2 / sum w_t |b_t|^2 over the pixels held out, likewise; NaN without."""
        return float(np.sqrt(_quotient(self._weights @ self._sums[:, 2], self._weights @ self._totals[:, 2])))

    def _judge(self) -> tuple[np.ndarray, float]:
        return Solver.r_factor(self), self.error

    def _project(self, start: np.ndarray | None) -> np.ndarray:
        """Projections of the start, (tilt, y, x) float32."""
        return (
            np.zeros(self.projector.image_shape, np.float32) if start is None else self.projector.forward(self.volume)
        )

    def _constrain(self) -> None:
        volume = _memory(self.volume)
        self._in_parts(
            lambda first, last: kernels.constrain(volume, self._support, self.objective.positivity, first, last),
            volume.size,
        )

    def _advance(self, ahead: np.ndarray, momentum: float) -> None:
        """The iterate becomes the constrained `ahead`, and `ahead` goes on from there by the momentum."""
        arrays = (_memory(self.volume), _memory(ahead), self._support, self.objective.positivity, np.float32(momentum))
        self._in_parts(lambda first, last: kernels.advance(*arrays, first, last), ahead.size)

    def _in_parts(self, function: Callable[[int, int], None], n: int, elements: int | None = None) -> None:
        """function(first, last) for parts of 0..n, each by a thread of its own where that pays."""
        parts = min(self.projector.threads, (elements or n) // _WORTH_A_THREAD, n)
        if parts <= 1:
            function(0, n)
            return
        edges = np.linspace(0, n, parts + 1).astype(int)
        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(function, edges[:-1], edges[1:]))


class Published(Solver):
    """Gradient descent, eq. 3 of Yang2021: x <- P(x - step A^T W M (A x - b))."""

    step_limit: ClassVar[float] = 1.9

    def __init__(self, objective: Objective, step_length: float, start: np.ndarray | None = None) -> None:
        super().__init__(objective, step_length, start)
        self._residual = self._project(start)
        self._compare(self._residual, self._residual)

    def step(self) -> tuple[np.ndarray, float]:
        """One iteration; see `Solver.step`."""
        self.projector.adjoint(self._residual, out=self.volume)
        self._constrain()
        self.projector.forward(self.volume, out=self._residual)
        self._compare(self._residual, self._residual)
        return self._judge()


class Fista(Solver):
    """Nesterov momentum with restart when the error rises.

    Notes
    -----
    x_{k+1} = P(y_k - step A^T W M (A y_k - b)), y_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} (x_{k+1} - x_k),
    t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2 [1]_. One forward and one adjoint projection per iteration: A y
    follows from the projections of the last two iterates, because A is linear. Two volumes and two stacks
    of images are held.

    References
    ----------
    .. [1] A. Beck and M. Teboulle, SIAM J. Imaging Sci. 2, 183 (2009); B. O'Donoghue and E. Candes,
       Found. Comput. Math. 15, 715 (2015).
    """

    def __init__(self, objective: Objective, step_length: float, start: np.ndarray | None = None) -> None:
        super().__init__(objective, step_length, start)
        self._ahead = self.volume.copy(order="K")
        self._projected = self._project(start)
        self._residual = self._projected.copy()
        self._compare(self._projected, self._residual)
        self._time, self._last_error = 1.0, np.inf

    def step(self) -> tuple[np.ndarray, float]:
        """One iteration; see `Solver.step`."""
        self._time, momentum = next_momentum(self._time)
        self.projector.adjoint(self._residual, out=self._ahead)
        self._advance(self._ahead, momentum)
        self.projector.forward(self.volume, out=self._residual)
        self._compare(self._residual, self._projected, momentum=momentum)
        self._projected, self._residual = self._residual, self._projected
        r, error = self._judge()
        if error > self._last_error:  # go on from the iterate, without momentum
            self._time, _ = next_momentum(1.0)
            self._ahead[...] = self.volume
            self._compare(self._projected, self._residual)
        self._last_error = error
        return r, error


class OrderedSubsets(Solver):
    """Momentum with a step after each of four subsets of the tilts.

    Where the error rises from one pass to the next the momentum starts again; where it rises twice,
    there are half as many subsets from then on. The R-factors of a step are those that each subset met;
    `r_factor` computes those of the iterate.

    References
    ----------
    D. Kim, S. Ramani and J. Fessler, IEEE Trans. Med. Imaging 34, 167 (2015).
    """

    def __init__(self, objective: Objective, step_length: float, start: np.ndarray | None = None) -> None:
        super().__init__(objective, step_length, start)
        self._ahead = self.volume.copy(order="K")
        self._time, self._last_error, self._rises = 1.0, np.inf, 0
        self._divide(max(1, min(_SUBSETS, self.projector.image_shape[0] // _TILTS_PER_SUBSET)))

    def _divide(self, n: int) -> None:
        """Every n-th tilt, in an order that turns far between one subset and the next."""
        projector = self.projector
        self._parts = []
        for s in sorted(range(n), key=lambda s: int(f"{s:08b}"[::-1], 2)):
            self._parts.append((self._tilts[s::n], projector.select_tilts(slice(s, None, n))))
        self._factors = (self.step_length * n * self._weights).astype(np.float32)
        self._images = np.empty((-(-len(self._tilts) // n), *projector.image_shape[1:]), np.float32)

    def step(self) -> tuple[np.ndarray, float]:
        """One pass over all tilts; see `Solver.step`."""
        for tilts, part in self._parts:
            calculated = part.forward(self._ahead, out=self._images[: len(tilts)])
            self._compare(calculated, calculated, tilts)
            part.adjoint(calculated, out=self._ahead)
            self._time, momentum = next_momentum(self._time)
            self._advance(self._ahead, momentum)
        r, error = self._judge()
        self._rises = self._rises + 1 if error > self._last_error else 0
        if self._rises:
            self._time = 1.0
            self._ahead[...] = self.volume
        if self._rises > 1 and len(self._parts) > 1:
            self._divide(len(self._parts) // 2)
            self._rises = 0
        self._last_error = error
        return r, error

    def r_factor(self) -> np.ndarray:
        """Eq. 4 of every tilt for `volume`, (tilt,) float64; one forward projection."""
        for tilts, part in self._parts:
            calculated = part.forward(self.volume, out=self._images[: len(tilts)])
            self._compare(calculated, calculated, tilts)
        return super().r_factor()


class Sirt(Solver):
    """Simultaneous iterative reconstruction, for comparison: x <- P(x + step C A^T W M R (b - A x)).

    Notes
    -----
    R and C are the inverse sums of the rows of A (how long a ray runs through the volume; at least one
    voxel) and of the columns of W M A (how often a voxel was seen; at least half a time). The step is
    relative: 1 is the method as published, less than 2 is stable [1]_.

    References
    ----------
    .. [1] J. Gregor and T. Benson, IEEE Trans. Med. Imaging 27, 918 (2008).
    """

    relative_step: ClassVar[bool] = True

    def __init__(self, objective: Objective, step_length: float, start: np.ndarray | None = None) -> None:
        super().__init__(objective, step_length, start)
        projector = self.projector
        shape = projector.geometry.volume_shape
        self._rows = inverse_rows(projector, 1.0)
        self._residual = (_flat(objective.mask) * self._weights[:, None]).astype(np.float32)
        self._residual = self._residual.reshape(projector.image_shape)
        if objective.held_out is not None:
            self._residual[objective.held_out] = 0
        columns = projector.adjoint(self._residual)
        self._columns = np.float32(1.0) / np.maximum(columns, np.float32(0.5))
        self._change = empty_volume(shape)
        self._residual[...] = self._project(start)
        self._compare(self._residual, self._residual)

    def step(self) -> tuple[np.ndarray, float]:
        """One iteration; see `Solver.step`."""
        self._residual *= self._rows
        self.projector.adjoint(self._residual, out=self._change)
        arrays = _memory(self.volume), _memory(self._change), _memory(self._columns)
        self._in_parts(lambda first, last: kernels.add_scaled(*arrays, first, last), self.volume.size)
        self._constrain()
        self.projector.forward(self.volume, out=self._residual)
        self._compare(self._residual, self._residual)
        return self._judge()


def inverse_rows(projector: Projector, least: float) -> np.ndarray:
    """Inverse sums of the rows of A, taken as at least `least` voxels, (tilt, y, x) float32.

    Raises
    ------
    InputError
        If no ray meets the volume.
    """
    rows = projector.forward(empty_volume(projector.geometry.volume_shape, 1.0))
    if not rows.any():
        raise InputError(NO_RAY)
    return np.float32(1.0) / np.maximum(rows, np.float32(least))


def next_momentum(time: float) -> tuple[float, float]:
    """Nesterov's t_{k+1} after t_k, and the momentum (t_k - 1) / t_{k+1} of that step; t_1 = 1."""
    following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * time**2))
    return following, (time - 1.0) / following


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def _flat(images: np.ndarray) -> np.ndarray:
    """(tilt, pixel) of (tilt, y, x), the same memory."""
    return np.ascontiguousarray(images).reshape(len(images), -1)


def _memory(volume: np.ndarray) -> np.ndarray:
    """The flat memory of a volume in the projector's order (y, z, x)."""
    return np.ascontiguousarray(volume.transpose(1, 0, 2)).reshape(-1)
