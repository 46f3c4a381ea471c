"""Fourier shell correlation: what theory says of signal and noise, whatever the grid."""

from __future__ import annotations

import numpy as np
import pytest

from aetdist.errors import InputError
from aetdist.fourier_shells import fourier_shell_correlation, soft_mask

VOXEL = 0.35


def noise(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def low_passed(white, width):
    """White noise times exp(-pi^2 width^2 k^2), k in 1/voxel; its power is the square of that."""
    k2 = sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in white.shape), indexing="ij"))
    return np.fft.ifftn(np.fft.fftn(white) * np.exp(-((np.pi * width) ** 2) * k2)).real


def plain_fsc(a, b):
    """Shell by shell over the whole of Fourier space."""
    n = max(a.shape)
    k = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(m) ** 2 for m in a.shape), indexing="ij")))
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    found = []
    for number in range(1, n // 2 + 1):
        here = (np.rint(k * n) == number) & (k <= 0.5)
        power = (np.abs(fa[here]) ** 2).sum() * (np.abs(fb[here]) ** 2).sum()
        found.append(((fa[here] * fb[here].conj()).sum() / np.sqrt(power), here.sum()))
    return np.array(found).T


@pytest.mark.parametrize("shape", [(16, 16, 16), (15, 18, 21), (24, 9, 10), (9, 10, 25)])
def test_fourier_shell_correlation__equals_a_plain_sum_over_shells(shape):
    a = noise(shape, 0)
    b = a + noise(shape, 1)
    found, (plain, n) = fourier_shell_correlation(a, b, VOXEL), plain_fsc(a, b)
    np.testing.assert_allclose(plain.imag, 0, atol=1e-12)
    np.testing.assert_allclose(found["fsc"], plain.real, atol=1e-12)
    np.testing.assert_array_equal(found["n_coefficients"], n.real)
    assert found["frequency"].values[-1] == pytest.approx((max(shape) // 2) / max(shape) / VOXEL)
    assert found["frequency"].attrs["units"] == "1/angstrom"


def test_fourier_shell_correlation__identical_volumes_give_one_at_any_scale():
    a = noise((20, 22, 24), 3)
    found = fourier_shell_correlation(a, 7.0 * a, VOXEL)
    np.testing.assert_allclose(found["fsc"], 1.0, atol=1e-12)
    assert found.attrs["resolution_0.143"] == found.attrs["resolution_limit"] == pytest.approx(2 * VOXEL)
    np.testing.assert_allclose(fourier_shell_correlation(a, -a, VOXEL)["fsc"], -1.0, atol=1e-12)


def test_fourier_shell_correlation__white_noise_spreads_as_one_over_the_root_of_its_coefficients():
    z = []
    for seed in range(30):
        found = fourier_shell_correlation(noise((24, 24, 24), 2 * seed), noise((24, 24, 24), 2 * seed + 1), VOXEL)
        z.append((found["fsc"] * np.sqrt(found["n_coefficients"])).values)
    z = np.array(z)  # standard normal
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / z.size)


def test_fourier_shell_correlation__of_a_signal_in_noise_is_its_part_of_the_power():
    """S / (S + N), and the resolution is where that falls to the threshold."""
    shape, width, level = (64, 64, 64), 1.0, 0.3
    signal = low_passed(noise(shape, 5), width)
    found = fourier_shell_correlation(*(signal + level * noise(shape, seed) for seed in (6, 7)), VOXEL)
    k = found["frequency"].values * VOXEL
    power = np.exp(-2 * (np.pi * width) ** 2 * k**2)
    expected = power / (power + level**2)
    z = (found["fsc"].values - expected) * np.sqrt(found["n_coefficients"].values)
    assert abs(z[3:]).max() < 4.5  # shells of a few coefficients are no normal sample
    for threshold in (0.143, 0.5):
        at = np.sqrt(-np.log(level**2 * threshold / (1 - threshold)) / 2) / (np.pi * width)
        assert found.attrs[f"resolution_{threshold:g}"] == pytest.approx(VOXEL / at, rel=0.03)


def test_fourier_shell_correlation__a_mask_leaves_out_the_noise_around_the_object():
    z, y, x = np.indices((48, 48, 48)) - 24
    inside = z**2 + y**2 + x**2 <= 10**2
    signal = np.where(inside, low_passed(noise(inside.shape, 1), 0.6), 0.0)
    halves = [signal + 0.5 * noise(inside.shape, seed) for seed in (2, 3)]
    mask = soft_mask(inside, 4.0)
    plain = fourier_shell_correlation(*halves, VOXEL)
    masked = fourier_shell_correlation(*halves, VOXEL, mask=mask)
    assert float(masked["fsc"][:10].mean()) > float(plain["fsc"][:10].mean()) + 0.1
    apart = fourier_shell_correlation(noise(inside.shape, 4), noise(inside.shape, 5), VOXEL, mask=mask)
    assert float(np.abs(apart["fsc"][3:]).max()) < 0.3  # the mask alone makes nothing alike


def test_fourier_shell_correlation__no_likeness_has_no_resolution():
    a = noise((12, 12, 12), 0)
    found = fourier_shell_correlation(a, -a, VOXEL)
    assert np.isnan(found.attrs["resolution_0.143"]) and np.isnan(found.attrs["resolution_0.5"])
    assert np.isnan(fourier_shell_correlation(a, 0 * a, VOXEL)["fsc"]).all()


def test_soft_mask__falls_along_a_cosine():
    inside = np.zeros((1, 1, 21), bool)
    inside[..., :5] = True
    mask = soft_mask(inside, 8.0)[0, 0]
    np.testing.assert_allclose(mask[:5], 1.0)
    np.testing.assert_allclose(mask[4:13], 0.5 + 0.5 * np.cos(np.pi * np.arange(9) / 8), atol=1e-12)
    np.testing.assert_allclose(mask[12:], 0.0, atol=1e-12)
    assert soft_mask(np.ones((2, 2, 2), bool), 3.0).min() == 1.0
    with pytest.raises(InputError, match="empty"):
        soft_mask(np.zeros((2, 2, 2), bool), 3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": np.zeros((4, 4, 5))}, "one shape"),
        ({"a": np.zeros((4, 4)), "b": np.zeros((4, 4))}, "one shape"),
        ({"mask": np.zeros((4, 4, 5))}, "one shape"),
        ({"voxel_size": 0.0}, "voxel size"),
        ({"a": np.full((4, 4, 4), np.nan)}, "finite"),
    ],
)
def test_fourier_shell_correlation__refuses_what_cannot_be_compared(change, message):
    good = {"a": np.zeros((4, 4, 4)), "b": np.zeros((4, 4, 4)), "voxel_size": VOXEL} | change
    with pytest.raises(InputError, match=message):
        fourier_shell_correlation(good.pop("a"), good.pop("b"), good.pop("voxel_size"), **good)
