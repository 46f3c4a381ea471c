"""The pipeline with small stand-ins for its stages: what is computed, and when."""

from __future__ import annotations

import errno
import functools
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import dask
import dask.array as da
import mrcfile
import numpy as np
import pytest
import xarray as xr

import aetdist.reconstruct
import aetdist.simulate
import aetdist.tilt_series
import aetdist.trace
from aetdist import pipeline, schema
from aetdist.errors import InputError, StoreError, StoreLockedError
from aetdist.io import BlockLedger, Record, Store, read_xyz, write_region, write_xyz

pytestmark = pytest.mark.integration


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each stand-in ran."""
    counted: Counter = Counter()
    # The stand-ins have none of the keywords that a forecast of memory reads.
    monkeypatch.setattr(pipeline, "refuse_what_cannot_fit", lambda stages, store: None)

    def import_tilt_series(
        files, *, angles: str | None = None, pixel_size: float, flip_tilt: bool = False
    ) -> xr.Dataset:
        counted["import"] += 1
        images = np.load(files[0])
        if not np.isfinite(images).all():
            raise InputError("pixels are NaN; use --mask nan")
        n = len(images)
        return schema.with_units(
            xr.Dataset(
                {
                    "images": (("tilt", "y", "x"), da.from_array(images.astype("f4"), chunks=(1, -1, -1))),
                    "mask": (("tilt", "y", "x"), da.ones(images.shape, dtype=bool, chunks=(1, -1, -1))),
                    "angles": (("tilt", "euler"), np.outer(np.linspace(-60, 60, n), [0, 1, 0])),
                    "pixel_size": ((), float(pixel_size)),
                },
                {"tilt": np.arange(n), "euler": list(schema.EULER)},
                {"voltage_kV": 300.0},
            ),
            schema.TILT_SERIES,
        )

    def volume(value: float) -> xr.Dataset:
        grid = {axis: np.arange(4) * 0.5 for axis in "zyx"}
        data = {
            "density": (("z", "y", "x"), np.full((4, 4, 4), value, "f4")),
            "r_factor": (("iteration", "tilt"), np.eye(3)),
        }
        return schema.with_units(xr.Dataset(data, grid), schema.VOLUME)

    def reconstruct_resire(
        tilt_series: xr.Dataset,
        *,
        shape: tuple[int, int, int] | None = None,
        thickness: float | None = None,
        iterations: int = 40,
        on_iteration=None,
    ) -> xr.Dataset:
        """Stand in.

        Parameters
        ----------
        shape : tuple of int, optional
            Voxels of the volume along x, y, z.
        iterations : int
            How many.
        """
        counted["reconstruct"] += 1
        assert isinstance(tilt_series.images.data, np.ndarray)
        return volume(iterations)

    def reconstruct_scan(
        store: Store, *, window: tuple[int, int], iterations: int = 40, series: str = "tilt_series/aligned"
    ) -> dict:
        counted["scan"] += 1
        record = Record("its own", {"window": window})
        ledger = BlockLedger(str(store.path), "volume")
        if store.pending("volume") != record:
            template = volume(0.0)
            template["density"] = template.density.chunk(z=2)
            store.begin("volume", template, record=record)
            ledger.create(2)
        for block in np.flatnonzero(~ledger.done()):
            counted["block"] += 1
            write_region(store.path, "volume", "density", np.s_[2 * block : 2 * block + 2, :, :], np.ones((2, 4, 4)))
            ledger.mark(block)
            if counted["stop after"] == counted["block"]:
                raise KeyboardInterrupt
        store.finish("volume")
        return {"r_factor_mean": 0.125, "n_windows": 2}

    def trace_atoms(volume: xr.Dataset, *, minimum_distance: float = 2.0, order: int = 2) -> xr.Dataset:
        counted["trace"] += 1
        n = int(minimum_distance)
        return schema.with_units(
            xr.Dataset({"position": (("atom", "axis"), np.zeros((n, 3)))}, {"atom": np.arange(n), "axis": list("xyz")}),
            schema.ATOMS,
        )

    monkeypatch.setattr(aetdist.tilt_series, "import_tilt_series", import_tilt_series)
    monkeypatch.setattr(aetdist.reconstruct, "reconstruct_resire", reconstruct_resire, raising=False)
    monkeypatch.setattr(aetdist.reconstruct, "reconstruct_scan", reconstruct_scan, raising=False)
    monkeypatch.setattr(aetdist.trace, "trace_atoms", trace_atoms, raising=False)
    return counted


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment file beside its images."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((3, 4, 5)))
    path = tmp_path / "experiment.toml"
    path.write_text(
        textwrap.dedent("""\
        [import]
        files = ["images.npy"]
        output = "run.zarr"
        pixel_size = 0.5
        [reconstruct]
        iterations = 7
        [trace]
        minimum_distance = 3.0
        [export]
        atoms = "atoms.xyz"
        volume = "volume.mrc"
        """)
    )
    return path


STAGES = ("import", "reconstruct", "trace", "export")


def states(summary: dict) -> list[str]:
    return [summary["stages"][name] for name in STAGES]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_run__twice_computes_nothing_the_second_time(experiment: Path, calls: Counter) -> None:
    first = pipeline.run(experiment)
    assert states(first) == ["computed"] * 4
    assert first["n_atoms"] == 3
    assert first["r_factor_mean"] == pytest.approx(1 / 3)
    assert first["seconds"] > 0
    assert first["peak_memory_bytes"] >= first["peak_memory_client_bytes"] > 1e6
    second = pipeline.run(experiment)
    assert states(second) == ["current"] * 4
    assert calls == {"import": 1, "reconstruct": 1, "trace": 1}
    same = ("n_atoms", "r_factor_mean", "n_tilts", "pixel_size", "tilt_range")
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
    assert read_xyz(experiment.with_name("atoms.xyz")).sizes["atom"] == 3
    with mrcfile.open(experiment.with_name("volume.mrc")) as file:
        assert (file.data == 7).all()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("pixel_size = 0.5", "pixel_size = 0.25", ["computed"] * 4),
        ("iterations = 7", "iterations = 8", ["current"] + ["computed"] * 3),
        ("minimum_distance = 3.0", "minimum_distance = 4", ["current", "current", "computed", "computed"]),
        ('"atoms.xyz"', '"other.xyz"', ["current"] * 3 + ["computed"]),
        ("minimum_distance = 3.0", "minimum_distance = 3\norder = 2", ["current"] * 4),
    ],
)
def test_run__recomputes_what_follows_a_change_and_nothing_before(
    experiment: Path, calls: Counter, old: str, new: str, expected: list[str]
) -> None:
    pipeline.run(experiment)
    calls.clear()
    edit(experiment, old, new)
    planned = pipeline.run(experiment, dry_run=True)
    assert states(planned) == [state.replace("computed", "to compute") for state in expected]
    assert not calls
    assert states(pipeline.run(experiment)) == expected
    assert [name for name in STAGES[:3] if calls[name]] == [
        name for name, state in zip(STAGES[:3], expected[:3], strict=True) if state == "computed"
    ]


def test_run__changed_input_file_is_noticed_and_a_touched_one_is_not(experiment: Path, calls: Counter) -> None:
    pipeline.run(experiment)
    experiment.with_name("images.npy").touch()
    assert states(pipeline.run(experiment)) == ["current"] * 4
    np.save(experiment.with_name("images.npy"), np.ones((3, 4, 5)))
    assert states(pipeline.run(experiment)) == ["computed"] * 4


def test_run__moved_experiment_computes_nothing_but_its_files(experiment: Path, calls: Counter) -> None:
    pipeline.run(experiment)
    moved = experiment.parent.rename(experiment.parent.with_name("moved é"))
    assert states(pipeline.run(moved / "experiment.toml")) == ["current"] * 3 + ["computed"]


def test_run__missing_or_edited_export_is_written_again(experiment: Path, calls: Counter) -> None:
    pipeline.run(experiment)
    experiment.with_name("atoms.xyz").unlink()
    assert states(pipeline.run(experiment))[3] == "computed"
    experiment.with_name("atoms.xyz").write_text("edited")
    assert states(pipeline.run(experiment))[3] == "computed"
    assert read_xyz(experiment.with_name("atoms.xyz")).sizes["atom"] == 3


def test_run__exports_a_folder_and_keeps_it_while_it_is_current(experiment: Path, calls: Counter) -> None:
    edit(experiment, "volume.mrc", "volume.ome.zarr")
    pipeline.run(experiment)
    written = experiment.with_name("volume.ome.zarr")
    before = (written / "zarr.json").stat().st_mtime_ns
    assert states(pipeline.run(experiment)) == ["current"] * 4
    assert (written / "zarr.json").stat().st_mtime_ns == before
    edit(experiment, "iterations = 7", "iterations = 8")
    assert states(pipeline.run(experiment))[3] == "computed"
    assert (written / "zarr.json").stat().st_mtime_ns > before


def test_run__refuses_an_export_that_it_cannot_write_before_it_computes(experiment: Path, calls: Counter) -> None:
    edit(experiment, "volume.mrc", "volume.vtk")
    with pytest.raises(InputError, match=r"volume\.vtk came for the volume; needed is a name that ends in \.mrc"):
        pipeline.run(experiment)
    assert not calls


def test_run__resumes_after_a_kill_between_and_in_stages(
    experiment: Path, calls: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_atoms = aetdist.trace.trace_atoms

    @functools.wraps(trace_atoms)
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(aetdist.trace, "trace_atoms", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(experiment)
    monkeypatch.setattr(aetdist.trace, "trace_atoms", trace_atoms)
    assert states(pipeline.run(experiment)) == ["current", "current", "computed", "computed"]
    assert calls == {"import": 1, "reconstruct": 1, "trace": 1}


def test_run__interrupted_scan_computes_only_the_missing_blocks(experiment: Path, calls: Counter) -> None:
    edit(experiment, "[reconstruct]\niterations = 7", "[scan]\nwindow = [3, 3]")
    calls["stop after"] = 1
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(experiment)
    volume = pipeline.info(experiment.with_name("run.zarr"))["groups"]["volume"]
    assert (volume["status"], volume["n_blocks"], volume["n_blocks_done"]) == ("incomplete", 2, 1)
    summary = pipeline.run(experiment)
    assert summary["r_factor_mean"] == 0.125
    assert calls["block"] == 2
    summary = pipeline.run(experiment)
    assert set(summary["stages"].values()) == {"current"}
    assert (summary["r_factor_mean"], summary["n_windows"]) == (0.125, 2)
    assert calls["scan"] == 2


def test_run__failed_import_leaves_no_store(experiment: Path, calls: Counter) -> None:
    np.save(experiment.with_name("images.npy"), np.full((3, 4, 5), np.nan))
    with pytest.raises(InputError, match="--mask nan"):
        pipeline.run(experiment)
    assert sorted(entry.name for entry in experiment.parent.iterdir()) == ["experiment.toml", "images.npy"]


def test_run__dry_run_writes_nothing(experiment: Path, calls: Counter) -> None:
    assert states(pipeline.run(experiment, dry_run=True)) == ["to compute"] * 4
    assert sorted(entry.name for entry in experiment.parent.iterdir()) == ["experiment.toml", "images.npy"]


def test_run__goes_on_with_a_store_there_is(experiment: Path, calls: Counter) -> None:
    pipeline.import_series(experiment.with_name("images.npy"), experiment.with_name("run.zarr"), pixel_size=0.5)
    experiment.write_text('store = "run.zarr"\n[reconstruct]\n[trace]\n')
    assert pipeline.run(experiment)["stages"] == {"reconstruct": "computed", "trace": "computed"}
    experiment.write_text('store = "absent.zarr"\n[reconstruct]\n')
    with pytest.raises(StoreError, match="no store"):
        pipeline.run(experiment)
    experiment.write_text('store = "run.zarr"\n[export]\natoms = "a.xyz"\n')
    assert pipeline.run(experiment)["stages"] == {"export": "computed"}


def test_run__never_replaces_another_folder(experiment: Path, calls: Counter) -> None:
    experiment.with_name("run.zarr").mkdir()
    experiment.with_name("run.zarr").joinpath("notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="never overwritten"):
        pipeline.run(experiment)
    assert experiment.with_name("run.zarr").joinpath("notes.txt").read_text() == "mine"


HOLD = """
import sys, time
from aetdist.io import Store
store = Store.open(sys.argv[1], "a")
print(1, flush=True)
time.sleep(60)
"""


def test_run__is_refused_while_another_process_writes(experiment: Path, calls: Counter) -> None:
    pipeline.run(experiment)
    edit(experiment, "iterations = 7", "iterations = 8")
    command = [sys.executable, "-c", HOLD, str(experiment.with_name("run.zarr"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(StoreLockedError, match=str(other.pid)):
            pipeline.run(experiment)
        assert states(pipeline.run(experiment, dry_run=True))[1] == "to compute"
        other.kill()
    assert states(pipeline.run(experiment))[1] == "computed"


def test_stages__one_by_one_agree_with_run(experiment: Path, calls: Counter) -> None:
    store, images = experiment.with_name("run.zarr"), experiment.with_name("images.npy")
    imported = pipeline.import_series([images], store, pixel_size=0.5)
    assert (imported["n_tilts"], imported["pixel_size"], imported["tilt_range"]) == (3, 0.5, [-60, 60])
    assert pipeline.reconstruct(store, iterations=7)["state"] == "computed"
    assert pipeline.reconstruct(store, iterations=7)["state"] == "current"
    assert pipeline.trace(store, minimum_distance=3)["n_atoms"] == 3
    assert states(pipeline.run(experiment)) == ["current"] * 3 + ["computed"]
    with pytest.raises(StoreError, match="--overwrite"):
        pipeline.import_series([images], store, pixel_size=0.5)


def test_stages__say_what_is_missing_or_misspelt(experiment: Path, calls: Counter) -> None:
    store = experiment.with_name("run.zarr")
    with pytest.raises(StoreError, match="no store"):
        pipeline.trace(store)
    pipeline.import_series(experiment.with_name("images.npy"), store, pixel_size=0.5)
    with pytest.raises(StoreError, match="holds no 'volume' but tilt_series/aligned"):
        pipeline.trace(store)
    with pytest.raises(InputError, match=r"reconstruct has no iteratons; did you mean iterations\?"):
        pipeline.reconstruct(store, iteratons=3)
    with pytest.raises(InputError, match="scan needs window"):
        pipeline.scan(store)
    with pytest.raises(InputError, match="Nothing to export"):
        pipeline.export(store)
    with pytest.raises(StoreError, match="holds no 'atoms'"):
        pipeline.export(store, atoms=experiment.with_name("a.xyz"))
    assert not experiment.with_name("a.xyz").exists()
    pipeline.reconstruct(store)
    with pytest.raises(InputError, match=r"no folder .*absent to write v\.mrc into"):
        pipeline.export(store, volume=experiment.parent / "absent" / "v.mrc")
    experiment.with_name("w.mrc").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        pipeline.export(store, volume=experiment.with_name("w.mrc"))


def test_stages__damaged_chunk_is_one_line(experiment: Path, calls: Counter) -> None:
    store = experiment.with_name("run.zarr")
    pipeline.import_series(experiment.with_name("images.npy"), store, pixel_size=0.5)
    chunk = store / "tilt_series" / "aligned" / "images" / "c" / "1" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 16
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        pipeline.reconstruct(store)


def test_info__says_what_is_stale(experiment: Path, calls: Counter) -> None:
    pipeline.run(experiment)
    store = experiment.with_name("run.zarr")
    said = pipeline.info(store)
    assert {name: group["status"] for name, group in said["groups"].items()} == {
        "tilt_series/aligned": "complete",
        "volume": "complete",
        "atoms": "complete",
    }
    assert said["groups"]["volume"]["dimensions"] == {"z": 4, "y": 4, "x": 4, "iteration": 3, "tilt": 3}
    assert said["groups"]["volume"]["parameters"]["iterations"] == 7
    assert said["groups"]["volume"]["size_bytes"] > 0
    assert (said["pixel_size"], said["tilt_range"], said["voltage_kV"]) == (0.5, [-60, 60], 300)
    pipeline.reconstruct(store, iterations=9)
    assert pipeline.info(store)["groups"]["atoms"]["status"] == "stale"


def test_simulate__makes_a_store_with_its_truth(tmp_path: Path) -> None:
    atoms = xr.Dataset({"position": (("atom", "axis"), np.eye(3) * 2)}, {"atom": range(3), "axis": list("xyz")})
    write_xyz(tmp_path / "atoms.xyz", atoms)
    (tmp_path / "angles.csv").write_text("0,-10,0\n0,0,0\n0,20,0\n")
    options = {"angles": tmp_path / "angles.csv", "pixel_size": 0.5, "dose": 1e4, "seed": 5}
    summary = pipeline.simulate(tmp_path / "atoms.xyz", tmp_path / "run.zarr", **options)
    assert (summary["n_atoms"], summary["n_tilts"], summary["pixel_size"]) == (3, 3, 0.5)
    with Store.open(tmp_path / "run.zarr") as store:
        np.testing.assert_array_equal(store.read("truth").position, atoms.position)
        assert store.record("tilt_series/aligned").seed == 5
    with pytest.raises(StoreError, match="--overwrite"):
        pipeline.simulate(tmp_path / "atoms.xyz", tmp_path / "run.zarr", **options)
    with pytest.raises(InputError, match=r"did you mean dose\?"):
        pipeline.simulate(tmp_path / "atoms.xyz", tmp_path / "other.zarr", angles=[0.0], doze=1)
    assert not (tmp_path / "other.zarr").exists()


def test_simulate__that_fails_leaves_the_store_that_was_there(tmp_path: Path, monkeypatch) -> None:
    atoms = xr.Dataset({"position": (("atom", "axis"), np.eye(3) * 2)}, {"atom": range(3), "axis": list("xyz")})
    write_xyz(tmp_path / "atoms.xyz", atoms)
    simulate = functools.partial(pipeline.simulate, tmp_path / "atoms.xyz", angles=[0.0, 20.0])
    simulate(tmp_path / "run.zarr", seed=5)

    def full(block: np.ndarray) -> np.ndarray:
        raise OSError(errno.ENOSPC, "No space left on device")

    simulate_tilt_series = aetdist.simulate.simulate_tilt_series

    @functools.wraps(simulate_tilt_series)
    def failing(*args: object, **keywords: object) -> xr.Dataset:
        series = simulate_tilt_series(*args, **keywords)
        return series.assign(images=series.images.copy(data=series.images.data.map_blocks(full, dtype="f4")))

    monkeypatch.setattr(aetdist.simulate, "simulate_tilt_series", failing)
    with pytest.raises(StoreError, match="No room left"):
        simulate(tmp_path / "run.zarr", seed=6, overwrite=True)
    with pytest.raises(StoreError, match="No room left"):
        simulate(tmp_path / "other.zarr", seed=6)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["atoms.xyz", "other.zarr", "run.zarr"]
    with Store.open(tmp_path / "run.zarr") as store:
        assert store.record("tilt_series/aligned").seed == 5
        assert store.groups() == ["tilt_series/aligned", "truth"]
    with Store.open(tmp_path / "other.zarr") as store:  # which was there for no other: to be gone on with
        assert store.groups() == ["truth"]


def test_simulate__goes_on_where_it_was_killed(tmp_path: Path, monkeypatch) -> None:
    """No finished tilt is computed again, and what comes out, noise of an undeclared seed included, is one series."""
    atoms = xr.Dataset({"position": (("atom", "axis"), np.eye(3) * 2)}, {"atom": range(3), "axis": list("xyz")})
    write_xyz(tmp_path / "atoms.xyz", atoms)
    options = {"angles": np.linspace(-40.0, 40.0, 5), "dose": 1e4, "shift": 2.0, "background": 0.1}
    simulate = functools.partial(pipeline.simulate, tmp_path / "atoms.xyz", tmp_path / "run.zarr", **options)
    simulate_tilt_series = aetdist.simulate.simulate_tilt_series
    done: list[int] = []

    def stopping(block: np.ndarray, block_info: dict, fail: bool) -> np.ndarray:
        if fail and len(done) == 2:
            raise KeyboardInterrupt
        done.append(block_info[0]["chunk-location"][0])
        return block

    def watched(fail: bool) -> None:
        @functools.wraps(simulate_tilt_series)
        def simulated(*args: object, **keywords: object) -> xr.Dataset:
            series = simulate_tilt_series(*args, **keywords)
            images = series.images.data.map_blocks(stopping, fail=fail, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
            return series.assign(images=series.images.copy(data=images))

        monkeypatch.setattr(aetdist.simulate, "simulate_tilt_series", simulated)

    watched(fail=True)
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        simulate()
    first = sorted(done)
    assert len(first) == 2
    done.clear()
    watched(fail=False)
    assert simulate()["n_tilts_computed"] == 3
    assert sorted(first + done) == [0, 1, 2, 3, 4]
    with Store.open(tmp_path / "run.zarr") as store:
        found = store.read("tilt_series/aligned")
    whole = simulate_tilt_series(atoms, options.pop("angles"), seed=found.attrs["simulation_seed"], **options)
    for name in ("images", "true_shift", "true_background"):
        np.testing.assert_array_equal(found[name], whole[name], err_msg=name)
    with pytest.raises(StoreError, match="--overwrite"):
        simulate()


@pytest.mark.parametrize("kind", ["npy", "mrc", "zarr"])
def test_project__sums_along_the_beam(tmp_path: Path, calls: Counter, kind: str) -> None:
    density = np.random.default_rng(0).random((6, 6, 6)).astype("f4")
    path = tmp_path / f"volume.{kind}"
    if kind == "npy":
        np.save(path, density)
    elif kind == "mrc":
        with mrcfile.new(path, density) as file:
            file.voxel_size = 0.5
    else:
        grid = {axis: (np.arange(6) - 3) * 0.5 for axis in "zyx"}
        with Store.create(path) as store:
            store.write(
                "volume", xr.Dataset({"density": (("z", "y", "x"), density)}, grid), record=Record("reconstruct")
            )
    size = {"pixel_size": 0.5} if kind == "npy" else {}
    summary = pipeline.project(path, tmp_path / "run.zarr", angles=np.zeros((1, 3)), **size)
    assert (summary["n_tilts"], summary["pixel_size"]) == (1, 0.5)
    series = Store.open(tmp_path / "run.zarr").read("tilt_series/aligned")
    schema.check(series, schema.TILT_SERIES)
    # The interpolation of white noise costs a few per cent; a sum along another axis would be off by far more.
    np.testing.assert_allclose(series.images[0], density.sum(0), atol=0.2)
    assert not np.allclose(density.sum(1), density.sum(0), atol=0.2)
    assert series.mask.all()
