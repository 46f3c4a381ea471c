from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.preprocess.background import (
    film_background,
    particle_background,
    subtract_background,
    warn_of_lost_objects,
)
from aetdist.preprocess.laplace import solve_laplace
from aetdist.preprocess.object_mask import object_mask_of, otsu_threshold

N = 128


@pytest.fixture(scope="module")
def grid() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1.0, 1.0, N)
    return tuple(np.meshgrid(axis, axis, indexing="ij"))  # type: ignore[return-value]


def ball(grid: tuple[np.ndarray, np.ndarray], radius: float = 0.5, x: float = 0.0) -> np.ndarray:
    return 2.0 * np.sqrt(np.maximum(radius**2 - grid[0] ** 2 - (grid[1] - x) ** 2, 0.0)) / radius


def noisy(image: np.ndarray, counts: float = 100.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(image * counts) / counts


def as_series(images: np.ndarray, mask: np.ndarray | None = None) -> xr.Dataset:
    n, ny, nx = images.shape
    angles = euler_from_tilts(np.linspace(-30, 30, n))
    return xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool) if mask is None else mask),
            "angles": (("tilt", "euler"), angles),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(angles)),
            "pixel_size": ((), 0.35),
        },
        coords={
            "tilt": np.arange(n),
            "y": centred_coordinates(ny, 0.35),
            "x": centred_coordinates(nx, 0.35),
            "euler": ["phi", "theta", "psi"],
        },
    ).chunk({"tilt": 1})


def test_laplace__harmonic(grid: tuple[np.ndarray, np.ndarray]) -> None:
    y, x = grid
    harmonic = x**2 - y**2 + 3 * x - y
    inside = (x - 0.1) ** 2 + 2 * y**2 < 0.5
    solved = solve_laplace(np.where(inside, 0, harmonic), inside, ~inside)
    assert np.abs(solved - harmonic).max() < 0.01
    assert np.array_equal(solved[~inside], harmonic[~inside])


def test_laplace__no_gradient_through_what_is_neither(grid: tuple[np.ndarray, np.ndarray]) -> None:
    inside = np.abs(grid[1]) < 0.5
    known = grid[1] <= -0.5  # beyond the other side nothing is known
    solved = solve_laplace(np.where(known, 7.0, 0.0), inside, known)
    assert np.abs(solved[inside] - 7.0).max() < 1e-6


def test_otsu__two_levels() -> None:
    values = np.concatenate([np.full(100, 1.0), np.full(30, 9.0)])
    assert 1.0 < otsu_threshold(values) < 9.0


@pytest.mark.parametrize("shape", ["flat", "plane", "bent"])
def test_particle_background__within_two_percent(grid: tuple[np.ndarray, np.ndarray], shape: str) -> None:
    y, x = grid
    under = {"flat": 0 * x + 1, "plane": 1 + 0.4 * x - 0.2 * y, "bent": 1 + 0.3 * x + 0.3 * np.cos(2 * x) * np.sin(y)}
    background, clean = 0.3 * under[shape], ball(grid)
    found = particle_background(noisy(clean + background), np.ones((N, N), bool))
    inside = found.object_mask
    assert clean[~inside].sum() < 1e-3 * clean.sum()  # the object is in the mask
    assert inside.mean() < 1.5 * (clean > 0).mean()  # which is only slightly larger
    error = (found.background - background)[inside]
    assert np.sqrt((error**2).mean()) < 0.02 * clean[clean > 0].mean()
    assert not found.leaves_field


def test_particle_background__unmeasured_pixels_do_not_count(grid: tuple[np.ndarray, np.ndarray]) -> None:
    image = noisy(ball(grid) + 0.3)
    measured = np.ones((N, N), bool)
    measured[:, :9] = measured[-5:] = False
    spoilt = np.where(measured, image, 1e6)
    kept, also = (particle_background(a, measured) for a in (np.where(measured, image, 0.0), spoilt))
    assert np.array_equal(kept.background, also.background)
    assert np.abs(kept.background[kept.object_mask] - 0.3).max() < 0.05


def test_particle_background__reprojection_sees_behind_the_object(grid: tuple[np.ndarray, np.ndarray]) -> None:
    y, x = grid
    bump = 0.4 * np.exp(-(x**2 + y**2) / 0.1)  # no rim shows it
    image = noisy(ball(grid) + 0.3 + bump)
    measured = np.ones((N, N), bool)
    blind = particle_background(image, measured)
    seeing = particle_background(image, measured, reprojection=ball(grid), reprojection_smoothing=5.0)
    inside = blind.object_mask
    wrong = [np.abs(b.background - 0.3 - bump)[inside].mean() for b in (blind, seeing)]
    assert wrong[1] < 0.15 * wrong[0]


def test_object_mask__largest_object(grid: tuple[np.ndarray, np.ndarray]) -> None:
    speck = (grid[0] + 0.85) ** 2 + (grid[1] + 0.85) ** 2 < 0.004
    mask = object_mask_of(noisy(ball(grid) + 0.2 + 2 * speck), np.ones((N, N), bool))
    assert not (mask & speck).any()


def film_of(grid: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.maximum(np.cos(9 * grid[0] + 1) * np.cos(7 * grid[1]) + 0.3, 0.0)


@pytest.mark.parametrize("surface", ["constant", "plane", "quadratic"])
def test_film_background__simplest_surface(grid: tuple[np.ndarray, np.ndarray], surface: str) -> None:
    y, x = grid
    terms = {"constant": 0 * x, "plane": 0.3 * x - 0.2 * y, "quadratic": 0.3 * x - 0.4 * y**2}
    background = 1.0 + terms[surface]
    found, chosen = film_background(noisy(film_of(grid) + background), np.ones((N, N), bool))
    assert chosen == surface
    assert np.sqrt(((found - background) ** 2).mean()) < 0.02


@pytest.mark.parametrize("radius", [0.25, 0.0])
def test_film_background__small_hole_or_none(grid: tuple[np.ndarray, np.ndarray], radius: float) -> None:
    """A hole of 5 % of the field is found; without one the film is not taken for its background."""
    y, x = grid
    random = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(random.normal(size=x.shape), 2.0)
    film = (8.0 + 1.5 * x - y**2) * np.maximum(1.0 + 2.5 * texture, 0.3) * (np.hypot(x - 0.3, y + 0.2) >= radius)
    found, chosen = film_background(noisy(film + 1.0), np.ones((N, N), bool))
    if radius:
        assert np.abs(found - 1.0).max() < 0.1
    else:
        assert chosen == "constant" and np.ptp(found) < 1e-6
        assert found.max() < np.quantile(film + 1.0, 0.1)


def test_subtract_background__lazy_and_named(grid: tuple[np.ndarray, np.ndarray], no_compute: None) -> None:
    lazy = subtract_background(as_series(np.stack([ball(grid)] * 3)))
    assert lazy["images"].data.numblocks == (3, 1, 1)
    assert {"background", "object_mask", "object_leaves_field"} <= set(lazy)


def test_subtract_background__images(grid: tuple[np.ndarray, np.ndarray]) -> None:
    images = np.stack([noisy(ball(grid) + 0.3, seed=s) for s in range(2)])
    done = subtract_background(as_series(images)).compute(scheduler="sync")
    inside = done["object_mask"].values
    assert (done["images"].values[~inside] == 0).all()
    expected = (images - done["background"].values)[inside]
    np.testing.assert_allclose(done["images"].values[inside], expected, atol=1e-5)
    assert not done["object_leaves_field"].any()


def test_subtract_background__given_mask(grid: tuple[np.ndarray, np.ndarray]) -> None:
    given = (np.abs(grid[0]) < 0.7) & (np.abs(grid[1]) < 0.7)
    done = subtract_background(as_series(noisy(ball(grid) + 0.3)[None]), mask=given).compute(scheduler="sync")
    assert np.array_equal(done["object_mask"].values[0], given)


def test_subtract_background__film(grid: tuple[np.ndarray, np.ndarray]) -> None:
    mask = np.ones((1, N, N), bool)
    mask[:, :, -20:] = False
    done = subtract_background(as_series((film_of(grid) + 0.5)[None], mask), kind="film").compute(scheduler="sync")
    assert np.array_equal(done["object_mask"].values, mask)
    assert (done["images"].values[~mask] == 0).all()
    assert "film" in done.attrs["background_assumes"]


def test_subtract_background__object_leaves_the_field(grid: tuple[np.ndarray, np.ndarray]) -> None:
    images = np.stack([noisy(ball(grid, x=x) + 0.3) for x in (0.0, 0.75, 0.0)])
    done = subtract_background(as_series(images))
    with pytest.warns(AetdistWarning, match=r"leaves the field in tilt 1 \(0.0 degrees\)"):
        warn_of_lost_objects(done)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"kind": "foil"}, "kind"),
        ({"surface": "cubic"}, "surface"),
        ({"smoothing": 0.0}, "smoothing"),
        ({"margin": -1.0}, "margin"),
        ({"mask": np.ones((3, 3), bool)}, "mask came with shape"),
        ({"mask": np.ones((N, N))}, "needed is bool"),
        ({"kind": "film", "mask": np.ones((N, N), bool)}, "no object mask"),
        ({"reprojections": np.ones((2, 3))}, "reprojections came with shape"),
    ],
)
def test_subtract_background__bad_option(grid: tuple[np.ndarray, np.ndarray], keywords: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        subtract_background(as_series(ball(grid)[None]), **keywords)


@pytest.mark.parametrize("kind", ["particle", "film"])
def test_subtract_background__blank_or_unmeasured(grid: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    images = np.stack([ball(grid), np.full((N, N), 3.0)])
    with pytest.raises(InputError, match=r"tilt 1.*blank"):
        subtract_background(as_series(images), kind=kind).compute(scheduler="sync")
    mask = np.ones(images.shape, bool)
    mask[0] = False
    unmeasured = subtract_background(as_series(images, mask), kind=kind).isel(tilt=[0]).compute(scheduler="sync")
    for name in ("images", "background", "object_mask", "object_leaves_field"):
        assert not unmeasured[name].any()


def test_particle_background__object_everywhere(grid: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InputError, match="fills what was measured"):
        particle_background(ball(grid), np.ones((N, N), bool), mask=np.ones((N, N), bool))
