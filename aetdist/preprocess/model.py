"""Images of a model particle like the measured one: what the parameters of the denoising are chosen on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import ndimage

from ..errors import InputError
from ..geometry import centred_coordinates
from ..project.atoms import project_atoms

__all__ = ["MakeAtoms", "model_particle"]

MakeAtoms = Callable[[float], xr.Dataset]
"""Gives ATOMS of a particle of a diameter in Angstrom."""
_MARGIN = 4.0  # pixels by which the object's mask is larger than the object
_AROUND = 16  # pixels of background around the model
_LEAST = 12.0  # pixels; a smaller particle has no inside whose texture could be measured
_SIGMAS = np.geomspace(0.2, 2.0, 16)  # Angstrom
_FINE = 1.5  # pixels; texture finer than this Gaussian, held against that between it and twice it
_ANGLES = ((0.0, 0.0, 0.0), (35.0, 50.0, 0.0))  # degrees; two views of the model


def model_particle(series: xr.Dataset, make_atoms: MakeAtoms) -> xr.Dataset:
    """Clean images of a model particle of the size, brightness and texture of the measured one.

    Parameters
    ----------
    series : xarray.Dataset
        Some tilts in memory: denoised ``images`` (tilt, y, x) without background, ``object_mask``, ``background`` and
        ``pixel_size`` in Angstrom.
    make_atoms : callable
        Gives ATOMS (position in Angstrom) of a particle of a diameter in Angstrom.

    Returns
    -------
    xarray.Dataset
        ``images`` (model_tilt, model_y, model_x), float64, in the counts of `series`, the level of its background
        included; the attributes ``model_diameter_A``, ``model_sigma_A``.

    Raises
    ------
    InputError
        If the series has no pixel size, or its object is too small.

    Notes
    -----
    The diameter is that of a disc of the mask's area. Atoms are Gaussians of one height; the mean over the inner half
    gives it. Their width is that at which the texture finer than 1.5 pixels is the same part of the texture between
    1.5 and 3 pixels as in the measured images: both are proportional to the number of atoms, so that the ratio does
    not depend on it.
    """
    if "pixel_size" not in series:
        raise InputError("The frames have no pixel_size; a model particle needs it: import them with a pixel size.")
    size = float(series["pixel_size"])
    masks = series["object_mask"].values
    radius = float(np.sqrt(masks.sum(axis=(1, 2)).mean() / np.pi)) - _MARGIN
    if radius < _LEAST:
        raise InputError(
            f"The object is {2 * radius:.0f} pixels wide; a model needs {2 * _LEAST:.0f}: take denoising='default'."
        )
    inner = [_inner_disc(mask, radius) for mask in masks]
    images = series["images"].values.astype(np.float64)
    measured = np.mean([_texture(image, disc) for image, disc in zip(images, inner, strict=True)])
    level = np.mean([image[disc].mean() for image, disc in zip(images, inner, strict=True)])
    beneath = float(np.mean(series["background"].values[masks]))

    axis = centred_coordinates(2 * (int(np.ceil(radius)) + _AROUND), size)
    positions = make_atoms(2.0 * radius * size)["position"].values
    disc = np.hypot(*np.meshgrid(axis, axis, indexing="ij")) < 0.5 * radius * size

    def views(sigma: float) -> np.ndarray:
        return project_atoms(positions, _ANGLES, sigmas=sigma, x=axis, y=axis, pixel_size=size)

    textures = [_texture(views(sigma)[0], disc) for sigma in _SIGMAS]  # falls as the atoms widen
    sigma = float(np.exp(np.interp(np.log(measured), np.log(textures[::-1]), np.log(_SIGMAS[::-1]))))
    model = views(sigma)
    model *= level / model[:, disc].mean()
    return xr.Dataset(
        {"images": (("model_tilt", "model_y", "model_x"), model + beneath, {"units": "1"})},
        attrs={"model_diameter_A": 2.0 * radius * size, "model_sigma_A": sigma},
    )


def _inner_disc(mask: np.ndarray, radius: float) -> np.ndarray:
    """Pixels within half the radius of the mask's middle."""
    y, x = ndimage.center_of_mass(mask)
    rows, columns = np.indices(mask.shape)
    return np.asarray(np.hypot(rows - y, columns - x) < 0.5 * radius)


def _texture(image: np.ndarray, where: np.ndarray) -> float:
    """Rms of the finest details over that of those twice as coarse."""
    once, twice = (ndimage.gaussian_filter(image, s) for s in (_FINE, 2 * _FINE))
    return float((image - once)[where].std() / (once - twice)[where].std())
