"""Files for other programs, read back by those programs' own readers."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import ase.io
import dask
import dask.array as da
import mrcfile
import numpy as np
import ome_zarr_models.v05
import pytest
import tifffile
import xarray as xr
import zarr

from aetdist.errors import InputError, StoreError
from aetdist.io import (
    check_export,
    ome_zarr,
    read_atoms,
    read_volume,
    regions,
    tiff_export,
    voxel_export,
    write_csv,
    write_export,
    write_ome_zarr,
    write_tiff,
)

FIRST = {"z": -10.0, "y": 4.0, "x": 0.5}
STEP = 0.3216


def volume(shape: tuple[int, int, int] = (5, 3, 4), chunks: tuple[int, int, int] | None = None) -> xr.Dataset:
    density = np.random.default_rng(0).normal(size=shape).astype("f4")
    coordinates = {name: FIRST[name] + STEP * np.arange(n) for name, n in zip("zyx", shape, strict=True)}
    data = density if chunks is None else da.from_array(density, chunks)
    return xr.Dataset({"density": (("z", "y", "x"), data)}, coordinates)


def atoms(n: int = 6) -> xr.Dataset:
    """What refinement gives: every variable of ATOMS that belongs to an atom, and one of the analysis."""
    random = np.random.default_rng(1)
    return xr.Dataset(
        {
            "position": (("atom", "axis"), random.normal(size=(n, 3)) * 30),
            "type": ("atom", np.arange(n) % 2 + 1),
            "species": ("atom", np.array(["Co", "Pt"])[np.arange(n) % 2]),
            "intensity": ("atom", random.random(n)),
            "b_factor": ("atom", random.random(n)),
            "position_sigma": (("atom", "axis"), np.where(np.arange(n)[:, None] == 2, np.nan, random.random((n, 3)))),
            "probability": ("atom", random.random(n)),
            "type_probability": (("atom", "type_number"), random.random((n, 2))),
            "unresolved": ("atom", np.arange(n) == 1),
            "origin": ("atom", np.array(["traced", "added"])[np.arange(n) // 3]),
            "q6": ("atom", random.random(n), {"units": "1"}),
            "depth": ("atom", random.random(n), {"units": "angstrom"}),
            "gain": ("tilt", random.random(4)),  # of no atom
        },
        {"atom": 3 + np.arange(n), "axis": list("xyz"), "type_number": [1, 2]},
    )


# -- volumes -----------------------------------------------------------------------------------------


def test_tiff__holds_voxels_and_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxel_export, "_SLAB_BYTES", 4 * 3 * 4 * 2)  # two slices at a time, then one
    path = tmp_path / "volume é.tif"
    write_tiff(path, volume())
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.asarray(), volume().density)
        assert file.series[0].axes == "ZYX"
        said = file.imagej_metadata
        assert said["unit"] == "angstrom"
        assert said["spacing"] == pytest.approx(STEP)
        for axis in "xyz":
            assert -said[f"{axis}origin"] * STEP == pytest.approx(FIRST[axis])
        tags = file.pages[0].tags
        for name in ("XResolution", "YResolution"):
            numerator, denominator = tags[name].value
            assert denominator / numerator == pytest.approx(STEP, rel=1e-6)
    np.testing.assert_array_equal(read_volume(path, pixel_size=STEP).density, volume().density)
    assert [entry.name for entry in tmp_path.iterdir()] == ["volume é.tif"]


def test_tiff__large_volume_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_export, "_CLASSIC_BYTES", 100)
    write_tiff(tmp_path / "v.tif", volume())
    with tifffile.TiffFile(tmp_path / "v.tif") as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), volume().density)
        for axis in "XYZ":
            (size,) = re.findall(f'PhysicalSize{axis}="([^"]*)" PhysicalSize{axis}Unit="Å"', file.ome_metadata)
            assert float(size) == pytest.approx(STEP)


@pytest.mark.parametrize("chunks", [(150, 70, 90), (64, 64, 64), (1, 70, 90)])
def test_ome_zarr__pyramid_of_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: tuple) -> None:
    monkeypatch.setattr(ome_zarr, "_CHUNK", 32)
    path = tmp_path / "volume é.ome.zarr"
    made = volume((150, 70, 90), chunks)
    write_ome_zarr(path, made)
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(path, mode="r"))
    (pyramid,) = image.ome_attributes.multiscales
    assert [(axis.name, axis.type, axis.unit) for axis in pyramid.axes] == [(a, "space", "angstrom") for a in "zyx"]
    arrays = [zarr.open_array(path / dataset.path, mode="r") for dataset in pyramid.datasets]
    assert [array.metadata.dimension_names for array in arrays] == [("z", "y", "x")] * 3
    levels = [array[:] for array in arrays]
    np.testing.assert_array_equal(levels[0], made.density)
    for number, (level, dataset) in enumerate(zip(levels, pyramid.datasets, strict=True)):
        scale, translation = dataset.coordinateTransformations
        for axis, n in enumerate("zyx"):
            assert scale.scale[axis] == pytest.approx(STEP * 2**number)
            # the middle of the voxels that the first one is the mean of
            assert translation.translation[axis] == pytest.approx(FIRST[n] + STEP * (2**number - 1) / 2)
        if number:
            finer = levels[number - 1]
            assert level.shape == tuple(-(-n // 2) for n in finer.shape)
            assert level[3, 1, 2] == pytest.approx(finer[6:8, 2:4, 4:6].mean(), abs=1e-6)
            assert level[-1, -1, -1] == pytest.approx(
                finer[2 * level.shape[0] - 2 :, 2 * level.shape[1] - 2 :, 2 * level.shape[2] - 2 :].mean(), abs=1e-6
            )
    assert [entry.name for entry in tmp_path.iterdir()] == ["volume é.ome.zarr"]


def test_ome_zarr__holds_one_slab_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_zarr, "_CHUNK", 16)
    made, written = [], []

    def make(block: np.ndarray) -> np.ndarray:
        made.append(len(written))
        return block

    def write(*arguments: object) -> None:
        written.append(arguments)
        write_region(*arguments)

    write_region = regions.write_region
    monkeypatch.setattr(regions, "write_region", write)
    lazy = volume((64, 64, 64), (16, 64, 64))
    lazy["density"] = lazy.density.copy(data=lazy.density.data.map_blocks(make, meta=np.empty((0, 0, 0), "f4")))
    with dask.config.set(scheduler="synchronous"):
        write_ome_zarr(tmp_path / "v.ome.zarr", lazy)
    assert made == [0, 16, 32, 48]  # all chunks of a slab are written before the next slab is made


def test_ome_zarr__replaces_its_like_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "v.ome.zarr"
    write_ome_zarr(path, volume())
    write_ome_zarr(path, volume((2, 2, 2)))
    assert zarr.open_array(path / "0", mode="r").shape == (2, 2, 2)
    (tmp_path / "w.ome.zarr").mkdir()
    (tmp_path / "w.ome.zarr" / "mine").touch()
    with pytest.raises(InputError, match=r"w\.ome\.zarr is there and is no OME-Zarr"):
        write_ome_zarr(tmp_path / "w.ome.zarr", volume())
    assert (tmp_path / "w.ome.zarr" / "mine").is_file()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["v.ome.zarr", "w.ome.zarr"]


@pytest.mark.parametrize("name", ["v.mrc", "v.tif", "v.ome.zarr"])
def test_volume__failure_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    def full(block: np.ndarray) -> np.ndarray:
        raise OSError(28, "No space left on device")

    write_export("volume", tmp_path / name, volume())
    broken = volume(chunks=(2, 3, 4))
    broken["density"] = broken.density.copy(data=broken.density.data.map_blocks(full, meta=np.empty((0, 0, 0), "f4")))
    with pytest.raises(StoreError, match="No room left"):
        write_export("volume", tmp_path / name, broken)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    readers = {
        "v.mrc": mrcfile.read,
        "v.tif": tifffile.imread,
        "v.ome.zarr": lambda path: zarr.open_array(path / "0", mode="r")[:],
    }
    np.testing.assert_array_equal(readers[name](tmp_path / name), volume().density)


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("volume", "v.xyz", r"v\.xyz came for the volume; needed is a name that ends in \.mrc, .*\.ome\.zarr"),
        ("volume", "v.zarr", "needed is a name"),
        ("atoms_refined", "a.mrc", r"a\.mrc came for the atoms; needed is a name that ends in \.xyz"),
        ("atoms", "absent/a.csv", "no folder"),
        ("volume", "there.tif", "is a folder"),
    ],
)
def test_export__refuses_before_anything_is_computed(tmp_path: Path, group: str, name: str, message: str) -> None:
    (tmp_path / "there.tif").mkdir()
    with pytest.raises(InputError, match=message):
        check_export(group, tmp_path / name)


# -- atoms -------------------------------------------------------------------------------------------


def test_xyz__ase_reads_every_column(tmp_path: Path) -> None:
    path, made = tmp_path / "a.xyz", atoms()
    write_export("atoms", path, made)
    found = ase.io.read(path)
    np.testing.assert_array_equal(found.positions, made.position)
    assert found.get_chemical_symbols() == made.species.values.tolist()
    columns = {name for name, v in made.variables.items() if v.dims[:1] == ("atom",)}
    for name in columns - {"position", "species", "atom"}:
        np.testing.assert_array_equal(found.arrays[name], made[name], err_msg=name)
    np.testing.assert_array_equal(found.arrays["id"], made.atom)


def test_xyz__ovito_reads_every_column(tmp_path: Path) -> None:
    ovito = pytest.importorskip("ovito.io", reason="ovito is not installed")
    path, made = tmp_path / "a.xyz", atoms()
    write_export("atoms", path, made)
    found = ovito.import_file(path).compute().particles
    np.testing.assert_allclose(found.positions, made.position)
    np.testing.assert_array_equal(found.identifiers, made.atom)
    np.testing.assert_allclose(found["position_sigma"], made.position_sigma)
    np.testing.assert_allclose(found["q6"], made.q6)
    names = [found.particle_types.type_by_id(number).name for number in found.particle_types]
    assert names == made.species.values.tolist()


def test_csv__holds_every_column_with_its_unit(tmp_path: Path) -> None:
    path, made = tmp_path / "a é.csv", atoms()
    write_csv(path, made)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["atom", "x [angstrom]", "y [angstrom]", "z [angstrom]"]
    for axis, name in enumerate("xyz"):
        assert [float(row[f"{name} [angstrom]"]) for row in rows] == made.position.values[:, axis].tolist()
        sigma = [float(row[f"position_sigma_{name} [angstrom]"]) for row in rows]
        np.testing.assert_array_equal(sigma, made.position_sigma[:, axis])
    assert [float(row["b_factor [angstrom^2]"]) for row in rows] == made.b_factor.values.tolist()
    assert [float(row["type_probability_2"]) for row in rows] == made.type_probability[:, 1].values.tolist()
    assert [row["species"] for row in rows] == made.species.values.tolist()
    assert [row["unresolved"] for row in rows] == [str(value) for value in made.unresolved.values]
    assert {"q6", "depth [angstrom]", "origin", "probability"} <= rows[0].keys()
    assert not any("gain" in name for name in rows[0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a é.csv"]


def test_csv__reads_back_exactly(tmp_path: Path) -> None:
    made = atoms()
    write_csv(tmp_path / "a.csv", made)
    found = read_atoms(tmp_path / "a.csv")
    # What ATOMS does not know keeps its unit in its name only.
    xr.testing.assert_equal(found, made.drop_vars("gain"))
    assert found.b_factor.attrs["units"] == "angstrom^2"
    write_csv(tmp_path / "none.csv", made.isel(atom=slice(0, 0)))
    assert read_atoms(tmp_path / "none.csv").sizes["atom"] == 0


def test_csv__names_that_cannot_be_told_apart(tmp_path: Path) -> None:
    for name in ("x", "position_sigma_x", "a [b]"):
        with pytest.raises(InputError, match="cannot be the name of a column"):
            write_csv(tmp_path / "a.csv", atoms().assign({name: ("atom", np.zeros(6))}))
    with pytest.raises(InputError, match="cannot be columns"):
        write_csv(tmp_path / "a.csv", atoms().assign(bonds=(("atom", "a", "b"), np.zeros((6, 2, 2)))))
    assert list(tmp_path.iterdir()) == []
