"""A and A^T through Fourier space: central slices of an oversampled spectrum."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from scipy import fft

from ..errors import CapacityError, InputError
from ..geometry import ParallelGeometry
from . import _fourier_kernels as kernels
from .operator import empty_volume

_BLOCK = 8  # rows or planes that are transformed at a time
_DEGREE = 9  # of the polynomials that stand for the gridding kernel
_MARGIN = 8  # pixels beside the detector where matter still counts


class FourierProjector:
    """The linear map from a volume to its projections by the Fourier slice theorem, and its exact transpose.

    Parameters
    ----------
    geometry : ParallelGeometry
        Voxel grid, detector and rotations, in voxels.
    threads : int
        Threads of kernels and FFTs; the result does not depend on them.
    oversampling : float
        The volume is padded with zeros to so many times its width along every axis; more than 1, and
        accuracy grows with it as memory does with its cube.
    memory : int, optional
        Bytes that it may take (a worker's share); without it, what the machine has free.

    Raises
    ------
    InputError
        If `oversampling` is not above 1.
    CapacityError
        If the padded spectrum and the slices need more than `memory`.

    Notes
    -----
    Step i of RESIRE [1]_ [2]_: the padded volume is transformed, the slice through the origin of
    Fourier space perpendicular to the beam is the transform of the projection. Slices are
    interpolated with a gridding kernel six grid points wide, for which the voxels are weighted
    beforehand (a non-uniform FFT, as in [3]_ [4]_). The volume is the band-limited function through
    its voxels: frequencies above half a cycle a voxel along any of its axes are taken as zero, so
    edges of one voxel ring. Offsets of volume and detector are phases, exact for any fraction of a
    voxel. Images are periodic; their period is wide enough for matter beyond the detector to fall
    beside it, not onto it.

    References
    ----------
    .. [1] Y. Yang et al., Nature 592, 60 (2021), Methods.
    .. [2] M. Pham et al., Sci. Rep. 13, 5624 (2023).
    .. [3] J. A. Fessler and B. P. Sutton, IEEE Trans. Signal Process. 51, 560 (2003).
    .. [4] S. Matej, J. A. Fessler and I. G. Kazantsev, IEEE Trans. Med. Imaging 23, 401 (2004).
    """

    def __init__(
        self, geometry: ParallelGeometry, threads: int = 1, oversampling: float = 1.5, memory: int | None = None
    ) -> None:
        if not 1.0 < oversampling < np.inf:
            raise InputError(f"oversampling came as {oversampling}; needed is a number above 1, such as 1.5 or 2.")
        self.geometry = geometry
        self.threads = max(1, threads)
        self.oversampling = oversampling
        nz, ny, nx = geometry.volume_shape
        self._sizes = np.array([_grid_size(n, oversampling) for n in (ny, nz, nx)], dtype=np.int64)
        self._tilts, self._period, self._shifts = _periodic_images(geometry)
        self._memory = memory
        self._require_memory(memory)
        beta = 0.97 * np.pi * kernels.WIDTH * (1.0 - 0.5 / oversampling)
        self._polynomials = _kernel_polynomials(beta)
        self._weights = [_deapodisation(n, int(m), beta) for n, m in zip((ny, nz, nx), self._sizes, strict=True)]

    def __repr__(self) -> str:
        return f"FourierProjector({self.geometry!r}, threads={self.threads}, oversampling={self.oversampling})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(tilt, y, x)."""
        return (self.geometry.n_tilts, *self.geometry.detector_shape)

    @property
    def required_bytes(self) -> int:
        """Memory that a projection takes beside volume and images: the spectrum, the slices, blocks of both."""
        y, z, x = (int(n) for n in self._sizes)
        columns, n_tilts = x // 2 + 1 + 2 * kernels.EDGE, len(self._tilts)
        slices = int(self._period[0]) * (int(self._period[1]) // 2 + 1)
        return 8 * (y * z * columns + _BLOCK * columns * (3 * z + 2 * y) + 2 * n_tilts * slices)

    def forward(self, volume: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Projections of a volume.

        Parameters
        ----------
        volume : ndarray, shape (z, y, x), float32
            Intensity per voxel.
        out : ndarray, shape (tilt, y, x), float32, optional
            Overwritten and returned.

        Returns
        -------
        ndarray, shape (tilt, y, x), float32
            Intensity summed along the beam.

        Raises
        ------
        InputError
            If the volume has another shape.
        """
        if volume.shape != self.geometry.volume_shape:
            raise InputError(
                f"The volume came with shape {volume.shape}; the geometry needs {self.geometry.volume_shape}."
            )
        images = np.empty(self.image_shape, np.float32) if out is None else out
        images[...] = 0
        spectrum = self._spectrum(volume)
        pairs = spectrum.view(np.float32)
        rows, columns = self.geometry.detector_shape

        def project(i: int) -> None:
            t = self._tilts[i]
            half = np.empty(self._half_shape, np.complex64)
            kernels.gather_slice(pairs, self._sizes, self._polynomials, self.geometry.matrices[t], self._period, half)
            half *= self._phases(i)
            images[t] = fft.irfft2(half, s=tuple(self._period))[:rows, :columns]

        self._each(project, range(len(self._tilts)))
        return images

    def select_tilts(self, tilts: slice | np.ndarray) -> FourierProjector:
        """The projector of some of the tilts (a slice, or int (n,))."""
        return FourierProjector(self.geometry.select_tilts(tilts), self.threads, self.oversampling, self._memory)

    def adjoint(self, images: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The transpose: ``<A x, y> = <x, A^T y>`` to rounding.

        Parameters
        ----------
        images : ndarray, shape (tilt, y, x), float32
        out : ndarray, shape (z, y, x), float32, optional
            A volume to which the result is added.

        Returns
        -------
        ndarray, shape (z, y, x), float32

        Raises
        ------
        InputError
            If the images have another shape.
        """
        if images.shape != self.image_shape:
            raise InputError(f"The images came with shape {images.shape}; the geometry needs {self.image_shape}.")
        volume = empty_volume(self.geometry.volume_shape) if out is None else out
        slices = np.empty((len(self._tilts), *self._half_shape), np.complex64)

        def transform(i: int) -> None:
            image = images[self._tilts[i]].astype(np.float32, copy=False)
            slices[i] = fft.rfft2(image, s=tuple(self._period), norm="forward")
            slices[i] *= self._phases(i).conj()

        self._each(transform, range(len(self._tilts)))
        spectrum = self._empty_spectrum()
        edges = np.linspace(0, self._sizes[0], self.threads + 1).astype(int)
        rotations = self.geometry.matrices[self._tilts]
        scatter = partial(
            kernels.scatter_slices,
            slices,
            self._sizes,
            self._polynomials,
            rotations,
            self._period,
            spectrum.view(np.float32),
        )
        self._each(lambda part: scatter(*part), [(int(a), int(b)) for a, b in pairwise(edges) if b > a])
        self._add_volume(spectrum, volume)
        return volume

    @property
    def _half_shape(self) -> tuple[int, int]:
        return int(self._period[0]), int(self._period[1]) // 2 + 1

    def _phases(self, i: int) -> np.ndarray:
        """exp(2 pi i k . shift) on the half plane: pixel [0, 0] of projection `i`, seen from the volume's centre."""
        y, x = (
            np.exp(2j * np.pi * shift * frequencies)
            for shift, frequencies in zip(
                self._shifts[i], (fft.fftfreq(self._period[0]), fft.rfftfreq(self._period[1])), strict=True
            )
        )
        return (y[:, None] * x).astype(np.complex64)

    def _empty_spectrum(self) -> np.ndarray:
        y, z, x = (int(n) for n in self._sizes)
        return np.zeros((y, z, x // 2 + 1 + 2 * kernels.EDGE), np.complex64)

    def _spectrum(self, volume: np.ndarray) -> np.ndarray:
        """Transform (y, z, x >= 0) of the weighted volume about voxel n // 2, with the columns at its edges."""
        nz, ny, nx = volume.shape
        size_y, size_z, size_x = (int(n) for n in self._sizes)
        spectrum = self._empty_spectrum()
        inner = spectrum[:, :, kernels.EDGE : -kernels.EDGE]
        along_y, along_z, along_x = self._weights
        for start in range(0, ny, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, ny))
            block = volume.transpose(1, 0, 2)[rows[0] : rows[-1] + 1]
            block = block * (along_y[rows, None, None] * along_z[:, None]) * along_x
            lines = np.zeros((len(rows), nz, size_x), np.float32)
            for source, target in _wrapped(nx, size_x):
                lines[:, :, target] = block[:, :, source]
            half = fft.rfft(lines, workers=self.threads)
            planes = np.zeros((len(rows), size_z, half.shape[2]), np.complex64)
            for source, target in _wrapped(nz, size_z):
                planes[:, target] = half[:, source]
            inner[(rows - ny // 2) % size_y] = fft.fft(planes, axis=1, workers=self.threads, overwrite_x=True)
        for start in range(0, size_z, _BLOCK):
            part = inner[:, start : start + _BLOCK]
            part[...] = fft.fft(part, axis=0, workers=self.threads)
        middle = size_x // 2
        for d in range(1, kernels.EDGE + 1):
            spectrum[:, :, kernels.EDGE - d] = _mirrored(inner[:, :, d])
            spectrum[:, :, kernels.EDGE + middle + d] = _mirrored(inner[:, :, middle - d])
        return spectrum

    def _add_volume(self, spectrum: np.ndarray, volume: np.ndarray) -> None:
        """The transpose of :meth:`_spectrum`, added to `volume`; `spectrum` is used up."""
        nz, ny, nx = volume.shape
        size_y, size_z, size_x = (int(n) for n in self._sizes)
        inner = spectrum[:, :, kernels.EDGE : -kernels.EDGE]
        middle = size_x // 2
        for d in range(kernels.EDGE + 1):
            inner[:, :, d] += _mirrored(spectrum[:, :, kernels.EDGE - d])
            inner[:, :, middle - d] += _mirrored(spectrum[:, :, kernels.EDGE + middle + d])
        for start in range(0, size_z, _BLOCK):
            part = inner[:, start : start + _BLOCK]
            part[...] = fft.ifft(part, axis=0, norm="forward", workers=self.threads)
        along_y, along_z, along_x = self._weights
        for start in range(0, ny, _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, ny))
            planes = fft.ifft(inner[(rows - ny // 2) % size_y], axis=1, norm="forward", workers=self.threads)
            half = np.empty((len(rows), nz, planes.shape[2]), np.complex64)
            for source, target in _wrapped(nz, size_z):
                half[:, source] = planes[:, target]
            lines = fft.irfft(half, n=size_x, norm="forward", workers=self.threads)
            block = volume.transpose(1, 0, 2)[rows[0] : rows[-1] + 1]
            weights = along_y[rows, None, None] * along_z[:, None]
            for source, target in _wrapped(nx, size_x):
                block[:, :, source] += lines[:, :, target] * weights * along_x[source]

    def _require_memory(self, memory: int | None) -> None:
        if memory is None:
            import psutil

            memory = int(psutil.virtual_memory().available)
        if self.required_bytes > memory:
            y, z, x = (int(n) for n in self._sizes)
            raise CapacityError(
                f"The Fourier projector needs {self.required_bytes / 2**30:.1f} GiB for a spectrum of {x} x {y} x {z} "
                f"points and {len(self._tilts)} slices, {memory / 2**30:.1f} GiB are available; lower oversampling "
                f"(now {self.oversampling:g}), or use ParallelProjector, which pads nothing."
            )

    def _each(self, function, parts) -> None:  # type: ignore[no-untyped-def]
        if self.threads == 1 or len(parts) <= 1:
            for part in parts:
                function(part)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(function, parts))


def _grid_size(n: int, oversampling: float) -> int:
    """Even length of a fast FFT that holds `n` voxels so many times and no grid point twice in a kernel."""
    return 2 * fft.next_fast_len(max(int(np.ceil(0.5 * oversampling * n)), kernels.WIDTH), real=True)


def _periodic_images(geometry: ParallelGeometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tilts whose detector sees the volume; period (y, x) of the images; pixel [0, 0] (y, x) from the volume's centre.

    Periods are odd: the frequencies of an image then come in pairs, without one at half a cycle a
    pixel whose sign is open.
    """
    start, shape = np.array(geometry.volume_start), np.array(geometry.volume_shape)
    centre, half = (start + shape // 2)[::-1], 0.5 * (shape - 1)[::-1]
    middle = (start + 0.5 * (shape - 1))[::-1]  # (x, y, z)
    axes = geometry.matrices[:, [1, 0]]  # lab (y, x) in the sample
    reach = np.abs(axes) @ half
    low, high = axes @ middle - reach - geometry.detector_start, axes @ middle + reach - geometry.detector_start
    last = np.array(geometry.detector_shape) - 1
    seen = ((low <= last + _MARGIN) & (high >= -_MARGIN)).all(axis=1)
    # Matter at [low, high] may not come back, a period away, within the pixels [0, last].
    width = np.maximum(high, last - low)[seen].max(axis=0, initial=0.0) + 1 + _MARGIN
    width = np.maximum(width, last + 1)
    period = np.array([_odd_fast_length(int(np.ceil(w))) for w in width], dtype=np.int64)
    return np.flatnonzero(seen), period, (geometry.detector_start - axes @ centre)[seen]


def _odd_fast_length(n: int) -> int:
    n += 1 - n % 2
    while fft.next_fast_len(n) != n:
        n += 2
    return n


def _gridding_kernel(t: np.ndarray, beta: float) -> np.ndarray:
    """exp(beta (sqrt(1 - t^2) - 1)) for t = -1..1 from end to end: the kernel of A. H. Barnett et al.

    SIAM J. Sci. Comput. 41, C479 (2019), who also give the beta for an oversampling.
    """
    return np.exp(beta * (np.sqrt(1.0 - t * t) - 1.0))


def _kernel_polynomials(beta: float) -> np.ndarray:
    """The kernel's values on the grid, (degree + 1, WIDTH), as :func:`_fourier_kernels.interpolation_weights` needs."""
    fraction = 0.5 + 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    t = (fraction[:, None] + np.arange(kernels.WIDTH)) / (0.5 * kernels.WIDTH) - 1.0
    return np.polynomial.polynomial.polyfit(fraction, _gridding_kernel(t, beta), _DEGREE).astype(np.float32)


def _deapodisation(n: int, size: int, beta: float) -> np.ndarray:
    """Weights, float32, of `n` voxels about n // 2: the inverse of the gridding kernel's transform on `size` points."""
    t, w = np.polynomial.legendre.leggauss(64)
    half = 0.5 * kernels.WIDTH
    kernel = half * w * _gridding_kernel(t, beta)
    i = np.arange(n) - n // 2
    return (1.0 / (np.cos(2 * np.pi * half / size * np.outer(i, t)) @ kernel)).astype(np.float32)


def _wrapped(n: int, size: int) -> list[tuple[slice, slice]]:
    """Where `n` samples about n // 2 lie among `size` periodic ones about 0: (source, target) of both halves."""
    middle = n // 2
    return [(slice(middle, n), slice(0, n - middle)), (slice(0, middle), slice(size - middle, size))]


def _mirrored(plane: np.ndarray) -> np.ndarray:
    """conj(plane[-y, -z]) of a periodic plane (y, z)."""
    return np.roll(plane[::-1, ::-1], (1, 1), axis=(0, 1)).conj()
