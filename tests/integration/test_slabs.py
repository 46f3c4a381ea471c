"""A volume in slabs: what it is in one piece, whoever computes it, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import aetdist as aet
from aetdist import cli, pipeline
from aetdist.blocks.slabs import bytes_per_worker, cut_slabs
from aetdist.errors import CapacityError, InputError, StoreError
from aetdist.io import Record, Store
from aetdist.reconstruct import slab_workers, slabs, solvers
from aetdist.reconstruct.grid import Field, volume_grid
from aetdist.reconstruct.slabs import reconstruct_slabs
from aetdist.reconstruct.solvers import largest_eigenvalue

pytestmark = pytest.mark.integration

SHAPE, ITERATIONS, EVERY = (28, 31, 16), 5, 2
LONG = {"shape": SHAPE, "iterations": 16, "slabs": 2, "checkpoint_every": 4}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the nearly single-axis tilt series of a film, with a hole in its mask, and a support."""
    atoms = aet.amorphous_film((20.0, 18.0), 10.0, species=("Ta",), seed=7)
    angles = np.array([[0.4, t, -0.3] for t in np.linspace(-60, 60, 9)])
    tilts = aet.simulate_tilt_series(atoms, angles, pixel_size=0.8, field=(24, 27), dose=2e5, seed=8)
    tilts["mask"][3:5, 10:20, 5:20] = False
    support = np.zeros(SHAPE[::-1], bool)
    support[3:13, 3:30, 4:26] = True
    path = tmp_path_factory.mktemp("slabs") / "series.zarr"
    with Store.create(path) as store:
        store.write("tilt_series/aligned", tilts, record=Record("simulate", {"seed": 8}), chunks={"tilt": 1})
        store.write("box", xr.Dataset({"support": (("z", "y", "x"), support)}), record=Record("box"))
    return path


def copy(series: Path, folder: Path) -> Path:
    """The store again, to reconstruct in."""
    return Path(shutil.copytree(series, folder / "film.zarr"))


def in_slabs(path: Path, **keywords: Any) -> tuple[xr.Dataset, dict[str, Any]]:
    """The volume and the summary."""
    with Store.open(path, "a") as store:
        summary = reconstruct_slabs(
            store, **{"shape": SHAPE, "iterations": ITERATIONS, "checkpoint_every": EVERY} | keywords
        )
        assert not (path / "checkpoint").exists()
        return store.read("volume").load(), summary


def in_one_piece(path: Path, **keywords: Any) -> xr.Dataset:
    """The volume by `reconstruct_resire`."""
    with Store.open(path) as store:
        tilts = store.read("tilt_series/aligned").load()
    return aet.reconstruct_resire(tilts, **{"shape": SHAPE, "iterations": ITERATIONS} | keywords)


@pytest.fixture(scope="module")
def whole(series: Path) -> xr.Dataset:
    """What `reconstruct_resire` makes of the series."""
    return in_one_piece(series)


def assert_same(found: xr.Dataset, wanted: xr.Dataset) -> None:
    """To rounding, coordinates and R-factors included."""
    scale = float(np.abs(wanted["density"]).max())
    np.testing.assert_allclose(found["density"].values, wanted["density"].values, atol=1e-5 * scale, rtol=0)
    np.testing.assert_allclose(found["r_factor"].values, wanted["r_factor"].values, rtol=1e-5)
    for axis in "xyz":
        np.testing.assert_allclose(found[axis], wanted[axis])
        assert found[axis].attrs["units"] == "angstrom"


@pytest.mark.parametrize("n_slabs", [1, 4])
def test_reconstruct_slabs__is_the_volume_in_one_piece(
    series: Path, whole: xr.Dataset, tmp_path: Path, client: Any, n_slabs: int
) -> None:
    """For one slab, and for uneven ones; the checkpoints on the way change nothing."""
    found, summary = in_slabs(copy(series, tmp_path), slabs=n_slabs)
    assert_same(found, whole)
    assert summary["n_slabs"] == n_slabs and summary["n_workers"] == min(2, n_slabs)
    assert summary["iterations"] == summary["n_iterations_computed"] == ITERATIONS
    assert summary["r_factor_mean"] == pytest.approx(float(np.mean(found["r_factor"][-1])))


@pytest.mark.parametrize(
    "options", [{"solver": "published", "weights": list(range(9))}, {"positivity": False, "tolerance": 0.2}]
)
def test_reconstruct_slabs__takes_the_options_of_one_piece(
    series: Path, tmp_path: Path, client: Any, options: dict[str, Any]
) -> None:
    """Published descent with tilts that weigh more than others; no positivity, and an early end."""
    found, _ = in_slabs(copy(series, tmp_path), slabs=3, **options)
    assert_same(found, in_one_piece(series, **options))


def test_reconstruct_slabs__restarts_as_in_one_piece(
    series: Path, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is too long makes the error rise, so that the momentum starts again; a checkpoint lies between."""
    monkeypatch.setattr(solvers, "largest_eigenvalue", lambda *given: 0.6 * largest_eigenvalue(*given))
    wanted = in_one_piece(series, iterations=8)
    assert (np.diff(np.nanmean(wanted["r_factor"], axis=1)) > 0).any()
    assert_same(in_slabs(copy(series, tmp_path), iterations=8)[0], wanted)


def test_reconstruct_slabs__keeps_to_a_support_and_goes_on_from_a_volume(
    series: Path, tmp_path: Path, client: Any
) -> None:
    """Both named by their groups, read by the workers."""
    path = copy(series, tmp_path)
    with Store.open(path, "a") as store:
        support = store.read("box")["support"].values
        begin = in_one_piece(series, iterations=3)
        store.write("begin", begin, record=Record("begin"))
    found, _ = in_slabs(path, support="box", start="begin")
    assert_same(found, in_one_piece(series, support=support, start=begin["density"]))
    assert not found["density"].values[~support].any()


def test_reconstruct_slabs__is_right_for_any_angles(tmp_path: Path, client: Any) -> None:
    """Far from a single axis the slabs reach many rows of the detector; some slabs reach none."""
    atoms = aet.amorphous_film((20.0, 16.0), 12.0, species=("Ta",), seed=3)
    angles = np.array([[p, t, s] for p, t, s in zip(range(0, 360, 40), range(-60, 66, 14), range(9), strict=True)])
    tilts = aet.simulate_tilt_series(atoms, angles, pixel_size=0.8, field=(26, 20))
    with Store.create(tmp_path / "film.zarr") as store:
        store.write("tilt_series/aligned", tilts, record=Record("any"), chunks={"tilt": 1})
    found, _ = in_slabs(tmp_path / "film.zarr", shape=(24, 90, 16), iterations=3, slabs=5)
    assert_same(found, in_one_piece(tmp_path / "film.zarr", shape=(24, 90, 16), iterations=3))


def test_reconstruct_slabs__does_not_depend_on_the_workers(
    series: Path, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same to the bit by two workers and by one."""
    (tmp_path / "two").mkdir()
    by_two, summary = in_slabs(copy(series, tmp_path / "two"), slabs=3, iterations=3)
    assert summary["n_workers"] == 2
    one = dict(list(client.scheduler_info(n_workers=-1)["workers"].items())[:1])
    for module in (slabs, slab_workers):
        monkeypatch.setattr(module, "worker_table", lambda client: one)
    by_one, summary = in_slabs(copy(series, tmp_path), slabs=3, iterations=3)
    assert summary["n_workers"] == 1
    np.testing.assert_array_equal(by_one["density"], by_two["density"])


def test_reconstruct_slabs__memory_is_bounded_in_the_client_and_in_the_workers(tmp_path: Path, client: Any) -> None:
    """A volume of 25 MB, of which the client allocates not a third; workers need no more than was said before."""
    atoms = aet.amorphous_film((20.0, 16.0), 12.0, species=("Ta",), seed=3)
    tilts = aet.simulate_tilt_series(atoms, np.array([[0.0, t, 0.0] for t in (-30, 0, 50)]), pixel_size=0.8)
    shape = (1000, 64, 100)
    with Store.create(tmp_path / "film.zarr") as store:
        store.write("tilt_series/aligned", tilts, record=Record("wide"), chunks={"tilt": 1})
        reconstruct_slabs(store, shape=(16, 16, 16), iterations=2, checkpoint_every=1)  # compiled and loaded
        client.run(forget_peak)
        before = client.run(memory, "VmRSS")
        tracemalloc.start()
        try:
            reconstruct_slabs(store, shape=shape, iterations=2, checkpoint_every=1, step=1.0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < np.prod(shape) * 4 / 3
    field = Field.of(tilts)
    geometry = field.geometry(*volume_grid(field, shape, None))
    said = bytes_per_worker(geometry, cut_slabs(geometry, 2), 2)
    after = client.run(memory, "VmHWM")
    assert all(after[worker] - before[worker] < said for worker in before)


def forget_peak() -> None:
    """Begin anew to follow the most memory that this process has held (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(which: str) -> int:
    """Bytes that this process holds ("VmRSS"), or has held at most ("VmHWM") (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) * 1024


# -- what is killed ------------------------------------------------------------------------------------


RUN = """
    import json, os, sys
    from aetdist.cluster import connect
    from aetdist.io import Store
    from aetdist.reconstruct.slabs import reconstruct_slabs
    if __name__ == "__main__":
        with connect(workers=2, memory_limit="2GiB") as client, Store.open(sys.argv[1], "a") as store:
            print(*client.run(os.getpid).values(), flush=True)
            print(json.dumps(reconstruct_slabs(store, **{options!r})), flush=True)
"""


@pytest.fixture(scope="module")
def undisturbed(series: Path, tmp_path_factory: pytest.TempPathFactory, client: Any) -> np.ndarray:
    """What a run that nobody kills gives."""
    found, _ = in_slabs(copy(series, tmp_path_factory.mktemp("undisturbed")), **LONG)
    return found["density"].values


def start(path: Path, folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A reconstruction in a process group of its own, and the pids of its workers."""
    script = folder / "run.py"
    script.write_text(textwrap.dedent(RUN).format(options=LONG))
    process = subprocess.Popen(
        [sys.executable, str(script), str(path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def checkpoints(path: Path) -> list[int]:
    """Iterations of the complete checkpoints."""
    found = []
    with Store.open(path) as store:
        for group in ("checkpoint/even", "checkpoint/odd"):
            try:
                record = store.record(group)
            except (OSError, ValueError, StoreError):  # it is written at this moment
                continue
            if record is not None:
                found.append(record.parameters["iteration"])
    return sorted(found)


def wait_for_checkpoint(path: Path, process: subprocess.Popen[str], iteration: int) -> None:
    """Until there is one of at least this iteration."""
    while not checkpoints(path)[-1:] >= [iteration]:
        assert process.poll() is None
        time.sleep(0.01)


def test_reconstruct_slabs__survives_the_kill_of_a_worker(
    series: Path, undisturbed: np.ndarray, tmp_path: Path
) -> None:
    """kill -9 in the middle: the same volume to the bit, no more iterations repeated than lie between checkpoints."""
    path = copy(series, tmp_path)
    process, workers = start(path, tmp_path)
    wait_for_checkpoint(path, process, 4)
    os.kill(workers[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    summary = json.loads(said.splitlines()[-1])
    assert LONG["iterations"] <= summary["n_iterations_computed"] <= LONG["iterations"] + LONG["checkpoint_every"]
    with Store.open(path) as store:
        np.testing.assert_array_equal(store.read("volume")["density"].values, undisturbed)


def test_reconstruct_slabs__survives_the_kill_of_everything(
    series: Path, undisturbed: np.ndarray, tmp_path: Path, client: Any
) -> None:
    """The next run goes on from the last checkpoint, whatever the kill left of the one being written."""
    path = copy(series, tmp_path)
    process, workers = start(path, tmp_path)
    wait_for_checkpoint(path, process, 4)
    os.killpg(process.pid, signal.SIGKILL)
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.communicate()
    reached = checkpoints(path)[-1]
    found, summary = in_slabs(path, **LONG)
    assert summary["n_iterations_computed"] == LONG["iterations"] - reached
    np.testing.assert_array_equal(found["density"], undisturbed)


def test_reconstruct_slabs__gives_up_when_workers_are_lost_again_and_again(
    series: Path, whole: xr.Dataset, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says how far it came. From there another number of slabs goes on; other settings start anew."""
    step, path = slabs._step, copy(series, tmp_path)

    def lost_at_three(workers: Any, problem: Any, progress: Any) -> Any:
        if progress.iteration == 3:
            raise slab_workers.WorkerLost
        return step(workers, problem, progress)

    with monkeypatch.context() as disturbed:
        disturbed.setattr(slabs, "_step", lost_at_three)
        with pytest.raises(CapacityError, match=r"lost 3 times after iteration 2 of 5.*--memory-limit"):
            in_slabs(path)
    assert checkpoints(path) == [2]
    (tmp_path / "other").mkdir()
    _, summary = in_slabs(copy(path, tmp_path / "other"), positivity=False)
    assert summary["n_iterations_computed"] == ITERATIONS
    found, summary = in_slabs(path, slabs=3)
    assert summary["n_iterations_computed"] == ITERATIONS - 2
    assert_same(found, whole)


# -- what is refused -----------------------------------------------------------------------------------


def test_reconstruct_slabs__refuses_bad_options(series: Path, tmp_path: Path, client: Any) -> None:
    """Before anything is computed or written."""
    path = copy(series, tmp_path)
    for wrong, message in (
        ({"solver": "magic"}, "unknown"),
        ({"solver": "sirt"}, "does not work in slabs; choose one of fista"),
        ({"slabs": 0}, "0 slabs"),
        ({"slabs": 32}, "1 to 31"),
        ({"slabs": "many"}, "'auto'"),
        ({"checkpoint_every": 0}, "at least 1"),
        ({"iterations": 0}, "at least 1"),
        ({"step": 1e3}, "diverge"),
        ({"support": "box", "shape": (28, 30, 16)}, "has the shape"),
        ({"start": "box"}, "no variable 'density'"),
        ({"support": np.ones(SHAPE[::-1], bool)}, "name of its group"),
        ({"weights": [1.0]}, "weights came"),
    ):
        with pytest.raises(InputError, match=message):
            in_slabs(path, **wrong)
    with Store.open(path, "a") as store:
        empty = store.read("box").load() & False
        store.write("empty", empty, record=Record("empty"))
    with pytest.raises(InputError, match="support is empty"):
        in_slabs(path, support="empty")
    with pytest.raises(StoreError, match="nowhere"):
        in_slabs(path, support="nowhere")
    shutil.rmtree(path / "empty")
    assert sorted(p.name for p in path.iterdir()) == sorted(p.name for p in series.iterdir())


def test_reconstruct_slabs__refuses_what_was_not_measured(series: Path, tmp_path: Path, client: Any) -> None:
    """A mask that is False everywhere, a NaN inside the mask."""
    with Store.open(series) as store:
        tilts = store.read("tilt_series/aligned").load()
    for name, spoilt in (
        ("mask", tilts.assign(mask=tilts["mask"] & False)),
        ("nan", tilts.assign(images=tilts["images"].where(tilts["tilt"] != 3))),
    ):
        with Store.create(tmp_path / f"{name}.zarr") as store:
            store.write("tilt_series/aligned", spoilt, record=Record(name), chunks={"tilt": 1})
            with pytest.raises(InputError, match="mask"):
                reconstruct_slabs(store, shape=SHAPE)
            assert store.groups() == ["tilt_series/aligned"]


def test_reconstruct_slabs__refuses_what_does_not_fit(
    series: Path, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says what is needed, what there is, and how many workers would do."""
    path = copy(series, tmp_path)
    monkeypatch.setattr(slabs, "worker_memory", lambda table: 200_000)
    with pytest.raises(CapacityError, match=r"GiB in each of 2 workers.*available; start \d+ workers"):
        in_slabs(path)
    assert not (path / "volume").exists()


def test_reconstruct_slabs__needs_a_cluster(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says how to have one."""
    monkeypatch.setattr(slabs, "current_client", lambda: None)
    with pytest.raises(InputError, match="--workers"):
        in_slabs(copy(series, tmp_path))


# -- from a path ---------------------------------------------------------------------------------------


def test_reconstruct__in_slabs_by_the_pipeline(series: Path, whole: xr.Dataset, tmp_path: Path, client: Any) -> None:
    """The same stage: how it was cut does not make it stale; keywords that slabs do not know are refused."""
    path = copy(series, tmp_path)
    keywords = {"shape": SHAPE, "iterations": ITERATIONS}
    summary = pipeline.reconstruct(path, **keywords, slabs=2, checkpoint_every=EVERY)
    assert (summary["state"], summary["n_slabs"], summary["iterations"]) == ("computed", 2, ITERATIONS)
    assert pipeline.reconstruct(path, **keywords, slabs="auto")["state"] == "current"
    assert pipeline.reconstruct(path, **keywords)["state"] == "current"
    with Store.open(path) as store:
        assert_same(store.read("volume").load(), whole)
    for wrong in ({"stop": "discrepancy", "slabs": 2}, {"checkpoint_every": 3}):
        with pytest.raises(InputError, match="does not take"):
            pipeline.reconstruct(path, **keywords | {"iterations": 2} | wrong)


def test_reconstruct__in_slabs_at_the_terminal(series: Path, tmp_path: Path, client: Any) -> None:
    """`--slabs` takes a number; a word that means nothing is refused in one line."""
    command = ["reconstruct", str(copy(series, tmp_path)), "--shape", *map(str, SHAPE), "--iterations", "2", "--json"]
    refused = CliRunner().invoke(cli.program, [*command, "--slabs", "many"])
    assert refused.exit_code == 2 and "'many'; needed is a number of slabs, or 'auto'" in refused.stderr
    done = CliRunner().invoke(cli.program, [*command, "--slabs", "3"])
    assert done.exit_code == 0 and json.loads(done.stdout)["n_slabs"] == 3
