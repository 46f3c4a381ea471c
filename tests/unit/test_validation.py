"""The parts of a validation against plain references, and laws that they have to keep."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

from aetdist import schema
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import euler_from_tilts, matrices_from_euler
from aetdist.metrics import r_factor
from aetdist.refine.tails import Tails, shown
from aetdist.refine.tilts import Model, make_group
from aetdist.validation.calibration import Calibration, calibrate, calibrated, honesty, reliability
from aetdist.validation.comparison import compared, match_atoms, most_frequent
from aetdist.validation.depth import depth_below_surface
from aetdist.validation.images import Beside, noise_free, widths_of, with_noise
from aetdist.validation.model import Geometry, geometry_of, model_of, overlapping
from aetdist.validation.noise import Noise, counted_noise, measure_noise, noise_like
from aetdist.validation.tables import figures_of, table_of

ANGLES = euler_from_tilts(np.linspace(-60.0, 60.0, 5))


def atoms_at(positions: np.ndarray, types: Any = None, **variables: Any) -> xr.Dataset:
    dataset = xr.Dataset(
        {"position": (("atom", "axis"), np.asarray(positions, dtype=float)), **variables},
        {"atom": np.arange(len(positions)), "axis": list("xyz")},
    )
    if types is not None:
        dataset["type"] = "atom", np.asarray(types)
    return schema.with_units(dataset, schema.ATOMS)


def lattice(n: int, step: float = 2.8) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return step * (grid - (n - 1) / 2)


@pytest.fixture(scope="module")
def refined() -> xr.Dataset:
    """Some atoms as `refine` gives them."""
    random = np.random.default_rng(0)
    positions = lattice(3) + random.uniform(-0.2, 0.2, (27, 3))
    types = np.arange(27) % 2 + 1
    dataset = atoms_at(
        positions,
        types,
        intensity=("atom", 100.0 * types + random.uniform(0, 5, 27)),
        b_factor=("atom", 8 * np.pi**2 * random.uniform(0.45, 0.6, 27) ** 2),
        position_sigma=(("atom", "axis"), np.full((27, 3), 0.05)),
        probability=("atom", np.full(27, 0.99)),
        type_probability=(("atom", "type_number"), np.tile([0.9, 0.1], (27, 1))),
        angles=(("tilt", "euler"), ANGLES),
        shift=(("tilt", "shift_axis"), random.uniform(-0.4, 0.4, (5, 2))),
        gain=("tilt", 1.0 + 0.02 * random.standard_normal(5)),
    )
    dataset.attrs = {
        "heights": "atom",
        "widths": "atom",
        "type_heights": [102.0, 203.0],
        "type_sigmas": [0.5, 0.55],
        "tails": [0.1, 0.05],
        "tail_blurs": [2.5, 5.5],
    }
    return dataset.assign_coords(tilt=np.arange(5))


@pytest.fixture(scope="module")
def series() -> xr.Dataset:
    """A tilt series without anything to see."""
    x, y = (0.4 * (np.arange(n) - n // 2) + 0.1 for n in (60, 57))
    dataset = xr.Dataset(
        {
            "images": (("tilt", "y", "x"), np.zeros((5, 57, 60), np.float32)),
            "mask": (("tilt", "y", "x"), np.ones((5, 57, 60), bool)),
            "angles": (("tilt", "euler"), ANGLES),
            "matrices": (("tilt", "row", "column"), matrices_from_euler(ANGLES)),
            "pixel_size": ((), 0.4),
        },
        {"tilt": np.arange(5), "y": y, "x": x, "euler": list(schema.EULER)},
    )
    return schema.with_units(dataset, schema.TILT_SERIES)


@pytest.fixture(scope="module")
def geometry(refined: xr.Dataset, series: xr.Dataset) -> Geometry:
    return geometry_of(refined, series, series, angle_error=0.0, shift_error=0.0, seed=0)


def test_depth__of_a_ball_is_its_radius_less_the_distance() -> None:
    points = lattice(15, 2.5)
    ball = points[np.linalg.norm(points, axis=1) <= 16.0]
    depth = depth_below_surface(ball, ball)
    below = 16.0 - np.linalg.norm(ball, axis=1)
    np.testing.assert_allclose(depth, below, atol=2.5)  # a step of the lattice
    assert np.polyfit(below, depth, 1)[0] == pytest.approx(1.0, abs=0.1) and np.corrcoef(below, depth)[0, 1] > 0.98
    assert depth.min() == 0.0
    np.testing.assert_allclose(depth_below_surface(np.array([[40.0, 0, 0]]), ball), -24.0, atol=1.5)
    assert not depth_below_surface(ball[:3], ball[:4]).any() and not depth_below_surface(ball, 20 * ball).any()
    hollow = ball[np.linalg.norm(ball, axis=1) > 6.0]  # a ball of 4 Angstrom fits into the hole
    inner = np.linalg.norm(hollow, axis=1) < 7.0
    assert depth_below_surface(hollow, hollow)[inner].max() < 1.5 < depth[np.linalg.norm(ball, axis=1) < 7.0].min()


def test_model__has_the_heights_and_widths_that_explain_the_images(refined: xr.Dataset) -> None:
    own, shared = model_of(refined), model_of(refined, "type")
    np.testing.assert_array_equal(own["intensity"], refined["intensity"])
    np.testing.assert_array_equal(own["b_factor"], refined["b_factor"])
    np.testing.assert_array_equal(shared["intensity"], np.array([102.0, 203.0])[refined["type"].values - 1])
    np.testing.assert_allclose(widths_of(shared), np.array([0.5, 0.55])[refined["type"].values - 1])
    by_type = refined.assign_attrs(heights="type")  # `intensity` is what each atom has on its own then
    np.testing.assert_array_equal(model_of(by_type)["intensity"], shared["intensity"])
    with pytest.raises(InputError, match="run aetdist refine"):
        model_of(refined.drop_vars("position_sigma"))


def test_model__leaves_out_the_fainter_of_two_that_overlap(refined: xr.Dataset) -> None:
    near = refined.copy(deep=True)
    near["position"].values[1] = near["position"].values[0] + [0.5, 0.0, 0.0]
    with pytest.warns(AetdistWarning, match="1 atoms are nearer than 1 Angstrom"):
        model = model_of(near)
    assert model.sizes["atom"] == 26 and model.attrs["n_overlapping"] == 1
    np.testing.assert_array_equal(model["position"][0], near["position"][1])  # of type 2, the brighter
    chain = np.array([[0.0, 0, 0], [0.9, 0, 0], [1.8, 0, 0]])
    assert overlapping(chain, np.array([1.0, 2.0, 1.0])).tolist() == [True, False, True]
    assert overlapping(chain, np.array([2.0, 1.0, 2.0])).tolist() == [False, True, False]


def test_images__are_what_refinement_shows_of_the_same_model(
    refined: xr.Dataset, series: xr.Dataset, geometry: Geometry
) -> None:
    """Own heights and widths, tails, shifts of a part of a pixel, brightness: two implementations."""
    model = model_of(refined)
    clean = noise_free(model, geometry)
    group = make_group(
        np.arange(5), series["images"].values, series["mask"].values, None, None, matrices_from_euler(ANGLES),
        np.array([float(series[axis][0]) / 0.4 for axis in "yx"]), 0.4,
    )  # fmt: skip
    group.gains[:] = refined["gain"].values
    group.corners[:] -= refined["shift"].values
    atoms = Model(model["position"].values, model["intensity"].values, widths_of(model))
    tails = Tails(np.array(model.attrs["tails"]), np.array(model.attrs["tail_blurs"]))
    expected = shown(group, atoms, tails)
    assert np.abs(clean["images"].values - expected).max() < 2e-3 * expected.max()
    left = np.broadcast_to(np.arange(60) < 30, (5, 57, 60))
    beside = Beside(da.full((5, 57, 60), 7.0, chunks=(5, 20, 20)), da.from_array(left))
    more = noise_free(model, geometry, beside)
    np.testing.assert_allclose(more["images"].values - clean["images"].values, 7.0, rtol=1e-4)
    np.testing.assert_array_equal(more["counted"], left)
    assert clean["counted"].values.all()


def test_images__building_the_graph_computes_nothing(refined: xr.Dataset, geometry: Geometry, no_compute: None) -> None:
    clean = noise_free(model_of(refined), geometry)
    noisy = with_noise(clean, geometry, Noise(1.0, 1.0), seed=0)
    assert noisy["images"].chunks == ((1,) * 5, (57,), (60,))


@pytest.mark.parametrize("noise", [Noise(0.7, 4.0), Noise(0.0, 1.0, white=False, area=9.0)])
def test_noise__is_the_same_however_the_work_is_cut_up(refined: xr.Dataset, geometry: Geometry, noise: Noise) -> None:
    random = np.random.default_rng(3)
    seen = geometry.series.assign(
        images=(("tilt", "y", "x"), random.normal(size=(5, 57, 60)).astype(np.float32)),
        mask=(("tilt", "y", "x"), random.uniform(size=(5, 57, 60)) > 0.1),
    )
    geometry = geometry._replace(series=seen)
    clean = noise_free(model_of(refined), geometry).compute()
    whole, again, other = (
        with_noise(clean.chunk({"tilt": chunk}), geometry, noise, seed)["images"].values
        for chunk, seed in ((5, 4), (2, 4), (5, 5))
    )
    np.testing.assert_array_equal(whole, again)
    assert not np.array_equal(whole, other)
    assert (whole[~seen["mask"].values] == 0).all()
    if not noise.white:  # what sees mostly something else says nothing of the noise, but has some
        half = clean.assign(counted=clean["counted"] & (clean["x"] < 0))
        part = with_noise(half.chunk({"tilt": 1}), geometry, noise, 4)["images"].values
        assert not np.array_equal(part, whole) and (part - clean["images"].values)[..., -10:].std() > 0.5


def test_noise__that_is_measured_is_the_one_that_was_made(refined: xr.Dataset, geometry: Geometry) -> None:
    clean = noise_free(model_of(refined), geometry).compute()
    made = Noise(0.7, 4.0)
    noisy = with_noise(clean, geometry, made, seed=1)
    found, ratio = measure_noise(noisy["images"], clean["images"], noisy["mask"], background=10.0)
    assert found.gain == pytest.approx(made.gain, rel=0.05) and found.floor == pytest.approx(made.floor, rel=0.05)
    assert found.white and found.area < 1.5
    expected = r_factor(clean["images"].values, noisy["images"].values, noisy["mask"].values)
    np.testing.assert_allclose(ratio, expected)
    random = np.random.default_rng(0)
    blurred = noise_like(np.cumsum(random.normal(size=(57, 60)), axis=1), np.ones((57, 60)), random)
    smooth = noisy["images"] + blurred.astype(np.float32)
    assert not measure_noise(smooth, clean["images"], noisy["mask"], background=0.0)[0].white


def test_noise__of_a_dose_is_that_of_simulate() -> None:
    noise = counted_noise(1e4, 0.05, 3.0, reference=200.0, pixel_size=0.4)
    counts_per_intensity = 1e4 * 0.4**2 * 0.05 / 200.0
    assert noise.gain == pytest.approx(1 / counts_per_intensity)
    assert noise.floor == pytest.approx((3.0 / counts_per_intensity) ** 2)
    for wrong in ((0.0, 0.05, 0.0), (1e4, 0.0, 0.0), (1e4, 0.05, -1.0)):
        with pytest.raises(InputError, match="came as"):
            counted_noise(*wrong, reference=200.0, pixel_size=0.4)


def test_noise_like__has_the_spectrum_of_the_residual() -> None:
    random = np.random.default_rng(1)
    residual = np.cumsum(random.normal(size=(24, 40)), axis=1)
    noise = noise_like(residual, np.ones(residual.shape, bool), random)
    np.testing.assert_allclose(np.abs(np.fft.fft2(noise)), np.abs(np.fft.fft2(residual)), rtol=1e-6, atol=1e-6)
    assert abs(np.corrcoef(noise.ravel(), residual.ravel())[0, 1]) < 0.5
    assert not noise_like(residual, np.zeros(residual.shape, bool), random).any()


@pytest.fixture(scope="module")
def case() -> tuple[xr.Dataset, xr.Dataset, np.ndarray]:
    """True atoms; found ones: two missed, one of another type, one invented, the others off by known deviations."""
    random = np.random.default_rng(2)
    truth = atoms_at(lattice(6) + random.uniform(-0.3, 0.3, (216, 3)), random.integers(1, 4, 216))
    off = random.normal(0.0, [0.05, 0.05, 0.1], (216, 3))
    found = truth.assign(position=truth["position"] + off).isel(atom=slice(2, None)).copy(deep=True)
    found["type"].values[0] = found["type"].values[0] % 3 + 1
    alone = atoms_at(np.array([[15.0, 15.0, 15.0]]), [2])
    found = xr.concat([found, alone], dim="atom").assign_coords(atom=np.arange(215))
    sigma = np.tile([0.05, 0.05, 0.05], (215, 1))
    return truth, found.assign(position_sigma=(("atom", "axis"), sigma), probability=("atom", np.ones(215))), off[3:]


def test_compared__counts_and_deviations(case: tuple[xr.Dataset, xr.Dataset, np.ndarray]) -> None:
    truth, found, off = case
    result = compared(match_atoms(found, truth))
    schema.check(result, schema.VALIDATION)
    assert result.attrs["identified"] == pytest.approx(213 / 216) and result.attrs["missed"] == pytest.approx(2 / 216)
    assert result.attrs["mistyped"] == pytest.approx(1 / 216) and result.attrs["false"] == pytest.approx(1 / 215)
    assert np.trace(result["confusion"]) == 213 and result["confusion"].sum() == 214
    assert result["missed_atoms"].sum() == 2 and result["false_atoms"].values.tolist() == [0, 1, 0]
    assert result["true_atoms"].values.tolist() == np.bincount(truth["type"].values)[1:].tolist()
    rms = np.sqrt((off**2).mean(axis=0))
    np.testing.assert_allclose(result["deviation_rms"][:3], rms, rtol=0.03)  # what is common to all was taken out
    np.testing.assert_allclose(result["deviation_rms"][3] ** 2, (result["deviation_rms"][:3] ** 2).sum())
    np.testing.assert_allclose(result["deviation_mean"][:3], 0.0, atol=1e-3)
    assert (result["deviation"].sum("deviation_bin") == 213).all()
    for name, n in (("true", 216), ("missed", 2), ("mistyped", 1), ("found", 215), ("false", 1)):
        assert int(result[f"depth_{name}"].sum()) == n, name
    assert result["depth_false"].values[0] == 1  # outside counts as the surface


def test_match__a_turn_of_the_whole_does_not_count(case: tuple[xr.Dataset, xr.Dataset, np.ndarray]) -> None:
    truth, found, _ = case
    turn = Rotation.from_rotvec([0.0, 0.01, 0.02]).as_matrix()
    turned = found.assign(position=(("atom", "axis"), found["position"].values @ turn.T + 0.3))
    first, second = match_atoms(found, truth), match_atoms(turned, truth)
    np.testing.assert_allclose(first.deviation, second.deviation, atol=1e-9)
    assert second.turned == pytest.approx(np.rad2deg(np.hypot(0.01, 0.02)), rel=0.1)
    with pytest.raises(InputError, match="no found atoms"):
        match_atoms(found.isel(atom=slice(0)), truth)


def test_most_frequent__finds_the_peak() -> None:
    random = np.random.default_rng(0)
    skewed = random.gamma(4.0, 1.0, 20_000)  # peaks at 3, its mean is 4
    assert most_frequent(skewed) == pytest.approx(3.0, abs=0.15)
    assert most_frequent(np.full(5, 2.0)) == 2.0 and np.isnan(most_frequent(np.zeros(0)))


def claimed(factor: Any, n: int = 10) -> Any:
    """A ball of atoms whose claimed standard deviations (0.05) times `factor(depth)` are right."""
    random = np.random.default_rng(5)
    truth = atoms_at(lattice(n, 3.5) + random.uniform(-0.2, 0.2, (n**3, 3)), np.ones(n**3, int))
    depth = depth_below_surface(truth["position"].values, truth["position"].values)
    off = 0.05 * factor(depth)[:, None] * random.standard_normal((n**3, 3))
    found = truth.assign(
        position=truth["position"] + off,
        position_sigma=(("atom", "axis"), np.full((n**3, 3), 0.05)),
        probability=("atom", np.full(n**3, 0.999)),
        type_probability=(("atom", "type_number"), np.ones((n**3, 1))),
    )
    return match_atoms(found, truth), depth


def test_calibrate__finds_one_factor_where_there_is_one() -> None:
    matched, _ = claimed(lambda depth: np.full(depth.shape, 1.6))
    found = calibrate(matched)
    assert len(found.depth) == 1
    np.testing.assert_allclose(found.factor, 1.6, rtol=0.08)
    np.testing.assert_allclose(honesty(matched), 0.468, atol=0.04)  # of a Gaussian within 1 / 1.6
    np.testing.assert_allclose(honesty(matched, found), 0.683, atol=0.01)


def test_calibrate__follows_the_depth_where_the_data_show_it() -> None:
    matched, _ = claimed(lambda depth: 1.0 + 0.1 * np.maximum(depth, 0.0), n=12)
    found = calibrate(matched)
    assert len(found.depth) > 1
    shallow, deep = (found.factors(np.array([at])).mean() for at in (1.0, 12.0))
    assert shallow == pytest.approx(1.1, rel=0.15) and deep == pytest.approx(2.2, rel=0.15)
    other, _ = claimed(lambda depth: 1.0 + 0.1 * np.maximum(depth, 0.0), n=11)
    np.testing.assert_allclose(honesty(other, found), 0.683, atol=0.05)


def test_calibrate__too_few_pairs_change_no_sigma(case: tuple[xr.Dataset, xr.Dataset, np.ndarray]) -> None:
    truth, found, _ = case
    few = match_atoms(found.isel(atom=slice(20)), truth.isel(atom=slice(22)))
    np.testing.assert_array_equal(calibrate(few).factor, 1.0)


def test_calibrated__probabilities_become_what_is_right() -> None:
    """Claimed 0.99, and a fifth of the atoms is invented."""
    matched, _ = claimed(lambda depth: np.ones(depth.shape))
    invented = matched.found.isel(atom=slice(0, 250)).assign(position=matched.found["position"][:250] + 1.75)
    both = xr.concat([matched.found, invented], dim="atom").assign_coords(atom=np.arange(1250))
    both["probability"].values[:] = np.random.default_rng(0).choice([0.99, 0.999], 1250)
    matched = match_atoms(both, matched.truth, tolerance=1.0)
    assert matched.is_atom.mean() == pytest.approx(0.8, abs=0.01)
    calibration = calibrate(matched)
    atoms = calibrated(both, calibration)
    assert atoms["probability"].mean() == pytest.approx(0.8, abs=0.02)
    np.testing.assert_array_equal(atoms["probability_uncalibrated"], both["probability"])
    np.testing.assert_array_equal(atoms["position_sigma_uncalibrated"], both["position_sigma"])
    schema.check(atoms, schema.ATOMS)
    rising = calibration.probability(np.array([0.1, 0.5, 0.9, 1.0]))
    assert (np.diff(rising) > 0).all() and (0 < rising).all() and (rising < 1).all()


def test_calibration__leaves_what_is_right_as_it_is() -> None:
    one = Calibration(np.zeros(1), np.ones((1, 3)), (0.0, 1.0))
    np.testing.assert_allclose(one.probability(np.array([0.2, 0.9])), [0.2, 0.9])
    np.testing.assert_array_equal(one.factors(np.array([-1.0, 30.0])), 1.0)


def test_reliability__compares_what_is_claimed_with_what_is_so() -> None:
    said = np.array([0.1, 0.3, 0.6, 0.9, 0.95, 1.0, 1.0])
    right = np.array([False, True, True, False, True, True, True])
    rows = reliability(said, right)
    assert [row["atoms"] for row in rows] == [2, 1, 0, 4]
    assert [row["right"] for row in rows] == [0.5, 1.0, None, 0.75]
    assert rows[0]["claimed"] == pytest.approx(0.2)


def test_table__says_what_the_dataset_holds(case: tuple[xr.Dataset, xr.Dataset, np.ndarray]) -> None:
    from aetdist.validation.calibration import calibration_variables

    truth, found, _ = case
    matched = match_atoms(found, truth)
    result = compared(matched).assign(calibration_variables(matched, calibrate(matched)))
    result = result.set_coords("probability_from").assign(r_factor=("tilt", [0.1, 0.2]))
    result.attrs |= {
        "tolerance": 1.5,
        "stages": ["reconstruct"],
        "noise_gain": 1.0,
        "noise_floor": 0.0,
        "noise_white": True,
    }
    figures = figures_of(schema.with_units(result, schema.VALIDATION))
    assert figures["confusion"] == result["confusion"].values.tolist() and figures["r_factor"] == pytest.approx(0.15)
    text = table_of({"validation": figures, "seconds": 1.0, "peak_memory_bytes": 2e9})
    assert "216 atoms simulated, 215 found" in text and "identified 98.61 %" in text and "2.00 GB" in text
    rms = f"{figures['deviation_rms_pm'][2]:.1f}"
    assert rms in text.split("rms ")[1].splitlines()[0]
