"""The graph of a scan: as large for each window of a large film as of a small one, and sent in few messages."""

from __future__ import annotations

import functools
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aetdist.blocks import windows
from aetdist.blocks.windows import run_tasks
from aetdist.geometry import euler_from_tilts, matrices_from_euler
from aetdist.reconstruct import scan
from aetdist.reconstruct.film import CoarseFilm
from aetdist.reconstruct.grid import Field, volume_grid
from aetdist.reconstruct.reprojection import cut_strips
from aetdist.reconstruct.stitch import stitch_chunk
from aetdist.reconstruct.windows import ScanPlan, plan_windows


@functools.cache
def planned(side: int) -> ScanPlan:
    """A film of side x side windows, 46 tilts."""
    n = 64 + 32 * (side - 1)
    matrices = matrices_from_euler(euler_from_tilts(np.linspace(-60, 60, 46)))
    field = Field(matrices, (n, n), (-(n // 2), -(n // 2)), 0.4)
    first, shape = volume_grid(field, None, 20.0)
    coarse = CoarseFilm.of(first, shape, 3)
    maps = np.zeros(coarse.shape[1:]), np.full(coarse.shape[1:], 20.0)
    return plan_windows(field, first, shape, coarse, (64, 64), 32, *maps)


def sent_bytes(function: Any, items: list[Any], plan: ScanPlan) -> float:
    """Bytes for an item of what a message of tasks holds."""
    shared = ("store.zarr", "digest", replace(plan, windows=()), plan.kept_shape)
    return len(pickle.dumps([(function, item, *shared) for item in items])) / len(items)


def test_scan__bytes_per_window_do_not_grow(no_compute: None) -> None:
    """A hundred windows or ten thousand: some hundred bytes each; chunks and strips likewise."""
    small, large = planned(10), planned(100)
    assert (len(small.windows), len(large.windows)) == (100, 10_000)
    sizes = [sent_bytes(scan._window_task, list(p.windows), p) for p in (small, large)]
    assert sizes[1] < 200 and sizes[1] <= sizes[0]
    some = [p.chunks()[:: max(1, len(p.chunks()) // 60)] for p in (small, large)]
    sizes = [
        sent_bytes(stitch_chunk, [(c, p.touching(*c)) for c in chunks], p)
        for p, chunks in zip((small, large), some, strict=True)
    ]
    assert max(sizes) < 3000


def test_scan__tasks_do_not_grow_with_the_field() -> None:
    """A strip of the R-factor holds no more pixels, however wide the field."""
    for side in (10, 30, 100):
        plan = planned(side)
        strips = cut_strips(plan.field, plan.shape)
        pixels = [(s.tilts[1] - s.tilts[0]) * (s.rows[1] - s.rows[0]) * plan.field.detector_shape[1] for s in strips]
        assert max(pixels) <= 2**22
        covered = sum((s.tilts[1] - s.tilts[0]) * (s.rows[1] - s.rows[0]) for s in strips)
        assert covered == len(plan.field.matrices) * plan.field.detector_shape[0]


def double(item: int, offset: int) -> int:
    """What a task computes here."""
    if item < 0:
        raise ValueError("negative")
    return 2 * item + offset


@pytest.mark.integration
def test_run_tasks__sends_and_fetches_in_batches(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """240 tasks are three messages of a hundred; results are in the order of the items; a failure ends all."""
    monkeypatch.setattr(windows, "_BATCH", 100)
    sent, fetched = [], []
    send, gather = client._send_to_scheduler, client.gather

    def counted(message: dict[str, Any]) -> None:
        if message["op"] == "update-graph":
            sent.append(len(message["keys"]))
        send(message)

    def counted_gather(futures: Any, **keywords: Any) -> Any:
        fetched.append(len(futures))
        return gather(futures, **keywords)

    monkeypatch.setattr(client, "_send_to_scheduler", counted)
    monkeypatch.setattr(client, "gather", counted_gather)
    offset = client.submit(int, 5)
    assert run_tasks(double, range(240), offset, label="test") == [2 * i + 5 for i in range(240)]
    assert sent == [1, 100, 100, 40]
    assert sum(fetched) == 240 and len(fetched) < 200
    with pytest.raises(ValueError, match="negative"):
        run_tasks(double, [1, -1, 3], 0, label="test")
