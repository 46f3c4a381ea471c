"""Workers as pods, from a manifest for the Dask operator."""

from __future__ import annotations

import copy
import importlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask

from ..errors import InputError
from .security import security_of, temporary_certificates

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

PORT = 8786
SETTING = "kubernetes.custom-cluster-spec"
"""Where the Dask configuration names the manifest; dask-kubernetes reads the same."""


@contextmanager
def kubernetes_workers(workers: int | None, insecure: bool, timeout: float) -> Iterator[Client]:
    """Make the cluster of the manifest, and remove it at the end; the operator replaces pods that are lost.

    dask_kubernetes.KubeCluster is not used: it speaks to the scheduler in plain TCP only.
    """
    from distributed import Client

    try:
        kr8s, kinds = importlib.import_module("kr8s"), importlib.import_module("kr8s.objects")
    except ImportError as error:
        raise InputError(
            "The profile 'kubernetes' needs dask-kubernetes, which is not installed; install the extra with "
            "pip install 'aetdist[kubernetes]'."
        ) from error
    manifest = with_options(read_manifest(), workers, insecure)
    name, space = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
    security = None
    with _refusals(kr8s), ExitStack() as stack:
        if not insecure:
            pem = temporary_certificates()
            _make(kinds.Secret(secret(name, pem), namespace=space), stack)
            security = security_of(pem)
        kind = kinds.new_class("DaskCluster", manifest["apiVersion"])
        _make(kind(manifest, namespace=space), stack)
        log.info("asked Kubernetes for %d workers; waiting for the first", manifest["spec"]["worker"]["replicas"])
        service = _ready(kinds.Service, f"{name}-scheduler", space, max(timeout, 300))
        # The forwarded port is on loopback of this machine.
        port = stack.enter_context(service.portforward(PORT, local_port="auto"))
        address = f"{'tcp' if insecure else 'tls'}://127.0.0.1:{port}"
        client = stack.enter_context(Client(address, security=security, timeout=max(timeout, 60)))
        client.wait_for_workers(1)
        yield client


def read_manifest() -> dict[str, Any]:
    """The DaskCluster that the Dask configuration names."""
    import yaml

    named = dask.config.get(SETTING, None)
    if isinstance(named, dict):
        return named
    if not named:
        raise InputError(
            f"The Dask configuration {SETTING} names no manifest; copy deploy/kubernetes/daskcluster.yaml, fill in "
            "image and store, and name the copy there."
        )
    file = Path(os.path.expandvars(str(named))).expanduser()
    try:
        manifest = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The manifest {file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != "DaskCluster":
        raise InputError(f"The manifest {file} is no DaskCluster; start from deploy/kubernetes/daskcluster.yaml.")
    return manifest


def with_options(manifest: dict[str, Any], workers: int | None, insecure: bool) -> dict[str, Any]:
    """The manifest with so many workers; without TLS and its Secret where that is asked for."""
    made = copy.deepcopy(manifest)
    if workers is not None:
        made["spec"]["worker"]["replicas"] = workers
    if not insecure:
        return made
    for part in ("scheduler", "worker"):
        pod = made["spec"][part]["spec"]
        pod["volumes"] = [volume for volume in pod.get("volumes", []) if volume["name"] != "tls"]
        for container in pod["containers"]:
            kept = [word for word in container["args"] if not word.startswith("--tls-") and word != "--protocol=tls"]
            container["args"] = [word.replace("tls://", "tcp://") for word in kept]
            container["volumeMounts"] = [one for one in container.get("volumeMounts", []) if one["name"] != "tls"]
    return made


def secret(cluster: str, pem: str) -> dict[str, Any]:
    """The Secret that pods of the cluster mount: key and certificate in one file."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{cluster}-tls"},
        "type": "Opaque",
        "stringData": {"tls.pem": pem},
    }


@contextmanager
def _refusals(kr8s: Any) -> Iterator[None]:
    """What Kubernetes says no to, in one line."""
    try:
        yield
    except (kr8s.ServerError, kr8s.NotFoundError, kr8s.APITimeoutError) as error:
        raise InputError(
            f"Kubernetes does not do what the manifest asks for ({' '.join(str(error).split())}); look at your rights "
            "(kubectl auth can-i create daskclusters) and whether the Dask operator is installed."
        ) from error


def _make(resource: Any, stack: ExitStack) -> None:
    """Create a resource, and delete it at the end; one of that name is somebody's, and stays as it is."""
    if resource.exists():
        raise InputError(
            f"There is a {resource.kind} {resource.name} already; end what uses it (kubectl delete), or give the "
            "manifest another name."
        )
    resource.create()
    stack.callback(resource.delete)


def _ready(kind: Any, name: str, space: str | None, seconds: float) -> Any:
    """The service of the scheduler, as soon as its pod answers."""
    end = time.monotonic() + seconds
    service = kind.get(name, namespace=space, timeout=seconds)
    while not service.ready():
        if time.monotonic() > end:
            raise InputError(
                f"The scheduler of {name} did not start within {seconds:g} s; look at kubectl describe pods, and "
                "whether the Dask operator runs (helm install dask/dask-kubernetes-operator)."
            )
        time.sleep(0.5)
    return service
