"""One allocation as a cluster: what its processes read from their environment, and the key they share."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
import types
from contextlib import ExitStack

import dask
import pytest

from aetdist import cluster
from aetdist.cluster import allocation, security
from aetdist.cluster.environment import node_scratch
from aetdist.errors import InputError


@pytest.mark.parametrize(
    ("environment", "bytes_"),
    [
        ({"SLURM_MEM_PER_CPU": "4096"}, 2 * 4 * 2**30),
        ({"SLURM_MEM_PER_NODE": "8192", "SLURM_TASKS_PER_NODE": "4"}, 2 * 2**30),
        ({"SLURM_MEM_PER_NODE": "8192", "SLURM_TASKS_PER_NODE": "3(x2),8,1"}, 2**30),
        ({"SLURM_MEM_PER_NODE": "8192", "SLURM_TASKS_PER_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "16(x4)"}, 2**29),
    ],
)
def test_memory_of_task__share_of_the_fullest_node(environment, bytes_):
    assert allocation.memory_of_task(environment, threads=2) == bytes_


def test_memory_of_task__nothing_asked_for():
    from distributed.system import MEMORY_LIMIT

    assert allocation.memory_of_task({"SLURM_TASKS_PER_NODE": "2"}, threads=1) == MEMORY_LIMIT // 2


def test_common_certificates__one_file_that_only_its_owner_reads(tmp_path):
    """The first process writes it, the others wait for it; it is gone at the end."""
    file, found = tmp_path / "tls-1.pem", []
    other = threading.Thread(target=lambda: found.append(join(file, rank=3)))
    other.start()
    with ExitStack() as stack:
        time.sleep(0.1)
        assert allocation._common_certificates(file, 0, 10, stack) == file
        other.join()
        assert found == [file] and stat.S_IMODE(file.stat().st_mode) == 0o600
        assert security.security_of(str(file)).get_connection_args("worker")["ssl_context"] is not None
    assert list(tmp_path.iterdir()) == []


def join(file, rank):
    """As a process that waits."""
    with ExitStack() as stack:
        return allocation._common_certificates(file, rank, 10, stack)


def test_slurm_runner__too_few_tasks(monkeypatch):
    pytest.importorskip("dask_jobqueue")
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="has 2 processes; needed are 3 or more"), cluster.connect("slurm-runner"):
        pass


class World:
    """The communicator of MPI as one rank of it sees it."""

    def __init__(self, rank, size):
        self.rank, self.size, self.sent = rank, size, None

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.size

    def Split_type(self, kind):
        return self

    def bcast(self, text, root):
        self.sent = text
        return text


def test_mpi__a_rank_that_works_ends_with_the_cluster(monkeypatch):
    """The key goes through MPI and no file; each node's memory is shared by its ranks."""
    seen = {}

    def initialize(**options):
        from distributed.security import Security

        seen.update(options, security=Security(), allowed=dask.config.get("distributed.scheduler.allowed-failures"))
        return False  # as for scheduler and workers, when all is over

    monkeypatch.setattr(allocation, "_hush", lambda level: None)  # this process goes on
    world = World(0, 4)
    mpi = types.SimpleNamespace(COMM_WORLD=world, COMM_TYPE_SHARED=None)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", mpi)
    monkeypatch.setitem(sys.modules, "dask_mpi", types.SimpleNamespace(initialize=initialize))
    with pytest.raises(SystemExit) as end, cluster.connect("mpi", memory_limit="1GB"):
        pass
    assert not end.value.code
    assert seen["protocol"] == "tls://" and seen["dashboard_address"] == "127.0.0.1:8787" and seen["allowed"] == 10
    assert seen["security"].require_encryption and seen["security"].tls_scheduler_key == world.sent
    assert seen["worker_options"]["memory_limit"] == 10**9
    assert dask.config.get("distributed.comm.tls.ca-file") is None  # nothing is left in the configuration


def test_node_scratch__the_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = node_scratch()
    assert folder == node_scratch() == tmp_path / f"aetdist-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_node_scratch__a_folder_that_another_user_made_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    planted = tmp_path / f"aetdist-{os.getuid()}"
    planted.mkdir()
    os.chown(planted, 12345, 12345)
    assert node_scratch() != planted


def test_certificates__mode_and_end(tmp_path):
    with security.certificates(tmp_path / "shared") as made:
        (file,) = (tmp_path / "shared").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and made.require_encryption
        assert made.tls_worker_key == made.tls_client_cert == made.tls_ca_file == str(file)
    assert list((tmp_path / "shared").iterdir()) == []


def test_certificates__of_the_configuration(tmp_path):
    """A centre's own are used, and no file is made; a key may stand in the file of its certificate."""
    own = {"ca-file": "/etc/ca.pem"} | {
        f"{role}.cert": f"/etc/{role}.pem" for role in ("client", "scheduler", "worker")
    }
    own["scheduler.key"] = "/etc/scheduler.key"
    with dask.config.set({f"distributed.comm.tls.{key}": file for key, file in own.items()}):
        with security.certificates(tmp_path / "shared") as made:
            keys = (made.tls_scheduler_key, made.tls_worker_key)
            assert (made.tls_ca_file, made.require_encryption) == ("/etc/ca.pem", True)
            assert keys == ("/etc/scheduler.key", "/etc/worker.pem")
    assert not (tmp_path / "shared").exists()


def test_certificates__folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"), security.certificates(tmp_path / "file" / "shared"):
        pass


def test_certificates__without_cryptography(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(InputError, match=r"aetdist\[hpc\].*--insecure"), security.certificates(tmp_path):
        pass
