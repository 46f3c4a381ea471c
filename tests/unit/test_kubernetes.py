"""The Kubernetes profile on a stand-in for Kubernetes: the commands of the pods run as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import dask
import pytest
import yaml

from aetdist import cluster
from aetdist.cluster import kubernetes
from aetdist.errors import InputError

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes" / "daskcluster.yaml"


class Refused(Exception):
    """What Kubernetes says no with."""


class Cluster:
    """Objects of one namespace, and the processes of its pods."""

    def __init__(self, folder):
        self.folder, self.objects, self.deleted, self.processes = folder, {}, [], []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self, manifest):
        """The pods, with what they mount and where they listen changed to this machine."""
        ours = {"/etc/aetdist/": f"{self.folder}/", "/scratch": str(self.folder), "$(DASK_WORKER_NAME)": "pod"}
        ours |= {"aetdist-scheduler:8786": f"127.0.0.1:{self.port}"}
        for part, more in (
            ("scheduler", [f"--port={self.port}", "--host=127.0.0.1"]),
            ("worker", ["--host=127.0.0.1"]),
        ):
            (container,) = manifest["spec"][part]["spec"]["containers"]
            words = [*container["args"], *more]
            for old, new in ours.items():
                words = [word.replace(old, new) for word in words]
            assert words[0] == "dask"
            command = [sys.executable, "-m", "dask", *words[1:]]
            environment = os.environ | cluster.thread_environment(1) | {e["name"]: e["value"] for e in container["env"]}
            self.processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))


@pytest.fixture
def pods(tmp_path, monkeypatch):
    """`kr8s` as far as the profile uses it."""
    here = Cluster(tmp_path)

    class Resource:
        def __init__(self, manifest, namespace=None):
            self.manifest, self.kind, self.name = manifest, manifest["kind"], manifest["metadata"]["name"]

        def exists(self):
            return (self.kind, self.name) in here.objects

        def create(self):
            here.objects[self.kind, self.name] = self.manifest
            if self.kind == "Secret":
                for name, text in self.manifest["stringData"].items():
                    (tmp_path / name).write_text(text)
            else:
                here.start(self.manifest)

        def delete(self):
            here.deleted.append(self.kind)

    class Service:
        @classmethod
        def get(cls, name, namespace=None, timeout=2):
            assert name == "aetdist-scheduler"
            return cls()

        def ready(self):
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", here.port)) == 0

        def portforward(self, remote_port, local_port):
            assert (remote_port, local_port) == (8786, "auto")
            return contextlib.nullcontext(here.port)

    kr8s = types.SimpleNamespace(ServerError=Refused, NotFoundError=KeyError, APITimeoutError=TimeoutError)
    objects = types.SimpleNamespace(Secret=Resource, Service=Service, new_class=lambda kind, version: Resource)
    monkeypatch.setitem(sys.modules, "kr8s", kr8s)
    monkeypatch.setitem(sys.modules, "kr8s.objects", objects)
    here.Resource = Resource
    with dask.config.set({kubernetes.SETTING: str(MANIFEST)}):
        yield here
    for process in here.processes:
        process.terminate()
    for process in here.processes:
        process.wait()


def test_kubernetes__a_cluster_of_the_manifest(pods):
    with cluster.connect("kubernetes", workers=1) as client:
        assert client.scheduler.address == f"tls://127.0.0.1:{pods.port}"
        assert client.submit(sum, (1, 2)).result() == 3
        (worker,) = client.scheduler_info()["workers"].values()
        assert (worker["nthreads"], worker["memory_limit"], worker["name"]) == (1, 4_000_000_000, "pod")
        assert pods.objects["DaskCluster", "aetdist"]["spec"]["worker"]["replicas"] == 1
        assert ("Secret", "aetdist-tls") in pods.objects
    assert pods.deleted == ["DaskCluster", "Secret"]


def test_kubernetes__what_is_there_stays(pods):
    """A cluster of that name is another run's: nothing of it is touched."""
    pods.objects["Secret", "aetdist-tls"] = {}
    with pytest.raises(InputError, match="There is a Secret aetdist-tls already"), cluster.connect("kubernetes"):
        pass
    assert pods.deleted == [] and pods.processes == []


def test_kubernetes__refused(pods, monkeypatch):
    def create(self):
        raise Refused("daskclusters is forbidden:\nuser me")

    monkeypatch.setattr(pods.Resource, "create", create)
    with pytest.raises(InputError, match=r"\(daskclusters is forbidden: user me\); look at your rights"):
        with cluster.connect("kubernetes"):
            pass


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (None, "names no manifest; copy deploy/kubernetes/daskcluster.yaml"),
        ("no/such/file.yaml", "cannot be read"),
        ("pod.yaml", "is no DaskCluster"),
        ("broken.yaml", "cannot be read"),
    ],
)
def test_read_manifest__bad_input(tmp_path, monkeypatch, setting, words):
    monkeypatch.chdir(tmp_path)
    Path("pod.yaml").write_text("kind: Pod")
    Path("broken.yaml").write_text("kind: [")
    with dask.config.set({kubernetes.SETTING: setting}), pytest.raises(InputError, match=words) as caught:
        kubernetes.read_manifest()
    assert "\n" not in str(caught.value)


def test_read_manifest__a_mapping_in_the_configuration_itself():
    loaded = yaml.safe_load(MANIFEST.read_text())
    with dask.config.set({kubernetes.SETTING: loaded}):
        assert kubernetes.read_manifest() == loaded
