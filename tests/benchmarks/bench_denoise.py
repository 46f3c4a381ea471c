"""How well and how fast tilt images are denoised; prints JSON.

    python tests/benchmarks/bench_denoise.py [--size 320]

Images: one tilt of a simulated nanoparticle that played no part in choosing a constant of the filter, with white noise
of some parts of its peak, and with the noise of 1.7e4 e/A^2. PSNR is 10 log10(peak^2 / mean squared error). Non-local
means of scikit-image (extra ``benchmark``) knows the noise's standard deviation and takes the best of several h and
patches for each image. Where a user has installed the package ``bm3d`` (its licence is non-commercial), it is measured
too. CPU seconds are of one thread, after compilation.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import aetdist as aet
from aetdist.preprocess.bm3d import filter_bm3d
from aetdist.preprocess.denoise import ADF_PARAMETERS, denoise_image
from aetdist.preprocess.noise import NoiseModel, add_noise, estimate_noise_model

PIXEL = 0.35  # Angstrom
ELECTRONS = 1.7e4 * PIXEL**2 * 0.05  # of an average pixel


def particle(size: int) -> np.ndarray:
    """A particle that fills about a third of the field, in units of an average pixel; (size, size)."""
    atoms = aet.nanoparticle(0.32 * size * PIXEL, species=("Cu", "Zr"), seed=77)
    series = aet.simulate_tilt_series(atoms, [23.0], pixel_size=PIXEL, field=(size, size))
    return np.asarray(series["images"].values[0] / series.attrs["simulation_average_intensity"], dtype=np.float64)


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """In dB."""
    return round(float(10 * np.log10(clean.max() ** 2 / np.mean((image - clean) ** 2))), 2)


def seconds(function: Callable[[], Any], clock: Callable[[], float]) -> float:
    """The least of three runs."""
    times = []
    for _ in range(3):
        start = clock()
        function()
        times.append(clock() - start)
    return round(min(times), 3)


def white(clean: np.ndarray, part: float) -> dict[str, Any]:
    """PSNR of the filters for white noise of a part of the peak."""
    sigma = part * clean.max()
    noisy = clean + np.random.default_rng(8).normal(0, sigma, clean.shape)
    figures = {
        "noisy": psnr(noisy, clean),
        "ours": psnr(filter_bm3d(noisy, sigma, ADF_PARAMETERS), clean),
        "ours_normal_profile": psnr(filter_bm3d(noisy, sigma), clean),
    }
    if importlib.util.find_spec("skimage"):
        from skimage.restoration import denoise_nl_means

        figures["non_local_means"] = max(
            psnr(denoise_nl_means(noisy, patch, 13, h=h * sigma, sigma=sigma), clean)
            for patch in (5, 7)
            for h in (0.4, 0.6, 0.8, 1.0)
        )
    if importlib.util.find_spec("bm3d"):
        import bm3d

        figures["bm3d_package"] = psnr(bm3d.bm3d(noisy, sigma), clean)
    return figures


def counted(clean: np.ndarray) -> dict[str, float]:
    """The whole chain at 1.7e4 e/A^2, the noise model found in the image."""
    truth = ELECTRONS * (clean + 0.02)
    noisy = add_noise(truth[None], NoiseModel(1.0, 0.0, 1.0), seed=5)[0]
    image = denoise_image(noisy, estimate_noise_model(noisy))
    return {"noisy": psnr(noisy, truth), "ours": psnr(image, truth)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320, help="pixels along every axis")
    size = parser.parse_args().size
    clean = particle(size)
    noisy = clean + np.random.default_rng(8).normal(0, 0.1 * clean.max(), clean.shape)
    figures: dict[str, Any] = {f"white noise of {part:.0%}": white(clean, part) for part in (0.05, 0.1, 0.2)}
    figures["1.7e4 e/A^2"] = counted(clean)
    figures["cpu_seconds"] = seconds(lambda: filter_bm3d(noisy, 0.1 * clean.max()), time.process_time)
    with ThreadPoolExecutor(2) as pool:
        one, two = (
            seconds(
                lambda n=n: list(pool.map(lambda _: filter_bm3d(noisy, 0.1 * clean.max()), range(n))),
                time.perf_counter,
            )
            for n in (1, 2)
        )
    figures["two_threads_gain"] = round(2 * one / two, 2)  # as it is: of an idle machine alone it says much
    print(json.dumps({"size": size, **figures}, indent=1))


if __name__ == "__main__":
    main()
