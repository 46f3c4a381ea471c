"""Blend local volumes into the film: every chunk of the film gathers the windows that touch it."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ..io import open_dataset, require_record, write_region
from .film import start_volume
from .windows import ScanPlan, Window

#: Sums over pairs of windows where both weigh something: n, |a-b|, (|a|+|b|)/2, a, b, aa, bb, ab (a, b symmetrised).
N_SUMS = 8


def stitch_chunk(
    chunk: tuple[tuple[slice, slice], list[Window]],
    path: str,
    digest: str,
    plan: ScanPlan,
    groups: tuple[str, str, str],
) -> np.ndarray:
    """Blend one chunk of the film and write it.

    Parameters
    ----------
    chunk : tuple
        Rows and columns (y, x) of the film volume (all heights), and the windows that touch them.
    path : str
        The store.
    digest : str
        Of the record that the film was begun with.
    plan : ScanPlan
        Its own windows are not needed.
    groups : tuple of str
        Groups of the coarse film, of the windows and of the film.

    Returns
    -------
    ndarray, shape (8,), float64
        Sums from which `agreement` gets how well overlapping windows agree.

    Notes
    -----
    film = sum_i w_i V_i + (1 - sum_i w_i) V_coarse: the coarse film fills the margin outside the field.
    The support is where windows make up the film: atoms can be told there, and not in the margin.
    """
    (rows, cols), windows = chunk
    nz = plan.shape[0]
    shape = (nz, rows.stop - rows.start, cols.stop - cols.start)
    y = np.arange(rows.start, rows.stop) + plan.first[1]
    x = np.arange(cols.start, cols.stop) + plan.first[2]
    coarse_group, window_group, film_group = groups
    blocks = open_dataset(path, window_group)["density"]
    film = np.zeros(shape, np.float32)
    total = np.zeros(shape[1:], np.float32)
    gathered = []
    for window in windows:
        low = [max(a, f) for a, f in zip((y[0], x[0]), window.kept_first, strict=True)]
        high = [min(b + 1, f + n) for b, f, n in zip((y[-1], x[-1]), window.kept_first, window.kept_shape, strict=True)]
        here = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, (y[0], x[0]), strict=True))
        there = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, window.kept_first, strict=True))
        values = blocks[window.index, :, there[0], there[1]].values
        weight = plan.weights(window, y[here[0]], x[here[1]])
        film[:, here[0], here[1]] += weight * values
        total[here] += weight
        gathered.append((here, values, weight > 0))
    if total.min() < 1.0:
        coarse = open_dataset(path, coarse_group)["density"].variable
        film += np.maximum(1.0 - total, 0.0) * start_volume(
            coarse, plan.coarse, (plan.first[0], int(y[0]), int(x[0])), shape
        )
    require_record(path, film_group, digest)
    write_region(path, film_group, "density", (slice(0, nz), rows, cols), film)
    write_region(path, film_group, "support", (slice(0, nz), rows, cols), np.broadcast_to(total > 0.5, shape))
    disagreement, sums = compare_pairs(gathered, shape)
    write_region(path, film_group, "disagreement", (rows, cols), disagreement)
    return sums


def compare_pairs(
    gathered: list[tuple[tuple[slice, ...], np.ndarray, np.ndarray]], shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Map of the relative L1 difference (y, x), NaN where windows do not overlap, and the pooled sums.

    Each window comes as its rectangle in the map, its values (z, y, x) and where it weighs something.
    """
    difference, level = np.zeros(shape[1:]), np.zeros(shape[1:])
    sums = np.zeros(N_SUMS)
    for (here_a, a, in_a), (here_b, b, in_b) in combinations(gathered, 2):
        shared = [(max(s.start, t.start), min(s.stop, t.stop)) for s, t in zip(here_a, here_b, strict=True)]
        if any(stop <= start for start, stop in shared):
            continue
        of_a, of_b = (
            tuple(slice(start - s.start, stop - s.start) for (start, stop), s in zip(shared, here, strict=True))
            for here in (here_a, here_b)
        )
        both = in_a[of_a] & in_b[of_b]
        if not both.any():
            continue
        p, q = (v[:, part[0], part[1]][:, both].astype(np.float64) for v, part in ((a, of_a), (b, of_b)))
        l1, mean = np.abs(p - q).sum(axis=0), 0.5 * (np.abs(p) + np.abs(q)).sum(axis=0)
        rows, columns = (slice(*s) for s in shared)
        difference[rows, columns][both] += l1
        level[rows, columns][both] += mean
        single = 0.5 * (p.sum() + q.sum()), 0.5 * ((p * p).sum() + (q * q).sum())
        sums += [p.size, l1.sum(), mean.sum(), single[0], single[0], single[1], single[1], (p * q).sum()]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(level > 0, difference / level, np.nan).astype(np.float32), sums


def agreement(sums: np.ndarray) -> dict[str, float]:
    """Relative L1 difference and correlation of overlapping windows, pooled over the voxels where they are blended."""
    n, difference, level, a, b, aa, bb, ab = sums
    if n == 0 or level == 0:
        return {"disagreement_l1": float("nan"), "disagreement_correlation": float("nan")}
    variance = np.sqrt((aa - a * a / n) * (bb - b * b / n))
    return {
        "disagreement_l1": float(difference / level),
        "disagreement_correlation": float((ab - a * b / n) / variance) if variance > 0 else float("nan"),
    }
