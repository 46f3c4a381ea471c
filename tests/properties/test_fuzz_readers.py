"""Damaged and malicious files: whatever lies in them, a reader gives an `AetdistError` or something that is right.

No other exception, no warning of a library, no end of the process, no hang, and no more memory than a small file can
ask for. The examples are the same every time; ``AETDIST_FUZZ=5000`` tries that many new ones of each kind instead.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetdist import pipeline
from aetdist.errors import AetdistError
from aetdist.experiment import read_experiment
from aetdist.io import Record, Store, read_atoms, read_volume
from aetdist.io.readers import (
    has_frames,
    list_datasets,
    open_frames,
    open_stack,
    read_calibration,
    read_order,
    read_table,
)
from aetdist.refine.edits import read_edits

sys.path.insert(0, str(Path(__file__).parents[1]))
from foreign_files import FORMATS, MICROSCOPES

TRIES = os.environ.get("AETDIST_FUZZ")
FUZZ = settings(
    max_examples=int(TRIES or 12),
    derandomize=TRIES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
#: Bytes: a file of some thousand bytes has no reason to take more, libraries' own caches included.
MEMORY = 48 * 2**20
#: Seconds after which a reader is said to hang.
PATIENCE = 30


# -- what a reader may do ------------------------------------------------------------------------------


@contextmanager
def bounded() -> Iterator[None]:
    """End what hangs; refuse what allocates more than `MEMORY`, or tried to."""

    def hangs(*_: object) -> None:
        raise AssertionError(f"not done after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(PATIENCE)
    tracemalloc.start(1)
    logging.disable()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        logging.disable(logging.NOTSET)
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused_or_read(read: Callable[[], object]) -> None:
    """Call a reader; an error is one line of ours, and no allocation that failed is behind it."""
    try:
        read()
    except AetdistError as error:
        assert "\n" not in str(error)
        assert not isinstance(error.__cause__, MemoryError), "refused too late: the memory was asked for"


def read_all(path: Path) -> None:
    """Everything that an import asks of a file of images."""
    found: dict[str, str] = {}
    with bounded():
        refused_or_read(lambda: found.update(list_datasets(path)))
        for name in (None, *list(found)[:4]):
            refused_or_read(lambda name=name: has_frames(path, name))
            for opened in (open_stack, open_frames):
                refused_or_read(lambda name=name, opened=opened: read_images(opened(path, name)))
            refused_or_read(lambda name=name: read_calibration(path, name))
            refused_or_read(lambda name=name: read_table(path, name))
        refused_or_read(lambda: read_order(path))
        refused_or_read(lambda: read_volume(path, pixel_size=0.5))


def read_images(stack) -> None:
    """The first images of a stack, which are as it says."""
    for tilt in range(min(stack.shape[0], 8)):
        image = stack.read(tilt)
        assert image.shape == stack.shape[1:] and image.dtype == np.dtype(stack.dtype)


# -- what a file may hold ------------------------------------------------------------------------------

NUMBERS = count()
LARGE = [0, 1, 2, 3, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1, 10**12, 2**63 - 1, 2**64 - 1]


@cache
def folder() -> Path:
    """One folder for all the files of this run."""
    return Path(mkdtemp(prefix="aetdist-fuzz-"))


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    """A file of another path every time: libraries keep what they once opened."""
    inside = folder() / str(next(NUMBERS))
    inside.mkdir()
    path = inside / name
    path.write_bytes(data)
    try:
        yield path
    finally:
        rmtree(inside)


@cache
def sound(name: str) -> tuple[str, bytes]:
    """End of the name and bytes of a small sound file."""
    images = np.random.default_rng(0).integers(0, 900, (4, 6, 7)).astype(np.int16)
    if name in MICROSCOPES:
        if name != "ser":
            pytest.importorskip("rsciio")
        file, write = MICROSCOPES[name]
        path = write(folder() / file, images)
    else:
        suffix, write, _ = FORMATS[name]
        path = folder() / f"sound{suffix}"
        write(path, images)
    return path.suffix, path.read_bytes()


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with some of its bytes turned, replaced by absurd numbers, left out, put in, cut off."""
    data = bytearray(content)
    places = st.one_of(st.integers(0, 255), st.integers(0, max(len(data) - 1, 0)))
    for _ in range(draw(st.integers(1, 4))):
        at = min(draw(places), max(len(data) - 1, 0))
        match draw(st.sampled_from(["bit", "number", "number", "cut", "out", "in", "twice", "blank"])):
            case "bit" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "number":
                width = draw(st.sampled_from([1, 2, 4, 8]))
                number = draw(st.sampled_from(LARGE)) % 256**width
                data[at : at + width] = number.to_bytes(width, draw(st.sampled_from(["little", "big"])))
            case "cut":
                del data[at:]
            case "out":
                del data[at : at + draw(st.integers(1, 64))]
            case "in":
                data[at:at] = draw(st.binary(min_size=1, max_size=32))
            case "twice":
                data[at:at] = data[at : at + draw(st.integers(1, 512))]
            case "blank":
                n = min(draw(st.integers(1, 256)), len(data) - at)
                data[at : at + n] = bytes([draw(st.sampled_from([0, 255]))]) * n
    return bytes(data)


@pytest.mark.parametrize("name", [*FORMATS, *MICROSCOPES])
def test_readers__damaged_files_of_images(name: str) -> None:
    """Small sound files with a few things wrong."""
    suffix, content = sound(name)

    @FUZZ
    @given(data=damage(content))
    def run(data: bytes) -> None:
        with file_of(data, f"damaged{suffix}") as path:
            read_all(path)

    run()


MAGIC = {
    ".h5": b"\x89HDF\r\n\x1a\n", ".emd": b"\x89HDF\r\n\x1a\n", ".mat": b"MATLAB 5.0".ljust(124) + b"\x00\x01IM",
    ".mrc": b"", ".tif": b"II*\x00\x08\x00\x00\x00", ".btf": b"II+\x00\x08\x00\x00\x00", ".npy": b"\x93NUMPY\x01\x00",
    ".npz": b"PK\x03\x04", ".ser": b"II\x97\x01\x20\x02", ".dm3": bytes((0, 0, 0, 3)), ".dm4": bytes((0, 0, 0, 4)),
    ".mdoc": b"[ZValue = 0]\n", ".txt": b"", ".tlt": b"", ".csv": b"", ".unknown": b"",
}  # fmt: skip


@FUZZ
@given(suffix=st.sampled_from(sorted(MAGIC)), begins=st.booleans(), data=st.binary(max_size=3000))
def test_readers__random_bytes(suffix: str, begins: bool, data: bytes) -> None:
    """Under every name, behind the first bytes of every format or not."""
    with file_of(MAGIC[suffix] * begins + data, f"random{suffix}") as path:
        read_all(path)
        with bounded():
            refused_or_read(lambda: read_atoms(path))


# -- text ----------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(
        [
            "nan",
            "inf",
            "-inf",
            "1e999",
            "-1e300",
            "1_0",
            "0x10",
            "٣",
            "½",
            "",
            " ",
            '"',
            '""',
            "'",
            "\0",
            "\ufeff",
            "\x85",
        ]
    ),
    st.sampled_from(["9" * 20, "9" * 400, "9" * 5000, "[" * 2000, "{" * 2000, '"' + "x" * 200_000 + '"']),
    st.sampled_from(["\r", "\n", "\u2028", ",", ";", "\t", "=", "#", ":", "_JSON [[1", "../..", "C:\\x", "\ufeff"]),
    st.floats().map(repr),
    st.integers().map(str),
    st.text(max_size=6),
)
ANGLES = "file,phi,theta,psi\na.tif,0,-60,0\nb.tif,0,0.5,0\n"
MDOC = (
    "PixelSpacing = 0.5\nVoltage = 300\n[T = SerialEM: Tilt axis angle = 85]\n\n[ZValue = 0]\nTiltAngle = 1.5\n"
    "ExposureDose = 1.5\nSubFramePath = D:\\frames\\a.mrc\n\n[ZValue = 1]\nTiltAngle = 3\nSubFramePath = b.mrc\n"
)
XYZ = (
    '2\nLattice="9 0 0 0 9 0 0 0 9" pbc="T T F" R=0.1 edits="_JSON [\\"a\\"]" '
    "Properties=species:S:1:pos:R:3:type:I:1:ok:L:1\nFe 0.0 1.5 2 1 T\nCo 1.0 1.5 -2 2 F\n"
)
EDITS = "action,x,y,z,type,new_x,new_y,new_z\nadd,1,2,3,1\nmove,0,0,0,,1,1,1\n# why\nretype,1,2,3,2\ndelete,0,0,0\n"
ATOMS = "x,y,z,type\n0.0,1.5,2.0,1\n1.0,1.5,-2.0,2\n"
TOML = (
    '[import]\nfiles = ["a.h5", "b.h5"]\noutput = "run.zarr"\nimages = "images"\nangles = "a.csv"\npixel_size = 0.5\n'
    "detector = [38, 200.0]\n[scan]\nwindow = [40, 28]\noverlap = 14\nthickness = 12\n[trace]\nminimum_distance = 2.0\n"
    '[refine]\nelements = ["Co", "Pd"]\nedits = "edits.csv"\n[export]\natoms = "atoms.xyz"\n'
)
LAMMPS = (
    "made by hand\n\n2 atoms\n2 atom types\n0.0 10.0 xlo xhi\n0.0 11.0 ylo yhi\n0.0 12.0 zlo zhi\n\nAtoms # atomic\n\n"
    "1 1 1.0 2.0 3.0\n2 2 4.0 5.0 6.0\n"
)
TEXTS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "angles": ("a.csv", ANGLES, read_all),
    "tlt": ("a.tlt", "-60.0\n  0.00 \n60.5\n", read_all),
    "mdoc": ("a.mdoc", MDOC, read_all),
    "xyz": ("a.xyz", XYZ, read_atoms),
    "atoms": ("atoms.csv", ATOMS, read_atoms),
    "lammps": ("a.data", LAMMPS, read_atoms),
    "edits": ("edits.csv", EDITS, read_edits),
    "experiment": ("e.toml", TOML, read_experiment),
    "run": ("e.toml", TOML, lambda path: pipeline.run(path, dry_run=True)),
}


@st.composite
def rewritten(draw: st.DrawFn, text: str) -> bytes:
    """`text` with some words replaced, left out, repeated; now and then a byte that is no UTF-8."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        end = at + draw(st.sampled_from([0, 1, 2, 3, 5, 8, 40]))
        match draw(st.sampled_from(["word", "word", "word", "out", "twice", "line"])):
            case "word":
                text = text[:at] + draw(WORDS) + text[end:]
            case "out":
                text = text[:at] + text[end:]
            case "twice":
                text = text[:at] + text[at:end] * draw(st.integers(2, 50)) + text[end:]
            case "line":
                lines = text.split("\n")
                line = draw(st.sampled_from(lines))
                lines.insert(draw(st.integers(0, len(lines))), line)
                text = "\n".join(lines)
    data = text.encode("utf-8", errors="surrogatepass")
    return data if draw(st.integers(0, 9)) else data[: len(data) // 2] + b"\xff\xfe\x00" + data[len(data) // 2 :]


@pytest.mark.parametrize("name", TEXTS)
def test_readers__rewritten_text(name: str) -> None:
    """Small sound tables, models and experiments with a few words wrong."""
    file, text, read = TEXTS[name]
    if name == "lammps":
        pytest.importorskip("ase")

    @FUZZ
    @given(data=st.one_of(rewritten(text), rewritten(text), st.binary(max_size=300)))
    def run(data: bytes) -> None:
        with file_of(data, file) as path:
            if read is read_all:
                read_all(path)
            else:
                with bounded():
                    refused_or_read(lambda: read(path))

    run()


@pytest.mark.parametrize("file", ["zarr.json", "volume/zarr.json", "volume/density/zarr.json"])
def test_readers__damaged_metadata_of_a_store(file: str) -> None:
    """What a store, a group, an array says of itself; nothing of the array is read."""
    path = folder() / f"{file.replace('/', '-')}.zarr"
    with Store.create(path) as store:
        lazy = da.ones((4, 6, 7), chunks=(2, 6, 7), dtype=np.float32)
        dataset = xr.Dataset({"density": (("z", "y", "x"), lazy)}, {"z": np.arange(4.0)}, {"units": "1"})
        store.write("volume", dataset, record=Record("reconstruct"))
    content = (path / file).read_bytes()

    @FUZZ
    @given(data=st.one_of(damage(content), rewritten(content.decode())))
    def run(data: bytes) -> None:
        (path / file).write_bytes(data)
        with bounded():
            refused_or_read(lambda: Store.open(path).read("volume"))
            refused_or_read(lambda: pipeline.info(path))

    run()


def at(place: int, number: bytes) -> Callable[[bytes], bytes]:
    """Replace bytes of a file."""
    return lambda data: data[:place] + number + data[place + len(number) :]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mrc", at(92, (2**31 - 1).to_bytes(4, "little"))),  # an extended header of 2 GB
        ("mrc", at(0, (10**6).to_bytes(4, "little") * 3)),  # 10^18 pixels
        ("npy-fortran", at(6, b"\0\0v\0{'")),  # a header of 660 MB
        ("npy", lambda data: data.replace(b"(4, 6, 7)", b"(1" + b"0" * 12 + b", 1, 1)")),
        ("npz", lambda data: data.replace(b"(4, 6, 7)", b"(9, 9999, 999999)")),
        ("tiff-pages", lambda data: data.replace(b"\x53\x01\x03\0", b"\x99\x01\x03\0", 1)),  # pages of two kinds
        ("mat5", at(136, (2**31 - 1).to_bytes(4, "little"))),
        ("ser", at(14, (2**31 - 1).to_bytes(4, "little"))),
    ],
)  # fmt: skip
def test_readers__headers_that_claim_too_much(name: str, change: Callable[[bytes], bytes]) -> None:
    """Each was too much, or would be, if the size of the file were not looked at first."""
    suffix, content = sound(name)
    assert change(content) != content
    with file_of(change(content), f"claims{suffix}") as path:
        read_all(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("xyz", "9" * 5000 + "\n\n"),
        ("xyz", "0\nProperties=species:S:1:pos:R:999999999999\n"),
        ("xyz", "1\nProperties=species:S:1:pos:R:" + "3" * 5000 + "\nFe 0 0 0\n"),
        ("xyz", "1\na=" + "[" * 100_000 + "\nFe 0 0 0\n"),
        ("xyz", '1\na="_JSON ' + "[" * 100_000 + '"\nFe 0 0 0\n'),
        ("atoms", "\x80"),
        ("atoms", "x,y,z,type\n0,0,0,1e300\n"),
        ("atoms", 'x,y,z\n0,0,"' + "0" * 200_000 + '"\n'),
        ("mdoc", f"PixelSpacing = {'9' * 400}\n[ZValue = 0]\nTiltAngle = 1\n[ZValue = 1]\nTiltAngle = 2\n"),
        ("angles", "theta\n" + "9" * 5000 + "\n"),
        ("experiment", "a = " + "[" * 5000),
        ("experiment", "a = " + "9" * 5000),
        ("run", TOML.replace('"a.h5"', '"a\\u0000.h5"')),
        ("run", TOML.replace("[scan]", "[[scan]]")),
        ("run", TOML.replace("a.h5", "9" * 400)),
        ("run", TOML.replace("run.zarr", "9" * 400)),
        ("run", TOML.replace("a.csv", "9" * 400)),
        ("atoms", '"x,y,z\n0,0,0\n1,1,1\n'),
    ],
)
def test_readers__text_that_asks_for_too_much(name: str, text: str) -> None:
    """Numbers, columns and brackets without end; names with a zero byte."""
    file, _, read = TEXTS[name]
    with file_of(text.encode("latin-1"), file) as path:
        if read is read_all:
            read_all(path)
        else:
            with bounded():
                refused_or_read(lambda: read(path))


def test_readers__sound_files_are_read() -> None:
    """What is damaged above was sound."""
    for name in (*FORMATS, *MICROSCOPES):
        with suppress(pytest.skip.Exception):
            suffix, content = sound(name)
            with file_of(content, f"whole{suffix}") as path:
                assert open_frames(path, FORMATS[name][2] if name in FORMATS else None).shape == (4, 6, 7)
    for name, (file, text, read) in TEXTS.items():
        if name not in ("run", "lammps") and read is not read_all:
            with file_of(text.encode(), file) as path:
                read(path)
