from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, spline_filter
from scipy.spatial import cKDTree

from aetdist import schema
from aetdist.errors import InputError
from aetdist.metrics import compare_atoms
from aetdist.simulate import nanoparticle
from aetdist.trace import find_peaks, noise_threshold, trace_atoms
from aetdist.voxels import noise_valley

VOXEL = 0.35


def as_volume(density, voxel=VOXEL):
    coordinates = {a: (a, (np.arange(n) - n // 2) * voxel) for a, n in zip("zyx", density.shape, strict=True)}
    return xr.Dataset({"density": (("z", "y", "x"), density)}, coords=coordinates)


def render(points, shape, heights=None, sigma=0.5, voxel=VOXEL):
    """Gaussians at `points` (x, y, z) in Angstrom from voxel n // 2; `sigma` may be one number per axis (x, y, z)."""
    sigma = np.broadcast_to(sigma, 3)
    heights = np.ones(len(points)) if heights is None else heights
    axes = [(np.arange(n) - n // 2) * voxel for n in shape[::-1]]
    density = np.zeros(shape)
    for point, height in zip(points, heights, strict=True):
        x, y, z = (np.exp(-0.5 * ((a - p) / s) ** 2) for a, p, s in zip(axes, point, sigma, strict=True))
        density += height * z[:, None, None] * y[:, None] * x
    return density


def packing(rng, half, n, distance=2.4):
    """Up to `n` random points in a box of half widths `half` (x, y, z), no nearer than `distance`."""
    points = []
    for p in rng.uniform(-1, 1, (30 * n, 3)) * half:
        if len(points) < n and all(np.sum((p - q) ** 2) > distance**2 for q in points):
            points.append(p)
    return np.array(points)


def as_atoms(points):
    return xr.Dataset({"position": (("atom", "axis"), np.asarray(points, dtype=float).reshape(-1, 3))})


def nearest(atoms, points):
    return cKDTree(atoms["position"].values).query(points)[0]


def test_trace__a_volume_without_finite_values():
    x = np.arange(8) * 0.4
    density = xr.DataArray(np.full((8, 8, 8), np.nan, np.float32), {axis: x for axis in "zyx"}, ("z", "y", "x"))
    with pytest.raises(InputError, match="nowhere a finite number"):
        trace_atoms(density.to_dataset(name="density"))


def test_trace__perfect_lattice():
    steps = np.arange(-2, 3) * 2.75
    points = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3) + np.array([0.11, -0.07, 0.02])
    atoms = trace_atoms(as_volume(render(points, (48, 48, 48))), sigma=0)
    assert atoms.sizes["atom"] == len(points)
    assert nearest(atoms, points).max() < 0.01 * VOXEL
    schema.check(atoms, schema.ATOMS)
    assert atoms["position"].attrs["units"] == "angstrom" and atoms["position"].dtype == np.float64


def test_trace__random_gaussians():
    rng = np.random.default_rng(0)
    points = packing(rng, [9, 7, 5], 120)
    heights = rng.uniform(0.85, 1.15, len(points))
    atoms = trace_atoms(as_volume(render(points, (46, 56, 66), heights)), sigma=0)
    assert atoms.sizes["atom"] == len(points)
    distance, index = cKDTree(points).query(atoms["position"].values)
    assert distance.max() < 0.01 * VOXEL
    np.testing.assert_allclose(atoms["intensity"], heights[index], rtol=0.01)
    assert (np.diff(atoms["intensity"]) <= 0).all()


def test_trace__frame_is_that_of_the_coordinates():
    points = np.array([[0.0, 0.0, 0.0], [3.0, 1.0, -2.0]])
    volume = as_volume(render(points, (32, 34, 36)), VOXEL)
    moved = volume.assign_coords(x=volume.x + 10, y=volume.y - 20, z=volume.z + 30)
    expected = trace_atoms(volume)["position"].values + np.array([10, -20, 30])
    np.testing.assert_allclose(trace_atoms(moved)["position"], expected, atol=1e-9)


def plain_search(density, box, floor):
    """The method, slowly: scipy's spline on the whole upsampled grid, and a least-squares fit at every maximum."""
    coefficients = spline_filter(density.astype(float), 3, mode="mirror")

    def at(points):
        return map_coordinates(coefficients, points.T, order=3, mode="mirror", prefilter=False)

    grid = np.stack(np.meshgrid(*(np.arange(3 * n - 2) / 3 for n in density.shape), indexing="ij"), axis=-1)
    fine = at(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    top = (fine == maximum_filter(fine, 3)) & (fine > floor)
    top[[0, -1]] = top[:, [0, -1]] = top[:, :, [0, -1]] = False
    s = np.linspace(-1, 1, 7)
    local = np.stack(np.meshgrid(s, s, s, indexing="ij"), axis=-1).reshape(-1, 3)
    powers = [(a, b, c) for a in range(5) for b in range(5) for c in range(5) if a + b + c <= 4]
    terms = np.prod(local[:, None] ** np.array(powers), axis=2)
    root = np.exp(-0.25 * np.sum(local**2, axis=1) / 0.5**2)
    fit = np.linalg.pinv(terms * root[:, None]) * root
    unit = np.eye(3, dtype=int)
    maxima, result = np.argwhere(top), []
    for start in maxima / 3:
        centre, fitted = start.copy(), False
        for _ in range(10):
            values = at(centre + local * box / 2)
            c = dict(zip(powers, fit @ values, strict=True))
            gradient = np.array([c[tuple(e)] for e in unit])
            hessian = np.array([[c[tuple(e + f)] * (2 if (e == f).all() else 1) for f in unit] for e in unit])
            if np.linalg.eigvalsh(hessian).max() >= 0:
                break
            step = -np.linalg.solve(hessian, gradient)
            step *= min(1, 0.5 / np.linalg.norm(step))
            centre += step * box / 2
            if np.abs(centre - start).max() > box / 2:
                break
            if np.linalg.norm(step) < 1e-4:
                fitted = True
                break
        if not fitted:
            centre, values = start, at(start + local * box / 2)
        result.append([*centre, c[0, 0, 0] if fitted else values[171], values.mean()])
    return maxima, np.array(result)


def test_find_peaks__equals_a_plain_search():
    rng = np.random.default_rng(1)
    shape = (18, 20, 19)
    density = render(packing(rng, [2, 2.2, 2], 6), shape) + rng.normal(0, 0.05, shape)
    density = density.astype(np.float32)
    (found,) = find_peaks(as_volume(density), sigma=0, floor=0.05, fit_box=0.8)
    found = found.select(np.lexsort(found.maximum.T[::-1]))
    maxima, expected = plain_search(density, 0.8 / VOXEL, 0.05)
    np.testing.assert_array_equal(found.maximum, maxima)
    assert len(maxima) > 50
    # Float32 coefficients; a fit that only just converges may stop a step apart.
    distance = np.linalg.norm(found.position - expected[:, :3], axis=1)
    assert np.quantile(distance, 0.95) < 1e-4
    same = distance < 1e-3
    np.testing.assert_allclose(found.height[same], expected[same, 3], atol=1e-4)
    np.testing.assert_allclose(found.mean[same], expected[same, 4], atol=1e-4)


def test_find_peaks__smoothing_equals_a_gaussian_filter():
    rng = np.random.default_rng(2)
    density = rng.random((20, 22, 24)).astype(np.float32)
    smooth = gaussian_filter(density.astype(float), 1.2, mode="mirror", truncate=8)
    (a,) = find_peaks(as_volume(density), sigma=1.2)
    (b,) = find_peaks(as_volume(smooth), sigma=0)
    np.testing.assert_array_equal(a.maximum, b.maximum)
    np.testing.assert_allclose(a.position, b.position, atol=1e-3)


def test_trace__minimum_distance_keeps_the_higher():
    points = np.array([[-0.9, 0, 0], [0.9, 0, 0], [2.7, 0.0, 0], [6, 0, 0]])
    volume = as_volume(render(points, (24, 24, 60), [1.0, 0.9, 0.8, 1.0], sigma=0.4))
    near = trace_atoms(volume, sigma=0, minimum_distance=1.5, threshold=0.1)
    assert near.sizes["atom"] == 4
    # The second goes because of the first; it must not take the third with it.
    far = trace_atoms(volume, sigma=0, minimum_distance=2.0, threshold=0.1)
    assert sorted(np.round(far["position"][:, 0].values).tolist()) == [-1.0, 3.0, 6.0]


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 2)])
def test_trace__rotation_of_90_degrees(axes):
    rng = np.random.default_rng(3)
    density = render(packing(rng, [5, 4, 3], 40), (33, 35, 41))  # odd: the centre voxel stays in the centre
    density += rng.random(density.shape) * 0.2
    volume = as_volume(density)
    turned = as_volume(np.rot90(density, axes=axes).copy())
    # Where a voxel of the turned volume comes from, as a matrix.
    grids = [np.stack(np.meshgrid(v.z, v.y, v.x, indexing="ij")[::-1], axis=-1) for v in (turned, volume)]
    came_from = np.rot90(grids[1], axes=axes).reshape(-1, 3)
    matrix = np.linalg.lstsq(grids[0].reshape(-1, 3), came_from, rcond=None)[0]
    expected, found = trace_atoms(volume), trace_atoms(turned)
    assert found.sizes == expected.sizes and found.sizes["atom"] >= 25
    assert nearest(expected, found["position"].values @ matrix).max() < 1e-3


@pytest.mark.parametrize("noise", [0.1, 0.35, 0.55])
def test_trace__threshold_without_truth_and_empty_vacuum(noise):
    """A slab with vacuum above and below, elongated along z, with noise everywhere."""
    rng = np.random.default_rng(4)
    shape = (60, 70, 70)
    points = packing(rng, [11, 11, 5], 200, distance=2.35)
    density = render(points, shape, rng.uniform(0.85, 1.15, len(points)), sigma=(0.5, 0.5, 0.62))
    density = np.maximum(density + rng.normal(0, noise, shape), 0)
    atoms = trace_atoms(as_volume(density))
    assert compare_atoms(atoms, as_atoms(points)).f1 > {0.1: 0.98, 0.35: 0.98, 0.55: 0.95}[noise]
    assert (np.abs(atoms["position"][:, 2]) > 6.5).sum() <= 0.01 * len(points)


@pytest.mark.parametrize("lighter", [0.3, 0.5, 0.7])
def test_trace__threshold_keeps_a_lighter_species(lighter):
    rng = np.random.default_rng(9)
    shape = (60, 70, 70)
    points = packing(rng, [11, 11, 5], 200, distance=2.35)
    heights = np.where(rng.random(len(points)) < 0.5, 1.0, lighter) * rng.normal(1, 0.05, len(points))
    density = np.maximum(render(points, shape, heights) + rng.normal(0, 0.1, shape), 0)
    result = compare_atoms(trace_atoms(as_volume(density)), as_atoms(points))
    assert result.recall > 0.97 and result.precision > 0.97


def test_trace__support_bounds_the_atoms():
    points = np.array([[-4.0, 0, 0], [0, 0, 0], [4.0, 0, 0]])
    volume = as_volume(render(points, (24, 24, 48)))
    support = xr.ones_like(volume["density"], dtype=bool)
    support[:, :, :18] = False
    atoms = trace_atoms(volume, support=support)
    np.testing.assert_allclose(np.sort(atoms["position"][:, 0]), [0, 4], atol=0.01)


def test_trace__maxima_on_the_faces_do_not_count():
    points = np.array([[0.0, 0, 0], [0, 0, -12 * VOXEL - 0.2]])
    atoms = trace_atoms(as_volume(render(points, (24, 24, 24))), sigma=0, threshold=0.1, isolation=0)
    assert atoms.sizes["atom"] == 1


def test_trace__half_precision_and_read_only_input_stays():
    density = render(np.array([[0.0, 0, 0], [3, 0, 0]]), (20, 20, 30)).astype(np.float16)
    density.setflags(write=False)
    before = density.copy()
    assert trace_atoms(as_volume(density)).sizes["atom"] == 2
    np.testing.assert_array_equal(density, before)


def test_trace__isolated_maxima_are_noise():
    points = np.array([[-6.0, 0, 0], [0, 0, 0], [4.0, 0, 0]])
    volume = as_volume(render(points, (24, 24, 60)))
    np.testing.assert_allclose(np.sort(trace_atoms(volume)["position"][:, 0]), [0, 4], atol=0.01)
    assert trace_atoms(volume, isolation=0).sizes["atom"] == 3
    assert trace_atoms(volume, isolation=6.5).sizes["atom"] == 3
    with pytest.raises(InputError, match="farther than 3 Angstrom"):
        trace_atoms(volume, isolation=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.density.values.__setitem__((3, 4, 5), np.nan), "1 voxels of the volume are not finite"),
        (lambda v: v.density.values.fill(0), "no maxima above the threshold: the density is 0 to 0"),
        (lambda v: v.density.values.fill(2), "no maxima above the threshold: the density is 2 to 2"),
        (lambda v: v.density.values.__imul__(-1), "no maxima above the threshold"),
    ],
)
def test_trace__bad_density(change, message):
    volume = as_volume(render(np.zeros((1, 3)), (20, 20, 20)))
    change(volume)
    with pytest.raises(InputError, match=message):
        trace_atoms(volume)


def test_trace__bad_grid():
    volume = as_volume(render(np.zeros((1, 3)), (12, 12, 12)))
    with pytest.raises(InputError, match="no coordinate y"):
        trace_atoms(volume.drop_vars("y"))
    with pytest.raises(InputError, match="3 voxels along z"):
        trace_atoms(volume.isel(z=slice(3)))
    with pytest.raises(InputError, match=r"0.35 x 0.7 x 0.35 .*cubes"):
        trace_atoms(volume.assign_coords(y=volume.y * 2))
    with pytest.raises(InputError, match="x does not rise in equal steps"):
        trace_atoms(volume.assign_coords(x=volume.x**2))
    with pytest.raises(InputError, match="needs density"):
        trace_atoms(xr.Dataset())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": -1}, "sigma is -1"),
        ({"fit_box": 0}, "fit_box is 0"),
        ({"fit_box": 10}, r"at most 8 voxels \(2.8 Angstrom\)"),
        ({"minimum_distance": np.nan}, "minimum_distance is nan"),
        ({"isolation": -1}, "isolation is -1"),
        ({"threshold": np.inf}, "threshold is inf"),
        ({"threshold": 100.0}, "No maxima above the threshold 100"),
        ({"support": np.ones((3, 3, 3), dtype=bool)}, r"support has shape \(3, 3, 3\)"),
        ({"support": np.zeros((12, 12, 12), dtype=bool)}, "inside the support"),
    ],
)
def test_trace__bad_options(options, message):
    with pytest.raises(InputError, match=message):
        trace_atoms(as_volume(render(np.zeros((1, 3)), (12, 12, 12))), **options)


def classes(rng, *sizes_means):
    return np.concatenate([m * rng.normal(1, 0.1, n) for n, m in sizes_means])


def test_noise_threshold__two_classes():
    rng = np.random.default_rng(5)
    noise = np.abs(rng.normal(0, 0.12, 3000))
    assert 0.45 < noise_threshold(np.concatenate([noise, classes(rng, (1000, 1.0))])) < 0.75
    assert 0.45 < noise_threshold(np.concatenate([noise, classes(rng, (60, 1.0))])) < 0.75


def test_noise_threshold__keeps_a_lighter_species():
    rng = np.random.default_rng(6)
    noise = np.abs(rng.normal(0, 0.05, 1500))
    assert 0.1 < noise_threshold(np.concatenate([noise, classes(rng, (800, 1.0), (800, 0.35))])) < 0.26
    assert 0.1 < noise_threshold(np.concatenate([noise, classes(rng, (800, 1.0), (500, 0.65), (300, 0.35))])) < 0.26


def test_noise_threshold__one_class():
    rng = np.random.default_rng(7)
    assert noise_threshold(classes(rng, (500, 1.0))) == -np.inf
    assert noise_threshold([2.0]) == -np.inf
    assert noise_threshold([2.0, 2.0]) == -np.inf


def test_noise_threshold__scales_with_the_unit():
    rng = np.random.default_rng(8)
    x = np.concatenate([np.abs(rng.normal(0, 0.1, 900)), classes(rng, (400, 1.0), (300, 0.5))])
    assert noise_threshold(1000 * x) == pytest.approx(1000 * noise_threshold(x), rel=1e-9)


def test_noise_threshold__bad_input():
    with pytest.raises(InputError, match="0 peaks"):
        noise_threshold([])
    with pytest.raises(InputError, match="not finite"):
        noise_threshold([1.0, np.nan])


def test_noise_valley__three_species_with_and_without_noise():
    rng = np.random.default_rng(10)
    atoms = classes(rng, (8000, 28.0), (6900, 45.0), (3100, 78.0))
    noise = np.abs(rng.normal(0, 5.0, 9000))
    for peaks in (atoms, np.concatenate([noise, atoms])):
        threshold = noise_threshold(peaks)
        assert threshold < 22 and (peaks[peaks > threshold].size - atoms.size) < 0.01 * atoms.size
        assert noise_valley(peaks) == threshold


def test_noise_valley__none_where_there_is_nothing_to_part():
    rng = np.random.default_rng(11)
    assert noise_valley(np.abs(rng.normal(0, 1, 4000))) == -np.inf
    assert noise_valley([2.0]) == noise_valley([2.0, 2.0]) == noise_valley([30.0, 50.0]) == -np.inf
    assert noise_valley([-3.0, -1.0, -2.0]) == -np.inf


def test_noise_valley__strong_noise_known_from_the_vacuum():
    """A mode of its own at a third of the atoms' could be a light species; the vacuum tells that it is noise."""
    rng = np.random.default_rng(12)
    noise, atoms = classes(rng, (800, 0.35)), classes(rng, (300, 1.0))
    peaks = np.concatenate([noise, atoms])
    assert noise_valley(peaks) < 0.3
    assert 0.45 < noise_valley(peaks, noise[:400]) < 0.8


def test_trace__three_species():
    """The lightest has a third of the heaviest's height; the smoothed noise a tenth of that of the lightest."""
    truth = nanoparticle(24.0, species=("Ni", "Rh", "Pt"), seed=5)
    heights = np.array([28.0, 45.0, 78.0])[truth["type"].values - 1]
    points = truth["position"].values
    rng = np.random.default_rng(6)
    clean = render(points, (84, 84, 84), heights)
    for noise in (0.0, 6.0):
        density = np.maximum(clean + rng.normal(0, noise, clean.shape), 0)
        result = compare_atoms(trace_atoms(as_volume(density)), truth, tolerance=1.0)
        assert result.recall > 0.995 and result.precision > 0.995


def test_trace__a_few_maxima_in_the_vacuum_are_noise():
    rng = np.random.default_rng(13)
    points = packing(rng, [6, 6, 6], 60)
    stray = np.array([[-15.0, 0, 0], [-12.0, 0, 0], [15.0, 2, 0]])
    density = render(np.concatenate([points, stray]), (60, 60, 110))
    assert trace_atoms(as_volume(density)).sizes["atom"] == len(points)
    assert trace_atoms(as_volume(density), isolation=0).sizes["atom"] == len(points) + 3
