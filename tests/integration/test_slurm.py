"""A film scan on jobs of a real Slurm, which these tests start and stop themselves."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import aetdist as aet
from aetdist import pipeline
from aetdist.cluster import connect
from aetdist.errors import InputError
from aetdist.io import BlockLedger, Record, Store, open_dataset

sys.path.insert(0, str(Path(__file__).parent))
from slurm_daemons import missing, said, slurm, wait_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SCAN = {"window": (48, 40), "overlap": 22, "thickness": 22.0, "iterations": 12, "coarse_iterations": 12}
N_WINDOWS, PASSES = 6, 2


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Slurm that is up, with a profile for it, and the folder that its jobs share."""
    pytest.importorskip("dask_jobqueue", reason="the extra hpc is not installed")
    absent = missing()
    if absent and os.environ.get("AETDIST_CI"):
        pytest.fail(absent)
    if absent:
        pytest.skip(absent)
    import dask_jobqueue  # noqa: F401  (its defaults first)

    folder = tmp_path_factory.mktemp("slurm")
    profile = {
        "cores": 1,
        "processes": 1,
        "memory": "2GB",
        "walltime": "00:10:00",
        "interface": "lo",
        "shared-temp-directory": str(folder / "shared"),
        "log-directory": str(folder / "logs"),
        # The site's own lines come last. Here: the cache of this process, which has compiled everything.
        "job-script-prologue": ["unset NUMBA_CACHE_DIR"],
    }
    with pytest.MonkeyPatch.context() as patch, slurm() as conf:
        patch.setenv("SLURM_CONF", str(conf))
        patch.setenv("TMPDIR", str(folder))  # scratch of the jobs
        with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in profile.items()}):
            yield folder
        wait_for(queue_is_empty, "an empty queue")


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the tilt series of a film that is larger than the field."""
    path = tmp_path_factory.mktemp("scan") / "series.zarr"
    atoms = aet.amorphous_film((64.0, 44.0), 14.0, species=("Ta",), waviness=2.0, wavelength=60.0, seed=7)
    angles = np.array([[0.2, t, -0.1] for t in np.linspace(-60, 60, 21)])
    tilts = aet.simulate_tilt_series(atoms, angles, pixel_size=0.5, field=(96, 56), dose=2e5, seed=8)
    with Store.create(path) as store:
        store.write("tilt_series/aligned", tilts, record=Record("simulate", {"seed": 8}), chunks={"tilt": 1})
    return path


@pytest.fixture(scope="module")
def film(series: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What the scan gives in this process."""
    path = shutil.copytree(series, tmp_path_factory.mktemp("here") / "film.zarr")
    pipeline.scan(path, **SCAN)
    return density(path)


def density(path: Path) -> np.ndarray:
    """The film volume."""
    return open_dataset(path, "volume")["density"].values


def n_recorded(path: Path) -> int:
    """How many windows, of all passes, are recorded."""
    groups = [f"scan/windows_{number}" for number in range(1, PASSES + 1)]
    there = [group for group in groups if (path / group / "blocks/done/zarr.json").is_file()]
    return sum(int(BlockLedger(str(path), group).done().sum()) for group in there)


def jobs() -> list[str]:
    """Ids of the jobs that run."""
    return said("squeue", "--noheader", "--format=%i", "--states=RUNNING").split()


def queue_is_empty() -> bool:
    """Whether nothing runs, waits or is ending."""
    return said("squeue", "--noheader") == ""


class Misfortune(threading.Thread):
    """In the middle of a scan: one job is cancelled, a worker of another killed."""

    def __init__(self, path: Path, pids: dict[str, int]) -> None:
        super().__init__()
        self.path, self.pids, self.at = path, pids, []

    def run(self) -> None:
        """Wait for windows, then strike."""
        wait_for(lambda: n_recorded(self.path) >= 1, "a window")
        cancelled, other = self.pids
        self.strike(["scancel", cancelled])
        wait_for(lambda: n_recorded(self.path) >= 3, "more windows")
        self.strike(["kill", "-9", str(self.pids[other])])

    def strike(self, command: list[str]) -> None:
        """Do it, and note how far the scan was."""
        subprocess.run(command, check=True)
        self.at.append(n_recorded(self.path))


def test_slurm__scan_survives_a_lost_job_and_a_killed_worker(
    batch: Path, series: Path, film: np.ndarray, tmp_path: Path
) -> None:
    """The same film to the bit as without a cluster; TLS; the lost job is replaced; the queue ends clean."""
    path = shutil.copytree(series, tmp_path / "film.zarr")
    with connect("slurm", workers=2, store=path) as client:
        client.wait_for_workers(2, timeout=60)
        first = jobs()
        assert len(first) == 2
        assert_private(client, batch / "shared")
        assert_settings(client, batch)
        misfortune = Misfortune(path, dict(client.run(lambda: (os.environ["SLURM_JOB_ID"], os.getpid())).values()))
        misfortune.start()
        summary = pipeline.scan(path, **SCAN)
        misfortune.join()
        assert len(misfortune.at) == 2 and misfortune.at[-1] < PASSES * N_WINDOWS
        wait_for(lambda: len(jobs()) == 2 and set(jobs()) != set(first), "the replacement of the lost job")
        client.wait_for_workers(2, timeout=60)
    assert summary["n_windows_computed"] == PASSES * N_WINDOWS
    np.testing.assert_array_equal(density(path), film)
    wait_for(queue_is_empty, "an empty queue")
    assert not list((batch / "shared").iterdir())


def assert_private(client: Any, shared: Path) -> None:
    """Encrypted connections, a key that only its owner reads, pages on loopback."""
    workers = client.scheduler_info()["workers"]
    assert all(address.startswith("tls://") for address in [client.scheduler.address, *workers])
    (pem,) = shared.iterdir()
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600 and stat.S_IMODE(shared.stat().st_mode) == 0o700
    with pytest.raises(InputError, match="asks for certificates"), connect(client.scheduler.address):
        pass


def assert_settings(client: Any, batch: Path) -> None:
    """What the workers were given: threads, scratch on their node, and what the profile says."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "TMPDIR", "NUMBA_CACHE_DIR")
    for found in client.run(lambda: [os.environ.get(name) for name in names]).values():
        assert found == ["1", "1", str(batch), None]
    assert all(
        worker["local_directory"].startswith(f"{batch}/aetdist-{os.getuid()}/")
        for worker in client.scheduler_info()["workers"].values()
    )


def test_slurm__a_job_that_is_refused_is_said_at_once(batch: Path) -> None:
    """In one line, instead of waiting for it."""
    with dask.config.set({"jobqueue.slurm.queue": "no-such-partition"}):
        with pytest.raises(
            InputError, match=r"takes no job .*invalid partition specified: no-such-partition"
        ) as caught:
            with connect("slurm", workers=1):
                pass
    assert "\n" not in str(caught.value)


def test_slurm_runner__whole_allocation(
    batch: Path, series: Path, film: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """deploy/slurm-runner.sbatch as it is, with four tasks: the same film, and nothing left behind."""
    path = shutil.copytree(series, tmp_path / "film.zarr")
    program = tmp_path / "aetdist"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aetdist "$@"\n')
    program.chmod(0o755)
    environment = {
        "AETDIST": str(program),
        "DASK_JOBQUEUE__SLURM__SHARED_TEMP_DIRECTORY": str(batch / "runner"),
        "DASK_JOBQUEUE__SLURM__INTERFACE": "lo",
        "NUMBA_CACHE_DIR": "",  # as if unset: what this process has compiled
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = [word for key in ("overlap", "thickness", "iterations") for word in (f"--{key}", str(SCAN[key]))]
    coarse = ["--set", f"coarse_iterations={SCAN['coarse_iterations']}"]
    command = ["scan", str(path), "--window", *map(str, SCAN["window"]), *options, *coarse, "--json"]
    output = tmp_path / "job.log"
    script = str(ROOT / "deploy/slurm-runner.sbatch")
    job = said("sbatch", "--parsable", "--ntasks=4", f"--output={output}", script, *command)
    wait_for(lambda: (batch / "runner").is_dir() and any((batch / "runner").glob("*.pem")), "a certificate")
    (pem,) = (batch / "runner").glob("*.pem")
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    wait_for(queue_is_empty, "the end of the job", seconds=180)
    assert "JobState=COMPLETED" in said("scontrol", "show", "job", job), output.read_text()
    (line,) = [line for line in output.read_text().splitlines() if line.startswith("{")]  # of one client
    assert json.loads(line)["n_windows_computed"] == PASSES * N_WINDOWS
    np.testing.assert_array_equal(density(path), film)
    assert not list((batch / "runner").iterdir())
