"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

matplotlib.use("Agg")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of published data, or a skip that says why."""
    folder = os.environ.get("AETDIST_DATA")
    if not folder:
        pytest.skip("AETDIST_DATA is not set: it names the folder that holds the published data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"AETDIST_DATA is {folder!r}, which is not a folder here")
    return Path(folder)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of two worker processes on this machine, shared by the tests of a module."""
    from aetdist.cluster import connect

    with connect(workers=2, memory_limit="2GiB") as client:
        yield client


@pytest.fixture
def no_compute() -> Iterator[None]:
    """A Dask scheduler that refuses to compute: what builds a graph must not run it."""
    import dask

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was computed while the graph was built")

    with dask.config.set(scheduler=refuse):
        yield
