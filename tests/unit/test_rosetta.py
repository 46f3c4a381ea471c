"""DM, EMD and SER files: small ones, written as the microscopes' programs do, are read back."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from aetdist.acquisition import import_acquisition
from aetdist.errors import AetdistWarning, InputError
from aetdist.io.readers import list_datasets, open_frames, open_stack, read_calibration
from aetdist.tilt_series import import_tilt_series

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_files import MICROSCOPES, write_dm, write_ncem, write_ser, write_velox

OPTICS = {"voltage_kV": 300.0, "camera_length_mm": 115.0, "magnification": 5e6, "dwell_time_us": 2.0}
TAGS = {
    "Microscope Info": {
        "Voltage": 300000.0,
        "STEM Camera Length": 115.0,
        "Indicated Magnification": 5e6,
        "Stage Position": {"Stage Alpha": -12.5},
    },
    "DigiScan": {"Sample Time": 2.0},
}


@pytest.fixture(autouse=True)
def _rosetta(request):
    """Skip what needs RosettaSciIO where it is not installed."""
    if "without_rosetta" not in request.node.name and "__ser" not in request.node.name:
        pytest.importorskip("rsciio")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(-900, 900, (6, 20, 23)).astype(np.int16)


def written(folder, name, images, **options):
    file, write = MICROSCOPES[name]
    return write(folder / file, images, **options)


@pytest.mark.parametrize("name", MICROSCOPES)
def test_rosetta__every_format_gives_its_images(tmp_path, images, name):
    stack = open_frames(written(tmp_path, name, images))
    assert stack.shape == images.shape
    assert np.dtype(stack.dtype) == np.int16
    for k in (0, 3, 5, 1):
        np.testing.assert_array_equal(stack.read(k), images[k])
    assert len(pickle.dumps(stack)) < 2000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stack)).read(2), images[2])


@pytest.mark.parametrize("name", MICROSCOPES)
def test_rosetta__calibrations_are_in_angstrom(tmp_path, images, name):
    found = read_calibration(written(tmp_path, name, images))
    assert found.pixel_size == pytest.approx((0.35, 0.35))


def test_rosetta__metadata_have_units(tmp_path, images):
    for path in (write_dm(tmp_path / "a.dm4", images, tags=TAGS), write_velox(tmp_path / "a.emd", images, tilt=-12.5)):
        found = read_calibration(path)
        assert found.stage_tilts == pytest.approx((-12.5,))
        assert {name: found.attributes[name] for name in OPTICS} == pytest.approx(OPTICS)
    assert found.attributes["convergence_mrad"] == pytest.approx(25)


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 10), ("Å", 1), ("\u212b", 1), ("µm", 1e4), ("pm", 0.01), ("m", 1e10)]
)
def test_rosetta__units_of_lengths(tmp_path, images, unit, factor):
    found = read_calibration(write_dm(tmp_path / "a.dm3", images, pixel=(0.3 / factor, 0.4 / factor), unit=unit))
    assert found.pixel_size == pytest.approx((0.3, 0.4))


@pytest.mark.parametrize("unit", ["1/nm", "mrad"])
def test_rosetta__diffraction_patterns_are_refused(tmp_path, images, unit):
    with pytest.raises(InputError, match="diffraction patterns; needed are images"):
        read_calibration(write_dm(tmp_path / "a.dm4", images, unit=unit))


def test_rosetta__pixels_without_a_unit_have_no_size(tmp_path, images):
    assert read_calibration(write_dm(tmp_path / "a.dm4", images, unit="")).pixel_size is None


def test_rosetta__an_axis_of_frames(tmp_path, images):
    stack = open_frames(write_dm(tmp_path / "a.dm4", images.reshape(3, 2, 20, 23)))
    assert (stack.shape, stack.frames) == ((6, 20, 23), 2)
    np.testing.assert_array_equal(stack.read(3), images[3])
    scan = open_frames(write_velox(tmp_path / "a.emd", images))
    assert (scan.shape, scan.frames) == ((6, 20, 23), 6)  # Velox: one scan after the other
    with pytest.raises(InputError, match=r"shape \(3, 2, 20, 23\).*--raw"):
        open_stack(tmp_path / "a.dm4")


def test_rosetta__a_detector_is_chosen_by_name(tmp_path, images):
    path = write_velox(tmp_path / "a.emd", images, detectors=("HAADF", "BF"))
    with pytest.raises(InputError, match=r"holds 2 images; it has HAADF \(6x20x23 int16\), BF .*name one"):
        open_frames(path)
    np.testing.assert_array_equal(open_frames(path, "BF").read(1), images[1])
    with pytest.raises(InputError, match=r"no dataset 'DF4'.*HAADF"):
        open_frames(path, "DF4")


def test_rosetta__an_emd_is_hdf5_where_a_dataset_is_named(tmp_path, images):
    path = write_ncem(tmp_path / "a.emd", images)
    assert "data/series/data" in list_datasets(path)
    np.testing.assert_array_equal(open_stack(path, "data/series/data").read(2), images[2])


def test_rosetta__memory_holds_one_image(tmp_path):
    images = np.zeros((64, 128, 128), np.int16)
    stack = open_frames(write_dm(tmp_path / "a.dm4", images))
    stack.read(0)
    tracemalloc.start()
    stack.read(40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes / 4


@pytest.mark.parametrize("name", MICROSCOPES)
@pytest.mark.parametrize("kept", [0.05, 0.6])
def test_rosetta__truncated_files_are_named(tmp_path, images, name, kept):
    path = written(tmp_path, name, images)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=path.name) as error:
        open_frames(path).read(5)
    assert "\n" not in str(error.value)


def test_rosetta__without_rosetta_the_extra_is_named(tmp_path, images, monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "rsciio"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "rsciio", None)  # what Python does where it is not installed
    for path in (write_dm(tmp_path / "a.dm4", images), write_velox(tmp_path / "a.emd", images)):
        with pytest.raises(InputError, match=r"a\.\w+ is read by RosettaSciIO.*pip install 'aetdist\[em\]'"):
            open_frames(path)
    with pytest.raises(InputError, match=r"aetdist\[em\]"):
        import_acquisition(tmp_path / "a.dm4")


def test_rosetta__a_folder_of_tilts_needs_nothing_said(tmp_path, images):
    tilts = [-20.0, 0.0, 10.0]
    for k, tilt in enumerate(tilts):
        tags = {**TAGS, "Microscope Info": {**TAGS["Microscope Info"], "Stage Position": {"Stage Alpha": tilt}}}
        write_dm(tmp_path / f"tilt_{k + 8}.dm4", images[2 * k : 2 * k + 2], tags=tags)
    raw = import_acquisition(tmp_path, frames="files")
    np.testing.assert_array_equal(raw.frames, images.reshape(3, 2, 20, 23))
    np.testing.assert_allclose(raw.angles[:, 1], tilts)
    assert raw.pixel_size == pytest.approx(0.35)
    assert {name: raw.attrs[name] for name in OPTICS} == pytest.approx(OPTICS)
    assert raw.attrs["source"] == ["tilt_8.dm4", "tilt_9.dm4", "tilt_10.dm4"]
    with pytest.warns(AetdistWarning, match=r"differ from the stage's by up to 20 degrees \(tilt 0: 0, .* says -20\)"):
        import_acquisition(tmp_path, frames="files", angles=[0.0, -20.0, 10.0])


def test_rosetta__velox_scans_are_frames_of_their_tilt(tmp_path, images):
    for k in range(2):
        write_velox(tmp_path / f"{k}.emd", images[3 * k : 3 * k + 3], tilt=4.0 * k)
    raw = import_acquisition(tmp_path)
    np.testing.assert_array_equal(raw.frames, images.reshape(2, 3, 20, 23))
    np.testing.assert_allclose(raw.angles[:, 1], [0.0, 4.0], atol=1e-9)


def test_rosetta__what_varies_between_files_is_kept_and_warned_of(tmp_path, images):
    for k, voltage in enumerate((300000.0, 200000.0)):
        tags = {"Microscope Info": {"Voltage": voltage}}
        write_dm(tmp_path / f"{k}.dm3", images[k], tags=tags)
    with pytest.warns(AetdistWarning, match="voltage_kV goes from 200 to 300 between the files"):
        raw = import_acquisition(tmp_path, angles=[0.0, 2.0])
    assert raw.attrs["voltage_kV"] == [300.0, 200.0]


def test_rosetta__aligned_series_in_these_formats(tmp_path, images):
    for name in ("dm4", "ser", "ncem"):
        series = import_tilt_series(written(tmp_path, name, images), angles=np.arange(0.0, 12.0, 2.0))
        np.testing.assert_array_equal(series.images, images)
        assert series.pixel_size == pytest.approx(0.35)


def test_rosetta__ser_agrees_with_rosetta(tmp_path, images):
    tia = pytest.importorskip("rsciio.tia")
    path = write_ser(tmp_path / "a.ser", images)
    (entry,) = tia.file_reader(str(path))
    np.testing.assert_array_equal(entry["data"], np.stack([open_frames(path).read(k) for k in range(6)]))
    assert entry["axes"][-1]["scale"] == pytest.approx(0.035)


def test_rosetta__ser_metadata_come_from_the_emi_beside_it(tmp_path, images):
    path = write_ser(tmp_path / "a_1.ser", images)
    assert read_calibration(path).attributes == {}
    data = [("High tension", 300, "kV"), ("Stage A", -7.25, "deg"), ("Camera length", 0.115, "m"), ("Mode", "STEM", "")]
    text = "".join(f"<Data><Label>{a}</Label><Value>{b}</Value><Unit>{c}</Unit></Data>\n" for a, b, c in data)
    (tmp_path / "a.emi").write_bytes(b"\x00\xff<ObjectInfo>" + text.encode() + b"</ObjectInfo>")
    found = read_calibration(path)
    assert found.stage_tilts == (-7.25,)
    assert found.attributes == pytest.approx({"voltage_kV": 300.0, "camera_length_mm": 115.0})


def test_rosetta__ser_of_spectra_or_nothing_is_refused(tmp_path, images):
    with pytest.raises(InputError, match="holds spectra"):
        open_frames(write_ser(tmp_path / "a.ser", images, spectra=True))
    with pytest.raises(InputError, match="no finished image"):
        open_frames(write_ser(tmp_path / "b.ser", images[:0]))
