"""Import of aligned series: what comes out, that nothing is read before it must be, and what is refused."""

from __future__ import annotations

import inspect
import pickle
import tracemalloc
import warnings

import dask
import h5py
import mrcfile
import numpy as np
import pytest
import scipy.io
import tifffile

from aetdist import schema
from aetdist.errors import AetdistWarning, InputError
from aetdist.geometry import astra_from_matrices, matrices_from_euler
from aetdist.io.readers import hdf5
from aetdist.tilt_series import _lazy_series, import_tilt_series

N, NY, NX = 6, 4, 5
ANGLES = np.stack([np.full(N, 0.1), np.linspace(-60, 55, N), np.full(N, -0.2)], axis=1)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(1, 9, (N, NY, NX)).astype(np.float32)


@pytest.fixture
def file(tmp_path, images):
    """An HDF5 file that imports without a warning; tests spoil it."""
    path = tmp_path / "series.h5"
    with h5py.File(path, "w") as handle:
        handle["images"], handle["angles"] = images, ANGLES
        mask = np.ones((N, NY, NX), bool)
        mask[2, :, 3:] = False
        handle["mask"] = mask
    return path


def imported(path, **options):
    return import_tilt_series(path, **{"images": "images", "angles": "angles", "pixel_size": 0.35, **options})


def spoil(path, **datasets):
    with h5py.File(path, "r+") as handle:
        for name, value in datasets.items():
            if name in handle:
                del handle[name]
            handle[name] = value


def lazy(path, **options):
    """What the import gives before it looks at the pixels."""
    names = inspect.signature(_lazy_series).parameters
    base = {name: p.default for name, p in inspect.signature(import_tilt_series).parameters.items() if name in names}
    return _lazy_series(
        **{**base, "files": path, "images": "images", "angles": "angles", "pixel_size": 0.35, **options}
    )


def test_import__gives_the_schemas_group(file, images):
    series = imported(file, mask="mask", voltage=200, dose=1e5, convergence=25, detector=(30, 200))
    schema.check(series, schema.TILT_SERIES)
    with h5py.File(file) as handle:
        mask = handle["mask"][...]
    np.testing.assert_array_equal(series.mask, mask)
    np.testing.assert_array_equal(series.images, np.where(mask, images, 0))
    np.testing.assert_array_equal(series.angles, ANGLES)
    np.testing.assert_array_equal(series.matrices, matrices_from_euler(ANGLES))
    np.testing.assert_allclose(series.x, (np.arange(NX) - NX // 2) * 0.35)
    np.testing.assert_allclose(series.y, (np.arange(NY) - NY // 2) * 0.35)
    assert series.images.dtype == np.float32 and series.mask.dtype == bool
    assert series.pixel_size == 0.35
    assert list(series.euler.values) == ["phi", "theta", "psi"]
    for name, variable in schema.TILT_SERIES.variables.items():
        assert series[name].attrs["units"] == variable.units
    assert series.attrs == {
        "voltage_kV": 200.0,
        "dose_e_per_A2": 1e5,
        "convergence_mrad": 25.0,
        "detector_mrad": [30.0, 200.0],
        "angle_convention": "yang2021",
        "tilt_axis_deg": 0.0,
        "flip_tilt": False,
        "source": ["series.h5"],
    }


def test_import__is_lazy_in_chunks_of_one_tilt(file):
    series = imported(file, mask="mask")
    for variable in (series.images, series.mask):
        assert variable.data.chunks == ((1,) * N, (NY,), (NX,))
    # The graph carries a path, not pixels; and each chunk is a task that can go to another process.
    assert len(pickle.dumps(series.images.data.dask)) < 20_000
    with dask.config.set(scheduler="processes", num_workers=1):
        one = series.images[2].compute()
    np.testing.assert_array_equal(one, series.images[2].compute(scheduler="synchronous"))


def test_import__building_reads_no_pixel(file, no_compute, monkeypatch):
    def read(self, tilt):
        raise AssertionError("a pixel was read while the graph was built")

    monkeypatch.setattr(hdf5.Hdf5Stack, "read", read)
    series, _ = lazy(file, mask="mask")
    assert series.images.shape == (N, NY, NX)


def test_import__holds_one_image_in_memory(tmp_path):
    images = np.random.default_rng(0).random((40, 128, 128), np.float32)  # 40 x 64 KiB
    np.save(tmp_path / "images.npy", images)
    options = {"angles": np.linspace(-60, 60, 40), "pixel_size": 0.35}
    with dask.config.set(scheduler="synchronous"):
        import_tilt_series(tmp_path / "images.npy", **options)
        tracemalloc.start()
        import_tilt_series(tmp_path / "images.npy", **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < images.nbytes / 3


def test_import__task_names_follow_the_file(file, images):
    before = imported(file).images.data.name
    assert imported(file).images.data.name == before
    spoil(file, images=np.repeat(images, 2, axis=1))
    assert imported(file).images.data.name != before


@pytest.mark.parametrize("suffix", [".mat", ".npz", ".npy", ".mrc", ".tif"])
def test_import__other_formats_agree(tmp_path, file, images, suffix):
    path, name = tmp_path / f"series{suffix}", "images"
    match suffix:
        case ".mat":
            scipy.io.savemat(path, {"images": np.moveaxis(images, 0, 2), "angles": ANGLES})
        case ".npz":
            np.savez(path, images=images, angles=ANGLES)
        case ".npy":
            np.save(path, images)
        case ".mrc":
            with mrcfile.new(path) as handle:
                handle.set_data(images)
        case ".tif":
            tifffile.imwrite(path, images, photometric="minisblack")
    angles = "angles"
    if suffix in (".npy", ".mrc", ".tif"):
        name, angles = None, tmp_path / "angles.csv"
        np.savetxt(angles, ANGLES, delimiter=",", header="phi,theta,psi", comments="")
    series = imported(path, images=name, angles=angles)
    np.testing.assert_array_equal(series.images, images)
    np.testing.assert_allclose(series.angles, ANGLES)


def test_import__several_files_are_joined_in_order(tmp_path, images):
    paths = [tmp_path / f"tilt{k}.tif" for k in range(N)]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image)
    series = import_tilt_series(paths[::-1], angles=ANGLES, pixel_size=0.35, order="given")
    np.testing.assert_array_equal(series.images, images[::-1])
    assert series.attrs["source"] == [path.name for path in paths[::-1]]
    tifffile.imwrite(paths[3], images[3, :, 1:])
    with pytest.raises(InputError, match=r"differ in size.*tilt3\.tif \(4, 4\)"):
        import_tilt_series(paths, angles=ANGLES, pixel_size=0.35)


@pytest.mark.parametrize("name", ["with space.h5", "größe ångström 原子.h5", "a::b.h5"])
def test_import__odd_names_work(file, images, name):
    folder = file.parent / f"folder of {name}"
    folder.mkdir()
    path = file.rename(folder / name)
    np.savetxt(folder / "my tilts é.csv", ANGLES, delimiter=",")
    series = imported(str(path), angles=str(folder / "my tilts é.csv"))
    np.testing.assert_array_equal(series.images, images)


def test_import__angles_from_tlt_and_arrays(file, tmp_path):
    (tmp_path / "series.tlt").write_text("".join(f"{tilt:8.2f}\n" for tilt in ANGLES[:, 1]))
    house = imported(file, angles=tmp_path / "series.tlt").angles.values
    np.testing.assert_array_equal(house, imported(file, angles=list(ANGLES[:, 1])).angles)
    imod = imported(file, angles=tmp_path / "series.tlt", angle_convention="imod")
    np.testing.assert_allclose(imod.angles, -house)
    assert imod.attrs["angle_convention"] == "imod"
    flipped = imported(file, angles=tmp_path / "series.tlt", angle_convention="imod", flip_tilt=True)
    np.testing.assert_allclose(flipped.angles, house)


def test_import__tilt_axis_turns_matrices_not_images(file, images):
    series = imported(file, angles=ANGLES[:, 1], angle_convention="single", tilt_axis=90.0)
    np.testing.assert_array_equal(series.images, images)
    axis = np.array([-1.0, 0.0, 0.0])
    np.testing.assert_allclose(series.matrices.values @ axis, np.tile(axis, (N, 1)), atol=1e-12)
    assert series.attrs["tilt_axis_deg"] == 90.0


def test_import__astra_vectors_say_where_the_detector_is(file):
    vectors = astra_from_matrices(matrices_from_euler(ANGLES), centre=(10.5, -2.0))
    series = imported(file, angles=vectors, angle_convention="astra")
    np.testing.assert_allclose(series.matrices, matrices_from_euler(ANGLES), atol=1e-12)
    np.testing.assert_allclose(series.y, (np.arange(NY) - (NY - 1) / 2 + 10.5) * 0.35)
    np.testing.assert_allclose(series.x, (np.arange(NX) - (NX - 1) / 2 - 2.0) * 0.35)
    vectors[2, 3] += 1.0
    with pytest.raises(InputError, match="detector of the ASTRA vectors moves"):
        imported(file, angles=vectors, angle_convention="astra")


def test_import__pixel_coordinates_place_the_field(file, tmp_path):
    spoil(file, x_pix=np.arange(-2, 3, dtype=np.int16), y_pix=(np.arange(4) - 175.5)[None])
    series = imported(file, x_pixels="x_pix", y_pixels="y_pix")
    np.testing.assert_allclose(series.x, np.arange(-2, 3) * 0.35)
    np.testing.assert_allclose(series.y, (np.arange(4) - 175.5) * 0.35)
    np.savetxt(tmp_path / "y.txt", np.arange(4) + 7)
    np.testing.assert_allclose(imported(file, y_pixels=str(tmp_path / "y.txt")).y, (np.arange(4) + 7) * 0.35)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.arange(NX) * 0.35, r"steps of 0\.35 to 0\.35.*rise evenly by 1"),
        (np.arange(NX)[::-1], "steps of -1 to -1"),
        ([0, 1, 2, 4, 5], "steps of 1 to 2"),
        ([0, 1, np.nan, 3, 4], "rise evenly"),
        (np.arange(NX + 1), rf"shape \(6,\); needed are {NX} numbers"),
        ("nowhere", "no dataset 'nowhere'"),
    ],
)
def test_import__pixel_coordinates_refused(file, pixels, message):
    with pytest.raises(InputError, match=message):
        imported(file, x_pixels=pixels)


def test_import__nan_mask(file, images):
    images[1, 2, 3], images[4, 0, 0] = np.nan, np.inf
    spoil(file, images=images)
    series = imported(file, mask="nan")
    np.testing.assert_array_equal(series.mask, np.isfinite(images))
    np.testing.assert_array_equal(series.images, np.where(np.isfinite(images), images, 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_import__pixels_that_are_not_finite_are_found(file, images, bad):
    images[4, 1, 1:3] = bad
    spoil(file, images=images)
    with pytest.raises(InputError, match=r"2 pixels in 1 of 6 images are NaN or infinite \(most in tilt 4.*--mask nan"):
        imported(file)
    covering = np.ones((NY, NX))
    covering[1, 1:3] = 0
    spoil(file, mask=covering)  # one mask for all tilts, of numbers
    np.testing.assert_array_equal(imported(file, mask="mask").mask, np.broadcast_to(covering != 0, images.shape))
    spoil(file, mask=np.ones((N, NY, NX), bool))
    with pytest.raises(InputError, match="the mask must be False there"):
        imported(file, mask="mask")


def test_import__numbers_too_large_for_float32_are_found(file, images):
    spoil(file, images=images.astype(np.float64) * 1e39)
    with pytest.raises(InputError, match="NaN or infinite"):
        imported(file)


def test_import__masks_in_files_of_their_own(file, tmp_path):
    mask = np.random.default_rng(1).random((N, NY, NX)) > 0.3
    tifffile.imwrite(tmp_path / "mask.tif", mask.astype(np.uint8), photometric="minisblack")
    np.testing.assert_array_equal(imported(file, mask=tmp_path / "mask.tif").mask, mask)
    np.save(tmp_path / "mask.npy", np.where(mask, 1.0, np.nan))
    np.testing.assert_array_equal(imported(file, mask=str(tmp_path / "mask.npy")).mask, mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((N, NY, NX), bool), "mask is False for every pixel.*inverted"),
        (np.ones((N - 1, NY, NX), bool), r"mask has shape \(5, 4, 5\), the images \(6, 4, 5\)"),
        (np.ones((N, NX, NY), bool), r"mask has shape \(6, 5, 4\)"),
        (np.ones(N), r"shape \(6,\)"),
    ],
)
def test_import__masks_refused(file, mask, message):
    spoil(file, mask=mask)
    with pytest.raises(InputError, match=message):
        imported(file, mask="mask")


def test_import__all_nan_is_refused(file, images):
    spoil(file, images=np.full_like(images, np.nan))
    with pytest.raises(InputError, match="all images are NaN"):
        imported(file, mask="nan")


@pytest.mark.parametrize("angles", [ANGLES[:-1], np.concatenate([ANGLES, ANGLES[:1]]), ANGLES[:-1, 1]])
def test_import__numbers_of_angles_and_images_must_match(file, angles):
    spoil(file, angles=angles)
    with pytest.raises(InputError, match=f"{len(angles)} angles came for 6 images"):
        imported(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "imgs"}, r"no dataset 'imgs'.*angles \(6x3 float64\), images \(6x4x5 float32\), mask"),
        ({"images": None}, "no dataset was named and 2 have three dimensions.*images.*name one"),
        ({"images": "angles", "angles": "angles"}, r"6 angles came for 1 images"),
        ({"images": "mask"}, "only True and False"),
        ({"angles": None}, r"No tilt angles came; name a dataset \(series\.h5 has angles, images, mask\)"),
        ({"angles": "tilts"}, "no dataset 'tilts'.*angles"),
        ({"angles": "images"}, r"angles are float32 of shape \(6, 4, 5\)"),
        ({"angles": ["a"] * N}, "one row of numbers"),
        ({"angles": [1.0, 2.0, np.nan, 4.0, 5.0, 6.0]}, "angles of tilt 2 are not finite"),
        ({"mask": "msk"}, "no dataset 'msk'"),
        ({"pixel_size": 0}, "pixel size came as 0 Angstrom"),
        ({"pixel_size": -0.35}, "pixel size came as -0.35"),
        ({"pixel_size": np.nan}, "pixel size came as nan"),
        ({"angle_convention": "relion"}, "convention 'relion' is not known"),
        ({"angle_convention": "single"}, r"single convention came with shape \(6, 3\)"),
        ({"voltage": -200}, "voltage came as -200 kV"),
        ({"dose": 0}, "dose came as 0"),
        ({"convergence": np.inf}, "convergence came as inf"),
        ({"detector": (200, 30)}, "detector came as 200 to 30 mrad"),
    ],
)
def test_import__options_refused_in_one_line(file, options, message):
    with pytest.raises(InputError, match=message) as error:
        imported(file, **options)
    assert "\n" not in str(error.value)


def test_import__no_files():
    with pytest.raises(InputError, match="No file came"):
        import_tilt_series([], angles=[1.0], pixel_size=0.35)


def test_import__names_where_nothing_has_a_name(tmp_path, images):
    np.save(tmp_path / "images.npy", images)
    with pytest.raises(InputError, match=r"angles file tilts\.csv does not exist"):
        import_tilt_series(tmp_path / "images.npy", angles="tilts.csv", pixel_size=0.35)
    with pytest.raises(InputError, match="mask 'mask' is no file"):
        import_tilt_series(tmp_path / "images.npy", angles=ANGLES, mask="mask", pixel_size=0.35)


def test_import__links_out_of_the_folder_are_refused_for_every_dataset(file, tmp_path):
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "main.h5", "w") as handle:
        for name in ("images", "angles", "mask"):
            handle[name] = h5py.ExternalLink("../series.h5", name)
    for name in ("images", "angles", "mask"):
        good = {other: f"{file}::{other}" for other in ("angles", "mask") if other != name}
        target = file if name != "images" else tmp_path / "in" / "main.h5"
        bad = {} if name == "images" else {name: f"{tmp_path / 'in' / 'main.h5'}::{name}"}
        with pytest.raises(InputError, match="outside the file's folder"):
            imported(target, **good, **bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_size": 0.03216}, r"0\.03216 Angstrom is unusual.*in nm \(then 0\.3216 Angstrom\)"),
        ({"pixel_size": 32.16}, r"in pm \(then 0\.3216 Angstrom\)"),
        ({"pixel_size": 3.216e-11}, r"in m \(then 0\.3216 Angstrom\)"),
        ({"angles": np.deg2rad(ANGLES)}, r"look like radians.*60\.0"),
        ({"angles": [-60, -30, 0, 0, 30, 60]}, r"same angles: 2 and 3"),
        ({"angles": [0, 30, 0, 30, 0, 60]}, r"0 and 2 .*, 0 and 4 .*, 1 and 3 .* and 1 more"),
        ({"voltage": 200_000}, "meant in V"),
    ],
)
def test_import__what_looks_wrong_warns_and_goes_on(file, options, message):
    with pytest.warns(AetdistWarning, match=message) as caught:
        series = imported(file, **options)
    assert len(caught) == 1
    assert series.images.shape == (N, NY, NX)


def test_import__empty_images_and_masks_of_a_tilt_warn(file, images):
    images[3] = 0
    spoil(file, images=images)
    with pytest.warns(AetdistWarning, match="measured pixels of tilt 3 have one and the same value"):
        imported(file)
    mask = np.ones((N, NY, NX), bool)
    mask[[1, 3]] = False
    spoil(file, mask=mask)
    with pytest.warns(AetdistWarning, match="False for all of tilt 1, 3"):
        imported(file, mask="mask")


@pytest.mark.parametrize("size", [0.1, 0.3216, 0.5, 1.2, 5.0])
def test_import__usual_series_do_not_warn(file, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imported(file, pixel_size=size)


def test_import__damage_behind_a_sound_header_is_found(tmp_path, images):
    path = tmp_path / "series.h5"
    with h5py.File(path, "w") as handle:
        data = handle.create_dataset("images", data=images, chunks=(1, NY, NX), compression="gzip")
        place = data.id.get_chunk_info(4)
    with path.open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(bytes(place.size))
    with pytest.raises(InputError, match="image 4 of images cannot be read"):
        imported(path, angles=ANGLES)


def test_import__real_film(data_folder):
    series = import_tilt_series(
        data_folder / "ta_film_fov_A.h5",
        images="images",
        angles="angles_deg",
        mask="mask",
        x_pixels="x_pix",
        y_pixels="y_pix",
        pixel_size=0.3216,
        voltage=300,
    )
    assert series.images.shape == (46, 126, 401)
    assert float(series.mask.mean()) == pytest.approx(0.8654, abs=1e-4)
    assert float(series.images.where(~series.mask, 0).max()) == 0
    # largest stored number times scale_factor plus add_offset
    with h5py.File(data_folder / "ta_film_fov_A.h5") as handle:
        stored, attrs = handle["images"][...].max(), dict(handle["images"].attrs)
        theta = handle["angles_deg"][:, 1]
    assert float(series.images.max()) == pytest.approx(stored * attrs["scale_factor"] + attrs["add_offset"], rel=1e-6)
    np.testing.assert_allclose(series.x[[0, 200, -1]], [-200 * 0.3216, 0, 200 * 0.3216], atol=1e-9)
    np.testing.assert_allclose(series.y[[0, -1]], [-175 * 0.3216, -50 * 0.3216], atol=1e-9)
    np.testing.assert_allclose(series.angles[:, 1], theta)
