"""Readers: the same stack, written by the formats' own libraries, comes out of each; damaged files are named."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
import tracemalloc
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import scipy.io
import tifffile

from aetdist.errors import InputError
from aetdist.io.readers import digest_of_file, list_datasets, open_stack, read_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_files import FORMATS, write_hdf5

NAMED = [name for name, (_, _, dataset) in FORMATS.items() if dataset]


def written(folder, name, stack):
    suffix, write, dataset = FORMATS[name]
    path = folder / f"series{suffix}"
    write(path, stack)
    return path, dataset


@pytest.fixture
def stack():
    return np.random.default_rng(0).normal(size=(7, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_readers__every_format_gives_tilt_y_x(tmp_path, stack, name):
    path, dataset = written(tmp_path, name, stack)
    source = open_stack(path, dataset)
    assert source.shape == stack.shape
    for tilt in (0, 1, 2, 6, 3, 5, 5):  # forwards, backwards, again
        np.testing.assert_array_equal(source.read(tilt), stack[tilt])
    assert source.read(1).shape == (5, 6)
    assert len(pickle.dumps(source)) < 2000  # nothing large, nothing open
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(4), stack[4])


@pytest.mark.parametrize("name", NAMED)
def test_readers__the_only_stack_needs_no_name(tmp_path, stack, name):
    path, dataset = written(tmp_path, name, stack)
    assert open_stack(path) == open_stack(path, dataset) == open_stack(f"{path}::{dataset}")


@pytest.mark.parametrize("name", NAMED)
def test_readers__missing_dataset_lists_what_there_is(tmp_path, stack, name):
    path, dataset = written(tmp_path, name, stack)
    shape = "5x6x7" if "mat" in name else "7x5x6"
    with pytest.raises(InputError, match=f"no dataset 'imgs'.*{dataset} .{shape} ") as error:
        open_stack(path, "imgs")
    assert "\n" not in str(error.value)
    assert dataset in list_datasets(path)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in NAMED])
def test_readers__a_name_in_a_format_without_names(tmp_path, stack, name):
    path, _ = written(tmp_path, name, stack)
    assert list_datasets(path) == {}
    with pytest.raises(InputError, match="holds one array"):
        open_stack(path, "images")


@pytest.mark.parametrize("name", FORMATS)
def test_readers__memory_holds_one_image(tmp_path, name):
    stack = np.random.default_rng(0).integers(0, 50, (60, 128, 128)).astype(np.float32)  # 60 x 64 KiB
    path, dataset = written(tmp_path, name, stack)
    source = open_stack(path, dataset)
    source.read(0)  # imports and caches
    tracemalloc.start()
    for tilt in (1, 30, 59):
        np.testing.assert_array_equal(source.read(tilt), stack[tilt])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < stack.nbytes / 4


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0, 6, 10, 0.02, 0.5, 0.9])
def test_readers__truncated_file_is_named(tmp_path, stack, name, kept):
    """`kept`: bytes, or part of them."""
    stack = np.concatenate([stack] * 5)
    path, dataset = written(tmp_path, name, stack)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(InputError, match=r"series\.\w+") as error:
        source = open_stack(path, dataset)
        for tilt in range(len(stack)):
            source.read(tilt)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["hdf5", "tiff", "bigtiff", "npy", "mat5"])
def test_readers__damaged_byte_is_one_line_or_nothing(tmp_path, stack, name):
    path, dataset = written(tmp_path, name, stack)
    data = path.read_bytes()
    refused = 0
    for position in np.random.default_rng(0).integers(0, min(len(data), 1500), 60):
        damaged = bytearray(data)
        damaged[position] ^= 255
        path.write_bytes(damaged)
        try:
            source = open_stack(path, dataset)
            for tilt in range(source.shape[0]):
                source.read(tilt)
            list_datasets(path)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 3


@pytest.mark.parametrize("name", ["mrc", "npy", "tiff", "bigtiff", "mat5"])
def test_readers__sizes_are_checked_before_anything_is_allocated(tmp_path, stack, name):
    path, dataset = written(tmp_path, name, stack)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"truncated: .* needs \d+ bytes, the file has \d+"):
        open_stack(path, dataset)


def test_readers__a_header_that_claims_too_much(tmp_path):
    path = tmp_path / "huge.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(2, 3, 3)).flush()
    path.write_bytes(path.read_bytes().replace(b"(2, 3, 3)", b"(9" + b"9" * 12 + b", 3, 3)", 1))
    with pytest.raises(InputError, match="huge"):
        open_stack(path).read(0)


@pytest.mark.parametrize("name", ["mat5-compressed", "npz-compressed", "hdf5", "tiff-deflate"])
def test_readers__damaged_bytes_are_named(tmp_path, name):
    stack = np.random.default_rng(1).normal(size=(20, 32, 32))
    path, dataset = written(tmp_path, name, stack)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="cannot be read"):
        source = open_stack(path, dataset)
        for tilt in range(len(stack)):
            source.read(tilt)


@pytest.mark.parametrize("name", FORMATS)
def test_readers__integers_stay_integers(tmp_path, name):
    stack = np.arange(7 * 5 * 6, dtype=np.uint16).reshape(7, 5, 6)
    path, dataset = written(tmp_path, name, stack)
    source = open_stack(path, dataset)
    assert np.dtype(source.dtype).newbyteorder("=") == np.uint16
    np.testing.assert_array_equal(source.read(6), stack[6])


@pytest.mark.parametrize("name", ["hdf5", "mat73", "mat5", "npy", "npz", "mrc"])
def test_readers__complex_numbers_are_refused(tmp_path, stack, name):
    path, dataset = written(tmp_path, name, stack.astype(np.complex64))
    with pytest.raises(InputError, match="complex"):
        open_stack(path, dataset)


def test_readers__pickles_and_objects_are_refused(tmp_path, stack):
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "o.npz", images=objects)
    scipy.io.savemat(
        tmp_path / "cell.mat", {"images": np.array([stack, "x"], dtype=object), "s": {"a": 1}, "t": "text"}
    )
    with h5py.File(tmp_path / "o.h5", "w") as file:
        file["images"] = np.array([b"a", b"b"])
        file["cell"] = np.zeros((2, 2, 2))
        file["cell"].attrs["MATLAB_class"] = np.bytes_("cell")
        file["text"] = "text"
    for name, dataset in [
        ("o.npy", None),
        ("o.npz", "images"),
        ("cell.mat", "images"),
        ("cell.mat", "s"),
        ("cell.mat", "t"),
        ("o.h5", "images"),
        ("o.h5", "cell"),
        ("o.h5", "text"),
    ]:
        with pytest.raises(InputError, match=r"needed is|cannot be read|not numbers"):
            open_stack(tmp_path / name, dataset)
        with pytest.raises(InputError):
            read_table(tmp_path / name, dataset)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "mrc" and "tif" not in name and name != "imagej"])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5)])
def test_readers__wrong_number_of_axes(tmp_path, name, shape):
    suffix, _, dataset = FORMATS[name]
    path, array = tmp_path / f"series{suffix}", np.ones(shape, np.float32)
    match name.split("-")[0]:
        case "hdf5":
            with h5py.File(path, "w") as file:
                file[dataset] = array
        case "mat73":
            with h5py.File(path, "w") as file:
                file[dataset] = array
                file[dataset].attrs["MATLAB_class"] = np.bytes_("single")
        case "mat5":
            scipy.io.savemat(path, {dataset: array})
            if len(shape) == 1:  # MATLAB knows no fewer than two axes: this is an image of one row
                assert open_stack(path, dataset).shape == (1, 1, 4)
                return
        case "npy":
            np.save(path, array)
        case "npz":
            np.savez(path, images=array)
    with pytest.raises(InputError, match=r"needed is a stack of images"):
        open_stack(path, dataset)


def test_readers__tiff_of_colours_or_several_series(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="colours"):
        open_stack(tmp_path / "rgb.tif")
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(np.zeros((4, 5), np.float32))
        file.write(np.zeros((6, 7), np.float32))
    with pytest.raises(InputError, match="2 series"):
        open_stack(tmp_path / "two.tif")


@pytest.mark.parametrize("name", ["hdf5", "mat73", "mat5", "mat5-compressed", "mrc", "tiff", "npy", "npz"])
def test_readers__one_image_is_a_stack_of_one(tmp_path, stack, name):
    image = stack[0]
    suffix, write, dataset = FORMATS[name]
    path = tmp_path / f"one{suffix}"
    match name.split("-")[0]:
        case "hdf5":
            with h5py.File(path, "w") as file:
                file[dataset] = image
        case "mat73":
            with h5py.File(path, "w") as file:
                file[dataset] = image.T
                file[dataset].attrs["MATLAB_class"] = np.bytes_("single")
        case "mat5":
            scipy.io.savemat(path, {dataset: image}, do_compression="compressed" in name)
        case "mrc":
            with mrcfile.new(path) as file:
                file.set_data(image)
        case _:
            write(path, image)
    source = open_stack(path, dataset)
    assert source.shape == (1, 5, 6)
    np.testing.assert_array_equal(source.read(0), image)


def test_readers__hdf5_packing_is_undone(tmp_path):
    stored = np.array([[[0, 1], [2, 65535]]], np.uint16)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        data = file.create_dataset("images", data=stored)
        data.attrs.update({"scale_factor": 0.5, "add_offset": np.array([-3.0]), "_FillValue": np.uint16(65535)})
    values = open_stack(tmp_path / "p.h5", "images").read(0)
    np.testing.assert_array_equal(values, [[-3.0, -2.5], [-2.0, np.nan]])
    np.testing.assert_array_equal(read_table(tmp_path / "p.h5", "images"), values[None])


@pytest.mark.parametrize("attributes", [{"scale_factor": 0.0}, {"add_offset": np.nan}, {"scale_factor": "two"}])
def test_readers__hdf5_packing_must_be_numbers(tmp_path, attributes):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["images"] = np.zeros((1, 2, 2), np.uint16)
        file["images"].attrs.update(attributes)
    with pytest.raises(InputError, match=f"attribute {next(iter(attributes))}"):
        open_stack(tmp_path / "p.h5", "images")


def test_readers__hdf5_links_inside_the_folder_work(tmp_path, stack):
    (tmp_path / "sub").mkdir()
    write_hdf5(tmp_path / "sub" / "data.h5", stack)
    with h5py.File(tmp_path / "main.h5", "w") as file:
        file["external"] = h5py.ExternalLink("sub/data.h5", "/series/images")
        file["group"] = h5py.ExternalLink("sub/data.h5", "/series")
        file["deep/soft"] = h5py.SoftLink("/group/images")
        file["deep/relative"] = h5py.SoftLink("soft")
        layout = h5py.VirtualLayout(stack.shape, np.float32)
        layout[:] = h5py.VirtualSource("sub/data.h5", "series/images", stack.shape)
        file.create_virtual_dataset("virtual", layout)
    for dataset in ("external", "group/images", "deep/soft", "deep/relative", "virtual"):
        np.testing.assert_array_equal(open_stack(tmp_path / "main.h5", dataset).read(3), stack[3])


def test_readers__hdf5_links_out_of_the_folder_are_refused(tmp_path, stack):
    folder = tmp_path / "in"
    folder.mkdir()
    write_hdf5(tmp_path / "secret.h5", stack)
    stack[0].tofile(tmp_path / "raw.bin")
    (folder / "symlink.h5").symlink_to(tmp_path / "secret.h5")
    with h5py.File(folder / "inner.h5", "w") as file:
        file["images"] = h5py.ExternalLink("../secret.h5", "/series/images")
    with h5py.File(folder / "main.h5", "w") as file:
        file["up"] = h5py.ExternalLink("../secret.h5", "/series/images")
        file["absolute"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/series")
        file["symlink"] = h5py.ExternalLink("symlink.h5", "/series/images")
        file["twice"] = h5py.ExternalLink("inner.h5", "/images")
        file["soft"] = h5py.SoftLink("/absolute/images")
        file["missing"] = h5py.ExternalLink("nothing.h5", "/images")
        file["loop"] = h5py.SoftLink("/loop")
        file.create_dataset("raw", (1, 5, 6), np.float32, external=[(str(tmp_path / "raw.bin"), 0, 120)])
        layout = h5py.VirtualLayout(stack.shape, np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "series/images", stack.shape)
        file.create_virtual_dataset("virtual", layout)
        file["group/dangling"] = h5py.SoftLink("/nowhere")
    outside = ("up", "absolute/images", "symlink", "twice", "soft", "virtual")
    for dataset in outside:
        with pytest.raises(InputError, match="outside the file's folder"):
            open_stack(folder / "main.h5", dataset)
        with pytest.raises(InputError, match="outside the file's folder"):
            read_table(folder / "main.h5", dataset)
    for dataset, message in [
        ("missing", "does not exist"),
        ("loop", "links"),
        ("raw", "another file"),
        ("group/dangling", "no dataset"),
        ("group", "it is a group"),
    ]:
        with pytest.raises(InputError, match=message):
            open_stack(folder / "main.h5", dataset)


def test_readers__matlab_logical_is_bool(tmp_path, stack):
    flags = stack > 0
    scipy.io.savemat(tmp_path / "v5.mat", {"mask": np.moveaxis(flags, 0, 2)})
    with h5py.File(tmp_path / "v73.mat", "w") as file:
        file["mask"] = np.swapaxes(flags, 1, 2).astype(np.uint8)
        file["mask"].attrs["MATLAB_class"] = np.bytes_("logical")
    for name in ("v5.mat", "v73.mat"):
        source = open_stack(tmp_path / name, "mask")
        assert source.dtype == "bool"
        np.testing.assert_array_equal(source.read(2), flags[2])


@pytest.mark.parametrize("compressed", [False, True])
def test_readers__mat5_numbers_stored_small(tmp_path, compressed):
    values = {"two": np.array([[1, 2], [3, 4]], np.uint8), "one": 5.0, "wide": np.arange(12.0).reshape(3, 4)}
    scipy.io.savemat(tmp_path / "s.mat", values, do_compression=compressed)
    np.testing.assert_array_equal(read_table(tmp_path / "s.mat", "two"), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(open_stack(tmp_path / "s.mat", "two").read(0), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(read_table(tmp_path / "s.mat", "wide"), values["wide"])
    np.testing.assert_array_equal(read_table(tmp_path / "s.mat", "one"), [5.0])


def test_readers__mat5_that_compresses_well(tmp_path):
    stack = np.zeros((9, 200, 300))  # the unpacker then holds more output than was asked for
    stack[8, -1, -1] = 1.0
    path, dataset = written(tmp_path, "mat5-compressed", stack)
    source = open_stack(path, dataset)
    for tilt in range(9):
        np.testing.assert_array_equal(source.read(tilt), stack[tilt])


def test_readers__mat5_of_a_big_endian_machine(tmp_path):
    stack = np.arange(24, dtype=">i2").reshape(2, 3, 4)

    def element(code, data):
        return struct.pack(">II", code, len(data)) + data + bytes(-len(data) % 8)

    matrix = (
        element(6, struct.pack(">II", 6, 0))  # class double, here stored as int16
        + element(5, struct.pack(">iii", 3, 4, 2))
        + struct.pack(">HH4s", 3, 1, b"abc")  # a small element: its bytes lie in the tag
        + element(3, stack.transpose(1, 2, 0).tobytes(order="F"))
    )
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    (tmp_path / "be.mat").write_bytes(header + element(14, matrix))
    assert scipy.io.loadmat(tmp_path / "be.mat")["abc"].shape == (3, 4, 2)
    source = open_stack(tmp_path / "be.mat", "abc")
    assert (source.shape, source.dtype) == ((2, 3, 4), "f8")
    np.testing.assert_array_equal(source.read(1), stack[1])


def test_readers__npz_in_fortran_order_is_refused(tmp_path, stack):
    np.savez(tmp_path / "f.npz", images=np.asfortranarray(stack))
    with pytest.raises(InputError, match=r"Fortran order.*save it in C order"):
        open_stack(tmp_path / "f.npz", "images")


def test_readers__mat5_compressed_is_read_once_in_rising_order(tmp_path, monkeypatch):
    from aetdist.io.readers import mat

    stack = np.random.default_rng(2).integers(0, 9, (12, 16, 16)).astype(np.float64)
    path, dataset = written(tmp_path, "mat5-compressed", stack)
    source = open_stack(path, dataset)
    opened = []
    original = mat._element
    monkeypatch.setattr(mat, "_element", lambda *a: opened.append(a) or original(*a))
    for tilt in range(12):
        source.read(tilt)
    assert len(opened) == 1


@pytest.mark.parametrize(("flags", "value"), [(0, 200), (1, -56)])
def test_readers__imod_bytes_are_unsigned_unless_flagged(tmp_path, flags, value):
    path = tmp_path / "bytes.st"
    with mrcfile.new(path) as file:
        file.set_data(np.full((2, 3, 4), -56, np.int8))
    with path.open("r+b") as file:
        file.seek(152)
        file.write(np.array([1146047817, flags], "<i4").tobytes())
    assert open_stack(path).read(1)[0, 0] == value


def test_readers__unknown_or_absent_files(tmp_path):
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4 not images" * 10)
    (tmp_path / "empty.h5").touch()
    (tmp_path / "fake.h5").write_bytes(b"not HDF5" * 10)
    for name, message in [
        (
            "notes.pdf",
            "no format known for images; needed is one of HDF5, MAT, MRC, TIFF, NPY, NPZ, SER, DM3, DM4 and EMD",
        ),
        ("nothing.h5", "does not exist"),
        (".", "is a folder"),
        ("empty.h5", "empty"),
        ("fake.h5", "not a complete HDF5 file"),
    ]:
        with pytest.raises(InputError, match=message):
            open_stack(tmp_path / name)


def test_readers__format_is_found_by_content(tmp_path, stack):
    write_hdf5(tmp_path / "series.dat", stack)
    np.testing.assert_array_equal(open_stack(tmp_path / "series.dat").read(0), stack[0])


def test_readers__digest_is_sha256_of_the_bytes(tmp_path):
    data = bytes(range(256)) * 10000
    (tmp_path / "f").write_bytes(data)
    assert digest_of_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()
    with pytest.raises(InputError, match="does not exist"):
        digest_of_file(tmp_path / "g")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.tlt", "-60.0\n  0.00 \n60.5\n\n", [-60.0, 0.0, 60.5]),
        ("a.rawtlt", " -60\r\n0\r\n", [-60.0, 0.0]),
        ("a.csv", "\ufeffphi,theta,psi\n0,1.5,0\n0,-2,1e-1\n", [[0, 1.5, 0], [0, -2, 0.1]]),
        ("a.csv", "psi;theta;phi\n3;2;1\n6;5;4\n", [[1, 2, 3], [4, 5, 6]]),
        ("a.csv", "tilt,phi,theta,psi\n0,1,2,3\n1,4,5,6\n", [[1, 2, 3], [4, 5, 6]]),
        ("a.txt", "# angles\n1\t2 3 # first\n% more\n4\t5\t6\n", [[1, 2, 3], [4, 5, 6]]),
        ("a.txt", "angle\n7\n8\n", [7, 8]),
    ],
)
def test_readers__tables_of_text(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(read_table(tmp_path / name), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nthree\n", "line 3: 'three'"),
        ("1 2 3\n4 5\n", "line 2: 2 columns"),
        ("# nothing\n", "no numbers"),
        ("a\nb\n1\n", "line 2"),
    ],
)
def test_readers__tables_of_text_refused(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "a.txt")


def test_readers__binary_in_a_text_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x81" * 50)
    with pytest.raises(InputError, match=r"a\.txt"):
        read_table(tmp_path / "a.txt")


def test_readers__tables_in_named_formats(tmp_path):
    table = np.arange(12.0).reshape(4, 3)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["angles"], file["column"], file["big"] = table, table[:, :1], np.zeros(3_000_000)
    with h5py.File(tmp_path / "t73.mat", "w") as file:
        file["angles"] = table.T
        file["angles"].attrs["MATLAB_class"] = np.bytes_("double")
    scipy.io.savemat(tmp_path / "t5.mat", {"angles": table, "column": table[:, :1], "row": table[:1]})
    np.savez(tmp_path / "t.npz", angles=table)
    np.save(tmp_path / "t.npy", table)
    for name in ("t.h5", "t73.mat", "t5.mat", "t.npz"):
        np.testing.assert_array_equal(read_table(tmp_path / name, "angles"), table)
        np.testing.assert_array_equal(read_table(f"{tmp_path / name}::angles"), table)
        if name != "t73.mat":
            with pytest.raises(InputError, match="angles"):
                read_table(tmp_path / name)
    np.testing.assert_array_equal(read_table(tmp_path / "t73.mat"), table)  # as MATLAB's importdata, the only variable
    np.testing.assert_array_equal(read_table(tmp_path / "t.npy"), table)
    np.testing.assert_array_equal(read_table(tmp_path / "t.h5", "column"), table[:, 0])
    np.testing.assert_array_equal(read_table(tmp_path / "t5.mat", "column"), table[:, 0])
    with pytest.raises(InputError, match="too much for a table"):
        read_table(tmp_path / "t.h5", "big")
