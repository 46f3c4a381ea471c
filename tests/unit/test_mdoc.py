"""SerialEM's .mdoc: angles, order of the files, pixel size; and what is wrong with one."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest

from aetdist.acquisition import import_acquisition
from aetdist.errors import AetdistWarning, InputError
from aetdist.io.readers import read_calibration, read_order, read_table

TILTS = [0.0, 2.0, -2.0, 4.0]
NAMES = ["tilt_9.mrc", "tilt_10.mrc", "a.mrc", "tilt_1.mrc"]


def write_mdoc(path, tilts=TILTS, names=NAMES, pixel=0.5, sections=None, more=""):
    lines = [
        f"PixelSpacing = {pixel}",
        "Voltage = 300",
        "ImageFile = series.st",
        "",
        "[T = SerialEM: Tilt axis angle = 85]",
    ]
    for k in range(len(tilts)) if sections is None else sections:
        lines += ["", f"[ZValue = {k}]", f"TiltAngle = {tilts[k]}", "ExposureDose = 1.5", "Magnification = 5e6"]
        lines += [f"SubFramePath = D:\\frames\\{names[k]}"] if names else []
    path.write_text("\r\n".join(lines) + more)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(100, 9, (8, 16, 20)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, images):
    """Two frames in a file, as .mrc files named in another order than they were taken."""
    for k, name in enumerate(NAMES):
        with mrcfile.new(tmp_path / name) as file:
            file.set_data(images[2 * k : 2 * k + 2])
            file.voxel_size = 0.5
    return tmp_path


def test_mdoc__says_angles_order_and_pixels(tmp_path):
    path = write_mdoc(tmp_path / "series.st.mdoc")
    np.testing.assert_array_equal(read_table(path), TILTS)
    assert read_order(path) == tuple(NAMES)
    found = read_calibration(path)
    assert found.pixel_size == (0.5, 0.5)
    assert found.attributes == {"voltage_kV": 300.0, "magnification": 5e6, "dose_e_per_A2": 6.0}


def test_mdoc__sections_count_by_their_zvalue(tmp_path):
    path = write_mdoc(tmp_path / "a.mdoc", sections=[2, 0, 3, 1])
    np.testing.assert_array_equal(read_table(path), TILTS)
    assert read_order(path) == tuple(NAMES)


def test_mdoc__without_names_of_files(tmp_path):
    assert read_order(write_mdoc(tmp_path / "a.mdoc", names=None)) is None


def test_mdoc__puts_files_in_the_order_they_were_taken(folder, images):
    mdoc = write_mdoc(folder / "series.mdoc")
    for options in ({"angles": mdoc}, {"order": mdoc}):
        raw = import_acquisition(folder, frames="files", **options)
        np.testing.assert_array_equal(raw.frames, images.reshape(4, 2, 16, 20))
        np.testing.assert_array_equal(raw.angles[:, 1], TILTS)
        assert raw.attrs["source"] == NAMES
        assert raw.attrs["voltage_kV"] == 300.0
        assert raw.attrs["dose_e_per_A2"] == 6.0
    # The order that is asked for counts, and what is given goes before what the files say.
    raw = import_acquisition(folder, frames="files", angles=mdoc, order="natural", dose=7.0)
    assert raw.attrs["source"] == sorted(NAMES, key=lambda name: (name != "a.mrc", int("0" + name[5:-4])))
    assert raw.attrs["dose_e_per_A2"] == 7.0


def test_mdoc__its_pixel_size_serves_where_the_files_have_none(tmp_path, images):
    np.save(tmp_path / "a.npy", images[:4])
    raw = import_acquisition(tmp_path / "a.npy", angles=write_mdoc(tmp_path / "a.mdoc", names=None))
    assert raw.pixel_size == 0.5


def test_mdoc__files_that_it_does_not_name_are_left_out_with_a_warning(folder):
    mdoc = write_mdoc(folder / "series.mdoc", sections=[0, 1, 3])
    with pytest.warns(
        AetdistWarning, match=r"1 of 4 files are not named in .*series\.mdoc \(.*a\.mrc\); they are left"
    ):
        raw = import_acquisition(folder, frames="files", angles=mdoc)
    np.testing.assert_array_equal(raw.angles[:, 1], [0.0, 2.0, 4.0])


def test_mdoc__files_that_are_missing_are_named(folder):
    (folder / "a.mrc").unlink()
    with pytest.raises(InputError, match=r"series\.mdoc names a\.mrc, which did not come"):
        import_acquisition(folder, frames="files", angles=write_mdoc(folder / "series.mdoc"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PixelSpacing = 1\n", "no section"),
        ("[ZValue = 0]\nBinning = 1\n[ZValue = 1]\nTiltAngle = 3\n", "no TiltAngle for image 0"),
        ("[ZValue = 0]\nTiltAngle = 1\n[ZValue = 0]\nTiltAngle = 3\n", "several sections of one ZValue"),
        ("[ZValue = 0]\nTiltAngle = one\n", "TiltAngle = 'one' came"),
        (
            "[ZValue = 0]\nTiltAngle = 1\nPixelSpacing = 1\n[ZValue = 1]\nTiltAngle = 3\nPixelSpacing = 2\n",
            "PixelSpacing goes from 1.0 to 2.0",
        ),
    ],
)
def test_mdoc__damaged_ones_are_refused(tmp_path, text, message):
    (tmp_path / "a.mdoc").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_table(tmp_path / "a.mdoc")
    assert "a.mdoc" in str(error.value)
