"""How alike two volumes are at each spatial frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt

from .errors import InputError

THRESHOLDS = (0.143, 0.5)
"""FSC at which resolution is said: of a volume made of both halves [Rosenthal2003]_, and of either half.

.. [Rosenthal2003] P. B. Rosenthal, R. Henderson, J. Mol. Biol. 333, 721 (2003).
"""


def fourier_shell_correlation(a: Any, b: Any, voxel_size: float, *, mask: Any = None) -> xr.Dataset:
    """Correlation of two volumes in shells of Fourier space.

    Parameters
    ----------
    a, b : array_like, shape (z, y, x), float
        Volumes on one grid, of any unit each.
    voxel_size : float
        Edge of a voxel in Angstrom.
    mask : array_like, shape (z, y, x), float, optional
        Both volumes are multiplied by it: 1 where they are compared, falling softly to 0 (:func:`soft_mask`). A mask
        with a sharp edge, or one that follows their noise, makes any two volumes alike.

    Returns
    -------
    xarray.Dataset
        ``fsc`` (shell,) float64 and ``n_coefficients`` (shell,) int64, with the coordinate ``frequency`` (shell,) in
        1/Angstrom, up to that of Nyquist. Shells are as wide as a Fourier coefficient of the longest edge. Attributes
        ``resolution_0.143`` and ``resolution_0.5`` in Angstrom: 1 over the frequency at which the correlation falls
        below that for the last time; NaN where it is never above. ``resolution_limit`` is 1 over the last
        frequency, which they are where it never falls.

    Raises
    ------
    InputError
        If the volumes are not of one shape, hold a number that is not finite, or the voxel size is not positive.

    Notes
    -----
    FSC(k) = Re sum A B* / sqrt(sum |A|^2 sum |B|^2) over the coefficients of a shell. Of white noise it has mean 0 and
    standard deviation 1 / sqrt(n_coefficients), as a coefficient and its conjugate are both counted. Of a signal with
    power S in two volumes with independent noise of power N each it is S / (S + N).

    A glass has little power between the frequency of its shape and that of its first diffraction ring, where the FSC
    of a good volume may be low: hence the last fall, and not the first.

    References
    ----------
    G. Harauz, M. van Heel, Optik 73, 146 (1986).
    """
    volumes = [np.asarray(v, dtype=np.float64) for v in (a, b)]
    shape = volumes[0].shape
    if len(shape) != 3 or volumes[1].shape != shape or (mask is not None and np.shape(mask) != shape):
        came = [*(v.shape for v in volumes), *([] if mask is None else [np.shape(mask)])]
        raise InputError(f"Volumes of shapes {', '.join(map(str, came))} came; needed is one shape (z, y, x) for all.")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"The voxel size came as {voxel_size!r}; needed is a positive number in Angstrom.")
    if not all(np.isfinite(v).all() for v in volumes):
        raise InputError("A volume holds NaN or infinite voxels; give finite numbers.")
    weights = 1.0 if mask is None else np.asarray(mask, dtype=np.float64)
    amplitudes = [np.fft.rfftn(v * weights) for v in volumes]
    shell, twice, n_shells = _shells(shape)

    def per_shell(values: np.ndarray) -> np.ndarray:
        """Sum over the coefficients of each shell but that of the mean."""
        return np.bincount(shell.ravel(), (twice * values).ravel(), n_shells + 1)[1 : n_shells + 1]

    cross = per_shell((amplitudes[0] * amplitudes[1].conj()).real)
    power = np.sqrt(per_shell(np.abs(amplitudes[0]) ** 2) * per_shell(np.abs(amplitudes[1]) ** 2))
    fsc = np.divide(cross, power, out=np.full(n_shells, np.nan), where=power > 0)
    frequency = np.arange(1, n_shells + 1) / (max(shape) * voxel_size)
    return xr.Dataset(
        {
            "fsc": ("shell", fsc, {"units": "1", "long_name": "Fourier shell correlation"}),
            "n_coefficients": ("shell", per_shell(np.ones(shell.shape)).round().astype(np.int64), {"units": "1"}),
        },
        {"frequency": ("shell", frequency, {"units": "1/angstrom", "long_name": "spatial frequency"})},
        {
            **{f"resolution_{threshold:g}": _resolution(frequency, fsc, threshold) for threshold in THRESHOLDS},
            "resolution_limit": float(1.0 / frequency[-1]),
        },
    )


def soft_mask(inside: Any, width: float) -> np.ndarray:
    """A mask that falls from 1 to 0 along a cosine.

    Parameters
    ----------
    inside : array_like, shape (z, y, x), bool
        Where it is 1.
    width : float
        Voxels beyond, over which it falls.

    Returns
    -------
    ndarray, shape (z, y, x), float64
    """
    inside = np.asarray(inside, dtype=bool)
    if not inside.any():
        raise InputError("The mask is empty; there must be something to compare.")
    if inside.all():
        return np.ones(inside.shape)
    distance = np.minimum(distance_transform_edt(~inside) / max(width, 1e-6), 1.0)
    return 0.5 + 0.5 * np.cos(np.pi * distance)


def _shells(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """Shell of every coefficient of `rfftn`, how often it counts, and the number of shells but the mean's."""
    longest = max(shape)
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    squares = [axis**2 for axis in axes]
    radius = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    n_shells = longest // 2
    shell = np.minimum(np.rint(radius * longest).astype(np.int64), n_shells + 1)
    shell[radius > 0.5] = n_shells + 1
    twice = np.full(shape[-1] // 2 + 1, 2.0)
    twice[0] = 1.0
    if shape[-1] % 2 == 0:
        twice[-1] = 1.0
    return shell, np.broadcast_to(twice, shell.shape), n_shells


def _resolution(frequency: np.ndarray, fsc: np.ndarray, threshold: float) -> float:
    """1 over the frequency of the last fall below a threshold, between two shells."""
    above = np.flatnonzero(fsc >= threshold)
    if above.size == 0:
        return float("nan")
    i = int(above[-1])
    if i + 1 == len(fsc) or np.isnan(fsc[i + 1]):
        return float(1.0 / frequency[i])
    part = (fsc[i] - threshold) / (fsc[i] - fsc[i + 1])
    return float(1.0 / (frequency[i] + part * (frequency[i + 1] - frequency[i])))
