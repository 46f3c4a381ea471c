from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.preprocess import _bm3d_kernels as kernels
from aetdist.preprocess.bm3d import BM3DParameters, bior15_matrix, cosine_matrix, filter_bm3d, shifts

SMALL = BM3DParameters(search=11)


def random_group(n, seed=0):
    return np.random.default_rng(seed).normal(0, 1, n * 64).astype(np.float32)


def haar_matrix(n):
    """Orthonormal Haar basis of n = 2^m, from its definition: mean first, then details from coarse to fine."""
    rows = [np.full(n, 1 / np.sqrt(n))]
    width = n
    while width > 1:
        for start in range(0, n, width):
            row = np.zeros(n)
            row[start : start + width // 2], row[start + width // 2 : start + width] = 1, -1
            rows.append(row / np.sqrt(width))
        width //= 2
    return np.array(rows)


def flat_pair(matrix):
    return matrix.astype(np.float32).ravel(), matrix.T.astype(np.float32).ravel()


def lattice(n=64, seed=0):
    """Gaussian atoms in the middle of a dark image, largest value about 10."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:n, :n]
    image = np.zeros((n, n))
    for cy in range(n // 4, 3 * n // 4, 7):
        for cx in range(n // 4, 3 * n // 4, 7):
            dy, dx = rng.uniform(-0.5, 0.5, 2)
            image += 10 * np.exp(-((y - cy - dy) ** 2 + (x - cx - dx) ** 2) / (2 * 1.6**2))
    return image


def psnr(image, clean):
    return 10 * np.log10(clean.max() ** 2 / np.mean((image - clean) ** 2))


@pytest.mark.parametrize("n", [1, 2, 4, 32])
def test_haar__is_its_matrix_and_orthonormal(n):
    np.testing.assert_allclose(haar_matrix(n) @ haar_matrix(n).T, np.eye(n), atol=1e-12)
    group, scratch = random_group(n), np.empty(n * 64, np.float32)
    start = group.copy()
    kernels.haar(group, n, scratch)
    np.testing.assert_allclose(group.reshape(n, 64), haar_matrix(n) @ start.reshape(n, 64), atol=1e-5)
    assert np.sum(group**2) == pytest.approx(np.sum(start**2), rel=1e-5)
    kernels.inverse_haar(group, n, scratch)
    np.testing.assert_allclose(group, start, atol=1e-5)


def test_transforms__keep_noise_white_and_energy():
    np.testing.assert_allclose(cosine_matrix() @ cosine_matrix().T, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(bior15_matrix(), axis=1), 1, atol=1e-12)
    group, scratch = random_group(4), np.empty(64, np.float32)
    start = group.copy()
    kernels.transform_blocks(group, 4, *flat_pair(cosine_matrix()), scratch)
    assert np.sum(group**2) == pytest.approx(np.sum(start**2), rel=1e-5)
    blocks = start.reshape(4, 8, 8)
    np.testing.assert_allclose(group.reshape(4, 8, 8), cosine_matrix() @ blocks @ cosine_matrix().T, atol=1e-5)


def test_bior15__has_vanishing_moments_and_gives_a_constant_one_coefficient():
    matrix = bior15_matrix()
    np.testing.assert_allclose(matrix @ np.ones(8), [np.sqrt(8), *np.zeros(7)], atol=1e-12)
    assert np.linalg.cond(matrix) < 3


def test_match_row__finds_the_nearest_blocks():
    """Against all squared differences in the window, by numpy."""
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (30, 41)).astype(np.float32)
    columns, most, radius, row = np.array([0, 5, 33]), 8, 6, 9
    distances, blocks = np.empty(3 * most, np.float32), np.empty(3 * most, np.int64)
    counts = np.empty(3, np.int64)
    kernels.match_row(
        image.ravel(), 41, row, columns, shifts(2 * radius + 1), most, np.float32(0), distances, blocks, counts
    )
    for c, column in enumerate(columns):
        reference = image[row : row + 8, column : column + 8]
        found = []
        for y in range(max(0, row - radius), min(22, row + radius) + 1):
            for x in range(max(0, column - radius), min(33, column + radius) + 1):
                found.append((np.sum((image[y : y + 8, x : x + 8] - reference) ** 2, dtype=float), y * 41 + x))
        assert counts[c] == most
        assert [b for _, b in sorted(found)[:most]] == blocks[c * most : (c + 1) * most].tolist()


def test_match_row__blocks_within_the_noise_are_a_scattered_choice():
    """In a plain area the choice must not depend on the noise."""
    columns, most = np.array([16]), 16
    chosen = []
    for seed in (0, 1):
        image = 0.1 * np.random.default_rng(seed).normal(0, 1, 40 * 40).astype(np.float32)
        distances, blocks, counts = np.empty(most, np.float32), np.empty(most, np.int64), np.empty(1, np.int64)
        kernels.match_row(image, 40, 16, columns, shifts(21), most, np.float32(64), distances, blocks, counts)
        chosen.append(blocks.tolist())
    assert chosen[0] == chosen[1] and len(set(chosen[0])) == most


@pytest.mark.parametrize("transform", [bior15_matrix, cosine_matrix])
def test_hard_threshold_stage__one_group_as_numpy_does(transform):
    """One reference block, four blocks: transform, threshold, back, weighted by Kaiser / coefficients left."""
    rng = np.random.default_rng(3)
    clean = np.sin(np.arange(14) / 3)[:, None] * 6 + np.zeros((14, 14))
    image = (clean + rng.normal(0, 1, clean.shape)).astype(np.float32)
    window = np.outer(np.kaiser(8, 2.0), np.kaiser(8, 2.0))
    matrix, inverse = transform(), np.linalg.inv(transform())
    numerator, denominator = np.zeros(196, np.float32), np.zeros(196, np.float32)
    kernels.hard_threshold_stage(
        image.ravel(), image.ravel(), 14, np.array([3]), np.array([2]), shifts(7), 4, np.float32(0), np.float32(2.7),
        flat_pair(matrix), flat_pair(inverse), window.astype(np.float32).ravel(), numerator, denominator,
    )  # fmt: skip
    places = [(np.sum((image[y : y + 8, x : x + 8] - image[3:11, 2:10]) ** 2), y, x)
              for y in range(7) for x in range(6)]  # fmt: skip
    places = [(y, x) for _, y, x in sorted(places)[:4]]
    group = np.array([image[y : y + 8, x : x + 8] for y, x in places], dtype=float)
    spectrum = np.einsum("gh,hij->gij", haar_matrix(4), matrix @ group @ matrix.T)
    kept = np.abs(spectrum) >= 2.7
    kept[0, 0, 0] = True
    estimate = inverse @ np.einsum("gh,hij->gij", haar_matrix(4).T, spectrum * kept) @ inverse.T
    expected, weights = np.zeros((14, 14)), np.zeros((14, 14))
    for (y, x), block in zip(places, estimate, strict=True):
        expected[y : y + 8, x : x + 8] += window / kept.sum() * block
        weights[y : y + 8, x : x + 8] += window / kept.sum()
    assert 1 < kept.sum() < 200
    np.testing.assert_allclose(denominator.reshape(14, 14), weights, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(numerator.reshape(14, 14), expected, rtol=1e-3, atol=1e-5)


def test_wiener_stage__one_group_as_numpy_does():
    rng = np.random.default_rng(4)
    pilot = (np.sin(np.arange(14) / 3)[:, None] * 6 + 0.1 * rng.normal(0, 1, (14, 14))).astype(np.float32)
    image = (pilot + rng.normal(0, 1, pilot.shape)).astype(np.float32)
    window = np.ones((8, 8))
    matrix = cosine_matrix()
    numerator, denominator = np.zeros(196, np.float32), np.zeros(196, np.float32)
    kernels.wiener_stage(
        image.ravel(), pilot.ravel(), 14, np.array([3]), np.array([2]), shifts(7), 8, np.float32(0), np.float32(1),
        flat_pair(matrix), flat_pair(matrix.T), window.astype(np.float32).ravel(), numerator, denominator,
    )  # fmt: skip
    places = [(np.sum((pilot[y : y + 8, x : x + 8] - pilot[3:11, 2:10]) ** 2), y, x)
              for y in range(7) for x in range(6)]  # fmt: skip
    places = [(y, x) for _, y, x in sorted(places)[:8]]

    def spectrum(of):
        group = np.array([of[y : y + 8, x : x + 8] for y, x in places], dtype=float)
        return np.einsum("gh,hij->gij", haar_matrix(8), matrix @ group @ matrix.T)

    power = spectrum(pilot) ** 2
    factor = power / (power + 1)
    factor[0, 0, 0] = 1
    estimate = matrix.T @ np.einsum("gh,hij->gij", haar_matrix(8).T, spectrum(image) * factor) @ matrix
    expected = np.zeros((14, 14))
    for (y, x), block in zip(places, estimate, strict=True):
        expected[y : y + 8, x : x + 8] += block / np.sum(factor**2)
    np.testing.assert_allclose(numerator.reshape(14, 14), expected, rtol=1e-3, atol=1e-4)


def test_filter_bm3d__removes_noise_from_atoms():
    """8 dB and more at a peak of ten standard deviations; the second stage and the groups both have to work."""
    clean = lattice()
    noisy = clean + np.random.default_rng(0).normal(0, 1, clean.shape)
    assert psnr(filter_bm3d(noisy, 1.0), clean) > psnr(noisy, clean) + 8
    # Groups of one block are all that a plain transform filter has.
    alone = filter_bm3d(noisy, 1.0, BM3DParameters(hard_matches=1, wiener_matches=1))
    assert psnr(filter_bm3d(noisy, 1.0), clean) > psnr(alone, clean) + 1


def test_filter_bm3d__leaves_little_noise_in_a_plain_area():
    noise = np.random.default_rng(2).normal(0, 1, (64, 64))
    assert filter_bm3d(noise, 1.0).std() < 0.12


def test_filter_bm3d__keeps_a_constant_and_an_image_without_noise():
    np.testing.assert_allclose(filter_bm3d(np.full((24, 20), 7.5), 1.0, SMALL), 7.5, rtol=1e-6)
    clean = lattice(48)
    assert psnr(filter_bm3d(clean, 0.01), clean) > 60
    np.testing.assert_array_equal(filter_bm3d(clean, 0.0), clean.astype(np.float32))
    errors = [np.abs(filter_bm3d(clean, sigma, SMALL) - clean).max() for sigma in (0.1, 0.01, 0.001)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01


def test_filter_bm3d__knows_neither_scale_nor_offset():
    image = lattice(40) + np.random.default_rng(5).normal(0, 1, (40, 40))
    once = filter_bm3d(image, 1.0, SMALL)
    np.testing.assert_allclose(filter_bm3d(4096 * image, 4096.0, SMALL), 4096 * once, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(filter_bm3d(image + 64, 1.0, SMALL), once + 64, atol=2e-2)


def test_filter_bm3d__smallest_image_and_odd_shapes():
    random = np.random.default_rng(0)
    for shape in ((8, 8), (8, 31), (23, 9)):
        noise = random.normal(0, 1, shape)
        result = filter_bm3d(noise, 1.0)
        assert result.shape == shape and np.isfinite(result).all() and result.std() < 0.7


def test_filter_bm3d__leaves_its_input_alone():
    image = lattice(24)
    before = image.copy()
    filter_bm3d(image, 1.0, SMALL)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "sigma", "message"),
    [
        (np.zeros((7, 20)), 1.0, "at least 8"),
        (np.zeros((9, 9, 9)), 1.0, "two axes"),
        (np.full((9, 9), np.nan), 1.0, "81 of 81 pixels"),
        (np.zeros((9, 9)), -1.0, "standard deviation"),
        (np.zeros((9, 9)), np.nan, "standard deviation"),
    ],
)
def test_filter_bm3d__refuses(image, sigma, message):
    with pytest.raises(InputError, match=message):
        filter_bm3d(image, sigma)


@pytest.mark.parametrize(
    "bad",
    [{"step": 9}, {"step": 0}, {"search": 38}, {"hard_matches": 0}, {"strength": -1.0}, {"transform": "haar"}],
)
def test_bm3d_parameters__refuse(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        BM3DParameters(**bad)
