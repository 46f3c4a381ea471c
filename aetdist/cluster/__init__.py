"""Where the work runs: this machine, a scheduler that is up, or the batch system of a computing centre."""

from .environment import dask_setup, thread_environment
from .profiles import PROFILES, connect
from .workers import check_workers

__all__ = ["PROFILES", "check_workers", "connect", "dask_setup", "thread_environment"]
