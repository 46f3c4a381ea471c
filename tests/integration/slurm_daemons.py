"""A Slurm of one node for the tests: its own key, sockets, ports, folders and processes, on 127.0.0.1 only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch")

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={munge}
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000
PartitionName=main Nodes={host} Default=YES State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here, or None."""
    absent = [name for name in COMMANDS if find(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install --no-install-recommends slurm-wlm munge"
    return None if os.getuid() == 0 else "a Slurm of one's own needs root"


def find(name: str) -> str | None:
    """Path of a command; daemons are in sbin, which not every PATH names."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def slurm() -> Iterator[Path]:
    """Start munged, slurmctld and slurmd; give slurm.conf (for SLURM_CONF); stop them at the end."""
    # A short path of its own: that of a socket may have 107 bytes; munged wants folders that only root writes to.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"key-file": key, "socket": folder / "munge.socket"}
        files |= {f"{kind}-file": folder / f"munged.{kind}" for kind in ("log", "pid", "seed")}
        options = [f"--{kind}={file}" for kind, file in files.items()]
        stack.enter_context(daemon("munged", "--foreground", "--force", "--num-threads=2", *options))
        wait_for(files["socket"].exists, "munged")
        conf = folder / "slurm.conf"
        conf.write_text(
            CONF.format(
                host=socket.gethostname().split(".")[0], munge=files["socket"], folder=folder, ports=free_ports()
            )
        )
        for part in ("state", "spool"):
            (folder / part).mkdir()
        environment = os.environ | {"SLURM_CONF": str(conf)}
        stack.enter_context(daemon("slurmctld", "-D", "-f", str(conf), env=environment))
        stack.enter_context(daemon("slurmd", "-D", "-f", str(conf), env=environment))
        wait_for(lambda: "idle" in said("sinfo", "--noheader", "--format=%T", env=environment), "Slurm's node", folder)
        yield conf


@contextmanager
def daemon(name: str, *options: str, env: dict[str, str] | None = None) -> Iterator[None]:
    """A daemon in the foreground of a process group of its own, ended with all it started."""
    process = subprocess.Popen(
        [str(find(name)), *options],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition, what: str, folder: Path | None = None, seconds: float = 120) -> None:
    """Wait until `condition` holds; the logs of `folder` say why it did not."""
    for _ in range(int(seconds * 10)):
        if condition():
            return
        time.sleep(0.1)
    logs = "".join(file.read_text()[-2000:] for file in sorted(folder.glob("*.log"))) if folder else ""
    raise AssertionError(f"{what} was not there after {seconds:g} s\n{logs}")


def said(*command: str, env: dict[str, str] | None = None) -> str:
    """Output of a command; empty where it failed."""
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout.strip()


def free_ports() -> list[int]:
    """Two ports that are free now."""
    with socket.socket() as a, socket.socket() as b:
        for one in (a, b):
            one.bind(("127.0.0.1", 0))
        return [a.getsockname()[1], b.getsockname()[1]]
