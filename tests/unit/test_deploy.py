from __future__ import annotations

import subprocess
from pathlib import Path

import dask
import pytest
import yaml
from distributed import LocalCluster

from aetdist import cluster
from aetdist.cluster.batch import batch_options

dask_jobqueue = pytest.importorskip("dask_jobqueue", reason="the extra hpc is not installed")
DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """The Slurm profile as a user installs it, run in a folder of its own (it makes a folder of logs)."""
    monkeypatch.chdir(tmp_path)
    loaded = yaml.safe_load((DEPLOY / "jobqueue" / "slurm.yaml").read_text())
    with dask.config.set(dask.config.merge(dask.config.config, loaded)):
        yield loaded["jobqueue"]["slurm"]


def test_slurm__job_script(profile, tmp_path):
    options = batch_options("slurm", threads=1)
    loopback = {"scheduler_options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with dask_jobqueue.SLURMCluster(**options, **loopback, queue="long") as slurm:
        script = slurm.job_script()
    lines = script.splitlines()
    assert "#SBATCH -J aetdist" in lines
    assert "#SBATCH -p long" in lines
    assert "#SBATCH --cpus-per-task=8" in lines
    assert "#SBATCH --mem=30G" in lines
    assert "#SBATCH -t 04:00:00" in lines
    (worker,) = [line for line in lines if "dask_worker" in line]
    for words in ("--nthreads 1 ", "--nworkers 8 ", "--memory-limit 3.73GiB ", "--lifetime 3h50m", "tcp://127.0.0.1:"):
        assert words in worker
    # The thread policy stands before the worker starts, the site's own lines after it.
    order = [lines.index(line) for line in ("export NUMBA_NUM_THREADS=1", profile["job-script-prologue"][0], worker)]
    assert order == sorted(order)
    file = tmp_path / "job.sh"
    file.write_text(script)
    subprocess.run(["bash", "-n", str(file)], check=True)


def test_slurm__profile_has_only_known_keys(profile):
    known = yaml.safe_load(Path(dask_jobqueue.__file__).with_name("jobqueue.yaml").read_text())["jobqueue"]["slurm"]
    assert set(profile) <= set(known)


def test_slurm__connect_keeps_the_workers_asked_for(profile, monkeypatch):
    seen = {}

    class StandIn(LocalCluster):
        def __init__(self, **options):
            seen["options"] = options
            super().__init__(
                n_workers=1,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit="1GiB",
            )

        def adapt(self, **bounds):
            seen["bounds"] = bounds

    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", StandIn)
    with cluster.connect("slurm", workers=12) as client:
        assert client.submit(sum, (1, 2)).result() == 3
    assert seen["bounds"] == {"minimum_jobs": 2, "maximum_jobs": 2}  # of eight workers each
    assert "export OMP_NUM_THREADS=1" in seen["options"]["job_script_prologue"]


def test_thread_environment__threads_of_the_worker():
    assert cluster.thread_environment(4)["NUMBA_NUM_THREADS"] == "4"


@pytest.mark.parametrize(
    "file", sorted(path.relative_to(DEPLOY).as_posix() for path in DEPLOY.rglob("*") if path.is_file())
)
def test_deploy__every_file_is_named_in_the_readme(file):
    assert file == "README.md" or file in (DEPLOY / "README.md").read_text()
