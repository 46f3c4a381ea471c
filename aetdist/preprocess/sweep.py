"""Parameters of the denoising, chosen on a model whose clean images are known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import dask
import numpy as np
import xarray as xr

from ..errors import InputError
from .bm3d import BM3DParameters
from .denoise import ADF_PARAMETERS, denoise_image
from .noise import NoiseModel, add_noise

__all__ = ["CANDIDATES", "choose_parameters"]

CANDIDATES: Mapping[str, Sequence[Any]] = {
    "strength": (0.8, 1.0, 1.25, 1.6),
    "hard_threshold": (2.4, 2.7, 3.0),
    "transform": ("bior1.5", "dct"),
}


def choose_parameters(
    model_images: Any,
    noise: NoiseModel,
    *,
    noisy_images: Any = None,
    candidates: Mapping[str, Sequence[Any]] = CANDIDATES,
    parameters: BM3DParameters | None = None,
    seed: int = 0,
) -> tuple[BM3DParameters, xr.Dataset]:
    """Computes: the model's noisy images, denoised with every combination of the candidates; the best one.

    Parameters
    ----------
    model_images : array_like or xarray.DataArray, shape (tilt, y, x), float
        Clean images of a model like the measured sample (size, atoms, pixel, dose), in counts: what the noise model
        takes for the mean. A few tilts do.
    noise : NoiseModel
        Of the measured images.
    noisy_images : array_like, shape (tilt, y, x), float, optional
        The same with noise, where it is not independent from pixel to pixel; the default is made with `noise`.
    candidates : mapping of str to sequence
        Values to try, by the name of a field of :class:`~aetdist.preprocess.bm3d.BM3DParameters`.
    parameters : BM3DParameters, optional
        What the others are; the default is ``ADF_PARAMETERS``.
    seed : int
        Of the noise.

    Returns
    -------
    parameters : BM3DParameters
        Those of the largest correlation with the clean images, averaged over the tilts.
    table : xarray.Dataset
        `correlation` with the clean image and `rms_error` in counts, of every candidate (one dimension for each name)
        and tilt; `noisy_correlation` and `noisy_rms_error` (tilt,) before denoising. The attributes say what was
        chosen, the noise and the seed.

    Raises
    ------
    InputError
        If there are no images, one is constant, or a candidate is not a parameter or out of its range.

    Notes
    -----
    As in Methods "Image pre-processing and denoising" of Y. Yang et al., Nature 592, 60-64 (2021). One Dask task for
    each candidate and tilt.
    """
    clean = np.asarray(model_images, dtype=np.float64)
    if clean.ndim != 3 or len(clean) == 0:
        raise InputError(f"The model's images came with shape {clean.shape}; needed is (tilt, y, x).")
    if not (np.isfinite(clean).all() and (np.ptp(clean, axis=(1, 2)) > 0).all()):
        raise InputError(
            "Each image of the model must be finite and show something; a constant one has no correlation."
        )
    known = {field.name for field in fields(BM3DParameters)}
    if not candidates or not set(candidates) <= known or not all(len(values) for values in candidates.values()):
        raise InputError(
            f"Candidates came for {sorted(candidates)}; needed is at least one value each for some of {sorted(known)}."
        )
    parameters = parameters or ADF_PARAMETERS
    tried = [
        replace(parameters, **dict(zip(candidates, values, strict=True)))
        for values in itertools.product(*candidates.values())
    ]
    noisy = add_noise(clean, noise, seed) if noisy_images is None else np.asarray(noisy_images, dtype=np.float64)
    if noisy.shape != clean.shape:
        raise InputError(
            f"Noisy images of shape {noisy.shape} came for clean ones of {clean.shape}; needed is the same."
        )
    score = dask.delayed(_score, pure=True)
    images = [(dask.delayed(z), dask.delayed(c)) for z, c in zip(noisy, clean, strict=True)]
    found = np.array(dask.compute([[score(z, c, noise, candidate) for z, c in images] for candidate in tried])[0])
    before = np.array([_compare(z, c) for z, c in zip(noisy, clean, strict=True)])
    best = tried[int(found[..., 0].mean(axis=1).argmax())]
    shape = (*(len(values) for values in candidates.values()), len(clean))
    dims = (*candidates, "tilt")
    table = xr.Dataset(
        {
            "correlation": (dims, found[..., 0].reshape(shape), {"units": "1"}),
            "rms_error": (dims, found[..., 1].reshape(shape), {"units": "1", "long_name": "in counts"}),
            "noisy_correlation": ("tilt", before[:, 0], {"units": "1"}),
            "noisy_rms_error": ("tilt", before[:, 1], {"units": "1", "long_name": "in counts"}),
        },
        coords={name: list(values) for name, values in candidates.items()},
        attrs={
            **{f"chosen_{name}": getattr(best, name) for name in candidates},
            **{f"noise_{name}": value for name, value in asdict(noise).items()},
            "seed": int(seed),
        },
    )
    return best, table


def _score(noisy: np.ndarray, clean: np.ndarray, noise: NoiseModel, parameters: BM3DParameters) -> tuple[float, float]:
    return _compare(denoise_image(noisy, noise, parameters=parameters), clean)


def _compare(image: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """Correlation with the clean image and rms difference; an image without contrast has correlation 0."""
    a, b = image.astype(np.float64) - image.mean(dtype=np.float64), clean - clean.mean()
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else 0.0, float(np.sqrt(np.mean((image - clean) ** 2)))
