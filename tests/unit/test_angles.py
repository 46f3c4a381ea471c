"""Angles and shifts against the reprojections: models, least squares, scan, what is pinned, what is flagged."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from aetdist.angles import apply_refinement, refine_angles
from aetdist.angles import atoms as atoms_module
from aetdist.angles.atoms import atomic_model, find_atoms
from aetdist.angles.flags import unlike_the_others
from aetdist.angles.least_squares import fit_tilts
from aetdist.angles.level import Level
from aetdist.angles.model import kernel_memory, model_in_memory, model_in_slabs
from aetdist.angles.search import scan_rotations
from aetdist.angles.tilt_series import rotation_between
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import ParallelGeometry, euler_from_matrices, matrices_from_euler
from aetdist.geometry.gauge import remove_common_motion
from aetdist.project import ParallelProjector
from aetdist.project.atoms import project_atoms, render_atoms
from aetdist.schema import EULER, TILT_SERIES, with_units

N, SIZE, SIGMA = 56, 0.4, 0.65  # voxels; Angstrom
X = (np.arange(N) - N // 2) * SIZE
TILTS = np.linspace(-65.0, 65.0, 15)


@pytest.fixture(scope="module")
def atoms() -> np.ndarray:
    """Atoms of a ball, no two nearer than 2 Angstrom."""
    random = np.random.default_rng(4)
    kept: list[np.ndarray] = []
    while len(kept) < 110:
        p = random.uniform(-7.5, 7.5, 3)
        if np.linalg.norm(p) < 7.5 and all(np.linalg.norm(p - q) > 2.0 for q in kept):
            kept.append(p)
    return np.array(kept)


@pytest.fixture(scope="module")
def volume(atoms: np.ndarray) -> xr.DataArray:
    density = render_atoms(atoms, sigmas=SIGMA, x=X, y=X, z=X, pixel_size=SIZE)
    return xr.DataArray(density, dims=("z", "y", "x"), coords={"z": X, "y": X, "x": X}, name="density")


def exact_series(atoms: np.ndarray, angles: np.ndarray, shifts: np.ndarray, noise: float = 0.0) -> xr.Dataset:
    """Images of the atoms at these angles, moved by shifts (tilt, [y, x]) in pixels; no voxels involved."""
    images = np.concatenate(
        [
            project_atoms(
                atoms, angles[[t]], sigmas=SIGMA, x=X - shifts[t, 1] * SIZE, y=X - shifts[t, 0] * SIZE, pixel_size=SIZE
            )
            for t in range(len(angles))
        ]
    )
    images += np.random.default_rng(0).normal(0.0, noise * images.mean() + 1e-12, images.shape)
    series = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), images.astype(np.float32)),
            "mask": (("tilt", "y", "x"), np.ones(images.shape, bool)),
            "angles": (("tilt", "euler"), np.array(angles)),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(angles)),
            "pixel_size": ((), SIZE),
        },
        {"tilt": np.arange(len(angles)), "y": X, "x": X, "euler": list(EULER)},
    )
    return with_units(series, TILT_SERIES)


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    """True angles and shifts; the sample as a whole is where it should be."""
    random = np.random.default_rng(7)
    angles = np.stack([random.normal(0, 0.4, 15), TILTS + random.normal(0, 0.4, 15), random.normal(0, 0.4, 15)], 1)
    return angles, random.uniform(-1.5, 1.5, (15, 2))


@pytest.fixture(scope="module")
def series(atoms: np.ndarray, truth: tuple[np.ndarray, np.ndarray]) -> xr.Dataset:
    """Noisy images at the true angles, called by the nominal ones."""
    made = exact_series(atoms, *truth, noise=0.05)
    made["angles"][:] = np.outer(TILTS, [0.0, 1.0, 0.0])
    return made


def errors(found: xr.Dataset, truth: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Largest rotation in degrees and shift in pixels beyond those that all tilts share."""
    true = matrices_from_euler(truth[0])
    turned, left = remove_common_motion(
        matrices_from_euler(found["angles"].values), found["shift"].values - truth[1], true
    )
    return float(np.abs(rotation_between(true, turned)).max()), float(np.abs(left).max())


def model_of(volume: xr.DataArray):
    return model_in_memory(kernel_memory(volume.values), (-(N // 2),) * 3, (N, N), (-(N // 2), -(N // 2)))


# -- predictions -------------------------------------------------------------------------------------


def test_model__slabs_add_up_to_the_whole(volume: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aetdist.angles.model._SLAB_BYTES", 4 * N * N * 9)
    lazy = model_in_slabs(volume.chunk(y=13), (N, N), (-(N // 2), -(N // 2)))
    assert len(lazy.edges) > 6
    matrices, shifts = matrices_from_euler([[2.0, 40.0, -3.0], [0.0, -70.0, 1.0]]), np.array([[0.3, -1.2], [0.0, 2.0]])
    for whole, parts in zip(model_of(volume).predict(matrices, shifts), lazy.predict(matrices, shifts), strict=True):
        assert np.abs(whole - parts).max() <= 2e-5 * np.abs(whole).max()


def test_level__sees_what_the_blocks_of_the_images_see(volume: xr.DataArray) -> None:
    matrices = matrices_from_euler([[1.0, 30.0, 2.0]])
    fine = ParallelGeometry.centred(matrices, (N, N, N), (N, N))
    image = ParallelProjector(fine).forward(volume.values)
    level = Level.of(image, np.ones(image.shape, bool), fine, 2)
    coarse = volume.values.reshape(N // 2, 2, N // 2, 2, N // 2, 2).mean(axis=(1, 3, 5))
    seen = ParallelProjector(level.geometry(matrices, np.zeros((1, 2)))).forward(coarse.astype(np.float32))
    assert np.abs(2 * seen - level.images).max() < 0.05 * level.images.max()
    moved = ParallelProjector(level.geometry(matrices, np.array([[2.0, -4.0]]))).forward(coarse.astype(np.float32))
    np.testing.assert_allclose(moved[0, 2:, :-3], seen[0, 1:-1, 2:-1], atol=0.03 * seen.max())


# -- the fit -----------------------------------------------------------------------------------------


def test_fit__finds_rotation_shift_and_brightness(atoms: np.ndarray, volume: xr.DataArray) -> None:
    angles, shift = np.array([[0.7, 33.0, -0.9]]), np.array([[0.8, -1.1]])
    series = exact_series(atoms, angles, shift)
    start = matrices_from_euler([[0.0, 32.0, 0.0]])
    fit = fit_tilts(
        model_of(volume), 3.0 * series["images"].values, series["mask"].values, start, np.zeros((1, 2)), iterations=20
    )
    assert fit.settled.all()
    assert np.abs(rotation_between(matrices_from_euler(angles), fit.matrices)).max() < 0.05
    assert np.abs(fit.shifts - shift).max() < 0.02
    assert fit.brightness[0] == pytest.approx(3.0, rel=0.01)
    assert fit.correlation[0, 1] > 0.999 > fit.correlation[0, 0]
    assert fit.r_factor[0, 1] < 0.05 < fit.r_factor[0, 0]


def test_fit__tilts_do_not_depend_on_each_other(series: xr.Dataset, volume: xr.DataArray) -> None:
    start = matrices_from_euler(series["angles"].values)
    images, masks, zero = series["images"].values, series["mask"].values, np.zeros((15, 2))
    together = fit_tilts(model_of(volume), images, masks, start, zero, iterations=6)
    alone = fit_tilts(model_of(volume), images[4:5], masks[4:5], start[4:5], zero[:1], iterations=6)
    np.testing.assert_array_equal(together.matrices[4], alone.matrices[0])
    np.testing.assert_array_equal(together.covariance[4], alone.covariance[0])


def test_fit__covariance_is_that_of_repeated_noise(atoms: np.ndarray, volume: xr.DataArray) -> None:
    angles, shift = np.array([[0.0, 20.0, 0.0]]), np.zeros((1, 2))
    clean = ParallelProjector(ParallelGeometry.centred(matrices_from_euler(angles), (N, N, N), (N, N))).forward(
        volume.values
    )
    found, claimed = [], []
    for seed in range(30):
        noisy = (clean + np.random.default_rng(seed).normal(0, 0.3 * clean.mean(), clean.shape)).astype(np.float32)
        fit = fit_tilts(
            model_of(volume), noisy, np.ones(noisy.shape, bool), matrices_from_euler(angles), shift, iterations=10
        )
        turned = rotation_between(matrices_from_euler(angles), fit.matrices)[0]
        found.append([*np.deg2rad(turned), *fit.shifts[0]])
        claimed.append(np.diag(fit.covariance[0]))
    ratio = np.std(found, axis=0) / np.sqrt(np.mean(claimed, axis=0))
    assert (np.abs(np.log(ratio)) < np.log(1.7)).all()


def test_scan__finds_what_least_squares_alone_does_not(atoms: np.ndarray, volume: xr.DataArray) -> None:
    angles, shift = np.array([[0.0, 36.0, 0.0]]), np.array([[3.0, -4.0]])
    series = exact_series(atoms, angles, shift)
    image, mask = series["images"].values[0], series["mask"].values[0]
    wrong = matrices_from_euler([[0.0, 8.0, 0.0]])
    alone = fit_tilts(model_of(volume), image[None], mask[None], wrong, np.zeros((1, 2)), iterations=20)
    assert np.linalg.norm(rotation_between(matrices_from_euler(angles), alone.matrices)) > 1
    matrix, moved = scan_rotations(
        model_of(volume), image, mask, wrong[0], np.zeros(2), search=30.0, increment=2.0, maximum_shift=8.0
    )
    fit = fit_tilts(model_of(volume), image[None], mask[None], matrix[None], moved[None], iterations=20)
    assert np.linalg.norm(rotation_between(matrices_from_euler(angles), fit.matrices)) < 0.1
    assert np.abs(fit.shifts - shift).max() < 0.05


# -- what is pinned, what is flagged -----------------------------------------------------------------


def test_remove_common_motion__takes_out_a_turn_and_a_shift_of_the_sample() -> None:
    references = matrices_from_euler(np.outer(TILTS, [0.1, 1.0, -0.05]))
    turn = Rotation.from_rotvec([0.01, -0.03, 0.02]).as_matrix()
    v = np.array([1.3, -0.4, 2.2])
    matrices = references @ turn
    turned, left = remove_common_motion(matrices, (matrices @ v)[:, [1, 0]], references)
    np.testing.assert_allclose(turned, references, atol=1e-12)
    np.testing.assert_allclose(left, 0.0, atol=1e-12)


def test_unlike_the_others__is_far_below_the_median() -> None:
    correlation = np.array([0.95, 0.96, 0.94, 0.95, 0.3, np.nan, 0.95])
    counted = np.array([True] * 6 + [False])
    np.testing.assert_array_equal(
        unlike_the_others(correlation, counted), [False, False, False, False, True, False, False]
    )


# -- atoms in place of a volume ----------------------------------------------------------------------


def test_find_atoms__finds_them_all_and_where_they_are(atoms: np.ndarray, volume: xr.DataArray) -> None:
    found = find_atoms(kernel_memory(volume.values))
    places = (found.positions[:, [2, 0, 1]] - N // 2) * SIZE  # memory is (y, z, x)
    distance = np.linalg.norm(places[:, None] - atoms, axis=2)
    assert len(places) == len(atoms)
    assert distance.min(axis=0).max() < 0.05
    assert found.width == pytest.approx(SIGMA / SIZE, rel=0.1)


def test_atomic_model__of_round_atoms_is_the_volume(volume: xr.DataArray) -> None:
    geometry = ParallelGeometry.centred(matrices_from_euler(np.outer(TILTS, [0, 1, 0])), (N, N, N), (N, N))
    memory = kernel_memory(volume.values)
    images = ParallelProjector(geometry).forward(volume.values)
    model = atomic_model(memory, geometry, images, np.ones(images.shape, bool))
    assert np.abs(model - memory).max() < 0.1 * memory.max()
    flat = np.zeros_like(memory)
    assert atomic_model(flat, geometry, images, np.ones(images.shape, bool)) is flat


def test_atomic_model__renders_the_widest_gaussians_once(volume: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time; with a constant background in every image, which is not in the atoms."""
    widths: list[float] = []
    add = atoms_module._add

    def counted(atoms: atoms_module.Atoms, factor: float, width: float, memory: np.ndarray) -> None:
        widths.append(width)
        add(atoms, factor, width, memory)

    geometry = ParallelGeometry.centred(matrices_from_euler(np.outer(TILTS, [0, 1, 0])), (N, N, N), (N, N))
    memory, images = kernel_memory(volume.values), ParallelProjector(geometry).forward(volume.values)
    monkeypatch.setattr(atoms_module, "_add", counted)
    model = atomic_model(memory, geometry, images + np.float32(0.3 * images.max()), np.ones(images.shape, bool))
    assert [widths.count(w) for w in atoms_module._WIDEST] == [1, 1]
    assert np.abs(model - memory).max() < 0.1 * memory.max()


def test_find_atoms__noise_of_small_voxels_is_no_atoms() -> None:
    """Five atoms in voxels of 0.1 Angstrom, each of them noisy: as many are found as in voxels of 0.3."""
    places = np.array([[0.0, 0.0, 0.0], [2.4, 0.0, 0.0], [0.0, 2.5, 0.3], [-2.4, 0.2, 0.0], [0.0, 0.0, -2.6]])
    for size in (0.1, 0.3):
        x = np.arange(-4.2, 4.2, size)
        density = render_atoms(places, sigmas=SIGMA, x=x, y=x, z=x, pixel_size=size)
        noisy = density + np.random.default_rng(0).normal(0.0, 0.1 * density.max(), density.shape)
        found = find_atoms(kernel_memory(noisy.astype(np.float32)), size)
        seen = found.positions[:, [2, 0, 1]] * size + x[0]  # memory is (y, z, x)
        assert len(seen) == len(places)
        assert np.linalg.norm(seen[:, None] - places, axis=2).min(axis=0).max() < 0.1
        assert found.width * size == pytest.approx(SIGMA, rel=0.2)


# -- the public function -----------------------------------------------------------------------------


def test_refine_angles__finds_the_true_ones(series: xr.Dataset, volume: xr.DataArray, truth) -> None:
    found = refine_angles(series, volume)
    rotation, shift = errors(found, truth)
    assert rotation < 0.16 and shift < 0.06  # without noise: 0.143
    true = matrices_from_euler(truth[0])
    turned, _ = remove_common_motion(found["matrices"].values, found["shift"].values - truth[1], true)
    assert np.sqrt((rotation_between(true, turned) ** 2).mean()) < 0.05
    assert found["used"].all() and (found["flags"] == "").all()
    assert (found["r_factor"].sel(moment="after") < found["r_factor"].sel(moment="before")).all()
    assert found["angles"].attrs["units"] == "degree" and found["shift"].attrs["units"] == "pixel"
    np.testing.assert_allclose(matrices_from_euler(found["angles"].values), found["matrices"], atol=1e-9)


def test_refine_angles__lazy_volume_and_series_give_the_same(
    series: xr.Dataset, volume: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = refine_angles(series, volume, search=0)
    monkeypatch.setattr("aetdist.angles.model._SLAB_BYTES", 4 * N * N * 15)
    for chunks in ({"y": 10}, {"z": 20, "x": 30}):
        lazy = refine_angles(series.chunk(tilt=1), volume.chunk(chunks), search=0)
        np.testing.assert_allclose(lazy["angles"], whole["angles"], atol=2e-3)
        np.testing.assert_allclose(lazy["shift"], whole["shift"], atol=2e-3)


def test_refine_angles__tilts_of_nothing_and_of_another_object_are_left_out(
    series: xr.Dataset, volume: xr.DataArray, truth
) -> None:
    spoilt = series.copy(deep=True)
    spoilt["images"][3] = 0.0
    spoilt["images"][8] = spoilt["images"].values[8][::-1, ::-1].T
    spoilt["mask"][11] = False
    with pytest.warns(AetdistWarning, match=r"3 \(nothing measured\), 8 \(unlike the reprojection\), 11"):
        found = refine_angles(spoilt, volume, search=0, exclude=[5])
    assert np.flatnonzero(~found["used"].values).tolist() == [3, 5, 8, 11]
    left = ~found["used"].values
    np.testing.assert_allclose(found["angles"].values[left], series["angles"].values[left], atol=1e-9)
    assert (found["shift"].values[left] == 0).all()
    true = matrices_from_euler(truth[0])
    turned, _ = remove_common_motion(
        matrices_from_euler(found["angles"].values), found["shift"].values - truth[1], true, used=~left
    )
    assert np.abs(rotation_between(true, turned)[~left]).max() < 0.2


def test_refine_angles__a_tilt_that_would_move_too_far_is_left_out(series: xr.Dataset, volume: xr.DataArray) -> None:
    moved = series.copy(deep=True)
    moved["images"][6] = np.roll(moved["images"].values[6], 5, axis=1)
    with pytest.warns(AetdistWarning, match=r"6 \(moved too far\)"):
        found = refine_angles(moved, volume, maximum_shift=3.0)
    assert not found["used"].values[6] and (found["shift"].values[6] == 0).all()
    np.testing.assert_allclose(found["angles"].values[6], series["angles"].values[6], atol=1e-9)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"search": -1.0}, "search came as -1"),
        ({"increment": 0.0}, "increment as 0"),
        ({"iterations": 0}, "iterations came as 0"),
        ({"maximum_angle": 0.0}, "maximum_angle came as 0"),
        ({"exclude": [99]}, "Tilt 99 to exclude does not exist"),
        ({"exclude": list(range(13))}, "2 of 15 tilts can be used"),
    ],
)
def test_refine_angles__refuses(series: xr.Dataset, volume: xr.DataArray, options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        refine_angles(series, volume, **options)


def test_refine_angles__refuses_a_volume_that_is_no_number(series: xr.Dataset, volume: xr.DataArray) -> None:
    for spoilt in (volume.where(volume["x"] < 3), volume.where(volume["x"] < 3).chunk(y=20)):
        with pytest.raises(InputError, match="holds NaN"):
            refine_angles(series, spoilt, search=0)


def test_refine_angles__refuses_voxels_of_another_size(series: xr.Dataset, volume: xr.DataArray) -> None:
    other = volume.assign_coords({axis: volume[axis] * 1.5 for axis in "zyx"})
    with pytest.raises(InputError, match=r"for pixels of 0\.4"):
        refine_angles(series, other)


def test_apply_refinement__shifts_are_those_of_alignment_and_refinement_together(series: xr.Dataset) -> None:
    n = series.sizes["tilt"]
    earlier, found = np.full((n, 2), 0.25), np.full((n, 2), -1.25)
    aligned = series.assign(shift=(("tilt", "axis"), earlier))
    angles = series["angles"].values + 0.1
    used = np.arange(n) != 2
    corrections = xr.Dataset(
        {
            "angles": (("tilt", "euler"), angles),
            "shift": (("tilt", "axis"), found),
            "used": ("tilt", used),
        }
    )
    asked = []

    def remake(shift: np.ndarray) -> xr.Dataset:
        asked.append(shift)
        return series

    result = apply_refinement(aligned, corrections, remake)
    np.testing.assert_allclose(asked[0], earlier + found)
    np.testing.assert_allclose(result["shift"], earlier + found)
    np.testing.assert_allclose(result["refined_shift"], found)
    np.testing.assert_allclose(result["angles"], angles)
    np.testing.assert_allclose(euler_from_matrices(result["matrices"].values), angles)
    assert not result["mask"].values[2].any() and result["mask"].values[3].all()


def test_refine_angles__nothing_is_computed_before_all_is_checked(series: xr.Dataset, volume: xr.DataArray) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    lazy = series.assign(
        images=(series["images"].dims, da.map_blocks(fail, series["images"].chunk(tilt=1).data, dtype=np.float32))
    )
    with pytest.raises(InputError):
        refine_angles(lazy, volume, increment=-1.0)
