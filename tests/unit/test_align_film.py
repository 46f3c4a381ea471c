from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from aetdist.align.film import Pairs, chained_shifts, pair_shift, with_marker
from aetdist.align.film_fit import coherence, film_view
from aetdist.align.frame import checked_frame
from aetdist.align.marker import choose_marker, isolation
from aetdist.align.tilt_series import align_tilt_series
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import centred_coordinates, euler_from_tilts, matrices_from_euler
from aetdist.geometry.conventions import rotate_tilt_axis
from aetdist.project.atoms import project_atoms

PIXEL, NY, NX = 0.35, 112, 144
TILTS = np.linspace(-48.0, 48.0, 17)


def film_atoms(*, island: bool = False, seed: int = 1) -> np.ndarray:
    """Atoms strewn in a slab of 14 Angstrom that goes on beyond the field; with an island in a hole, if asked."""
    random = np.random.default_rng(seed)
    atoms = random.uniform(-1, 1, (5600, 3)) * [75.0, 28.0, 7.0]
    if island:
        distance = np.hypot(atoms[:, 0] - 2.0, atoms[:, 1] + 3.0)
        atoms = atoms[(distance < 3.5) | (distance > 15.0)]
        extra = random.uniform(-1, 1, (60, 3)) * 3.0 + [2.0, -3.0, 0.0]
        atoms = np.concatenate([atoms, extra])
    return atoms


def images_of(atoms: np.ndarray, euler: np.ndarray, shift: np.ndarray, seed: int = 0) -> np.ndarray:
    """Exact projections, moved by `shift` (tilt, [y, x]) pixels, with the noise of counted electrons."""
    y, x = centred_coordinates(NY, PIXEL), centred_coordinates(NX, PIXEL)
    images = np.concatenate(
        [
            project_atoms(atoms, euler[t : t + 1], sigmas=0.6, x=x - s[1] * PIXEL, y=y - s[0] * PIXEL, pixel_size=PIXEL)
            for t, s in enumerate(shift)
        ]
    )
    counts = 0.05 * 1.7e4 * PIXEL**2 / images.mean()
    return np.random.default_rng(seed).poisson(images * counts) / counts


def as_series(images: np.ndarray, euler: np.ndarray, mask: np.ndarray | None = None) -> xr.Dataset:
    n, ny, nx = images.shape
    return xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool) if mask is None else mask),
            "angles": (("tilt", "euler"), euler),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(euler)),
            "pixel_size": ((), PIXEL),
        },
        coords={
            "tilt": np.arange(n),
            "y": centred_coordinates(ny, PIXEL),
            "x": centred_coordinates(nx, PIXEL),
            "euler": ["phi", "theta", "psi"],
        },
    )


def errors(found: xr.Dataset, shift: np.ndarray, axis: float) -> tuple[float, float]:
    """Rms errors along and across the axis, the film's overall translation taken away."""
    turn, angle = np.deg2rad(axis), np.deg2rad(TILTS)
    off = found["shift"].values - shift
    along = off @ [np.cos(turn), -np.sin(turn)]
    across = off @ [np.sin(turn), np.cos(turn)]
    path = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    across = across - path @ np.linalg.lstsq(path, across, rcond=None)[0]
    return float(along.std()), float(np.sqrt((across**2).mean()))


@pytest.fixture(scope="module")
def shift() -> np.ndarray:
    return np.random.default_rng(3).uniform(-10, 10, (len(TILTS), 2))


@pytest.fixture(scope="module")
def moved(shift: np.ndarray) -> xr.Dataset:
    euler = rotate_tilt_axis(euler_from_tilts(TILTS), -1.5)
    return as_series(images_of(film_atoms(), euler, shift), euler_from_tilts(TILTS))


@pytest.fixture(scope="module")
def found(moved: xr.Dataset) -> xr.Dataset:
    return align_tilt_series(moved, kind="film")


def test_film__shifts_and_axis(found: xr.Dataset, shift: np.ndarray) -> None:
    along, across = errors(found, shift, -1.5)
    assert along < 0.3 and across < 0.6
    assert abs(float(found["tilt_axis"]) + 1.5) < max(0.1, 3 * float(found["tilt_axis_uncertainty"]))
    assert float(found["tilt_axis_uncertainty"]) < 0.3
    assert not found.attrs["already_aligned"] and found["used"].all()


def test_film__the_lowest_tilt_stays(found: xr.Dataset) -> None:
    assert np.array_equal(found["shift"].values[np.argmin(np.abs(TILTS))], [0.0, 0.0])


def test_film__aligned_already() -> None:
    euler = euler_from_tilts(TILTS)
    atoms = film_atoms() + np.array([0.0, 0.0, 2.0])  # off the axis: the gauge, no misalignment
    series = as_series(images_of(atoms, euler, np.zeros((len(TILTS), 2))), euler)
    mask = np.ones(series["images"].shape, bool)
    for t in range(len(TILTS)):
        mask[t, :, : 2 * t // 5] = mask[t, : t % 4] = False
    series = as_series(np.where(mask, series["images"].values, 0.0), euler, mask)
    result = align_tilt_series(series, kind="film")
    assert result.attrs["already_aligned"]
    assert not result["shift"].values.any() and float(result["tilt_axis"]) == 0.0


def test_film__marker_is_found_and_followed(shift: np.ndarray) -> None:
    euler = euler_from_tilts(TILTS)
    images = images_of(film_atoms(island=True), euler, shift)
    lowest = int(np.argmin(np.abs(TILTS)))
    window = choose_marker(images[lowest], 0.0)
    assert window is not None
    assert abs(window.y - (NY // 2 - 3.0 / PIXEL + shift[lowest, 0])) < 4
    assert abs(window.x - (NX // 2 + 2.0 / PIXEL + shift[lowest, 1])) < 4
    assert isolation(images[lowest], window) < 0.3
    given = (window.y - window.half_y, window.y + window.half_y, window.x - window.half_x, window.x + window.half_x)
    for marker in ("auto", given):
        result = align_tilt_series(as_series(images, euler), kind="film", marker=marker, find_axis=False)
        along, across = errors(result, shift, 0.0)
        assert along < 0.3 and across < 0.6
        assert np.isfinite(result["quality"].sel(measure="common_line_residual").values).sum() > len(TILTS) / 2


def test_choose_marker__none_in_a_filled_field(moved: xr.Dataset) -> None:
    assert choose_marker(moved["images"].values[8], 0.0) is None


def test_film__bad_tilt_and_excluded(moved: xr.Dataset, shift: np.ndarray) -> None:
    images = moved["images"].values.copy()
    images[6] = images[6][::-1, ::-1]
    series = moved.assign(images=moved["images"].copy(data=images))
    with pytest.warns(AetdistWarning, match="Tilt .*6 .*stands out"):
        assert not align_tilt_series(series, kind="film", find_axis=False)["used"].values[6]
    result = align_tilt_series(series, kind="film", exclude=[6], find_axis=False)
    assert np.flatnonzero(~result["used"].values).tolist() == [6]
    assert np.isfinite(result["shift"].values).all()


@pytest.mark.parametrize(
    ("marker", "said"),
    [((0, 10, 150, 200), "does not lie in the field"), ((9, 9, 4, 5), "does not lie"), ((1, 2), "first row")],
)
def test_film__bad_marker(moved: xr.Dataset, marker: tuple, said: str) -> None:
    with pytest.raises(InputError, match=said):
        align_tilt_series(moved, kind="film", marker=marker)


def test_pair_shift__stretch_and_shift() -> None:
    euler = euler_from_tilts(np.array([20.0, 26.0]))
    atoms = film_atoms() * [1.0, 1.0, 0.0]
    images = images_of(atoms, euler, np.array([[0.0, 0.0], [2.3, -4.6]]))
    ratio = np.cos(np.deg2rad(26.0)) / np.cos(np.deg2rad(20.0))
    row = pair_shift(images[0], images[1], ratio=float(ratio), axis=0.0, centre=(0.0, 0.0), maximum_shift=20.0)
    np.testing.assert_allclose(row[:2], [2.3, -4.6], atol=0.05)
    assert row[2] > 0.8


def test_pair_shift__nothing_in_common() -> None:
    image = np.random.default_rng(0).random((60, 60))
    row = pair_shift(image, np.full((60, 60), np.nan), ratio=1.0, axis=0.0, centre=(0.0, 0.0), maximum_shift=5.0)
    assert np.isnan(row).all()


def test_chained_shifts__follow_from_neighbours() -> None:
    truth = np.stack([np.arange(6.0), -2 * np.arange(6.0)], axis=1)
    first, second, ratio = np.array([1, 2, 2, 3, 4]), np.array([0, 1, 3, 4, 5]), np.full(5, 0.9)
    measured = truth[second] - np.stack([np.ones(5), ratio], axis=1) * truth[first]
    pairs = Pairs(first, second, ratio, measured, np.ones(5))
    np.testing.assert_allclose(chained_shifts(pairs, 6, 2), truth - [2.0, 0.0] - np.outer(ratios(), [0.0, -4.0]))
    measured[4] = np.nan
    assert np.isnan(chained_shifts(pairs, 6, 2)).any(axis=1).tolist() == [False] * 5 + [True]


def ratios() -> np.ndarray:
    """Stretch of tilts 0 to 5 from tilt 2, each 0.9 of the one nearer to it."""
    return 0.9 ** np.array([2.0, 1.0, 0.0, 1.0, 2.0, 3.0])


def test_with_marker__weighs_film_and_marker() -> None:
    n = 5
    path = np.stack([np.cos(np.linspace(-1, 1, n)), -np.sin(np.linspace(-1, 1, n))], axis=1)
    free = np.eye(n) - np.full((n, n), 1 / n)  # the film says nothing of the mean
    basis = np.linalg.qr(path)[0]
    information = np.zeros((2 * n, 2 * n))
    information[:n, :n], information[n:, n:] = free, np.eye(n) - basis @ basis.T
    off = np.array([0.0, 0.0, 1.0, 0.0, 0.0])
    centre = np.stack([off + 7.0, off + path @ [3.0, -2.0]], axis=1)
    for spread, share in ((1e-3, 1.0), (1.0, 0.5), (1e3, 0.0)):
        shift, deviation = with_marker(np.zeros((n, 2)), information, (centre, np.full((n, 2), spread), path))
        np.testing.assert_allclose(shift[:, 0] - shift[:, 0].mean(), share * (off - off.mean()), atol=1e-4)
        left = shift[:, 1] - basis @ (basis.T @ shift[:, 1])
        np.testing.assert_allclose(left, share * (off - basis @ (basis.T @ off)), atol=1e-4)
        assert np.isfinite(deviation).all()


def test_coherence__of_thin_and_thick_films() -> None:
    q, lean = np.array([0.0, 0.05, 0.1]), np.tan(np.deg2rad(np.array([-40.0, 0.0, 50.0, 55.0])))
    thin = coherence(q, lean, edge=4000, thickness=1e-3, drift=0.0)
    np.testing.assert_allclose(thin, 1.0, atol=1e-5)
    thick = coherence(q, lean, edge=4000, thickness=30.0, drift=0.0, layers=200)
    apart = np.abs(lean[:, None] - lean)
    np.testing.assert_allclose(thick, np.sinc(q[:, None, None] * 30.0 * apart), atol=0.01)
    drifting = coherence(q, lean, edge=4000, thickness=1e-3, drift=2.0)
    assert drifting[1, 0, 1] > drifting[1, 0, 2] > drifting[1, 0, 3] and drifting[0].min() > 0.999
    narrow = coherence(q, lean, edge=40, thickness=30.0, drift=0.0)
    assert (np.linalg.eigvalsh(narrow) > -1e-9).all() and narrow[0, 0, 3] < 0.9


def test_film_view__is_what_the_angles_say(moved: xr.Dataset) -> None:
    euler = rotate_tilt_axis(euler_from_tilts(TILTS) + np.array([0.3, 0.0, -0.2]), 20.0)
    frame = checked_frame(moved.assign(angles=(("tilt", "euler"), euler)), "film", 20.0, 3.0)
    turn = np.deg2rad(frame.axis)
    to_image = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # (y, x) of along, across
    stretch, lean = film_view(frame.turns, 0.0, 0.1)
    place, height = np.array([13.0, -40.0]), 5.0
    seen = np.einsum("ij,tjk,tk->ti", to_image, stretch, place + height * lean)
    lowest = int(np.argmin(np.abs(TILTS)))
    matrices = matrices_from_euler(euler)
    y, x = to_image @ place
    sample = matrices[lowest].T @ np.array([x, y, 0.1 * place[1] + height])  # the lowest tilt is at 0 degrees
    np.testing.assert_allclose(seen, (matrices @ sample)[:, [1, 0]], atol=0.1)


@pytest.mark.parametrize(("shift_rms", "axis"), [(0.5, 0.0), (0.0, 1.0)])
def test_film__a_little_off_is_not_aligned(shift_rms: float, axis: float) -> None:
    euler = euler_from_tilts(TILTS)
    moves = np.random.default_rng(8).normal(0.0, 1.0, (len(TILTS), 2)) * shift_rms
    series = as_series(images_of(film_atoms(), rotate_tilt_axis(euler, axis), moves), euler)
    assert not align_tilt_series(series, kind="film").attrs["already_aligned"]


def test_film__too_small_a_field() -> None:
    euler = euler_from_tilts(TILTS)
    images = images_of(film_atoms(), euler, np.zeros((len(TILTS), 2)))[:, :20, :20]
    with pytest.raises(InputError, match="seen in three tilts"):
        align_tilt_series(as_series(images, euler), kind="film")


@pytest.mark.parametrize("chunks", [(1, 30, 144), (5, 112, 50), (17, 112, 144)])
def test_film__chunks_change_nothing(moved: xr.Dataset, found: xr.Dataset, chunks: tuple[int, ...]) -> None:
    again = align_tilt_series(moved.chunk(dict(zip(("tilt", "y", "x"), chunks, strict=True))), kind="film")
    assert np.array_equal(again["shift"].values, found["shift"].values)
    assert float(again["tilt_axis"]) == float(found["tilt_axis"])


def test_film__thick_film(shift: np.ndarray) -> None:
    euler = euler_from_tilts(TILTS)
    atoms = np.random.default_rng(5).uniform(-1, 1, (14000, 3)) * [75.0, 28.0, 17.5]
    result = align_tilt_series(as_series(images_of(atoms, euler, shift), euler), kind="film", find_axis=False)
    along, across = errors(result, shift, 0.0)
    assert along < 0.3 and across < 1.0
    assert across < 1.5 * 3.0 * np.sqrt((result["shift_uncertainty"].values[:, 1] ** 2).mean())


def test_film__published_series_is_aligned(data_folder) -> None:
    import h5py

    with h5py.File(data_folder / "ta_film_fov_A.h5") as file:
        stored, chosen = file["images"], slice(14, 35, 2)
        mask = file["mask"][chosen]
        images = stored[chosen] * stored.attrs["scale_factor"] + stored.attrs["add_offset"]
        angles = file["angles_deg"][chosen].astype(np.float64)
        y, x = file["y_pix"][:] * 0.3216, file["x_pix"][:] * 0.3216
    series = as_series(np.where(mask, images, 0.0), angles, mask).assign_coords(y=y, x=x)
    assert align_tilt_series(series, kind="film", find_axis=False).attrs["already_aligned"]
