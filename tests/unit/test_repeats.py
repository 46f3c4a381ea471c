from __future__ import annotations

import numpy as np
import pytest

from aetdist.align.repeats import compare_in_series, compare_repeated_tilts, repeated_tilts
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import centred_coordinates
from aetdist.project.atoms import project_atoms

N, PIXEL = 96, 0.35
MOMENTS = ("before", "during", "after")


def image_of(shift: tuple[float, float] = (0.0, 0.0), *, moved: float = 0.0, seed: int = 0) -> np.ndarray:
    """Image of strewn atoms, shifted by [y, x] pixels; `moved`: Angstrom by which the beam has moved each atom."""
    random = np.random.default_rng(5)
    atoms = random.uniform(-11, 11, (700, 3))
    atoms += moved * random.normal(size=atoms.shape)
    axis = centred_coordinates(N, PIXEL)
    y, x = axis - shift[0] * PIXEL, axis - shift[1] * PIXEL
    image = project_atoms(atoms, [[0.0, 0.0, 0.0]], sigmas=0.6, x=x, y=y, pixel_size=PIXEL)[0]
    counts = 400.0 / image.mean()
    return np.random.default_rng(seed).poisson(image * counts) / counts


def test_repeats__same_sample() -> None:
    found = compare_repeated_tilts(
        [image_of(), 1.1 * image_of((3.4, -2.2), seed=1), image_of((-1.0, 5.0), seed=2)], names=MOMENTS
    )
    assert found["pair"].values.tolist() == ["before-during", "before-after", "during-after"]
    np.testing.assert_allclose(found["shift"].values, [[3.4, -2.2], [-1.0, 5.0], [-4.4, 7.2]], atol=0.1)
    assert (found["correlation"].values > 0.97).all() and (found["r_factor"].values < 0.1).all()
    np.testing.assert_allclose(found["scale"].values, [1 / 1.1, 1.0, 1.1], atol=0.02)
    assert not found["flagged"].any()


def test_repeats__damage_is_flagged() -> None:
    with pytest.warns(AetdistWarning, match=r"before-after .*during-after"):
        found = compare_repeated_tilts([image_of(), image_of(seed=1), image_of(moved=1.0, seed=2)], names=MOMENTS)
    assert found["flagged"].values.tolist() == [False, True, True]


def test_repeats__unmeasured_pixels() -> None:
    spoilt = image_of((2.0, 1.0), seed=1)
    spoilt[:, :10] = np.nan
    found = compare_repeated_tilts([image_of(), spoilt, image_of(seed=2)])
    np.testing.assert_allclose(found["shift"].values[0], [2.0, 1.0], atol=0.1)


@pytest.mark.parametrize(
    ("during", "said"),
    [(np.ones((4, 4)), "Image during has shape"), (np.ones((N, N)), "before-during"), (np.ones(3), "shape")],
)
def test_repeats__bad_image(during: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        compare_repeated_tilts([image_of(), during, image_of()], names=MOMENTS)


def test_repeats__bad_option() -> None:
    with pytest.raises(InputError, match="maximum_shift"):
        compare_repeated_tilts([image_of(), image_of()], maximum_shift=0.0)


def test_repeats__one_image_is_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="1 images came"):
        compare_repeated_tilts([image_of()])


def test_repeats__tilts_of_the_same_angles() -> None:
    angles = np.zeros((6, 3))
    angles[:, 1] = [0.02, -30.0, 30.0, 0.0, -30.04, 1.0]
    assert repeated_tilts(angles) == [(0, 3), (1, 4)]
    angles[4, 0] = 5.0  # another axis
    assert repeated_tilts(angles) == [(0, 3)]


def test_repeats__pairs_of_a_series_by_their_numbers() -> None:
    images = np.stack([image_of(), image_of((6.0, 0.0)), image_of(moved=1.0, seed=2), image_of((0.0, 4.0), seed=3)])
    with pytest.warns(AetdistWarning, match=r"10-30 .*, 30-40 "):
        found = compare_in_series(images, np.array([10, 20, 30, 40]), [(0, 2, 3)], maximum_shift=10.0)
    assert found["repeat_tilts"].values.tolist() == [[10, 30], [10, 40], [30, 40]]
    assert found["repeat_flagged"].values.tolist() == [True, False, True]
    np.testing.assert_allclose(found["repeat_shift"].values[1], [0.0, 4.0], atol=0.1)
    assert not compare_in_series(images, np.arange(4), [], 10.0)
