"""The demo, done once for the tests of what it recovers and of its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], list[str]]]:
    """Folder of a demo, what it gave, and what it said; on two workers that are gone again."""
    from aetdist.cluster import connect
    from aetdist.demo import run_demo

    folder = tmp_path_factory.mktemp("demo") / "my first démo"
    said: list[str] = []
    with connect(workers=2, memory_limit="2GiB") as client:
        result = run_demo(folder, client=client, on_stage=said.append)
    yield folder, result, said
