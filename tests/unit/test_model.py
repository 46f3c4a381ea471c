from __future__ import annotations

import functools

import numpy as np
import pytest
import xarray as xr

from aetdist.errors import InputError
from aetdist.preprocess.model import _texture, model_particle
from aetdist.simulate import nanoparticle, simulate_tilt_series

PIXEL = 0.35
make_atoms = functools.partial(nanoparticle, seed=1)


def series_of(diameter: float, sigma: float, *, scale: float = 30.0, level: float = 12.0) -> xr.Dataset:
    """Noise-free images of a particle as the stage gives them."""
    made = simulate_tilt_series(
        nanoparticle(diameter, seed=7), [-40.0, 20.0], pixel_size=PIXEL, sigma=sigma, field=(140, 140), dose=None
    ).load()
    y, x = np.meshgrid(made["y"], made["x"], indexing="ij")
    mask = np.broadcast_to(np.hypot(y, x) < diameter / 2 + 4 * PIXEL, made["images"].shape)
    return made.assign(
        images=made["images"] * (scale / float(made["images"].max())),
        object_mask=(("tilt", "y", "x"), mask),
        background=(("tilt", "y", "x"), np.full(mask.shape, level)),
    )


@pytest.mark.parametrize(("diameter", "sigma"), [(24.0, 0.5), (30.0, 0.7)])
def test_model_particle__is_as_large_as_bright_and_as_sharp_as_the_measured_one(diameter, sigma):
    series = series_of(diameter, sigma)
    model = model_particle(series, make_atoms)
    assert model.attrs["model_diameter_A"] == pytest.approx(diameter, rel=0.05)
    assert model.attrs["model_sigma_A"] == pytest.approx(sigma, rel=0.35)  # the model knows nothing of the species
    images = model["images"].values
    y, x = np.indices(images.shape[1:]) - images.shape[1] // 2
    disc = np.hypot(y, x) < diameter / 4 / PIXEL
    around = slice(70 - images.shape[1] // 2, 70 - images.shape[1] // 2 + images.shape[1])
    measured = series["images"].values[:, around, around]
    assert _texture(images[0], disc) == pytest.approx(np.mean([_texture(image, disc) for image in measured]), rel=0.05)
    assert images[:, :4, :4] == pytest.approx(12.0)  # the background alone
    centre = images[:, images.shape[1] // 2 - 12 : images.shape[1] // 2 + 12, images.shape[2] // 2 - 12 :][:, :, :24]
    assert centre.mean() - 12.0 == pytest.approx(float(series["images"][:, 58:82, 58:82].mean()), rel=0.1)


def test_model_particle__refuses_what_it_cannot_be_like():
    with pytest.raises(InputError, match="pixel_size"):
        model_particle(series_of(24.0, 0.5).drop_vars("pixel_size"), make_atoms)
    with pytest.raises(InputError, match="pixels wide"):
        model_particle(series_of(6.0, 0.5), make_atoms)
