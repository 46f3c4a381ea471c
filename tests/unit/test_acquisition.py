"""Import of raw frames: their order, what stays lazy, what the files say, and what is noticed."""

from __future__ import annotations

import pickle
import tracemalloc

import dask
import h5py
import mrcfile
import numpy as np
import pytest
import scipy.io
import tifffile
from click.testing import CliRunner

from aetdist import acquisition, pipeline, schema
from aetdist.acquisition import import_acquisition
from aetdist.cli import program
from aetdist.errors import AetdistWarning, InputError
from aetdist.experiment import read_experiment
from aetdist.io import Store
from aetdist.io.readers import hdf5, open_frames, open_stack, read_calibration
from aetdist.io.readers.files import in_natural_order
from aetdist.tilt_series import import_tilt_series

N, F, NY, NX = 3, 2, 24, 20
ANGLES = [-30.0, 0.0, 30.0]
GIVEN = {"angles": ANGLES, "pixel_size": 0.35}


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 500, (N, F, NY, NX)).astype(np.uint16)


@pytest.fixture
def file(tmp_path, frames):
    np.save(tmp_path / "frames.npy", frames)
    return tmp_path / "frames.npy"


def save(folder, images, name="img_{}.tif"):
    """One image a file; the numbers go over ten, so that names in alphabetical order are in the wrong one."""
    paths = [folder / name.format(k + 8) for k in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image)
    return paths


def test_acquisition__gives_the_schemas_group(file, frames):
    raw = import_acquisition(file, **GIVEN, voltage=200, dose=1e5, tilt_axis=3.0)
    schema.check(raw, schema.FRAMES)
    assert raw.frames.dtype == np.float32
    assert raw.frames.data.chunks == ((1,) * N, (F,), (NY,), (NX,))
    np.testing.assert_array_equal(raw.frames, frames)
    np.testing.assert_allclose(raw.x, (np.arange(NX) - NX // 2) * 0.35)
    np.testing.assert_allclose(raw.y, (np.arange(NY) - NY // 2) * 0.35)
    np.testing.assert_array_equal(raw.frame, [0, 1])
    for name, variable in schema.FRAMES.variables.items():
        assert raw[name].attrs["units"] == variable.units
    assert raw.attrs == {
        "angle_convention": "yang2021",
        "tilt_axis_deg": 3.0,
        "flip_tilt": False,
        "source": ["frames.npy"],
        "voltage_kV": 200.0,
        "dose_e_per_A2": 1e5,
    }


def test_acquisition__is_read_by_the_tasks(file, frames, monkeypatch):
    raw = import_acquisition(file, **GIVEN)
    assert len(pickle.dumps(raw.frames.data.dask)) < 20_000  # a path, not pixels
    with dask.config.set(scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(raw.frames[1].compute(), frames[1])


def test_acquisition__building_reads_no_pixel(tmp_path, frames, no_compute, monkeypatch):
    def read(self, tilt):
        raise AssertionError("a pixel was read while the graph was built")

    monkeypatch.setattr(hdf5.Hdf5Stack, "read", read)
    monkeypatch.setattr(acquisition, "_statistics", lambda source: np.zeros((N, F, len(acquisition._STATISTICS))))
    monkeypatch.setattr(acquisition, "_check_frames", lambda *_: None)
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        handle["frames"] = frames
    assert import_acquisition(tmp_path / "a.h5", **GIVEN).frames.shape == frames.shape


def test_acquisition__holds_one_tilt_in_memory(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 2, 96, 96), np.float32))  # 30 x 72 KiB
    options = {"angles": np.linspace(-60, 60, 30), "pixel_size": 0.35}
    with dask.config.set(scheduler="synchronous"):
        import_acquisition(tmp_path / "a.npy", **options)
        tracemalloc.start()
        raw = import_acquisition(tmp_path / "a.npy", **options)
        for tilt in range(30):
            raw.frames[tilt].compute()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 30 * 2 * 96 * 96 * 4 / 2


# -- which images are the frames of a tilt -----------------------------------------------------------


def written(folder, name, array):
    path = folder / name
    match path.suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            np.savez(path, images=array)
        case ".h5":
            with h5py.File(path, "w") as handle:
                handle["images"] = array
        case ".mat":
            scipy.io.savemat(path, {"images": np.moveaxis(array, (0, 1), (3, 2))})
        case ".tif":
            tifffile.imwrite(path, array, photometric="minisblack")
        case ".mrc":
            with mrcfile.new(path) as handle:
                handle.set_data(array)
    return path


@pytest.mark.parametrize("name", ["a.npy", "fortran.npy", "a.npz", "a.h5", "a.mat", "a.tif", "a.mrc"])
def test_acquisition__an_axis_of_frames_in_every_format(tmp_path, frames, name):
    path = written(tmp_path, name, np.asfortranarray(frames) if "fortran" in name else frames)
    stack = open_frames(path)
    assert (stack.shape, stack.frames) == ((N * F, NY, NX), F)
    np.testing.assert_array_equal(import_acquisition(path, **GIVEN).frames, frames)
    with pytest.raises(InputError, match=r"shape \(3, 2, 24, 20\); needed is a stack of images.*--raw"):
        open_stack(path)


def test_acquisition__matlab_73_with_an_axis_of_frames(tmp_path, frames):
    with h5py.File(tmp_path / "a.mat", "w") as handle:
        handle["images"] = np.swapaxes(frames, 2, 3)
        handle["images"].attrs["MATLAB_class"] = np.bytes_("uint16")
    np.testing.assert_array_equal(import_acquisition(tmp_path / "a.mat", **GIVEN).frames, frames)


def test_acquisition__consecutive_images_of_a_stack_or_of_files(tmp_path, frames):
    stack = written(tmp_path, "a.mrc", frames.reshape(N * F, NY, NX))
    np.testing.assert_array_equal(import_acquisition(stack, frames=F, **GIVEN).frames, frames)
    folder = tmp_path / "folder"
    folder.mkdir()
    paths = save(folder, frames.reshape(N * F, NY, NX))
    for files in (folder, sorted(paths), paths[::-1]):  # a shell gives img_10 before img_8
        raw = import_acquisition(files, frames=F, **GIVEN)
        np.testing.assert_array_equal(raw.frames, frames)
        assert raw.attrs["source"] == [path.name for path in paths]


def test_acquisition__every_file_is_a_tilt_and_may_have_fewer_frames(tmp_path, frames):
    images = list(frames)
    images[1] = images[1][:1]
    save(tmp_path, images, "t{}.tif")
    raw = import_acquisition(tmp_path, frames="files", **GIVEN)
    assert np.isnan(raw.frames[1, 1]).all()
    np.testing.assert_array_equal(raw.frames[1, 0], frames[1, 0])
    np.testing.assert_array_equal(raw.frames[2], frames[2])


def test_acquisition__names_say_tilt_and_frame(tmp_path, frames):
    for t, tilt in enumerate((-2, 0, 10)):
        for f in range(F):
            tifffile.imwrite(tmp_path / f"x_{tilt}_frame_{f + 9}.tif", frames[t, f])
    raw = import_acquisition(tmp_path, frames="x_{tilt}_frame_{frame}.tif", **GIVEN)
    np.testing.assert_array_equal(raw.frames, frames)
    raw = import_acquisition(tmp_path, frames="*_{angle}_*_{frame}.tif", pixel_size=0.35)
    np.testing.assert_array_equal(raw.angles[:, 1], [-2, 0, 10])
    np.testing.assert_array_equal(raw.frames, frames)
    (tmp_path / "x_0_frame_9.tif").unlink()
    tifffile.imwrite(tmp_path / "overview.tif", frames[0, 0])
    with pytest.warns(AetdistWarning, match=r"1 of 6 files are not named like .*overview\.tif\); they are left out"):
        raw = import_acquisition(tmp_path, frames="x_{tilt}_frame_{frame}.tif", **GIVEN)
    np.testing.assert_array_equal(raw.frames[1, 0], frames[1, 1])
    assert np.isnan(raw.frames[1, 1]).all()


def test_acquisition__one_frame_alone(tmp_path, frames):
    save(tmp_path, frames[:, 0])
    raw = import_acquisition(tmp_path, **GIVEN)
    assert raw.frames.shape == (N, 1, NY, NX)


@pytest.mark.parametrize(
    ("frames_", "message"),
    [
        (4, r"3 angles came for 6 images, 4 frames for each tilt"),
        (0, "0 frames came"),
        ("{tilt}.tif", "needed is one .tilt"),
        ("x{tilt}_{frame}.tif", r"No file is named like"),
        (3, r"3 angles came for 2 tilts"),
    ],
)
def test_acquisition__frames_refused(tmp_path, frames, frames_, message):
    save(tmp_path, frames.reshape(N * F, NY, NX))
    with pytest.raises(InputError, match=message):
        import_acquisition(tmp_path, frames=frames_, **GIVEN)


def test_acquisition__frames_of_an_axis_and_another_number(file):
    with pytest.raises(InputError, match=r"3 frames came for each tilt, but the files hold \[2\]; leave frames out"):
        import_acquisition(file, frames=3, **GIVEN)


# -- the order of files ------------------------------------------------------------------------------


def test_acquisition__natural_order():
    names = ["img_2.tif", "img_10.tif", "IMG_11.tif", "t_-60.0.tif", "t_-7.5.tif", "t_+3.tif", "t_12.tif"]
    assert in_natural_order(sorted(names)) == names
    days = ["2021-01-02.tif", "2021-01-10.tif", "2021-02-01.tif"]  # hyphens, no signs
    assert in_natural_order(days[::-1]) == days


def test_acquisition__a_table_with_names_orders_the_files(tmp_path, frames):
    folder = tmp_path / "folder of frames"
    folder.mkdir()
    paths = save(folder, frames[:, 0], "img {}.tif")
    table = tmp_path / "angles.csv"
    table.write_text("file, angle\n" + "".join(f"x/{paths[k].name}, {ANGLES[k]}\n" for k in (2, 0, 1)))
    raw = import_acquisition(folder, angles=table, pixel_size=0.35)
    np.testing.assert_array_equal(raw.frames[:, 0], frames[[2, 0, 1], 0])
    np.testing.assert_array_equal(raw.angles[:, 1], [30.0, -30.0, 0.0])
    raw = import_acquisition(folder, order=table, **GIVEN)
    np.testing.assert_array_equal(raw.frames[:, 0], frames[[2, 0, 1], 0])
    series = import_tilt_series(folder, angles=table, pixel_size=0.35)
    np.testing.assert_array_equal(series.images, frames[[2, 0, 1], 0])


def test_acquisition__order_as_given(tmp_path, frames):
    paths = save(tmp_path, frames[:, 0])
    raw = import_acquisition(paths[::-1], order="given", **GIVEN)
    np.testing.assert_array_equal(raw.frames[:, 0], frames[::-1, 0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,angle\nimg_8.tif,1\nimg_8.tif,2\nimg_9.tif,3\n", r"names img_8\.tif twice"),
        ("file,angle\nimg_8.tif,1\nimg_9.tif,2\nimg_7.tif,3\n", r"names img_7\.tif, which did not come"),
        ("1\n2\n3\n", "names no files"),
    ],
)
def test_acquisition__orders_refused(tmp_path, frames, table, message):
    save(tmp_path, frames[:, 0])
    (tmp_path / "order.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        import_acquisition(tmp_path, order=tmp_path / "order.csv", **GIVEN)


def test_acquisition__unknown_orders_and_two_orders(tmp_path, frames):
    save(tmp_path, frames[:, 0])
    with pytest.raises(InputError, match="order came as natrual; needed is natural, given"):
        import_acquisition(tmp_path, order="natrual", **GIVEN)
    with pytest.raises(InputError, match="natural order of their names: leave one out"):
        import_acquisition(tmp_path, order="given", frames="i{tilt}_{frame}.tif", **GIVEN)


def test_acquisition__a_pattern_puts_angles_in_the_order_of_its_tilts(tmp_path, frames):
    save(tmp_path, frames[:, 0], "t{}_f1.tif")
    table = tmp_path / "angles.csv"  # whose order would be another
    table.write_text("file,angle\n" + "".join(f"t{k + 8}_f1.tif,{10 * k}\n" for k in (2, 0, 1)))
    with pytest.raises(InputError, match=r"angles\.csv names the files; with the pattern .* leave the column out"):
        import_acquisition(tmp_path, frames="t{tilt}_f{frame}.tif", angles=table, pixel_size=0.35)


# -- calibrations ------------------------------------------------------------------------------------


def test_acquisition__pixel_sizes_of_mrc_and_tiff(tmp_path, frames):
    with mrcfile.new(tmp_path / "a.mrc") as handle:
        handle.set_data(frames[:, 0])
        handle.voxel_size = (0.4, 0.4, 2.0)
    images, size = frames[:, 0], 1 / 0.4
    tifffile.imwrite(tmp_path / "ij.tif", images, imagej=True, resolution=(size, size), metadata={"unit": "angstrom"})
    tifffile.imwrite(tmp_path / "nm.tif", images, imagej=True, resolution=(10 * size,) * 2, metadata={"unit": "nm"})
    tifffile.imwrite(
        tmp_path / "cm.tif", images, photometric="minisblack", resolution=(1e8 * size,) * 2, resolutionunit="CENTIMETER"
    )
    ome = {"axes": "ZYX", "PhysicalSizeX": 0.04, "PhysicalSizeY": 0.04}
    ome |= {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(tmp_path / "o.ome.tif", images, metadata=ome, photometric="minisblack")
    for path in tmp_path.iterdir():
        assert read_calibration(path).pixel_size == pytest.approx((0.4, 0.4), rel=1e-5), path
        assert import_acquisition(path, angles=ANGLES).pixel_size == pytest.approx(0.4, rel=1e-5)
        assert import_tilt_series(path, angles=ANGLES).pixel_size == pytest.approx(0.4, rel=1e-5)


def test_acquisition__printers_resolutions_are_no_pixel_sizes(tmp_path, frames):
    tifffile.imwrite(
        tmp_path / "a.tif", frames[:, 0], photometric="minisblack", resolution=(72, 72), resolutionunit="INCH"
    )
    with mrcfile.new(tmp_path / "a.mrc") as handle:
        handle.set_data(frames[:, 0])
        handle.voxel_size = 1.0  # what programs write that do not know it
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match="No pixel size came, and the files say none"):
            import_acquisition(path, angles=ANGLES)


def test_acquisition__fei_headers_say_tilts_and_optics(tmp_path, frames):
    kind = mrcfile.dtypes.get_ext_header_dtype(b"FEI1")
    table = np.zeros(N, kind)
    table["Metadata size"], table["HT"], table["Camera length"], table["Dwell time"] = kind.itemsize, 3e5, 0.115, 2e-6
    table["Alpha tilt"], table["Pixel size X"], table["Pixel size Y"] = ANGLES, 3.5e-11, 3.5e-11
    with mrcfile.new(tmp_path / "a.mrc") as handle:
        handle.set_data(frames[:, 0])
        handle.set_extended_header(table)
        handle.header.exttyp = b"FEI1"
    raw = import_acquisition(tmp_path / "a.mrc")
    np.testing.assert_array_equal(raw.angles[:, 1], ANGLES)
    assert raw.pixel_size == pytest.approx(0.35)
    assert raw.attrs["voltage_kV"] == 300.0
    assert raw.attrs["camera_length_mm"] == pytest.approx(115.0)
    assert raw.attrs["dwell_time_us"] == pytest.approx(2.0)


def test_acquisition__pixels_that_are_not_square_are_refused(tmp_path, frames):
    for name, x in (("a.mrc", 0.4008), ("b.mrc", 0.4002)):
        with mrcfile.new(tmp_path / name) as handle:
            handle.set_data(frames[:, 0])
            handle.voxel_size = (x, 0.4, 1.0)
    with pytest.raises(InputError, match=r"a\.mrc are 0\.4 x 0\.4008 Angstrom \(y, x\).*resample.*--pixel-size"):
        import_acquisition(tmp_path / "a.mrc", angles=ANGLES)
    assert import_acquisition(tmp_path / "b.mrc", angles=ANGLES).pixel_size == pytest.approx(0.4)
    assert import_acquisition(tmp_path / "a.mrc", angles=ANGLES, pixel_size=0.4).pixel_size == 0.4
    with pytest.warns(AetdistWarning, match=r"A pixel of 0\.44 Angstrom came, .*a\.mrc says 0\.4 x"):
        import_acquisition(tmp_path / "a.mrc", angles=ANGLES, pixel_size=0.44)


def test_acquisition__files_of_several_pixel_sizes_are_refused(tmp_path, frames):
    for name, size in (("a.mrc", 0.4), ("b.mrc", 0.41)):
        with mrcfile.new(tmp_path / name) as handle:
            handle.set_data(frames[0])
            handle.voxel_size = size
    with pytest.raises(InputError, match=r"a\.mrc are 0\.4 Angstrom, those of .*b\.mrc 0\.41"):
        import_acquisition(tmp_path, frames="files", angles=ANGLES[:2])


# -- what is noticed ---------------------------------------------------------------------------------


def test_acquisition__swapped_axes_are_noticed(tmp_path, frames):
    np.save(tmp_path / "a.npy", np.moveaxis(frames[:, 0], 0, 2))
    for read in (import_acquisition, import_tilt_series):
        with pytest.raises(InputError, match=r"3 angles came for 24 .*\(24, 20, 3\).*last axis.*\(y, x, tilt\)"):
            read(tmp_path / "a.npy", **GIVEN)


def test_acquisition__frames_of_several_sizes_are_refused(tmp_path, frames):
    paths = save(tmp_path, frames[:, 0])
    tifffile.imwrite(paths[1], frames[1, 0, :, 1:])
    with pytest.raises(InputError, match=r"img_8\.tif has \(24, 20\) pixels.*img_9\.tif \(24, 19\)"):
        import_acquisition(tmp_path, **GIVEN)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f[1, 0].fill(7), r"one value in frame 0 of tilt 1 \(frames\.npy\); imported as it is: is it blank"),
        (lambda f: f[2, 1, :2].fill(65535), r"1% of the pixels are saturated in frame 1 of tilt 2 "),
        (
            lambda f: np.copyto(f[2, 0], f[0, 1]),
            r"1 frames are copies of others: frame 1 of tilt 0 .*frame 0 of tilt 2",
        ),
    ],
)
def test_acquisition__what_looks_wrong_warns_and_goes_on(tmp_path, frames, spoil, message):
    spoil(frames)
    np.save(tmp_path / "frames.npy", frames)
    with pytest.warns(AetdistWarning, match=message) as caught:
        raw = import_acquisition(tmp_path / "frames.npy", **GIVEN)
    assert len(caught) == 1
    np.testing.assert_array_equal(raw.frames, frames)


def test_acquisition__a_few_full_pixels_do_not_warn(tmp_path, frames):
    frames[0, 0, 0, :4] = 65535
    np.save(tmp_path / "a.npy", frames)
    import_acquisition(tmp_path / "a.npy", **GIVEN)


@pytest.mark.parametrize("dark", [False, True])
def test_acquisition__inverted_contrast_is_noticed(tmp_path, dark):
    y, x = np.mgrid[:128, :128]
    particle = 100.0 * np.exp(-((y - 64) ** 2 + (x - 60) ** 2) / 20**2)
    images = np.random.default_rng(0).poisson(20 + particle, (3, 128, 128)).astype(np.int32)
    np.save(tmp_path / "a.npy", 4000 - images if dark else images)
    if dark:
        with pytest.warns(AetdistWarning, match="dark on bright .*imported as they are"):
            import_acquisition(tmp_path / "a.npy", **GIVEN)
    else:
        import_acquisition(tmp_path / "a.npy", **GIVEN)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_acquisition__pixels_that_are_not_finite_are_refused(tmp_path, frames, bad):
    frames = frames.astype(np.float32)
    frames[1, 1, 3:5, 2] = bad
    np.save(tmp_path / "a.npy", frames)
    with pytest.raises(InputError, match=r"2 pixels in 1 frames.*frame 1 of tilt 1 \(a\.npy\): 2 of 480"):
        import_acquisition(tmp_path / "a.npy", **GIVEN)


def test_acquisition__a_file_that_comes_twice_is_refused(tmp_path, frames):
    paths = save(tmp_path, frames[:, 0])
    with pytest.raises(InputError, match=r"img_9\.tif came twice"):
        import_acquisition([*paths, tmp_path / "." / paths[1].name], **GIVEN)


def test_acquisition__unreadable_files_are_named(tmp_path, frames):
    paths = save(tmp_path, frames[:, 0])
    paths[1].write_bytes(paths[1].read_bytes()[:600])
    with pytest.raises(InputError, match=r"img_9\.tif is truncated"):
        import_acquisition(tmp_path, **GIVEN)
    paths[1].write_bytes(b"")
    with pytest.raises(InputError, match=r"img_9\.tif is empty"):
        import_acquisition(tmp_path, **GIVEN)


def test_acquisition__folders_without_images_and_no_files(tmp_path):
    (tmp_path / "notes.txt").write_text("1\n")
    with pytest.raises(InputError, match="holds no images"):
        import_acquisition(tmp_path, **GIVEN)
    with pytest.raises(InputError, match="No file came"):
        import_acquisition([], **GIVEN)


def test_acquisition__angles_are_needed_and_counted(file):
    with pytest.raises(InputError, match="No tilt angles came"):
        import_acquisition(file, pixel_size=0.35)
    with pytest.raises(InputError, match="2 angles came for 3 tilts"):
        import_acquisition(file, angles=[1.0, 2.0], pixel_size=0.35)


def test_acquisition__masks_are_refused(tmp_path, frames):
    np.save(tmp_path / "a.npy", frames > 9)
    with pytest.raises(InputError, match="only True and False"):
        import_acquisition(tmp_path / "a.npy", **GIVEN)


# -- into the store ----------------------------------------------------------------------------------


def test_acquisition__frames_go_to_the_raw_group(tmp_path, frames, file):
    np.save(tmp_path / "single.npy", frames[:, 0])
    for options, source, group, n in (
        ({}, file, "tilt_series/raw", F),
        ({}, tmp_path / "single.npy", "tilt_series/aligned", None),
        ({"frames": "axis"}, tmp_path / "single.npy", "tilt_series/raw", 1),
    ):
        store = tmp_path / "run.zarr"
        said = pipeline.import_series(source, store, overwrite=True, **GIVEN, **options)
        assert Store.open(store).groups() == [group]
        assert (said["n_tilts"], said.get("n_frames"), said["pixel_size"]) == (N, n, 0.35)
        found = pipeline.info(store)
        assert (found["n_tilts"], found.get("n_frames")) == (N, n)
    raw = Store.open(store).read("tilt_series/raw")
    assert raw.frames.data.chunks == ((1,) * N, (1,), (NY,), (NX,))
    np.testing.assert_array_equal(raw.frames[:, 0], frames[:, 0])


def test_acquisition__from_the_command_line(tmp_path, frames):
    save(tmp_path, frames.reshape(N * F, NY, NX))
    (tmp_path / "a.tlt").write_text("\n".join(map(str, ANGLES)))
    store = tmp_path / "run.zarr"
    words = ["import", tmp_path, "-o", store, "--angles", tmp_path / "a.tlt", "--pixel-size", "0.35", "--frames", "2"]
    answer = CliRunner().invoke(program, list(map(str, words)))
    assert answer.exit_code == 0, answer.output
    assert "frames of a tilt, at most" in answer.output
    np.testing.assert_array_equal(Store.open(store).read("tilt_series/raw").frames, frames)
    answer = CliRunner().invoke(program, [*map(str, words[:-2]), "--raw", "--overwrite"])
    assert answer.exit_code != 0
    assert "3 angles came for 6 tilts" in answer.output


def test_acquisition__an_option_of_aligned_series_is_refused(tmp_path, file):
    with pytest.raises(InputError, match="mask = 'nan' came, which import_acquisition does not take"):
        pipeline.import_series(file, tmp_path / "run.zarr", mask="nan", **GIVEN)
    assert not (tmp_path / "run.zarr").exists()


def test_acquisition__run_imports_what_changed_and_nothing_else(tmp_path, frames):
    folder = tmp_path / "raw"
    folder.mkdir()
    paths = save(folder, frames.reshape(N * F, NY, NX))
    (tmp_path / "a.tlt").write_text("\n".join(map(str, ANGLES)))
    toml = tmp_path / "experiment.toml"
    toml.write_text('[import]\nfiles = "raw"\noutput = "run.zarr"\nframes = 2\nangles = "a.tlt"\npixel_size = 0.35\n')
    assert read_experiment(toml).stages["import"]["frames"] == 2
    assert pipeline.run(toml, dry_run=True)["stages"] == {"import": "to compute"}
    assert pipeline.run(toml)["stages"] == {"import": "computed"}
    assert pipeline.run(toml)["stages"] == pipeline.run(toml, dry_run=True)["stages"] == {"import": "current"}
    tifffile.imwrite(paths[3], frames[0, 0] + 1)
    assert pipeline.run(toml)["stages"] == {"import": "computed"}
    np.testing.assert_array_equal(
        Store.open(tmp_path / "run.zarr").read("tilt_series/raw").frames[1, 1], frames[0, 0] + 1
    )
    toml.write_text(toml.read_text().replace("frames = 2", 'frames = "axis"').replace("a.tlt", "b.tlt"))
    (tmp_path / "b.tlt").write_text("\n".join(map(str, np.linspace(-50, 50, N * F))))
    assert pipeline.run(toml)["n_frames"] == 1
