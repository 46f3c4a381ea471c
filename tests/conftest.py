"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

matplotlib.use("Agg")

CHROMIUM = [
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync"),  # root has no sandbox
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a graphics card
]


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright; without Chromium a skip that says why, a failure where CI runs."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("AETDIST_CI"):
            pytest.fail("there is no chromium on this machine; apt-get install chromium")
        pytest.skip("there is no chromium on this machine (Debian's package of that name)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield chromium
        chromium.close()
