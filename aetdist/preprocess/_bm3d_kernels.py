"""BM3D's arithmetic: groups of alike 8 x 8 blocks, their 3D spectrum, the weighted sum of their estimates.

All images are flat float32 of `width` columns; a block is named by the flat index of its first pixel. A group holds
its blocks one after the other, 64 values each. The loops over a whole row of the image or of a block are what the
compiler turns into vector instructions.
"""

from __future__ import annotations

import numpy as np

from .._jit import njit

BLOCK = 8
"""Edge of a block in pixels."""
_AREA = BLOCK * BLOCK
_SQRT_HALF = np.float32(np.sqrt(0.5))


@njit
def _add_square_differences(image, here, there, n, total):
    """Add (image[here + i] - image[there + i])^2 to total[i]."""
    a, b = np.uint64(here), np.uint64(there)
    for i in range(np.uint64(n)):
        difference = image[a + i] - image[b + i]
        total[i] += difference * difference


@njit
def _sum_of_eight(values, n, halves, total):
    """total[i] = values[i] + ... + values[i + 7] for i < n, by doubling."""
    for i in range(np.uint64(n + 6)):
        halves[i] = values[i] + values[i + np.uint64(1)]
    for i in range(np.uint64(n + 4)):
        values[i] = halves[i] + halves[i + np.uint64(2)]
    for i in range(np.uint64(n)):
        total[i] = values[i] + values[i + np.uint64(4)]


@njit
def match_row(image, width, row, columns, shifts, most, nearest, distances, blocks, counts):
    """Find for every reference block of a row the blocks most like it in the window around it.

    `columns` are the reference columns, `shifts` (n, 2) the places (dy, dx) in the window in the order in which they
    are tried; `most` blocks at most are kept, the nearest first, and of equally near ones those tried first. Summed
    squared differences below `nearest` count as `nearest`. The reference itself is always the first. Fills counts[c],
    and blocks and distances from c * most on.
    """
    height = image.size // width
    rows, positions = height - BLOCK + 1, width - BLOCK + 1
    values, halves = np.empty(width, np.float32), np.empty(width, np.float32)
    total = np.empty(width, np.float32)
    for c in range(columns.size):
        counts[c] = 1
        distances[c * most] = np.float32(-1)  # nothing comes before the reference itself
        blocks[c * most] = row * width + columns[c]
    for d in range(len(shifts)):
        dy, dx = shifts[d, 0], shifts[d, 1]
        if not 0 <= row + dy < rows or (dx == 0 and dy == 0):
            continue
        first, last = max(0, -dx), min(positions, positions - dx)  # columns with a whole block at both ends
        if last <= first:
            continue
        n = last - first
        for i in range(n + BLOCK - 1):
            values[i] = np.float32(0)
        for k in range(BLOCK):
            here = (row + k) * width + first
            _add_square_differences(image, here, here + dy * width + dx, n + BLOCK - 1, values)
        _sum_of_eight(values, n, halves, total)
        shift = (row + dy) * width + dx
        for c in range(columns.size):
            column = columns[c]
            if first <= column < last:
                distance = max(total[column - first], nearest)
                if counts[c] < most or distance < distances[c * most + most - 1]:
                    _insert(distances, blocks, counts, c, most, distance, shift + column)


@njit
def _insert(distances, blocks, counts, c, most, distance, block):
    """Put a block into a reference's list, sorted by distance; the last one falls out of a full list."""
    start = c * most
    if counts[c] < most:
        counts[c] += 1
    i = start + counts[c] - 1
    while distances[i - 1] > distance:
        distances[i] = distances[i - 1]
        blocks[i] = blocks[i - 1]
        i -= 1
    distances[i] = distance
    blocks[i] = block


@njit
def power_of_two(n):
    """Largest power of two that is not above n."""
    power = 1
    while 2 * power <= n:
        power *= 2
    return power


@njit(fastmath={"contract"})
def _product(left, right, r, out, o):
    """Write left @ right of 8 x 8 matrices; those of `right` and `out` begin at r and o."""
    r, o = np.uint64(r), np.uint64(o)
    for i in range(np.uint64(BLOCK)):
        p, q = np.uint64(BLOCK) * i, o + np.uint64(BLOCK) * i
        for j in range(np.uint64(BLOCK)):
            out[q + j] = left[p] * right[r + j]
        for k in range(np.uint64(1), np.uint64(BLOCK)):
            weight, s = left[p + k], r + np.uint64(BLOCK) * k
            for j in range(np.uint64(BLOCK)):
                out[q + j] += weight * right[s + j]


@njit
def transform_blocks(group, n, matrix, transposed, scratch):
    """Replace every block B of a group by M B M^T; `transposed` is M^T."""
    for b in range(n):
        _product(matrix, group, _AREA * b, scratch, 0)
        _product(scratch, transposed, 0, group, _AREA * b)


@njit
def haar(group, n, scratch):
    """Orthonormal Haar transform along a group of n = 2^m blocks; block 0 becomes the mean times sqrt(n)."""
    while n > 1:
        half = n // 2
        for b in range(half):
            p, mean = np.uint64(2 * b * _AREA), np.uint64(b * _AREA)
            difference = np.uint64((half + b) * _AREA)
            for i in range(np.uint64(_AREA)):
                first, second = group[p + i], group[p + np.uint64(_AREA) + i]
                scratch[mean + i] = (first + second) * _SQRT_HALF
                scratch[difference + i] = (first - second) * _SQRT_HALF
        for i in range(n * _AREA):
            group[i] = scratch[i]
        n = half


@njit
def inverse_haar(group, n, scratch):
    """The inverse (and transpose) of `haar`."""
    half = 1
    while half < n:
        for i in range(2 * half * _AREA):
            scratch[i] = group[i]
        for b in range(half):
            p, mean = np.uint64(2 * b * _AREA), np.uint64(b * _AREA)
            difference = np.uint64((half + b) * _AREA)
            for i in range(np.uint64(_AREA)):
                m, d = scratch[mean + i], scratch[difference + i]
                group[p + i] = (m + d) * _SQRT_HALF
                group[p + np.uint64(_AREA) + i] = (m - d) * _SQRT_HALF
        half *= 2


@njit
def gather(image, width, blocks, start, n, group):
    """Copy blocks into a group."""
    for b in range(n):
        first = np.uint64(blocks[start + b])
        for y in range(np.uint64(BLOCK)):
            p, q = first + y * np.uint64(width), np.uint64(b * _AREA) + np.uint64(BLOCK) * y
            for x in range(np.uint64(BLOCK)):
                group[q + x] = image[p + x]


@njit
def scatter(group, n, weight, window, width, blocks, start, numerator, denominator):
    """Add a group's estimates, weighted, to where its blocks are."""
    for b in range(n):
        first = np.uint64(blocks[start + b])
        for y in range(np.uint64(BLOCK)):
            p, q = first + y * np.uint64(width), np.uint64(b * _AREA) + np.uint64(BLOCK) * y
            for x in range(np.uint64(BLOCK)):
                w = weight * window[np.uint64(BLOCK) * y + x]
                numerator[p + x] += w * group[q + x]
                denominator[p + x] += w


@njit
def shrink_hard(group, n, limit):
    """Set the coefficients of a 3D spectrum below `limit` to 0, its mean excepted; returns how many are left."""
    left = 1
    mean = group[0]
    for i in range(n * _AREA):
        keep = abs(group[i]) >= limit
        left += keep
        group[i] = group[i] if keep else np.float32(0)
    left -= abs(mean) >= limit
    group[0] = mean
    return left


@njit
def shrink_wiener(group, pilot, n, variance):
    """Multiply a 3D spectrum by P^2 / (P^2 + variance), its mean excepted; returns the factors' sum of squares."""
    energy = np.float32(1)
    mean = group[0]
    for i in range(1, n * _AREA):
        power = pilot[i] * pilot[i]
        factor = power / (power + variance)
        group[i] *= factor
        energy += factor * factor
    group[0] = mean
    return energy


@njit
def hard_threshold_stage(
    image, guide, width, rows, columns, shifts, most, nearest, limit, forward, backward, window, numerator, denominator
):
    """Basic estimate: groups found in the guide image, hard threshold; adds to numerator and denominator.

    `forward` and `backward` are flat pairs (M, M^T) of the block transform and its inverse.
    """
    distances, blocks = np.empty(columns.size * most, np.float32), np.empty(columns.size * most, np.int64)
    counts = np.empty(columns.size, np.int64)
    group, scratch = np.empty(most * _AREA, np.float32), np.empty(most * _AREA, np.float32)
    for row in rows:
        match_row(guide, width, row, columns, shifts, most, nearest, distances, blocks, counts)
        for c in range(columns.size):
            n = power_of_two(counts[c])
            gather(image, width, blocks, c * most, n, group)
            transform_blocks(group, n, forward[0], forward[1], scratch)
            haar(group, n, scratch)
            weight = np.float32(1) / np.float32(shrink_hard(group, n, limit))
            inverse_haar(group, n, scratch)
            transform_blocks(group, n, backward[0], backward[1], scratch)
            scatter(group, n, weight, window, width, blocks, c * most, numerator, denominator)


@njit
def wiener_stage(
    image, pilot, width, rows, columns, shifts, most, nearest, variance, forward, backward, window, numerator,
    denominator,
):  # fmt: skip
    """Final estimate: groups found in the pilot image, empirical Wiener filter; adds to numerator and denominator."""
    distances, blocks = np.empty(columns.size * most, np.float32), np.empty(columns.size * most, np.int64)
    counts = np.empty(columns.size, np.int64)
    group, scratch = np.empty(most * _AREA, np.float32), np.empty(most * _AREA, np.float32)
    pilots = np.empty(most * _AREA, np.float32)
    for row in rows:
        match_row(pilot, width, row, columns, shifts, most, nearest, distances, blocks, counts)
        for c in range(columns.size):
            n = power_of_two(counts[c])
            gather(image, width, blocks, c * most, n, group)
            gather(pilot, width, blocks, c * most, n, pilots)
            transform_blocks(group, n, forward[0], forward[1], scratch)
            transform_blocks(pilots, n, forward[0], forward[1], scratch)
            haar(group, n, scratch)
            haar(pilots, n, scratch)
            weight = np.float32(1) / shrink_wiener(group, pilots, n, variance)
            inverse_haar(group, n, scratch)
            transform_blocks(group, n, backward[0], backward[1], scratch)
            scatter(group, n, weight, window, width, blocks, c * most, numerator, denominator)
