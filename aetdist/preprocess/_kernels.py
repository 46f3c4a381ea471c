"""Relaxation of Laplace's equation; numpy and numba only."""

from __future__ import annotations

import numpy as np

from .._jit import njit


@njit
def relax_laplace(values, unknown, known, factor, tolerance, sweeps):
    """Solve Laplace's equation in place by successive over-relaxation in rising order.

    values : (ny, nx) float64, the boundary values and a first guess
    unknown : (ny, nx) bool, where to solve
    known : (ny, nx) bool, where `values` are boundary values; what is neither lets nothing through
    factor : float, over-relaxation, 1 to 2
    tolerance : float, largest change in a sweep at which to stop
    Returns the number of sweeps done.
    """
    ny, nx = values.shape
    for sweep in range(sweeps):
        largest = 0.0
        for i in range(ny):
            for j in range(nx):
                if not unknown[i, j]:
                    continue
                total = 0.0
                n = 0
                if i > 0 and (unknown[i - 1, j] or known[i - 1, j]):
                    total += values[i - 1, j]
                    n += 1
                if i < ny - 1 and (unknown[i + 1, j] or known[i + 1, j]):
                    total += values[i + 1, j]
                    n += 1
                if j > 0 and (unknown[i, j - 1] or known[i, j - 1]):
                    total += values[i, j - 1]
                    n += 1
                if j < nx - 1 and (unknown[i, j + 1] or known[i, j + 1]):
                    total += values[i, j + 1]
                    n += 1
                if n > 0:
                    change = factor * (total / np.float64(n) - values[i, j])
                    values[i, j] += change
                    largest = max(largest, abs(change))
        if largest <= tolerance:
            return sweep + 1
    return sweeps
