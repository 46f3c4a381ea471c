from __future__ import annotations

import json
import os
import signal
import socket
import sys

import dask
import dask.array as da
import psutil
import pytest
from distributed import Client

from aetdist import cluster
from aetdist.cluster.batch import import_jobqueue
from aetdist.cluster.local import local_workers
from aetdist.errors import CapacityError, InputError, StoreError


@pytest.fixture(scope="module")
def local():
    with cluster.connect(workers=2, memory_limit="1GiB") as client:
        yield client


def test_connect__local_cluster_on_loopback(local):
    workers = local.scheduler_info()["workers"]
    assert len(workers) == 2
    assert all(address.startswith("tcp://127.0.0.1:") for address in [local.scheduler.address, *workers])
    assert [(worker["nthreads"], worker["memory_limit"]) for worker in workers.values()] == [(1, 2**30)] * 2


def test_connect__workers_take_no_more_threads_than_they_have(local):
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
    for environment in local.run(lambda: [os.environ.get(name) for name in names]).values():
        assert environment == ["1", "1", "1", "passive"]


def test_connect__local_cluster_listens_on_loopback_only(local):
    """Scheduler, workers, nannies, and the pages of each."""
    here = [connection for connection in psutil.Process().net_connections() if connection.status == "LISTEN"]
    there = local.run(
        lambda: [c.laddr.ip for c in __import__("psutil").Process().net_connections() if c.status == "LISTEN"]
    )
    assert len(here) >= 4 and all(there.values())
    assert {connection.laddr.ip for connection in here} | {ip for ips in there.values() for ip in ips} == {"127.0.0.1"}


def test_connect__file_that_is_no_scheduler_file(tmp_path):
    file = tmp_path / "scheduler.json"
    for text in ("{", "[]", '{"id": 1}'):
        file.write_text(text)
        with pytest.raises(InputError, match="no scheduler file"), cluster.connect(file):
            pass


@pytest.mark.parametrize(
    ("profile", "module", "words"),
    [
        ("slurm", "dask_jobqueue", r"aetdist\[hpc\]"),
        ("slurm-runner", "dask_jobqueue", r"aetdist\[hpc\]"),
        ("mpi", "mpi4py.MPI", "pip install dask-mpi mpi4py"),
        ("kubernetes", "kr8s", r"aetdist\[kubernetes\]"),
    ],
)
def test_connect__profile_not_installed(monkeypatch, profile, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=words), cluster.connect(profile, workers=1):
        pass


def test_import_jobqueue__leaves_ctrl_c_alone(monkeypatch):
    """Its import makes Ctrl-C a silent exit; ours says how to go on."""
    pytest.importorskip("dask_jobqueue")
    for name in [name for name in sys.modules if name.split(".")[0] == "dask_jobqueue"]:
        monkeypatch.delitem(sys.modules, name)
    before = signal.getsignal(signal.SIGINT)
    import_jobqueue("slurm")
    assert signal.getsignal(signal.SIGINT) is before


def test_connect__current_client_as_it_is(local):
    with cluster.connect() as client:
        assert client is local
    assert local.submit(sum, (1, 2)).result() == 3


def test_connect__address_and_scheduler_file(local, tmp_path):
    address = local.scheduler.address
    with cluster.connect(address, workers=2) as client:
        assert client is not local
        assert client.submit(sum, (1, 2), pure=False).result() == 3
    file = tmp_path / "scheduler.json"
    # Client.write_scheduler_file fails once its workers report what they measured of tasks.
    file.write_text(json.dumps({"type": "Scheduler", "address": address}))
    with cluster.connect(file) as client:
        assert client.scheduler.address == address


def test_connect__too_few_workers(local):
    with (
        pytest.raises(InputError, match=r"2 workers after 0\.5 s; needed are 3"),
        cluster.connect(local.scheduler.address, workers=3, timeout=0.5),
    ):
        pass


def test_connect__nobody_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(InputError, match="No Dask scheduler answers") as caught,
            cluster.connect(address, timeout=0.5),
        ):
            pass
    assert "\n" not in str(caught.value)
    # Nothing is left behind: Dask still computes where it did before.
    assert da.ones(3).sum().compute() == 3


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("slrum", {}, "slurm, pbs, lsf, sge"),
        ("nowhere://there:2", {}, "form tcp://host:port"),
        ("tcp://there:port", {}, "form tcp://host:port"),
        ("tcp://two words:1", {}, "form tcp://host:port"),
        ("no/such/file.json", {}, "scheduler file"),
        ("slurm", {}, "add --workers N"),
        ("slurm", {"memory_limit": "2GB"}, "A memory limit holds for workers on this machine"),
        ("slurm-runner", {}, "SLURM_JOB_ID, SLURM_PROCID, SLURM_NTASKS is not set here"),
        ("tcp://there:1", {"insecure": True}, "--insecure is for profiles"),
        (None, {"insecure": True}, "--insecure is for profiles"),
        ("tls://there:1", {}, "asks for certificates and there are none here"),
        (None, {"workers": 0}, "at least 1"),
        (None, {"memory_limit": "plenty"}, "'plenty'"),
        (None, {"memory_limit": "12"}, "at least 100 MB"),
    ],
)
def test_connect__bad_input(name, options, words):
    with pytest.raises(InputError, match=words), cluster.connect(name, timeout=0.5, **options):
        pass


def test_connect__profile_not_configured():
    pytest.importorskip("dask_jobqueue")
    with (
        dask.config.set({"jobqueue.pbs.cores": None, "jobqueue.pbs.memory": "1GB", "jobqueue.pbs.processes": 1}),
        pytest.raises(InputError, match=r"jobqueue\.pbs says nothing about cores"),
        cluster.connect("pbs", workers=1),
    ):
        pass


def test_dask_setup__worker_leaves_ctrl_c_to_the_client(local):
    def ignored():
        import signal

        return signal.getsignal(signal.SIGINT) == signal.SIG_IGN

    assert all(local.run(ignored).values())


def _refuse(kind):
    raise kind("in one line")


@pytest.mark.parametrize("kind", [InputError, StoreError, CapacityError])
def test_connect__errors_of_tasks_come_back_as_they_are(local, kind):
    with pytest.raises(kind, match=r"^in one line$"):
        local.submit(_refuse, kind).result()


def test_dask_setup__worker_leaves_errors_to_the_client(local):
    def passes(message):
        import logging

        record = logging.LogRecord("distributed.worker", logging.ERROR, "", 0, message, (), None)
        return bool(logging.getLogger("distributed.worker").filter(record))

    assert not any(local.run(passes, "Compute Failed\nKey: %s").values())
    assert all(local.run(passes, "Worker stopped").values())


def test_connect__new_cluster_is_closed_at_the_end(local):
    # Beside the current client: what connect started itself must be gone, the other one not.
    with local_workers(1, 2**29) as client:
        address = client.scheduler.address
    with pytest.raises(OSError):
        Client(address, timeout=0.5)
    assert local.status == "running"
