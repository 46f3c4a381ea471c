"""The graph of a reconstruction in slabs does not grow with the iterations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aetdist as aet
from aetdist.io import Record, Store
from aetdist.reconstruct.slabs import reconstruct_slabs


@pytest.mark.integration
def test_reconstruct_slabs__graph_does_not_grow_with_the_iterations(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each iteration sends as many tasks as the one before; the scheduler forgets them at every checkpoint."""
    atoms = aet.amorphous_film((14.0, 14.0), 8.0, species=("Ta",), seed=3)
    tilts = aet.simulate_tilt_series(atoms, np.array([[0.3, t, 0.0] for t in (-40, 0, 40)]), pixel_size=1.0)
    sent, known, keys = [], [], []
    submit, every = client.submit, 3

    def on_iteration(iteration: int, r_factor: float) -> None:
        time.sleep(0.05)  # what the client let go of reaches the scheduler with the next messages
        known.append(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
        sent.append(len(keys))

    def counted(*arguments: Any, **keywords: Any) -> Any:
        future = submit(*arguments, **keywords)
        keys.append(future.key)
        return future

    monkeypatch.setattr(client, "submit", counted)
    with Store.create(tmp_path / "film.zarr") as store:
        store.write("tilt_series/aligned", tilts, record=Record("small"), chunks={"tilt": 1})
        reconstruct_slabs(
            store, shape=(16, 16, 12), iterations=9, slabs=3, checkpoint_every=every, on_iteration=on_iteration
        )
    steps = np.diff(sent)
    within = np.arange(1, 9) % every != 0  # between two iterations without a checkpoint
    assert len(set(steps[within])) == 1 and steps[within][0] > 0
    assert len(set(steps[~within])) == 1
    assert max(known[-every:]) <= max(known[every : 2 * every]) + 2
    assert known[0] < known[every - 1]
    time.sleep(0.1)
    assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0
